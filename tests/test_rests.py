"""Limits and refusals rest the key that was used, and nobody else."""

from collections import Counter

import pytest

from proxy import errors
from proxy.breaker import BARE_WAIT_S, MAX_WAIT_S, QUOTA_WAIT_S, REFUSED_WAIT_S
from proxy.errors import UpstreamError
from proxy.upstream import Upstream

from .upstream_words import Steady, attempt, fail, rest_s, state, upstream, why


@pytest.mark.parametrize(("said_s", "rests_s"), [(7, 7), (0.2, 1), (86_400, MAX_WAIT_S), (None, BARE_WAIT_S)])
def test_rate_limit_rests_as_long_as_it_says(said_s: float | None, rests_s: float) -> None:
    """Between 1 and 300 s: nobody parks an upstream for a day. A bare 429 rests it for a moment."""
    subject = upstream("a/m")
    attempt(subject, 100, errors.RateLimitError("slow", retry_after_s=said_s))
    assert rest_s(subject, 100) == rests_s


def test_used_up_credit_rests_longer() -> None:
    """Money does not come back within seconds."""
    subject = upstream("a/m")
    attempt(subject, 100, errors.QuotaError("pay"))
    assert rest_s(subject, 100) == QUOTA_WAIT_S > 10 * BARE_WAIT_S


def test_rate_limits_do_not_trip() -> None:
    """A limit is an order to wait, not an outage."""
    subject = upstream("a/m")
    fail(subject, 20, 10, errors.RateLimitError("slow"))

    assert (state(subject, 10), why(subject, 10)) == ("standby", "resting 2.0 s more after rate_limit")
    assert subject.rest(10 + BARE_WAIT_S) is None


def test_up_to_a_fifth_is_added_to_a_rest() -> None:
    """So that the replicas of an app do not come back all at once."""
    subject = upstream("a/m", random=Steady(1.0))
    attempt(subject, 100, errors.RateLimitError("slow", retry_after_s=10))
    assert rest_s(subject, 100) == pytest.approx(12)


def test_a_shorter_rest_does_not_end_a_longer_one() -> None:
    """The later end stands, whatever is told in between."""
    subject = upstream("a/m")
    attempt(subject, 10, errors.RateLimitError("slow", retry_after_s=60))
    attempt(subject, 11, errors.RateLimitError("slow", retry_after_s=1))

    assert rest_s(subject, 11) == 59


@pytest.mark.parametrize("kind", [errors.RateLimitError, errors.QuotaError, errors.AuthError])
def test_one_keys_rest_is_not_the_others(kind: type[UpstreamError]) -> None:
    """The upstream goes on with the keys that are left; with none left it rests until the first comes back."""
    subject = upstream("a/m", keys=("one", "two", "three"))
    first = subject.credential(10).key
    no = kind("no", retry_after_s=30)
    subject.failed(no, 10, first, probe=False)

    used = Counter(subject.credential(10).key for _ in range(20))
    assert (subject.rest(10), set(used)) == (None, {"one", "two", "three"} - {first})

    for now, key in enumerate({"one", "two", "three"} - {first}, 11):
        subject.failed(no, now, key, probe=False)
    rest = subject.rest(12)
    assert (rest, subject.rest(40)) == ((40, kind.kind), None)
    assert subject.credential(40).key == first


def test_a_refused_key_is_refused_for_all_models_of_its_provider() -> None:
    """401 is about the key. 403 may be about the model: nobody else's is taken away for it."""
    subject = upstream("a/m", keys=("sk-1",))
    sibling = Upstream(subject.row, subject.provider, upstream("a/other").live)
    forbidden, wrong = errors.AuthError("no"), errors.AuthError("no")
    forbidden.everywhere = False

    subject.failed(forbidden, 10, "sk-1", probe=False)
    assert (rest_s(subject, 10), rest_s(sibling, 10)) == (REFUSED_WAIT_S, 0)
    subject.failed(wrong, 10, "sk-1", probe=False)

    assert why(sibling, 10) == "the provider refuses its key, which is tried again in 60.0 s"
    assert sibling.rest(10 + REFUSED_WAIT_S) is None
