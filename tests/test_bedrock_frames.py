"""AWS's event-stream framing: any split of the bytes, both checksums, bounded sizes."""

from zlib import crc32

import pytest

from adapters._bedrock.frames import Frames
from proxy import errors
from proxy.errors import UpstreamError
from proxy.sse import MAX_EVENT, Event

from .bedrock_words import event, exception, frame, string

# Two messages that botocore's own parser takes, with "Hi" in a delta and a throttlingException.
HELLO = bytes.fromhex(
    "0000009f00000057c37babff0b3a6576656e742d74797065070011636f6e74656e74426c6f636b44656c74610d3a636f6e74656e742d74797065"
    "0700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d747970650700056576656e747b22636f6e74656e74426c6f636b496e64"
    "6578223a302c2264656c7461223a7b2274657874223a224869227d2c2270223a2261626364227df2ace5ff"
)
THROTTLED = bytes.fromhex(
    "00000090000000618e91a9b70f3a657863657074696f6e2d747970650700137468726f74746c696e67457863657074696f6e0d3a636f6e74656e"
    "742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d74797065070009657863657074696f6e7b226d65737361"
    "6765223a22546f6f206d616e79207265717565737473227de67f8005"
)
EVENTS = [event("messageStart", role="assistant"), HELLO, event("messageStop", stopReason="end_turn")]
NAMES = [b"messageStart", b"contentBlockDelta", b"messageStop"]
EVENT = {":message-type": "event", ":event-type": "x"}


def fed(*pieces: bytes) -> list[Event]:
    frames = Frames()
    return [found for data in pieces for found in frames.feed(data)]


def fault(*pieces: bytes) -> UpstreamError:
    with pytest.raises(errors.UpstreamError) as raised:
        fed(*pieces)
    return raised.value


def test_a_known_message_is_read() -> None:
    """The published layout: lengths, checksums, headers and payload."""
    [found] = fed(HELLO)

    assert found == Event(b"contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"Hi"},"p":"abcd"}')


@pytest.mark.parametrize("size", [1, 2, 3, 7, 11, 12, 13, 100, 158, 159, 160, 1000])
def test_pieces_of_any_size_make_the_same_messages(size: int) -> None:
    """One message in many reads, many messages in one read."""
    whole = b"".join(EVENTS)

    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]

    assert fed(*pieces) == fed(whole)
    assert [found.name for found in fed(whole)] == NAMES


def test_every_cut_in_two_makes_the_same_messages() -> None:
    """No place is special: not the prelude, not a header, not a checksum."""
    whole = b"".join(EVENTS)

    for at in range(len(whole) + 1):
        assert [found.name for found in fed(whole[:at], whole[at:])] == NAMES


@pytest.mark.parametrize("at", [0, 5, 9, 20, 100, 156])
def test_a_flipped_bit_is_a_fault(at: int) -> None:
    """Whatever was damaged, one of the two checksums tells."""
    broken = bytearray(HELLO)
    broken[at] ^= 1

    assert fault(bytes(broken)).code == "upstream_invalid_event"


def test_a_wrong_length_is_noticed_before_more_is_read() -> None:
    """A damaged prelude fails at its twelve bytes; nobody waits for a message of 4 GiB."""
    assert fault(b"\xff" * 12).code == "upstream_invalid_event"
    assert fault((1000).to_bytes(4) + bytes(8)).code == "upstream_invalid_event"


@pytest.mark.parametrize("size", [MAX_EVENT - 1000, MAX_EVENT + 1])
def test_a_message_is_bounded(size: int) -> None:
    """Up to 1 MiB is read, more is a fault as soon as its length is known."""
    whole = frame(EVENT, b"x" * size)

    if size > MAX_EVENT:
        assert type(fault(whole[:12])) is errors.UnavailableError
    else:
        assert [len(found.data) for found in fed(whole[:70_000], whole[70_000:])] == [size]


def test_lengths_that_contradict_each_other_are_a_fault() -> None:
    """Headers longer than their message have no end."""
    good = frame(EVENT, b"")
    prelude = good[:4] + (len(good)).to_bytes(4)

    assert fault(prelude + crc32(prelude).to_bytes(4) + good[12:]).code == "upstream_invalid_event"


@pytest.mark.parametrize(
    "other",
    [
        b"\x01a\x00",
        b"\x01a\x01",
        b"\x01a\x02\x07",
        b"\x01a\x03\x00\x07",
        b"\x01a\x04" + bytes(4),
        b"\x01a\x05" + bytes(8),
        b"\x01a\x06\x00\x02ab",
        b"\x01a\x08" + bytes(8),
        b"\x01a\x09" + bytes(16),
    ],
)
def test_headers_of_all_types_are_stepped_over(other: bytes) -> None:
    """Booleans, numbers, bytes, times and UUIDs have sizes of their own, before and after what we look for."""
    kind, name = string(":message-type", "event"), string(":event-type", "x")

    assert fed(frame(kind + other + name, b"{}")) == [Event(b"x", b"{}")]


@pytest.mark.parametrize(
    "headers",
    [
        b"\x01a\x0a",
        b"\x01a",
        b"\x05a",
        b"\x01a\x07\x00",
        b"\x01a\x07\x00\x05ab",
        b"\x01a\x05\x00",
        string(":message-type", "event") + b"\x01a\x07\x00\x05ab",
        string(":message-type", "news"),
        b"",
    ],
)
def test_headers_that_are_none_are_a_fault(headers: bytes) -> None:
    """An unknown type, a value that is cut off, a message without a known kind: nothing is guessed."""
    assert fault(frame(headers, b"{}")).code == "upstream_invalid_event"


def test_what_came_before_a_fault_is_not_lost() -> None:
    """The events ahead of an exception in the same read are events."""
    found: list[Event] = []

    with pytest.raises(errors.RateLimitError) as raised:
        found.extend(Frames().feed(HELLO + THROTTLED))

    assert raised.value.message == "Too many requests"
    # list.extend keeps what was yielded, as `proxy.adapter.each` does.
    assert [one.name for one in found] == [b"contentBlockDelta"]


def test_an_error_message_has_its_words_in_the_headers() -> None:
    """The third kind of message carries no payload."""
    headers = {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "it broke"}

    found = fault(frame(headers, b""))

    assert (type(found), found.status, found.message) == (errors.UnavailableError, 500, "it broke")


def test_half_a_message_says_nothing() -> None:
    """Bytes that complete nothing are kept, and no error."""
    assert fed(HELLO[:-1]) == []
    assert type(fault(exception("modelStreamErrorException", originalMessage="x"))) is errors.UnavailableError
