"""L8: policies change three times a second under load. Nobody notices, and every answer follows exactly one version."""

import asyncio
import re
import signal
import time
from typing import Final, NamedTuple

import uvloop

from loadtests.process import get
from loadtests.reliability.bed import MODEL, Bed, bed, wait_until
from loadtests.reliability.client import Client, Outcome, at_rate, together
from loadtests.reliability.figure import Line, Settings, at_least, exactly, told
from loadtests.reliability.judge import Kind, tally
from loadtests.reliability.script import Script

_RELOADS: Final = 100
_SECONDS: Final = 30.0
_RATE: Final = 100
_STREAMS: Final = 200
_VERSIONS: Final = 10
# Every fifth is one of these.
_INVALID: Final = ('strategy = "clairvoyant"', 'candidates = ["nobody/*"]', "strategy = ", "stratgy = 'cheapest'")
_EVERY: Final = 5
_MODEL: Final = '[[model]]\nprovider = "a"\nid = "v{number}"\nprice = {{ input = 1, output = 1 }}\n\n'
_SEEN_S: Final = 0.5
_LEAD_S: Final = 0.5
_GAP_S: Final = 0.25


class Written(NamedTuple):
    """When which valid version was on the disk and told to the sidecar."""

    at: float
    version: str


def reloads(settings: Settings) -> list[Line]:
    """L8: 100 reloads, 20 of them invalid, at 100 requests a second beside 200 open streams."""
    count, streams = settings.count(_RELOADS, 10), settings.count(_STREAMS, 10)
    seconds = settings.time(_SECONDS, 1.5)
    with bed() as it:
        _prepare(it)
        before = _counted(it)
        plain, opened, written = uvloop.run(_run(it, count, streams, seconds))
        after = _counted(it)
        found, kept = tally(plain), tally(opened)
        lines = [
            exactly("answers that are right", found.total, found.kinds[Kind.RIGHT]),
            exactly("open streams whole and byte-equal", streams, kept.kinds[Kind.RIGHT]),
            exactly("answers by a version that was not in force", 0, _strangers(plain + opened, written)),
            exactly("reloads counted ok", count - count // _EVERY, after["ok"] - before["ok"]),
            exactly("reloads counted invalid", count // _EVERY, after["invalid"] - before["invalid"]),
            at_least("versions that answered", min(_VERSIONS, len(written) - 1), len({_version(one) for one in plain})),
        ]
        if found.kinds[Kind.RIGHT] < found.total or kept.kinds[Kind.RIGHT] < streams:
            lines.append(told("answers; streams", f"{found}; {kept}"))
        return lines


def _prepare(it: Bed) -> None:
    """Give provider `a` a model for each version, and wait until the policy means the first."""
    catalog = it.directory / "policies" / "catalog.toml"
    more = "".join(_MODEL.format(number=number) for number in range(_VERSIONS))
    catalog.write_text(catalog.read_text() + more)
    generation = it.status()["generation"]
    _write(it, _policy("v0"))
    it.sidecar.signal(signal.SIGHUP)
    if wait_until(lambda: it.status()["generation"] > generation, 5.0) is None:
        raise RuntimeError("the sidecar does not reload")


def _policy(version: str) -> str:
    return f'strategy = "cheapest"\ncandidates = ["a/{version}"]\n'


def _write(it: Bed, text: str) -> None:
    new = it.directory / "new.toml"
    new.write_text(text)
    new.rename(it.directory / "policies" / f"{MODEL}.toml")


async def _run(it: Bed, count: int, streams: int, seconds: float) -> tuple[list[Outcome], list[Outcome], list[Written]]:
    client = Client(it.port, MODEL)
    written = [Written(time.monotonic(), "v0")]
    scripts = [Script.new(events=round((seconds + _LEAD_S + _SEEN_S) / _GAP_S) + 1, gap=_GAP_S) for _ in range(streams)]
    async with asyncio.TaskGroup() as group:
        opened = group.create_task(together(client, scripts))
        await asyncio.sleep(_LEAD_S)
        new = lambda number: Script.new(stream=number % 2 == 0, wait=0.02)  # noqa: E731
        plain = group.create_task(at_rate(client, _RATE, seconds, new))
        await _change(it, count, seconds, written)
    client.close()
    return plain.result(), opened.result(), written


async def _change(it: Bed, count: int, seconds: float, written: list[Written]) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number * seconds / count - loop.time()))
        if number % _EVERY == _EVERY - 1:
            _write(it, _INVALID[number // _EVERY % len(_INVALID)])
        else:
            version = f"v{len(written) % _VERSIONS}"
            written.append(Written(time.monotonic(), version))
            _write(it, _policy(version))
        it.sidecar.signal(signal.SIGHUP)
    await asyncio.sleep(_SEEN_S)


def _version(outcome: Outcome) -> str:
    return outcome.headers.get("x-sidecar-upstream", "").partition("/")[2]


def _strangers(outcomes: list[Outcome], written: list[Written]) -> int:
    """Count answers by a version that was not in force between the question and the answer's head."""
    ends = [one.at + _SEEN_S for one in written[1:]] + [float("inf")]
    spans = [(one.version, one.at, end) for one, end in zip(written, ends, strict=True)]

    def in_force(one: Outcome) -> bool:
        version, head = _version(one), one.began + one.head_s
        return any(version == name and begin <= head and one.began <= end for name, begin, end in spans)

    return sum(not in_force(one) for one in outcomes)


def _counted(it: Bed) -> dict[str, int]:
    text = get(f"http://127.0.0.1:{it.port}/metrics").decode()
    found = re.findall(r'^sidecar_reloads_total\{outcome="(\w+)"\} (\d+)', text, re.MULTILINE)
    return {"ok": 0, "invalid": 0} | {name: int(number) for name, number in found}
