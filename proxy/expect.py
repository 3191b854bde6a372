"""What one request will cost at each upstream that could answer it: tokens times price, from what has been learned.

    input   estimated tokens x how many of them this upstream has counted for one of ours
    cached  what its cache should hold of the prompt x the share of that which it has granted
    output  what it has answered to this policy, at most `max_tokens` and what the model can say
    usd     all three at its prices; no known price: infinite, which is never the cheapest

Who has not been asked yet is taken to be like the others: means over all candidates are the prior of each, so that
a newcomer wins by its price and not by what nobody knows of it.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from proxy.ask import Ask
from proxy.stats import PRIOR_WEIGHT, Decayed
from proxy.upstream import Upstream
from proxy.wire import Usage

# The answers of published traces have 28 (code completion), 211 and 343 (chat) tokens on average.
OUTPUT_TOKENS: Final = 256.0
UNKNOWN: Final = float("inf")


class Expected(NamedTuple):
    """Tokens of one request at one upstream, `cached` within `input`, and what they cost; infinite when unknown."""

    usd: float
    input: int
    cached: int
    output: int


def expect(upstreams: Sequence[Upstream], ask: Ask) -> list[Expected]:
    """Return what `ask` will come to at each of `upstreams`, taken together."""
    now = ask.now
    learned = [one.live.learned for one in upstreams]
    outputs = [one.outputs.get(ask.policy) for one in learned]
    ratio = _together([one.ratio for one in learned], now, 1.0)
    output = _together(outputs, now, OUTPUT_TOKENS)
    return [
        _expected(
            one,
            ask,
            knows.ratio.mean(now, ratio),
            output if said is None else said.mean(now, output),
        )
        for one, knows, said in zip(upstreams, learned, outputs, strict=True)
    ]


def _expected(upstream: Upstream, ask: Ask, ratio: float, output: float) -> Expected:
    tokens = ask.tokens * ratio
    for most in (ask.max_tokens, upstream.row.max_output):
        if most and most < output:
            output = most
    cached = _cached(upstream, ask) * ratio if ask.prefix else 0.0
    usage = Usage(round(tokens), round(output), round(min(cached, tokens)))
    usd = upstream.cost_usd(usage)
    return Expected(UNKNOWN if usd is None else usd, usage.input, usage.cached, usage.output)


def _cached(upstream: Upstream, ask: Ask) -> float:
    """Return how many of our tokens `upstream` should find in its cache."""
    cache, learned = upstream.provider.row.cache, upstream.live.learned
    if ask.tokens < cache.min_tokens:
        return 0.0
    tokens = learned.warm.tokens(ask.prefix, ask.now - cache.ttl_s)
    return tokens * learned.hits.mean(ask.now, 1.0) if tokens >= cache.min_tokens else 0.0


def _together(means: Iterable[Decayed | None], now: float, prior: float) -> float:
    """Return the mean over all samples, blended with `prior`."""
    weight, total = PRIOR_WEIGHT, PRIOR_WEIGHT * prior
    for one in means:
        if one is not None and one.weight:
            left = one.fade(now)
            weight += one.weight * left
            total += one.total * left
    return total / weight
