"""When an upstream that failed is asked again: outages and the way back."""

from collections import Counter
from random import Random

import pytest

from proxy import errors
from proxy.breaker import (
    MAX_REST_S,
    MAX_WAIT_S,
    RAMP_S,
    TRIP_AFTER,
    TRIP_CODES,
    TRIP_LEAST,
    WINDOW_S,
)
from proxy.errors import UpstreamError
from proxy.optimizer import Ask, decide_again
from proxy.upstream import Upstream

from .upstream_words import DOWN, Steady, attempt, fail, rest_s, route, state, upstream, why

HARD = (errors.UnavailableError, errors.UpstreamTimeoutError, errors.OverloadedError)


# ---- outages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HARD)
def test_five_hard_failures_in_a_row_trip(kind: type[UpstreamError]) -> None:
    """The fifth takes the upstream out for a moment; the fourth does not."""
    subject = upstream("a/m")
    fail(subject, TRIP_AFTER - 1, 10, kind("no"))
    assert (subject.rest(10), state(subject, 10)) == (None, "standby")

    fail(subject, 1, 10, kind("no"))

    assert (state(subject, 10), why(subject, 10)) == ("tripped", f"resting 1.0 s more after {kind.kind}")
    assert (state(subject, 11), why(subject, 11)) == ("recovering", "")


@pytest.mark.parametrize("code", sorted(TRIP_CODES))
def test_what_is_set_up_wrongly_trips_at_once(code: str) -> None:
    """A certificate that nobody trusts and an address that has moved are no matter of luck."""
    subject = upstream("a/m")
    fail(subject, 1, 10, errors.UnavailableError("no", code=code))
    assert (state(subject, 10.9), state(subject, 11)) == ("tripped", "recovering")

    assert attempt(subject, 11, errors.UnavailableError("no", code=code))  # the probe
    assert rest_s(subject, 11) == 2


def test_an_answer_in_between_starts_the_count_anew() -> None:
    """In a row means in a row."""
    subject = upstream("a/m")
    fail(subject, TRIP_AFTER - 1, 10)
    attempt(subject, 10)
    fail(subject, TRIP_AFTER - 1, 10)

    assert state(subject, 10) == "standby"


def test_an_upstream_that_fails_every_other_time_trips() -> None:
    """Never five in a row, but half of twenty: it is taken out all the same."""
    subject = upstream("a/m")
    for number in range(TRIP_LEAST - 1):
        attempt(subject, 10 + number * 0.1, None if number % 2 else DOWN)
    assert state(subject, 12) == "standby"

    attempt(subject, 12, DOWN)

    assert state(subject, 12) == "tripped"


def test_few_failures_among_many_answers_do_not_trip() -> None:
    """A quarter is what fallback is for, however long it goes on."""
    subject = upstream("a/m")
    for number in range(1000):
        attempt(subject, 10 + number * 0.1, None if number % 4 else DOWN)
        assert state(subject, 10 + number * 0.1) == "standby"


def test_failures_of_long_ago_do_not_count() -> None:
    """Half of twenty within the window: failures that are spread over hours are no outage."""
    subject = upstream("a/m")
    for number in range(200):
        now = 10 + number * WINDOW_S / (TRIP_LEAST - 2)
        attempt(subject, now, None if number % 2 else DOWN)
        assert state(subject, now) == "standby"


def test_a_busy_upstream_that_turns_half_bad_trips_soon() -> None:
    """A thousand good answers do not hide it: the window is a hundred attempts where those come before its time."""
    subject = upstream("a/m")
    for number in range(1000):
        attempt(subject, 10 + number * 0.001, DOWN if number == 0 else None)
    bad = 0
    while state(subject, 11) == "standby":
        attempt(subject, 11, None if bad % 2 else DOWN)
        bad += 1

    assert bad <= 200


@pytest.mark.parametrize("kind", ["auth", "not_found", "invalid_request", "context_length", "content_filter"])
def test_the_clients_own_faults_never_count(kind: str) -> None:
    """A client that sends nonsense must not take an upstream from the others."""
    subject = upstream("a/m")
    fail(subject, 50, 10, errors.BY_KIND[kind]("no", retry_after_s=60))

    assert (state(subject, 10), subject.live.breaker.failures) == ("standby", 0)
    assert (subject.live.stats.errors, subject.live.stats.success_rate(10)) == (0, 1.0)


def test_exactly_one_probe_tries_a_tripped_upstream() -> None:
    """While it is under way all others stay away; when it is over without a verdict, the next one may."""
    subject = upstream("a/m")
    fail(subject, TRIP_AFTER, 10)

    probe = subject.live.begin()
    second = subject.live.begin()
    assert (probe, second) == (True, False)
    assert why(subject, 20) == "recovering, one probe is under way after unavailable"
    subject.live.end(probe=second)
    assert subject.rest(20) is not None
    subject.live.end(probe=probe)

    assert subject.rest(20) is None
    assert subject.live.in_flight == 0


def test_a_good_probe_ends_the_outage() -> None:
    """After one answer it may be asked again; it counts as recovering until it takes all of its requests."""
    subject = upstream("a/m")
    fail(subject, TRIP_AFTER, 10)
    assert attempt(subject, 12)

    assert (subject.rest(12), state(subject, 12)) == (None, "recovering")
    assert not attempt(subject, 12)
    assert state(subject, 12 + RAMP_S) == "standby"


def test_only_the_probe_ends_the_outage() -> None:
    """A long answer that began before it says nothing about what a new request would meet."""
    subject = upstream("a/m")
    early = subject.live.begin()
    fail(subject, TRIP_AFTER, 10)
    subject.live.end(probe=early)
    subject.live.answered(9000, 10.5, probe=early)

    assert state(subject, 10.5) == "tripped"


def test_rests_double_while_probes_fail() -> None:
    """1, 2, 4 ... 60 seconds."""
    subject, now, rests = upstream("a/m"), 10.0, []
    fail(subject, TRIP_AFTER, now)
    for _ in range(8):
        rests.append(rest_s(subject, now))
        now += rests[-1]
        assert attempt(subject, now, DOWN)

    assert rests == [1, 2, 4, 8, 16, 32, MAX_REST_S, MAX_REST_S]


def test_who_falls_again_on_its_way_back_goes_on_doubling() -> None:
    """An upstream that answers one probe and fails again is not back; one that came all the way back is."""
    subject = upstream("a/m")
    fail(subject, TRIP_AFTER, 10)
    attempt(subject, 11)
    fail(subject, TRIP_AFTER, 12)
    assert rest_s(subject, 12) == 2
    attempt(subject, 14)

    fail(subject, TRIP_AFTER, 14 + RAMP_S)

    assert rest_s(subject, 14 + RAMP_S) == 1


def test_one_outage_is_one_trip_however_many_were_under_way() -> None:
    """A hundred requests that fail together rest the upstream for a second, not for a minute."""
    subject = upstream("a/m")
    probes = [subject.live.begin() for _ in range(100)]
    for probe in probes:
        subject.live.end(probe=probe)
        subject.failed(DOWN, 10, "", probe=probe)

    assert rest_s(subject, 10) == 1
    assert subject.live.stats.errors == 100


def test_overload_that_says_when_rests_at_once() -> None:
    """A 503 with Retry-After is believed the first time; without, it counts like any failure."""
    for wait_s in (9.0, None):
        subject = upstream("a/m")
        attempt(subject, 10, errors.OverloadedError("full", retry_after_s=wait_s))
        assert (rest_s(subject, 10), state(subject, 10)) == (wait_s or 0, "standby")


def test_a_trip_waits_as_long_as_the_provider_asks() -> None:
    """No probe comes earlier than the Retry-After of the failure that tripped."""
    subject = upstream("a/m")
    fail(subject, TRIP_AFTER - 1, 10)
    attempt(subject, 10, errors.OverloadedError("full", retry_after_s=45))

    assert (state(subject, 54), state(subject, 55)) == ("tripped", "recovering")


# ---- the way back -----------------------------------------------------------------------------------------------


def share(subject: Upstream, now: float, asks: int = 2000) -> float:
    """How many of the requests for which it is the best it is asked first."""
    chosen = route(subject, upstream("b/m"))
    firsts = [decide_again(chosen, "quality", Ask(now)).chain[0] for _ in range(asks)]
    return firsts.count(subject) / asks


def test_a_recovered_upstream_takes_a_rising_share() -> None:
    """A tenth at first, all of its requests after half a minute; the rest goes to the next best."""
    subject = upstream("a/m", random=Random(1))
    fail(subject, TRIP_AFTER, 10)
    attempt(subject, 20)

    shares = [share(subject, 20 + RAMP_S * part) for part in (0, 0.25, 0.5, 0.75, 1)]

    assert shares == pytest.approx([0.1, 0.325, 0.55, 0.775, 1], abs=0.04)
    assert state(subject, 20 + RAMP_S) == "standby"


def test_a_recovered_upstream_without_others_takes_all() -> None:
    """Nobody is turned away for its sake; and it stays the fallback of the requests that go elsewhere."""
    subject, other = upstream("a/m", random=Steady(0.99)), upstream("b/m")
    fail(subject, TRIP_AFTER, 10)
    attempt(subject, 20)

    assert decide_again(route(subject), "quality", Ask(20)).chain == [subject]
    assert decide_again(route(subject, other), "quality", Ask(20)).chain == [other, subject]


def test_an_outage_from_beginning_to_end() -> None:
    """At 200 requests a second the best upstream is dark for a minute: it is left alone at once, tried by one request
    at a time, and comes back slowly; all that time there is somebody to ask.
    """
    subject, other = upstream("a/m", random=Random(7)), upstream("b/m")
    chosen, asked = route(subject, other), Counter[int]()
    for number in range(200 * 150):
        now = 1000 + number / 200
        first = decide_again(chosen, "quality", Ask(now)).chain[0]
        if first is subject:
            attempt(subject, now, DOWN if 1010 <= now < 1070 else None)
            asked[int(now)] += 1

    assert {asked[second] for second in range(1000, 1010)} == {200}
    assert sum(asked[second] for second in range(1010, 1070)) <= TRIP_AFTER + 10
    back = next(second for second in range(1070, 1150) if asked[second])
    assert back <= 1070 + MAX_REST_S * 1.2
    rising = [sum(asked[back + 10 * part + second] for second in range(10)) / 2000 for part in range(3)]
    assert rising == pytest.approx([0.25, 0.55, 0.85], abs=0.06)
    assert asked[back + 31] == 200


# ---- anything at all --------------------------------------------------------------------------------------------

OUTCOMES = [
    None, None, None, None, DOWN, DOWN, errors.UpstreamTimeoutError("late"),
    errors.OverloadedError("full", retry_after_s=3), errors.RateLimitError("slow"), errors.QuotaError("pay"),
    errors.AuthError("no"), errors.InvalidRequestError("what?"), "left",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_the_breaker_stays_whole(seed: int) -> None:
    """At most one probe, nobody else is let in while it is under way, no attempt is lost, and it always comes back."""
    random = Random(seed)
    subject, now = upstream("a/m", keys=("one", "two")[: 1 + seed % 2], random=random), 100.0
    live, flying = subject.live, list[tuple[str, bool]]()
    odds = [random.random() for _ in OUTCOMES]
    for _ in range(1000):
        now += random.choice((0.0, 0.01, 0.3, 5.0))
        if random.random() < 0.5 and subject.rest(now) is None:
            assert not any(probe for _, probe in flying)
            tripped = state(subject, now) == "recovering" and live.breaker.tripped
            flying.append((subject.credential(now).key, live.begin()))
            assert flying[-1][1] == tripped
        elif flying:
            key, probe = flying.pop(random.randrange(len(flying)))
            (outcome,) = random.choices(OUTCOMES, odds)
            live.end(probe=probe)
            if outcome is None:
                live.answered(1, now, probe=probe)
                assert not probe or not live.breaker.tripped
            elif isinstance(outcome, UpstreamError):
                subject.failed(outcome, now, key, probe=probe)
        assert sum(probe for _, probe in flying) <= 1
        assert live.in_flight == len(flying) >= 0
        assert state(subject, now) in ("standby", "tripped", "recovering")
    for _, probe in flying:
        live.end(probe=probe)
    assert subject.rest(now + MAX_WAIT_S * 1.2) is None
