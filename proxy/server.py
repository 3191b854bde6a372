"""The HTTP surface: exact paths to doors, one door per kind of request, OpenAI errors from the first byte on.

The walk of a request starts and ends here: read the body, decode the envelope, let the gateway find an answer, relay
it, and close the attempt exactly once.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from secrets import token_hex
from typing import Final

from aiohttp import web

from proxy.admission import Admission
from proxy.answers import StreamAnswer
from proxy.client import Client, Going, Nobody, client_of
from proxy.connection import Connection
from proxy.desk import Desk, Doors, overrides, raw_path, send_json
from proxy.errors import ClientError, ProxyError, UpstreamError
from proxy.express import Express
from proxy.gateway import Gateway, Overrides
from proxy.lane import Lane, Rider, client_left, shutting_down
from proxy.resume import Listener, resumed
from proxy.room import Room
from proxy.router import Asked
from proxy.visit import Visit
from proxy.wire import ChatRequest, decode_chat

# Decoding and rendering take 6 ms a MiB in a busy process.
_LARGE: Final = 1 << 18


class Sidecar:
    """All doors of one process. `ready` is what /readyz tells; `shutting_down` ends what is still under way."""

    def __init__(self, gateway: Gateway, admission: Admission, room: Room, *, admin: bool) -> None:
        self.gateway = gateway
        self.tools = gateway.tools
        self.admission = admission
        self.ready = True
        self.shutting_down = False
        self.room = room
        self.in_flight = room.inside  # whoever is inside is waited for when the sidecar stops
        self._lane: Lane[Overrides] | None = None
        self._ids = count(1)
        self._large = asyncio.Lock()
        # One random prefix per process and a counter: unique, and 50x cheaper than a UUID per request.
        self._prefix = f"req_{token_hex(6)}_"
        self._desk = desk = Desk(gateway, admission, room)
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
        self._lane = Lane(self._by_task, self.room, admission.max_body, admission.body_s, self._board)
        return self._lane

    def forget(self) -> None:
        """Have all heads judged anew: other files look at other headers."""
        if self._lane is not None:
            self._lane.heads.forget()

    def _by_task(self, client: Client, said: Overrides, body: bytes) -> Going:
        """Answer a request in a task, from the beginning."""
        began, request_id = self.tools.clock(), self._next_id()
        return self._guarded(client, request_id, self._answer(client, request_id, said, body, began))

    def _board(self, client: Client, said: Overrides, body: bytes) -> Rider | Going:
        """Begin to answer a request, by the express if it can take it, else in a task."""
        if not self.ready or self.gateway.drains or len(body) > _LARGE:
            return self._by_task(client, said, body)
        began, request_id = self.tools.clock(), self._next_id()
        try:
            visit = self._visit(decode_chat(body, int(self.tools.wall())), request_id, said, began)
            self.gateway.start(visit.walk, visit.plan, said)
            if visit.plan.route.hedges:  # two attempts may have to be watched
                return self.serve(client, visit, said)
            asked = visit.walk.set_out()
        except Exception:  # whatever it is: the task meets it as well, and knows what to do
            return self._by_task(client, said, body)
        if asked.link is None:
            return self.serve(client, visit, said)
        express = Express(client, self, visit, said, asked, asked.link)
        asked.link.told = express.told
        return express

    def serve(self, client: Client, visit: Visit, said: Overrides) -> Going:
        """Return what answers a request whose walk has begun."""
        return self._guarded(client, visit.request_id, self._serve(client, visit, said))

    def settle(self, client: Client, visit: Visit, asked: Asked, body: bytes) -> bool:
        """Make of `body` the client's answer, and close the books. Returns False when it is none; nothing is done."""
        try:
            visit.answer = answer = visit.walk.arrived(asked, body)
        except Exception:  # the task meets it as well
            return False
        try:
            visit.status = 200
            visit.close()
            client.send(200, visit.head(), answer.body)
            visit.record(self.tools)
        except Exception as error:
            self._refuse(client, error, visit.request_id)
        return True

    async def _guarded(self, client: Client, request_id: str, answering: Going) -> None:
        """The outermost handler of the chat door."""
        try:
            await answering
        except ConnectionError:
            raise
        except Exception as error:
            self._refuse(client, error, request_id)

    def _refuse(self, client: Client, error: Exception, request_id: str) -> web.StreamResponse:
        """Answer a request that never got to a policy, or that we failed."""
        refusal = error if isinstance(error, ProxyError) else self._blame(error, request_id)
        client.fail(self.note(refusal, request_id), refusal)
        return client.sent()

    def _blame(self, error: Exception, request_id: str) -> ProxyError:
        """Log a fault of our own: its kind and place, as a traceback could quote what a client sent."""
        at = traceback.extract_tb(error.__traceback__)[-1]
        fault = {"error": type(error).__name__, "at": f"{at.filename}:{at.lineno}"}
        self.tools.log("fault", self.tools.wall(), request_id=request_id, **fault)
        return ProxyError("the sidecar failed; its log says where")

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
        wanted = self.gateway.generation.routes.headers
        said = overrides(http, wanted)
        with self.room.entered(batch=said.batch):
            body = await self._body(http, request_id)
            # What it says is not what other files would have looked at.
            if isinstance(http.protocol, Connection) and wanted is self.gateway.generation.routes.headers:
                http.protocol.learn(http, said)
            client = client_of(http)
            answering = self._answer(client, request_id, said, body, began)
            del body
            await self._guarded(client, request_id, answering)
        return client.sent()

    async def _body(self, http: web.BaseRequest, request_id: str) -> bytes:
        """Read the body; a client that leaves in the middle of it is told of in the log."""
        try:
            return await self.admission.read(http)
        except (ConnectionError, asyncio.CancelledError):
            if self.shutting_down:
                raise shutting_down() from None
            self.note(client_left(), request_id)
            raise

    async def _answer(self, client: Client, request_id: str, said: Overrides, body: bytes, began: float) -> None:
        """Decode, decide, route, relay; the books are closed once, at the end.

        Nobody keeps `body` longer than it may have to be sent once more.
        """
        if len(body) > _LARGE:
            request = await self._decode_large(body, request_id)
        else:
            request = decode_chat(body, int(self.tools.wall()))
        del body
        visit = self._visit(request, request_id, said, began)
        del request
        if self.gateway.drains:
            await self._outlive(client, visit, said)
        else:
            await self._serve(client, visit, said)

    def _visit(self, request: ChatRequest, request_id: str, said: Overrides, began: float) -> Visit:
        plan = self.gateway.plan(request, said)
        walk = self.gateway.walk(request, plan, request_id, said)
        return Visit(request_id, request.model, request.stream, plan, walk, began)

    async def _decode_large(self, body: bytes, request_id: str) -> ChatRequest:
        """Decode a large body, one in a turn of the event loop: 200 that come together would hold all others up."""
        try:
            async with self._large:
                request = decode_chat(body, int(self.tools.wall()))
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self.shutting_down:
                raise shutting_down() from None
            self.note(client_left(), request_id)
            raise
        return request

    async def _serve(self, client: Client, visit: Visit, said: Overrides) -> None:
        """Find an answer and relay it."""
        try:
            visit.answer = await self.gateway.go(visit.walk, visit.plan, said)
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
            visit.error = shutting_down()
            visit.status = visit.error.status
            client.fail(visit.head(), visit.error)
        finally:
            # No await here: a client that has all it wanted may cancel us, and the books must close first.
            visit.close()
            visit.record(self.tools)

    async def _outlive(self, client: Client, visit: Visit, said: Overrides) -> None:
        """Serve in a task of its own, which goes on when the client has left, if the provider asked then drains."""
        serving = asyncio.get_running_loop().create_task(self._to_the_end(client, visit, said))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            if not self.shutting_down and visit.drains():
                self.in_flight.add(serving)  # it keeps its place
                serving.add_done_callback(self.in_flight.discard)
                raise
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            if not self.shutting_down:
                raise

    async def _to_the_end(self, client: Client, visit: Visit, said: Overrides) -> None:
        try:
            await self._serve(client, visit, said)
        except Exception as error:
            if not visit.walk.left:
                raise
            if not isinstance(error, ConnectionError):
                self._blame(error, visit.walk.request_id)

    async def _relay(self, client: Client, visit: Visit, answer: StreamAnswer) -> None:
        """Pass a stream on. A fault in it becomes an error event and never a clean end."""
        try:
            client.start(visit.head(), answer.first)
            await (self._go_on(client, visit, answer) if visit.resumes else answer.pour(client))
        except ConnectionError:
            if visit.drains() and isinstance(visit.answer, StreamAnswer):
                with suppress(UpstreamError, ConnectionError):
                    await visit.answer.pour(Nobody())
            raise
        except UpstreamError as error:
            visit.error = error
        except asyncio.CancelledError:
            if not self.shutting_down:
                raise
            visit.error = shutting_down()
        visit.status = 200
        visit.close()
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
            raise shutting_down()
        return send_json(http, request_id, {"status": "ok"})

    async def _status(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        own = {"ready": self.ready, "max_in_flight": self._desk.most()}
        return send_json(http, request_id, {**self.gateway.status(), **own})
