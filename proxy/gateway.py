"""Select, then route: policy files + registry + router behind one door. Policies are swapped by one assignment.

A request keeps the generation it started with; the next one sees the new files. Live numbers survive the swap.
"""

from collections.abc import Callable
from random import Random
from typing import Final

import msgspec

from proxy.adapter import Adapter
from proxy.answers import Answer, StreamAnswer
from proxy.attempt import Timing, Tools
from proxy.breaker import MIN_WAIT_S
from proxy.config import Config, nearest
from proxy.errors import AuthError, ClientError, OverloadedError, ProxyError, QuotaError, RateLimitError
from proxy.hedge import HedgedWalk
from proxy.keys import Access
from proxy.optimizer import PARTS, Ask, Decision, Excluded, decide_again
from proxy.peers import Alone, Totals
from proxy.policy import STRATEGIES, ProviderRow
from proxy.registry import Registry, build
from proxy.router import Walk
from proxy.routes import Route, Routes
from proxy.upstream import Upstream
from proxy.wire import ChatRequest

# An error lists at most this many names.
_LISTED: Final = 40


class Overrides(msgspec.Struct, frozen=True):
    """What a client may say in headers. `client_s` is how long it waits; None: it did not say. `batch`: it can wait."""

    policy: str | None = None
    strategy: str | None = None
    fallback: bool = True
    client_s: float | None = None
    batch: bool = False


class Generation(msgspec.Struct, frozen=True, eq=False):
    """The policy files as they were at one moment, bound to upstreams."""

    number: int
    config: Config
    routes: Routes


class Plan(msgspec.Struct, frozen=True, eq=False):
    """A decision before anything is called."""

    route: Route
    strategy: str
    decision: Decision


class Gateway:
    """One per process. `generation` is the only thing that is ever replaced."""

    def __init__(
        self,
        tools: Tools,
        load: Callable[[str], Adapter],
        access: Callable[[ProviderRow], Access],
        random: Random | None = None,
        peers: Alone | None = None,
    ) -> None:
        self.tools = tools
        self._load = load
        self._access = access
        self._random = random
        self.peers = peers or Alone()
        self.drains = False  # whether any provider's answers are read to their ends when the client has left
        self.generation = Generation(0, Config({}, {}, {}, ""), Routes(Config({}, {}, {}, ""), Registry()))

    def install(self, config: Config) -> list[str]:
        """Make `config` the current one. Returns what changed, a line each. Raises PolicyError and changes nothing."""
        old = self.generation
        registry = build(config, self._load, self._access, old.routes.registry, self._random, self.peers.gate)
        routes = Routes(config, registry, old.routes.budgets, self.tools.clock())
        self.generation = Generation(old.number + 1, config, routes)
        self.drains = any(row.on_disconnect == "drain" for row in config.providers.values())
        return changes(old.config, config)

    def plan(self, request: ChatRequest, overrides: Overrides) -> Plan:
        """Return whom to ask. Raises ClientError for a name that does not exist."""
        routes = self.generation.routes
        if overrides.policy is None:
            route = routes.resolve(request.model)
        else:
            route = routes.policies.get(overrides.policy)
            if route is None:
                text = f"x-sidecar-policy: no policy {overrides.policy!r}{nearest(overrides.policy, routes.policies)}"
                raise ClientError(text, param="x-sidecar-policy", code="invalid_value")
        if route is None:
            raise self._unknown(request.model)
        strategy = overrides.strategy or route.policy.strategy
        if strategy not in PARTS:
            text = f"x-sidecar-strategy: {strategy!r} is not one of {', '.join(STRATEGIES)}"
            raise ClientError(text, param="x-sidecar-strategy", code="invalid_value")
        ask = Ask(self.tools.clock(), request.stream, request.input_tokens, request.needs)
        return Plan(route, strategy, decide_again(route, strategy, ask))

    def walk(self, request: ChatRequest, plan: Plan, request_id: str, overrides: Overrides) -> Walk:
        """Return the walk along the plan's chain, its clock started."""
        route, tools = plan.route, self.tools
        timing = Timing(route.policy.timeouts, tools.clock, overrides.client_s, stream=request.stream)
        return (HedgedWalk if route.hedges else Walk)(request, route, tools, request_id, timing)

    def start(self, walk: Walk, plan: Plan, overrides: Overrides) -> None:
        """Set the walk on its way. Raises ProxyError: nobody may be asked."""
        # Without fallback the chain of a primary that rests must not answer for it, either.
        chain = plan.decision.chain if overrides.fallback else [one.upstream for one in plan.decision.order[:1]]
        if not chain:
            raise self._nobody(plan)
        walk.start(chain, fall_back=overrides.fallback)

    async def go(self, walk: Walk, plan: Plan, overrides: Overrides) -> Answer | StreamAnswer:
        """Return the first answer. Raises ProxyError: nobody may be asked, or all that were asked failed."""
        if not walk.started:
            self.start(walk, plan, overrides)
        return await walk.go_on()

    def explain(self, request: ChatRequest, overrides: Overrides) -> dict[str, object]:
        """Return the decision for `request` in words and numbers; nothing is called. Raises ClientError."""
        plan = self.plan(request, overrides)
        parts = PARTS[plan.strategy]
        return {
            "model": request.model,
            "policy": plan.route.name,
            "strategy": plan.strategy,
            "order": [
                {"upstream": one.upstream.name, "score": one.score, "parts": dict(zip(parts, one.parts, strict=True))}
                for one in plan.decision.order
            ],
            "chain": [upstream.name for upstream in plan.decision.chain],
            "excluded": [{"upstream": one.upstream.name, "reason": one.reason} for one in plan.decision.excluded],
        }

    def flying(self) -> dict[str, int]:
        """Return the attempts that this process has under way, by upstream."""
        return {upstream.label: upstream.live.in_flight for upstream in self.generation.routes.registry}

    def totals(self) -> Totals:
        """Return what was counted and what is under way, in all workers."""
        return self.peers.totals(self.tools.metrics, self.flying())

    def status(self) -> dict[str, object]:
        """Return the state of every upstream and provider, for people and dashboards."""
        now = self.tools.clock()
        routes = self.generation.routes
        totals = self.totals()
        return {
            "generation": self.generation.number,
            "digest": self.generation.config.digest,
            "policies": list(routes.policies),
            "providers": {
                name: {
                    "on": provider.access.off is None,
                    "why": provider.access.off or provider.access.source,
                    "in_flight": provider.gate.total(),
                    "limits": provider.gate.limits,
                }
                for name, provider in routes.registry.providers.items()
            },
            "upstreams": {upstream.name: _state(upstream, totals, now) for upstream in routes.registry},
            "spend_usd": round(totals.metrics.usd.total(), 9),
            "in_flight": totals.visits,
            "workers": self.peers.workers,
            "worker": self.peers.worker,
        }

    def _unknown(self, model: str) -> ClientError:
        names = self.generation.routes.names()
        shown = ", ".join(names[:_LISTED]) + (f", and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
        return ClientError(
            f"the model {model[:200]!r} does not exist{nearest(model[:200], names) if len(names) > 12 else ''}; "
            f"there are: {shown or 'none'}",
            status=404,
            param="model",
            code="model_not_found",
        )

    def _nobody(self, plan: Plan) -> ProxyError:
        """Return the error for a request that nobody may be asked for, with the soonest moment that may change."""
        excluded = plan.decision.excluded
        reasons = "; ".join(f"{one.upstream.name}: {one.reason}" for one in excluded[:_LISTED]) or "no candidates"
        text = f"policy {plan.route.name!r} has no upstream to ask ({reasons})"
        waiting = [one for one in excluded if one.why in ("rest", "limit")]
        if excluded and all(one.why == "needs" for one in excluded):
            return ClientError(text, code="unsupported_parameter")
        if not waiting:
            return OverloadedError(text, code="no_provider_available", retry_after_s=MIN_WAIT_S)
        now = self.tools.clock()
        wait_s = max(MIN_WAIT_S, min(_wait_s(one, now) for one in waiting))
        kinds = {_kind(one, now) for one in waiting}
        if kinds == {"auth"}:
            return AuthError(text)
        if kinds == {"quota"}:
            return QuotaError(text, retry_after_s=wait_s)
        if kinds <= {"rate_limit", "quota"}:
            return RateLimitError(text, retry_after_s=wait_s)
        return OverloadedError(text, code="no_provider_available", retry_after_s=wait_s)


def changes(old: Config, new: Config) -> list[str]:
    """Return what differs between two configurations, one line per thing added, changed or gone."""
    lines = []
    for what, before, after in (
        ("provider", old.providers, new.providers),
        ("model", old.models, new.models),
        ("policy", old.policies, new.policies),
    ):
        for name in {**before, **after}:
            was, is_now = before.get(name), after.get(name)
            if was != is_now:
                lines.append(f"{'+' if was is None else '-' if is_now is None else '~'} {what} {name}")
    return lines


def _wait_s(excluded: Excluded, now: float) -> float:
    rest = excluded.upstream.rest(now)
    return MIN_WAIT_S if excluded.why == "limit" or rest is None else rest.until - now


def _kind(excluded: Excluded, now: float) -> str:
    if excluded.why == "limit":
        return "rate_limit"
    rest = excluded.upstream.rest(now)
    return "unavailable" if rest is None else rest.kind


def _state(upstream: Upstream, totals: Totals, now: float) -> dict[str, object]:
    stats, rest = upstream.live.stats, upstream.rest(now)
    return {
        "on": upstream.provider.access.off is None,
        "breaker": upstream.live.breaker.state(now),
        "resting_s": round(max(0.0, rest.until - now), 3) if rest is not None else 0.0,
        "why": rest.reason(now) if rest is not None else None,
        "in_flight": totals.flying.get(upstream.label, 0),
        "requests": stats.requests,
        "errors": stats.errors,
        "success_rate": round(stats.success_rate(now), 4),
        "latency_ms": {"p50": round(stats.latency.p50(now), 2), "p99": round(stats.latency.p99(now), 2)},
        "first_token_ms": {"p50": round(stats.first_token.p50(now), 2), "p99": round(stats.first_token.p99(now), 2)},
        "quality": upstream.quality,
        "list_usd_per_mtok": upstream.usd_per_mtok,
        "usd_per_mtok": stats.usd_per_mtok(),
        "tokens": stats.tokens,
        "spend_usd": round(totals.metrics.usd.values.get((upstream.label,), 0.0), 9),
    }
