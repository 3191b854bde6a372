"""A stream of chunks passed on, event by event: usage held back until the end, finish reasons said once each.

Events are forwarded as they came unless something about them is odd, which the one decoding that every event gets
shows; only then are they taken apart (`repairs`).
"""

import re
from typing import Final

import msgspec

from adapters._openai import finish, repairs
from adapters._openai.opened import raw, reopen
from adapters._openai.repairs import Memory, mended
from adapters._openai.shape import EMPTY, NULL, Body, Choice, decode, raise_error
from adapters._openai.usage import usage_of
from proxy import splice, sse
from proxy.adapter import Target, each, last_events
from proxy.wire import ChatRequest, Usage

_encode: Final = msgspec.json.encode
# Text in JSON that needs no look: nothing escaped, nothing beyond ASCII.
_PLAIN: Final = re.compile(rb"[ !#-\[\]-~]*+")
_TEXT: Final = re.compile(rb'"content": ?"([ !#-\[\]-~]*+)"')
# Quirks that concern the order of events and not one event.
EARLY: Final = "early_finish"
STOP: Final = "stop_with_calls"
NO_CHOICES: Final = "empty_chunks"


class Stream:
    """Passes events on; see StreamParser for what the attributes mean."""

    def __init__(self, request: ChatRequest, target: Target) -> None:
        self.started = False
        self.finish: str | None = None
        self.done = False
        self.usage: Usage | None = None
        self.model: str | None = None
        self._request = request
        self._quirks = target.quirks
        self._repairs = repairs.of(target.quirks)
        self._drops_empty = bool({"fill_missing", NO_CHOICES} & target.quirks)
        self._memory = Memory(request)
        self._sse = sse.Decoder()
        self._open: set[int] = set()
        self._closed: dict[int, str] = {}
        self._usage_chunk = b""
        self._called_tools = False
        self._sample = b""
        self._alike: tuple[bytes, bytes] | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the events completed by `data`.

        An event that differs from the last one in its plain text alone has been judged: same bytes, same verdict.
        Without this an event of a spaced stream costs 1.1 times as much (`loadtests/README.md`).
        """
        if self._alike is not None:
            before, behind = self._alike
            if data.startswith(before) and data.endswith(behind):
                words = _PLAIN.match(data, len(before))
                if words is not None and words.end() == len(data) - len(behind):
                    return data
            self._alike = None
        events = self._sse.feed(data)
        if len(events) != 1:
            return each(events, self._event)
        out = self._event(events[0])
        if out == data and self.started and not self._closed and not self._repairs:
            self._alike = _around_text(data)
        return out

    def close(self) -> bytes:
        """Return the missing finish chunk, the usage chunk if asked for, and `[DONE]`."""
        tail = last_events(self, self._sse, self._event)
        if self.finish is None or EARLY in self._quirks:
            tail += self._missing_finish()
        if self._usage_chunk and self._request.include_usage:
            tail += sse.frame(self._usage_chunk)
        return tail + sse.DONE

    def _event(self, event: sse.Event) -> bytes:
        data = event.data
        if data.startswith(b"[DONE]"):
            self.done = True
            return b""
        if self.done or event.name == b"ping":
            return b""
        if self._repairs:
            data = mended(data, self._repairs, self._memory, whole=False)
        chunk = decode(data, "upstream_invalid_event")
        if event.name == b"error" and chunk.error == NULL:
            chunk.error = msgspec.Raw(data)
        if chunk.error != NULL and chunk.usage != NULL:
            self._hold_usage(chunk, data)  # what broke off is on the bill all the same (OpenRouter)
        raise_error(chunk)
        return self._chunk(chunk, data)

    def _chunk(self, chunk: Body, data: bytes) -> bytes:
        if chunk.usage != NULL:
            data = self._hold_usage(chunk, data)
        if not chunk.choices:
            # Azure's and Copilot's first chunk: an SDK user who reads choices[0] would crash on it.
            known = chunk.choices is not None and chunk.usage == NULL and not self._drops_empty
            return sse.frame(data) if known else b""
        ends = False
        for choice in chunk.choices:
            odd = self._follow(choice)
            if odd is not None:
                data = mended(data, (odd,), self._memory, whole=False)
            if choice.finish_reason is not None:
                ends = True
        if ends:
            data = self._end(chunk.choices, data)
            if not data:
                return b""
        self._sample = data
        return sse.frame(data)

    def _follow(self, choice: Choice) -> repairs.Repair | None:
        """Keep track of what was said and which choices are open. Returns the repair without which a client fails."""
        if choice.index not in self._closed:
            self._open.add(choice.index)
            self.finish = None
        delta = choice.delta
        if delta is None:
            return repairs.SILENCE
        if not self.started:
            self.started = delta.says()
        if delta.tool_calls not in EMPTY:
            self._called_tools = True
            # No key of ours can hide in a string, whose quotes are escaped; a tool called "index" can, and is let go.
            if repairs.CALLS not in self._repairs and bytes(delta.tool_calls).find(b'"index"') < 0:
                self._repairs = (*self._repairs, repairs.CALLS)
                return repairs.CALLS
        return None

    def _end(self, choices: list[Choice], data: bytes) -> bytes:
        """Close the choices that have a finish reason. Returns the chunk, each reason told once and in OpenAI's words;
        empty when nothing is left of it.
        """
        reasons = [self._close(choice) for choice in choices]
        if reasons == [choice.finish_reason for choice in choices]:
            return data
        if (
            not any(reasons)
            and EARLY not in self._quirks
            and not any(one.delta and one.delta.says() for one in choices)
        ):
            return b""
        opened = reopen(data, "upstream_invalid_event", whole=False)
        for choice, reason in zip(opened.choices, reasons, strict=True):
            choice["finish_reason"] = raw(reason)
        return opened.join()

    def _close(self, choice: Choice) -> str | None:
        """Return the finish reason to tell for a choice now, None for none."""
        if not choice.finish_reason:
            return None
        told = choice.index not in self._closed
        reason = self._closed.get(choice.index) or self._word(choice.finish_reason)
        self.started = True
        self._open.discard(choice.index)
        self._closed[choice.index] = reason
        if not self._open:
            self.finish = reason
        return reason if told and EARLY not in self._quirks else None

    def _word(self, said: str) -> str:
        word = finish.word(said, called=self._called_tools)
        return "tool_calls" if word == "stop" and self._called_tools and STOP in self._quirks else word

    def _hold_usage(self, chunk: Body, data: bytes) -> bytes:
        """Remember the usage; return the chunk without it. Asked or not, it must not ride on another chunk."""
        usage = usage_of(chunk.usage, self._quirks)
        if usage is None:
            return data
        self.usage, self.model = usage, chunk.name
        if chunk.choices == []:
            self._usage_chunk = data
            return data
        # Clients count on `choices`, also where there are none.
        self._usage_chunk = splice.set_value(data, b"choices", b"[]")
        if self._request.include_usage:
            return splice.set_value(data, b"usage", b"null")
        return splice.remove(data, b"usage")

    def _missing_finish(self) -> bytes:
        """Return the finish chunk that was held back, or that an upstream left out which said `[DONE]`: Node's stream
        helper would throw.
        """
        if self.finish is None:
            last = next(reversed(self._closed.values()), None)
            self.finish = last or ("tool_calls" if self._called_tools else "stop")
        self.started = True
        missing = dict.fromkeys(self._open, self.finish)
        if EARLY in self._quirks:
            missing |= self._closed
        listed = sorted((missing or {0: self.finish}).items())
        choices = [{"index": index, "delta": {}, "finish_reason": reason} for index, reason in listed]
        sample = self._sample or _encode(
            {
                "id": "chatcmpl-0",
                "object": "chat.completion.chunk",
                "created": self._request.created,
                "model": self._request.model,
            }
        )
        return sse.frame(splice.set_value(sample, b"choices", _encode(choices)))


def _around_text(event: bytes) -> tuple[bytes, bytes] | None:
    """Return what stands before and behind the only text of an event; None when that is not plain to see."""
    found = _TEXT.search(event)
    if found is None or event.count(b'"content"') != 1:
        return None
    return event[: found.start(1)], event[found.end(1) :]
