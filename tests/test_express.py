"""The express: whatever happens to a request on it, the client, the log, the counters and the upstreams see what they
see without it. Each case is asked twice, on the express and off it, behind requests that have taught the sidecar the
head and left it a connection.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from proxy.client import Client, Going
from proxy.connection import Server
from proxy.express import Express
from proxy.gateway import Overrides
from proxy.lane import Lane, Rider
from tests.conftest import (
    CHAT,
    IN_ORDER,
    STREAM,
    Got,
    Sidecar,
    StartSidecar,
    StartUpstream,
    Wire,
    check_error,
    request,
    until,
)
from tests.fake_upstream import FakeUpstream, Play, completion, completion_body, error, events, reply, stream

BODY = json.dumps(CHAT).encode()
STREAM_BODY = json.dumps(STREAM).encode()
QUICK = 'strategy = "cheapest"\ntimeouts = { answer = 0.2, first_event = 0.2 }\n'
(WHOLE,) = completion().pieces
END = WHOLE.index(b"\r\n\r\n") + 4
SPOKEN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
LONG = "x" * 200_000
# What differs from one request to the next.
TIMES = {"ts", "ms", "upstream_ms", "first_token_ms", "request_id"}


class Case(NamedTuple):
    """What the upstream plays, and what else is special. `boards` says whether the express begins with it."""

    plays: Sequence[Play] = ()
    body: bytes = BODY
    policy: str = IN_ORDER
    lines: Sequence[str] = ()
    boards: bool = True
    provider: dict[str, Any] | None = None


CASES = {
    "whole": Case(),
    "without fallback": Case(lines=["x-sidecar-fallback: off"]),
    "long": Case([completion(LONG)]),
    "body behind its head": Case([Play([WHOLE[:END], WHOLE[END:]])]),
    "body in pieces": Case([Play([WHOLE[: END + 9], WHOLE[END + 9 : -5], WHOLE[-5:]])]),
    "head in pieces": Case([Play([WHOLE[:30], WHOLE[30:]])]),
    "chunked": Case([stream(completion_body(), content_type="application/json")]),
    "without a length": Case([Play([SPOKEN + b"\r\n" + completion_body()], "close")]),
    "the last on its connection": Case([reply(completion_body(), connection="close")]),
    "hints before it": Case([Play([b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + WHOLE])]),
    "empty": Case([reply(b"")]),
    "nonsense": Case([reply(b"<html>")]),
    "no choices": Case([reply(b'{"choices":[]}')]),
    "no usage": Case([completion(usage=None)]),
    "an error inside": Case([reply(b'{"error":{"message":"no","code":"rate_limit_exceeded"}}')]),
    "more than it said": Case([Play([WHOLE + b"HTTP/1.1 200 OK\r\n\r\n"])]),
    "limited": Case([error(429)]),
    "failed": Case([error(500)]),
    "refused": Case([error(400)]),
    "not to be found": Case([error(404)]),
    "elsewhere": Case([reply(b"", 302, location="/")]),
    "nobody else": Case([error(500)], lines=["x-sidecar-fallback: off"]),
    "gone before a byte": Case([Play([], "reset"), completion("again")]),
    "gone in its head": Case([Play([WHOLE[:30]], "close")]),
    "gone in its body": Case([Play([WHOLE[:-9]], "close")]),
    "silent": Case([Play([], "hang")], policy=QUICK),
    "silent in its body": Case(
        [Play([WHOLE[:-9]], "hang")], policy='strategy = "cheapest"\ntimeouts = { total = 0.4 }\n'
    ),
    "stream": Case([stream(*events("a", "b"))], STREAM_BODY),
    "stream that is none": Case([completion()], STREAM_BODY),
    "stream that breaks off": Case([stream(*events("a", "b")[:2], then="close", end=False)], STREAM_BODY),
    "silent stream": Case([Play([], "hang")], STREAM_BODY, QUICK),
    "wrong": Case(body=b'{"model":"test","messages":[]}', boards=False),
    "no JSON": Case(body=b'{"model":', boards=False),
    "unknown model": Case(body=BODY.replace(b'"test"', b'"nobody"'), boards=False),
    "large": Case(body=BODY + b" " * 300_000, boards=False),
    "hedged": Case(policy=IN_ORDER + "[fallback]\nhedge = 1.0\n", boards=False),
    "drained": Case(provider={"on_disconnect": "drain"}, boards=False),
    "one at a time": Case(provider={"limits": {"concurrency": 1}}),
    "no tokens left": Case(provider={"limits": {"tpm": 40}}, boards=False),
}


class Asking:
    """A server of its own around a running sidecar; `boarded` says of each request of the lane how it began."""

    def __init__(self, running: Sidecar, *, express: bool) -> None:
        inner = running.app.sidecar.lane()
        self.boarded: list[bool] = []

        def ride(client: Client, said: Overrides, body: bytes) -> Going | Rider:
            riding = inner.ride(client, said, body)
            self.boarded.append(isinstance(riding, Express))
            return riding

        lane = Lane(inner.answer, running.app.sidecar.room, inner.max_body, inner.body_s, ride if express else None)
        self.server = Server(running.app.sidecar.handle, running.app.sidecar.note, lane=lane)
        self.running = running


@asynccontextmanager
async def asking(running: Sidecar, *, express: bool) -> AsyncIterator[tuple[Asking, Wire]]:
    """Such a server, and a connection to it whose head it knows."""
    one = Asking(running, express=express)
    listener = await asyncio.get_running_loop().create_server(one.server, "127.0.0.1", 0)
    try:
        async with running.connect(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}") as wire:
            yield one, wire
    finally:
        listener.close()
        await one.server.shutdown(0.1)


def seen(got: Got) -> tuple[Any, ...]:
    """An answer without what differs from one to the next."""
    headers = {name: text for name, text in got.headers.items() if name not in ("x-request-id", "server-timing")}
    return got.status, headers, re.sub(rb"\d+\.\d+ s", b"0 s", got.body)


async def told(running: Sidecar, ups: Sequence[FakeUpstream]) -> dict[str, Any]:
    """What the log, the counters and the upstreams know."""
    await until(lambda: not running.app.sidecar.in_flight)
    running.app.log.flush()
    metrics = (await running.get("/metrics")).body.decode().splitlines()
    state = (await running.get("/status")).json["upstreams"].values()
    return {
        "log": [{name: value for name, value in line.items() if name not in TIMES} for line in running.lines],
        "metrics": [line for line in metrics if "_total{" in line or "_count" in line],
        "asked": [[(one.path, one.headers, one.body) for one in up.requests] for up in ups],
        "connections": [up.connections for up in ups],
        "state": [{name: row[name] for name in ("in_flight", "requests", "errors", "tokens", "why")} for row in state],
    }


@pytest.mark.parametrize("name", CASES)
async def test_nobody_sees_a_difference(sidecar: StartSidecar, upstream: StartUpstream, name: str) -> None:
    """With it and without it, and the next request on the connection is answered as if nothing had been."""
    case = CASES[name]
    found = []
    for express in (True, False):
        ups = [await upstream(completion(), completion(), *case.plays, completion()), await upstream(completion("p1"))]
        running = await sidecar(*ups, policy=case.policy, provider=case.provider)
        async with asking(running, express=express) as (one, wire):
            answers = [seen(await wire.ask(request(BODY, *case.lines))) for _ in range(2)]
            answers.append(seen(await wire.ask(request(case.body, *case.lines))))
            if "connection" not in answers[-1][1]:
                answers.append(seen(await wire.ask(request(BODY, *case.lines))))
            known = await told(running, ups)
            assert one.boarded[1:2] == ([case.boards] if express else [])
        found.append((answers, alike(known)))
    assert found[0] == found[1]


def alike(known: Any) -> Any:
    """`known` without ports, and without how long somebody rests."""
    text = json.dumps(known, default=lambda raw: raw.decode("latin-1"))
    return json.loads(re.sub(r"\d+\.\d+ s", "0 s", re.sub(r"127\.0\.0\.1:\d+", "here", text)))


# ---- who leaves while the express waits --------------------------------------------------------------------------


WAITING = Play([b"", *completion().pieces])


@asynccontextmanager
async def waiting(running: Sidecar, asked: FakeUpstream) -> AsyncIterator[Wire]:
    """A request on the express whose upstream has it and says nothing before `go_on`."""
    async with asking(running, express=True) as (one, wire):
        for _ in range(2):
            assert (await wire.ask(request(BODY))).status == 200
        asked.go_on.clear()
        wire.writer.write(request(BODY))
        await until(lambda: len(asked.requests) == 3)
        assert one.boarded == [True, True]
        yield wire


async def test_the_client_leaves(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The upstream is let go of, nobody is blamed or asked instead, and the log says 499."""
    asked, other = await upstream(completion(), completion(), Play([], "hang")), await upstream()
    running = await sidecar(asked, other)
    async with waiting(running, asked) as wire:
        wire.writer.transport.abort()
        await asyncio.wait_for(asked.idle.wait(), 1)
        await until(lambda: len(running.log("request")) == 3)
    assert [line["status"] for line in running.log("request")] == [200, 200, 499]
    (state, _) = (await running.get("/status")).json["upstreams"].values()
    assert (state["in_flight"], state["errors"], other.requests, running.log("fault")) == (0, 0, [], [])


async def test_the_client_leaves_as_the_answer_comes(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Both in one turn of the event loop: the books are closed once, and the connection to the upstream is not lost."""
    asked = await upstream(completion(), completion(), WAITING)
    running = await sidecar(asked)
    async with waiting(running, asked) as wire:
        asked.go_on.set()
        wire.writer.transport.abort()
        await until(lambda: len(running.log("request")) == 3)
    assert (await running.get("/status")).json["upstreams"]["p0/m"]["in_flight"] == 0


async def test_a_client_that_leaves_before_its_task_begins(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A task takes over and is broken off in the same turn of the event loop: it begins, and closes what was opened."""
    asked = await upstream(completion(), completion(), WAITING, completion())
    running = await sidecar(asked)
    async with waiting(running, asked):
        (riding,) = running.app.sidecar.room.inside
        assert isinstance(riding, Express)
        riding.task()
        riding.client.transport.abort()  # type: ignore[union-attr]
        riding.client.wire.connection_lost(None)  # type: ignore[attr-defined]
        await until(lambda: len(running.log("request")) == 3)
    assert [line["status"] for line in running.log("request")] == [200, 200, 499]
    assert (await running.get("/status")).json["upstreams"]["p0/m"]["in_flight"] == 0


async def test_the_sidecar_drains(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """It waits for what is on the express, whose answer is the last on its connection."""
    asked = await upstream(completion(), completion(), WAITING)
    running = await sidecar(asked)
    async with waiting(running, asked) as wire:
        stopping = asyncio.create_task(running.app.stop())
        await until(lambda: not running.app.sidecar.ready)
        asked.go_on.set()
        assert (await wire.ask(b"")).text == "Hello"
        await stopping


async def test_the_rest_of_a_body_comes_during_the_drain(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """It is waited for, and answered."""
    running = await sidecar(await upstream())
    async with asking(running, express=True) as (one, wire):
        for _ in range(2):
            assert (await wire.ask(request(BODY))).status == 200
        wire.writer.write(request(BODY)[:-3])
        inside = running.app.sidecar.room.inside
        await until(lambda: len(inside) == 1)
        stopping = asyncio.create_task(running.app.stop())
        await until(lambda: all(isinstance(who, asyncio.Task) for who in inside))
        assert (await wire.ask(BODY[-3:])).text == "Hello"
        await stopping
    assert one.boarded == [True]


async def test_the_sidecar_stops(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Past the drain timeout a request on the express is told so, and its attempt is closed."""
    asked = await upstream(completion(), completion(), WAITING)
    running = await sidecar(asked)
    async with waiting(running, asked) as wire:
        stopping = asyncio.create_task(running.app.stop())
        check_error(await wire.ask(b""), 503, "shutting_down")
        await stopping
    assert [line["status"] for line in running.log("request")] == [200, 200, 503]


async def test_a_client_that_does_not_read(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Nobody piles up answers: the next request waits until the client has taken enough of what there is."""
    asked, many = await upstream(completion(LONG)), 60
    running = await sidecar(asked)
    async with asking(running, express=True) as (one, wire):
        assert (await wire.ask(request(BODY))).status == 200
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        wire.writer.write(request(BODY) * many)
        (connection,) = one.server.connections
        await until(lambda: connection.full)  # type: ignore[attr-defined]
        held = len(asked.requests)
        assert held < many
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(many):
            assert (await wire.ask(b"")).text == LONG
    assert (len(asked.requests), set(one.boarded)) == (many + 1, {True})
