"""Fuzz for long: `python -m loadtests.fuzz [TARGET ...] --seconds S`. The targets are those of `tests.fuzz.targets`.

With atheris installed (an optional tool, CPython up to 3.13) inputs that reach new code become the next ones' parents,
and every other change is libFuzzer's own; without it inputs are changed at random. An input that breaks a promise is
added to `tests/fuzz/corpus`, where CI replays it, one for each place that it breaks at. Exit code 1 when one did.
"""

import argparse
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random
from subprocess import run
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from loadtests.report import table
from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS, mutated, seeds

_EXECUTED: Final = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_REACHED: Final = re.compile(r"cov: (\d+)")
_BROKEN: Final = "broke at "
# libFuzzer ends itself; this much later it would hang.
_GRACE_S: Final = 120


class Result(NamedTuple):
    """What came of one target. `reached` counts edges of the code, None without atheris."""

    inputs: int
    seconds: float
    broken: int
    reached: int | None = None


class Catcher:
    """Tries inputs and keeps those that break a promise, the first one for each place."""

    def __init__(self, name: str, check: Callable[[bytes], bool], folder: Path = corpus.KEPT) -> None:
        self.places: set[str] = set()
        self._name = name
        self._check = check
        self._folder = folder

    def __call__(self, data: bytes) -> None:
        try:
            self._check(data)
        except Exception as error:  # whatever it is, it is what we look for
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} {Path(last.filename).name}:{last.lineno}"
            if place not in self.places:
                self.places.add(place)
                file = corpus.keep(self._name, data, self._folder)
                print(f"{self._name} {_BROKEN}{place}, kept in {file.name}: {data[:200]!r}", flush=True)


def plainly(name: str, seconds: float, seed: int) -> Result:
    """Change inputs at random."""
    random, catch, count = Random(f"{name} {seed}"), Catcher(name, TARGETS[name].check), 0
    began = time.perf_counter()
    for data in seeds(name):
        catch(data)
    while time.perf_counter() - began < seconds:
        for _ in range(20):
            catch(mutated(name, random))
        count += 20
    return Result(count + len(seeds(name)), time.perf_counter() - began, len(catch.places))


def by_coverage(name: str, seconds: float, seed: int) -> Result:
    """Let atheris choose, in a process of its own: it measures the code as it is imported, and ends the process."""
    with TemporaryDirectory() as directory:
        for number, data in enumerate(seeds(name)):
            (Path(directory) / f"seed{number}").write_bytes(data)
        options = [f"-max_total_time={seconds:.0f}", f"-seed={seed}", "-print_final_stats=1", "-timeout=60"]
        command = [sys.executable, "-m", "loadtests.fuzz_atheris", name, directory, *options]
        began = time.perf_counter()
        done = run(command, capture_output=True, text=True, timeout=seconds + _GRACE_S, check=False)
    executed, reached = _EXECUTED.findall(done.stderr), _REACHED.findall(done.stderr)
    if done.returncode or not executed:
        sys.exit(f"{name}: atheris ended with {done.returncode}\n{done.stderr[-2000:]}")
    print(done.stdout, end="")
    seconds = time.perf_counter() - began
    return Result(int(executed[-1]), seconds, done.stdout.count(_BROKEN), int(reached[-1]) if reached else None)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the targets one after the other and print a table."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same inputs (default: 1)")
    parser.add_argument("--plain", action="store_true", help="change inputs at random even where atheris is installed")
    asked = parser.parse_args(argv)
    if unknown := set(asked.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are: {', '.join(TARGETS)}")
    plain = asked.plain or find_spec("atheris") is None
    fuzz = plainly if plain else by_coverage
    print(f"{'random changes' if plain else 'atheris'}, {asked.seconds:g} s for each target, seed {asked.seed}")
    results = {}
    for name in asked.targets or TARGETS:
        results[name] = fuzz(name, asked.seconds, asked.seed)
        print(f"{name}: {results[name].inputs} inputs, {results[name].broken} broken", flush=True)
    print("\n" + shown(results))
    return 1 if any(result.broken for result in results.values()) else 0


def shown(results: dict[str, Result]) -> str:
    """Return the table of results as markdown."""
    rows = [
        (name, str(one.inputs), f"{one.inputs / one.seconds:.0f}", "-" if one.reached is None else str(one.reached),
         str(one.broken))
        for name, one in results.items()
    ]  # fmt: skip
    total = sum(one.inputs for one in results.values())
    broken = sum(one.broken for one in results.values())
    return table(
        ("target", "inputs", "per second", "edges reached", "broken"), [*rows, ("all", str(total), "", "", str(broken))]
    )


if __name__ == "__main__":
    sys.exit(main())
