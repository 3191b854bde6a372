"""What has to hold and what was measured: the lines of the table, and the exit code that follows from them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from loadtests.report import table


class Settings(NamedTuple):
    """How much of each figure is run. `scale` multiplies counts and times; `seconds` is the soak's, before scaling."""

    scale: float = 1.0
    seconds: float = 300.0
    litellm: Path | None = None

    def count(self, full: int, least: int = 4) -> int:
        """Return a scaled count."""
        return max(least, round(full * self.scale))

    def time(self, full_s: float, least_s: float = 1.0) -> float:
        """Return scaled seconds."""
        return max(least_s, full_s * self.scale)


class Line(NamedTuple):
    """One thing that has to hold. `good` None: it could not be tried here, or is only told."""

    what: str
    bar: str
    measured: str
    good: bool | None

    @property
    def verdict(self) -> str:
        """The last column."""
        return {True: "pass", False: "FAIL", None: ""}[self.good]


class Figure(NamedTuple):
    """One row of the programme. `run` returns its lines; RuntimeError when something does not start."""

    name: str
    what: str
    run: Callable[[Settings], list[Line]]


def at_most(what: str, bar: float, measured: float, unit: str = "") -> Line:
    """Return a line for a figure with an upper bar."""
    return Line(what, f"<= {_number(bar)}{unit}", f"{_number(measured)}{unit}", measured <= bar)


def at_least(what: str, bar: float, measured: float, unit: str = "") -> Line:
    """Return a line for a figure with a lower bar."""
    return Line(what, f">= {_number(bar)}{unit}", f"{_number(measured)}{unit}", measured >= bar)


def exactly(what: str, bar: object, measured: object) -> Line:
    """Return a line for what has to be just so."""
    return Line(what, str(bar), str(measured), measured == bar)


def told(what: str, measured: object) -> Line:
    """Return a line without a bar."""
    return Line(what, "", str(measured), None)


def skipped(why: str) -> Line:
    """Return a line that says why nothing was tried."""
    return Line(f"skipped: {why}", "", "", None)


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if value == round(value) or abs(value) >= 1000 else f"{value:.4g}"


def render(found: Sequence[tuple[Figure, Sequence[Line]]]) -> str:
    """Return the table."""
    rows = []
    for figure, lines in found:
        rows.append([f"**{figure.name}** {figure.what}", "", "", ""])
        rows += [[line.what, line.bar, line.measured, line.verdict] for line in lines]
    return table(("figure", "pass figure", "measured", ""), rows)


def exit_code(found: Sequence[tuple[Figure, Sequence[Line]]]) -> int:
    """Return 1 when anything failed."""
    return int(any(line.good is False for _, lines in found for line in lines))
