"""`llm-sidecar simulate`: what policies would have done with recorded traffic. No network, no keys."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final, TextIO

import msgspec

from proxy.config import Config, load_directory, matching
from proxy.log import tell
from proxy.policytest import offline
from proxy.problems import nearest
from proxy.simulation.assumptions import assumptions
from proxy.simulation.choice import PRIMARY, comparisons, unique
from proxy.simulation.page import page
from proxy.simulation.readers import read
from proxy.simulation.replay import Progress, World
from proxy.simulation.report import Report, report, text
from proxy.simulation.together import play
from proxy.simulation.world import Assumed, Luck, Outage, fit

_BAR: Final = 30


def run(args: argparse.Namespace) -> int:
    """Print the figures; returns 2 for a file, a name or a number that cannot be meant. Raises PolicyError."""
    config = load_directory(args.policies)
    offline(config)  # what is wrong with the files is said before anything is read
    try:
        found, drawn = _simulate(args, config)
        if args.html is not None:
            args.html.write_text(drawn, encoding="utf-8")
    except ValueError as error:
        tell(f"llm-sidecar: {error}")
        return 2
    except OSError as error:
        tell(f"llm-sidecar: {error.filename}: {error.strerror}")
        return 2
    print(msgspec.json.format(msgspec.json.encode(found)).decode() if args.json else text(found))
    return 0


def _simulate(args: argparse.Namespace, config: Config) -> tuple[Report, str]:
    compared = comparisons(config, args.policy, args.baseline or [PRIMARY])
    assumed = Assumed(_faults(args.failure_rate, config), _outages(args.outage, config))
    trace = read(args.trace, args.limit, args.speed)
    world = World(trace, config, assumed, fit(trace.tries), Luck(len(trace), args.seed), args.seed)
    choices = [choice for choice, _ in compared]
    choices += unique(one for _, others in compared for one in others)
    runs = play(world, choices, bar(sys.stderr, len(trace) * len(choices)), args.jobs)
    by_choice = {id(choice): run for choice, run in zip(choices, runs, strict=True)}
    grouped = [(by_choice[id(choice)], [by_choice[id(one)] for one in others]) for choice, others in compared]
    found = report(trace, args.seed, grouped, assumptions(world, choices))
    return found, page(found, trace, runs)


def bar(out: TextIO, total: int) -> Progress:
    """Return what draws a bar on `out` as `total` requests are played; nothing when nobody looks at it."""
    if not out.isatty():
        return lambda done: None

    def draw(done: int) -> None:
        full = _BAR * done // total
        end = "\r\033[K" if done >= total else ""
        out.write(f"\r[{'#' * full}{'.' * (_BAR - full)}] {100 * done // total:3} % of {total} requests{end}")
        out.flush()

    return draw


def _faults(given: Sequence[str], config: Config) -> dict[str, float]:
    """Return the shares in `given`, "0.01" or "provider/id=0.01". Raises ValueError."""
    found = dict[str, float]()
    for one in given:
        name, _, share = one.rpartition("=")
        for upstream in _upstreams(name, config) if name else [""]:
            found[upstream] = _number(share, f"--failure-rate {one}", 1.0)
    return found


def _outages(given: Sequence[str], config: Config) -> list[Outage]:
    """Return the outages in `given`, "provider/id@start+seconds" each. Raises ValueError."""
    found = []
    for one in given:
        name, _, when = one.rpartition("@")
        begins, _, lasts = when.partition("+")
        start_s, for_s = (_number(part, f"--outage {one}") for part in (begins, lasts))
        found += [Outage(upstream, start_s, start_s + for_s) for upstream in _upstreams(name, config)]
    return found


def _upstreams(pattern: str, config: Config) -> list[str]:
    found = matching([pattern], config.models)
    if not found:
        raise ValueError(f"no upstream {pattern!r}{nearest(pattern, config.models)}")
    return found


def _number(text: str, where: str, most: float = 1e9) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= most:
        raise ValueError(f"{where}: {text!r} is no number from 0 to {most:g}")
    return number
