"""`llm-sidecar usage`: what a ledger says was asked, of whom, how it went and what it cost. One pass, bounded memory.

A request counts where it ended: at its final attempt. Tokens, money and attempts count where they were spent, failed
attempts included. Success leaves out requests whose clients left. Latency is that of attempts that answered.

With `--baseline UPSTREAM` the answers that clients got are reckoned again at that upstream's price of today, as if it
had counted the same tokens, and had as many of them cached. What has no price is left out on both sides, and what
failed attempts cost is not forgiven: saved = baseline - all that was spent on priced answers.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from math import exp, floor, log
from typing import Final

import msgspec

from proxy.config import load_directory, nearest
from proxy.ledger import Entry, Read
from proxy.log import tell
from proxy.policy import Price
from proxy.prices import cost
from proxy.registry import tariff
from proxy.usage import Usage

KEYS: Final = ("day", "policy", "upstream", "tag", "model")
# So many groups are told apart; clients choose tags and model names, so the rest shares one.
MOST_GROUPS: Final = 10_000
OTHERS: Final = "(others)"
_DAY_S: Final = 86_400
# Buckets of a latency grow by two percent, so that a percentile is off by one at most.
_STEP: Final = log(1.02)
_Key = tuple[str | int, ...]


class Row(msgspec.Struct, kw_only=True):
    """One line of a report. `by` names the group; None: nothing to tell. `success` is 0-1, times are ms, money USD."""

    by: dict[str, str]
    requests: int
    attempts: int
    success: float | None
    input: int
    cached: int
    output: int
    usd: float
    unpriced: int
    p50_ms: float | None
    p95_ms: float | None
    baseline_usd: float | None = None
    saved_usd: float | None = None


class Report(msgspec.Struct, kw_only=True):
    """A whole report. `torn` lines were no records; `baseline` is the upstream compared with, `assumes` how."""

    rows: list[Row]
    total: Row
    torn: int
    baseline: str | None = None
    assumes: str | None = None


class Tally:
    """Sums over one group."""

    __slots__ = (
        "attempts", "baseline", "cached", "cancelled", "good", "input", "ms", "output", "requests", "unpriced", "usd",
    )  # fmt: skip

    def __init__(self) -> None:
        self.requests = self.good = self.cancelled = self.attempts = self.unpriced = 0
        self.input = self.cached = self.output = 0
        self.usd = self.baseline = 0.0
        self.ms: dict[int, int] = {}

    def add(self, entry: Entry, baseline: Price | None) -> None:
        """Count one attempt."""
        good = entry.outcome == "ok"
        self.attempts += 1
        self.input += entry.input
        self.cached += entry.cached
        self.output += entry.output
        if entry.usd is not None:
            self.usd += entry.usd
            if baseline is not None and entry.final and good:
                self.baseline += cost(baseline, tokens(entry))
        elif good or entry.input or entry.output:
            self.unpriced += 1
        if entry.final:
            self.requests += 1
            self.good += good
            self.cancelled += entry.outcome == "cancelled"
        if good:
            bucket = floor(log(max(entry.ms, 0.001)) / _STEP)
            self.ms[bucket] = self.ms.get(bucket, 0) + 1

    def take_in(self, other: "Tally") -> None:
        """Add another group's sums."""
        for name in self.__slots__:
            if name != "ms":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        for bucket, count in other.ms.items():
            self.ms[bucket] = self.ms.get(bucket, 0) + count

    def row(self, by: dict[str, str], *, compared: bool) -> Row:
        """Return the sums as a line; `compared` to a baseline."""
        ended = self.requests - self.cancelled
        row = Row(
            by=by, requests=self.requests, attempts=self.attempts, success=self.good / ended if ended else None,
            input=self.input, cached=self.cached, output=self.output, usd=round(self.usd, 9), unpriced=self.unpriced,
            p50_ms=self._percentile(0.5), p95_ms=self._percentile(0.95),
        )  # fmt: skip
        if compared:
            row.baseline_usd, row.saved_usd = round(self.baseline, 9), round(self.baseline - self.usd, 9)
        return row

    def _percentile(self, share: float) -> float | None:
        left = share * sum(self.ms.values())
        for bucket in sorted(self.ms):
            left -= self.ms[bucket]
            if left <= 0:
                return float(f"{exp((bucket + 0.5) * _STEP):.3g}")
        return None


def run(args: argparse.Namespace) -> int:
    """Print the report; returns 2 for a ledger, a key or a time that is none. Raises PolicyError."""
    try:
        by = _keys(args.by)
        since, until = _moment(args.since, end=False), _moment(args.until, end=True)
        price = None if args.baseline is None else _price(args)
        read, found = Read(), dict[_Key, Tally]()
        if not args.ledger.exists():
            raise ValueError(f"{args.ledger}: no such ledger; `llm-sidecar serve --ledger DIR` keeps one")
        tally(read.entries(args.ledger), _grouped(by), found, since, until, price)
    except (OSError, ValueError) as error:
        tell(f"llm-sidecar: {error}")
        return 2
    report = reported(found, by, read.torn, args.baseline)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
    elif args.csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(_cells(report, by))
    else:
        for line in table(report, by):
            print(line)
    return 0


def tally(
    entries: Iterable[Entry],
    group: Callable[[Entry], _Key],
    found: dict[_Key, Tally],
    since: float,
    until: float,
    price: Price | None,
) -> None:
    """Add up `entries` in `found`, those that began from `since` to before `until` (Unix seconds)."""
    for entry in entries:
        if since <= entry.ts < until:
            key = group(entry)
            sums = found.get(key)
            if sums is None:
                key = key if len(found) < MOST_GROUPS else (OTHERS,) * len(key)
                sums = found.setdefault(key, Tally())
            sums.add(entry, price)


def reported(found: dict[_Key, Tally], by: Sequence[str], torn: int, baseline: str | None) -> Report:
    """Return the sums as a report, its lines in the order of what they cost but for days."""
    compared, whole = baseline is not None, Tally()
    for sums in found.values():
        whole.take_in(sums)
    rows = [sums.row(dict(zip(by, map(_word, key), strict=True)), compared=compared) for key, sums in found.items()]
    rows.sort(key=lambda row: (row.by.get("day", ""), -row.usd, -row.attempts, *row.by.values()))
    assumes = f"the same tokens, as many of them cached, at today's price of {baseline}; unpriced answers left out"
    total = whole.row({}, compared=compared)
    return Report(rows=rows, total=total, torn=torn, baseline=baseline, assumes=assumes if compared else None)


def table(report: Report, by: Sequence[str]) -> list[str]:
    """Return the report as aligned lines for a person."""
    rows = [*report.rows, report.total] if len(report.rows) != 1 else report.rows
    lines = [[*by, *_heads(report)], *([*_names(row, by), *_numbers(row)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [
        "  ".join(
            cell.ljust(width) if at < len(by) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    if report.baseline is not None:
        total = report.total
        share = f" ({total.saved_usd / total.baseline_usd:.1%})" if total.saved_usd and total.baseline_usd else ""
        shown.append(f"saved ${total.saved_usd or 0.0:.6f}{share}, if {report.baseline} were paid for {report.assumes}")
    if report.total.unpriced:
        shown.append(f"{report.total.unpriced} answers have no known price: their cost is not in the sums")
    if report.torn:
        shown.append(f"{report.torn} lines are no records (cut off by a crash, or damaged)")
    return shown


def tokens(entry: Entry) -> Usage:
    """Return the tokens of an entry."""
    return Usage(
        input=entry.input,
        output=entry.output,
        cached=entry.cached,
        cache_write=entry.cache_write,
        reasoning=entry.reasoning,
        cache_write_1h=entry.cache_write_1h,
        audio_input=entry.audio,
        audio_output=entry.audio_output,
    )


def _grouped(by: Sequence[str]) -> Callable[[Entry], _Key]:
    """Return what sorts entries into groups. A day is its number: a million dates would take a second."""
    of: dict[str, Callable[[Entry], str | int]] = {
        "day": lambda entry: int(entry.ts // _DAY_S),
        "policy": lambda entry: entry.policy,
        "upstream": lambda entry: entry.upstream,
        "tag": lambda entry: entry.tag or "-",
        "model": lambda entry: entry.model,
    }
    parts = [of[key] for key in by]
    if len(parts) == 1:
        only = parts[0]
        return lambda entry: (only(entry),)
    return lambda entry: tuple([part(entry) for part in parts])


def _word(part: str | int) -> str:
    return part if isinstance(part, str) else str(datetime.fromtimestamp(part * _DAY_S, UTC).date())


def _keys(text: str) -> list[str]:
    keys = [word.strip() for word in text.split(",") if word.strip()]
    for key in keys:
        if key not in KEYS:
            raise ValueError(f"--by: {key!r} is not known{nearest(key, KEYS)}")
    return list(dict.fromkeys(keys))


def _moment(text: str | None, *, end: bool) -> float:
    """Return Unix seconds for a day or a time of day (UTC unless it says otherwise); a last day is one to its end.

    Raises ValueError.
    """
    if text is None:
        return float("inf") if end else float("-inf")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time; write 2026-11-25 or 2026-11-25T13:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment + timedelta(days=end and len(text) == len("2026-11-25"))).timestamp()


def _price(args: argparse.Namespace) -> Price:
    """Return the price of the baseline. Raises ValueError when there is none."""
    config = load_directory(args.policies)
    provider, _, model = args.baseline.partition("/")
    row = config.providers.get(provider)
    if row is None or not model:
        raise ValueError(f"--baseline: no upstream {args.baseline!r}{nearest(args.baseline, config.models)}")
    price = tariff(config, row, row.base_url).quote(model).price
    if price is None:
        raise ValueError(f"--baseline: the price of {args.baseline!r} is unknown")
    return price


def _heads(report: Report) -> list[str]:
    heads = ["requests", "attempts", "success", "input", "cached", "output", "USD", "unpriced", "p50 ms", "p95 ms"]
    return heads if report.baseline is None else [*heads, "baseline USD", "saved USD"]


def _names(row: Row, by: Sequence[str]) -> list[str]:
    if row.by:
        return [name if name.isprintable() else repr(name) for name in row.by.values()]
    return ["total", *([""] * (len(by) - 1))] if by else []


def _numbers(row: Row) -> list[str]:
    cells = [
        f"{row.requests}",
        f"{row.attempts}",
        "-" if row.success is None else f"{row.success:.1%}",
        f"{row.input}",
        f"{row.cached}",
        f"{row.output}",
        f"{row.usd:.6f}",
        f"{row.unpriced}",
        "-" if row.p50_ms is None else f"{row.p50_ms:g}",
        "-" if row.p95_ms is None else f"{row.p95_ms:g}",
    ]
    return cells if row.baseline_usd is None else [*cells, f"{row.baseline_usd:.6f}", f"{row.saved_usd:.6f}"]


def _cells(report: Report, by: Sequence[str]) -> Iterable[list[object]]:
    """Return the lines of a CSV file: a head, then a line per group; numbers as they are."""
    fields = [name for name in Row.__struct_fields__ if name != "by"]
    if report.baseline is None:
        fields = fields[:-2]
    yield [*by, *fields]
    for row in report.rows:
        yield [*(row.by[key] for key in by), *(getattr(row, name) for name in fields)]
