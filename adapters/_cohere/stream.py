"""Turn Cohere's events into chunks, one object per answer.

An event says in `type` what it is; the message parts that a complete answer has in lists come one at a time. The
reason, the usage and an error come with the last event; `[DONE]` may follow.
"""

from typing import Final

import msgspec

from adapters._chat.chunks import Chunks, event_of, plain
from adapters._cohere.reply import Call, Content, End, Said, billed, finish_of, told
from proxy import sse, wire
from proxy.adapter import Target
from proxy.wire import ChatRequest


class _Delta(End, kw_only=True):
    message: Said | None = None


class _Event(msgspec.Struct):
    type: str = ""
    id: str | None = None
    index: int = 0
    delta: _Delta | None = None


_READ: Final = frozenset(
    {
        "message-start",
        "content-start",
        "content-delta",
        "tool-plan-delta",
        "tool-call-start",
        "tool-call-delta",
        "tool-call-end",
        "message-end",
    }
)
_event: Final = msgspec.json.Decoder(_Event)


class Stream(Chunks):
    """Turns Cohere's events into chunks; see StreamParser for what the attributes mean."""

    def __init__(self, request: ChatRequest, target: Target) -> None:
        super().__init__(request, target, sse.Decoder())
        # Open calls by Cohere's index: our number of the call, and whether any arguments were told.
        self._open: dict[int, tuple[int, bool]] = {}

    def _take(self, event: sse.Event) -> None:
        if event.data == b"[DONE]":
            self.done = True
            if self.finish is None:
                self._end(_Delta())
            return
        if self.finish is not None:
            return  # nothing is said behind the end
        found = _decode(event.data)
        delta = found.delta or _Delta()
        said = delta.message or Said()
        match found.type:
            case "message-start":
                self._opened(found.id)
            case "content-start" | "content-delta" if isinstance(said.content, Content):
                self._say_thought(plain(said.content.thinking))
                self._say_text(plain(said.content.text))
            case "tool-plan-delta":
                self._say_thought(plain(said.tool_plan))
            case "tool-call-start" | "tool-call-delta" if isinstance(said.tool_calls, Call):
                self._say_piece(found.index, said.tool_calls)
            case "tool-call-end":
                self._close_call(found.index)
            case "message-end":
                self._end(delta)

    def _say_piece(self, place: int, call: Call) -> None:
        function = call.function
        if function is None:
            return
        arguments = plain(function.arguments)
        if place not in self._open:
            index = self._say_call(plain(call.id), plain(function.name), arguments)
            self._open[place] = index, bool(arguments)
        elif arguments:
            self._say_arguments(place, arguments)

    def _say_arguments(self, place: int, arguments: str) -> None:
        index, _ = self._open[place]
        self._open[place] = index, True
        self._say(wire.Delta(tool_calls=[wire.ToolCall(wire.Function(arguments=arguments), index)]))

    def _close_call(self, place: int) -> None:
        if not self._open.get(place, (0, True))[1]:
            # A call without arguments has no fragments.
            self._say_arguments(place, "{}")
        self._open.pop(place, None)

    def _end(self, delta: _Delta) -> None:
        finish = finish_of(delta, called=self.called > 0)
        for place in list(self._open):
            self._close_call(place)
        self.usage, self.told = billed(delta.usage), told(delta.usage)
        self._stop(finish)


def _decode(data: bytes) -> _Event:
    """Return the event; one of an unknown type may have any shape. Raises UnavailableError for one we should know."""
    found = event_of(data, _event, _READ)
    return _Event(type=found) if isinstance(found, str) else found
