"""The official OpenAI SDKs against a running sidecar: an app changes its base URL and nothing else."""

import asyncio
import json
import os
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.needs import VENVS, need
from tests.sdk import client
from tests.sdk.world import KEY, world

HERE: Final = Path(__file__).parent
NODE: Final = HERE / "node_modules" / ".bin" / "node"
# The versions themselves stand in pyproject.toml and package.json.
CLIENTS: Final = ("openai-python 1", "openai-python 2", "openai-python 3", "openai-node 7")
# All behaviours together take about five seconds.
PATIENCE_S: Final = 90


class Run(NamedTuple):
    """How a client's run went: `problems` by behaviour, None where all was well; requests at the doomed providers."""

    version: str
    problems: dict[str, str | None]
    doomed: list[int]


def _command(name: str) -> list[str]:
    """Return what runs the client `name`; skips when that is not installed."""
    kind, _, major = name.partition(" ")
    if kind == "openai-python":
        python = VENVS / f"openai-{major}" / "bin" / "python"
        need(python.parents[1] / "ready", f"version {major} of the OpenAI SDK")
        return [str(python), str(HERE / "client.py")]
    need(HERE / "node_modules" / "openai", "the OpenAI SDK for Node")
    return [str(NODE) if NODE.exists() else "node", str(HERE / "client.mjs")]


async def _run(command: list[str]) -> Run:
    async with world() as served:
        environ = {"PATH": os.environ["PATH"], "OPENAI_BASE_URL": served.base_url, "OPENAI_API_KEY": KEY}
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(PATIENCE_S):
                output, complaints = await process.communicate()
        except TimeoutError:
            process.kill()
            output, complaints = await process.communicate()
        assert process.returncode == 0, (output + complaints).decode()
        first, *rest = map(json.loads, output.splitlines())
        problems = {line["name"]: line["problem"] for line in rest}
        return Run(first["version"], problems, [provider.requests for provider in served.doomed])


@pytest.fixture(scope="module", params=CLIENTS)
def run(request: pytest.FixtureRequest) -> Run:
    """A client that has tried everything once."""
    return asyncio.run(_run(_command(request.param)))


@pytest.mark.parametrize("behaviour", [behaviour.__name__ for behaviour in client.BEHAVIOURS])
def test_the_sdk(run: Run, behaviour: str) -> None:
    """What `client.py` says of this behaviour holds in this SDK."""
    problem = run.problems[behaviour]

    assert problem is None, problem


def test_a_failed_chain_is_asked_once(run: Run) -> None:
    """`x-should-retry: false` is obeyed: each upstream saw one whole and one streamed request and no SDK's retry; the
    last one each of them twice, because it said 500.
    """
    assert run.doomed == [2, 4]


def test_the_sdk_is_the_major_it_says(run: Run, request: pytest.FixtureRequest) -> None:
    """No version is tested under another's name, and no script leaves a behaviour out."""
    major = request.node.callspec.params["run"].rpartition(" ")[2]

    assert run.version.partition(".")[0] == major
    assert list(run.problems) == [behaviour.__name__ for behaviour in client.BEHAVIOURS]
