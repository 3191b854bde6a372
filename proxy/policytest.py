"""Run one `[[test]]` of a policy: the live decision code, with a made-up state and no network."""

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Final

from proxy import adapter
from proxy.ask import BLOCK_TOKENS, Ask
from proxy.breaker import Rest
from proxy.config import Config
from proxy.expect import UNKNOWN, expect
from proxy.keys import Access
from proxy.optimizer import Decision, decide
from proxy.policy import Expect, Given, PolicyTest
from proxy.registry import Registry, build
from proxy.routes import Route, Routes, bind
from proxy.stats import Decayed, LatencySketch
from proxy.upstream import Upstream

# Enough made-up samples to outweigh any prior.
_MANY: Final = 1e9
_NOW: Final = 1000.0
# The input of a request whose test does not say.
_TOKENS: Final = 1000


def offline(config: Config) -> Registry:
    """Return upstreams that all count as on: whether this machine has a key says nothing about the files.

    Raises PolicyError.
    """
    return build(config, adapter.load, lambda row: Access(row.base_url, (), "", None))


def bound(config: Config) -> Routes:
    """Return all policies, bound to `offline` upstreams. Raises PolicyError."""
    return Routes(config, offline(config))


class Run:
    """One test, run: the `route` that its request took (that of the `when`th table, 0 for none), what was decided, who
    was `asked`, and what an answer was expected to cost, by name.
    """

    def __init__(self, config: Config, policy_name: str, test: PolicyTest) -> None:
        registry, request = offline(config), test.request
        warm = max((given.warm or 0 for given in test.given.values()), default=0)
        tokens, needs = request.tokens or max(_TOKENS, warm), frozenset(request.needs)
        prompt = tuple(range(tokens // BLOCK_TOKENS))
        for name, given in test.given.items():
            upstream = registry.get(name)
            if upstream is not None:
                _put(upstream, given, prompt)
        self.policy = config.policies[policy_name]
        headers = {name.lower(): value for name, value in request.header.items()}
        route = bind(policy_name, self.policy, registry)
        self.route, task = route.narrowed(tokens, needs, headers, request.routed)
        self.when = next((number for number, (_, one) in enumerate(route.whens, 1) if one is self.route), 0)
        learned_as = self.route.learned_as
        self.ask = Ask(_NOW, request.stream, tokens, needs, request.max_tokens, prompt, learned_as, task)
        self.decision = decide(self.route, request.strategy or self.policy.strategy, self.ask)
        self.asked = list(_walk(self.route, self.decision, test))
        order = [one.upstream for one in self.decision.order]
        self.usd = {
            one.name: comes.usd
            for one, comes in zip(order, expect(order, self.ask), strict=True)
            if comes.usd < UNKNOWN
        }


def failures(config: Config, policy_name: str, test: PolicyTest) -> str | None:
    """Return what came instead of what `test` expects, and a line for everybody concerned; None when it passes.

    Needs a running event loop (limiters).
    """
    run = Run(config, policy_name, test)
    if isinstance(test.expect, list):
        told = [] if run.asked == test.expect else [f"expected {_shown(test.expect)}, got {_shown(run.asked)}"]
        wanted = test.expect
    else:
        told = list(_missed(run, test.expect))
        wanted = test.expect.asked or ([test.expect.first] if test.expect.first else run.asked)
    return "\n    ".join(["; ".join(told), *_difference(run, wanted)]) if told else None


def _walk(route: Route, decision: Decision, test: PolicyTest) -> Iterator[str]:
    """Go through those whom the live walk would ask, as it does."""
    too_long_for: Upstream | None = None
    attempts = 1 if test.budget == "spent" else route.policy.fallback.attempts
    asked = 0
    for upstream in decision.chain:
        if too_long_for is not None and not upstream.outgrows(too_long_for):
            continue
        asked += 1
        yield upstream.name
        state = test.given.get(upstream.name)
        if state is None or state.error not in route.on or asked == attempts:
            return
        too_long_for = upstream if state.error == "context_length" else None


def _put(upstream: Upstream, given: Given, prompt: tuple[int, ...]) -> None:
    """Bring `upstream` into the given state."""
    stats = upstream.live.stats
    if given.p50_ms is not None:
        stats.latency = stats.first_token = LatencySketch(given.p50_ms, given.p50_ms)
    if given.success_rate is not None:
        stats.success = Decayed(weight=_MANY, total=given.success_rate * _MANY, at=_NOW)
    if given.warm is not None:
        upstream.live.learned.warm.touch(prompt[: given.warm // BLOCK_TOKENS], _NOW)
    if given.down:
        upstream.live.breaker.rest = Rest(_NOW + 1, "unavailable")


def _missed(run: Run, expect: Expect) -> Iterator[str]:
    """Say which of the expectations do not hold."""
    asked, usd = run.asked, run.usd
    first = asked[0] if asked else None
    if expect.first is not None and first != expect.first:
        yield f"expected {expect.first} first, got {first or 'nobody'}"
    if expect.asked and asked != expect.asked:
        yield f"expected {_shown(expect.asked)}, got {_shown(asked)}"
    yield from (f"expected not to ask {name}, got {_shown(asked)}" for name in expect.never if name in asked)
    if expect.usd_below is not None and (first is None or usd.get(first, UNKNOWN) >= expect.usd_below):
        cost = f"{usd[first]:.3g} USD at {first}" if first in usd else "no known price"
        yield f"expected less than {expect.usd_below:g} USD, got {cost}"
    if expect.when is not None and run.when != expect.when:
        yield f"expected [[when]] number {expect.when}, got {run.when or 'none'}"
    if expect.task is not None and run.ask.task != expect.task:
        yield f"expected class {expect.task!r}, got {run.ask.task or 'none'!r}"


def _difference(run: Run, wanted: list[str]) -> Iterator[str]:
    """Say of everybody who was asked (+: and not expected) or expected (-: and not asked) why, with the numbers."""
    why = {one.upstream.name: one.reason for one in run.decision.excluded}
    places = {one.upstream.name: (place, one) for place, one in enumerate(run.decision.order, 1)}
    width = max(map(len, (*run.asked, *wanted)), default=0)
    for kind, begins, ends, begins_asked, ends_asked in SequenceMatcher(None, wanted, run.asked, False).get_opcodes():
        if kind == "equal":
            marked = [("=", name) for name in wanted[begins:ends]]
        else:
            marked = [("-", name) for name in wanted[begins:ends]]
            marked += [("+", name) for name in run.asked[begins_asked:ends_asked]]
        for mark, name in marked:
            if name in places:
                place, scored = places[name]
                cost = f"{run.usd[name]:.3g} USD" if name in run.usd else "no known price"
                text = f"{place} of {len(places)} by score {scored.score:.3g}, {cost}"
            else:
                text = why.get(name, "no candidate here")
            yield f"{mark} {name:<{width}}  {text}"


def _shown(names: list[str]) -> str:
    return " -> ".join(names) or "nobody"
