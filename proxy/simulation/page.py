"""A report as one HTML file: no script, no font, no picture from elsewhere; it may be mailed, and read in ten years."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from itertools import accumulate
from typing import Final

from proxy.simulation.charts import COLOURS, Axis, Series, areas, bars, clock, colour, decades, from_zero, lines
from proxy.simulation.replay import Run
from proxy.simulation.report import Figures, Report, cells, dollars, headline, percent, remarks, shared
from proxy.simulation.trace import Floats, Trace

# So many points make a line, and so many slices of time a stack.
_POINTS: Final = 200
_SLICES: Final = 60
_HEAD: Final = ("p50 ms", "p95 ms", "first p50", "first p95", "available", "fallbacks", "cached")
OTHERS: Final = "others"
NOBODY: Final = "nobody"
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #dde2e8; --paper: #fff;
  --c0: #2563eb; --c1: #d97706; --c2: #059669; --c3: #be185d; --c4: #7c3aed; --c5: #0e7490; --c6: #65a30d;
  --c7: #92400e; --rest: #9aa4b2; --nobody: #dc2626; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa4b2; --line: #2d3540; --paper: #12161c;
  --c0: #60a5fa; --c1: #fbbf24; --c2: #34d399; --c3: #f472b6; --c4: #a78bfa; --c5: #22d3ee; --c6: #a3e635;
  --c7: #d6a06c; --rest: #6b7684; --nobody: #f87171; } }
body { margin: 0 auto; padding: 2rem 1.25rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p, li { color: var(--soft); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.baseline td { color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 1.2rem 2rem; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .2rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg text.name { fill: var(--ink); }
.grid { stroke: var(--line); } .tick { stroke: var(--soft); }
.line { fill: none; stroke: var(--tone); stroke-width: 2; stroke-linejoin: round; }
.dashed { stroke-dasharray: 6 4; } .area, .bar { fill: var(--tone); }
.key { display: flex; flex-wrap: wrap; gap: .1rem 1rem; color: var(--soft); font-size: 13px; }
.key span::before { content: ""; display: inline-block; width: .8em; height: .8em; margin-right: .4em;
  border-radius: 2px; background: var(--tone); }
"""
_TONES: Final = "".join(
    f".{name} {{ --tone: var(--{name}); }}\n" for name in (*(f"c{n}" for n in range(8)), "rest", "nobody")
)


def page(found: Report, trace: Trace, runs: Sequence[Run]) -> str:
    """Return the page for `found`; `runs` are all that were played."""
    colours = {run.choice.name: colour(place) for place, run in enumerate(runs)}
    figures = {one.name: one for one in (*found.policies, *found.baselines)}
    charts = [
        _figure("Cost, USD", _costs(runs, figures, colours), ()),
        _figure("Cost over time, USD", _spending(trace, runs, colours), colours.items()),
        _figure("Time to first content: share of answers within", _waits(runs, "first_ms", colours), colours.items()),
        _figure("Time to the whole answer: share within", _waits(runs, "ms", colours), colours.items()),
    ]
    upstreams = _legend(runs)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>llm-sidecar simulate: {escape(found.trace)}</title>
<style>{_STYLE}{_TONES}</style>
</head>
<body>
<h1>What policies would have done</h1>
<p>{escape(headline(found))}</p>
<div class="scroll">{_table(found)}</div>
{_list(remarks(found))}
<div class="charts">
{"".join(charts)}
</div>
<h2>Who answered</h2>
{_key(upstreams.items())}
<div class="charts">
{"".join(_figure(_title(figures[run.choice.name]), _answerers(trace, run, upstreams), ()) for run in runs)}
</div>
<h2>What is assumed</h2>
{_list(found.assumed)}
</body>
</html>
"""


def _table(found: Report) -> str:
    against = [saved.baseline for saved in found.policies[0].savings]
    head = ("", "cost", *(f"vs {name}" for name in against), *_HEAD)
    rows = [f"<tr>{''.join(f'<th scope=col>{escape(cell)}</th>' for cell in head)}</tr>"]
    for one in (*found.policies, *found.baselines):
        row = "".join(f"<td>{escape(cell)}</td>" for cell in cells(one, against))
        kind = "policy" if one.savings else "baseline"
        rows.append(f'<tr class="{kind}">{row}</tr>')
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _title(one: Figures) -> str:
    return f"{one.name}: {shared(one, 3)}"


def _list(texts: Sequence[str]) -> str:
    return "<ul>\n" + "".join(f"<li>{escape(text)}</li>\n" for text in texts) + "</ul>" if texts else ""


def _figure(title: str, picture: str, key: Iterable[tuple[str, str]]) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>\n{picture}\n{_key(key) if key else ''}</figure>\n"


def _key(names: Iterable[tuple[str, str]]) -> str:
    return f'<div class="key">{"".join(f"<span class={tone}>{escape(name)}</span>" for name, tone in names)}</div>'


# ---- what is drawn ----------------------------------------------------------------------------------------------


def _costs(runs: Sequence[Run], figures: dict[str, Figures], colours: dict[str, str]) -> str:
    rows = []
    for run in runs:
        one = figures[run.choice.name]
        saved = "".join(f" ({percent(saving.share)} saved)" for saving in one.savings[:1] if saving.share)
        rows.append((one.name, colours[one.name], one.usd, dollars(one.usd) + saved))
    return bars("cost of each policy", rows)


def _spending(trace: Trace, runs: Sequence[Run], colours: dict[str, str]) -> str:
    series = []
    for run in runs:
        spent = list(accumulate((usd if usd == usd else 0.0 for usd in run.usd), initial=0.0))
        moments = [trace.seconds * step / _POINTS for step in range(_POINTS + 1)]
        points = [(moment, spent[bisect_right(trace.at, moment)]) for moment in moments]
        series.append(Series(run.choice.name, colours[run.choice.name], points, run.choice.baseline is not None))
    most = max(one.points[-1][1] for one in series)
    return lines("cost over time", series, clock(trace.seconds), from_zero(most, lambda usd: f"{usd:g}"))


def _waits(runs: Sequence[Run], which: str, colours: dict[str, str]) -> str:
    series = []
    for run in runs:
        column: Floats = getattr(run, which)
        known = sorted(ms / 1000 for ms, by in zip(column, run.by, strict=True) if by >= 0)
        steps = range(_POINTS + 1) if known else ()
        points = [(known[(len(known) - 1) * step // _POINTS], step / _POINTS) for step in steps]
        series.append(Series(run.choice.name, colours[run.choice.name], points, run.choice.baseline is not None))
    ends = [point[0] for one in series for point in one.points] or [1.0]
    return lines(f"{which} by share", series, decades(min(ends), max(ends), lambda s: f"{s:g} s"), _shares())


def _answerers(trace: Trace, run: Run, upstreams: dict[str, str]) -> str:
    """Return who answered over time: the upstreams of the key, all others as one, and at the top nobody."""
    rows = {name: row for row, name in enumerate(upstreams)}
    others, nobody = rows.get(OTHERS, 0), rows.get(NOBODY, 0)
    row_of = {place: rows.get(name, others) for place, name in enumerate(run.upstreams)} | {-1: nobody}
    edges = [trace.seconds * edge / _SLICES for edge in range(_SLICES + 1)]
    ends = [*(bisect_left(trace.at, edge) for edge in edges[:-1]), len(trace)]
    stacks: list[list[tuple[float, float]]] = [[] for _ in upstreams]
    for number in range(_SLICES):
        requests = run.by[ends[number] : ends[number + 1]]
        counted = Counter(row_of[place] for place in requests)
        for row, stack in enumerate(stacks):
            share = counted[row] / len(requests) if len(requests) else 0.0
            stack += [(edges[number], share), (edges[number + 1], share)]
    series = [Series(name, tone, stack) for (name, tone), stack in zip(upstreams.items(), stacks, strict=True)]
    return areas(f"share of each upstream for {run.choice.name}", series, clock(trace.seconds), _shares())


def _legend(runs: Sequence[Run]) -> dict[str, str]:
    """Return the colours of the upstreams that answered most, of all others, and of nobody."""
    answers = Counter[str]()
    for run in runs:
        for place, count in Counter(run.by).items():
            answers[NOBODY if place < 0 else run.upstreams[place]] += count
    lost = answers.pop(NOBODY, 0)
    key = {name: colour(place) for place, (name, _) in enumerate(answers.most_common(COLOURS))}
    return key | ({OTHERS: "rest"} if len(answers) > COLOURS else {}) | ({NOBODY: "nobody"} if lost else {})


def _shares() -> Axis:
    return Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0), lambda share: f"{100 * share:g} %")
