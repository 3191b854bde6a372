"""The client's bytes for a provider: nothing changes but what that provider would refuse, ignore or not tell."""

from typing import Final

import msgspec

from adapters._chat.reasoning import STAMP
from adapters._openai.native import initiator
from adapters._openai.opened import Fields, raw, raw_object
from adapters._openai.repairs import REASONING
from proxy import splice
from proxy.adapter import Rendered, Target
from proxy.wire import ChatRequest

# What the limit on the answer is called, where only one of its two names is understood.
LIMIT: Final = {
    "max_completion_tokens": (b"max_tokens", b"max_completion_tokens"),
    "max_tokens": (b"max_completion_tokens", b"max_tokens"),
}
_NO_HEADERS: Final[dict[str, str]] = {}
_OURS: Final = b"reasoning_content"
_STAMP: Final = f'"{STAMP}"'.encode()
_QUOTED: Final = b'"reasoning_content"'
_list: Final = msgspec.json.Decoder(list[msgspec.Raw])
_encode: Final = msgspec.json.encode


def render(request: ChatRequest, target: Target) -> Rendered:
    """Return the client's own bytes with the model replaced, and usage asked for in a stream."""
    body = request.raw
    if request.model != target.model:
        body = splice.replace_known(body, b"model", _encode(target.model), request.model_at)
    if request.stream and not request.include_usage:
        body = _ask_for_usage(body)
    if splice.seek(body, _STAMP) >= 0:
        body = _without_signatures(body)
    if not target.quirks:
        return Rendered("/chat/completions", body, _NO_HEADERS)
    for quirk, names in LIMIT.items():
        if quirk in target.quirks:
            body = splice.rename(body, *names)
            break  # a row that names both means the first
    for quirk, name in REASONING.items():
        if quirk in target.quirks:
            body = _own_reasoning(body, name.encode())
    return Rendered("/chat/completions", body, initiator(request) if "initiator" in target.quirks else _NO_HEADERS)


def _ask_for_usage(body: bytes) -> bytes:
    """Set `stream_options.include_usage`, keeping the client's other stream options."""
    member = splice.find(body, b"stream_options")
    options: Fields | None = None
    if member is not None and body[member.value : member.end] != b"null":
        options = raw_object.decode(body[member.value : member.end])
    options = {**(options or {}), "include_usage": msgspec.Raw(b"true")}
    return splice.set_value(body, b"stream_options", _encode(options))


def _without_signatures(body: bytes) -> bytes:
    """Take out what another provider has signed: nobody here can use it, and most refuse the unknown field."""
    member = splice.find(body, b"messages")
    if member is None:
        return body
    messages = [_unsigned(bytes(message)) for message in _list.decode(body[member.value : member.end])]
    return body[: member.value] + _encode([msgspec.Raw(message) for message in messages]) + body[member.end :]


def _unsigned(message: bytes) -> bytes:
    if splice.seek(message, _STAMP) < 0:
        return message
    fields = raw_object.decode(message)
    # Entries without our mark are of a provider of this language.
    kept = [one for one in _each(fields.get("reasoning_details")) if _STAMP not in bytes(one)]
    calls = [
        splice.remove(bytes(one), b"extra_content") if _STAMP in bytes(one) else one
        for one in _each(fields.get("tool_calls"))
    ]
    fields.pop("reasoning_details", None)
    if kept:
        fields["reasoning_details"] = raw(kept)
    if calls:
        fields["tool_calls"] = raw([msgspec.Raw(one) for one in calls])
    return _encode(fields)


def _each(found: msgspec.Raw | None) -> list[msgspec.Raw]:
    return _list.decode(found) if found is not None and bytes(found).startswith(b"[") else []


def _own_reasoning(body: bytes, name: bytes) -> bytes:
    """Call the reasoning of earlier turns what the provider calls it: Groq refuses a name that is not its own."""
    member = splice.find(body, b"messages") if splice.seek(body, _QUOTED) >= 0 else None
    if member is None:
        return body
    messages = _list.decode(body[member.value : member.end])
    renamed = [msgspec.Raw(splice.rename(bytes(message), _OURS, name)) for message in messages]
    return body[: member.value] + _encode(renamed) + body[member.end :]
