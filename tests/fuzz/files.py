"""What must hold for whatever stands in policy files; an input is several files with `====` lines between them."""

import asyncio
import math
from typing import Final

import msgspec

from proxy import adapter, policytest
from proxy.config import CATALOG, Config, PolicyError, load, shipped
from proxy.keys import Access
from proxy.optimizer import Ask, decide
from proxy.policy import STRATEGIES
from proxy.registry import build
from proxy.routes import Routes

_BETWEEN: Final = b"\n====\n"
_SHIPPED: Final = (shipped() / CATALOG).read_bytes()
_ASK: Final = Ask(1000.0, True, 100, frozenset())


def shipped_files() -> list[bytes]:
    """Return the shipped files as inputs: each policy with the catalog, and without."""
    own = [file.read_bytes() for file in sorted(shipped().glob("*.toml")) if file.name != CATALOG]
    return [_BETWEEN + one for one in own]


def directory(data: bytes) -> bool:
    """It is refused with the file and what is wrong in it, or everything in it can be used."""
    first, *rest = data.split(_BETWEEN)
    files = {CATALOG: first} if first.strip() else {}
    files |= {f"p{number}.toml": text for number, text in enumerate(rest)}
    try:
        config = load(files, _SHIPPED)
    except PolicyError as error:
        check_problems(error, {*files, CATALOG})
        return False
    for number in numbers(msgspec.to_builtins(config)):
        assert math.isfinite(number)
    try:
        asyncio.run(use(config))
    except PolicyError as error:
        check_problems(error, {CATALOG})
        return False
    return True


def check_problems(error: PolicyError, files: set[str]) -> None:
    """Each problem is one line, and says in which file it is and what it is."""
    assert error.problems
    for problem in error.problems:
        assert problem.file in files
        assert problem.text.strip()
        assert str(problem).isprintable(), problem


async def use(config: Config) -> None:
    """Make upstreams and routes, decide by every policy, and run the policies' own tests."""
    registry = build(config, _adapter, lambda row: Access(row.base_url, (), "", None))
    routes = Routes(config, registry)
    for name, route in routes.policies.items():
        for strategy in STRATEGIES:
            assert set(decide(route, strategy, _ASK).chain) <= {*registry}
        for test in config.policies[name].test:
            policytest.failures(config, name, test)
    for name in routes.names():
        assert routes.resolve(name) is not None


def _adapter(name: str) -> adapter.Adapter:
    """Load a built-in adapter only: an input must not name a module to import."""
    if name not in adapter.names():
        raise LookupError(f"no adapter {name!r}")
    return adapter.load(name)


def numbers(value: object) -> list[float]:
    """Return all numbers in `value`, however deep."""
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers(inner)]
    if isinstance(value, list | tuple):
        return [number for inner in value for number in numbers(inner)]
    return [value] if isinstance(value, int | float) else []
