"""Cells of the fault matrix through the official SDK, in three majors: the right exception, and no needless retry."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from proxy.app import App, Options
from proxy.demo_wall import Wall
from tests.needs import VENVS, need

HERE: Final = Path(__file__).parent
MAJORS: Final = ("1", "2", "3")
_PATIENCE_S: Final = 60


class Cell(NamedTuple):
    """A fault and the exception it must be; no `error`: an answer. With a `fallback` there is one."""

    fault: str
    stream: bool
    error: str | None = None
    status: int | None = None
    code: str | None = None
    said: str = ""
    fallback: bool = False

    @property
    def model(self) -> str:
        """The policy that leads there."""
        return f"{self.fault}{'-stream' if self.stream else ''}{'-fallback' if self.fallback else ''}"

    @property
    def heals(self) -> bool:
        """Whether the answer says when to try again."""
        return self.fault in ("429", "503")


_SERVER: Final = "InternalServerError"
_SAID: Final = "one two sed"
CELLS: Final = (
    Cell("hang", False, _SERVER, 504, "upstream_timeout"),
    Cell("hang", True, _SERVER, 504, "upstream_timeout"),
    Cell("close", False, _SERVER, 502, "upstream_disconnected"),
    Cell("429", False, "RateLimitError", 429, "rate_limit_exceeded"),
    Cell("429-quota", True, "RateLimitError", 429, "insufficient_quota"),
    Cell("500", False, _SERVER, 500, "server_error"),
    Cell("503", True, _SERVER, 503, "overloaded"),
    Cell("401", False, _SERVER, 502, "upstream_auth_failed"),
    Cell("400-context", False, "BadRequestError", 400, "context_length_exceeded"),
    Cell("404", True, "NotFoundError", 404, "model_not_found"),
    Cell("413-early", False, "APIStatusError", 413, "request_too_large"),
    Cell("malformed", False, _SERVER, 502, "upstream_invalid_response"),
    Cell("truncated", False, _SERVER, 502, "upstream_truncated"),
    Cell("html", True, _SERVER, 502, "upstream_invalid_response"),
    Cell("cut-after-3", True, "APIError", None, "upstream_interrupted", _SAID),
    Cell("end-after-3", True, "APIError", None, "upstream_interrupted", _SAID),
    Cell("stall-after-3", True, "APIError", None, "upstream_idle_timeout", _SAID),
    Cell("garbage-after-3", True, "APIError", None, "upstream_invalid_event", _SAID),
    Cell("error-after-3", True, "APIError", None, "server_error", _SAID),
    Cell("gzip", True, said="one two"),
    Cell("hang", True, said="one two", fallback=True),
    Cell("cut-after-0", True, said="one two", fallback=True),
)


class Run(NamedTuple):
    """How one major took it: a line per cell; `asked` are the models that the faulty provider was asked for."""

    version: str
    lines: list[dict[str, object]]
    asked: list[str]


@asynccontextmanager
async def broken_world(directory: Path) -> AsyncIterator[tuple[str, list[str]]]:
    """A sidecar with a policy per cell, in front of a wall and of one that is well; its URL, and what the wall got."""
    notes: list[str] = []
    wall, well = Wall("wall", notes.append), Wall("well")
    for one in (wall, well):
        await one.start()
    rows = f'[[provider]]\nname = "well"\nbase_url = "{well.base_url}"\n'
    rows += '[[model]]\nprovider = "well"\nid = "echo"\nprice = { input = 9, output = 9 }\n'
    for fault in {cell.fault for cell in CELLS}:
        # Each at a provider of its own: one that rests leaves the others alone.
        rows += f'[[provider]]\nname = "{fault}"\nbase_url = "{wall.base_url}"\n'
        rows += f'[[model]]\nprovider = "{fault}"\nid = "fault/{fault}"\nprice = {{ input = 1, output = 1 }}\n'
    (directory / "catalog.toml").write_text(rows)
    for cell in CELLS:
        candidates = [f"{cell.fault}/fault/{cell.fault}", *(["well/echo"] if cell.fallback else [])]
        limits = "{ first_event = 0.2, answer = 0.2, idle = 0.2 }"
        text = f'strategy = "cheapest"\ncandidates = {json.dumps(candidates)}\ntimeouts = {limits}\n'
        (directory / f"{cell.model}.toml").write_text(text)
    app = App(Options(policies=directory, port=0, drain_timeout_s=1.0), {}, sys.stdout.buffer.write)
    await app.start()
    try:
        yield f"{app.address}/v1", notes
    finally:
        await app.stop()
        await wall.stop()
        await well.stop()


async def _run(python: Path, directory: Path) -> Run:
    async with broken_world(directory) as (base_url, notes):
        environ = {"PATH": os.environ["PATH"], "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "unused"}
        questions = [[cell.model, cell.stream, 0 if cell.heals else 2] for cell in CELLS]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            python, HERE / "broken.py", json.dumps(questions), env=environ, stdout=pipe, stderr=pipe
        )
        try:
            async with asyncio.timeout(_PATIENCE_S):
                output, complaints = await process.communicate()
        except TimeoutError:
            process.kill()
            output, complaints = await process.communicate()
        assert process.returncode == 0, (output + complaints).decode()
        first, *lines = map(json.loads, output.splitlines())
        return Run(first["version"], lines, [note.rpartition(" ")[2] for note in notes])


@pytest.fixture(scope="module", params=MAJORS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A major that has asked for everything once."""
    python = VENVS / f"openai-{request.param}" / "bin" / "python"
    need(python.parents[1] / "ready", f"version {request.param} of the OpenAI SDK")
    found = asyncio.run(_run(python, tmp_path_factory.mktemp("policies")))
    assert found.version.partition(".")[0] == request.param
    return found


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.model)
def test_the_sdk_raises(run: Run, cell: Cell) -> None:
    """Each fault is the exception that an app expects for it, with its code; what was said before it is not lost."""
    line = run.lines[CELLS.index(cell)]

    assert line == {"error": cell.error, "status": cell.status, "code": cell.code, "said": cell.said}


def test_nothing_is_asked_again(run: Run) -> None:
    """An app's own retries, two by default, add nothing: only the sidecar asks again, once, after a 500."""
    times = {"500": 2}
    assert run.asked == [f"fault/{cell.fault}" for cell in CELLS for _ in range(times.get(cell.fault, 1))]
