"""A client that speaks HTTP itself: it keeps every byte of an answer, and says how the connection ended."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal, NamedTuple, cast

from loadtests.reliability.script import Script

_PATH: Final = "/v1/chat/completions"
_LAST: Final = b"0\r\n\r\n"

End = Literal["whole", "cut", "late", "refused"]


class Outcome(NamedTuple):
    """What came of one request. `end`: "whole" when the HTTP framing ended, "refused" when nobody let us in.

    Seconds: `began` on the monotonic clock, `head_s` until the first byte, `total_s` until the end.
    """

    script: Script
    end: End
    status: int
    headers: dict[str, str]
    body: bytes
    began: float
    head_s: float
    total_s: float


class Wire(asyncio.Protocol):
    """One connection. Bytes are collected as they come and read when the answer has ended."""

    def __init__(self) -> None:
        self.lost = False
        self.data = bytearray()
        self.first_at = 0.0
        self._head = 0
        self._need: int | None = None
        self._ended: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end, whoever made it."""
        self.lost = True
        self._end()

    def data_received(self, data: bytes) -> None:
        """Collect."""
        if not self.data:
            self.first_at = time.monotonic()
        self.data += data
        if self.whole():
            self._end()

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def whole(self) -> bool:
        """Say whether the framing of the answer has ended."""
        if not self._head:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._head = end + 4
            lines = bytes(self.data[:end]).lower()
            if b"transfer-encoding: chunked" not in lines:
                self._need = self._head + int(lines.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        return len(self.data) >= self._need if self._need is not None else self.data.endswith(_LAST)

    def ask(self, request: bytes) -> asyncio.Future[None]:
        """Send a request; the future is done when its answer, or the connection, has ended."""
        self.data, self._head, self._need, self.first_at = bytearray(), 0, None, 0.0
        self._ended = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._ended

    def read(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body; status 0 when there is no head."""
        head, found, body = bytes(self.data).partition(b"\r\n\r\n")
        if not found:
            return 0, {}, b""
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
        chunked = headers.get("transfer-encoding") == "chunked"
        return int(first.split(" ")[1]), headers, dechunk(body) if chunked else body


def dechunk(data: bytes) -> bytes:
    """Return the content of as many whole chunks as there are."""
    parts: list[bytes] = []
    place = 0
    while (end := data.find(b"\r\n", place)) > 0:
        size = int(data[place:end], 16)
        if not size or len(data) < end + 4 + size:
            break
        parts.append(data[end + 2 : end + 2 + size])
        place = end + 4 + size
    return b"".join(parts)


class Client:
    """Asks the gateway at `port`, on kept connections where there are any. An answer that takes longer is "late"."""

    def __init__(self, port: int, model: str, late_s: float = 60.0) -> None:
        self.port = port
        self.model = model
        self._late_s = late_s
        self._idle: list[Wire] = []

    async def ask(self, script: Script, *, keep: bool = True) -> Outcome:
        """Return what came of it. A cancelled request aborts its connection."""
        began = time.monotonic()
        try:
            wire = await self._wire()
        except OSError:
            return Outcome(script, "refused", 0, {}, b"", began, 0.0, time.monotonic() - began)
        body = script.body(self.model)
        head = f"POST {_PATH} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\ncontent-type: application/json\r\n"
        end: End = "late"
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._late_s):
                    await wire.ask(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                    end = "whole" if wire.whole() else "cut"
        finally:
            status, headers, answer = wire.read()
            if end == "whole" and keep and not wire.lost and headers.get("connection", "").lower() != "close":
                self._idle.append(wire)
            else:
                wire.transport.abort()
        head_s = max(0.0, wire.first_at - began)
        return Outcome(script, end, status, headers, answer, began, head_s, time.monotonic() - began)

    async def _wire(self) -> Wire:
        while self._idle:
            wire = self._idle.pop()
            if not wire.lost:
                return wire
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._late_s):  # a TimeoutError is an OSError
            _, wire = await loop.create_connection(Wire, "127.0.0.1", self.port)
        return wire

    def close(self) -> None:
        """Close the kept connections."""
        for wire in self._idle:
            wire.transport.abort()
        self._idle.clear()


async def together(client: Client, scripts: list[Script], over_s: float = 0.0) -> list[Outcome]:
    """Ask everything at once, or evenly begun `over_s` seconds."""
    return await _begun(client, scripts, over_s / max(1, len(scripts)))


async def at_rate(client: Client, rate: float, seconds: float, new: Callable[[int], Script]) -> list[Outcome]:
    """Ask `rate` times a second for `seconds`, whatever becomes of the answers; `new` gets the request's number."""
    return await _begun(client, [new(number) for number in range(round(rate * seconds))], 1 / rate)


async def _begun(client: Client, scripts: list[Script], apart_s: float) -> list[Outcome]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    tasks: list[asyncio.Task[Outcome]] = []
    for number, script in enumerate(scripts):
        if (ahead := began + number * apart_s - loop.time()) > 0:
            await asyncio.sleep(ahead)
        tasks.append(loop.create_task(client.ask(script)))
    return list(await asyncio.gather(*tasks))


async def in_turn(client: Client, scripts: list[Script], hands: int) -> list[Outcome]:
    """Ask everything with at most `hands` requests under way."""
    waiting = iter(scripts)

    async def hand() -> list[Outcome]:
        return [await client.ask(script) for script in waiting]

    return [outcome for some in await asyncio.gather(*(hand() for _ in range(hands))) for outcome in some]
