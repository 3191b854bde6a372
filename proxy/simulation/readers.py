"""Files into traces. What a file is, its first line says; what is wrong with it is told with the line's number.

azure     CSV with TIMESTAMP,ContextTokens,GeneratedTokens    github.com/Azure/AzurePublicDataset
mooncake  JSON lines: timestamp (ms), input_length, output_length, hash_ids (one per 512 tokens of the prompt; an id
          stands for everything up to the end of its block)    github.com/kvcache-ai/Mooncake
ledger    JSON lines of `proxy.ledger.Entry`, or a directory of such files
"""

import csv
from array import array
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Final

import msgspec

from proxy.ask import BLOCK_TOKENS
from proxy.simulation.recorded import recorded
from proxy.simulation.trace import Trace, TraceError, in_order

AZURE: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
# No prompt is that long, and a sum of many of them must still fit a column.
MOST_TOKENS: Final = 10**9
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]
_Read = Callable[[Path, Iterator[str], int | None], Trace]


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
        found = recorded(path) if path.is_dir() else _file(path, limit)
    except UnicodeDecodeError:
        raise TraceError(f"{path}: this is no text in UTF-8") from None
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or 'cannot be read'}") from None
    if not len(found):
        raise TraceError(f"{path}: there is no request in it")
    return in_order(found, limit, speed)


def _file(path: Path, limit: int | None) -> Trace:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        head = first.strip()
        reads: _Read | None = None
        if tuple(cell.strip() for cell in head.split(",")) == AZURE:
            reads = _azure
        elif head.startswith("{") and '"input_length"' in head:
            reads = _mooncake
        if reads is not None:
            return reads(path, chain((first,), file), limit)
    if head.startswith("{") and '"outcome"' in head:
        return recorded(path)
    known = f"{','.join(AZURE)} (Azure), nor JSON with input_length (Mooncake) or outcome (a ledger)"
    raise TraceError(f"{path}: line 1: neither {known}")


def _azure(path: Path, lines: Iterator[str], limit: int | None) -> Trace:
    found = Trace(path.name, "azure", array("d"), array("q"), array("q"))
    rows = csv.reader(lines)
    next(rows)
    began: datetime | None = None
    try:
        for row in islice(filter(None, rows), limit):
            if len(row) != len(AZURE):
                raise ValueError(f"{len(row)} columns instead of {len(AZURE)}")
            stamp, input, output = row
            at = datetime.fromisoformat(stamp.strip())
            began = began or at
            found.at.append((at - began).total_seconds())
            found.input.append(_tokens(input))
            found.output.append(_tokens(output))
    except (ValueError, TypeError, csv.Error) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise TraceError(f"{path}: line {rows.line_num}: {error}") from None
    return found


def _tokens(text: str) -> int:
    number = int(text)
    if not 0 <= number <= MOST_TOKENS:
        raise ValueError(f"{text!r} is no number of tokens")
    return number


def _mooncake(path: Path, lines: Iterator[str], limit: int | None) -> Trace:
    blocks: list[tuple[int, ...]] = []
    found = Trace(path.name, "mooncake", array("d"), array("q"), array("q"), blocks)
    decode = msgspec.json.Decoder(_Mooncake).decode
    for number, line in enumerate(islice(lines, limit), 1):
        if line.isspace():
            continue
        try:
            row = decode(line)
        except msgspec.MsgspecError as error:
            raise TraceError(f"{path}: line {number}: {error}") from None
        found.at.append(row.timestamp / 1000)
        found.input.append(row.input_length)
        found.output.append(row.output_length)
        # The last id may stand for less than a block, which is no beginning of a longer prompt.
        blocks.append(row.hash_ids[: row.input_length // BLOCK_TOKENS])
    return found
