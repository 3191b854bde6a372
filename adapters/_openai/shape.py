"""What we read of a chunk or a whole completion. Everything else stays the provider's own bytes."""

from typing import Any, Final

import msgspec

from proxy.classify import Fault, classify, fault_of, status_in
from proxy.errors import UnavailableError

NULL: Final = msgspec.Raw(b"null")
EMPTY: Final = tuple(msgspec.Raw(value) for value in (b"null", b'""', b"[]", b"{}"))
# What a decoder of the JSON library raises for bytes that are not what they should be.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Delta(msgspec.Struct):
    """What makes an event content-bearing. Field order is the order of likelihood."""

    content: msgspec.Raw = NULL
    tool_calls: msgspec.Raw = NULL
    reasoning_content: msgspec.Raw = NULL
    reasoning: msgspec.Raw = NULL
    reasoning_text: msgspec.Raw = NULL
    refusal: msgspec.Raw = NULL
    audio: msgspec.Raw = NULL
    function_call: msgspec.Raw = NULL

    def says(self) -> bool:
        """Return whether there is anything for the client in it; a role alone is nothing."""
        return any(value not in EMPTY for value in msgspec.structs.astuple(self))


class Choice(msgspec.Struct):
    """One choice: `delta` stands in chunks, `message` in whole answers."""

    index: int = 0
    delta: Delta | None = None
    finish_reason: str | None = None
    error: msgspec.Raw = NULL
    message: msgspec.Raw = NULL


class Body(msgspec.Struct):
    """A chunk or a whole completion."""

    choices: list[Choice] | None = None
    usage: msgspec.Raw = NULL
    error: msgspec.Raw = NULL
    model: msgspec.Raw = NULL

    @property
    def name(self) -> str | None:
        """Return what the upstream calls the model; None when it does not say."""
        found = msgspec.json.decode(self.model)
        return (found or None) if isinstance(found, str) else None


_body: Final = msgspec.json.Decoder(Body)


def decode(body: bytes, code: str) -> Body:
    """Return what `body` holds. Raises UnavailableError with `code` for anything but a chunk or a completion."""
    try:
        if not body.isascii():
            body.decode()  # what the decoder skips is passed on, and must be text as well
        return _body.decode(body)
    except UNREADABLE:
        raise UnavailableError("the upstream's answer is not a chat completion", code=code) from None


def raise_error(found: Body) -> None:
    """Raise the error that an answer with status 200 carries, at its top or in a choice."""
    raw = found.error
    for choice in found.choices or ():
        if choice.error != NULL:
            raw = choice.error
    if raw is NULL or raw in EMPTY:
        return
    try:
        error: Any = msgspec.json.decode(raw)
    except UNREADABLE:
        raise classify(502, {}, Fault("")) from None
    raise classify(status_in(error), {}, fault_of(error))
