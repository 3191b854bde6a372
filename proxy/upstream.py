"""One model at one provider: what the catalog says of it, what it has done lately, and whether it may be asked now.

Two lifetimes meet here. `Upstream` and `Provider` belong to one generation of the policy files; `Live` and the
provider's `Gate` are handed on to the next generation, so a reload forgets no measurement, no rest and no limit.
"""

from collections.abc import Mapping
from random import Random
from typing import Final, NamedTuple

from proxy.adapter import Adapter, Sign, Target
from proxy.ask import Ask
from proxy.breaker import Breaker, Parking, Rest
from proxy.errors import AuthError, UpstreamError
from proxy.gate import Gate
from proxy.keys import Access
from proxy.learned import Learned
from proxy.log import plain, short
from proxy.policy import ModelRow, Price, ProviderRow
from proxy.prices import Book, Rates, Tariff, cost, rates
from proxy.stats import DEFAULT_P50_MS, DEFAULT_P99_MS, NEVER, Stats
from proxy.wire import Usage

# So many models that no catalog lists have live numbers of their own, if their names are no longer than this.
MOST_MADE_UP: Final = 64
LONGEST_NAME: Final = 256


class Live:
    """What one upstream has done lately: stats, what they teach, breaker, and the keys that it does not take now."""

    __slots__ = ("breaker", "in_flight", "learned", "parked", "random", "stats", "tried")

    def __init__(self, stats: Stats, random: Random) -> None:
        self.stats = stats
        self.learned = Learned()
        self.tried = NEVER  # when last a request was sent to see how it does
        self.in_flight = 0
        self.breaker = Breaker(random)
        self.parked = Parking()
        self.random = random

    def measured(self, *, stream: bool) -> float:
        """Return when last it was seen how long an answer takes, or somebody was sent to see."""
        sketch = self.stats.first_token if stream else self.stats.latency
        return max(self.tried, sketch.measured)

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
    `sign` signs its requests, None in a language that does not. `tariff` is what its models cost.
    """

    __slots__ = (
        "_turn", "access", "adapter", "credentials", "gate", "made_up", "name", "parked", "row", "sign", "tariff",
    )  # fmt: skip

    def __init__(
        self,
        row: ProviderRow,
        adapter: Adapter,
        access: Access,
        gate: Gate,
        made_up: MadeUp,
        tariff: Tariff | None = None,
    ) -> None:
        self.row = row
        self.name = row.name
        self.adapter = adapter
        self.access = access
        self.gate = gate
        self.made_up = made_up
        self.tariff = tariff or Tariff(Book(), row.name, access.base_url, {})
        # Not handed on: whoever changes a key, or asks for a reload, wants to see it tried.
        self.parked = Parking()
        common = {"Content-Type": "application/json", "Accept-Encoding": "identity", **row.headers}
        self.credentials = [Credential(key or "", {**common, **adapter.auth(key)}) for key in access.keys or (None,)]
        self.sign: Sign | None = getattr(adapter, "sign", None)
        self._turn = 0

    def speaking(self, adapter: Adapter) -> "Provider":
        """Return the same account in another wire language: it shares limits, and what is known of its keys."""
        other = Provider(self.row, adapter, self.access, self.gate, self.made_up)
        other.parked = self.parked
        return other

    def next(self) -> Credential:
        """Return the next of several keys."""
        self._turn = (self._turn + 1) % len(self.credentials)
        return self.credentials[self._turn]


class Upstream:
    """One model at one provider, called "provider/id". `label` is bounded, for metrics: "provider/*" when made up.

    `price` is the catalog's or else the price book's, None when unknown; `usd_per_mtok` is its blend.
    """

    __slots__ = (
        "cache",
        "features",
        "label",
        "live",
        "name",
        "plain_name",
        "price",
        "provider",
        "quality",
        "rates",
        "row",
        "scores",
        "short_name",
        "target",
        "usd_per_mtok",
    )

    def __init__(
        self,
        row: ModelRow,
        provider: Provider,
        live: Live,
        label: str = "",
        scores: Mapping[str, float] | None = None,
    ) -> None:
        self.row = row
        self.name = row.name
        self.plain_name = plain(row.name)  # as headers tell it
        self.short_name = short(row.name)  # as the log does
        self.label = label or row.name
        self.provider = provider
        self.live = live
        self.quality = row.quality
        self.scores = scores or {}
        self.features = None if row.features is None else frozenset(row.features)
        # A row may list quirks of several languages, where its models speak several.
        self.target = Target(row.id, provider.adapter.quirks & {*provider.row.quirks}, row.max_output, provider.name)
        self.cache = provider.row.cache.ttl_s, provider.row.cache.min_tokens
        self.price: Price | None = None
        self.usd_per_mtok: float | None = None
        self.rates: list[Rates] = []
        self.reprice()

    def __repr__(self) -> str:
        return f"<Upstream {self.name}>"

    def outgrows(self, other: "Upstream") -> bool:
        """Say whether what was too long for `other` may fit here: the context is larger, or nobody knows."""
        mine, theirs = self.row.context, other.row.context
        return mine is None or theirs is None or mine > theirs

    def quality_at(self, task: str) -> float | None:
        """Return how good it is at requests of a class, "" for none; None when nobody knows."""
        return self.scores.get(task, self.quality) if task else self.quality

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

    def learn(self, ask: Ask, usage: Usage | None, usd: float | None, now: float, *, whole: bool = True) -> None:
        """Take in what the answer to `ask` has shown: `usage` (None: not reported), `usd` (None: no known price),
        and whether it was `whole`. All that later decisions learn from answers comes by here, but time and success.
        """
        self.live.learned.learn(ask, usage, now, self.cache[0], whole=whole)
        if usage is not None and usd is not None:
            self.live.stats.spent(usd, usage.input + usage.output, now)

    def _parked(self, key: str, now: float) -> Rest | None:
        return self.live.parked.rest(key, now) or self.provider.parked.rest(key, now)

    def reprice(self) -> None:
        """Look up the price again."""
        self.price = self.row.price or self.provider.tariff.quote(self.row.id).price
        self.usd_per_mtok = None if self.price is None else blend(self.price)
        self.rates = [] if self.price is None else rates(self.price)

    def cost_usd(self, usage: Usage, answered: str | None = None) -> float | None:
        """Return what `usage` costs here when the upstream calls itself `answered`; None when the price is unknown."""
        price = self.row.price or self.provider.tariff.quote(self.row.id, answered).price
        return None if price is None else cost(price, usage)


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
