"""One connection to an upstream: one request out, one answer in, and again. Opened by aiohttp, kept by `pool`.

The usual answer is read by `framing`, any other by aiohttp's parser (`foreign`). Whoever reads either pulls (`read`) or
has the pieces pushed as they come (`pour`), which saves a stream the turn of the event loop per event.
"""

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError, TransferEncodingError

from proxy.foreign import READ_AHEAD, Foreign
from proxy.framing import LAST, USUAL, Answer, BrokenError, Chunks, DeclinedError, Head, read_head


class LateError(Exception):
    """A wait took longer than it may."""


class Link(BaseProtocol):
    """One connection to `origin`. `by` is when the present wait ends, in the event loop's time; `heard` that something
    came back; `told` is called, if there is one, when whoever waits would be woken.

    `broken` is what ended it; what had come in before can still be read.
    """

    __slots__ = (
        "_asked", "_chunks", "_deadline", "_ended", "_foreign", "_head", "_held", "_idle_s", "_left", "_parts",
        "_sink", "_size", "_spoke", "_waiter", "answer", "broken", "by", "heard", "idle_since", "origin", "poisoned",
        "retires", "told",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, retires: float, origin: str = "") -> None:
        super().__init__(loop, None)
        self.origin = origin
        self.told: Callable[[], None] | None = None
        self.answer: Answer | None = None
        self.broken: BaseException | None = None
        self.by = float("inf")
        self.heard = False
        self.idle_since = 0.0
        self.poisoned = False
        self.retires = retires
        self._asked = False
        self._chunks: Chunks | None = None
        self._ended = False
        self._foreign: Foreign | None = None
        self._head = b""
        self._held = False
        self._left = 0
        self._parts: list[bytes] = []
        self._size = 0
        self._spoke = False
        self._idle_s = 0.0
        self._deadline = 0.0
        self._sink: Callable[[bytes], bool] | None = None
        self._waiter: asyncio.Future[bool] | None = None

    @property
    def usable(self) -> bool:
        """True while nothing speaks against another request on this connection."""
        return self.transport is not None and not self.poisoned and not self.transport.is_closing()

    def ask(self, head: bytes, body: bytes, by: float) -> None:
        """Send a request, its `head` but for the length; the answer's must be in at `by`. `hear` it, or be `told`."""
        self.by = by
        self._asked = True
        self.heard = False
        transport = self.transport
        if transport is None:
            return  # as `hear` will tell
        if len(body) < READ_AHEAD:
            transport.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        else:  # joining would copy a big body once more
            transport.writelines((b"%b%d\r\n\r\n" % (head, len(body)), body))

    async def hear(self) -> Answer:
        """Return the answer's head. Raises what broke the connection, LateError when it took too long."""
        if self.answer is None and self.broken is None and self.transport is not None:
            await self._wait()
        answer = self.answer
        if answer is None:
            raise self.broken or aiohttp.ServerDisconnectedError()
        return answer

    async def read(self) -> bytes:
        """Return the next bytes of the body, b"" at its end. Raises what broke it, after all that came before."""
        while not self._parts:
            if self._foreign is not None:
                data = await self._foreign.read()
                if not data and self.broken is not None:
                    raise self.broken
                return data
            if self._ended:
                return b""
            if self.broken is not None:
                raise self.broken
            await self._wait()
        return self.take()

    def came(self) -> bytes | None:
        """Return a usual answer that came in to its end at once, without taking it; None for any other."""
        return self._parts[0] if self._ended and len(self._parts) == 1 else None

    async def pour(self, sink: Callable[[bytes], bool], idle_s: float, deadline: float) -> None:
        """Hand the body to `sink` as it comes, b"" at its end, until it returns False. Raises like `read`; LateError
        after `idle_s` without a byte, and past `deadline`.

        `sink` is called from the event loop's callback: a piece costs no future and no task switch (without that an
        event of a spaced stream costs 1.15 times as much). What it raises is raised here.
        """
        while True:
            self.by = min(self._loop.time() + idle_s, deadline)
            data = await self.read()
            if not sink(data) or not data:
                return
            if self._foreign is None and not self._ended and self.broken is None:
                self._sink, self._idle_s, self._deadline = sink, idle_s, deadline
                try:
                    if await self._wait():
                        return
                finally:
                    self._sink = None

    def whole(self) -> bool:
        """Say whether the answer has been read to its end."""
        if self._parts or self.broken is not None:
            return False
        foreign = self._foreign
        return self._ended if foreign is None else foreign.body is not None and foreign.body.at_eof()

    def complete(self) -> bool:
        """Say whether the answer has come in to its end, read or not."""
        return self._ended if self._foreign is None else self._foreign.whole

    def done(self) -> bool:
        """Say whether the connection can take another request, and make it ready for that."""
        if self.poisoned or self.answer is None or self.answer.should_close or not self.whole():
            return False
        if self.transport is not None and self.transport.get_write_buffer_size():
            return False  # an early answer: half of the request is still to be sent, and may never be read
        self.answer = self._chunks = self._foreign = self._parser = None
        self._asked = self._ended = False
        return True

    def close(self) -> None:
        """Close at once; an answer under way is lost."""
        if self.transport is not None:
            self.transport.abort()

    def late(self, now: float) -> None:
        """End the present wait if it is over at `now`; a byte since the last call has begun a new one."""
        if self._spoke:
            self._spoke = False
            if self._sink is not None:
                self.by = min(now + self._idle_s, self._deadline)
        if now >= self.by:
            self.by = float("inf")
            self._end(LateError())

    async def _wait(self) -> bool:
        """Wait for the next thing to happen. Returns True when it is a sink that has had enough."""
        self._waiter = self._loop.create_future()
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _wake(self, enough: bool = False) -> None:
        if self.told is not None:
            self.told()
            return
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(enough)

    def take(self) -> bytes:
        """Take what has come in."""
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._size = 0
        if self._held:
            self._held = False
            self._resume_transport_reading()
        return data

    # ---- what the event loop calls -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read. Bytes beyond the answer that was asked for end the connection, but not the answer."""
        chunks, sink = self._chunks, self._sink
        if sink is not None and chunks is not None and (piece := chunks.one(data)) is not None:
            self._spoke = True
            self._push(sink, piece)
        elif self._foreign is not None:
            self._feed_foreign(data)
        elif self._asked and not self._ended:
            self.heard = self._spoke = True
            self._feed(data)
        elif data:
            self._poison()

    def _feed(self, data: bytes) -> None:
        chunks = self._chunks
        if self.answer is None:
            head = read_head(data)
            if head is None:
                self._decline(data)
                return
            self._feed_head(head, data)
        elif chunks is None:
            self._feed_length(data)
        elif data:
            self._feed_chunks(chunks, data)
        if self._sink is None or self._ended:
            self._wake()

    def _feed_head(self, head: Head, data: bytes) -> None:
        self.answer = LAST if head.should_close else USUAL
        body = data[head.size :]
        if head.length is not None:
            self._left = head.length
            self._feed_length(body)
            return
        self._chunks = chunks = Chunks()
        self._head = data[: head.size]
        if body:
            self._feed_chunks(chunks, body)

    def _feed_length(self, data: bytes) -> None:
        left = self._left - len(data)
        if left < 0:
            self._poison()
            data = data[:left]
            left = 0
        self._left = left
        self._ended = not left
        if data:
            self._deliver(data)

    def _feed_chunks(self, chunks: Chunks, data: bytes) -> None:
        declined: bytes | None = None
        try:
            pieces = chunks.feed(data)
        except DeclinedError as unusual:
            pieces, declined = unusual.pieces, unusual.rest
        except BrokenError as error:
            pieces = error.pieces
            self._end(TransferEncodingError("a chunk does not end where it said"))
            self._poison()
        self._ended = chunks.ended
        if chunks.rest:
            self._poison()
        if pieces:
            self._deliver(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if declined is not None:
            # At a chunk's beginning aiohttp's parser is where it is right after the head.
            self._decline(self._head + declined)
            self._wake()

    def _deliver(self, data: bytes) -> None:
        if self._sink is not None:
            self._push(self._sink, data)
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > READ_AHEAD and not self._held:
            self._held = True
            self._pause_transport_reading()

    def _push(self, sink: Callable[[bytes], bool], data: bytes) -> None:
        try:
            more = sink(data)
        except Exception as error:  # the fault of whoever pours, and told there; the event loop could only log it
            self._sink = None
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(error)
            return
        if not more:
            self._sink = None
            self._wake(enough=True)

    def _decline(self, data: bytes) -> None:
        self._chunks = None
        self._foreign = Foreign(self, self._loop)
        self._parser = self._foreign.parser
        self._feed_foreign(data)

    def _feed_foreign(self, data: bytes) -> None:
        foreign = self._foreign
        if foreign is None or not self._asked:
            return
        self.heard = True
        try:
            foreign.feed(data)
        except HttpProcessingError as error:
            self._end(error)
        if foreign.excess:
            self._poison()
        if self.answer is None and (message := foreign.message) is not None:
            self.answer = Answer(message.code, message.headers, message.should_close)
            self._wake()

    def _poison(self) -> None:
        """Never use this connection again. What has come in of an answer can still be read."""
        self.poisoned = True
        if self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wake whoever waits, with what came before."""
        if self._asked and not self.complete():
            foreign = self._foreign
            ends_here = foreign is not None and foreign.end()
            if self.answer is None:
                self._end(aiohttp.ServerDisconnectedError())
            elif not ends_here:
                self._end(aiohttp.ClientPayloadError())
            elif exc is not None:
                self._end(exc)
        super().connection_lost(exc)

    def _end(self, error: BaseException) -> None:
        if self.broken is None:
            self.broken = error
        self._wake()
        if self._foreign is not None:
            self._foreign.give_up()
