"""Select, then route: policy files + registry + router behind one door. Policies are swapped by one assignment.

A request keeps the generation it started with; the next one sees the new files. Live numbers survive the swap.
"""

from collections.abc import Callable
from random import Random
from typing import Final

import msgspec

from proxy.adapter import Adapter
from proxy.answers import Answer, StreamAnswer
from proxy.ask import Ask, prefix
from proxy.attempt import Timing, Tools
from proxy.breaker import MIN_WAIT_S
from proxy.config import Config, nearest
from proxy.errors import AuthError, ClientError, OverloadedError, ProxyError, QuotaError, RateLimitError
from proxy.hedge import HedgedWalk
from proxy.keys import Access
from proxy.ledger import Page
from proxy.log import short
from proxy.optimizer import PARTS, PRICED, Excluded, decide, decide_again
from proxy.parameters import refusal
from proxy.peers import Alone, Totals
from proxy.plan import Plan as Plan
from proxy.plan import told
from proxy.policy import STRATEGIES, ProviderRow
from proxy.registry import Registry, build
from proxy.router import Walk
from proxy.routes import Route, Routes
from proxy.upstream import Upstream
from proxy.when import Router, classify
from proxy.wire import ChatRequest

# An error lists at most this many names.
_LISTED: Final = 40
# Why a request cannot be served whenever it comes, as the client is told: code and param.
_TOLD: Final[dict[str, tuple[str, str | None]]] = {
    "context": ("context_length_exceeded", "messages"),
    "max_output": ("invalid_value", "max_tokens"),
    "needs": ("unsupported_parameter", None),
}


class Overrides(msgspec.Struct, frozen=True):
    """What a client may say in headers. `client_s` is how long it waits; None: it did not say. `batch`: it can wait.
    `again`: it has sent this request before.

    `headers` are those that some policy's `[[when]]` looks at, by their names in small letters.
    `explain`: the answer is to say why it comes from whom it does. `tag` is for the ledger.
    """

    policy: str | None = None
    strategy: str | None = None
    fallback: bool = True
    client_s: float | None = None
    batch: bool = False
    again: bool = False
    headers: dict[str, str] = {}
    explain: bool = False
    tag: str | None = None


class Generation(msgspec.Struct, frozen=True, eq=False):
    """The policy files as they were at one moment, bound to upstreams."""

    number: int
    config: Config
    routes: Routes


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
        self.reprice()
        self.drains = any(row.on_disconnect == "drain" for row in config.providers.values())
        return changes(old.config, config)

    def reprice(self) -> None:
        """Look at prices again that change with the day or the hour. Costs next to nothing when none does."""
        registry, now = self.generation.routes.registry, self.tools.wall()
        changed = {provider.name for provider in registry.providers.values() if provider.tariff.tick(now)}
        for upstream in registry if changed else ():
            if upstream.provider.name in changed:
                upstream.reprice()

    def plan(self, request: ChatRequest, overrides: Overrides) -> Plan:
        """Return whom to ask. Raises ClientError for a name that does not exist."""
        route, strategy, ask = self._asked(request, overrides)
        decision = decide_again(route, strategy, ask)
        return told(route, strategy, ask, decision) if overrides.explain else Plan(route, strategy, ask, decision)

    def _asked(self, request: ChatRequest, overrides: Overrides) -> tuple[Route, str, Ask]:
        """Return what decides on `request`. Raises ClientError."""
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
        route, task = self._narrow(route, request, overrides)
        ask = Ask(
            self.tools.clock(),
            request.stream,
            request.input_tokens,
            request.needs,
            request.max_tokens,
            _prefix(request) if request.input_tokens >= route.caches and strategy in PRICED else (),
            route.learned_as,
            task,
        )
        return route, strategy, ask

    def _narrow(self, route: Route, request: ChatRequest, overrides: Overrides) -> tuple[Route, str]:
        """Return the route that is for requests like this one, and their class."""
        if not route.whens and route.router is None:
            return route, route.policy.task
        routed = "" if route.router is None else self._routed(route, route.router, request)
        return route.narrowed(request.input_tokens, request.needs, overrides.headers, routed)

    def _routed(self, route: Route, router: Router, request: ChatRequest) -> str:
        """Return what a learned router calls `request`; "" when it fails, which is told in the log."""

        def fault(error: Exception) -> None:
            at = f"router {route.policy.router} of policy {route.name}"
            self.tools.log("fault", self.tools.wall(), error=type(error).__name__, at=at)

        return classify(router, request, fault)

    def walk(self, request: ChatRequest, plan: Plan, request_id: str, overrides: Overrides) -> Walk:
        """Return the walk along the plan's chain, its clock started."""
        route, tools = plan.route, self.tools
        timing = Timing(route.policy.timeouts, tools.clock, overrides.client_s, stream=request.stream)
        kind = HedgedWalk if route.hedges else Walk
        walk = kind(request, plan.ask, route, tools, request_id, timing)
        if tools.ledger is not None:
            walk.page = Page(tools.ledger, request_id, route.name, short(request.model), overrides.tag)
        return walk

    def start(self, walk: Walk, plan: Plan, overrides: Overrides) -> None:
        """Set the walk on its way. Raises ProxyError: nobody may be asked."""
        # Without fallback the chain of a primary that rests must not answer for it, either.
        chain = plan.decision.chain if overrides.fallback else self._first(walk.request, plan)
        if not chain:
            raise self._nobody(plan)
        walk.start(chain, fall_back=overrides.fallback, again=overrides.again)

    async def go(self, walk: Walk, plan: Plan, overrides: Overrides) -> Answer | StreamAnswer:
        """Return the first answer. Raises ProxyError: nobody may be asked, or all that were asked failed."""
        if not walk.started:
            self.start(walk, plan, overrides)
        return await walk.go_on()

    def _first(self, request: ChatRequest, plan: Plan) -> list[Upstream]:
        """Return the best that can take `request`, as the policy sees it, alone."""
        best, mode = [one.upstream for one in plan.decision.order], plan.route.policy.unsupported_parameters
        able = (one for one in best if mode != "reject" or refusal(request, one, mode) is None)
        return [first] if (first := next(able, None)) is not None else best[:1]

    def explain(self, request: ChatRequest, overrides: Overrides) -> dict[str, object]:
        """Return the decision for `request` in words and numbers; nothing is called. Raises ClientError."""
        route, strategy, ask = self._asked(request, overrides)
        return told(route, strategy, ask, decide(route, strategy, ask)).explain(request)

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
        lasting = {one.why for one in excluded} - {"off"}
        if lasting and lasting <= _TOLD.keys():
            code, param = _TOLD[min(lasting)]
            return ClientError(text, code=code, param=param)
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


def _prefix(request: ChatRequest) -> tuple[int, ...]:
    return prefix(request.raw, tools="tools" in request.needs)


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
        "tokens_per_estimate": round(upstream.live.learned.ratio.mean(now, 1.0), 4),
        "cache_hits": round(upstream.live.learned.hits.mean(now, 1.0), 4),
        "spend_usd": round(totals.metrics.usd.values.get((upstream.label,), 0.0), 9),
    }
