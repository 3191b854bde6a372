"""Trials as markdown: CPU, times, start and memory. Medians over the rounds; a ratio is made within its round."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final

from loadtests.bench.gateways import DIRECT, NGINX
from loadtests.bench.programs import Report
from loadtests.bench.scenarios import SCENARIOS
from loadtests.bench.targets import COLD_START_MS, IDLE_MB, RATIOS, STREAM_KIB, Target
from loadtests.bench.trial import Trial
from loadtests.report import table

# By scenario and gateway, a trial for each round.
Trials = Mapping[tuple[str, str], Sequence[Trial]]
# What a translating scenario is put beside.
_OWN: Final = "c64"
_OWN_STREAM: Final = "stream64"


def tables(trials: Trials) -> str:
    """Return all tables that have rows."""
    return "\n\n".join(text for text in (_cpu(trials), _times(trials), _start(trials)) if text)


def wrong(trials: Trials) -> list[str]:
    """Return a line for each scenario and gateway that gave wrong answers, with the first of them."""
    lines = []
    for (scenario, gateway), made in trials.items():
        bad = [trial.report for trial in made if trial.report is not None and trial.report.wrong]
        if bad:
            count = sum(report.wrong for report in bad)
            lines.append(f"{count} wrong: {scenario} through {gateway}: {bad[0].errors} {bad[0].first_error}")
    return lines


def cpu_us(trial: Trial) -> float:
    """Return microseconds per right answer, or per event of a stream."""
    assert trial.report is not None
    return trial.used.cpu_s * 1e6 / max(1, trial.report.events or trial.report.good)


def _cpu(trials: Trials) -> str:
    rows = []
    for (scenario, gateway), made in trials.items():
        if made[0].report is None:
            continue
        values, reports = [cpu_us(trial) for trial in made], _reports(made)
        ratios = _ratios(trials, scenario, gateway, cpu_us)
        rate = median(report.events / report.seconds if report.events else report.per_second for report in reports)
        # The upstream shares its core with the load client, so noise cannot be told there.
        noise = "" if gateway == DIRECT else f"{max(trial.used.foreign for trial in made):.2f}"
        row = [f"{SCENARIOS[scenario].what}: {SCENARIOS[scenario].unit}", gateway, _spread(values), _middle(ratios)]
        row += [_verdict(RATIOS.get((scenario, "cpu")), gateway, ratios), f"{rate:.0f}"]
        row.append(f"{median(trial.used.own for trial in made):.2f}")
        rows.append([*row, noise, f"{sum(report.wrong for report in reports)}"])
    head = ("case: CPU of a", "through", "CPU us", "x nginx", "must / stretch", "per second", "core", "noise", "wrong")
    return table(head, rows) if rows else ""


def _times(trials: Trials) -> str:
    rows = []
    for (scenario, gateway), made in trials.items():
        for timing in SCENARIOS[scenario].timings:
            row = [SCENARIOS[scenario].what, timing, gateway]
            for which in ("p50", "p99"):
                figure = _timing(timing, which)
                ratios = _ratios(trials, scenario, gateway, figure)
                target = RATIOS.get((scenario, f"{timing} {which}"))
                row += [_spread([figure(trial) for trial in made], 3), _middle(ratios)]
                row.append(_verdict(target, gateway, ratios))
            rows.append(row)
    half = ("x nginx", "must / stretch")
    return table(("case", "ms", "through", "p50", *half, "p99", *half), rows) if rows else ""


def _start(trials: Trials) -> str:
    rows = []
    for (scenario, gateway), made in trials.items():
        if gateway == DIRECT:
            continue
        if scenario == "start":
            rows.append(
                _fact("ms from its start to its first answer", gateway, [t.cold_start_ms for t in made], COLD_START_MS)
            )
            rows.append(_fact("MB resident then", gateway, [trial.idle_kib / 1024 for trial in made], IDLE_MB))
        elif SCENARIOS[scenario].memory:
            rows.append(_fact("KiB more per open stream", gateway, [t.conn_kib for t in made], STREAM_KIB))
    return table(("figure", "through", "value", "must / stretch"), rows) if rows else ""


def _fact(what: str, gateway: str, values: Sequence[float], target: Target) -> list[str]:
    return [what, gateway, _spread(values), _verdict(target, gateway, values)]


def _timing(timing: str, which: str) -> Callable[[Trial], float]:
    """Return what reads a time from a trial; NaN where no answer was right."""

    def read(trial: Trial) -> float:
        spread = getattr(trial.report, f"{timing}_ms")
        return float("nan") if spread is None else float(getattr(spread, which))

    return read


def _ratios(trials: Trials, scenario: str, gateway: str, figure: Callable[[Trial], float]) -> list[float]:
    """Return `figure` over nginx's, round by round; for what nginx cannot do, over our own pass-through."""
    own = _OWN_STREAM if SCENARIOS[scenario].stream else _OWN
    beside = (own, gateway) if SCENARIOS[scenario].translated else (scenario, NGINX)
    if gateway == DIRECT or beside not in trials:
        return []
    pairs = zip(trials[scenario, gateway], trials[beside], strict=True)
    return [figure(ours) / figure(theirs) for ours, theirs in pairs if figure(theirs)]


def _verdict(target: Target | None, gateway: str, values: Sequence[float]) -> str:
    if target is None or not values or not gateway.startswith("sidecar"):
        return ""
    return f"{target}: {target.verdict(median(values))}"


def _reports(made: Sequence[Trial]) -> list[Report]:
    return [trial.report for trial in made if trial.report is not None]


def _spread(values: Sequence[float], places: int = 1) -> str:
    """Return the median, and in brackets the least and the most where there are several."""
    middle = f"{median(values):.{places}f}"
    return middle if len(values) < 2 else f"{middle} ({min(values):.{places}f}-{max(values):.{places}f})"


def _middle(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f}" if ratios else ""
