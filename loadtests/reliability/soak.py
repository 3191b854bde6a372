"""L3, L4: what a long mixed load leaves behind. Memory, tasks, objects and files come back to where they were."""

import asyncio
import random
import time
from collections import Counter
from typing import Final, NamedTuple

import uvloop

from loadtests.reliability.bed import MODEL, Bed, Peak, bed, wait_until, watched
from loadtests.reliability.client import Client, Outcome, in_turn, together
from loadtests.reliability.figure import Line, Settings, at_least, at_most, exactly, told
from loadtests.reliability.inside import Snapshot, look_inside
from loadtests.reliability.judge import Kind, Tally, tally
from loadtests.reliability.script import Script

_RATE: Final = 60
_STREAMS: Final = 0.7
_FAULTS: Final = 0.05
_ABORTS: Final = 0.05
_FAULT_KINDS: Final = ("500", "529", "reset", "malformed", "cut-0")
_WARM_S: Final = 60.0
_GROWTH: Final = 1.05
_MIB_A_MINUTE: Final = 1.0
# Kept connections to upstreams are closed after 15 s idle; the client closes its own.
_QUIET_S: Final = 20.0
_SPARE_FILES: Final = 5


class Soaked(NamedTuple):
    """`left` counts requests that the client gave up on purpose."""

    answers: Tally
    left: int
    peak: Peak
    began: float


def soak(settings: Settings) -> list[Line]:
    """L3: 60 requests a second, 70 % streams, 5 % faults, 5 % clients that leave."""
    seconds = settings.time(settings.seconds, 4.0)
    quiet_s = _QUIET_S if settings.scale >= 1 else 1.0
    with bed(inside=True) as it:
        uvloop.run(_soak(it, 1.0))  # whatever is made once
        time.sleep(quiet_s)
        before = look_inside(it)
        soaked = uvloop.run(_soak(it, seconds))
        time.sleep(quiet_s)
        after = look_inside(it)
        answers = soaked.answers
        return [
            exactly("answers that are right", answers.total, answers.kinds[Kind.RIGHT]),
            told("answers; clients that left", f"{answers}; {soaked.left}"),
            *_memory(soaked, min(_WARM_S, seconds / 4)),
            *_alive(before, after),
            exactly("open at the upstream afterwards", 0, it.upstream.journal()["open"]),
            exactly("faults in the log", 0, it.events()["fault"]),
        ]


async def _soak(it: Bed, seconds: float) -> Soaked:
    client, loop = Client(it.port, MODEL), asyncio.get_running_loop()
    began = time.monotonic()
    tasks = list[asyncio.Task[Outcome]]()
    left = 0
    async with watched(it.sidecar, min(1.0, seconds / 20)) as peak:
        for number in range(round(_RATE * seconds)):
            await asyncio.sleep(max(0.0, began + number / _RATE - time.monotonic()))
            script = _mixed()
            task = loop.create_task(client.ask(script))
            tasks.append(task)
            if script.stream and random.random() < _ABORTS / _STREAMS:
                loop.call_later(random.uniform(0.01, 0.4), task.cancel)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    client.close()
    right = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    left = sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    return Soaked(tally(right), left, peak, began)


def _mixed() -> Script:
    stream = random.random() < _STREAMS
    fault = random.choice(_FAULT_KINDS) if random.random() < _FAULTS else ""
    return Script.new(stream=stream, events=20, gap=0.05 if stream else 0.0, wait=0.05, fault=fault)


def _memory(soaked: Soaked, warm_s: float) -> list[Line]:
    seen = [(at - soaked.began, mb) for at, mb in soaked.peak.seen if at - soaked.began >= warm_s]
    warm, end = seen[0][1], seen[-1][1]
    line = at_most("RSS at the end, of that after warming up", _GROWTH, round(end / warm, 3))
    minutes = (seen[-1][0] - seen[0][0]) / 60
    lines = [line, told("RSS after warming up, at the end", f"{warm:.1f}, {end:.1f} MiB")]
    if minutes < 1:  # one more page would be a slope
        return [*lines, told("slope of the RSS", "too short a time")]
    return [*lines, at_most("slope of the RSS", _MIB_A_MINUTE, round(slope(seen) * 60, 3), " MiB/min")]


def slope(points: list[tuple[float, float]]) -> float:
    """Return the slope of the line that fits `points` best, by least squares."""
    x_mean = sum(x for x, _ in points) / len(points)
    y_mean = sum(y for _, y in points) / len(points)
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / spread if spread else 0.0


def _alive(before: Snapshot, after: Snapshot) -> list[Line]:
    more = Counter(after.objects)
    more.subtract(before.objects)
    grown = {name.rpartition(".")[2]: count for name, count in more.most_common(5) if count > 0}
    said = ", ".join(f"{count} {name}" for name, count in grown.items()) or "none"
    return [
        at_most("tasks afterwards", before.tasks, after.tasks),
        Line("objects of the product more than before", "none", said, not grown),
    ]


def files(settings: Settings) -> list[Line]:
    """L4: streams, complete answers, faults and clients that leave; then all files are closed again."""
    count = settings.count(500)
    with bed() as it:
        baseline = it.sidecar.usage().files
        answers, most = uvloop.run(_burst(it, count))
        back = lambda: abs(it.sidecar.usage().files - baseline) <= _SPARE_FILES  # noqa: E731
        took_s = wait_until(back, _QUIET_S + 5)
        return [
            exactly("answers that are right", answers.total, answers.kinds[Kind.RIGHT]),
            at_least("open files, the most", baseline + count // 2, most),
            at_most(f"open files afterwards ({baseline} before)", baseline + _SPARE_FILES, it.sidecar.usage().files),
            at_most("back after", _QUIET_S, round(took_s or _QUIET_S + 5, 1), " s"),
        ]


async def _burst(it: Bed, count: int) -> tuple[Tally, int]:
    client, loop = Client(it.port, MODEL), asyncio.get_running_loop()
    leaving = [loop.create_task(client.ask(Script.new(events=100, gap=0.1))) for _ in range(count // 5)]
    async with watched(it.sidecar, 0.2) as peak:
        streams = await together(client, [Script.new(events=10, gap=0.1) for _ in range(count)])
        plain = [Script.new(stream=False, fault="reset" if number % 10 == 0 else "") for number in range(2 * count)]
        outcomes = streams + await in_turn(client, plain, 20)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    client.close()
    return tally(outcomes), peak.files
