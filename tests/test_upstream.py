"""May an upstream be asked now, and what it costs."""

from typing import Any

import pytest

from proxy import errors
from proxy.errors import UpstreamError
from proxy.policy import Limits, Price
from proxy.stats import DEFAULT_P50_MS
from proxy.upstream import BARE_WAIT_S, MAX_REST_S, MAX_WAIT_S, QUOTA_WAIT_S, TRIP_AFTER, Bucket, Gate, Live, blend
from proxy.wire import Usage

from .upstream_words import live, provider, upstream

HARD = (errors.UnavailableError, errors.UpstreamTimeoutError, errors.OverloadedError)


def fail(subject: Live, times: int, now: float, error: UpstreamError | None = None) -> None:
    for _ in range(times):
        subject.failed(error or errors.UnavailableError("down"), now)


def rest_s(subject: Live, error: UpstreamError) -> float:
    """How long an upstream rests after `error`."""
    subject.failed(error, 100.0)
    return subject.resting_until - 100.0 if subject.refuses(100.0) else 0.0


@pytest.mark.parametrize("kind", HARD)
def test_five_hard_failures_in_a_row_trip(kind: type[UpstreamError]) -> None:
    """The fifth takes the upstream out for a moment; the fourth does not."""
    subject = live()
    fail(subject, TRIP_AFTER - 1, 10, kind("no"))
    assert (subject.refuses(10), subject.breaker(10)) == (None, "standby")

    fail(subject, 1, 10, kind("no"))

    assert subject.breaker(10) == "tripped"
    assert f"after {kind.kind}" in (subject.refuses(10) or "")
    assert subject.refuses(11) is None
    assert subject.breaker(11) == "recovering"


def test_an_answer_in_between_starts_the_count_anew() -> None:
    """In a row means in a row."""
    subject = live()
    fail(subject, TRIP_AFTER - 1, 10)
    subject.answered(100, 10)
    fail(subject, TRIP_AFTER - 1, 10)

    assert subject.breaker(10) == "standby"


@pytest.mark.parametrize("kind", ["auth", "not_found", "invalid_request", "context_length", "content_filter"])
def test_the_clients_own_faults_never_count(kind: str) -> None:
    """A client that sends nonsense must not take an upstream from the others."""
    subject = live()
    fail(subject, 50, 10, errors.BY_KIND[kind]("no", retry_after_s=60))

    assert subject.refuses(10) is None
    assert (subject.stats.errors, subject.stats.success_rate(10)) == (0, 1.0)


def test_exactly_one_probe_tries_a_tripped_upstream() -> None:
    """While it is under way all others stay away; when it is over without a verdict, the next one may."""
    subject = live()
    fail(subject, TRIP_AFTER, 10)

    probe = subject.begin()
    second = subject.begin()
    assert (probe, second) == (True, False)
    assert "probe" in (subject.refuses(20) or "")
    subject.end(probe=second)
    assert subject.refuses(20) is not None
    subject.end(probe=probe)

    assert subject.refuses(20) is None
    assert subject.in_flight == 0


def test_a_good_probe_ends_the_outage() -> None:
    """After one answer everybody may come."""
    subject = live()
    fail(subject, TRIP_AFTER, 10)
    subject.end(probe=subject.begin())
    subject.answered(100, 12)

    assert subject.breaker(12) == "standby"
    assert subject.begin() is False
    assert subject.refuses(12) is None


def test_rests_double_while_probes_fail() -> None:
    """1, 2, 4 ... 60 seconds."""
    subject, now, rests = live(), 10.0, []
    fail(subject, TRIP_AFTER, now)
    for _ in range(8):
        rests.append(subject.resting_until - now)
        now = subject.resting_until
        subject.end(probe=subject.begin())
        fail(subject, 1, now)

    assert rests == [1, 2, 4, 8, 16, 32, MAX_REST_S, MAX_REST_S]


def test_one_outage_is_one_trip_however_many_were_under_way() -> None:
    """A hundred requests that fail together rest the upstream for a second, not for a minute."""
    subject = live()
    fail(subject, 100, 10)

    assert subject.resting_until == 11
    assert subject.stats.errors == 100


@pytest.mark.parametrize(("said_s", "rests_s"), [(7, 7), (0.2, 1), (86_400, MAX_WAIT_S), (None, BARE_WAIT_S)])
def test_rate_limit_rests_as_long_as_it_says(said_s: float | None, rests_s: float) -> None:
    """Between 1 and 300 s: nobody parks an upstream for a day. A bare 429 rests it for a moment."""
    assert rest_s(live(), errors.RateLimitError("slow", retry_after_s=said_s)) == rests_s


def test_used_up_credit_rests_longer() -> None:
    """Money does not come back within seconds."""
    assert rest_s(live(), errors.QuotaError("pay")) == QUOTA_WAIT_S
    assert QUOTA_WAIT_S > 10 * BARE_WAIT_S


def test_rate_limits_do_not_trip() -> None:
    """A limit is an order to wait, not an outage."""
    subject = live()
    fail(subject, 20, 10, errors.RateLimitError("slow"))

    assert subject.breaker(10) == "standby"
    assert "after rate_limit" in (subject.refuses(10) or "")
    assert subject.refuses(10 + BARE_WAIT_S) is None


def test_overload_that_says_when_rests_at_once() -> None:
    """A 503 with Retry-After is believed the first time; without, it counts like any failure."""
    assert rest_s(live(), errors.OverloadedError("full", retry_after_s=9)) == 9
    assert rest_s(live(), errors.OverloadedError("full")) == 0


def test_up_to_a_fifth_is_added_to_a_rest() -> None:
    """So that the replicas of an app do not come back all at once."""
    assert rest_s(live(jitter=1.0), errors.RateLimitError("slow", retry_after_s=10)) == pytest.approx(12)


def test_a_shorter_rest_does_not_end_a_longer_one() -> None:
    """The later end stands, whatever is told in between."""
    subject = live()
    subject.failed(errors.RateLimitError("slow", retry_after_s=60), 10)
    subject.failed(errors.RateLimitError("slow", retry_after_s=1), 11)

    assert subject.resting_until == 70


def test_rest_without_a_known_error_says_failures() -> None:
    """A rest that a policy's test made up has no error to name."""
    subject = live()
    subject.resting_until = 5

    assert subject.refuses(2) == "resting 3.0 s more after failures"


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

    sent = [subject.headers() for _ in range(4)]

    assert [headers["Authorization"] for headers in sent[:2]] == [headers["Authorization"] for headers in sent[2:]]
    assert {headers["Authorization"] for headers in sent} == {"Bearer one", "Bearer two"}
    assert all(headers["X-Team"] == "t" for headers in sent)


def test_without_a_key_no_authorization_is_sent() -> None:
    """A local server gets plain requests."""
    assert provider().headers() == {"Content-Type": "application/json", "Accept-Encoding": "identity"}


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


async def test_an_upstream_has_three_reasons_to_refuse() -> None:
    """No key, a rest, a limit, in this order; and a name to show."""
    subject = upstream("a/m", limits={"concurrency": 1})
    assert (repr(subject), subject.refuses(0, 0)) == ("<Upstream a/m>", None)

    subject.provider.gate.enter(0)
    assert "at once" in (subject.refuses(0, 0) or "")
    subject.live.resting_until = 9
    assert "resting" in (subject.refuses(0, 0) or "")
    assert upstream("a/m", off="no key").refuses(0, 0) == "no key"


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
