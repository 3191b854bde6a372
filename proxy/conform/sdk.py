"""What a client of OpenAI's official SDK finds in an answer, complete or streamed; its types are the judge."""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import ValidationError

Model = TypeVar("Model", ChatCompletion, ChatCompletionChunk)
DONE: Final = b"data: [DONE]\n\n"


class Unreadable(Exception):  # noqa: N818  # what a client says of an answer, not an error of ours
    """No client of the SDK can read this."""


class Said(NamedTuple):
    """What a client of the official SDK finds in an answer; `finish` is None when it never ended."""

    text: str
    reasoning: str
    tool_calls: list[tuple[str, Any]]
    finish: str | None


def chunks(stream: bytes, *, strict: bool = True) -> list[ChatCompletionChunk]:
    """Return the chunks of a client's stream. `strict` is OpenAI's types to the letter; the framing always is.

    Raises Unreadable.
    """
    if not stream.endswith(DONE):
        raise Unreadable(f"the stream does not end with {DONE!r} but with {stream[-60:]!r}")
    return [_model(ChatCompletionChunk, data, strict=strict) for data in _events(stream)]


def completion(body: bytes, *, strict: bool = True) -> ChatCompletion:
    """Return a complete answer; see `chunks`."""
    return _model(ChatCompletion, body, strict=strict)


def _model(kind: type[Model], data: bytes, *, strict: bool) -> Model:
    try:
        return kind.model_validate_json(data, strict=True) if strict else kind.construct(**msgspec.json.decode(data))
    except (ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"{error} in {data[:300]!r}") from error


def _events(stream: bytes) -> Iterator[bytes]:
    for event in stream.removesuffix(DONE).split(b"\n\n")[:-1]:
        if not event.startswith(b"data: {"):
            raise Unreadable(f"no event of OpenAI's: {event[:200]!r}")
        yield event.removeprefix(b"data: ")


def said_complete(found: ChatCompletion) -> Said:
    """Return what the first choice of a completion says."""
    choice = found.choices[0].model_dump()
    message = choice["message"]
    calls = [call.get("function") or call["custom"] for call in message.get("tool_calls") or ()]
    if message.get("function_call"):
        calls.append(message["function_call"])
    return Said(
        (message.get("content") or "") + (message.get("refusal") or ""),
        message.get("reasoning_content") or "",
        [(call["name"], arguments(call.get("arguments", call.get("input")))) for call in calls],
        choice.get("finish_reason"),
    )


def said_streamed(found: Iterable[ChatCompletionChunk]) -> Said:
    """Return what the first choice of a stream says, put together the way clients do: calls by their index.

    Raises Unreadable for calls that are not numbered from 0 in their order.
    """
    text = reasoning = ""
    finish = None
    calls: dict[int, list[str]] = {}
    for choice in (choice for chunk in found for choice in chunk.choices if choice.index == 0):
        delta = choice.delta.model_dump()
        text += (delta.get("content") or "") + (delta.get("refusal") or "")
        reasoning += delta.get("reasoning_content") or ""
        finish = choice.finish_reason or finish
        _join(calls, delta)
    if list(calls) != list(range(len(calls))):
        raise Unreadable(f"tool calls are numbered {list(calls)}")
    return Said(text, reasoning, [(name, arguments(text)) for name, text in calls.values()], finish)


def _join(calls: dict[int, list[str]], delta: dict[str, Any]) -> None:
    pieces = [(call["index"], call.get("function") or {}) for call in delta.get("tool_calls") or ()]
    if delta.get("function_call"):
        pieces.append((0, delta["function_call"]))
    for index, function in pieces:
        call = calls.setdefault(index, ["", ""])
        call[0] += function.get("name") or ""
        call[1] += function.get("arguments") or ""


def arguments(text: str) -> Any:
    """Return the object that a call's arguments are; what is none as {"__unparsable__": text}."""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {"__unparsable__": text}
    return found if isinstance(found, dict) else {"__unparsable__": text}
