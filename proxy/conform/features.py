"""What an exchange shows, and a table of how many of each kind hold."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from proxy.conform.cases import Case

COMPLETE: Final = "complete"
STREAM: Final = "stream"
ERRORS: Final = "errors"
# By feature, what it is called in the index of a corpus.
_LISTED: Final = {
    "images, files": {"vision", "file_input", "audio", "video"},
    "schemas": {"json_schema", "json_object", "strict_tool_or_schema"},
    "log probabilities": {"logprobs"},
    "several choices": {"n_gt_1"},
    "their own tools": {"server_tools", "web_search", "code_execution", "mcp", "citations"},
}
FEATURES: Final = (
    COMPLETE,
    STREAM,
    "tool calls",
    "parallel calls",
    "reasoning",
    *_LISTED,
    "refusals, filters",
    "usage",
    "cached tokens",
    ERRORS,
)


def shown_by(case: Case) -> list[str]:
    """Return what an exchange shows, of FEATURES."""
    if case.outcome != "answer":
        return [ERRORS]
    expected = case.expected
    told = {
        "tool calls": expected.said.tool_calls,
        "parallel calls": len(expected.said.tool_calls) > 1,
        "reasoning": expected.said.reasoning,
        "refusals, filters": expected.said.finish == "content_filter" or "refusal" in case.features,
        "usage": expected.billed,
        "cached tokens": expected.billed and expected.billed[2],
    }
    asked = _asked(case.sent)
    told |= {name: names & {*case.features, *asked} for name, names in _LISTED.items()}
    shown = {name for name, found in told.items() if found} | {STREAM if case.stream else COMPLETE}
    return [name for name in FEATURES if name in shown]


def _asked(sent: Mapping[str, Any] | None) -> set[str]:
    """What a request asks for, in an index's words."""
    text = msgspec.json.encode(sent or {})
    marks = {b'"image_url"': "vision", b'"input_audio"': "audio", b'"json_schema"': "json_schema"}
    marks |= {b'"json_object"': "json_object", b'"logprobs":true': "logprobs", b'"type":"file"': "file_input"}
    return {name for mark, name in marks.items() if mark in text}


def table(results: Iterable[tuple[str, Case, bool]], last: Mapping[str, str] | None = None) -> str:
    """Return a markdown table, a row for each name: held / seen by feature. `last` is one more cell by name."""
    seen: dict[str, Counter[str]] = {}
    held: dict[str, Counter[str]] = {}
    for name, case, good in results:
        shown = shown_by(case)
        seen.setdefault(name, Counter()).update(shown)
        held.setdefault(name, Counter()).update(shown if good else ())
    # A feature that nobody shows has no column.
    columns = [feature for feature in FEATURES if any(count[feature] for count in seen.values())]
    rows = [["provider", *columns, *(["quirks"] if last else [])]]
    for name in sorted(seen):
        cells = [f"{held[name][one]}/{seen[name][one]}" if seen[name][one] else "-" for one in columns]
        rows.append([name, *cells, *([last[name]] if last else [])])
    rows.insert(1, ["---"] * len(rows[0]))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).replace("| --- ", "|---").replace("|--- |", "|---|")
