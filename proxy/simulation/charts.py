"""Numbers into SVG: lines, bars and stacked areas. Colours are the page's (classes c0 to c7, rest), so that one picture
serves a light and a dark screen; every shape says in its <title> what it stands for.
"""

from collections.abc import Callable, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final, NamedTuple

COLOURS: Final = 8
_WIDTH: Final = 640
_HEIGHT: Final = 260
_LEFT: Final = 62
_RIGHT: Final = 14
_TOP: Final = 10
_BOTTOM: Final = 30
# Where a clock has its marks, in seconds.
_TIMES: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)

Shown = Callable[[float], str]


class Series(NamedTuple):
    """A line, or an area of a stack; `colour` is its class, `dashed` marks what others are compared with."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


class Axis(NamedTuple):
    """From `low` to `high`, in logarithms if `log`; `ticks` are where it is marked, `shown` how."""

    low: float
    high: float
    ticks: Sequence[float]
    shown: Shown
    log: bool = False

    def at(self, value: float) -> float:
        """Return where `value` is, from 0 to 1."""
        low, high = (log10(self.low), log10(self.high)) if self.log else (self.low, self.high)
        value = log10(max(value, self.low)) if self.log else value
        return min(max((value - low) / (high - low), 0.0), 1.0)


def colour(place: int) -> str:
    """Return the class of the `place`th of a list; those behind the eighth share one."""
    return f"c{place}" if place < COLOURS else "rest"


def from_zero(high: float, shown: Shown) -> Axis:
    """Return an axis from 0 to `high`, marked in round numbers."""
    high = high if high > 0 else 1.0
    rough = high / 5
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    # The last mark may lie a little above all numbers, so that the highest of them has one over it.
    ticks = [number * step for number in range(ceil(high / step) + 1)]
    return Axis(0.0, ticks[-1], ticks, shown)


def decades(low: float, high: float, shown: Shown) -> Axis:
    """Return a logarithmic axis with marks at 1, 2 and 5 of every power of ten."""
    low = max(low, 1e-6)
    high = max(high, 2 * low)
    marks = [factor * 10.0**power for power in range(floor(log10(low)), ceil(log10(high)) + 1) for factor in (1, 2, 5)]
    return Axis(low, high, [mark for mark in marks if low <= mark <= high], shown, log=True)


def clock(seconds: float) -> Axis:
    """Return an axis of time from 0 to `seconds`."""
    seconds = seconds if seconds > 0 else 1.0
    days = 86_400 * max(1, ceil(seconds / 86_400 / 7))
    step = next((step for step in _TIMES if seconds / step <= 7), days)
    return Axis(0.0, seconds, [float(mark) for mark in range(0, floor(seconds) + 1, step)], _moment)


def lines(label: str, series: Sequence[Series], x: Axis, y: Axis) -> str:
    """Return a picture with a line for each of `series`."""
    drawn = [
        f'<polyline class="line {one.colour}{" dashed" if one.dashed else ""}" points="{_points(one.points, x, y)}">'
        f"<title>{escape(one.name)}</title></polyline>"
        for one in series
        if one.points
    ]
    return _picture(label, [*_grid(x, y), *drawn], _HEIGHT)


def areas(label: str, series: Sequence[Series], x: Axis, y: Axis) -> str:
    """Return a picture in which `series`, whose points share their x, are stacked from the first one up."""
    drawn = []
    base = [(at, 0.0) for at, _ in series[0].points] if series else []
    for one in series:
        top = [(at, below + value) for (at, below), (_, value) in zip(base, one.points, strict=True)]
        drawn.append(
            f'<polygon class="area {one.colour}" points="{_points([*top, *reversed(base)], x, y)}">'
            f"<title>{escape(one.name)}</title></polygon>"
        )
        base = top
    return _picture(label, [*drawn, *_grid(x, y)], _HEIGHT)


def bars(label: str, rows: Sequence[tuple[str, str, float, str]]) -> str:
    """Return a picture with a bar for each row: its name, its colour, its length and what is written behind it."""
    most = max((length for _, _, length, _ in rows), default=0.0) or 1.0
    left, room, height = 170, 330, 26
    drawn = []
    for number, (name, tone, length, note) in enumerate(rows):
        middle = _TOP + number * height
        width = max(1.0, room * length / most)
        drawn.append(
            f'<text class="name" x="{left - 8}" y="{middle + 14}" text-anchor="end">{escape(_short(name))}</text>'
            f'<rect class="bar {tone}" x="{left}" y="{middle + 2}" width="{width:.1f}" height="17" rx="2">'
            f"<title>{escape(name)}: {escape(note)}</title></rect>"
            f'<text x="{left + width + 6:.1f}" y="{middle + 14}">{escape(note)}</text>'
        )
    return _picture(label, drawn, 2 * _TOP + len(rows) * height)


def _picture(label: str, parts: Sequence[str], height: int) -> str:
    body = "\n".join(parts)
    return f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {_WIDTH} {height}">\n{body}\n</svg>'


def _grid(x: Axis, y: Axis) -> list[str]:
    bottom = _HEIGHT - _BOTTOM
    parts = []
    for mark in y.ticks:
        at = _down(y.at(mark))
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(y.shown(mark))}</text>'
        )
    for mark in x.ticks:
        at = _along(x.at(mark))
        parts.append(
            f'<line class="tick" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
            f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(x.shown(mark))}</text>'
        )
    return parts


def _points(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    return " ".join(f"{_along(x.at(across)):.1f},{_down(y.at(up)):.1f}" for across, up in points)


def _along(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _down(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _moment(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
