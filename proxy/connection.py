"""One client connection: aiohttp's HTTP/1 parser, and the timers aiohttp lacks.

A chat request whose head is known takes the short lane (`lane`), while aiohttp's parser and handler rest. The next
request may take either way; what a client sends before it has its answer waits for that answer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD

from proxy.client import Sent, client_of, head_bytes
from proxy.errors import ClientError, ProxyError
from proxy.heads import Key, usual
from proxy.lane import KEEP_ALIVE_S, Lane, OnLane, Rider

# A whole head must be in within this: absolute, so that a byte now and then does not help.
HEAD_S: Final = 10.0
# A client that takes nothing for this long has its answer, and the upstream behind it, cut off.
STALL_S: Final = 60.0
# After a refusal the rest of a body is read and dropped for this long: closing on unread bytes resets the connection,
# and the client may never see why it was refused.
_LINGER_S: Final = 2.0
_UNKNOWN: Final = -1


class Connection(OnLane):
    """aiohttp's connection with our errors and timers."""

    __slots__ = ("_answered", "_begun", "_key", "_last", "_late", "_open", "_server")

    def __init__(self, server: "Server", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            server.lane,
            loop=loop,
            keepalive_timeout=KEEP_ALIVE_S,
            access_log=None,
            auto_decompress=False,
            lingering_time=_LINGER_S,
        )
        self._server = server
        self._late: asyncio.TimerHandle | None = None
        self._answered = 0  # of the requests that aiohttp has parsed
        self._last = False
        # Bytes still to come of the request that aiohttp's parser is in: 0 between two, _UNKNOWN for good once
        # anything but a chat request or a head alone has come. Only at 0 does the next byte begin a request for sure.
        self._open = 0
        self._begun = False  # a head has, behind the request that is being answered
        self._key: Key | None = None  # of the head that aiohttp's parser has taken last

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock of the first head."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the clock, and the answer: nobody is there to take it."""
        self._stop_clock()
        self._break_off()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take the short lane if the head is known, else parse."""
        if self._answering is not None:
            self._take_more(data)
        elif self._lane is None or self._open or not self._at_rest:
            self._parse(data, None)
        else:
            self._judge(data)

    def _parse(self, data: bytes, key: Key | None) -> None:
        """Give `data` to aiohttp's parser; the clock runs while a head has begun and is not complete."""
        before, asked = self._request_count, self._current_request
        fresh = self._open == 0 and self._at_rest  # a request begins with `data`
        behind = asked is not None and asked.content.is_eof()  # `data` is all the next one's
        end = key.start + key.length if key is not None else data.find(b"\r\n\r\n") + 4
        if data:
            self._open = max(_UNKNOWN, (end if key is not None else self._open) - len(data))
        super().data_received(data)
        if self._request_count != before:
            single = self._request_count == before + 1
            # Without a body it ends with its head: a GET.
            ends = fresh and single and (key is not None or self._messages[-1][1] is EMPTY_PAYLOAD)
            if ends and end == len(data):
                self._open = 0
            self._begun = ends and bool(data[end:].strip())
            # Only a head that came alone is surely the one that its handler will ask to remember.
            self._key = key if single else None
            self._stop_clock()
            if asked is not None and not asked.content.is_eof():
                # aiohttp queues its complaint about a body behind the handler that waits for that body.
                asked.content.set_exception(web.RequestPayloadError())
        elif self.idle:
            self._start_clock()
        elif behind and data.strip():
            self._begun = True

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

    # ---- the short lane ------------------------------------------------------------------------------------------

    def learn(self, request: web.BaseRequest, judged: object) -> None:
        """Let the next request with the same head as `request` take the short lane, with `judged`."""
        key, self._key = self._key, None
        lane = self._server.lane
        if lane is not None and key is not None and usual(request):
            lane.heads.learn(key, judged)

    def _process_keepalive(self) -> None:
        """Close when nothing was asked for long; aiohttp does not know of answers on the short lane."""
        if self._answering is not None:
            self._next_keepalive_close_time = self._loop.time() + KEEP_ALIVE_S
        super()._process_keepalive()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Wait for the answer, at most `timeout` seconds, and close."""
        if (answering := self._answering) is not None:
            task = answering.task() if isinstance(answering, Rider) else answering
            await asyncio.wait([task], timeout=timeout)
        if self._answering is not None:
            self._answering.cancel()
        await super().shutdown(timeout)

    # ---- refusals ------------------------------------------------------------------------------------------------

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what aiohttp's parser refused. Its own message quotes the bytes it refused, which may be a key."""
        if isinstance(exc, ConnectionError):
            return Sent(self, keep_alive=False)  # not a parser's: a handler met a client that had left
        error = ClientError("the request is not valid HTTP")
        client = client_of(request)
        client.keeps = False
        client.send(error.status, self._server.note(error), error.body())
        return client.sent()

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Say nothing: what a client sent, or that it left, is no event; our own faults are logged by the server."""

    @property
    def idle(self) -> bool:
        """True between requests."""
        return self._at_rest and self._late is None

    @property
    def expected(self) -> bool:
        """True while a head is awaited: of a client that has just come, or that has begun to send one."""
        return self._late is not None

    @property
    def _at_rest(self) -> bool:
        """True when all that was asked has been answered. aiohttp's own loop may need a turn more to notice."""
        return self._request_count == self._answered and not self._last and self._answering is None

    def answered(self, *, last: bool) -> None:
        """Note that aiohttp's handler has written an answer; `last` that the connection closes behind it."""
        self._answered += 1
        self._last = last
        if self._begun and not last:
            self._start_clock()

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
        text = f"the request head did not arrive within {self._server.head_s:g} s"
        self.refuse(ClientError(text, status=408, code="request_timeout"))

    def note(self, refusal: ProxyError) -> str:
        """Tell the server of `refusal`, and return the headers of its answer."""
        return self._server.note(refusal)

    def refuse(self, error: ProxyError) -> None:
        """Answer what nobody handles, and close."""
        if self.transport is None:
            return
        body = error.body()
        self.transport.write(head_bytes(error.status, self._server.note(error), len(body), close=True) + body)
        self.force_close()


class Server(web.Server):
    """aiohttp's low-level server, making our connections.

    `note` is told of every refusal before there is a request, and returns the headers of its answer. Without a `lane`
    aiohttp parses every head.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        note: Callable[[ProxyError], str],
        *,
        lane: Lane[Any] | None = None,
        head_s: float = HEAD_S,
        stall_s: float = STALL_S,
    ) -> None:
        # A client that leaves cancels its handler, and with it the upstream that is being paid for.
        super().__init__(handler, handler_cancellation=True)
        self.note = note
        self.lane = lane
        self.head_s = head_s
        self.stall_s = stall_s
        self.leaving = False

    def leave(self) -> None:
        """Close what is idle. Every other connection closes behind its answer, from `leaving` on."""
        self.leaving = True
        for connection in self.connections:
            if isinstance(connection, Connection) and connection.idle:
                connection.force_close()

    def expects(self) -> bool:
        """Say whether a client is about to ask for something."""
        return any(isinstance(connection, Connection) and connection.expected for connection in self.connections)

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return Connection(self, self._loop)
