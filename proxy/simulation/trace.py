"""Recorded traffic as columns: when requests came and how large they were, never what was said."""

from array import array
from collections.abc import MutableSequence, Sequence
from typing import Final

import msgspec

# What an attempt came to in a ledger, for `proxy.simulation.world` to learn from.
OK: Final = "ok"
# Columns are arrays; in words for Python 3.11, where `array` takes no type.
Floats = MutableSequence[float]
Ints = MutableSequence[int]


class TraceError(ValueError):
    """A file that cannot be replayed; the text names the file, and the line where there is one."""


class Try(msgspec.Struct, frozen=True):
    """One attempt of a ledger: how long it took, in ms, and what came of it (`ok` or a kind of fault).

    `first_ms` is None for an answer that was not streamed. `ratio` is tokens that the upstream counted by tokens that
    were estimated, None where it told none.
    """

    upstream: str
    outcome: str
    ms: float
    first_ms: float | None
    output: int
    ratio: float | None


class Trace(msgspec.Struct, frozen=True):
    """Requests in the order of their arrival; each column has one entry per request.

    `at` is seconds since the first one, `input` and `output` tokens. The rest is None where the format does not have
    it: `blocks` names a prompt's whole blocks of `proxy.ask.BLOCK_TOKENS` (equal name: equal from the beginning up to
    the end of that block), `estimate` is what a sidecar would take for `input` before it is sent, `max_tokens` the
    answer's limit, 0 for none, `needs` what a model must offer.
    """

    name: str
    format: str
    at: Floats
    input: Ints
    output: Ints
    blocks: Sequence[tuple[int, ...]] | None = None
    stream: Sequence[bool] | None = None
    needs: Sequence[frozenset[str]] | None = None
    estimate: Ints | None = None
    max_tokens: Ints | None = None
    tries: Sequence[Try] = ()
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.at)

    @property
    def seconds(self) -> float:
        """Return the time between the first and the last request."""
        return self.at[-1] if self.at else 0.0


def in_order(trace: Trace, limit: int | None, speed: float) -> Trace:
    """Return the first `limit` requests of `trace` in the order of their arrival, from 0 s on, `speed` times as fast.

    `trace` has at least one.
    """
    order = sorted(range(len(trace)), key=trace.at.__getitem__)[:limit]
    began = trace.at[order[0]]
    columns: dict[str, Sequence[object]] = {"at": array("d", ((trace.at[row] - began) / speed for row in order))}
    for name in ("input", "output", "blocks", "stream", "needs", "estimate", "max_tokens"):
        column = getattr(trace, name)
        if column is not None:
            rows = (column[row] for row in order)
            columns[name] = array(column.typecode, rows) if isinstance(column, array) else list(rows)
    return msgspec.structs.replace(trace, **columns)
