"""The contract's bounds in time and memory, one fault each: F1, F36 and F23 of docs/faults.md.

A unit test can say that nothing is waited for, by the fastest of a few; here is how long it takes.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import uvloop

from loadtests.process import Process, free_port
from loadtests.reliability.figure import Line, Settings, at_most, exactly, told
from loadtests.reliability.wall import Answer, ask, gateway, wall
from loadtests.report import percentile

_REFUSED_MS: Final = 200.0
_ADDED_MS: Final = 100.0
_RESTING_MS: Final = 5.0
_HUGE_MIB: Final = 2.0
_TRIPS: Final = 5
_WARM: Final = 20
# So many requests find an upstream resting before it is tried again, a second after its fall.
_IN_A_REST: Final = 20
_ONE: Final = "price = { input = 1, output = 1 }\n"
_FALL: Final = 'strategy = "cheapest"\ncandidates = ["gone/{}", "wall/echo"]\n'


def bounds(settings: Settings) -> list[Line]:
    """Ask each upstream that is gone once: after five faults it would rest."""
    count = settings.count(200, 20)
    with TemporaryDirectory() as name, wall(Path(name) / "wall.log") as it:
        rows = f'[[provider]]\nname = "wall"\nbase_url = "http://127.0.0.1:{it.port}/v1"\n'
        rows += f'[[provider]]\nname = "gone"\nbase_url = "http://127.0.0.1:{free_port()}/v1"\n'
        rows += "".join(f'[[model]]\nprovider = "gone"\nid = "{number}"\n{_ONE}' for number in range(3 * count))
        rows += '[[model]]\nprovider = "wall"\nid = "echo"\nprice = { input = 2, output = 2 }\n'
        files = {"catalog": rows, **{f"p{number}": _FALL.format(number) for number in range(count, 2 * count)}}
        with gateway(Path(name), files) as (process, port):
            return uvloop.run(_measure(process, port, count))


async def _measure(process: Process, port: int, count: int) -> list[Line]:
    async def one(model: str, *, stream: bool = False, late_s: float = 10.0) -> Answer:
        return await ask(port, model, "one two three", stream=stream, late_s=late_s)

    for _ in range(_WARM):
        await one("wall/echo")
    plain = [await one("wall/echo") for _ in range(count)]
    alone = [await one(f"gone/{number}") for number in range(count)]
    fell = [await one(f"p{number}") for number in range(count, 2 * count)]
    resting = await _resting(one, count)
    usual_ms = percentile(_ms(plain), 0.5)
    return [
        *_about("F1, nobody listens", alone, 502, _REFUSED_MS, 0.0),
        *_about("F1, a fallback answers: added", fell, 200, _ADDED_MS, usual_ms),
        *_about("F36, all rest", resting, 503, _RESTING_MS, 0.0),
        told("nothing is wrong: p50; p99", f"{usual_ms:.2g}; {percentile(_ms(plain), 0.99):.2g} ms"),
        *await _huge(process, one),
    ]


async def _resting(one: Callable[[str], Awaitable[Answer]], count: int) -> list[Answer]:
    """Return what came while the asked upstream rested: each is tripped, and then asked for less than its second."""
    found: list[Answer] = []
    number = 2 * count
    while len(found) < count:
        for _ in range(_TRIPS):
            await one(f"gone/{number}")
        found += [await one(f"gone/{number}") for _ in range(_IN_A_REST)]
        number += 1
    return found


async def _huge(process: Process, one: Callable[..., Awaitable[Answer]]) -> list[Line]:
    """What 100 MB of events take, once a stream like it has warmed everything up. Our own copy is no part of it."""
    await one("wall/fault/huge", stream=True, late_s=0.2)
    process.forget_peak()
    before = process.usage().peak_mb
    answer = await one("wall/fault/huge", stream=True, late_s=60.0)
    grown = process.usage().peak_mb - before
    return [
        exactly("F23, 100 MB of events: passed on to the end", "whole", answer.end),
        at_most("F23, 100 MB of events: more resident memory", _HUGE_MIB, round(grown, 2), " MiB"),
    ]


def _about(what: str, answers: list[Answer], status: int, bar_ms: float, usual_ms: float) -> list[Line]:
    right = sum(one.status == status and one.end == "whole" for one in answers)
    took = _ms(answers)
    p50, p99 = (percentile(took, share) - usual_ms for share in (0.5, 0.99))
    return [
        exactly(f"{what}: {status}", len(answers), right),
        at_most(f"{what}: p99", bar_ms, round(p99, 2), " ms"),
        told(f"{what}: p50; most", f"{p50:.2g}; {max(took) - usual_ms:.2g} ms"),
    ]


def _ms(answers: list[Answer]) -> list[float]:
    return [1000 * one.total_s for one in answers]
