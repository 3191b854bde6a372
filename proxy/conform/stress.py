"""The same exchange told otherwise: cut anywhere, with comments, unknown fields or other line ends, or damaged.

What does not change the meaning must not change what a client finds; what damages it may only end in an UpstreamError.
All changes are the same in every run.
"""

import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import msgspec

from proxy import errors
from proxy.adapter import Adapter
from proxy.conform.cases import Case
from proxy.conform.checks import (
    Mismatch,
    answer_of,
    parser_of,
    played,
    played_or_told,
    same,
    strict,
    tried,
)
from proxy.conform.sdk import Said, Unreadable, chunks, completion, said_complete, said_streamed

# Longer streams are cut at some places only.
_SPLITS: Final = 1_500
_SPLIT_BYTES: Final = 600_000
_EVENTS: Final = 40
_DAMAGES: Final = 40
_MOST_BYTES: Final = 20_000
_UNKNOWN: Final[dict[str, Any]] = {"x_unknown": {"deep": [1, None, "a\u2028b"]}}
_JSON: Final = re.compile(rb"^(data: ?|)(\{.*\})([ \r]*)$", re.MULTILINE)


def said(adapter: Adapter, case: Case) -> Said:
    """Return what a client finds."""
    if case.stream:
        return said_streamed(chunks(played(parser_of(adapter, case), [case.body]), strict=strict(adapter, case)))
    return said_complete(completion(answer_of(adapter, case).body, strict=strict(adapter, case)))


def twice_the_same(adapter: Adapter, case: Case) -> None:
    """The same bytes make the same answer: no clock, no chance, nothing kept from one answer to the next."""
    if case.stream:
        same("the stream, read again", played_or_told(adapter, case, [case.body]), _again(adapter, case))
    else:
        same("the answer, read again", answer_of(adapter, case), answer_of(adapter, case))


def _again(adapter: Adapter, case: Case) -> tuple[bytes, str]:
    """What a stream becomes while another one is being read."""
    other = parser_of(adapter, case)
    other.feed(case.body[: len(case.body) // 2])
    return played_or_told(adapter, case, [case.body])


def any_split(adapter: Adapter, case: Case) -> None:
    """A stream in two pieces, cut after any byte, is the same stream."""
    whole = played_or_told(adapter, case, [case.body])
    for at in _some(len(case.body), min(_SPLITS, _SPLIT_BYTES // len(case.body) + 5)):
        same(f"the stream cut after {at} bytes", whole, played_or_told(adapter, case, [case.body[:at], case.body[at:]]))


def _some(count: int, most: int) -> Iterator[int]:
    """At most `most` of that many places, evenly spread."""
    return iter(range(0, count, -(-count // most) or 1))


def any_cut(adapter: Adapter, case: Case) -> None:
    """A stream that ends after any event before its finish is an error, and what came before is told."""
    whole = played(parser_of(adapter, case), [case.body])
    for count in _some(len(case.events), _EVENTS):
        parser = parser_of(adapter, case)
        out = b"".join([parser.feed(event) for event in case.events[:count]])
        if parser.finish is not None or parser.done:
            return
        try:
            ended = parser.close()
        except errors.UpstreamError as error:
            told = out + error.before
            same(f"what was told before the cut after {count} events", whole[: len(told)], told)
            continue
        raise Mismatch(f"a stream cut after {count} events", "an UpstreamError from close()", out + ended)


def unknown_fields(adapter: Adapter, case: Case) -> None:
    """A field that nobody knows, in every object, changes nothing."""
    found = _JSON.sub(_with_unknown, case.body) if case.stream else _grown(case.body)
    _means_the_same(adapter, case, "with unknown fields", found)


def _with_unknown(line: re.Match[bytes]) -> bytes:
    return line[1] + _grown(line[2]) + line[3]


def _grown(body: bytes) -> bytes:
    try:
        found = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body
    return msgspec.json.encode({**_UNKNOWN, **found})


def comments(adapter: Adapter, case: Case) -> None:
    """Comments between events, as some send them to keep a connection open, change nothing."""
    if _is_sse(case):
        found = b": keep-alive\n\n" + b": x\n\n".join(case.events)
        _means_the_same(adapter, case, "with comments between the events", found)


def line_ends(adapter: Adapter, case: Case) -> None:
    """Lines may end in CRLF, and the blank after `data:` may be missing."""
    if _is_sse(case):
        unix = case.body.replace(b"\r\n", b"\n")
        _means_the_same(adapter, case, "with CRLF", unix.replace(b"\n", b"\r\n"))
        _means_the_same(adapter, case, "without blanks", re.sub(rb"(?m)^(data|event): ", rb"\1:", unix))


def _is_sse(case: Case) -> bool:
    return case.stream and re.match(rb"\s*(data|event|id|retry)?:", case.body) is not None


def _means_the_same(adapter: Adapter, case: Case, how: str, body: bytes) -> None:
    changed = msgspec.structs.replace(case, body=body, pieces=[body])
    try:
        came = said(adapter, changed)
    except (errors.UpstreamError, Unreadable) as error:
        raise Mismatch(f"the answer {how}", said(adapter, case), repr(error)) from error
    same(f"the answer {how}", said(adapter, case), came)


def damage(adapter: Adapter, case: Case) -> None:
    """Bytes that were changed, lost or doubled end in an UpstreamError or in an answer, never in another error."""
    if len(case.body) > _MOST_BYTES:
        return
    chance = random.Random(case.file)  # noqa: S311  # nosec B311  # the same in every run is what is wanted
    for number in range(_DAMAGES):
        body = _damaged(case.body, chance)
        changed = msgspec.structs.replace(case, body=body, pieces=[body])
        try:
            tried(f"damaged answer {body!r}", "an UpstreamError", partial(_survive, adapter, changed, number))
        except errors.UpstreamError:
            continue


def _survive(adapter: Adapter, case: Case, number: int) -> None:
    if case.stream:
        played(parser_of(adapter, case), [case.body[: len(case.body) // 2], case.body[len(case.body) // 2 :]])
    elif number % 2:
        answer_of(adapter, case)
    else:
        adapter.parse_error(400 + number, case.headers, case.body)


def _damaged(body: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(body) + 1)
    to = min(at + chance.randrange(1, 30), len(body))
    filling = chance.choice((b"", b"null", b"[]", b"{}", b'""', b"-1", b"1e999", b"\xff", b"\n\n", body[at:to] * 2))
    return body[:at] + filling + body[to:]


Stress = Callable[[Adapter, Case], None]
_STREAMED: Final[tuple[Stress, ...]] = (any_split, any_cut, comments, line_ends)
_BOTH: Final[tuple[Stress, ...]] = (twice_the_same, unknown_fields, damage)


def stresses_of(case: Case) -> tuple[Stress, ...]:
    """Return what a case is held to besides; of errors and of what is no answer, whether they survive damage."""
    if case.outcome != "answer" or case.expected.late:
        return (damage,)
    return (*_BOTH, *_STREAMED) if case.stream else _BOTH
