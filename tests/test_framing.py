"""The own reader of usual answers: what it takes, what it declines, and that aiohttp's parser would have read alike."""

import asyncio
from collections.abc import Iterable
from itertools import pairwise
from random import Random
from typing import NamedTuple

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError, TransferEncodingError
from aiohttp.http_parser import HttpResponseParser

from proxy.foreign import READ_AHEAD
from proxy.framing import BrokenError, Chunks, DeclinedError, Head, read_head
from proxy.link import Link

OK = b"HTTP/1.1 200 OK\r\n"

# ---- heads -------------------------------------------------------------------------------------------------------

USUAL = {
    "length": (b"content-length: 12\r\n", 12, False),
    "length, spelled otherwise": (b"CONTENT-LENGTH:12\r\n", 12, False),
    "zero": (b"content-length: 0\r\n", 0, False),
    "leading zeros": (b"content-length: 0012\r\n", 12, False),
    "fifteen digits": (b"content-length: 999999999999999\r\n", 999_999_999_999_999, False),
    "chunked": (b"transfer-encoding: chunked\r\n", None, False),
    "Chunked": (b"Transfer-Encoding:  Chunked \r\n", None, False),
    "keep-alive": (b"content-length: 1\r\nConnection: Keep-Alive\r\n", 1, False),
    "close": (b"Connection: Close\r\ncontent-length: 1\r\n", 1, True),
    "an empty header": (b"x-empty:\r\ncontent-length: 1\r\n", 1, False),
}


@pytest.mark.parametrize(("lines", "length", "closes"), USUAL.values(), ids=USUAL)
def test_a_usual_head(lines: bytes, length: int | None, closes: bool) -> None:
    """A head says how long it is, how long its body, and whether the connection ends behind it."""
    data = OK + lines + b"\r\n"
    assert read_head(data + b"12\r\n") == Head(len(data), length, closes)


ONE = b"content-length: 1\r\n"
UNUSUAL = {
    "no length": b"server: x\r\n",
    "no headers": b"",
    "two lengths": ONE + ONE,
    "two lengths that differ": ONE + b"content-length: 2\r\n",
    "a list of lengths": b"content-length: 1, 1\r\n",
    "an empty length": b"content-length:\r\n",
    "a sign": b"content-length: +1\r\n",
    "a negative length": b"content-length: -1\r\n",
    "a fraction": b"content-length: 1.0\r\n",
    "sixteen digits": b"content-length: 1000000000000000\r\n",
    "a length and chunks": ONE + b"transfer-encoding: chunked\r\n",
    "chunks and an empty length": b"content-length:\r\ntransfer-encoding: chunked\r\n",
    "two codings": b"transfer-encoding: gzip, chunked\r\n",
    "chunks twice": b"transfer-encoding: chunked\r\n" * 2,
    "another coding": b"transfer-encoding: identity\r\n" + ONE,
    "an empty coding": b"transfer-encoding:\r\n" + ONE,
    "compressed": b"content-encoding: gzip\r\n" + ONE,
    "identity": b"Content-Encoding: identity\r\n" + ONE,
    "upgrade": b"Upgrade: h2c\r\n" + ONE,
    "a list of connections": b"connection: keep-alive, upgrade\r\n" + ONE,
    "two connections": b"connection: close\r\nconnection: keep-alive\r\n" + ONE,
    "an empty connection": b"connection:\r\n" + ONE,
    "a space before the colon": b"server : x\r\n" + ONE,
    "no name": b": x\r\n" + ONE,
    "no colon": b"server\r\n" + ONE,
    "a folded line": b"server: a\r\n b\r\n" + ONE,
    "a folded length": b"content-length:\r\n 1\r\n",
    "a tab": b"server: a\tb\r\n" + ONE,
    "a bare LF": b"server: a\n" + ONE,
    "a bare CR": b"server: a\rb\r\n" + ONE,
    "NUL": b"server: \0\r\n" + ONE,
    "DEL": b"server: \x7f\r\n" + ONE,
    "obs-text": b"server: \xe9\r\n" + ONE,
    "obs-text in a name": b"serv\xe9r: x\r\n" + ONE,
    "a long head": b"server: " + b"x" * 8190 + b"\r\n" + ONE,
}


@pytest.mark.parametrize("lines", UNUSUAL.values(), ids=UNUSUAL)
def test_an_unusual_head(lines: bytes) -> None:
    """Whatever is not surely understood is declined."""
    assert read_head(OK + lines + b"\r\n") is None


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 201 OK\r\n", b"HTTP/1.1 204 OK\r\n", b"HTTP/1.1 404 X\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"http/1.1 200 OK\r\n", b"HTTP/1.1  200 OK\r\n", b"HTTP/1.1 200\r\n",
        b"HTTP/1.1 2000 OK\r\n", b"HTTP/1.1 200 OK\n", b"HTTP/1.1 200 O\0K\r\n", b"\r\n" + OK, b" " + OK,
        b"HTTP/1.1 200 \xe9\r\n", b"ICY 200 OK\r\n", b"",
    ],
)  # fmt: skip
def test_an_unusual_status_line(line: bytes) -> None:
    """Only 200 in HTTP/1.1, spelled as everybody does."""
    assert read_head(line + ONE + b"\r\n") is None


MEANS_MORE = {
    "an old way to say close": b"Proxy-Connection: close\r\n" + ONE,
    "an old way to say keep-alive": b"connection: close\r\nproxy-connection: keep-alive\r\n" + ONE,
    "a websocket's": b"sec-websocket-key1: x\r\n" + ONE,
    "129 headers": b"".join(b"x-%d: y\r\n" % number for number in range(128)) + ONE,
}


@pytest.mark.parametrize("lines", MEANS_MORE.values(), ids=MEANS_MORE)
async def test_a_head_that_means_more_than_it_seems(lines: bytes) -> None:
    """What aiohttp's parser refuses, or takes for the last on its connection, is not taken for a usual answer."""
    data = OK + lines + b"\r\nx"
    check_alike(data, await by_link([data]), by_aiohttp(data))


def test_half_a_head_is_declined() -> None:
    """A head that came in two pieces is rare, and left to aiohttp's parser."""
    whole = OK + ONE + b"\r\n"
    assert [read_head(whole[:size]) for size in range(len(whole))] == [None] * len(whole)


# ---- chunks ------------------------------------------------------------------------------------------------------

CHUNKED = b"5\r\nhello\r\n1\r\n \r\n00A\r\n0123456789\r\na\r\nabcdefghij\r\n0\r\n\r\n"
SAID = b"hello 0123456789abcdefghij"


def test_every_cut_gives_the_same_body() -> None:
    """How a body is cut into packets does not matter."""
    for first in range(len(CHUNKED) + 1):
        for second in range(first, len(CHUNKED) + 1):
            chunks = Chunks()
            cut = [CHUNKED[:first], CHUNKED[first:second], CHUNKED[second:]]
            assert b"".join(piece for part in cut for piece in chunks.feed(part)) == SAID
            assert (chunks.ended, chunks.rest) == (True, b"")


@pytest.mark.parametrize("rest", [b"\r\n", b"\0", b"HTTP/1.1 200 OK\r\n"])
@pytest.mark.parametrize("last", [b"0\r\n\r\n", b"000\r\n\r\n", b"00000000\r\n\r\n"])
def test_what_comes_behind_the_last_chunk(last: bytes, rest: bytes) -> None:
    """It is none of the body's, and is told apart."""
    chunks = Chunks()
    assert (chunks.feed(b"1\r\na\r\n" + last + rest), chunks.ended, chunks.rest) == ([b"a"], True, rest)


@pytest.mark.parametrize(
    "odd",
    [
        b"5;a=b\r\n", b"5 \r\n", b" 5\r\n", b"5\n", b"-1\r\n", b"+1\r\n", b"0x5\r\n", b"\r\n", b"g\r\n", b"1_0\r\n",
        b"123456789\r\n", b"\xd9\xa3\r\n", b"0\r\nx: y\r\n\r\n", b"0\r\n\n", b"0;x\r\n\r\n", b"0\r\nx",
    ],
)  # fmt: skip
def test_an_odd_size_line_is_declined_at_its_beginning(odd: bytes) -> None:
    """Whoever reads on begins at the chunk; what was read before it is not lost."""
    chunks = Chunks()
    with pytest.raises(DeclinedError) as declined:
        chunks.feed(b"1\r\na\r\n" + odd)
    assert (declined.value.pieces, declined.value.rest, chunks.ended) == ([b"a"], odd, False)


@pytest.mark.parametrize("odd", [b"5;a=b\r\n", b"0\r\nx: y\r\n\r\n", b"123456789\r\n"])
def test_an_odd_size_line_byte_by_byte(odd: bytes) -> None:
    """What is declined is the line from its beginning, whatever the packets were."""
    chunks = Chunks()
    told = ((odd[: at + 1], declined(chunks, odd[at : at + 1])) for at in range(len(odd)))
    fed, rest = next(pair for pair in told if pair[1] is not None)
    assert rest == fed


def declined(chunks: Chunks, data: bytes) -> bytes | None:
    """What is declined of `data`, which has no body in it; None when it is not."""
    try:
        chunks.feed(data)
    except DeclinedError as unusual:
        return unusual.rest
    return None


@pytest.mark.parametrize("behind", [b"x", b"\n", b"\rx", b"\r\r", b"5\r\n"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_chunk_that_does_not_end_where_it_said(behind: bytes, cut: bool) -> None:
    """Where sizes and bytes disagree there is no telling what is body; what was read before it stands."""
    chunks, before = Chunks(), b"2\r\nab"
    kept = chunks.feed(before) if cut else []
    with pytest.raises(BrokenError) as broken:
        chunks.feed(behind if cut else before + behind)
    assert (kept + broken.value.pieces, chunks.ended) == ([b"ab"], False)


# ---- side by side with aiohttp's parser --------------------------------------------------------------------------


class Still(asyncio.Transport):
    """A connection on which nothing moves by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Nobody reads it."""

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    def resume_reading(self) -> None:
        """Nothing comes by itself."""

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed


class Read(NamedTuple):
    """What was made of some bytes. `rest`: bytes came behind the whole answer; `own` says who read it."""

    code: int | None
    closes: bool
    body: bytes
    whole: bool
    rest: bool
    error: BaseException | None = None
    own: str = ""


def by_aiohttp(data: bytes) -> Read:
    """What aiohttp's parser makes of `data`. Byte by byte: of a piece it chokes on it tells nothing."""
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    parser = HttpResponseParser(protocol, loop, READ_AHEAD, read_until_eof=True)
    protocol._parser = parser
    message, body, failed, fed = None, None, False, 0
    try:
        for place in range(len(data)):
            for said, stream in parser.feed_data(data[place : place + 1])[0]:
                if said.code >= 200:
                    message, body = said, stream
            fed = place + 1
            if body is not None and body.is_eof():
                break
        else:
            parser.feed_eof()
    except HttpProcessingError:
        failed = True
    if message is None or body is None:
        return Read(None, False, b"", False, False)
    whole = body.is_eof() and not failed
    return Read(message.code, message.should_close, b"".join(body._buffer), whole, fed < len(data))


async def by_link(pieces: Iterable[bytes]) -> Read:
    """What a connection to an upstream makes of `pieces`, the end of the connection behind them."""
    loop = asyncio.get_running_loop()
    link, transport = Link(loop, float("inf")), Still()
    link.connection_made(transport)
    link.ask(b"", b"", float("inf"))
    asking = loop.create_task(link.hear())
    await asyncio.sleep(0)
    for piece in pieces:
        if not transport.closed:
            link.data_received(piece)
    declined = link._foreign is not None
    own = ("a part" if link._head else "nothing") if declined else "all"
    free = link.usable
    link.connection_lost(None)
    body = b""
    try:
        answer = await asking
        while data := await link.read():
            body += data
    except (HttpProcessingError, aiohttp.ClientError) as error:
        code, closes = (link.answer.code, link.answer.should_close) if link.answer is not None else (None, False)
        return Read(code, closes, body, False, not free, error, own)
    assert link.complete()
    free = free and link.done()
    return Read(answer.code, answer.should_close, body, True, not free and not answer.should_close, None, own)


def check_alike(data: bytes, ours: Read, theirs: Read) -> None:
    """The rule: the same body and the same end, or declined; a chunk without its CRLF may be an error only here."""
    if ours.own == "nothing":
        return
    assert (ours.code, ours.closes) == (theirs.code, theirs.closes), data
    if ours.whole:
        assert (ours.body, theirs.whole) == (theirs.body, True), data
        assert ours.closes or ours.own != "all" or ours.rest == theirs.rest, data
    else:
        assert theirs.body.startswith(ours.body), data
        stricter = ours.own == "all" and isinstance(ours.error, TransferEncodingError)
        assert stricter or not theirs.whole, data


HARD = {
    "length": OK + b"content-length: 5\r\n\r\nhello",
    "length, more": OK + b"content-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n",
    "length, cut": OK + b"content-length: 5\r\n\r\nhell",
    "nothing": OK + b"content-length: 0\r\n\r\n",
    "close": OK + b"connection: close\r\ncontent-length: 2\r\n\r\nhi",
    "chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunks, more": OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED + b"\r\n",
    "chunks, cut": OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED[:-1],
    "an extension": OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
    "trailers": OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n",
    "no CRLF behind a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc2\r\nde\r\n0\r\n\r\n",
    "LF behind a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n",
}


@pytest.mark.parametrize("data", HARD.values(), ids=HARD)
async def test_every_cut_is_read_as_aiohttp_reads_it(data: bytes) -> None:
    """Byte by byte, in one piece, and in every two."""
    theirs = by_aiohttp(data)
    check_alike(data, await by_link(data[at : at + 1] for at in range(len(data))), theirs)
    for at in range(1, len(data) + 1):
        check_alike(data, await by_link([data[:at], data[at:]] if at < len(data) else [data]), theirs)


CASES = 400
LINES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 \r\n", b"HTTP/1.1 200 all is well\r\n", b"HTTP/1.1 200\r\n",
    b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\n", b"HTTP/1.1 201 Made\r\n", b"HTTP/1.1 200 \xe9\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
]  # fmt: skip
HARMLESS = [
    b"server: x", b"Date: Mon, 01 Jan 2024 00:00:00 GMT", b"x-request-id: 7", b"content-type: text/event-stream",
    b"x-empty:", b"x-tab:\ta\tb\t", b"set-cookie: a=b; Path=/", b"set-cookie: c=d", b"Connection: keep-alive",
    b"x-content-length: 3", b"x-transfer-encoding: chunked", b"x-note: content-length: 3", b"Keep-Alive: timeout=5",
    b"via: 1.1 google", b"x!#$%&'*+-.^_`|~9: x",
]  # fmt: skip
ODD = [
    b"Connection: close", b"connection: CLOSE ", b"connection: close, keep-alive", b"connection: upgrade",
    b"connection:", b"connection: x", b"Proxy-Connection: close", b"proxy-connection: keep-alive",
    b"Content-Length: 5", b"content-length: 6", b"content-length : 5", b"content-length:\t5", b"content-length: 5\t",
    b"content-length: 5, 5", b"content-length: +5", b"content-length: 0x5", b"content-length: 05",
    b"content-length: 18446744073709551616", b"content-length: 99999999999", b"content-length:",
    b"transfer-encoding: chunked", b"Transfer-Encoding: CHUNKED", b"transfer-encoding: chunked, identity",
    b"transfer-encoding: gzip, chunked", b"transfer-encoding: x", b"transfer-encoding:", b"transfer-encoding:\tchunked",
    b"transfer-encoding: \x0bchunked", b"transfer-encoding: chunked;q=1", b"content-encoding: identity",
    b"content-encoding: x", b"upgrade: h2c", b"Upgrade: websocket", b"x: a\r\n folded", b"x: a\r\n\tfolded", b" x: y",
    b"x: \0", b"x: \x01", b"x: \x7f", b"x: \xe9", b"x\xe9: y", b"x : y", b": y", b"x", b"x: a\rb", b"x: a\nb: c",
    b"(x): y", b"x[1]: y", b"sec-websocket-key1: x", b"trailer: x",
]  # fmt: skip
ENDS = [b"\r\n"] * 30 + [b"\n", b"\r", b" \r\n"]
BEHIND = [b""] * 6 + [b"\r\n", b"\n", b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", b"\0"]
SIZES = [
    b"%x", b"%X", b"0%x", b"000%x", b"0000000%x", b"00000000000%x", b"%x ", b" %x", b"%x\t", b"%x;a", b"%x;a=b",
    b"%x ;a", b'%x;a="b"', b"%x;", b"0x%x", b"+%x", b"-%x", b"%xg", b"1000000%x", b"FFFFFFFF%x",
    b"FFFFFFFFFFFFFFFF%x", b"",
]  # fmt: skip
AFTER = [b"\r\n"] * 20 + [b"", b"\n", b"\r", b"\r\r\n", b"x", b"\r\n\r\n"]
LAST = [b"0\r\n\r\n"] * 12 + [
    b"00\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"0\r\n x\r\n\r\n", b"0;a=b\r\n\r\n", b"0 \r\n\r\n", b"0\r\n", b"0\r\n\r",
    b"0\r\n\n", b"0\n\n", b"", b"0\r\nx\r\n\r\n", b"0\r\ncontent-length: 9\r\n\r\n", b"0\r\n\0",
]  # fmt: skip


def a_body(random: Random) -> tuple[bytes, bytes]:
    """A header that frames a body, and the body, good or odd."""
    texts = [random.choice([b"a", b"hello", b"\r\n", b"data: {}\n\n", b"0\r\n\r\n", bytes(17)]) for _ in range(3)]
    behind = random.choice(BEHIND)
    if random.random() < 0.4:
        text = b"".join(texts)
        return b"Content-Length: %d" % (len(text) + random.choice([0] * 9 + [1, -1])), text + behind
    odd = random.random() < 0.5
    framed = b""
    for text in texts:
        size = random.choice(SIZES if odd and random.random() < 0.4 else SIZES[:4])
        size = size % len(text) if b"%" in size else size
        framed += size + b"\r\n" + text + (random.choice(AFTER) if odd else b"\r\n")
    return b"Transfer-Encoding: chunked", framed + (random.choice(LAST) if odd else LAST[0]) + behind


def an_answer(random: Random) -> bytes:
    """An answer, good or with something odd about it."""
    framing, body = a_body(random)
    head = [framing if random.random() < 0.97 else b"x: y", *random.sample(HARMLESS, random.randrange(5))]
    if random.random() < 0.4:
        head += random.sample(ODD, random.choice([1, 1, 1, 2]))
    if random.random() < 0.02:
        head += [b"x-%d: y" % number for number in range(random.choice([100, 126, 127, 128, 200]))]
    random.shuffle(head)
    ends = ENDS if random.random() < 0.2 else ENDS[:1]
    line = LINES[0] if random.random() < 0.8 else random.choice(LINES)
    data = line + b"".join(one + random.choice(ends) for one in head) + random.choice(ends) + body
    if random.random() < 0.1:
        at = random.randrange(len(data))
        data = data[:at] + random.choice([b"", b"\r", b"\n", b"\0", b" ", b"\xff", b"0"]) + data[at + 1 :]
    return data


def cut(data: bytes, random: Random) -> list[bytes]:
    """`data` in pieces; often the head in one, as heads come."""
    blank = data.find(b"\r\n\r\n") + 4
    lowest = blank if random.random() < 0.8 else 1
    places = sorted(random.choices(range(min(lowest, len(data)), len(data) + 1), k=random.randrange(4)))
    bounds = [0, *places, len(data)]
    return [data[start:end] for start, end in pairwise(bounds) if start < end]


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_comes_is_read_as_aiohttp_reads_it(seed: int) -> None:
    """The own reader and aiohttp's parser agree on every body and every end, or the own reader declines."""
    random = Random(seed)
    whos = {"all": 0, "a part": 0, "nothing": 0}
    broken = 0
    for _ in range(CASES):
        data = an_answer(random)
        ours = await by_link(cut(data, random))
        check_alike(data, ours, by_aiohttp(data))
        whos[ours.own] += 1
        broken += ours.own == "all" and not ours.whole
    # Neither by declining everything nor by trying only what is good.
    assert whos["all"] > 0.2 * CASES
    assert min(whos["a part"], broken) > 3
