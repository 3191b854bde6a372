"""A decision before anything is called, and how it is told: in the same words by CLI, `POST /explain` and a header."""

from typing import Final

import msgspec

from proxy.ask import Ask
from proxy.expect import UNKNOWN, Expected, expect
from proxy.log import plain
from proxy.optimizer import PARTS, Decision, Scored
from proxy.parameters import refusal
from proxy.routes import Route
from proxy.upstream import Upstream
from proxy.wire import ChatRequest

# A header names at most this many who were left out.
_LISTED: Final = 4


class Plan(msgspec.Struct, frozen=True, eq=False):
    """Whom to ask for a request. `expected` is what the order was expected to come to, if the client wants to know why:
    it is reckoned before the answer has taught anything.
    """

    route: Route
    strategy: str
    ask: Ask
    decision: Decision
    expected: list[Expected] | None = None

    def explain(self, request: ChatRequest) -> dict[str, object]:
        """Return the decision for `request` in words and numbers."""
        decision, mode = self.decision, self.route.policy.unsupported_parameters
        asked = dict.fromkeys((*decision.chain, *(one.upstream for one in decision.order)))
        refusals = {one.name: refusal(request, one, mode) for one in asked}
        unable = [{"upstream": name, "reason": reason} for name, reason in refusals.items() if reason is not None]
        return {
            "model": request.model,
            "policy": self.route.name,
            "strategy": self.strategy,
            "when": self.route.when or None,
            "class": self.ask.task or None,
            "order": [
                self._scored(one, comes)
                for one, comes in zip(decision.order, self.expected or (), strict=True)
                if refusals[one.upstream.name] is None
            ],
            "chain": [upstream.name for upstream in decision.chain if refusals[upstream.name] is None],
            "excluded": [
                *({"upstream": one.upstream.name, "reason": one.reason} for one in decision.excluded),
                *unable,
            ],
        }

    def header(self, upstream: Upstream | None, expected: list[Expected]) -> str:
        """Return the value of `x-sidecar-decision`: why `upstream`, who answered or was tried last, was asked.

        The strategy; the class and `[[when]]`, if any; what the answer was expected to cost; its place in the order;
        who was left out, and why.
        """
        order = [one.upstream for one in self.decision.order]
        said = [self.strategy]
        if self.route.when:
            said.append(f"when {plain(self.route.when)}")
        if self.ask.task:
            said.append(f"class {plain(self.ask.task)}")
        if upstream in order:
            place = order.index(upstream)
            comes = expected[place]
            said.append("usd unknown" if comes.usd == UNKNOWN else f"usd={comes.usd:.3g}")
            said.append(f"tokens={comes.input:.0f}+{comes.output:.0f}")
            if comes.cached:
                said.append(f"cached={comes.cached:.0f}")
            said.append(f"{place + 1} of {len(order)}")
        if excluded := self.decision.excluded:
            names = [f"{one.upstream.plain_name} {one.why}" for one in excluded[:_LISTED]]
            more = [f"{len(excluded) - _LISTED} more"] if len(excluded) > _LISTED else []
            said.append(f"skipped: {', '.join([*names, *more])}")
        return "; ".join(said)

    def _scored(self, one: Scored, comes: Expected) -> dict[str, object]:
        upstream, stats = one.upstream, one.upstream.live.stats
        sketch = stats.first_token if self.ask.stream else stats.latency
        return {
            "upstream": upstream.name,
            "score": one.score,
            "parts": dict(zip(PARTS[self.strategy], one.parts, strict=True)),
            "expected": {
                "usd": None if comes.usd == UNKNOWN else float(f"{comes.usd:.6g}"),
                "input_tokens": round(comes.input),
                "cached_tokens": round(comes.cached),
                "output_tokens": round(comes.output),
                "latency_ms": round(sketch.p50(self.ask.now), 2),
                "quality": upstream.quality_at(self.ask.task),
            },
        }


def told(route: Route, strategy: str, ask: Ask, decision: Decision) -> Plan:
    """Return a plan for somebody who wants to know why."""
    return Plan(route, strategy, ask, decision, expect([one.upstream for one in decision.order], ask))
