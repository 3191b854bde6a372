"""How many requests may be under way at once in one process, and whom it turns away when there are too many.

Judged before a body is read: a request too many shall cost nothing but its refusal. Whoever waits for a person's sake
(`interactive`, the usual) may fill the room; whoever said that it can wait (`batch`) must leave the last fifth free.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from proxy.errors import ProxyError
from proxy.metrics import Counter

# 5000 streams are 100 MB (20 KiB each) and, at 20 events a second and 10 us each (loadtests/README.md), one core: any
# more would only make all of them slower.
MOST: Final = 5000
# Files that are no stream's: the log, listeners, probes, kept connections, clients that are just being turned away.
_OTHER_FILES: Final = 200
# By then some of what is under way has ended; SDKs double it at every try.
_RETRY_S: Final = 1.0


class Inside(Protocol):
    """A request under way that has no task yet."""

    def task(self) -> asyncio.Task[None]:
        """Give it one, which begins in the next turn of the event loop."""
        ...

    def cancel(self) -> object:
        """Break it off."""
        ...


class Room:
    """`inside` are the requests under way, most of them tasks: bodies still coming in count, GETs do not.

    At most `most` of them, and a batch request comes in only while there are fewer than `batch_most`.
    """

    __slots__ = ("_shed", "batch_most", "inside", "most")

    def __init__(self, most: int, shed: Counter) -> None:
        self.inside: set[asyncio.Task[Any] | Inside] = set()
        self.most = most
        self.batch_most = max(1, most * 4 // 5)
        self._shed = shed

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Return the tasks of all that are inside, one for each."""
        return [one if isinstance(one, asyncio.Task) else one.task() for one in list(self.inside)]

    def full(self, *, batch: bool) -> bool:
        """Say whether one more request would be too many."""
        return len(self.inside) >= (self.batch_most if batch else self.most)

    def refusal(self, *, batch: bool) -> ProxyError:
        """Count a request that was one too many, and return what it is told."""
        self._shed.add(("batch" if batch else "interactive",))
        text = (
            f"the sidecar has {len(self.inside)} requests under way, and takes no more{' batch' if batch else ''} now"
        )
        kind = "service_unavailable_error"
        return ProxyError(text, status=503, type=kind, code="overloaded", retry_after_s=_RETRY_S)

    @contextmanager
    def entered(self, *, batch: bool) -> Iterator[None]:
        """Count the running task as inside while this is open. Raises ProxyError 503 when the room is full."""
        if self.full(batch=batch):
            raise self.refusal(batch=batch)
        task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # a handler always runs in one
        self.inside.add(task)
        try:
            yield
        finally:
            self.inside.discard(task)


def most_for(files: int) -> int:
    """Return how many requests a process may have under way that can open `files` files: two for each."""
    return min(MOST, max(1, (files - _OTHER_FILES) // 2))
