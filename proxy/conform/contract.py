"""What `proxy.adapter` promises of any adapter, held without a recording: requests of every kind, and no sense at all.

Each check is given an adapter and a target, and raises Mismatch.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from proxy import errors
from proxy.adapter import Adapter, Rendered, Target
from proxy.conform.checks import MODEL, Mismatch, played, same, stand_in, tried
from proxy.conform.sdk import Unreadable, completion
from proxy.wire import ChatRequest

KEY: Final = "sk-conformance-0123456789abcdef"
_PIXEL: Final = "data:image/png;base64,iVBORw0KGgo="
_TOOL: Final = {"type": "function", "function": {"name": "look", "description": "d", "parameters": {"type": "object"}}}
_SCHEMA: Final = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {}}}}


def _asked(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def _called(arguments: Any, id: str = "c1") -> list[dict[str, Any]]:
    """A conversation with a tool call and its result."""
    call = {"id": id, "type": "function", "function": {"name": "look", "arguments": arguments}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    return [*_asked("hi"), said, {"role": "tool", "tool_call_id": id, "content": "ok"}, *_asked("and now?")]


# By what is asked for: the fields of a request.
REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "text": {},
    "system and developer messages": {
        "messages": [{"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, *_asked("hi")]
    },
    "several turns": {"messages": [*_asked("hi"), {"role": "assistant", "content": "yes?"}, *_asked("go on")]},
    "text in parts": {"messages": _asked([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])},
    "an image": {"messages": _asked([{"type": "image_url", "image_url": {"url": _PIXEL}}])},
    "an image's address": {
        "messages": _asked([{"type": "image_url", "image_url": {"url": "https://images.example/a.png"}}])
    },
    "sound": {"messages": _asked([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}])},
    "a file": {"messages": _asked([{"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain,a"}}])},
    "an unknown part": {"messages": _asked([{"type": "smell", "smell": {}}])},
    "tools": {"tools": [_TOOL]},
    "a forced tool": {"tools": [_TOOL], "tool_choice": {"type": "function", "function": {"name": "look"}}},
    "no tool": {"tools": [_TOOL], "tool_choice": "none"},
    "one tool at a time": {"tools": [_TOOL], "parallel_tool_calls": False},
    "a tool's result": {"tools": [_TOOL], "messages": _called('{"a":1}')},
    "a call without arguments": {"tools": [_TOOL], "messages": _called("")},
    "a call with a list": {"tools": [_TOOL], "messages": _called("[1]")},
    "a call with broken arguments": {"tools": [_TOOL], "messages": _called('{"a":')},
    "a call with a long id": {"tools": [_TOOL], "messages": _called("{}", "functions.look:0" * 6)},
    "a call without a result": {"tools": [_TOOL], "messages": _called("{}")[:2] + _asked("well?")},
    "a schema": {"response_format": _SCHEMA},
    "JSON": {"response_format": {"type": "json_object"}},
    "sampling": {"temperature": 0.2, "top_p": 0.8, "seed": 11, "stop": ["a", "b"], "max_tokens": 5},
    "penalties": {"frequency_penalty": 0.1, "presence_penalty": 0.1, "logit_bias": {"1": 2}},
    "log probabilities": {"logprobs": True, "top_logprobs": 2},
    "effort": {"reasoning_effort": "low", "max_completion_tokens": 99},
    "two choices": {"n": 2},
    "an unknown field": {"x_unknown": {"deep": [1, None, {"a": 0.1}]}},
}
# What is no answer in any language.
GARBAGE: Final[dict[str, bytes]] = {
    "nothing": b"",
    "blanks": b" \n\r\n\n",
    "a web page": b"<html><body>502 Bad Gateway</body></html>",
    "half an object": b'{"a": [1, {"b": "',
    "null": b"null",
    "a number": b"17",
    "an empty object": b"{}",
    "an empty list": b"[]",
    "bytes that are no text": b'{"a": "\xff\xfe\x80"}',
    "a lone surrogate": b'{"a": "\\ud800"}',
    "deep nesting": b"[" * 5000 + b"]" * 5000,
    "a huge number": b'{"usage": ' + b"9" * 400 + b"}",
    "zeros": bytes(64),
    "an empty event": b"data:\n\ndata: \n\n",
    "events of nonsense": b"event: x\ndata: {}\n\ndata: [1]\n\ndata: null\n\n",
    "comments only": b": ping\n\n: ping\n\n",
    "lines of nonsense": b"{}\n[]\nnull\n",
}
# By status, the kinds an error may have.
STATUSES: Final[dict[int, tuple[str, ...]]] = {
    400: errors.KINDS,
    401: ("auth",),
    403: ("auth", "content_filter"),
    404: ("not_found",),
    413: ("context_length", "invalid_request"),
    422: ("invalid_request",),
    429: ("rate_limit", "quota"),
    500: ("unavailable",),
    502: ("unavailable",),
    503: ("overloaded", "unavailable"),
    504: ("timeout", "unavailable"),
    529: ("overloaded",),
}
_TEXTS: Final = (b"", b"{}", b"null", b'{"error":"no"}', b'{"message":"no"}', b"no", b"\xff\x00")


def has_all_members(adapter: Adapter, target: Target) -> None:
    """It has the members of `Adapter`, and names its quirks as a frozenset."""
    wanted = ("auth", "render", "parse", "stream", "parse_error")
    same("members that are missing", [], [name for name in wanted if not callable(getattr(adapter, name, None))])
    quirks = adapter.quirks
    if not isinstance(quirks, frozenset) or not all(isinstance(name, str) for name in quirks):
        raise Mismatch("quirks", "a frozenset of names", quirks)


def keys_are_headers(adapter: Adapter, target: Target) -> None:
    """Keys go into headers that can be sent, and without a key there may be none."""
    for key in (None, KEY):
        _sendable(adapter.auth(key))
    same("headers, asked twice", adapter.auth(KEY), adapter.auth(KEY))
    if KEY not in "".join(adapter.auth(KEY).values()) and not callable(getattr(adapter, "sign", None)):
        raise Mismatch("headers that carry the key", "the key in one of them, or a method `sign`", adapter.auth(KEY))


def _sendable(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not (isinstance(value, str) and name.isascii() and (name + value).isprintable()):
            raise Mismatch("a header", "printable text", {name: value})


def requests_render(adapter: Adapter, target: Target) -> None:
    """Every request is rendered, twice the same, or refused before it is sent, so that the next upstream is asked."""
    for what, fields in REQUESTS.items():
        for stream in (False, True):
            request = stand_in(stream=stream, **fields)
            _rendered(f"{what}, {'streamed' if stream else 'complete'}", adapter, request, target)


def _rendered(what: str, adapter: Adapter, request: ChatRequest, target: Target) -> None:
    before = bytes(request.raw)
    wanted = "an upstream's request, or not_sent(...)"
    try:
        first, second = [tried(what, wanted, lambda: adapter.render(request, target)) for _ in range(2)]
    except errors.UpstreamError as error:
        if not (isinstance(error, errors.InvalidRequestError) and error.unsent):
            raise Mismatch(what, wanted, repr(error)) from error
        return
    same(f"{what}: the client's request afterwards", before, bytes(request.raw))
    same(f"{what}: rendered twice", first, second)
    _sound(what, first, target)


def _sound(what: str, rendered: Rendered, target: Target) -> None:
    if not (rendered.path.startswith("/") and rendered.path.isascii() and rendered.path.isprintable()):
        raise Mismatch(f"{what}: path", "ASCII that begins with /", rendered.path)
    _sendable(rendered.headers)
    if not isinstance(rendered.body, bytes):
        raise Mismatch(f"{what}: body", "bytes", type(rendered.body))
    if target.model not in rendered.path and target.model.encode() not in rendered.body:
        raise Mismatch(f"{what}: model", f"{target.model} in path or body", rendered.path)


def garbage_is_an_error(adapter: Adapter, target: Target) -> None:
    """Whatever comes with status 200 is an answer that clients can read, or an UpstreamError; nothing else."""
    request, wanted = stand_in(stream=False), "an UpstreamError, or an answer"
    for what, body in GARBAGE.items():
        try:
            completion(tried(what, wanted, partial(adapter.parse, body, request, target)).body)
        except errors.UpstreamError:
            continue
        except Unreadable as error:
            raise Mismatch(f"{what} as a complete answer", wanted, str(error)) from error


def garbage_never_ends_well(adapter: Adapter, target: Target) -> None:
    """A stream of nonsense, whole or byte by byte, raises an UpstreamError and is never told as a whole answer."""
    for what, body in GARBAGE.items():
        for size in (max(len(body), 1), 1):
            _never_ends_well(f"{what} as a stream", adapter, target, [*_cut(body, size)])


def _cut(body: bytes, size: int) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def _never_ends_well(what: str, adapter: Adapter, target: Target, pieces: list[bytes]) -> None:
    parser = adapter.stream(stand_in(stream=True), target)
    try:
        out = tried(what, "an UpstreamError", lambda: played(parser, pieces))
    except errors.UpstreamError as error:
        same(f"{what}: type of what came before the error", bytes, type(error.before))
        return
    raise Mismatch(what, "an UpstreamError from close(): neither a finish reason nor an end was seen", out)


def errors_have_a_kind(adapter: Adapter, target: Target) -> None:
    """Any other status becomes an error of a kind that fits it, whatever the body says or fails to say."""
    for status, kinds in STATUSES.items():
        for body in _TEXTS:
            what = f"status {status} with {body!r}"
            error = tried(what, "an error that is returned", partial(adapter.parse_error, status, {}, body))
            if not isinstance(error, errors.UpstreamError) or error.kind not in kinds:
                raise Mismatch(f"{what}: kind", " or ".join(kinds), getattr(error, "kind", error))
            same(f"{what}: keys", {"message", "type", "param", "code"}, set(msgspec.json.decode(error.body())["error"]))


def keys_do_not_leak(adapter: Adapter, target: Target) -> None:
    """An error that quotes the key is told without it."""
    for body in (f'{{"error":{{"message":"bad key {KEY}"}}}}', f'{{"message":"Bearer {KEY}"}}', f"wrong: {KEY}"):
        for status in (400, 401, 500):
            told = adapter.parse_error(status, {}, body.encode()).body()
            if KEY.encode() in told:
                raise Mismatch(f"status {status} with a body that quotes the key", "no key", told.decode())


Contract = Callable[[Adapter, Target], None]
CONTRACT: Final[tuple[Contract, ...]] = (
    has_all_members,
    keys_are_headers,
    requests_render,
    garbage_is_an_error,
    garbage_never_ends_well,
    errors_have_a_kind,
    keys_do_not_leak,
)
TARGET: Final = Target(MODEL)
