"""Live numbers: fresh ones win soon, old ones fade."""

from math import log
from random import Random

import pytest

from proxy.stats import HALF_LIFE_S, Decayed, LatencySketch, Stats


def test_prior_stands_until_something_is_measured() -> None:
    """An upstream that nobody has asked is judged by its catalog row."""
    sketch = LatencySketch(400, 1500)

    assert sketch.p50(0) == pytest.approx(400)
    assert sketch.p99(0) == pytest.approx(1500)
    assert Stats().success_rate(0) == 1.0
    assert Stats().usd_per_mtok() is None


def test_nineteen_of_twenty_are_within_p95() -> None:
    """On latencies as models have them, long tail included; between the median and p99."""
    random, sketch = Random(3), LatencySketch(400, 1500)
    shares = []
    for now in range(4000):
        ms = random.lognormvariate(6, 0.7)
        shares.append(ms <= sketch.p95(now / 100))
        sketch.add(ms, now / 100)
    assert sum(shares[500:]) / len(shares[500:]) == pytest.approx(0.95, abs=0.02)
    assert sketch.p50(40) < sketch.p95(40) < sketch.p99(40)


def test_a_change_shows_within_tens_of_requests() -> None:
    """After a thousand quick answers, fifty slow ones are most of the truth."""
    sketch = LatencySketch(400, 1500)
    for now in range(1000):
        sketch.add(100, now / 100)
    assert sketch.p50(10) == pytest.approx(100, rel=0.2)

    for now in range(50):
        sketch.add(1600, 10 + now / 100)

    assert sketch.p50(11) > 800


def test_old_numbers_fade_to_the_prior() -> None:
    """Who was slow an hour ago is tried again."""
    sketch = LatencySketch(400, 1500)
    for now in range(30):
        sketch.add(30_000, now)
    assert sketch.p50(30) > 10_000

    assert sketch.p50(30 + 20 * HALF_LIFE_S) == pytest.approx(400, rel=0.01)
    assert sketch.p99(30 + 20 * HALF_LIFE_S) == pytest.approx(1500, rel=0.01)


def test_half_life_is_what_it_says() -> None:
    """A sample counts half as much after one half-life, whether or not another came since."""
    sums = Decayed()
    sums.add(8.0, 0)

    assert sums.fade(HALF_LIFE_S) == pytest.approx(0.5)
    sums.add(0.0, HALF_LIFE_S)
    assert sums.total == pytest.approx(4.0)
    assert sums.weight == pytest.approx(1.5)


def test_time_that_stands_still_or_runs_back_fades_nothing() -> None:
    """Two attempts may be closed at the same moment, or be told out of order."""
    sums = Decayed()
    sums.add(1.0, 10)
    sums.add(1.0, 10)

    assert sums.fade(5) == 1.0
    assert sums.weight == 2.0


def test_percentiles_follow_a_long_tail() -> None:
    """For log-normal latencies, as models have them, both percentiles come out right."""
    sketch, random = LatencySketch(300, 900), Random(7)
    found = []
    for now in range(4000):
        sketch.add(random.lognormvariate(log(200), 0.5), now / 1000)
        found.append((sketch.p50(now / 1000), sketch.p99(now / 1000)))

    middle = sorted(p50 for p50, _ in found[500:])[1750]
    high = sorted(p99 for _, p99 in found[500:])[1750]
    assert middle == pytest.approx(200, rel=0.25)
    assert high == pytest.approx(640, rel=0.25)


def test_equal_latencies_have_one_percentile() -> None:
    """Without any spread, rounding must not become a negative variance."""
    sketch = LatencySketch(250, 250)
    sketch.add(250, 1)
    sketch.add(0, 2)

    assert LatencySketch(250, 100).p99(0) == pytest.approx(250)
    assert 0 < sketch.p50(2) <= sketch.p99(2)


def test_success_rate_follows_the_outcomes() -> None:
    """Failures pull it down, answers up; both are counted."""
    stats = Stats()
    for now in range(20):
        stats.failed(now)
    low = stats.success_rate(20)
    for now in range(20, 60):
        stats.answered(100, now)

    assert low < 0.2
    assert stats.success_rate(60) > 0.6
    assert (stats.requests, stats.errors) == (60, 20)


def test_a_failure_is_no_latency() -> None:
    """A quick refusal does not make an upstream quick."""
    stats = Stats(400, 1500)
    for now in range(20):
        stats.failed(now)

    assert stats.latency.p50(0) == pytest.approx(400)


def test_real_price_is_what_was_paid() -> None:
    """A million tokens cost what the answers cost per token; an answer without tokens says nothing."""
    stats = Stats()
    stats.spent(0.002, 1000, 0)
    stats.spent(0.0, 0, 1)

    assert stats.usd_per_mtok() == pytest.approx(2.0)
    assert (stats.usd, stats.tokens) == (0.002, 1000)


def test_a_mean_that_is_kept_is_not_an_old_one() -> None:
    """A sample, another prior, or a moment before it was reckoned: each has its own."""
    known = Decayed()
    known.add(10.0, 100.0)
    assert known.mean(100.0, 2.0) == pytest.approx(4)
    assert known.mean(100.5, 6.0) == pytest.approx(7, abs=0.01)
    known.add(10.0, 100.6)
    assert known.mean(100.6, 6.0) == pytest.approx(7.6, abs=0.01)
    assert known.mean(100.6 + HALF_LIFE_S, 6.0) == pytest.approx(7, abs=0.01)
    assert known.mean(100.6, 6.0) == pytest.approx(7.6, abs=0.01)
