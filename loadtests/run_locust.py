"""Run the locust users against a sidecar of their own, on loopback, and print one table.

    python -m loadtests.run_locust                                          1000 users, 60 s, a second of thought each
    python -m loadtests.run_locust --think 0                                no thought: all of them in flight at once
    python -m loadtests.run_locust --users 50 --duration 10

Exit code 1 when an answer was wrong or when anything was left in flight. CPU and memory are those of the sidecar's
process, in which the demo providers run, too: real costs of the proxy alone are smaller (see loadtests.bench).
"""

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import msgspec

from loadtests.process import ROOT, Usage, free_port, get_json, sidecar
from loadtests.report import machine, percentile, table

_STOP_S: Final = 30
_QUIET_S: Final = 2.0


class Stats(msgspec.Struct):
    """A row of locust's own statistics; `response_times` is milliseconds, rounded by locust, -> how often."""

    name: str
    num_requests: int
    num_failures: int
    start_time: float
    last_request_timestamp: float
    response_times: dict[int, int]

    def ms(self, share: float) -> int:
        """Return the percentile `share` of the response times."""
        left = math.ceil(share * sum(self.response_times.values()))
        for ms, times in sorted(self.response_times.items()):
            left -= times
            if left <= 0:
                return ms
        return 0


class _Tally(msgspec.Struct):
    added_ms: list[float]
    first_ms: list[float]


class Run(NamedTuple):
    """One run. `faults` counts log events that should not be."""

    stats: list[Stats]
    tally: _Tally
    before: Usage
    after: Usage
    in_flight: int
    faults: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run once; returns the exit code."""
    args = _parser().parse_args(argv)
    print(machine("locust", "gevent"))
    with TemporaryDirectory() as directory:
        run = measure(args, Path(directory))
    print(f"\n{report(run)}")
    failed = sum(stats.num_failures for stats in run.stats)
    return 1 if failed or run.in_flight or run.faults or not run.stats else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=_up_to(5000), default=1000, help="how many users (default 1000, at most 5000)")
    parser.add_argument("--spawn-rate", type=_up_to(1000), default=200, help="new users a second (default 200)")
    parser.add_argument("--duration", type=_up_to(600), default=60, help="seconds (default 60, at most 600)")
    parser.add_argument("--think", type=float, default=1.0, help="mean seconds between a user's requests (default 1)")
    parser.add_argument("--words", type=_up_to(2000), default=12, help="words per prompt and answer (default 12)")
    return parser


def _up_to(most: int) -> Any:
    def number(text: str) -> int:
        if not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between 1 and {most}")
        return int(text)

    return number


def measure(args: argparse.Namespace, directory: Path) -> Run:
    """Start a sidecar, let the users loose on it, and return what happened."""
    port, log = free_port(), directory / "sidecar.log"
    with sidecar(log, port, "--demo") as process:
        before = process.usage()
        _locust(args, f"http://127.0.0.1:{port}", directory)
        time.sleep(_QUIET_S)  # connections end, and whatever stays in flight now is lost
        after, in_flight = process.usage(), get_json(f"http://127.0.0.1:{port}/status")["in_flight"]
    faults = sum(event in line for line in log.read_bytes().splitlines() for event in (b'"fault"', b'"refused"'))
    stats = msgspec.json.decode((directory / "stats.json").read_bytes(), type=list[Stats], strict=False)
    tally = msgspec.json.decode((directory / "tally.json").read_bytes(), type=_Tally)
    return Run(stats, tally, before, after, in_flight, faults)


def _locust(args: argparse.Namespace, host: str, directory: Path) -> None:
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--only-summary"]
    command += ["-u", str(args.users), "-r", str(args.spawn_rate), "-t", f"{args.duration}s", "--host", host]
    command += ["--think", str(args.think), "--words", str(args.words), "--stop-timeout", str(_STOP_S)]
    command += ["--tally", str(directory / "tally.json"), "--json-file", str(directory / "stats")]
    # Bounded: locust is ended when it does not end by itself.
    limit_s = args.duration + _STOP_S + 30
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode not in (0, 1) or "rror report" in done.stdout + done.stderr:
        print(done.stdout[-3000:], done.stderr[-3000:], sep="\n", file=sys.stderr)


def report(run: Run) -> str:
    """Return the table of one run."""
    rows, total, seconds = [], sum(stats.num_requests for stats in run.stats), _seconds(run)
    for stats in sorted(run.stats, key=lambda stats: stats.name):
        percentiles = [str(stats.ms(share)) for share in (0.5, 0.95, 0.99, 1.0)]
        rate = f"{stats.num_requests / seconds:.0f}"
        rows.append([stats.name, f"{stats.num_requests}", f"{stats.num_failures}", rate, *percentiles])
    head = ("requests", "sent", "failed", "per second", "p50 ms", "p95 ms", "p99 ms", "max ms")
    cpu_s, added = run.after.cpu_s - run.before.cpu_s, run.tally.added_ms
    first = run.tally.first_ms
    facts = [
        ("sidecar: ms added up to the answer's head (server-timing), p50 / p99", _pair(added, "{:.2f}")),
        ("streams: ms to the first words, p50 / p99", _pair(first, "{:.0f}")),
        ("process with demo providers: CPU ms per request", f"{1000 * cpu_s / max(1, total):.2f}"),
        ("share of a core used", f"{cpu_s / seconds:.2f}"),
        ("resident MB before / peak / after", " / ".join(f"{mb:.0f}" for mb in _memory(run))),
        ("open files before / after", f"{run.before.files} / {run.after.files}"),
        ("still in flight / faults in the log", f"{run.in_flight} / {run.faults}"),
    ]
    return table(head, rows) + "\n\n" + table(("figure", "value"), facts)


def _seconds(run: Run) -> float:
    """Return the time from the first user to the last answer."""
    ends = max((stats.last_request_timestamp for stats in run.stats), default=0.0)
    return max(ends - min((stats.start_time for stats in run.stats), default=0.0), 0.001)


def _memory(run: Run) -> tuple[float, float, float]:
    return run.before.rss_mb, run.after.peak_mb, run.after.rss_mb


def _pair(numbers: list[float], form: str) -> str:
    return f"{form.format(percentile(numbers, 0.5))} / {form.format(percentile(numbers, 0.99))}"


if __name__ == "__main__":
    sys.exit(main())
