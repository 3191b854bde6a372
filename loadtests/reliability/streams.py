"""L1, L2, L13: many streams at once. All whole and byte-equal; memory, files and the event loop's lag bounded."""

from typing import Final

import uvloop

from loadtests.reliability.bed import MODEL, Bed, Peak, allow_files, bed, watched
from loadtests.reliability.client import Client, together
from loadtests.reliability.figure import Line, Settings, at_least, at_most, exactly, skipped, told
from loadtests.reliability.inside import look_inside
from loadtests.reliability.judge import Kind, Tally, tally
from loadtests.reliability.script import Script

_RSS_MIB: Final = 150
_SPARE_FILES: Final = 150
_KIB_A_STREAM: Final = 64
_LAG_P99_MS: Final = 50
_LAG_MAX_MS: Final = 250
_BODY: Final = 1 << 20
# One more every ten milliseconds: more than two cores can generate, pass on and play without a queue.
_BODIES_A_SECOND: Final = 100


def thousand(settings: Settings) -> list[Line]:
    """L1: 1000 streams of 40 events, all begun at once."""
    count = settings.count(1000)
    allow_files(2 * count + 1024)
    with bed() as it:
        found, peak = _streams(it, count, events=40, gap=0.1 if settings.scale >= 1 else 0.02)
        return [*_all_right(it, count, found), *_bounded(it, count, peak)]


def five_thousand(settings: Settings) -> list[Line]:
    """L2: 5000 streams of 20 events a second apart: cold and all at once, then again."""
    count = settings.count(5000)
    gap = 1.0 if settings.scale >= 1 else 0.04
    if not allow_files(2 * count + 1024):
        return [skipped(f"open files are limited to less than {2 * count + 1024}")]
    with bed() as it:
        before = it.sidecar.usage().rss_mb
        cold, peak = _streams(it, count, events=20, gap=gap)
        warm, _ = _streams(it, count, events=20, gap=gap)
        kib = (peak.rss_mb - before) * 1024 / count
        lines = [
            exactly("cold, all at once: whole and byte-equal", count, cold.kinds[Kind.RIGHT]),
            exactly("warm: whole and byte-equal", count, warm.kinds[Kind.RIGHT]),
            at_most("resident memory per stream", _KIB_A_STREAM, round(kib, 1), " KiB"),
            told("at once, at the upstream", it.upstream.journal()["most_open"]),
        ]
        return lines + [told("answers", found) for found in (cold, warm) if found.kinds[Kind.RIGHT] < count]


def large_bodies(settings: Settings) -> list[Line]:
    """L13: as L1, with requests of 1 MiB: as fast as the machine can bring them, then at a quarter of that."""
    count = settings.count(1000)
    allow_files(2 * count + 1024)
    return [*_large(count, _BODIES_A_SECOND), *_large(max(4, count // 4), _BODIES_A_SECOND // 4)]


def _large(count: int, rate: int) -> list[Line]:
    """Begin `count` streams at `rate` a second; all are open when the last has begun."""
    with bed(inside=True) as it:
        look_inside(it)
        found, peak = _streams(it, count, events=40, gap=max(0.05, count / rate / 30), size=_BODY, over_s=count / rate)
        inside = look_inside(it)
        lines = [
            *_all_right(it, count, found),
            at_most("event loop's lag, p99", _LAG_P99_MS, round(inside.lag_p99_ms, 1), " ms"),
            at_most("event loop's lag, most", _LAG_MAX_MS, round(inside.lag_max_ms, 1), " ms"),
            told("lag but for waiting for a core, p99; most", f"{inside.own_p99_ms:.1f}; {inside.own_max_ms:.1f} ms"),
            told("lag, median; RSS, the highest", f"{inside.lag_p50_ms:.1f} ms; {peak.rss_mb:.0f} MiB"),
        ]
    return [line._replace(what=f"{rate} a second: {line.what}") for line in lines]


def _streams(it: Bed, count: int, *, events: int, gap: float, size: int = 0, over_s: float = 0.0) -> tuple[Tally, Peak]:
    scripts = [Script.new(events=events, gap=gap)._replace(size=size) for _ in range(count)]

    async def run() -> tuple[Tally, Peak]:
        client = Client(it.port, MODEL, late_s=120.0)
        async with watched(it.sidecar) as peak:
            outcomes = await together(client, scripts, over_s)
        client.close()
        return tally(outcomes), peak

    return uvloop.run(run())


def _all_right(it: Bed, count: int, found: Tally) -> list[Line]:
    crossed = sum(times for why, times in found.whys.items() if "crossed" in why)
    lines = [
        exactly("whole and byte-equal", count, found.kinds[Kind.RIGHT]),
        exactly("crossed", 0, crossed),
        at_least("at once, at the upstream", round(0.9 * count), it.upstream.journal()["most_open"]),
        exactly("in flight afterwards", 0, it.status()["in_flight"]),
    ]
    return lines if found.kinds[Kind.RIGHT] == count else [*lines, told("answers", found)]


def _bounded(it: Bed, count: int, peak: Peak) -> list[Line]:
    return [
        at_most("RSS, the highest", _RSS_MIB, round(it.sidecar.usage().peak_mb, 1), " MiB"),
        at_most("open files", 2 * count + _SPARE_FILES, peak.files),
    ]
