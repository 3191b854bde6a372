"""Tell a whole completion as the stream its client asked for: servers answer with one all the same."""

from typing import Final

import msgspec

_NULL: Final = msgspec.Raw(b"null")
_NOTHING: Final = (_NULL, msgspec.Raw(b"[]"))
_ROLE: Final = msgspec.Raw(b'"assistant"')


class _WholeChoice(msgspec.Struct):
    message: dict[str, msgspec.Raw]
    index: int = 0
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _NULL


class _Whole(msgspec.Struct):
    choices: list[_WholeChoice]


_objects: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def as_stream(body: bytes, *, include_usage: bool) -> bytes:
    """Return a whole completion as the stream the client asked for, with all its fields. Raises msgspec.DecodeError."""
    choices = msgspec.json.decode(body, type=_Whole).choices
    head: dict[str, object] = {"id": "chatcmpl-0", "created": 0, "model": "", **_fields.decode(body)}
    head["object"] = "chat.completion.chunk"
    usage = head.pop("usage", _NULL)
    if include_usage:
        head["usage"] = None
    events = []
    for choice in choices:
        delta = _delta(choice.message)
        for step, logprobs, finish in (delta, choice.logprobs, None), ({}, _NULL, choice.finish_reason or "stop"):
            said = {"index": choice.index, "delta": step, "logprobs": logprobs, "finish_reason": finish}
            events.append({**head, "choices": [said]})
    if include_usage and usage != _NULL:
        events.append({**head, "choices": [], "usage": usage})
    lines = [_one_line(msgspec.json.encode(event)) for event in events]
    return b"".join([b"data: " + line + b"\n\n" for line in (*lines, b"[DONE]")])


def _delta(message: dict[str, msgspec.Raw]) -> dict[str, object]:
    """Return a whole message as the one delta that says it all; its tool calls are numbered, as deltas must be."""
    delta: dict[str, object] = {"role": _ROLE}
    delta.update((name, value) for name, value in message.items() if value not in _NOTHING)
    if "tool_calls" in delta:
        calls = enumerate(_objects.decode(message["tool_calls"]))
        delta["tool_calls"] = [{**call, "index": index} for index, call in calls]
    return delta


def _one_line(json: bytes) -> bytes:
    """Return JSON without line ends: outside of strings they mean nothing, inside they cannot be."""
    return json.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in json or b"\r" in json else json
