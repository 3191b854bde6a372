"""docs/providers.md says how many recordings of each provider there are and pass; it is written from a run.

With `SIDECAR_WRITE_DOCS=1` it is written anew.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from . import corpus, test_contract
from .corpus import Entry
from .dialects import BROKEN, NOT_STRICT, UNUSABLE

PAGE: Final = Path(__file__).parents[2] / "docs" / "providers.md"
FEATURES: Final = ("complete", "stream", "tool calls", "reasoning", "usage", "errors")
COMMAND: Final = "SIDECAR_WRITE_DOCS=1 pytest tests/contract/test_providers.py"
HEAD: Final = f"""# Providers that speak OpenAI's language

How many recorded answers of each provider go through the adapter with the quirks of its row in `catalog.toml` (passed / used):
they are valid for OpenAI's strict types and mean what was recorded, in text, reasoning, tool calls, finish reason, usage and
class of error, and streams do so in three cuts. Written from a run by `{COMMAND}`.

"""  # noqa: E501


def checks(entry: Entry) -> Iterator[Callable[[Entry], None]]:
    """The tests that a recording is put to."""
    if entry.file in BROKEN:
        yield test_contract.test_an_error_in_an_answer_is_one
    elif entry.status >= 400:
        yield test_contract.test_error_answer_becomes_its_class
    elif entry.stream:
        yield test_contract.test_streamed_answer_means_what_was_recorded
        yield test_contract.test_pieces_do_not_matter
    else:
        yield test_contract.test_complete_answer_means_what_was_recorded


def passes(entry: Entry) -> bool:
    for check in checks(entry):
        try:
            check(entry)
        except Exception:  # whatever a recording does, the others are counted
            return False
    return True


def features(entry: Entry) -> list[str]:
    """What a recording shows."""
    if entry.status >= 400 or entry.file in BROKEN:
        return ["errors"]
    golden = corpus.golden(entry)
    shown = {"tool calls": golden.tool_calls, "reasoning": golden.reasoning, "usage": golden.usage}
    return ["stream" if entry.stream else "complete", *(name for name, found in shown.items() if found)]


def row(provider: str, entries: list[Entry]) -> str:
    used: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for entry in entries:
        if entry.file not in UNUSABLE:
            good = passes(entry)
            used.update(features(entry))
            passed.update(features(entry) if good else ())
    cells = [f"{passed[name]}/{used[name]}" if used[name] else "-" for name in FEATURES]
    quirks = " ".join(f"`{quirk}`" for quirk in sorted(entries[0].quirks)) or "-"
    return f"| {provider} | {' | '.join(cells)} | {quirks} |\n"


def page(found: dict[str, list[Entry]]) -> str:
    """The whole page."""
    text = HEAD + f"| provider | {' | '.join(FEATURES)} | quirks |\n" + "|---" * (len(FEATURES) + 2) + "|\n"
    text += "".join(row(provider, found[provider]) for provider in sorted(found))
    total = sum(map(len, found.values()))
    text += f"\n{total} recordings. Not used, or used but not valid to the letter:\n\n"
    return text + "".join(f"- `{file}`: {why}\n" for file, why in sorted({**UNUSABLE, **NOT_STRICT}.items()))


def test_the_page_of_providers_is_that_of_a_run() -> None:
    """Every provider in the recordings has its row, with the counts of today."""
    if not corpus.entries(corpus.CORPUS):
        pytest.skip(f"no recordings in {corpus.CORPUS}: set SIDECAR_CORPUS")
    found: dict[str, list[Entry]] = {}
    for entry in test_contract.everything():
        if entry.adapter == "openai":
            found.setdefault(entry.provider, []).append(entry)
    text = page(found)
    if os.environ.get("SIDECAR_WRITE_DOCS"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text
