"""Faithful both ways: what we do not know, and how it was written, passes through."""

import json
from typing import Any

import pytest

from tests.conftest import CHAT, STREAM, StartSidecar, StartUpstream
from tests.fake_upstream import DONE, USAGE, chunk, completion, events, reply, stream

# Numbers as a JSON library would not write them, keys out of order, words nobody knows, text beyond the BMP.
ODD = '"zeta": 1.0, "seed": 1234567890123456789012, "t": 1e3, "x":{"b":[ ],"a":{ }}, "é": "\\u00e9\\n\U0001f600"'
BODY = f'{{ "model" : "test",{ODD},\n"messages": [{{"role":"user","content":"Hi","name":null}}] }}'.encode()
STREAMED = BODY.replace(b'"zeta"', b'"stream": true, "zeta"')
ANSWER = (
    f'{{ {ODD},"choices":[{{"index":0,"message":{{"role":"assistant","content":"Hello","new":1.50}},'
    f'"finish_reason":"stop"}}],\n "model":"m" }}'
).encode()


async def test_the_body_goes_out_as_it_came_but_for_the_model(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Unknown fields, key order, spaces and the spelling of numbers reach the upstream byte by byte."""
    asked = await upstream()

    got = await (await sidecar(asked)).post(BODY)

    assert got.status == 200
    assert asked.requests[0].body == BODY.replace(b'"test"', b'"m"')


async def test_a_streamed_body_gains_only_the_wish_for_usage(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """In streams `stream_options` is added behind what the client wrote, and nothing else changes."""
    asked = await upstream(stream(*events("Hi")))

    await (await sidecar(asked)).post(STREAMED)

    expected = STREAMED.replace(b'"test"', b'"m"')
    assert asked.requests[0].body == expected[:-1] + b',"stream_options":{"include_usage":true}}'


async def test_the_clients_own_stream_options_are_kept(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Usage is asked for beside the options that the client set."""
    asked = await upstream(stream(*events("Hi")))

    await (await sidecar(asked)).post({**STREAM, "stream_options": {"include_obfuscation": False}})

    assert asked.requests[0].json["stream_options"] == {"include_obfuscation": False, "include_usage": True}


async def test_a_model_inside_the_messages_is_not_the_model(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Only the top-level key is renamed, wherever else the same word stands."""
    asked = await upstream()
    body = b'{"messages":[{"role":"user","content":"\\"model\\": \\"test\\"","model":"test"}],"mod\\u0065l":"test"}'

    await (await sidecar(asked)).post(body)

    assert asked.requests[0].body == body[:-7] + b'"m"}'


async def test_an_answer_comes_back_as_it_was_sent(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A complete answer is the upstream's, byte by byte."""
    got = await (await sidecar(await upstream(reply(ANSWER)))).post()
    assert got.body == ANSWER


async def test_events_come_back_as_they_were_sent(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A stream's events are the upstream's, byte by byte, up to its end."""
    said = [
        chunk({"content": "Hi", "new": 1}, system_fingerprint=None),
        b'data: {"choices":[{"index":0,"delta":{"x" : 1.0,',
    ]
    said[1] += b'"content":"\\u00e9"}}],"big":12345678901234567890}\n\n'
    got = await (await sidecar(await upstream(stream(*said, chunk({}, "stop"), DONE)))).post(STREAM)
    assert got.body == b"".join([*said, chunk({}, "stop"), DONE])


@pytest.mark.parametrize("asked", [True, False])
async def test_usage_is_passed_on_only_when_asked_for(
    sidecar: StartSidecar, upstream: StartUpstream, asked: bool
) -> None:
    """The sidecar learns the usage of every stream; a client that did not ask never sees a chunk without choices."""
    running = await sidecar(await upstream(stream(*events("Hi"))))
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}

    got = await running.post({**STREAM, **options})

    assert (USAGE in got.body) is asked
    assert got.body.endswith(DONE)
    assert running.log("request")[0]["output_tokens"] == 2


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
async def test_how_the_bytes_were_cut_does_not_matter(
    sidecar: StartSidecar, upstream: StartUpstream, size: int
) -> None:
    """Events split over packets, in the middle of a character too, come out whole and the same."""
    whole = b"".join([b"\xef\xbb\xbf: hello\r\n\r\n", *events("Grüße", "😀")])
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    got = await (await sidecar(await upstream(stream(*pieces)))).post(STREAM)
    assert got.text == "Grüße😀"
    assert got.events[-1] == b"[DONE]"


async def test_a_big_body_passes_both_ways(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """2 MiB go out with their length announced, and come back, without a warning."""
    text = "é" * (1 << 20)
    asked = await upstream(completion(text))

    got = await (await sidecar(asked)).post({**CHAT, "messages": [{"role": "user", "content": text}]})

    assert got.text == text
    assert asked.requests[0].json["messages"][0]["content"] == text
    assert "transfer-encoding" not in asked.requests[0].headers


async def test_what_goes_out_beside_the_body_is_ours(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Client headers stay here; the path is the provider's, whatever query the client sends."""
    asked = await upstream()
    running = await sidecar(
        asked, provider={"headers": {"x-own": "1"}, "api_key": "env:KEY"}, environ={"KEY": "sk-own"}
    )

    await running.post(path="/v1/chat/completions?key=1", authorization="Bearer client", cookie="a=b", x_evil="1")

    sent = asked.requests[0]
    assert (sent.method, sent.path) == ("POST", "/v1/chat/completions")
    assert sent.headers["authorization"] == "Bearer sk-own"
    assert set(sent.headers) == {
        "host", "authorization", "content-type", "accept-encoding", "content-length", "user-agent", "accept", "x-own"
    }  # fmt: skip


async def test_n_choices_are_all_passed_on(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A stream with two choices ends after the second finish reason, not after the first."""
    two = [
        json.loads(chunk({"content": text}, finish)[6:]) for text, finish in (("a", "stop"), ("b", None), ("c", "stop"))
    ]
    for number, one in enumerate(two):
        one["choices"][0]["index"] = min(number, 1)
    said = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in two]
    got = await (await sidecar(await upstream(stream(chunk({"content": ""}), said[1], said[0], said[2], DONE)))).post(
        STREAM
    )
    assert b"".join(said[2:]) in got.body
