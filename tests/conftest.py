"""Fixtures: scripted upstreams, a whole sidecar on a free port, and a plain HTTP client. Nothing is patched."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from proxy.app import App, Options
from tests.fake_upstream import FakeUpstream, Play

CHAT: dict[str, Any] = {"model": "test", "messages": [{"role": "user", "content": "Hello"}]}


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
        async with self.session.post(self.app.address + path, data=data, headers=sent) as response:
            return Got(response.status, dict(response.headers), await response.read())

    async def get(self, path: str, **headers: str) -> "Got":
        """GET `path` and read the whole answer."""
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        async with self.session.get(self.app.address + path, headers=sent) as response:
            return Got(response.status, dict(response.headers), await response.read())


class Got(msgspec.Struct):
    """An answer, read to its end."""

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
        """The data of each server-sent event."""
        return [part.removeprefix(b"data: ") for part in self.body.split(b"\n\n") if part]

    @property
    def text(self) -> str:
        """What was said, complete or streamed."""
        if not self.body.startswith(b"data:"):
            return str(self.json["choices"][0]["message"]["content"])
        chunks = [msgspec.json.decode(event) for event in self.events if event != b"[DONE]"]
        said = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ())]
        return "".join(said)


def catalog(*upstreams: FakeUpstream | str, **fields: Any) -> str:
    """A catalog with the providers p0, p1, ... each offering the model m, dearer and better from one to the next."""
    rows = []
    for number, upstream in enumerate(upstreams):
        url = upstream if isinstance(upstream, str) else upstream.url
        extra = "".join(f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in fields.items())
        rows.append(
            f'[[provider]]\nname = "p{number}"\nbase_url = "{url}"\n{extra}\n'
            f'[[model]]\nprovider = "p{number}"\nid = "m"\nquality = {5 + number}\n'
            f"price = {{ input = {number + 1}, output = {number + 1} }}\n"
            f"latency = {{ p50_ms = {100 * (number + 1)} }}\n"
        )
    return "\n".join(rows)


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
        while not true():
            await asyncio.sleep(0.001)
