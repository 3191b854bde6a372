"""L9, L10: how things end. SIGTERM under open streams, with time enough and without; clients that leave all at once."""

import asyncio
import signal
import time
from typing import Final, NamedTuple

import uvloop

from loadtests.reliability.bed import MODEL, Bed, bed, wait_until
from loadtests.reliability.client import Client, Outcome, at_rate, together
from loadtests.reliability.figure import Line, Settings, at_least, at_most, exactly, told
from loadtests.reliability.judge import Judged, Kind, judge, tally
from loadtests.reliability.script import Script

_STREAMS: Final = 200
_STREAM_S: Final = 8.0
_LONG_DRAIN_S: Final = 15.0
_LONG_EXIT_S: Final = 10.0
_SHORT_DRAIN_S: Final = 2.0
_SHORT_EXIT_S: Final = 4.0
_DELAY_S: Final = 2.0
_RATE: Final = 50
_GAP_S: Final = 0.2
_LEAVING: Final = 500
_CLOSED_S: Final = 1.0
_PATIENCE_S: Final = 10.0


class Ended(NamedTuple):
    """`streams` were open at SIGTERM, `waiting` were complete requests without an answer, `late` came after it."""

    streams: list[Outcome]
    waiting: list[Outcome]
    late: list[Outcome]
    exit_code: int | None
    exit_s: float


def drain(settings: Settings) -> list[Line]:
    """L9: 200 streams of 8 s; a drain of 15 s with a delay of 2 s, then another sidecar with a drain of 2 s."""
    return [*_long(settings), *_short(settings)]


def _long(settings: Settings) -> list[Line]:
    count, delay_s = settings.count(_STREAMS), settings.time(_DELAY_S, 0.5)
    stream_s = settings.time(_STREAM_S, 1.6)
    with bed("--drain-timeout", str(_LONG_DRAIN_S), "--drain-delay", str(delay_s)) as it:
        ended = uvloop.run(_terminate(it, count, stream_s, 0.8 * delay_s))
    streams, late = tally(ended.streams), tally(ended.late)
    return [
        exactly("drain 15 s: streams whole and byte-equal", count, streams.kinds[Kind.RIGHT]),
        exactly("drain 15 s: requests during the delay, right", late.total, late.kinds[Kind.RIGHT]),
        exactly("drain 15 s: exit code", 0, ended.exit_code),
        at_most("drain 15 s: exit after SIGTERM", _LONG_EXIT_S, round(ended.exit_s, 2), " s"),
    ]


def _short(settings: Settings) -> list[Line]:
    count, drain_s = settings.count(_STREAMS), settings.time(_SHORT_DRAIN_S, 0.5)
    with bed("--drain-timeout", str(drain_s)) as it:
        ended = uvloop.run(_terminate(it, count, _STREAM_S, 0.0))
        logged = [line for line in it.log() if line["event"] == "request"]
    streams = [judge(one) for one in ended.streams]
    waiting = [judge(one) for one in ended.waiting]
    refused = Judged(Kind.REFUSED, "503 shutting_down")
    lines = [
        exactly("drain 2 s: streams told shutting_down", count, streams.count(Judged(Kind.TOLD, "shutting_down"))),
        exactly("drain 2 s: ended as if complete", 0, sum(one.kind is Kind.RIGHT for one in streams)),
        exactly("drain 2 s: answers that waited, 503", len(waiting), waiting.count(refused)),
        exactly("drain 2 s: requests in the log", count + len(waiting), len(logged)),
        exactly("drain 2 s: exit code", 0, ended.exit_code),
        at_most("drain 2 s: exit after SIGTERM", _SHORT_EXIT_S, round(ended.exit_s, 2), " s"),
    ]
    if lines[0].good is False:
        lines.append(told("drain 2 s: streams", tally(ended.streams)))
    return lines


async def _terminate(it: Bed, count: int, stream_s: float, late_s: float) -> Ended:
    """Send SIGTERM while `count` streams and a tenth as many complete requests are open, and ask on for `late_s`."""
    client = Client(it.port, MODEL)
    scripts = [Script.new(events=round(stream_s / _GAP_S), gap=_GAP_S) for _ in range(count)]
    plain = [Script.new(stream=False, wait=stream_s) for _ in range(count // 10)]
    async with asyncio.TaskGroup() as group:
        streams = group.create_task(together(client, scripts))
        waiting = group.create_task(together(client, plain))
        await asyncio.to_thread(wait_until, lambda: _open(it) == len(scripts + plain), _PATIENCE_S)
        it.sidecar.signal(signal.SIGTERM)
        began = time.monotonic()
        exiting = group.create_task(asyncio.to_thread(it.sidecar.exit_code, 2 * _LONG_DRAIN_S))
        exiting.add_done_callback(lambda _: ends.append(time.monotonic()))
        ends: list[float] = []
        late = await at_rate(client, _RATE, late_s, lambda number: Script.new(stream=number % 2 == 0, wait=0.02))
    client.close()
    return Ended(streams.result(), waiting.result(), late, exiting.result(), ends[0] - began)


def leave(settings: Settings) -> list[Line]:
    """L10: 500 clients leave in one moment: in the middle of streams, and before the first byte."""
    count = settings.count(_LEAVING)
    with bed() as it:
        opened, took_s = uvloop.run(_leave(it, count))
        wait_until(lambda: _left(it) >= count, 3.0)
        noise = [line for line in it.sidecar.log.read_bytes().splitlines() if b"Traceback" in line or b"ERROR" in line]
        return [
            at_least("open at the upstream before", count, opened),
            at_most("all closed there after", _CLOSED_S, round(took_s, 2), " s"),
            exactly("in flight", 0, it.status()["in_flight"]),
            exactly("requests with status 499 in the log", count, _left(it)),
            exactly("faults and tracebacks in the log", 0, len(noise) + it.events()["fault"]),
        ]


async def _leave(it: Bed, count: int) -> tuple[int, float]:
    client, loop = Client(it.port, MODEL), asyncio.get_running_loop()
    speaking = [Script.new(events=300, gap=0.1) for _ in range(count - count // 2)]
    silent = [Script.new(stream=number % 2 == 0, wait=30) for number in range(count // 2)]
    tasks = [loop.create_task(client.ask(script)) for script in speaking + silent]
    await asyncio.to_thread(wait_until, lambda: _open(it) == count, _PATIENCE_S)
    most = await asyncio.to_thread(_open, it)
    for task in tasks:
        task.cancel()
    began = time.monotonic()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(wait_until, lambda: _open(it) == 0, _PATIENCE_S, 0.02)
    return most, time.monotonic() - began


def _open(it: Bed) -> int:
    return int(it.upstream.journal()["open"])


def _left(it: Bed) -> int:
    """Return how many requests the log ends with 499: the client left."""
    return sum(line.get("status") == 499 for line in it.log())
