"""What a replay comes to: small cases reckoned by hand, and sums that must hold whatever happens."""

from collections import Counter
from math import fsum
from random import Random

import msgspec
import pytest

from proxy.simulation.choice import ROUND_ROBIN
from proxy.simulation.replay import Run, World
from proxy.simulation.report import Saving, figures, saving
from proxy.simulation.trace import Trace
from proxy.simulation.world import Assumed, Outage

from .simulation_words import THREE, answered_by, config, encoded, runs, trace, world


def test_cost_and_time_as_reckoned_by_hand() -> None:
    """Tokens times price; the first content when the catalog says, then sixty tokens a second."""
    cheapest, primary = runs(world(THREE))

    assert list(cheapest.usd) == pytest.approx([1120e-6, 2240e-6, 560e-6])
    assert list(cheapest.first_ms) == pytest.approx([500, 500, 500])
    assert list(cheapest.ms) == pytest.approx([1500, 2500, 1000])
    found = figures(cheapest, [primary])
    assert (found.answered, found.availability, found.attempts, found.fallbacks) == (3, 1.0, 3, 0)
    assert found.usd == pytest.approx(3920e-6)
    assert (found.latency_ms.p50, found.latency_ms.p95) == (1500, 2500)
    assert found.answered_by == {"a/m": 1.0}


def test_a_saving_is_one_minus_the_quotient() -> None:
    """The primary is the first of the file, ten times as dear; in turn, both have half of the requests."""
    cheapest, primary, turns = runs(world(THREE), "primary", ROUND_ROBIN)

    assert answered_by(primary) == ["b/m"] * 3
    assert saving(cheapest, primary).share == pytest.approx(0.9)
    assert answered_by(turns) == ["b/m", "a/m", "b/m"]
    assert saving(cheapest, turns).share == pytest.approx(1 - 3920 / (11_200 + 2240 + 5600))


def test_an_outage_falls_back() -> None:
    """The attempt that fails takes its time, then the next upstream answers, at its own price."""
    run = runs(world(THREE, assumed=Assumed(outages=[Outage("a/m", 5, 15)])))[0]

    assert answered_by(run) == ["a/m", "b/m", "a/m"]
    assert run.ms[1] == pytest.approx(500 + 250 + 2000)
    assert run.first_ms[1] == pytest.approx(750)
    assert run.usd[1] == pytest.approx(22_400e-6)
    assert list(run.attempts) == [1, 2, 1]
    assert figures(run).fallbacks == 1


def test_nobody_saves_by_failing() -> None:
    """Requests without an answer are compared with nothing."""
    assumed = Assumed(outages=[Outage("a/m", 5, 15), Outage("b/m", 5, 15)])
    cheapest, primary = runs(world(THREE, assumed=assumed))

    assert answered_by(cheapest) == ["a/m", None, "a/m"]
    assert cheapest.lost == {"unavailable": 1}
    found = saving(cheapest, primary)
    assert (found.compared, found.left_out) == (2, 1)
    assert found.baseline_usd == pytest.approx(16_800e-6)
    assert found.share == pytest.approx(0.9)


def test_nobody_saves_by_having_no_price() -> None:
    """Answers of an unknown price are in no sum, and compared with nothing; a primary has a price if anybody has."""
    found = config(fastest='strategy = "fastest"')
    unknown = msgspec.structs.replace(found.models["b/m"], price=None)
    found = msgspec.structs.replace(found, models={**found.models, "b/m": unknown})
    fastest, primary = runs(world(THREE, found))

    assert (answered_by(fastest), answered_by(primary)) == (["b/m"] * 3, ["a/m"] * 3)
    assert (figures(fastest).usd, figures(fastest).unpriced) == (0.0, 3)
    assert saving(fastest, primary) == Saving("primary", None, 0.0, 0.0, 0, 3)


def test_the_prompt_cache_of_a_provider() -> None:
    """What an upstream was sent lately is read at its cached price, in whole blocks, until it has expired."""
    known = tuple(range(8))
    prompts = trace(
        (0, 4096, 10), (10, 4608, 10), (20, 4096, 10), (500, 4096, 10),
        blocks=[known, (*known, 8), (*known[:4], 90, 91, 92, 93), known],
    )  # fmt: skip
    run = runs(world(prompts))[0]

    assert list(run.cached) == [0, 4096, 2048, 0]
    assert run.usd[2] == pytest.approx((2048 * 1 + 2048 * 0.1 + 10 * 2) / 1e6)


def test_short_prompts_are_not_cached() -> None:
    """Below the provider's least nothing is kept, and nothing is found."""
    prompts = trace((0, 1000, 10), (1, 1000, 10), blocks=[(1,), (1,)])
    assert list(runs(world(prompts))[0].cached) == [0, 0]


def test_limits_are_kept_in_the_time_of_the_replay() -> None:
    """Sixty a minute is one a second, however fast the replay runs; the rest goes to the next upstream."""
    many = trace(*((number / 10, 10, 1) for number in range(1200)))
    run = runs(world(many, config(limits="limits = { rpm = 60 }")))[0]

    by = Counter(answered_by(run))
    assert by["a/m"] == pytest.approx(60 + 120, abs=2)
    assert by["b/m"] + by["a/m"] == 1200


def test_an_upstream_that_is_down_is_left_alone() -> None:
    """The breaker trips after five failures, and only probes find out more."""
    many = trace(*((float(number), 10, 1) for number in range(300)))
    run = runs(world(many, assumed=Assumed(outages=[Outage("a/m", 0, 200)])))[0]

    failed = sum(attempts - 1 for attempts in run.attempts)
    assert 5 < failed < 20
    assert answered_by(run)[-1] == "a/m"
    assert run.lost == {}


def test_the_first_word_of_a_probe_ends_an_outage() -> None:
    """The others need not wait until the probe's long answer is over."""
    many = trace(*((number / 10, 10, 1800) for number in range(300)))
    run = runs(world(many, assumed=Assumed(outages=[Outage("a/m", 0, 3)])))[0]

    by = answered_by(run)
    assert "a/m" not in by[:30]
    assert 10 < by[60:250].count("a/m") < 190


def test_retries_are_held_to_the_budget() -> None:
    """A share of the requests, and ten a second, may be asked twice; the others end with their fault."""
    many = trace(*((number / 1000, 10, 1) for number in range(5000)))
    lost = []
    for budget in (0, 0.02, 1):
        policy = f'strategy = "cheapest"\n[fallback]\nbudget = {budget}'
        run = runs(world(many, config(cheapest=policy), Assumed({"a/m": 0.1})))[0]
        assert run.metrics.held.total() == sum(run.lost.values())
        lost.append(run.lost["unavailable"])
    # Of some 500 faults a full budget and five seconds of its floor are 150, two percent of the requests 100 more.
    assert 300 < lost[0] < 450
    assert lost[0] - 130 < lost[1] < lost[0] - 70
    assert lost[2] == 0


def test_answers_that_take_too_long() -> None:
    """The policy's timers hold: before the first content the next is asked, in the middle of a stream nobody is."""
    slow = config(cheapest='strategy = "cheapest"\ntimeouts = { first_event = 0.3, total = 2 }')
    run = runs(world(trace((0, 10, 60), (10, 10, 600)), slow))[0]

    assert answered_by(run) == ["b/m", None]
    assert run.ms[0] == pytest.approx(300 + 250 + 1000)
    assert run.lost == {"timeout": 1}
    assert run.first_ms[1] == pytest.approx(300 + 250)


def test_complete_answers() -> None:
    """An answer that is not streamed has its first content with its last, and the timer of whole answers."""
    whole = config(cheapest='strategy = "cheapest"\ntimeouts = { answer = 2 }')
    run = runs(world(trace((0, 10, 60), (10, 10, 120), stream=[False, False]), whole))[0]

    assert run.first_ms[0] == run.ms[0] == pytest.approx(1500)
    assert answered_by(run) == ["a/m", None]


def test_a_server_error_is_tried_again_after_a_pause() -> None:
    """With nobody left to ask, a 500 is asked again once, a little later: the router's rule, and its pause."""
    alone = config(cheapest='strategy = "cheapest"\ncandidates = ["a/m"]')
    found = world(trace(*((float(number), 10, 1) for number in range(400))), alone, Assumed(faults={"a/m": 0.05}))
    run = runs(found)[0]

    again = [ms for ms, attempts in zip(run.ms, run.attempts, strict=True) if attempts == 2]
    assert again
    assert all(500 + 100 + 500 < ms < 500 + 300 + 520 for ms in again)


def test_prompts_that_are_too_long() -> None:
    """A prompt over a model's context is an error of the request's, unless the policy lists it."""
    assert runs(world(trace((0, 120_000, 1))))[0].lost == {"context_length": 1}
    listed = config(cheapest='strategy = "cheapest"\n[fallback]\non = ["context_length"]')
    assert answered_by(runs(world(trace((0, 120_000, 1)), listed))[0]) == ["b/m"]


def test_requests_of_a_kind() -> None:
    """A `[[when]]` has its own candidates in a replay, too."""
    large = config(cheapest='strategy = "cheapest"\n[[when]]\ntokens_above = 1500\ncandidates = ["b/m"]')
    assert answered_by(runs(world(THREE, large))[0]) == ["a/m", "b/m", "a/m"]


def test_an_upstream_as_baseline_stands_alone() -> None:
    """One upstream and no fallback, as an app without a sidecar has it."""
    named = runs(world(THREE, assumed=Assumed(outages=[Outage("b/m", 5, 15)])), "b/m")[1]
    assert answered_by(named) == ["b/m", None, "b/m"]


# ---- whatever happens -------------------------------------------------------------------------------------------


def busy(seed: int = 1) -> World:
    """Three thousand requests in ten minutes, with conversations, faults, outages and limits."""
    random, at = Random(7), 0.0
    requests, blocks = [], []
    for number in range(3000):
        at += random.expovariate(5)
        prompt = tuple(100 * (number % 40) + block for block in range(random.randrange(20)))
        blocks.append(prompt)
        requests.append((at, 512 * len(prompt) + random.randrange(512), random.randrange(400)))
    assumed = Assumed({"": 0.05, "b/m": 0.2}, [Outage("a/m", 100, 200), Outage("b/m", 150, 220)])
    limited = config(
        limits="limits = { rpm = 400, concurrency = 20 }",
        cheapest='strategy = "cheapest"\ntimeouts = { total = 6 }',
        balanced='strategy = "balanced"',
    )
    return world(trace(*requests, blocks=blocks), limited, assumed, seed)


@pytest.fixture(scope="module")
def played() -> tuple[World, list[Run]]:
    """A busy world, played."""
    return busy(), runs(busy(), "primary", ROUND_ROBIN, "b/m")


def test_every_request_ends_once(played: tuple[World, list[Run]]) -> None:
    """Answered or lost, never both, never neither."""
    for run in played[1]:
        found = figures(run)
        assert found.answered + sum(found.lost.values()) == found.requests == 3000
        assert found.availability == found.answered / 3000
        assert all(ms == ms for ms in run.ms)
        assert sum(found.answered_by.values()) == pytest.approx(1)


def test_cost_is_the_sum_over_attempts(played: tuple[World, list[Run]]) -> None:
    """What the requests cost is what the sidecar's own counters say was spent, upstream by upstream."""
    for run in played[1]:
        spent = run.metrics.usd.values
        for place, name in enumerate(run.upstreams):
            mine = fsum(usd for usd, by in zip(run.usd, run.by, strict=True) if by == place)
            assert mine == pytest.approx(spent.get((name,), 0.0))
        assert sum(run.attempts) == run.metrics.attempts.total()
        answers = sum(count for (_, outcome), count in run.metrics.attempts.values.items() if outcome == "ok")
        assert answers == figures(run).answered


def test_there_was_something_to_conserve(played: tuple[World, list[Run]]) -> None:
    """The busy world has all that can go wrong in it, or the sums would prove little."""
    cheapest = played[1][0]
    assert set(cheapest.lost) >= {"unavailable", "timeout"}
    assert max(cheapest.attempts) == 3
    assert sum(cheapest.cached) > 0
    assert len(figures(cheapest).answered_by) == 2


def test_cached_tokens_are_tokens_of_the_prompt(played: tuple[World, list[Run]]) -> None:
    """Nobody reads more from a cache than was sent."""
    assert all(
        0 <= cached < max(input, 1) for run in played[1] for cached, input in zip(run.cached, run.input, strict=True)
    )


def test_the_same_seed_gives_the_same_bits(played: tuple[World, list[Run]]) -> None:
    """Chance is the seed's alone; another seed is another world."""
    first = played[1][0]
    assert encoded(runs(busy())[0]) == encoded(first)
    assert encoded(runs(busy(seed=2))[0]) != encoded(first)


def test_policies_meet_the_same_luck() -> None:
    """Two policies that ask the same upstream see the same times: what differs is theirs, not chance's."""
    traffic: Trace = busy().trace
    one, other = (
        runs(world(traffic, config(p=f'strategy = "{name}"\ncandidates = ["a/m"]')))[0]
        for name in ("cheapest", "fastest")
    )
    assert encoded(one) == encoded(other)
