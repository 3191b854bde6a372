"""Short words for Anthropic's blocks and events and for OpenAI's messages, to write tests with."""

from typing import Any, Final

import msgspec
import pytest

from proxy import errors
from proxy.adapter import Rendered, Reply, StreamParser, Target, load
from proxy.wire import ChatRequest, decode_chat

ADAPTER: Final = load("anthropic")
OLD: Final = "claude-3-5-haiku-20241022"
BUDGET: Final = "claude-sonnet-4-20250514"
CURRENT: Final = "claude-sonnet-4-5"
ADAPTIVE: Final = "claude-opus-4-8"
NEWEST: Final = "claude-opus-5-5"
HI: Final = {"role": "user", "content": "hi"}
TOOL: Final = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORMAT: Final = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


def chat(*messages: Any, **fields: Any) -> ChatRequest:
    return decode_chat(msgspec.json.encode({"model": "m", "messages": messages or [HI], **fields}), 1000)


def render(*messages: Any, model: str = CURRENT, max_output: int | None = None, **fields: Any) -> Rendered:
    return ADAPTER.render(chat(*messages, **fields), Target(model, max_output=max_output))


def sent(*messages: Any, model: str = CURRENT, **fields: Any) -> Any:
    return msgspec.json.decode(render(*messages, model=model, **fields).body)


def refusal(*messages: Any, model: str = CURRENT, **fields: Any) -> errors.InvalidRequestError:
    with pytest.raises(errors.InvalidRequestError) as raised:
        render(*messages, model=model, **fields)
    assert raised.value.unsent
    assert raised.value.status == 400
    return raised.value


def turns(*messages: Any, **fields: Any) -> list[tuple[str, list[Any]]]:
    return [(turn["role"], turn["content"]) for turn in sent(*messages, **fields)["messages"]]


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def call(id: str, arguments: str = "{}", name: str = "look") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def called(*calls: Any, content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(id: str, content: Any = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def message(*blocks: Any, stop: str | None = "end_turn", **fields: Any) -> bytes:
    usage = {"input_tokens": 1, "output_tokens": 2}
    head = {"type": "message", "id": "msg_1", "model": "claude", "role": "assistant", "usage": usage}
    return msgspec.json.encode({**head, "content": blocks, "stop_reason": stop, **fields})


def parse(body: bytes, request: ChatRequest | None = None, model: str = CURRENT) -> tuple[Reply, Any]:
    reply = ADAPTER.parse(body, request or chat(), Target(model))
    return reply, msgspec.json.decode(reply.body)["choices"][0]


def use(input: Any = None, name: str = "look", id: str = "toolu_1") -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": {} if input is None else input}


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))


def begin(*blocks: Any, stop: str | None = None, **usage: Any) -> bytes:
    return event("message_start", message=msgspec.json.decode(message(*blocks, stop=stop, usage=usage)))


def opened(index: int, block: Any) -> bytes:
    return event("content_block_start", index=index, content_block=block)


def piece(index: int, kind: str, **fields: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def fragment(index: int, json: str) -> bytes:
    return piece(index, "input_json_delta", partial_json=json)


def closed(index: int) -> bytes:
    return event("content_block_stop", index=index)


def end(stop: str | None = "end_turn", **usage: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": stop}, usage=usage) + event("message_stop")


def parser(model: str = CURRENT, **fields: Any) -> StreamParser:
    return ADAPTER.stream(chat(stream=True, **fields), Target(model))


def chunks(out: bytes) -> list[Any]:
    assert out.endswith(b"data: [DONE]\n\n")
    return [msgspec.json.decode(part.removeprefix(b"data: ")) for part in out.split(b"\n\n")[:-2]]


def deltas(*events: bytes, model: str = CURRENT, **fields: Any) -> list[Any]:
    """The deltas between the role chunk and the finish chunk."""
    stream = parser(model, **fields)
    found = chunks(stream.feed(b"".join(events)) + stream.close())
    return [chunk["choices"][0]["delta"] for chunk in found[1:-1]]
