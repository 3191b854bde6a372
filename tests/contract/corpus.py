"""Which recordings there are: those of `SIDECAR_CORPUS`, and the few that come with the repository.

`SIDECAR_CORPUS` names a folder as `proxy.conform.recordings` reads it; the default is a checkout next to this
repository. Any other folder of the same form may be named: what is expected of a recording follows from its data.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.conform import recordings
from proxy.conform.cases import Case, case_of, outcome, unusable
from proxy.conform.recordings import Entry

FIXTURES: Final = Path(__file__).parent / "fixtures"
CORPUS: Final = Path(os.environ.get("SIDECAR_CORPUS") or Path(__file__).parents[3] / "shared" / "corpus")


@cache
def everything() -> tuple[Entry, ...]:
    """Return all recordings, each once: the corpus, then those that come with the repository."""
    known: dict[str, Entry] = {}
    for entry in recordings.entries(CORPUS) + recordings.entries(FIXTURES):
        known.setdefault(entry.file, entry)
    return tuple(known.values())


@cache
def unused() -> dict[str, str]:
    """Return why recordings are not used, by file."""
    reasons = {entry.file: unusable(entry) for entry in everything()}
    return {file: why for file, why in reasons.items() if why is not None}


@cache
def found(adapter: str | None = None) -> tuple[Entry, ...]:
    """Return the recordings that are used, of one adapter or of all."""
    return tuple(entry for entry in everything() if entry.file not in unused() and adapter in (None, entry.adapter))


def cases(*outcomes: str, adapters: tuple[str, ...] = (), stream: bool | None = None) -> list[Any]:
    """Return recordings as parameters: of these outcomes and adapters, all of them when none is named."""
    return [
        pytest.param(entry, id=entry.file.removesuffix(".json"))
        for entry in found()
        if (not adapters or entry.adapter in adapters)
        and stream in (None, entry.stream)
        and (not outcomes or outcome(entry) in outcomes)
    ]


def case(entry: Entry) -> Case:
    """Return a recording as what it has to become."""
    return case_of(entry)


def need_corpus() -> None:
    """Skip a test that says nothing about the few recordings of the repository."""
    if not recordings.entries(CORPUS):
        pytest.skip(f"no recordings in {CORPUS}: set SIDECAR_CORPUS; only tests/contract/fixtures was checked")
