"""Promises over values that are built, not changed: any JSON object, any events in any cut, any date, any count."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import splice, wire
from proxy.classify import retry_after_s
from proxy.client import head_bytes
from proxy.log import plain
from proxy.sse import Decoder, Event, frame
from proxy.wire import Usage, decode_chat

# The same examples in every run, and no file that remembers others; a slow machine is no fault.
settings.register_profile("same", derandomize=True, database=None, deadline=None, max_examples=150)
settings.load_profile("same")

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.sampled_from(["model", "usage", "choices", "max_tokens", "a"])
KEYS = NAMES | st.sampled_from(['"', "\\", "é\u2028", "", "\n"]) | TEXTS
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=5
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=6)
COUNTS = st.integers(0, 10**12)


def written(value: Any, style: int) -> bytes:
    """`value` as JSON: compact, with blanks and lines, or with every letter of a key escaped."""
    if style == 1:
        return msgspec.json.format(msgspec.json.encode(value), indent=2)
    if style == 2 and isinstance(value, dict):
        pairs = [
            b'"' + b"".join(b"\\u%04x" % ord(letter) for letter in key) + b'":' + msgspec.json.encode(inner)
            for key, inner in value.items()
        ]
        return b"{" + b" , ".join(pairs) + b"}"
    return msgspec.json.encode(value)


def keys_fit(value: dict[str, Any]) -> bool:
    """An escape of four digits holds no letter of the other planes."""
    return all(ord(letter) < 0x10000 for key in value for letter in key)


@given(OBJECTS.filter(keys_fit), st.integers(0, 2), NAMES, VALUES)
def test_an_edit_is_the_same_edit_for_a_decoder(value: dict[str, Any], style: int, key: str, new: Any) -> None:
    """However an object is written, its members can be set, renamed and removed, and the others stay as they are."""
    body, name = written(value, style), key.encode()

    read = msgspec.json.decode
    assert read(splice.set_value(body, name, msgspec.json.encode(new))) == {**value, key: new}
    assert read(splice.remove(body, name)) == {one: inner for one, inner in value.items() if one != key}
    renamed = {("fresh" if one == key else one): inner for one, inner in value.items()}
    assert "fresh" in value or read(splice.rename(body, name, b"fresh")) == renamed
    assert not splice.repeats(body, name)


@given(OBJECTS.filter(keys_fit), st.integers(0, 2), TEXTS.filter(str.strip))
def test_only_the_model_changes(value: dict[str, Any], style: int, model: str) -> None:
    """Whatever else a request holds, its model is found and replaced, and its bytes are kept."""
    whole = {**value, "model": model, "messages": [{"role": "user", "content": '"model":"x"'}]}
    for name in ("stream", "stream_options", "tools", "response_format", "max_tokens"):
        whole.pop(name, None)
    body = written(whole, style)

    request = decode_chat(body, 7)

    assert (request.raw, request.model) == (body, model)
    changed = splice.replace_known(body, b"model", b'"new"', request.model_at)
    assert msgspec.json.decode(changed) == {**whole, "model": "new"}


EVENTS = st.lists(st.builds(Event, st.sampled_from([b"", b"ping", b"error"]), TEXTS.map(str.encode).map(
    lambda data: data.replace(b"\r", b"").strip(b"\n") or b"x"
)), max_size=5)  # fmt: skip
CUTS = st.lists(st.integers(0, 400), max_size=8)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """`data` in pieces, cut at these places."""
    ordered = sorted(min(place, len(data)) for place in places)
    return [data[at:end] for at, end in zip([0, *ordered], [*ordered, len(data)], strict=True)]


@given(
    EVENTS, CUTS, ENDS, st.sampled_from([b"", b"\xef\xbb\xbf"]), st.sampled_from([b"", b": x\n", b"id: 1\nretry: 2\n"])
)
def test_events_arrive_however_they_are_cut(
    events: list[Event], places: list[int], end: bytes, mark: bytes, noise: bytes
) -> None:
    """Three line ends, a mark at the front, comments between: what was said is what is heard, for every cut."""
    told = b"".join((b"event: " + one.name + b"\n" if one.name else b"") + noise + frame(one.data) for one in events)
    decoder = Decoder()

    heard = [one for piece in cut(mark + told.replace(b"\n", end), places) for one in decoder.feed(piece)]

    assert heard + decoder.close() == events


@given(st.lists(st.text(max_size=300), max_size=25))
def test_names_stay_in_their_header(names: list[str]) -> None:
    """No name, whatever it holds and however long it is, ends a line of a head or makes another."""
    shown = [plain(name) for name in names if not any("\ud800" <= letter <= "\udfff" for letter in name)]
    head = head_bytes(200, f"x-sidecar-dropped: {', '.join(shown)}\r\n", 0, close=False)

    assert head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n") == 5
    assert all(one.isascii() and one.isprintable() for one in shown if one)


@given(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)), st.integers(-(10**10), 10**10))
def test_a_date_is_as_far_away_as_it_is(now: datetime, wait_s: int) -> None:
    """A date is read against the answer's own; what has passed, or is a life away, is no wait."""
    now = now.replace(microsecond=0, tzinfo=UTC)
    try:
        then = now + timedelta(seconds=wait_s)
    except OverflowError:
        return
    found = retry_after_s(
        {"date": format_datetime(now, usegmt=True), "retry-after": format_datetime(then, usegmt=True)}
    )

    assert found == (wait_s if 0 < wait_s <= 10**9 else None)


@given(st.floats() | st.integers().map(float), st.sampled_from(["retry-after", "retry-after-ms"]))
def test_a_wait_is_positive_and_finite(number: float, name: str) -> None:
    """Whatever number a provider sends."""
    found = retry_after_s({name: repr(number)})

    unit = 1.0 if name == "retry-after" else 0.001
    assert found == (number * unit if 0 < number <= 1e9 else None)


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_usage_survives_the_way_out_and_back(one: int, two: int, three: int, four: int, five: int) -> None:
    """Every count that can be is told as it was."""
    usage = Usage(one, two, three, four, five)

    assert wire.parse_usage(msgspec.Raw(msgspec.json.encode(wire.usage_object(usage)))) == usage
