"""How upstreams are taken to behave: as a ledger shows them, or else as the catalog says."""

from math import exp, log
from random import Random
from statistics import fmean
from typing import Any

import msgspec
import pytest

from proxy.policy import Cache as CacheRow
from proxy.policy import ModelRow
from proxy.simulation.trace import Try
from proxy.simulation.world import ENOUGH, PACE, Assumed, Behaviour, Cache, Fit, Luck, Outage, fit, prior
from proxy.wire import Usage

from .upstream_words import upstream

LUCKY = (0.0, 0.99)


def row(**fields: object) -> ModelRow:
    return msgspec.convert({"provider": "a", "id": "m", **fields}, ModelRow)


def behaviour(fitted: Fit | None = None, assumed: Assumed | None = None, **fields: Any) -> Behaviour:
    return Behaviour(upstream("a/m", **fields), fitted or Fit(), assumed or Assumed())


def tries(outcome: str = "ok", count: int = ENOUGH, **fields: float | None) -> list[Try]:
    given = {"ms": 3000.0, "first_ms": 1000.0, "output": 200, "ratio": None, **fields}
    return [msgspec.convert({"upstream": "a/m", "outcome": outcome, **given}, Try) for _ in range(count)]


def test_the_catalog_is_a_prior() -> None:
    """Half of the answers begin before p50, ninety-nine in a hundred before p99."""
    first = prior(row(latency={"p50_ms": 400, "p99_ms": 2000}))
    assert first.at(0) == pytest.approx(0.4)
    assert first.at(2.326) == pytest.approx(2.0)
    assert prior(row()).at(0) == 1.0
    assert prior(row(latency={"p50_ms": 400})).at(2.326) == pytest.approx(2.0)


def test_an_answer_takes_its_tokens_time() -> None:
    """The first content, then so many tokens a second."""
    found = behaviour(latency={"p50_ms": 400}).answer(LUCKY, 0.0, (10, 120), stream=True)
    assert (found.first_s, found.whole_s) == pytest.approx((0.4, 0.4 + 120 / PACE))
    assert found.error is None


def test_a_ledger_replaces_the_catalog() -> None:
    """From enough attempts on, first content, pace and faults are the ledger's."""
    found = fit([*tries(), *tries("overloaded", 5, output=0)])["a/m"]

    assert found.first is not None
    assert exp(found.first.mean) == pytest.approx(1.0)
    assert found.pace == pytest.approx(100)
    assert found.faults == {"overloaded": 5 / 25}
    assert found.whole is None
    answer = behaviour(found, latency={"p50_ms": 5}).answer(LUCKY, 0.0, (10, 200), stream=True)
    assert (answer.first_s, answer.whole_s) == pytest.approx((1.0, 3.0))


def test_complete_answers_of_a_ledger() -> None:
    """They take as long as they took: nobody knows when they began."""
    found = fit([*tries(first_ms=None, ms=2000.0, count=ENOUGH), *tries(first_ms=None, ms=8000.0)])["a/m"]
    answer = behaviour(found).answer(LUCKY, 0.0, (10, 10_000), stream=False)
    assert answer.whole_s == pytest.approx(4.0)
    assert found.whole is not None
    assert found.whole.deviation == pytest.approx(log(2))


def test_a_few_attempts_show_nothing() -> None:
    """Below the least number everything is the catalog's."""
    assert fit(tries(count=ENOUGH - 1, ratio=1.5)) == {"": Fit(), "a/m": Fit()}


def test_faults_that_are_not_the_upstreams() -> None:
    """A client that left, and a request that was wrong, would be so elsewhere, too."""
    found = fit([*tries(), *tries("cancelled", 10), *tries("invalid_request", 10)])["a/m"]
    assert found.faults == {}


def test_faults_by_chance() -> None:
    """A share of the attempts, by kind, the assumed share before the ledger's."""
    fitted = Fit(faults={"rate_limit": 0.1, "timeout": 0.2})
    kinds = [
        error.kind if (error := behaviour(fitted).answer((0.0, share), 0.0, (1, 1), stream=True).error) else None
        for share in (0.05, 0.15, 0.29, 0.31)
    ]
    assert kinds == ["rate_limit", "timeout", "timeout", None]
    for assumed in (Assumed({"a/m": 0.5}), Assumed({"": 0.5})):
        fault = behaviour(fitted, assumed).answer((0.0, 0.4), 0.0, (1, 1), stream=True).error
        assert fault is not None
        assert (fault.kind, fault.code) == ("unavailable", "server_error")
    assert behaviour(fitted, Assumed({"a/m": 0.0})).answer((0.0, 0.0), 0.0, (1, 1), stream=True).error is None


def test_what_is_billed() -> None:
    """Where keeping a prompt has a price, what was not read from the cache is kept, from the least tokens on."""
    price = {"input": 1, "output": 2, "cached_input": 0.1, "cache_write": 1.25}
    assert behaviour(price=price).bill(2000, 5, 1024) == Usage(2000, 5, 1024, 976)
    assert behaviour(price=price).bill(1000, 5, 0) == Usage(1000, 5)
    assert behaviour(price={"input": 1, "output": 2}).bill(2000, 5, 0) == Usage(2000, 5)
    assert behaviour().bill(2000, 5, 0) == Usage(2000, 5)


def test_outages() -> None:
    """From its beginning until its end, at the upstream that it is of."""
    found = behaviour(assumed=Assumed(outages=[Outage("a/m", 10, 20), Outage("b/m", 0, 99)]))
    down = [found.answer(LUCKY, now, (1, 1), stream=True).error is not None for now in (9.9, 10, 19.9, 20)]
    assert down == [False, True, True, False]


def test_luck_is_what_it_says() -> None:
    """Standard normal and uniform; another attempt meets another luck, the same seed the same."""
    luck = Luck(20_000, 3)
    normal, share = zip(*(luck.of(request, 0) for request in range(20_000)), strict=True)
    assert fmean(normal) == pytest.approx(0, abs=0.03)
    assert fmean(number * number for number in normal) == pytest.approx(1, abs=0.05)
    assert fmean(share) == pytest.approx(0.5, abs=0.02)
    assert luck.of(5, 0) != luck.of(5, 1)
    assert luck.of(5, 1) == Luck(20_000, 3).of(5, 1)


def naive(sent: list[tuple[float, tuple[int, ...]]], ttl_s: float) -> list[int]:
    """What a cache finds, by looking through all that was ever sent."""
    found = []
    for number, (now, blocks) in enumerate(sent):
        recent = {block for then, earlier in sent[:number] if now - then <= ttl_s for block in earlier}
        found.append(next((at for at, block in enumerate(blocks) if block not in recent), len(blocks)))
    return found


def test_the_cache_is_that_of_a_naive_one() -> None:
    """Halving the search, and dropping what is old in bulk, changes nothing."""
    random, now = Random(5), 0.0
    sent = []
    for _ in range(600):
        now += random.expovariate(0.1)
        talk, turns = random.randrange(30), random.randrange(3, 9)
        sent.append((now, tuple(100 * talk + turn for turn in range(turns))))
    cache = Cache(CacheRow(ttl_s=60, min_tokens=1))

    blocks = [cache.send(prompt, 512 * len(prompt) + 1, at) // 512 for at, prompt in sent]

    assert blocks == naive(sent, 60)
    assert 0 < sum(blocks) < sum(len(prompt) for _, prompt in sent)


def test_the_last_token_is_always_read() -> None:
    """A prompt that is known whole still costs one token: an answer begins with it."""
    cache = Cache(CacheRow())
    assert [cache.send((1, 2), 1024, now) for now in (0.0, 1.0)] == [0, 0]
    assert [cache.send((3, 4, 5), 1536, now) for now in (2.0, 3.0)] == [0, 1535]
