"""Whom a policy prefers, whom it leaves out, and why. Nothing is called, time is an argument."""

from random import Random
from typing import Any

import msgspec
import pytest

from proxy.errors import RateLimitError, UnavailableError
from proxy.optimizer import PARTS, RANKED_S, STRATEGIES, Ask, Decision, decide, decide_again
from proxy.policy import STRATEGIES as NAMES
from proxy.routes import Route
from proxy.upstream import Upstream

from .upstream_words import route, upstream

NOW = Ask(now=10.0)


def order(found: Decision) -> list[str]:
    return [scored.upstream.name for scored in found.order]


def chain(found: Decision) -> list[str]:
    return [one.name for one in found.chain]


def scores(found: Decision) -> dict[str, float]:
    return {scored.upstream.name: scored.score for scored in found.order}


def excluded(found: Decision) -> dict[str, tuple[str, str]]:
    return {one.upstream.name: (one.why, one.reason) for one in found.excluded}


def rated(name: str, usd: float | None = None, ms: float = 1000, quality: float | None = None) -> Upstream:
    """An upstream with these numbers; input and output cost the same."""
    price = None if usd is None else {"input": usd, "output": usd}
    return upstream(name, price=price, latency={"p50_ms": ms}, quality=quality)


def three(**fields: Any) -> Route:
    """a is cheap, b is quick, c is good."""
    return route(rated("a/m", 1, 400, 5), rated("b/m", 2, 100, 6), rated("c/m", 4, 200, 10), **fields)


def rest(one: Upstream, wait_s: float = 60) -> Upstream:
    """Let `one` rest from NOW on."""
    one.live.failed(RateLimitError("slow", retry_after_s=wait_s), NOW.now)
    return one


@pytest.mark.parametrize(
    ("strategy", "first_to_last", "parts"),
    [
        ("cheapest", ["a/m", "b/m", "c/m"], [(0.001256,), (0.002512,), (0.005024,)]),
        ("fastest", ["b/m", "c/m", "a/m"], [(100,), (200,), (400,)]),
        ("quality", ["c/m", "b/m", "a/m"], [(10,), (6,), (5,)]),
    ],
)
def test_each_strategy_prefers_one_number(strategy: str, first_to_last: list[str], parts: list[tuple[float]]) -> None:
    """Best first, all of them, with the number that decided; the chain is the order."""
    found = decide(three(), strategy, msgspec.structs.replace(NOW, tokens=1000))

    assert order(found) == chain(found) == first_to_last
    for scored, part in zip(found.order, parts, strict=True):
        assert scored.parts == pytest.approx(part)
    assert found.excluded == []


def test_balanced_is_the_documented_formula() -> None:
    """0.5 x cost + 0.3 x latency + 0.2 x quality, each how many times worse than the best."""
    found = decide(three(), "balanced", NOW)

    parts = {scored.upstream.name: scored.parts for scored in found.order}
    assert parts["a/m"] == pytest.approx((0, 1 - 100 / 400, 1 - 5 / 10))
    assert parts["b/m"] == pytest.approx((1 - 1 / 2, 0, 1 - 6 / 10))
    assert parts["c/m"] == pytest.approx((1 - 1 / 4, 1 - 100 / 200, 0))
    assert scores(found) == pytest.approx({"a/m": 0.325, "b/m": 0.33, "c/m": 0.525})
    assert order(found) == ["a/m", "b/m", "c/m"]


@pytest.mark.parametrize(
    ("weights", "first"),
    [
        ({"cost": 1, "latency": 0, "quality": 0}, "a/m"),
        ({"cost": 0, "latency": 1, "quality": 0}, "b/m"),
        ({"cost": 0, "latency": 0, "quality": 1}, "c/m"),
        ({"cost": 0.4, "latency": 0.4, "quality": 0.2}, "b/m"),
    ],
)
def test_weights_are_settable(weights: dict[str, float], first: str) -> None:
    """What a policy weighs decides; only the proportions count."""
    found = decide(three(weights=weights), "balanced", NOW)
    larger = decide(three(weights={name: 7 * value for name, value in weights.items()}), "balanced", NOW)

    assert order(found)[0] == first
    assert scores(larger) == pytest.approx(scores(found))


def test_a_slightly_dearer_model_is_only_slightly_worse() -> None:
    """Ratios, not spans: 1 % of the price is 1 % of the weight, so a much better model wins."""
    found = decide(route(rated("a/m", 1.00, quality=5), rated("b/m", 1.01, quality=10)), "balanced", NOW)

    assert order(found) == ["b/m", "a/m"]
    assert scores(found) == pytest.approx({"b/m": 0.5 * (1 - 1 / 1.01), "a/m": 0.2 * 0.5})


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("numbers", [(1, 100, 5), (0, 100, 0), (None, 100, None)])
def test_equal_upstreams_keep_the_policys_order(strategy: str, numbers: tuple[Any, Any, Any]) -> None:
    """Priced, free or unpriced: nothing is divided by zero, and nobody is moved."""
    names = ["z/m", "a/m", "y/m", "b/m"]
    found = decide(route(*(rated(name, *numbers) for name in names), candidates=names), strategy, NOW)

    assert order(found) == names
    assert strategy != "balanced" or set(scores(found).values()) == {0.0}


def test_scores_that_differ_by_the_last_bit_are_a_tie() -> None:
    """What is equal on paper is equal: 0.1 + 0.2 is 0.3."""
    found = decide(route(rated("a/m", 0.1 + 0.2, 100, 7), rated("b/m", 0.3, 100.0 + 1e-9, 7)), "balanced", NOW)

    assert order(found) == ["a/m", "b/m"]
    assert len(set(scores(found).values())) == 1


@pytest.mark.parametrize("strategy", ["cheapest", "balanced"])
@pytest.mark.parametrize("usd", [0.0, 1.0, 1e6])
def test_an_unknown_price_is_never_the_cheapest(strategy: str, usd: float) -> None:
    """Unknown is not free: it is as dear as anything can be."""
    found = decide(route(rated("a/m", None), rated("b/m", usd)), strategy, NOW)

    assert order(found) == ["b/m", "a/m"]
    assert found.order[1].parts[0] == (float("inf") if strategy == "cheapest" else 1.0)


def test_free_beats_paid() -> None:
    """A local model costs nothing; all that costs something is then infinitely worse, which is 1."""
    found = decide(route(rated("a/m", 5), rated("b/m", 0), rated("c/m", None)), "balanced", NOW)

    assert order(found) == ["b/m", "a/m", "c/m"]
    assert [scored.parts[0] for scored in found.order] == [0, 1, 1]


@pytest.mark.parametrize("strategy", ["quality", "balanced"])
def test_unknown_quality_comes_last(strategy: str) -> None:
    """Behind the worst that is known."""
    found = decide(route(rated("a/m", 1), rated("b/m", 1, quality=0.5)), strategy, NOW)

    assert order(found) == ["b/m", "a/m"]
    assert found.order[1].parts[-1] == (0.0 if strategy == "quality" else 1.0)


def test_a_single_candidate_is_the_best() -> None:
    """There is nothing to be worse than."""
    assert scores(decide(route(rated("a/m", 3, 900, 2)), "balanced", NOW)) == {"a/m": 0.0}


def crowd(random: Random, factor: float = 1.0, unpriced: float = 0.2) -> Route:
    """Up to eight upstreams with random numbers, some without a price; prices are multiplied by `factor`."""
    made = []
    for number in range(random.randint(1, 8)):
        usd = None if random.random() < unpriced else random.choice([0.0, 0.1, 0.15, 0.6, 3.0, 15.0]) * factor
        made.append(rated(f"p{number}/m", usd, random.choice([50, 200, 900]), random.choice([None, 3, 7.5, 9])))
    return route(*made)


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize("factor", [1e-3, 0.07, 1.1, 100.0])
def test_multiplying_all_prices_keeps_the_order(strategy: str, factor: float) -> None:
    """Dollars or cents, thousands or millions of tokens: only proportions count."""
    for seed in range(100):
        found = decide(crowd(Random(seed)), strategy, NOW)
        scaled = decide(crowd(Random(seed), factor), strategy, NOW)
        assert order(scaled) == order(found), seed
        if strategy == "balanced":
            assert scores(scaled) == pytest.approx(scores(found))


@pytest.mark.parametrize("strategy", NAMES)
def test_every_decision_is_whole_and_sorted(strategy: str) -> None:
    """Nobody is lost, scores rise, the balanced ones stay within 0 and 1, and the same question has the same answer."""
    for seed in range(200):
        asked = crowd(Random(seed))
        found = decide(asked, strategy, NOW)
        rising = [scored.score for scored in found.order]
        assert {scored.upstream for scored in found.order} == set(asked.candidates)
        assert rising == sorted(rising)
        assert strategy != "balanced" or 0 <= rising[0] <= rising[-1] <= 1
        assert decide(asked, strategy, NOW) == found


def test_every_strategy_names_its_parts() -> None:
    """What the schema knows, the optimizer can do, and `explain` can show."""
    assert list(STRATEGIES) == list(PARTS) == list(NAMES)
    for name in NAMES:
        assert all(len(scored.parts) == len(PARTS[name]) for scored in decide(three(), name, NOW).order)


def test_live_numbers_replace_the_prior() -> None:
    """A dozen slow answers and the quickest on paper is so no more; a stream goes by its first token."""
    quick, slow = rated("a/m", ms=100), rated("b/m", ms=300)
    for _ in range(12):
        quick.live.answered(5000, 9.0)

    asked = route(quick, slow)

    assert order(decide(asked, "fastest", NOW)) == ["b/m", "a/m"]
    assert order(decide(asked, "fastest", msgspec.structs.replace(NOW, stream=True))) == ["a/m", "b/m"]


@pytest.mark.parametrize(
    ("fields", "policy", "why", "reason"),
    [
        ({"off": "set KEY to use it"}, {}, "off", "set KEY to use it"),
        ({"features": ["tools"]}, {}, "needs", "does not offer json_schema, vision"),
        ({"quality": 5.5}, {"min_quality": 6}, "require", "quality 5.5 is below 6"),
        ({}, {"min_quality": 6}, "require", "quality unknown is below 6"),
        ({}, {"price": True}, "require", "no known price"),
        ({"limits": {"concurrency": 1}}, {}, "limit", "limit of 1 requests at once"),
    ],
)
async def test_who_may_not_be_asked_is_told_with_the_reason(
    fields: dict[str, Any], policy: dict[str, Any], why: str, reason: str
) -> None:
    """The others are asked; `explain` shows these words."""
    bad, good = upstream("a/m", **fields), upstream("b/m", quality=9, price={"input": 0, "output": 0})
    bad.provider.gate.enter(0)
    ask = msgspec.structs.replace(NOW, needs=frozenset({"tools", "vision", "json_schema"}))

    found = decide(route(bad, good, require=policy), "cheapest", ask)

    assert chain(found) == ["b/m"]
    assert excluded(found) == {"a/m": (why, reason)}


@pytest.mark.parametrize(
    ("fields", "ask", "why"),
    [
        ({"context": 1000}, {"tokens": 3002}, None),  # twelve bytes per token may be
        ({"context": 1000}, {"tokens": 3003}, "context"),
        ({"context": 1000}, {"tokens": 1500, "max_tokens": 500}, None),
        ({"context": 1000}, {"tokens": 1500, "max_tokens": 501}, "context"),
        (
            {"context": 1000},
            {"tokens": 90_000, "needs": frozenset({"vision"})},
            None,
        ),
        ({"max_output": 500}, {"max_tokens": 500}, None),
        ({"max_output": 500}, {"max_tokens": 501}, "max_output"),
        ({}, {"tokens": 10**9, "max_tokens": 10**9}, None),
    ],
)
def test_who_surely_cannot_take_a_request_is_left_out(
    fields: dict[str, Any], ask: dict[str, Any], why: str | None
) -> None:
    """And nobody else; be it asked alone or right after a small one."""
    subject, asked = route(upstream("a/m", **fields), upstream("b/m")), msgspec.structs.replace(NOW, **ask)
    decide_again(subject, "cheapest", NOW)

    for found in decide(subject, "cheapest", asked), decide_again(subject, "cheapest", asked):
        assert chain(found) == (["a/m", "b/m"] if why is None else ["b/m"])
        assert {name: reason for name, (reason, _) in excluded(found).items()} == ({} if why is None else {"a/m": why})
    assert chain(decide_again(subject, "cheapest", NOW)) == ["a/m", "b/m"]


def test_the_numbers_are_told() -> None:
    """What an upstream takes, and what the request has."""
    subject = route(upstream("a/m", context=10), upstream("b/m", max_output=5))
    assert excluded(decide(subject, "cheapest", msgspec.structs.replace(NOW, tokens=300, max_tokens=6))) == {
        "a/m": ("context", "takes 10 tokens, the request has 106 or more"),
        "b/m": ("max_output", "answers with 5 tokens at most, 6 are asked for"),
    }


def test_the_first_reason_counts() -> None:
    """No key comes before what the request needs, and that before a rest: whatever is longest true is told."""
    off = rest(upstream("a/m", off="no key", features=[]))
    lacking = rest(upstream("b/m", features=[]))

    found = decide(route(off, lacking), "cheapest", msgspec.structs.replace(NOW, needs=frozenset({"tools"})))

    assert {name: why for name, (why, _) in excluded(found).items()} == {"a/m": "off", "b/m": "needs"}


def test_a_success_rate_below_the_wish_excludes() -> None:
    """From live numbers: a newcomer is trusted, and whoever failed is again once the failures are old."""
    flaky, new = upstream("a/m"), upstream("b/m")
    for _ in range(6):
        flaky.live.stats.failed(10.0)
    asked = route(flaky, new, require={"min_success_rate": 0.9})

    found = decide(asked, "cheapest", NOW)

    assert excluded(found) == {"a/m": ("require", "success rate 0.33 is below 0.9")}
    assert order(decide(asked, "cheapest", msgspec.structs.replace(NOW, now=10_000.0))) == ["a/m", "b/m"]


def test_what_meets_the_wish_exactly_may_be_asked() -> None:
    """A minimum is allowed, and so is a feature list that has all that is needed, or is not known."""
    exact, silent = upstream("a/m", quality=6, features=["tools", "vision"]), upstream("b/m", quality=6)
    asked = route(exact, silent, require={"min_quality": 6, "min_success_rate": 1})

    assert order(decide(asked, "quality", msgspec.structs.replace(NOW, needs=frozenset({"tools"})))) == ["a/m", "b/m"]


def test_a_resting_upstream_is_left_out_until_its_time() -> None:
    """And comes back at that moment."""
    asked = route(rest(rated("a/m", 1), 30), rated("b/m", 2))

    assert excluded(decide(asked, "cheapest", NOW)) == {"a/m": ("rest", "resting 30.0 s more after rate_limit")}
    assert order(decide(asked, "cheapest", msgspec.structs.replace(NOW, now=40.0))) == ["a/m", "b/m"]


async def test_a_prompt_too_long_for_what_is_left_of_the_minute_goes_elsewhere() -> None:
    """The estimated tokens count; a short prompt still fits."""
    limited = upstream("a/m", limits={"tpm": 100})
    limited.provider.gate.enter(60)
    asked = route(limited, upstream("b/m"))

    assert chain(decide(asked, "cheapest", msgspec.structs.replace(NOW, tokens=80))) == ["b/m"]
    assert chain(decide(asked, "cheapest", msgspec.structs.replace(NOW, tokens=20))) == ["a/m", "b/m"]


@pytest.mark.parametrize("strategy", NAMES)
def test_nobody_is_a_decision_too(strategy: str) -> None:
    """All excluded, or no candidates at all: an empty order and an empty chain."""
    found = decide(route(upstream("a/m", off="no key")), strategy, NOW)

    assert (found.order, found.chain, list(excluded(found))) == ([], [], ["a/m"])
    assert decide(route(), strategy, NOW) == Decision([], [], [])


CHAIN = {"chain": {"a/m": ["c/m", "b/m"], "b/m": []}}


def test_a_fixed_chain_replaces_the_next_best() -> None:
    """Behind its primary only; a primary without a chain falls back by strategy, one with an empty chain to nobody."""
    asked = three(fallback=CHAIN)

    assert chain(decide(asked, "cheapest", NOW)) == ["a/m", "c/m", "b/m"]
    assert chain(decide(asked, "quality", NOW)) == ["c/m", "b/m", "a/m"]
    found = decide(asked, "fastest", NOW)
    assert (order(found), chain(found)) == (["b/m", "c/m", "a/m"], ["b/m"])


def test_a_fixed_chain_leaves_out_who_may_not_be_asked() -> None:
    """And its own primary, which was asked already."""
    good, away, free = rated("a/m", 1), rest(rated("b/m", 2)), rated("c/m", 3)
    asked = route(good, away, free, fallback={"chain": {"a/m": ["b/m", "a/m", "c/m"]}})

    assert chain(decide(asked, "cheapest", NOW)) == ["a/m", "c/m"]


def test_the_chain_of_a_resting_pinned_primary_answers() -> None:
    """It is taken for asked and failed: nobody waits for it while the next in line is well."""
    pinned = three(fallback=CHAIN, candidates=["a/m"])
    rest(pinned.candidates[0])

    found = decide(pinned, "cheapest", NOW)

    assert (order(found), chain(found)) == ([], ["c/m", "b/m"])
    assert list(excluded(found)) == ["a/m"]


def test_when_nobody_may_be_asked_the_first_chain_answers() -> None:
    """Candidates without one are passed over; a whole chain at rest is nobody."""
    asked = three(fallback={"chain": {"b/m": ["c/m"]}}, candidates=["a/m", "b/m"])
    for one in asked.candidates:
        rest(one)
    assert chain(decide(asked, "cheapest", NOW)) == ["c/m"]

    rest(asked.chains["b/m"][0])

    assert chain(decide(asked, "cheapest", NOW)) == []


# ---- a ranking that serves more than one request -----------------------------------------------------------------


def later(seconds: float, **fields: Any) -> Ask:
    """An ask so many seconds after NOW."""
    return Ask(now=NOW.now + seconds, **fields)


def test_a_ranking_serves_for_a_moment() -> None:
    """Numbers that move count from the next ranking on, at the latest after RANKED_S."""
    subject = three()
    first = decide_again(subject, "fastest", NOW)
    for _ in range(20):
        subject.candidates[0].live.answered(1, NOW.now)

    assert decide_again(subject, "fastest", later(RANKED_S / 2)) is first
    assert chain(decide_again(subject, "fastest", later(RANKED_S)))[0] == "a/m"


def test_a_ranking_ends_when_its_first_choice_fails() -> None:
    """A failure counts at once, whether it rests the upstream or not."""
    subject = three(require={"min_success_rate": 0.8})
    assert chain(decide_again(subject, "cheapest", NOW))[0] == "a/m"
    subject.candidates[0].live.failed(UnavailableError("down"), NOW.now)
    assert chain(decide_again(subject, "cheapest", later(0.001)))[0] == "b/m"


def test_a_ranking_does_not_outlive_a_rest_or_a_full_gate() -> None:
    """Who may not be asked now is not asked, however fresh the ranking."""
    subject = three()
    decide_again(subject, "quality", NOW)
    rest(subject.candidates[2])
    assert chain(decide_again(subject, "quality", later(0.001)))[0] == "b/m"


async def test_a_full_gate_ends_a_ranking() -> None:
    """So does a limit that is used up."""
    subject = route(upstream("a/m", limits={"concurrency": 1}), rated("b/m"))
    assert chain(decide_again(subject, "cheapest", NOW)) == ["a/m", "b/m"]
    subject.candidates[0].provider.gate.enter(0)
    assert chain(decide_again(subject, "cheapest", later(0.001))) == ["b/m"]


def test_rankings_are_for_alike_requests() -> None:
    """Strategy, streaming and needs each have their own."""
    subject = three()
    kinds = [("fastest", NOW), ("cheapest", NOW), ("fastest", later(0, stream=True))]
    kinds.append(("fastest", later(0, needs=frozenset({"tools"}))))
    found = [decide_again(subject, strategy, ask) for strategy, ask in kinds]
    assert len({id(one) for one in found}) == 4
    assert all(decide_again(subject, *kind) is one for kind, one in zip(kinds, found, strict=True))


@pytest.mark.parametrize("strategy", ["cheapest", "balanced"])
def test_requests_of_another_size_are_ranked_anew(strategy: str) -> None:
    """Cheap to read is not cheap to write: a kept ranking serves those of like size, and of like limits."""
    reader = upstream("a/m", price={"input": 1, "output": 20})
    writer = upstream("b/m", price={"input": 4, "output": 4})
    subject = route(reader, writer)
    first = decide_again(subject, strategy, later(0, tokens=50_000))

    assert decide_again(subject, strategy, later(0.001, tokens=52_000)) is first
    assert chain(first)[0] == "a/m"
    assert chain(decide_again(subject, strategy, later(0.002, tokens=200)))[0] == "b/m"
    assert chain(decide_again(subject, strategy, later(0.003, tokens=200, max_tokens=10)))[0] == "a/m"


def test_a_single_candidate_is_ranked_once_for_all_sizes() -> None:
    """There is nothing to choose."""
    subject = route(rated("a/m", 1))
    first = decide_again(subject, "cheapest", later(0, tokens=10))

    assert decide_again(subject, "cheapest", later(0.001, tokens=90_000, max_tokens=7)) is first
    assert (order(first), chain(first), excluded(first)) == (["a/m"], ["a/m"], {})
    rest(subject.candidates[0])
    found = decide_again(subject, "cheapest", later(0.002))
    assert (order(found), chain(found), list(excluded(found))) == ([], [], ["a/m"])


def test_a_prompt_that_a_cache_may_hold_is_ranked_by_itself() -> None:
    """What the last prompt found warm says nothing of the next."""
    price = {"input": 2, "cached_input": 0.2, "output": 2}
    here, there = upstream("a/m", price=price), upstream("b/m", price={**price, "input": 1.9})
    subject = route(here, there)
    here.live.learned.warm.touch(tuple(range(9)), NOW.now)

    def first(prompt: range) -> str:
        return chain(decide_again(subject, "cheapest", later(0, tokens=5000, prefix=tuple(prompt))))[0]

    assert [first(range(9)), first(range(100, 109)), first(range(9))] == ["a/m", "b/m", "a/m"]


def test_kept_rankings_are_few() -> None:
    """Clients choose sizes and limits; what is kept of them is bounded."""
    subject = route(rated("a/m", 1), rated("b/m", 2))
    for number in range(3000):
        ask = later(0, tokens=1 << (number % 40), max_tokens=1 << (number // 40 % 40), stream=number % 2 == 1)
        decide_again(subject, "cheapest", ask)
        assert len(subject.ranked) <= 256


def test_scores_of_its_class_are_a_models_quality() -> None:
    """Where there is a score it counts, for the order and for what a policy requires; else the catalog's number."""
    coder, poet = rated("a/m", 1, quality=5), rated("b/m", 1, quality=8)
    coder.scores = {"code": 9.0}
    asked, code = route(coder, poet), msgspec.structs.replace(NOW, task="code")

    assert order(decide(asked, "quality", NOW)) == ["b/m", "a/m"]
    assert order(decide(asked, "quality", code)) == ["a/m", "b/m"]
    assert order(decide(asked, "balanced", code)) == ["a/m", "b/m"]
    picky = route(coder, poet, require={"min_quality": 8.5})
    assert order(decide(picky, "quality", NOW)) == []
    assert order(decide(picky, "quality", code)) == ["a/m"]


# ---- who is tried again ------------------------------------------------------------------------------------------


class Traffic:
    """Requests at a steady rate, answered by upstreams that take `ms` of the moment; nobody sleeps."""

    def __init__(self, subject: Route, strategy: str, ms: dict[str, float], every_s: float = 0.1) -> None:
        self.subject, self.strategy, self.ms, self.every_s = subject, strategy, ms, every_s
        self.now = NOW.now
        self.asked: list[str] = []

    def go(self, seconds: float) -> "Traffic":
        """Let it go on; `asked` is who was asked meanwhile."""
        self.asked = []
        for _ in range(int(seconds / self.every_s)):
            self.now += self.every_s
            first = decide_again(self.subject, self.strategy, Ask(self.now, tokens=100)).chain[0]
            self.subject.budget.requests += 1
            first.live.answered(self.ms[first.name], self.now)
            self.asked.append(first.name)
        return self

    def share(self, name: str) -> float:
        return self.asked.count(name) / len(self.asked)


@pytest.mark.parametrize("strategy", ["fastest", "balanced"])
def test_live_numbers_converge_within_tens_of_requests(strategy: str) -> None:
    """The catalog is wrong about both: who is really quick answers nearly all, soon."""
    traffic = Traffic(route(rated("a/m", 1, 100), rated("b/m", 1, 400)), strategy, {"a/m": 3000, "b/m": 200})
    traffic.go(4)

    assert traffic.asked[20:] == ["b/m"] * 20


@pytest.mark.parametrize("strategy", ["fastest", "balanced"])
def test_who_was_slow_is_tried_again_and_found_quick(strategy: str) -> None:
    """Within a minute and fifty requests, though its numbers would speak against it for half an hour."""
    traffic = Traffic(route(rated("a/m", 1, 100), rated("b/m", 1, 300)), strategy, {"a/m": 5000, "b/m": 300})
    traffic.go(300)
    assert traffic.share("a/m") < 0.02
    traffic.ms["a/m"] = 50
    traffic.go(150)

    assert "a/m" in traffic.asked[:700]
    traffic.go(900)
    assert traffic.share("a/m") > 0.2
    traffic.go(900)
    assert traffic.share("a/m") > 0.95


def test_a_quick_one_that_nobody_knew_is_found() -> None:
    """The catalog's prior alone would have kept it out for ever."""
    traffic = Traffic(route(rated("a/m", 1, 200), rated("b/m", 1, 1000)), "fastest", {"a/m": 200, "b/m": 20})
    traffic.go(1800)

    assert traffic.share("b/m") > 0.3
    assert traffic.asked[-100:] == ["b/m"] * 100


@pytest.mark.parametrize(("every_s", "most"), [(0.01, 0.001), (0.1, 0.005), (10, 0.021)])
def test_trying_is_bounded(every_s: float, most: float) -> None:
    """One request in fifty at most, and each upstream once a minute at most."""
    slow = {f"{name}/m": 5000.0 for name in "bc"}
    traffic = Traffic(route(rated("a/m", 1, 50), rated("b/m", 1, 90), rated("c/m", 1, 90)), "fastest", {}, every_s)
    traffic.ms = {"a/m": 50, **slow}
    traffic.go(2000 * every_s)
    traffic.go(10_000 * every_s if every_s < 1 else 20_000)

    assert traffic.share("b/m") + traffic.share("c/m") <= most
    assert every_s < 0.1 or "b/m" in traffic.asked


def test_who_could_not_come_first_is_not_tried() -> None:
    """However quick it may have become: ten times the price and half the quality outweigh that."""
    poor = Traffic(route(rated("a/m", 1, 300, 8), rated("b/m", 10, 300, 4)), "balanced", {"a/m": 300, "b/m": 10})
    assert set(poor.go(600).asked) == {"a/m"}


@pytest.mark.parametrize("strategy", ["cheapest", "quality"])
def test_where_latency_does_not_count_nobody_is_tried(strategy: str) -> None:
    """There is nothing to find out."""
    traffic = Traffic(route(rated("a/m", 1, 300, 8), rated("b/m", 2, 10, 7)), strategy, {"a/m": 300, "b/m": 10})
    assert set(traffic.go(600).asked) == {"a/m"}


def test_trying_can_be_switched_off() -> None:
    """`explore = 0`: always the best that is known."""
    subject = route(rated("a/m", 1, 200), rated("b/m", 1, 1000), explore=0)
    assert set(Traffic(subject, "fastest", {"a/m": 200, "b/m": 20}).go(600).asked) == {"a/m"}


def test_the_best_stands_behind_who_is_tried() -> None:
    """Nobody has to pay with a failure for what others learn from it; the order says what is known."""
    subject = three(explore=1)
    subject.budget.requests = 1

    found = decide_again(subject, "fastest", later(100))

    assert (order(found), chain(found)) == (["b/m", "c/m", "a/m"], ["c/m", "b/m", "a/m"])


def test_the_same_requests_go_the_same_ways() -> None:
    """No chance is involved."""

    def run() -> list[str]:
        numbers = {"a/m": 300.0, "b/m": 40.0, "c/m": 900.0}
        return Traffic(three(), "balanced", numbers).go(300).asked

    assert run() == run()
