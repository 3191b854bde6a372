"""Request heads that were judged before: the same bytes get the same verdict, so they need not be parsed again.

An SDK sends the same head with every request, only the digits of its content-length differ. A head that aiohttp's
parser and `admission` have let through is remembered without those digits; one that equals it goes straight to the
chat door. Any other head goes to aiohttp's parser, always. Without this a request costs 1.5 times as much
(`loadtests/README.md`).

Heads hold keys, so only a salted digest of each is kept; the salt is drawn anew for every process.
"""

from hashlib import sha256
from secrets import token_bytes
from typing import Final, Generic, TypeVar

import msgspec
from aiohttp import web

T = TypeVar("T")

# Heads remembered; the oldest goes first. An SDK has a handful, a client that numbers its requests in a header has
# a new one each time and gains nothing.
MAX_HEADS: Final = 1024
# aiohttp's own limit for a line; usual heads are shorter in all.
_MAX_HEAD: Final = 8190
_DOORS: Final = (b"POST /v1/chat/completions HTTP/1.1\r\n", b"POST /chat/completions HTTP/1.1\r\n")
_LENGTH: Final = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_MAX_DIGITS: Final = 9
_CRLF: Final = b"\r\n"


class Key(msgspec.Struct, frozen=True, gc=False):
    """Which head it is, where its digits stand and its body starts, and the body's `length` in bytes."""

    digest: bytes
    at: int
    start: int
    length: int


class Last(Generic[T]):
    """The head that a connection has sent last, and what it was `judged`. An SDK sends it again and again, so it is
    looked for first: at the same place, by Python's own keyed hash. That takes 0.8 us, a search and a digest 3.1.
    """

    __slots__ = ("_at", "_mark", "_size", "era", "judged")

    def __init__(self, key: Key, data: bytes, judged: T, era: int) -> None:
        stop = data.index(_CRLF, key.at)
        self._at = key.at
        self._size = key.start - stop
        self._mark = hash(data[: key.at] + data[stop : key.start])
        self.judged = judged
        self.era = era

    def key(self, data: bytes) -> Key | None:
        """Return the key of the head at the start of `data` if it is this one, without a digest."""
        at = self._at
        stop = data.find(_CRLF, at, at + _MAX_DIGITS + 2)
        start = stop + self._size
        if stop < 0 or hash(data[:at] + data[stop:start]) != self._mark:
            return None
        digits = data[at:stop]
        return Key(b"", at, start, int(digits)) if digits.isdigit() else None


class Heads(Generic[T]):
    """A bounded table from heads to what they ask for. What was judged in another `era` is not to be relied on."""

    __slots__ = ("_salt", "_seen", "era")

    def __init__(self) -> None:
        self._salt = token_bytes(32)
        self._seen: dict[bytes, T] = {}
        self.era = 0

    def key(self, data: bytes) -> Key | None:
        """Return the key of the head at the start of `data`; None when it is not whole or not a chat request's."""
        if not data.startswith(_DOORS):
            return None
        end = data.find(b"\r\n\r\n")
        # The last place that spells the name's end: cutting digits out makes no other place the last, so that two
        # heads are equal without their digits only if these stood at the same place.
        at = data.rfind(b"ength: ", 0, max(end, 0)) + 7
        if not 7 < at < _MAX_HEAD or end > _MAX_HEAD or not data.startswith(_LENGTH, at - len(_LENGTH[0])):
            return None
        stop = data.find(b"\r\n", at)
        digits = data[at:stop]
        if not digits.isdigit() or len(digits) > _MAX_DIGITS:
            return None
        return Key(sha256(self._salt + data[:at] + data[stop:end]).digest(), at, end + 4, int(digits))

    def get(self, key: Key) -> T | None:
        """Return what the head asks for; None when it has not been judged."""
        return self._seen.get(key.digest)

    def learn(self, key: Key, judged: T) -> None:
        """Remember a head that was let through."""
        if len(self._seen) >= MAX_HEADS:
            del self._seen[next(iter(self._seen))]
        self._seen[key.digest] = judged

    def forget(self) -> None:
        """Forget all."""
        self._seen.clear()
        self.era += 1


def usual(request: web.BaseRequest) -> bool:
    """Say whether nothing but its length decides how the body of `request` is read, and its connection stays open."""
    headers = request.headers
    single = len(headers.getall("Content-Length", ())) == 1 and len(headers.getall("Host", ())) == 1
    other = ("Transfer-Encoding", "Content-Encoding", "Expect", "Upgrade")
    return single and request.keep_alive and request.version == (1, 1) and not any(name in headers for name in other)
