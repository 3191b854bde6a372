"""Fixtures: scripted upstreams, a whole sidecar on a free port, and a plain HTTP client. Nothing is patched."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from proxy.app import App, Options
from tests.fake_upstream import FakeUpstream, Play

CHAT: dict[str, Any] = {"model": "test", "messages": [{"role": "user", "content": "Hello"}]}
STREAM: dict[str, Any] = {**CHAT, "stream": True}


class Sidecar:
    """A running sidecar, its policy directory and its log."""

    def __init__(self, app: App, directory: Path, log: list[dict[str, Any]]) -> None:
        self.app = app
        self.directory = directory
        self.lines = log
        self.session = aiohttp.ClientSession()

    @property
    def url(self) -> str:
        """The OpenAI base URL."""
        return f"{self.app.address}/v1"

    def log(self, event: str) -> list[dict[str, Any]]:
        """The log records called `event`, oldest first."""
        self.app.log.flush()
        return [line for line in self.lines if line["event"] == event]

    async def post(self, body: Any = None, path: str = "/v1/chat/completions", **headers: str) -> "Got":
        """POST `body` (an object, or bytes as they are) and read the whole answer. _ in header names means -."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(CHAT if body is None else body)
        sent = {"content-type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        async with self.session.post(self.app.address + path, data=BytesIO(data), headers=sent) as response:
            return Got(response.status, lower(response.headers), await response.read())

    async def get(self, path: str, **headers: str) -> "Got":
        """GET `path` and read the whole answer."""
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        async with self.session.get(self.app.address + path, headers=sent) as response:
            return Got(response.status, lower(response.headers), await response.read())

    @asynccontextmanager
    async def connect(self, address: str = "") -> AsyncIterator["Wire"]:
        """Open a plain connection, to send bytes that no client library would."""
        host, _, port = (address or self.app.address).removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield Wire(reader, writer)
        finally:
            writer.transport.abort()

    async def raw(self, data: bytes) -> "Got":
        """Send `data` on a connection of its own and read one answer."""
        async with self.connect() as wire:
            return await wire.ask(data)


class Wire:
    """A connection to the sidecar, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, data: bytes, *, head: bool = False) -> "Got":
        """Send `data` and read one answer; with `head`, only its head."""
        self.writer.write(data)
        async with asyncio.timeout(5):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines[1:] if line)
            }
            body = b"" if head else await self._body(headers)
        return Got(int(lines[0].split()[1]), headers, body)

    async def closed(self) -> bool:
        """Wait until the sidecar closes the connection; False when it says more first."""
        async with asyncio.timeout(5):
            return await self.reader.read() == b""

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if "transfer-encoding" not in headers:
            return await self.reader.read()
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()
        return body


def request(body: bytes | None = None, *lines: str, path: str = "/v1/chat/completions", method: str = "") -> bytes:
    """A whole HTTP/1.1 request as bytes; POST with a JSON body, else GET. `lines` are more header lines."""
    length = [] if body is None else ["content-type: application/json", f"content-length: {len(body)}"]
    head = [f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1", "host: 127.0.0.1", *length, *lines]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + (body or b"")


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Header names in lower case."""
    return {name.lower(): text for name, text in headers.items()}


class Got(msgspec.Struct):
    """An answer, read to its end. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> Any:
        """The error object."""
        return self.json["error"]

    @property
    def events(self) -> list[bytes]:
        """The data of each server-sent event; comments are none."""
        parts = self.body.split(b"\n\n")
        return [part.removeprefix(b"data: ") for part in parts if part and not part.startswith(b":")]

    @property
    def text(self) -> str:
        """What was said, complete or streamed."""
        if not self.body.startswith(b"data:"):
            return str(self.json["choices"][0]["message"]["content"])
        chunks = [msgspec.json.decode(event) for event in self.events if event != b"[DONE]"]
        said = [(choice["delta"] or {}).get("content") or "" for chunk in chunks for choice in chunk.get("choices", ())]
        return "".join(said)


def toml(value: Any) -> str:
    """`value` as TOML, tables inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(inner)}" for name, inner in value.items()) + " }"
    return msgspec.json.encode(value).decode()


def catalog(*upstreams: FakeUpstream | str, **fields: Any) -> str:
    """A catalog with the providers p0, p1, ... each offering the model m, dearer and better from one to the next."""
    rows = []
    for number, upstream in enumerate(upstreams or (NOWHERE,)):
        url = upstream if isinstance(upstream, str) else upstream.url
        extra = "".join(f"{name} = {toml(value)}\n" for name, value in fields.items())
        rows.append(
            f'[[provider]]\nname = "p{number}"\nbase_url = "{url}"\n{extra}\n'
            f'[[model]]\nprovider = "p{number}"\nid = "m"\nquality = {5 + number}\n'
            f"price = {{ input = {number + 1}, output = {number + 1} }}\n"
            f"latency = {{ p50_ms = {100 * (number + 1)} }}\n"
        )
    return "\n".join(rows)


# For tests that ask no upstream: port 9 is the one that discards.
NOWHERE = "http://127.0.0.1:9/v1"
# The policy of most tests: ask p0, then p1, ...
IN_ORDER = 'strategy = "cheapest"\n'

StartUpstream = Callable[..., Awaitable[FakeUpstream]]
StartSidecar = Callable[..., Awaitable[Sidecar]]


@pytest.fixture
async def upstream() -> AsyncIterator[StartUpstream]:
    """Start an upstream that plays what it is given: `await upstream(completion("Hi"))`."""
    async with AsyncExitStack() as stack:

        async def start(*plays: Play, **options: Any) -> FakeUpstream:
            return await stack.enter_async_context(FakeUpstream(*plays, **options))

        yield start


@pytest.fixture
async def sidecar(tmp_path: Path) -> AsyncIterator[StartSidecar]:
    """Start a sidecar in front of upstreams: `await sidecar(first, second, policy='...')`.

    `files` are more policy files by name; `options` and `environ` go to the app; `provider` to every provider row.
    """
    running: list[Sidecar] = []

    async def start(
        *upstreams: FakeUpstream | str,
        policy: str = IN_ORDER,
        files: dict[str, str] | None = None,
        environ: dict[str, str] | None = None,
        provider: dict[str, Any] | None = None,
        **options: Any,
    ) -> Sidecar:
        directory = tmp_path / f"policies{len(running)}"
        directory.mkdir()
        texts = {"catalog.toml": catalog(*upstreams, **(provider or {})), "test.toml": policy, **(files or {})}
        for name, text in texts.items():
            (directory / name).write_text(text)
        log: list[dict[str, Any]] = []
        write = lambda lines: log.extend(map(msgspec.json.decode, lines.splitlines()))  # noqa: E731
        app = App(Options(policies=directory, port=0, drain_timeout_s=1.0, **options), environ or {}, write)
        await app.start()
        running.append(Sidecar(app, directory, log))
        return running[-1]

    yield start
    for one in running:
        await one.session.close()
        await one.app.stop()


async def until(true: Callable[[], bool]) -> None:
    """Let the event loop run until `true()`; fails after 5 s."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  # what is waited for has no event of its own
            await asyncio.sleep(0.001)


def check_error(got: Got, status: int, code: str | None) -> None:
    """An OpenAI error with this status and code, and the four keys that every one has."""
    assert (got.status, got.error["code"]) == (status, code), got.body
    assert {"message", "type", "param", "code"} <= got.error.keys()
    assert got.headers["content-type"] == "application/json"
    assert got.headers["x-request-id"]
