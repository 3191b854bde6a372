"""The items of a response: messages, calls, reasoning. What a provider works through by itself is passed over.

Every other item may have any shape, so an item is read by its type only. Reasoning comes as a summary, or from some
providers as it is; what is encrypted of it has to come back with the calls that it led to.
"""

from typing import Any, Final

import msgspec

from adapters._chat import request
from adapters._chat.chunks import plain
from adapters._chat.reasoning import Detail, Said, Step, returned
from proxy import wire
from proxy.wire import Number

# What stands between two parts of a summary.
GAP: Final = "\n\n"
# How OpenRouter calls what is encrypted by OpenAI.
FORMAT: Final = "openai-responses-v1"


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


class Message(Said):
    """A message that may cite web pages."""

    annotations: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET


class Delta(Step):
    """A step of one; it may also refuse."""

    refusal: str | None = None
    annotations: list[dict[str, Any]] | None = None


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


def call_of(item: Item, arguments: str, index: int | None = None) -> wire.ToolCall:
    """Return OpenAI's call, whole or (with `index`) begun."""
    function = wire.Function(plain(item.name), arguments)
    return wire.ToolCall(function, index, plain(item.call_id) or plain(item.id), "function")


class Keeper:
    """Keeps the encrypted reasoning that an answer begins with. One object per answer.

    The API wants reasoning followed by the very item that it led to. What comes later in an answer stands between
    items whose order is lost in a chat, so it is let go.
    """

    __slots__ = ("_begun", "_source", "kept")

    def __init__(self, source: str) -> None:
        self.kept: list[Detail] = []
        self._begun = False
        self._source = source

    def begins(self, item: Item) -> None:
        """Note that an item has begun: what is reasoned after one of another type is not kept."""
        self._begun = self._begun or item.type != REASONING

    def ends(self, item: Item) -> None:
        """Note an item that is complete."""
        self.begins(item)
        data = item.encrypted_content
        if not self._begun and isinstance(data, str) and data:
            own = item.id if isinstance(item.id, str) else None
            self.kept.append(Detail("reasoning.encrypted", FORMAT, len(self.kept), self._source, id=own, data=data))


def returned_items(message: request.Message, source: str) -> list[dict[str, Any]]:
    """Return the reasoning that came back with a message, as items; none when it was made elsewhere."""
    found: list[dict[str, Any]] = []
    for detail in returned(message, source):
        if detail.data:
            own = {} if detail.id is None else {"id": detail.id}
            found.append({"type": REASONING, **own, "summary": [], "encrypted_content": detail.data})
    return found


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
