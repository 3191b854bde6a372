"""What an upstream's own usage reports teach about it: how it counts tokens, how much it says, what its cache holds.

Tokenisers differ by up to 30 %, answers by far more, and a discount for cached tokens is worth what the provider
really grants. So each is a decayed mean of what was reported, blended with a prior, as in `stats`; whoever is not asked
fades back to the prior, so that no run of bad luck lasts.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from proxy.ask import BLOCK_TOKENS, Ask
from proxy.stats import PRIOR_WEIGHT, Decayed
from proxy.wire import Usage

# Blocks remembered per upstream, the oldest go first: five minutes of one request of 12 000 tokens every third of a
# second, in 6 MB.
MOST_BLOCKS: Final = 32_768
_NEVER: Final = float("-inf")
# Sums are faded anew when they are this old, or when something was learned: powers are what costs, and a second is a
# quarter of a percent.
_FRESH_S: Final = 1.0
# Sum, weight, mean, chance and few where there are no samples.
_NOTHING: Final = (0.0, 0.0, 0.0, 0.0, float("inf"))
# Before samples have shown how they scatter: lengths by as much as their mean, tokens per byte by a few percent.
_LENGTHS: Final = 1.0
_RATIOS: Final = 0.1
# Lengths scatter so much that a mean of thirty is off by a fifth; of two hundred, by a fourteenth.
_MOST_LENGTHS: Final = 200.0
# A difference of fewer standard errors may be chance.
_ERRORS: Final = 2.0
# What no estimate can be wrong by; beyond it the report is, or the prompt is no text.
_WILDEST: Final = 8.0


class Warm:
    """The beginnings of prompts that a provider has been sent, and when last."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen = OrderedDict[int, float]()

    def touch(self, prefix: tuple[int, ...], now: float) -> None:
        """Note that a prompt with these hashes was answered at `now`."""
        seen = self._seen
        # The longest first: it is then the oldest and forgotten before what it begins with. `blocks` needs that.
        for block in reversed(prefix):
            seen[block] = now
            seen.move_to_end(block)
        while len(seen) > MOST_BLOCKS:
            seen.popitem(last=False)

    def blocks(self, prefix: tuple[int, ...], since: float, guess: int) -> int:
        """Return how many blocks of a prompt, which has one at least, have been sent at `since` or later.

        `guess` is looked at first, 1 to all: what another upstream was sent of it.
        """
        seen = self._seen.get
        if seen(prefix[0], _NEVER) < since:
            return 0
        # Whoever was sent a block was sent all before it: halving finds the last one, in 1 us; a good guess in 0.4.
        low, high, middle = 1, len(prefix), guess
        while low < high:
            if seen(prefix[middle - 1], _NEVER) < since:
                high = middle - 1
            elif middle == high or seen(prefix[middle], _NEVER) < since:
                return middle
            else:
                low = middle + 1
            middle = (low + high + 1) >> 1
        return low


class Known(NamedTuple):
    """What is known of an upstream for one policy at some moment; `until` is when it is to be asked again.

    Of each mean: the sum and the weight of its samples, itself, and what difference from others may be chance: its
    square is up to `chance` and `few` times the square of their mean. Flat, as every ranking reads it of every
    candidate.
    """

    until: float
    ratio_total: float
    ratio_weight: float
    ratio: float
    ratio_chance: float
    ratio_few: float
    output_total: float
    output_weight: float
    output: float
    output_chance: float
    output_few: float
    hit: float


class Learned:
    """Of one upstream; survives a reload of the policies.

    `ratio` is reported input tokens to estimated ones, `hits` reported cached tokens to those that should have been,
    `outputs` the tokens of an answer, by policy.
    """

    __slots__ = ("_known", "hits", "outputs", "ratio", "warm")

    def __init__(self) -> None:
        self.ratio = Decayed()
        self.hits = Decayed()
        self.outputs: dict[str, Decayed] = {}
        self.warm = Warm()
        self._known: dict[str, Known] = {}

    def known(self, policy: str, now: float) -> Known:
        """Return what is known at `now` of answers, those to `policy` in particular."""
        kept = self._known.get(policy)
        if kept is None or now >= kept.until:
            kept = self._known[policy] = self._sums(self.outputs.get(policy), now)
        return kept

    def _sums(self, outputs: Decayed | None, now: float) -> Known:
        output = _NOTHING if outputs is None else _seen(outputs, now, _LENGTHS)
        return Known(now + _FRESH_S, *_seen(self.ratio, now, _RATIOS), *output, self.hits.mean(now, 1.0))

    def learn(self, ask: Ask, usage: Usage | None, now: float, ttl_s: float, *, whole: bool = True) -> None:
        """Take in one answer to `ask`: what it reported (None: nothing), and whether it was `whole`.

        An `ask` without tokens is nobody's: nothing is learned from it.
        """
        if not ask.tokens:
            return
        self._known.clear()
        if usage is not None and usage.input:
            self._count(ask, usage, now, ttl_s)
        if usage is not None and usage.output and whole:
            output = self.outputs.get(ask.policy)
            if output is None:
                output = self.outputs[ask.policy] = Decayed(most=_MOST_LENGTHS)
            output.add(float(usage.output), now)
        if ask.prefix:
            self.warm.touch(ask.prefix, now)

    def _count(self, ask: Ask, usage: Usage, now: float, ttl_s: float) -> None:
        ratio = usage.input / ask.tokens
        if not ask.media:
            self.ratio.add(min(max(ratio, 1 / _WILDEST), _WILDEST), now)
        due = self.warm.blocks(ask.prefix, now - ttl_s, len(ask.prefix)) if ask.prefix else 0
        if due:
            self.hits.add(min(usage.cached / (due * BLOCK_TOKENS * ratio), 1.0), now)


def _seen(samples: Decayed, now: float, scatter: float) -> tuple[float, float, float, float, float]:
    """Return what `samples` say. They are taken to scatter as they have shown, and the fewer they are the more by
    `scatter`, a share of the means that are compared.
    """
    total, weight = samples.left(now)
    if not weight:
        return _NOTHING
    mean = total / weight
    variance = max(0.0, samples.square / samples.weight - mean * mean)
    error = _ERRORS**2 / (weight + PRIOR_WEIGHT)
    few = error * scatter**2 * PRIOR_WEIGHT / weight
    return total, weight, mean, error * variance + few * mean * mean, few
