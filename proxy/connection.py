"""One client connection: aiohttp's HTTP/1 parser, our own bytes out, and the timers aiohttp lacks.

Answers are written as bytes, not as `web.Response` objects; `SENT` tells aiohttp that there is nothing left to do.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import web

from proxy.errors import ClientError, ProxyError

# A whole head, and then a whole body, must be in within these: absolute, so that a byte now and then does not help.
HEAD_S: Final = 10.0
BODY_S: Final = 30.0
# A client that takes nothing for this long has its answer, and the upstream behind it, cut off.
STALL_S: Final = 60.0
# After a refusal the rest of a body is read and dropped for this long: closing on unread bytes resets the connection,
# and the client may never see why it was refused.
_LINGER_S: Final = 2.0
# Longer than the 60-75 s of usual load balancers and SDK pools, so that we are not the side that closes first.
KEEP_ALIVE_S: Final = 90.0
# Above this, head and body are written one after the other: joining copies the body (2 MB: 0.4 ms).
_JOIN: Final = 1 << 16

_REASONS: Final = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 413: "Content Too Large",
    415: "Unsupported Media Type", 422: "Unprocessable Content", 429: "Too Many Requests", 500: "Internal Server Error",
    502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip
_STATUS_LINES: Final = {status: f"HTTP/1.1 {status} {reason}\r\n".encode() for status, reason in _REASONS.items()}


class _Sent(web.StreamResponse):
    """What a handler returns when the bytes are out already."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Wait until the client has taken enough of it: nobody piles up answers by asking and not reading."""
        if isinstance(request.protocol, Connection):
            await request.protocol.drain()

    async def write_eof(self, data: Any = b"") -> None:
        """Do nothing."""


class Connection(web.RequestHandler):
    """aiohttp's connection with our errors and timers."""

    __slots__ = ("_late", "_server")

    def __init__(self, server: "Server", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=KEEP_ALIVE_S,
            access_log=None,  # type: ignore[arg-type]  # aiohttp takes None for "no access log"
            auto_decompress=False,
            lingering_time=_LINGER_S,
        )
        self._server = server
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock of the first head."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; the clock runs while a head has begun and is not complete."""
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._stop_clock()
            reading = self._current_request
            if reading is not None and not reading.content.is_eof():
                # aiohttp queues its complaint about a body behind the handler that waits for that body.
                reading.content.set_exception(web.RequestPayloadError())
        elif self.idle:
            self._start_clock()

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written. Raises ConnectionResetError when it does not."""
        while self._paused and (transport := self.transport) is not None:
            waiting = transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(self._server.stall_s):
                    await self._drain_helper()
            except TimeoutError:
                if transport.get_write_buffer_size() >= waiting:
                    transport.abort()
                    raise ConnectionResetError("the client stopped reading") from None

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what aiohttp's parser refused. Its own message quotes the bytes it refused, which may be a key."""
        if isinstance(exc, ConnectionError):
            return _Sent(keep_alive=False)  # not a parser's: a handler met a client that had left
        error = ClientError("the request is not valid HTTP")
        return send(request, error.status, self._server.note(error), error.body(), close=True)

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Say nothing: what a client sent, or that it left, is no event; our own faults are logged by the server."""

    @property
    def idle(self) -> bool:
        """True between requests."""
        return self._waiter is not None and not self._waiter.done() and self._late is None

    @property
    def staying(self) -> bool:
        """False when the sidecar is about to stop: answers are the last on their connections."""
        return not self._server.leaving

    def _start_clock(self) -> None:
        self._late = self._loop.call_later(self._server.head_s, self._too_late)

    def _stop_clock(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if self.transport is None:
            return
        text = f"the request head did not arrive within {self._server.head_s:g} s"
        error = ClientError(text, status=408, code="request_timeout")
        body = error.body()
        self.transport.write(_head(error.status, self._server.note(error), len(body), close=True) + body)
        self.force_close()


def _head(status: int, headers: Mapping[str, str], length: int | None, *, close: bool) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    if "content-type" not in headers:
        lines.append("content-type: application/json\r\n")
    if length is not None:
        lines.append(f"content-length: {length}\r\n")
    if close:
        lines.append("connection: close\r\n")
    line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} -\r\n".encode()
    return line + "".join(lines).encode("latin-1", "replace") + b"\r\n"


def send(
    request: web.BaseRequest, status: int, headers: Mapping[str, str], body: bytes, *, close: bool = False
) -> web.StreamResponse:
    """Write a whole answer; JSON unless `headers` say otherwise. Values of `headers` must be free of line ends."""
    close = close or not _keeps(request)
    transport = request.transport
    if transport is not None:
        head = _head(status, headers, len(body), close=close)
        if request.method == "HEAD":
            transport.write(head)
        elif len(body) < _JOIN:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
    return _Sent(keep_alive=not close)


def _keeps(request: web.BaseRequest) -> bool:
    """Say whether the connection stays open behind the answer."""
    return request.keep_alive and isinstance(request.protocol, Connection) and request.protocol.staying


def send_error(request: web.BaseRequest, headers: dict[str, str], error: ProxyError) -> web.StreamResponse:
    """Write `error`, and tell SDKs not to try again where that cannot help."""
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, -int(-error.retry_after_s // 1)))
    else:
        headers["x-should-retry"] = "false"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    # A body that was not read to its end would be taken for the next request.
    return send(request, error.status, headers, error.body(), close=not request.content.is_eof())


class EventStream:
    """A streamed answer: chunked, or until close for HTTP/1.0."""

    __slots__ = ("_chunked", "_keep_alive", "_protocol", "_transport")

    def __init__(self, request: web.BaseRequest) -> None:
        self._transport = request.transport
        self._protocol: Connection = request.protocol  # type: ignore[assignment]  # the server makes no other
        self._chunked = request.version >= (1, 1)
        self._keep_alive = self._chunked and _keeps(request)

    def start(self, headers: Mapping[str, str], first: bytes) -> None:
        """Write head and first events in one piece, so that no packet waits for another."""
        framing = {"transfer-encoding": "chunked"} if self._chunked else {}
        head = _head(200, {**headers, **framing}, None, close=not self._keep_alive)
        self._write(head + self._framed(first))

    async def write(self, data: bytes) -> None:
        """Write events; waits while the client reads too slowly."""
        self._write(self._framed(data))
        await self._protocol.drain()

    def end(self, error: ProxyError | None) -> web.StreamResponse:
        """Write the end of the answer, with `error` as its last event. The connection stays: its framing is whole."""
        last = self._framed(error.event()) if error is not None else b""
        self._write(last + (b"0\r\n\r\n" if self._chunked else b""))
        return _Sent(keep_alive=self._keep_alive)

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the client left")
        self._transport.write(data)


class Server(web.Server):
    """aiohttp's low-level server, making our connections.

    `note` is told of every refusal before there is a request, and returns the headers of its answer.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        note: Callable[[ProxyError], dict[str, str]],
        *,
        head_s: float = HEAD_S,
        stall_s: float = STALL_S,
    ) -> None:
        # A client that leaves cancels its handler, and with it the upstream that is being paid for.
        super().__init__(handler, handler_cancellation=True)
        self.note = note
        self.head_s = head_s
        self.stall_s = stall_s
        self.leaving = False

    def leave(self) -> None:
        """Close what is idle, and every other connection after its answer."""
        self.leaving = True
        for connection in self.connections:
            if isinstance(connection, Connection) and connection.idle:
                connection.force_close()

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return Connection(self, self._loop)
