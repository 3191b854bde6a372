"""Turn ConverseStream's events into chunks, one object per answer.

Every stream opens with a role chunk and ends with one finish chunk. Only calls have a start event; text and thoughts
just begin. Calls are numbered apart from the blocks: a text before the call would shift the client's index. Usage
comes last, in the event after the stop.
"""

from typing import Final

import msgspec

from adapters._bedrock.frames import Frames
from adapters._bedrock.reply import Counts, ToolUse, finish_word, made_id, normal_usage
from adapters._bedrock.request import names_of
from adapters._chat.reasoning import Step, Thought
from proxy import sse, wire
from proxy.adapter import Target, each
from proxy.errors import UnavailableError
from proxy.wire import ChatRequest, Usage


class _Input(msgspec.Struct):
    input: str | None = None


class _Thought(msgspec.Struct, rename="camel"):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class _Delta(msgspec.Struct, rename="camel"):
    text: str | None = None
    tool_use: _Input | None = None
    reasoning_content: _Thought | None = None


class _Start(msgspec.Struct, rename="camel"):
    tool_use: ToolUse | None = None


class _Event(msgspec.Struct, rename="camel"):
    """The inside of any event that we read."""

    content_block_index: int = -1
    start: _Start | None = None
    delta: _Delta | None = None
    stop_reason: str | None = None
    usage: Counts | None = None


_READ: Final = frozenset(
    {b"messageStart", b"contentBlockStart", b"contentBlockDelta", b"contentBlockStop", b"messageStop", b"metadata"}
)
_event: Final = msgspec.json.Decoder(_Event)


class _Call:
    """An open call. `index` is the client's number of it, None for the answer tool."""

    __slots__ = ("index", "spoken")

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.spoken = False


class Stream:
    """One streamed answer; see proxy.adapter.StreamParser."""

    def __init__(self, request: ChatRequest, target: Target) -> None:
        self.started = False
        self.finish: str | None = None
        self.done = False
        self.usage: Usage | None = None
        self.model: str | None = None  # Bedrock does not say
        self._request = request
        self._target = target
        self._names = names_of(request, target)
        self._frames = Frames()
        self._writer: wire.ChunkWriter | None = None
        self._calls: dict[int, _Call] = {}
        self._thoughts: dict[int, Thought] = {}
        self._called = 0
        self._answered = False
        self._counted = False
        self._held_text: list[str] = []
        self._out: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Return the chunks for `data`."""
        return each(self._frames.feed(data), self._step)

    def close(self) -> bytes:
        """Return the usage chunk if it was asked for, and `[DONE]`. Raises UnavailableError without a stop reason."""
        if self.finish is None:
            raise UnavailableError("the upstream's stream was cut short", code="upstream_truncated")
        if self._request.include_usage and self.usage is not None:
            return self._chunks().usage(self.usage) + sse.DONE
        return sse.DONE

    def _step(self, event: sse.Event) -> bytes:
        if self.done or event.name not in _READ:
            return b""
        try:
            found = _event.decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UnavailableError(
                "the upstream sent an event that is not valid", code="upstream_invalid_event"
            ) from None
        self._take(event.name, found)
        out, self._out = b"".join(self._out), []
        return out

    def _take(self, name: bytes, event: _Event) -> None:
        match name:
            case b"contentBlockDelta" if event.delta is not None:
                self._continue(event.content_block_index, event.delta)
            case b"contentBlockStart" if event.start is not None and event.start.tool_use is not None:
                self._open(event.content_block_index, event.start.tool_use)
            case b"contentBlockStop":
                self._close(event.content_block_index)
            case b"messageStart":
                self._chunks()
            case b"messageStop" if self.finish is None:
                self._stop(event.stop_reason)
            case b"metadata":
                self._count(event.usage)

    def _chunks(self) -> wire.ChunkWriter:
        """Return the writer of this stream; the first call also writes the role chunk."""
        if self._writer is None:
            self._writer = wire.ChunkWriter(
                made_id(self._request, self._frames.checksum),
                self._target.model,
                self._request.created,
                include_usage=self._request.include_usage,
            )
            self._out.append(self._writer.delta(wire.Delta(role="assistant", content="")))
        return self._writer

    def _say(self, delta: wire.Delta) -> None:
        if self.finish is not None:
            return  # nothing is said behind the end; only the usage comes there
        self._out.append(self._chunks().delta(delta))
        self.started = True

    def _open(self, place: int, use: ToolUse) -> None:
        if self._names.is_answer(use.name):
            if not self._answered:
                self._calls[place] = _Call(None)
            self._answered = True
        elif use.ours:
            index, self._called = self._called, self._called + 1
            self._calls[place] = _Call(index)
            function = wire.Function(self._names.of(use.name), "")
            self._say(wire.Delta(tool_calls=[wire.ToolCall(function, index, use.tool_use_id, "function")]))

    def _continue(self, place: int, delta: _Delta) -> None:
        if delta.text and self._names.emulated:
            # Words before the answer tool is called are not part of the JSON; without a call they are the answer.
            self._held_text.append(delta.text)
        elif delta.text:
            self._say(wire.Delta(content=delta.text))
        elif delta.tool_use is not None and delta.tool_use.input:
            call = self._calls.get(place)
            if call is not None:
                call.spoken = True
                self._say_arguments(call, delta.tool_use.input)
        elif delta.reasoning_content is not None:
            self._think(place, delta.reasoning_content)

    def _think(self, place: int, piece: _Thought) -> None:
        thought = self._thoughts.setdefault(place, Thought())
        thought.signature.append(piece.signature or "")
        thought.data.append(piece.redacted_content or "")
        if piece.text:
            thought.text.append(piece.text)
            self._say(wire.Delta(reasoning_content=piece.text))

    def _say_arguments(self, call: _Call, text: str) -> None:
        if call.index is None:
            self._say(wire.Delta(content=text))
        else:
            self._say(wire.Delta(tool_calls=[wire.ToolCall(wire.Function(arguments=text), call.index)]))

    def _close(self, place: int) -> None:
        thought = self._thoughts.pop(place, None)
        detail = None if thought is None else thought.detail(place, self._target.source)
        if detail is not None:
            self._say(Step(reasoning_details=[detail]))
        call = self._calls.pop(place, None)
        if call is not None and not call.spoken:
            # No fragment came: the tool takes no arguments.
            self._say_arguments(call, "{}")

    def _stop(self, reason: str | None) -> None:
        finish = finish_word(reason, called=self._called > 0)
        for place in [*self._thoughts, *self._calls]:
            self._close(place)
        if not self._answered and self._held_text:
            self._say(wire.Delta(content="".join(self._held_text)))
        self._out.append(self._chunks().delta(wire.Delta(), finish))
        self.finish, self.started = finish, True
        self.done = self._counted

    def _count(self, usage: Counts | None) -> None:
        if usage is not None:
            self.usage = normal_usage(usage)
        self._counted = True
        self.done = self.finish is not None
