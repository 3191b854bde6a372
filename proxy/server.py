"""The HTTP surface: exact paths to doors, one door per kind of request, OpenAI errors from the first byte on.

The walk of a request starts and ends here: read the body, decode the envelope, let the gateway find an answer, relay
it, and close the attempt exactly once.
"""

import asyncio
from itertools import count
from secrets import token_hex
from typing import Any
from urllib.parse import quote

from aiohttp import web

from proxy.admission import Admission
from proxy.connection import Connection, EventStream, send, send_error
from proxy.desk import Desk, Doors, overrides, raw_path, send_json
from proxy.errors import ClientError, ProxyError, UpstreamError
from proxy.gateway import Gateway, Plan
from proxy.log import short
from proxy.router import Answer, StreamAnswer, Walk
from proxy.wire import ChatRequest, decode_chat


class Sidecar:
    """All doors of one process. `ready` and `draining` are what /readyz tells."""

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
        return await self._handle(request, self._main)

    async def handle_admin(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request on the admin port."""
        return await self._handle(request, self._admin)

    async def _handle(self, request: web.BaseRequest, doors: dict[str, Doors]) -> web.StreamResponse:
        """The outermost handler: nothing gets past it."""
        protocol = request.protocol
        if isinstance(protocol, Connection):
            protocol.head_done()
        request_id = f"{self._prefix}{next(self._ids)}"
        try:
            return await self._enter(request, request_id, doors)
        except ProxyError as error:
            return send_error(request, {"x-request-id": request_id}, error)
        except ConnectionError:
            raise
        except Exception as error:  # our own fault: one line without a traceback's values, and a clean answer
            where = error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            at = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where is not None else None
            self.tools.log("fault", self.tools.wall(), request_id=request_id, error=type(error).__name__, at=at)
            return send_error(request, {"x-request-id": request_id}, ProxyError("the sidecar failed; see its log"))

    async def _enter(self, request: web.BaseRequest, request_id: str, doors: dict[str, Doors]) -> web.StreamResponse:
        path = raw_path(request)
        method = "GET" if request.method == "HEAD" else request.method
        self.admission.check_caller(request.headers)
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
            raise ClientError(f"{path} takes {allowed}, not {method[:20]}", status=405, code="method_not_allowed")
        return await door(request, request_id)

    # ---- the main door ------------------------------------------------------------------------------------------

    async def _chat(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        began = self.tools.clock()
        body = await self.admission.read(http)
        request = decode_chat(body, int(self.tools.wall()))
        said = overrides(http)
        plan = self.gateway.plan(request, said)
        walk = self.gateway.walk(request, plan, request_id, said)
        task = asyncio.current_task()
        if task is not None:
            self.in_flight.add(task)
        answer: Answer | StreamAnswer | None = None
        outcome: ProxyError | None = None
        status = 499  # nginx's word for "the client left"; replaced as soon as there is an answer
        try:
            answer = await self.gateway.go(walk, plan, said)
            status = 200
            headers = self._headers(request_id, plan, walk, answer, began)
            if isinstance(answer, StreamAnswer):
                outcome, response = await self._relay(http, answer, headers)
                return response
            if request.stream:
                headers["content-type"] = "text/event-stream; charset=utf-8"
            return send(http, 200, headers, answer.body)
        except ProxyError as error:
            outcome, status = error, error.status
            headers = self._headers(request_id, plan, walk, None, began)
            return send_error(http, headers, error)
        finally:
            if task is not None:
                self.in_flight.discard(task)
            if isinstance(answer, StreamAnswer):
                await asyncio.shield(answer.close())
            self._account(request, request_id, plan, walk, (began, status, answer, outcome))

    async def _relay(
        self, http: web.BaseRequest, answer: StreamAnswer, headers: dict[str, str]
    ) -> tuple[ProxyError | None, web.StreamResponse]:
        """Pass a stream on. A fault in it becomes an error event and never a clean end."""
        headers["content-type"] = "text/event-stream; charset=utf-8"
        headers["cache-control"] = "no-cache"
        stream = EventStream(http)
        stream.start(headers, answer.first)
        try:
            while piece := await answer.next():
                await stream.write(piece)
        except UpstreamError as error:
            return error, stream.end(error.event(), keep_alive=False)
        except asyncio.CancelledError:
            await answer.close(asyncio.CancelledError())
            if not self.shutting_down:
                raise
            last = ProxyError("the sidecar is shutting down", status=503, code="shutting_down")
            return last, stream.end(last.event(), keep_alive=False)
        except ConnectionError as error:
            await answer.close(error)
            raise
        return None, stream.end(b"", keep_alive=http.keep_alive)

    async def _readyz(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        if not self.ready:
            raise ProxyError("draining", status=503, code="shutting_down")
        return send_json(http, request_id, {"status": "ok"})

    async def _status(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        own = {"ready": self.ready, "in_flight": len(self.in_flight)}
        return send_json(http, request_id, {**self.gateway.status(), **own})

    def _headers(
        self, request_id: str, plan: Plan, walk: Walk, answer: Answer | StreamAnswer | None, began: float
    ) -> dict[str, str]:
        attempts = walk.attempts + (answer is not None)
        upstream_ms = walk.upstream_s * 1000
        proxy_ms = (self.tools.clock() - began) * 1000 - upstream_ms
        headers = {
            "x-request-id": request_id,
            "x-sidecar-policy": _plain(plan.route.name),
            "x-sidecar-attempts": str(attempts),
            "server-timing": f"proxy;dur={proxy_ms:.3f}, upstream;dur={upstream_ms:.3f}",
        }
        if answer is not None:
            headers["x-sidecar-upstream"] = _plain(answer.attempt.upstream.name)
            if answer.attempt.rendered.dropped:
                headers["x-sidecar-dropped"] = ", ".join(answer.attempt.rendered.dropped)
        elif walk.failed:
            headers["x-sidecar-upstream"] = _plain(walk.failed[-1][0].name)
        return headers

    def _account(
        self,
        request: ChatRequest,
        request_id: str,
        plan: Plan,
        walk: Walk,
        ending: tuple[float, int, Answer | StreamAnswer | None, ProxyError | None],
    ) -> None:
        """Count the request and write its log line: who, how long, how much, never what was said."""
        began, status, answer, outcome = ending
        seconds = self.tools.clock() - began
        metrics = self.tools.metrics
        metrics.requests.add((plan.route.name, request.mode.value, str(status)))
        metrics.duration.add(seconds)
        attempt = answer.attempt if answer is not None else None
        if isinstance(answer, Answer) or answer is None:
            metrics.overhead.add(max(0.0, seconds - walk.upstream_s))
        usage = attempt.usage if attempt is not None else None
        self.tools.log(
            "request",
            self.tools.wall(),
            request_id=request_id,
            policy=plan.route.name,
            model=short(request.model),
            upstream=short(attempt.upstream.name) if attempt is not None else None,
            mode=request.mode.value,
            status=status,
            attempts=walk.attempts + (attempt is not None),
            ms=round(seconds * 1000, 3),
            upstream_ms=round(walk.upstream_s * 1000, 3),
            first_token_ms=round(attempt.first_s * 1000, 3) if attempt is not None and attempt.first_s else None,
            finish=answer.finish if answer is not None else None,
            input_tokens=usage.input if usage is not None else None,
            output_tokens=usage.output if usage is not None else None,
            usd=attempt.usd if attempt is not None else None,
            error=outcome.code or outcome.type if outcome is not None else None,
        )


def _plain(name: str) -> str:
    """Return `name` fit for a header: made-up model names may hold anything."""
    return name if name.isascii() and name.isprintable() else quote(name, safe="/:@.-_ ")
