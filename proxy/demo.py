"""Providers that need no key and no network: real HTTP servers on loopback that speak OpenAI's wire.

    model           answer
    echo            the last user message, word by word; any id that is not in this table does the same
    lorem           max_tokens words of one token each, 40 if nothing is asked
    fixed           always the same sentence
    fault/<name>    a fault: `demo_faults` lists them, `demo_plays` has their bytes

What is said is decided in `demo_answers`; here are the sockets, the framing and the clock. Nothing is kept
per request, so that a thousand streams at once cost little; late events go out together, as any real server's do.
"""

import asyncio
import time
from collections import deque
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

from proxy import demo_answers, demo_faults, demo_plays, wire
from proxy.demo_answers import Answer, Prefixes, Reply
from proxy.demo_faults import PREFIX, REFUSALS, Fault
from proxy.demo_plays import Scene
from proxy.demo_schema import Json
from proxy.demo_words import OpenAI, Vectors, Words, decode
from proxy.errors import ClientError, ProxyError
from proxy.listener import Listener
from proxy.policy import Latency, ModelRow, Price

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

    def row(self) -> ModelRow:
        """Return its model as a catalog would list it."""
        return ModelRow(
            provider=self.name,
            id="echo",
            quality=self.quality,
            price=Price(input=self.price_input, output=self.price_output, cached_input=self.price_cached),
            latency=Latency(p50_ms=self.p50_ms, p99_ms=self.p99_ms),
            features=list(self.features),
        )


PROFILES: Final = (
    Profile(
        "thrifty", 40, 4, price_input=0.10, price_cached=0.025, price_output=0.40, quality=5, p50_ms=120, p99_ms=300
    ),
    Profile("swift", 5, 1, price_input=0.60, price_cached=0.15, price_output=2.40, quality=6, p50_ms=25, p99_ms=80),
    Profile("sage", 20, 2, price_input=3.00, price_cached=0.30, price_output=15.00, quality=9, p50_ms=60, p99_ms=180),
)


class _Way:
    """The way to a client around aiohttp, for bytes that it would not write."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request

    def write(self, data: bytes) -> None:
        """Write `data`."""
        self.transport.write(data)

    async def drain(self) -> None:
        """Wait until more may come. Raises ConnectionResetError when the client has left."""
        await self._request.protocol._drain_helper()

    @property
    def transport(self) -> asyncio.Transport:
        """The connection. Raises ConnectionResetError when it is gone."""
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError
        return transport


class _Played(web.StreamResponse):
    """What tells aiohttp that an answer is out already."""

    def __init__(self, request: web.BaseRequest) -> None:
        super().__init__()
        self._keep_alive = request.keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing."""


def _overloaded() -> ProxyError:
    status, type, code, message, wait_s = REFUSALS["503"]
    return ProxyError(message, status=status, type=type, code=code, retry_after_s=wait_s)


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
            raise _overloaded()
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
        given = decode(body)
        fault = self._fault(str(given.get("model")))
        await asyncio.sleep(self.profile.first_event_ms / 1000)
        whole = msgspec.json.encode(demo_answers.embeddings(given))
        return await self._fail(request, fault, Vectors(self._next_id(), whole)) if fault.kind else self._json(whole)

    async def _chat(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        chat = wire.decode_chat(body, int(time.time()))
        given = decode(body)
        copies = int(given.get("n") or 1)
        if not 1 <= copies <= _MAX_CHOICES:
            raise ClientError(f"'n' must be between 1 and {_MAX_CHOICES}", param="n", code="invalid_value")
        fault = self._fault(chat.model)
        await asyncio.sleep(self.profile.first_event_ms / 1000)
        id = self._next_id()
        reply = demo_answers.answer(given, id)
        if fault.words:
            reply = demo_answers.lengthen(reply, fault.words)
        answer = Answer(id, chat, reply, copies, self._usage(given, reply, copies))
        if fault.kind:
            return await self._fail(request, fault, OpenAI(answer))
        if chat.stream:
            return await self._stream(request, answer)
        # A complete answer takes as long as its stream would.
        await asyncio.sleep(self.profile.event_ms / 1000 * len(answer.deltas()))
        return self._json(answer.completion(""))

    def _fault(self, model: str) -> Fault:
        return demo_faults.parse(model.removeprefix(PREFIX) if model.startswith(PREFIX) else self.fault)

    async def _fail(self, request: web.BaseRequest, fault: Fault, words: Words) -> web.StreamResponse:
        """Play a fault around aiohttp; one that does not end well for its connection never returns."""
        play = demo_plays.play(Scene(fault, words, reused=request.protocol._request_count > 1))
        way = _Way(request)
        await demo_plays.perform(play._replace(pause_s=max(play.pause_s, self.profile.event_ms / 1000)), way)
        if play.then == "reset":
            way.transport.abort()
        elif play.then in ("close", "linger"):
            request.protocol.force_close()  # what was written before still arrives
        if play.then != "keep":
            await asyncio.get_running_loop().create_future()  # until the connection is gone, which cancels this
        return _Played(request)

    async def _stream(self, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        head, body, tail = answer.events("")
        response = web.StreamResponse(headers=self._headers() | {"Cache-Control": "no-cache"})
        response.content_type = "text/event-stream"
        await response.prepare(request)
        await self._play(response, [*head, *body, *tail])
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
