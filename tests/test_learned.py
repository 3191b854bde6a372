"""What usage reports teach about an upstream. Time is an argument."""

import pytest

from proxy.ask import BLOCK_TOKENS, Ask
from proxy.learned import MOST_BLOCKS, Learned, Warm
from proxy.stats import HALF_LIFE_S
from proxy.wire import Usage

TTL_S = 300.0


def blocks(warm: Warm, prompt: tuple[int, ...], since: float = 0.0) -> set[int]:
    """How many blocks are warm; the same, whatever is guessed."""
    return {warm.blocks(prompt, since, guess) for guess in range(1, len(prompt) + 1)}


def ratio(learned: Learned, now: float) -> float:
    return learned.known("p", now).ratio


@pytest.mark.parametrize("sent", range(9))
def test_the_cache_holds_what_was_sent(sent: int) -> None:
    """As many blocks as two prompts share from their beginnings on, wherever the search begins."""
    warm, prompt = Warm(), tuple(range(8))
    warm.touch(prompt[:sent], 10.0)

    assert blocks(warm, prompt) == {sent}
    assert blocks(warm, tuple(range(100, 108))) == {0}


def test_the_cache_forgets_after_its_time() -> None:
    """Counted from when a block was last used, so a short beginning that many share outlives what each adds to it."""
    warm = Warm()
    warm.touch((1, 2, 3, 4), 10.0)
    warm.touch((1, 2, 9), 100.0)

    assert blocks(warm, (1, 2, 3, 4), since=10.0) == {4}
    assert blocks(warm, (1, 2, 3, 4), since=10.1) == {2}
    assert blocks(warm, (1, 2, 3, 4), since=100.1) == {0}


def test_the_cache_is_bounded_and_keeps_beginnings() -> None:
    """The oldest goes first, and of one prompt its end: what is left is still found."""
    warm = Warm()
    warm.touch(tuple(range(MOST_BLOCKS)), 1.0)
    warm.touch((-1, -2), 2.0)

    assert warm.blocks(tuple(range(MOST_BLOCKS)), 0.0, 1) == MOST_BLOCKS - 2
    assert blocks(warm, (-1, -2)) == {2}


def test_a_tokeniser_shows_within_tens_of_answers() -> None:
    """Reported tokens to estimated ones; the mean of about the last thirty."""
    learned = Learned()
    for number in range(10):
        learned.learn(Ask(0, tokens=1000, policy="p"), Usage(700, 10), number, TTL_S)
    assert ratio(learned, 10) == pytest.approx(0.7, rel=0.01)
    for number in range(60):
        learned.learn(Ask(0, tokens=1000, policy="p"), Usage(1300, 10), 10 + number, TTL_S)

    assert ratio(learned, 70) == pytest.approx(1.3, rel=0.1)


@pytest.mark.parametrize(
    "ask",
    [Ask(0, tokens=0, policy="p"), Ask(0, tokens=9000, policy="p", needs=frozenset({"vision"}))],
    ids=["another request's", "a picture"],
)
def test_some_answers_teach_nothing_about_tokens(ask: Ask) -> None:
    """Where the estimate was of something else."""
    learned = Learned()
    learned.learn(ask, Usage(800, 10), 1.0, TTL_S)

    assert learned.known("p", 1.0).ratio_weight == 0


def test_a_wild_report_does_not_outweigh_all_others() -> None:
    """Who reports a million tokens for ten is taken at eight times the estimate."""
    learned = Learned()
    learned.learn(Ask(0, tokens=10, policy="p"), Usage(10**6, 1), 1.0, TTL_S)

    assert ratio(learned, 1.0) == 8


def test_lengths_are_learned_by_policy_and_only_from_whole_answers() -> None:
    """What broke off says nothing of how long it would have been."""
    learned = Learned()
    learned.learn(Ask(0, tokens=10, policy="p"), Usage(10, 400), 1.0, TTL_S)
    learned.learn(Ask(0, tokens=10, policy="p"), Usage(10, 4), 1.0, TTL_S, whole=False)

    assert learned.known("p", 1.0)[6:9] == (400, 1, 400)
    assert learned.known("q", 1.0)[6:9] == (0, 0, 0)


def test_what_is_known_is_fresh() -> None:
    """An answer counts at once, and time within a second."""
    learned = Learned()
    learned.learn(Ask(0, tokens=10, policy="p"), Usage(10, 400), 1.0, TTL_S)
    assert learned.known("p", 1.0).output_weight == 1
    learned.learn(Ask(0, tokens=10, policy="p"), Usage(10, 400), 1.5, TTL_S)
    assert learned.known("p", 1.6).output_weight == pytest.approx(2, abs=0.01)
    assert learned.known("p", 1.6 + HALF_LIFE_S).output_weight == pytest.approx(1, abs=0.01)


def test_a_provider_that_grants_no_discount_is_found_out() -> None:
    """Whose cache should have held half of the prompt, and reported nothing read from it, is believed ever less."""
    learned, prompt = Learned(), tuple(range(8))
    ask = Ask(0, tokens=8 * BLOCK_TOKENS, prefix=prompt, policy="p")
    learned.learn(ask, None, 0.0, TTL_S)
    hits = [learned.known("p", 0.0).hit]
    for number in range(1, 13):
        learned.learn(ask, Usage(8 * BLOCK_TOKENS, 10), number, TTL_S)
        hits.append(learned.known("p", number).hit)

    assert hits[0] == 1
    assert hits == sorted(hits, reverse=True)
    assert hits[-1] < 0.25


def test_a_provider_that_does_is_believed() -> None:
    """In the tokens that it counts: 20 % more than ours."""
    learned, prompt = Learned(), tuple(range(8))
    ask = Ask(0, tokens=8 * BLOCK_TOKENS, prefix=prompt, policy="p")
    for number in range(12):
        read = int(1.2 * 8 * BLOCK_TOKENS)
        learned.learn(ask, Usage(read, 10, read), number, TTL_S)

    assert learned.known("p", 12).hit == pytest.approx(1, abs=0.01)
