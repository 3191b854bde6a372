"""Bytes to events, however they are cut."""

import pytest

from proxy.errors import UnavailableError
from proxy.sse import MAX_EVENT, Decoder, Event, frame


def events(*pieces: bytes) -> list[Event]:
    """What a decoder makes of `pieces`, its end included."""
    decoder = Decoder()
    found = [event for piece in pieces for event in decoder.feed(piece)]
    return found + decoder.close()


def plain(*data: bytes) -> list[Event]:
    return [Event(b"", one) for one in data]


HARD = (
    "\ufeffdata: ä😀\u2028\u2029\u0085x\r\n\r\n"
    ": comment\n\nid: 7\nretry: 100\n\ndata:\n\nevent: ping\ndata: {}\n\n"
    "data: one\rdata: two\r\r"
    "event: error\ndata:tight\n\ndata: [DONE]\n\n"
).encode()
WANTED = [
    *plain("ä😀\u2028\u2029\u0085x".encode()),
    Event(b"ping", b"{}"),
    *plain(b"one\ntwo"),
    Event(b"error", b"tight"),
    *plain(b"[DONE]"),
]


def test_every_cut_gives_the_same_events() -> None:
    """An emoji, a CRLF, a BOM or a blank line may be split over two reads; the events are the same."""
    assert events(HARD) == WANTED
    assert events(*(HARD[at : at + 1] for at in range(len(HARD)))) == WANTED
    for at in range(len(HARD)):
        assert events(HARD[:at], HARD[at:]) == WANTED


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_three_line_ends(line_end: bytes) -> None:
    """LF, CR and CRLF end a line; a blank one ends the event."""
    assert events(b"data: a" + line_end * 2 + b"data: b" + line_end * 2) == plain(b"a", b"b")


@pytest.mark.parametrize("rest", [b"data: last", b"data: last\n", b"data: last\r", b"data: last\r\n"])
def test_last_event_needs_no_blank_line(rest: bytes) -> None:
    """Some servers forget the blank line after the last event; it is delivered at the end."""
    assert events(b"data: first\n\n" + rest) == plain(b"first", b"last")


def test_an_event_waits_for_its_blank_line() -> None:
    """Before the blank line more lines may come, so nothing is delivered."""
    decoder = Decoder()

    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"data: b\n") == []
    assert decoder.feed(b"\n") == plain(b"a\nb")


@pytest.mark.parametrize(
    "noise", [b": only a comment\n\n", b"id: 1\n\n", b"retry: 5\n\n", b"data\n\n", b"data:\n\n", b""]
)
def test_events_without_data_are_nothing(noise: bytes) -> None:
    """The Python SDK crashes on an event that has only a comment, an id or empty data."""
    assert events(noise) == []


def test_the_name_does_not_stick() -> None:
    """`event:` names one event, also when that one had no data."""
    assert events(b"event: ping\n\ndata: a\n\n") == plain(b"a")


def test_only_one_space_after_the_colon_is_framing() -> None:
    """Further spaces are data."""
    assert events(b"data:  a\n\n") == plain(b" a")


@pytest.mark.parametrize("piece", [b"data: " + b"x" * MAX_EVENT + b"y", b"data: " + b"x" * MAX_EVENT + b"y\n\n"])
def test_an_endless_event_is_a_fault(piece: bytes) -> None:
    """A buffer that a server can fill without end would be a hole; one event has at most 1 MiB."""
    with pytest.raises(UnavailableError) as raised:
        Decoder().feed(piece)

    assert raised.value.code == "upstream_invalid_event"


def test_many_lines_count_together() -> None:
    """An event of many short lines has the same limit as one of one long line."""
    decoder, line = Decoder(), b"data: " + b"x" * 1024 + b"\n"
    for _ in range(MAX_EVENT // 1024):
        decoder.feed(line)

    with pytest.raises(UnavailableError):
        decoder.feed(line)


def test_empty_lines_count_too() -> None:
    """An event of nothing but empty `data:` lines has no byte of data, and grows all the same."""
    with pytest.raises(UnavailableError):
        Decoder().feed(b"data:\n" * (MAX_EVENT + 1))


@pytest.mark.parametrize("end", [b"", b"\n\n"])
def test_events_ahead_of_an_endless_one_are_delivered(end: bytes) -> None:
    """What was whole before the fault is not lost because both came in one read; then the fault is raised for good."""
    decoder = Decoder()

    assert decoder.feed(b"data: a\n\ndata: " + b"x" * MAX_EVENT + b"y" + end) == plain(b"a")
    with pytest.raises(UnavailableError):
        decoder.feed(b"data: b\n\n")
    with pytest.raises(UnavailableError):
        decoder.close()


def test_an_event_of_exactly_the_limit_passes() -> None:
    """The limit is for the event alone, not for what came before it."""
    big = b"x" * (MAX_EVENT - 100)

    assert events(b"data: " + big + b"\n\ndata: " + big + b"\n\n") == plain(big, big)


def test_frame_can_be_decoded_again() -> None:
    """Data with a line end becomes two lines of one event."""
    assert frame(b"a") == b"data: a\n\n"
    assert events(frame(b"a\nb")) == plain(b"a\nb")
