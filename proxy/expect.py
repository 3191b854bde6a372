"""What one request will cost at each upstream that could answer it: tokens times price, from what has been learned.

    input   estimated tokens x how many of them this upstream has counted for one of ours
    cached  what its cache should hold of the prompt x the share of that which it has granted
    output  what it has answered to this policy, at most `max_tokens` and what the model can say
    usd     all three at its prices; no known price: infinite, which is never the cheapest

Who has not been asked yet is taken to be like the others: means over all candidates are the prior of each, so that
a newcomer wins by its price and not by what nobody knows of it.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from proxy.ask import BLOCK_TOKENS, Ask
from proxy.stats import PRIOR_WEIGHT
from proxy.upstream import Upstream

# The answers of published traces have 28 (code completion), 211 and 343 (chat) tokens on average.
OUTPUT_TOKENS: Final = 256.0
# Lengths scatter by as much as their mean: ten answers know it to a third.
OUTPUT_WEIGHT: Final = 10.0
# What counts before anything is known, in samples: so little that one answer by anybody is the prior of all.
_FAINT: Final = 0.1
UNKNOWN: Final = float("inf")


class Expected(NamedTuple):
    """Tokens of one request at one upstream, `cached` within `input`, and what they cost; infinite when unknown."""

    usd: float
    input: float
    cached: float
    output: float


def expect(upstreams: Sequence[Upstream], ask: Ask) -> list[Expected]:
    """Return what `ask` will come to at each of `upstreams`, taken together."""
    return [Expected(*one) for one in costs(upstreams, ask)]


def costs(upstreams: Sequence[Upstream], ask: Ask) -> list[tuple[float, float, float, float]]:
    """Return what `expect` does, as bare tuples: naming them is a third of the price of a ranking's costs."""
    policy, prefix, now, tokens = ask.policy, ask.prefix, ask.now, ask.tokens
    learned = [one.live.learned for one in upstreams]
    known = [one.known(policy, now) for one in learned]
    total, weight, lengths, answers = _FAINT, _FAINT, _FAINT * OUTPUT_TOKENS, _FAINT
    for _, ratio, ratio_weight, output, output_weight, _ in known:
        total += ratio
        weight += ratio_weight
        lengths += output
        answers += output_weight
    usual, length = PRIOR_WEIGHT * total / weight, OUTPUT_WEIGHT * lengths / answers
    most, guess, found = ask.max_tokens or UNKNOWN, len(prefix), []
    for one, knows, sums in zip(upstreams, learned, known, strict=True):
        _, ratio, ratio_weight, output, output_weight, hit = sums
        share = (ratio + usual) / (ratio_weight + PRIOR_WEIGHT)
        says = (output + length) / (output_weight + OUTPUT_WEIGHT)
        longest = one.row.max_output
        if says > most:
            says = most
        if longest is not None and says > longest:
            says = longest
        rates, reads, cached = one.rates, tokens * share, 0.0
        if rates is None:
            found.append((UNKNOWN, reads, 0.0, says))
            continue
        fresh, again, words = rates
        if prefix and again < fresh:
            ttl_s, least = one.cache
            warm = knows.warm.blocks(prefix, now - ttl_s, guess)
            if warm:
                guess = warm
                cached = min(warm * BLOCK_TOKENS * share * hit, reads) if warm * BLOCK_TOKENS >= least else 0.0
        found.append((reads * fresh - cached * (fresh - again) + says * words, reads, cached, says))
    return found
