"""Short words for Gemini's parts and events and for OpenAI's messages, to write tests with."""

from typing import Any, Final

import msgspec
import pytest

from proxy import errors
from proxy.adapter import Rendered, Reply, StreamParser, Target, load
from proxy.wire import ChatRequest, decode_chat

ADAPTER: Final = load("gemini")
VERTEX: Final = load("vertex")
OLD: Final = "gemini-2.0-flash"
BUDGET: Final = "gemini-2.5-flash"
BUDGET_PRO: Final = "gemini-2.5-pro"
FLASH: Final = "gemini-3.8-flash"
PRO: Final = "gemini-3.1-pro-preview"
GEMMA: Final = "gemma-3-27b-it"
HI: Final = {"role": "user", "content": "hi"}
SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL: Final = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
FORMAT: Final = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
# What Gemini takes in place of a signature.
DUMMY: Final = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="


def chat(*messages: Any, **fields: Any) -> ChatRequest:
    return decode_chat(msgspec.json.encode({"model": "m", "messages": messages or [HI], **fields}), 1000)


def render(*messages: Any, model: str = FLASH, max_output: int | None = None, **fields: Any) -> Rendered:
    return ADAPTER.render(chat(*messages, **fields), Target(model, max_output=max_output))


def sent(*messages: Any, model: str = FLASH, **fields: Any) -> Any:
    return msgspec.json.decode(render(*messages, model=model, **fields).body)


def config(model: str = FLASH, **fields: Any) -> Any:
    return sent(model=model, **fields).get("generationConfig")


def refusal(*messages: Any, model: str = FLASH, **fields: Any) -> errors.InvalidRequestError:
    with pytest.raises(errors.InvalidRequestError) as raised:
        render(*messages, model=model, **fields)
    assert raised.value.unsent
    assert raised.value.status == 400
    return raised.value


def turns(*messages: Any, **fields: Any) -> list[tuple[str, list[Any]]]:
    return [(turn["role"], turn["parts"]) for turn in sent(*messages, **fields)["contents"]]


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def said(words: str) -> dict[str, str]:
    return {"text": words}


def call(id: str, arguments: str = "{}", name: str = "look", **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


def called(*calls: Any, content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(id: str, content: Any = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def made(args: Any = None, name: str = "look", signature: str | None = None, **fields: Any) -> dict[str, Any]:
    """A call as Gemini answers with it."""
    head = {"name": name, **fields}
    part: dict[str, Any] = {"functionCall": head if args is None else {**head, "args": args}}
    return part if signature is None else {**part, "thoughtSignature": signature}


def candidate(*parts: Any, finish: str | int | None = "STOP", **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"content": {"role": "model", "parts": parts}, **fields}
    return found if finish is None else {**found, "finishReason": finish}


def answer(*candidates: Any, **fields: Any) -> bytes:
    return msgspec.json.encode({"candidates": candidates, "responseId": "r1", "modelVersion": "gemini", **fields})


def parse(body: bytes, request: ChatRequest | None = None, model: str = FLASH) -> tuple[Reply, Any]:
    reply = ADAPTER.parse(body, request or chat(), Target(model))
    return reply, msgspec.json.decode(reply.body)


def event(*candidates: Any, **fields: Any) -> bytes:
    return b"data: " + answer(*candidates, **fields) + b"\r\n\r\n"


def piece(*parts: Any, finish: str | int | None = None, **fields: Any) -> bytes:
    return event(candidate(*parts, finish=finish, index=0), **fields)


def parser(model: str = FLASH, **fields: Any) -> StreamParser:
    return ADAPTER.stream(chat(stream=True, **fields), Target(model))


def chunks(out: bytes) -> list[Any]:
    assert out.endswith(b"data: [DONE]\n\n")
    return [msgspec.json.decode(part.removeprefix(b"data: ")) for part in out.split(b"\n\n")[:-2]]


def streamed(*events: bytes, **fields: Any) -> list[Any]:
    stream = parser(**fields)
    return chunks(stream.feed(b"".join(events)) + stream.close())


def deltas(*events: bytes, **fields: Any) -> list[Any]:
    """The deltas between the role chunk and the finish chunk."""
    return [chunk["choices"][0]["delta"] for chunk in streamed(*events, **fields)[1:-1]]
