"""`continue = true`: a plain text stream that breaks off goes on at the next upstream; anything else ends as ever."""

from typing import Any

import msgspec
import openai
import pytest

from tests.conftest import STREAM, Got, Sidecar, StartSidecar, StartUpstream
from tests.fake_upstream import DONE, USAGE, FakeUpstream, Play, chunk, completion, error, events, stream

GOES_ON = 'strategy = "cheapest"\nfallback = { continue = true }\n'
ROLE = chunk({"role": "assistant", "content": ""})
CUT = stream(ROLE, chunk({"content": "Once upon"}), chunk({"content": " a ti"}), then="close", end=False)
OTHER: dict[str, Any] = {"id": "chatcmpl-2", "created": 2}
REST = stream(
    chunk({"role": "assistant", "content": ""}, **OTHER),
    chunk({"content": "me, "}, **OTHER),
    chunk({"content": "there was."}, **OTHER),
    chunk({}, "stop", **OTHER),
    USAGE,
    DONE,
)


async def served(sidecar: StartSidecar, upstream: StartUpstream, *plays: Play) -> tuple[Sidecar, list[FakeUpstream]]:
    """A sidecar that lets streams go on, before one upstream for each of `plays`."""
    upstreams = [await upstream(play) for play in plays]
    return await sidecar(*upstreams, policy=GOES_ON), upstreams


def end(got: Got) -> Any:
    """The error that ended a stream."""
    assert b"[DONE]" not in got.body
    return msgspec.json.decode(got.events[-1])["error"]


async def test_the_next_upstream_goes_on_where_the_first_broke_off(
    sidecar: StartSidecar, upstream: StartUpstream
) -> None:
    """The client reads one text, of one id, with one role; a comment says who went on."""
    app, (_, second) = await served(sidecar, upstream, CUT, REST)
    got = await app.post(STREAM)

    assert got.text == "Once upon a time, there was."
    assert b": continued by p1/m\n\n" in got.body
    assert got.events[-1] == b"[DONE]"
    chunks = [msgspec.json.decode(event) for event in got.events[:-1]]
    assert {(one["id"], one["created"]) for one in chunks} == {("chatcmpl-1", 1)}
    assert sum("role" in choice["delta"] for one in chunks for choice in one["choices"]) == 1
    asked = second.requests[0].json["messages"]
    assert asked[:-2] == msgspec.json.decode(msgspec.json.encode(STREAM))["messages"]
    assert asked[-2] == {"role": "assistant", "content": "Once upon a ti"}
    assert asked[-1]["role"] == "user"


async def test_it_is_written_down(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Two attempts: one that failed and names who went on, one that answered."""
    app, _ = await served(sidecar, upstream, CUT, REST)
    await app.post(STREAM)

    (failed,), (line,) = app.log("attempt_failed"), app.log("request")
    assert (failed["upstream"], failed["code"], failed["next"]) == ("p0/m", "upstream_interrupted", "p1/m")
    assert (line["upstream"], line["attempts"], line["status"], line["finish"]) == ("p1/m", 2, 200, "stop")
    metrics = (await app.get("/metrics")).body
    assert b'sidecar_attempts_total{upstream="p0/m",outcome="unavailable"} 1' in metrics
    assert b'sidecar_attempts_total{upstream="p1/m",outcome="ok"} 1' in metrics


async def test_a_third_upstream_goes_on_with_what_two_have_said(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """It may break off again, as often as the policy has attempts."""
    more = stream(chunk({"content": "me, "}), then="close", end=False)
    app, (*_, third) = await served(sidecar, upstream, CUT, more, REST)
    got = await app.post(STREAM)

    assert got.text == "Once upon a time, me, there was."
    assert third.requests[0].json["messages"][-2]["content"] == "Once upon a time, "
    assert app.log("request")[0]["attempts"] == 3


async def test_an_upstream_that_refuses_is_passed_over(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The rest falls back like any request."""
    app, _ = await served(sidecar, upstream, CUT, error(503), REST)
    assert (await app.post(STREAM)).text == "Once upon a time, there was."


async def test_nobody_can_go_on(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The stream ends with an error, as without `continue`."""
    alone, _ = await served(sidecar, upstream, CUT)
    assert end(await alone.post(STREAM))["code"] == "upstream_interrupted"
    refused, _ = await served(sidecar, upstream, CUT, error(503))
    assert end(await refused.post(STREAM))["code"] == "overloaded"
    assert [one["attempts"] for one in refused.log("request")] == [2]


async def test_an_answer_in_one_piece_goes_on_too(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Some servers answer a stream's request with JSON."""
    app, _ = await served(sidecar, upstream, CUT, completion("me."))
    got = await app.post(STREAM)
    assert (got.text, got.events[-1]) == ("Once upon a time.", b"[DONE]")


async def test_it_is_off_unless_asked_for(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """By default, and for a client that wants no fallback, what broke off ends there."""
    cut, rest = await upstream(CUT), await upstream(REST)
    assert end(await (await sidecar(cut, rest)).post(STREAM))["code"] == "upstream_interrupted"
    asked = await (await sidecar(cut, rest, policy=GOES_ON)).post(STREAM, x_sidecar_fallback="off")
    assert end(asked)["code"] == "upstream_interrupted"
    assert rest.requests == []


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
CALL = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]}
BARRED = {
    "tools": ({"tools": TOOLS}, CUT),
    "json": ({"response_format": {"type": "json_object"}}, CUT),
    "several choices": ({"n": 2}, CUT),
    "logprobs": ({"logprobs": True}, CUT),
    "a tool call": ({}, stream(ROLE, chunk(CALL), then="close", end=False)),
    "reasoning": ({}, stream(ROLE, chunk({"reasoning_content": "hm"}), then="close", end=False)),
}


@pytest.mark.parametrize(("fields", "play"), BARRED.values(), ids=BARRED)
async def test_what_is_not_plain_text_does_not_go_on(
    sidecar: StartSidecar, upstream: StartUpstream, fields: dict[str, Any], play: Play
) -> None:
    """Half a tool call or half a JSON object cannot be gone on with by somebody else."""
    app, (_, second) = await served(sidecar, upstream, play, REST)
    assert end(await app.post({**STREAM, **fields}))["code"] == "upstream_interrupted"
    assert second.requests == []


async def test_the_limit_of_tokens_is_lowered(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """What has been said counts, at four bytes a token; one is always left."""
    app, (_, second) = await served(sidecar, upstream, CUT, REST)
    await app.post({**STREAM, "max_tokens": 100, "max_completion_tokens": 2})
    sent = second.requests[0].json
    assert (sent["max_tokens"], sent["max_completion_tokens"]) == (97, 1)


async def test_the_sdk_reads_one_answer(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """OpenAI's SDK adds the deltas up to one message, comment and all."""
    app, _ = await served(sidecar, upstream, CUT, REST)
    async with (
        openai.AsyncOpenAI(base_url=app.url, api_key="x", max_retries=0) as client,
        client.chat.completions.stream(model="test", messages=[{"role": "user", "content": "Hi"}]) as told,
    ):
        answer = await told.get_final_completion()

    message = answer.choices[0].message
    assert (answer.id, message.role, message.content) == ("chatcmpl-1", "assistant", "Once upon a time, there was.")


async def test_odd_chunks_go_through(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Null deltas and choices without one do no harm behind the seam."""
    odd = chunk({}, choices=[{"index": 0, "delta": None, "finish_reason": None}])
    app, _ = await served(sidecar, upstream, CUT, stream(chunk({"content": "me."}), odd, chunk({}, "stop"), DONE))
    got = await app.post(STREAM)
    assert (got.text, got.events[-1]) == ("Once upon a time.", b"[DONE]")


async def test_a_stream_that_does_not_break_is_left_alone(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Byte for byte what it is without `continue`."""
    whole = await upstream(stream(*events("a", "b")))
    plain, watched = await sidecar(whole), await sidecar(whole, policy=GOES_ON)
    assert (await watched.post(STREAM)).body == (await plain.post(STREAM)).body


async def test_what_half_a_request_is_answered_with_teaches_nothing(
    sidecar: StartSidecar, upstream: StartUpstream
) -> None:
    """Its tokens were not those that were estimated, and its answer was not a whole one; a whole request teaches."""
    app, _ = await served(sidecar, upstream, CUT, REST)
    await app.post(STREAM)
    first, second = (one.live.learned for one in app.app.gateway.generation.routes.registry)
    assert (first.ratio.weight, second.ratio.weight) == (0, 0)
    assert (first.outputs, second.outputs) == ({}, {})

    await app.post({**STREAM, "model": "p1/m"})
    assert (second.ratio.weight, list(second.outputs)) == (1, ["direct"])


async def test_a_broken_answer_teaches_tokens_but_no_length(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """What it read it has counted; how long it would have been, nobody knows."""
    cut = stream(ROLE, chunk({"content": "Once"}), USAGE, then="close", end=False)
    app = await sidecar(await upstream(cut))
    assert b"[DONE]" not in (await app.post(STREAM)).body

    (learned,) = (one.live.learned for one in app.app.gateway.generation.routes.registry)
    assert (learned.ratio.weight, learned.outputs) == (1, {})
