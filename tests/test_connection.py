"""HTTP/1 as clients and attackers speak it: framing, timers, garbage. Errors are OpenAI's, and quote nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from proxy.client import Client, client_of, send
from proxy.connection import Server
from proxy.errors import ProxyError
from proxy.gateway import Overrides
from proxy.lane import Lane
from proxy.metrics import Counter
from proxy.room import Room
from tests.conftest import CHAT, STREAM, StartSidecar, StartUpstream, Wire, check_error, request, until
from tests.fake_upstream import Play, chunk, completion, events, stream

BODY = json.dumps(CHAT).encode()
STREAM_BODY = json.dumps(STREAM).encode()
SECRET = b"sk-CANARY-0123456789"
GET = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n"

GARBAGE = {
    "no HTTP": SECRET + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SECRET + b"\r\n\r\n",
    "NUL in a header": GET + b"authorization: Bearer " + SECRET + b"\x00\r\n\r\n",
    "a control character in a header": GET + b"authorization: " + SECRET + b"\x01\r\n\r\n",
    "a long header": GET + b"authorization: Bearer " + SECRET + b"x" * 9000 + b"\r\n\r\n",
    "a long path": b"GET /" + SECRET + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
    "too many headers": GET + b"".join(b"x-%d: %b\r\n" % (n, SECRET) for n in range(200)) + b"\r\n",
    "no colon": GET + SECRET + b"\r\n\r\n",
    "a space before the colon": GET + b"authorization : " + SECRET + b"\r\n\r\n",
    "a folded header": GET + b"a: b\r\n " + SECRET + b"\r\n\r\n",
    "a bad version": b"GET /" + SECRET + b" HTTP/3.7\r\nhost: localhost\r\n\r\n",
    "two lengths": GET + b"content-length: 1\r\ncontent-length: 2\r\nx: " + SECRET + b"\r\n\r\n",
    "a negative length": GET + b"x: " + SECRET + b"\r\ncontent-length: -1\r\n\r\n",
    "a length and chunks": GET + b"x: " + SECRET + b"\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
    "an unknown encoding": GET + b"x: " + SECRET + b"\r\ntransfer-encoding: chunked, identity\r\n\r\n",
    "a bad method": SECRET + b"\x7f /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
async def test_garbage(
    sidecar: StartSidecar, data: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """What is no HTTP is 400 in OpenAI's words and the end of the connection; its bytes are not repeated anywhere."""
    running = await sidecar()

    async with running.connect() as wire:
        got = await wire.ask(data)
        assert await wire.closed()

    check_error(got, 400, None)
    assert got.headers["connection"] == "close"
    told = [got.body.decode(), str(got.headers), str(running.log("refused")), *capfd.readouterr(), caplog.text]
    assert SECRET.decode()[:12] not in "".join(told)
    assert [line["status"] for line in running.log("refused")] == [400]


@pytest.mark.parametrize("status", [True, False])
async def test_http_1_0(sidecar: StartSidecar, upstream: StartUpstream, status: bool) -> None:
    """An HTTP/1.0 client gets no chunks; its connection ends with the answer."""
    asked = await upstream(stream(*events("Hi")) if status else completion("Hi"))
    running = await sidecar(asked)
    body = STREAM_BODY if status else BODY

    async with running.connect() as wire:
        got = await wire.ask(request(body).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert await wire.closed()

    assert (got.status, got.text, got.headers["connection"]) == (200, "Hi", "close")
    assert "transfer-encoding" not in got.headers


async def test_connection_close(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A client that wants to close gets its stream whole and then the end."""
    running = await sidecar(await upstream(stream(*events("Hi"))))
    async with running.connect() as wire:
        got = await wire.ask(request(STREAM_BODY, "connection: close"))
        assert (got.text, got.headers["connection"], await wire.closed()) == ("Hi", "close", True)


@pytest.mark.parametrize("path", ["/livez", "/v1/models", "/v1/models/test", "/metrics"])
async def test_head(sidecar: StartSidecar, path: str) -> None:
    """HEAD is GET without the body, and the connection stays usable."""
    async with (await sidecar()).connect() as wire:
        got = await wire.ask(request(path=path, method="HEAD"), head=True)
        assert (got.status, int(got.headers["content-length"]) > 0) == (200, True)
        assert (await wire.ask(request(path="/livez"))).status == 200


async def test_expect_100(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A client that waits for a go-ahead gets it before it sends the body."""
    async with (await sidecar(await upstream())).connect() as wire:
        whole = request(BODY, "expect: 100-continue")
        assert (await wire.ask(whole[: -len(BODY)], head=True)).status == 100
        assert (await wire.ask(BODY)).status == 200


async def test_expect_100_is_not_given_for_what_is_refused(sidecar: StartSidecar) -> None:
    """A body that will be refused need not be sent."""
    head = request(None, "expect: 100-continue", "content-length: 5", "content-type: text/plain", method="POST")
    check_error(await (await sidecar()).raw(head), 415, "unsupported_media_type")


async def test_pipelining(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Requests sent ahead are answered one after the other, in order."""
    running = await sidecar(await upstream(completion("one"), stream(*events("two")), completion("three")))
    async with running.connect() as wire:
        wire.writer.write(request(BODY) + request(STREAM_BODY) + request(BODY) + request(path="/livez"))
        assert [(await wire.ask(b"")).text for _ in range(3)] == ["one", "two", "three"]
        assert (await wire.ask(b"")).json == {"status": "ok"}


async def test_an_upgrade_is_declined(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A client that would like HTTP/2 is answered in HTTP/1."""
    got = await (await sidecar(await upstream())).raw(request(BODY, "connection: upgrade", "upgrade: h2c"))
    assert (got.status, got.text) == (200, "Hello")


async def test_a_head_in_pieces(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """How a request is cut into packets does not matter."""
    async with (await sidecar(await upstream())).connect() as wire:
        for byte in request(BODY)[:-1]:
            wire.writer.write(bytes([byte]))
            await wire.writer.drain()
        assert (await wire.ask(BODY[-1:])).status == 200


async def test_a_client_that_leaves_in_the_middle_of_its_body(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Half a request is nobody's fault and asks nobody."""
    asked = await upstream()
    running = await sidecar(asked)
    async with running.connect() as wire:
        wire.writer.write(request(BODY)[:-3])
        await until(lambda: len(running.app.sidecar.in_flight) == 1)
    await until(lambda: len(running.app.sidecar.in_flight) == 0)
    assert (asked.requests, running.log("fault")) == ([], [])
    assert [(line["status"], line["code"]) for line in running.log("refused")] == [(499, "client_cancelled")]


async def test_a_mute_client_holds_nothing_up(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A stream whose client has gone ends in the middle of a write as quietly as anywhere."""
    text = "x" * 100_000
    asked = await upstream(stream(*events(text), then="hang"))
    running = await sidecar(asked)
    async with running.connect() as wire:
        wire.writer.write(request(STREAM_BODY))
        await asked.arrived.wait()
        wire.writer.transport.abort()
    await asyncio.wait_for(asked.idle.wait(), 2)
    assert running.log("fault") == []


# ---- timers and edges, on a server of their own ------------------------------------------------------------------


class Notes(list[str]):
    """What a server was told of refusals."""

    def __call__(self, error: ProxyError) -> str:
        self.append(f"{error.status} {error.code}")
        return f"x-request-id: req_{len(self)}\r\n"


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, **times: Any) -> AsyncIterator[tuple[Wire, Notes, Server]]:
    """A server around `handler` and a connection to it."""
    notes = Notes()
    server = Server(handler, notes, **times)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
    try:
        yield Wire(reader, writer), notes, server
    finally:
        writer.transport.abort()
        listener.close()
        await server.shutdown(0.1)


async def hello(http: web.BaseRequest) -> web.StreamResponse:
    """Answer with one word."""
    return send(http, 200, "", b'"hello"')


@pytest.mark.parametrize("sent", [b"", b"GET /", GET], ids=["nothing", "a word", "no end"])
async def test_a_head_that_stalls(sent: bytes) -> None:
    """A whole head must be in within an absolute time, from the first moment of the connection."""
    async with serving(hello, head_s=0.1) as (wire, notes, _):
        check_error(await wire.ask(sent), 408, "request_timeout")
        assert await wire.closed()
    assert notes == ["408 request_timeout"]


async def test_a_second_head_that_stalls() -> None:
    """The clock runs for every head, and not between requests."""
    async with serving(hello, head_s=0.1) as (wire, notes, _):
        assert (await wire.ask(GET + b"\r\n")).status == 200
        check_error(await wire.ask(GET), 408, "request_timeout")
    assert notes == ["408 request_timeout"]


SLOWLY = request(b"{}")
BEHIND = {
    "behind a GET": (GET + b"\r\n", GET),
    "behind a chat request": (SLOWLY, GET),
    "one byte": (SLOWLY, b"G"),
}


@pytest.mark.parametrize("whole", [True, False], ids=["one packet", "two packets"])
@pytest.mark.parametrize(("first", "second"), BEHIND.values(), ids=BEHIND)
async def test_a_head_that_stalls_behind_a_request(first: bytes, second: bytes, whole: bool) -> None:
    """The clock of a head that began before its turn starts with its turn, however it was cut into packets."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def wait(http: web.BaseRequest) -> web.StreamResponse:
        await http.read()
        asked.set()
        await go_on.wait()
        return send(http, 200, "", b'"hello"')

    async with serving(wait, head_s=0.1, lane=no_lane()) as (wire, notes, server):
        wire.writer.write(first + second if whole else first)
        await asked.wait()
        if not whole:
            (connection,) = server.connections
            wire.writer.write(second)
            await until(lambda: connection._begun)  # type: ignore[attr-defined]
        later = asyncio.get_running_loop().time() + 0.15
        await until(lambda: asyncio.get_running_loop().time() > later)
        assert notes == []
        go_on.set()
        assert (await wire.ask(b"")).status == 200
        check_error(await wire.ask(b""), 408, "request_timeout")
        assert await wire.closed()
    assert notes == ["408 request_timeout"]


@pytest.mark.parametrize("first", [GET + b"\r\n", SLOWLY], ids=["GET", "chat"])
async def test_an_empty_line_behind_a_request_begins_nothing(first: bytes) -> None:
    """Old clients end a body with a line more than it has; their connections are idle, not late."""
    async with serving(hello, head_s=0.1, lane=no_lane()) as (wire, notes, _):
        assert (await wire.ask(first + b"\r\n")).status == 200
        later = asyncio.get_running_loop().time() + 0.2
        await until(lambda: asyncio.get_running_loop().time() > later)
        assert (await wire.ask(first)).status == 200
    assert notes == []


def no_lane() -> Lane[Overrides]:
    """A lane that nobody takes: what it does is look at heads."""

    async def never(client: Client, said: Overrides, body: bytes) -> None:
        raise AssertionError

    return Lane(never, Room(1, Counter("shed", "")), 1 << 20, 30.0)


async def test_a_client_that_takes_nothing() -> None:
    """F34: when nothing is taken for long, both sides are cut off, and the handler is told."""
    ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def talk(http: web.BaseRequest) -> web.StreamResponse:
        answer = client_of(http)
        answer.start("", b"data: 1\n\n")
        try:
            while True:
                answer.write(b"x" * (1 << 20))
                await answer.drain()
        except ConnectionResetError as error:
            ended.set_result(error)
            raise

    async with serving(talk, stall_s=0.1) as (wire, notes, _):
        wire.writer.write(GET + b"\r\n")
        assert str(await asyncio.wait_for(ended, 5)) == "the client stopped reading"
    assert notes == []


async def test_a_client_that_takes_its_time() -> None:
    """Writing waits for a slow reader and loses nothing."""

    async def talk(http: web.BaseRequest) -> web.StreamResponse:
        answer = client_of(http)
        answer.start("", b"")
        for _ in range(8):
            answer.write(b"x" * (1 << 20))
            await answer.drain()
        answer.end(None)
        return answer.sent()

    async with serving(talk) as (wire, _, _):
        assert len((await wire.ask(GET + b"\r\n")).body) == 8 << 20


async def test_writing_to_a_client_that_has_left() -> None:
    """A handler that has not heard yet is told at its next write, and that is no refusal."""
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def talk(http: web.BaseRequest) -> web.StreamResponse:
        answer = client_of(http)
        assert http.transport is not None
        http.transport.abort()
        try:
            answer.write(b"data: 1\n\n")
            await answer.drain()
        except ConnectionResetError as error:
            told.set_result(str(error))
            raise
        answer.end(None)
        return answer.sent()

    async with serving(talk) as (wire, notes, _):
        wire.writer.write(GET + b"\r\n")
        assert await asyncio.wait_for(told, 5) == "the client left"
        await until(wire.reader.at_eof)
    assert notes == []


async def test_after_an_error_event_the_connection_is_good(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The answer ended as its framing says, so the next request may use the connection, as clients do."""
    broken = stream(chunk({"content": "Hi"}), b"data: {\n\n")
    async with (await sidecar(await upstream(broken, completion("next")))).connect() as wire:
        assert b'"upstream_invalid_event"' in (await wire.ask(request(STREAM_BODY))).body
        assert (await wire.ask(request(BODY))).text == "next"


async def test_leaving_closes_what_is_idle() -> None:
    """A sidecar about to stop closes idle connections at once, and the others after their answer."""
    go_on = asyncio.Event()

    async def wait(http: web.BaseRequest) -> web.StreamResponse:
        await go_on.wait()
        return send(http, 299, "content-type: text/x\r\n", b"y" * 100_000)

    async with serving(wait) as (busy, _, server):
        listener_address = busy.writer.get_extra_info("peername")
        idle = Wire(*await asyncio.open_connection(*listener_address[:2]))
        go_on.set()
        assert (await idle.ask(GET + b"\r\n")).status == 299
        go_on.clear()
        busy.writer.write(GET + b"\r\n")
        await until(lambda: sum(not one.idle for one in server.connections) == 1)  # type: ignore[attr-defined]
        server.leave()
        assert await idle.closed()
        go_on.set()
        got = await busy.ask(b"")
        assert (got.status, got.headers["connection"], len(got.body)) == (299, "close", 100_000)
        assert await busy.closed()
        idle.writer.transport.abort()


async def test_an_upstreams_odd_bytes_stay_out_of_headers(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Names that clients make up cannot break out of a header, nor fill it."""
    running = await sidecar(await upstream(), await upstream(Play([], "close")))
    for name in ("p0/a\r\nx-evil: 1", "p0/é", "p0/" + "x" * 50_000, "p1/" + "x" * 50_000):
        got = await running.post({**CHAT, "model": name})
        assert "x-evil" not in got.headers
        assert got.headers["x-sidecar-upstream"].isascii()
        assert len(got.headers["x-sidecar-upstream"]) < 300
