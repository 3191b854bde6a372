"""A scripted upstream on loopback: plays the bytes it was given, in the pieces it was given, and keeps what it got.

Raw asyncio, so that it can do what no HTTP library would: half a head, a reset, silence, bytes nobody asked for.
"""

import asyncio
import json
import ssl
from collections.abc import Sequence
from typing import Any, NamedTuple, Self


class Request(NamedTuple):
    """What the upstream received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Play(NamedTuple):
    """One answer: `pieces` are written in turn, each in a write of its own; then `then` happens.

    `then`: "keep" keeps the connection open for the next request, "close" closes it, "reset" aborts it,
    "hang" does nothing more until the client leaves, "drip" writes the last piece again and again until then.
    An `early` answer does not wait for the request's body.
    """

    pieces: Sequence[bytes]
    then: str = "keep"
    early: bool = False


def reply(body: bytes, status: int = 200, content_type: str = "application/json", **headers: str) -> Play:
    """A whole HTTP answer. Header names are written with _ for -."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
    return Play([head.encode() + body])


def error(status: int, code: str = "", type: str = "", message: str = "no", **headers: str) -> Play:
    """An OpenAI error."""
    body = json.dumps({"error": {"message": message, "type": type, "param": None, "code": code or None}})
    return reply(body.encode(), status, **headers)


def completion(text: str = "Hello", model: str = "m", **fields: Any) -> Play:
    """A whole chat completion."""
    return reply(completion_body(text, model, **fields))


def completion_body(text: str = "Hello", model: str = "m", **fields: Any) -> bytes:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text, "refusal": None}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
    return json.dumps({**body, **fields}).encode()


def chunk(delta: dict[str, Any], finish: str | None = None, **fields: Any) -> bytes:
    """One event of a streamed completion."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }
    return b"data: " + json.dumps({**body, **fields}).encode() + b"\n\n"


USAGE = chunk({}, choices=[], usage={"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12})
DONE = b"data: [DONE]\n\n"


def events(*texts: str) -> list[bytes]:
    """The events of a whole stream that says `texts`, with usage."""
    said = [chunk({"content": text}) for text in texts]
    return [chunk({"role": "assistant", "content": ""}), *said, chunk({}, "stop"), USAGE, DONE]


def stream(*pieces: bytes, then: str = "keep", end: bool = True, content_type: str = "text/event-stream") -> Play:
    """A chunked HTTP answer, one chunk and one write per piece. Without `end`, the framing never ends."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return Play([head, *framed, *([b"0\r\n\r\n"] if end else [])], then)


class FakeUpstream:
    """Plays `plays` in order, the last one again and again. `requests` is what came, `open` how many are connected."""

    def __init__(self, *plays: Play, stray: bytes = b"", tls: ssl.SSLContext | None = None) -> None:
        self.plays = list(plays) or [completion()]
        self._tls = tls
        self.requests: list[Request] = []
        self.open = 0
        self.connections = 0
        self.idle = asyncio.Event()
        self.arrived = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self._stray = stray
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The base URL for a provider row."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for writer in self._writers:
            writer.transport.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.connections += 1
        self.idle.clear()
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            self.open -= 1
            if self.open == 0:
                self.idle.set()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        play = self.plays[min(len(self.requests), len(self.plays) - 1)]
        body = b"" if play.early else await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append(Request(method, path, headers, body))
        del body
        self.arrived.set()
        for piece in play.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
            await self.go_on.wait()
        if play.then == "keep" and self._stray:
            writer.write(self._stray)
        return await self._end(play, reader, writer)

    async def _end(self, play: Play, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if play.then == "hang":
            await reader.read()
        if play.then == "reset":
            writer.transport.abort()
        while play.then == "drip":
            writer.write(play.pieces[-1])
            await writer.drain()
            await asyncio.sleep(0.01)
        return play.then == "keep"
