"""The only place that holds upstream sockets, and the border where aiohttp's errors become ours.

One public verb, `Transport.send`: it returns as soon as the status line and headers are there. Every wait has an
absolute end (`by`, in the event loop's time), so bytes that drip in cannot push a timer on.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from io import BytesIO
from typing import Final

import aiohttp
from yarl import URL

from proxy import __version__
from proxy.errors import UnavailableError, UpstreamError, UpstreamTimeoutError

# A complete answer larger than this is a fault: it has to be held in memory to be checked (8 x the largest recorded).
MAX_ANSWER: Final = 32 << 20
# aiohttp warns about raw bytes over this size; from a BytesIO it writes them in pieces.
_BIG_BODY: Final = 1 << 20
# After an answer's end the connection is worth waiting this long for, until its last framing bytes are in.
_LINGER_S: Final = 0.2

_reused: Final[ContextVar[bool]] = ContextVar("reused", default=False)
_want_fresh: Final[ContextVar[bool]] = ContextVar("want_fresh", default=False)


class _Pool(aiohttp.TCPConnector):
    """aiohttp's pool, minus a trap: it hands out idle connections that have received bytes nobody asked for, and then
    every later request on them gets the answer of the one before (aiohttp issue 13656).
    """

    async def _get(self, key, traces):  # type: ignore[no-untyped-def]  # a private method of aiohttp, typed there
        _reused.set(False)
        if _want_fresh.get():
            return None
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close:
                _reused.set(True)
                return connection
            connection.close()
        return None


class Received:
    """An upstream's answer: head read, body not yet."""

    __slots__ = ("_lingering", "_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, lingering: set[asyncio.Task[None]]) -> None:
        self._response = response
        self._lingering = lingering
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def next(self, by: float) -> bytes:
        """Return the next bytes, b"" at the end. Raises UpstreamTimeoutError past `by`, UnavailableError when cut."""
        try:
            async with asyncio.timeout_at(by):
                return await self._response.content.readany()
        except TimeoutError:
            raise UpstreamTimeoutError("the upstream fell silent") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _translated(error) from error

    async def read(self, by: float) -> bytes:
        """Return the whole body. Raises UnavailableError when it is cut short or over MAX_ANSWER."""
        parts, size = [], 0
        while part := await self.next(by):
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER:
                raise UnavailableError("the upstream's answer is over 32 MiB", code="response_too_large")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> None:
        """Let go of an answer that is complete. Its connection is kept if the last framing bytes come soon."""
        if self._response.content.at_eof():
            self.abort()
            return
        task = asyncio.get_running_loop().create_task(self._linger())
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    async def _linger(self) -> None:
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(_LINGER_S):
                while await self._response.content.readany():
                    pass
        self.abort()

    def abort(self) -> None:
        """Let go of the answer; an unread rest closes the connection."""
        self._response.close()


class Transport:
    """Connections to all upstreams. Create and close it inside the running loop."""

    def __init__(self) -> None:
        # Every default here was a fault once: 100 connections, 300 s in total, a cookie jar shared by all users,
        # proxies from the environment, redirects that carry the key elsewhere.
        self._session = aiohttp.ClientSession(
            connector=_Pool(limit=0, keepalive_timeout=15, ttl_dns_cache=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None),
            headers={"User-Agent": f"llm-sidecar/{__version__}"},
            trust_env=False,
        )
        self._lingering: set[asyncio.Task[None]] = set()
        self._urls: dict[str, URL] = {}
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}

    async def close(self) -> None:
        """Close all connections."""
        for task in self._lingering:
            task.cancel()
        await self._session.close()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes, *, connect_s: float, by: float) -> Received:
        """POST `body` and return the answer's head. Raises UpstreamError.

        A connection that cannot be made, or a kept one that dies before any answer, is tried once more at once: the
        one never reached the upstream, the other only met its idle timeout.
        """
        try:
            return await self._post(url, headers, body, connect_s, by)
        except (aiohttp.ClientConnectionError, OSError) as error:
            unsafe = isinstance(error, aiohttp.ClientSSLError | aiohttp.ServerTimeoutError | TimeoutError)
            if unsafe or not (_reused.get() or isinstance(error, aiohttp.ClientConnectorError)):
                raise _translated(error) from error
        except aiohttp.ClientError as error:
            raise _translated(error) from error
        token = _want_fresh.set(True)
        try:
            return await self._post(url, headers, body, connect_s, by)
        except (aiohttp.ClientError, OSError) as error:
            raise _translated(error) from error
        finally:
            _want_fresh.reset(token)

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes, connect_s: float, by: float) -> Received:
        try:
            async with asyncio.timeout_at(by) as timer:
                response = await self._session.post(
                    self._url(url),
                    data=body if len(body) < _BIG_BODY else BytesIO(body),
                    headers=headers,
                    allow_redirects=False,
                    timeout=self._timeout(connect_s),
                )
        except TimeoutError as error:
            if timer.expired():
                raise UpstreamTimeoutError("the upstream did not answer in time") from error
            raise
        if 300 <= response.status < 400:
            response.close()
            raise UnavailableError(
                f"the upstream answered with a redirect ({response.status}), which is not followed",
                code="upstream_redirect",
            )
        return Received(response, self._lingering)

    def _url(self, url: str) -> URL:
        # Building a URL object costs 10 us; there are as many as providers have paths.
        found = self._urls.get(url)
        if found is None:
            found = self._urls[url] = URL(url, encoded=True)
        return found

    def _timeout(self, connect_s: float) -> aiohttp.ClientTimeout:
        found = self._timeouts.get(connect_s)
        if found is None:
            found = aiohttp.ClientTimeout(total=None, sock_connect=connect_s, ceil_threshold=1e9)
            self._timeouts[connect_s] = found
        return found


def _translated(error: Exception) -> UpstreamError:
    """Return our error for one of aiohttp's or the system's. The order matters: the classes overlap."""
    if isinstance(error, aiohttp.ClientSSLError):
        return UnavailableError("no secure connection to the upstream could be made", code="upstream_tls_error")
    if isinstance(error, aiohttp.ServerTimeoutError | TimeoutError):
        return UpstreamTimeoutError("no connection to the upstream could be made in time")
    if isinstance(error, aiohttp.ClientConnectorError):
        return UnavailableError("the upstream cannot be reached", code="upstream_unreachable")
    if isinstance(error, aiohttp.ClientPayloadError):
        return UnavailableError("the upstream's answer was cut short", code="upstream_truncated")
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return UnavailableError("the upstream closed the connection", code="upstream_disconnected")
    return UnavailableError("the upstream's answer is not valid HTTP", code="upstream_invalid_response")
