"""One request's way back to its client: our own bytes, not `web.Response` objects."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web

from proxy.errors import ProxyError, QuotaError

# So many bytes of a stream are read on when its client has left (a complete answer may be as long).
_FOR_NOBODY: Final = 32 << 20
# Above this, head and body are not joined: that copies the body (2 MB: 0.4 ms).
_JOIN: Final = 1 << 16

_REASONS: Final = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 413: "Content Too Large",
    415: "Unsupported Media Type", 422: "Unprocessable Content", 429: "Too Many Requests", 500: "Internal Server Error",
    502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip
Going = Coroutine[Any, Any, None]
_STATUS_LINES: Final = {status: f"HTTP/1.1 {status} {reason}\r\n" for status, reason in _REASONS.items()}


class Wire(Protocol):
    """The connection behind a client, as far as an answer goes."""

    @property
    def staying(self) -> bool:
        """False when answers are the last on their connections."""
        ...

    @property
    def full(self) -> bool:
        """True while the client takes less than is written."""
        ...

    async def drain(self) -> None:
        """Wait until the client has taken enough. Raises ConnectionResetError when it does not."""
        ...

    def answered(self, *, last: bool) -> None:
        """Note that an answer that aiohttp waits for is out."""
        ...

    def switch(self, client: "Client", answering: Going) -> asyncio.Task[None]:
        """Let a task answer a request that has had none."""
        ...

    def arrive(self, client: "Client") -> None:
        """Note that a request is answered that has no task."""
        ...

    def refuse(self, error: ProxyError) -> None:
        """Answer `error` and close."""
        ...


class Writer(Protocol):
    """The part of a transport that an answer needs."""

    def write(self, data: bytes, /) -> object:
        """Write `data`, at once or when there is room."""
        ...

    def writelines(self, list_of_data: Iterable[bytes], /) -> object:
        """Write several pieces, which need not be joined for that."""
        ...

    def is_closing(self) -> bool:
        """Return True once it is closed or about to be."""
        ...


class Sent(web.StreamResponse):
    """What a handler returns to aiohttp when the bytes are out already."""

    def __init__(self, wire: Wire, *, keep_alive: bool) -> None:
        super().__init__()
        self._wire = wire
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Wait until the client has taken enough of it: nobody piles up answers by asking and not reading."""
        await self._wire.drain()

    async def write_eof(self, data: Any = b"") -> None:
        """Tell the connection."""
        self._wire.answered(last=not self._keep_alive)


class Client(msgspec.Struct, eq=False):
    """Where one answer goes, whole (`send`, `fail`) or as a stream (`start`, `write`, `drain`, `end`).

    A whole answer for a client that has left is dropped; a stream says so by ConnectionResetError.

    `wire` is the connection. `keeps` says whether it stays open behind the answer. `chunked` is False for HTTP/1.0,
    whose streams last until the connection closes; `bare` is True for HEAD.
    """

    wire: Wire
    transport: Writer | None
    keeps: bool
    chunked: bool = True
    bare: bool = False
    begun: bool = False

    def sent(self) -> web.StreamResponse:
        """Return what tells aiohttp that the answer is out."""
        return Sent(self.wire, keep_alive=self.keeps)

    def send(self, status: int, headers: str, body: bytes) -> None:
        """Write a whole answer. `headers` are whole lines, whose values must be free of line ends."""
        self.keeps = self.keeps and self.wire.staying
        transport = self.transport
        if transport is None or transport.is_closing():  # to which uvloop would raise RuntimeError
            return
        head = head_bytes(status, headers, len(body), close=not self.keeps)
        if self.bare:
            transport.write(head)
        elif len(body) < _JOIN:
            transport.write(head + body)
        else:
            transport.writelines((head, body))

    def fail(self, headers: str, error: ProxyError) -> None:
        """Write `error`, and tell SDKs not to try again where that cannot help. In a stream it is the last event."""
        if self.begun:
            self.keeps = False
            self.end(error)
            return
        if error.retry_after_s is not None:
            headers += f"retry-after: {max(1, -int(-error.retry_after_s // 1))}\r\n"
        if error.retry_after_s is None or isinstance(error, QuotaError):
            headers += "x-should-retry: false\r\n"
        if error.status == 401:
            headers += "www-authenticate: Bearer\r\n"
        self.send(error.status, headers, error.body())

    def start(self, headers: str, first: bytes) -> None:
        """Write head and first events in one piece, so that no packet waits for another."""
        self.keeps = self.keeps and self.chunked and self.wire.staying
        framing = "transfer-encoding: chunked\r\n" if self.chunked else ""
        head = head_bytes(200, headers + framing, None, close=not self.keeps)
        self._there().write(head + self._framed(first))
        self.begun = True

    def write(self, data: bytes) -> bool:
        """Write events. Returns False when the client has enough for now, or has left: `drain` tells which."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        if data:
            transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)
        return not self.wire.full

    async def drain(self) -> None:
        """Wait until more may be written. Raises ConnectionResetError when the client has left, or does not read."""
        await self.wire.drain()
        self._there()

    def end(self, error: ProxyError | None) -> None:
        """Write the end of a stream, with `error` as its last event. The connection stays: its framing is whole."""
        last = self._framed(error.event()) if error is not None else b""
        self._there().write(last + (b"0\r\n\r\n" if self.chunked else b""))

    def _there(self) -> Writer:
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the client left")
        return self.transport

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked and data else data


class Nobody:
    """Reads the rest of a stream in the place of a client that has left, up to a bound."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _FOR_NOBODY

    def write(self, data: bytes) -> bool:
        """Count `data`. Returns False when that is enough."""
        self._left -= len(data)
        return self._left > 0

    async def drain(self) -> None:
        """Raise ConnectionResetError when that is enough."""
        if self._left <= 0:
            raise ConnectionResetError("enough was read for nobody")


def client_of(request: web.BaseRequest) -> Client:
    """Return where the answer to a request that aiohttp has parsed goes."""
    # A body that was not read to its end would be taken for the next request.
    keeps = request.keep_alive and request.content.is_eof()
    wire: Wire = request.protocol  # type: ignore[assignment]  # a Connection: our server makes no other
    chunked, bare = request.version >= (1, 1), request.method == "HEAD"
    return Client(wire, request.transport, keeps=keeps, chunked=chunked, bare=bare)


def send(request: web.BaseRequest, status: int, headers: str, body: bytes) -> web.StreamResponse:
    """Write a whole answer to a request that aiohttp has parsed."""
    client = client_of(request)
    client.send(status, headers, body)
    return client.sent()


def head_bytes(status: int, headers: str, length: int | None, *, close: bool) -> bytes:
    """Return the head of an answer, JSON unless `headers` say otherwise; `length` is None for a stream."""
    kind = "" if headers.find("content-type: ") >= 0 else "content-type: application/json\r\n"
    size = "" if length is None else f"content-length: {length}\r\n"
    last = "connection: close\r\n" if close else ""
    line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} -\r\n"
    return f"{line}{headers}{kind}{size}{last}\r\n".encode("latin-1", "replace")
