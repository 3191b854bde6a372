"""How many extra attempts a policy's requests may have."""

import pytest

from proxy.budget import FLOOR_PER_S, WINDOW_S, Budget


def run(budget: Budget, began: float, seconds: float, per_s: float, share: float = 0.2) -> float:
    """Let all of `per_s` requests a second want a retry. Returns how many a second got one."""
    asks = int(seconds * per_s)
    granted = 0
    for number in range(asks):
        budget.requests += 1
        granted += budget.retry(share, began + (number + 1) / per_s)
    return granted / seconds


@pytest.mark.parametrize(("per_s", "share"), [(200, 0.2), (1000, 0.2), (200, 0.5), (200, 0.0)])
def test_in_the_long_run_a_share_and_ten_a_second(per_s: float, share: float) -> None:
    """Of an outage that goes on, 20 % of the requests and ten a second are asked again."""
    budget = Budget(0.0)
    run(budget, 0.0, 60, per_s, share)
    assert run(budget, 60.0, 60, per_s, share) == pytest.approx(share * per_s + FLOOR_PER_S, rel=0.02)


def test_little_traffic_is_never_held() -> None:
    """Below ten a second everybody may be asked again."""
    assert run(Budget(0.0), 0.0, 100, 9) == 9


def test_a_burst_has_what_ten_seconds_bring() -> None:
    """After steady traffic at 100 a second, 10 s of it: 20 % of a thousand and a hundred more."""
    budget = Budget(0.0)
    budget.requests = 60 * 100
    assert sum(budget.retry(0.2, 60.0) for _ in range(1000)) == pytest.approx(
        WINDOW_S * (FLOOR_PER_S + 0.2 * 100), rel=0.01
    )


def test_a_busy_day_does_not_pay_for_the_night() -> None:
    """Credit fades: a million requests in the past allow no storm now."""
    budget = Budget(0.0)
    budget.requests = 1_000_000
    budget.retry(0.2, 10.0)
    granted = sum(budget.retry(0.2, 200.0) for _ in range(1000))
    assert granted == pytest.approx(WINDOW_S * FLOOR_PER_S, rel=0.05)


def test_many_at_the_same_moment() -> None:
    """A thousand requests at once are a thousand requests: a fifth of them, on top of the start."""
    budget = Budget(5.0)
    budget.requests = 1000
    assert sum(budget.retry(0.2, 5.0) for _ in range(1000)) == 300


def test_one_request_in_fifty_may_look_around() -> None:
    """Evenly, none saved up over a quiet time, and none before the first fifty."""
    budget = Budget(0.0)
    looked = []
    for number in range(200):
        looked += [number] if budget.explore(0.02) else []
        budget.requests += 1

    assert looked == [50, 100, 150]
    budget.requests += 10_000
    assert [budget.explore(0.02) for _ in range(3)] == [True, False, False]
