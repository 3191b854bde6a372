"""Go on with a stream that broke off, on the next upstream. Per policy, off by default: there is a seam.

The next upstream gets the request once more, with what the client already has as the assistant's words and the wish to
go on from there: every chat model takes that, where a prefix that must be completed is a dialect of few. So only plain
text can go on: one choice, no tools, no JSON format, nothing but `content` said so far.

The client sees one stream: one id, one role, and between the two parts a comment, which SDKs pass over.
"""

from typing import Final

import msgspec

from proxy import splice, sse, wire
from proxy.answers import Reader
from proxy.log import plain
from proxy.wire import ChatRequest

_NULL: Final = msgspec.Raw(b"null")
_NOTHING: Final = (_NULL, msgspec.Raw(b'""'), msgspec.Raw(b"[]"), msgspec.Raw(b"{}"), msgspec.Raw(b"false"))
_GO_ON: Final = (
    "Your last message was cut off in transmission. Go on exactly where it stops, in the middle of a word if need be. "
    "Repeat nothing of it, and say nothing about the interruption."
)
_NO_CHOICES: Final = msgspec.Raw(b"[]")
_NO_DELTA: Final = msgspec.Raw(b"{}")
_LIMITS: Final = (b"max_completion_tokens", b"max_tokens")


class _Choice(msgspec.Struct):
    delta: dict[str, msgspec.Raw] = {}
    index: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    id: msgspec.Raw = _NULL
    created: msgspec.Raw = _NULL


class _Asked(msgspec.Struct):
    """What forbids to go on with an answer, however plain it has been."""

    messages: list[msgspec.Raw]
    n: msgspec.Raw = _NULL
    tools: msgspec.Raw = _NULL
    functions: msgspec.Raw = _NULL
    response_format: msgspec.Raw = _NULL
    logprobs: msgspec.Raw = _NULL
    modalities: msgspec.Raw = _NULL


_chunk: Final = msgspec.json.Decoder(_Chunk)
_asked: Final = msgspec.json.Decoder(_Asked)
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_choices: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_text: Final = msgspec.json.Decoder(str)
_encode: Final = msgspec.json.encode


class Listener:
    """Stands before a client and remembers what it was told; after a `seam` it makes the events fit that."""

    __slots__ = ("_client", "_decoder", "_first", "_parts", "_plain", "_rest")

    def __init__(self, client: Reader, first: bytes) -> None:
        """`first` is what the client has been told already."""
        self._client = client
        self._decoder = sse.Decoder()
        self._first: _Chunk | None = None
        self._parts: list[str] = []
        self._plain = True
        self._rest = False
        self._hear(first)

    @property
    def text(self) -> str | None:
        """Return all that was said; None when it was more than plain text."""
        return "".join(self._parts) if self._plain else None

    def write(self, data: bytes, /) -> bool:
        """Pass whole events on, and remember them."""
        return self._client.write(self._fitted(data) if self._rest else self._hear(data))

    async def drain(self) -> None:
        """Wait for the client."""
        await self._client.drain()

    def seam(self, upstream: str, first: bytes) -> None:
        """Let `upstream` go on with `first`."""
        self._rest = True
        self._client.write(b": continued by " + plain(upstream).encode() + b"\n\n")
        self.write(first)

    def _hear(self, data: bytes) -> bytes:
        for event in self._decoder.feed(data):
            self._note(event.data)
        return data

    def _note(self, data: bytes) -> None:
        if data == b"[DONE]":
            return
        try:
            chunk = _chunk.decode(data)
            for choice in chunk.choices:
                said = {name: value for name, value in choice.delta.items() if value not in _NOTHING and name != "role"}
                self._plain = self._plain and choice.index == 0 and said.keys() <= {"content"}
                if self._plain and said:
                    self._parts.append(_text.decode(said["content"]))
        except msgspec.DecodeError:
            self._plain = False  # no chunk of a chat completion: who knows what it says
            return
        self._first = self._first or chunk

    def _fitted(self, data: bytes) -> bytes:
        fitted = []
        for event in self._decoder.feed(data):
            self._note(event.data)
            fitted.append(sse.frame(self._joined(event.data) if event.data != b"[DONE]" else event.data))
        return b"".join(fitted)

    def _joined(self, data: bytes) -> bytes:
        """Return a chunk with the id and time of the first one, and without a role: SDKs add up what deltas say."""
        try:
            found = _fields.decode(data)
            choices = _choices.decode(found.get("choices", _NO_CHOICES))
            for choice in choices:
                delta = _fields.decode(choice.get("delta", _NO_DELTA))
                delta.pop("role", None)
                choice["delta"] = msgspec.Raw(_encode(delta))
        except msgspec.DecodeError:
            return data
        if self._first is not None:
            found |= {"id": self._first.id, "created": self._first.created}
        return _encode({**found, "choices": choices})


def resumed(request: ChatRequest, said: str | None) -> ChatRequest | None:
    """Return the request for the rest of an answer of which `said` has been said; None when it cannot go on.

    A limit of tokens is lowered by what has been said, at four bytes a token.
    """
    if said is None:
        return None
    try:
        asked = _asked.decode(request.raw)
    except msgspec.DecodeError:
        return None
    barred = (asked.tools, asked.functions, asked.response_format, asked.logprobs, asked.modalities)
    if any(value not in _NOTHING for value in barred) or asked.n not in (_NULL, msgspec.Raw(b"1")):
        return None
    if not said:
        return request
    words = [{"role": "assistant", "content": said}, {"role": "user", "content": _GO_ON}]
    body = splice.set_value(request.raw, b"messages", _encode([*asked.messages, *words]))
    return wire.decode_chat(_lowered(body, len(said.encode()) // 4), request.created)


def _lowered(body: bytes, tokens: int) -> bytes:
    for name in _LIMITS:
        member = splice.find(body, name)
        if member is not None and (limit := body[member.value : member.end]).isdigit():
            body = splice.set_value(body, name, b"%d" % max(1, int(limit) - tokens))
    return body
