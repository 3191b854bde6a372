"""The HTTP surface: exact paths to doors, one door per kind of request, OpenAI errors from the first byte on.

The walk of a request starts and ends here: read the body, decode the envelope, let the gateway find an answer, relay
it, and close the attempt exactly once.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from itertools import count
from secrets import token_hex
from typing import Any

from aiohttp import web

from proxy.admission import Admission
from proxy.answers import StreamAnswer
from proxy.client import Client
from proxy.connection import Connection, client_of
from proxy.desk import Desk, Doors, overrides, raw_path, send_json
from proxy.errors import ClientError, ProxyError, UpstreamError
from proxy.gateway import Gateway, Overrides
from proxy.lane import Lane
from proxy.resume import Listener, resumed
from proxy.visit import Visit
from proxy.wire import decode_chat


class Sidecar:
    """All doors of one process. `ready` is what /readyz tells; `shutting_down` ends what is still under way."""

    def __init__(self, gateway: Gateway, admission: Admission, *, admin: bool) -> None:
        self.gateway = gateway
        self.tools = gateway.tools
        self.admission = admission
        self.ready = True
        self.shutting_down = False
        self.in_flight: set[asyncio.Task[Any]] = set()
        self._ids = count(1)
        # One random prefix per process and a counter: unique, and 50x cheaper than a UUID per request.
        self._prefix = f"req_{token_hex(6)}_"
        desk = Desk(gateway, admission)
        chat: Doors = {"POST": self._chat}
        self._main: dict[str, Doors] = {"/v1/chat/completions": chat, "/chat/completions": chat, **desk.models()}
        self._model_door: Doors = {"GET": desk.model}
        self._free: dict[str, Doors] = {"/livez": {"GET": desk.livez}, "/readyz": {"GET": self._readyz}}
        self._admin: dict[str, Doors] = {**desk.admin(), "/status": {"GET": self._status}}
        if admin:
            self._main.update(self._admin)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request on the main port."""
        return await self._handle(request, self._main, self.admission)

    def admin(self, admission: Admission) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        """Return what answers requests on an admin port."""
        return lambda request: self._handle(request, self._admin, admission)

    async def _handle(
        self, request: web.BaseRequest, doors: dict[str, Doors], admission: Admission
    ) -> web.StreamResponse:
        """The outermost handler: nothing gets past it."""
        request_id = self._next_id()
        try:
            admission.check_caller(request.headers)
            return await self._enter(request, request_id, doors)
        except ConnectionError:
            raise  # the client left: aiohttp closes the connection
        except Exception as error:
            return self._refuse(client_of(request), error, request_id)

    def lane(self) -> Lane[Overrides]:
        """Return the short lane to the chat door, for requests whose heads have been judged on the main port."""
        admission = self.admission
        return Lane(
            lambda client, said, body: self._guarded(client, self._next_id(), said, body, self.tools.clock()),
            self.in_flight,
            admission.max_body,
            admission.body_s,
        )

    async def _guarded(self, client: Client, request_id: str, said: Overrides, body: bytes, began: float) -> None:
        """The outermost handler of the chat door."""
        try:
            await self._answer(client, request_id, said, body, began)
        except ConnectionError:
            raise
        except Exception as error:
            self._refuse(client, error, request_id)

    def _refuse(self, client: Client, error: Exception, request_id: str) -> web.StreamResponse:
        """Answer a request that never got to a policy, or that we failed."""
        if isinstance(error, ProxyError):
            refusal = error
        else:
            # Our own fault. The log gets its kind and place; a traceback could quote what a client sent.
            at = traceback.extract_tb(error.__traceback__)[-1]
            fault = {"error": type(error).__name__, "at": f"{at.filename}:{at.lineno}"}
            self.tools.log("fault", self.tools.wall(), request_id=request_id, **fault)
            refusal = ProxyError("the sidecar failed; its log says where")
        client.fail(self.note(refusal, request_id), refusal)
        return client.sent()

    def note(self, refusal: ProxyError, request_id: str = "") -> str:
        """Count and log a request that never got to a policy; returns the header lines of its answer."""
        request_id = request_id or self._next_id()
        self.tools.metrics.requests.add(("none", "none", str(refusal.status)))
        self.tools.log("refused", self.tools.wall(), request_id=request_id, status=refusal.status, code=refusal.code)
        return f"x-request-id: {request_id}\r\n"

    def _next_id(self) -> str:
        return f"{self._prefix}{next(self._ids)}"

    async def _enter(self, request: web.BaseRequest, request_id: str, doors: dict[str, Doors]) -> web.StreamResponse:
        path = raw_path(request)
        method = "GET" if request.method == "HEAD" else request.method
        free = self._free.get(path)
        if free is not None and method in free:
            return await free[method](request, request_id)
        self.admission.check_key(request.headers)
        methods = doors.get(path)
        if methods is None and doors is self._main and path.startswith(("/v1/models/", "/models/")):
            methods = self._model_door
        methods = methods or free
        if methods is None:
            raise ClientError(f"there is nothing at {path[:200]!r}", status=404, code="unknown_url")
        door = methods.get(method)
        if door is None:
            allowed = ", ".join(methods)
            text = f"{path[:200]} takes {allowed}, not {request.method[:20]}"
            refusal = ClientError(text, status=405, code="method_not_allowed")
            client = client_of(request)
            client.fail(f"{self.note(refusal, request_id)}allow: {allowed}\r\n", refusal)
            return client.sent()
        return await door(request, request_id)

    async def _chat(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        """The main door, for a request that aiohttp has parsed."""
        began = self.tools.clock()
        task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # a handler always runs in one
        self.in_flight.add(task)  # whoever is inside is waited for when the sidecar stops
        try:
            body = await self.admission.read(http)
            said = overrides(http)
            if isinstance(http.protocol, Connection):
                http.protocol.learn(http, said)
            client = client_of(http)
            await self._guarded(client, request_id, said, body, began)
        finally:
            self.in_flight.discard(task)
        return client.sent()

    async def _answer(self, client: Client, request_id: str, said: Overrides, body: bytes, began: float) -> None:
        """Decode, decide, route, relay; the books are closed once, at the end."""
        request = decode_chat(body, int(self.tools.wall()))
        plan = self.gateway.plan(request, said)
        walk = self.gateway.walk(request, plan, request_id, said)
        visit = Visit(request, request_id, plan, walk, began)
        try:
            visit.answer = await self.gateway.go(walk, plan, said)
            if isinstance(visit.answer, StreamAnswer):
                await self._relay(client, visit, visit.answer)
            else:
                visit.status = 200
                client.send(200, visit.head(), visit.answer.body)
        except ProxyError as error:
            visit.error, visit.status = error, error.status
            client.fail(visit.head(), error)
        except asyncio.CancelledError:
            if not self.shutting_down:
                raise
            visit.error = _shutting_down()
            visit.status = visit.error.status
            client.fail(visit.head(), visit.error)
        finally:
            # No await here: a client that has all it wanted may cancel us, and the books must close first.
            if isinstance(visit.answer, StreamAnswer):
                visit.answer.close()
            visit.record(self.tools)

    async def _relay(self, client: Client, visit: Visit, answer: StreamAnswer) -> None:
        """Pass a stream on. A fault in it becomes an error event and never a clean end."""
        client.start(visit.head(), answer.first)
        try:
            await (self._go_on(client, visit, answer) if visit.resumes else answer.pour(client))
        except UpstreamError as error:
            visit.error = error
        except asyncio.CancelledError:
            if not self.shutting_down:
                raise
            visit.error = _shutting_down()
        visit.status = 200
        client.end(visit.error)

    async def _go_on(self, client: Client, visit: Visit, answer: StreamAnswer) -> None:
        """Pass a stream on, and what the next upstream makes of it where it breaks off. Raises like `pour`."""
        asked, listener = visit.walk.request, Listener(client, answer.first)
        while True:
            try:
                return await answer.pour(listener)
            except UpstreamError as error:
                request = resumed(asked, listener.text)
                if request is None:
                    raise
                visit.answer = following = await visit.walk.resume(request, answer, error)
            if not isinstance(following, StreamAnswer):
                return listener.seam(following.attempt.upstream.name, following.body)
            listener.seam(following.attempt.upstream.name, following.first)
            answer = following

    async def _readyz(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        if not self.ready:
            raise _shutting_down()
        return send_json(http, request_id, {"status": "ok"})

    async def _status(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        own = {"ready": self.ready}
        return send_json(http, request_id, {**self.gateway.status(), **own})


def _shutting_down() -> ProxyError:
    return ProxyError("the sidecar is shutting down", status=503, code="shutting_down")
