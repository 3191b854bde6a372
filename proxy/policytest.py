"""Run one `[[test]]` of a policy: the live decision code, with a made-up state and no network."""

from typing import Final

from proxy import adapter
from proxy.breaker import Rest
from proxy.config import Config
from proxy.keys import Access
from proxy.optimizer import Ask, decide
from proxy.policy import Given, PolicyTest
from proxy.registry import Registry, build
from proxy.routes import bind
from proxy.stats import Decayed, LatencySketch
from proxy.upstream import Upstream

# Enough made-up samples to outweigh any prior.
_MANY: Final = 1e9
_NOW: Final = 1000.0


def offline(config: Config) -> Registry:
    """Return upstreams that all count as on: whether this machine has a key says nothing about the files.

    Raises PolicyError.
    """
    return build(config, adapter.load, lambda row: Access(row.base_url, (), "", None))


def failures(config: Config, policy_name: str, test: PolicyTest) -> str | None:
    """Return what came instead of what `test` expects; None when it passes. Needs a running event loop (limiters)."""
    registry = offline(config)
    for name, given in test.given.items():
        upstream = registry.get(name)
        if upstream is not None:
            _put(upstream, given)
    policy = config.policies[policy_name]
    route = bind(policy_name, policy, registry)
    request = test.request
    ask = Ask(_NOW, request.stream, request.tokens, frozenset(request.needs), request.max_tokens)
    chain = decide(route, request.strategy or policy.strategy, ask).chain
    asked: list[str] = []
    too_long_for: Upstream | None = None
    for upstream in chain:
        if too_long_for is not None and not upstream.outgrows(too_long_for):
            continue
        asked.append(upstream.name)
        state = test.given.get(upstream.name)
        if state is None or state.error not in route.on or len(asked) == policy.fallback.attempts:
            break
        too_long_for = upstream if state.error == "context_length" else None
    return None if asked == test.expect else f"expected {_shown(test.expect)}, got {_shown(asked)}"


def _put(upstream: Upstream, given: Given) -> None:
    """Bring `upstream` into the given state."""
    stats = upstream.live.stats
    if given.p50_ms is not None:
        stats.latency = stats.first_token = LatencySketch(given.p50_ms, given.p50_ms)
    if given.success_rate is not None:
        stats.success = Decayed(weight=_MANY, total=given.success_rate * _MANY, at=_NOW)
    if given.down:
        upstream.live.breaker.rest = Rest(_NOW + 1, "unavailable")


def _shown(names: list[str]) -> str:
    return " -> ".join(names) or "nobody"
