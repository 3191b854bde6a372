"""The frame of a translated stream: one role chunk, what the language says, one finish chunk, the usage, `[DONE]`."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, Final, TypeVar

import msgspec

from proxy import sse, wire
from proxy.adapter import Target, each, last_events
from proxy.errors import UnavailableError
from proxy.wire import ChatRequest, Usage

E = TypeVar("E")
# What a decoder raises for bytes that are not what they should be.
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Type(msgspec.Struct):
    type: str = ""


_type: Final = msgspec.json.Decoder(_Type)


class Chunks(ABC):
    """A parser without its language; see StreamParser for what the attributes mean. A language adds `_take`.

    `usage` is what is billed, `told` what the client is told; they differ where a provider bills by other units.
    """

    def __init__(self, request: ChatRequest, target: Target, decoder: sse.Decoder) -> None:
        self.started = False
        self.finish: str | None = None
        self.done = False
        self.usage: Usage | None = None
        self.model: str | None = None
        self.told: Usage | None = None
        self.called = 0
        self._request = request
        self._target = target
        self._decoder = decoder
        self._writer: wire.ChunkWriter | None = None
        self._out: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Return the chunks for `data`."""
        return each(self._decoder.feed(data), self._step)

    def close(self) -> bytes:
        """Return the finish chunk if it is still due, the usage chunk if asked for, and `[DONE]`."""
        last = last_events(self, self._decoder, self._step)
        if self._request.include_usage and self.told is not None:
            self._out.append(self._opened().usage(self.told))
        return last + self._taken() + sse.DONE

    @abstractmethod
    def _take(self, event: sse.Event) -> None:
        """Say what `event` means. Raises UpstreamError for an error in it."""

    def _step(self, event: sse.Event) -> bytes:
        if not self.done:
            self._take(event)
        return self._taken()

    def _taken(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out

    def _opened(self, id: str | None = None, model: str | None = None) -> wire.ChunkWriter:
        """Return the writer of this stream; the first call also writes the role chunk."""
        if self._writer is None:
            self._writer = wire.ChunkWriter(
                id or f"chatcmpl-{self._request.created}",
                model or self._target.model,
                self._request.created,
                include_usage=self._request.include_usage,
            )
            self._out.append(self._writer.delta(wire.Delta(role="assistant", content="")))
        return self._writer

    def _say(self, delta: wire.Delta, logprobs: object = None) -> None:
        self._out.append(self._opened().delta(delta, logprobs=logprobs))
        self.started = True

    def _say_text(self, text: str) -> None:
        if text:
            self._say(wire.Delta(content=text))

    def _say_thought(self, text: str) -> None:
        if text:
            self._say(wire.Delta(reasoning_content=text))

    def _say_call(self, id: str, name: str, arguments: str) -> int:
        """Begin the next tool call, with all of its arguments or some, and return its number."""
        index, self.called = self.called, self.called + 1
        function = wire.Function(name, arguments)
        self._say(wire.Delta(tool_calls=[wire.ToolCall(function, index, id, "function")]))
        return index

    def _stop(self, finish: str) -> None:
        self.finish = finish
        self.started = True
        self._out.append(self._opened().delta(wire.Delta(), finish))


def event_of(data: bytes, decoder: msgspec.json.Decoder[E], known: Collection[str]) -> E | str:
    """Return the event in `data`, or the type of one that is not `known` and may have any shape.

    Raises UnavailableError for one that we should be able to read.
    """
    try:
        return decoder.decode(data)
    except _UNREADABLE:
        pass
    try:
        kind = _type.decode(data).type
    except _UNREADABLE:
        kind = ""
    if not kind or kind in known:
        raise UnavailableError("the upstream sent an event that is not valid", code="upstream_invalid_event")
    return kind


def logprob(token: str, number: float) -> dict[str, Any]:
    """Return what OpenAI says of one token: its bytes, and the logarithm of its probability."""
    return {"token": token, "logprob": number, "bytes": list(token.encode(errors="replace"))}


def plain(value: object) -> str:
    """Return a text that the wire types leave open; "" for none. Raises UnavailableError for anything else."""
    if value is None or isinstance(value, str):
        return value or ""
    raise UnavailableError("the upstream sent an answer that is not valid", code="upstream_invalid_event")
