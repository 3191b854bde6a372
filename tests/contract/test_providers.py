"""docs/providers.md says how many recordings of each provider there are and hold; it is written from a run.

With `SIDECAR_WRITE_DOCS=1` it is written anew. It tells of the recordings that it names at its end; with others the
counts are printed, and whatever does not hold fails.
"""

import os
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Final

from proxy.adapter import load
from proxy.conform.cases import Case
from proxy.conform.checks import Mismatch, checks_of, strict
from proxy.conform.features import table
from proxy.conform.sdk import Unreadable
from proxy.errors import UpstreamError

from . import corpus

PAGE: Final = Path(__file__).parents[2] / "docs" / "providers.md"
COMMAND: Final = "SIDECAR_WRITE_DOCS=1 pytest tests/contract/test_providers.py"
HEAD: Final = f"""# Providers

How many recorded answers of each provider become what they mean (held / seen): valid for OpenAI's strict types, with the text,
reasoning, tool calls, finish reason, usage and kind of error that were recorded, and streams in three cuts: as received, whole, byte by byte.
`llm-sidecar conform` does the same with [recordings of your own](adding-a-provider.md). Written from a run by
`{COMMAND}`; `SIDECAR_CORPUS` names the folder of recordings.

"""  # noqa: E501
OPENAI: Final = """## In OpenAI's language

With the quirks of the provider's row in `catalog.toml`; a provider without a row has been given all that mend answers.

"""
TRANSLATED: Final = "## In languages of their own\n\nThe name of the adapter, and who was asked.\n\n"


def passes(case: Case) -> bool:
    """Whether all holds; whatever one does, the others are counted."""
    try:
        for check in checks_of(case):
            check(load(case.adapter), case)
    except (Mismatch, Unreadable, UpstreamError):
        return False
    return True


def results() -> list[tuple[Case, bool]]:
    """All recordings that are used, and whether they hold."""
    cases = [corpus.case(entry) for entry in corpus.found()]
    return [(case, passes(case)) for case in cases]


def page(found: list[tuple[Case, bool]]) -> str:
    """The whole page."""
    own = [(case.provider, case, good) for case, good in found if not case.translated]
    other = [(f"{case.adapter}: {case.provider}", case, good) for case, good in found if case.translated]
    quirks = {
        case.provider: " ".join(f"`{one}`" for one in sorted(case.quirks)) or "-"
        for case, _ in found
        if not case.translated
    }
    text = HEAD + OPENAI + table(own, quirks) + "\n" + TRANSLATED + table(other) + "\n" + left_out()
    lenient = [case.file for case, good in found if good and not strict(load(case.adapter), case)]
    text += "\nChanged by hand by whoever recorded them, and held to what they mean but not to OpenAI's types:\n\n"
    text += "".join(f"- `{file}`\n" for file in lenient)
    files = sorted(entry.file for entry in corpus.everything())
    return text + f"\n{len(files)} recordings, {len(found)} used. Their names: {digest()}.\n"


def left_out() -> str:
    """What is not used, and why: by API and provider, file by file where it is one of an API that is spoken."""
    counts = Counter(
        (corpus.unused()[entry.file], entry.provider) for entry in corpus.everything() if unspoken(entry.file)
    )
    rows = "".join(f"| {why} | {provider} | {count} |\n" for (why, provider), count in sorted(counts.items()))
    files = {file: why for file, why in corpus.unused().items() if not unspoken(file)}
    listed = "".join(f"- `{file}`: {why}\n" for file, why in sorted(files.items()))
    return f"## Not used\n\n| why | provider | recordings |\n|---|---|---|\n{rows}\n{listed}"


def unspoken(file: str) -> bool:
    """Whether a recording is not used because of its API."""
    return corpus.unused().get(file, "").startswith("no adapter speaks ")


def digest() -> str:
    """Which recordings these are."""
    files = sorted(entry.file for entry in corpus.everything())
    return sha256("\n".join(files).encode()).hexdigest()[:16]


def test_the_page_of_providers_is_that_of_a_run() -> None:
    """Every provider in the recordings has its row, with the counts of today; of other recordings all hold."""
    corpus.need_corpus()
    found = results()
    text = page(found)
    print(text)
    if os.environ.get("SIDECAR_WRITE_DOCS"):
        PAGE.write_text(text)
    assert [case.file for case, good in found if not good] == []
    if f"Their names: {digest()}." in PAGE.read_text():
        assert PAGE.read_text() == text
