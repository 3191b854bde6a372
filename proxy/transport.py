"""The only place that holds upstream sockets, and the border where foreign errors become ours.

One public verb, `Transport.send`: it returns as soon as the status line and headers are there. Every wait has an
absolute end (`by`, in the event loop's time), so bytes that drip in cannot push a timer on.
"""

import asyncio
import zlib
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from proxy import __version__
from proxy.errors import UnavailableError, UpstreamError, UpstreamTimeoutError
from proxy.framing import Answer
from proxy.link import LateError, Link
from proxy.pool import Pool

# A complete answer larger than this is a fault: it has to be held in memory to be checked (8 x the largest recorded).
MAX_ANSWER: Final = 32 << 20
# And of an error's text nobody reads more than this; an endless one is as good as none.
MAX_ERROR: Final = 256 << 10
# After an answer's end its connection is worth waiting this long for, until the last framing bytes are in.
_LINGER_S: Final = 0.2
# Heads of requests are kept ready per address and set of headers; reloads leave old ones behind.
_MAX_HEADS: Final = 1024


class Received:
    """An upstream's answer: head read, body not yet."""

    __slots__ = ("_link", "_transport", "headers", "status")

    def __init__(self, transport: "Transport", link: Link, head: Answer) -> None:
        self._transport = transport
        self._link: Link | None = link
        self.status = head.code
        self.headers: Mapping[str, str] = head.headers

    async def next(self, by: float) -> bytes:
        """Return the next bytes, b"" at the end. Raises UpstreamTimeoutError past `by`, UnavailableError when cut."""
        link = self._link
        if link is None:
            return b""
        link.by = by
        try:
            data = await link.read()
        except _FOREIGN as error:
            raise _translated(error, "the upstream fell silent") from error
        if link.whole():
            self.abort()  # nothing more will come: the connection is free for the next request
        return data

    async def pour(self, sink: Callable[[bytes], bool], idle_s: float, deadline: float) -> None:
        """Hand the next bytes to `sink` as they come, b"" at the end, until it returns False. Raises like `next`: when
        nothing came for `idle_s`, and past `deadline`.
        """
        link = self._link
        if link is None:
            sink(b"")
            return
        try:
            await link.pour(sink, idle_s, deadline)
        except _FOREIGN as error:
            raise _translated(error, "the upstream fell silent") from error
        if link.whole():
            self.abort()

    async def read_error(self, by: float) -> bytes:
        """Return the body of an error, b"" when it is over MAX_ERROR: its status says enough. Raises like `next`."""
        parts, size = [], 0
        while size <= MAX_ERROR and (part := await self.next(by)):
            parts.append(part)
            size += len(part)
        return b"".join(parts) if size <= MAX_ERROR else b""

    async def read(self, by: float) -> bytes:
        """Return the whole body. Raises UnavailableError when it is cut short or over MAX_ANSWER."""
        link = self._link
        if link is not None and (body := link.came()) is not None:
            link.take()
            self.abort()  # all of it came with its head: so with nearly every answer
            return body
        first = await self.next(by)
        if self._link is None:
            return first
        parts, size = [first], len(first)
        while first and (part := await self.next(by)):
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER:
                raise UnavailableError("the upstream's answer is over 32 MiB", code="response_too_large")
        return first if len(parts) == 1 else b"".join(parts)

    def finish(self) -> None:
        """Let go of an answer that is complete. Its connection is kept if the last framing bytes come soon."""
        link = self._link
        if link is not None and not link.complete():
            self._transport.linger(link)
        elif link is not None:
            self._transport.pool.give(link)
        self._link = None

    def abort(self) -> None:
        """Let go of the answer; if it is not whole, its connection closes."""
        if self._link is not None:
            self._transport.pool.give(self._link)
            self._link = None


class Transport:
    """Connections to all upstreams. Create and close it inside the running loop."""

    def __init__(self) -> None:
        self.pool = Pool()
        self._lingering: set[asyncio.Task[None]] = set()
        self._heads: dict[tuple[str, int], tuple[str, bytes, Mapping[str, str]]] = {}

    async def close(self) -> None:
        """Close all connections."""
        for task in self._lingering:
            task.cancel()
        await self.pool.close()

    def begin(self, url: str, headers: Mapping[str, str], body: bytes, by: float) -> Link | None:
        """POST `body` over a kept connection, at once; None when there is none. `send` tells what comes of it."""
        origin, head = self._head(url, headers)
        link = self.pool.take(origin)
        if link is not None:
            link.ask(head, body, by)
        return link

    async def send(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_s: float,
        by: float,
        begun: Link | None = None,
    ) -> Received:
        """POST `body` and return the answer's head; `begun` is what `begin` has returned for it. Raises UpstreamError.

        A connection that cannot be made, or a kept one that dies before any answer, is tried once more at once: the
        one never reached the upstream, the other only met its idle timeout.
        """
        link = begun or self.begin(url, headers, body, by)
        if link is not None:
            try:
                return await self._hear(link)
            except _FOREIGN as error:
                if link.heard or isinstance(error, LateError):
                    raise _translated(error, "the upstream did not answer in time") from error
        origin, head = self._head(url, headers)
        try:
            link = await self._open(origin, connect_s, by)
            link.ask(head, body, by)
            return await self._hear(link)
        except _FOREIGN as error:
            raise _translated(error, "the upstream did not answer in time") from error

    async def _open(self, origin: str, connect_s: float, by: float) -> Link:
        wait_s = min(connect_s, by - asyncio.get_running_loop().time())
        if wait_s <= 0:  # which aiohttp would take for "no limit"
            raise TimeoutError
        try:
            return await self.pool.open(origin, wait_s)
        except aiohttp.ClientConnectorError as error:
            if isinstance(error, aiohttp.ClientSSLError):
                raise
            return await self.pool.open(origin, wait_s)

    async def _hear(self, link: Link) -> Received:
        try:
            answer = await link.hear()
        except BaseException:
            self.pool.give(link)
            raise
        received = Received(self, link, answer)
        if 300 <= answer.code < 400:
            received.abort()
            raise UnavailableError(
                f"the upstream answered with a redirect ({answer.code}), which is not followed",
                code="upstream_redirect",
            )
        return received

    def linger(self, link: Link) -> None:
        """Read the rest of a finished answer, if it comes soon, so that its connection can be kept."""
        task = asyncio.get_running_loop().create_task(self._linger(link))
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    async def _linger(self, link: Link) -> None:
        link.by = asyncio.get_running_loop().time() + _LINGER_S
        try:
            while await link.read():
                pass
        except _FOREIGN:
            pass
        finally:
            self.pool.give(link)

    def _head(self, url: str, headers: Mapping[str, str]) -> tuple[str, bytes]:
        """Return the address and the request's head up to the digits of its length, made once per set of headers."""
        # `headers` is kept with its id, so that no other object can get that id.
        found = self._heads.get((url, id(headers)))
        if found is not None:
            return found[0], found[1]
        parsed = URL(url, encoded=True)
        lines = {"Host": parsed.host_port_subcomponent or "", "User-Agent": f"llm-sidecar/{__version__}", **headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        head = f"POST {parsed.raw_path_qs} HTTP/1.1\r\n{text}Accept: */*\r\nContent-Length: ".encode()
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        origin = str(parsed.origin())
        self._heads[url, id(headers)] = origin, head, headers
        return origin, head


_FOREIGN: Final = (aiohttp.ClientError, HttpProcessingError, OSError, LateError, zlib.error)


def _translated(error: Exception, late: str) -> UpstreamError:
    """Return our error for one of aiohttp's or the system's. The order matters: the classes overlap."""
    if isinstance(error, aiohttp.ClientSSLError):
        return UnavailableError("no secure connection to the upstream could be made", code="upstream_tls_error")
    if isinstance(error, aiohttp.ServerTimeoutError | TimeoutError):
        return UpstreamTimeoutError("no connection to the upstream could be made in time")
    if isinstance(error, aiohttp.ClientConnectorError):
        return UnavailableError("the upstream cannot be reached", code="upstream_unreachable")
    broken = _broken(error, late)
    broken.possibly_billed = True  # the request was on its way
    return broken


def _broken(error: Exception, late: str) -> UpstreamError:
    if isinstance(error, LateError):
        return UpstreamTimeoutError(late)
    if isinstance(error, aiohttp.ClientPayloadError):
        return UnavailableError("the upstream's answer was cut short", code="upstream_truncated")
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return UnavailableError("the upstream closed the connection", code="upstream_disconnected")
    return UnavailableError("the upstream's answer is not valid HTTP", code="upstream_invalid_response")
