"""Bytes in, server-sent events out, for any split of the bytes. No I/O, no JSON.

Lines end at LF, CR or CRLF and nowhere else (never `str.splitlines`: U+2028 inside a JSON string is not a line end).
Comments, `id` and `retry` are dropped: the Python SDK crashes on an event that has only those. An event whose blank
line never came is delivered at the end (`close`), because some servers forget it and the SDKs lose it silently.
Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from typing import Final

import msgspec

from proxy.errors import UnavailableError

# One event larger than this is a fault, not an answer: the buffer must be bounded (wire limit of our own, 1 MiB).
MAX_EVENT: Final = 1 << 20
DONE: Final = b"data: [DONE]\n\n"


class Event(msgspec.Struct, frozen=True, gc=False):
    """`name` is empty for a plain `data:` event; `data` is never empty."""

    name: bytes
    data: bytes


def frame(data: bytes) -> bytes:
    """Return `data` as one event; line ends inside it become further `data:` lines."""
    if data.find(b"\n") >= 0:
        data = data.replace(b"\n", b"\ndata: ")
    return b"data: " + data + b"\n\n"


class Decoder:
    """Splits a byte stream into events. One per stream; keeps at most MAX_EVENT bytes."""

    __slots__ = ("_buffer", "_data", "_name", "_size", "_start", "_too_long")

    def __init__(self) -> None:
        self._buffer = b""
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0
        self._start = True
        self._too_long = False

    def feed(self, data: bytes) -> list[Event]:
        """Return the events completed by `data`. Raises UnavailableError for an event over MAX_EVENT, but not before
        the events ahead of it were returned.
        """
        self._check()
        if not self._buffer and not self._data and not self._name and data.startswith(b"data: "):
            end = data.find(b"\n")
            # One plain event and nothing else, as upstreams write them.
            if end == len(data) - 2 <= MAX_EVENT and data.endswith(b"\n") and data.find(b"\r") < 0 and end > 6:
                self._start = False
                return [Event(b"", data[6:end])]
        buffer = self._buffer + data if self._buffer else data
        if self._start:
            if len(buffer) < 3 and b"\xef\xbb\xbf".startswith(buffer):
                self._buffer = buffer
                return []
            buffer = buffer.removeprefix(b"\xef\xbb\xbf")
            self._start = False
        if buffer.find(b"\r") >= 0:
            # A CR at the very end may be half of a CRLF: keep it until the next byte is known.
            held = buffer.endswith(b"\r")
            body = buffer[:-1] if held else buffer
            lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            self._buffer = lines.pop() + (b"\r" if held else b"")
        else:
            lines = buffer.split(b"\n")
            self._buffer = lines.pop()
        events: list[Event] = []
        for line in lines:
            self._line(line, events)
            if self._size > MAX_EVENT:
                break
        self._too_long = len(self._buffer) + self._size > MAX_EVENT
        if not events:
            self._check()
        return events

    def close(self) -> list[Event]:
        """Return what the end of the bytes completes: at most one event. Raises like `feed`."""
        self._check()
        events: list[Event] = []
        for line in (self._buffer.rstrip(b"\r"), b""):
            self._line(line, events)
        self._buffer = b""
        return events

    def _check(self) -> None:
        if self._too_long:
            raise UnavailableError("the upstream sent an event over 1 MiB", code="upstream_invalid_event")

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            data = b"\n".join(self._data) if len(self._data) != 1 else self._data[0]
            if data:
                events.append(Event(self._name, data))
            self._name, self._data, self._size = b"", [], 0
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value) or 1  # an empty line is kept, too
            self._data.append(value)
        elif field == b"event":
            self._name = value
