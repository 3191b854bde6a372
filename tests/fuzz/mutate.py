"""Change an input a little: bytes here and there, or one whole token of its JSON, TOML, SSE or header lines.

Tokens are found by their look, not by parsing, so that one mutator serves every language and broken inputs, too.
"""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

Change = Callable[[bytes, Sequence[bytes], Random], bytes]

_TOKEN: Final = re.compile(
    rb'"[^"\\\n]*(?:\\.[^"\\\n]*)*"|\{[^{}]*\}|\[[^\[\]]*\]|-?\d+(?:\.\d+)?|\b(?:true|false|null)\b|[A-Za-z][\w-]*',
    re.DOTALL,
)
# Values that have broken decoders: empty, of another type, out of range, half a character, very deep.
VALUES: Final = (
    b"null", b"true", b"false", b"0", b"-1", b"1.5", b"1e999", b"-0.0", b"2e15", b"9223372036854775808", b"9" * 40,
    b"1" * 400, b"9" * 5000, b"nan", b"inf", b'""', b'" "', b'"x"', b'"\\ud83d"', b'"\\u0000"', b'"\\n"', b'"\xff"',
    '"\u2028\u0085é😀"'.encode(), '"²"'.encode(), b'"' + b"y" * 300 + b'"', b"[]", b"{}", b"[null]", b'[{"a":1}]',
    b'{"a":{}}', b'{"type":"text","text":"a"}', b'{"type":"error"}', b'{"error":{"message":"no","code":429}}',
    b"[" * 40 + b"]" * 40, b"[" * 1200, b'"model"', b'"mod\\u0065l"', b'"stop"', b'"tool_use"', b'"[DONE]"',
)  # fmt: skip
_PIECES: Final = (
    b"\r", b"\n", b"\r\n", b"\n\n", b"\0", b"\xef\xbb\xbf", b"\xff", b":", b": ", b",", b'"', b"\\", b"{", b"}", b"[",
    b"]", b"data: ", b"data:", b"event: error\n", b"event: ping\n", b"id: 1\n", b": x\n", b"data: [DONE]\n\n", b" ",
    b"\t", b"=", b"#", b"'", b'"""', b"\n====\n", b"\\u0000", b"\\ud800", b"\xc2\x85", b"\xe2\x80\xa8",
)  # fmt: skip
MAX_SIZE: Final = 20_000


def mutate(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Return `data` after one to four changes; `others` are inputs to take parts from. At most MAX_SIZE bytes."""
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        change = random.choice(_CHANGES)
        data = change(data, others, random)
    return data[:MAX_SIZE]


def _token(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Put an odd value in the place of a token."""
    at, end = _some_token(data, random)
    return data[:at] + random.choice(VALUES) + data[end:]


def _move_token(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Put a token from elsewhere in the place of a token."""
    other = random.choice((data, data, *others[:50]))
    begin, stop = _some_token(other, random)
    at, end = _some_token(data, random)
    return data[:at] + other[begin:stop] + data[end:]


def _some_token(data: bytes, random: Random) -> tuple[int, int]:
    match = _TOKEN.search(data, random.randrange(len(data) + 1)) or _TOKEN.search(data)
    return match.span() if match is not None else (len(data), len(data))


def _member(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Say one `"key": value` of an object again, or with another value, or under another key."""
    places = [match.end() for match in re.finditer(rb"\{", data)]
    keys: list[bytes] = re.findall(rb'"[^"\\\n]{1,30}"(?=\s*:)', data)
    if not places or not keys:
        return _insert(data, others, random)
    at = random.choice(places)
    more = random.choice(keys) + b":" + random.choice(VALUES)
    return data[:at] + more + (b"" if data[at:].lstrip().startswith(b"}") else b",") + data[at:]


def _line(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Leave a line out, say it twice, or take one from elsewhere."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at = random.randrange(len(lines))
    other = random.choice((data, *others)).splitlines(keepends=True) or lines
    lines[at : at + random.choice((0, 1, 2))] = [b"", lines[at], random.choice(other)][: random.randrange(4)]
    return b"".join(lines)


def _flip(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Change one byte."""
    if not data:
        return data
    at = random.randrange(len(data))
    return (
        data[:at]
        + bytes([random.choice((data[at] ^ 1 << random.randrange(8), random.randrange(256)))])
        + data[at + 1 :]
    )


def _insert(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Put something in."""
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(_PIECES) * random.choice((1, 1, 1, 2, 9)) + data[at:]


def _cut(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Take something out: a little, or all behind a place."""
    at = random.randrange(len(data) + 1)
    return data[:at] + data[at + random.choice((1, 2, 8, 40, len(data))) :]


def _graft(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Go on with the end of another input."""
    other = random.choice(others) if others else data
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


_CHANGES: Final[tuple[Change, ...]] = (
    _token, _token, _token, _move_token, _move_token, _member, _member, _line, _line, _flip, _insert, _cut, _graft,
)  # fmt: skip
