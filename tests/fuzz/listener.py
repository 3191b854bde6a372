"""What must hold for whatever a client writes on a connection: with the short lane it gets what it gets without.

No sockets: the bytes go to `Connection` as the event loop would hand them on, in pieces, and answers are read from a
transport that keeps them. Every request is answered at once with a digest of its path and body.
"""

import asyncio
import re
from collections.abc import Iterable
from hashlib import sha256
from random import Random
from typing import Any, Final, NamedTuple
from zlib import crc32

from aiohttp import web

from proxy.admission import LOOPBACK, Admission
from proxy.client import Client, client_of
from proxy.connection import Connection, Server
from proxy.errors import ClientError, ProxyError
from proxy.lane import Lane
from proxy.metrics import Metrics
from proxy.room import Room
from tests.raw_cases import BODY, CASES, SECRET, head

_GOOD: Final = head(f"content-length: {len(BODY)}") + BODY
_ANSWER: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[a-z-]+: [^\r\n]*\r\n)*)\r\n")
_LENGTH: Final = re.compile(rb"(?:^|\n)content-length: (\d+)\r\n")
_BEGINNING: Final = re.compile(rb"(?:POST|GET|HEAD|OPTIONS) ")
_TURNS: Final = 12


class Answer(NamedTuple):
    """One answer; `last` that it announced the end of the connection."""

    status: int
    body: bytes
    last: bool


class _Head(NamedTuple):
    """What the door remembers of a head."""

    said: str
    batch: bool = False


class _Kept(asyncio.Transport):
    """A connection whose client takes everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += b"" if self.closed else bytes(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return True

    def pause_reading(self) -> None:
        """It goes on all the same."""

    def resume_reading(self) -> None:
        """It never stopped."""


class _Door:
    """Answers what is let in. `asked` counts requests and refusals, `taken` requests of the short lane."""

    def __init__(self) -> None:
        self.asked = 0
        self.taken = 0
        self.admission = Admission(LOOPBACK)

    def refuse(self, error: ProxyError) -> str:
        """Note a refusal of the connection's own."""
        self.asked += 1
        return ""

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """As the chat door does, for whatever path."""
        self.asked += 1
        client = client_of(http)
        try:
            self.admission.check_caller(http.headers)
            body = await self.admission.read(http)
        except ClientError as error:
            client_of(http).fail("", error)
            return client.sent()
        assert isinstance(http.protocol, Connection)
        judged = _Head(f"{http.method} {http.raw_path}")
        http.protocol.learn(http, judged)
        client = client_of(http)
        self.answer(client, judged, body)
        return client.sent()

    async def known(self, client: Client, judged: _Head, body: bytes) -> None:
        """The same on the short lane."""
        self.asked += 1
        self.taken += 1
        self.answer(client, judged, body)

    def answer(self, client: Client, judged: _Head, body: bytes) -> None:
        """Say which request this was taken for."""
        client.send(200, "", sha256(judged.said.encode("utf-8", "surrogateescape") + body).hexdigest().encode())


def client_bytes(data: bytes) -> bool:
    """Answers are whole, one for each request at most, and the same whichever way the requests took."""
    return asyncio.run(_both(data))


def seeds() -> Iterable[bytes]:
    """Return the cases of the raw tests behind good requests, so that their heads are known."""
    return [_GOOD + _GOOD + case.data for case in CASES.values() if len(case.data) < 4000]


async def _both(data: bytes) -> bool:
    pieces = pieces_of(data)
    without, _ = await _said(pieces, lane=False)
    shorter, taken = await _said(pieces, lane=True)
    slowly, _ = await _said(data.splitlines(keepends=True), lane=False)
    check_alike(without, shorter)
    check_let_in(let_in(without), let_in(shorter), let_in(slowly))
    return taken > 0


def pieces_of(data: bytes) -> list[bytes]:
    """Cut `data` where most requests begin, as clients do, and sometimes elsewhere; the same for the same `data`."""
    random = Random(crc32(data))
    places = [match.start() for match in _BEGINNING.finditer(data) if random.random() < 0.9]
    places += [random.randrange(len(data) + 1) for _ in range(random.choice((0, 0, 1, 3)))]
    ordered = sorted(places)
    return [data[at:end] for at, end in zip([0, *ordered], [*ordered, len(data)], strict=True)]


async def _said(pieces: list[bytes], *, lane: bool) -> tuple[list[Answer], int]:
    """Return the answers to these pieces of a connection, and how many of them took the short lane."""
    loop, door, faults = asyncio.get_running_loop(), _Door(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    short = Lane[_Head](door.known, Room(100, Metrics().shed), 1 << 20, 30.0) if lane else None
    server = Server(door.handle, door.refuse, lane=short)
    connection, transport = server(), _Kept()
    connection.connection_made(transport)
    for piece in pieces:
        if not transport.closed:
            connection.data_received(piece)
        await _turns(_TURNS)
    await _turns(_TURNS)
    answers = list(parsed(transport.said))
    connection.connection_lost(None)
    await _turns(_TURNS)
    await server.shutdown(0)
    assert not faults, faults
    assert len(answers) <= door.asked
    assert SECRET[:12].encode() not in transport.said
    return answers, door.taken


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def parsed(said: bytes) -> Iterable[Answer]:
    """Take the answers apart: whole ones only, and none behind the last."""
    at, last = 0, False
    while at < len(said):
        match = _ANSWER.match(said, at)
        assert match is not None, said[at:]
        assert not last
        status, lines = int(match.group(1)), match.group(2)
        at = match.end()
        if status < 200:
            continue  # a go-ahead
        length = _LENGTH.search(lines)
        assert length is not None
        size = int(length.group(1))
        body = said[at : at + size]
        # The answer to a HEAD names the length of what is left out.
        if body[:9] == b"HTTP/1.1 " or not body:
            body, size = b"", 0
        assert len(body) == size
        at += size
        last = b"connection: close\r\n" in lines
        yield Answer(status, body, last)


def check_alike(without: list[Answer], shorter: list[Answer]) -> None:
    """The same answers; but aiohttp's parser refuses all of a piece with one bad byte in it, and the lane takes from it
    what is good before it.
    """
    if without != shorter:
        assert without[-1:], shorter
        assert without[-1].status == 400, (without, shorter)
        assert without[:-1] == shorter[: len(without) - 1], (without, shorter)


def let_in(answers: list[Answer]) -> list[bytes]:
    """Return the digests of the requests that were answered."""
    return [one.body for one in answers if one.status == 200]


def check_let_in(*ways: list[bytes]) -> None:
    """Whichever way, and however cut, the same requests are let in: one may stop earlier, none may see another one."""
    longest = max(ways, key=len)
    for way in ways:
        assert way == longest[: len(way)], ways
