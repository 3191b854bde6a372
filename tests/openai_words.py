"""Short words for OpenAI's chunks and for what a stream of them becomes, to write tests with."""

from typing import Any, Final

import msgspec
import pytest

from proxy import errors
from proxy.adapter import Rendered, Reply, StreamParser, Target, load
from proxy.wire import ChatRequest, decode_chat

ADAPTER: Final = load("openai")
COPILOT: Final = frozenset({"fill_missing", "reasoning_text", "max_completion_tokens", "initiator"})
DONE: Final = b"data: [DONE]\n\n"
USAGE: Final = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def target(*quirks: str, model: str = "up") -> Target:
    return Target(model, frozenset(quirks))


def chat(**fields: Any) -> ChatRequest:
    return decode_chat(msgspec.json.encode({"model": "m", "messages": [{"role": "user"}], **fields}), 1000)


def sent(body: bytes, *quirks: str, model: str = "up") -> bytes:
    """The bytes that go out for a client's `body`."""
    return rendered(body, *quirks, model=model).body


def rendered(body: bytes, *quirks: str, model: str = "up") -> Rendered:
    return ADAPTER.render(decode_chat(body, 0), target(*quirks, model=model))


def parser(*quirks: str, usage: bool = False) -> StreamParser:
    """A parser for a client that did or did not ask for usage."""
    fields = {"stream_options": {"include_usage": True}} if usage else {}
    return ADAPTER.stream(chat(stream=True, **fields), target(*quirks))


def parsed(answer: Any, *quirks: str) -> Reply:
    body = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
    return ADAPTER.parse(body, chat(), target(*quirks))


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else msgspec.json.encode(data)) + b"\n\n"


def chunk(delta: Any = None, finish: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [choice], **fields}


def say(text: str, index: int = 0) -> bytes:
    return event(chunk({"content": text}, index=index))


def end(finish: str = "stop", index: int = 0, **fields: Any) -> bytes:
    return event(chunk(finish=finish, index=index, **fields))


def told(stream: StreamParser, *pieces: bytes) -> bytes:
    """All that the client gets."""
    return b"".join([stream.feed(piece) for piece in pieces]) + stream.close()


def chunks(out: bytes) -> list[Any]:
    assert out.endswith(DONE)
    return [msgspec.json.decode(part.removeprefix(b"data: ")) for part in out.split(b"\n\n")[:-2]]


def whole(message: Any, *quirks: str, finish: Any = "stop", **fields: Any) -> Any:
    """The first choice of a whole answer after its repairs."""
    return msgspec.json.decode(parsed(answer(message, finish, **fields), *quirks).body)["choices"][0]


def answer(message: Any, finish: Any = "stop", **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "up", "choices": [choice], **fields}


def deltas(*events: bytes, quirks: tuple[str, ...] = ()) -> list[Any]:
    """The deltas of a stream after its repairs."""
    return [one["choices"][0]["delta"] for one in chunks(told(parser(*quirks), *events, DONE))]


def fault(stream: StreamParser, *pieces: bytes) -> errors.UpstreamError:
    with pytest.raises(errors.UpstreamError) as raised:
        told(stream, *pieces)
    return raised.value


def usages(out: bytes) -> list[Any]:
    return [(bool(one["choices"]), one["usage"]) for one in chunks(out) if "usage" in one]
