"""Read the usual answer's head and framing, strictly; decline everything else, which aiohttp's parser then judges.

Usual is what providers send for an answer that went well: HTTP/1.1 200, plain header lines, one content-length or
`chunked`, nothing compressed. aiohttp's parser makes an object of every header and a stream of every body; this reads
what is needed of them. Without it an event of a spaced stream costs 1.3 times as much, a whole answer 1.08 times
(`loadtests/README.md`). What is read here, aiohttp's parser
would have read alike (`tests/test_framing.py` holds them side by side). Format: RFC 9112.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

# aiohttp's own limit for a line; no usual head is as long as this in all.
_MAX_HEAD: Final = 8190
# No tabs: one range of bytes is looked up in half the time of two.
_HEAD: Final = re.compile(rb"HTTP/1\.1 200 [ -~]*+\r\n(?:[!#-'*+\-.0-9A-Z^-z|~]++:[ -~]*+\r\n)++\r\n")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
# A size line that is not whole yet is at most this long.
_PART_OF_SIZE: Final = 9
# aiohttp takes 128 headers.
_MAX_LINES: Final = 100
_MAX_DIGITS: Final = 15
_CRLF: Final = b"\r\n"
_UNUSUAL: Final = b"?"
_KNOWN: Final = (b"keep-alive", b"", b"close")


class DeclinedError(Exception):
    """What follows is not usual, and begins at a chunk: `rest`. `pieces` are what was read before it."""

    def __init__(self, pieces: list[bytes], rest: bytes) -> None:
        super().__init__()
        self.pieces = pieces
        self.rest = rest


class BrokenError(Exception):
    """A chunk does not end where it said. `pieces` are what was read before it."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self.pieces = pieces


class Answer(NamedTuple):
    """An answer's head. `headers` are empty for a usual one: only faults need them."""

    code: int
    headers: Mapping[str, str]
    should_close: bool


_NO_HEADERS: Final[Mapping[str, str]] = {}
USUAL: Final = Answer(200, _NO_HEADERS, should_close=False)
LAST: Final = Answer(200, _NO_HEADERS, should_close=True)


class Head(msgspec.Struct, frozen=True, gc=False):
    """`size` in bytes, the blank line included; `length` of the body in bytes, None for chunked."""

    size: int
    length: int | None
    should_close: bool


def read_head(data: bytes) -> Head | None:
    """Return what the head at the start of `data` says; None when it is not whole or not usual."""
    match = _HEAD.match(data)
    if match is None or match.end() > _MAX_HEAD:
        return None
    head = match.group().lower()
    if head.count(_CRLF) > _MAX_LINES:
        return None
    # Plain searches: one expression over all these names took longer. `find`, because `in` first takes what it looks
    # for to be a number, and makes an error of it that nobody sees: twice the price.
    coding = b""
    if head.find(b"-encoding:") >= 0:
        if head.find(b"\r\ncontent-encoding:") >= 0:
            return None
        coding = _value(head, b"\r\ntransfer-encoding:")
    if head.find(b"\r\nupgrade:") >= 0 or head.find(b"\r\nsec-websocket-key1:") >= 0:  # aiohttp heeds both
        return None
    if head.find(b"\r\nproxy-connection:") >= 0:
        return None
    length, connection = _value(head, b"\r\ncontent-length:"), _value(head, b"\r\nconnection:")
    if connection not in _KNOWN:
        return None
    if coding == b"chunked" and not length:
        return Head(match.end(), None, connection == b"close")
    if coding or not length.isdigit() or len(length) > _MAX_DIGITS:
        return None
    return Head(match.end(), int(length), connection == b"close")


def _value(head: bytes, name: bytes) -> bytes:
    """Return the value of the header `name` in lower case: "" when there is none, "?" when there are several."""
    at = head.find(name)
    if at < 0:
        return b""
    start = at + len(name)
    if head.find(name, start) >= 0:
        return _UNUSUAL
    return head[start : head.find(_CRLF, start)].strip() or _UNUSUAL


class Chunks:
    """Takes the chunks of one body apart. `ended` after the last; `rest` is then what came behind it."""

    __slots__ = ("_begun", "_kept", "_left", "ended", "rest")

    def __init__(self) -> None:
        self.ended = False
        self.rest = b""
        self._kept = b""
        self._begun = False  # inside a chunk, its CRLF not yet seen
        self._left = 0  # bytes of it still to come

    def one(self, data: bytes) -> bytes | None:
        """Return what is in `data` if that is one whole chunk and no more, as upstreams write an event; else None."""
        match = _SIZE.match(data)
        if match is None or self._begun or self._kept or self.ended:
            return None
        start, end = match.end(), len(data) - 2
        whole = int(match[1], 16) == end - start > 0 and data.endswith(_CRLF)
        return data[start:end] if whole else None

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of the body in `data`. Raises DeclinedError (an unusual size line), BrokenError."""
        if self._kept:
            data, self._kept = self._kept + data, b""
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while at < size:
            if self._begun:
                at = self._inside(data, at, pieces)
                continue
            match = _SIZE.match(data, at)
            if match is None:
                if size - at > _PART_OF_SIZE or b"\n" in data[at:]:
                    raise DeclinedError(pieces, data[at:])
                self._kept = data[at:]
                break
            self._left = int(match.group(1), 16)
            if not self._left:
                self._last(data, at, match.end(), pieces)
                break
            self._begun = True
            at = match.end()
        return pieces

    def _inside(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Take what there is of a chunk; returns where to go on."""
        if self._left:
            piece = data[at : at + self._left]
            pieces.append(piece)
            self._left -= len(piece)
            at += len(piece)
        if not self._left:
            end = data[at : at + 2]
            if end == _CRLF:
                self._begun = False
                return at + 2
            if not _CRLF.startswith(end):
                raise BrokenError(pieces)
            self._kept = end
        return len(data)

    def _last(self, data: bytes, at: int, end: int, pieces: list[bytes]) -> None:
        """Take the last chunk. Trailers are not usual."""
        if data.startswith(_CRLF, end):
            self.ended = True
            self.rest = data[end + 2 :]
        elif len(data) - end < 2 and _CRLF.startswith(data[end:]):
            self._kept = data[at:]
        else:
            raise DeclinedError(pieces, data[at:])
