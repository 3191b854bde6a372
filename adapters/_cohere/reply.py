"""Read Cohere's answers: parts become one message, its reasons OpenAI's words, its two counts a bill and a report.

The client is told the tokens that were read and written; billed are Cohere's own units, which leave out what it adds
to the prompt (so recorded answers show 1504 tokens cached of 1549, and 119 billed).
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from adapters._chat.chunks import plain
from proxy import wire
from proxy.adapter import Reply, Target
from proxy.classify import Fault, classify, read_fault
from proxy.errors import UnavailableError, UpstreamError
from proxy.wire import ChatRequest, Number, Usage

_FINISH: Final = {"MAX_TOKENS": "length"}
# Reasons that are errors inside a 200, with the status they would have had.
_FAILED: Final = {"ERROR": 502, "TIMEOUT": 504}
# What Cohere calls an error in `error_type`, in the codes that the classes of errors are known by.
_CODES: Final = {"TOO_MANY_TOKENS": "context_length_exceeded", "INVALID_TOOL_GENERATION": "tool_use_failed"}
# "Request cancelled", also for a stream that broke at Cohere: try again (API reference, "Errors").
_CANCELLED: Final = 499
# A trial key's allowance of a month, which says 429 like a limit per minute.
_MONTHLY: Final = "calls / month"


class Units(msgspec.Struct):
    """Counts, which come as floats. An image counts apart from the other input."""

    input_tokens: Number | None = None
    output_tokens: Number | None = None
    image_tokens: Number | None = None
    reasoning_tokens: Number | None = None


class Counts(msgspec.Struct):
    """The usage of an answer: `tokens` is what was processed, `billed_units` what is paid for."""

    tokens: Units | None = None
    billed_units: Units | None = None
    cached_tokens: Number | None = None


class Function(msgspec.Struct):
    """A called function; in a stream `arguments` is a fragment."""

    name: Any = None
    arguments: Any = None


class Call(msgspec.Struct):
    """A tool call, whole or a piece of one."""

    id: Any = None
    function: Function | None = None


class Content(msgspec.Struct):
    """A part of the answer: a text or a thought."""

    text: Any = None
    thinking: Any = None


class Said(msgspec.Struct):
    """A message: whole with lists, in the events of a stream with single parts."""

    content: Content | list[Content] | None = None
    tool_plan: Any = None
    tool_calls: Call | list[Call] | None = None


class End(msgspec.Struct, kw_only=True):
    """How an answer ended, and what it cost."""

    finish_reason: str | None = None
    usage: Counts | None = None
    error: Any = None
    error_type: str | None = None


class Answer(End, kw_only=True):
    """A complete answer."""

    message: Said
    id: str | None = None


class _Kind(msgspec.Struct):
    error_type: str | None = None


_answer: Final = msgspec.json.Decoder(Answer)
_kind: Final = msgspec.json.Decoder(_Kind)


def parse(body: bytes, request: ChatRequest, target: Target) -> Reply:
    """Return a complete answer as a chat completion. Raises UpstreamError for an error or nonsense in it."""
    try:
        answer = _answer.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnavailableError("the upstream's answer is no message", code="upstream_invalid_response") from None
    finish = finish_of(answer, called=bool(answer.message.tool_calls))
    said = answer.message
    parts = [said.content] if isinstance(said.content, Content) else said.content or []
    calls = [said.tool_calls] if isinstance(said.tool_calls, Call) else said.tool_calls or []
    text = "".join([plain(part.text) for part in parts])
    message = wire.Message(text or (None if calls else ""))
    thoughts = "".join([*[plain(part.thinking) for part in parts], plain(said.tool_plan)])
    if thoughts:
        message.reasoning_content = thoughts
    if calls:
        message.tool_calls = [_call(call) for call in calls]
    encoded = wire.encode_completion(
        id=answer.id or f"chatcmpl-{request.created}",
        model=target.model,
        created=request.created,
        message=message,
        finish=finish,
        usage=told(answer.usage),
    )
    return Reply(encoded, billed(answer.usage), finish)


def _call(call: Call) -> wire.ToolCall:
    function = call.function or Function()
    arguments = plain(function.arguments) or "{}"
    return wire.ToolCall(wire.Function(plain(function.name), arguments), id=plain(call.id), type="function")


def finish_of(end: End, *, called: bool) -> str:
    """Return OpenAI's finish reason. Raises UpstreamError when the answer ended in a failure."""
    reason = end.finish_reason or ""
    if reason in _FAILED:
        text = end.error if isinstance(end.error, str) else f"the upstream ended its answer with {reason}"
        raise _refusal(_FAILED[reason], {}, Fault(text), end.error_type)
    return _FINISH.get(reason, "tool_calls" if called else "stop")


def refused(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Return the class of an error answer."""
    try:
        kind = _kind.decode(body).error_type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        kind = None
    return _refusal(status, headers, read_fault(body), kind)


def _refusal(status: int, headers: Mapping[str, str], fault: Fault, kind: str | None) -> UpstreamError:
    """Return the class of an error: by its kind, else by the status."""
    if status == 429 and _MONTHLY in fault.message:
        kind = "insufficient_quota"
    if kind:
        fault = fault._replace(code=_CODES.get(kind, kind))
    return classify(502 if status == _CANCELLED else status, headers, fault)


def told(counts: Counts | None) -> Usage | None:
    """Return what the client is told; None when nothing was counted."""
    if counts is None:
        return None
    if counts.tokens is None:
        return billed(counts)
    usage, cached = _usage(counts.tokens), wire.counted(counts.cached_tokens)
    if usage is None or cached is None:
        return None
    return msgspec.structs.replace(usage, cached=min(cached.input, usage.input))


def billed(counts: Counts | None) -> Usage | None:
    """Return what is paid for, which no cache makes cheaper; None when nothing was counted."""
    units = counts and (counts.billed_units or counts.tokens)
    return _usage(units) if units else None


def _usage(units: Units) -> Usage | None:
    text, images = wire.counted(units.input_tokens), wire.counted(units.image_tokens)
    rest = wire.counted(0, units.output_tokens, 0, 0, units.reasoning_tokens)
    if text is None or images is None or rest is None:
        return None
    return msgspec.structs.replace(rest, input=text.input + images.input)
