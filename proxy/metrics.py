"""Counters and histograms in Prometheus text. Labels come from the configuration only: a client cannot mint a series.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text 0.0.4).
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

# Seconds. Model answers take 0.1-60 s; what the proxy adds is counted in its own, finer buckets.
LATENCY_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
OVERHEAD_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05)

Labels = tuple[str, ...]


class Counter:
    """A number that only rises, per combination of label values."""

    __slots__ = ("_help", "_labels", "_name", "values")

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        self._name, self._help, self._labels = name, help, labels
        self.values = defaultdict[Labels, float](int)

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        """Add `amount` to the series of `labels`."""
        self.values[labels] += amount

    def total(self) -> float:
        """Return the sum over all series."""
        return sum(self.values.values())

    def lines(self) -> Iterable[str]:
        """Return the series as text."""
        yield from _head(self._name, self._help, "counter")
        for labels, value in sorted(self.values.items()):
            yield f"{self._name}{_braces(self._labels, labels)} {value:.12g}"


class Histogram:
    """How often a duration in seconds fell into which bucket."""

    __slots__ = ("_buckets", "_help", "_name", "counts", "sum")

    def __init__(self, name: str, help: str, buckets: tuple[float, ...]) -> None:
        self._name, self._help, self._buckets = name, help, buckets
        self.counts = [0] * (len(buckets) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self._buckets, seconds)] += 1
        self.sum += seconds

    def lines(self) -> Iterable[str]:
        """Return buckets, sum and count as text."""
        yield from _head(self._name, self._help, "histogram")
        below = 0
        for bound, count in zip(self._buckets, self.counts, strict=False):
            below += count
            yield f'{self._name}_bucket{{le="{bound:g}"}} {below}'
        total = below + self.counts[-1]
        yield f'{self._name}_bucket{{le="+Inf"}} {total}'
        yield f"{self._name}_sum {self.sum:.9g}"
        yield f"{self._name}_count {total}"


class Snapshot(msgspec.Struct, frozen=True):
    """What one worker has counted, and what it has under way: attempts by upstream, client requests."""

    counters: dict[str, list[tuple[Labels, float]]]
    histograms: dict[str, tuple[list[int], float]]
    flying: dict[str, int]
    visits: int


class Metrics:
    """What this process counts."""

    def __init__(self) -> None:
        self.requests = Counter("sidecar_requests_total", "Client requests.", ("policy", "mode", "status"))
        self.shed = Counter("sidecar_shed_total", "Client requests turned away as too many at once.", ("class",))
        self.attempts = Counter("sidecar_attempts_total", "Upstream attempts by outcome.", ("upstream", "outcome"))
        self.fallbacks = Counter("sidecar_fallbacks_total", "Times the next upstream was tried.", ("upstream", "kind"))
        self.held = Counter(
            "sidecar_retries_held_total", "Attempts that the policy's budget did not allow.", ("policy",)
        )
        self.hedges = Counter(
            "sidecar_hedges_total", "Late upstreams beside which another was asked.", ("upstream", "winner")
        )
        self.tokens = Counter("sidecar_tokens_total", "Tokens reported by upstreams.", ("upstream", "direction"))
        self.usd = Counter("sidecar_cost_usd_total", "Cost of answers with a known price.", ("upstream",))
        self.unpriced = Counter("sidecar_unpriced_total", "Answers whose price is unknown.", ("upstream",))
        self.ledger_lost = Counter("sidecar_ledger_lost_total", "Records that could not be written to the ledger.")
        self.reloads = Counter("sidecar_reloads_total", "Reloads of the policy files.", ("outcome",))
        self.duration = Histogram("sidecar_request_seconds", "Whole request, as the client sees it.", LATENCY_BUCKETS)
        self.overhead = Histogram("sidecar_overhead_seconds", "What the proxy itself added.", OVERHEAD_BUCKETS)

    def snapshot(self, flying: Mapping[str, int], visits: int) -> Snapshot:
        """Return everything that was counted, fit to be sent to another worker."""
        series = vars(self).items()
        counters = {name: list(one.values.items()) for name, one in series if isinstance(one, Counter)}
        histograms = {name: (one.counts, one.sum) for name, one in series if isinstance(one, Histogram)}
        return Snapshot(counters, histograms, dict(flying), visits)

    def take_in(self, snapshot: Snapshot) -> None:
        """Add what another worker has counted."""
        for name, pairs in snapshot.counters.items():
            values = vars(self)[name].values
            for labels, value in pairs:
                was = values.get(labels, 0)
                # All workers read the same files again: that is one reload, not one for each of them.
                values[labels] = max(was, value) if name == "reloads" else was + value
        for name, (counts, seconds) in snapshot.histograms.items():
            histogram: Histogram = vars(self)[name]
            histogram.counts = [one + other for one, other in zip(histogram.counts, counts, strict=True)]
            histogram.sum += seconds

    def text(self, gauges: Mapping[str, tuple[str, Iterable[tuple[Mapping[str, str], float]]]]) -> str:
        """Return all series; `gauges` are name -> (help, [(labels, value)]) as they are now."""
        lines: list[str] = []
        for series in vars(self).values():
            lines.extend(series.lines())
        for name, (help, values) in gauges.items():
            lines.extend(_head(name, help, "gauge"))
            lines.extend(f"{name}{_braces(tuple(labels), tuple(labels.values()))} {now:.9g}" for labels, now in values)
        return "\n".join(lines) + "\n"


def _head(name: str, help: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {help}", f"# TYPE {name} {kind}"


def _braces(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
