"""Bytes in, messages of an AWS event stream out, for any split of the bytes. No I/O, no JSON.

A message is a prelude (its length, the length of its headers, the CRC of these eight bytes), headers, a payload, and
the CRC of all before it; every number is big-endian. Both checksums are checked: what fails is a fault of the
transport, and no byte after it can be trusted. Only the header that names the message matters to us.
Format: https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html and botocore's `eventstream` module.
"""

from collections.abc import Iterator
from struct import Struct
from typing import Final
from zlib import crc32

from adapters._bedrock.faults import fault_in_stream
from proxy.errors import UnavailableError
from proxy.sse import MAX_EVENT, Event

_PRELUDE: Final = Struct(">III")
_SUM: Final = Struct(">I")
# Prelude and closing checksum: the least that a message can have.
_LEAST: Final = _PRELUDE.size + _SUM.size
# The sizes of header values by their type; strings (7) and byte arrays (6) bring their own.
_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_OWN_SIZE: Final = (6, 7)


class Frames:
    """Splits a byte stream into events. One per stream; keeps at most one message, of at most MAX_EVENT bytes.

    `checksum` is that of the first message, 0 before it.
    """

    __slots__ = ("_buffer", "_head", "_name", "_wanted", "checksum")

    def __init__(self) -> None:
        self._buffer = bytearray()
        # The headers of the last event and its name: nearly every event repeats them, and reading them was 60 % of the
        # time that a message took.
        self._head = b""
        self._name = b""
        self._wanted = _PRELUDE.size
        self.checksum = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events that `data` completes: `name` is the event's type, `data` its payload.

        Raises the error that an exception or error message stands for, and UnavailableError for a message over
        MAX_EVENT, with a wrong checksum or with headers that are none; what came before it was yielded.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        at, end = 0, len(data)
        while end - at >= _PRELUDE.size:
            size = self._size(data, at)
            if end - at < size:
                self._wanted = size
                break
            yield self._message(data[at : at + size])
            at += size
        else:
            self._wanted = _PRELUDE.size
        self._buffer += data[at:]

    def _size(self, data: bytes, at: int) -> int:
        """Return the length of the message that begins at `at`."""
        size, headers, checksum = _PRELUDE.unpack_from(data, at)
        if crc32(data[at : at + 8]) != checksum:
            raise _broken("a wrong checksum")
        if not _LEAST + headers <= size <= MAX_EVENT:
            raise _broken("an impossible length")
        return int(size)

    def _message(self, message: bytes) -> Event:
        (checksum,) = _SUM.unpack_from(message, len(message) - _SUM.size)
        if crc32(message[: -_SUM.size]) != checksum:
            raise _broken("a wrong checksum")
        self.checksum = self.checksum or checksum
        begin = _PRELUDE.size + int.from_bytes(message[4:8])
        head, payload = message[_PRELUDE.size : begin], message[begin : -_SUM.size]
        if head == self._head and head:
            return Event(self._name, payload)
        headers = _headers(head)
        match headers.get(b":message-type"):
            case b"event":
                self._head, self._name = head, headers.get(b":event-type", b"")
                return Event(self._name, payload)
            case b"exception":
                raise fault_in_stream(headers.get(b":exception-type", b"").decode(errors="replace"), payload)
            case b"error":
                # An error has no payload: its words stand in a header.
                code = headers.get(b":error-code", b"").decode(errors="replace")
                raise fault_in_stream(code, headers.get(b":error-message", b""))
        raise _broken("no known type")


def _headers(data: bytes) -> dict[bytes, bytes]:
    """Return the headers by name. Raises UnavailableError unless they fill `data` exactly."""
    found: dict[bytes, bytes] = {}
    at, end = 0, len(data)
    try:
        while at < end:
            value_at = at + 2 + data[at]
            name, kind = data[at + 1 : value_at - 1], data[value_at - 1]
            if kind in _OWN_SIZE:
                size = int.from_bytes(data[value_at : value_at + 2])
                value_at += 2
            else:
                size = _SIZES[kind]
            at = value_at + size
            found[name] = data[value_at:at]
    except (IndexError, KeyError):
        raise _broken("headers that are none") from None
    if at != end:
        raise _broken("headers that are none")
    return found


def _broken(what: str) -> UnavailableError:
    return UnavailableError(f"the upstream sent an event with {what}", code="upstream_invalid_event")
