"""`on_disconnect = "drain"`: who bills the whole answer anyway is read to its end, so that what it cost is known."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import CHAT, IN_ORDER, STREAM, Sidecar, StartSidecar, StartUpstream, catalog, request, until
from tests.fake_upstream import FakeUpstream, Play, chunk, completion, error, events, stream
from tests.served import served

DRAIN = {"on_disconnect": "drain"}
ways = pytest.mark.parametrize("known", [False, True], ids=["long way", "short lane"])
both = pytest.mark.parametrize("body", [CHAT, STREAM], ids=["complete", "stream"])


def held(play: Play, count: int) -> Play:
    """The same play, which waits for `go_on` after its first `count` pieces."""
    return play._replace(pieces=[b"".join(play.pieces[:count]), *play.pieces[count:]])


async def leave(running: Sidecar, asked: FakeUpstream, body: dict[str, Any], *, seen: bytes = b"") -> None:
    """Ask, and leave when the upstream has been asked and `seen` has come."""
    count = len(asked.requests)
    async with running.connect() as wire:
        wire.writer.write(request(json.dumps(body).encode()))
        await until(lambda: len(asked.requests) == count + 1)
        if seen:
            await wire.reader.readuntil(seen)
    ((_, server),) = running.app._listeners
    await until(lambda: not server.connections)


async def in_flight(running: Sidecar) -> tuple[int, int]:
    """Client requests and attempts under way."""
    status = (await running.get("/status")).json
    return status["in_flight"], status["upstreams"]["p0/m"]["in_flight"]


PLAYS: dict[str, tuple[dict[str, Any], Play, bytes]] = {
    "complete": (CHAT, held(Play([b"", *completion().pieces]), 1), b""),
    "complete, half of it": (CHAT, Play([completion().pieces[0][:-9], completion().pieces[0][-9:]]), b""),
    "stream, asked": (STREAM, held(Play([b"", *stream(*events("a", "b")).pieces]), 1), b""),
    "stream, before content": (STREAM, held(stream(*events("a", "b")), 2), b""),
    "stream, speaking": (STREAM, held(stream(*events("a", "b")), 3), b'"a"'),
}


@ways
@pytest.mark.parametrize(("body", "play", "seen"), PLAYS.values(), ids=PLAYS)
async def test_what_an_answer_for_nobody_cost_is_known(
    sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, Any], play: Play, seen: bytes, known: bool
) -> None:
    """It keeps its place until it ends; then the log has one line, with its tokens and its price, and the 499."""
    asked = await upstream(play)
    running = await sidecar(asked, provider=DRAIN)
    if known:
        assert (await running.raw(request(json.dumps(body).encode()))).status == 200
    asked.go_on.clear()

    await leave(running, asked, body, seen=seen)
    assert await in_flight(running) == (1, 1)
    assert len(running.log("request")) == known
    asked.go_on.set()
    await until(lambda: len(running.log("request")) == 1 + known)

    line = running.log("request")[-1]
    assert (line["status"], line["error"], line["finish"]) == (499, "client_cancelled", "stop")
    assert (line["input_tokens"], line["output_tokens"]) == (10, 5 if body is CHAT else 2)
    assert line["usd"] == pytest.approx((15 if body is CHAT else 12) * 1e-6)
    assert await in_flight(running) == (0, 0)
    metrics = (await running.get("/metrics")).body.decode()
    assert f'sidecar_attempts_total{{upstream="p0/m",outcome="ok"}} {1 + known}\n' in metrics
    assert (asked.connections, running.log("fault"), running.log("attempt_failed")) == (1, [], [])


async def test_as_it_is_served(tmp_path: Path, upstream: StartUpstream) -> None:
    """The same on the event loop that `serve` runs on, which is stricter about connections that are gone."""
    asked = await upstream(held(Play([b"", *completion().pieces]), 1))
    (tmp_path / "catalog.toml").write_text(catalog(asked, **DRAIN))
    (tmp_path / "test.toml").write_text(IN_ORDER)
    with served("--policies", str(tmp_path)) as running:
        asked.go_on.clear()
        host, _, port = running.address.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(request(json.dumps(CHAT).encode()))
        await asked.arrived.wait()
        writer.transport.abort()
        async with aiohttp.ClientSession() as session, session.get(f"{running.address}/status") as got:
            assert (await got.json())["in_flight"] == 1
        asked.go_on.set()
        line = json.loads(await asyncio.to_thread(running.event, "request"))
        assert (line["status"], line["error"], line["usd"]) == (499, "client_cancelled", pytest.approx(15e-6))
        running.tell(signal.SIGTERM)
        assert running.process.stdout is not None
        assert b'"event":"fault"' not in await asyncio.to_thread(running.process.stdout.read)


@both
async def test_nobody_is_asked_for_nobody(sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, Any]) -> None:
    """When the answer fails after all there is no fallback; the upstream's fault is its own."""
    asked, other = await upstream(Play([b"", *error(503).pieces])), await upstream()
    running = await sidecar(asked, other, provider=DRAIN)
    asked.go_on.clear()
    await leave(running, asked, body)
    asked.go_on.set()
    await until(lambda: running.log("request") != [])
    assert (running.log("request")[0]["status"], other.requests) == (499, [])
    assert [line["kind"] for line in running.log("attempt_failed")] == ["overloaded"]
    assert running.log("fault") == []


async def test_it_breaks_off_in_the_middle(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A stream that fails while nobody listens is one failed attempt, and no fault of the sidecar's."""
    asked = await upstream(held(stream(*events("a")[:2], then="close", end=False), 3))
    running = await sidecar(asked, provider=DRAIN)
    asked.go_on.clear()
    await leave(running, asked, STREAM, seen=b'"a"')
    asked.go_on.set()
    await until(lambda: running.log("request") != [])
    assert running.log("request")[0]["status"] == 499
    assert 'outcome="unavailable"} 1\n' in (await running.get("/metrics")).body.decode()
    assert running.log("fault") == []


async def test_it_does_not_go_on_for_ever(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The time for all attempts bounds it as it would have for the client."""
    asked = await upstream(stream(chunk({"content": "a"}), then="drip", end=False))
    running = await sidecar(asked, provider=DRAIN, policy=IN_ORDER + "timeouts = { total = 0.3 }\n")
    await leave(running, asked, STREAM, seen=b'"a"')
    await asyncio.wait_for(asked.idle.wait(), 2)
    await until(lambda: running.log("request") != [])
    assert running.log("request")[0]["ms"] > 290


async def test_nor_without_end(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Past 32 MiB it is left."""
    asked = await upstream(stream(chunk({"content": "a" * 900_000}), then="drip", end=False))
    running = await sidecar(asked, provider=DRAIN)
    await leave(running, asked, STREAM, seen=b'"a')
    await asyncio.wait_for(asked.idle.wait(), 5)
    await until(lambda: running.log("request") != [])
    assert 'outcome="cancelled"} 1\n' in (await running.get("/metrics")).body.decode()


@both
async def test_only_who_is_said_to_is_drained(
    sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, Any]
) -> None:
    """Beside a provider that drains, others are left within a second as ever."""
    asked, other = await upstream(Play([], "hang")), await upstream()
    rows = catalog(asked, other).replace('name = "p1"\n', 'name = "p1"\non_disconnect = "drain"\n')
    running = await sidecar(files={"catalog.toml": rows})
    await leave(running, asked, body)
    await asyncio.wait_for(asked.idle.wait(), 1)
    await until(lambda: running.log("request") != [])
    assert (running.log("request")[0]["error"], other.requests) == ("client_cancelled", [])
    assert await in_flight(running) == (0, 0)


@both
@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
async def test_stopping_ends_it(
    sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, Any], gone: bool
) -> None:
    """The drain timeout is for all; who is still there is told."""
    asked = await upstream(stream(*events("a")[:2], then="hang", end=False) if body is STREAM else Play([], "hang"))
    running = await sidecar(asked, provider=DRAIN)
    if gone:
        await leave(running, asked, body, seen=b'"a"' if body is STREAM else b"")
    else:
        client = asyncio.create_task(running.post(body))
        await asked.arrived.wait()
        await until(lambda: running.app.gateway.status()["upstreams"]["p0/m"]["in_flight"] == 1)  # type: ignore[index]
    async with asyncio.timeout(5):
        await running.app.stop()
    await asyncio.wait_for(asked.idle.wait(), 1)
    if not gone:
        assert b"shutting_down" in (await client).body
    assert running.log("request")[0]["error"] == ("client_cancelled" if gone else "shutting_down")
    assert running.log("fault") == []


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
async def test_faults_of_our_own_are_told(sidecar: StartSidecar, upstream: StartUpstream, gone: bool) -> None:
    """Also when there is nobody left to be told: in the log."""
    asked = await upstream(held(stream(*events("oops")), 1))
    running = await sidecar(asked, provider={**DRAIN, "adapter": "tests.broken_stream"})
    asked.go_on.clear()
    if gone:
        await leave(running, asked, STREAM)
        asked.go_on.set()
        await until(lambda: running.log("fault") != [])
    else:
        asked.go_on.set()
        await running.post(STREAM)
    await until(lambda: running.log("request") != [])
    assert len(running.log("fault")) == 1
    assert await in_flight(running) == (0, 0)


@both
async def test_no_hedge_for_nobody(sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, Any]) -> None:
    """A policy that hedges drains like any other, and asks nobody beside the late one once the client has left."""
    play = stream(*events("a")) if body is STREAM else completion("a")
    asked, other = await upstream(held(Play([b"", *play.pieces]), 1)), await upstream()
    running = await sidecar(asked, other, provider=DRAIN, policy=IN_ORDER + "fallback = { hedge = 1.0 }\n")
    asked.go_on.clear()
    await leave(running, asked, body)
    late = asyncio.get_running_loop().time() + 1.0  # more than 95 % of its answers take, by its prior
    await until(lambda: asyncio.get_running_loop().time() > late)
    asked.go_on.set()
    await until(lambda: running.log("request") != [])
    line = running.log("request")[0]
    assert (line["status"], line["finish"], line["usd"] > 0, other.requests) == (499, "stop", True, [])


async def test_nothing_is_continued_for_nobody(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A stream that breaks off behind its client's back is not taken up by the next upstream."""
    asked, other = await upstream(held(stream(*events("a")[:2], then="close", end=False), 3)), await upstream()
    running = await sidecar(asked, other, provider=DRAIN, policy=IN_ORDER + "fallback = { continue = true }\n")
    asked.go_on.clear()
    await leave(running, asked, STREAM, seen=b'"a"')
    asked.go_on.set()
    await until(lambda: running.log("request") != [])
    assert (running.log("request")[0]["status"], other.requests, running.log("fault")) == (499, [], [])
