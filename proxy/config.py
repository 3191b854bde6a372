"""Reads a directory of policy files into one checked `Config`, or says everything that is wrong with it.

`load` looks at every file before it complains; a `Problem` names file and entry and suggests the nearest valid word.
"""

import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from proxy.errors import KINDS
from proxy.policy import (
    FEATURES,
    STRATEGIES,
    Asked,
    Fallback,
    Given,
    Latency,
    Limits,
    Login,
    ModelRow,
    Policy,
    PolicyTest,
    Price,
    ProviderRow,
    Require,
    Timeouts,
    Weights,
)

MAX_FILE: Final = 1 << 20


class _Catalog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    provider: list[dict[str, Any]] = []
    model: list[dict[str, Any]] = []


class Problem(NamedTuple):
    """One thing wrong in a file; `where` is the entry, empty for the file as a whole."""

    file: str
    where: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


class PolicyError(Exception):
    """A directory that cannot be used; `problems` is never empty."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems

    def complaint(self) -> str:
        """Return what a person is told when nothing can start."""
        return f"llm-sidecar: the policy files cannot be used:\n{self}"


class Config(msgspec.Struct, frozen=True):
    """A whole, valid directory. `digest` changes when any byte of any file does."""

    providers: dict[str, ProviderRow]
    models: dict[str, ModelRow]
    policies: dict[str, Policy]
    digest: str


_T = TypeVar("_T")
CATALOG: Final = "catalog.toml"
_ANY: Final = ("*", "?", "[")


def read_files(directory: Path) -> dict[str, bytes]:
    """Return the TOML files in `directory` by name. Raises PolicyError when it cannot be read."""
    try:
        found = sorted(p for p in directory.iterdir() if p.suffix == ".toml" and not p.name.startswith("."))
        files = {path.name: path.read_bytes() for path in found}
    except OSError as error:
        text = error.strerror or "cannot be read"
        raise PolicyError([Problem(str(error.filename or directory), "", text)]) from None
    return files


def digest(files: Mapping[str, bytes]) -> str:
    """Return a short hash over names and contents."""
    hashed = blake2b(digest_size=8)
    for name in sorted(files):
        hashed.update(b"%d:%s%d:" % (len(name), name.encode(), len(files[name])) + files[name])
    return hashed.hexdigest()


def load(files: Mapping[str, bytes], catalog: bytes | None = None) -> Config:
    """Return the configuration in `files`; `catalog` stands in when they have none. Raises PolicyError with all
    problems found.
    """
    problems: list[Problem] = []
    if CATALOG not in files and catalog is not None:
        files = {**files, CATALOG: catalog}
    if not files:
        problems.append(Problem("", "", "the directory has no .toml file"))
    tables = {name: _parse(name, data, problems) for name, data in files.items()}
    facts = _convert(tables.pop(CATALOG, None) or {}, _Catalog, (CATALOG, ""), problems) or _Catalog()
    providers = _rows(facts.provider, ProviderRow, "provider", problems)
    problems.extend(
        Problem(CATALOG, f"provider {name!r}", "the name must not contain a slash") for name in providers if "/" in name
    )
    models = _rows(facts.model, ModelRow, "model", problems)
    policies = {}
    for name, table in tables.items():
        policy = _policy(name, table, problems) if table else None
        if policy is not None:
            policies[name.removesuffix(".toml")] = policy
    config = Config(providers, models, policies, digest(files))
    if not any(problem.file == CATALOG for problem in problems):
        _cross_check(config, problems)
    if problems:
        raise PolicyError(problems)
    return config


def shipped() -> Path:
    """Return the directory of the shipped policies: inside the wheel, or beside the packages in a checkout."""
    inside = Path(__file__).parent / "shipped_policies"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "policies"


def load_directory(policies: Path | None) -> Config:
    """Return the configuration in `policies`, or the shipped one. Raises PolicyError."""
    own = shipped()
    files = read_files(policies or own)
    return load(files, (own / CATALOG).read_bytes())


def matching(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the `names` that match, in the order of the patterns, each once."""
    names = list(names)
    found: dict[str, None] = {}
    for pattern in patterns:
        if any(mark in pattern for mark in _ANY):
            found.update((name, None) for name in names if fnmatchcase(name, pattern))
        elif pattern in names:
            found[pattern] = None
    return list(found)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest of `known`, else what there is."""
    known = sorted(known)
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = [word if word.isprintable() else repr(word) for word in known]
    return f"; known: {', '.join(shown)}" if 0 < len(known) <= 12 else ""


def _parse(file: str, data: bytes, problems: list[Problem]) -> dict[str, Any]:
    try:
        if len(data) > MAX_FILE:
            raise ValueError("the file is over 1 MiB")
        table = tomllib.loads(data.decode())
    except ValueError as error:  # TOML and UTF-8 errors are ValueErrors and say the line or the byte
        problems.append(Problem(file, "", str(error)))
        return {}
    except RecursionError:
        problems.append(Problem(file, "", "nested too deeply"))
        return {}
    if not table:
        problems.append(Problem(file, "", "the file is empty"))
    return table


def _convert(value: Any, to: type[_T], at: tuple[str, str], problems: list[Problem]) -> _T | None:
    try:
        return msgspec.convert(value, to)
    except msgspec.ValidationError as error:
        problems.append(Problem(*at, _explain(str(error), to)))
        return None


def _explain(text: str, to: type[Any]) -> str:
    """Turn msgspec's message into ours: path first, with the nearest word that is valid there."""
    what, _, path = text.partition(" - at `$")
    path = path.removesuffix("`").lstrip(".")
    where = f"{path}: " if path else ""
    word = what.rpartition("`")[0].rpartition("`")[2]
    if what.startswith("Object contains unknown field"):
        return f"{where}unknown key {word!r}{nearest(word, _keys(to, path))}"
    if what.startswith("Object missing required field"):
        return f"{where}the key {word!r} is missing"
    if what.startswith("Invalid enum value"):
        bad = what.removeprefix("Invalid enum value ").strip("'")
        return f"{where}{bad!r} is not known{nearest(bad, [*STRATEGIES, *KINDS])}"
    return f"{where}{what[0].lower()}{what[1:]}"


_TABLES: Final[dict[str, type[msgspec.Struct]]] = {
    "login": Login,
    "limits": Limits,
    "price": Price,
    "latency": Latency,
    "weights": Weights,
    "require": Require,
    "fallback": Fallback,
    "timeouts": Timeouts,
    "request": Asked,
}


def _keys(to: type[Any], path: str) -> tuple[str, ...]:
    """Return the keys that may stand at `path` of a `to`."""
    fields: tuple[str, ...] = _TABLES.get(path, to).__struct_fields__
    return fields


def _rows(tables: list[dict[str, Any]], to: type[_T], what: str, problems: list[Problem]) -> dict[str, _T]:
    rows: dict[str, _T] = {}
    for number, table in enumerate(tables, 1):
        called = table.get("name") or table.get("id")
        where = f"{what} {called!r}" if isinstance(called, str) else f"{what} number {number}"
        row = _convert(table, to, (CATALOG, where), problems)
        if row is None:
            continue
        name: str = row.name  # type: ignore[attr-defined]  # both row types have it
        if name in rows:
            problems.append(Problem(CATALOG, where, f"{name!r} is listed twice"))
        rows[name] = row
    return rows


def _policy(file: str, table: dict[str, Any], problems: list[Problem]) -> Policy | None:
    """Convert a policy; tests one by one, so that a message can name the test and the upstream."""
    tests = table.pop("test") if isinstance(table.get("test"), list) else []
    policy = _convert(table, Policy, (file, ""), problems)
    converted = [_test(file, number, test, problems) for number, test in enumerate(tests, 1)]
    listed = [test for test in converted if test is not None]
    return None if policy is None else msgspec.structs.replace(policy, test=listed)


def _test(file: str, number: int, test: Any, problems: list[Problem]) -> PolicyTest | None:
    count = len(problems)
    where = f"test {test.get('name', number)!r}" if isinstance(test, dict) else f"test {number}"
    given = test.get("given") if isinstance(test, dict) else None
    for name, state in given.items() if isinstance(given, dict) else ():
        _convert(state, Given, (file, f"{where}: given {name!r}"), problems)
    return _convert(test, PolicyTest, (file, where), problems) if len(problems) == count else None


def _cross_check(config: Config, problems: list[Problem]) -> None:
    for model in config.models.values():
        if model.provider not in config.providers:
            text = f"no provider {model.provider!r}{nearest(model.provider, config.providers)}"
            problems.append(Problem(CATALOG, f"model {model.id!r}", text))
        _check_features(CATALOG, f"model {model.id!r}: features", model.features or (), problems)
    for name, policy in config.policies.items():
        file = f"{name}.toml"
        for pattern in policy.candidates:
            if not matching([pattern], config.models):
                text = f"no upstream {pattern!r} in the catalog{nearest(pattern, config.models)}"
                problems.append(Problem(file, "candidates", text))
        weights = policy.weights
        if weights.cost + weights.latency + weights.quality <= 0:
            problems.append(Problem(file, "weights", "at least one weight must be above zero"))
        for test in policy.test:
            _check_features(file, f"test {test.name!r}: needs", test.request.needs, problems)
        for where, upstream in _named(policy):
            if upstream not in config.models:
                text = f"no upstream {upstream!r} in the catalog{nearest(upstream, config.models)}"
                problems.append(Problem(file, where, text))


def _check_features(file: str, where: str, words: Iterable[str], problems: list[Problem]) -> None:
    unknown = [word for word in words if word not in FEATURES]
    problems.extend(Problem(file, where, f"{word!r} is not known{nearest(word, FEATURES)}") for word in unknown)


def _named(policy: Policy) -> Iterable[tuple[str, str]]:
    for primary, chain in policy.fallback.chain.items():
        for upstream in (primary, *chain):
            yield f"fallback.chain {primary!r}", upstream
    for test in policy.test:
        for upstream in (*test.given, *test.expect):
            yield f"test {test.name!r}", upstream
