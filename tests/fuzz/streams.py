"""What must hold for whatever an upstream streams: the event decoder, and each adapter's parser on top of it."""

import re
from collections.abc import Iterable
from random import Random
from typing import Any, Final, NamedTuple
from zlib import crc32

from openai._streaming import SSEDecoder

from adapters import openai
from adapters._bedrock.frames import Frames
from proxy.adapter import Adapter, StreamParser, Target, load
from proxy.conform.sdk import chunks as chunks_of
from proxy.errors import UnavailableError, UpstreamError
from proxy.sse import DONE, MAX_EVENT, Decoder, Event, frame
from proxy.wire import ChatRequest, Usage, decode_chat
from tests.bedrock_words import frame as framed

from . import strict
from .asked import check_refusal

_ASK: Final = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true%b}'
_SCHEMA: Final = b',"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}'
_USAGE: Final = b',"stream_options":{"include_usage":true}'
REQUESTS: Final = tuple(decode_chat(_ASK % more, 7) for more in (_USAGE, b"", _USAGE + _SCHEMA, _SCHEMA))
_MOST_TOKENS: Final = 1 << 53


def cuts(data: bytes) -> list[list[bytes]]:
    """Return `data` in one piece, in a few, and byte by byte; the same for the same `data`."""
    random = Random(crc32(data))
    places = sorted(random.randrange(len(data) + 1) for _ in range(7))
    few = [data[at:end] for at, end in zip([0, *places], [*places, len(data)], strict=True)]
    bytewise = [data[at : at + 1] for at in range(len(data))] if len(data) < 4000 else few
    return [[data], few, bytewise]


# ---- events ------------------------------------------------------------------------------------------------------


def events(data: bytes) -> bool:
    """Any split gives the same events, those of the standard; nothing is kept beyond the bound."""
    whole, few, bytewise = (found(pieces) for pieces in cuts(data))
    assert whole == few == bytewise
    assert whole == by_the_standard(data)
    for event in whole:
        assert event.data
        assert not {b"\r", b"\n"} & {event.name[-1:], event.name[:1]}
        assert found([frame(event.data)]) == [Event(b"", event.data)]
    text = data.removeprefix(b"\xef\xbb\xbf") + b"\n\n"
    if _is_text(text) and not text.startswith(b"\xef\xbb\xbf"):
        # The SDK also tells of events that have no data, and knows of no byte order mark.
        theirs = SSEDecoder().iter_bytes(iter([text]))
        said = [Event((one.event or "").encode(), one.data.encode()) for one in theirs if one.data]
        assert whole == said
    return bool(whole)


def found(pieces: Iterable[bytes]) -> list[Event]:
    """Return the events in `pieces`, whose end is the end."""
    decoder = Decoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.close()


def by_the_standard(data: bytes) -> list[Event]:
    """Return what the WHATWG's algorithm makes of `data`, line by line; but an event at the end needs no blank line."""
    events, name, held = [], b"", list[bytes]()
    for line in [*re.split(rb"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf")), b""]:
        field, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if not line:
            if joined := b"\n".join(held):
                events.append(Event(name, joined))
            name, held = b"", []
        elif field == b"data":
            held.append(value)
        elif field == b"event":
            name = value
    return events


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def long_events(data: bytes) -> bool:
    """However an endless event is made up, it is an error as soon as it is over the bound, and is not kept."""
    decoder, line = Decoder(), data[:5000] or b"data:\n"
    piece = line * (65536 // len(line) + 1)
    try:
        for _ in range(MAX_EVENT // len(piece) + 9):
            decoder.feed(piece)
            kept = len(decoder._buffer) + sum(len(one) or 1 for one in decoder._data)
            assert kept <= MAX_EVENT + len(piece)
    except UnavailableError as error:
        check_refusal(error, 502)
        return False
    return True


# ---- adapters ----------------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """What a client got of a stream. `code` is the error's, None after a clean end."""

    out: bytes
    code: str | None
    finish: str | None
    usage: Usage | None


def openai_stream(data: bytes) -> bool:
    """OpenAI's own language, passed on; as Copilot speaks it, too."""
    variant = crc32(data)
    quirks = openai.ADAPTER.quirks if variant & 4 else frozenset[str]()
    told = stream(openai.ADAPTER, REQUESTS[variant & 1], Target("m", quirks), data)
    chunks = chunks_in(told)
    if told.code is None:
        check_every_choice_ends(chunks)
    return told.code is None


def translated(name: str, data: bytes) -> bool:
    """Another language's events: OpenAI's types to the letter, one role first, one finish last."""
    told = stream(load(name), REQUESTS[crc32(data) & 3], Target("claude-3-haiku"), data)
    chunks_in(told)
    if told.code is not None:
        return False
    chunks = chunks_of(told.out)
    finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    roles = [chunk.choices[0].delta.role for chunk in chunks if chunk.choices]
    assert finishes[-1] == told.finish
    assert not any(finishes[:-1])
    assert roles == ["assistant"] + [None] * (len(roles) - 1)
    return True


def bedrock_events(data: bytes) -> bool:
    """Bedrock's messages with the right lengths and checksums, which changed bytes hardly ever have; `data` says what
    is in them, as server-sent events.
    """
    names = {":message-type": "event", ":content-type": "application/json"}
    messages = [
        framed({**names, ":event-type": event.name[:60].decode(errors="replace")}, event.data)
        for event in found([data])
    ]
    return translated("bedrock", b"".join(messages))


def bedrock_seeds(recorded: Iterable[bytes]) -> Iterable[bytes]:
    """Return recorded streams of Bedrock's as inputs to `bedrock_events`."""
    for data in recorded:
        yield b"".join(b"event: " + event.name + b"\n" + frame(event.data) for event in Frames().feed(data))


def stream(adapter: Adapter, request: ChatRequest, target: Target, data: bytes) -> Told:
    """Return what every split of `data` comes to. Only UpstreamError may come out of a parser."""
    whole, few, bytewise = (_run(adapter.stream(request, target), pieces) for pieces in cuts(data))
    assert whole == few == bytewise
    if whole.usage is not None:
        counts = (whole.usage.input, whole.usage.output, whole.usage.cached, whole.usage.cache_write)
        assert all(0 <= count <= 3 * _MOST_TOKENS for count in counts)
    assert whole.code is not None or whole.finish is not None, "ended cleanly, without a finish reason"
    return whole


def _run(parser: StreamParser, pieces: list[bytes]) -> Told:
    out = b""
    try:
        for piece in pieces:
            out += parser.feed(piece)
        out += parser.close()
    except UpstreamError as error:
        check_refusal(error)
        return Told(out + error.before, error.code or error.type, parser.finish, parser.usage)
    return Told(out, None, parser.finish, parser.usage)


def chunks_in(told: Told) -> list[dict[str, Any]]:
    """Return the chunks a client got, each a whole event of valid JSON; `[DONE]` is last, and only at a clean end."""
    body = told.out.removesuffix(DONE)
    assert (told.out != body) is (told.code is None)
    assert body.endswith(b"\n\n") or not body
    chunks = []
    for event in body.split(b"\n\n")[:-1]:
        lines = event.split(b"\n")
        assert all(line.startswith(b"data: ") for line in lines), event
        chunk = strict.object_in(b"\n".join(line[6:] for line in lines)).last()
        assert isinstance(chunk["choices"], list)
        chunks.append(chunk)
    return chunks


def check_every_choice_ends(chunks: list[dict[str, Any]]) -> None:
    """Whichever choice has begun has a finish reason, once the stream has ended cleanly."""
    begun, ended = set(), set()
    for choice in (choice.last() for chunk in chunks for choice in chunk["choices"]):
        index = choice.get("index", strict.Number("0"))
        begun.add(index)
        if choice.get("finish_reason"):
            ended.add(index)
    assert begun == ended or not begun
    assert ended
