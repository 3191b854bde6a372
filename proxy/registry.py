"""Upstreams by name. A registry belongs to one generation of the policy files and inherits the live parts of the last.

Registering a name twice is an error, asking for one that is not there is not: `get` returns None.
"""

from collections.abc import Callable, Iterator
from random import Random

from proxy.adapter import Adapter
from proxy.config import CATALOG, Config, PolicyError, Problem, nearest
from proxy.keys import Access, check
from proxy.policy import ModelRow, ProviderRow
from proxy.prices import Tariff
from proxy.upstream import Gate, MadeUp, Provider, Upstream, live_for


class Registry:
    """Upstreams by "provider/id", in the order of the catalog."""

    def __init__(self) -> None:
        self.providers: dict[str, Provider] = {}
        self._upstreams: dict[str, Upstream] = {}

    def register(self, upstream: Upstream) -> None:
        """Add `upstream`. Raises ValueError when its name is taken."""
        if upstream.name in self._upstreams:
            raise ValueError(f"upstream {upstream.name!r} is registered already")
        self._upstreams[upstream.name] = upstream

    def get(self, name: str) -> Upstream | None:
        """Return the upstream called `name`, or None."""
        return self._upstreams.get(name)

    def unregister(self, name: str) -> Upstream | None:
        """Remove and return the upstream called `name`; None when there is none."""
        return self._upstreams.pop(name, None)

    def list(self) -> list[Upstream]:
        """Return all upstreams in order."""
        return list(self._upstreams.values())

    def clear(self) -> None:
        """Remove all upstreams."""
        self._upstreams.clear()

    def __iter__(self) -> Iterator[Upstream]:
        return iter(self._upstreams.values())

    def __len__(self) -> int:
        return len(self._upstreams)

    def __contains__(self, name: str) -> bool:
        return name in self._upstreams


def build(
    config: Config,
    load: Callable[[str], Adapter],
    access: Callable[[ProviderRow], Access],
    previous: Registry | None = None,
    random: Random | None = None,
    gate: Callable[[ProviderRow], Gate] | None = None,
) -> Registry:
    """Return a registry for `config`, with the live parts of `previous` for what is still there.

    `load` finds an adapter by name, `access` address and keys of a provider, `gate` makes its limits. Prices are those
    of the day the price book was written, until their tariffs are told the time.
    Raises PolicyError.
    """
    gate = gate or (lambda row: Gate(row.limits))
    random = random or Random()  # noqa: S311  # nosec B311  # jitter, not a secret
    registry, problems = Registry(), list[Problem]()
    for name, row in config.providers.items():
        adapter = _adapter(row, load, problems)
        old = previous.providers.get(name) if previous is not None else None
        if adapter is not None:
            limits = old.gate if old is not None and old.gate.limits == row.limits else gate(row)
            unlisted = old.made_up if old is not None else MadeUp(random)
            found = access(row)
            costs = tariff(config, row, found.base_url)
            registry.providers[name] = Provider(row, adapter, found, limits, unlisted, costs)
    if problems:
        raise PolicyError(problems)
    for model in config.models.values():
        known = previous.get(model.name) if previous is not None else None
        live = known.live if known is not None else live_for(model, random)
        scores = {task: table[model.name] for task, table in config.scores.items() if model.name in table}
        registry.register(Upstream(model, registry.providers[model.provider], live, scores=scores))
    return registry


def tariff(config: Config, row: ProviderRow, base_url: str) -> Tariff:
    """Return what the models of a provider at `base_url` cost."""
    own = {model.id: model.price for model in config.models.values() if model.provider == row.name and model.price}
    return Tariff(config.prices, row.name, base_url, own)


def made_up(provider: Provider, model: str) -> Upstream:
    """Return an upstream for a model that the catalog does not list: no price, no quality."""
    row = ModelRow(provider=provider.name, id=model)
    return Upstream(row, provider, provider.made_up.live(model), f"{provider.name}/*")


def _adapter(row: ProviderRow, load: Callable[[str], Adapter], problems: list[Problem]) -> Adapter | None:
    wrong = check(row)
    if wrong is not None:
        problems.append(wrong)
    where = f"provider {row.name!r}"
    try:
        adapter = load(row.adapter)
    except LookupError as error:
        problems.append(Problem(CATALOG, where, str(error)))
        return None
    unknown = [quirk for quirk in row.quirks if quirk not in adapter.quirks]
    problems.extend(
        Problem(CATALOG, where, f"quirks: {quirk!r} is not known{nearest(quirk, adapter.quirks)}") for quirk in unknown
    )
    return adapter
