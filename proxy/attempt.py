"""One try at one upstream, and the timers around it. An attempt is opened once and closed once, whatever happens."""

from collections.abc import Callable
from random import Random

import msgspec

from proxy.adapter import Rendered
from proxy.ask import Ask
from proxy.errors import UpstreamError
from proxy.ledger import Entry, Ledger, Page
from proxy.log import Log, short
from proxy.metrics import Metrics
from proxy.policy import Timeouts
from proxy.transport import Transport
from proxy.upstream import Upstream
from proxy.wire import Usage


class Tools(msgspec.Struct, frozen=True, eq=False):
    """What every walk needs: sockets, a clock (monotonic seconds), a wall clock, counters, the log, chance, and a
    ledger where one is kept.
    """

    transport: Transport
    metrics: Metrics
    log: Log
    clock: Callable[[], float]
    wall: Callable[[], float]
    random: Random = msgspec.field(default_factory=Random)
    ledger: Ledger | None = None


class Attempt:
    """One try at one upstream. Opened once, closed once; stats and metrics are written at the close.

    `ask` is what the decision knew of the request.
    """

    __slots__ = (
        "_ask",
        "_began",
        "_entry",
        "_open",
        "_page",
        "_probe",
        "_tools",
        "answered",
        "credential",
        "dropped",
        "first_s",
        "upstream",
        "usage",
        "usd",
    )

    def __init__(
        self, upstream: Upstream, rendered: Rendered, tools: Tools, ask: Ask, page: Page | None = None
    ) -> None:
        self._ask = ask
        self.upstream = upstream
        self.dropped = rendered.dropped
        self.usage: Usage | None = None
        self.answered: str | None = None  # what the upstream calls itself
        self.usd: float | None = None
        self.first_s: float | None = None
        self._tools = tools
        self._began = tools.clock()
        self._probe = upstream.live.begin()
        self.credential = upstream.credential(self._began)
        self._open = True
        self._page = page
        self._entry = None if page is None else page.open(upstream.name, tools.wall())

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
        if error is None or self.usage is not None:
            self.upstream.learn(self._ask, self.usage, self.usd, now, whole=error is None)
        if self._page is not None and self._entry is not None:
            self._page.close(self._filled(self._entry, error, now))

    def _filled(self, entry: Entry, error: BaseException | None, now: float) -> Entry:
        """Return the ledger's entry with all that is known of this attempt."""
        entry.outcome, entry.status = "ok", 200
        if error is not None:
            entry.outcome, entry.status = "cancelled", None
            # Nobody said what became of it. Once it has begun to speak, somebody will have to pay for that.
            entry.possibly_billed = self.usage is None
        if isinstance(error, UpstreamError):
            entry.outcome, entry.status = error.kind, error.status
            entry.code = None if error.code is None else short(error.code)
            entry.possibly_billed = self.usage is None and (error.possibly_billed or self.first_s is not None)
        if self.answered is not None and self.answered != self.upstream.row.id:
            entry.answered = short(self.answered)
        entry.ms = round((now - self._began) * 1000, 3)
        if self.first_s is not None:
            entry.first_ms = round(self.first_s * 1000, 3)
        if self.usage is not None:
            _count(entry, self.usage)
            entry.usd = None if self.usd is None else round(self.usd, 12)
        return entry

    def _bill(self, usage: Usage, now: float) -> None:
        label, metrics = self.upstream.label, self._tools.metrics
        metrics.tokens.add((label, "input"), usage.input)
        metrics.tokens.add((label, "output"), usage.output)
        self.usd = self.upstream.cost_usd(usage, self.answered)
        if self.usd is None:
            metrics.unpriced.add((label,))
        else:
            metrics.usd.add((label,), self.usd)


def _count(entry: Entry, usage: Usage) -> None:
    entry.input = usage.input
    entry.cached = usage.cached
    entry.output = usage.output
    entry.reasoning = usage.reasoning
    if usage.cache_write or usage.audio_input or usage.audio_output:
        entry.cache_write, entry.cache_write_1h = usage.cache_write, usage.cache_write_1h
        entry.audio, entry.audio_output = usage.audio_input, usage.audio_output


class Timing:
    """The ends of all waits of one request, in monotonic seconds."""

    __slots__ = ("_clock", "_first_s", "_total_by", "connect_s", "deadline", "first_by", "idle_s")

    def __init__(self, timeouts: Timeouts, clock: Callable[[], float], client_s: float | None, *, stream: bool) -> None:
        """Start now. `client_s` is how long the client waits: for a stream's next event, or for a whole answer."""
        # A tenth earlier than the client gives up: an error with a reason, or somebody else's answer, beats silence.
        patience = float("inf") if client_s is None else 0.9 * client_s
        self._clock = clock
        self.idle_s = timeouts.idle
        self._first_s = min(timeouts.first_event_s, patience) if stream else timeouts.answer_s
        self.connect_s = timeouts.connect
        began = clock()
        self._total_by = began + timeouts.total
        self.deadline = began + min(timeouts.total, patience)
        self.first_by = self.deadline

    def start_attempt(self) -> None:
        """Start the timer of the first event (of a stream) or of the answer."""
        self.first_by = min(self._clock() + self._first_s, self.deadline)

    def speaks(self) -> None:
        """Note a stream's first content: the client has begun to read, and only `total` is left of its patience."""
        self.deadline = self._total_by

    def spent(self) -> bool:
        """Say whether the time for the whole request is over."""
        return self._clock() >= self.deadline - 0.001
