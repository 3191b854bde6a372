"""One try at one upstream, and the timers around it. An attempt is opened once and closed once, whatever happens."""

from collections.abc import Callable
from random import Random

import msgspec

from proxy.adapter import Rendered
from proxy.errors import UpstreamError
from proxy.log import Log
from proxy.metrics import Metrics
from proxy.policy import Timeouts
from proxy.transport import Transport
from proxy.upstream import Upstream
from proxy.wire import Usage


class Tools(msgspec.Struct, frozen=True, eq=False):
    """What every walk needs: sockets, a clock (monotonic seconds), a wall clock, counters, the log, chance."""

    transport: Transport
    metrics: Metrics
    log: Log
    clock: Callable[[], float]
    wall: Callable[[], float]
    random: Random = msgspec.field(default_factory=Random)


class Attempt:
    """One try at one upstream. Opened once, closed once; stats and metrics are written at the close."""

    __slots__ = ("_began", "_open", "_probe", "_tools", "credential", "dropped", "first_s", "upstream", "usage", "usd")

    def __init__(self, upstream: Upstream, rendered: Rendered, tools: Tools) -> None:
        self.upstream = upstream
        self.dropped = rendered.dropped
        self.usage: Usage | None = None
        self.usd: float | None = None
        self.first_s: float | None = None
        self._tools = tools
        self._began = tools.clock()
        self._probe = upstream.live.begin()
        self.credential = upstream.credential(self._began)
        self._open = True

    def speaks(self) -> None:
        """Note the first event with content. It is a probe's answer: a stream may go on for ten minutes."""
        now = self._tools.clock()
        self.first_s = now - self._began
        if self._probe:
            self._probe = False
            self.upstream.live.breaker.recovered(now)

    def close(self, error: BaseException | None) -> None:
        """Write the outcome down: None for an answer, UpstreamError for a fault, anything else for a client gone."""
        if not self._open:
            return
        self._open = False
        now = self._tools.clock()
        live, metrics, label = self.upstream.live, self._tools.metrics, self.upstream.label
        live.end(probe=self._probe)
        self.upstream.provider.gate.leave()
        if error is None:
            live.answered((now - self._began) * 1000, now, probe=self._probe)
            if self.first_s is not None:
                live.stats.first_token.add(self.first_s * 1000, now)
            metrics.attempts.add((label, "ok"))
        elif isinstance(error, UpstreamError):
            self.upstream.failed(error, now, self.credential.key, probe=self._probe)
            metrics.attempts.add((label, error.kind))
        else:
            metrics.attempts.add((label, "cancelled"))
        if self.usage is not None:
            self._bill(self.usage, now)

    def _bill(self, usage: Usage, now: float) -> None:
        label, metrics = self.upstream.label, self._tools.metrics
        metrics.tokens.add((label, "input"), usage.input)
        metrics.tokens.add((label, "output"), usage.output)
        self.usd = self.upstream.cost_usd(usage)
        if self.usd is None:
            metrics.unpriced.add((label,))
        else:
            metrics.usd.add((label,), self.usd)
            self.upstream.live.stats.spent(self.usd, usage.input + usage.output, now)


class Timing:
    """The ends of all waits of one request, in monotonic seconds."""

    __slots__ = ("_clock", "_first_s", "_total_by", "connect_s", "deadline", "first_by", "idle_s")

    def __init__(self, timeouts: Timeouts, clock: Callable[[], float], client_s: float | None, *, stream: bool) -> None:
        """Start now. `client_s` is how long the client waits: for a stream's next event, or for a whole answer."""
        self._clock = clock
        self.idle_s = timeouts.idle
        self._first_s = timeouts.first_event_s if stream else timeouts.answer_s
        self.connect_s = timeouts.connect
        began = clock()
        self._total_by = self.deadline = began + timeouts.total
        if client_s is not None:
            # A tenth earlier than it gives up: an error with a reason, or somebody else's answer, beats silence.
            self.deadline = min(self._total_by, began + 0.9 * client_s)
            if stream:
                self._first_s = min(self._first_s, 0.9 * client_s)
        self.first_by = self.deadline

    def start_attempt(self, now: float) -> None:
        """Start the timer of the first event (of a stream) or of the answer."""
        first_by = now + self._first_s
        self.first_by = first_by if first_by < self.deadline else self.deadline

    def speaks(self) -> None:
        """Note a stream's first content: the client has begun to read, and only `total` is left of its patience."""
        self.deadline = self._total_by

    def spent(self) -> bool:
        """Say whether the time for the whole request is over."""
        return self._clock() >= self.deadline - 0.001
