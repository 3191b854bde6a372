"""Live numbers of one upstream: latency, time to first token, success rate, cost. Time is an argument, no clock here.

Everything decays with a half-life, and every estimate is blended with a prior worth a few samples: fresh numbers win
within tens of requests, stale ones fade back to the prior, so an upstream that was slow an hour ago is tried again.
"""

from math import exp, log, sqrt
from typing import Final

# Old samples lose half their weight in five minutes: longer than a provider's hiccup, shorter than its incidents.
HALF_LIFE_S: Final = 300.0
# Weights halve in steps of this: the power costs more than all the rest of an `add`, and half a percent of a half-life
# changes no mean.
_STEP_S: Final = 1.0
# A prior counts as much as this many samples, and live samples never count for more than MAX_WEIGHT of them, so that
# a change shows within tens of requests however busy the upstream was before.
PRIOR_WEIGHT: Final = 3.0
MAX_WEIGHT: Final = 30.0
# The latency of an upstream that nobody has measured and whose catalog row is silent.
DEFAULT_P50_MS: Final = 1000.0
DEFAULT_P99_MS: Final = 5000.0
NEVER: Final = float("-inf")
# The 95th and 99th percentiles of a normal distribution lie this many standard deviations above its middle.
_Z95: Final = 1.645
_Z99: Final = 2.326


class Decayed:
    """A weight of `most` at most that halves every HALF_LIFE_S, with sums that halve along.

    `at` is when it was last added to, to a second; NEVER before the first time.
    """

    __slots__ = ("_mean", "_most", "_prior", "_since", "_until", "at", "square", "total", "weight")

    def __init__(self, weight: float = 0.0, total: float = 0.0, at: float = NEVER, most: float = MAX_WEIGHT) -> None:
        self._most = most
        self.weight = weight
        self.total = total
        self.square = 0.0
        self.at = at
        # The last `mean`, with its prior, and from when until when it is good.
        self._mean = self._prior = 0.0
        self._since = self._until = 0.0

    def add(self, value: float, now: float) -> None:
        """Count `value` at `now` (monotonic seconds)."""
        if now - self.at > _STEP_S:
            self._keep(self.fade(now))
            self.at = now
        weight, total, square = self.weight, self.total, self.square
        most = self._most - 1.0
        if weight > most:  # as it always is when there is much to do
            share = most / weight
            weight, total, square = most, total * share, square * share
        self.weight = weight + 1.0
        self.total = total + value
        self.square = square + value * value
        self._until = self._since

    def _keep(self, share: float) -> None:
        self.weight *= share
        self.total *= share
        self.square *= share

    def fade(self, now: float) -> float:
        """Return what is left of the sums at `now`, 0 to 1."""
        return 0.5 ** ((now - self.at) / HALF_LIFE_S) if now > self.at else 1.0

    def left(self, now: float) -> tuple[float, float]:
        """Return what is left of the sum and of the weight at `now`."""
        share = self.fade(now)
        return self.total * share, self.weight * share

    def mean(self, now: float, prior: float) -> float:
        """Return the mean, blended with `prior`."""
        # Good for a step: a ranking asks every candidate, most of which have not answered since (0.15 us, not 0.45).
        if not (self._since <= now < self._until and prior == self._prior):
            left = self.fade(now)
            self._mean = (self.total * left + prior * PRIOR_WEIGHT) / (self.weight * left + PRIOR_WEIGHT)
            self._since, self._until, self._prior = now, now + _STEP_S, prior
        return self._mean


class LatencySketch:
    """Percentiles of a latency in three sums, by taking its logarithm as normally distributed.

    Model latencies are close to log-normal (many quick answers, a long tail), so p50 = exp(mean of logs) and
    p99 = exp(mean + 2.326 standard deviations). Constant time and space, unlike a window that must be sorted.
    """

    __slots__ = ("_logs", "_p50", "_prior_mean", "_prior_square", "_since", "_until")

    def __init__(self, p50_ms: float, p99_ms: float) -> None:
        self._logs = Decayed()
        # The last median, and from when until when it is good.
        self._p50 = p50_ms
        self._since = self._until = 0.0
        self._prior_mean = log(p50_ms)
        deviation = max(0.0, log(p99_ms) - self._prior_mean) / _Z99
        self._prior_square = self._prior_mean**2 + deviation**2

    def add(self, ms: float, now: float) -> None:
        """Count one latency."""
        self._logs.add(log(max(ms, 0.01)), now)
        self._until = self._since

    @property
    def measured(self) -> float:
        """When the last latency was counted, to a second."""
        return self._logs.at

    def p50(self, now: float) -> float:
        """Return the median in ms."""
        # As `mean` keeps its own: a ranking asks for every candidate's.
        if not self._since <= now < self._until:
            self._p50 = exp(self._logs.mean(now, self._prior_mean))
            self._since, self._until = now, now + _STEP_S
        return self._p50

    def p95(self, now: float) -> float:
        """Return the 95th percentile in ms."""
        return self._above(_Z95, now)

    def p99(self, now: float) -> float:
        """Return the 99th percentile in ms."""
        return self._above(_Z99, now)

    def _above(self, deviations: float, now: float) -> float:
        logs, left = self._logs, self._logs.fade(now)
        mean = logs.mean(now, self._prior_mean)
        square = (logs.square * left + self._prior_square * PRIOR_WEIGHT) / (logs.weight * left + PRIOR_WEIGHT)
        return exp(mean + deviations * sqrt(max(0.0, square - mean * mean)))


class Stats:
    """What is known of one upstream from its answers; survives a reload of the policies."""

    __slots__ = ("_cost", "errors", "first_token", "latency", "requests", "success", "tokens", "usd")

    def __init__(self, p50_ms: float = DEFAULT_P50_MS, p99_ms: float = DEFAULT_P99_MS) -> None:
        self.latency = LatencySketch(p50_ms, p99_ms)
        self.first_token = LatencySketch(p50_ms, p99_ms)
        self.success = Decayed()
        self._cost = Decayed()
        self.requests = 0
        self.errors = 0
        self.tokens = 0
        self.usd = 0.0

    def answered(self, ms: float, now: float) -> None:
        """Count an attempt that ended well after `ms`."""
        self.requests += 1
        self.success.add(1.0, now)
        self.latency.add(ms, now)

    def failed(self, now: float) -> None:
        """Count an attempt that failed through no fault of the client."""
        self.requests += 1
        self.errors += 1
        self.success.add(0.0, now)

    def spent(self, usd: float, tokens: int, now: float) -> None:
        """Count the price of one answer."""
        self.usd += usd
        self.tokens += tokens
        if tokens:
            self._cost.add(usd / tokens * 1e6, now)

    def success_rate(self, now: float) -> float:
        """Return the share of attempts that ended well, 0 to 1; 1 before anything is known."""
        return self.success.mean(now, 1.0)

    def usd_per_mtok(self) -> float | None:
        """Return what a million tokens have really cost lately; None before anything was paid."""
        return self._cost.total / self._cost.weight if self._cost.weight else None
