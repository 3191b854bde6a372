"""Memory that the workers of one `serve` share: who holds which place, how full the limits are, what each has counted.

It has no name in any file system, so it needs no disk and is gone with the last process. Its one lock is of the kind
that the kernel gives back when its holder dies. What stands here:

    names       the providers that have limits to share; a place, once given, stays that provider's
    levels      two leaky buckets (requests, tokens) per place, written under the lock
    in flight   one number per place and worker, written by that worker only
    pages       two per worker, so that a worker killed while it writes leaves the last whole one
"""

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Final

# So many provider names are shared over the life of one `serve`; the limits of any more hold per worker.
PLACES: Final = 256
# About 20 000 series. Memory is used up only as far as it is written to.
PAGE_BYTES: Final = 1 << 20
_WORD: Final = 8
_BUCKETS: Final = 2
# Per worker: which page is the last one, the length of each, whether its writer has died.
_HEADER: Final = 4
_DEAD: Final = 3


class Board:
    """Made once by the parent, before it forks. Raises OSError when there is no memory for it."""

    def __init__(self, workers: int, *, places: int = PLACES, page_bytes: int = PAGE_BYTES) -> None:
        self.workers = workers
        self.page_bytes = page_bytes
        words = places * (1 + 2 * _BUCKETS + workers) + workers * _HEADER
        self._pages_at = words * _WORD
        size = self._pages_at + workers * 2 * page_bytes
        self._file = os.memfd_create("llm-sidecar")
        os.ftruncate(self._file, size)
        self._memory = mmap.mmap(self._file, size)
        whole = memoryview(self._memory)[: self._pages_at]
        self._names = whole[: places * _WORD].cast("Q")
        numbers = whole[places * _WORD :].cast("d")
        levels, flying = places * 2 * _BUCKETS, places * workers
        self._levels = numbers[:levels]
        self._flying = numbers[levels : levels + flying]
        self._headers = numbers[levels + flying :]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep the other workers out: for a few lines that never wait. Two system calls."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def place(self, name: str) -> int | None:
        """Return the place of the provider `name`, the same in every worker; None when all are taken."""
        digest = int.from_bytes(blake2b(name.encode(), digest_size=_WORD).digest()) or 1  # 0 is a free place
        with self.lock():
            for place, holder in enumerate(self._names):
                if holder in (digest, 0):
                    self._names[place] = digest
                    return place
        return None

    def bucket(self, place: int, which: int, per_minute: float, clock: Callable[[], float]) -> "SharedBucket":
        """Return one of the buckets of `place`."""
        first = 2 * (place * _BUCKETS + which)
        return SharedBucket(self._levels[first : first + 2], per_minute, clock)

    def in_flight(self, place: int) -> "memoryview[float]":
        """Return how many attempts each worker has under way at `place`; each writes its own number only."""
        return self._flying[place * self.workers : (place + 1) * self.workers]

    def publish(self, worker: int, page: bytes) -> bool:
        """Show `page` to the others in place of the last one. False when it is too long; then the last one stays."""
        if len(page) > self.page_bytes:
            return False
        header = self._header(worker)
        with self.lock():
            turn = 1 - int(header[0])
            start = self._page(worker, turn)
            self._memory[start : start + len(page)] = page
            header[1 + turn] = len(page)
            header[0] = turn
            header[_DEAD] = 0
        return True

    def page(self, worker: int) -> tuple[bytes, bool]:
        """Return the last page of `worker`, empty when there was none, and whether its writer is alive."""
        header = self._header(worker)
        with self.lock():
            turn = int(header[0])
            start = self._page(worker, turn)
            return self._memory[start : start + int(header[1 + turn])], not header[_DEAD]

    def bury(self, worker: int) -> None:
        """Note that `worker` has died: it has nothing under way any more. What it has counted stays."""
        for place in range(len(self._names)):
            self.in_flight(place)[worker] = 0
        self._header(worker)[_DEAD] = 1

    def _header(self, worker: int) -> "memoryview[float]":
        return self._headers[worker * _HEADER : (worker + 1) * _HEADER]

    def _page(self, worker: int, turn: int) -> int:
        return self._pages_at + (2 * worker + turn) * self.page_bytes


class SharedBucket:
    """A leaky bucket as `gate.Bucket`, whose level all workers see.

    `clock` must be the same for all: monotonic seconds. `take` and `give_back` are called under the lock.
    """

    __slots__ = ("_cell", "_clock", "_per_s", "max_rate")

    def __init__(self, cell: "memoryview[float]", per_minute: float, clock: Callable[[], float]) -> None:
        self._cell = cell
        self._clock = clock
        self._per_s = per_minute / 60
        self.max_rate = per_minute

    def has_room(self, amount: float) -> bool:
        """Say whether `amount`, or all there can be, fits in now."""
        return self._level(self._clock()) + min(amount, self.max_rate) <= self.max_rate

    def take(self, amount: float) -> bool:
        """Take `amount`, or all there can be. Returns False, and takes nothing, when there is no room."""
        now, amount = self._clock(), min(amount, self.max_rate)
        level = self._level(now) + amount
        if level > self.max_rate:
            return False
        self._cell[0], self._cell[1] = level, now
        return True

    def give_back(self, amount: float) -> None:
        """Undo a `take` of just now."""
        self._cell[0] -= amount

    def _level(self, now: float) -> float:
        level, at = self._cell
        return max(0.0, level - (now - at) * self._per_s)
