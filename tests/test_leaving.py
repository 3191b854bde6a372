"""F33: clients that leave, at any moment, in any way, on both ways in. Whoever is paid is left within a second."""

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.conftest import CHAT, STREAM, Sidecar, StartSidecar, StartUpstream, Wire, request, until
from tests.fake_upstream import FakeUpstream, Play, completion, error, events, stream

BODY = json.dumps(CHAT).encode()
STREAM_BODY = json.dumps(STREAM).encode()
WHOLE = completion().pieces[0]
SAID = events("a", "b")


class Moment(NamedTuple):
    """How far an answer to `body` has come when the client leaves, which has seen `seen` of it."""

    body: bytes
    play: Play
    seen: bytes = b""


MOMENTS = {
    "complete, asked": Moment(BODY, Play([], "hang")),
    "complete, half a head": Moment(BODY, Play([WHOLE[:20]], "hang")),
    "complete, half a body": Moment(BODY, Play([WHOLE[:-20]], "hang")),
    "stream, asked": Moment(STREAM_BODY, Play([], "hang")),
    "stream, before content": Moment(STREAM_BODY, stream(SAID[0], then="hang", end=False)),
    "stream, speaking": Moment(STREAM_BODY, stream(*SAID[:2], then="hang", end=False), b'"a"'),
    "stream, speaking on": Moment(STREAM_BODY, stream(SAID[0], SAID[1], then="drip", end=False), b'"a"'),
}
HOWS: dict[str, Callable[[asyncio.StreamWriter], object]] = {
    "resets": lambda writer: _reset(writer),
    "closes": lambda writer: writer.close(),
    "closes its half": lambda writer: writer.write_eof(),
}

moments = pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
hows = pytest.mark.parametrize("leave", HOWS.values(), ids=HOWS)
ways = pytest.mark.parametrize("known", [False, True], ids=["long way", "short lane"])


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a RST, as a process does that is killed with answers unread."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def come(running: Sidecar, asked: FakeUpstream, body: bytes, plays: list[Play], *, known: bool) -> None:
    """Let `asked` play `plays`, after an answer that teaches the sidecar the head, if it is to be known."""
    asked.plays = [stream(*SAID) if body is STREAM_BODY else completion(), *plays] if known else plays
    if known:
        assert (await running.raw(request(body))).status == 200


async def check_left(running: Sidecar, *, known: bool) -> None:
    """One request was left, by its client: nobody is blamed or asked instead, and all is put away."""
    await until(lambda: len(running.log("request")) == 1 + known)
    assert [(line["status"], line["error"]) for line in running.log("request")[known:]] == [(499, "client_cancelled")]
    assert running.log("attempt_failed") == running.log("fault") == running.log("refused") == []
    status = (await running.get("/status")).json
    assert status["in_flight"] == 0
    assert {(one["errors"], one["in_flight"], one["resting_s"]) for one in status["upstreams"].values()} == {(0, 0, 0)}
    assert 'outcome="cancelled"} 1\n' in (await running.get("/metrics")).body.decode()


@ways
@hows
@moments
async def test_a_client_that_leaves(
    sidecar: StartSidecar,
    upstream: StartUpstream,
    moment: Moment,
    leave: Callable[[asyncio.StreamWriter], object],
    known: bool,
) -> None:
    """The upstream's connection closes, it counts as cancelled and not as failed, and there is no fallback."""
    asked, other = await upstream(), await upstream()
    running = await sidecar(asked, other)
    ((_, server),) = running.app._listeners
    await come(running, asked, moment.body, [moment.play], known=known)
    async with running.connect() as wire:
        wire.writer.write(request(moment.body))
        await until(lambda: len(asked.requests) == 1 + known)
        if moment.seen:
            await wire.reader.readuntil(moment.seen)
        assert server.requests_count == 1
        leave(wire.writer)
        await asyncio.wait_for(asked.idle.wait(), 1)
        await until(lambda: not server.connections)
    await check_left(running, known=known)
    assert other.requests == []


@hows
async def test_a_client_that_leaves_while_the_upstream_is_called(
    sidecar: StartSidecar, leave: Callable[[asyncio.StreamWriter], object]
) -> None:
    """Nobody has picked up yet: the call ends. The second client's head is known, so it comes by the short lane."""
    with ExitStack() as open_, socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        for _ in range(4):
            waiting = open_.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        running = await sidecar(f"http://127.0.0.1:{full.getsockname()[1]}/v1")
        for count in (1, 2):
            async with running.connect() as wire:
                wire.writer.write(request(BODY))
                await until(lambda: len(running.app.sidecar.in_flight) == 1)
                leave(wire.writer)
                await until(lambda count=count: len(running.log("request")) == count)  # type: ignore[misc]
    assert [(line["status"], line["error"]) for line in running.log("request")] == [(499, "client_cancelled")] * 2
    state = (await running.get("/status")).json["upstreams"]["p0/m"]
    assert (state["errors"], state["in_flight"], running.log("attempt_failed")) == (0, 0, [])


@ways
async def test_a_client_that_leaves_during_a_fallback(
    sidecar: StartSidecar, upstream: StartUpstream, known: bool
) -> None:
    """The second upstream is left like the first would be, and there is no third."""
    asked, second, third = await upstream(), await upstream(Play([], "hang")), await upstream()
    running = await sidecar(asked, second, third)
    await come(running, asked, BODY, [error(429)], known=known)
    async with running.connect() as wire:
        wire.writer.write(request(BODY))
        await second.arrived.wait()
    await asyncio.wait_for(second.idle.wait(), 1)
    await until(lambda: len(running.log("request")) == 1 + known)
    line = running.log("request")[-1]
    assert (line["status"], line["error"], line["attempts"]) == (499, "client_cancelled", 1)
    assert (len(running.log("attempt_failed")), third.requests) == (1, [])
    status = (await running.get("/status")).json["upstreams"]["p1/m"]
    assert (status["errors"], status["in_flight"]) == (0, 0)


@ways
async def test_a_request_behind_another_one(sidecar: StartSidecar, upstream: StartUpstream, known: bool) -> None:
    """What waits for its turn when the client leaves is never asked."""
    asked = await upstream()
    running = await sidecar(asked)
    await come(running, asked, BODY, [Play([], "hang")], known=known)
    async with running.connect() as wire:
        wire.writer.write(request(BODY) * 3)
        await until(lambda: len(asked.requests) == 1 + known)
    await asyncio.wait_for(asked.idle.wait(), 1)
    await check_left(running, known=known)
    assert len(asked.requests) == 1 + known


@ways
@hows
@pytest.mark.parametrize("cut", [0, 1, len(BODY) - 1])
async def test_a_client_that_leaves_in_its_body(
    sidecar: StartSidecar,
    upstream: StartUpstream,
    leave: Callable[[asyncio.StreamWriter], object],
    cut: int,
    known: bool,
) -> None:
    """Nobody is asked, the log has a line, and the place is free."""
    asked = await upstream()
    running = await sidecar(asked)
    await come(running, asked, BODY, [completion()], known=known)
    async with running.connect() as wire:
        wire.writer.write(request(BODY).removesuffix(BODY) + BODY[:cut])
        await until(lambda: len(running.app.sidecar.in_flight) == 1)
        leave(wire.writer)
        await until(lambda: len(running.app.sidecar.in_flight) == 0)
    assert [(line["status"], line["code"]) for line in running.log("refused")] == [(499, "client_cancelled")]
    assert (len(asked.requests), len(running.log("request"))) == (known, known)
    assert running.log("fault") == []
    metrics = (await running.get("/metrics")).body.decode()
    assert 'sidecar_requests_total{policy="none",mode="none",status="499"} 1\n' in metrics


@ways
async def test_a_hundred_leave_at_once(sidecar: StartSidecar, upstream: StartUpstream, known: bool) -> None:
    """L10: all upstreams are left within a second, each request has its line, and nobody complains."""
    asked = await upstream()
    running = await sidecar(asked)
    await come(running, asked, STREAM_BODY, [MOMENTS["stream, speaking"].play], known=known)
    wires: list[Wire] = []
    for _ in range(100):
        wires.append(Wire(*await asyncio.open_connection(*running.app.address.removeprefix("http://").split(":"))))
        wires[-1].writer.write(request(STREAM_BODY))
    for wire in wires:
        await wire.reader.readuntil(b'"a"')
    for wire in wires:
        wire.writer.transport.abort()
    await asyncio.wait_for(asked.idle.wait(), 1)
    await until(lambda: len(running.log("request")) == 100 + known)
    assert {line["error"] for line in running.log("request")[known:]} == {"client_cancelled"}
    assert running.log("fault") == running.log("attempt_failed") == []
