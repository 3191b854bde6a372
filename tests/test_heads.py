"""Heads that were judged before: which are the same, which never count as judged, and what is kept of them."""

import asyncio
import pickle
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from proxy.client import client_of
from proxy.connection import Server
from proxy.gateway import Overrides
from proxy.heads import MAX_HEADS, Heads, Key, Last
from proxy.lane import BODY_S, Lane
from proxy.metrics import Counter
from proxy.room import Room
from tests.conftest import Wire

SECRET = b"sk-CANARY-0123456789"
SDK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:4141\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
    b"User-Agent: OpenAI/Python 3.54.0\r\nX-Stainless-Lang: python\r\nX-Stainless-Read-Timeout: 600\r\n"
    b"Authorization: Bearer " + SECRET + b"\r\nx-stainless-retry-count: 0\r\nContent-Length: 86\r\n\r\n"
)
DIGITS = SDK.index(b"86")


def sdk(length: bytes | int) -> bytes:
    return SDK.replace(b": 86\r\n", b": %b\r\n" % str(length).encode() if isinstance(length, int) else length)


def known(*data: bytes) -> Heads[str]:
    """A table in which these heads stand, each with its first line."""
    heads = Heads[str]()
    for one in data:
        heads.learn(key_of(heads, one), one.partition(b"\r\n")[0].decode())
    return heads


def key_of(heads: Heads[str], data: bytes) -> Key:
    key = heads.key(data)
    assert key is not None
    return key


def last(data: bytes = SDK) -> Last[str]:
    """The memory of a connection that has sent `data`."""
    return Last(key_of(Heads[str](), data), data, "judged", 0)


@pytest.mark.parametrize("length", [1, 9, 86, 87, 1234, 999_999_999])
def test_a_connection_knows_its_last_head(length: int) -> None:
    """With another length it is the same, and its body begins where the table says."""
    for data in (sdk(length), sdk(length) + b"{}\r\n\r\n"):
        key, wanted = last().key(data), key_of(Heads[str](), data)
        assert key is not None
        assert (key.at, key.start, key.length) == (wanted.at, wanted.start, wanted.length)


def test_any_other_byte_is_another_head() -> None:
    """A connection takes for its last head what the table would take for it, and nothing else."""
    heads, memory = known(SDK), last()
    for at in range(len(SDK)):
        for other in (SDK[:at], SDK[:at] + SDK[at + 1 :], *(SDK[:at] + x + SDK[at + 1 :] for x in (b"7", b"x", b"\r"))):
            key = heads.key(other)
            judged = key is not None and heads.get(key) is not None
            assert (memory.key(other) is not None) == judged, other


def test_what_a_connection_remembers_holds_no_secret() -> None:
    """Not the head, only a number."""
    memory = last()
    kept = [getattr(memory, name) for name in Last.__slots__]
    assert not any(SECRET in str(one).encode() for one in kept)


@pytest.mark.parametrize("length", [1, 9, 86, 87, 1234, 999_999_999])
def test_only_the_digits_differ(length: int) -> None:
    """The next request of an SDK has the head of the one before, with another length."""
    heads = known(SDK)
    data = sdk(length) + b"{}"
    key = key_of(heads, data)
    assert (key.start, key.length) == (len(data) - 2, length)
    assert heads.get(key) == "POST /v1/chat/completions HTTP/1.1"


def test_any_other_byte_makes_another_head() -> None:
    """A key, a host, an origin, a space: nothing that was not judged passes for what was."""
    heads = known(SDK)
    for at in set(range(len(SDK))) - {DIGITS, DIGITS + 1}:
        for byte in {SDK[at] ^ 0x20, SDK[at] ^ 1, 0, 0xFF, ord(" "), ord("\r"), ord("\n")} - {SDK[at]}:
            key = heads.key(SDK[:at] + bytes([byte]) + SDK[at + 1 :])
            assert key is None or heads.get(key) is None, (at, byte)


def test_one_byte_more_or_less_makes_another_head() -> None:
    """Nor does anything slip in or out; but for a digit."""
    heads = known(SDK)
    for at in range(len(SDK)):
        less = heads.key(SDK[:at] + SDK[at + 1 :] + b"\r\n\r\n")
        assert less is None or heads.get(less) is None or at in (DIGITS, DIGITS + 1), at
        for byte in b" ,\t\r\nx\0":
            data = SDK[:at] + bytes([byte]) + SDK[at:]
            more = heads.key(data)
            assert more is None or heads.get(more) is None or data.startswith(SDK), (at, byte)


NO_KEY = {
    "nothing": b"",
    "half a head": SDK[:-1],
    "another path": SDK.replace(b"completions", b"completion"),
    "a query": SDK.replace(b"completions HTTP", b"completions?a=b HTTP"),
    "a longer path": SDK.replace(b"completions HTTP", b"completions/ HTTP"),
    "another method": SDK.replace(b"POST", b"PUT"),
    "HTTP/1.0": SDK.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "an absolute path": SDK.replace(b" /v1", b" http://127.0.0.1/v1"),
    "a bare LF": SDK.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
    "no length": SDK.replace(b"Content-Length: 86\r\n", b""),
    "an empty length": sdk(b": \r\n"),
    "a sign": sdk(b": +86\r\n"),
    "a negative length": sdk(b": -86\r\n"),
    "a list": sdk(b": 86, 86\r\n"),
    "a space behind": sdk(b": 86 \r\n"),
    "a tab before": sdk(b":\t86\r\n"),
    "no space before": sdk(b":86\r\n"),
    "hex": sdk(b": 0x56\r\n"),
    "a digit of another script": sdk(": ٨\r\n".encode()),
    "a superscript": sdk(b": \xb2\r\n"),
    "ten digits": sdk(b": 1000000000\r\n"),
    "a folded length": sdk(b": \r\n 86\r\n"),
    "capitals": SDK.replace(b"Content-Length", b"CONTENT-LENGTH"),
    "a long head": SDK.replace(b"python\r\n", b"python" + b"x" * 8190 + b"\r\n"),
    "another length behind": SDK.replace(b"\r\n\r\n", b"\r\nx-length: 5\r\n\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("data", NO_KEY.values(), ids=NO_KEY)
def test_what_has_no_key(data: bytes) -> None:
    """What is not a whole chat request's head, spelled as clients do, is aiohttp's in any case."""
    assert Heads[str]().key(data) is None


LOOKALIKES = {
    "another header's end": b"X-Content-Length: 5",
    "one letter before": b"xcontent-length: 5",
    "one letter instead": b"Montent-Length: 5",
    "in a value": b"x-note: Content-Length: 5",
    "in a quoted value": b'x-note: "content-length: 5',
}


@pytest.mark.parametrize("line", LOOKALIKES.values(), ids=LOOKALIKES)
def test_another_headers_digits_are_not_the_length(line: bytes) -> None:
    """Digits that only look like the body's length are part of the head: they neither change nor say a length."""
    heads = Heads[str]()
    for place in (b"Host:", b"Content-Length: 86\r\n"):
        data = (
            SDK.replace(place, line + b"\r\n" + place)
            if place == b"Host:"
            else SDK.replace(place, place + line + b"\r\n")
        )
        key = heads.key(data)
        assert key is None or key.length == 86
        other = heads.key(data.replace(b": 5", b": 7"))
        assert other is None or key is None or other.digest != key.digest


def test_no_two_doors_are_one() -> None:
    """/chat/completions is the same door, but another head."""
    heads = known(SDK)
    short = SDK.replace(b" /v1", b" ")
    assert heads.get(key_of(heads, short)) is None
    heads.learn(key_of(heads, short), "short")
    assert heads.get(key_of(heads, SDK)) == "POST /v1/chat/completions HTTP/1.1"


# ---- what is kept ------------------------------------------------------------------------------------------------


def test_the_table_is_bounded() -> None:
    """A client that numbers its requests in a header fills it up; the oldest head goes first."""
    heads = Heads[int]()
    keys = [heads.key(SDK.replace(b"count: 0", b"count: %d" % number)) for number in range(MAX_HEADS + 10)]
    for number, key in enumerate(keys):
        assert key is not None
        heads.learn(key, number)
    assert [heads.get(key) for key in keys if key] == [None] * 10 + list(range(10, MAX_HEADS + 10))


def test_no_key_can_be_read_from_the_table() -> None:
    """Neither the head nor its secret is kept, and a plain digest of it, which guesses can be tried on, neither."""
    heads = known(SDK, SDK.replace(SECRET, b"sk-other"))
    held = pickle.dumps([getattr(heads, name) for name in Heads.__slots__]) + repr(heads).encode()
    for part in (SECRET, SECRET[:8], b"Bearer", b"Host"):
        assert part not in held
        assert part.hex().encode() not in held


def test_two_processes_have_nothing_in_common() -> None:
    """The digest of one head tells nothing of another table's."""
    one, other = Heads[str](), Heads[str]()
    assert key_of(one, SDK).digest != key_of(other, SDK).digest
    assert key_of(one, SDK) == key_of(one, SDK)
    assert other.get(key_of(known(SDK), SDK)) is None


# ---- which heads are learned -------------------------------------------------------------------------------------

UNUSUAL = {
    "two lengths": SDK.replace(b"Host", b"Content-Length: 86\r\nHost"),
    "chunks": SDK.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost"),
    "only chunks": SDK.replace(b"Content-Length: 86", b"x-content-length: 86\r\nTransfer-Encoding: chunked"),
    "expect": SDK.replace(b"Host", b"Expect: 100-continue\r\nHost"),
    "upgrade": SDK.replace(b"Connection: keep-alive", b"Connection: upgrade\r\nUpgrade: h2c"),
    "an upgrade without a word of it": SDK.replace(b"Host", b"Upgrade: h2c\r\nHost"),
    "close": SDK.replace(b"keep-alive", b"close"),
    "close in a list": SDK.replace(b"keep-alive", b"keep-alive, close"),
    "compressed": SDK.replace(b"Host", b"Content-Encoding: identity\r\nHost"),
    "two hosts": SDK.replace(b"Host", b"Host: 127.0.0.1\r\nHost"),
    "HTTP/1.0": SDK.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a query": SDK.replace(b"completions HTTP", b"completions?a=b HTTP"),
    "another path": SDK.replace(b"completions HTTP", b"completions/x HTTP"),
    "another method": SDK.replace(b"POST", b"PUT"),
}  # fmt: skip


async def learned(data: bytes) -> int:
    """How many heads a server knows after `data`, whose handler lets everything through."""

    async def handle(http: web.BaseRequest) -> web.StreamResponse:
        http.protocol.learn(http, Overrides())  # type: ignore[attr-defined]
        client = client_of(http)
        client.send(200, "", await http.read() and b"{}")
        return client.sent()

    async def never(client: Any, judged: Overrides, body: bytes) -> None:
        raise AssertionError

    lane = Lane(never, Room(1, Counter("shed", "")), 1 << 20, BODY_S)
    server = Server(handle, lambda error: "", lane=lane)
    async with await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0) as listener:
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
        await Wire(reader, writer).ask(data, head=True)
        writer.transport.abort()
    await server.shutdown(0.1)
    return len(lane.heads._seen)


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL)
async def test_an_unusual_head_is_never_learned(data: bytes) -> None:
    """Where more than the length decides how a body is read, aiohttp's parser decides, every time."""
    body = b"56\r\n" + b"x" * 86 + b"\r\n0\r\n\r\n" if b"chunked" in data else b"x" * 86
    assert await learned(data + body) == 0


@pytest.mark.parametrize("extra", [b"", b"Origin: http://localhost\r\n", b"x-sidecar-fallback: off\r\n"])
async def test_a_usual_head_is_learned(extra: bytes) -> None:
    """The head of an SDK is."""
    assert await learned(SDK.replace(b"Host", extra + b"Host") + b"x" * 86) == 1


# ---- side by side with aiohttp's parser --------------------------------------------------------------------------


def parsed(data: bytes) -> object:
    """What aiohttp's parser, made as its server makes it, says of a head; but for the length of the body."""
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(
        BaseProtocol(loop), loop, 1 << 16, max_line_size=8190, max_field_size=8190, max_headers=128,
        payload_exception=web.RequestPayloadError, auto_decompress=False, max_msg_queue_size=16,
    )  # fmt: skip
    try:
        messages = parser.feed_data(data)[0]
    except HttpProcessingError as error:
        return type(error)
    (message, body), *_ = messages
    headers = [(name, value) for name, value in message.headers.items() if name.lower() != "content-length"]
    places = [at for at, (name, _) in enumerate(message.headers.items()) if name.lower() == "content-length"]
    plain = SimpleNamespace(
        method=message.method, path=message.path, version=message.version, headers=headers, places=places,
        closes=message.should_close, compression=message.compression, upgrade=message.upgrade, chunked=message.chunked,
    )  # fmt: skip
    return plain, body.is_eof()


WORDS = [
    b"Host: localhost", b"Host: evil.example", b"Content-Length: 0", b"X-Content-Length: 5", b"x-length: 7", b"X: y",
    b"Authorization: Bearer a", b"Authorization: Bearer b", b"Transfer-Encoding: chunked", b"Expect: 100-continue",
    b"Connection: close", b"Content-Encoding: gzip", b"x: ength: 8", b"x: Content-Length: 9", b"xcontent-length: 2",
    b"x: a\r\n b", b"X : y", b"\xe9: \xe9", b"x: \0", b"Origin: http://evil.example", b"content-length: 3",
]  # fmt: skip


def a_head(random: Random) -> bytes:
    """A chat request's head with a few lines, and a length somewhere."""
    lines = random.choices(WORDS, k=random.choice([0, 1, 1, 2, 3]))
    name = random.choice([b"Content-Length: ", b"content-length: "])
    lines.insert(random.randrange(len(lines) + 1), name + random.choice([b"1", b"02", b"34", b"567"]))
    door = random.choice([b"POST /v1/chat/completions HTTP/1.1", b"POST /chat/completions HTTP/1.1"])
    data = b"\r\n".join([door, b"Host: 127.0.0.1", *lines, b"", b""])
    if random.random() < 0.3:
        at = random.randrange(len(data))
        data = data[:at] + random.choice([b"", b"1", b"\n", b"\r", b" ", b":"]) + data[at + random.randrange(2) :]
    return data


def other_digits(data: bytes, random: Random) -> bytes:
    """`data` with one run of digits changed."""
    places = [at for at in range(34, len(data)) if data[at : at + 1].isdigit()]
    at = random.choice(places)
    return data[:at] + random.choice([b"", b"1", b"23", b"0"]) + data[at + 1 :]


@pytest.mark.parametrize("seed", range(4))
async def test_heads_with_the_same_key_say_the_same(seed: int) -> None:
    """Whatever aiohttp's parser makes of one of them, it makes of the other: the same message, or the same refusal."""
    random, heads = Random(seed), Heads[str]()
    met: dict[bytes, tuple[bytes, object, int]] = {}
    same = 0
    for _ in range(600):
        first = a_head(random)
        for data in (first, other_digits(first, random), other_digits(first, random)):
            key = heads.key(data)
            if key is None:
                continue
            said = parsed(data)
            before, told, length = met.setdefault(key.digest, (data, said, key.length))
            # A length of zero ends the message with its head; the lane takes none.
            if 0 not in (length, key.length):
                assert said == told, (before, data)
                same += before != data
    assert same > 100
