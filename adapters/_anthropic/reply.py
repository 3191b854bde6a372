"""Read Anthropic's answers: blocks become one message, snapshots of usage become OpenAI's counts, reasons its words.

Tools that ran at Anthropic, and block types nobody knew yet, are skipped. Arguments keep their digits: they are never
decoded.
"""

from typing import Any, Final

import msgspec

from adapters._anthropic.messages import THOUGHTS
from adapters._anthropic.request import names_of
from adapters._chat.reasoning import Detail, Said, Thought
from proxy import wire
from proxy.adapter import Reply, Target
from proxy.classify import STATUS_OF_TYPE, classify, read_fault
from proxy.errors import UnavailableError, UpstreamError
from proxy.wire import ChatRequest, Number, Usage

_FINISH: Final = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


class _OutputDetails(msgspec.Struct):
    thinking_tokens: Number | None = None


class _Written(msgspec.Struct):
    ephemeral_1h_input_tokens: Number | None = None


class _ServerTools(msgspec.Struct):
    web_search_requests: Number | None = None


class Counts(msgspec.Struct):
    """Counts as Anthropic sends them: snapshots, in which a field may be missing. `input_tokens` is without cache."""

    input_tokens: Number | None = None
    output_tokens: Number | None = None
    cache_read_input_tokens: Number | None = None
    cache_creation_input_tokens: Number | None = None
    cache_creation: _Written | None = None
    server_tool_use: _ServerTools | None = None
    output_tokens_details: _OutputDetails | None = None


class StopDetails(msgspec.Struct):
    """Why the model refused, in words."""

    explanation: Any = None


class Block(msgspec.Struct):
    """A content block or a delta of one; only the types we read have these fields with these meanings."""

    type: str = ""
    text: Any = None
    thinking: Any = None
    signature: Any = None
    data: Any = None
    id: Any = None
    name: Any = None
    input: msgspec.Raw = msgspec.Raw(b"{}")
    partial_json: Any = None
    stop_reason: Any = None
    stop_details: StopDetails | None = None


class Answer(msgspec.Struct):
    """A message, whole or as a stream begins it."""

    type: str = ""
    id: str | None = None
    model: str | None = None
    content: list[Block] | None = None
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: Counts | None = None


_answer: Final = msgspec.json.Decoder(Answer)


def parse(body: bytes, request: ChatRequest, target: Target) -> Reply:
    """Return a complete answer as a chat completion. Raises UpstreamError for an error or nonsense in it."""
    answer = _decode_answer(body)
    names = names_of(request, target)
    message = Said()
    texts: list[str] = []
    thoughts: list[str] = []
    details: list[Detail | None] = []
    answers: list[str] = []
    calls: list[wire.ToolCall] = []
    for place, block in enumerate(answer.content or ()):
        if block.type == "text":
            texts.append(text_of(block.text))
        elif block.type in THOUGHTS:
            thoughts.append(text_of(block.thinking))
            details.append(thought_of(block).detail(place, target.source))
        elif block.type == "tool_use" and names.is_answer(block.name):
            answers.append(json_text(block.input))
        elif block.type == "tool_use":
            function = wire.Function(names.of(text_of(block.name)), json_text(block.input))
            calls.append(wire.ToolCall(function, id=text_of(block.id), type="function"))
    # The answer tool is called once; words around the call are not part of the JSON that was asked for.
    message.content = "".join(answers[:1] or texts) or (None if calls else "")
    message.think("".join(thoughts), details)
    message.refusal = refusal_in(answer.stop_details) or None
    if calls:
        message.tool_calls = calls
    finish = finish_word(answer.stop_reason, called=bool(calls))
    usage = normal_usage(answer.usage) if answer.usage is not None else None
    encoded = wire.encode_completion(
        id=answer.id or f"chatcmpl-{request.created}",
        model=answer.model or target.model,
        created=request.created,
        message=message,
        finish=finish,
        usage=usage,
    )
    return Reply(encoded, usage, finish, answer.model)


def _decode_answer(body: bytes) -> Answer:
    try:
        answer = _answer.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnavailableError("the upstream's answer is no message", code="upstream_invalid_response") from None
    if answer.type == "error":
        raise fault_in(body)
    if answer.type != "message" or answer.content is None:
        raise UnavailableError("the upstream's answer is no message", code="upstream_invalid_response")
    return answer


def fault_in(body: bytes) -> UpstreamError:
    """Return the error that came inside a 200."""
    fault = read_fault(body)
    return classify(STATUS_OF_TYPE.get(fault.type, 502), {}, fault)


def thought_of(block: Block) -> Thought:
    """Return what is known of a thinking block."""
    return Thought(text_of(block.thinking), text_of(block.signature), text_of(block.data))


def refusal_in(details: StopDetails | None) -> str:
    """Return the words with which the model refused; "" for none."""
    return "" if details is None else text_of(details.explanation)


def finish_word(reason: str | None, *, called: bool) -> str:
    """Return OpenAI's finish reason. `tool_use` without a call of the client's tools is a plain end, and vice versa."""
    return _FINISH.get(reason or "", "tool_calls" if called else "stop")


def normal_usage(usage: Counts) -> Usage | None:
    """Return `usage` in OpenAI's meaning, where the input includes what was read from and written to a cache; None
    when its numbers cannot be counts.
    """
    details, written = usage.output_tokens_details or _OutputDetails(), usage.cache_creation or _Written()
    cache = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    rest = details.thinking_tokens, written.ephemeral_1h_input_tokens
    ran = (usage.server_tool_use or _ServerTools()).web_search_requests
    found = wire.counted(usage.input_tokens, usage.output_tokens, *cache, *rest, 0, 0, 0, ran)
    if found is None:
        return None
    return msgspec.structs.replace(found, input=found.input + found.cached + found.cache_write)


def text_of(value: object) -> str:
    """Return a text that the wire types leave open; "" for none. Raises UnavailableError for anything else."""
    if value is None or isinstance(value, str):
        return value or ""
    raise UnavailableError("the upstream sent a block that is not valid", code="upstream_invalid_event")


def json_text(raw: msgspec.Raw) -> str:
    """Return a tool's input as OpenAI's `arguments`."""
    # A value that was not decoded has not been checked for UTF-8 either.
    text = bytes(raw).decode(errors="replace")
    return "{}" if text == "null" else text
