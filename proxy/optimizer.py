"""Order upstreams by what a policy wants. Pure and synchronous; a strategy is one function and one row in STRATEGIES.

Scores are "lower is better" and are compared, never shown as money. Equal scores keep the policy file's order.

`balanced` adds three parts, each 0 for the best candidate and rising towards 1 with how many times worse one is:
    cost     1 - cheapest / own      own = list price, 3 input tokens to 1 output; no known price counts 1
    latency  1 - fastest / own       own = live median (first token for streams, whole answer otherwise)
    quality  1 - own / best          own = the catalog's 0-10; unknown counts 1
    score  = (w_cost * cost + w_latency * latency + w_quality * quality) / (w_cost + w_latency + w_quality)
Ratios, not spans: a price 1 % higher costs 1 % of the weight, not all of it as min-max scaling would; multiplying all
prices by the same number changes nothing. When all are equal every part is 0; nothing is divided by zero.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final, Literal

import msgspec

from proxy.policy import Policy, Weights
from proxy.routes import Route
from proxy.upstream import Upstream

Why = Literal["off", "needs", "context", "max_output", "require", "rest", "limit"]
# The estimate reckons with four bytes per token, as in English and code. Twelve is more than any text has: Chinese that
# a client spelled in escapes comes to six bytes per character, and to two characters per token at most.
_SURE: Final = 3
# Base64 has far more bytes than the picture has tokens: its size says nothing.
_MEDIA: Final = frozenset(("vision", "audio", "files"))
_UNKNOWN: Final = float("inf")
# Live numbers are means over tens of requests; they do not move in a twentieth of a second.
RANKED_S: Final = 0.05


class Ask(msgspec.Struct, frozen=True):
    """What a decision needs to know of a request. `now` is monotonic seconds, `tokens` the estimated input,
    `max_tokens` the answer's limit, 0 for none.
    """

    now: float
    stream: bool = False
    tokens: int = 0
    needs: frozenset[str] = frozenset()
    max_tokens: int = 0

    @property
    def least(self) -> int:
        """The tokens that the request takes for certain, its answer's limit included."""
        return self.max_tokens + (0 if self.needs & _MEDIA else self.tokens // _SURE)


class Scored(msgspec.Struct, frozen=True):
    """One candidate; `parts` are named by PARTS[strategy]. Unknown numbers are infinite."""

    upstream: Upstream
    score: float
    parts: tuple[float, ...]


class Excluded(msgspec.Struct, frozen=True):
    """A candidate that may not be asked, and why in words."""

    upstream: Upstream
    why: Why
    reason: str


class Decision(msgspec.Struct, frozen=True):
    """`order` best first, with its numbers; `chain` is whom to ask, in turn; `excluded` who may not be asked."""

    order: list[Scored]
    chain: list[Upstream]
    excluded: list[Excluded]


class Ranked(msgspec.Struct, frozen=True):
    """A decision that is kept; `errors` are the failures of its `first` choice when it was made."""

    decision: Decision
    first: Upstream
    errors: int
    until: float


_Strategy = Callable[[Sequence[Upstream], Weights, Ask], list[Scored]]


def decide(route: Route, strategy: str, ask: Ask) -> Decision:
    """Return whom to ask for a request, in order. `chain` is empty when nobody may be asked."""
    able: list[Upstream] = []
    excluded: list[Excluded] = []
    for upstream in route.candidates:
        verdict = judge(upstream, route.policy, ask)
        if verdict is None:
            able.append(upstream)
        else:
            excluded.append(verdict)
    order = STRATEGIES[strategy](able, route.policy.weights, ask)
    order.sort(key=attrgetter("score"))
    return Decision(order, _chain(route, order, ask), excluded)


def decide_again(route: Route, strategy: str, ask: Ask) -> Decision:
    """Return what `decide` does or did: a decision serves all alike requests for RANKED_S, until its first choice may
    not be asked or has failed. Ranking three upstreams for every request was a tenth of its price.

    While its first choice comes back from an outage a decision serves once: chance decides who is asked first.
    """
    alike = (strategy, ask.stream, ask.needs)
    # A request that may be too large for somebody is not like others.
    large = ask.least > route.fits_all or ask.max_tokens > route.answers_all
    kept: Ranked | None = None if large else route.ranked.get(alike)
    if kept is not None and ask.now < kept.until:
        first = kept.first
        if first.live.stats.errors == kept.errors and judge_now(first, ask) is None:
            return kept.decision
    decision = decide(route, strategy, ask)
    chain = decision.chain
    if not chain:
        return decision
    first = chain[0]
    if not first.live.breaker.ramps(ask.now):
        if large:
            return decision
        route.ranked[alike] = Ranked(decision, first, first.live.stats.errors, ask.now + RANKED_S)
    elif len(chain) > 1 and first.live.breaker.yields(ask.now):
        chain[:2] = chain[1], first
    return decision


def judge(upstream: Upstream, policy: Policy, ask: Ask) -> Excluded | None:
    """Return why `upstream` may not be asked; None when it may."""
    if upstream.provider.access.off is not None:
        return Excluded(upstream, "off", upstream.provider.access.off)
    if ask.needs and upstream.features is not None and not ask.needs <= upstream.features:
        return Excluded(upstream, "needs", f"does not offer {', '.join(sorted(ask.needs - upstream.features))}")
    row = upstream.row
    if row.context is not None and ask.least > row.context:
        return Excluded(upstream, "context", f"takes {row.context} tokens, the request has {ask.least} or more")
    if row.max_output is not None and ask.max_tokens > row.max_output:
        text = f"answers with {row.max_output} tokens at most, {ask.max_tokens} are asked for"
        return Excluded(upstream, "max_output", text)
    require = policy.require
    if require.min_quality is not None and (upstream.quality is None or upstream.quality < require.min_quality):
        return Excluded(upstream, "require", f"quality {_shown(upstream.quality)} is below {require.min_quality:g}")
    if require.min_success_rate is not None:
        rate = upstream.live.stats.success_rate(ask.now)
        if rate < require.min_success_rate:
            return Excluded(upstream, "require", f"success rate {rate:.2f} is below {require.min_success_rate:g}")
    return judge_now(upstream, ask)


def judge_now(upstream: Upstream, ask: Ask) -> Excluded | None:
    """Return why `upstream` may not be asked at this moment, though it may at others; None when it may."""
    rest = upstream.rest(ask.now)
    if rest is not None:
        return Excluded(upstream, "rest", rest.reason(ask.now))
    full = upstream.provider.gate.refuses(ask.tokens)
    return None if full is None else Excluded(upstream, "limit", full)


def _chain(route: Route, order: list[Scored], ask: Ask) -> list[Upstream]:
    """Best first; behind a primary with a chain of its own in the policy, that chain.

    When no candidate may be asked, the first with such a chain is taken for asked and failed: the chain answers.
    """
    best = [scored.upstream for scored in order]
    for primary in best[:1] or route.candidates:
        fixed = route.chains.get(primary.name)
        if fixed is not None:
            return [*best[:1], *(one for one in fixed if one is not primary and judge(one, route.policy, ask) is None)]
    return best


def _cheapest(upstreams: Sequence[Upstream], weights: Weights, ask: Ask) -> list[Scored]:
    """By list price; a model without a known price comes last."""
    return [Scored(one, usd := _usd(one), (usd,)) for one in upstreams]


def _fastest(upstreams: Sequence[Upstream], weights: Weights, ask: Ask) -> list[Scored]:
    """By live median latency."""
    return [Scored(one, ms := _ms(one, ask), (ms,)) for one in upstreams]


def _quality(upstreams: Sequence[Upstream], weights: Weights, ask: Ask) -> list[Scored]:
    """By the catalog's quality; unknown comes last."""
    return [Scored(one, _UNKNOWN if one.quality is None else -one.quality, (one.quality or 0.0,)) for one in upstreams]


def _balanced(upstreams: Sequence[Upstream], weights: Weights, ask: Ask) -> list[Scored]:
    """By the weighted sum of the head of this module."""
    if not upstreams:
        return []
    prices = [_usd(one) for one in upstreams]
    waits = [_ms(one, ask) for one in upstreams]
    least_usd, least_ms = min(prices), min(waits)
    best = max(one.quality or 0.0 for one in upstreams)
    total = weights.cost + weights.latency + weights.quality
    scored = []
    for one, usd, ms in zip(upstreams, prices, waits, strict=True):
        # own == least covers 0/0 (free models) and inf/inf (nobody has a price): equal is 0, not undefined.
        cost = 0.0 if usd == least_usd else 1.0 - least_usd / usd
        latency = 0.0 if ms == least_ms else 1.0 - least_ms / ms
        quality = 0.0 if (one.quality or 0.0) == best else 1.0 - (one.quality or 0.0) / best
        score = (weights.cost * cost + weights.latency * latency + weights.quality * quality) / total
        # Rounded, so that scores that differ by the last bit of a float are a tie and the policy's order stands.
        scored.append(Scored(one, round(score, 9), (cost, latency, quality)))
    return scored


STRATEGIES: Final[dict[str, _Strategy]] = {
    "cheapest": _cheapest,
    "fastest": _fastest,
    "quality": _quality,
    "balanced": _balanced,
}
PARTS: Final[dict[str, tuple[str, ...]]] = {
    "cheapest": ("usd_per_mtok",),
    "fastest": ("latency_ms",),
    "quality": ("quality",),
    "balanced": ("cost", "latency", "quality"),
}


def _usd(upstream: Upstream) -> float:
    return _UNKNOWN if upstream.usd_per_mtok is None else upstream.usd_per_mtok


def _ms(upstream: Upstream, ask: Ask) -> float:
    stats = upstream.live.stats
    return (stats.first_token if ask.stream else stats.latency).p50(ask.now)


def _shown(number: float | None) -> str:
    return "unknown" if number is None else f"{number:g}"
