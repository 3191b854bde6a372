"""Files into traces. What a file is, its first line says; what is wrong with it is told with the line's number.

azure     CSV with TIMESTAMP,ContextTokens,GeneratedTokens    github.com/Azure/AzurePublicDataset
mooncake  JSON lines: timestamp (ms), input_length, output_length, hash_ids (one per 512 tokens of the prompt; an id
          stands for everything up to the end of its block)    github.com/kvcache-ai/Mooncake
"""

import csv
from array import array
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec

from proxy.ask import BLOCK_TOKENS
from proxy.simulation.trace import Floats, Ints, Trace, TraceError

AZURE: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
# No prompt is that long, and a sum of many of them must still fit a column.
MOST_TOKENS: Final = 10**9
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]


class Columns(NamedTuple):
    """What a reader has found, in the order of the file."""

    at: Floats
    input: Ints
    output: Ints
    blocks: list[tuple[int, ...]]


class _Mooncake(msgspec.Struct, frozen=True):
    timestamp: Annotated[float, msgspec.Meta(ge=0, le=1e15)]
    input_length: _Tokens
    output_length: _Tokens
    hash_ids: tuple[int, ...] = ()


def read(path: Path, limit: int | None = None, speed: float = 1.0) -> Trace:
    """Return the first `limit` requests of the file at `path`, `speed` times as fast as they came.

    Raises TraceError.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            format, reader = _format(path, first)
            found = reader(path, chain((first,), file), limit)
    except UnicodeDecodeError:
        raise TraceError(f"{path}: this is no text in UTF-8") from None
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or 'cannot be read'}") from None
    if not found.at:
        raise TraceError(f"{path}: there is no request in it")
    return _in_order(path.name, format, found, speed)


_Reader = Callable[[Path, Iterator[str], int | None], Columns]


def _format(path: Path, first: str) -> tuple[str, _Reader]:
    head = first.strip()
    if tuple(cell.strip() for cell in head.split(",")) == AZURE:
        return "azure", _azure
    if head.startswith("{") and '"input_length"' in head:
        return "mooncake", _mooncake
    raise TraceError(
        f"{path}: line 1: neither {','.join(AZURE)} (Azure) nor a JSON object with input_length (Mooncake)"
    )


def _azure(path: Path, lines: Iterator[str], limit: int | None) -> Columns:
    found = Columns(array("d"), array("q"), array("q"), [])
    rows = csv.reader(lines)
    next(rows)
    began: datetime | None = None
    for row in islice(rows, limit):
        if not row:
            continue
        try:
            stamp, input, output = row
            at = datetime.fromisoformat(stamp)
            began = began or at
            found.at.append((at - began).total_seconds())
            found.input.append(_tokens(input))
            found.output.append(_tokens(output))
        except (ValueError, TypeError) as error:
            raise TraceError(f"{path}: line {rows.line_num}: {_wrong(error, row)}") from None
    return found


def _tokens(text: str) -> int:
    number = int(text)
    if not 0 <= number <= MOST_TOKENS:
        raise ValueError(f"{text!r} is no number of tokens")
    return number


def _wrong(error: Exception, row: list[str]) -> str:
    if len(row) != len(AZURE):
        return f"{len(row)} columns, and not the {len(AZURE)} of {','.join(AZURE)}"
    return str(error)


def _mooncake(path: Path, lines: Iterator[str], limit: int | None) -> Columns:
    found = Columns(array("d"), array("q"), array("q"), [])
    decode = msgspec.json.Decoder(_Mooncake).decode
    for number, line in enumerate(islice(lines, limit), 1):
        try:
            row = decode(line)
        except msgspec.MsgspecError as error:
            raise TraceError(f"{path}: line {number}: {error}") from None
        found.at.append(row.timestamp / 1000)
        found.input.append(row.input_length)
        found.output.append(row.output_length)
        # The last id may stand for less than a block, which is no beginning of a longer prompt.
        found.blocks.append(row.hash_ids[: row.input_length // BLOCK_TOKENS])
    return found


def _in_order(name: str, format: str, found: Columns, speed: float) -> Trace:
    """Return a trace that begins at 0, and whose requests come one after the other."""
    at = found.at
    order = sorted(range(len(at)), key=at.__getitem__)
    began = at[order[0]]
    return Trace(
        name,
        format,
        array("d", ((at[i] - began) / speed for i in order)),
        array("q", (found.input[i] for i in order)),
        array("q", (found.output[i] for i in order)),
        [found.blocks[i] for i in order] if found.blocks else None,
    )
