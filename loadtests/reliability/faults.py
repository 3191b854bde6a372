"""L5: a fifth of the requests meets a fault at its first attempt. Nobody may notice, nothing may be lost or doubled.

Which fifth is drawn: a fault for each fifth in turn would fall in step with the share that a recovering upstream gets.
"""

import random
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import uvloop

from loadtests.process import Process, free_port
from loadtests.reliability.bed import MODEL, PROVIDERS, Bed, Upstream, bed, upstream
from loadtests.reliability.client import Client, Outcome, in_turn
from loadtests.reliability.figure import Line, Settings, at_least, at_most, exactly, told
from loadtests.reliability.judge import Judged, Kind, Tally, judge, judge_words, tally
from loadtests.reliability.script import Script

_EVERY: Final = 5
_SEED: Final = 5
_SUCCESS: Final = 0.999
_ATTEMPTS: Final = 1.25
# Fewer than a fifth where the sidecar turns to the provider that is sound.
_MET: Final = 0.1
_HANDS: Final = 64
# Before the first content, so that a fallback is allowed. No 429 and no Retry-After: they would rest the upstream, and
# then it meets no more faults.
BEFORE: Final = (
    "500",
    "502",
    "503",
    "529",
    "html",
    "malformed",
    "half",
    "close",
    "reset",
    "cut-0",
    "end-0",
    "garbage-0",
)
# Behind it, where only an error event is left.
BEHIND: Final = ("cut", "end", "garbage", "error", "stall")
_EVENTS: Final = 6
_IDLE_S: Final = 2.0
# LiteLLM takes some 20 ms of CPU a request.
_LITELLM_COUNT: Final = 500
_LITELLM_HANDS: Final = 8
_LITELLM: Final = """model_list:
{models}litellm_settings:
  telemetry: false
  num_retries: 2
  request_timeout: 10
router_settings:
  allowed_fails: 1000000
  disable_cooldowns: true
general_settings:
  dangerously_permit_weak_or_unset_master_key: true
"""
_LITELLM_MODEL: Final = """  - model_name: {model}
    litellm_params:
      model: openai/{name}1
      api_base: http://127.0.0.1:{port}/{name}/v1
      api_key: none
"""
_LITELLM_START_S: Final = 120.0


def faults(settings: Settings) -> list[Line]:
    """L5: 10 000 requests, half of them streams, a fault for a fifth; then faults in mid-stream, and everywhere."""
    lines = [*_fall_back(settings), *_mid_stream(settings), *_everywhere(settings)]
    return [*lines, *_through_litellm(settings)]


def _fall_back(settings: Settings) -> list[Line]:
    """The last of four providers is sound; the first that is asked has the fault, and the second answers.

    Then none is sound: at this rate five faults in a row come by chance, and sooner or later trip all four.
    """
    count = settings.count(10_000, 50)
    with bed(providers=PROVIDERS, first_s=10, idle_s=_IDLE_S) as it:
        it.upstream.control("sound", PROVIDERS[-1])
        found = _ask(it.port, scripts(count), _HANDS, judge)
        lines = [*_lines(it.upstream.journal(), count, found), *_still(it)]
    with bed(providers=PROVIDERS, first_s=10, idle_s=_IDLE_S) as it:
        found = _ask(it.port, scripts(count), _HANDS, judge)
        lines.append(exactly("no provider sound: right or a well-formed error", count, _well(found)))
        return [*lines, told("no provider sound: answers", found), *_still(it)]


def _mid_stream(settings: Settings) -> list[Line]:
    broken = settings.count(1000, 20)
    with bed(providers=PROVIDERS, first_s=10, idle_s=_IDLE_S) as it:
        found = _ask(it.port, _fifth_broken(broken), _HANDS, judge)
        lines = [
            exactly("faults in mid-stream: right so far, then an error event", broken, found.kinds[Kind.TOLD]),
            exactly("streams beside them, right", (_EVERY - 1) * broken, found.kinds[Kind.RIGHT]),
            told("answers in mid-stream", found),
        ]
        return [*lines, *_still(it)]


def _everywhere(settings: Settings) -> list[Line]:
    """Every fifth request fails wherever it goes: upstreams trip, and those beside it may be refused, too, but well."""
    hopeless = settings.count(200, 12)
    with bed(providers=PROVIDERS, first_s=10, idle_s=_IDLE_S) as it:
        found = _ask(it.port, _fifth_hopeless(hopeless), _HANDS, judge)
        lines = [
            exactly("faults of every upstream: right or a well-formed error", found.total, _well(found)),
            at_least("faults of every upstream: told so", hopeless, found.kinds[Kind.REFUSED]),
            told("answers", found),
        ]
        return [*lines, *_still(it)]


def _well(found: Tally) -> int:
    return found.kinds[Kind.RIGHT] + found.kinds[Kind.REFUSED]


def _still(it: Bed) -> list[Line]:
    return [
        exactly("still in flight", 0, it.status()["in_flight"]),
        exactly("faults of its own in the log", 0, it.events()["fault"]),
    ]


def scripts(count: int) -> list[Script]:
    """Return `count` scripts: every other a stream, a fifth with a fault, all kinds of them in both modes."""
    drawn, kinds = set(_fifth(count)), cycle(BEFORE)
    return [
        Script.new(stream=number % 2 == 0, events=_EVENTS, fault=next(kinds) if number in drawn else "")
        for number in range(count)
    ]


def _fifth(count: int) -> list[int]:
    """Return a fifth of the numbers below `count`, the same ones in each run."""
    return random.Random(_SEED).sample(range(count), count // _EVERY)


def _fifth_hopeless(hopeless: int) -> list[Script]:
    """Return requests of which `hopeless` meet their fault wherever they go."""
    return [script._replace(faulty=99) for script in scripts(_EVERY * hopeless)]


def _fifth_broken(broken: int) -> list[Script]:
    """Return streams of which `broken` break. More than a fifth, and the sidecar would take them for an outage."""
    drawn = {number: place for place, number in enumerate(_fifth(_EVERY * broken))}
    return [
        _broken(drawn[number]) if number in drawn else Script.new(events=_EVENTS) for number in range(_EVERY * broken)
    ]


def _broken(number: int) -> Script:
    """Return a stream that breaks behind 1 to 5 content events, in each of the ways in turn."""
    kind, after = BEHIND[number % len(BEHIND)], number // len(BEHIND) % (_EVENTS - 1) + 1
    return Script.new(events=_EVENTS, fault=f"{kind}-{after}")


def _ask(port: int, asked: list[Script], hands: int, judged_by: Callable[[Outcome], Judged]) -> Tally:
    async def run() -> list[Outcome]:
        client = Client(port, MODEL)
        outcomes = await in_turn(client, asked, hands)
        client.close()
        return outcomes

    return tally(uvloop.run(run()), judged_by)


def _lines(journal: dict[str, Any], count: int, found: Tally) -> list[Line]:
    met = sum(journal["played"].values())
    return [
        exactly("terminal outcomes", count, found.total),
        exactly("lost, crossed, cut or damaged", 0, found.kinds[Kind.WRONG]),
        exactly("answered twice by an upstream (nonce)", 0, journal["answered_twice"]),
        exactly("damaged on the way to an upstream", 0, journal["damaged"]),
        at_least("clients that got their right answer", _SUCCESS, round(found.kinds[Kind.RIGHT] / count, 5)),
        at_most("attempts per request", _ATTEMPTS, round(journal["attempts"] / count, 4)),
        at_least("requests that met a fault", _MET, round(met / count, 4)),
        told("answers", found),
    ]


def _through_litellm(settings: Settings) -> list[Line]:
    """Return the same through LiteLLM's proxy, retries on, over the same four providers. Only words are compared."""
    environment = settings.litellm
    if environment is None:
        return []
    count = settings.count(_LITELLM_COUNT, 50)
    with TemporaryDirectory() as name, upstream(Path(name)) as up:
        port, version = free_port(), litellm_version(environment)
        command = litellm_command(environment, _config(Path(name), up), port)
        with Process(command, Path(name) / "litellm.log") as process:
            process.wait_ready(f"http://127.0.0.1:{port}/health/liveliness", _LITELLM_START_S)
            up.control("sound", PROVIDERS[-1])
            before = _ask(port, scripts(count), _LITELLM_HANDS, judge_words)
            lines = _lines(up.journal(), count, before)
            broken = [_broken(number) for number in range(settings.count(100, 20)) if BEHIND[number % 5] != "stall"]
            middle = _ask(port, broken, _LITELLM_HANDS, judge_words)
    met = middle.total - middle.kinds[Kind.RIGHT]
    lines.append(exactly("faults in mid-stream: right so far, then an error event", met, middle.kinds[Kind.TOLD]))
    lines.append(told("answers in mid-stream", middle))
    # A comparison: what it misses does not fail the run.
    return [line._replace(what=f"LiteLLM {version}: {line.what}", good=None, bar=_said(line)) for line in lines]


def _said(line: Line) -> str:
    return f"{line.bar} ({'missed' if line.good is False else 'held'})" if line.bar else ""


def litellm_version(environment: Path) -> str:
    """Return the version of LiteLLM in a virtual environment."""
    found = sorted((environment / "lib").glob("python*/site-packages/litellm-*.dist-info"))
    return found[-1].name.removeprefix("litellm-").removesuffix(".dist-info") if found else "?"


def _config(directory: Path, up: Upstream) -> Path:
    models = [_LITELLM_MODEL.format(model=MODEL, name=name, port=up.port) for name in islice(PROVIDERS, 4)]
    config = directory / "litellm.yaml"
    config.write_text(_LITELLM.format(models="".join(models)))
    return config


def litellm_command(environment: Path, config: Path, port: int) -> list[str]:
    """Return how to start LiteLLM's proxy."""
    where = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    # Otherwise it asks the network for prices when it starts.
    program = ["env", "LITELLM_LOCAL_MODEL_COST_MAP=True", str(environment / "bin" / "litellm")]
    return [*program, "--config", str(config), *where]
