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
from proxy.usage import MOST_TOKENS, Number, Usage, counted, parse_usage, usage_object

# Part of the language, and told by it: whoever reads answers has them from here.
__all__ = ("MOST_TOKENS", "Number", "Usage", "counted", "parse_usage", "usage_object")


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

    `needs` are features a candidate must have: "tools", "vision", "audio", "files", "json_schema". `input_tokens` is an
    estimate (four bytes per token), `max_tokens` the limit that the client sets on the answer, 0 for none. `model_at`
    is where the model's value stands, None when only a walk can tell. `agent_turn` says that the last message is not
    the user's. `created` is Unix seconds.
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
    max_tokens: int = 0

    @property
    def mode(self) -> ResponseMode:
        """How the client wants its answer."""
        return ResponseMode.STREAM if self.stream else ResponseMode.COMPLETE


_NO_NEEDS: Final[frozenset[str]] = frozenset()
# Far more than any answer has: money is reckoned with these, so their sums must fit a float.
_MOST_TOKENS: Final = 10**12
_MEDIA: Final = ((b'"image_url"', "vision"), (b'"input_audio"', "audio"))
_FILE: Final = re.compile(rb'"type"[ \t\r\n]*+:[ \t\r\n]*+"file"')
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
        max_tokens=_limit(
            envelope.max_tokens if envelope.max_completion_tokens is None else envelope.max_completion_tokens
        ),
    )


def _limit(given: Number | None) -> int:
    return min(max(0, int(given)), _MOST_TOKENS) if given else 0


def _needs(envelope: _Envelope, body: bytes) -> frozenset[str]:
    needs = []
    if envelope.tools:
        needs.append("tools")
    # Every part has a type, and most requests have no parts: one search then does for all of them.
    if splice.seek(body, b'"type"') >= 0:
        needs += [need for mark, need in _MEDIA if splice.seek(body, mark) >= 0]
        # A tool may well take something called "file".
        if splice.seek(body, b'"file"') >= 0 and _FILE.search(body) is not None:
            needs.append("files")
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


def encode_completion(  # noqa: PLR0913  # the fields of the object, by name
    *,
    id: str,
    model: str,
    created: int,
    message: Message,
    finish: str,
    usage: Usage | None,
    logprobs: object = None,
) -> bytes:
    """Return a whole `chat.completion` object with one choice."""
    completion: dict[str, object] = {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish}],
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

    def delta(self, delta: Delta, finish: str | None = None, index: int = 0, logprobs: object = None) -> bytes:
        """Return one event with one choice."""
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._head + b',"choices":[' + msgspec.json.encode(choice) + b"]" + self._usage_null

    def usage(self, usage: Usage) -> bytes:
        """Return the event that ends a stream whose client asked for its usage: no choices."""
        return self._head + b',"choices":[],"usage":' + msgspec.json.encode(usage_object(usage)) + b"}\n\n"
