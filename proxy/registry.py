"""Upstreams by name. A registry belongs to one generation of the policy files and inherits the live parts of the last.

Registering a name twice is an error, asking for one that is not there is not: `get` returns None.
"""

from collections.abc import Callable, Iterator
from random import Random

from proxy.adapter import Adapter
from proxy.config import CATALOG, Config, PolicyError, Problem, nearest
from proxy.gate import Gate
from proxy.keys import Access, check
from proxy.policy import ModelRow, ProviderRow
from proxy.prices import Tariff
from proxy.upstream import MadeUp, Provider, Upstream, live_for


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
    adapters = _adapters(config, load, problems)
    for name, row in config.providers.items():
        adapter = adapters.get((name, row.adapter))
        old = previous.providers.get(name) if previous is not None else None
        if adapter is not None:
            limits = old.gate if old is not None and old.gate.limits == row.limits else gate(row)
            unlisted = old.made_up if old is not None else MadeUp(random)
            found = access(row)
            costs = tariff(config, row, found.base_url)
            registry.providers[name] = Provider(row, adapter, found, limits, unlisted, costs)
    if problems:
        raise PolicyError(problems)
    speakers = {(name, one.row.adapter): one for name, one in registry.providers.items()}
    for model in config.models.values():
        provider = registry.providers[model.provider]
        if model.adapter is not None:
            spoken = model.provider, model.adapter
            provider = speakers.setdefault(spoken, provider.speaking(adapters[spoken]))
        known = previous.get(model.name) if previous is not None else None
        live = known.live if known is not None else live_for(model, random)
        scores = {task: table[model.name] for task, table in config.scores.items() if model.name in table}
        registry.register(Upstream(model, provider, live, scores=scores))
    return registry


def tariff(config: Config, row: ProviderRow, base_url: str) -> Tariff:
    """Return what the models of a provider at `base_url` cost."""
    own = {model.id: model.price for model in config.models.values() if model.provider == row.name and model.price}
    return Tariff(config.prices, row.name, base_url, own)


def made_up(provider: Provider, model: str) -> Upstream:
    """Return an upstream for a model that the catalog does not list: no price, no quality."""
    row = ModelRow(provider=provider.name, id=model)
    return Upstream(row, provider, provider.made_up.live(model), f"{provider.name}/*")


def _adapters(
    config: Config, load: Callable[[str], Adapter], problems: list[Problem]
) -> dict[tuple[str, str], Adapter]:
    """Return the wire languages by provider and name: each row's own, and those of models that speak another."""
    found: dict[tuple[str, str], Adapter] = {}
    spoken = [(row.name, row.adapter, f"provider {row.name!r}") for row in config.providers.values()]
    spoken += [(row.provider, row.adapter, f"model {row.name!r}") for row in config.models.values() if row.adapter]
    for provider, name, where in spoken:
        try:
            found[provider, name] = found.get((provider, name)) or load(name)
        except LookupError as error:
            problems.append(Problem(CATALOG, where, str(error)))
    for row in config.providers.values():
        wrong = check(row)
        if wrong is not None:
            problems.append(wrong)
        _check_quirks(row, [one for (provider, _), one in found.items() if provider == row.name], problems)
    return found


def _check_quirks(row: ProviderRow, adapters: list[Adapter], problems: list[Problem]) -> None:
    known = frozenset[str]().union(*(adapter.quirks for adapter in adapters))
    unknown = [quirk for quirk in row.quirks if adapters and quirk not in known]
    where = f"provider {row.name!r}"
    problems.extend(
        Problem(CATALOG, where, f"quirks: {quirk!r} is not known{nearest(quirk, known)}") for quirk in unknown
    )
