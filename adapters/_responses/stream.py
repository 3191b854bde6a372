"""Turn the events of a response into chunks, one object per answer.

Items are known by their `output_index`: GitHub Copilot gives an item another id in each event. What was not told in
pieces is told when its item is done, or with the last event, which holds the whole response again. An event that means
nothing to a chat, known or not, is passed over.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from adapters._chat.chunks import Chunks, plain
from adapters._responses.items import (
    CALL,
    GAP,
    MESSAGE,
    REASONING,
    Delta,
    Item,
    Keeper,
    Part,
    arguments_of,
    call_of,
    citations,
    item_of,
    logprobs_of,
    thoughts_of,
)
from adapters._responses.reply import BROKEN, LAST, Response, fault_in
from proxy import sse, wire
from proxy.adapter import Target
from proxy.errors import UnavailableError
from proxy.wire import ChatRequest


class _Event(msgspec.Struct):
    """An event of any type. Parts of an item are numbered by `content_index`, those of a summary by `summary_index`."""

    type: str = ""
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: Any = None
    logprobs: Any = None
    annotation: Any = None
    item: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    response: Response | None = None


class _Type(msgspec.Struct):
    type: str = ""


class _Told:
    """What was told of an item: whether anything was said, pages cited. `call` is the client's number of a call."""

    __slots__ = ("call", "cited", "said")

    def __init__(self) -> None:
        self.call: int | None = None
        self.cited = False
        self.said = False


_event: Final = msgspec.json.Decoder(_Event)
_type: Final = msgspec.json.Decoder(_Type)


class Stream(Chunks):
    """Turns the events of a response into chunks; see StreamParser for what the attributes mean."""

    def __init__(self, request: ChatRequest, target: Target) -> None:
        super().__init__(request, target, sse.Decoder())
        self._keeper = Keeper(target.source)
        self._items: dict[int, _Told] = {}
        self._thought: tuple[int, int] | None = None

    def _take(self, event: sse.Event) -> None:
        if event.data == b"[DONE]":
            return  # OpenRouter's goodbye, which says nothing about how the response ended
        try:
            found = _decode(event.data)
            if found.type == "error":
                raise fault_in(event.data)
            step = _STEPS.get(found.type)
            if step is not None:
                step(self, found)
        except BROKEN:
            raise _nonsense() from None

    def on_created(self, found: _Event) -> None:
        """Open the stream under the response's own id."""
        if found.response is not None:
            self._opened(found.response.id, found.response.model)

    def on_text(self, found: _Event) -> None:
        """Tell a piece of the answer."""
        self._say_words(self._item(found.output_index), Delta(content=plain(found.delta)), found.logprobs)

    def on_refusal(self, found: _Event) -> None:
        """Tell a piece of a refusal."""
        self._say_words(self._item(found.output_index), Delta(refusal=plain(found.delta)))

    def on_summary(self, found: _Event) -> None:
        """Tell a piece of what reasoning came to."""
        self._say_thoughts(found.output_index, found.summary_index, plain(found.delta))

    def on_thought(self, found: _Event) -> None:
        """Tell a piece of reasoning itself."""
        self._say_thoughts(found.output_index, found.content_index, plain(found.delta))

    def on_arguments(self, found: _Event) -> None:
        """Tell a piece of a call's arguments."""
        self._say_arguments(self._item(found.output_index), plain(found.delta))

    def on_citation(self, found: _Event) -> None:
        """Tell a cited page."""
        told = self._item(found.output_index)
        told.cited = self._cite(citations([found.annotation])) or told.cited

    def on_added(self, found: _Event) -> None:
        """Begin an item."""
        if not isinstance(found.item, msgspec.UnsetType):
            self._begin(found.output_index, item_of(found.item))

    def on_done(self, found: _Event) -> None:
        """Finish an item."""
        if not isinstance(found.item, msgspec.UnsetType):
            self._finish(found.output_index, item_of(found.item))

    def on_last(self, found: _Event) -> None:
        """Finish the response, whatever became of it."""
        if found.response is not None:
            self._end(found.response)

    def _say(self, delta: wire.Delta, logprobs: object = None) -> None:
        """Tell a step. Encrypted reasoning waits for the first: by itself it is nothing that a client could use."""
        if self._keeper.kept and delta.reasoning_content is None:
            kept, self._keeper.kept = self._keeper.kept, []
            super()._say(Delta(reasoning_details=kept))
        super()._say(delta, logprobs)

    def _item(self, place: int) -> _Told:
        return self._items.setdefault(place, _Told())

    def _say_words(self, told: _Told, delta: Delta, logprobs: Any = None) -> None:
        content = logprobs_of(logprobs) if logprobs else None
        if delta.content or delta.refusal or content:
            told.said = True
            self._say(delta, {"content": content, "refusal": None} if content else None)

    def _say_thoughts(self, place: int, part: int, text: str) -> None:
        """Tell a piece of a part of reasoning; a gap stands between two parts."""
        if not text:
            return
        gap = "" if self._thought in (None, (place, part)) else GAP
        self._thought = place, part
        self._item(place).said = True
        self._say_thought(gap + text)

    def _say_arguments(self, told: _Told, arguments: str) -> None:
        if told.call is not None and arguments:
            told.said = True
            self._say(wire.Delta(tool_calls=[wire.ToolCall(wire.Function(arguments=arguments), told.call)]))

    def _cite(self, found: list[dict[str, Any]]) -> bool:
        """Tell cited pages. Returns whether there were any."""
        if found:
            self._say(Delta(annotations=found))
        return bool(found)

    def _begin(self, place: int, item: Item) -> _Told:
        """Begin a call, with the arguments that it may have already."""
        self._keeper.begins(item)
        told = self._item(place)
        if item.type == CALL and told.call is None:
            arguments = plain(item.arguments)
            told.call, told.said, self.called = self.called, bool(arguments), self.called + 1
            self._say(wire.Delta(tool_calls=[call_of(item, arguments, told.call)]))
        return told

    def _finish(self, place: int, item: Item) -> None:
        """Tell an item that was not told in pieces."""
        self._keeper.ends(item)
        told = self._begin(place, item)
        if item.type == MESSAGE and not told.cited:
            told.cited = self._finish_message(told, item.content or [])
        elif told.said:
            return
        elif item.type == CALL:
            self._say_arguments(told, arguments_of(item))
        elif item.type == REASONING:
            for part, text in enumerate(thoughts_of(item)):
                self._say_thoughts(place, part, text)

    def _finish_message(self, told: _Told, parts: list[Part]) -> bool:
        for part in () if told.said else parts:
            delta = Delta(content=plain(part.text) or None, refusal=plain(part.refusal) or None)
            self._say_words(told, delta, part.logprobs)
        return self._cite([one for part in parts for one in citations(part.annotations)])

    def _end(self, response: Response) -> None:
        self._opened(response.id, response.model)
        for place, raw in enumerate(response.output or ()):
            if place not in self._items:
                self._finish(place, item_of(raw))
        self.usage = self.told = response.counted
        finish = response.finish(called=self.called > 0)
        for told in self._items.values():
            if finish == "tool_calls" and not told.said:
                self._say_arguments(told, "{}")
        self.done = True
        self._stop(finish)


_STEPS: Final[dict[str, Callable[[Stream, _Event], None]]] = {
    "response.created": Stream.on_created,
    "response.output_item.added": Stream.on_added,
    "response.output_text.delta": Stream.on_text,
    "response.output_text.annotation.added": Stream.on_citation,
    "response.refusal.delta": Stream.on_refusal,
    "response.reasoning_summary_text.delta": Stream.on_summary,
    "response.reasoning_text.delta": Stream.on_thought,
    "response.function_call_arguments.delta": Stream.on_arguments,
    "response.output_item.done": Stream.on_done,
    **dict.fromkeys(LAST, Stream.on_last),
}


def _nonsense() -> UnavailableError:
    return UnavailableError("the upstream sent an event that is not valid", code="upstream_invalid_event")


def _decode(data: bytes) -> _Event:
    """Return the event; one that is not read may have any shape. Raises UnavailableError for one that is."""
    try:
        return _event.decode(data)
    except BROKEN:
        pass
    try:
        kind = _type.decode(data).type
    except BROKEN:
        kind = ""
    if not kind or kind in _STEPS or kind == "error":
        raise _nonsense()
    return _Event(type=kind)
