"""One try at one upstream, and the timers around it. An attempt is opened once and closed once, whatever happens."""

from collections.abc import Callable
from random import Random
from typing import Any, Final

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


_NOTHING: Final = Usage()
_NONE: Final[list[Any]] = []


class Attempt:
    """One try at one upstream. Opened once, closed once; stats and metrics are written at the close.

    `ask` is what the decision knew of the request.
    """

    __slots__ = (
        "_ask",
        "_began",
        "_number",
        "_open",
        "_page",
        "_probe",
        "_tools",
        "_ts",
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
        if page is not None:
            self._number, self._ts = page.open(), tools.wall()

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
        if self._page is not None:
            self._page.close(self._entry(self._page, error, now))

    def _entry(self, page: Page, error: BaseException | None, now: float) -> Entry:
        """Return what the ledger keeps of this attempt. Made at once, as setting field after field takes longer."""
        usage, ask = self.usage or _NOTHING, self._ask
        outcome, unknown = "ok", False
        code: str | None = None
        status: int | None = 200
        if error is not None:
            # Nobody said what became of it. Once it has begun to speak, somebody will have to pay for that.
            outcome, status, unknown = "cancelled", None, True
            if isinstance(error, UpstreamError):
                outcome, code, status = error.kind, error.code and short(error.code), error.status
                unknown = error.possibly_billed or self.first_s is not None
        # In the order of its fields: their names would cost 1.4 us (`loadtests/ledger.py`).
        return Entry(
            1,
            self._ts,
            page.id,
            self._number,
            page.policy,
            page.model,
            self.upstream.name,
            None if self.answered is None or self.answered == self.upstream.row.id else short(self.answered),
            page.tag,
            ask.stream,
            sorted(ask.needs) if ask.needs else _NONE,
            outcome,
            code,
            status,
            False,  # final: only the page knows
            ask.tokens,
            ask.max_tokens or None,
            usage.input,
            usage.cached,
            usage.cache_write,
            usage.cache_write_1h,
            usage.output,
            usage.reasoning,
            usage.audio_input,
            usage.audio_output,
            # Cut, not rounded: `round` takes twice as long.
            None if self.usd is None else int(self.usd * 1e12 + 0.5) / 1e12,
            unknown and self.usage is None,
            int((now - self._began) * 1e6) / 1e3,
            None if self.first_s is None else int(self.first_s * 1e6) / 1e3,
            list(ask.prefix) if ask.prefix else _NONE,
        )

    def _bill(self, usage: Usage, now: float) -> None:
        label, metrics = self.upstream.label, self._tools.metrics
        metrics.tokens.add((label, "input"), usage.input)
        metrics.tokens.add((label, "output"), usage.output)
        self.usd = self.upstream.cost_usd(usage, self.answered)
        if self.usd is None:
            metrics.unpriced.add((label,))
        else:
            metrics.usd.add((label,), self.usd)


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
