"""The fault wall: one port that plays any fault in any wire language, chosen by the model's name.

Raw asyncio, so that it can do what no HTTP library would. A model that is called `fault/NAME` fails so (`demo_faults`),
any other answers with the last user message. The language is the one of the path, where some have the
model, too. A TLS handshake (`https://`) fails.
"""

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import unquote

from proxy import demo_faults, demo_plays
from proxy.demo_faults import PREFIX
from proxy.demo_languages import LANGUAGES
from proxy.demo_plays import Scene
from proxy.errors import ClientError, ProxyError
from proxy.log import plain

# The first byte of a TLS handshake, and the alert that ends one.
_TLS: Final = b"\x16"
_ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x28"
# So much of a body is read before an early answer; the model's name is in it.
_GLANCE: Final = 4096
_MODEL: Final = re.compile(rb'"model"\s*:\s*"([^"\\]*)"')
# What an early answer answers.
_STAND_IN: Final = b'{"model":"x","messages":[{"role":"user","content":"x"}]}'
# Gemini and Bedrock have the model in the path.
_IN_PATH: Final = re.compile(r"/models?/([^/:]+)(?::|/converse)")
_LINGER_S: Final = 0.5


class _Request(NamedTuple):
    path: str
    headers: dict[str, str]

    @property
    def key(self) -> str:
        """The credential, in whatever header the language keeps it."""
        found = (self.headers.get(name) for name in ("x-api-key", "x-goog-api-key", "authorization"))
        return next(filter(None, found), "").rpartition(" ")[2]

    def model(self, body: bytes) -> str:
        """Return the model's name, from the path or from the begin of the body; "" when there is none."""
        if (named := _IN_PATH.search(self.path)) is not None:
            return unquote(named[1])
        found = _MODEL.search(body)
        return found[1].decode(errors="replace") if found else ""


class Wall:
    """`base_url` is empty until it is started. `requests` counts what came, `in_flight` what is being played,
    `open` is how many are connected, `idle` is set while nobody is.

    `note` is called with a line for each request.
    """

    def __init__(self, name: str = "wall", note: Callable[[str], object] | None = None) -> None:
        self.name = name
        self.base_url = ""
        self.requests = 0
        self.in_flight = 0
        self.open = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._note = note or (lambda line: None)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen. Raises OSError when the address cannot be had."""
        self._server = await asyncio.start_server(self._accept, host, port)
        self.base_url = f"http://{host}:{self._server.sockets[0].getsockname()[1]}/v1"

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine of asyncio's own: in Python 3.11 those complain when they are cancelled.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.idle.clear()
        try:
            await self._talk(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()
            self.open -= 1
            if not self.open:
                self.idle.set()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after the other."""
        first = await reader.readexactly(1)
        if first == _TLS:
            self._note("a TLS handshake, which fails")
            writer.write(_ALERT)
            return
        reused = False
        while True:
            head = first + await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            self.in_flight += 1
            try:
                if not await self._answer(_parse_head(head), reader, writer, reused=reused):
                    return
            finally:
                self.in_flight -= 1
            first, reused = b"", True

    async def _answer(
        self, request: _Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, reused: bool
    ) -> bool:
        """Play what was asked for. Returns False when the connection is over."""
        try:
            scene = await self._scene(request, reader, reused=reused)
        except ClientError as error:
            self._note(plain(f"refused: {error.message}"))
            writer.write(_refused(error))
            return True
        mode = "stream" if scene.words.stream else "complete"
        self._note(plain(f"{request.path} {mode} {scene.model}"))
        play = demo_plays.play(scene)
        await demo_plays.perform(play, writer)
        if play.then == "hang":
            await reader.read()
        if play.then == "reset":
            writer.transport.abort()
        if play.then == "linger":
            await _linger(reader)
        return play.then == "keep"

    async def _scene(self, request: _Request, reader: asyncio.StreamReader, *, reused: bool) -> Scene:
        """Read the body, or as much of it as the fault wants, and return who plays what. Raises ClientError."""
        length = request.headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise ClientError("a request needs a content-length")
        size = int(length)
        body = await reader.readexactly(min(size, _GLANCE))
        model = request.model(body)
        fault = demo_faults.parse(model.removeprefix(PREFIX) if model.startswith(PREFIX) else "")
        if fault.kind in demo_faults.EARLY:
            body = _STAND_IN
        else:
            body += await reader.readexactly(size - len(body))
        read = next((read for path, read in LANGUAGES.items() if request.path.endswith(path)), None)
        if read is None:
            raise ClientError(f"nothing is at {request.path}", status=404)
        words = read(body, f"{self.name}-{self.requests}", int(time.time()), fault.words)
        return Scene(fault, words, model, request.key, reused)


def _parse_head(head: bytes) -> _Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    path = f"{first} / ".split(" ")[1].partition("?")[0]
    return _Request(path, {name.lower(): value.strip() for name, _, value in pairs})


def _refused(error: ProxyError) -> bytes:
    body = error.body()
    head = f"HTTP/1.1 {error.status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _linger(reader: asyncio.StreamReader) -> None:
    """Read what still comes: closing a connection with unread bytes resets it, and the answer would be lost."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while await reader.read(1 << 16):
                pass
