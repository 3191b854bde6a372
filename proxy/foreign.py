"""An answer that is not usual, read by aiohttp's C parser: other statuses, compression, trailers, odd framing."""

import asyncio
from contextlib import suppress
from typing import Any, Final

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser, RawResponseMessage
from aiohttp.streams import StreamReader

# What may be read ahead of a slow client before the upstream is told to wait (aiohttp's own default).
READ_AHEAD: Final = 1 << 16


class Foreign:
    """One answer. `excess` says that bytes came which belong to no answer that was asked for."""

    __slots__ = ("_link", "_loop", "body", "excess", "message", "parser")

    def __init__(self, link: BaseProtocol, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self.parser = self._new()
        self.message: RawResponseMessage | None = None
        self.body: StreamReader | None = None
        self.excess = False

    def _new(self) -> Any:
        """Return aiohttp's C parser; untyped there."""
        return HttpResponseParser(self._link, self._loop, READ_AHEAD, read_until_eof=True)

    def feed(self, data: bytes) -> None:
        """Parse. Raises HttpProcessingError when no whole answer came before what is no HTTP."""
        fresh = self.message is None
        try:
            messages = self.parser.feed_data(data)[0]
        except HttpProcessingError:
            messages = self._salvaged(data) if fresh else []
            self.excess = True
            if not messages and not self.whole:
                raise
        for message, body in messages:
            if 100 <= message.code < 200:
                continue
            if self.message is not None:
                self.excess = True
                return
            self.message, self.body = message, body

    def _salvaged(self, data: bytes) -> list[tuple[RawResponseMessage, StreamReader]]:
        """Return the whole answer ahead of the bytes that the parser choked on, if `data` has one.

        The parser tells of nothing it read before an error, so the piece is read again, byte by byte: slow, and rare.
        """
        parser, found = self._new(), list[tuple[RawResponseMessage, StreamReader]]()
        with suppress(HttpProcessingError):
            for place in range(len(data)):
                found.extend(parser.feed_data(data[place : place + 1])[0])
                if found and found[-1][1].is_eof() and found[-1][0].code >= 200:
                    return found
        return []

    @property
    def whole(self) -> bool:
        """True when the answer has come in to its end."""
        return self.body is not None and self.body.is_eof()

    def end(self) -> bool:
        """Say that no more bytes will come. Returns False when the framing shows that some are missing."""
        try:
            self.parser.feed_eof()
        except HttpProcessingError:
            return self.whole
        return self.message is not None

    def give_up(self) -> None:
        """End the body here, so that nobody waits for the rest of it."""
        if self.body is not None and not self.body.is_eof():
            self.body.feed_eof()

    async def read(self) -> bytes:
        """Return the next bytes of the body, b"" at its end."""
        body = self.body
        if body is None:
            return b""
        while not body._buffer and not body._eof:  # the end of a chunk wakes readers, too
            await body._wait("read")
        return body._read_nowait(-1)
