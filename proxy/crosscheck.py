"""Whether the names in policy files mean something: what one file says of another."""

from collections.abc import Iterable
from typing import Final, Protocol

from proxy.policy import FEATURES, Expect, ModelRow, Policy, ProviderRow
from proxy.problems import CATALOG, Problem, matching, nearest

# What a request is, and not how it is to be answered.
_ESSENTIAL: Final = frozenset(("model", "messages", "stream", "tools", "functions", "response_format"))


class Files(Protocol):
    """A directory whose files are each valid."""

    @property
    def providers(self) -> dict[str, ProviderRow]: ...
    @property
    def models(self) -> dict[str, ModelRow]: ...
    @property
    def policies(self) -> dict[str, Policy]: ...
    @property
    def scores(self) -> dict[str, dict[str, float]]: ...


def cross_check(files: Files, problems: list[Problem]) -> None:
    """Add what is wrong with `files` as a whole to `problems`."""
    _check_models(files, problems)
    _check_scores(files, problems)
    for name, policy in files.policies.items():
        file = f"{name}.toml"
        for pattern in policy.candidates:
            if not matching([pattern], files.models):
                text = f"no upstream {pattern!r} in the catalog{nearest(pattern, files.models)}"
                problems.append(Problem(file, "candidates", text))
        _check_whens(file, policy, files, problems)
        weights = policy.weights
        if weights.cost + weights.latency + weights.quality <= 0:
            problems.append(Problem(file, "weights", "at least one weight must be above zero"))
        for test in policy.test:
            _check_features(file, f"test {test.name!r}: needs", test.request.needs, problems)
            if isinstance(test.expect, Expect) and (test.expect.when or 0) > len(policy.when):
                text = f"the policy has {len(policy.when)} [[when]] tables"
                problems.append(Problem(file, f"test {test.name!r}: expect.when", text))
        for where, upstream in _named(policy):
            if upstream not in files.models:
                text = f"no upstream {upstream!r} in the catalog{nearest(upstream, files.models)}"
                problems.append(Problem(file, where, text))


def _check_models(files: Files, problems: list[Problem]) -> None:
    """Look at what models say of providers, features and parameters."""
    for model in files.models.values():
        if model.provider not in files.providers:
            text = f"no provider {model.provider!r}{nearest(model.provider, files.providers)}"
            problems.append(Problem(CATALOG, f"model {model.id!r}", text))
        _check_features(CATALOG, f"model {model.id!r}: features", model.features or (), problems)
        problems.extend(
            Problem(CATALOG, f"model {model.id!r}: unsupported", f"{name!r} is no parameter; see features")
            for name in model.unsupported
            if name in _ESSENTIAL
        )


def _check_whens(file: str, policy: Policy, files: Files, problems: list[Problem]) -> None:
    """Look at what a policy says of the requests of a class."""
    tasks = [("class", policy.task)] if policy.task else []
    for number, when in enumerate(policy.when, 1):
        where = f"when {number}"
        tasks += [(f"{where}: class", when.task)] if when.task else []
        _check_features(file, f"{where}: needs", when.needs, problems)
        for pattern in when.candidates:
            if not matching([pattern], files.models):
                text = f"no upstream {pattern!r} in the catalog{nearest(pattern, files.models)}"
                problems.append(Problem(file, f"{where}: candidates", text))
        if when.routed is not None and policy.router is None:
            problems.append(Problem(file, f"{where}: routed", "the policy has no router that could say so"))
    for where, task in tasks:
        if task not in files.scores:
            problems.append(Problem(file, where, f"no scores for {task!r}{nearest(task, files.scores)}"))


def _check_scores(files: Files, problems: list[Problem]) -> None:
    """Look whether scores are of upstreams that there are."""
    for task, scores in files.scores.items():
        for name in scores:
            if name not in files.models:
                text = f"no upstream {name!r} in the catalog{nearest(name, files.models)}"
                problems.append(Problem(CATALOG, f"scores of {task!r}", text))


def _check_features(file: str, where: str, words: Iterable[str], problems: list[Problem]) -> None:
    unknown = [word for word in words if word not in FEATURES]
    problems.extend(Problem(file, where, f"{word!r} is not known{nearest(word, FEATURES)}") for word in unknown)


def _named(policy: Policy) -> Iterable[tuple[str, str]]:
    for primary, chain in policy.fallback.chain.items():
        for upstream in (primary, *chain):
            yield f"fallback.chain {primary!r}", upstream
    for test in policy.test:
        expect = test.expect
        listed = expect if isinstance(expect, list) else (*expect.asked, *expect.never, *filter(None, [expect.first]))
        for upstream in (*test.given, *listed):
            yield f"test {test.name!r}", upstream
