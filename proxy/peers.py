"""What one worker tells the others of itself, and what it knows of them: limits and counters hold for all together.

A single process is `Alone`, and pays for none of this. Live numbers and rests stay each worker's own: they are guesses
about an upstream, and every worker makes them quickly enough.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import nullcontext
from typing import NamedTuple

import msgspec

from proxy.board import Board
from proxy.gate import Gate
from proxy.metrics import Metrics, Snapshot
from proxy.policy import Limits, ProviderRow


class Totals(NamedTuple):
    """Numbers over all workers. `flying` is attempts under way by upstream, `visits` client requests under way."""

    metrics: Metrics
    flying: Mapping[str, int]
    visits: int


class Alone:
    """A process without others. `visits` is what it has under way; only its length is looked at."""

    worker = 0
    workers = 1

    def __init__(self) -> None:
        self.visits: Collection[object] = ()

    def gate(self, row: ProviderRow) -> Gate:
        """Return the limits of a provider."""
        return Gate(row.limits)

    def resume(self, metrics: Metrics) -> None:
        """Go on from the numbers of the worker whose place this one has taken."""

    def publish(self, metrics: Metrics, flying: Mapping[str, int]) -> None:
        """Show the others what was counted and what is under way."""

    def totals(self, metrics: Metrics, flying: Mapping[str, int]) -> Totals:
        """Return the numbers of all workers, this one's among them."""
        return Totals(metrics, flying, len(self.visits))


class Peers(Alone):
    """One worker among others."""

    def __init__(self, board: Board, worker: int) -> None:
        super().__init__()
        self.worker = worker
        self.workers = board.workers
        self._board = board

    def gate(self, row: ProviderRow) -> Gate:
        """Return the limits of a provider, over all workers as long as the board has a place for it."""
        place = self._board.place(row.name)
        return Gate(row.limits) if place is None else SharedGate(row.limits, self._board, place, self.worker)

    def resume(self, metrics: Metrics) -> None:
        """Go on from the numbers of the worker whose place this one has taken: no counter may fall."""
        for snapshot in self._read([self.worker]):
            metrics.take_in(snapshot)

    def publish(self, metrics: Metrics, flying: Mapping[str, int]) -> None:
        """Show the others what was counted and what is under way."""
        snapshot = metrics.snapshot(flying, len(self.visits))
        self._board.publish(self.worker, msgspec.msgpack.encode(snapshot))

    def totals(self, metrics: Metrics, flying: Mapping[str, int]) -> Totals:
        """Return the numbers of all workers: this one's as they are, the others' as they last showed them."""
        # Shown before they are told: whoever answers next has at least these, so no counter falls between two answers.
        self.publish(metrics, flying)
        whole, visits, sums = Metrics(), len(self.visits), dict(flying)
        whole.take_in(metrics.snapshot({}, 0))
        for snapshot in self._read(number for number in range(self.workers) if number != self.worker):
            whole.take_in(snapshot)
            visits += snapshot.visits
            for upstream, count in snapshot.flying.items():
                sums[upstream] = sums.get(upstream, 0) + count
        return Totals(whole, sums, visits)

    def _read(self, workers: Collection[int] | Iterator[int]) -> Iterator[Snapshot]:
        for worker in workers:
            page, alive = self._board.page(worker)
            if page:
                snapshot = msgspec.msgpack.decode(page, type=Snapshot)
                yield snapshot if alive else msgspec.structs.replace(snapshot, flying={}, visits=0)


class SharedGate(Gate):
    """The limits of one provider over all workers. A reload that changes them keeps what is used up of them."""

    __slots__ = ("_everywhere", "_lock", "_worker")

    def __init__(self, limits: Limits, board: Board, place: int, worker: int) -> None:
        super().__init__(limits)
        self._everywhere = board.in_flight(place)
        self._worker = worker
        self._lock = nullcontext if limits == Limits() else board.lock
        if limits.rpm:
            self._requests = board.bucket(place, 0, limits.rpm, time.monotonic)
        if limits.tpm:
            self._tokens = board.bucket(place, 1, limits.tpm, time.monotonic)

    def total(self) -> int:
        """Return how many attempts are under way, in all workers."""
        return int(sum(self._everywhere))

    def refuses(self, tokens: int) -> str | None:
        """Return which limit an attempt of `tokens` would break; None when there is room."""
        self.in_flight = self.total()
        return super().refuses(tokens)

    def enter(self, tokens: int) -> None:
        """Take a place, at once. Raises RateLimitError with `unsent` when there is none."""
        # Looking and taking are one step: two workers cannot both have the last place.
        with self._lock():
            self.in_flight = self.total()
            super().enter(tokens)
            self._everywhere[self._worker] += 1

    def leave(self) -> None:
        """Give the place back. Called exactly once per `enter`."""
        self._everywhere[self._worker] -= 1
