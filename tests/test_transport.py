"""The way to the upstreams: what goes out on a connection, which are kept, and what a broken one comes to."""

import asyncio
import gzip
import socket
import ssl
import sys
from pathlib import Path

import pytest

from tests.conftest import CHAT, STREAM, StartSidecar, StartUpstream, check_error, until
from tests.fake_upstream import (
    DONE,
    FakeUpstream,
    Play,
    chunk,
    completion,
    completion_body,
    error,
    events,
    reply,
    stream,
)

CERTIFICATE = Path(__file__).parent / "fixtures" / "self_signed.pem"
EVIL = completion("somebody else's").pieces[0]
BIG = {**CHAT, "messages": [{"role": "user", "content": "é" * (1 << 20)}]}

both = pytest.mark.parametrize("body", [CHAT, STREAM], ids=["complete", "stream"])


@both
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    sidecar: StartSidecar, upstream: StartUpstream, status: int, body: dict[str, object]
) -> None:
    """The key and the prompt go to the address in the catalog and nowhere else."""
    elsewhere = await upstream()
    asked = await upstream(reply(b"", status, location=f"{elsewhere.url}/chat/completions"))

    got = await (await sidecar(asked)).post(body)

    check_error(got, 502, "upstream_redirect")
    assert (len(asked.requests), elsewhere.connections) == (1, 0)


async def test_cookies_do_not_come_back(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A jar would be shared by all users of the sidecar; and no client is given the provider's cookies."""
    asked = await upstream(reply(completion_body(), set_cookie="session=1; Path=/"))
    running = await sidecar(asked)
    for _ in range(2):
        assert "set-cookie" not in (await running.post()).headers
    assert ["cookie" in request.headers for request in asked.requests] == [False, False]
    assert asked.connections == 1


async def test_plain_bytes_are_asked_for(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Compressed events would wait for one another."""
    asked = await upstream()
    await (await sidecar(asked)).post()
    assert asked.requests[0].headers["accept-encoding"] == "identity"


async def test_compressed_events_are_read_all_the_same(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Who compresses although nobody asked is understood, in a stream, too."""
    data = gzip.compress(b"".join(events("a", "b")))
    asked = await upstream(reply(data, content_type="text/event-stream", content_encoding="gzip"))
    got = await (await sidecar(asked)).post(STREAM)
    assert (got.text, got.events[-1]) == ("ab", b"[DONE]")
    assert "content-encoding" not in got.headers


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
async def test_an_answer_over_32_mib_is_a_fault(sidecar: StartSidecar, upstream: StartUpstream, packed: bool) -> None:
    """Whole answers are held in memory, so they are bounded, and a small bomb is as big as what comes out of it."""
    blank = b" " * (1 << 20)
    body = [gzip.compress(blank * 33)] if packed else [blank] * 33
    encoding = b"content-encoding: gzip\r\n" if packed else b""
    head = b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n" % (encoding, sum(map(len, body)))

    got = await (await sidecar(await upstream(Play([head, *body])))).post()

    check_error(got, 502, "response_too_large")


@both
@pytest.mark.parametrize("framing", [b"content-length: 104857600", b"transfer-encoding: chunked", b"connection: close"])
async def test_an_endless_error_is_known_by_its_status(
    sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, object], framing: bytes
) -> None:
    """Of an error's text no more is read than anybody would; the rest is not waited for, nor sent."""
    piece = b"x" * (1 << 16)
    framed = b"10000\r\n%b\r\n" % piece if b"chunked" in framing else piece
    asked = await upstream(Play([b"HTTP/1.1 529 X\r\n%b\r\n\r\n" % framing, framed], "drip"))

    got = await (await sidecar(asked)).post(body)

    check_error(got, 503, "overloaded")
    assert got.error["message"] == "the upstream answered with status 529"


@pytest.mark.parametrize(("kib", "code"), [(200, "odd"), (300, None)])
async def test_of_an_error_a_quarter_of_a_mib_is_read(
    sidecar: StartSidecar, upstream: StartUpstream, kib: int, code: str | None
) -> None:
    """What is longer is not held in memory, so that a thousand of them are no harm: only its status counts."""
    asked = await upstream(error(400, "odd", message="x" * (kib << 10)))
    got = await (await sidecar(asked)).post()
    assert (got.status, got.error["code"]) == (400, code)


@both
async def test_a_big_request_goes_out_whole(
    sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, object]
) -> None:
    """2 MiB, with their length announced."""
    asked = await upstream(completion() if body is CHAT else stream(*events("Hello")))
    got = await (await sidecar(asked)).post({**body, **BIG})
    assert (got.status, got.text) == (200, "Hello")
    assert asked.requests[0].json["messages"] == BIG["messages"]
    assert int(asked.requests[0].headers["content-length"]) > 1 << 21


# ---- connections ------------------------------------------------------------------------------------------------


@both
async def test_a_connection_is_used_again(
    sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, object]
) -> None:
    """One after the other, requests need one connection, whether they stream or not."""
    asked = await upstream(completion() if body is CHAT else stream(*events("Hello")))
    running = await sidecar(asked)
    assert [(await running.post(body)).text for _ in range(5)] == ["Hello"] * 5
    assert (len(asked.requests), asked.connections) == (5, 1)


strays = pytest.mark.parametrize(
    "stray", [EVIL, EVIL * 2, EVIL[:-9], b"\0", b"\r\n"], ids=["one", "two", "part", "byte", "line"]
)


def whole(number: int, body: dict[str, object]) -> Play:
    """An answer that says `number`, in one piece."""
    play = stream(*events(f"{number}")) if body is STREAM else completion(f"{number}")
    return Play([b"".join(play.pieces)])


@both
@strays
async def test_stray_bytes_never_reach_the_next_request(
    sidecar: StartSidecar, upstream: StartUpstream, stray: bytes, body: dict[str, object]
) -> None:
    """Bytes on an idle connection poison it: it is closed at once, and nobody gets another's answer."""
    asked = await upstream(*[whole(n, body) for n in range(4)], stray=stray)
    running = await sidecar(asked)
    for number in range(4):
        asked.go_on.clear()
        assert (await running.post(body)).text == f"{number}"
        asked.go_on.set()
        await until(lambda: asked.open == 0)
    assert (asked.connections, running.log("attempt_failed")) == (4, [])


@both
@strays
async def test_stray_bytes_in_the_same_packet(
    sidecar: StartSidecar, upstream: StartUpstream, stray: bytes, body: dict[str, object]
) -> None:
    """Bytes right behind an answer cost that answer at most; the next request never gets them."""
    plays = [Play([whole(n, body).pieces[0] + stray]) for n in range(4)]
    running = await sidecar(await upstream(*plays))
    answers = [await running.post(body) for _ in range(4)]
    assert [got.status == 502 or got.text == f"{number}" for number, got in enumerate(answers)] == [True] * 4


@both
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_kept_connection_that_died_is_replaced_once(
    sidecar: StartSidecar, upstream: StartUpstream, how: str, body: dict[str, object]
) -> None:
    """A server's idle timeout is no fault: the request goes out again at once, and nothing is counted."""
    good = completion() if body is CHAT else stream(*events("Hello"))
    asked = await upstream(good, Play([], how), good)
    running = await sidecar(asked)
    await running.post(body)

    got = await running.post(body)

    assert (got.text, got.headers["x-sidecar-attempts"]) == ("Hello", "1")
    assert (len(asked.requests), asked.connections, running.log("attempt_failed")) == (3, 2, [])


async def test_a_second_death_is_a_fault(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Once is bad luck, twice is the upstream: one attempt, one fault."""
    asked = await upstream(completion(), Play([], "close"))
    running = await sidecar(asked)
    await running.post()

    check_error(await running.post(), 502, "upstream_disconnected")

    assert (len(asked.requests), len(running.log("attempt_failed"))) == (3, 1)


async def test_silence_on_a_kept_connection_is_no_death(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """An upstream that has the request and is slow is not asked again: it may be at work, and is paid for it."""
    asked = await upstream(completion(), Play([], "hang"))
    running = await sidecar(asked, policy='strategy = "cheapest"\ntimeouts = { answer = 0.1 }\n')
    await running.post()
    check_error(await running.post(), 504, "upstream_timeout")
    assert len(asked.requests) == 2


async def test_an_end_that_never_comes_costs_only_the_connection(
    sidecar: StartSidecar, upstream: StartUpstream
) -> None:
    """After `[DONE]` the client has its end; the upstream's framing is waited for a moment, behind its back."""
    asked = await upstream(stream(*events("a"), then="hang", end=False))
    got = await (await sidecar(asked)).post(STREAM)
    assert (got.text, got.body.endswith(DONE)) == ("a", True)
    await until(lambda: asked.open == 0)


async def test_stopping_waits_for_no_framing(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A connection that is still waited for when the sidecar stops is closed with the others."""
    asked = await upstream(stream(chunk({"content": "a"}, "stop"), DONE, then="hang", end=False))
    running = await sidecar(asked)
    assert (await running.post(STREAM)).text == "a"
    await running.app.stop()
    await until(lambda: asked.open == 0)


# ---- no connection ----------------------------------------------------------------------------------------------


def own_certificate() -> ssl.SSLContext:
    """A server whose certificate nobody has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


async def test_a_certificate_that_nobody_signed(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """F4: an upstream that cannot prove who it is gets no byte of the request; that is 502."""
    asked = await upstream(tls=own_certificate())
    running = await sidecar(asked)

    check_error(await running.post(), 502, "upstream_tls_error")

    assert asked.requests == []
    assert [line["kind"] for line in running.log("attempt_failed")] == ["unavailable"]


async def test_an_upstream_without_tls(sidecar: StartSidecar) -> None:
    """F4: so does one that speaks plain HTTP where https was said."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        running = await sidecar(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        check_error(await running.post(), 502, "upstream_tls_error")


class _Connects:
    """Counts the connections this process tries to make, by port. An audit hook stays for good, so there is one."""

    def __init__(self) -> None:
        self.ports: list[int] | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[object, ...]) -> None:
        if self.ports is not None and event == "socket.connect" and isinstance(args[1], tuple):
            self.ports.append(args[1][1])


_connects = _Connects()


async def test_a_refused_connection_is_tried_twice(sidecar: StartSidecar) -> None:
    """A server that restarts is back in no time; it counts as one attempt, because no request ever went out."""
    async with FakeUpstream() as gone:
        url, port = gone.url, gone.port
    running = await sidecar(url)
    _connects.ports = []

    got = await running.post()

    tried, _connects.ports = _connects.ports.count(port), None
    check_error(got, 502, "upstream_unreachable")
    assert (tried, got.headers["x-sidecar-attempts"]) == (2, "1")


async def test_a_name_that_does_not_exist_cannot_be_reached(sidecar: StartSidecar) -> None:
    """A name without an address is as good as a closed port."""
    running = await sidecar("http://no-such-host.invalid:1/v1")
    check_error(await running.post(), 502, "upstream_unreachable")


async def test_a_connection_that_is_never_accepted_times_out(sidecar: StartSidecar) -> None:
    """`timeouts.connect`: a full queue or a black hole is 504, long before any answer is due."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        running = await sidecar(
            f"http://127.0.0.1:{address[1]}/v1", policy='strategy = "cheapest"\ntimeouts = { connect = 0.1 }\n'
        )
        got = await running.post()
        for one in waiting:
            one.close()
    check_error(got, 504, "upstream_timeout")
