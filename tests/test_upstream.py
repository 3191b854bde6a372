"""The limits of a provider, its keys, and what an upstream costs."""

from typing import Any

import pytest

from proxy import errors
from proxy.gate import Bucket, Gate
from proxy.policy import Limits, Price
from proxy.stats import DEFAULT_P50_MS
from proxy.upstream import blend
from proxy.wire import Usage

from .upstream_words import provider, upstream


async def filled(limits: Limits, *tokens: int) -> Gate:
    gate = Gate(limits)
    for one in tokens:
        gate.enter(one)
    return gate


@pytest.mark.parametrize(
    ("limits", "word"), [({"rpm": 2}, "2 requests per minute"), ({"tpm": 10}, "10 tokens per minute")]
)
async def test_limits_per_minute(limits: dict[str, int], word: str) -> None:
    """When the minute's share is used up there is no place, and leaving gives none back."""
    gate = await filled(Limits(**limits), 5)
    assert gate.refuses(5) is None
    gate.enter(5)
    gate.leave()
    gate.leave()

    assert word in (gate.refuses(5) or "")
    assert gate.in_flight == 0


async def test_limit_of_requests_at_once() -> None:
    """A place is free again as soon as somebody leaves."""
    gate = await filled(Limits(concurrency=2), 0, 0)
    assert gate.refuses(0) == "limit of 2 requests at once"

    gate.leave()

    assert gate.refuses(0) is None


async def test_a_full_gate_refuses_instead_of_waiting() -> None:
    """Between the decision and the attempt others may have come; then the next upstream is asked, at once."""
    gate = await filled(Limits(rpm=1), 0)

    with pytest.raises(errors.RateLimitError) as raised:
        gate.enter(0)

    assert raised.value.unsent
    assert "1 requests per minute" in raised.value.message
    assert gate.in_flight == 1


async def test_a_request_over_the_whole_limit_still_passes_once() -> None:
    """A prompt longer than a minute's tokens would otherwise never be served."""
    gate = Gate(Limits(tpm=10))
    assert gate.refuses(1000) is None
    gate.enter(1000)

    assert gate.refuses(1) is not None


async def test_no_limits_never_refuse() -> None:
    """What is not in the catalog is not limited."""
    gate = await filled(Limits(), *[10**9] * 100)

    assert gate.refuses(10**9) is None
    assert gate.in_flight == 100


def test_keys_take_turns() -> None:
    """A list of keys rotates; the catalog's headers ride along with each."""
    subject = provider(keys=("one", "two"), headers={"X-Team": "t"})

    sent = [subject.next().headers for _ in range(4)]

    assert [headers["Authorization"] for headers in sent[:2]] == [headers["Authorization"] for headers in sent[2:]]
    assert {headers["Authorization"] for headers in sent} == {"Bearer one", "Bearer two"}
    assert all(headers["X-Team"] == "t" for headers in sent)


def test_without_a_key_no_authorization_is_sent() -> None:
    """A local server gets plain requests."""
    assert upstream("a/m").credential(0).headers == {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
    }


@pytest.mark.parametrize(
    ("price", "usd"),
    [
        ({"input": 2, "output": 8}, 1000 * 2 + 100 * 8),
        ({"input": 2, "output": 8, "cached_input": 1}, 400 * 2 + 600 * 1 + 100 * 8),
        ({"input": 2, "output": 8, "cache_write": 3}, 800 * 2 + 200 * 3 + 100 * 8),
        ({"input": 0, "output": 0}, 0),
    ],
)
def test_cost_of_an_answer(price: dict[str, Any], usd: float) -> None:
    """Cached and written tokens have their own price where the catalog has one, else that of other input."""
    usage = Usage(input=1000, output=100, cached=600, cache_write=200)
    if "cache_write" not in price:
        usage = Usage(input=1000, output=100, cached=600)

    assert upstream("a/m", price=price).cost_usd(usage) == pytest.approx(usd / 1e6)


def test_unknown_price_is_unknown_not_free() -> None:
    """Without a price there is no cost, neither for an answer nor to compare by."""
    subject = upstream("a/m")

    assert subject.cost_usd(Usage(1, 1)) is None
    assert subject.usd_per_mtok is None


def test_more_cached_than_input_costs_no_less_than_nothing() -> None:
    """A provider's odd numbers do not make money."""
    assert upstream("a/m", price={"input": 1, "output": 1, "cached_input": 0}).cost_usd(Usage(1, 0, 9)) == 0


def test_equal_blends_are_equal_to_the_last_bit() -> None:
    """Three to one of input and output; what is equal on paper is a tie."""
    assert blend(Price(input=1, output=5)) == 2
    assert blend(Price(input=0.1, output=0.5)) == blend(Price(input=0.2, output=0.2)) == 0.2


@pytest.mark.parametrize(
    ("latency", "p50", "p99"),
    [
        (None, DEFAULT_P50_MS, 5 * DEFAULT_P50_MS),
        ({"p50_ms": 10}, 10, 50),
        ({"p50_ms": 10, "p99_ms": 20}, 10, 20),
    ],
)
def test_latency_prior_comes_from_the_catalog(latency: Any, p50: float, p99: float) -> None:
    """An upstream that nobody has measured is as quick as its row says, or average."""
    stats = upstream("a/m", latency=latency).live.stats

    assert stats.latency.p50(0) == pytest.approx(p50)
    assert stats.first_token.p99(0) == pytest.approx(p99)


def test_an_upstream_has_a_name_to_show() -> None:
    """In a debugger."""
    assert repr(upstream("a/m")) == "<Upstream a/m>"


async def test_a_bucket_takes_all_or_nothing() -> None:
    """More than there can ever be takes all there is; what is given back may be taken again."""
    bucket = Bucket(10, 60)
    assert (bucket.take(4), bucket.take(7), bucket.has_room(6), bucket.has_room(7)) == (True, False, True, False)
    bucket.give_back(4)
    assert (bucket.take(1000), bucket.has_room(1), bucket.take(1)) == (True, False, False)


async def test_a_request_that_its_tokens_stop_takes_no_place() -> None:
    """What the first limit gave is given back when the second refuses."""
    gate = await filled(Limits(rpm=2, tpm=10), 10)
    for _ in range(3):
        with pytest.raises(errors.RateLimitError, match="10 tokens per minute"):
            gate.enter(5)
    assert gate.in_flight == 1
