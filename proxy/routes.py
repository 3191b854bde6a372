"""What a client may call a model, and whom that means. Bound once per generation of the policy files.

In this order: a policy; a name that a policy's `answers` matches (exact before narrow before wide); an upstream
"provider/id"; "provider/<any id>"; a bare id: every upstream that offers it, or else the only provider that is on.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from proxy.budget import Budget
from proxy.config import Config, PolicyError, Problem, matching
from proxy.policy import Policy, Require, When
from proxy.registry import Registry, made_up
from proxy.upstream import LONGEST_NAME, Upstream
from proxy.when import Router, fits, load, words

# Names a client made up are remembered up to this many, and to LONGEST_NAME (80 names of 4 MB took 700 MB); others
# are looked up anew each time.
_REMEMBERED: Final = 1024
_NEVER: Final = float("inf")
# What a name that no policy answers is served by: its header and metrics say "direct".
DIRECT: Final = "direct"


class Route(msgspec.Struct, frozen=True, eq=False):
    """A policy bound to upstreams. `chains` are fixed fallback orders by primary; `on` the kinds that fall back;
    `budget` what the policy's requests may ask beyond their first attempts; `hedges` whether late ones may. Everybody
    takes a request of `fits_all` tokens, answer included, and can answer with `answers_all`. For prompts of `caches`
    tokens or more it matters whose cache is warm, infinite: for none.

    `whens` are the routes of the policy's `[[when]]` tables, `router` names the class of a request. The route of such a
    table says in `when` what its requests have, and in `task` of what class they are, "" where others may say.
    """

    name: str
    policy: Policy
    candidates: tuple[Upstream, ...]
    chains: dict[str, tuple[Upstream, ...]]
    on: frozenset[str]
    budget: Budget
    hedges: bool
    fits_all: float
    answers_all: float
    caches: float
    whens: tuple[tuple[When, "Route"], ...] = ()
    router: Router | None = None
    when: str = ""
    task: str = ""
    ranked: dict[tuple[object, ...], Any] = msgspec.field(default_factory=dict)  # see `decide_again`

    def narrowed(
        self, tokens: int, needs: frozenset[str], headers: Mapping[str, str], routed: str
    ) -> tuple["Route", str]:
        """Return the route for such requests, that of the first `[[when]]` that fits or this one, and their class.

        `headers` by names in small letters; `routed` is what a learned router has called the request, "" for nothing.
        """
        narrow = next((narrow for when, narrow in self.whens if fits(when, tokens, needs, headers, routed)), self)
        return narrow, narrow.task or routed or self.policy.task

    @property
    def learned_as(self) -> str:
        """What the length of its answers is learned under."""
        return f"{self.name} when {self.when}" if self.when else self.name


def bind(
    name: str,
    policy: Policy,
    registry: Registry,
    budget: Budget | None = None,
    candidates: tuple[Upstream, ...] | None = None,
) -> Route:
    """Return `policy` with its names replaced by upstreams; `candidates` stand in for the policy's own.

    Raises PolicyError for a router that cannot be had.
    """
    budget = budget or Budget(0.0)
    if candidates is None:
        listed = matching(policy.candidates, [upstream.name for upstream in registry])
        candidates = tuple(found for called in listed if (found := registry.get(called)) is not None)
    chains = {
        primary: tuple(found for called in chain if (found := registry.get(called)) is not None)
        for primary, chain in policy.fallback.chain.items()
    }
    on = frozenset(policy.fallback.on)
    on = on | {"quota"} if "rate_limit" in on else on
    anybody = [*candidates, *(one for chain in chains.values() for one in chain)]
    return Route(
        name,
        policy,
        candidates,
        chains,
        on,
        budget,
        policy.fallback.hedge > 0,
        min((one.row.context for one in anybody if one.row.context is not None), default=_NEVER),
        min((one.row.max_output for one in anybody if one.row.max_output is not None), default=_NEVER),
        _caches(candidates),
        tuple((when, _bind_when(name, policy, when, registry, budget)) for when in policy.when),
        _router(name, policy.router),
    )


def _bind_when(name: str, policy: Policy, when: When, registry: Registry, budget: Budget) -> Route:
    """Return the route of those requests of `policy` that `when` is about."""
    listed = when.candidates or policy.candidates
    narrow = bind(name, msgspec.structs.replace(policy, candidates=listed, when=[], router=None), registry, budget)
    return msgspec.structs.replace(narrow, when=words(when), task=when.task or "")


def _router(name: str, router: str | None) -> Router | None:
    try:
        return None if router is None else load(router)
    except LookupError as error:
        raise PolicyError([Problem(f"{name}.toml", "router", str(error))]) from None


def _caches(candidates: tuple[Upstream, ...]) -> float:
    """Return the shortest prompt that one of several candidates reads again at a lower price; infinite for none."""
    priced = [one.cache[1] for one in candidates if any(rates.cached < rates.input for rates in one.rates)]
    return min(priced, default=_NEVER) if len(candidates) > 1 else _NEVER


class Routes:
    """Resolves names for one generation, which begins at `now` and goes on with the budgets of the `previous` one."""

    def __init__(
        self, config: Config, registry: Registry, previous: dict[str, Budget] | None = None, now: float = 0.0
    ) -> None:
        self.registry = registry
        # By policy; all names that no policy answers share one.
        kept = previous or {}
        self.budgets = {name: kept.get(name) or Budget(now) for name in (*config.policies, DIRECT)}
        self.policies = {
            name: bind(name, policy, registry, self.budgets[name]) for name, policy in config.policies.items()
        }
        self._globs = sorted(
            ((glob, name) for name, policy in config.policies.items() for glob in policy.answers), key=_narrowest_first
        )
        self._known: dict[str, Route] = {}
        # The headers that decide, in small letters.
        self.headers = frozenset(
            header.lower() for policy in config.policies.values() for when in policy.when for header in when.header
        )

    def resolve(self, model: str) -> Route | None:
        """Return whom `model` means; None when it means nobody."""
        route = self.policies.get(model) or self._known.get(model)
        if route is None:
            route = self._look_up(model)
            if route is not None and len(self._known) < _REMEMBERED and len(model) <= LONGEST_NAME:
                self._known[model] = route
        return route

    def names(self) -> list[str]:
        """Return what can be asked for: policies, then the upstreams that are on."""
        return [*self.policies, *(upstream.name for upstream in self.registry if not upstream.provider.access.off)]

    def _look_up(self, model: str) -> Route | None:
        for glob, name in self._globs:
            if matching([glob], [model]):
                return self.policies[name]
        upstream = self.registry.get(model)
        if upstream is not None:
            return self._pinned(upstream)
        provider_name, _, rest = model.partition("/")
        provider = self.registry.providers.get(provider_name)
        if provider is not None and rest:
            return self._pinned(made_up(provider, rest))  # though it be off: then the refusal says why
        offers = tuple(upstream for upstream in self.registry if upstream.row.id == model)
        if any(not upstream.provider.access.off for upstream in offers):
            return self._direct(offers)
        on = [provider for provider in self.registry.providers.values() if not provider.access.off]
        if len(on) == 1 and not offers:
            return self._pinned(made_up(on[0], model))
        return self._direct(offers) if offers else None

    def _pinned(self, upstream: Upstream) -> Route:
        """Only `upstream`, then what the first policy lists behind it. Who names it does not ask what it must have."""
        for route in self.policies.values():
            if upstream.name in route.chains:
                policy = msgspec.structs.replace(route.policy, require=Require(), when=[], router=None)
                return bind(route.name, policy, self.registry, route.budget, (upstream,))
        return self._direct((upstream,))

    def _direct(self, candidates: tuple[Upstream, ...]) -> Route:
        return bind(DIRECT, Policy(), self.registry, self.budgets[DIRECT], candidates)


def _narrowest_first(entry: tuple[str, str]) -> tuple[bool, int, str]:
    """Exact names first, then the globs with the most literal characters."""
    glob = entry[0]
    literal = sum(mark not in "*?[]" for mark in glob)
    return literal < len(glob), -literal, glob
