"""Prometheus text, to the letter."""

import msgspec

from proxy.metrics import Counter, Histogram, Metrics, Snapshot


def test_counter_has_a_series_per_label_values() -> None:
    """Series are sorted, so that two scrapes can be compared."""
    counter = Counter("n_total", "How many.", ("who", "what"))
    counter.add(("b", "x"))
    counter.add(("a", "x"), 2.5)
    counter.add(("b", "x"))

    assert list(counter.lines()) == [
        "# HELP n_total How many.",
        "# TYPE n_total counter",
        'n_total{who="a",what="x"} 2.5',
        'n_total{who="b",what="x"} 2',
    ]
    assert counter.total() == 4.5


def test_counter_without_labels_has_no_braces() -> None:
    """A bare number is a bare name."""
    counter = Counter("n_total", "How many.")
    counter.add()

    assert list(counter.lines())[-1] == "n_total 1"


def test_large_counts_stay_exact() -> None:
    """A billion tokens are no rounded number."""
    counter = Counter("n_total", "How many.")
    counter.add(amount=1_000_000_001)

    assert list(counter.lines())[-1] == "n_total 1000000001"


def test_histogram_counts_up_to_each_bound() -> None:
    """Buckets are cumulative and include their bound; +Inf is the count."""
    histogram = Histogram("s_seconds", "How long.", (0.1, 1.0))
    for seconds in (0.1, 0.5, 7.0):
        histogram.add(seconds)

    assert list(histogram.lines())[2:] == [
        's_seconds_bucket{le="0.1"} 1',
        's_seconds_bucket{le="1"} 2',
        's_seconds_bucket{le="+Inf"} 3',
        "s_seconds_sum 7.6",
        "s_seconds_count 3",
    ]


def test_label_values_cannot_forge_a_line() -> None:
    """Quotes, backslashes and line ends in a name are escaped."""
    counter = Counter("n_total", "How many.", ("who",))
    counter.add(('a"} 9\nforged 1\\',))

    lines = list(counter.lines())
    assert lines[-1] == 'n_total{who="a\\"} 9\\nforged 1\\\\"} 1'
    assert not any("\n" in line for line in lines)


def test_text_holds_all_series_and_the_gauges_of_now() -> None:
    """One page: everything that is counted, then what is measured at this moment."""
    metrics = Metrics()
    metrics.usd.add(("a/m",), 0.25)

    text = metrics.text({"sidecar_up": ("Is it on.", [({"upstream": "a/m"}, 1.0), ({}, 0.5)])})

    lines = text.splitlines()
    assert text.endswith("\n")
    assert 'sidecar_cost_usd_total{upstream="a/m"} 0.25' in lines
    assert 'sidecar_up{upstream="a/m"} 1' in lines
    assert "sidecar_up 0.5" in lines
    assert "# TYPE sidecar_up gauge" in lines
    assert "# TYPE sidecar_overhead_seconds histogram" in lines


def test_a_snapshot_survives_the_journey() -> None:
    """What another process has counted is added, series by series, new ones included."""
    one, other = Metrics(), Metrics()
    for metrics in (one, other):
        metrics.usd.add(("a/m",), 0.25)
        metrics.reloads.add(("ok",))
        metrics.duration.add(0.2)
    other.usd.add(("b/m",), 1)
    sent = msgspec.msgpack.encode(other.snapshot({"a/m": 3}, 2))

    snapshot = msgspec.msgpack.decode(sent, type=Snapshot)
    one.take_in(snapshot)

    assert (snapshot.flying, snapshot.visits) == ({"a/m": 3}, 2)
    assert one.usd.values == {("a/m",): 0.5, ("b/m",): 1}
    assert one.reloads.values == {("ok",): 1}
    assert (one.duration.counts[2], one.duration.sum) == (2, 0.4)
    assert other.usd.values == {("a/m",): 0.25, ("b/m",): 1}
