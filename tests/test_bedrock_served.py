"""Bedrock behind a running sidecar: what the event stream does to the commit rule, and what clients cannot reach."""

from typing import Any

import msgspec
import pytest

from tests.conftest import CHAT, STREAM, Sidecar, StartSidecar, StartUpstream, check_error
from tests.fake_upstream import FakeUpstream, Play, reply, stream

from .bedrock_words import answer, begin, counted, end, exception, piece, stop, text

BEDROCK: Any = {"adapter": "bedrock", "api_key": "env:AWS_KEY"}
KEY = {"AWS_KEY": "bedrock-key"}
SAID = [begin(), piece(0, text="Hel"), piece(0, text="lo")]
DAMAGED = SAID[1][:-1] + bytes([SAID[1][-1] ^ 1])
THROTTLED = exception("throttlingException", message="slow down")


def events(*pieces: bytes, then: str = "keep", whole: bool = True) -> Play:
    return stream(*pieces, then=then, end=whole, content_type="application/vnd.amazon.eventstream")


async def served(sidecar: StartSidecar, *upstreams: FakeUpstream) -> Sidecar:
    return await sidecar(*upstreams, provider=BEDROCK, environ=KEY)


@pytest.mark.parametrize("fault", [THROTTLED, DAMAGED, begin() + THROTTLED, b"\xff" * 12, begin()])
async def test_fault_before_content_falls_back(sidecar: StartSidecar, upstream: StartUpstream, fault: bytes) -> None:
    """A 200 that turns out to be an exception, damaged or empty is never seen by the client."""
    faulty, other = await upstream(events(fault)), await upstream(events(*SAID, end()))

    got = await (await served(sidecar, faulty, other)).post(STREAM)

    assert (got.status, got.text, got.headers["x-sidecar-attempts"]) == (200, "Hello", "2")


@pytest.mark.parametrize(
    ("fault", "code"),
    [(THROTTLED, "rate_limit_exceeded"), (DAMAGED, "upstream_invalid_event"), (b"", "upstream_interrupted")],
)
async def test_fault_after_content_ends_the_stream(
    sidecar: StartSidecar, upstream: StartUpstream, fault: bytes, code: str
) -> None:
    """What was said stays said; then comes the error and no `[DONE]`."""
    faulty = await upstream(events(*SAID, fault or begin()[:20]))

    got = await (await served(sidecar, faulty)).post(STREAM)

    assert (got.status, got.events[-1][:9]) == (200, b'{"error":')
    assert msgspec.json.decode(got.events[-1])["error"]["code"] == code
    assert b"Hel" in got.body
    assert b"[DONE]" not in got.body


async def test_one_fault_alone_is_its_own_status(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Without anybody else to ask, the client gets a real status, not a stream."""
    faulty = await upstream(events(THROTTLED))

    check_error(await (await served(sidecar, faulty)).post(STREAM), 429, "rate_limit_exceeded")


async def test_the_stream_ends_with_the_metadata(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Usage in the event after the stop is accounted, and a connection that stays open keeps nobody waiting."""
    slow = await upstream(events(*SAID, stop(), counted(inputTokens=7, outputTokens=3), then="hang", whole=False))
    running = await served(sidecar, slow)

    got = await running.post(STREAM)

    assert got.events[-1] == b"[DONE]"
    [line] = running.log("request")
    assert (line["input_tokens"], line["output_tokens"]) == (7, 3)


async def test_whole_answer_to_a_streamed_request(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Its first byte tells JSON from an event stream."""
    odd = await upstream(reply(answer(text("Hello"))))

    got = await (await served(sidecar, odd)).post(STREAM)

    assert (got.text, got.events[-1]) == ("Hello", b"[DONE]")


@pytest.mark.parametrize("name", ["../admin", "a/../../b", "x?y=1", "x#y", "%2e%2e/x"])
async def test_a_model_name_reaches_no_other_path(sidecar: StartSidecar, upstream: StartUpstream, name: str) -> None:
    """Whatever the client asks for, Bedrock is not asked at another address."""
    bedrock = await upstream(reply(answer(text("Hello"))))

    check_error(await (await served(sidecar, bedrock)).post({**CHAT, "model": f"p0/{name}"}), 400, "invalid_value")

    assert bedrock.requests == []


async def test_an_arn_is_one_segment(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Slashes and colons inside it stay encoded all the way; the client's dropped parameters are told."""
    arn = "arn:aws:bedrock:us-east-1:000000000000:inference-profile/us.amazon.nova-lite-v1:0"
    bedrock = await upstream(reply(answer(text("Hello"))))

    got = await (await served(sidecar, bedrock)).post({**CHAT, "model": f"p0/{arn}", "seed": 5})

    assert got.headers["x-sidecar-dropped"] == "seed"
    [request] = bedrock.requests
    encoded = arn.replace(":", "%3A").replace("/", "%2F")
    assert request.path == f"/v1/model/{encoded}/converse"
    assert request.headers["authorization"] == "Bearer bedrock-key"


async def test_the_key_is_told_to_nobody(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Not even when AWS quotes it."""
    bedrock = await upstream(events(exception("validationException", message="bad token bedrock-key")))

    got = await (await served(sidecar, bedrock)).post(STREAM)

    assert got.status == 400
    assert b"bedrock-key" not in got.body
