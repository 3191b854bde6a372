"""Streams that are pushed from an upstream's connection to the client: pace, ends, and faults in the middle."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp.http_exceptions import HttpProcessingError, TransferEncodingError

from proxy.foreign import READ_AHEAD
from proxy.link import LateError, Link
from tests.conftest import STREAM, Got, Sidecar, StartSidecar, StartUpstream, request, until
from tests.fake_upstream import DONE, Play, chunk, events, stream

STREAM_BODY = json.dumps(STREAM).encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
IDLE = 'strategy = "cheapest"\ntimeouts = { idle = 0.15 }\n'


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# ---- one connection, its pieces given by hand --------------------------------------------------------------------


class Still(asyncio.Transport):
    """A connection on which nothing moves by itself."""

    def get_write_buffer_size(self) -> int:
        """What waits to be sent: nothing."""
        return 0

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Nobody reads it."""

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed


class Poured:
    """A link whose answer is poured into `got`, until it has had `enough`."""

    def __init__(self, enough: bytes) -> None:
        self.link = Link(asyncio.get_running_loop(), float("inf"))
        self.transport = Still()
        self.got: list[bytes] = []
        self._enough = enough

    def take(self, data: bytes) -> bool:
        self.got.append(data)
        return self._enough not in data

    async def start(self, first: bytes) -> asyncio.Task[None]:
        """Ask, receive the head and `first`, and pour."""
        self.link.connection_made(self.transport)
        self.link.ask(b"", b"", float("inf"))
        asking = asyncio.create_task(self.link.hear())
        await asyncio.sleep(0)
        self.link.data_received(HEAD + first)
        assert (await asking).code == 200
        return await self.again()

    async def again(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self.link.pour(self.take, 60.0, float("inf")))
        await asyncio.sleep(0)
        return task


@asynccontextmanager
async def pouring(
    first: bytes = framed(b"a"), enough: bytes = b"enough"
) -> AsyncIterator[tuple[Poured, asyncio.Task[None]]]:
    poured = Poured(enough)
    task = await poured.start(first)
    yield poured, task
    task.cancel()


async def test_a_piece_is_pushed_at_once() -> None:
    """Not in the next turn of the event loop, but from the callback that brought it; then comes the end."""
    async with pouring() as (poured, task):
        for piece in (b"b", b"c", b"d" * 9):
            poured.link.data_received(framed(piece))
            assert poured.got[-1] == piece
        assert not task.done()
        poured.link.data_received(LAST)
        await task
    assert poured.got == [b"a", b"b", b"c", b"d" * 9, b""]
    assert poured.link.done()


async def test_what_comes_behind_the_end_is_not_pushed() -> None:
    """Not even in the same turn of the event loop, when nobody has had the time to stop listening."""
    async with pouring() as (poured, task):
        poured.link.data_received(LAST)
        poured.link.data_received(framed(b"nobody asked for this"))
        await task
    assert poured.got == [b"a", b""]
    assert poured.link.poisoned


async def test_pieces_of_one_packet_come_together() -> None:
    """And what is not whole of the framing waits."""
    async with pouring() as (poured, task):
        poured.link.data_received(framed(b"b") + framed(b"c") + b"5\r\nde")
        poured.link.data_received(b"fgh\r")
        poured.link.data_received(b"\n" + LAST)
        await task
    assert poured.got == [b"a", b"bcde", b"fgh", b""]


async def test_a_sink_that_has_enough() -> None:
    """Nothing more is pushed; what comes is kept for whoever reads on, and nothing is lost or doubled."""
    async with pouring() as (poured, task):
        poured.link.data_received(framed(b"enough"))
        poured.link.data_received(framed(b"b"))
        await task
        assert poured.got == [b"a", b"enough"]
        poured.link.data_received(framed(b"c"))
        task = await poured.again()
        poured.link.data_received(framed(b"d") + LAST)
        await task
    assert poured.got == [b"a", b"enough", b"bc", b"d", b""]


async def test_enough_and_the_end_in_one_packet() -> None:
    """A sink that stops at the last piece is not called for the end, and the connection is whole."""
    async with pouring() as (poured, task):
        poured.link.data_received(framed(b"enough") + LAST)
        await task
    assert (poured.got, poured.link.complete(), poured.link.done()) == ([b"a", b"enough"], True, True)


async def test_what_nobody_takes_stops_the_upstream() -> None:
    """While a sink has enough, no more than the bound is read ahead; reading goes on when it is taken."""
    async with pouring() as (poured, task):
        poured.link.data_received(framed(b"enough"))
        await task
        taken = 0
        while poured.transport.reading:
            poured.link.data_received(framed(b"x" * 10_000))
            taken += 10_000
        assert READ_AHEAD < taken <= READ_AHEAD + 10_000
        task = await poured.again()
        assert (poured.transport.reading, len(poured.got[-1])) == (True, taken)


async def test_a_wait_that_is_over() -> None:
    """The bell rings in the middle of a push: all that came before is taken, then that it is late."""
    async with pouring() as (poured, task):
        poured.link.data_received(framed(b"b"))
        now = asyncio.get_running_loop().time()
        poured.link.late(now + 61)  # something came since: it only sets the bell anew
        assert not task.done()
        poured.link.late(now + 122)
        with pytest.raises(LateError):
            await task
    assert poured.got == [b"a", b"b"]


@pytest.mark.parametrize(
    ("bad", "error"),
    [(framed(b"b")[:-2] + b"xx", TransferEncodingError), (framed(b"b") + b"zz\r\n", HttpProcessingError)],
)
async def test_a_framing_that_breaks(bad: bytes, error: type[Exception]) -> None:
    """What was whole before is taken, then comes the fault; the connection is never used again."""
    async with pouring() as (poured, task):
        poured.link.data_received(bad)
        with pytest.raises(error):
            await task
    assert (poured.got, poured.link.done()) == ([b"a", b"b"], False)


@pytest.mark.parametrize("lost", [None, ConnectionResetError()])
async def test_a_connection_that_breaks(lost: Exception | None) -> None:
    """So with one that ends in the middle."""
    async with pouring() as (poured, task):
        poured.link.data_received(framed(b"b") + b"5\r\nha")
        poured.link.connection_lost(lost)
        with pytest.raises(aiohttp.ClientPayloadError):
            await task
    assert poured.got == [b"a", b"bha"]


ODD = {
    "an extension": b"1;a=b\r\nc\r\n" + LAST,
    "a long size": b"0000000001\r\nc\r\n" + LAST,
    "a space": b"1 \r\nc\r\n" + LAST,
    "an extension of the last": b"1\r\nc\r\n0;a\r\n\r\n",
    "trailers": b"1\r\nc\r\n0\r\nx: y\r\nz: 1\r\n\r\n",
}


@pytest.mark.parametrize("rest", ODD.values(), ids=ODD)
async def test_odd_framing_in_the_middle(rest: bytes) -> None:
    """aiohttp's parser takes over at a chunk's beginning; cut anywhere, the body is the same, and the end is clean."""
    for cut in range(len(rest)):
        async with pouring() as (poured, task):
            poured.link.data_received(framed(b"b") + rest[:cut])
            poured.link.data_received(rest[cut:])
            await asyncio.wait_for(task, 1)
        assert (b"".join(poured.got), poured.got[-1]) == (b"abc", b"")
        assert poured.link.done()


async def test_a_push_that_is_cancelled() -> None:
    """Nobody is called any more; what comes can still be read."""
    async with pouring() as (poured, task):
        task.cancel()
        await asyncio.wait([task])
        poured.link.data_received(framed(b"b") + LAST)
        assert (poured.got, await poured.link.read(), await poured.link.read()) == ([b"a"], b"b", b"")


# ---- through a whole sidecar -------------------------------------------------------------------------------------


class Counted(list[bytes]):
    """Pieces of which it is known how many were asked for."""

    asked = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in super().__iter__():
            self.asked += 1
            yield piece


async def test_a_slow_client_holds_the_upstream_up(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The upstream is told to wait, whatever it has to say: memory is bounded; and nothing is lost."""
    texts = [f"{number}" + "x" * 250_000 for number in range(200)]
    pieces = Counted(stream(*events(*texts)).pieces)
    running = await sidecar(await upstream(Play(pieces)))
    async with running.connect() as wire:
        wire.writer.write(request(STREAM_BODY))
        await until(lambda: paused(running))
        assert pieces.asked < 150
        async with asyncio.timeout(5):
            parts = [await wire.reader.readuntil(b"%d" % number + b"x" * 250_000) for number in range(200)]
            parts.append(await wire.reader.readuntil(DONE))
    assert (len(parts), b"".join(parts).count(b"x" * 250_000)) == (201, 200)


def paused(running: Sidecar) -> bool:
    """True when an upstream's connection is not read from."""
    links = running.app.tools.transport.pool._busy
    return any(link.transport is not None and not link.transport.is_reading() for link in links)


@pytest.mark.parametrize("rest", ODD.values(), ids=ODD)
async def test_a_stream_with_odd_framing(sidecar: StartSidecar, upstream: StartUpstream, rest: bytes) -> None:
    """The client cannot tell, and the connection serves the next request."""
    said = events("a", "b")
    tail = b"".join(said[3:])
    last = rest.replace(b"1;", b"%x;" % len(tail)).replace(b"0000000001", b"0000000%x" % len(tail))
    last = (
        last.replace(b"1 \r", b"%x \r" % len(tail))
        .replace(b"1\r\nc", b"%x\r\nc" % len(tail))
        .replace(b"c\r", tail + b"\r")
    )
    asked = await upstream(Play([HEAD, *map(framed, said[:3]), last]))
    running = await sidecar(asked)
    for _ in range(3):
        got = await running.post(STREAM)
        assert (got.text, got.events[-1], got.body.count(DONE)) == ("ab", b"[DONE]", 1)
        await until(lambda: not running.app.tools.transport.pool._busy)
    assert (asked.connections, running.log("attempt_failed")) == (1, [])


BROKEN = {
    "no end of a chunk": framed(chunk({"content": "c"}))[:-2] + b"xx",
    "no size": b"zz\r\n",
    "a chunk of another size": b"3\r\n" + chunk({"content": "c"}),
    "bad trailers": b"0\r\nx\r\n\r\n",
}


@pytest.mark.parametrize("bad", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("together", [False, True])
async def test_a_framing_that_breaks_in_the_middle(
    sidecar: StartSidecar, upstream: StartUpstream, bad: bytes, together: bool
) -> None:
    """What was said before is passed on; then comes an error event and no clean end, whatever the packets were."""
    good = [framed(event) for event in events("a", "b")[:3]]
    pieces = [HEAD + good[0] + good[1], good[2] + bad] if together else [HEAD, *good, bad]
    running = await sidecar(await upstream(Play(pieces, "hang")))
    got = await running.post(STREAM)
    assert [json.loads(event)["choices"][0]["delta"]["content"] for event in got.events[:3]] == ["", "a", "b"]
    assert last_code(got) == "upstream_invalid_response"
    assert DONE not in got.body


def last_code(got: Got) -> str:
    return str(json.loads(got.events[-1])["error"]["code"])


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_upstream_that_ends_right_after_its_last_word(
    sidecar: StartSidecar, upstream: StartUpstream, how: str, together: bool
) -> None:
    """After `[DONE]` nobody misses the last chunk: the end is clean, and the upstream is not to blame."""
    said = events("a", "b")
    pieces = [HEAD + b"".join(map(framed, said))] if together else [HEAD, *map(framed, said)]
    running = await sidecar(await upstream(Play(pieces, how)))
    got = await running.post(STREAM)
    # A reset may overtake what was sent before it.
    if how == "close" or got.status == 200:
        assert got.text in ("ab", "a", "")
    if how == "close":
        assert (got.text, got.events[-1], running.log("attempt_failed")) == ("ab", b"[DONE]", [])


async def test_nothing_is_pushed_behind_the_last_word(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """What an upstream says after `[DONE]` is nobody's, in the same packet and in another."""
    more = chunk({"content": "more"})
    asked = await upstream(stream(*events("a"), more), stream(*events("a")[:-1], DONE + more, more))
    running = await sidecar(asked)
    for _ in range(2):
        got = await running.post(STREAM)
        assert (got.text, got.events[-1], b"more" in got.body) == ("a", b"[DONE]", False)


async def test_silence_counts_from_the_last_piece(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A stream may last longer than `idle` if no pause in it does; a pause that does ends it."""
    asked = await upstream(stream(*events(*"abcdef")[:7], then="hang", end=False))
    running = await sidecar(asked, policy=IDLE)
    loop = asyncio.get_running_loop()
    began = loop.time()
    asked.go_on.clear()

    async def pace() -> None:
        for turn in range(1, 8):
            await until(lambda at=began + 0.06 * turn: loop.time() > at)  # type: ignore[misc]
            asked.go_on.set()
            await asyncio.sleep(0)
            asked.go_on.clear()
        asked.go_on.set()

    pacing = asyncio.create_task(pace())
    got = await running.post(STREAM)
    await pacing
    assert got.body.count(b'"content": "') == 7
    assert last_code(got) == "upstream_idle_timeout"
    assert loop.time() - began > 0.4


@pytest.mark.parametrize("events_before", [1, 2, 3])
async def test_our_own_fault_in_the_middle(
    sidecar: StartSidecar, upstream: StartUpstream, caplog: pytest.LogCaptureFixture, events_before: int
) -> None:
    """It is one line in our log that quotes nothing, one answer without a clean end, and the upstream is let go."""
    role, *said, bad = map(framed, events(*"abc"[:events_before], "oops")[: events_before + 2])
    asked = await upstream(Play([HEAD + role + said[0], *said[1:], bad], "hang"))
    running = await sidecar(asked, provider={"adapter": "tests.broken_stream"})
    got = b""
    async with running.connect() as wire:
        asked.go_on.clear()
        wire.writer.write(request(STREAM_BODY))
        for text in "abc"[:events_before]:
            got += await asyncio.wait_for(wire.reader.readuntil(f'"{text}"'.encode()), 5)
            asked.go_on.set()
            await asyncio.sleep(0)
            asked.go_on.clear()
        asked.go_on.set()
        await asyncio.wait_for(asked.idle.wait(), 5)
        await until(lambda: running.log("request") != [])
        got += await asyncio.wait_for(wire.reader.read(1 << 16), 5)
    assert (got.count(b"HTTP/1.1"), got.count(DONE)) == (1, 0)
    assert [line["error"] for line in running.log("fault")] == ["ZeroDivisionError"]
    assert (running.log("attempt_failed"), "oops" in caplog.text) == ([], False)
