"""`python -m loadtests.reliability.inside FILE serve ...`: a sidecar that writes down on SIGUSR1 what is alive in it.

Its event loop is asked for a turn every few milliseconds; what a turn comes late is the loop's lag. One that comes very
late counts for all that could have been asked for meanwhile: whoever comes at any moment waits so long. The product is
changed in one place: its `App` starts the clock, too.
"""

import asyncio
import gc
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec

from loadtests.reliability.bed import INSIDE, Bed, wait_until
from proxy.__main__ import main
from proxy.app import App
from proxy.commands import serve

_TICK_S: Final = 0.005
_ANSWER_S: Final = 20.0


class Snapshot(msgspec.Struct):
    """`tasks` of the event loop, the product's objects by type, and the loop's lag since the last snapshot, in ms.

    `own` is the lag without the time in which the process could have run, but others had the cores.
    """

    number: int
    tasks: int
    objects: dict[str, int]
    lag_p50_ms: float
    lag_p99_ms: float
    lag_max_ms: float
    own_p99_ms: float
    own_max_ms: float


class Lateness:
    """How late turns came, in tenths of a millisecond, counted: it must not grow with time, since memory is watched."""

    def __init__(self) -> None:
        self._times = Counter[int]()

    def add(self, late_s: float) -> None:
        """Count a turn, and those that it kept away."""
        self._times.update(round(10 * ms) for ms in lateness_ms(late_s))

    def percentile(self, share: float) -> float:
        """Return the percentile in ms; 0 for no turns, and for share 1 the most."""
        left = share * self._times.total()
        for tenths, times in sorted(self._times.items()):
            left -= times
            if left <= 0:
                return tenths / 10
        return 0.0


def lateness_ms(late_s: float) -> list[float]:
    """Return how late, in ms, a turn is that comes `late_s` late, and those that could have been due before it came."""
    return [(late_s - missed * _TICK_S) * 1000 for missed in range(1 + max(0, int(late_s / _TICK_S)))]


class Watched(App):
    """An app that can be looked into."""

    file: Path

    async def start(self) -> None:
        """Start, and start watching."""
        await super().start()
        self._loop = asyncio.get_running_loop()
        self._late, self._own = Lateness(), Lateness()
        self._schedstat = os.open("/proc/self/schedstat", os.O_RDONLY)
        self._number = 0
        self._loop.add_signal_handler(signal.SIGUSR1, self._write_down)
        self._wait()

    def _wait(self) -> None:
        self._waited_s = self._waited()
        self._due = time.monotonic() + _TICK_S  # uvloop's own clock counts milliseconds
        self._loop.call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        late_s = time.monotonic() - self._due
        self._late.add(late_s)
        self._own.add(max(0.0, late_s - self._waited() + self._waited_s))
        self._wait()

    def _waited(self) -> float:
        return int(os.pread(self._schedstat, 64, 0).split()[1]) / 1e9

    def _write_down(self) -> None:
        late, own = self._late, self._own
        self._late, self._own = Lateness(), Lateness()
        gc.collect()
        kinds = map(type, gc.get_objects())
        objects = Counter(f"{kind.__module__}.{kind.__name__}" for kind in kinds if kind.__module__.startswith("proxy"))
        self._number += 1
        lag = [late.percentile(0.5), late.percentile(0.99), late.percentile(1), own.percentile(0.99), own.percentile(1)]
        snapshot = Snapshot(self._number, len(asyncio.all_tasks(self._loop)), dict(objects), *lag)
        new = self.file.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(snapshot))
        new.rename(self.file)
        self._due, self._waited_s = time.monotonic(), self._waited()  # without the collector's time


def look_inside(it: Bed) -> Snapshot:
    """Return a fresh snapshot. Raises RuntimeError when none comes."""
    file = it.directory / INSIDE
    before = _read(file)
    it.sidecar.signal(signal.SIGUSR1)
    if wait_until(lambda: _read(file) != before, _ANSWER_S, 0.02) is None:
        raise RuntimeError("the sidecar writes nothing down")
    found = _read(file)
    assert found is not None
    return found


def _read(file: Path) -> Snapshot | None:
    data: Any = file.read_bytes() if file.exists() else None
    return msgspec.json.decode(data, type=Snapshot) if data else None


if __name__ == "__main__":
    Watched.file = Path(sys.argv[1])
    with patch.object(serve, "App", Watched):
        sys.exit(main(sys.argv[2:]))
