"""Kept connections to upstreams. aiohttp opens them (DNS, happy eyeballs, TLS); from then on they are ours.

aiohttp's ClientSession costs more than the rest of a request together (URL, header and request objects, a parser and
timers for every answer). Here a connection keeps one of aiohttp's C parsers for its life, and all waits of all
connections share one timer.

A connection goes back to the pool only after a whole answer, and is used again only if nothing has come in since:
bytes that nobody asked for would be taken for the next answer.
"""

import asyncio
from collections import deque
from contextlib import suppress
from random import Random
from typing import Any, Final

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_reqrep import ClientRequest
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser, RawResponseMessage
from aiohttp.streams import StreamReader
from yarl import URL

# Idle connections: let go before the 60 s and more of usual servers, and kept at most this many per address.
IDLE_S: Final = 15.0
MAX_IDLE: Final = 256
# A connection retires after ten minutes, give or take a fifth, so that a changed DNS answer is followed.
MAX_AGE_S: Final = 600.0
# How late a timer may ring. One sweep over 1000 waiting connections costs 0.1 ms.
TICK_S: Final = 0.05
# What may be read ahead of a slow client before the upstream is told to wait (aiohttp's own default).
READ_AHEAD: Final = 1 << 16


class LateError(Exception):
    """A wait took longer than it may."""


class Link(BaseProtocol):
    """One connection. `by` is when the present wait ends, in the event loop's time; `heard` that something came back.

    `broken` is what ended it; what had come in before can still be read.
    """

    __slots__ = ("_answer", "_asked", "_waiter", "body", "broken", "by", "heard", "idle_since", "poisoned", "retires")

    def __init__(self, loop: asyncio.AbstractEventLoop, retires: float) -> None:
        super().__init__(loop, None)
        self._parser: Any = _parser(self, loop)
        self.poisoned = False
        self._waiter: asyncio.Future[None] | None = None
        self._answer: RawResponseMessage | None = None
        self._asked = False
        self.body: StreamReader | None = None
        self.broken: BaseException | None = None
        self.heard = False
        self.by = 0.0
        self.idle_since = 0.0
        self.retires = retires

    def fit(self, now: float) -> bool:
        """Say whether another request may use this connection."""
        transport = self.transport
        fresh = now < self.retires and now - self.idle_since < IDLE_S
        return fresh and transport is not None and not self.poisoned and not transport.is_closing()

    async def ask(self, head: bytes, body: bytes) -> RawResponseMessage:
        """Send a request and return the answer's head. Raises what broke the connection, LateError past `by`."""
        transport = self.transport
        if transport is None:
            raise aiohttp.ServerDisconnectedError
        self._asked = True
        self.heard = False
        if len(body) < READ_AHEAD:
            transport.write(head + body)
        else:  # joining would copy a big body once more
            transport.write(head)
            transport.write(body)
        if self._answer is None:
            await self._wait()
        answer = self._answer
        if answer is None:
            raise self.broken or aiohttp.ServerDisconnectedError()
        return answer

    async def read(self) -> bytes:
        """Return the next bytes of the body, b"" at its end. Raises what broke it, after all that came before."""
        body = self.body
        if body is None:
            return b""
        if not body._buffer and not body._eof:
            await body._wait("read")
        data = body._read_nowait(-1)
        if not data and self.broken is not None:
            raise self.broken
        return data

    def whole(self) -> bool:
        """Say whether the answer has been read to its end."""
        return self.body is not None and self.body.at_eof() and self.broken is None

    def done(self) -> bool:
        """Say whether the connection can take another request, and make it ready for that."""
        if self.poisoned or self._answer is None or self._answer.should_close or not self.whole():
            return False
        self._answer = self.body = None
        self._asked = False
        return True

    def close(self) -> None:
        """Close at once; an answer under way is lost."""
        if self.transport is not None:
            self.transport.abort()

    def ring(self) -> None:
        """End the present wait: its time is over."""
        self._end(LateError())

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # ---- what the event loop calls -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse. Bytes beyond the answer that was asked for end the connection, but not the answer."""
        if not self._asked and data:
            self._poison()
            return
        fresh = self._answer is None
        self.heard = True
        try:
            messages = self._parser.feed_data(data)[0]
        except HttpProcessingError as error:
            messages = self._salvaged(data) if fresh else []
            if not messages and not self._complete():
                self._end(error)
            self._poison()
        for message, body in messages:
            if 100 <= message.code < 200:
                continue
            if self._answer is not None:
                self._poison()
                return
            self._answer, self.body = message, body
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def _salvaged(self, data: bytes) -> list[tuple[RawResponseMessage, StreamReader]]:
        """Return the whole answer ahead of the bytes that the parser choked on, if `data` has one.

        The parser tells of nothing it read before an error, so the piece is read again, byte by byte: slow, and rare.
        """
        parser, found = _parser(self, self._loop), list[tuple[RawResponseMessage, StreamReader]]()
        with suppress(HttpProcessingError):
            for place in range(len(data)):
                found.extend(parser.feed_data(data[place : place + 1])[0])
                if found and found[-1][1].is_eof() and found[-1][0].code >= 200:
                    return found
        return []

    def _complete(self) -> bool:
        return self._answer is not None and self.body is not None and self.body.is_eof()

    def _poison(self) -> None:
        """Never use this connection again. What has come in of an answer can still be read."""
        self.poisoned = True
        if self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wake whoever waits, with what came before."""
        cut: Exception | None = None
        try:
            self._parser.feed_eof()
        except HttpProcessingError:
            cut = aiohttp.ClientPayloadError()
        if self.broken is None:
            if self._answer is None:
                cut = aiohttp.ServerDisconnectedError()
            elif self.body is not None and self.body.is_eof():
                cut = None
            self._end(cut or exc or aiohttp.ServerDisconnectedError(), whole=cut is None and exc is None)
        super().connection_lost(exc)

    def _end(self, error: BaseException, *, whole: bool = False) -> None:
        if not whole and self.broken is None:
            self.broken = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.body is not None and not self.body.is_eof():
            self.body.feed_eof()


def _parser(link: Link, loop: asyncio.AbstractEventLoop) -> Any:
    """Return aiohttp's C parser; untyped there."""
    return HttpResponseParser(link, loop, READ_AHEAD, read_until_eof=True)


class Pool:
    """All connections, by address."""

    def __init__(self, random: Random | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, force_close=True)
        self._idle: dict[URL, deque[Link]] = {}
        self._busy: set[Link] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._random = random or Random()  # noqa: S311  # nosec B311  # spreads ages, hides nothing

    async def close(self) -> None:
        """Close all connections."""
        if self._timer is not None:
            self._timer.cancel()
        for link in [*self._busy, *(link for links in self._idle.values() for link in links)]:
            link.close()
        await self._connector.close()

    def take(self, origin: URL) -> Link | None:
        """Return a kept connection to `origin`, the last used first; None when there is none."""
        links = self._idle.get(origin)
        now = self._loop.time()
        while links:
            link = links.pop()
            if link.fit(now):
                self._watch(link)
                return link
            link.close()
        return None

    async def open(self, origin: URL, connect_s: float) -> Link:
        """Return a new connection. Raises aiohttp's connection errors."""
        request = ClientRequest("POST", origin, loop=self._loop)
        # The connector's own `connect` would also count the connection as its own, and wait for its end at the close.
        timeout = aiohttp.ClientTimeout(sock_connect=connect_s, ceil_threshold=1e9)
        protocol = await self._connector._create_connection(request, [], timeout)
        transport = protocol.transport
        if transport is None:
            raise aiohttp.ServerDisconnectedError
        age_s = MAX_AGE_S * (0.8 + 0.4 * self._random.random())
        link = Link(self._loop, self._loop.time() + age_s)
        transport.set_protocol(link)
        link.connection_made(transport)
        self._watch(link)
        return link

    def give(self, origin: URL, link: Link) -> None:
        """Take a connection back: kept if its answer was whole, else closed."""
        self._busy.discard(link)
        links = self._idle.setdefault(origin, deque())
        if link.done() and len(links) < MAX_IDLE:
            link.idle_since = self._loop.time()
            links.append(link)
        else:
            link.close()

    def _watch(self, link: Link) -> None:
        link.by = float("inf")
        self._busy.add(link)
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_S, self._sweep)

    def _sweep(self) -> None:
        """Ring for every wait that is over; once there is nothing to wait for, let old idle connections go."""
        now = self._loop.time()
        for link in [link for link in self._busy if now >= link.by]:
            link.by = float("inf")
            link.ring()
        for links in self._idle.values():
            while links and now - links[0].idle_since >= IDLE_S:
                links.popleft().close()
        waiting = self._busy or any(self._idle.values())
        self._timer = self._loop.call_later(TICK_S if self._busy else 1.0, self._sweep) if waiting else None
