"""Thinking that is signed, over several turns and several providers: back to who signed it, and to nobody else.

The upstreams are served, the answers complete or streamed; the client sends back the message that it got, as SDKs do.
"""

from typing import Any, Final, NamedTuple

import msgspec
import pytest

from adapters._chat.reasoning import STAMP, returned
from adapters._chat.request import Message
from proxy.adapter import Target
from tests import anthropic_words as claude
from tests import bedrock_words as bedrock
from tests import responses_words as responses
from tests.conftest import Got, Sidecar, StartSidecar, StartUpstream
from tests.fake_upstream import FakeUpstream, Play, chunk, completion, reply, stream

TOOL: Final = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
ASK: Final = {"role": "user", "content": "Look."}
SEALED: Final = responses.thought("I look.", sealed="SEALED")
SECRETS: Final = (b"SIGNED", b"SEALED", STAMP.encode())


def sse(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


THOUGHT: Final = {"type": "thinking", "thinking": "I look.", "signature": "SIGNED"}
REDACTED: Final = {"type": "redacted_thinking", "data": "SEALED"}
GEMINI: Final = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "I look.", "thought": True},
                    {"functionCall": {"name": "look", "args": {}, "id": "g1"}, "thoughtSignature": "SIGNED"},
                    {"functionCall": {"name": "look", "args": {}, "id": "g2"}},
                ],
            },
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
}


class Provider(NamedTuple):
    """A language, its model, an answer that thinks and calls, and what has to come back of it."""

    language: str
    model: str
    whole: Play
    streamed: Play
    back: list[Any]


def bedrock_thoughts() -> list[Any]:
    signed = {"reasoningContent": {"reasoningText": {"text": "I look.", "signature": "SIGNED"}}}
    return [signed, {"reasoningContent": {"redactedContent": "SEALED"}}]


PROVIDERS: Final = {
    "anthropic": Provider(
        "anthropic",
        "claude-sonnet-4-5",
        reply(claude.message(THOUGHT, REDACTED, claude.use(id="toolu_1"), stop="tool_use")),
        stream(
            claude.begin(),
            claude.opened(0, {"type": "thinking", "thinking": "", "signature": ""}),
            claude.piece(0, "thinking_delta", thinking="I "),
            claude.piece(0, "thinking_delta", thinking="look."),
            claude.piece(0, "signature_delta", signature="SIGNED"),
            claude.closed(0),
            claude.opened(1, REDACTED),
            claude.closed(1),
            claude.opened(2, claude.use(id="toolu_1")),
            claude.closed(2),
            claude.end("tool_use"),
        ),
        [THOUGHT, REDACTED, claude.use(id="toolu_1")],
    ),
    "bedrock": Provider(
        "bedrock",
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        reply(bedrock.answer(*bedrock_thoughts(), bedrock.use("toolu_1"), stop="tool_use")),
        stream(
            bedrock.begin(),
            bedrock.piece(0, reasoningContent={"text": "I "}),
            bedrock.piece(0, reasoningContent={"text": "look."}),
            bedrock.piece(0, reasoningContent={"signature": "SIGNED"}),
            bedrock.closed(0),
            bedrock.piece(1, reasoningContent={"redactedContent": "SEALED"}),
            bedrock.closed(1),
            bedrock.opened(2, "toolu_1"),
            bedrock.closed(2),
            bedrock.end("tool_use"),
            content_type="application/vnd.amazon.eventstream",
        ),
        [*bedrock_thoughts(), bedrock.use("toolu_1")],
    ),
    "gemini": Provider(
        "gemini",
        "gemini-3.8-flash",
        reply(msgspec.json.encode(GEMINI)),
        stream(sse(GEMINI)),
        [
            {"functionCall": {"name": "look", "args": {}, "id": "g1"}, "thoughtSignature": "SIGNED"},
            {"functionCall": {"name": "look", "args": {}, "id": "g2"}},
        ],
    ),
    "responses": Provider(
        "responses",
        "gpt-5.3-codex",
        reply(responses.body(SEALED, responses.function("c1"))),
        stream(
            responses.created(),
            responses.piece("reasoning_summary_text", 0, "I look.", summary_index=0),
            responses.done(0, SEALED),
            responses.added(1, responses.function("c1", "")),
            responses.done(1, responses.function("c1")),
            responses.completed(),
        ),
        [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "SEALED"},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        ],
    ),
}
PLAIN: Final = {
    "anthropic": reply(claude.message({"type": "text", "text": "Done."})),
    "bedrock": reply(bedrock.answer(bedrock.text("Done."))),
    "gemini": reply(
        msgspec.json.encode({"candidates": [{"content": {"parts": [{"text": "Done."}]}, "finishReason": "STOP"}]})
    ),
    "responses": reply(responses.body(responses.message(responses.text("Done.")))),
    "openai": completion("Done."),
    "cohere": reply(b'{"id":"1","finish_reason":"COMPLETE","message":{"content":[{"type":"text","text":"Done."}]}}'),
    "ollama": reply(b'{"message":{"role":"assistant","content":"Done."},"done":true,"done_reason":"stop"}'),
}


def message_of(got: Got) -> dict[str, Any]:
    """The assistant's message, put together from its deltas as a client does it: lists grow, texts are joined."""
    if not got.body.startswith(b"data:"):
        return dict(got.json["choices"][0]["message"])
    message: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": []}
    for event in got.events[:-1]:
        delta = msgspec.json.decode(event)["choices"][0]["delta"]
        for piece in delta.get("tool_calls", ()):
            if piece["index"] == len(message["tool_calls"]):
                message["tool_calls"].append({"type": "function", "id": piece["id"], "function": piece["function"]})
            else:
                message["tool_calls"][piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
        message.setdefault("reasoning_details", []).extend(delta.get("reasoning_details", ()))
    return message


async def start(sidecar: StartSidecar, ups: dict[str, FakeUpstream]) -> Sidecar:
    """A sidecar with a provider for each language, called as it is."""
    rows = [
        f'[[provider]]\nname = "{name}"\nadapter = "{name}"\nbase_url = "{one.url}"\n'
        f'[[model]]\nprovider = "{name}"\nid = "{model(name)}"\n'
        for name, one in ups.items()
    ]
    return await sidecar(files={"catalog.toml": "\n".join(rows)})


def model(name: str) -> str:
    return PROVIDERS[name].model if name in PROVIDERS else "m"


async def say(running: Sidecar, name: str, *messages: Any, **fields: Any) -> Got:
    body = {"model": f"{name}/{model(name)}", "messages": [ASK, *messages], "tools": [TOOL], **fields}
    got = await running.post(body)
    assert got.status == 200, got.body
    return got


def results(message: dict[str, Any]) -> list[Any]:
    return [{"role": "tool", "tool_call_id": call["id"], "content": "Seen."} for call in message["tool_calls"]]


def said_back(up: FakeUpstream) -> list[Any]:
    """The blocks of the assistant's first turn in the last request."""
    body = up.requests[-1].json
    if "input" in body:
        return [item for item in body["input"] if item.get("type") in ("reasoning", "function_call")]
    turns = body.get("messages") or body["contents"]
    turn = next(turn for turn in turns if turn["role"] in ("assistant", "model"))
    return list(turn.get("content") or turn["parts"])


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("other", PLAIN)
@pytest.mark.parametrize("name", PROVIDERS)
async def test_signatures_return_to_who_made_them(
    sidecar: StartSidecar, upstream: StartUpstream, name: str, other: str, streamed: bool
) -> None:
    """Ask, call, answer the call, go on at another provider, come back: the blocks are there, whole and in their
    order, whenever their own provider is asked, and nowhere else.
    """
    made = PROVIDERS[name]
    first = await upstream(made.streamed if streamed else made.whole, PLAIN[name])
    ups = {name: first} if other == name else {name: first, other: await upstream(PLAIN[other])}
    running = await start(sidecar, ups)

    message = message_of(await say(running, name, stream=streamed))
    talk = [message, *results(message)]
    await say(running, name, *talk)
    assert said_back(first) == made.back

    elsewhere = await say(running, other, *talk)
    if other != name:
        assert not any(secret in ups[other].requests[0].body for secret in SECRETS)
    await say(running, name, *talk, message_of(elsewhere), {"role": "user", "content": "Again?"})
    assert said_back(first) == made.back


@pytest.mark.parametrize("name", ["anthropic", "bedrock"])
async def test_another_model_of_the_provider_gets_no_signature(
    sidecar: StartSidecar, upstream: StartUpstream, name: str
) -> None:
    """Newer models bind thinking to themselves: it stays where it was made."""
    up = await upstream(PROVIDERS[name].whole, PLAIN[name])
    running = await start(sidecar, {name: up})
    message = message_of(await say(running, name))

    other = model(name).replace("sonnet", "haiku")
    got = await running.post({"model": f"{name}/{other}", "messages": [ASK, message, *results(message)]})

    assert got.status == 200
    assert not any(secret in up.requests[-1].body for secret in SECRETS)


@pytest.mark.parametrize("name", ["anthropic", "bedrock"])
async def test_a_loop_goes_on_thinking_if_its_thoughts_came_back(
    sidecar: StartSidecar, upstream: StartUpstream, name: str
) -> None:
    """With a budget Claude wants them before the call; where the client has lost them, the step goes without."""
    up = await upstream(PROVIDERS[name].whole, PLAIN[name])
    running = await start(sidecar, {name: up})
    message = message_of(await say(running, name, reasoning_effort="low"))
    lost = {key: value for key, value in message.items() if key != "reasoning_details"}

    kept_got = await say(running, name, message, *results(message), reasoning_effort="low")
    kept = b'"enabled"' in up.requests[-1].body
    lost_got = await say(running, name, lost, *results(message), reasoning_effort="low")

    assert (kept, b'"enabled"' in up.requests[-1].body) == (True, False)
    assert "x-sidecar-dropped" not in kept_got.headers
    assert lost_got.headers["x-sidecar-dropped"] == "reasoning_effort"


async def test_thoughts_of_openais_language_stay(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """What OpenRouter has signed is not marked and passes through untouched, beside what is ours and does not."""
    up = await upstream()
    theirs = {"type": "reasoning.text", "text": "t", "signature": "s", "index": 0}
    ours = {**theirs, STAMP: "anthropic/x"}
    extra = {"google": {"thought_signature": "s", STAMP: "gemini/x"}}
    signed = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": extra}
    plain = {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"x": 1}}
    running = await start(sidecar, {"openai": up})

    said = {"role": "assistant", "reasoning_details": [ours, theirs], "tool_calls": [signed, plain]}
    await say(running, "openai", said)
    got = up.requests[0].json["messages"][1]

    assert got == {
        "role": "assistant",
        "reasoning_details": [theirs],
        "tool_calls": [{key: value for key, value in signed.items() if key != "extra_content"}, plain],
    }
    await say(running, "openai", {"role": "assistant", "content": "x", "reasoning_details": [theirs]})
    assert up.requests[1].json["messages"][1]["reasoning_details"] == [theirs]


@pytest.mark.parametrize(
    "details", [None, "x", {}, [None], [{STAMP: "a/m"}], [{STAMP: "a/m", "type": 1, "format": "f", "index": 0}]]
)
def test_what_is_no_entry_of_ours_is_not_read(details: Any) -> None:
    """A client may have changed it; that is no reason to refuse its request."""
    assert returned(Message("assistant", reasoning_details=details), Target("m", provider="a").source) == []


async def test_thoughts_stand_where_they_stood(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Between text and call too, and never at the end of a turn."""
    text, call = {"type": "text", "text": "Hm."}, claude.use(id="toolu_1")
    up = await upstream(
        reply(claude.message(THOUGHT, text, REDACTED, call, stop="tool_use")),
        PLAIN["anthropic"],
        reply(claude.message(text, THOUGHT)),
        PLAIN["anthropic"],
    )
    running = await start(sidecar, {"anthropic": up})
    message = message_of(await say(running, "anthropic"))
    await say(running, "anthropic", message, *results(message))
    assert said_back(up) == [THOUGHT, text, REDACTED, call]

    message = message_of(await say(running, "anthropic"))
    await say(running, "anthropic", message, ASK)
    assert said_back(up) == [THOUGHT, text]


async def test_geminis_signature_of_words_returns_with_them(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """It comes with the last part, in a stream with an empty one."""
    words = [{"text": "Do"}, {"text": "ne."}, {"text": "", "thoughtSignature": "SIGNED"}]
    pieces = [sse({"candidates": [{"content": {"parts": [part]}, "index": 0}]}) for part in words]
    pieces.append(sse({"candidates": [{"content": {"parts": []}, "finishReason": "STOP", "index": 0}]}))
    up = await upstream(stream(*pieces), PLAIN["gemini"])
    running = await start(sidecar, {"gemini": up})

    got = await say(running, "gemini", stream=True)
    await say(running, "gemini", {**message_of(got), "content": got.text, "tool_calls": []}, ASK)

    assert got.text == "Done."
    assert said_back(up) == [{"text": "Done.", "thoughtSignature": "SIGNED"}]


async def test_a_stream_of_another_shape_is_left_alone(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """OpenAI's own streams have no details of ours."""
    up = await upstream(stream(chunk({"role": "assistant", "content": "x"}), chunk({}, "stop"), b"data: [DONE]\n\n"))
    got = await say(await start(sidecar, {"openai": up}), "openai", stream=True)
    assert b"reasoning_details" not in got.body


async def test_a_thought_that_never_began_is_not_told(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Pieces of a block without its start: the words are passed on, there is nothing to send back."""
    pieces = claude.piece(0, "thinking_delta", thinking="t"), claude.piece(0, "signature_delta", signature="SIGNED")
    up = await upstream(stream(claude.begin(), *pieces, claude.closed(0), claude.end()))

    got = await say(await start(sidecar, {"anthropic": up}), "anthropic", stream=True)

    assert b'"reasoning_content":"t"' in got.body
    assert b"SIGNED" not in got.body


async def test_a_signature_without_its_call_is_left_out(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The client has cut the call out of its history: the signature goes with it."""
    up = await upstream(PROVIDERS["gemini"].whole, PLAIN["gemini"])
    running = await start(sidecar, {"gemini": up})
    message = message_of(await say(running, "gemini"))
    calls = [{**call, "extra_content": None} for call in message["tool_calls"] if call["id"] == "g2"]

    await say(running, "gemini", {**message, "tool_calls": calls}, *results({"tool_calls": calls}))

    assert b"SIGNED" not in up.requests[-1].body


async def test_words_stay_when_their_signature_goes(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A message of another provider's reaches an upstream of OpenAI's language without the field, else as it was."""
    up = await upstream()
    details = [{STAMP: "anthropic/x", "type": "reasoning.encrypted", "format": "f", "index": 0, "data": "SEALED"}]

    await say(await start(sidecar, {"openai": up}), "openai", {"role": "assistant", "content": "x", "y": 1.50} | {
        "reasoning_details": details
    })  # fmt: skip

    assert up.requests[0].json["messages"][1] == {"role": "assistant", "content": "x", "y": 1.5}
