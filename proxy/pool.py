"""Kept connections to upstreams. aiohttp opens them (DNS, happy eyeballs, TLS); from then on they are ours.

aiohttp's ClientSession costs more than the rest of a request together (URL, header and request objects, a parser and
timers for every answer). Here all waits of all connections share one timer.

A connection goes back to the pool only after a whole answer, and is used again only if nothing has come in since:
bytes that nobody asked for would be taken for the next answer.
"""

import asyncio
from collections import deque
from random import Random
from typing import Final

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from proxy.link import Link

# Idle connections: let go before the 60 s and more of usual servers, and kept at most this many per address.
IDLE_S: Final = 15.0
MAX_IDLE: Final = 1024
# A connection retires after ten minutes, give or take a fifth, so that a changed DNS answer is followed.
MAX_AGE_S: Final = 600.0
# How late a timer may ring. One sweep over 1000 waiting connections costs 0.1 ms.
TICK_S: Final = 0.05


class Pool:
    """All connections, by origin ("https://host:port")."""

    def __init__(self, random: Random | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, force_close=True)
        self._idle: dict[str, deque[Link]] = {}
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

    def take(self, origin: str) -> Link | None:
        """Return a kept connection to `origin`, the last used first; None when there is none."""
        links = self._idle.get(origin)
        now = self._loop.time()
        while links:
            link = links.pop()
            if now < link.retires and now - link.idle_since < IDLE_S and link.usable:
                self._busy.add(link)
                if self._timer is None:
                    self._watch()
                return link
            link.close()
        return None

    async def open(self, origin: str, connect_s: float) -> Link:
        """Return a new connection. Raises aiohttp's connection errors."""
        request = ClientRequest("POST", URL(origin, encoded=True), loop=self._loop)
        # The connector's own `connect` would also count the connection as its own, and wait for its end at the close.
        timeout = aiohttp.ClientTimeout(sock_connect=connect_s, ceil_threshold=1e9)
        protocol = await self._connector._create_connection(request, [], timeout)
        transport = protocol.transport
        if transport is None:
            raise aiohttp.ServerDisconnectedError
        age_s = MAX_AGE_S * (0.8 + 0.4 * self._random.random())
        link = Link(self._loop, self._loop.time() + age_s, origin)
        transport.set_protocol(link)
        link.connection_made(transport)
        self._busy.add(link)
        if self._timer is None:
            self._watch()
        return link

    def give(self, link: Link) -> None:
        """Take a connection back: kept if its answer was whole, else closed."""
        self._busy.discard(link)
        links = self._idle.get(link.origin)
        if links is None:
            links = self._idle[link.origin] = deque()
        if link.done() and len(links) < MAX_IDLE:
            link.idle_since = self._loop.time()
            links.append(link)
        else:
            link.close()

    def _watch(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._sweep)

    def _sweep(self) -> None:
        """Ring for every wait that is over; once there is nothing to wait for, let old idle connections go."""
        now = self._loop.time()
        for link in list(self._busy):
            link.late(now)
        for links in self._idle.values():
            while links and now - links[0].idle_since >= IDLE_S:
                links.popleft().close()
        waiting = self._busy or any(self._idle.values())
        self._timer = self._loop.call_later(TICK_S if self._busy else 1.0, self._sweep) if waiting else None
