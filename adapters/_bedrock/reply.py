"""Read Converse's answers: blocks become one message, token counts OpenAI's, stop reasons its words.

Tools that ran at AWS, and blocks nobody knew yet, are skipped; text with citations is text. Arguments keep their
digits: they are never decoded. Converse gives an answer no id, so its checksum makes one.
"""

from typing import Final
from zlib import crc32

import msgspec

from adapters._bedrock.faults import fault_in_answer
from adapters._bedrock.request import names_of
from adapters._chat.reasoning import Detail, Said, Thought
from proxy import wire
from proxy.adapter import Reply, Target
from proxy.errors import UnavailableError
from proxy.wire import ChatRequest, Number, Usage

_FINISH: Final = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
# The model said something that Bedrock could not read: no answer, and the next try may be one.
_MALFORMED: Final = frozenset({"malformed_model_output", "malformed_tool_use"})
_OURS: Final = frozenset({None, "tool_use"})


class _Written(msgspec.Struct, rename="camel"):
    input_tokens: Number | None = None
    ttl: str | None = None


class Counts(msgspec.Struct, rename="camel"):
    """Counts as Bedrock sends them. `input_tokens` is without cache."""

    input_tokens: Number | None = None
    output_tokens: Number | None = None
    cache_read_input_tokens: Number | None = None
    cache_write_input_tokens: Number | None = None
    cache_details: list[_Written] | None = None


class ToolUse(msgspec.Struct, rename="camel"):
    """A call, whole or as a stream begins it. `type` says when the tool ran at AWS ("server_tool_use")."""

    tool_use_id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    type: str | None = None

    @property
    def ours(self) -> bool:
        """Say whether the client has to run it."""
        return self.type in _OURS


class _Text(msgspec.Struct):
    text: str | None = None


class _Signed(_Text):
    signature: str | None = None


class _Reasoning(msgspec.Struct, rename="camel"):
    reasoning_text: _Signed | None = None
    redacted_content: str | None = None

    def thought(self) -> Thought:
        """Return what is known of it."""
        said = self.reasoning_text or _Signed()
        return Thought(said.text or "", said.signature or "", self.redacted_content or "")


class _Citations(msgspec.Struct):
    content: list[_Text] | None = None


class _Block(msgspec.Struct, rename="camel"):
    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Citations | None = None


class _Message(msgspec.Struct):
    content: list[_Block] | None = None


class _Output(msgspec.Struct):
    message: _Message | None = None


class _Answer(msgspec.Struct, rename="camel"):
    output: _Output | None = None
    stop_reason: str | None = None
    usage: Counts | None = None


_answer: Final = msgspec.json.Decoder(_Answer)


def parse(body: bytes, request: ChatRequest, target: Target) -> Reply:
    """Return a complete answer as a chat completion. Raises UpstreamError for an error or nonsense in it."""
    answer, blocks = _decode(body)
    names = names_of(request, target)
    texts: list[str] = []
    thoughts: list[str] = []
    details: list[Detail | None] = []
    answers: list[str] = []
    calls: list[wire.ToolCall] = []
    for place, block in enumerate(blocks):
        if block.text is not None:
            texts.append(block.text)
        elif block.citations_content is not None:
            texts += [piece.text or "" for piece in block.citations_content.content or ()]
        elif block.reasoning_content is not None:
            thought = block.reasoning_content.thought()
            thoughts += thought.text
            details.append(thought.detail(place, target.source))
        elif block.tool_use is not None and names.is_answer(block.tool_use.name):
            answers.append(json_text(block.tool_use.input))
        elif block.tool_use is not None and block.tool_use.ours:
            function = wire.Function(names.of(block.tool_use.name), json_text(block.tool_use.input))
            calls.append(wire.ToolCall(function, id=block.tool_use.tool_use_id, type="function"))
    # The answer tool is called once; words around the call are not part of the JSON that was asked for.
    message = Said("".join(answers[:1] or texts) or (None if calls else ""))
    message.think("".join(thoughts), details)
    if calls:
        message.tool_calls = calls
    finish = finish_word(answer.stop_reason, called=bool(calls))
    usage = normal_usage(answer.usage) if answer.usage is not None else None
    encoded = wire.encode_completion(
        id=made_id(request, crc32(body)),
        model=target.model,
        created=request.created,
        message=message,
        finish=finish,
        usage=usage,
    )
    return Reply(encoded, usage, finish)


def _decode(body: bytes) -> tuple[_Answer, list[_Block]]:
    try:
        answer = _answer.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnavailableError("the upstream's answer is no message", code="upstream_invalid_response") from None
    message = answer.output.message if answer.output is not None else None
    if message is None or message.content is None:
        nonsense = UnavailableError("the upstream's answer is no message", code="upstream_invalid_response")
        raise fault_in_answer(body) or nonsense
    return answer, message.content


def finish_word(reason: str | None, *, called: bool) -> str:
    """Return OpenAI's finish reason. `tool_use` without a call of the client's tools is a plain end, and vice versa.

    Raises UnavailableError when the model's output could not be read.
    """
    if reason in _MALFORMED:
        raise UnavailableError("the model's output is malformed", code="upstream_invalid_response")
    return _FINISH.get(reason or "", "tool_calls" if called else "stop")


def normal_usage(usage: Counts) -> Usage:
    """Return `usage` in OpenAI's meaning, where the input includes what was read from and written to a cache."""
    cached = int(usage.cache_read_input_tokens or 0)
    written = int(usage.cache_write_input_tokens or 0)
    hour = sum(int(one.input_tokens or 0) for one in usage.cache_details or () if one.ttl == "1h")
    return Usage(
        input=int(usage.input_tokens or 0) + cached + written,
        output=int(usage.output_tokens or 0),
        cached=cached,
        cache_write=written,
        cache_write_1h=max(0, min(written, hour)),
    )


def json_text(raw: msgspec.Raw) -> str:
    """Return a tool's input as OpenAI's `arguments`."""
    # A value that was not decoded has not been checked for UTF-8 either.
    text = bytes(raw).decode(errors="replace")
    return "{}" if text == "null" else text


def made_id(request: ChatRequest, checksum: int) -> str:
    """Return an id for an answer that came without one."""
    return f"chatcmpl-{request.created}-{checksum:08x}"
