"""OpenAI chat completions as this proxy needs them: the envelope of a request, the numbers of an answer.

Only what a decision needs is decoded; everything else stays the client's own bytes (`ChatRequest.raw`), so a field we
have never heard of costs nothing and loses nothing. Format: OpenAI API reference, "Create chat completion".
"""

import re
from enum import Enum
from typing import Final

import msgspec

from proxy import splice
from proxy.errors import ClientError

Number = int | float


class ResponseMode(Enum):
    """How the client wants its answer."""

    COMPLETE = "complete"
    STREAM = "stream"


# ---- request ----------------------------------------------------------------------------------------------------


class _Message(msgspec.Struct):
    role: str


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _ResponseFormat(msgspec.Struct):
    type: str


class _Object(msgspec.Struct):
    """Any JSON object."""


class _Envelope(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    tools: list[_Object] | None = None
    response_format: _ResponseFormat | None = None
    max_completion_tokens: Number | None = None
    max_tokens: Number | None = None
    n: Number | None = None
    temperature: Number | None = None
    top_p: Number | None = None


class ChatRequest(msgspec.Struct, frozen=True):
    """One client request. `raw` is the body as it came; the rest is what the decision and the adapters read from it.

    `needs` are features a candidate must have: "tools", "vision", "json_schema". `input_tokens` is an estimate (four
    bytes per token). `model_at` is where the model's value stands, None when only a walk can tell. `agent_turn` says
    that the last message is not the user's. `created` is Unix seconds.
    """

    raw: bytes
    model: str
    model_at: tuple[int, int] | None
    stream: bool
    include_usage: bool
    needs: frozenset[str]
    agent_turn: bool
    input_tokens: int
    created: int

    @property
    def mode(self) -> ResponseMode:
        """How the client wants its answer."""
        return ResponseMode.STREAM if self.stream else ResponseMode.COMPLETE


_NO_NEEDS: Final[frozenset[str]] = frozenset()
_PATH: Final = re.compile(r" - at `\$\.?(.*)`$")
_FIELD: Final = re.compile(r"missing required field `(.*?)`")
_envelope: Final = msgspec.json.Decoder(_Envelope)
_anything: Final = msgspec.json.Decoder()


def decode_chat(body: bytes, created: int) -> ChatRequest:
    """Return the request in `body`. Raises ClientError (400) that names the field in `param`."""
    try:
        envelope = _envelope.decode(body)
        _check_text(body)
    except msgspec.ValidationError as error:
        raise _invalid(error) from None
    except msgspec.DecodeError as error:
        raise ClientError(f"the body is not valid JSON: {error}", code="invalid_json") from None
    except UnicodeDecodeError:
        raise ClientError("the body is not valid UTF-8", code="invalid_json") from None
    except RecursionError:
        raise ClientError("the body is nested too deeply", code="invalid_json") from None
    if not envelope.model.strip():
        raise ClientError("'model' must not be empty", param="model", code="invalid_value")
    if not envelope.messages:
        text = "'messages' is an empty array; at least one message is needed"
        raise ClientError(text, param="messages", code="empty_array")
    model_at = splice.only(body, b"model")
    if model_at is None and splice.repeats(body, b"model"):
        raise ClientError("'model' is given twice", param="model", code="invalid_value")
    options = envelope.stream_options
    stream = bool(envelope.stream)
    if options is not None and not stream:
        text = "'stream_options' is only allowed together with 'stream': true"
        raise ClientError(text, param="stream_options", code="invalid_value")
    return ChatRequest(
        raw=body,
        model=envelope.model,
        model_at=model_at,
        stream=stream,
        include_usage=options is not None and options.include_usage is True,
        needs=_needs(envelope, body),
        agent_turn=envelope.messages[-1].role != "user",
        input_tokens=len(body) // 4,
        created=created,
    )


def _needs(envelope: _Envelope, body: bytes) -> frozenset[str]:
    needs = []
    if envelope.tools:
        needs.append("tools")
    if splice.seek(body, b'"image_url"') >= 0:
        needs.append("vision")
    if envelope.response_format is not None and envelope.response_format.type == "json_schema":
        needs.append("json_schema")
    return frozenset(needs) if needs else _NO_NEEDS


def _check_text(body: bytes) -> None:
    """Refuse what the envelope's decoder skips over: bad UTF-8 and lone surrogates in fields it does not read."""
    if not body.isascii():
        body.decode()
    # One look for any backslash first: most bodies have none.
    if body.find(b"\\") >= 0 and (splice.seek(body, b"\\ud") >= 0 or splice.seek(body, b"\\uD") >= 0):
        _anything.decode(body)


def _invalid(error: msgspec.ValidationError) -> ClientError:
    text = str(error)
    path, field = _PATH.search(text), _FIELD.search(text)
    where = [path.group(1)] if path else []
    if field:
        where.append(field.group(1))
    param = ".".join(where) or None
    message = _PATH.sub("", text)
    code = "missing_required_parameter" if field else "invalid_type"
    return ClientError(f"{message}: '{param}'" if param else message, param=param, code=code)


# ---- usage ------------------------------------------------------------------------------------------------------


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one answer as OpenAI counts: `input` includes `cached` and `cache_write`, `output` `reasoning`."""

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0


class _PromptDetails(msgspec.Struct):
    cached_tokens: Number | None = 0
    cache_write_tokens: Number | None = 0


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: Number | None = 0


class _RawUsage(msgspec.Struct):
    prompt_tokens: Number | None = 0
    completion_tokens: Number | None = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


_usage: Final = msgspec.json.Decoder(_RawUsage)
# Far more than any answer has: money is reckoned with these, so their sums must fit a float.
_MOST_TOKENS: Final = 10**12


def parse_usage(raw: msgspec.Raw) -> Usage | None:
    """Return OpenAI's `usage` object in normal form; None for null and for what cannot be anybody's usage."""
    try:
        usage = _usage.decode(raw)
    except msgspec.DecodeError:
        return None
    prompt = usage.prompt_tokens_details or _PromptDetails()
    completion = usage.completion_tokens_details or _CompletionDetails()
    details = prompt.cached_tokens, prompt.cache_write_tokens, completion.reasoning_tokens
    return counted(usage.prompt_tokens, usage.completion_tokens, *details)


def counted(*found: Number | None) -> Usage | None:
    """Return the counts of a `Usage`, in its order, as one; None when one of them cannot be a count."""
    counts = [int(count or 0) for count in found]
    return Usage(*counts) if min(counts) >= 0 and max(counts) <= _MOST_TOKENS else None


def usage_object(usage: Usage) -> dict[str, object]:
    """Return `usage` as OpenAI's object."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


# ---- answer, for languages that are translated ------------------------------------------------------------------


class Function(msgspec.Struct, omit_defaults=True):
    """A called function; `arguments` is JSON text, a fragment of it in a stream."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, omit_defaults=True):
    """A tool call, whole or (with `index`) a piece of one."""

    function: Function
    index: int | None = None
    id: str | None = None
    type: str | None = None


class Message(msgspec.Struct):
    """The assistant's message; `content` is None when there are only tool calls."""

    content: str | None = None
    role: str = "assistant"
    refusal: str | None = None
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET


class Delta(msgspec.Struct, omit_defaults=True):
    """One step of a streamed message."""

    role: str | None = None
    content: str | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning_content: str | None = None


def encode_completion(
    *, id: str, model: str, created: int, message: Message, finish: str, usage: Usage | None
) -> bytes:
    """Return a whole `chat.completion` object with one choice."""
    completion: dict[str, object] = {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
    }
    if usage is not None:
        completion["usage"] = usage_object(usage)
    return msgspec.json.encode(completion)


class ChunkWriter:
    """Encodes the events of one translated stream; all carry the same id, model and time."""

    __slots__ = ("_head", "_usage_null")

    def __init__(self, id: str, model: str, created: int, *, include_usage: bool) -> None:
        head = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = b"data: " + msgspec.json.encode(head)[:-1]
        self._usage_null = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def delta(self, delta: Delta, finish: str | None = None, index: int = 0) -> bytes:
        """Return one event with one choice."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._head + b',"choices":[' + msgspec.json.encode(choice) + b"]" + self._usage_null

    def usage(self, usage: Usage) -> bytes:
        """Return the event that ends a stream whose client asked for its usage: no choices."""
        return self._head + b',"choices":[],"usage":' + msgspec.json.encode(usage_object(usage)) + b"}\n\n"


_NULL: Final = msgspec.Raw(b"null")
_NOTHING: Final = (_NULL, msgspec.Raw(b"[]"))
_ROLE: Final = msgspec.Raw(b'"assistant"')


class _WholeChoice(msgspec.Struct):
    message: dict[str, msgspec.Raw]
    index: int = 0
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _NULL


class _Whole(msgspec.Struct):
    choices: list[_WholeChoice]


_objects: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def as_stream(body: bytes, *, include_usage: bool) -> bytes:
    """Return a whole completion as the stream the client asked for, with all its fields. Raises msgspec.DecodeError."""
    choices = msgspec.json.decode(body, type=_Whole).choices
    head: dict[str, object] = {"id": "chatcmpl-0", "created": 0, "model": "", **_fields.decode(body)}
    head["object"] = "chat.completion.chunk"
    usage = head.pop("usage", _NULL)
    if include_usage:
        head["usage"] = None
    events = []
    for choice in choices:
        delta = _delta(choice.message)
        for step, logprobs, finish in (delta, choice.logprobs, None), ({}, _NULL, choice.finish_reason or "stop"):
            said = {"index": choice.index, "delta": step, "logprobs": logprobs, "finish_reason": finish}
            events.append({**head, "choices": [said]})
    if include_usage and usage != _NULL:
        events.append({**head, "choices": [], "usage": usage})
    lines = [_one_line(msgspec.json.encode(event)) for event in events]
    return b"".join([b"data: " + line + b"\n\n" for line in (*lines, b"[DONE]")])


def _delta(message: dict[str, msgspec.Raw]) -> dict[str, object]:
    """Return a whole message as the one delta that says it all; its tool calls are numbered, as deltas must be."""
    delta: dict[str, object] = {"role": _ROLE}
    delta.update((name, value) for name, value in message.items() if value not in _NOTHING)
    if "tool_calls" in delta:
        calls = enumerate(_objects.decode(message["tool_calls"]))
        delta["tool_calls"] = [{**call, "index": index} for index, call in calls]
    return delta


def _one_line(json: bytes) -> bytes:
    """Return JSON without line ends: outside of strings they mean nothing, inside they cannot be."""
    return json.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in json or b"\r" in json else json
