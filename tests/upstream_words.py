"""Short words for catalogs, upstreams and routes, to write tests with."""

from random import Random
from typing import Any

import msgspec

from proxy import adapter
from proxy.config import Config, load
from proxy.errors import UnavailableError, UpstreamError
from proxy.gate import Gate
from proxy.keys import Access
from proxy.policy import Limits, ModelRow, Policy, ProviderRow
from proxy.registry import Registry, build
from proxy.routes import Route, bind
from proxy.upstream import MadeUp, Provider, Upstream, live_for


class Steady(Random):
    """Always the same number: 0 adds nothing to a rest, 1 adds all of its 20 %."""

    def __init__(self, number: float = 0.0) -> None:
        super().__init__()
        self._number = number

    def random(self) -> float:
        return self._number


def provider(name: str = "a", *, off: str | None = None, keys: tuple[str, ...] = (), **fields: Any) -> Provider:
    row = msgspec.convert({"name": name, "base_url": "http://x", **fields}, ProviderRow)
    return Provider(row, adapter.load("openai"), Access("http://x", keys, "", off), Gate(row.limits), MadeUp(Steady()))


def upstream(
    name: str,
    *,
    off: str | None = None,
    keys: tuple[str, ...] = (),
    limits: dict[str, int] | None = None,
    random: Random | None = None,
    provider_fields: dict[str, Any] | None = None,
    **fields: Any,
) -> Upstream:
    """An upstream called "provider/id"; `fields` are those of a `[[model]]`, others those of its `[[provider]]`."""
    owner, _, id = name.partition("/")
    row = msgspec.convert({"provider": owner, "id": id, **fields}, ModelRow)
    given = msgspec.to_builtins(msgspec.convert(limits or {}, Limits))
    return Upstream(
        row,
        provider(owner, off=off, keys=keys, limits=given, **(provider_fields or {})),
        live_for(row, random or Steady()),
    )


def route(*upstreams: Upstream, **fields: Any) -> Route:
    """A route over `upstreams` alone; `fields` are those of a policy file."""
    registry = Registry()
    for one in upstreams:
        registry.register(one)
    return bind("p", msgspec.convert(fields, Policy), registry)


def catalog(*names: str) -> str:
    """A catalog that lists these upstreams, "provider/id" each."""
    owners = dict.fromkeys(name.partition("/")[0] for name in names)
    rows = [f'[[provider]]\nname = "{owner}"\nbase_url = "http://{owner}"\n' for owner in owners]
    models = [name.partition("/") for name in names]
    return "\n".join([*rows, *(f'[[model]]\nprovider = "{owner}"\nid = "{id}"\n' for owner, _, id in models)])


def config(facts: str, **policies: str) -> Config:
    """A directory with this catalog and these policies."""
    files = {"catalog": facts, **policies}
    return load({f"{name}.toml": text.encode() for name, text in files.items()})


def registry(found: Config, *off: str, previous: Registry | None = None) -> Registry:
    """The upstreams of a directory; the providers named in `off` have no key."""

    def access(row: ProviderRow) -> Access:
        return Access(row.base_url, (), "", "no key" if row.name in off else None)

    return build(found, adapter.load, access, previous, Steady())


DOWN = UnavailableError("down")


def attempt(subject: Upstream, now: float, error: UpstreamError | None = None, began: float | None = None) -> bool:
    """One attempt that ends at `now`, well or with `error`. Returns whether it was the probe."""
    key = subject.credential(now if began is None else began).key
    probe = subject.live.begin()
    subject.live.end(probe=probe)
    if error is None:
        subject.live.answered(100, now, probe=probe)
    else:
        subject.failed(error, now, key, probe=probe)
    return probe


def fail(subject: Upstream, times: int, now: float, error: UpstreamError = DOWN) -> None:
    for _ in range(times):
        attempt(subject, now, error)


def rest_s(subject: Upstream, now: float) -> float:
    """How much longer an upstream rests."""
    rest = subject.rest(now)
    return rest.until - now if rest is not None else 0.0


def state(subject: Upstream, now: float) -> str:
    return subject.live.breaker.state(now)


def why(subject: Upstream, now: float) -> str:
    rest = subject.rest(now)
    return rest.reason(now) if rest is not None else ""


def classify(request: object) -> str:
    """A learned router that has learned nothing."""
    return ""
