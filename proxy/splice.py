"""Change one top-level value of a JSON object and leave every other byte as it was.

Callers pass objects that a JSON decoder has already accepted; this only has to find things, not to judge them.
"""

import re
from functools import partial
from typing import Final, NamedTuple

import msgspec

_SPACE: Final = b" \t\r\n"
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SCALAR: Final = re.compile(rb"[^,}\]\s]+")
_NESTED: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_WINDOW: Final = 25_000
_VALUE: Final = re.compile(rb'[ \t\r\n]*+:[ \t\r\n]*+("[^"\\]*+")')
# A key can be spelled with escapes ("mod\u0065l"). No letter of our keys needs another block than \u005x-\u007x.
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[567]")


class Member(NamedTuple):
    """Where one `"key": value` stands: body[key:key_end] is the quoted key, body[value:end] its value."""

    name: bytes
    key: int
    key_end: int
    value: int
    end: int


def members(body: bytes) -> list[Member]:
    """Return the top-level members of the JSON object `body`, in order, repeated keys included."""
    found: list[Member] = []
    at = body.index(b"{") + 1
    while True:
        at = _skip(body, at, _SPACE + b",")
        if body[at : at + 1] != b'"':
            return found
        key_end = _end(body, at)
        value = _skip(body, _skip(body, key_end, _SPACE) + 1, _SPACE)
        end = _end(body, value)
        quoted = body[at:key_end]
        name = msgspec.json.decode(quoted, type=str).encode() if b"\\" in quoted else quoted[1:-1]
        found.append(Member(name, at, key_end, value, end))
        at = end


def seek(body: bytes, what: bytes, start: int = 0) -> int:
    """Return what `body.find(what, start)` does, at a third of the price in a long body.

    CPython searches up to 30 000 bytes by one algorithm and more by a slower one: 43 us in 87 KB, in windows 15.
    """
    if len(body) < _WINDOW:
        return body.find(what, start)
    for begin in range(start, len(body), _WINDOW):
        found = body.find(what, begin, begin + _WINDOW + len(what) - 1)
        if found >= 0:
            return found
    return -1


def _escapes(body: bytes) -> bool:
    """Say whether a key could be spelled with escapes. One look for any backslash first: most bodies have none.

    `find`, not `in`, here and wherever it counts: `in` first takes bytes for a number, which costs 0.4 us.
    """
    return body.find(b"\\") >= 0 and seek(body, b"\\u00") >= 0 and _ESCAPED_LETTER.search(body) is not None


def find(body: bytes, name: bytes) -> Member | None:
    """Return the top-level member called `name`, or None. With a repeated key, the last one, as decoders see it."""
    quoted = b'"' + name + b'"'
    key = seek(body, quoted)
    if (key < 0 or seek(body, quoted, key + 1) < 0) and not _escapes(body):
        if key < 0:
            return None
        # Exactly one place spells it and no escape could spell it otherwise. It is the top-level key if it stands
        # at depth one, which the first key always does: true for most SDKs, and saves walking the whole body.
        if body[:key].strip(_SPACE) == b"{":
            key_end = key + len(quoted)
            value = _skip(body, _skip(body, key_end, _SPACE) + 1, _SPACE)
            return Member(name, key, key_end, value, _end(body, value))
    last = None
    for member in members(body):
        if member.name == name:
            last = member
    return last


def only(body: bytes, name: bytes) -> tuple[int, int] | None:
    """Return where the string value of `name` begins and ends, if that is plain to see. A decoder must have seen that
    top-level key.

    Knowing that, a key that the body spells once, and that no escape can spell otherwise, is the one: no walk over a
    long body.
    """
    quoted = b'"%b"' % name
    find = body.find if len(body) < _WINDOW else partial(seek, body)
    key = find(quoted)
    if key < 0 or find(quoted, key + 1) >= 0 or (body.find(b"\\") >= 0 and _escapes(body)):
        return None
    match = _VALUE.match(body, key + len(quoted))
    return match.span(1) if match is not None else None


def replace_known(body: bytes, name: bytes, new: bytes, at: tuple[int, int] | None = None) -> bytes:
    """Return `body` with the value of `name` replaced by `new` (JSON); `at` is what `only` said, None to walk.

    Raises LookupError when the key is not there after all.
    """
    if at is not None:
        whole = memoryview(body)  # a long body is copied once, not three times
        return b"".join((whole[: at[0]], new, whole[at[1] :]))
    member = find(body, name)
    if member is None:
        raise LookupError(f"no top-level {name!r}")
    return body[: member.value] + new + body[member.end :]


def set_value(body: bytes, name: bytes, new: bytes) -> bytes:
    """Return `body` with the top-level `name` set to `new` (JSON), added at the end if it is not there."""
    member = find(body, name)
    if member is not None:
        return body[: member.value] + new + body[member.end :]
    close = body.rindex(b"}")
    comma = b"" if body[:close].rstrip(_SPACE).endswith(b"{") else b","
    return body[:close] + comma + b'"' + name + b'":' + new + body[close:]


def rename(body: bytes, name: bytes, new_name: bytes) -> bytes:
    """Return `body` with the top-level key `name` called `new_name`; unchanged when it is not there.

    Where `new_name` is there already, it stands, and `name` goes; of a repeated `name`, the last one counts: no decoder
    may have to choose.
    """
    if b'"' + name + b'"' not in body and not _escapes(body):
        return body
    member = find(body, name)
    if member is None:
        return body
    if find(body, new_name) is not None:
        return remove(body, name)
    body = body[: member.key] + b'"' + new_name + b'"' + body[member.key_end :]
    return remove(body, name) if find(body, name) is not None else body


def remove(body: bytes, name: bytes) -> bytes:
    """Return `body` without the top-level member `name`, however often it is given; unchanged when it is not there."""
    listed = members(body)
    kept = [member for member in listed if member.name != name]
    if len(kept) == len(listed):
        return body
    parts = [body[: listed[0].key]]
    for place, member in enumerate(listed):
        if member.name != name:
            # A member takes along the comma behind it, but for the last one that stays.
            parts.append(body[member.key : member.end if member is kept[-1] else listed[place + 1].key])
    return b"".join([*parts, body[listed[-1].end :]])


def repeats(body: bytes, name: bytes) -> bool:
    """Say whether the top-level key `name` is given more than once. Decoders differ on which one counts."""
    quoted = b'"' + name + b'"'
    key = seek(body, quoted)
    if (key < 0 or seek(body, quoted, key + 1) < 0) and not _escapes(body):
        return False
    return sum(member.name == name for member in members(body)) > 1


def _skip(body: bytes, at: int, what: bytes) -> int:
    while at < len(body) and body[at] in what:
        at += 1
    return at


def _end(body: bytes, at: int) -> int:
    """Return where the value that starts at `at` ends."""
    first = body[at : at + 1]
    if first == b'"':
        match = _STRING.match(body, at)
        return match.end() if match else len(body)
    if first not in (b"{", b"["):
        match = _SCALAR.match(body, at)
        return match.end() if match else len(body)
    depth = 0
    for match in _NESTED.finditer(body, at):
        token = match.group()
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return match.end()
    return len(body)
