"""What the ledger adds to a request, in process, and how long its reports take.

    python -m loadtests.ledger                       a minute
    python -m loadtests.ledger --records 100000      a quick look

An attempt is opened and closed with its bill, as the router does it, without a ledger and with one; rounds take turns,
so that noise is spread evenly, and "added" is the difference, of the medians and of the quickest rounds. The files are
on the disk of `--on`.
Budget: 5 us. Exit code 1 when the ledger adds more.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from loadtests.decisions import body, catalog
from loadtests.report import machine, table
from proxy import adapter
from proxy.attempt import Attempt, Tools
from proxy.commands.usage import run as report
from proxy.config import load
from proxy.gateway import Gateway, Overrides
from proxy.keys import access
from proxy.ledger import Entry, Ledger
from proxy.log import Log
from proxy.metrics import Metrics
from proxy.transport import Transport
from proxy.usage import Usage
from proxy.wire import decode_chat

BUDGET_US: Final = 5.0
_RUNS: Final = 2000


def attempts(ledger: Ledger | None, transport: Transport) -> Callable[[], None]:
    """Return what makes one attempt: its walk, its numbers, its record."""
    log = Log(lambda lines: None)
    tools = Tools(transport, Metrics(), log, time.monotonic, time.time, ledger=ledger)
    gateway = Gateway(tools, adapter.load, lambda row: access(row, {}), Random(1))
    gateway.install(load(catalog(3)))
    said = Overrides(tag="team-a")
    request = decode_chat(body("balanced", stream=True), 0)
    plan = gateway.plan(request, said)
    upstream = plan.decision.chain[0]
    rendered = upstream.provider.adapter.render(request, upstream.target)
    usage = Usage(input=1200, output=180, cached=900, reasoning=40)

    def once() -> None:
        walk = gateway.walk(request, plan, "req_0123456789ab_12345", said)
        upstream.provider.gate.enter(1)
        attempt = Attempt(upstream, rendered, tools, walk.ask, walk.page)
        attempt.speaks()
        attempt.usage, attempt.answered = usage, "gpt-4o-2024-08-06"
        attempt.close(None)

    return once


def per_call_us(call: Callable[[], None]) -> float:
    """Return the mean of many calls, in microseconds."""
    began = time.perf_counter_ns()
    for _ in range(_RUNS):
        call()
    return (time.perf_counter_ns() - began) / _RUNS / 1000


async def measured(directory: Path, rounds: int) -> list[list[float]]:
    """Return microseconds per attempt without a ledger, with one, and of its writes to the disk of `directory`."""
    ledger = Ledger(directory / "ledger", lambda: None, print)
    ledger.open(time.time())
    transport = Transport()
    record = _record(1)
    ways = attempts(None, transport), attempts(ledger, transport), lambda: ledger.add(record)
    took: list[list[float]] = [[], [], []]
    for _ in range(rounds):
        for way, found in zip(ways, took, strict=True):
            found.append(per_call_us(way))
        await asyncio.to_thread(ledger.sync)
    ledger.close()
    await transport.close()
    return took


def _record(number: int) -> Entry:
    return Entry(
        ts=1_795_000_000 + number * 0.3, id=f"req_{number}", policy="balanced", model="gpt-4o", stream=True,
        upstream=f"p{number % 3}/m{number % 3}", tag=f"team-{number % 5}", outcome="ok", status=200, final=True,
        estimate=1100, input=1200 + number % 7, cached=900, output=180, usd=0.00123, ms=800.0 + number % 999,
        first_ms=150.5,
    )  # fmt: skip


def reported(directory: Path, records: int) -> float:
    """Return the seconds that a report over so many records takes."""
    path = directory / "many.jsonl"
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        file.writelines(encode(_record(number)) + b"\n" for number in range(records))
    (directory / "catalog.toml").write_bytes(catalog(3)["catalog.toml"])
    args = argparse.Namespace(
        ledger=path,
        by="day,upstream,tag",
        since=None,
        until=None,
        baseline="p0/m0",
        policies=directory,
        json=False,
        csv=True,
    )
    began = time.perf_counter()
    with redirect_stdout(StringIO()):
        report(args)
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, choices=range(1, 1001), default=100, metavar="N", help="(100)")
    parser.add_argument("--records", type=int, default=1_000_000, metavar="N", help="in the report (1000000)")
    parser.add_argument("--on", type=Path, metavar="DIR", help="a directory on the disk to be measured")
    args = parser.parse_args(argv)
    print(machine())
    with TemporaryDirectory(dir=args.on) as directory:
        took = asyncio.run(measured(Path(directory), args.rounds))
        rows = dict(zip(("an attempt without a ledger", "with one", "encode and write"), took, strict=True))
        without, kept = (median(took[at]) for at in (0, 1))
        shown = [[what, f"{median(us):.2f}", f"{min(us):.2f}"] for what, us in rows.items()]
        shown.append(["added", f"{kept - without:.2f}", f"{min(took[1]) - min(took[0]):.2f}"])
        print("\n" + table(("microseconds", "median", "quickest"), shown) + "\n")
        seconds = reported(Path(directory), args.records)
        print(f"\na report over {args.records} records: {seconds:.1f} s")
    return 1 if kept - without > BUDGET_US else 0


if __name__ == "__main__":
    sys.exit(main())
