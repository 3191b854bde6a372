"""What can be wrong in policy files, and the words to say it: file, entry, and the nearest word that is valid there."""

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

CATALOG: Final = "catalog.toml"
# As many words are listed when none is near.
_FEW: Final = 16
_ANY: Final = ("*", "?", "[")


class Problem(NamedTuple):
    """One thing wrong in a file; `where` is the entry, empty for the file as a whole."""

    file: str
    where: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


class PolicyError(Exception):
    """A directory that cannot be used; `problems` is never empty."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems

    def complaint(self) -> str:
        """Return what a person is told when nothing can start."""
        return f"llm-sidecar: the policy files cannot be used:\n{self}"


def matching(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the `names` that match, in the order of the patterns, each once."""
    names = list(names)
    found: dict[str, None] = {}
    for pattern in patterns:
        if any(mark in pattern for mark in _ANY):
            found.update((name, None) for name in names if fnmatchcase(name, pattern))
        elif pattern in names:
            found[pattern] = None
    return list(found)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest of `known`, else what there is."""
    known = sorted(known)
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = [word if word.isprintable() else repr(word) for word in known]
    return f"; known: {', '.join(shown)}" if 0 < len(known) <= _FEW else ""
