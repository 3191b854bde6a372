"""Thinking that has to come back: what a provider has signed travels in the assistant message, and back only to it.

The field is OpenRouter's `reasoning_details` (its documentation, "Preserving reasoning blocks"): a list in the message
that a client sends back with it; in a stream each entry comes whole. `sidecar_source`, which is ours, says whose the
entry is. To any other provider or model it is not sent: a foreign signature is a 400 for the whole conversation.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from adapters._chat.request import Message
from proxy import wire

STAMP: Final = "sidecar_source"
CLAUDE: Final = "anthropic-claude-v1"
GEMINI: Final = "google-gemini-v1"


class Detail(msgspec.Struct, omit_defaults=True):
    """One entry. "reasoning.text" has `text` and its `signature`, "reasoning.encrypted" has `data`; `id` is that of the
    tool call it belongs to, None for none; `index` where it stands among the blocks of its answer.
    """

    type: str
    format: str
    index: int
    source: str = msgspec.field(name=STAMP)
    id: str | None = None
    text: str | None = None
    signature: str | None = None
    data: str | None = None


class Said(wire.Message):
    """A message with what has to come back with it."""

    reasoning_details: list[Detail] | msgspec.UnsetType = msgspec.UNSET

    def think(self, text: str, details: Iterable[Detail | None]) -> None:
        """Add the thinking, if there is any, and the entries that are any."""
        kept = [detail for detail in details if detail is not None]
        if text:
            self.reasoning_content = text
        if kept:
            self.reasoning_details = kept


class Step(wire.Delta):
    """A step of a streamed message with what has to come back with it."""

    reasoning_details: list[Detail] | None = None
    refusal: str | None = None


class Thought:
    """A thought of Claude's and the pieces it comes in; `data` is one that only its provider can read."""

    __slots__ = ("data", "signature", "text")

    def __init__(self, text: str = "", signature: str = "", data: str = "") -> None:
        self.text = [text]
        self.signature = [signature]
        self.data = [data]

    def detail(self, index: int, source: str) -> Detail | None:
        """Return the entry of the whole thought; None for one that nobody has signed."""
        text, signature, data = map("".join, (self.text, self.signature, self.data))
        if data:
            return Detail("reasoning.encrypted", CLAUDE, index, source, data=data)
        return Detail("reasoning.text", CLAUDE, index, source, text=text, signature=signature) if signature else None


def returned(message: Message, source: str) -> list[Detail]:
    """Return the entries of a message that came from `source`, in their order; what is no entry of ours is not read."""
    found = message.reasoning_details
    ours = [one for one in found if is_ours(one, source)] if isinstance(found, list) else []
    try:
        return sorted(msgspec.convert(ours, list[Detail]), key=lambda detail: detail.index)
    except msgspec.ValidationError:  # somebody has changed it: worthless, but no reason to refuse a request
        return []


def is_ours(entry: Any, source: str) -> bool:
    """Say whether an object that a client sent back is marked as coming from `source`."""
    return isinstance(entry, Mapping) and entry.get(STAMP) == source
