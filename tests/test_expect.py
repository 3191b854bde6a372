"""What one request will cost at each candidate, from prices and from what their answers have taught."""

from typing import Any

import pytest

from proxy.ask import BLOCK_TOKENS, Ask
from proxy.expect import OUTPUT_TOKENS, UNKNOWN, Expected, expect
from proxy.optimizer import decide
from proxy.upstream import Upstream
from proxy.wire import Usage

from .upstream_words import route, upstream

NOW = 10.0
PROMPT = tuple(range(20))
CACHED = {"input": 2.0, "cached_input": 0.2, "output": 8.0}


def priced(name: str, price: dict[str, float] | None = None, **fields: Any) -> Upstream:
    return upstream(name, price=price or {"input": 1.0, "output": 4.0}, **fields)


def ask(tokens: int = 1000, **fields: Any) -> Ask:
    return Ask(NOW, tokens=tokens, policy="p", **fields)


def teach(one: Upstream, times: int, *, tokens: int = 1000, input: int = 1000, output: int = 300) -> None:
    """Let it answer so often."""
    for _ in range(times):
        one.learn(Ask(NOW, tokens=tokens, policy="p"), Usage(input, output), None, NOW)


def test_before_anything_is_known_it_is_the_list_price() -> None:
    """The estimate as it is, and an answer of usual length."""
    found = expect([priced("a/m")], ask())

    assert found == [pytest.approx(Expected((1000 * 1 + OUTPUT_TOKENS * 4) / 1e6, 1000, 0, OUTPUT_TOKENS))]


def test_a_tokeniser_that_counts_more_costs_more() -> None:
    """Equal list prices, 30 % more tokens: not the cheapest, once it has shown."""
    wordy, terse = priced("a/m"), priced("b/m")
    asked = route(wordy, terse)
    assert [one.upstream for one in decide(asked, "cheapest", ask()).order] == [wordy, terse]
    teach(wordy, 20, input=1300)
    teach(terse, 20, input=1000)

    found = expect([wordy, terse], ask())

    assert [one.input for one in found] == pytest.approx([1300, 1000], rel=0.05)
    assert [one.upstream for one in decide(asked, "cheapest", ask()).order] == [terse, wordy]


def test_who_says_more_costs_more() -> None:
    """A low price per token is none for three times the tokens."""
    chatty, dear = priced("a/m"), priced("b/m", {"input": 1.2, "output": 4.8})
    teach(chatty, 30, output=1500)
    teach(dear, 30, output=500)

    order = decide(route(chatty, dear), "cheapest", ask()).order

    assert [one.upstream for one in order] == [dear, chatty]
    assert order[0].parts[0] < order[1].parts[0]


def test_the_limits_of_the_answer_bound_it() -> None:
    """The client's and the model's own."""
    long, short = priced("a/m"), priced("b/m", max_output=100)
    teach(long, 30, output=1500)
    teach(short, 30, output=1500)

    assert [one.output for one in expect([long, short], ask())] == [pytest.approx(1500, rel=0.05), 100]
    assert [one.output for one in expect([long, short], ask(max_tokens=20))] == [20, 20]


def test_a_newcomer_is_taken_to_be_like_the_others() -> None:
    """It is not the cheapest for want of knowledge: the same price is the same cost."""
    known, new, cheap = priced("a/m"), priced("b/m"), priced("c/m", {"input": 0.99, "output": 3.99})
    teach(known, 30, input=1400, output=2000)

    found = expect([known, new, cheap], ask())

    assert found[1].usd == pytest.approx(found[0].usd, rel=0.01)
    assert min(found, key=lambda one: one.usd) is found[2]


def test_what_was_learned_fades() -> None:
    """Whoever is not asked any more is like the others again after an hour."""
    chatty, other = priced("a/m"), priced("b/m")
    teach(chatty, 30, output=1500)
    later = Ask(NOW + 3600, tokens=1000, policy="p")

    found = expect([chatty, other], later)

    assert found[0].output == pytest.approx(found[1].output, rel=0.1)


def test_no_known_price_is_infinite() -> None:
    """And its tokens are known all the same."""
    unpriced = upstream("a/m")
    teach(unpriced, 20, input=500)

    found = expect([unpriced], ask())[0]

    assert found.usd == UNKNOWN
    assert found.input == pytest.approx(500, rel=0.1)


@pytest.mark.parametrize(
    ("price", "tokens", "ttl_s", "cached"),
    [
        (CACHED, 20, 300, 10),
        (CACHED, 20, 5, 0),
        ({"input": 2.0, "output": 8.0}, 20, 300, 0),
        ({"input": 2.0, "cached_input": 2.0, "output": 8.0}, 20, 300, 0),
        (CACHED, 1, 300, 0),
    ],
    ids=["warm", "too old", "no price for it", "no discount", "too short to be kept"],
)
def test_a_warm_cache_is_cheaper(price: dict[str, float], tokens: int, ttl_s: float, cached: int) -> None:
    """By its price, for as long as the provider keeps it; at NOW, ten seconds after it was used."""
    one = priced("a/m", price, provider_fields={"cache": {"ttl_s": ttl_s}})
    asked = Ask(NOW, tokens=tokens * BLOCK_TOKENS, prefix=PROMPT[:tokens], policy="p")
    one.learn(Ask(0, tokens=1, prefix=PROMPT[:10], policy="q"), None, None, 0.0)

    found = expect([one], asked)[0]

    assert found.cached == pytest.approx(cached * BLOCK_TOKENS)
    saved = cached * BLOCK_TOKENS * (2.0 - 0.2) / 1e6
    assert found.usd == pytest.approx((asked.tokens * 2 + OUTPUT_TOKENS * 8) / 1e6 - saved)


def test_a_conversation_stays_where_it_is_warm_while_that_is_cheaper() -> None:
    """Somebody a tenth cheaper does not take it away; somebody a half cheaper does, warm cache or not."""
    home = priced("a/m", CACHED)
    near = priced("b/m", {"input": 1.8, "cached_input": 0.18, "output": 7.2})
    low = priced("c/m", {"input": 0.4, "cached_input": 0.3, "output": 4})
    asked = Ask(NOW, tokens=20 * BLOCK_TOKENS, prefix=PROMPT, policy="p")
    home.learn(Ask(0, tokens=1, prefix=PROMPT[:18]), None, None, NOW - 60)

    def first(*candidates: Upstream, at: float = NOW) -> str:
        return decide(route(*candidates), "cheapest", Ask(at, tokens=asked.tokens, prefix=PROMPT)).chain[0].name

    assert first(home, near) == "a/m"
    assert first(home, near, at=NOW + 300) == "b/m"
    assert first(home, near, low) == "c/m"


def test_balanced_weighs_the_cost_of_the_request() -> None:
    """The same candidates, another request, another order: cheap to read is not cheap to write."""
    reader = priced("a/m", {"input": 1, "output": 20}, latency={"p50_ms": 500})
    writer = priced("b/m", {"input": 4, "output": 4}, latency={"p50_ms": 500})
    asked = route(reader, writer)

    assert decide(asked, "balanced", ask(50_000)).chain[0] is reader
    assert decide(asked, "balanced", ask(100)).chain[0] is writer


def said(one: Upstream, *lengths: int) -> None:
    """Let it answer with these lengths, a second apart, up to NOW."""
    for before, tokens in enumerate(lengths):
        one.learn(Ask(NOW, tokens=1000, policy="p"), Usage(1000, tokens), None, NOW - before)


def outputs(*upstreams: Upstream, after: float = 0.0) -> list[float]:
    """The lengths that are expected of their answers, so many seconds later."""
    return [one.output for one in expect(upstreams, Ask(NOW + after, tokens=1000, policy="p"))]


def test_a_difference_that_may_be_chance_is_none() -> None:
    """Lengths scatter: equals stay equal, and do not take turns as their means go up and down."""
    one, other = priced("a/m"), priced("b/m")
    said(one, *[500, 20, 900, 60, 300, 100] * 4)
    said(other, *[400, 30, 800, 90, 100, 100] * 4)

    first, second = outputs(one, other)

    assert first == second
    assert 200 < first < 350


@pytest.mark.parametrize("few", [(3000,), (3000, 3000), (5,), (5, 5)])
def test_an_answer_or_two_are_no_habit(few: tuple[int, ...]) -> None:
    """Long or short: that happens."""
    one, other = priced("a/m"), priced("b/m")
    said(one, *few)
    said(other, *[300, 400, 200] * 10)

    first, second = outputs(one, other)

    assert first == pytest.approx(second, rel=0.55)
    assert outputs(one, priced("c/m"))[0] == outputs(one, priced("c/m"))[1]


def test_a_habit_shows_within_tens_of_answers_and_is_forgotten() -> None:
    """Beyond chance it is believed as far as it lies beyond; who is not asked is like the others after a while."""
    one, other = priced("a/m"), priced("b/m")
    said(one, *[1000, 1400, 800, 1600] * 6)
    said(other, *[300, 400, 200, 300] * 6)

    long, short = outputs(one, other)
    assert 1000 < long < 1200
    assert 300 <= short < 420
    later = outputs(one, other, after=9 * 300.0)
    assert later[0] == later[1]
