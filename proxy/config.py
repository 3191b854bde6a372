"""Reads a directory of policy files into one checked `Config`, or says everything that is wrong with it.

`load` looks at every file before it complains; a `Problem` names file and entry and suggests the nearest valid word.
"""

import tomllib
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import msgspec

from proxy.crosscheck import cross_check
from proxy.errors import KINDS
from proxy.policy import (
    STRATEGIES,
    Asked,
    Cache,
    Expect,
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
    Score,
    Timeouts,
    Unsupported,
    Weights,
    When,
)
from proxy.prices import PRICES, Book, read
from proxy.problems import CATALOG as CATALOG
from proxy.problems import PolicyError as PolicyError
from proxy.problems import Problem as Problem
from proxy.problems import matching as matching
from proxy.problems import nearest as nearest

MAX_FILE: Final = 1 << 20


class _Catalog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    provider: list[dict[str, Any]] = []
    model: list[dict[str, Any]] = []
    scores: str | None = None


class _Scores(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    scores: dict[str, Any]


class Config(msgspec.Struct, frozen=True):
    """A whole, valid directory. `digest` changes when any byte of any file does. `prices` are those of models whose
    rows have none, `scores` are by class and upstream.
    """

    providers: dict[str, ProviderRow]
    models: dict[str, ModelRow]
    policies: dict[str, Policy]
    digest: str
    prices: Book = Book()
    scores: dict[str, dict[str, Score]] = {}


_T = TypeVar("_T")


def read_files(directory: Path) -> dict[str, bytes]:
    """Return the TOML files in `directory` by name, and its price book. Raises PolicyError when it cannot be read."""
    try:
        found = sorted(p for p in directory.iterdir() if _is_ours(p.name))
        files = {path.name: path.read_bytes() for path in found}
    except OSError as error:
        text = error.strerror or "cannot be read"
        raise PolicyError([Problem(str(error.filename or directory), "", text)]) from None
    return files


def _is_ours(name: str) -> bool:
    return (name.endswith(".toml") and not name.startswith(".")) or name == PRICES


def digest(files: Mapping[str, bytes]) -> str:
    """Return a short hash over names and contents."""
    hashed = blake2b(digest_size=8)
    for name in sorted(files):
        hashed.update(b"%d:%s%d:" % (len(name), name.encode(), len(files[name])) + files[name])
    return hashed.hexdigest()


def load(files: Mapping[str, bytes], catalog: bytes | None = None, prices: bytes | None = None) -> Config:
    """Return the configuration in `files`; `catalog` and `prices` stand in when they have none of their own. Raises
    PolicyError with all problems found.
    """
    problems: list[Problem] = []
    book = _book(files.get(PRICES, prices), problems)
    if CATALOG not in files and catalog is not None:
        files = {**files, CATALOG: catalog}
    if not files:
        problems.append(Problem("", "", "the directory has no .toml file"))
    tables = {name: _parse(name, data, problems) for name, data in files.items() if name != PRICES}
    facts = _convert(tables.pop(CATALOG, None) or {}, _Catalog, (CATALOG, ""), problems) or _Catalog()
    providers = _rows(facts.provider, ProviderRow, "provider", problems)
    problems.extend(
        Problem(CATALOG, f"provider {name!r}", "the name must not contain a slash") for name in providers if "/" in name
    )
    models = _rows(facts.model, ModelRow, "model", problems)
    scores = _scores(facts.scores, tables, problems)
    policies = {}
    for name, table in tables.items():
        policy = _policy(name, table, problems) if table else None
        if policy is not None:
            policies[name.removesuffix(".toml")] = policy
    config = Config(providers, models, policies, digest(files), book, scores)
    if not any(problem.file == CATALOG for problem in problems):
        cross_check(config, problems)
    if problems:
        raise PolicyError(problems)
    return config


def shipped() -> Path:
    """Return the directory of the shipped policies: inside the wheel, or beside the packages in a checkout."""
    inside = Path(__file__).parent / "shipped_policies"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "policies"


def shipped_prices() -> bytes:
    """Return the shipped price book. It is not among the policies: a copy of those shall not keep it from changing."""
    return (Path(__file__).parent / PRICES).read_bytes()


def load_directory(policies: Path | None) -> Config:
    """Return the configuration in `policies`, or the shipped one. Raises PolicyError."""
    own = shipped()
    files = read_files(policies or own)
    return load(files, (own / CATALOG).read_bytes(), shipped_prices())


def _book(data: bytes | None, problems: list[Problem]) -> Book:
    try:
        return Book() if data is None else read(data)
    except ValueError as error:
        problems.append(Problem(PRICES, "", f"no price book: {error}"))
        return Book()


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
        return f"{where}{bad!r} is not known{nearest(bad, [*STRATEGIES, *KINDS, *get_args(Unsupported)])}"
    return f"{where}{what[0].lower()}{what[1:]}"


_TABLES: Final[dict[str, type[msgspec.Struct]]] = {
    "login": Login,
    "limits": Limits,
    "cache": Cache,
    "price": Price,
    "latency": Latency,
    "weights": Weights,
    "require": Require,
    "fallback": Fallback,
    "timeouts": Timeouts,
    "request": Asked,
    "expect": Expect,
    "when": When,
}


def _keys(to: type[Any], path: str) -> tuple[str, ...]:
    """Return the keys that may stand at `path` of a `to`."""
    fields: tuple[str, ...] = _TABLES.get(path.partition("[")[0], to).__struct_encode_fields__
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


def _scores(
    file: str | None, tables: dict[str, dict[str, Any]], problems: list[Problem]
) -> dict[str, dict[str, Score]]:
    """Take the file of scores out of `tables` and return what it says, by class and upstream."""
    if file is None:
        return {}
    if file not in tables:
        problems.append(Problem(CATALOG, "scores", f"there is no {file!r} beside it{nearest(file, tables)}"))
        return {}
    listed = _convert(tables.pop(file), _Scores, (file, ""), problems)
    return {} if listed is None else {task: _rated(file, task, rows, problems) for task, rows in listed.scores.items()}


def _rated(file: str, task: str, rows: Any, problems: list[Problem]) -> dict[str, Score]:
    """Convert the scores of one class, one by one, so that a message can name the upstream."""
    named = _convert(rows, dict[str, Any], (file, f"scores.{task}"), problems) or {}
    found = {name: _convert(score, Score, (file, f"scores.{task} {name!r}"), problems) for name, score in named.items()}
    return {name: score for name, score in found.items() if score is not None}


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
