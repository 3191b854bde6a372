"""Short words for small traces and the worlds they are played in."""

from array import array
from collections.abc import Sequence
from typing import Any

import msgspec

from proxy.config import Config, load
from proxy.simulation.choice import PRIMARY, comparisons
from proxy.simulation.replay import Run, World, replay
from proxy.simulation.trace import Trace, Try
from proxy.simulation.world import Assumed, Luck, fit

# Two upstreams that take just as long every time: `a` is cheap, `b` is quick, ten times as dear, and first in the file.
CATALOG = """
[[provider]]
name = "b"
base_url = "http://b"
[[provider]]
name = "a"
base_url = "http://a"
{limits}
[[model]]
provider = "b"
id = "m"
quality = 8
price = {{ input = 10, output = 20 }}
latency = {{ p50_ms = 250, p99_ms = 250 }}
[[model]]
provider = "a"
id = "m"
quality = 8
price = {{ input = 1, cached_input = 0.1, output = 2 }}
latency = {{ p50_ms = 500, p99_ms = 500 }}
context = 100_000
"""
CHEAPEST = 'strategy = "cheapest"'


def config(*, limits: str = "", **policies: str) -> Config:
    """A directory with CATALOG; `limits` are keys of provider `a`."""
    files = {"catalog": CATALOG.format(limits=limits), **(policies or {"cheapest": CHEAPEST})}
    return load({f"{name}.toml": text.encode() for name, text in files.items()})


def trace(*requests: tuple[float, int, int], **columns: Any) -> Trace:
    """Requests as (seconds, tokens in, tokens out)."""
    at, input, output = zip(*requests, strict=True)
    return Trace("test.csv", "azure", array("d", at), array("q", input), array("q", output), **columns)


THREE = trace((0, 1000, 60), (10, 2000, 120), (20, 500, 30))


def world(
    traffic: Trace,
    found: Config | None = None,
    assumed: Assumed | None = None,
    seed: int = 1,
    tries: Sequence[Try] = (),
) -> World:
    """A world for `traffic`, in which nothing fails unless `assumed` says so."""
    return World(traffic, found or config(), assumed or Assumed(), fit(tries), Luck(len(traffic), seed), seed)


def runs(played: World, *baselines: str) -> list[Run]:
    """The run of the only policy, then those of its baselines."""
    choice, others = comparisons(played.config, [], baselines or [PRIMARY])[0]
    return [replay(played, one) for one in (choice, *others)]


def answered_by(run: Run) -> list[str | None]:
    """Who answered each request."""
    return [run.upstreams[place] if place >= 0 else None for place in run.by]


def encoded(run: Run) -> bytes:
    """All columns of a run."""
    columns = (run.by, run.usd, run.ms, run.first_ms, run.attempts, run.input, run.cached)
    return msgspec.msgpack.encode([list(column) for column in columns])
