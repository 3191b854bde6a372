"""Short words for OpenAI's messages and for one translated language, to write tests with."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

from proxy import errors
from proxy.adapter import Rendered, Reply, StreamParser, Target, load
from proxy.wire import ChatRequest, decode_chat

HI: Final = {"role": "user", "content": "hi"}
TOOL: Final = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
OTHER: Final = {"type": "function", "function": {"name": "other", "description": "d"}}
SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORMAT: Final = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
PIXEL: Final = "data:image/png;base64,QQ=="


def chat(*messages: Any, **fields: Any) -> ChatRequest:
    return decode_chat(msgspec.json.encode({"model": "m", "messages": messages or [HI], **fields}), 1000)


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def image(url: str = PIXEL, **fields: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def call(id: str, arguments: str | None = "{}", name: str = "look") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def called(*calls: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": calls, **fields}


def result(id: str, content: Any = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def chunks(out: bytes) -> list[Any]:
    assert out.endswith(b"data: [DONE]\n\n")
    return [msgspec.json.decode(part.removeprefix(b"data: ")) for part in out.split(b"\n\n")[:-2]]


def said_by(*calls: Any) -> Iterator[tuple[str, str, str]]:
    """Id, name and arguments of OpenAI's tool calls."""
    return ((one["id"], one["function"]["name"], one["function"]["arguments"]) for one in calls)


class Language:
    """An adapter and one of its models."""

    def __init__(self, name: str, model: str) -> None:
        self.adapter = load(name)
        self.model = model

    def render(self, *messages: Any, model: str = "", max_output: int | None = None, **fields: Any) -> Rendered:
        return self.adapter.render(chat(*messages, **fields), Target(model or self.model, max_output=max_output))

    def sent(self, *messages: Any, **fields: Any) -> Any:
        return msgspec.json.decode(self.render(*messages, **fields).body)

    def turns(self, *messages: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.sent(*messages)["messages"]
        return found

    def refusal(self, *messages: Any, **fields: Any) -> errors.InvalidRequestError:
        with pytest.raises(errors.InvalidRequestError) as raised:
            self.render(*messages, **fields)
        assert raised.value.unsent
        assert raised.value.status == 400
        return raised.value

    def parse(self, body: bytes, *messages: Any) -> tuple[Reply, Any]:
        reply = self.adapter.parse(body, chat(*messages), Target(self.model))
        return reply, msgspec.json.decode(reply.body)["choices"][0]

    def parser(self, **fields: Any) -> StreamParser:
        return self.adapter.stream(chat(stream=True, **fields), Target(self.model))

    def deltas(self, *events: bytes) -> list[Any]:
        """The deltas between the role chunk and the finish chunk."""
        stream = self.parser()
        found = chunks(stream.feed(b"".join(events)) + stream.close())
        return [chunk["choices"][0]["delta"] for chunk in found[1:-1]]
