"""What an upstream's own usage reports teach about it: how it counts tokens, how much it says, what its cache holds.

Tokenisers differ by up to 30 %, answers by far more, and a discount for cached tokens is worth what the provider
really grants. So each is a decayed mean of what was reported, blended with a prior, as in `stats`; whoever is not asked
fades back to the prior, so that no run of bad luck lasts.
"""

from collections import OrderedDict
from typing import Final

from proxy.ask import BLOCK_TOKENS, Ask
from proxy.stats import Decayed
from proxy.wire import Usage

# Blocks remembered per upstream, the oldest go first: five minutes of one request of 12 000 tokens every third of a
# second, in 6 MB.
MOST_BLOCKS: Final = 32_768
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
        # The longest first: it is then the oldest and forgotten before what it begins with. `tokens` needs that.
        for block in reversed(prefix):
            seen[block] = now
            seen.move_to_end(block)
        while len(seen) > MOST_BLOCKS:
            seen.popitem(last=False)

    def tokens(self, prefix: tuple[int, ...], since: float) -> int:
        """Return how many tokens of a prompt have been sent at `since` or later."""
        seen = self._seen
        if not seen:
            return 0
        # Whoever was sent a block was sent all before it: halving finds the last one.
        low, high = 0, len(prefix)
        while low < high:
            middle = (low + high + 1) // 2
            if seen.get(prefix[middle - 1], -1.0) >= since:
                low = middle
            else:
                high = middle - 1
        return low * BLOCK_TOKENS


class Learned:
    """Of one upstream; survives a reload of the policies.

    `ratio` is reported input tokens to estimated ones, `hits` reported cached tokens to those that should have been,
    `outputs` the tokens of an answer, by policy.
    """

    __slots__ = ("hits", "outputs", "ratio", "warm")

    def __init__(self) -> None:
        self.ratio = Decayed()
        self.hits = Decayed()
        self.outputs: dict[str, Decayed] = {}
        self.warm = Warm()

    def learn(self, ask: Ask, usage: Usage | None, now: float, ttl_s: float, *, whole: bool = True) -> None:
        """Take in one answer to `ask`: what it reported (None: nothing), and whether it was `whole`.

        An `ask` without tokens is nobody's: nothing is learned from it.
        """
        if not ask.tokens:
            return
        if usage is not None and usage.input:
            self._count(ask, usage, now, ttl_s)
        if usage is not None and usage.output and whole:
            output = self.outputs.get(ask.policy)
            if output is None:
                output = self.outputs[ask.policy] = Decayed()
            output.add(float(usage.output), now)
        if ask.prefix:
            self.warm.touch(ask.prefix, now)

    def _count(self, ask: Ask, usage: Usage, now: float, ttl_s: float) -> None:
        ratio = usage.input / ask.tokens
        # The bytes of a picture say nothing about its tokens.
        if "vision" not in ask.needs:
            self.ratio.add(min(max(ratio, 1 / _WILDEST), _WILDEST), now)
        due = self.warm.tokens(ask.prefix, now - ttl_s) if ask.prefix else 0
        if due:
            self.hits.add(min(usage.cached / (due * ratio), 1.0), now)
