"""Short words for the Responses API, to write tests with."""

from typing import Any, Final

import msgspec

from proxy.adapter import Rendered, StreamParser, Target, load

from .translated_words import Language, chat, chunks

RESPONSES: Final = Language("responses", "gpt-5.3-codex")
ADAPTER: Final = load("responses")
USAGE: Final = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 30},
    "total_tokens": 150,
}


def to(*messages: Any, model: str = "gpt-5.3-codex", quirks: str = "", provider: str = "p", **fields: Any) -> Rendered:
    """The request for a model with quirks."""
    target = Target(model, quirks=frozenset(quirks.split()), provider=provider)
    return ADAPTER.render(chat(*messages, **fields), target)


def sent(*messages: Any, **fields: Any) -> Any:
    return msgspec.json.decode(to(*messages, **fields).body)


def items(*messages: Any, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sent(*messages, **fields)["input"]
    return found


def text(words: str, **fields: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": words, "annotations": [], **fields}


def message(*parts: Any) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": parts}


def function(call_id: str, arguments: str = "{}", name: str = "look") -> dict[str, Any]:
    return {"id": "fc_1", "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def thought(*summary: str, sealed: str | None = None, **fields: Any) -> dict[str, Any]:
    parts = [{"type": "summary_text", "text": one} for one in summary]
    return {"id": "rs_1", "type": "reasoning", "summary": parts, "encrypted_content": sealed, **fields}


def response(*output: Any, status: str = "completed", **fields: Any) -> dict[str, Any]:
    whole = {"id": "resp_1", "object": "response", "created_at": 1, "model": "codex-1", "status": status}
    return {**whole, "error": None, "incomplete_details": None, "output": output, "usage": USAGE, **fields}


def body(*output: Any, **fields: Any) -> bytes:
    return msgspec.json.encode(response(*output, **fields))


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **fields}))


def created() -> bytes:
    return event("response.created", response=response(status="in_progress", usage=None))


def added(place: int, item: Any) -> bytes:
    return event("response.output_item.added", output_index=place, item=item)


def done(place: int, item: Any) -> bytes:
    return event("response.output_item.done", output_index=place, item=item)


def piece(kind: str, place: int, delta: Any, **fields: Any) -> bytes:
    return event(f"response.{kind}.delta", output_index=place, delta=delta, **fields)


def completed(*output: Any, **fields: Any) -> bytes:
    return event("response.completed", response=response(*output, **fields))


def parser(provider: str = "p", **fields: Any) -> StreamParser:
    return ADAPTER.stream(chat(stream=True, **fields), Target("gpt-5.3-codex", provider=provider))


def steps(*events: bytes) -> list[Any]:
    """The choices of a whole stream after its role chunk, as (delta, finish reason, log probabilities)."""
    stream = parser()
    found = chunks(stream.feed(b"".join(events)) + stream.close())
    choices = [chunk["choices"][0] for chunk in found[1:]]
    return [(one["delta"], one["finish_reason"], one["logprobs"]) for one in choices]


def deltas(*events: bytes) -> list[Any]:
    """The deltas between the role chunk and the finish chunk."""
    return [delta for delta, finish, _ in steps(*events) if finish is None]
