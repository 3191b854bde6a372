"""The five timers and the client's own, as a client meets them: every one is absolute, whatever drips in meanwhile.

Elsewhere: `connect` in test_transport, `idle` and `total` in mid-stream in test_streams, the client that takes nothing
in test_connection, test_client_gone and test_lane.
"""

import asyncio
import json
from typing import Any

import pytest

from tests.conftest import CHAT, STREAM, StartSidecar, StartUpstream, check_error, request, until
from tests.fake_upstream import Play, chunk, completion, events, stream

HEAD = b"HTTP/1.1 200 OK\r\nx-slow: "
# What comes in little by little, one piece every 10 ms, and never says anything.
DRIPS = {
    "a head": Play([HEAD, b"x"], "drip"),
    "pings": stream(b": ping\n\n", then="drip", end=False),
    "events without content": stream(chunk({"role": "assistant", "content": ""}), then="drip", end=False),
}

both = pytest.mark.parametrize("body", [CHAT, STREAM], ids=["complete", "stream"])


def timeouts(**seconds: float) -> str:
    """A policy with these time limits."""
    return 'strategy = "cheapest"\ntimeouts = { ' + ", ".join(f"{name} = {s}" for name, s in seconds.items()) + " }\n"


def said(body: dict[str, Any], text: str) -> Play:
    """An answer to `body`."""
    return stream(*events(text)) if body is STREAM else completion(text)


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
async def test_first_event_is_absolute(sidecar: StartSidecar, upstream: StartUpstream, drip: Play) -> None:
    """F4: bytes without content do not push the first event on: 504, or the next one's answer."""
    drips, other = await upstream(drip), await upstream(said(STREAM, "from B"))
    policy = timeouts(first_event=0.2, idle=30, total=30)
    alone, two = await sidecar(drips, policy=policy), await sidecar(drips, other, policy=policy)

    check_error(await alone.post(STREAM), 504, "upstream_timeout")
    assert (await two.post(STREAM)).text == "from B"

    await asyncio.wait_for(drips.idle.wait(), 1)


async def test_answer_is_absolute(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """F4: the head of a complete answer has its time as a whole, too."""
    drips, other = await upstream(DRIPS["a head"]), await upstream(completion("from B"))
    policy = timeouts(answer=0.2, total=30)
    alone, two = await sidecar(drips, policy=policy), await sidecar(drips, other, policy=policy)

    check_error(await alone.post(), 504, "upstream_timeout")
    assert (await two.post()).text == "from B"


@both
async def test_total_is_over_all_attempts(sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, Any]) -> None:
    """Three upstreams that hang do not take three times as long: the second is cut short, the third not asked."""
    hang = [await upstream(Play([], "hang")) for _ in range(3)]
    running = await sidecar(*hang, policy=timeouts(first_event=0.3, total=0.4))

    got = await running.post(body)

    check_error(got, 504, "deadline_exceeded")
    assert [len(one.requests) for one in hang] == [1, 1, 0]
    assert 400 <= running.log("request")[0]["ms"] < 580  # two attempts of their own would take 600


@pytest.mark.parametrize(
    ("body", "known"), [(CHAT, False), (STREAM, False), (STREAM, True)], ids=["complete", "stream", "short lane"]
)
async def test_the_client_is_told_before_it_gives_up(
    sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, Any], known: bool
) -> None:
    """What it says of its patience bounds all attempts together: an error comes before it would go."""
    slow, hangs = await upstream(said(body, "Hi")), await upstream(Play([], "hang"))
    running = await sidecar(slow, hangs, policy=timeouts(first_event=0.6))
    asked = request(json.dumps(body).encode(), "x-stainless-read-timeout: 1")
    if known:
        assert (await running.raw(asked)).text == "Hi"
    slow.plays = [Play([], "hang")]

    got = await running.raw(asked)

    check_error(got, 504, "deadline_exceeded")
    assert (len(slow.requests), len(hangs.requests)) == (1 + known, 1)
    assert 900 <= running.log("request")[-1]["ms"] < 1180  # two attempts of their own would take 1200


async def test_a_stream_that_speaks_may_go_on(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Patience is for silence: once a stream has begun to speak it may last longer than that."""
    play = stream(*events("one", "two"))
    asked = await upstream(play._replace(pieces=[b"".join(play.pieces[:3]), *play.pieces[3:]]))
    running = await sidecar(asked)
    asked.go_on.clear()
    client = asyncio.create_task(running.post(STREAM, x_stainless_read_timeout="0.2"))
    await asked.arrived.wait()

    later = asyncio.get_running_loop().time() + 0.3
    await until(lambda: asyncio.get_running_loop().time() > later)
    asked.go_on.set()

    got = await client
    assert (got.text, got.events[-1]) == ("onetwo", b"[DONE]")
