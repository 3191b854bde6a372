"""The short lane for chat requests whose heads are known: the same answers as from aiohttp's handler, in order, and
nothing that was not let through before.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any

import pytest

from proxy.client import Client, Going
from proxy.connection import Connection, Server
from proxy.gateway import Overrides
from proxy.lane import BODY_S, Lane, Rider
from tests.conftest import (
    CHAT,
    IN_ORDER,
    STREAM,
    Sidecar,
    StartSidecar,
    StartUpstream,
    Wire,
    check_error,
    request,
    until,
)
from tests.fake_upstream import FakeUpstream, Play, completion, events, stream

BODY = json.dumps(CHAT).encode()
STREAM_BODY = json.dumps(STREAM).encode()
HEAD = request(BODY).removesuffix(BODY)
KEYS = {"SIDECAR_API_KEYS": "sk-first, sk-second"}
RIGHT = "authorization: Bearer sk-first"
MIB = 1 << 20

both = pytest.mark.parametrize("body", [BODY, STREAM_BODY], ids=["complete", "stream"])


def said(body: bytes, *texts: str) -> Play:
    """An answer to `body`."""
    return stream(*events(*texts)) if body is STREAM_BODY else completion("".join(texts))


def waiting(body: bytes, *texts: str) -> Play:
    """An answer to `body` that waits for `go_on` before its first byte."""
    return Play([b"", *said(body, *texts).pieces])


class Laned:
    """A server of its own around a running sidecar; `taken` are the bodies that came over its short lane."""

    def __init__(self, running: Sidecar, max_body: int, body_s: float, times: dict[str, float]) -> None:
        self.running = running
        self.taken: list[bytes] = []
        inner = running.app.sidecar.lane()

        def ride(client: Client, overrides: Overrides, body: bytes) -> Going | Rider:
            self.taken.append(body)
            return inner.ride(client, overrides, body)

        self.lane = Lane(inner.answer, running.app.sidecar.room, max_body, body_s, ride)
        self.server = Server(running.app.sidecar.handle, running.app.sidecar.note, lane=self.lane, **times)
        self.address = ""

    def connect(self) -> AbstractAsyncContextManager[Wire]:
        """Open a connection."""
        return self.running.connect(self.address)

    async def learn(self, wire: Wire, *lines: str, body: bytes = BODY) -> None:
        """Ask once, so that the next request with this head takes the lane."""
        before = len(self.taken)
        assert (await wire.ask(request(body, *lines))).status == 200
        assert len(self.taken) == before

    @property
    def connection(self) -> Connection:
        """The only connection."""
        (connection,) = self.server.connections
        assert isinstance(connection, Connection)
        return connection

    @property
    def arriving(self) -> bool:
        """True while a body is on its way."""
        return self.connection._arriving is not None

    @property
    def idle(self) -> bool:
        """True when nobody is connected and no upstream is asked."""
        state: Any = self.running.app.gateway.status()["upstreams"]
        return not self.server.connections and not any(one["in_flight"] for one in state.values())


@asynccontextmanager
async def laned(
    running: Sidecar, *, max_body: int = MIB, body_s: float = BODY_S, **times: float
) -> AsyncIterator[Laned]:
    """Such a server, on a free port."""
    one = Laned(running, max_body, body_s, times)
    listener = await asyncio.get_running_loop().create_server(one.server, "127.0.0.1", 0)
    one.address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        listener.close()
        await one.server.shutdown(0.1)


# ---- the same answers --------------------------------------------------------------------------------------------


@both
async def test_the_second_request_takes_the_short_lane(
    sidecar: StartSidecar, upstream: StartUpstream, body: bytes
) -> None:
    """aiohttp sees the first only; the client sees no difference."""
    async with laned(await sidecar(await upstream(said(body, "a", "b")))) as lane, lane.connect() as wire:
        first, second, third = [await wire.ask(request(body)) for _ in range(3)]
    assert (lane.taken, lane.server.requests_count) == ([body, body], 1)
    assert (first.status, first.text) == (200, "ab")
    assert second.body == third.body == first.body
    assert [*second.headers] == [*third.headers] == [*first.headers]
    assert len({got.headers["x-request-id"] for got in (first, second, third)}) == 3


async def test_a_running_sidecar_has_the_lane(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """It is on without being asked for, and counts and logs like the long way."""
    running = await sidecar(await upstream())
    ((_, server),) = running.app._listeners
    async with running.connect() as wire:
        for _ in range(3):
            assert (await wire.ask(request(BODY))).text == "Hello"
        assert server.requests_count == 1
        metrics = (await wire.ask(request(path="/metrics"))).body
    assert [line["status"] for line in running.log("request")] == [200] * 3
    assert b'policy="test",mode="complete",status="200"} 3' in metrics


async def test_what_is_known_is_known_on_every_connection(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Also as the first request of a connection, and of one that has asked something else before."""
    async with laned(await sidecar(await upstream())) as lane:
        async with lane.connect() as wire:
            await lane.learn(wire)
        async with lane.connect() as wire:
            assert (await wire.ask(request(BODY))).text == "Hello"
            assert (await wire.ask(request(path="/livez"))).status == 200
            assert (await wire.ask(request(BODY + b" "))).text == "Hello"
    assert lane.taken == [BODY, BODY + b" "]


@pytest.mark.parametrize(
    ("line", "header", "word"),
    [
        ("x-sidecar-policy: two", "x-sidecar-policy", "two"),
        ("x-sidecar-fallback: off", "x-sidecar-attempts", "1"),
        ("x-other: 1", "x-sidecar-policy", "test"),
    ],
)
async def test_what_the_head_asks_for(
    sidecar: StartSidecar, upstream: StartUpstream, line: str, header: str, word: str
) -> None:
    """Overrides in headers are remembered with their head, and only with it."""
    running = await sidecar(await upstream(), files={"two.toml": IN_ORDER})
    async with laned(running) as lane, lane.connect() as wire:
        await lane.learn(wire)
        await lane.learn(wire, line)
        assert (await wire.ask(request(BODY, line))).headers[header] == word
        assert (await wire.ask(request(BODY))).headers["x-sidecar-policy"] == "test"
        assert len(lane.taken) == 2


# ---- bodies in pieces --------------------------------------------------------------------------------------------


async def test_a_body_cut_anywhere(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Head and body in two packets, whatever the cut."""
    asked = await upstream()
    async with laned(await sidecar(asked)) as lane, lane.connect() as wire:
        await lane.learn(wire)
        for cut in range(len(BODY)):
            wire.writer.write(HEAD + BODY[:cut])
            await until(lambda: lane.arriving)
            assert (await wire.ask(BODY[cut:])).text == "Hello"
    assert lane.taken == [BODY] * len(BODY)
    assert all(one.json["messages"] == CHAT["messages"] for one in asked.requests)


async def test_a_body_byte_by_byte(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """And in as many packets as it has bytes."""
    async with laned(await sidecar(await upstream())) as lane, lane.connect() as wire:
        await lane.learn(wire)
        wire.writer.write(HEAD)
        await until(lambda: lane.arriving)
        for byte in BODY[:-1]:
            before = lane.connection._arriving.missing  # type: ignore[union-attr]
            wire.writer.write(bytes([byte]))
            await until(lambda was=before: lane.connection._arriving.missing == was - 1)  # type: ignore[misc,union-attr]
        assert (await wire.ask(BODY[-1:])).text == "Hello"
    assert lane.taken == [BODY]


async def test_a_big_body(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Nothing of a megabyte is lost or moved."""
    asked = await upstream()
    async with laned(await sidecar(asked), max_body=4 * MIB) as lane, lane.connect() as wire:
        await lane.learn(wire)
        text = "".join(map(str, range(200_000)))
        big = json.dumps({**CHAT, "messages": [{"role": "user", "content": text}]}).encode()
        assert (await wire.ask(request(big))).text == "Hello"
    assert lane.taken == [big]
    assert asked.requests[-1].json["messages"][0]["content"] == text


@pytest.mark.parametrize("cut", [1, 20, 36, len(HEAD) - 30, len(HEAD) - 1])
async def test_a_head_in_two_pieces_goes_the_long_way(sidecar: StartSidecar, upstream: StartUpstream, cut: int) -> None:
    """aiohttp's parser puts heads together, and nothing comes of the known one that they are."""
    async with laned(await sidecar(await upstream())) as lane, lane.connect() as wire:
        await lane.learn(wire)
        wire.writer.write(HEAD[:cut])
        await until(lambda: not lane.connection.idle)
        assert (await wire.ask(HEAD[cut:] + BODY)).text == "Hello"
        assert lane.taken == []
        assert (await wire.ask(request(BODY))).text == "Hello"


# ---- requests ahead of their turn --------------------------------------------------------------------------------


async def test_pipelined_on_the_lane(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Requests in one packet are answered one after the other, known and unknown heads in any order."""
    asked = await upstream(*[completion(text) for text in "abcde"])
    async with laned(await sidecar(asked)) as lane, lane.connect() as wire:
        await lane.learn(wire)
        livez, other = request(path="/livez"), request(BODY, "x-other: 1")
        wire.writer.write(request(BODY) * 2 + livez + other + request(BODY) + livez)
        assert [(await wire.ask(b"")).text for _ in range(2)] == ["b", "c"]
        assert (await wire.ask(b"")).json == {"status": "ok"}
        assert [(await wire.ask(b"")).text for _ in range(2)] == ["d", "e"]
        assert (await wire.ask(b"")).json == {"status": "ok"}
    assert lane.taken[:2] == [BODY, BODY]


@pytest.mark.parametrize("cut", [0, 1, len(HEAD) - 1, len(HEAD), len(HEAD) + 1, len(HEAD + BODY) - 1])
async def test_a_part_of_the_next_request(sidecar: StartSidecar, upstream: StartUpstream, cut: int) -> None:
    """What has come of the next request when the answer goes out is not lost."""
    asked = await upstream(completion("a"), waiting(BODY, "b"), completion("c"))
    async with laned(await sidecar(asked)) as lane, lane.connect() as wire:
        await lane.learn(wire)
        asked.go_on.clear()
        wire.writer.write(request(BODY) + request(BODY)[:cut])
        await until(lambda: len(asked.requests) == 2)
        asked.go_on.set()
        assert (await wire.ask(b"")).text == "b"
        assert (await wire.ask(request(BODY)[cut:])).text == "c"


async def test_garbage_behind_a_request_on_the_lane(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """It waits for its turn, and is then 400 and the end."""
    async with laned(await sidecar(await upstream())) as lane, lane.connect() as wire:
        await lane.learn(wire)
        assert (await wire.ask(request(BODY) + b"\0 oops\r\n\r\n")).text == "Hello"
        check_error(await wire.ask(b""), 400, None)
        assert await wire.closed()
    assert lane.taken == [BODY]


async def test_a_client_far_ahead_is_told_to_wait(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Requests ahead are held up to a bound; past it the client waits, and nothing is lost."""
    asked = await upstream(completion("0"), *[waiting(BODY, f"{number}") for number in range(1, 101)])
    async with laned(await sidecar(asked)) as lane, lane.connect() as wire:
        await lane.learn(wire)
        asked.go_on.clear()
        bodies = [json.dumps({**CHAT, "user": f"{number}" + "x" * 40_000}).encode() for number in range(1, 101)]
        wire.writer.write(b"".join(map(request, bodies)))
        transport = lane.connection.transport
        assert transport is not None
        await until(lambda: not transport.is_reading())
        assert len(lane.connection._ahead) < 10 * (1 << 16) < len(b"".join(bodies))
        asked.go_on.set()
        assert [(await wire.ask(b"")).text for _ in bodies] == [f"{number}" for number in range(1, 101)]
    assert (lane.taken, len(asked.requests)) == (bodies, 101)


async def test_a_head_that_began_behind_another_request(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A head that has begun goes on, even if what comes next looks like a known head of its own."""
    asked = await upstream()
    async with laned(await sidecar(asked)) as lane, lane.connect() as wire:
        await lane.learn(wire)
        begun = b"GET /livez HTTP/1.1\r\nx-note: "
        assert (await wire.ask(request(path="/livez") + begun)).json == {"status": "ok"}
        assert (await wire.ask(request(BODY))).json == {"status": "ok"}
    assert (lane.taken, len(asked.requests)) == ([], 1)


# ---- nobody else gets in -----------------------------------------------------------------------------------------

STRANGERS = {
    "no key": ((), 401, "invalid_api_key"),
    "a wrong key": (("authorization: Bearer sk-wrong",), 401, "invalid_api_key"),
    "one letter more": ((RIGHT + "x",), 401, "invalid_api_key"),
    "another kind": (("authorization: Basic sk-first",), 401, "invalid_api_key"),
    "an origin": ((RIGHT, "origin: http://evil.example"), 403, "forbidden_origin"),
    "another site": ((RIGHT, "sec-fetch-site: cross-site"), 403, "forbidden_origin"),
}


@pytest.mark.parametrize(("lines", "status", "code"), STRANGERS.values(), ids=STRANGERS)
async def test_a_stranger_behind_a_friend(
    sidecar: StartSidecar, upstream: StartUpstream, lines: tuple[str, ...], status: int, code: str
) -> None:
    """Every head is judged as itself, also on a connection and behind heads that were let through."""
    asked = await upstream()
    async with laned(await sidecar(asked, environ=KEYS)) as lane, lane.connect() as wire:
        await lane.learn(wire, RIGHT)
        assert (await wire.ask(request(BODY, RIGHT))).text == "Hello"
        for _ in range(2):
            check_error(await wire.ask(request(BODY, *lines)), status, code)
        assert (await wire.ask(request(BODY, RIGHT))).text == "Hello"
    assert (len(lane.taken), len(asked.requests)) == (2, 3)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
async def test_another_host(sidecar: StartSidecar, upstream: StartUpstream, host: str) -> None:
    """A name that points here by trickery is refused each time."""
    async with laned(await sidecar(await upstream())) as lane, lane.connect() as wire:
        await lane.learn(wire)
        for _ in range(2):
            evil = request(BODY).replace(b"127.0.0.1", host.encode())
            check_error(await wire.ask(evil), 403, "forbidden_host")
    assert lane.taken == []


async def test_a_head_is_not_learned_for_another(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """What a client with a key sends lets nobody in without one, however it is cut."""
    async with laned(await sidecar(await upstream(), environ=KEYS)) as lane:
        async with lane.connect() as wire:
            begun = f"POST /v1/chat/completions HTTP/1.1\r\n{RIGHT}\r\nx-note: ".encode()
            assert (await wire.ask(request(path="/livez") + begun)).status == 200
            assert (await wire.ask(request(BODY))).status == 200
        async with lane.connect() as wire:
            check_error(await wire.ask(request(BODY)), 401, "invalid_api_key")
    assert lane.taken == []


@pytest.mark.parametrize("line", ["x-content-length: {}", "x-note: content-length: {}"])
async def test_digits_elsewhere_are_not_the_length(sidecar: StartSidecar, upstream: StartUpstream, line: str) -> None:
    """The end of a body is where its own length says, whatever other headers say."""
    asked = await upstream()
    behind = request(path="/livez")
    async with laned(await sidecar(asked)) as lane, lane.connect() as wire:
        for told in (len(BODY), len(BODY), len(BODY + behind)):
            assert (await wire.ask(request(BODY, line.format(told)))).status == 200
        assert (await wire.ask(behind)).json == {"status": "ok"}
    assert len(asked.requests) == 3


# ---- refusals ----------------------------------------------------------------------------------------------------

BAD = [b"{", b'{"model": 1}', b"[]", b"\xff\xfe", b"{}", b'{"model":"nope","messages":[]}']


@pytest.mark.parametrize("bad", BAD)
async def test_a_bad_body_on_the_lane(sidecar: StartSidecar, upstream: StartUpstream, bad: bytes) -> None:
    """It is refused as on the long way, and the connection stays."""
    running = await sidecar(await upstream())
    async with laned(running) as lane, lane.connect() as wire:
        long_way = await wire.ask(request(bad))
        short = await wire.ask(request(bad))
        assert (await wire.ask(request(BODY))).text == "Hello"
    assert lane.taken == [bad, BODY]
    assert (short.status, short.body, [*short.headers]) == (long_way.status, long_way.body, [*long_way.headers])
    assert short.status in (400, 404)
    assert {"message", "type", "param", "code"} <= short.error.keys()


@pytest.mark.parametrize("begun", [b"", BODY[:1], BODY[:-1]])
async def test_a_body_that_does_not_come(sidecar: StartSidecar, upstream: StartUpstream, begun: bytes) -> None:
    """A whole body must be in within an absolute time; nobody is asked before."""
    asked = await upstream()
    running = await sidecar(asked)
    async with laned(running, body_s=0.1) as lane, lane.connect() as wire:
        await lane.learn(wire)
        check_error(await wire.ask(HEAD + begun), 408, "request_timeout")
        assert await wire.closed()
    assert [(line["status"], line["code"]) for line in running.log("refused")] == [(408, "request_timeout")]
    assert (lane.taken, len(asked.requests)) == ([], 1)


async def test_the_clock_stops_with_the_body(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A body that was in time is not late because its answer is."""
    asked = await upstream(completion("a"), waiting(BODY, "b"))
    running = await sidecar(asked)
    async with laned(running, body_s=0.1) as lane, lane.connect() as wire, lane.connect() as late:
        await lane.learn(wire)
        asked.go_on.clear()
        wire.writer.write(HEAD)
        wire.writer.write(BODY)
        await until(lambda: len(asked.requests) == 2)
        check_error(await late.ask(HEAD), 408, "request_timeout")
        asked.go_on.set()
        assert (await wire.ask(b"")).text == "b"


async def test_a_head_that_stalls_behind_the_lane(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The clock of heads runs when one has begun, and not while nothing is asked."""
    running = await sidecar(await upstream())
    async with laned(running, head_s=0.1) as lane, lane.connect() as wire, lane.connect() as stalls:
        await lane.learn(wire)
        assert (await wire.ask(request(BODY))).text == "Hello"
        check_error(await stalls.ask(HEAD[:9]), 408, "request_timeout")
        assert (await wire.ask(request(BODY))).text == "Hello"
        check_error(await wire.ask(HEAD[:9]), 408, "request_timeout")
    assert len(lane.taken) == 2


@pytest.mark.parametrize("length", [(32 << 20) + 1, 999_999_999, 1_000_000_000, 10**18])
async def test_too_long_a_body_on_a_known_head(sidecar: StartSidecar, upstream: StartUpstream, length: int) -> None:
    """What is announced over the limit is refused before it comes."""
    asked = await upstream()
    async with laned(await sidecar(asked), max_body=32 << 20) as lane, lane.connect() as wire:
        await lane.learn(wire)
        huge = HEAD.replace(b"content-length: %d" % len(BODY), b"content-length: %d" % length)
        check_error(await wire.ask(huge), 413, "request_too_large")
    assert (lane.taken, len(asked.requests)) == ([], 1)


async def test_the_limit_itself(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A body as long as the lane takes; one byte more goes the long way."""
    async with laned(await sidecar(await upstream()), max_body=len(BODY)) as lane, lane.connect() as wire:
        await lane.learn(wire)
        for body in (BODY + b" ", BODY):
            assert (await wire.ask(request(body))).text == "Hello"
    assert lane.taken == [BODY]


async def test_no_body_at_all(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A known head with nothing behind it asks for nothing, and does not wait for more."""
    async with laned(await sidecar(await upstream())) as lane, lane.connect() as wire:
        await lane.learn(wire)
        check_error(await wire.ask(request(b"")), 400, "invalid_json")
        assert (await wire.ask(request(BODY))).text == "Hello"
    assert lane.taken == [BODY]


@both
async def test_our_own_fault_on_the_lane(sidecar: StartSidecar, upstream: StartUpstream, body: bytes) -> None:
    """It is 500 in OpenAI's words, one line in the log that quotes nothing, and the next request is served."""
    running = await sidecar(await upstream(), provider={"adapter": "tests.broken_adapter"})
    async with laned(running) as lane, lane.connect() as wire:
        for _ in range(3):
            got = await wire.ask(request(body))
            check_error(got, 500, None)
            assert got.error["message"] == "the sidecar failed; its log says where"
        assert (await wire.ask(request(path="/livez"))).status == 200
    assert lane.taken == [body, body]
    assert [line["error"] for line in running.log("fault")] == ["ZeroDivisionError"] * 3


# ---- clients that leave, and clients that do not read ------------------------------------------------------------


async def test_a_client_that_leaves_in_the_middle_of_its_body(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Half a request asks nobody, and no clock goes on running for it."""
    asked = await upstream()
    running = await sidecar(asked)
    async with laned(running, body_s=0.1) as lane:
        async with lane.connect() as wire:
            await lane.learn(wire)
            wire.writer.write(request(BODY)[:-3])
            await until(lambda: lane.arriving)
            timer = lane.connection._arriving.timer  # type: ignore[union-attr]
        await until(lambda: lane.idle)
    assert timer.cancelled()
    assert (len(asked.requests), running.log("fault")) == (1, [])
    assert [(line["status"], line["code"]) for line in running.log("refused")] == [(499, "client_cancelled")]


@both
@pytest.mark.parametrize("when", ["asked", "speaking"])
async def test_a_client_that_leaves(sidecar: StartSidecar, upstream: StartUpstream, body: bytes, when: str) -> None:
    """The upstream that is being paid for is left at once, and is not to blame."""
    pieces = events("a")[:2] if when == "speaking" and body is STREAM_BODY else []
    asked = await upstream(said(body, "a"), stream(*pieces, then="hang", end=False))
    running = await sidecar(asked)
    async with laned(running) as lane:
        async with lane.connect() as wire:
            await lane.learn(wire, body=body)
            wire.writer.write(request(body))
            await until(lambda: len(asked.requests) == 2)
            if pieces:
                assert await wire.reader.readuntil(b'"a"')
        await asyncio.wait_for(asked.idle.wait(), 2)
        await until(lambda: lane.idle)
    assert lane.taken == [body]
    assert [line["status"] for line in running.log("request")] == [200, 499]
    assert running.log("fault") == running.log("attempt_failed") == running.log("refused") == []


async def test_a_client_that_takes_its_time(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Eight megabytes to a slow reader: all of it comes."""
    texts = [f"{number}" + "x" * 500_000 for number in range(16)]
    asked = await upstream(completion(), stream(*events(*texts)))
    async with laned(await sidecar(asked)) as lane, lane.connect() as wire:
        await lane.learn(wire)
        wire.writer.write(request(STREAM_BODY))
        await until(lambda: lane.connection.full)
        assert (await wire.ask(b"")).text == "".join(texts)
    assert lane.taken == [STREAM_BODY]


@both
async def test_a_client_that_takes_nothing(sidecar: StartSidecar, upstream: StartUpstream, body: bytes) -> None:
    """F34: when nothing is taken for long, both sides are cut off; that is no fault, and nobody else's."""
    big = "x" * 900_000
    asked = await upstream(said(body, "a"), completion(big * 12) if body is BODY else stream(*events(*[big] * 12)))
    running = await sidecar(asked)
    async with laned(running, stall_s=0.1) as lane:
        async with lane.connect() as first:
            await lane.learn(first, body=body)
        await until(lambda: lane.idle)
        host, _, port = lane.address.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1)
        writer.write(request(body))
        await until(lambda: len(asked.requests) == 2)
        await until(lambda: lane.idle)
        writer.transport.abort()
    assert lane.taken == [body]
    assert [line["status"] for line in running.log("request")] == [200, 200 if body is BODY else 499]
    assert running.log("fault") == running.log("attempt_failed") == running.log("refused") == []


async def test_answers_do_not_pile_up(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A client that asks again and again and never reads is cut off as one that asks once."""
    asked = await upstream(completion("a"), completion("x" * (8 << 20)))
    async with laned(await sidecar(asked), stall_s=0.1) as lane:
        async with lane.connect() as wire:
            await lane.learn(wire)
        await until(lambda: lane.idle)
        host, _, port = lane.address.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1)
        writer.write(request(BODY) * 20)
        await until(lambda: len(asked.requests) > 1 and lane.idle)
        writer.transport.abort()
    assert len(asked.requests) < 5


# ---- how long a connection lives ---------------------------------------------------------------------------------


async def test_an_answer_is_not_idle(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The clock of idle connections goes off in the middle of an answer, or of a body, and closes nothing."""
    asked = await upstream(completion("a"), waiting(STREAM_BODY, "b"))
    async with laned(await sidecar(asked)) as lane, lane.connect() as wire:
        await lane.learn(wire)
        asked.go_on.clear()
        wire.writer.write(request(STREAM_BODY)[:-1])
        await until(lambda: lane.arriving)
        overdue(lane.connection)
        wire.writer.write(STREAM_BODY[-1:])
        await until(lambda: len(asked.requests) == 2)
        overdue(lane.connection)
        asked.go_on.set()
        assert (await wire.ask(b"")).text == "b"
        await until(lambda: lane.connection.idle)
        overdue(lane.connection)
        assert await wire.closed()


def overdue(connection: Connection) -> None:
    """Let the clock of idle connections go off now."""
    handle = connection._keepalive_handle
    assert handle is not None
    handle.cancel()
    connection._next_keepalive_close_time = 0.0
    connection._process_keepalive()


async def test_each_answer_sets_the_idle_clock(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A connection that was just used is not idle since its last request of the long way."""
    async with laned(await sidecar(await upstream())) as lane, lane.connect() as wire:
        await lane.learn(wire)
        lane.connection._next_keepalive_close_time = 0.0
        await wire.ask(request(BODY))
        await until(lambda: lane.connection.idle)
        lane.connection._process_keepalive()
        assert (await wire.ask(request(BODY))).text == "Hello"


# ---- the end of the sidecar --------------------------------------------------------------------------------------


@asynccontextmanager
async def stopping(running: Sidecar, asked: FakeUpstream, body: bytes) -> AsyncIterator[Wire]:
    """A connection whose request on the lane waits for its upstream while the sidecar stops."""
    async with running.connect() as wire:
        await wire.ask(request(body))
        asked.go_on.clear()
        wire.writer.write(request(body))
        await until(lambda: len(asked.requests) == 2)
        stop = asyncio.create_task(running.app.stop())
        await until(lambda: not running.app.sidecar.ready)
        yield wire
        await stop


@both
async def test_an_answer_is_waited_for(sidecar: StartSidecar, upstream: StartUpstream, body: bytes) -> None:
    """Whoever was asked before the stop answers, and the connection ends behind it."""
    asked = await upstream(said(body, "a"), waiting(body, "b"))
    async with stopping(await sidecar(asked), asked, body) as wire:
        asked.go_on.set()
        got = await wire.ask(b"")
        assert (got.text, got.headers["connection"], await wire.closed()) == ("b", "close", True)


@both
async def test_an_answer_that_does_not_come(sidecar: StartSidecar, upstream: StartUpstream, body: bytes) -> None:
    """After the drain time the client is told why."""
    asked = await upstream(said(body, "a"), waiting(body, "b"))
    running = await sidecar(asked)
    async with stopping(running, asked, body) as wire:
        check_error(await wire.ask(b""), 503, "shutting_down")
        assert await wire.closed()
    assert [line["status"] for line in running.log("request")] == [200, 503]


async def test_a_stream_that_does_not_end(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A stream is told in its last event, after all that was said."""
    asked = await upstream(said(STREAM_BODY, "a"), stream(*events("b")[:2], then="hang", end=False))
    running = await sidecar(asked)
    async with stopping(running, asked, STREAM_BODY) as wire:
        asked.go_on.set()
        got = await wire.ask(b"")
    assert b'"b"' in got.body
    assert json.loads(got.events[-1])["error"]["code"] == "shutting_down"


async def test_a_request_on_the_lane_is_in_flight(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """What is under way on the lane is told in /status and has all of the drain time, as on the long way."""
    asked = await upstream(completion("a"), waiting(BODY, "b"))
    running = await sidecar(asked)
    async with running.connect() as wire:
        await wire.ask(request(BODY))
        asked.go_on.clear()
        wire.writer.write(request(BODY))
        await until(lambda: len(asked.requests) == 2)
        assert len(running.app.sidecar.in_flight) == 1
        assert (await running.get("/status")).json["in_flight"] == 1
        asked.go_on.set()
        assert (await wire.ask(b"")).text == "b"
        await until(lambda: len(running.app.sidecar.in_flight) == 0)


async def test_leaving_closes_idle_connections_of_the_lane(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """One that has its answer is closed at once, one whose body arrives gets its answer first."""
    async with laned(await sidecar(await upstream())) as lane, lane.connect() as idle, lane.connect() as busy:
        await lane.learn(idle)
        assert (await idle.ask(request(BODY))).text == "Hello"
        busy.writer.write(HEAD)
        await until(lambda: sorted(one.idle for one in connections(lane)) == [False, True])
        lane.server.leave()
        assert await idle.closed()
        got = await busy.ask(BODY)
        assert (got.text, got.headers["connection"], await busy.closed()) == ("Hello", "close", True)


def connections(lane: Laned) -> list[Connection]:
    return [one for one in lane.server.connections if isinstance(one, Connection)]


# ---- many at once ------------------------------------------------------------------------------------------------


class Echo(FakeUpstream):
    """Says what it was asked, after a few turns of the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self._random = Random(1)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        asked = json.loads(await reader.readexactly(length))
        text = asked["messages"][0]["content"]
        play = stream(*events(*text.split("-"))) if asked.get("stream") else completion(text)
        for piece in play.pieces:
            for _ in range(self._random.randrange(5)):
                await asyncio.sleep(0)
            writer.write(piece)
        return True


@both
async def test_answers_never_mix(sidecar: StartSidecar, body: bytes) -> None:
    """200 requests over 20 connections, cut anywhere, some ahead of their turn: each gets its own answer."""
    mark = "" if body is STREAM_BODY else "-"
    async with Echo() as asked, laned(await sidecar(asked)) as lane:
        async with lane.connect() as wire:
            await lane.learn(wire, body=body)

        async def one(number: int) -> None:
            random = Random(number)
            texts = [f"nonce-{number}-{turn}-" + "y" * random.choice([0, 9, 50]) for turn in range(10)]
            bodies = [
                json.dumps({**json.loads(body), "messages": [{"role": "user", "content": text}]}).encode()
                for text in texts
            ]
            async with lane.connect() as wire:
                for place in range(0, 10, 2):
                    data = b"".join(map(request, bodies[place : place + 2]))
                    cut = random.randrange(len(HEAD), len(data))
                    wire.writer.write(data[:cut])
                    await asyncio.sleep(0)
                    wire.writer.write(data[cut:])
                    assert [(await wire.ask(b"")).text for _ in range(2)] == [
                        text.replace("-", mark) for text in texts[place : place + 2]
                    ]

        await asyncio.gather(*map(one, range(20)))
    assert len(lane.taken) > 100
