"""Short words for Converse's blocks and events and for OpenAI's messages, to write tests with."""

from collections.abc import Mapping
from typing import Any, Final
from zlib import crc32

import msgspec
import pytest

from proxy import errors
from proxy.adapter import Rendered, Reply, StreamParser, Target, load
from proxy.wire import ChatRequest, decode_chat

ADAPTER: Final = load("bedrock")
CLAUDE: Final = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
OLD_CLAUDE: Final = "anthropic.claude-3-5-sonnet-20240620-v1:0"
BUDGET_CLAUDE: Final = "us.anthropic.claude-sonnet-4-20250514-v1:0"
ADAPTIVE: Final = "global.anthropic.claude-opus-4-8"
NEWEST: Final = "global.anthropic.claude-opus-5-5"
NOVA: Final = "us.amazon.nova-2-lite-v1:0"
LLAMA: Final = "us.meta.llama3-3-70b-instruct-v1:0"
MISTRAL: Final = "mistral.mistral-large-2407-v1:0"
UNKNOWN: Final = "arn:aws:bedrock:us-east-1:000000000000:application-inference-profile/abc123"
HI: Final = {"role": "user", "content": "hi"}
TOOL: Final = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORMAT: Final = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
PIXEL: Final = "data:image/png;base64,aGk="


def chat(*messages: Any, **fields: Any) -> ChatRequest:
    return decode_chat(msgspec.json.encode({"model": "m", "messages": messages or [HI], **fields}), 1000)


def render(*messages: Any, model: str = CLAUDE, max_output: int | None = None, **fields: Any) -> Rendered:
    return ADAPTER.render(chat(*messages, **fields), Target(model, max_output=max_output))


def sent(*messages: Any, model: str = CLAUDE, max_output: int | None = None, **fields: Any) -> Any:
    return msgspec.json.decode(render(*messages, model=model, max_output=max_output, **fields).body)


def own(*messages: Any, model: str = CLAUDE, **fields: Any) -> Any:
    """The fields of the model's own."""
    return sent(*messages, model=model, **fields).get("additionalModelRequestFields")


def refusal(*messages: Any, model: str = CLAUDE, **fields: Any) -> errors.InvalidRequestError:
    with pytest.raises(errors.InvalidRequestError) as raised:
        render(*messages, model=model, **fields)
    assert raised.value.unsent
    assert raised.value.status == 400
    return raised.value


def turns(*messages: Any, **fields: Any) -> list[tuple[str, list[Any]]]:
    return [(turn["role"], turn["content"]) for turn in sent(*messages, **fields)["messages"]]


def text(words: str) -> dict[str, str]:
    return {"text": words}


def part(words: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **fields}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": parts}


def call(id: str, arguments: str = "{}", name: str = "look") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def called(*calls: Any, content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(id: str, content: Any = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def use(id: str, input: Any = None, name: str = "look", **fields: Any) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": id, "name": name, "input": {} if input is None else input, **fields}}


def used(id: str, *content: Any) -> dict[str, Any]:
    return {"toolResult": {"toolUseId": id, "content": list(content) or [text("ok")]}}


def spec(name: str, schema: Any = None, **fields: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {}} if schema is None else schema
    return {"toolSpec": {"name": name, "inputSchema": {"json": schema}, **fields}}


def answer(*blocks: Any, stop: str | None = "end_turn", **usage: Any) -> bytes:
    counts = usage or {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}
    output = {"message": {"role": "assistant", "content": blocks}}
    return msgspec.json.encode({"output": output, "stopReason": stop, "usage": counts, "metrics": {"latencyMs": 1}})


def parse(body: bytes, request: ChatRequest | None = None, model: str = CLAUDE) -> tuple[Reply, Any]:
    reply = ADAPTER.parse(body, request or chat(), Target(model))
    return reply, msgspec.json.decode(reply.body)["choices"][0]


# ---- event streams ----------------------------------------------------------------------------------------------


def string(name: str, value: str) -> bytes:
    """One header with a string."""
    return bytes([len(name)]) + name.encode() + b"\x07" + len(value.encode()).to_bytes(2) + value.encode()


def frame(headers: Mapping[str, str] | bytes, payload: bytes) -> bytes:
    """One message with its lengths and checksums."""
    head = headers if isinstance(headers, bytes) else b"".join(string(*pair) for pair in headers.items())
    prelude = (16 + len(head) + len(payload)).to_bytes(4) + len(head).to_bytes(4)
    message = prelude + crc32(prelude).to_bytes(4) + head + payload
    return message + crc32(message).to_bytes(4)


def event(kind: str, **fields: Any) -> bytes:
    """An event; `p` is the padding that AWS adds to each."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, msgspec.json.encode({**fields, "p": "abcdef"}))


def exception(kind: str, **fields: Any) -> bytes:
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, msgspec.json.encode(fields))


def begin() -> bytes:
    return event("messageStart", role="assistant")


def opened(index: int, id: str, name: str = "look", **fields: Any) -> bytes:
    start = {"toolUse": {"toolUseId": id, "name": name, **fields}}
    return event("contentBlockStart", contentBlockIndex=index, start=start)


def piece(index: int, **delta: Any) -> bytes:
    return event("contentBlockDelta", contentBlockIndex=index, delta=delta)


def fragment(index: int, json: str) -> bytes:
    return piece(index, toolUse={"input": json})


def closed(index: int) -> bytes:
    return event("contentBlockStop", contentBlockIndex=index)


def stop(reason: str = "end_turn") -> bytes:
    return event("messageStop", stopReason=reason)


def counted(**usage: Any) -> bytes:
    return event("metadata", usage=usage, metrics={"latencyMs": 1})


def end(reason: str = "end_turn") -> bytes:
    return stop(reason) + counted(inputTokens=1, outputTokens=2, totalTokens=3)


def parser(model: str = CLAUDE, **fields: Any) -> StreamParser:
    return ADAPTER.stream(chat(stream=True, **fields), Target(model))


def chunks(out: bytes) -> list[Any]:
    assert out.endswith(b"data: [DONE]\n\n")
    return [msgspec.json.decode(part.removeprefix(b"data: ")) for part in out.split(b"\n\n")[:-2]]


def deltas(*events: bytes, model: str = CLAUDE, **fields: Any) -> list[Any]:
    """The deltas between the role chunk and the finish chunk."""
    stream = parser(model, **fields)
    found = chunks(stream.feed(b"".join(events)) + stream.close())
    return [chunk["choices"][0]["delta"] for chunk in found[1:-1]]
