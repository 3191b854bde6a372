"""Who is asked for a request: by a policy, with the live code, or without one, to compare it with. Pure."""

from collections.abc import Callable
from itertools import count
from typing import Final

import msgspec

from proxy.config import Config, PolicyError, Problem, nearest
from proxy.optimizer import Ask, decide_again, judge
from proxy.policy import Fallback, Policy
from proxy.registry import Registry
from proxy.routes import Route, bind
from proxy.upstream import Upstream

PRIMARY: Final = "primary"
ROUND_ROBIN: Final = "round-robin"

Choose = Callable[[Ask], list[Upstream]]


class Choice(msgspec.Struct, frozen=True):
    """One way to choose: a policy, or what stands in for it: `baseline` is then PRIMARY, ROUND_ROBIN or an upstream."""

    name: str
    policy: Policy
    baseline: str | None = None

    @property
    def label(self) -> str:
        """Return what it is called in a report."""
        return self.name if self.baseline is None else f"{self.baseline} for {self.name}"


def against(choice: Choice, baseline: str) -> Choice:
    """Return `baseline` over the candidates of `choice`, with its requirements, fallback and time limits."""
    policy = choice.policy
    plain = Policy(
        candidates=policy.candidates, require=policy.require, fallback=policy.fallback, timeouts=policy.timeouts
    )
    if baseline not in (PRIMARY, ROUND_ROBIN):
        # One upstream and nobody else, as an app without a sidecar has it: no floor, nobody to fall back to.
        plain = Policy(candidates=[baseline], fallback=Fallback(attempts=1), timeouts=policy.timeouts)
    return Choice(choice.name, plain, baseline)


def choices(config: Config, names: list[str]) -> list[Choice]:
    """Return the policies called `names`, all when there are none. Raises PolicyError for one that does not exist."""
    unknown = [name for name in names if name not in config.policies]
    if unknown or not config.policies:
        texts = [f"no policy {name!r}{nearest(name, config.policies)}" for name in unknown] or ["there is no policy"]
        raise PolicyError([Problem("", "", text) for text in texts])
    return [Choice(name, config.policies[name]) for name in dict.fromkeys(names or config.policies)]


def chooser(choice: Choice, registry: Registry) -> tuple[Route, Choose]:
    """Return `choice` bound to upstreams, and how it chooses."""
    route = bind(choice.name, choice.policy, registry)
    if choice.baseline is None:
        strategy = choice.policy.strategy
        return route, lambda ask: decide_again(route, strategy, ask).chain
    if choice.baseline == ROUND_ROBIN:
        turns = count()
        return route, lambda ask: _turned(_able(route, ask), next(turns))
    # A primary without a price cannot be compared with: those that have one come first.
    listed = tuple(sorted(route.candidates, key=_unpriced))
    route = msgspec.structs.replace(route, candidates=listed)
    return route, lambda ask: _able(route, ask)


def _unpriced(upstream: Upstream) -> bool:
    return upstream.usd_per_mtok is None


def _able(route: Route, ask: Ask) -> list[Upstream]:
    return [one for one in route.candidates if judge(one, route.policy, ask) is None]


def _turned(able: list[Upstream], turn: int) -> list[Upstream]:
    first = turn % len(able) if able else 0
    return able[first:] + able[:first]
