"""What the matrix saw, as the tables of docs/faults.md. `SIDECAR_WRITE_FAULTS=1` writes them there."""

from pathlib import Path
from typing import Final

from tests.fault_matrix import DEVIATIONS, NOT_SO, ROWS, SITUATIONS, SPECIAL

PAGE: Final = Path(__file__).parent.parent / "docs" / "faults.md"
# (row, what is looked at, language) -> what was seen. What is looked at: a situation, or "then".
SEEN: Final[dict[tuple[str, str, str], str]] = {}

_HEAD: Final = (
    "| the provider | complete | complete, fallback | stream | stream, fallback | then |\n|---|---|---|---|---|---|"
)
_DIFFERENT: Final = "| the provider | in | client sees |\n|---|---|---|"
_GAPS: Final = "| the provider | in | should be | why it is not |\n|---|---|---|---|"
_WHAT: Final = {"counts": "then", "asks": "requests at the provider"}


def cells(id: str, language: str) -> list[str] | None:
    """The cells of a row; None when the run has not seen them all."""
    never = {what for row in SPECIAL if row.id == id for what in SITUATIONS if row.must(what) == NOT_SO}
    found = [NOT_SO if what in never else SEEN.get((id, what, language)) for what in (*SITUATIONS, "then")]
    return None if None in found else [str(cell) for cell in found]


def table() -> list[str]:
    """The rows that were seen, in OpenAI's language."""
    lines = []
    for row in (*ROWS, *SPECIAL):
        if (found := cells(row.id, "openai")) is not None:
            complete, complete_b, stream, stream_b, then = found
            cols = [complete, _like(complete_b, complete), _like(stream, complete), _like(stream_b, stream), then]
            lines.append(f"| {' | '.join([row.title, *cols])} |")
    return lines


def _like(cell: str, other: str) -> str:
    return "the same" if cell == other != NOT_SO else cell


def differences() -> list[str]:
    """Where a provider that speaks Anthropic's language is told otherwise."""
    lines = []
    for row in ROWS:
        one, other = cells(row.id, "openai") or [], cells(row.id, "anthropic") or []
        where: dict[str, list[str]] = {}
        for what, here, there in zip(SITUATIONS, one, other, strict=False):
            if here != there:
                where.setdefault(there, []).append(what)
        lines += [f"| {row.title} | {_all(whats)} | {there} |" for there, whats in where.items()]
    return lines


def gaps() -> list[str]:
    """What is not as it should be."""
    rows = {row.id: row for row in ROWS}
    where: dict[tuple[str, str, str], list[str]] = {}
    for (id, what), deviation in DEVIATIONS.items():
        row = rows[id]
        must = row.must(what, "openai") if what in SITUATIONS else str(getattr(row, what))
        where.setdefault((row.title, must, deviation.why), []).append(_WHAT.get(what, what))
    return [f"| {title} | {_all(whats)} | {must} | {why} |" for (title, must, why), whats in where.items()]


def _all(whats: list[str]) -> str:
    return "all" if whats == list(SITUATIONS) else " and ".join(whats)


def page() -> str:
    """The generated part of the page."""
    return "\n".join([
        _HEAD, *table(), "",
        "Providers that speak Anthropic's language, where that makes a difference:", "",
        _DIFFERENT, *differences(), "",
        "Not yet as it should be; the table above shows what comes today:", "",
        _GAPS, *gaps(),
    ])  # fmt: skip


def split(text: str) -> tuple[str, str, str]:
    """The page before, within and behind the marks."""
    before, _, rest = text.partition("<!-- faults -->\n")
    within, _, behind = rest.partition("\n<!-- /faults -->")
    return f"{before}<!-- faults -->\n", within, f"\n<!-- /faults -->{behind}"
