"""Order upstreams by what a policy wants. Pure and synchronous; a strategy is one function and one row in STRATEGIES.

Scores are "lower is better" and are compared, never shown as money. Equal scores keep the policy file's order.

`balanced` adds three parts, each 0 for the best candidate and rising towards 1 with how many times worse one is:
    cost     1 - cheapest / own      own = what this request will cost there (`expect`); no known price counts 1
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

from proxy.ask import Ask as Ask  # callers need it to ask
from proxy.expect import UNKNOWN as _UNKNOWN
from proxy.expect import costs
from proxy.policy import Policy, Weights
from proxy.routes import Route
from proxy.upstream import Upstream

Why = Literal["off", "needs", "context", "max_output", "require", "rest", "limit"]
# Scores are rounded to nine digits, so that what differs by the last bit of a float is a tie and the policy's order
# stands. (`round` with digits goes by way of text, which takes three times as long.)
_DIGITS: Final = 1e9
# Live numbers are means over tens of requests; they do not move in a twentieth of a second.
RANKED_S: Final = 0.05
_MOST_RANKED: Final = 256
# Whoever was neither measured nor tried for so long may have changed.
STALE_S: Final = 60.0
PRICED: Final = frozenset(("cheapest", "balanced"))
_TIMED: Final = frozenset(("fastest", "balanced"))


class Scored(msgspec.Struct, frozen=True, gc=False):
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

    Where cost counts, requests are alike whose tokens and limits are within a factor of the square root of two; a
    prompt that a cache may hold is like no other. While its first choice comes back from an outage a decision serves
    once: chance decides who is asked first. Now and then a request goes to `_unmeasured` instead.
    """
    several = len(route.candidates) > 1
    if several and strategy in _TIMED and (unmeasured := _unmeasured(route, strategy, ask)) is not None:
        return unmeasured
    if ask.prefix or ask.least > route.fits_all or ask.max_tokens > route.answers_all:
        return _ramped(decide(route, strategy, ask), ask)
    alike: tuple[object, ...] = (strategy, ask.stream, ask.needs, ask.task)
    if several and strategy in PRICED:
        alike = (*alike, (ask.tokens * ask.tokens).bit_length(), (ask.max_tokens * ask.max_tokens).bit_length())
    kept: Ranked | None = route.ranked.get(alike)
    if kept is not None and ask.now < kept.until:
        first = kept.first
        if first.live.stats.errors == kept.errors and judge_now(first, ask) is None:
            return kept.decision
    found = _alone(route, ask) if len(route.candidates) == 1 else decide(route, strategy, ask)
    return _keep(route, alike, found, ask)


def _alone(route: Route, ask: Ask) -> Decision:
    """Return what `decide` does about a single candidate, without its numbers: there is nothing to rank."""
    only = route.candidates[0]
    verdict = judge(only, route.policy, ask)
    order = [Scored(only, 0.0, ())] if verdict is None else []
    return Decision(order, _chain(route, order, ask), [] if verdict is None else [verdict])


def _keep(route: Route, alike: tuple[object, ...], decision: Decision, ask: Ask) -> Decision:
    """Return `decision`, kept for those that are alike if it can serve them."""
    if not decision.chain or decision.chain[0].live.breaker.ramps(ask.now):
        return _ramped(decision, ask)
    if len(route.ranked) >= _MOST_RANKED:
        route.ranked.clear()
    first = decision.chain[0]
    route.ranked[alike] = Ranked(decision, first, first.live.stats.errors, ask.now + RANKED_S)
    return decision


def _ramped(decision: Decision, ask: Ask) -> Decision:
    """Return `decision`, in which a first choice that comes back from an outage may have yielded to the second."""
    chain = decision.chain
    if len(chain) > 1 and (breaker := chain[0].live.breaker).ramps(ask.now) and breaker.yields(ask.now):
        chain[:2] = chain[1], chain[0]
    return decision


def _unmeasured(route: Route, strategy: str, ask: Ask) -> Decision | None:
    """Return a decision that asks somebody first who may have become the best unseen; None when it is not time to.

    That is whoever would come first if it were as quick as the quickest, and was neither measured nor tried for
    STALE_S; at most `explore` of a policy's requests. The best stands behind it, should it fail.
    """
    share = route.policy.explore
    if not share or not route.budget.explore(share):
        return None
    decision = decide(route, strategy, ask)
    if len(decision.chain) < 2:
        return None
    best, weights, since = decision.order[0].score, route.policy.weights, ask.now - STALE_S
    found: tuple[float, Upstream] | None = None
    for one in decision.order[1:]:
        seen = one.upstream.live.measured(stream=ask.stream)
        if seen <= since and _at_its_quickest(one, weights) <= best and (found is None or seen < found[0]):
            found = seen, one.upstream
    if found is None:
        return None
    first = found[1]
    first.live.tried = ask.now
    return Decision(decision.order, [first, *(one for one in decision.chain if one is not first)], decision.excluded)


def _at_its_quickest(scored: Scored, weights: Weights) -> float:
    """Return what the score would be without its share for latency."""
    if len(scored.parts) == 1:
        return 0.0
    return scored.score - weights.latency * scored.parts[1] / (weights.cost + weights.latency + weights.quality)


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
    if require.min_quality is not None:
        good = upstream.quality_at(ask.task)
        if good is None or good < require.min_quality:
            return Excluded(upstream, "require", f"quality {_shown(good)} is below {require.min_quality:g}")
    if require.price and not upstream.rates:
        return Excluded(upstream, "require", "no known price")
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
    """By what the request will cost, in multiples of the cheapest that is not free; no known price comes last."""
    found, unit = costs(upstreams, ask), _UNKNOWN
    for one in found:
        if 0.0 < one[0] < unit:
            unit = one[0]
    # Where all are free, or nobody has a price, there is no unit and nothing to multiply.
    scale, scored = _DIGITS / unit, []
    for upstream, one in zip(upstreams, found, strict=True):
        usd = one[0]
        score = usd if usd == _UNKNOWN else round(usd * scale) / _DIGITS
        scored.append(Scored(upstream, score, (usd,)))
    return scored


def _fastest(upstreams: Sequence[Upstream], weights: Weights, ask: Ask) -> list[Scored]:
    """By live median latency."""
    return [Scored(one, ms, (ms,)) for one, ms in zip(upstreams, _waits(upstreams, ask), strict=True)]


def _quality(upstreams: Sequence[Upstream], weights: Weights, ask: Ask) -> list[Scored]:
    """By the catalog's quality, or the score for the request's class; unknown comes last."""
    rated = [(one, one.quality_at(ask.task)) for one in upstreams]
    return [Scored(one, _UNKNOWN if good is None else -good, (good or 0.0,)) for one, good in rated]


def _balanced(upstreams: Sequence[Upstream], weights: Weights, ask: Ask) -> list[Scored]:
    """By the weighted sum of the head of this module."""
    if not upstreams:
        return []
    prices = [one[0] for one in costs(upstreams, ask)]
    waits = _waits(upstreams, ask)
    rated = [one.quality or 0.0 for one in upstreams]
    if task := ask.task:
        rated = [one.quality_at(task) or 0.0 for one in upstreams]
    least_usd, least_ms, best = min(prices), min(waits), max(rated)
    scale = _DIGITS / (weights.cost + weights.latency + weights.quality)
    by_cost, by_latency, by_quality = weights.cost * scale, weights.latency * scale, weights.quality * scale
    scored = []
    for one, usd, ms, good in zip(upstreams, prices, waits, rated, strict=True):
        # own == least covers 0/0 (free models) and inf/inf (nobody has a price): equal is 0, not undefined.
        cost = 0.0 if usd == least_usd else 1.0 - least_usd / usd
        latency = 0.0 if ms == least_ms else 1.0 - least_ms / ms
        quality = 0.0 if good == best else 1.0 - good / best
        score = round(by_cost * cost + by_latency * latency + by_quality * quality) / _DIGITS
        scored.append(Scored(one, score, (cost, latency, quality)))
    return scored


STRATEGIES: Final[dict[str, _Strategy]] = {
    "cheapest": _cheapest,
    "fastest": _fastest,
    "quality": _quality,
    "balanced": _balanced,
}
PARTS: Final[dict[str, tuple[str, ...]]] = {
    "cheapest": ("usd",),
    "fastest": ("latency_ms",),
    "quality": ("quality",),
    "balanced": ("cost", "latency", "quality"),
}


def _waits(upstreams: Sequence[Upstream], ask: Ask) -> list[float]:
    """Return live medians in ms, of the first token for a stream."""
    now = ask.now
    if ask.stream:
        return [one.live.stats.first_token.p50(now) for one in upstreams]
    return [one.live.stats.latency.p50(now) for one in upstreams]


def _shown(number: float | None) -> str:
    return "unknown" if number is None else f"{number:g}"
