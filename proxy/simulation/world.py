"""What upstreams would have done: how long an answer takes, what fails, what a provider's prompt cache holds.

    first content   log-normal: the catalog's p50 and p99, or as the ledger's streams of this upstream had it
    whole answer    first content + output tokens at the upstream's pace; a ledger's complete answers as they were
    faults          a share of the attempts, by chance; all attempts that begin in an outage
    prompt cache    the longest beginning that this upstream was sent lately, in whole blocks

Chance is drawn once per request, not per policy: every policy meets the same luck, so that a difference between two
policies is the policies' own.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import exp, log, sqrt
from random import Random
from statistics import fmean
from typing import Final, NamedTuple

from proxy.ask import BLOCK_TOKENS
from proxy.errors import BY_KIND, UnavailableError, UpstreamError
from proxy.policy import Cache as CacheRow
from proxy.policy import ModelRow
from proxy.simulation.trace import OK, Try
from proxy.stats import DEFAULT_P50_MS, DEFAULT_P99_MS
from proxy.upstream import Upstream
from proxy.wire import Usage

# Tokens per second of an answer that has begun, where no ledger says better: between what large models of the big
# houses do (40-80) and what specialised hardware does (200 and more).
PACE: Final = 60.0
# From so many attempts on a ledger's own numbers count, and the catalog's no longer.
ENOUGH: Final = 20
# A second attempt at the same request meets the luck of another one, so far away in the trace.
_NEXT_LUCK: Final = 7919
_Z99: Final = 2.326
_NEVER: Final = float("-inf")
OUTAGE: Final = "outage"


class Outage(NamedTuple):
    """Every attempt at `upstream` that begins between these seconds fails."""

    upstream: str
    begins: float
    ends: float


class Assumed(NamedTuple):
    """What the world is made of where neither catalog nor trace says it; `faults` is a share by upstream, or under ""
    for all others. Times are seconds.
    """

    faults: Mapping[str, float] = {}
    outages: Sequence[Outage] = ()


class Luck:
    """Chance for every request of a trace, the same in every run with the same seed."""

    __slots__ = ("_normal", "_share", "_size")

    def __init__(self, size: int, seed: int) -> None:
        chance = Random(seed)  # noqa: S311  # nosec B311  # a game, and it must be possible to play it again
        self._size = size
        self._normal = array("d", (chance.gauss(0.0, 1.0) for _ in range(size)))
        self._share = array("d", (chance.random() for _ in range(size)))

    def of(self, request: int, attempt: int) -> tuple[float, float]:
        """Return a standard normal and a uniform number for the `attempt` (from 0) of a request."""
        at = (request + attempt * _NEXT_LUCK) % self._size
        return self._normal[at], self._share[at]


class LogNormal(NamedTuple):
    """A time in seconds: the mean and the deviation of its logarithm."""

    mean: float
    deviation: float

    def at(self, normal: float) -> float:
        """Return the time that is `normal` deviations off the middle."""
        return exp(self.mean + self.deviation * normal)


class Cache:
    """The prompt cache of one upstream: a beginning stays for `ttl_s` after its last use."""

    __slots__ = ("_newer", "_older", "_ttl_s", "_turn", "least")

    def __init__(self, row: CacheRow) -> None:
        self.least = row.min_tokens
        self._ttl_s = row.ttl_s
        # Two ages, the older one is dropped whole: all that it holds has expired.
        self._newer: dict[int, float] = {}
        self._older: dict[int, float] = {}
        self._turn = 0.0

    def send(self, blocks: tuple[int, ...], tokens: int, now: float) -> int:
        """Return how many of a prompt's `tokens` are read from the cache; then it holds all of them."""
        if now - self._turn > self._ttl_s:
            self._older = self._newer if now - self._turn <= 2 * self._ttl_s else {}
            self._newer = {}
            self._turn = now
        known = self._known(blocks, now - self._ttl_s)
        if tokens < self.least:
            return 0
        self._newer.update(dict.fromkeys(blocks, now))
        # The last token is always read: an answer begins with it.
        cached = min(known * BLOCK_TOKENS, tokens - 1)
        return cached if cached >= self.least else 0

    def _known(self, blocks: tuple[int, ...], since: float) -> int:
        """Return how many blocks are held from the first on. Whoever holds a block holds those before it."""
        low, high = 0, len(blocks)
        while low < high:
            middle = (low + high) // 2
            used = self._newer.get(blocks[middle])
            if used is None:
                used = self._older.get(blocks[middle], _NEVER)
            if used >= since:
                low = middle + 1
            else:
                high = middle
        return low


class Fit(NamedTuple):
    """What a ledger shows of one upstream; None where it has fewer than ENOUGH attempts of that kind to show it.

    `faults` are the shares of all attempts that failed, by kind; `pace` is tokens per second; `ratio` is the tokens it
    counts for one that was estimated, as all others do where nobody knows.
    """

    first: LogNormal | None = None
    whole: LogNormal | None = None
    pace: float | None = None
    faults: Mapping[str, float] | None = None
    ratio: float = 1.0


def fit(tries: Iterable[Try]) -> dict[str, Fit]:
    """Return what `tries` show, by upstream, and under "" for all that were not asked."""
    by_upstream: dict[str, list[Try]] = {}
    for one in tries:
        by_upstream.setdefault(one.upstream, []).append(one)
    ratios = {name: ratio for name, mine in by_upstream.items() if (ratio := _ratio(mine)) is not None}
    usual = fmean(ratios.values()) if ratios else 1.0
    return {"": Fit(ratio=usual)} | {name: _fit(mine, ratios.get(name, usual)) for name, mine in by_upstream.items()}


def _fit(tries: Sequence[Try], ratio: float) -> Fit:
    # Attempts whose client left show nothing of an upstream's faults.
    ended = [one for one in tries if one.outcome == OK or one.outcome in BY_KIND]
    good = [one for one in ended if one.outcome == OK]
    streams = [(one.first_ms, one) for one in good if one.first_ms is not None]
    spoke_s = sum(max(0.0, one.ms - first_ms) for first_ms, one in streams) / 1000
    said = sum(one.output for _, one in streams)
    # What a provider did wrong, and no fault of the request's own: that one would be met elsewhere, too.
    kinds = Counter(one.outcome for one in ended if one.outcome in BY_KIND and BY_KIND[one.outcome].transient)
    return Fit(
        _log_normal([first_ms for first_ms, _ in streams]),
        _log_normal([one.ms for one in good if one.first_ms is None]),
        said / spoke_s if len(streams) >= ENOUGH and spoke_s > 0 and said else None,
        {kind: count / len(ended) for kind, count in sorted(kinds.items())} if len(ended) >= ENOUGH else None,
        ratio,
    )


def _ratio(tries: Sequence[Try]) -> float | None:
    ratios = [one.ratio for one in tries if one.ratio is not None]
    return fmean(ratios) if len(ratios) >= ENOUGH else None


def _log_normal(ms: Sequence[float]) -> LogNormal | None:
    if len(ms) < ENOUGH:
        return None
    logs = [log(max(one, 0.01) / 1000) for one in ms]
    mean = fmean(logs)
    return LogNormal(mean, sqrt(fmean((one - mean) ** 2 for one in logs)))


def prior(row: ModelRow) -> LogNormal:
    """Return what the catalog says of the time to first content, as the live numbers begin with it."""
    p50_ms = row.latency.p50_ms if row.latency is not None else DEFAULT_P50_MS
    p99_ms = row.latency.p99_ms if row.latency is not None else None
    ratio = p99_ms / p50_ms if p99_ms is not None else DEFAULT_P99_MS / DEFAULT_P50_MS
    return LogNormal(log(p50_ms / 1000), max(0.0, log(ratio)) / _Z99)


class Answered(NamedTuple):
    """What came of an attempt: seconds to the first content and to the end, or to `error`."""

    first_s: float
    whole_s: float
    error: UpstreamError | None


def _error(kind: str) -> UpstreamError:
    if kind == OUTAGE:
        return UnavailableError("a simulated outage")
    # A 500 is momentary, for the router; an outage, with nobody there, is not.
    return BY_KIND[kind]("a simulated fault", code="server_error" if kind == "unavailable" else None)


class Behaviour:
    """How one upstream takes its attempts."""

    __slots__ = ("_context", "_faults", "_first", "_keeps", "_outages", "_s_per_token", "_whole", "cache", "ratio")

    def __init__(self, upstream: Upstream, fitted: Fit, assumed: Assumed) -> None:
        """`ratio` is the tokens that this upstream counts for one of the trace's."""
        row = upstream.row
        share = assumed.faults.get(row.name, assumed.faults.get(""))
        faults = {"unavailable": share} if share is not None else fitted.faults or {}
        self._context = row.context
        self._first = fitted.first or prior(row)
        self._whole = fitted.whole
        self._s_per_token = 1.0 / (fitted.pace or PACE)
        self._faults = [(kind, share) for kind, share in faults.items() if share > 0.0]
        self._outages = [one for one in assumed.outages if one.upstream == row.name]
        self.ratio = fitted.ratio
        self.cache = Cache(upstream.provider.row.cache)
        some = 2 * self.cache.least
        # Asked of the bill itself, wherever its prices come from.
        self._keeps = upstream.cost_usd(Usage(some, cache_write=some)) != upstream.cost_usd(Usage(some))

    def answer(self, luck: tuple[float, float], now: float, tokens: tuple[int, int], *, stream: bool) -> Answered:
        """Return what comes of an attempt at `now` with these `tokens` in and out."""
        normal, share = luck
        first_s = self._first.at(normal)
        kind = self._fault(share, now, tokens[0])
        if kind is not None:
            # A fault is told when an answer would have begun.
            return Answered(first_s, first_s, _error(kind))
        if self._whole is not None and not stream:
            return Answered(first_s, self._whole.at(normal), None)
        return Answered(first_s, first_s + tokens[1] * self._s_per_token, None)

    def bill(self, input: int, output: int, cached: int) -> Usage:
        """Return what the provider reports. Where keeping a prompt has a price, all is kept that it did not know."""
        kept = input - cached if self._keeps and input >= self.cache.least else 0
        return Usage(input, output, cached, kept)

    def _fault(self, share: float, now: float, tokens: int) -> str | None:
        if self._context is not None and tokens > self._context:
            return "context_length"
        for outage in self._outages:
            if outage.begins <= now < outage.ends:
                return OUTAGE
        for kind, part in self._faults:
            if share < part:
                return kind
            share -= part
        return None
