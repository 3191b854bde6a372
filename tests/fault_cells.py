"""A cell of the fault matrix, run for real: walls, a whole sidecar and a client on loopback, and nothing left behind.

What a client saw is one sentence (`seen`); the matrix, the test and docs/faults.md speak in the same ones.
"""

import asyncio
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from proxy import demo_faults
from proxy.app import App, Options
from proxy.demo_answers import Reply, lengthen
from proxy.demo_wall import Wall
from tests.conftest import Got, Sidecar, request, until

# Every wire language that an adapter speaks; `vertex` is Gemini's with another key.
LANGUAGES: Final = ("openai", "anthropic", "gemini", "bedrock", "cohere", "ollama", "responses")
ANSWER: Final = "the answer"
OTHER: Final = "the fallback's answer"
# Whatever is said, these are said to nobody.
CLIENT_KEY, KEY = "client-CANARY-1", "Pr0viderCANARY2"
# Eight words: with them OpenAI's stream has twelve events.
PROMPT: Final = "na\u00efve \u2028x CANARY \U0001f642 four five six seven"
TIMEOUTS: Final = {"connect": 5.0, "first_event": 5.0, "answer": 5.0, "idle": 5.0, "total": 5.0}
# Where the timers are the point.
HASTY: Final = {"first_event": 0.2, "answer": 0.2, "idle": 0.2}
# What this machine may be late by.
SLACK_S: Final = 1.0


class Stage(NamedTuple):
    """Two providers `a` and `b`, a sidecar that asks first the one, then the other, and what the client sends."""

    a: Wall
    b: Wall
    sidecar: Sidecar
    leaks: "Leaks"

    async def ask(self, *, stream: bool, prompt: str = PROMPT, model: str = "test") -> Got:
        """Ask once and read the answer to the end of its framing."""
        got = await self.sidecar.raw(asked(stream=stream, prompt=prompt, model=model))
        self.leaks.look(repr(got))
        return got

    async def state(self) -> Any:
        """What /status says of the provider `a`."""
        got = await self.sidecar.get("/status", authorization=f"Bearer {CLIENT_KEY}")
        self.leaks.look(repr(got))
        return next(state for name, state in got.json["upstreams"].items() if name.startswith("a/"))


def asked(*, stream: bool, prompt: str = PROMPT, model: str = "test") -> bytes:
    """The client's request."""
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": prompt}]}
    return request(json.dumps(body).encode(), f"authorization: Bearer {CLIENT_KEY}")


class Leaks:
    """Looks for keys in all that anybody could see."""

    def __init__(self, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("DEBUG")
        self._capfd = capfd
        self._caplog = caplog

    def look(self, text: str) -> None:
        """Fail when a key is in `text`."""
        assert [key for key in (CLIENT_KEY, KEY) if key in text] == []

    def look_at_the_rest(self, running: Sidecar) -> None:
        """Look at the logs, which must not hold the prompt either."""
        logged = "".join([*map(repr, running.lines), *self._capfd.readouterr(), self._caplog.text])
        assert "CANARY" not in logged


def catalog(url: str, models: Sequence[str], other_url: str, other: str, language: str) -> str:
    """Provider `a` in one language, `b` in another one; `b` is dearer, so it is asked second."""
    rows = ""
    adapters = [language, *(name for name in LANGUAGES if name != language)]
    for name, base_url, adapter in (("a", url, adapters[0]), ("b", other_url, adapters[1])):
        rows += f'[[provider]]\nname = "{name}"\nadapter = "{adapter}"\nbase_url = "{base_url}"\napi_key = "env:KEY"\n'
    for name, id, price in (*(("a", model, 1) for model in models), ("b", other, 2)):
        rows += f'[[model]]\nprovider = "{name}"\nid = "{id}"\nprice = {{ input = {price}, output = {price} }}\n'
    return rows


def policy(model: str, other: str, *, fallback: bool, timeouts: dict[str, float]) -> str:
    """A policy over one or both providers."""
    candidates = [f"a/{model}", f"b/{other}"] if fallback else [f"a/{model}"]
    limits = ", ".join(f"{name} = {value}" for name, value in (TIMEOUTS | timeouts).items())
    return f'strategy = "cheapest"\ncandidates = {json.dumps(candidates)}\ntimeouts = {{ {limits} }}\n'


@asynccontextmanager
async def stage(
    tmp_path: Path,
    leaks: Leaks,
    model: str,
    *,
    language: str = "openai",
    fallback: bool = False,
    other: str = "echo",
    url: str = "{wall}",
    timeouts: dict[str, float] | None = None,
    also: Sequence[str] = (),
) -> AsyncIterator[Stage]:
    """Run it all; at the end every task, file and connection is gone, and no key was seen.

    `url` is where provider `a` is said to be; "{wall}" and "{port}" in it are the wall's. The policy for `model` is
    called "test"; there is one more for each of `also`, called 0, 1 and so on.
    """
    tasks, files = asyncio.all_tasks(), open_files()
    async with AsyncExitStack() as stack:
        walls = Wall("a"), Wall("b")
        for wall in walls:
            await wall.start()
            stack.push_async_callback(wall.stop)
        port = walls[0].base_url.split(":")[2].removesuffix("/v1")
        first = url.format(wall=walls[0].base_url, port=port)
        (tmp_path / "catalog.toml").write_text(catalog(first, [model, *also], walls[1].base_url, other, language))
        for name, one in (("test", model), *enumerate(also)):
            text = policy(one, other, fallback=fallback, timeouts=timeouts or {})
            (tmp_path / f"{name}.toml").write_text(text)
        log: list[dict[str, Any]] = []
        environ = {"SIDECAR_API_KEYS": CLIENT_KEY, "KEY": KEY}
        app = App(
            Options(policies=tmp_path, port=0, drain_timeout_s=1.0),
            environ,
            lambda lines: log.extend(map(msgspec.json.decode, lines.splitlines())),
        )
        await app.start()
        running = Sidecar(app, tmp_path, log)
        try:
            yield Stage(*walls, running, leaks)
            async with asyncio.timeout(1):
                await until(lambda: not app.sidecar.in_flight and walls[0].in_flight == walls[1].in_flight == 0)
            leaks.look((await running.get("/metrics", authorization=f"Bearer {CLIENT_KEY}")).body.decode())
        finally:
            await running.session.close()
            await app.stop()
        for wall in walls:
            await asyncio.wait_for(wall.idle.wait(), 2)
        leaks.look_at_the_rest(running)
    await until(lambda: asyncio.all_tasks() == tasks and open_files() <= files)


def open_files() -> int:
    """How many files and sockets this process has open."""
    return len(os.listdir("/proc/self/fd"))


def seen(got: Got, model: str, prompt: str = PROMPT) -> str:
    """What the client saw, in one sentence; fails for an answer that no client should see."""
    if got.status != 200:
        return _refused(got)
    other = got.headers["x-sidecar-upstream"].startswith("b/")
    fault = demo_faults.Fault("") if other else demo_faults.parse(model.removeprefix("fault/"))
    whole = lengthen(Reply(prompt, [], "stop"), fault.words).text if fault.words else prompt
    if not got.headers["content-type"].startswith("text/event-stream"):
        assert got.json["choices"][0]["finish_reason"] == "stop"
        assert got.text == whole
        return OTHER if other else ANSWER
    said, finish, error = _streamed(got)
    if error is None:
        assert (said, finish, got.events[-1]) == (whole, "stop", b"[DONE]")
        return OTHER if other else ANSWER
    assert not other
    assert finish is None
    assert said
    assert b"[DONE]" not in got.body
    assert said.startswith("drip") or str(whole).startswith(said)
    return f"the words until then, then `{error['code']}`"


def _refused(got: Got) -> str:
    error = got.error
    assert {"message", "type", "param", "code"} <= error.keys()
    assert got.headers["content-type"] == "application/json"
    assert "<html" not in error["message"]
    wait = got.headers.get("retry-after")
    assert got.headers.get("x-should-retry") == (None if wait else "false")
    code = "no code" if error["code"] is None else f"`{error['code']}`"
    return f"{got.status} {code}" + (f", retry-after {wait}" if wait else "")


def _streamed(got: Got) -> tuple[str, str | None, Any]:
    """What a stream said, why it finished, and the error at its end."""
    chunks = [msgspec.json.decode(event) for event in got.events if event != b"[DONE]"]
    error = chunks.pop()["error"] if "error" in chunks[-1] else None
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert len({chunk["id"] for chunk in chunks}) == 1
    said = "".join(choice["delta"].get("content") or "" for choice in choices)
    return said, next((choice["finish_reason"] for choice in choices if choice["finish_reason"]), None), error


def counted(state: Any) -> str:
    """How provider `a` stands after the fault."""
    if state["resting_s"] > 0:
        return "rests 5 min" if state["resting_s"] > 100 else "rests 1 s"
    return "counts" if state["errors"] else "-"


class Timer:
    """How long something took; `check` fails unless it took `least` to `most` seconds.

    Where the contract's bound is narrow the fastest of a few is held to it: a wait that is built in slows all of them,
    a busy machine some. `python -m loadtests.reliability bounds` measures how long they take.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Stop."""
        return time.monotonic() - self._began

    def check(self, least: float, most: float) -> None:
        """Stop."""
        assert least <= self.seconds() <= most


class Slammed:
    """A port that closes every connection at once, or hands it to TLS with a certificate that nobody trusts."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.connections = 0
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> "Slammed":
        self._server = await asyncio.start_server(self._close, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def _close(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()
