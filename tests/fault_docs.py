"""What the matrix saw, as the tables of docs/faults.md. `SIDECAR_WRITE_FAULTS=1` writes them there."""

from pathlib import Path
from typing import Final

from tests.fault_cells import LANGUAGES
from tests.fault_matrix import NOT_SO, ROWS, SITUATIONS, SPECIAL, situations

PAGE: Final = Path(__file__).parent.parent / "docs" / "faults.md"
# (row, what is looked at, language) -> what was seen. What is looked at: a situation, or "then".
SEEN: Final[dict[tuple[str, str, str], str]] = {}

_HEAD: Final = (
    "| the provider | complete | complete, fallback | stream | stream, fallback | then |\n|---|---|---|---|---|---|"
)
_DIFFERENT: Final = "| the provider | speaks | in | client sees |\n|---|---|---|---|"


def cells(id: str) -> list[str] | None:
    """The cells of a row in OpenAI's language; None when the run has not seen them all."""
    never = {what for row in SPECIAL if row.id == id for what in SITUATIONS if row.must(what) == NOT_SO}
    found = [NOT_SO if what in never else SEEN.get((id, what, "openai")) for what in (*SITUATIONS, "then")]
    return None if None in found else [str(cell) for cell in found]


def whole() -> bool:
    """Whether the run has seen every cell of the page."""
    spoken = ((row.id, what, language) for row in ROWS for language in LANGUAGES for what in situations(row, language))
    return all(one in SEEN for one in spoken) and all(cells(row.id) is not None for row in SPECIAL)


def table() -> list[str]:
    """The rows that were seen, in OpenAI's language."""
    lines = []
    for row in (*ROWS, *SPECIAL):
        if (found := cells(row.id)) is not None:
            complete, complete_b, stream, stream_b, then = found
            cols = [complete, _like(complete_b, complete), _like(stream, complete), _like(stream_b, stream), then]
            lines.append(f"| {' | '.join([row.title, *cols])} |")
    return lines


def _like(cell: str, other: str) -> str:
    return "the same" if cell == other != NOT_SO else cell


def differences() -> list[str]:
    """Where a provider that speaks another language is told otherwise."""
    lines = []
    for row in ROWS:
        where: dict[tuple[str, str], list[str]] = {}
        for language in LANGUAGES[1:]:
            found: dict[str, list[str]] = {}
            for what in situations(row, language):
                here, there = SEEN[row.id, what, "openai"], SEEN[row.id, what, language]
                if here != there:
                    found.setdefault(there, []).append(what)
            for there, whats in found.items():
                where.setdefault((_all(whats), there), []).append(language.capitalize())
        lines += [f"| {row.title} | {', '.join(who)} | {whats} | {there} |" for (whats, there), who in where.items()]
    return lines


def _all(whats: list[str]) -> str:
    return "all" if whats == list(SITUATIONS) else " and ".join(whats)


def page() -> str:
    """The generated part of the page."""
    return "\n".join([
        _HEAD, *table(), "",
        "Providers that speak another language than OpenAI's, where that makes a difference:", "",
        _DIFFERENT, *differences(),
    ])  # fmt: skip


def split(text: str) -> tuple[str, str, str]:
    """The page before, within and behind the marks."""
    before, _, rest = text.partition("<!-- faults -->\n")
    within, _, behind = rest.partition("\n<!-- /faults -->")
    return f"{before}<!-- faults -->\n", within, f"\n<!-- /faults -->{behind}"
