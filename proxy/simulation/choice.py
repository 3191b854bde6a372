"""Who is asked for a request: by a policy, with the live code, or without one, to compare it with. Pure."""

from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Final, NamedTuple

import msgspec

from proxy.ask import Ask
from proxy.config import Config
from proxy.optimizer import PRICED, decide_again, judge
from proxy.policy import Fallback, Policy
from proxy.problems import nearest
from proxy.registry import Registry
from proxy.routes import Route, bind
from proxy.upstream import Upstream

PRIMARY: Final = "primary"
ROUND_ROBIN: Final = "round-robin"


class Choice(msgspec.Struct, frozen=True):
    """One way to choose: a policy, or what stands in for it: `baseline` is then PRIMARY, ROUND_ROBIN or an upstream.

    `name` is what a report calls it.
    """

    name: str
    policy: Policy
    baseline: str | None = None


class Comparison(NamedTuple):
    """A policy, and what it is compared with."""

    choice: Choice
    baselines: list[Choice]


def comparisons(config: Config, names: Sequence[str], baselines: Sequence[str]) -> list[Comparison]:
    """Return the policies called `names` (all when there are none), each with its `baselines`; where policies have the
    same one it is the same object. Raises ValueError for a name that does not exist.
    """
    chosen = [Choice(name, config.policies[known(name, config.policies, "policy")]) for name in dict.fromkeys(names)]
    chosen = chosen or [Choice(name, policy) for name, policy in config.policies.items()]
    if not chosen:
        raise ValueError("there is no policy to play: the directory has a catalog only")
    found: list[Comparison] = [Comparison(choice, []) for choice in chosen]
    for baseline in dict.fromkeys(baselines):
        if baseline not in (PRIMARY, ROUND_ROBIN):
            known(baseline, config.models, "upstream")
        made: list[Choice] = []
        for comparison in found:
            policy = _plain(comparison.choice.policy, baseline)
            same = next((one for one in made if one.policy == policy), None)
            if same is None:
                same = Choice(f"{baseline} for {comparison.choice.name}" if made else baseline, policy, baseline)
                made.append(same)
            comparison.baselines.append(same)
    return found


def unique(choices: Iterable[Choice]) -> list[Choice]:
    """Return each of `choices` once: policies may share a baseline."""
    return list({id(choice): choice for choice in choices}.values())


def known(name: str, names: Iterable[str], what: str) -> str:
    """Return `name`. Raises ValueError when it is none of `names`."""
    if name not in names:
        raise ValueError(f"no {what} {name!r}{nearest(name, names)}")
    return name


def _plain(policy: Policy, baseline: str) -> Policy:
    """Return what stands in for `policy`: its candidates, requirements, fallbacks and time limits; for an upstream
    by itself only the time limits, as an app without a sidecar has it.
    """
    if baseline in (PRIMARY, ROUND_ROBIN):
        candidates, require, fallback = policy.candidates, policy.require, policy.fallback
        return Policy(candidates=candidates, require=require, fallback=fallback, timeouts=policy.timeouts)
    return Policy(candidates=[baseline], fallback=Fallback(attempts=1), timeouts=policy.timeouts)


class Chooser:
    """One choice, bound to upstreams. `priced` says that its order depends on what a request will cost."""

    __slots__ = ("_choose", "_route", "_usual", "priced")

    def __init__(self, choice: Choice, registry: Registry) -> None:
        route = bind(choice.name, choice.policy, registry)
        strategy = choice.policy.strategy
        self.priced = choice.baseline is None and strategy in PRICED
        self._choose: Callable[[Route, Ask], list[Upstream]] = _able
        if choice.baseline is None:
            self._choose = lambda route, ask: decide_again(route, strategy, ask).chain
        elif choice.baseline == ROUND_ROBIN:
            turns = count()
            self._choose = lambda route, ask: _turned(_able(route, ask), next(turns))
        else:
            # A primary without a price cannot be compared with: those that have one come first.
            candidates = tuple(sorted(route.candidates, key=_unpriced))
            route = msgspec.structs.replace(route, candidates=candidates)
        self._route = route
        self._usual = route, route.policy.task

    def narrowed(self, tokens: int, needs: frozenset[str]) -> tuple[Route, str]:
        """Return the route for such a request, and its class. A trace has no headers, and no words for a router."""
        return self._route.narrowed(tokens, needs, {}, "") if self._route.whens else self._usual

    def chain(self, route: Route, ask: Ask) -> list[Upstream]:
        """Return whom to ask, in turn; nobody: an empty list."""
        return self._choose(route, ask)


def _unpriced(upstream: Upstream) -> bool:
    return upstream.usd_per_mtok is None


def _able(route: Route, ask: Ask) -> list[Upstream]:
    return [one for one in route.candidates if judge(one, route.policy, ask) is None]


def _turned(able: list[Upstream], turn: int) -> list[Upstream]:
    first = turn % len(able) if able else 0
    return able[first:] + able[:first]
