"""Turn Anthropic's events into chunks, one object per answer.

Every stream opens with a role chunk and ends with one finish chunk. Tool calls are numbered apart from the blocks: a
text before the call would shift the client's index.
"""

from typing import Final

import msgspec

from adapters._anthropic.messages import THOUGHTS
from adapters._anthropic.reply import (
    Answer,
    Block,
    Counts,
    fault_in,
    finish_word,
    json_text,
    normal_usage,
    refusal_in,
    text_of,
    thought_of,
)
from adapters._anthropic.request import names_of
from adapters._chat.chunks import event_of
from adapters._chat.reasoning import Step, Thought
from proxy import sse, wire
from proxy.adapter import Target, each, last_events
from proxy.wire import ChatRequest, Usage


class _Event(msgspec.Struct, frozen=True):
    type: str = ""
    index: int = -1
    message: Answer | None = None
    content_block: Block | None = None
    delta: Block | None = None
    usage: Counts | None = None


_READ: Final = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"}
)
_event: Final = msgspec.json.Decoder(_Event)
_ERROR: Final = _Event(type="error")


class _Call:
    """An open tool_use block. `index` is the client's number of it, None for the answer tool."""

    __slots__ = ("index", "spoken", "start")

    def __init__(self, index: int | None, start: str) -> None:
        self.index = index
        self.start = start
        self.spoken = False


class Stream:
    """Turns Anthropic's events into chunks; see StreamParser for what the attributes mean."""

    def __init__(self, request: ChatRequest, target: Target) -> None:
        self.started = False
        self.finish: str | None = None
        self.done = False
        self.usage: Usage | None = None
        self.model: str | None = None
        self._request = request
        self._target = target
        self._names = names_of(request, target)
        self._sse = sse.Decoder()
        self._writer: wire.ChunkWriter | None = None
        self._counts = Counts()
        self._calls: dict[int, _Call] = {}
        self._thoughts: dict[int, Thought] = {}
        self._called = 0
        self._answered = False
        self._held_text: list[str] = []
        self._out: list[bytes] = []
        self._ended = False

    def feed(self, data: bytes) -> bytes:
        """Return the chunks for `data`."""
        return each(self._sse.feed(data), self._step)

    def close(self) -> bytes:
        """Return the finish chunk if it is still due, the usage chunk if asked for, and `[DONE]`."""
        last = last_events(self, self._sse, self._step)
        if self.finish is None:
            self._stop("end_turn")  # message_stop came without a reason: Node's stream helper would throw
        self._end()
        if self._request.include_usage and self.usage is not None:
            self._out.append(self._chunks().usage(self.usage))
        return last + self._taken() + sse.DONE

    def _step(self, event: sse.Event) -> bytes:
        self._take(event)
        return self._taken()

    def _taken(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out

    def _take(self, event: sse.Event) -> None:
        # OpenRouter ends Anthropic's streams in OpenAI's manner.
        if self.done or event.data == b"[DONE]":
            return
        found = _decode(event.data) if event.name != b"error" else _ERROR
        if found.type == "error":
            raise fault_in(event.data)
        match found.type:
            case "content_block_delta" if found.delta is not None:
                self._continue(found.index, found.delta)
            case "content_block_start" if found.content_block is not None:
                self._open(found.index, found.content_block)
            case "content_block_stop":
                self._close(found.index)
            case "message_start" if found.message is not None:
                self._start(found.message)
            case "message_delta":
                self._count(found.usage)
                self._refuse(found.delta)
                self._stop(found.delta.stop_reason if found.delta is not None else None)
            case "message_stop":
                self.done = True
                self._end()

    def _start(self, message: Answer) -> None:
        self.model = message.model
        self._chunks(message)
        self._count(message.usage)
        # Programmatic tool calling starts with whole blocks and a stop reason, and no event may follow for them.
        for place, block in enumerate(message.content or ()):
            self._open(-2 - place, block)
            self._close(-2 - place)
        self._stop(message.stop_reason)

    def _chunks(self, message: Answer | None = None) -> wire.ChunkWriter:
        """Return the writer of this stream; the first call also writes the role chunk."""
        if self._writer is None:
            self._writer = wire.ChunkWriter(
                (message.id if message else None) or f"chatcmpl-{self._request.created}",
                (message.model if message else None) or self._target.model,
                self._request.created,
                include_usage=self._request.include_usage,
            )
            self._out.append(self._writer.delta(wire.Delta(role="assistant", content="")))
        return self._writer

    def _say(self, delta: wire.Delta) -> None:
        self._out.append(self._chunks().delta(delta))
        self.started = True

    def _say_text(self, text: str) -> None:
        if text and self._names.emulated:
            # Words before the answer tool is called are not part of the JSON; without a call they are the answer.
            self._held_text.append(text)
        elif text:
            self._say(wire.Delta(content=text))

    def _say_thought(self, text: str) -> None:
        if text:
            self._say(wire.Delta(reasoning_content=text))

    def _open(self, place: int, block: Block) -> None:
        if block.type == "text":
            self._say_text(text_of(block.text))
        elif block.type in THOUGHTS:
            self._say_thought(text_of(block.thinking))
            self._thoughts[place] = thought_of(block)
        elif block.type == "tool_use" and self._names.is_answer(block.name):
            if not self._answered:
                self._calls[place] = _Call(None, json_text(block.input))
            self._answered = True
        elif block.type == "tool_use":
            index, self._called = self._called, self._called + 1
            self._calls[place] = _Call(index, json_text(block.input))
            function = wire.Function(self._names.of(text_of(block.name)), "")
            self._say(wire.Delta(tool_calls=[wire.ToolCall(function, index, text_of(block.id), "function")]))

    def _continue(self, place: int, delta: Block) -> None:
        if delta.type == "text_delta":
            self._say_text(text_of(delta.text))
        elif delta.type == "input_json_delta":
            call, text = self._calls.get(place), text_of(delta.partial_json)
            if call is not None and text:
                call.spoken = True
                self._say_arguments(call, text)
        elif delta.type == "thinking_delta":
            self._say_thought(text_of(delta.thinking))
            if place in self._thoughts:
                self._thoughts[place].text.append(text_of(delta.thinking))
        elif delta.type == "signature_delta" and place in self._thoughts:
            self._thoughts[place].signature.append(text_of(delta.signature))

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
            # No fragment came: the arguments are those of the start event, "{}" for a tool without any.
            self._say_arguments(call, call.start)

    def _stop(self, reason: object) -> None:
        if reason is not None:
            self.finish = finish_word(text_of(reason), called=self._called > 0)
            self.started = True

    def _refuse(self, delta: Block | None) -> None:
        words = refusal_in(delta.stop_details) if delta is not None else ""
        if words:
            self._say(Step(refusal=words))

    def _count(self, usage: Counts | None) -> None:
        """Replace the counts that `usage` names: each report is a snapshot of the whole answer."""
        if usage is None:
            return
        for name in Counts.__struct_fields__:
            value = getattr(usage, name)
            if value is not None:
                setattr(self._counts, name, value)
        self.usage = normal_usage(self._counts)

    def _end(self) -> None:
        if self._ended or self.finish is None:
            return
        self._ended = True
        for place in [*self._thoughts, *self._calls]:
            self._close(place)
        if not self._answered and self._held_text:
            self._say(wire.Delta(content="".join(self._held_text)))
        self._out.append(self._chunks().delta(wire.Delta(), self.finish))


def _decode(data: bytes) -> _Event:
    """Return the event; one of an unknown type may have any shape. Raises UnavailableError for one we should know."""
    found = event_of(data, _event, _READ)
    return _Event(type=found) if isinstance(found, str) else found
