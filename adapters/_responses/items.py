"""The items of a response: messages, calls, reasoning. What a provider works through by itself is passed over.

Every other item may have any shape, so an item is read by its type only. Reasoning comes as a summary, or from some
providers as it is; encrypted reasoning belongs to the call that follows it, and has to come back with it.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from adapters._chat.chunks import plain
from proxy import wire
from proxy.adapter import Target
from proxy.wire import Number

# What stands between two parts of a summary.
GAP: Final = "\n\n"
# Where encrypted reasoning is kept in `tool_calls[].extra_content`.
KEPT: Final = "openai"


class Part(msgspec.Struct):
    """A part of a message or of reasoning."""

    type: str = ""
    text: Any = None
    refusal: Any = None
    annotations: Any = None
    logprobs: Any = None


class Item(msgspec.Struct):
    """A message, a call of the client's tools, or reasoning."""

    type: str = ""
    id: Any = None
    call_id: Any = None
    name: Any = None
    arguments: Any = None
    input: Any = None
    content: list[Part] | None = None
    summary: list[Part] | None = None
    encrypted_content: Any = None


class _Kind(msgspec.Struct):
    type: str = ""


class Message(wire.Message):
    """A message that may cite web pages."""

    annotations: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET


class Delta(wire.Delta, omit_defaults=True):
    """A step of one; it may also refuse."""

    refusal: str | None = None
    annotations: list[dict[str, Any]] | None = None


class Called(wire.ToolCall, omit_defaults=True):
    """A call with the reasoning that has to come back with it."""

    extra_content: dict[str, Any] | None = None


CALL: Final = "function_call"
REASONING: Final = "reasoning"
MESSAGE: Final = "message"
_READ: Final = frozenset({CALL, REASONING, MESSAGE})
_kind: Final = msgspec.json.Decoder(_Kind)
_item: Final = msgspec.json.Decoder(Item)
_BROKEN: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def item_of(raw: msgspec.Raw) -> Item:
    """Return the item; of one that is not for the client only the type. Raises msgspec.DecodeError."""
    kind = _kind.decode(raw).type
    return _item.decode(raw) if kind in _READ else Item(kind)


def thoughts_of(item: Item) -> list[str]:
    """Return the parts of a reasoning item: what was thought, or else its summary."""
    raw = [plain(part.text) for part in item.content or ()]
    return [text for text in raw or [plain(part.text) for part in item.summary or ()] if text]


def arguments_of(item: Item) -> str:
    """Return the arguments of a call as OpenAI's text of JSON."""
    return plain(item.arguments) or "{}"


class Keeper:
    """Gives each call the encrypted reasoning that led to it. One object per answer.

    Reasoning before a hosted tool's call is let go: the API wants it followed by that call, which a chat cannot hold.
    """

    def __init__(self, target: Target) -> None:
        self._source = source_of(target)
        self._kept: list[dict[str, Any]] = []

    def saw(self, item: Item) -> None:
        """Note an item that is complete."""
        if item.type not in _READ:
            self._kept = []
        elif item.type == REASONING and isinstance(item.encrypted_content, str) and item.encrypted_content:
            summary = [{"type": "summary_text", "text": plain(part.text)} for part in item.summary or ()]
            self._kept.append({"id": item.id, "summary": summary, "encrypted_content": item.encrypted_content})

    def call(self, item: Item, arguments: str, index: int | None = None) -> Called:
        """Return OpenAI's call, with the reasoning since the last one."""
        extra = {KEPT: {"reasoning": self._kept, "source": self._source}} if self._kept else None
        self._kept = []
        function = wire.Function(plain(item.name), arguments)
        return Called(function, index, plain(item.call_id) or plain(item.id), "function", extra)


def source_of(target: Target) -> str:
    """Return where encrypted reasoning can be read again: at this provider, by this model."""
    return f"{target.provider}/{target.model}"


def returned(extra: Any, target: Target) -> Iterator[dict[str, Any]]:
    """Yield the reasoning that came with a call; none when it was made elsewhere, or is not what we gave."""
    kept = extra.get(KEPT) if isinstance(extra, dict) else None
    if not isinstance(kept, dict) or kept.get("source") != source_of(target):
        return
    found = kept.get("reasoning")
    for one in found if isinstance(found, list) else ():
        if isinstance(one, dict) and isinstance(one.get("encrypted_content"), str):
            summary = one.get("summary")
            item = {"type": REASONING, "summary": summary if isinstance(summary, list) else []}
            item |= {name: one[name] for name in ("id", "encrypted_content") if isinstance(one.get(name), str)}
            yield item


class Citation(msgspec.Struct):
    """What OpenAI's chat tells of a web page that was cited."""

    url: str
    title: str
    start_index: int
    end_index: int


def citations(annotations: Any) -> list[dict[str, Any]]:
    """Return the cited web pages as OpenAI's chat tells them; cited files have no place there."""
    found = []
    for one in annotations if isinstance(annotations, list) else ():
        if isinstance(one, dict) and one.get("type") == "url_citation":
            try:
                found.append({"type": "url_citation", "url_citation": msgspec.convert(one, Citation)})
            except msgspec.ValidationError:
                continue
    return found


class _Top(msgspec.Struct):
    token: str
    logprob: Number
    bytes: list[int] | None = None


class _Logprob(_Top):
    top_logprobs: list[_Top] = []


def logprobs_of(found: Any) -> list[dict[str, Any]]:
    """Return OpenAI's entries for the tokens of a text, with the bytes that a stream leaves out."""
    try:
        return [
            {**_spelled(one), "top_logprobs": [_spelled(top) for top in one.top_logprobs]}
            for one in msgspec.convert(found or [], list[_Logprob])
        ]
    except msgspec.ValidationError:
        return []


def _spelled(one: _Top) -> dict[str, Any]:
    spelled = list(one.token.encode()) if one.bytes is None else one.bytes
    return {"token": one.token, "logprob": one.logprob, "bytes": spelled}
