"""A chunk or a whole completion, taken apart as far as repairs reach; what they leave alone keeps its bytes."""

from collections.abc import Iterator
from typing import Final

import msgspec

from adapters._openai.shape import EMPTY, NULL, UNREADABLE
from proxy.errors import UnavailableError

Fields = dict[str, msgspec.Raw]

raw_object: Final = msgspec.json.Decoder(Fields)
raw_list: Final = msgspec.json.Decoder(list[Fields])
_encode: Final = msgspec.json.encode
# What a choice says when it says nothing at all: Azure's filtered ones have no message, and clients read its content.
_SILENT: Final = {"message": {"role": msgspec.Raw(b'"assistant"'), "content": NULL}, "delta": {}}


class Opened:
    """`fields` is the top level, `choices` its choices, `said` the message or delta of each, in the same order."""

    __slots__ = ("_place", "choices", "fields", "said", "whole")

    def __init__(self, body: bytes, *, whole: bool) -> None:
        """Raises what JSON decoders raise, see `shape.UNREADABLE`."""
        self.whole = whole
        self.fields = raw_object.decode(body)
        self.choices = raw_list.decode(self.fields.get("choices", b"[]"))
        self._place = "message" if whole else "delta"
        self.said = [self._said(choice) for choice in self.choices]

    def _said(self, choice: Fields) -> Fields:
        said = choice.get(self._place, NULL)
        return raw_object.decode(said) if said != NULL else dict(_SILENT[self._place])

    def each(self) -> Iterator[tuple[Fields, Fields]]:
        """Return each choice with what it says."""
        return zip(self.choices, self.said, strict=True)

    def join(self) -> bytes:
        """Return all of it as JSON again."""
        for choice, said in self.each():
            choice[self._place] = raw(said)
        if self.choices:
            self.fields["choices"] = raw(self.choices)
        return _encode(self.fields)


def reopen(body: bytes, code: str, *, whole: bool) -> Opened:
    """Return `body`, whose shape was read before, taken apart. Raises UnavailableError with `code` if it cannot be."""
    try:
        return Opened(body, whole=whole)
    except UNREADABLE:
        raise UnavailableError("the upstream's answer is not a chat completion", code=code) from None


def raw(value: object) -> msgspec.Raw:
    """Return `value` as JSON."""
    return msgspec.Raw(_encode(value))


def text(value: msgspec.Raw) -> str:
    """Return the text that `value` is, empty for anything else."""
    found = msgspec.json.decode(value)
    return found if isinstance(found, str) else ""


def fill(table: Fields, name: str, value: object) -> bool:
    """Set `name` where it is absent or empty. Returns whether it was."""
    missing = table.get(name, NULL) in EMPTY
    if missing:
        table[name] = raw(value)
    return missing
