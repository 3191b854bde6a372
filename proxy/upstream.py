"""One model at one provider: what the catalog says of it, what it has done lately, and whether it may be asked now.

Two lifetimes meet here. `Upstream` and `Provider` belong to one generation of the policy files; `Live` and `Gate` are
handed on to the next generation, so a reload forgets no measurement, no rest and no limit.
"""

from random import Random
from typing import Final, NamedTuple

from aiolimiter import AsyncLimiter

from proxy.adapter import Adapter, Sign, Target
from proxy.board import SharedBucket
from proxy.breaker import Breaker, Parking, Rest
from proxy.errors import AuthError, RateLimitError, UpstreamError
from proxy.keys import Access
from proxy.log import plain, short
from proxy.policy import Limits, ModelRow, Price, ProviderRow
from proxy.stats import DEFAULT_P50_MS, DEFAULT_P99_MS, Stats
from proxy.wire import Usage

# So many models that no catalog lists have live numbers of their own, if their names are no longer than this.
MOST_MADE_UP: Final = 64
LONGEST_NAME: Final = 256


class Live:
    """What one upstream has done lately: stats, breaker, and the keys that it does not take for now."""

    __slots__ = ("breaker", "in_flight", "parked", "random", "stats")

    def __init__(self, stats: Stats, random: Random) -> None:
        self.stats = stats
        self.in_flight = 0
        self.breaker = Breaker(random)
        self.parked = Parking()
        self.random = random

    def begin(self) -> bool:
        """Note that an attempt starts. Returns True for the one that probes a tripped upstream; hand that to `end`."""
        self.in_flight += 1
        return self.breaker.tripped and self.breaker.begin()

    def end(self, *, probe: bool) -> None:
        """Note that an attempt is over, however it went. Called exactly once per `begin`."""
        self.in_flight -= 1
        if probe:
            self.breaker.end()

    def answered(self, ms: float, now: float, *, probe: bool = False) -> None:
        """Count a success; that of a probe ends an outage."""
        self.stats.answered(ms, now)
        self.breaker.failures = 0
        if probe:
            self.breaker.recovered(now)

    def failed(self, error: UpstreamError, now: float, key: str = "", *, probe: bool = False) -> None:
        """Count a failure: limits and refusals park the key, hard failures are the breaker's, others do not count."""
        if error.kind in ("rate_limit", "quota", "auth"):
            if error.kind != "auth":  # nothing is wrong with the upstream
                self.stats.failed(now)
            self.parked.park(key, error, now, self.random)
        elif error.kind in ("timeout", "unavailable", "overloaded"):
            self.stats.failed(now)
            self.breaker.failed(error, now, self.stats.requests, probe=probe)


class Bucket(AsyncLimiter):
    """aiolimiter's leaky bucket, for who will not wait."""

    def has_room(self, amount: float) -> bool:
        """Say what `has_capacity` says; without asking for the time when the answer is plain."""
        # The level was this or higher: a bucket only leaks while nobody takes.
        return self._level + amount <= self.max_rate or self.has_capacity(min(amount, self.max_rate))

    def take(self, amount: float) -> bool:
        """Take `amount` at once, or all there can be. Returns False, and takes nothing, when there is no room."""
        # What `has_capacity` and `acquire` do, in one: their four calls cost 2 % of a request.
        now, level, most = self._loop.time(), self._level, self.max_rate
        if level:
            level -= (now - self._last_check) * self._rate_per_sec
            if level < 0.0:
                level = 0.0
        if amount > most:
            amount = most
        fits = level + amount <= most
        self._level = level + amount if fits else level
        self._last_check = now
        return fits

    def give_back(self, amount: float) -> None:
        """Undo a `take` of just now."""
        self._level -= amount


class Gate:
    """The limits of one provider, over all its models."""

    __slots__ = ("_most", "_requests", "_tokens", "in_flight", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.in_flight = 0
        self._most = limits.concurrency or float("inf")
        self._requests: Bucket | SharedBucket | None = Bucket(limits.rpm, 60) if limits.rpm else None
        self._tokens: Bucket | SharedBucket | None = Bucket(limits.tpm, 60) if limits.tpm else None

    def total(self) -> int:
        """Return how many attempts are under way, in all processes that share these limits."""
        return self.in_flight

    def refuses(self, tokens: int) -> str | None:
        """Return which limit an attempt of `tokens` would break; None when there is room."""
        if self.in_flight >= self._most:
            return f"limit of {self.limits.concurrency} requests at once"
        if self._requests is not None and not self._requests.has_room(1):
            return f"limit of {self.limits.rpm} requests per minute"
        if self._tokens is not None and not self._tokens.has_room(tokens):
            return f"limit of {self.limits.tpm} tokens per minute"
        return None

    def enter(self, tokens: int) -> None:
        """Take a place, at once. Raises RateLimitError with `unsent` when there is none, be it since `refuses`."""
        requests = self._requests
        if self.in_flight >= self._most or (requests is not None and not requests.take(1)):
            raise self._full(tokens)
        if self._tokens is not None and not self._tokens.take(tokens):
            if requests is not None:
                requests.give_back(1)
            raise self._full(tokens)
        self.in_flight += 1

    def leave(self) -> None:
        """Give the place back. Called exactly once per `enter`."""
        self.in_flight -= 1

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


class Credential(NamedTuple):
    """One key of a provider, "" where it needs none, and the headers of a request with it; do not change them."""

    key: str
    headers: dict[str, str]


class Provider:
    """One account at one provider. Its keys take turns; `parked` are those that it refuses whatever they are for.
    `sign` signs its requests, None in a language that does not.
    """

    __slots__ = ("_turn", "access", "adapter", "credentials", "gate", "made_up", "name", "parked", "row", "sign")

    def __init__(self, row: ProviderRow, adapter: Adapter, access: Access, gate: Gate, made_up: "MadeUp") -> None:
        self.row = row
        self.name = row.name
        self.adapter = adapter
        self.access = access
        self.gate = gate
        self.made_up = made_up
        # Not handed on: whoever changes a key, or asks for a reload, wants to see it tried.
        self.parked = Parking()
        common = {"Content-Type": "application/json", "Accept-Encoding": "identity", **row.headers}
        self.credentials = [Credential(key or "", {**common, **adapter.auth(key)}) for key in access.keys or (None,)]
        self.sign: Sign | None = getattr(adapter, "sign", None)
        self._turn = 0

    def next(self) -> Credential:
        """Return the next of several keys."""
        self._turn = (self._turn + 1) % len(self.credentials)
        return self.credentials[self._turn]


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
        "short_name",
        "target",
        "usd_per_mtok",
    )

    def __init__(self, row: ModelRow, provider: Provider, live: Live, label: str = "") -> None:
        self.row = row
        self.name = row.name
        self.plain_name = plain(row.name)  # as headers tell it
        self.short_name = short(row.name)  # as the log does
        self.label = label or row.name
        self.provider = provider
        self.live = live
        self.quality = row.quality
        self.features = None if row.features is None else frozenset(row.features)
        self.target = Target(row.id, frozenset(provider.row.quirks), row.max_output)
        self.usd_per_mtok = None if row.price is None else blend(row.price)

    def __repr__(self) -> str:
        return f"<Upstream {self.name}>"

    def rest(self, now: float) -> Rest | None:
        """Return what keeps this upstream from being asked at `now`; None when nothing does."""
        live = self.live
        if live.breaker.rest is not None and (rest := live.breaker.refuses(now)) is not None:
            return rest
        if not live.parked and not self.provider.parked:
            return None
        rests = [self._parked(one.key, now) for one in self.provider.credentials]
        # As long as one key is free nothing rests; else until the first one is.
        busy = [one for one in rests if one is not None]
        return min(busy) if len(busy) == len(rests) else None

    def credential(self, now: float) -> Credential:
        """Return the key for an attempt at `now`: they take turns, those that are parked are passed over."""
        credentials = self.provider.credentials
        if len(credentials) == 1:
            return credentials[0]
        taken = self.provider.next()
        for _ in credentials:
            if self._parked(taken.key, now) is None:
                break
            taken = self.provider.next()
        return taken

    def failed(self, error: UpstreamError, now: float, key: str, *, probe: bool) -> None:
        """Count a failure of an attempt with `key`, "" where none was sent: a refusal then concerns this model only."""
        if isinstance(error, AuthError) and error.everywhere and key:
            self.provider.parked.park(key, error, now, self.live.random)
        else:
            self.live.failed(error, now, key, probe=probe)

    def _parked(self, key: str, now: float) -> Rest | None:
        return self.live.parked.rest(key, now) or self.provider.parked.rest(key, now)

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
