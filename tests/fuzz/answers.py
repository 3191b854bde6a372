"""What must hold for whatever an upstream answers in one piece: completions, errors, how long to wait."""

import math
from email.utils import parsedate_to_datetime
from typing import Final
from zlib import crc32

import msgspec

from adapters import openai
from proxy import restream
from proxy.adapter import Adapter, Target, load, names
from proxy.classify import classify, fault_of, read_fault, retry_after_s, status_in
from proxy.errors import KINDS, UpstreamError

from . import strict
from .asked import check_refusal
from .streams import REQUESTS

_STATUSES: Final = (400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 529, 302, 200, 418, 599)
_SECRET: Final = b"sk-CANARY0123456789abcdef"


def openai_answer(data: bytes) -> bool:
    """A complete answer that is passed on, as it is and as Copilot's."""
    variant = crc32(data)
    quirks = openai.ADAPTER.quirks if variant & 4 else frozenset[str]()
    return answer(openai.ADAPTER, Target("m", quirks), data, variant)


def translated(name: str, data: bytes) -> bool:
    """A complete answer in another language."""
    return answer(load(name), Target("claude-3-haiku"), data, crc32(data))


def answer(adapter: Adapter, target: Target, data: bytes, variant: int) -> bool:
    """It is UpstreamError, or a valid completion with at least one choice; as a stream, too."""
    request = REQUESTS[variant & 3]
    try:
        reply = adapter.parse(data, request, target)
    except UpstreamError as error:
        check_refusal(error)
        return False
    assert strict.object_in(reply.body).last()["choices"]
    if reply.usage is not None:
        assert all(count >= 0 for count in (reply.usage.input, reply.usage.output, reply.usage.cached))
        float(reply.usage.input + reply.usage.output)  # money is reckoned with it
    try:
        events = restream.as_stream(reply.body, include_usage=request.include_usage)
    except msgspec.DecodeError:
        return True
    for event in events.split(b"\n\n")[:-2]:
        strict.object_in(event.removeprefix(b"data: "))
    assert b"finish_reason" in events
    assert events.endswith(b"data: [DONE]\n\n")
    return True


def fault(data: bytes) -> bool:
    """An error answer has a class, a status that is an error, a short text, and no secret of ours."""
    status = _STATUSES[crc32(data) % len(_STATUSES)]
    for adapter in map(load, names()):
        check_fault(adapter.parse_error(status, {}, data))
        check_fault(adapter.parse_error(status, {}, data.replace(b'"message":"', b'"message":"no ' + _SECRET)))
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    check_fault(classify(status_in(found), {}, fault_of(found)))
    assert read_fault(data) == fault_of(found)
    return True


def check_fault(error: UpstreamError) -> None:
    """One error, as a client is told of it."""
    check_refusal(error)
    assert error.kind in KINDS
    assert len(error.message) <= 600
    assert _SECRET[3:].decode() not in error.body().decode()
    assert error.retry_after_s is None or 0 < error.retry_after_s < math.inf


def waiting(data: bytes) -> bool:
    """How long to wait is a positive, finite number or None; a date is read as the standard library reads it."""
    lines = [line.strip() for line in data.decode("latin-1").split("\n")]
    headers = dict(zip(("retry-after", "date", "retry-after-ms"), lines, strict=False))
    found = retry_after_s(headers)
    assert found is None or 0 < found < math.inf
    assert retry_after_s({**headers, "retry-after-ms": "1500"}) == 1.5
    if found is not None and not _numbers(headers):
        parsedate_to_datetime(headers["retry-after"])
    return found is not None


def _numbers(headers: dict[str, str]) -> bool:
    for name in ("retry-after", "retry-after-ms"):
        try:
            float(headers.get(name, ""))
        except ValueError:
            continue
        return True
    return False
