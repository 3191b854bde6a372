"""Read complete responses: items become one message, their statuses OpenAI's finish reasons and errors.

A response that failed says so inside a 200, with a code; so does an event of a stream. The code gives the status that
the error would have had.
"""

from typing import Any, Final

import msgspec

from adapters._chat.chunks import plain
from adapters._responses.items import (
    CALL,
    GAP,
    MESSAGE,
    REASONING,
    Keeper,
    Message,
    arguments_of,
    call_of,
    citations,
    item_of,
    logprobs_of,
    thoughts_of,
)
from proxy import sse, wire
from proxy.adapter import Reply, Target
from proxy.classify import STATUS_OF_TYPE, Fault, classify
from proxy.errors import UnavailableError, UpstreamError
from proxy.wire import ChatRequest, Number, Usage

BROKEN: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# The statuses of codes that are not the provider's fault; the others are 502 (API reference, "ResponseError").
_STATUS: Final = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_is_overloaded": 503,
    "slow_down": 503,
    "vector_store_timeout": 504,
    "model_not_found": 404,
    "invalid_api_key": 401,
    **dict.fromkeys(
        (
            "context_length_exceeded",
            "data_residency_mismatch",
            "empty_image_file",
            "failed_to_download_image",
            "image_file_not_found",
            "image_file_too_large",
            "image_parse_error",
            "image_too_large",
            "image_too_small",
            "invalid_base64_image",
            "invalid_image",
            "invalid_image_format",
            "invalid_image_mode",
            "invalid_image_url",
            "unsupported_image_media_type",
        ),
        400,
    ),
}


class _InputDetails(msgspec.Struct):
    cached_tokens: Number | None = 0
    cache_write_tokens: Number | None = 0


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: Number | None = 0


class Counts(msgspec.Struct):
    """The usage of a response, in OpenAI's meaning: details are parts of their sums."""

    input_tokens: Number | None = 0
    output_tokens: Number | None = 0
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None

    def usage(self) -> Usage | None:
        """Return the usage, None for what cannot be anybody's."""
        read, written = self.input_tokens_details or _InputDetails(), self.output_tokens_details or _OutputDetails()
        return wire.counted(
            self.input_tokens, self.output_tokens, read.cached_tokens, read.cache_write_tokens, written.reasoning_tokens
        )


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class Response(msgspec.Struct):
    """A response: complete, or as far as the event that holds it has come. `object` tells it from an error."""

    object: str = ""
    id: str | None = None
    model: str | None = None
    status: str | None = None
    error: Any = None
    incomplete_details: _Incomplete | None = None
    output: list[msgspec.Raw] | None = None
    usage: Counts | None = None

    @property
    def counted(self) -> Usage | None:
        """The usage, None when none was told."""
        return None if self.usage is None else self.usage.usage()

    def finish(self, *, called: bool) -> str:
        """Return OpenAI's finish reason. Raises UpstreamError when the response failed or was never finished."""
        if self.error is not None or self.status == "failed":
            raise fault_of(self.error)
        if self.status == "incomplete":
            reason = self.incomplete_details and self.incomplete_details.reason
            return "content_filter" if reason == "content_filter" else "length"
        if self.status not in (None, "completed"):
            raise UnavailableError(f"the upstream left the response {self.status}", code="upstream_invalid_response")
        return "tool_calls" if called else "stop"


class _Error(msgspec.Struct):
    message: Any = None
    type: Any = None
    code: Any = None
    param: Any = None
    status: Any = None


class _Event(msgspec.Struct):
    """What a complete answer needs of a stream."""

    type: str = ""
    item: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    response: Response | None = None


LAST: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_response: Final = msgspec.json.Decoder(Response)
_event: Final = msgspec.json.Decoder(_Event)
_any: Final = msgspec.json.Decoder()


def fault_of(error: Any) -> UpstreamError:
    """Return the class of an error inside a response or an event."""
    try:
        told = msgspec.convert(error, _Error)
    except msgspec.ValidationError:
        told = _Error(error if isinstance(error, str) else None)
    words = [value if isinstance(value, str) else "" for value in (told.message, told.type, told.code)]
    message, kind, code = words
    fallback = STATUS_OF_TYPE.get(kind, 502)
    status = told.status if isinstance(told.status, int) and 400 <= told.status < 600 else fallback
    param = told.param if isinstance(told.param, str) else None
    text = message or "the upstream could not finish its answer"
    return classify(_STATUS.get(code, status), {}, Fault(text, kind, code, param))


def parse(body: bytes, request: ChatRequest, target: Target) -> Reply:
    """Return a complete answer as a chat completion. Raises UpstreamError for an error or nonsense in it."""
    try:
        response = _response.decode(body) if body.lstrip()[:1] == b"{" else _streamed(body)
        if response.object != "response" and response.output is None:
            if response.error is not None:
                raise fault_of(response.error)
            raise _nonsense()
        return _told(response, request, target)
    except BROKEN:
        raise _nonsense() from None


def _nonsense() -> UnavailableError:
    return UnavailableError("the upstream's answer is no response", code="upstream_invalid_response")


def _streamed(body: bytes) -> Response:
    """Return the response that a stream amounts to; the last event may leave out the items that were told before."""
    decoder = sse.Decoder()
    events = [*decoder.feed(body), *decoder.close()]
    if not events:
        raise _nonsense()
    items: list[msgspec.Raw] = []
    for event in events:
        found = _event.decode(event.data) if event.data[:1] == b"{" else _Event()
        if found.type == "error":
            raise fault_in(event.data)
        if found.type == "response.output_item.done" and not isinstance(found.item, msgspec.UnsetType):
            items.append(found.item)
        elif found.type in LAST and found.response is not None:
            found.response.output = found.response.output or items
            return found.response
    raise UnavailableError("the upstream's stream was cut short", code="upstream_truncated")


def fault_in(event: bytes) -> UpstreamError:
    """Return the class of an error event, whose fields stand in `error` or by themselves."""
    found = _any.decode(event)
    inner = found.get("error")
    return fault_of({**inner, "status": found.get("status")} if isinstance(inner, dict) else {**found, "type": None})


def _told(response: Response, request: ChatRequest, target: Target) -> Reply:
    said = _Said(target.source)
    for raw in response.output or ():
        said.add(raw)
    finish = response.finish(called=bool(said.calls))
    logprobs = {"content": said.logprobs, "refusal": None} if said.logprobs else None
    usage = response.counted
    encoded = wire.encode_completion(
        id=response.id or f"chatcmpl-{request.created}",
        model=response.model or target.model,
        created=request.created,
        message=said.message(),
        finish=finish,
        usage=usage,
        logprobs=logprobs,
    )
    return Reply(encoded, usage, finish)


class _Said:
    """The message that the items of a response make together."""

    def __init__(self, source: str) -> None:
        self.calls: list[wire.ToolCall] = []
        self.logprobs: list[dict[str, Any]] = []
        self._keeper = Keeper(source)
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._thoughts: list[str] = []
        self._citations: list[dict[str, Any]] = []

    def add(self, raw: msgspec.Raw) -> None:
        """Take an item. Raises msgspec.DecodeError for one that is broken."""
        item = item_of(raw)
        self._keeper.ends(item)
        if item.type == CALL:
            self.calls.append(call_of(item, arguments_of(item)))
        elif item.type == REASONING:
            self._thoughts += thoughts_of(item)
        elif item.type == MESSAGE:
            for part in item.content or ():
                self._texts.append(plain(part.text))
                self._refusals.append(plain(part.refusal))
                self._citations += citations(part.annotations)
                self.logprobs += logprobs_of(part.logprobs)

    def message(self) -> Message:
        """Return the whole of it."""
        text, refusal = "".join(self._texts), "".join(self._refusals)
        message = Message(text or (None if self.calls or refusal else ""), refusal=refusal or None)
        message.think(GAP.join(self._thoughts), self._keeper.kept)
        if self.calls:
            message.tool_calls = self.calls
        if self._citations:
            message.annotations = self._citations
        return message
