"""What the hop costs: CPU, latency and memory beside nginx, on one core, every answer checked.

    python -m loadtests.bench                                 everything, three interleaved rounds, about 15 minutes
    python -m loadtests.bench --only c64,stream16 --rounds 1  two scenarios, a quick look
    python -m loadtests.bench --list                          the scenarios
    python -m loadtests.bench --python A --python B           the sidecar in other interpreters, a row each
    python -m loadtests.bench --litellm                       LiteLLM's proxy beside them (installs it, slow)

Needs Linux, gcc and two cores; nginx is left out where it is not installed. Exit code 0: every answer was right; 1: one
was wrong; 2: it cannot run here. A missed target is said, and changes nothing: others may be using this machine.
"""

import argparse
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from loadtests.bench.gateways import Gateway, direct, litellm, nginx, nginx_version, sidecars
from loadtests.bench.programs import build, missing
from loadtests.bench.scenarios import SCENARIOS, Scenario
from loadtests.bench.tables import tables, wrong
from loadtests.bench.trial import Bench, Cores, Trial, run
from loadtests.report import hardware

# 1000 connections on either side of a gateway, and then some.
_FILES: Final = 16_384


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    args = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, too
    if args.list:
        print("\n".join(f"{name:12} {scenario.what}" for name, scenario in SCENARIOS.items()))
        return 0
    machine = hardware()  # before this process takes to one core
    try:
        with TemporaryDirectory() as directory:
            cores = _prepare(Path(directory))
            gateways, facts = _gateways(args)
            print(f"{time.strftime('%Y-%m-%d')}; {machine}; {'; '.join(facts)}", flush=True)
            trials = _rounds(Bench(Path(directory), cores, args.scale), gateways, args)
    except RuntimeError as error:
        print(f"cannot go on: {error}", file=sys.stderr)
        return 2
    print(f"\n{tables(trials)}")
    bad = wrong(trials)
    print("".join(f"\n{line}" for line in bad))
    return 1 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m loadtests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=_names, default=list(SCENARIOS), metavar="NAMES", help="scenarios, by commas")
    parser.add_argument("--through", type=lambda text: text.split(","), metavar="NAMES", help="gateways, by commas")
    parser.add_argument("--rounds", type=int, choices=range(1, 11), default=3, metavar="N", help="1-10 (default 3)")
    parser.add_argument("--scale", type=_scale, default=1.0, metavar="X", help="times all windows, 0.1-5 (default 1)")
    parser.add_argument("--python", action="append", default=[], metavar="PATH", help="run the sidecar by this; repeat")
    parser.add_argument("--nginx", default=shutil.which("nginx"), metavar="PROGRAM", help="default: the PATH's, if any")
    parser.add_argument("--litellm", action="store_true", help="LiteLLM's proxy, too, installed in .venvs/litellm")
    parser.add_argument("--list", action="store_true", help="print the scenarios and end")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SCENARIOS:
            raise argparse.ArgumentTypeError(f"there is no scenario {name!r}, but {', '.join(SCENARIOS)}")
    return [name for name in SCENARIOS if name in names]


def _scale(text: str) -> float:
    return min(max(float(text), 0.1), 5.0)


def _prepare(directory: Path) -> Cores:
    """Build the programs and make this process fit; returns the cores. Raises RuntimeError when it cannot run here."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise RuntimeError("two cores are needed, one for the gateway and one for everything else")
    if lacking := missing():
        raise RuntimeError(lacking)
    build(directory)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    os.sched_setaffinity(0, {cores[1]})
    return Cores(cores[0], cores[1])


def _gateways(args: argparse.Namespace) -> tuple[list[Gateway], list[str]]:
    """Return what is measured, and a fact on each."""
    found = sidecars(args.python)
    gateways, facts = [direct(), *found.values()], list(found)
    if args.nginx is None:
        facts.append("no nginx here: its rows and ratios are left out")
    else:
        gateways.append(nginx(args.nginx))
        facts.append(nginx_version(args.nginx))
    if args.litellm:
        gateway, fact = litellm()
        gateways.append(gateway)
        facts.append(fact)
    # A sidecar's name may have its interpreter behind a comma.
    chosen = [one for one in gateways if args.through is None or one.name.partition(",")[0] in args.through]
    if not chosen:
        raise RuntimeError(f"no gateway is called {' or '.join(args.through)}")
    return chosen, facts


def _rounds(bench: Bench, gateways: Sequence[Gateway], args: argparse.Namespace) -> dict[tuple[str, str], list[Trial]]:
    """Run everything, round by round: noise comes and goes, and so meets all gateways alike."""
    trials: dict[tuple[str, str], list[Trial]] = {}
    for number in range(args.rounds):
        for name in args.only:
            for gateway in gateways:
                if _fits(SCENARIOS[name], gateway):
                    print(f"round {number + 1}: {name} through {gateway.name}", file=sys.stderr, flush=True)
                    trials.setdefault((name, gateway.name), []).append(run(bench, gateway, SCENARIOS[name]))
    return trials


def _fits(scenario: Scenario, gateway: Gateway) -> bool:
    """Return whether a gateway can do this: not all translate, and only a process has a start."""
    if scenario.translated:
        return gateway.translates
    return scenario.conns > 0 or gateway.command is not None


if __name__ == "__main__":
    sys.exit(main())
