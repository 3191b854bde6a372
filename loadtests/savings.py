"""What choosing saves on recorded traffic, at real prices, and how long a replay of a million requests takes.

    python -m loadtests.savings TRACE ...              the savings, against the primary and against round robin
    python -m loadtests.savings TRACE ... --million    each again and again until it has a million requests: how long?

Models, prices and qualities are the shipped catalog's, or stand below; `llm-sidecar simulate` says what is assumed.
Goals, for the groups of different models: 30 % against the primary with the same quality floor, 15 % against round
robin over the same candidates, none of it from a request that failed or has no known price. Exit code 1 when one is
missed.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from loadtests.report import machine, table
from proxy.config import load_directory
from proxy.simulation.choice import PRIMARY, ROUND_ROBIN, comparisons, unique
from proxy.simulation.readers import read
from proxy.simulation.replay import World
from proxy.simulation.report import Figures, dollars, figures, percent
from proxy.simulation.together import play
from proxy.simulation.trace import Trace
from proxy.simulation.world import Assumed, Luck, fit

AGAINST_PRIMARY: Final = 0.30
AGAINST_ROUND_ROBIN: Final = 0.15
STRATEGIES: Final = ("cheapest", "balanced")
HEAD: Final = (
    "candidates", "trace", "policy", "cost", "primary", "saved", "round robin", "saved", "cached: policy / round robin",
    "lost / unpriced",
)  # fmt: skip
SPEED: Final = ("a million requests like", "a second", "s", "CPU s", "CPU us a request and run", "largest process, MB")
MILLION: Final = 1_000_000
# One model at five houses that all ask the same for it in November 2026: what can be saved is in their caches alone.
_KIMI: Final = {
    "fireworks": "accounts/fireworks/models/kimi-k2p6",
    "baseten": "moonshotai/Kimi-K2.6",
    "cloudflare": "@cf/moonshotai/kimi-k2.6",
    "avian": "moonshotai/kimi-k2.6",
    "moonshotai": "kimi-k2.6",
}
_KIMI_ROW: Final = """
[[provider]]
name = "{provider}"
base_url = "https://{provider}.example/v1"
{limits}
[[model]]
provider = "{provider}"
id = "{id}"
quality = 8.5
latency = {{ p50_ms = 900, p99_ms = 4500 }}
context = 256_000
"""


class Group(NamedTuple):
    """Candidates, the primary first, and the quality that all must have. `catalog` is empty for the shipped one."""

    name: str
    floor: float
    candidates: tuple[str, ...]
    catalog: str = ""
    goals: bool = True


def kimi(limits: str = "") -> str:
    """Return a catalog of one model at five providers, priced by the price book."""
    return "".join(_KIMI_ROW.format(provider=provider, id=id, limits=limits) for provider, id in _KIMI.items())


_ALIKE: Final = tuple(f"{provider}/{id}" for provider, id in _KIMI.items())
GROUPS: Final = (
    Group(
        "six models of quality 7 and more",
        7,
        (
            "openai/gpt-4o",
            "anthropic/claude-haiku-4-5",
            "gemini/gemini-2.5-flash",
            "groq/openai/gpt-oss-120b",
            "deepseek/deepseek-v4-flash",
            "mistral/mistral-large-latest",
        ),
    ),
    Group(
        "five models of quality 9 and more",
        9,
        (
            "openai/gpt-5.5",
            "anthropic/claude-sonnet-5-5",
            "anthropic/claude-opus-5-5",
            "gemini/gemini-3.1-pro-preview",
            "bedrock/global.anthropic.claude-sonnet-5-5",
        ),
    ),
    Group("one model at five providers, same price", 8, _ALIKE, kimi(), goals=False),
    Group(
        "the same, 600 000 tokens a minute each",
        8,
        _ALIKE,
        kimi("limits = { tpm = 600_000 }"),
        goals=False,
    ),
)


class Line(NamedTuple):
    """One line of the table, and what of the goals it does not reach."""

    cells: list[str]
    missed: list[str]


def savings(trace: Trace, group: Group, directory: Path) -> list[Line]:
    """Return a line per strategy. `directory` is made for the policy files."""
    directory.mkdir()
    for strategy in STRATEGIES:
        names = json.dumps(group.candidates)
        text = f'strategy = "{strategy}"\ncandidates = {names}\nrequire = {{ min_quality = {group.floor} }}\n'
        (directory / f"{strategy}.toml").write_text(text)
    if group.catalog:
        (directory / "catalog.toml").write_text(group.catalog)
    config = load_directory(directory)
    compared = comparisons(config, STRATEGIES, (PRIMARY, ROUND_ROBIN))
    choices = [choice for choice, _ in compared] + unique(one for _, others in compared for one in others)
    world = World(trace, config, Assumed(), fit(()), Luck(len(trace), 1), 1)
    runs = dict(zip(map(id, choices), play(world, choices, lambda done: None), strict=True))
    return [
        line(trace, group, figures(runs[id(choice)], others), *map(figures, others))
        for choice, baselines in compared
        if (others := [runs[id(one)] for one in baselines])
    ]


def line(trace: Trace, group: Group, policy: Figures, primary: Figures, turns: Figures) -> Line:
    """Return the line of a policy and its two baselines."""
    by_primary, by_turns = policy.savings
    cells = [
        group.name,
        trace.name,
        policy.name,
        dollars(policy.usd),
        dollars(primary.usd),
        percent(by_primary.share),
        dollars(turns.usd),
        percent(by_turns.share),
        f"{percent(policy.cached_share)} / {percent(turns.cached_share)}",
        f"{policy.requests - policy.answered} / {policy.unpriced}",
    ]
    missed = [
        f"{policy.name}, {group.name}, {trace.name}: {percent(saved.share)} against {saved.baseline}"
        for saved, goal in ((by_primary, AGAINST_PRIMARY), (by_turns, AGAINST_ROUND_ROBIN))
        if saved.share is None or saved.share < goal or saved.left_out
    ]
    return Line(cells, missed if group.goals else [])


# ---- a million requests -----------------------------------------------------------------------------------------


def tiled(source: Path, size: int) -> Iterator[str]:
    """Return the lines of a trace in the format of `source` that plays it again and again, one behind the other."""
    with source.open() as file:
        first, *rest = file.read().splitlines()
    if first.startswith("{"):
        rows: list[dict[str, Any]] = [json.loads(text) for text in (first, *rest)]
        long, ids = rows[-1]["timestamp"] + 1000, 1 + max(max(row["hash_ids"], default=0) for row in rows)
        for turn, one in islice(((turn, one) for turn in count() for one in rows), size):
            blocks = [id + turn * ids for id in one["hash_ids"]]
            yield json.dumps({**one, "timestamp": one["timestamp"] + turn * long, "hash_ids": blocks})
        return
    stamped = [(datetime.fromisoformat(stamp), input, output) for stamp, input, output in csv.reader(rest)]
    span = stamped[-1][0] - stamped[0][0] + timedelta(seconds=1)
    yield first
    for turn, (at, input, output) in islice(((turn, row) for turn in count() for row in stamped), size):
        yield f"{at + turn * span},{input},{output}"


def million(source: Path, directory: Path, speed: int) -> list[str]:
    """Return how long `llm-sidecar simulate` takes for a million requests, a policy and its primary at once."""
    directory.mkdir(exist_ok=True)
    file = directory / source.name
    file.write_text("\n".join(tiled(source, MILLION)) + "\n")
    policies = directory / f"policies-{speed}"
    savings(read(file, limit=10), GROUPS[0], policies)
    argv = [sys.executable, "-m", "proxy", "simulate", file, "--policies", policies, "--speed", speed]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*map(str, argv), "--policy", "cheapest"], check=True, stdout=subprocess.DEVNULL)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rate = MILLION / read(file, limit=None, speed=speed).seconds
    return [source.name, f"{rate:.0f}", f"{took:.1f}", f"{cpu:.1f}", f"{cpu / 2:.1f}", f"{after.ru_maxrss / 1024:.0f}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="traces of Azure's or Mooncake's")
    parser.add_argument("--million", action="store_true", help="measure how long a million requests take instead")
    args = parser.parse_args(argv)
    print(machine() + "\n")
    with TemporaryDirectory() as place:
        directory = Path(place)
        if args.million:
            print(
                table(SPEED, [million(path, directory / path.stem, speed) for path in args.traces for speed in (50, 1)])
            )
            return 0
        traces = [read(path) for path in args.traces]
        print(f"Prices: {load_directory(None).prices.name}\n")
        # Where nothing is known of caches, one house is as good as the other.
        pairs = [(group, one) for group in GROUPS for one in traces if group.goals or one.blocks is not None]
        found = [
            one for number, (group, trace) in enumerate(pairs) for one in savings(trace, group, directory / str(number))
        ]
    print(table(HEAD, [one.cells for one in found]))
    missed = [text for one in found for text in one.missed]
    for text in missed:
        print(f"\nmissed: {text}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
