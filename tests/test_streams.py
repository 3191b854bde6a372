"""Streams after their first content: never a second upstream, never a silent end; and clients that leave."""

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.conftest import CHAT, STREAM, Got, Sidecar, StartSidecar, StartUpstream, until
from tests.fake_upstream import DONE, USAGE, Play, chunk, completion, error, events, reply, stream

# Twelve events: role, eight words, finish reason, usage, [DONE]. Content begins with the second.
TWELVE = events("a", "b", "c", "d", "e", "f", "g", "h")
FINISH = 9
ERROR_EVENT = b'data: {"error": {"message": "boom", "type": "server_error", "code": "server_error"}}\n\n'
OVERLOADED = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n'
GARBAGE = b'data: {"choices": [{"delta"\n\n'


def last_error(got: Got) -> Any:
    """The error that ended a stream; after it comes nothing."""
    assert b"[DONE]" not in got.body
    return msgspec.json.decode(got.events[-1])["error"]


def check_cut(got: Got, position: int, code: str) -> None:
    """A stream that was cut at `position`: a plain error before content, the events and an error event after it."""
    if position < 2:
        assert (got.status, got.error["code"]) == (502 if code != "overloaded" else 503, code)
    elif position <= FINISH:
        assert got.body.startswith(b"".join(TWELVE[:position]))
        assert len(got.events) == position + 1
        assert last_error(got)["code"] == ("upstream_interrupted" if code == "upstream_truncated" else code)
    else:
        assert got.body == b"".join([*TWELVE[: FINISH + 1], DONE])


positions = pytest.mark.parametrize("position", range(12))


@positions
@pytest.mark.parametrize("how", ["close", "reset", "end"])
async def test_cut(sidecar: StartSidecar, upstream: StartUpstream, position: int, how: str) -> None:
    """F18: cut before content is 502; cut after it ends in an error event; cut after the finish reason is complete."""
    cut = await upstream(stream(*TWELVE[:position], then="keep" if how == "end" else how, end=how == "end"))

    got = await (await sidecar(cut)).post(STREAM)

    # A reset may overtake what was sent before it.
    if how != "reset" or got.body.startswith(b"".join(TWELVE[:position])):
        check_cut(got, position, got.error["code"] if position < 2 and how == "reset" else "upstream_truncated")


@positions
async def test_cut_with_a_fallback(sidecar: StartSidecar, upstream: StartUpstream, position: int) -> None:
    """F18: the fallback answers when nothing was sent, and is never asked when something was."""
    cut = await upstream(stream(*TWELVE[:position], then="close", end=False))
    other = await upstream(stream(*events("from B")))

    got = await (await sidecar(cut, other)).post(STREAM)

    assert len(other.requests) == (position < 2)
    if position < 2:
        assert (got.text, got.headers["x-sidecar-attempts"]) == ("from B", "2")
    else:
        check_cut(got, position, "upstream_truncated")


@positions
@pytest.mark.parametrize(
    ("event", "code"),
    [(GARBAGE, "upstream_invalid_event"), (ERROR_EVENT, "server_error"), (OVERLOADED, "overloaded")],
    ids=["garbage", "error", "overloaded"],
)
async def test_bad_event(
    sidecar: StartSidecar, upstream: StartUpstream, position: int, event: bytes, code: str
) -> None:
    """F20, F21: what is no chunk is never forwarded; before content it is a plain error, after it an error event."""
    faulty = await upstream(stream(*TWELVE[:position], event, *TWELVE[position:]))
    check_cut(await (await sidecar(faulty)).post(STREAM), position, code)


@positions
async def test_bad_event_in_the_same_packet(sidecar: StartSidecar, upstream: StartUpstream, position: int) -> None:
    """How events share packets changes nothing: what was whole before the bad one counts."""
    faulty = await upstream(stream(b"".join([*TWELVE[:position], GARBAGE])))
    check_cut(await (await sidecar(faulty)).post(STREAM), position, "upstream_invalid_event")


@positions
async def test_silence_in_the_middle(sidecar: StartSidecar, upstream: StartUpstream, position: int) -> None:
    """F19: silence ends at the timer: 504 before content, an error event after it, a clean end after the finish."""
    policy = 'strategy = "cheapest"\ntimeouts = { first_event = 0.1, idle = 0.1 }\n'
    silent = await upstream(stream(*TWELVE[:position], then="hang", end=False))

    got = await (await sidecar(silent, policy=policy)).post(STREAM)

    if position < 2:
        assert (got.status, got.error["code"]) == (504, "upstream_timeout")
    else:
        check_cut(got, position, "upstream_idle_timeout")
    await silent.idle.wait()


async def test_deadline_in_the_middle(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """F32: a stream that drips on past `total` ends with an error event, and nobody else is asked."""
    drips, other = await upstream(stream(chunk({"content": "a"}), then="drip", end=False)), await upstream()
    policy = 'strategy = "cheapest"\ntimeouts = { total = 0.2 }\n'

    got = await (await sidecar(drips, other, policy=policy)).post(STREAM)

    assert last_error(got)["code"] == "deadline_exceeded"
    assert other.requests == []


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["complete", "stream"])
async def test_deadline_before_content(sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, object]) -> None:
    """F32: bytes without content push no timer on; when the time for all is spent there is no fallback."""
    drips, other = (
        await upstream(Play([b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n", b" "], "drip")),
        await upstream(),
    )
    if body is STREAM:
        drips.plays = [stream(b": ping\n\n", then="drip", end=False)]
    policy = 'strategy = "cheapest"\ntimeouts = { total = 0.2 }\n'

    got = await (await sidecar(drips, other, policy=policy)).post(body)

    assert (got.status, got.error["code"], other.requests) == (504, "deadline_exceeded", [])


async def test_the_clients_own_patience_is_a_deadline(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The SDKs say how long they wait; a complete answer that is later than that is 504."""
    got = await (await sidecar(await upstream(Play([], "hang")))).post(x_stainless_read_timeout="0.2")
    assert (got.status, got.error["code"]) == (504, "deadline_exceeded")


async def test_nothing_is_sent_before_content(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The commit rule: comments, a role and empty text commit to nothing: a fault is a plain error."""
    held = [b": ping\n\n", TWELVE[0], chunk({"content": ""}), chunk({}, choices=[])]
    policy = 'strategy = "cheapest"\ntimeouts = { first_event = 0.1 }\n'

    got = await (await sidecar(await upstream(stream(*held, then="hang", end=False)), policy=policy)).post(STREAM)

    assert (got.status, got.error["code"]) == (504, "upstream_timeout")


async def test_what_was_held_back_is_sent_with_the_first_content(
    sidecar: StartSidecar, upstream: StartUpstream
) -> None:
    """Nothing is lost by waiting, and nothing waits longer: the first content arrives while the upstream is silent."""
    asked = await upstream(stream(TWELVE[0], TWELVE[1], then="hang", end=False))
    running = await sidecar(asked)
    async with running.session.post(f"{running.url}/chat/completions", json=STREAM) as response:
        assert await response.content.readexactly(len(TWELVE[0] + TWELVE[1])) == TWELVE[0] + TWELVE[1]


@pytest.mark.parametrize("missing", [[DONE], [USAGE, DONE], [chunk({}, "stop")]], ids=["done", "usage", "finish"])
async def test_a_missing_end_is_added(sidecar: StartSidecar, upstream: StartUpstream, missing: list[bytes]) -> None:
    """F18b: a finish reason or `[DONE]` is an end; what the other one is missing, the client still gets."""
    asked = await upstream(stream(*[event for event in events("Hi") if event not in missing]))
    got = await (await sidecar(asked)).post(STREAM)
    assert got.events[-1] == b"[DONE]"
    assert msgspec.json.decode(got.events[-2])["choices"][0]["finish_reason"] == "stop"


async def test_an_empty_answer_is_an_answer(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A finish reason without any content is passed on and is no fault."""
    got = await (await sidecar(await upstream(stream(*events())), await upstream())).post(STREAM)
    assert (got.text, got.events[-1], got.headers["x-sidecar-attempts"]) == ("", b"[DONE]", "1")


async def test_an_event_over_the_limit(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """F23: one event over 1 MiB is a fault; the memory for it is bounded."""
    asked = await upstream(stream(chunk({"content": "a"}), chunk({"content": "x" * (1 << 20)})))
    got = await (await sidecar(asked)).post(STREAM)
    assert (got.text, last_error(got)["code"]) == ("a", "upstream_invalid_event")


async def leave(running: Sidecar, body: dict[str, object], when: asyncio.Event, events: int) -> None:
    """Ask, and go when `when` is set and `events` events have come."""
    async with aiohttp.ClientSession() as session:
        post = session.post(f"{running.url}/chat/completions", json=body)
        if events:
            response = await post
            for _ in range(events):
                await response.content.readuntil(b"\n\n")
            response.close()
            return
        asking = asyncio.create_task(post.__aenter__())
        await when.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize("count", range(11))
async def test_a_client_that_leaves_a_stream(sidecar: StartSidecar, upstream: StartUpstream, count: int) -> None:
    """F33: whenever the client goes, the upstream is let go of, it is not to blame, and nobody else is asked."""
    asked, other = await upstream(stream(*TWELVE[:count], then="hang", end=False)), await upstream()
    running = await sidecar(asked, other)

    await leave(running, STREAM, asked.arrived, count if count > 1 else 0)

    await asyncio.wait_for(asked.idle.wait(), 1)
    await until(lambda: running.log("request") != [])
    state = (await running.get("/status")).json
    assert (state["upstreams"]["p0/m"]["errors"], state["in_flight"], other.requests) == (0, 0, [])
    assert (running.log("request")[0]["status"], running.log("attempt_failed")) == (499, [])


@pytest.mark.parametrize(
    "pieces", [[], [b"HTTP/1.1 200 OK\r\n"], completion().pieces[:1]], ids=["none", "half", "body"]
)
async def test_a_client_that_leaves_a_complete_answer(
    sidecar: StartSidecar, upstream: StartUpstream, pieces: list[bytes]
) -> None:
    """F33: the same before a complete answer."""
    asked = await upstream(Play([piece[:-20] for piece in pieces], "hang"))
    running = await sidecar(asked)

    await leave(running, CHAT, asked.arrived, 0)

    await asyncio.wait_for(asked.idle.wait(), 1)
    await until(lambda: running.log("request") != [])
    assert running.log("request")[0]["status"] == 499
    assert 'outcome="cancelled"} 1' in (await running.get("/metrics")).body.decode()


async def test_streams_and_answers_mix(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Both modes share the upstream and its connections; each request gets its own answer."""
    plays = [stream(*events(f"s{n}")) if n % 2 else completion(f"c{n}") for n in range(20)]
    running = await sidecar(await upstream(*plays))

    said = [(await running.post(STREAM if n % 2 else CHAT)).text for n in range(20)]

    assert said == [f"s{n}" if n % 2 else f"c{n}" for n in range(20)]


async def test_a_fault_after_the_client_has_left_is_nobodys(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """An error in the middle is counted against the upstream once, with its kind."""
    running = await sidecar(await upstream(stream(*TWELVE[:4], ERROR_EVENT), error(500)))
    await running.post(STREAM)
    metrics = (await running.get("/metrics")).body.decode()
    assert 'sidecar_attempts_total{upstream="p0/m",outcome="unavailable"} 1' in metrics
    assert running.log("request")[0]["error"] == "server_error"


async def test_a_whole_answer_without_a_message_is_no_stream(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A whole answer to a stream request is re-framed; what has nothing to frame is the upstream's fault."""
    asked, other = await upstream(reply(b'{"choices":[{"text":"Hi"}]}')), await upstream(stream(*events("from B")))
    got = await (await sidecar(asked)).post(STREAM)
    assert (got.status, got.error["code"]) == (502, "upstream_invalid_response")
    assert (await (await sidecar(asked, other)).post(STREAM)).text == "from B"
