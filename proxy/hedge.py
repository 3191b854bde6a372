"""Ask a second upstream when the first is late; the first to speak wins, the other is let go. Off unless a policy asks.

Late is later than 95 % of its answers lately, or of its first tokens for a stream. At most a share of the policy's
requests is hedged, so that a provider that turns slow for all does not double what everything costs.

    first   |-------- p95 ------------------------x  let go: its connection closes
    second                 |-------------- speaks -> client
"""

import asyncio
from copy import copy
from itertools import chain

from proxy.answers import Answer, StreamAnswer
from proxy.errors import OverloadedError, UpstreamError
from proxy.log import short
from proxy.router import Walk
from proxy.stats import LatencySketch
from proxy.upstream import Upstream

Task = asyncio.Task[Answer | StreamAnswer]


class HedgedWalk(Walk, eq=False):
    """A walk whose attempts may have a second one beside them."""

    async def _attempt(self, upstream: Upstream) -> Answer | StreamAnswer:
        """Return the first answer of `upstream` or, if that is late, of the next one. Raises what `upstream` did."""
        first, began = asyncio.create_task(self._twin()._fresh(upstream)), self.tools.clock()
        self.asking, sketch = upstream, self._sketch(upstream)
        tasks, kept = {first: upstream}, None
        try:
            await asyncio.wait(tasks, timeout=sketch.p95(began) / 1000)
            winner = first
            second = None if first.done() else self._second()
            if second is not None:
                tasks[asyncio.create_task(self._twin()._fresh(second))] = second
                winner = await self._first_of(tasks)
                if winner is not first:
                    # Its answer would have taken at least this long. Not to count that would make late ever earlier.
                    now = self.tools.clock()
                    sketch.add((now - began) * 1000, now)
            answer, kept = await winner, winner
            if isinstance(answer, StreamAnswer):
                self._timing.speaks()  # as its twin's has noted
            return answer
        finally:
            self.upstream_s += self.tools.clock() - began
            # Without a wait: a client that leaves just now must find every answer closed or in its hands.
            for task in tasks:
                if task is not kept:
                    task.cancel()
                    task.add_done_callback(_drop)

    async def _fresh(self, upstream: Upstream) -> Answer | StreamAnswer:
        """Make one attempt, in a task of its own; who has begun to rest since it was chosen is not asked."""
        rest = upstream.rest(now := self.tools.clock())
        if rest is not None:
            error = OverloadedError(f"{upstream.name}: {rest.reason(now)}", code="no_provider_available")
            error.unsent = True
            raise error
        return await super()._attempt(upstream)

    def _sketch(self, upstream: Upstream) -> LatencySketch:
        stats = upstream.live.stats
        return stats.first_token if self.request.stream else stats.latency

    def _second(self) -> Upstream | None:
        """Return who is asked beside a late upstream; None for nobody."""
        fallback, now = self.route.policy.fallback, self.tools.clock()
        if self.left or self.attempts + 2 > fallback.attempts or self._timing.spent():
            return None
        second = next((one for one in self._waiting if one.rest(now) is None), None)
        if second is not None and not self.route.budget.hedge(fallback.hedge):
            self._waiting = chain((second,), self._waiting)
            return None
        return second

    def _twin(self) -> "HedgedWalk":
        """Return a walk for one of two attempts at once: its timers, and the time it waits, are its own."""
        twin = copy(self)
        twin._timing = copy(self._timing)
        return twin

    async def _first_of(self, tasks: dict[Task, Upstream]) -> Task:
        """Return the first to answer. When there is none, the second's fault is noted and the first one is returned."""
        (late, _), (other, second) = tasks.items()
        running, faults = set(tasks), dict[Task, UpstreamError]()
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in (late, other):
                if task not in done:
                    continue
                error = task.exception()
                if not isinstance(error, UpstreamError):
                    self._won(tasks, task, faults)
                    return task
                faults[task] = error
        self._count(tasks[late], "none")
        self._lost(second, faults[other], None)
        return late

    def _won(self, tasks: dict[Task, Upstream], winner: Task, faults: dict[Task, UpstreamError]) -> None:
        """Write down how the race went. Whoever is let go was asked, too."""
        late = next(iter(tasks))
        self._count(tasks[late], "first" if winner is late else "second")
        for task, upstream in tasks.items():
            if task in faults:
                self._lost(upstream, faults[task], tasks[winner])
            elif task is not winner:
                self.attempts += 1

    def _lost(self, upstream: Upstream, error: UpstreamError, following: Upstream | None) -> None:
        self.failed.append((upstream, error))
        self.attempts += not error.unsent
        self._note(upstream, error, following, held=False)

    def _count(self, upstream: Upstream, winner: str) -> None:
        self.tools.metrics.hedges.add((upstream.label, winner))
        self.tools.log(
            "hedged",
            self.tools.wall(),
            request_id=self.request_id,
            policy=self.route.name,
            upstream=short(upstream.name),
            winner=winner,
        )


def _drop(task: Task) -> None:
    """Close what a task that was let go of has brought all the same."""
    if not task.cancelled() and task.exception() is None and isinstance(answer := task.result(), StreamAnswer):
        answer.close()
