"""Runs into figures, and figures into words. Every figure is taken from the columns of a run; nothing is replayed here.

A saving compares the same requests: those that both the policy and its baseline have answered at a known price.
What either left without an answer, or without a price, saves nothing and is counted apart.
"""

from collections import Counter
from collections.abc import Sequence
from math import fsum

import msgspec

from proxy.simulation.replay import Run
from proxy.simulation.trace import Floats, Trace


class Quantiles(msgspec.Struct, frozen=True):
    """Milliseconds; None when nothing was answered."""

    p50: float | None
    p95: float | None


class Saving(msgspec.Struct, frozen=True):
    """What a policy saved against `baseline`: `share` of `baseline_usd`, None when there is nothing to compare.

    `compared` requests were answered by both at a known price, `left_out` were not.
    """

    baseline: str
    share: float | None
    usd: float
    baseline_usd: float
    compared: int
    left_out: int


class Figures(msgspec.Struct, frozen=True):
    """What became of all requests of one run. `usd` is the sum over the answers whose price is known.

    `answered_by` is the share of the answers by upstream; `lost` the requests without one by the last fault's kind.
    """

    name: str
    strategy: str
    requests: int
    answered: int
    unpriced: int
    availability: float
    usd: float
    latency_ms: Quantiles
    first_ms: Quantiles
    attempts: int
    fallbacks: int
    input_tokens: int
    cached_share: float
    answered_by: dict[str, float]
    lost: dict[str, int]
    savings: list[Saving] = []


class Report(msgspec.Struct, frozen=True):
    """All of it, as `--json` prints it. Times are seconds."""

    trace: str
    format: str
    requests: int
    seconds: float
    input_tokens: int
    output_tokens: int
    seed: int
    policies: list[Figures]
    baselines: list[Figures]
    assumed: list[str]


def figures(run: Run, against: Sequence[Run] = ()) -> Figures:
    """Return the figures of `run`, with its savings against other runs of the same trace."""
    places = Counter(run.by)
    lost = places.pop(-1, 0)
    answered = sum(places.values())
    priced = [usd for usd in run.usd if usd == usd]
    tokens = sum(run.input)
    shares = {run.upstreams[place]: count / answered for place, count in places.most_common()}
    return Figures(
        run.choice.name,
        run.choice.baseline or run.choice.policy.strategy,
        len(run.by),
        answered,
        answered - len(priced),
        answered / (answered + lost),
        fsum(priced),
        quantiles(run, run.ms),
        quantiles(run, run.first_ms),
        int(run.metrics.attempts.total()),
        int(run.metrics.fallbacks.total()),
        tokens,
        sum(run.cached) / tokens if tokens else 0.0,
        shares,
        dict(sorted(run.lost.items())),
        [saving(run, other) for other in against],
    )


def quantiles(run: Run, ms: Floats) -> Quantiles:
    """Return what half, and nineteen in twenty, of the answers stayed under."""
    known = sorted(one for one, by in zip(ms, run.by, strict=True) if by >= 0)
    if not known:
        return Quantiles(None, None)
    return Quantiles(*(round(known[min(len(known) - 1, int(share * len(known)))], 3) for share in (0.5, 0.95)))


def saving(run: Run, other: Run) -> Saving:
    """Return what `run` saved against `other`, over the requests that both answered at a known price."""
    both = [
        (mine, theirs) for mine, theirs in zip(run.usd, other.usd, strict=True) if mine == mine and theirs == theirs
    ]
    usd, baseline_usd = fsum(mine for mine, _ in both), fsum(theirs for _, theirs in both)
    share = 1.0 - usd / baseline_usd if baseline_usd else None
    return Saving(other.choice.baseline or "", share, usd, baseline_usd, len(both), len(run.usd) - len(both))


def report(trace: Trace, seed: int, runs: Sequence[tuple[Run, Sequence[Run]]], assumed: Sequence[str]) -> Report:
    """Return all figures: of each policy with the runs of its baselines."""
    baselines = {id(other): other for _, others in runs for other in others}
    return Report(
        trace.name, trace.format, len(trace), round(trace.seconds, 3), sum(trace.input), sum(trace.output), seed,
        [figures(run, others) for run, others in runs],
        [figures(other) for other in baselines.values()],
        list(assumed),
    )  # fmt: skip


# ---- words ------------------------------------------------------------------------------------------------------


def text(found: Report) -> str:
    """Return the report for a terminal."""
    lines = [headline(found), ""]
    against = [saved.baseline for saved in found.policies[0].savings]
    head = [
        "policy", "cost", *(f"vs {name}" for name in against), "p50 ms", "p95 ms", "first p50", "first p95",
        "available", "fallbacks", "cached",
    ]  # fmt: skip
    rows = [head, *(cells(one, against) for one in (*found.policies, *found.baselines))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines += [
        "  ".join(cell.ljust(width) if not column else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip
    lines += ["", "answered by"]
    lines += [f"  {one.name}: {shared(one)}" for one in (*found.policies, *found.baselines)]
    lines += [f"  {remark}" for remark in remarks(found)]
    return "\n".join([*lines, "", "assumed", *(f"  - {line}" for line in found.assumed)])


def headline(found: Report) -> str:
    """Return what was replayed, in a line."""
    return (
        f"{found.trace} ({found.format}): {found.requests} requests over {span(found.seconds)}, "
        f"{found.input_tokens / 1e6:.2f} M tokens in, {found.output_tokens / 1e6:.2f} M out; seed {found.seed}"
    )


def cells(one: Figures, against: Sequence[str]) -> list[str]:
    """Return the row of one run: what it came to, and what it saved against each of `against`."""
    saved = {saving.baseline: saving.share for saving in one.savings}
    return [
        one.name,
        dollars(one.usd),
        *(percent(saved.get(name)) for name in against),
        *(milliseconds(ms) for ms in (one.latency_ms.p50, one.latency_ms.p95, one.first_ms.p50, one.first_ms.p95)),
        f"{100 * one.availability:.2f} %",
        str(one.fallbacks),
        percent(one.cached_share),
    ]


def shared(one: Figures, most: int = 6) -> str:
    """Return who answered, the largest share first."""
    shown = [f"{name} {100 * share:.1f} %" for name, share in list(one.answered_by.items())[:most]]
    more = len(one.answered_by) - most
    return ", ".join(shown + ([f"and {more} more"] if more > 0 else [])) or "nobody"


def remarks(found: Report) -> list[str]:
    """Return what a reader of the table must also know."""
    lines = []
    for one in (*found.policies, *found.baselines):
        if one.lost:
            why = ", ".join(f"{kind} {count}" for kind, count in one.lost.items())
            lines.append(f"{one.name}: {one.requests - one.answered} requests without an answer ({why})")
        if one.unpriced:
            lines.append(f"{one.name}: {one.unpriced} answers have no known price and are not in its cost")
        lines += (
            f"{one.name}: {saved.left_out} requests are not compared with {saved.baseline}"
            for saved in one.savings
            if saved.left_out
        )
    return lines


def dollars(usd: float) -> str:
    """Return money to at least three digits."""
    return f"${usd:,.2f}" if usd >= 100 or not usd else f"${usd:.{2 if usd >= 1 else 4}f}"


def percent(share: float | None) -> str:
    """Return a share in percent, "-" when there is none."""
    # Rounded first, so that nothing is "-0.0".
    return "-" if share is None else f"{round(100 * share, 1) + 0.0:.1f} %"


def milliseconds(ms: float | None) -> str:
    """Return whole milliseconds, "-" when there are none."""
    return "-" if ms is None else f"{ms:.0f}"


def span(seconds: float) -> str:
    """Return a time in its two largest units."""
    for unit, size, smaller, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} {seconds % size // part:.0f} {smaller}"
    return f"{seconds:.3g} s"
