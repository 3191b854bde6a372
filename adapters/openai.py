"""OpenAI chat completions, passed through: the client's bytes go out with the model renamed, the answer's come back.

Providers that deviate say so in their catalog row (`quirks`); everybody else's bytes are left alone:
    max_completion_tokens   the provider refuses `max_tokens`
    fill_missing            answers lack `object`, `created` or `index`, start with an empty chunk, call reasoning
                            `reasoning_text`, or come in Anthropic's shape (GitHub Copilot)
    initiator               the provider wants to know who spoke last, and of images, in headers (GitHub Copilot)
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from proxy import splice, sse, wire
from proxy.adapter import Adapter, Rendered, Reply, StreamParser, Target, each, last_events
from proxy.classify import Fault, classify, fault_of, read_fault, status_in
from proxy.errors import UnavailableError, UpstreamError
from proxy.wire import ChatRequest, Usage

_NULL: Final = msgspec.Raw(b"null")
_EMPTY: Final = tuple(msgspec.Raw(value) for value in (b"null", b'""', b"[]", b"{}"))


class _Delta(msgspec.Struct):
    """What makes an event content-bearing. Field order is the order of likelihood."""

    content: msgspec.Raw = _NULL
    tool_calls: msgspec.Raw = _NULL
    reasoning_content: msgspec.Raw = _NULL
    reasoning: msgspec.Raw = _NULL
    reasoning_text: msgspec.Raw = _NULL
    refusal: msgspec.Raw = _NULL
    audio: msgspec.Raw = _NULL
    function_call: msgspec.Raw = _NULL


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    error: msgspec.Raw = _NULL


class _Body(msgspec.Struct):
    """A chunk or a whole completion, as far as we look at it."""

    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NULL
    error: msgspec.Raw = _NULL


_body: Final = msgspec.json.Decoder(_Body)
_raw_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_list: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_encode: Final = msgspec.json.encode


class OpenAI:
    """The OpenAI language."""

    quirks: Final = frozenset({"max_completion_tokens", "fill_missing", "initiator"})

    def auth(self, key: str | None) -> dict[str, str]:
        """Return the bearer header; nothing without a key (local servers)."""
        return {"Authorization": f"Bearer {key}"} if key else {}

    def render(self, request: ChatRequest, target: Target) -> Rendered:
        """Return the client's own bytes with the model replaced, and usage asked for in a stream."""
        body = request.raw
        if request.model != target.model:
            body = splice.replace_known(body, b"model", _encode(target.model), request.model_at)
        if request.stream and not request.include_usage:
            body = _ask_for_usage(body)
        if "max_completion_tokens" in target.quirks:
            body = splice.rename(body, b"max_tokens", b"max_completion_tokens")
        headers = _initiator(request) if "initiator" in target.quirks else {}
        return Rendered("/chat/completions", body, headers)

    def parse(self, body: bytes, request: ChatRequest, target: Target) -> Reply:
        """Return `body` as it is, after making sure that it is an answer."""
        if "fill_missing" in target.quirks:
            body = _filled(body, request, "chat.completion")
        found = _decode(body, "upstream_invalid_response")
        _raise_error(found)
        if not found.choices:
            raise UnavailableError("the upstream's answer has no choices", code="upstream_invalid_response")
        return Reply(body, wire.parse_usage(found.usage), found.choices[0].finish_reason)

    def stream(self, request: ChatRequest, target: Target) -> StreamParser:
        """Return a parser that passes events on."""
        return _Stream(request, fill="fill_missing" in target.quirks)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Return the class of an error answer; OpenAI's shape and its many dialects."""
        return classify(status, headers, read_fault(body))


class _Stream:
    """Passes events on, holding back usage until the end and dropping it unless the client asked."""

    def __init__(self, request: ChatRequest, *, fill: bool) -> None:
        self.started = False
        self.finish: str | None = None
        self.done = False
        self.usage: Usage | None = None
        self._request = request
        self._fill = fill
        self._sse = sse.Decoder()
        self._open: set[int] = set()
        self._closed: set[int] = set()
        self._usage_chunk = b""
        self._called_tools = False
        self._last_finish: str | None = None
        self._sample = b""

    def feed(self, data: bytes) -> bytes:
        """Return the events completed by `data`."""
        return each(self._sse.feed(data), self._event)

    def close(self) -> bytes:
        """Return the missing finish chunk, the usage chunk if asked for, and `[DONE]`."""
        tail = last_events(self, self._sse, self._event)
        if self.finish is None:
            tail += self._missing_finish()
        if self._usage_chunk and self._request.include_usage:
            tail += sse.frame(self._usage_chunk)
        return tail + sse.DONE

    def _event(self, event: sse.Event) -> bytes:
        data = event.data
        if data.startswith(b"[DONE]"):
            self.done = True
            return b""
        if self.done or event.name == b"ping":
            return b""
        if self._fill:
            data = _filled(data, self._request, "chat.completion.chunk")
        chunk = _decode(data, "upstream_invalid_event")
        if event.name == b"error" and chunk.error == _NULL:
            chunk.error = msgspec.Raw(data)
        _raise_error(chunk)
        if chunk.usage != _NULL:
            data = self._hold_usage(chunk, data)
        if not chunk.choices:
            # Azure's and Copilot's first chunk: an SDK user who reads choices[0] would crash on it.
            known = chunk.choices is not None and chunk.usage == _NULL and not self._fill
            return sse.frame(data) if known else b""
        for choice in chunk.choices:
            self._follow(choice)
        self._sample = data
        return sse.frame(data)

    def _follow(self, choice: _Choice) -> None:
        """Keep track of what was said and of which choices are still open: the finish is that of the last one."""
        if choice.index not in self._closed:
            self._open.add(choice.index)
        delta = choice.delta
        if delta is not None:
            if not self.started:
                self.started = any(value not in _EMPTY for value in msgspec.structs.astuple(delta))
            if delta.tool_calls not in _EMPTY:
                self._called_tools = True
        if choice.finish_reason:
            self.started = True
            self._last_finish = choice.finish_reason
            self._open.discard(choice.index)
            self._closed.add(choice.index)
        self.finish = None if self._open else self._last_finish

    def _hold_usage(self, chunk: _Body, data: bytes) -> bytes:
        """Remember the usage; return the chunk without it. Asked or not, it must not ride on another chunk."""
        usage = wire.parse_usage(chunk.usage)
        if usage is None:
            return data
        self.usage = usage
        if chunk.choices == []:
            self._usage_chunk = data
            return data
        # Clients count on `choices`, also where there are none.
        self._usage_chunk = splice.set_value(data, b"choices", b"[]")
        if self._request.include_usage:
            return splice.set_value(data, b"usage", b"null")
        return splice.remove(data, b"usage")

    def _missing_finish(self) -> bytes:
        """The upstream said `[DONE]` and no finish reason: Node's stream helper would throw."""
        self.finish = self._last_finish or ("tool_calls" if self._called_tools else "stop")
        self.started = True
        choices = [{"index": index, "delta": {}, "finish_reason": self.finish} for index in sorted(self._open or {0})]
        sample = self._sample or _encode(
            {
                "id": "chatcmpl-0",
                "object": "chat.completion.chunk",
                "created": self._request.created,
                "model": self._request.model,
            }
        )
        return sse.frame(splice.set_value(sample, b"choices", _encode(choices)))


def _decode(body: bytes, code: str) -> _Body:
    try:
        if not body.isascii():
            body.decode()  # what the decoder skips is passed on, and must be text as well
        return _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnavailableError("the upstream's answer is not a chat completion", code=code) from None


def _raise_error(found: _Body) -> None:
    """Raise the error that an answer with status 200 carries, at its top or in a choice."""
    raw = found.error
    for choice in found.choices or ():
        if choice.error != _NULL:
            raw = choice.error
    if raw in _EMPTY:
        return
    try:
        error: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise classify(502, {}, Fault("")) from None
    raise classify(status_in(error), {}, fault_of(error))


def _ask_for_usage(body: bytes) -> bytes:
    """Set `stream_options.include_usage`, keeping the client's other stream options."""
    member = splice.find(body, b"stream_options")
    options: dict[str, msgspec.Raw] | None = None
    if member is not None and body[member.value : member.end] != b"null":
        options = _raw_object.decode(body[member.value : member.end])
    options = {**(options or {}), "include_usage": msgspec.Raw(b"true")}
    return splice.set_value(body, b"stream_options", _encode(options))


def _initiator(request: ChatRequest) -> dict[str, str]:
    headers = {"X-Initiator": "agent" if request.agent_turn else "user"}
    if "vision" in request.needs:
        headers["Copilot-Vision-Request"] = "true"
    return headers


def _filled(body: bytes, request: ChatRequest, kind: str) -> bytes:
    """Return an answer or a chunk with what OpenAI's clients count on. Anything that is no object is left alone."""
    try:
        found = _raw_object.decode(body)
        if "choices" not in found:
            whole = kind == "chat.completion" and "content" in found and "stop_reason" in found
            return _from_anthropic_shape(body, request) if whole else body
        choices = _raw_list.decode(found["choices"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    _set_missing(found, "object", kind)
    _set_missing(found, "created", request.created)
    for index, choice in enumerate(choices):
        _set_missing(choice, "index", index)
        for place in ("delta", "message"):
            if place in choice:
                choice[place] = msgspec.Raw(_renamed_reasoning(choice[place]))
    found["choices"] = msgspec.Raw(_encode(choices))
    return _encode(found)


def _set_missing(table: dict[str, msgspec.Raw], name: str, value: object) -> None:
    if table.get(name, _NULL) in _EMPTY:
        table[name] = msgspec.Raw(_encode(value))


def _renamed_reasoning(message: msgspec.Raw) -> bytes:
    if b"reasoning_text" not in bytes(message):
        return bytes(message)
    return splice.rename(bytes(message), b"reasoning_text", b"reasoning_content")


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _AnthropicUsage(msgspec.Struct):
    """Anthropic counts cached tokens beside the input, OpenAI within."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def normal(self) -> Usage:
        cached, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        return Usage(self.input_tokens + cached + written, self.output_tokens, cached, written)


class _AnthropicShape(msgspec.Struct):
    content: list[_Block]
    id: str = "chatcmpl-0"
    model: str = ""
    stop_reason: str | None = None
    usage: _AnthropicUsage | None = None


# Stop reasons whose word differs; all others are "stop".
_FINISH: Final = {"max_tokens": "length", "refusal": "content_filter"}


def _from_anthropic_shape(body: bytes, request: ChatRequest) -> bytes:
    """Copilot's Claude models sometimes answer with content blocks and no choices."""
    found = msgspec.json.decode(body, type=_AnthropicShape)
    calls = [
        wire.ToolCall(wire.Function(block.name, bytes(block.input).decode()), id=block.id, type="function")
        for block in found.content
        if block.type == "tool_use"
    ]
    text = "".join(block.text for block in found.content if block.type == "text")
    message = wire.Message(content=text or (None if calls else ""))
    if calls:
        message.tool_calls = calls
    finish = "tool_calls" if calls else _FINISH.get(found.stop_reason or "", "stop")
    return wire.encode_completion(
        id=found.id,
        model=found.model or request.model,
        created=request.created,
        message=message,
        finish=finish,
        usage=None if found.usage is None else found.usage.normal(),
    )


ADAPTER: Final[Adapter] = OpenAI()
