"""Providers that need no key and no network: real HTTP servers on loopback that speak OpenAI's wire.

    model           answer
    echo            the last user message, word by word; any id that is not in this table does the same
    lorem           max_tokens words of one token each, 40 if nothing is asked
    fixed           always the same sentence
    fault/<script>  one fault:
        429, 503, ...           a refusal; all of them are in `_ERRORS`
        hang, close             no answer at all; slow-<ms>: a late one
        cut-after-<k>           after k content events the socket closes; also stall-, garbage- and error-after-<k>
        malformed, truncated    a 200 with broken JSON, or with less than its Content-Length; html: a gateway's 502
        empty, no-done, ...     an answer of unusual shape; all of them are in `_SHAPES`

What is said is decided in `demo_answers`; here are the sockets, the framing, the clock and the faults. Nothing is kept
per request, so that a thousand streams at once cost little; late events go out together, as any real server's do.
"""

import asyncio
import re
import time
from collections import deque
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

from proxy import demo_answers, wire
from proxy.demo_answers import Answer, Prefixes, Reply
from proxy.demo_schema import Json
from proxy.errors import ClientError, ProxyError
from proxy.listener import Listener

_MODELS: Final = ("echo", "lorem", "fixed", "tools", "embed")
_MAX_CHOICES: Final = 8
_STOP_S: Final = 1.0


class Profile(NamedTuple):
    """One provider's character. Times in milliseconds, prices in USD per million tokens, quality 0 to 10.

    `fault` is a script for every request, empty for none. `p50_ms` and `p99_ms` are for a short complete answer.
    """

    name: str
    first_event_ms: float = 0
    event_ms: float = 0
    fault: str = ""
    price_input: float = 0
    price_cached: float = 0
    price_output: float = 0
    quality: float = 5
    p50_ms: float = 1
    p99_ms: float = 10
    features: tuple[str, ...] = ("tools", "vision", "json_schema")


PROFILES: Final = (
    Profile(
        "thrifty", 40, 4, price_input=0.10, price_cached=0.025, price_output=0.40, quality=5, p50_ms=120, p99_ms=300
    ),
    Profile("swift", 5, 1, price_input=0.60, price_cached=0.15, price_output=2.40, quality=6, p50_ms=25, p99_ms=80),
    Profile("sage", 20, 2, price_input=3.00, price_cached=0.30, price_output=15.00, quality=9, p50_ms=60, p99_ms=180),
)


class _Error(NamedTuple):
    status: int
    type: str
    code: str | None
    message: str


_BAD: Final = "invalid_request_error"
_ERRORS: Final = {
    "400-context": _Error(400, _BAD, "context_length_exceeded", "This model's maximum context length is 8 tokens."),
    "400": _Error(400, _BAD, "invalid_value", "A demo of a request that is refused."),
    "400-filter": _Error(400, _BAD, "content_policy_violation", "A demo of content that is refused."),
    "401": _Error(401, _BAD, "invalid_api_key", "Incorrect API key provided."),
    "403": _Error(403, _BAD, "unsupported_country_region_territory", "Country, region, or territory not supported."),
    "404": _Error(404, _BAD, "model_not_found", "The model does not exist or you do not have access to it."),
    "429": _Error(429, "requests", "rate_limit_exceeded", "Rate limit reached. Please try again in 1s."),
    "429-quota": _Error(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "500": _Error(500, "server_error", "server_error", "The server had an error while processing your request."),
    "503": _Error(503, "service_unavailable_error", "server_is_overloaded", "The engine is currently overloaded."),
    "529": _Error(529, "overloaded_error", None, "Overloaded"),
}
_HEALS: Final = ("429", "503")
_NO_STREAM: Final = ("malformed", "html", "truncated")
_SHAPES: Final = (
    "empty",
    "no-done",
    "no-finish",
    "no-usage",
    "usage-everywhere",
    "usage-on-finish",
    "crlf",
    "comments",
)
_SCRIPTS: Final = ("hang", "close", *_NO_STREAM, *_SHAPES)
_COUNTED: Final = ("slow", "cut-after", "stall-after", "garbage-after", "error-after")
_COUNTED_SCRIPT: Final = re.compile(r"([a-z-]+)-(\d{1,6})")
_HTML: Final = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_BROKEN_JSON: Final = b'{"id":"chatcmpl-demo","object":"chat.completion","choices":[{"index":0,"message":{"ro'
_BROKEN_EVENT: Final = b'data: {"id":"chatcmpl-demo","choices":[{"index":0,"delta":{"content":"\n\n'
_ERROR_EVENT: Final = ProxyError("The server had an error.", code="server_error").event()


class _Fault(NamedTuple):
    """`kind` is empty for none; `amount` is content events, and milliseconds for `slow`."""

    kind: str
    amount: int


def _refusal(script: str) -> ProxyError:
    status, type, code, message = _ERRORS[script]
    wait_s = 1.0 if script in _HEALS else None
    return ProxyError(message, status=status, type=type, code=code, retry_after_s=wait_s)


def _parse_fault(script: str) -> _Fault:
    """Return the fault. Raises the scripted error if the script is one, ClientError if there is no such script."""
    if not script or script in _SCRIPTS:
        return _Fault(script, 0)
    if script in _ERRORS:
        raise _refusal(script)
    match = _COUNTED_SCRIPT.fullmatch(script)
    if match is None or match[1] not in _COUNTED:
        known = ", ".join([*_ERRORS, *_SCRIPTS, *(f"{kind}-<n>" for kind in _COUNTED)])
        raise ClientError(f"no fault is called {script!r}; there are {known}", param="model", code="invalid_value")
    return _Fault(match[1], int(match[2]))


def _decode(body: bytes) -> Json:
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClientError(f"We could not parse the JSON body of your request: {error}", code="invalid_json") from None
    if not isinstance(given, dict):
        raise ClientError("the body must be a JSON object", code="invalid_type")
    return given


class DemoProvider:
    """One provider. `base_url` is empty until it is started; `down` makes it answer 503 to everything.

    `fault` starts as the profile's and may be changed at any time. `received` holds the last request bodies, `idle` is
    set while nothing is in flight.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.fault = profile.fault
        self.base_url = ""
        self.down = False
        self.requests = 0
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.received: deque[bytes] = deque(maxlen=16)
        self._server: web.Server | None = None
        self._listener: Listener | None = None
        self._count = 0
        self._prefixes = Prefixes()

    def __repr__(self) -> str:
        state = "down" if self.down else "up"
        return f"<DemoProvider {self.profile.name} {state} {self.base_url} {self.in_flight} in flight>"

    async def start(self) -> None:
        """Listen on a free loopback port."""
        # A client that leaves cancels its handler: the stream stops as a paid one would.
        self._server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        self._listener = Listener("127.0.0.1", 0, self._server)
        self.base_url = f"{self._listener.address}/v1"

    async def stop(self) -> None:
        """Stop listening and cut every connection, also in the middle of an answer."""
        if self._server is None or self._listener is None:
            return
        self._listener.close()
        for connection in self._server.connections:
            connection.force_close()
        await self._server.shutdown(_STOP_S)
        self._server = self._listener = None

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests += 1
        self.in_flight += 1
        self.idle.clear()
        try:
            return await self._route(request)
        except ProxyError as error:
            headers = {} if error.retry_after_s is None else {"Retry-After": f"{error.retry_after_s:.0f}"}
            return self._json(error.body(), error.status, headers)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self.idle.set()

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.down:
            raise _refusal("503")
        path = request.path
        posts = {"/v1/chat/completions": self._chat, "/v1/embeddings": self._embeddings}
        wanted = "POST" if path in posts else "GET"
        if path not in posts and path != "/v1/models" and not path.startswith("/v1/models/"):
            raise ClientError(f"Invalid URL ({request.method} {path})", status=404)
        if request.method != wanted:
            raise ClientError(
                f"Not allowed to {request.method} on {path} (HINT: {wanted})", status=405, code="method_not_supported"
            )
        if path not in posts:
            return self._json(self._models(path.removeprefix("/v1/models").lstrip("/")))
        # Not request.read(), which refuses a body over 1 MiB: a picture is larger.
        body = await request.content.read()
        self.received.append(body)
        return await posts[path](request, body)

    def _models(self, name: str) -> bytes:
        rows = {id: {"id": id, "object": "model", "created": 1735689600, "owned_by": "demo"} for id in _MODELS}
        if not name:
            return msgspec.json.encode({"object": "list", "data": list(rows.values())})
        if name not in rows:
            raise ClientError(f"The model '{name}' does not exist", status=404, param="model", code="model_not_found")
        return msgspec.json.encode(rows[name])

    async def _embeddings(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        given = _decode(body)
        fault = await self._begin(request, str(given.get("model")))
        return await self._whole(request, fault, msgspec.json.encode(demo_answers.embeddings(given)))

    async def _chat(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        chat = wire.decode_chat(body, int(time.time()))
        given = _decode(body)
        copies = int(given.get("n") or 1)
        if not 1 <= copies <= _MAX_CHOICES:
            raise ClientError(f"'n' must be between 1 and {_MAX_CHOICES}", param="n", code="invalid_value")
        fault = await self._begin(request, chat.model)
        id = self._next_id()
        reply = demo_answers.answer(given, id)
        if fault.kind == "empty":
            reply = Reply("", [], "stop")
        elif fault.kind.endswith("-after"):
            reply = demo_answers.lengthen(reply, fault.amount + 4)
        answer = Answer(id, chat, reply, copies, self._usage(given, reply, copies))
        if chat.stream and fault.kind not in _NO_STREAM:
            return await self._stream(request, fault, answer)
        # A complete answer takes as long as its stream would.
        await asyncio.sleep(self.profile.event_ms / 1000 * len(answer.deltas()))
        return await self._whole(request, fault, answer.completion(fault.kind))

    async def _begin(self, request: web.BaseRequest, model: str) -> _Fault:
        """Return the request's fault when the first event is due; a fault that never answers ends here."""
        fault = _parse_fault(model.removeprefix("fault/") if model.startswith("fault/") else self.fault)
        if fault.kind == "hang":
            await _forever()
        if fault.kind == "close":
            await _hang_up(request)
        slow_ms = fault.amount if fault.kind == "slow" else 0
        await asyncio.sleep((self.profile.first_event_ms + slow_ms) / 1000)
        return fault

    async def _whole(self, request: web.BaseRequest, fault: _Fault, body: bytes) -> web.StreamResponse:
        """Answer with `body`, or with what the fault leaves of it: faults of a stream have their like here."""
        if fault.kind == "html":
            return web.Response(body=_HTML, status=502, content_type="text/html")
        if fault.kind == "error-after":
            raise _refusal("500")
        if fault.kind in ("malformed", "garbage-after"):
            return self._json(_BROKEN_JSON)
        if fault.kind in ("truncated", "cut-after", "stall-after"):
            response = web.StreamResponse(headers=self._headers())
            response.content_type, response.content_length = "application/json", len(body)
            await response.prepare(request)
            await response.write(body[: len(body) // 2])
            await (_forever() if fault.kind == "stall-after" else _hang_up(request))
        return self._json(body)

    async def _stream(self, request: web.BaseRequest, fault: _Fault, answer: Answer) -> web.StreamResponse:
        head, body, tail = answer.events(fault.kind)
        broken = {"garbage-after": [_BROKEN_EVENT, *body[fault.amount :], *tail], "error-after": [_ERROR_EVENT]}
        rest = broken.get(fault.kind, [])
        events = [*head, *body[: fault.amount], *rest] if fault.kind.endswith("-after") else [*head, *body, *tail]
        if fault.kind == "crlf":
            events = [event.replace(b"\n", b"\r\n") for event in events]
        if fault.kind == "comments":
            events = [b": keep-alive\n\n" + event for event in events]
        response = web.StreamResponse(headers=self._headers() | {"Cache-Control": "no-cache"})
        response.content_type = "text/event-stream"
        await response.prepare(request)
        await self._play(response, events)
        if fault.kind == "cut-after":
            await _hang_up(request)
        if fault.kind == "stall-after":
            await _forever()
        return response

    async def _play(self, response: web.StreamResponse, events: list[bytes]) -> None:
        """Write events when they are due; those that are late go out in one write."""
        step_s = self.profile.event_ms / 1000
        if not step_s:
            await response.write(b"".join(events))
            return
        clock = asyncio.get_running_loop().time
        begin, sent = clock(), 0
        while sent < len(events):
            due = min(len(events), int((clock() - begin) / step_s) + 1)
            if due > sent:
                await response.write(b"".join(events[sent:due]))
                sent = due
            else:
                await asyncio.sleep(begin + sent * step_s - clock())

    def _usage(self, given: Json, reply: Reply, copies: int) -> Json:
        text = demo_answers.prompt(given)
        asked = demo_answers.tokens(text)
        cached = min(asked, self._prefixes.cached(given["model"], text.encode()))
        said = reply.text if reply.text is not None else msgspec.json.encode(reply.calls).decode()
        return wire.usage_object(wire.Usage(asked, demo_answers.tokens(said) * copies, cached))

    def _next_id(self) -> str:
        self._count += 1
        return f"{self.profile.name}-{self._count}"

    def _headers(self) -> dict[str, str]:
        return {"x-request-id": f"req-{self._next_id()}"}

    def _json(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
        headers = self._headers() | (headers or {})
        return web.Response(body=body, status=status, content_type="application/json", headers=headers)


async def _forever() -> None:
    """Wait until the connection is gone, which cancels the handler that waits here."""
    await asyncio.get_running_loop().create_future()


async def _hang_up(request: web.BaseRequest) -> None:
    """Close the socket in the middle of an answer; what was written before still arrives."""
    request.protocol.force_close()
    await _forever()
