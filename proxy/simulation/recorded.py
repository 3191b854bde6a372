"""A ledger into a trace. Its requests are those that came; what became of their attempts shows how upstreams behave.

What an upstream counted for a prompt is reckoned back by how it counts: so a replay on the upstream that answered has
the tokens that were recorded, and one on another those that this one would have counted.
"""

from array import array
from collections.abc import Iterable
from pathlib import Path
from statistics import median_low

from proxy.ledger import Entry, Read
from proxy.simulation.trace import OK, Trace, Try
from proxy.simulation.world import fit


class _Request:
    """What all attempts of one request tell: when it came first, and the answer, None while there is none."""

    __slots__ = ("answer", "first")

    def __init__(self, first: Entry) -> None:
        self.first = first
        self.answer: Entry | None = None

    def add(self, entry: Entry) -> None:
        if entry.ts < self.first.ts:
            self.first = entry
        # Of two that were asked at once both may have answered; the client got the final one.
        if entry.outcome == OK and entry.output and (self.answer is None or entry.final):
            self.answer = entry


def recorded(path: Path) -> Trace:
    """Return the requests of a ledger, a file or a directory of files. Raises OSError."""
    reader, known, tries = Read(), dict[str, _Request](), list[Try]()
    for entry in reader.entries(path):
        request = known.get(entry.id)
        if request is None:
            request = known[entry.id] = _Request(entry)
        request.add(entry)
        tries.append(_try(entry))
    return _trace(path.name, list(known.values()), tries, reader.torn)


def _try(entry: Entry) -> Try:
    ratio = entry.input / entry.estimate if entry.input and entry.estimate else None
    return Try(entry.upstream, entry.outcome, entry.ms, entry.first_ms, entry.output, ratio)


def _trace(name: str, requests: list[_Request], tries: list[Try], torn: int) -> Trace:
    answers = [one.answer.output for one in requests if one.answer is not None]
    usual = median_low(answers) if answers else 0
    fits, kinds = fit(tries), dict[tuple[str, ...], frozenset[str]]()
    input, estimate = array("q"), array("q")
    for one in requests:
        tokens = one.first.estimate
        if one.answer is not None and one.answer.input:
            tokens = round(one.answer.input / fits.get(one.answer.upstream, fits[""]).ratio)
        input.append(tokens)
        estimate.append(one.first.estimate or tokens)
    return Trace(
        name,
        "ledger",
        array("d", (one.first.ts for one in requests)),
        input,
        array("q", (usual if one.answer is None else one.answer.output for one in requests)),
        [tuple(one.first.prefix) for one in requests] if any(one.first.prefix for one in requests) else None,
        [one.first.stream for one in requests],
        [kinds.setdefault(tuple(one.first.needs), frozenset(one.first.needs)) for one in requests],
        estimate,
        array("q", (one.first.max_tokens or 0 for one in requests)),
        tries,
        list(_notes(len(requests) - len(answers), usual, torn)),
    )


def _notes(unanswered: int, usual: int, torn: int) -> Iterable[str]:
    if torn:
        yield f"{torn} lines of the ledger are no records and are left out."
    if unanswered:
        yield f"{unanswered} requests have no answer in the ledger: one of {usual} tokens is assumed, the usual length."
