"""OpenAI's two languages and Anthropic's, as built-in providers speak them: a request in, an answer in any form out.

A language says the same things in its own words, so that every fault can be played in each. Adding one is a class
like these and its row in `demo_languages.LANGUAGES`.
"""

from typing import Any, Final, NamedTuple, Protocol

import msgspec

from proxy import demo_answers, sse, wire
from proxy.demo_answers import Answer, Reply
from proxy.demo_schema import Json
from proxy.errors import ClientError

_encode: Final = msgspec.json.encode


class Refusal(NamedTuple):
    """An error answer in OpenAI's words. `wait_s` is its Retry-After, None for none."""

    status: int
    type: str
    code: str | None
    message: str
    wait_s: int | None = None


class Events(NamedTuple):
    """A stream: who speaks, what is said (an event per word), why it ends, and what follows that."""

    opening: list[bytes]
    words: list[bytes]
    finish: list[bytes]
    rest: list[bytes]

    def all(self) -> list[bytes]:
        """Return all events, in their order."""
        return [*self.opening, *self.words, *self.finish, *self.rest]


class Words(Protocol):
    """One answer in one language. A `shape` is a fault that changes what is said, "" for none."""

    id: str
    stream: bool

    @property
    def media_type(self) -> str:
        """The content type of its streams."""
        ...

    def completion(self, shape: str) -> bytes:
        """Return the whole answer."""
        ...

    def events(self, shape: str) -> Events:
        """Return the answer as a stream."""
        ...

    def saying(self, text: str) -> bytes:
        """Return an event that says `text`."""
        ...

    def error(self, refusal: Refusal) -> bytes:
        """Return the body of an error."""
        ...

    def error_event(self, message: str) -> bytes:
        """Return an error as an event of a stream that has begun."""
        ...

    def garbage(self, quoted: bytes) -> bytes:
        """Return an event that nobody can read, with `quoted` in it."""
        ...


class _Events:
    """A language in server-sent events."""

    media_type = "text/event-stream"

    def garbage(self, quoted: bytes) -> bytes:
        """Return an event that is no JSON."""
        return b'data: {"choices":[{"delta":{"content":"%b\n\n' % quoted


class OpenAI(_Events):
    """Chat completions."""

    def __init__(self, answer: Answer) -> None:
        self.id = answer.id
        self.stream = answer.chat.stream
        self._answer = answer

    @classmethod
    def read(cls, body: bytes, id: str, created: int, more: int) -> Words:
        """Return the answer to `body`: the last user message and `more` words. Raises ClientError."""
        chat, given = wire.decode_chat(body, created), decode(body)
        reply = _longer(demo_answers.answer(given, id), more)
        counts = wire.Usage(demo_answers.tokens(demo_answers.prompt(given)), demo_answers.tokens(reply.text or ""))
        return cls(Answer(id, chat, reply, 1, wire.usage_object(counts)))

    def completion(self, shape: str) -> bytes:
        """Return the whole answer."""
        return self._spoken(shape).completion(shape)

    def events(self, shape: str) -> Events:
        """Return the answer as a stream."""
        answer = self._spoken(shape)
        opening, words, ending = answer.events(shape)
        finishes = 0 if shape == "no-finish" else answer.copies
        return Events(opening, words, ending[:finishes], ending[finishes:])

    def saying(self, text: str) -> bytes:
        """Return an event that says `text`."""
        opening = self._answer._replace(reply=Reply("", [], "stop"), copies=1).events("")[0][0]
        return opening.replace(b'"content":""', b'"content":%b' % _encode(text), 1)

    def error(self, refusal: Refusal) -> bytes:
        """Return the body of an error."""
        kind = {"type": refusal.type, "param": None, "code": refusal.code}
        return _encode({"error": {"message": refusal.message, **kind}})

    def error_event(self, message: str) -> bytes:
        """Return an error as an event of a stream that has begun."""
        return sse.frame(self.error(Refusal(500, "server_error", "server_error", message)))

    def _spoken(self, shape: str) -> Answer:
        return self._answer._replace(reply=Reply("", [], "stop")) if shape == "empty" else self._answer


class Vectors(OpenAI):
    """Embeddings, which are never streamed, and fail as chat does."""

    def __init__(self, id: str, body: bytes) -> None:
        chat = wire.decode_chat(b'{"model":"embed","messages":[{"role":"user"}]}', 0)
        super().__init__(Answer(id, chat, Reply("", [], "stop"), 1, {}))
        self._body = body

    def completion(self, shape: str) -> bytes:
        """Return the vectors."""
        return self._body


class Responses(OpenAI):
    """Responses, which are asked and refused as chat completions are, but for the name of the messages."""

    @classmethod
    def read(cls, body: bytes, id: str, created: int, more: int) -> Words:
        """Return the answer to `body`: the last user message and `more` words. Raises ClientError."""
        given = decode(body)
        items = given.get("input", given.get("messages"))  # what stands for a body that was not read has the latter
        items = [{"role": "user", "content": items}] if isinstance(items, str) else items
        turns = [one for one in items if isinstance(one, dict) and "role" in one] if isinstance(items, list) else []
        asked = {"model": given.get("model"), "messages": turns, "stream": bool(given.get("stream"))}
        return super().read(_encode(asked), id, created, more)

    def completion(self, shape: str) -> bytes:
        """Return the whole answer."""
        said = [] if shape == "empty" else [self._item(self._answer.reply.text or "")]
        return _encode(self._response("in_progress" if shape == "no-finish" else "completed", shape, said))

    def events(self, shape: str) -> Events:
        """Return the answer as a stream."""
        opening = [
            self._event("response.created", response=self._response("in_progress", "no-usage", [])),
            self._event("response.output_item.added", output_index=0, item=self._item(None)),
        ]
        text = "" if shape == "empty" else self._answer.reply.text or ""
        done = self._event("response.output_item.done", output_index=0, item=self._item(text))
        last = self._event("response.completed", response=self._response("completed", shape, [self._item(text)]))
        words = [self.saying(piece) for piece in demo_answers.pieces(text)] if text else []
        return Events(opening, words, [done] if shape == "no-finish" else [done, last], [])

    def saying(self, text: str) -> bytes:
        """Return an event that says `text`."""
        return self._event("response.output_text.delta", output_index=0, content_index=0, delta=text, logprobs=[])

    def error_event(self, message: str) -> bytes:
        """Return an error as an event of a stream that has begun."""
        return self._event("error", code="server_error", message=message, param=None)

    def garbage(self, quoted: bytes) -> bytes:
        """Return an event that is no JSON."""
        return b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"%b\n\n' % quoted

    def _item(self, text: str | None) -> Json:
        parts = [] if text is None else [{"type": "output_text", "text": text, "annotations": []}]
        return {"id": f"msg_{self.id}", "type": "message", "role": "assistant", "content": parts}

    def _response(self, status: str, shape: str, output: list[Json]) -> Json:
        about: Json = {"id": f"resp_{self.id}", "object": "response", "model": self._answer.chat.model}
        counts = self._answer.usage
        usage = {"input_tokens": counts["prompt_tokens"], "output_tokens": counts["completion_tokens"]}
        told = None if shape == "no-usage" else {**usage, "total_tokens": counts["total_tokens"]}
        return {**about, "status": status, "error": None, "output": output, "usage": told}

    def _event(self, kind: str, **fields: Any) -> bytes:
        return b"event: %b\n" % kind.encode() + sse.frame(_encode({"type": kind, **fields}))


class _Asked(msgspec.Struct):
    """What is read of a request for a message."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool = False


_asked: Final = msgspec.json.Decoder(_Asked)
_STOP: Final = {"stop": "end_turn", "length": "max_tokens"}
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class Anthropic(_Events):
    """Messages."""

    def __init__(self, id: str, asked: _Asked, reply: Reply) -> None:
        self.id = id
        self.stream = asked.stream
        self._model = asked.model
        self._text = reply.text or ""
        self._stop = _STOP.get(reply.finish, "end_turn")
        said = _encode(asked.messages).decode()
        self._usage = {"input_tokens": demo_answers.tokens(said), "output_tokens": demo_answers.tokens(self._text)}

    @staticmethod
    def read(body: bytes, id: str, created: int, more: int) -> Words:
        """Return the answer to `body`: the last user message and `more` words. Raises ClientError."""
        try:
            asked = _asked.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ClientError(f"the body is no request for a message: {error}", code="invalid_json") from None
        reply = demo_answers.answer({"model": asked.model, "messages": asked.messages}, id)
        return Anthropic(id, asked, _longer(reply, more))

    def completion(self, shape: str) -> bytes:
        """Return the whole answer."""
        said = [] if shape == "empty" else [{"type": "text", "text": self._text}]
        return _encode(self._message() | {"content": said, "stop_reason": None if shape == "no-finish" else self._stop})

    def events(self, shape: str) -> Events:
        """Return the answer as a stream."""
        text = {"type": "text", "text": ""}
        opening = [
            self._event("message_start", message=self._message()),
            self._event("content_block_start", index=0, content_block=text),
            self._event("ping"),
        ]
        words = [] if shape == "empty" else [self.saying(piece) for piece in demo_answers.pieces(self._text)]
        stop = {"stop_reason": self._stop, "stop_sequence": None}
        finish = self._event("message_delta", delta=stop, usage={"output_tokens": self._usage["output_tokens"]})
        closed = self._event("content_block_stop", index=0)
        return Events(
            opening,
            words,
            [closed] if shape == "no-finish" else [closed, finish],
            [] if shape == "no-done" else [self._event("message_stop")],
        )

    def saying(self, text: str) -> bytes:
        """Return an event that says `text`."""
        return self._event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    def error(self, refusal: Refusal) -> bytes:
        """Return the body of an error."""
        kind = "overloaded_error" if refusal.status == 529 else _TYPES.get(refusal.status, "api_error")
        error: Json = {"type": kind, "message": refusal.message}
        if refusal.code == "context_length_exceeded":
            error["message"] = f"prompt is too long: 9 tokens > 8 maximum. {refusal.message}"
        if refusal.code == "insufficient_quota":
            error["details"] = {"error_code": "enforced_spend_limit_reached"}
        return _encode({"type": "error", "error": error, "request_id": self.id})

    def error_event(self, message: str) -> bytes:
        """Return an error as an event of a stream that has begun."""
        return b"event: error\n" + sse.frame(self.error(Refusal(529, "", None, message)))

    def _message(self) -> Json:
        about: Json = {"type": "message", "role": "assistant", "model": self._model, "content": [], "stop_reason": None}
        return {"id": f"msg_{self.id}", **about, "stop_sequence": None, "usage": self._usage}

    def _event(self, kind: str, **fields: Any) -> bytes:
        return b"event: %b\n" % kind.encode() + sse.frame(_encode({"type": kind, **fields}))


def _longer(reply: Reply, more: int) -> Reply:
    return demo_answers.lengthen(reply, more) if more else reply


def decode(body: bytes) -> Json:
    """Return `body` as a JSON object. Raises ClientError when it is none."""
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClientError(f"We could not parse the JSON body of your request: {error}", code="invalid_json") from None
    if not isinstance(given, dict):
        raise ClientError("the body must be a JSON object", code="invalid_type")
    return given
