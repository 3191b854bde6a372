"""The other wire languages of built-in providers, and the table of all: Gemini, Bedrock, Cohere and Ollama, natively.

They say what `demo_words` says, in the words and the framing of the provider itself: server-sent events, JSON lines or
AWS's event stream. Each says no more than text; what an adapter makes of tools has tests of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar, Final, Self
from zlib import crc32

import msgspec

from proxy import demo_answers, sse
from proxy.demo_answers import Reply
from proxy.demo_schema import Json
from proxy.demo_words import Anthropic, Events, OpenAI, Refusal, Responses, Words, decode
from proxy.errors import ClientError

_encode: Final = msgspec.json.encode


class _Native(ABC):
    """What the four have in common: the last words of the user, said again."""

    media_type: ClassVar[str] = "text/event-stream"
    # What a body that does not say so means.
    streams: ClassVar[bool] = False

    def __init__(self, id: str, created: int, prompt: str, reply: Reply, *, stream: bool) -> None:
        self.id = id
        self.stream = stream
        self._created = created
        self._text = reply.text or ""
        self._read, self._wrote = demo_answers.tokens(prompt), demo_answers.tokens(self._text)

    @classmethod
    def read(cls, body: bytes, id: str, created: int, more: int, *, stream: bool | None = None) -> Self:
        """Return the answer to `body`: the last user message and `more` words. Raises ClientError.

        `stream` is None where the body says whether it wants one, and not the path.
        """
        given = decode(body)
        prompt = _prompt(given)
        asked = {"model": given.get("model", ""), "messages": [{"role": "user", "content": prompt}]}
        reply = demo_answers.answer(asked, id)
        if more:
            reply = demo_answers.lengthen(reply, more)
        wanted = bool(given.get("stream", cls.streams)) if stream is None else stream
        return cls(id, created, prompt, reply, stream=wanted)

    @abstractmethod
    def saying(self, text: str) -> bytes:
        """Return an event that says `text`."""

    def _words(self, shape: str) -> list[bytes]:
        return [] if shape == "empty" else [self.saying(piece) for piece in demo_answers.pieces(self._text)]


def _prompt(given: Json) -> str:
    """Return the text of the user's last turn, which is a text, parts with texts, or nothing to be read."""
    turns = given.get("contents", given.get("messages"))
    if not isinstance(turns, list) or not turns:
        raise ClientError("the body says nothing", code="invalid_value")
    last = turns[-1] if isinstance(turns[-1], dict) else {}
    parts = last.get("parts", last.get("content"))
    found = parts if isinstance(parts, list) else [{"text": parts}]
    return "\n".join(str(part["text"]) for part in found if isinstance(part, dict) and part.get("text"))


# ---- Gemini -----------------------------------------------------------------------------------------------------

_GOOGLES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    529: "UNAVAILABLE",
}
_A_DAY: Final = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "RequestsPerDay"}]}


class Gemini(_Native):
    """generateContent and streamGenerateContent, in server-sent events."""

    def completion(self, shape: str) -> bytes:
        """Return the whole answer."""
        text, finish = "" if shape == "empty" else self._text, "" if shape == "no-finish" else "STOP"
        return _encode(self._answer(text, finish, counted=shape != "no-usage"))

    def events(self, shape: str) -> Events:
        """Return the answer as a stream."""
        finish = [] if shape == "no-finish" else [self._event(self._answer("", "STOP", counted=shape != "no-usage"))]
        return Events([], self._words(shape), finish, [])

    def saying(self, text: str) -> bytes:
        """Return an event that says `text`."""
        return self._event(self._answer(text, counted=False))

    def error(self, refusal: Refusal) -> bytes:
        """Return the body of an error."""
        word, details = _GOOGLES.get(refusal.status, "INTERNAL"), []
        message = refusal.message
        if refusal.code == "context_length_exceeded":
            message = f"The input token count (9) exceeds the maximum number of tokens allowed (8). {message}"
        if refusal.code == "insufficient_quota":
            details.append(_A_DAY)
        return _encode({"error": {"code": refusal.status, "message": message, "status": word, "details": details}})

    def error_event(self, message: str) -> bytes:
        """Return an error as an event of a stream that has begun."""
        return self._event(msgspec.json.decode(self.error(Refusal(503, "", None, message))))

    def garbage(self, quoted: bytes) -> bytes:
        """Return an event that is no JSON."""
        return b'data: {"candidates":[{"content":{"parts":[{"text":"%b\r\n\r\n' % quoted

    def _answer(self, text: str, finish: str = "", *, counted: bool = True) -> Json:
        said: Json = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
        if finish:
            said["finishReason"] = finish
        answer: Json = {"candidates": [said], "modelVersion": "demo", "responseId": self.id}
        if counted:
            counts = {"promptTokenCount": self._read, "candidatesTokenCount": self._wrote}
            answer["usageMetadata"] = counts | {"totalTokenCount": self._read + self._wrote}
        return answer

    def _event(self, answer: Json) -> bytes:
        return b"data: " + _encode(answer) + b"\r\n\r\n"


# ---- Cohere -----------------------------------------------------------------------------------------------------


class Cohere(_Native):
    """Chat, version 2, in server-sent events."""

    def completion(self, shape: str) -> bytes:
        """Return the whole answer."""
        said = [] if shape == "empty" else [{"type": "text", "text": self._text}]
        end = self._end(shape) | ({"finish_reason": None} if shape == "no-finish" else {})
        return _encode({"id": self.id, "message": {"role": "assistant", "content": said}, **end})

    def events(self, shape: str) -> Events:
        """Return the answer as a stream."""
        begin = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        opening = [
            self._event("message-start", id=self.id, delta={"message": begin}),
            self._event("content-start", index=0, delta={"message": {"content": {"type": "text", "text": ""}}}),
        ]
        closed, end = self._event("content-end", index=0), self._event("message-end", delta=self._end(shape))
        return Events(opening, self._words(shape), [closed] if shape == "no-finish" else [closed, end], [])

    def saying(self, text: str) -> bytes:
        """Return an event that says `text`."""
        return self._event("content-delta", index=0, delta={"message": {"content": {"text": text}}})

    def error(self, refusal: Refusal) -> bytes:
        """Return the body of an error."""
        error: Json = {"id": self.id, "message": refusal.message}
        if refusal.code == "context_length_exceeded":
            error["error_type"] = "TOO_MANY_TOKENS"
        if refusal.code == "insufficient_quota":
            error["message"] = f"You are past the limit of a trial key, 1000 API calls / month. {refusal.message}"
        return _encode(error)

    def error_event(self, message: str) -> bytes:
        """Return an error as an event of a stream that has begun."""
        return self._event("message-end", delta={"finish_reason": "ERROR", "error": message})

    def garbage(self, quoted: bytes) -> bytes:
        """Return an event that is no JSON."""
        return b'event: content-delta\ndata: {"type":"content-delta","delta":{"message":"%b\n\n' % quoted

    def _end(self, shape: str) -> Json:
        counts = {"input_tokens": self._read, "output_tokens": self._wrote}
        usage = {} if shape == "no-usage" else {"usage": {"billed_units": counts, "tokens": counts}}
        return {"finish_reason": "COMPLETE", **usage}

    def _event(self, kind: str, **fields: Any) -> bytes:
        return b"event: %b\n" % kind.encode() + sse.frame(_encode({"type": kind, **fields}))


# ---- Ollama -----------------------------------------------------------------------------------------------------


class Ollama(_Native):
    """Ollama's own chat, a JSON object per line."""

    media_type = "application/x-ndjson"
    streams = True

    def completion(self, shape: str) -> bytes:
        """Return the whole answer."""
        text = "" if shape == "empty" else self._text
        return _encode(self._said(text) if shape == "no-finish" else self._end(text, shape))

    def events(self, shape: str) -> Events:
        """Return the answer as a stream."""
        finish = [] if shape == "no-finish" else [_encode(self._end("", shape)) + b"\n"]
        return Events([], self._words(shape), finish, [])

    def saying(self, text: str) -> bytes:
        """Return an event that says `text`."""
        return _encode(self._said(text)) + b"\n"

    def error(self, refusal: Refusal) -> bytes:
        """Return the body of an error."""
        long = "prompt too long; exceeded max context length. " if refusal.code == "context_length_exceeded" else ""
        return _encode({"error": long + refusal.message})

    def error_event(self, message: str) -> bytes:
        """Return an error as an event of a stream that has begun."""
        return _encode({"error": message}) + b"\n"

    def garbage(self, quoted: bytes) -> bytes:
        """Return a line that is no JSON."""
        return b'{"message":{"role":"assistant","content":"%b\n' % quoted

    def _said(self, text: str) -> Json:
        began = datetime.fromtimestamp(self._created, UTC).isoformat()
        return {
            "model": "demo",
            "created_at": began,
            "message": {"role": "assistant", "content": text},
            "done": False,
        }

    def _end(self, text: str, shape: str) -> Json:
        counts = {} if shape == "no-usage" else {"prompt_eval_count": self._read, "eval_count": self._wrote}
        return self._said(text) | {"done": True, "done_reason": "stop", **counts}


# ---- Bedrock ----------------------------------------------------------------------------------------------------

_EXCEPTIONS: Final = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    413: "RequestEntityTooLargeException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
    529: "ServiceUnavailableException",
}


class Bedrock(_Native):
    """Converse and ConverseStream, in AWS's event stream: messages with headers, lengths and two checksums."""

    media_type = "application/vnd.amazon.eventstream"

    def completion(self, shape: str) -> bytes:
        """Return the whole answer."""
        said = [] if shape == "empty" else [{"text": self._text}]
        stop = None if shape == "no-finish" else "end_turn"
        usage = {} if shape == "no-usage" else self._usage()
        return _encode({"output": {"message": {"role": "assistant", "content": said}}, "stopReason": stop, **usage})

    def events(self, shape: str) -> Events:
        """Return the answer as a stream."""
        closed, stop = (
            self._event("contentBlockStop", contentBlockIndex=0),
            self._event("messageStop", stopReason="end_turn"),
        )
        return Events(
            [self._event("messageStart", role="assistant")],
            self._words(shape),
            [closed] if shape == "no-finish" else [closed, stop],
            [] if shape == "no-usage" else [self._event("metadata", **self._usage())],
        )

    def saying(self, text: str) -> bytes:
        """Return an event that says `text`."""
        return self._event("contentBlockDelta", contentBlockIndex=0, delta={"text": text})

    def error(self, refusal: Refusal) -> bytes:
        """Return the body of an error."""
        name, message = _EXCEPTIONS.get(refusal.status, "BadGateway"), refusal.message
        if refusal.code == "context_length_exceeded":
            message = f"Input is too long for requested model. {message}"
        if refusal.code == "insufficient_quota":
            name = "ServiceQuotaExceededException"
        return _encode({"__type": name, "message": message})

    def error_event(self, message: str) -> bytes:
        """Return an error as an event of a stream that has begun."""
        return _message("exception", "internalServerException", _encode({"message": message}))

    def garbage(self, quoted: bytes) -> bytes:
        """Return a message with a payload that is no JSON."""
        return _message("event", "contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"' + quoted)

    def _usage(self) -> Json:
        counts = {"inputTokens": self._read, "outputTokens": self._wrote, "totalTokens": self._read + self._wrote}
        return {"usage": counts, "metrics": {"latencyMs": 1}}

    def _event(self, kind: str, **fields: Any) -> bytes:
        return _message("event", kind, _encode(fields))


def _message(kind: str, name: str, payload: bytes) -> bytes:
    """Return a message of AWS's event stream; botocore's `eventstream` module reads the same."""
    pairs = {f":{kind}-type": name, ":content-type": "application/json", ":message-type": kind}
    headers = b"".join(
        bytes([len(key)]) + key.encode() + b"\x07" + len(value).to_bytes(2) + value.encode()
        for key, value in pairs.items()
    )
    prelude = (16 + len(headers) + len(payload)).to_bytes(4) + len(headers).to_bytes(4)
    message = prelude + crc32(prelude).to_bytes(4) + headers + payload
    return message + crc32(message).to_bytes(4)


# By what a path ends in; each takes a body, the id of its answer, Unix seconds and how many words to add.
LANGUAGES: Final[dict[str, Callable[[bytes, str, int, int], Words]]] = {
    "/chat/completions": OpenAI.read,
    "/responses": Responses.read,
    "/messages": Anthropic.read,
    ":generateContent": partial(Gemini.read, stream=False),
    ":streamGenerateContent": partial(Gemini.read, stream=True),
    "/converse": partial(Bedrock.read, stream=False),
    "/converse-stream": partial(Bedrock.read, stream=True),
    "/api/chat": Ollama.read,
    "/chat": Cohere.read,
}
