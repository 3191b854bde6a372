"""One request's way back to its client: our own bytes, not `web.Response` objects."""

from typing import Any, Final, Protocol

from aiohttp import web

from proxy.errors import ProxyError, QuotaError

# Above this, head and body are written one after the other: joining copies the body (2 MB: 0.4 ms).
_JOIN: Final = 1 << 16

_REASONS: Final = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 413: "Content Too Large",
    415: "Unsupported Media Type", 422: "Unprocessable Content", 429: "Too Many Requests", 500: "Internal Server Error",
    502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip
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


class Writer(Protocol):
    """The part of a transport that an answer needs."""

    def write(self, data: bytes, /) -> object:
        """Write `data`, at once or when there is room."""
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


class Client:
    """Where one answer goes, whole (`send`, `fail`) or as a stream (`start`, `write`, `drain`, `end`).

    A whole answer for a client that has left is dropped; a stream says so by ConnectionResetError.

    `keeps` says whether the connection stays open behind the answer. `chunked` is False for HTTP/1.0, whose streams
    last until the connection closes; `bare` is True for HEAD.
    """

    __slots__ = ("_bare", "_begun", "_chunked", "_transport", "_wire", "keeps")

    def __init__(
        self, wire: Wire, transport: Writer | None, *, keeps: bool, chunked: bool = True, bare: bool = False
    ) -> None:
        self._wire = wire
        self._transport = transport
        self._chunked = chunked
        self._bare = bare
        self._begun = False
        self.keeps = keeps

    def sent(self) -> web.StreamResponse:
        """Return what tells aiohttp that the answer is out."""
        return Sent(self._wire, keep_alive=self.keeps)

    def send(self, status: int, headers: str, body: bytes) -> None:
        """Write a whole answer. `headers` are whole lines, whose values must be free of line ends."""
        self.keeps = self.keeps and self._wire.staying
        transport = self._transport
        if transport is None:
            return
        head = head_bytes(status, headers, len(body), close=not self.keeps)
        if self._bare:
            transport.write(head)
        elif len(body) < _JOIN:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)

    def fail(self, headers: str, error: ProxyError) -> None:
        """Write `error`, and tell SDKs not to try again where that cannot help. In a stream it is the last event."""
        if self._begun:
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
        self.keeps = self.keeps and self._chunked and self._wire.staying
        framing = "transfer-encoding: chunked\r\n" if self._chunked else ""
        head = head_bytes(200, headers + framing, None, close=not self.keeps)
        self._there().write(head + self._framed(first))
        self._begun = True

    def write(self, data: bytes) -> bool:
        """Write events. Returns False when the client has enough for now, or has left: `drain` tells which."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if data:
            transport.write(self._framed(data))
        return not self._wire.full

    async def drain(self) -> None:
        """Wait until more may be written. Raises ConnectionResetError when the client has left, or does not read."""
        await self._wire.drain()
        self._there()

    def end(self, error: ProxyError | None) -> None:
        """Write the end of a stream, with `error` as its last event. The connection stays: its framing is whole."""
        last = self._framed(error.event()) if error is not None else b""
        self._there().write(last + (b"0\r\n\r\n" if self._chunked else b""))

    def _there(self) -> Writer:
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the client left")
        return self._transport

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data


def head_bytes(status: int, headers: str, length: int | None, *, close: bool) -> bytes:
    """Return the head of an answer, JSON unless `headers` say otherwise; `length` is None for a stream."""
    lines = headers
    if "content-type: " not in headers:
        lines += "content-type: application/json\r\n"
    if length is not None:
        lines += f"content-length: {length}\r\n"
    if close:
        lines += "connection: close\r\n"
    line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} -\r\n"
    return f"{line}{lines}\r\n".encode("latin-1", "replace")
