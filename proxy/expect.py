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
from proxy.upstream import Upstream

# The answers of published traces have 28 (code completion), 211 and 343 (chat) tokens on average.
OUTPUT_TOKENS: Final = 256.0
# What counts before anything is known, in samples: so little that one answer by anybody is the prior of all.
_FAINT: Final = 0.01
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
    total, weight, lengths, answers = _FAINT, _FAINT, _FAINT * OUTPUT_TOKENS, _FAINT
    known = []
    for upstream in upstreams:
        one = upstream.live.learned.known(policy, now)
        known.append(one)
        total += one[1]
        weight += one[2]
        lengths += one[6]
        answers += one[7]
    usual, length = total / weight, lengths / answers
    most, guess, found = ask.max_tokens or UNKNOWN, len(prefix), []
    for upstream, sums in zip(upstreams, known, strict=True):
        _, _, _, ratio, ratio_chance, ratio_few, _, _, output, output_chance, output_few, hit = sums
        # Twice the same, without a call: what lies within chance of the others is no difference; what lies beyond is
        # believed as far as it does (James and Stein's estimate of 1961, its positive part).
        differs, chance = ratio - usual, ratio_chance + ratio_few * usual * usual
        square = differs * differs
        share = usual if square <= chance else usual + differs * (1.0 - chance / square)
        differs, chance = output - length, output_chance + output_few * length * length
        square = differs * differs
        says = length if square <= chance else length + differs * (1.0 - chance / square)
        longest = upstream.row.max_output
        if says > most:
            says = most
        if longest is not None and says > longest:
            says = longest
        reads, cached = tokens * share, 0.0
        if not upstream.rates:
            found.append((UNKNOWN, reads, 0.0, says))
            continue
        for above, fresh, again, words, request in upstream.rates:  # noqa: B007  # the last one is for all
            if reads > above:
                break
        if prefix and again < fresh:
            ttl_s, least = upstream.cache
            warm = upstream.live.learned.warm.blocks(prefix, now - ttl_s, guess)
            if warm:
                guess = warm
                cached = min(warm * BLOCK_TOKENS * share * hit, reads) if warm * BLOCK_TOKENS >= least else 0.0
        usd = reads * fresh - cached * (fresh - again) + says * words + request
        found.append((usd, reads, cached, says))
    return found
