"""Clients that break off: bodies whose framing lies half-way, and connections that are gone when there is an answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web

from proxy.client import client_of, send
from proxy.connection import Server
from proxy.errors import ProxyError
from tests.conftest import CHAT, STREAM, StartSidecar, StartUpstream, Wire, check_error, request, until
from tests.fake_upstream import Play, chunk, stream

CHUNKED = request(None, "content-type: application/json", "transfer-encoding: chunked", method="POST") + b"2\r\n{}\r\n"
ASK = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
GIVE = Callable[[web.BaseRequest], web.StreamResponse]


@pytest.mark.parametrize("bad", [b"oops\r\n", b"2\r\n{}xx\r\n", b"-1\r\n"], ids=["size", "end", "negative"])
async def test_a_body_that_goes_wrong_half_way(sidecar: StartSidecar, upstream: StartUpstream, bad: bytes) -> None:
    """Bad framing is 400 at once, also when it comes while the body is being read, and ends the connection."""
    running = await sidecar(await upstream())
    async with running.connect() as wire:
        wire.writer.write(CHUNKED)
        await until(lambda: len(running.app.sidecar.in_flight) == 1)
        got = await wire.ask(bad)
        check_error(got, 400, None)
        assert got.headers["connection"] == "close"
        assert await wire.closed()
    assert [line["status"] for line in running.log("refused")] == [400]


async def test_a_pipelined_request_does_not_disturb_the_first(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """What comes behind a whole body, good or bad, waits for its turn."""
    asked = await upstream(Play([b""], "hang"))
    running = await sidecar(asked, policy='strategy = "cheapest"\ntimeouts = { answer = 0.2 }\n')
    async with running.connect() as wire:
        wire.writer.write(request(msgspec.json.encode(CHAT)))
        await asked.arrived.wait()
        wire.writer.write(b"\x00 oops\r\n\r\n")
        check_error(await wire.ask(b""), 504, "upstream_timeout")
        check_error(await wire.ask(b""), 400, None)


@asynccontextmanager
async def left_behind(give: GIVE) -> AsyncIterator[Awaitable[BaseException | None]]:
    """A server whose client leaves before `give` is called; yields the error that `give` raised, or None."""
    told: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    asked = asyncio.Event()

    async def handle(http: web.BaseRequest) -> web.StreamResponse:
        transport = http.transport
        asked.set()
        assert transport is not None
        transport.abort()
        try:
            answer = give(http)
            told.set_result(None)
        except ConnectionResetError as error:
            told.set_result(error)
            raise
        return answer

    server = Server(handle, lambda error: "")
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
    try:
        writer.write(ASK)
        await asked.wait()
        yield told
        assert await Wire(reader, writer).closed()
    finally:
        writer.transport.abort()
        listener.close()
        await server.shutdown(0.1)


def _stream(http: web.BaseRequest) -> web.StreamResponse:
    answer = client_of(http)
    answer.start("", b"data: 1\n\n")
    answer.end(ProxyError("no"))
    return answer.sent()


def _whole(http: web.BaseRequest) -> web.StreamResponse:
    return send(http, 200, "", b"1" * 100_000)


async def test_a_stream_for_nobody_is_not_written() -> None:
    """Who writes events is told that the client left, and can let go of the upstream."""
    async with left_behind(_stream) as told:
        assert str(await told) == "the client left"


async def test_an_answer_for_nobody_is_dropped() -> None:
    """A whole answer is written or not; there is nobody left to tell."""
    async with left_behind(_whole) as told:
        assert await told is None


async def test_a_whole_answer_that_nobody_takes() -> None:
    """Answers do not pile up for a client that asks and never reads: it is cut off as a stream's is."""
    served: list[int] = []

    async def handle(http: web.BaseRequest) -> web.StreamResponse:
        served.append(1)
        return send(http, 200, "", b"1" * (8 << 20))

    server = Server(handle, lambda error: "", stall_s=0.1)
    async with await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0) as listener:
        _, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2], limit=1)
        writer.write(ASK * 20)
        await until(lambda: bool(served) and not server.connections)
        writer.transport.abort()
    await server.shutdown(0.1)
    assert len(served) < 5


async def test_a_whole_answer_that_is_taken_slowly() -> None:
    """Whoever takes a little now and then is not cut off, however long all of it takes."""
    size = 16 << 20

    async def handle(http: web.BaseRequest) -> web.StreamResponse:
        return send(http, 200, "", b"1" * size)

    server = Server(handle, lambda error: "", stall_s=0.05)
    async with await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0) as listener:
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2], limit=1 << 16)
        began = asyncio.get_running_loop().time()
        writer.write(ASK)
        taken = 0
        while taken < size:
            taken += len(await reader.readexactly(1 << 20))
            pause = asyncio.get_running_loop().time() + 0.02
            await until(lambda at=pause: asyncio.get_running_loop().time() > at)  # type: ignore[misc]
        assert asyncio.get_running_loop().time() - began > 4 * 0.05
        writer.transport.abort()
    await server.shutdown(0.1)


async def test_a_stream_that_nobody_takes_lets_go_of_the_upstream(
    sidecar: StartSidecar, upstream: StartUpstream
) -> None:
    """F34: the upstream that is being paid for is left, it is not to blame, and the request counts as one given up."""
    asked = await upstream(stream(chunk({"content": "x" * 900_000}), then="drip", end=False))
    running = await sidecar(asked)
    server = Server(running.app.sidecar.handle, running.app.sidecar.note, stall_s=0.1)
    async with (
        await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0) as listener,
        running.connect(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}") as wire,
    ):
        wire.writer.write(request(msgspec.json.encode(STREAM)))
        await asked.arrived.wait()
        await asyncio.wait_for(asked.idle.wait(), 5)
        await until(lambda: running.log("request") != [])
    await server.shutdown(0.1)
    assert (running.log("request")[0]["status"], running.log("attempt_failed")) == (499, [])
    assert running.log("fault") == running.log("refused") == []
