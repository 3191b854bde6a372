"""One model at one provider: what the catalog says of it, what it has done lately, and whether it may be asked now.

Two lifetimes meet here. `Upstream` and `Provider` belong to one generation of the policy files; `Live` and `Gate` are
handed on to the next generation, so a reload forgets no measurement, no rest and no limit.
"""

from random import Random
from typing import Final, Literal

from aiolimiter import AsyncLimiter

from proxy.adapter import Adapter, Target
from proxy.board import SharedBucket
from proxy.errors import RateLimitError, UpstreamError
from proxy.keys import Access
from proxy.log import plain
from proxy.policy import Limits, ModelRow, Price, ProviderRow
from proxy.stats import DEFAULT_P50_MS, DEFAULT_P99_MS, Stats
from proxy.wire import Usage

# Five failures in a row and an upstream rests; the rest doubles from 1 s to 60 s while its probes fail.
TRIP_AFTER: Final = 5
MAX_REST_S: Final = 60.0
# Retry-After is believed between these; nobody can park an upstream for a day with one header.
MIN_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 300.0
# A 429 that says nothing rests its upstream for a moment; used-up credit does not come back that soon.
BARE_WAIT_S: Final = 2.0
QUOTA_WAIT_S: Final = 300.0

# So many models that no catalog lists have live numbers of their own, if their names are no longer than this.
MOST_MADE_UP: Final = 64
LONGEST_NAME: Final = 256

Breaker = Literal["standby", "tripped", "recovering"]


class Live:
    """What one upstream has done lately: stats, breaker, cooldown."""

    __slots__ = ("_failures", "_probing", "_random", "_trips", "in_flight", "resting_for", "resting_until", "stats")

    def __init__(self, stats: Stats, random: Random) -> None:
        self.stats = stats
        self.in_flight = 0
        self.resting_until = 0.0
        self.resting_for: UpstreamError | None = None
        self._failures = 0
        self._trips = 0
        self._probing = False
        self._random = random

    def refuses(self, now: float) -> str | None:
        """Return why the upstream may not be asked at `now`; None when it may."""
        if now < self.resting_until:
            return f"resting {self.resting_until - now:.1f} s more after {self._why()}"
        if self._trips and self._probing:
            return f"recovering, one probe is under way after {self._why()}"
        return None

    def breaker(self, now: float) -> Breaker:
        """Return the breaker's state."""
        if not self._trips:
            return "standby"
        return "tripped" if now < self.resting_until else "recovering"

    def begin(self) -> bool:
        """Note that an attempt starts. Returns True for the one that probes a tripped upstream; hand that to `end`."""
        self.in_flight += 1
        if self._trips and not self._probing:
            self._probing = True
            return True
        return False

    def end(self, *, probe: bool) -> None:
        """Note that an attempt is over, however it went. Called exactly once per `begin`."""
        self.in_flight -= 1
        if probe:
            self._probing = False

    def answered(self, ms: float, now: float) -> None:
        """Count a success: whatever was wrong is over."""
        self.stats.answered(ms, now)
        self._failures = self._trips = 0

    def failed(self, error: UpstreamError, now: float) -> None:
        """Count a failure: limits rest the upstream, hard failures trip it, the client's own do not count."""
        if error.kind in ("rate_limit", "quota"):
            self.stats.failed(now)
            self._rest(error, self._wait_s(error), now)
        elif error.kind in ("timeout", "unavailable", "overloaded"):
            self.stats.failed(now)
            self._failures += 1
            if self._trips and now < self.resting_until:
                return  # begun before the trip: one outage, however many were under way, doubles nothing
            if self._failures >= TRIP_AFTER or self._trips:
                self._trips += 1
                self._rest(error, min(MAX_REST_S, 2.0 ** (self._trips - 1)), now)
            elif error.retry_after_s is not None:
                self._rest(error, self._wait_s(error), now)

    def _wait_s(self, error: UpstreamError) -> float:
        if error.retry_after_s is not None:
            return min(max(error.retry_after_s, MIN_WAIT_S), MAX_WAIT_S)
        return QUOTA_WAIT_S if error.kind == "quota" else BARE_WAIT_S

    def _rest(self, error: UpstreamError, wait_s: float, now: float) -> None:
        # 0-20 % on top, so that the replicas of an app do not come back all at once.
        self.resting_until = max(self.resting_until, now + wait_s * (1.0 + 0.2 * self._random.random()))
        self.resting_for = error

    def _why(self) -> str:
        return self.resting_for.kind if self.resting_for is not None else "failures"


class Bucket(AsyncLimiter):
    """aiolimiter's leaky bucket, for who will not wait."""

    def has_room(self, amount: float) -> bool:
        """Say what `has_capacity` says; without asking for the time when the answer is plain."""
        # The level was this or higher: a bucket only leaks while nobody takes.
        return self._level + amount <= self.max_rate or self.has_capacity(min(amount, self.max_rate))

    def take(self, amount: float) -> bool:
        """Take `amount` at once, or all there can be. Returns False, and takes nothing, when there is no room."""
        amount = min(amount, self.max_rate)
        if not self.has_capacity(amount):
            return False
        self._level += amount  # what `acquire` does next; awaiting it would leak the bucket once more (1.5 us)
        return True

    def give_back(self, amount: float) -> None:
        """Undo a `take` of just now."""
        self._level -= amount


class Gate:
    """The limits of one provider, over all its models."""

    __slots__ = ("_requests", "_tokens", "in_flight", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.in_flight = 0
        self._requests: Bucket | SharedBucket | None = Bucket(limits.rpm, 60) if limits.rpm else None
        self._tokens: Bucket | SharedBucket | None = Bucket(limits.tpm, 60) if limits.tpm else None

    def total(self) -> int:
        """Return how many attempts are under way, in all processes that share these limits."""
        return self.in_flight

    def refuses(self, tokens: int) -> str | None:
        """Return which limit an attempt of `tokens` would break; None when there is room."""
        if self._crowded():
            return f"limit of {self.limits.concurrency} requests at once"
        if self._requests is not None and not self._requests.has_room(1):
            return f"limit of {self.limits.rpm} requests per minute"
        if self._tokens is not None and not self._tokens.has_room(tokens):
            return f"limit of {self.limits.tpm} tokens per minute"
        return None

    def enter(self, tokens: int) -> None:
        """Take a place, at once. Raises RateLimitError with `unsent` when there is none, be it since `refuses`."""
        requests = self._requests
        if self._crowded() or (requests is not None and not requests.take(1)):
            raise self._full(tokens)
        if self._tokens is not None and not self._tokens.take(tokens):
            if requests is not None:
                requests.give_back(1)
            raise self._full(tokens)
        self.in_flight += 1

    def leave(self) -> None:
        """Give the place back. Called exactly once per `enter`."""
        self.in_flight -= 1

    def _crowded(self) -> bool:
        return self.limits.concurrency is not None and self.in_flight >= self.limits.concurrency

    def _full(self, tokens: int) -> RateLimitError:
        error = RateLimitError(f"the sidecar keeps to its own {self.refuses(tokens) or 'limits'}")
        error.unsent = True
        return error


class MadeUp:
    """The live parts of models that a catalog does not list. Clients choose those names, so only a few have their own;
    the rest share one.
    """

    __slots__ = ("_own", "_random", "_shared")

    def __init__(self, random: Random) -> None:
        self._random = random
        self._own: dict[str, Live] = {}
        self._shared = live_for(None, random)

    def live(self, model: str) -> Live:
        """Return the live part of `model`."""
        own = self._own.get(model)
        if own is None and len(self._own) < MOST_MADE_UP and len(model) <= LONGEST_NAME:
            own = self._own[model] = live_for(None, self._random)
        return own or self._shared


class Provider:
    """One account at one provider. `headers` rotates over its keys."""

    __slots__ = ("_headers", "_turn", "access", "adapter", "gate", "made_up", "name", "row")

    def __init__(self, row: ProviderRow, adapter: Adapter, access: Access, gate: Gate, made_up: "MadeUp") -> None:
        self.row = row
        self.name = row.name
        self.adapter = adapter
        self.access = access
        self.gate = gate
        self.made_up = made_up
        common = {"Content-Type": "application/json", "Accept-Encoding": "identity", **row.headers}
        self._headers = [{**common, **adapter.auth(key)} for key in access.keys or (None,)]
        self._turn = 0

    def headers(self) -> dict[str, str]:
        """Return the headers for the next request; do not change them."""
        if len(self._headers) == 1:
            return self._headers[0]
        self._turn = (self._turn + 1) % len(self._headers)
        return self._headers[self._turn]


class Upstream:
    """One model at one provider, called "provider/id". `label` is bounded, for metrics: "provider/*" when made up."""

    __slots__ = (
        "features",
        "label",
        "live",
        "name",
        "plain_name",
        "provider",
        "quality",
        "row",
        "target",
        "usd_per_mtok",
    )

    def __init__(self, row: ModelRow, provider: Provider, live: Live, label: str = "") -> None:
        self.row = row
        self.name = row.name
        self.plain_name = plain(row.name)  # as headers tell it
        self.label = label or row.name
        self.provider = provider
        self.live = live
        self.quality = row.quality
        self.features = None if row.features is None else frozenset(row.features)
        self.target = Target(row.id, frozenset(provider.row.quirks), row.max_output)
        self.usd_per_mtok = None if row.price is None else blend(row.price)

    def __repr__(self) -> str:
        return f"<Upstream {self.name}>"

    def refuses(self, now: float, tokens: int) -> str | None:
        """Return why this upstream may not be asked at `now`; None when it may."""
        return self.provider.access.off or self.live.refuses(now) or self.provider.gate.refuses(tokens)

    def cost_usd(self, usage: Usage) -> float | None:
        """Return what `usage` costs here; None when the price is unknown."""
        price = self.row.price
        if price is None:
            return None
        cached = price.input if price.cached_input is None else price.cached_input
        write = price.input if price.cache_write is None else price.cache_write
        plain = max(0, usage.input - usage.cached - usage.cache_write)
        spent = plain * price.input + usage.cached * cached + usage.cache_write * write + usage.output * price.output
        return spent / 1e6


def blend(price: Price) -> float:
    """Return USD per million tokens at three input tokens for one of output, as the field compares models."""
    # Twelve digits, so that prices that differ by the last bit of a float are equal.
    return float(f"{(3 * price.input + price.output) / 4:.12g}")


def live_for(row: ModelRow | None, random: Random) -> Live:
    """Return fresh live numbers, starting from the prior of `row`."""
    latency = row.latency if row is not None else None
    p50_ms = latency.p50_ms if latency is not None else DEFAULT_P50_MS
    p99_ms = latency.p99_ms if latency is not None else None
    return Live(Stats(p50_ms, p99_ms or p50_ms * DEFAULT_P99_MS / DEFAULT_P50_MS), random)
