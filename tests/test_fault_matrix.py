"""The fault matrix, run: each fault in four situations and two wire languages, through real sockets.

It also writes docs/faults.md: `SIDECAR_WRITE_FAULTS=1 python -m pytest tests/test_fault_matrix.py`.
"""

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.connection import Server
from proxy.listener import Listener
from tests import fault_docs
from tests.conftest import Got, Wire, until
from tests.fault_cells import (
    ANSWER,
    LANGUAGES,
    OTHER,
    PROMPT,
    SLACK_S,
    Leaks,
    Slammed,
    Stage,
    Timer,
    asked,
    counted,
    seen,
    stage,
)
from tests.fault_docs import SEEN
from tests.fault_matrix import DEVIATIONS, ROWS, SITUATIONS, SPECIAL, Row

CELLS = [
    pytest.param(row, situation, language, id=f"{row.id} {row.title}-{situation}-{language}")
    for row in ROWS
    for situation in SITUATIONS
    for language in LANGUAGES
]
both = pytest.mark.parametrize("stream", [False, True], ids=["complete", "stream"])
fallbacks = pytest.mark.parametrize("fallback", [False, True], ids=["alone", "fallback"])


@pytest.fixture
def leaks(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Leaks:
    """Looks for keys in what is said."""
    return Leaks(capfd, caplog)


def check(row: Row, what: str, found: str, must: str) -> bool:
    """Fail unless `found` is what must be, or what the list of deviations says. Returns False for a deviation."""
    deviation = DEVIATIONS.get((row.id, what))
    if deviation is None:
        assert found == must
        return True
    assert found != must, f"{row.id} {what} is as it should be now: strike it off DEVIATIONS"
    assert found == deviation.comes
    return False


@asynccontextmanager
async def play(tmp_path: Path, leaks: Leaks, row: Row, language: str, *, fallback: bool) -> AsyncIterator[Stage]:
    """Run a row."""
    async with Slammed() as slammed:
        url = row.url.replace("{slammed}", f"http://127.0.0.1:{slammed.port}/v1")
        async with stage(
            tmp_path, leaks, row.model, language=language, fallback=fallback, url=url, timeouts=row.timeouts
        ) as running:
            yield running


@pytest.mark.parametrize(("row", "situation", "language"), CELLS)
async def test_a_cell(tmp_path: Path, leaks: Leaks, row: Row, situation: str, language: str) -> None:
    """A client sees what the matrix says, in time; nobody was asked who should not be, nobody more often than he should;
    every attempt is in the books.
    """
    stream, fallback = situation.startswith("stream"), situation.endswith("fallback")
    prompt = PROMPT + " x" * 4_000_000 if row.large else PROMPT
    async with play(tmp_path, leaks, row, language, fallback=fallback) as running:
        if row.again:
            await running.ask(stream=stream, prompt="first")
        if row.again == "dropped":
            await asyncio.wait_for(running.a.idle.wait(), 2)
        timer = Timer()
        got = await running.ask(stream=stream, prompt=prompt)
        timer.check(row.least_s, row.least_s + SLACK_S)

        found = SEEN[row.id, situation, language] = seen(got, row.model, prompt)
        as_it_should = check(row, situation, found, row.must(situation, language))
        assert running.b.requests == (found == OTHER)
        check_books(running, row, got, found)
        if not fallback:
            check(row, "asks", str(running.a.requests), str(row.asks))
        counts = counted(await running.state())
        SEEN.setdefault((row.id, "counts", language), counts)
        if as_it_should:
            check(row, "counts", counts, row.counts) if found != ANSWER else check_blameless(counts)


def check_blameless(counts: str) -> None:
    """A provider whose answer was used is not held to account for how it came."""
    assert counts == "-"


def check_books(running: Stage, row: Row, got: Got, found: str) -> None:
    """The header, the log and the counters agree on how many attempts there were."""
    attempts = 1 + (found == OTHER)
    assert got.headers["x-sidecar-attempts"] == str(attempts)
    failed = running.sidecar.log("attempt_failed")
    assert len(failed) == attempts - (found in (ANSWER, OTHER) or got.status == 200)
    counted = sum(running.sidecar.app.metrics.attempts.values.values())
    assert counted == attempts + bool(row.again)
    assert len(running.sidecar.log("request")) == 1 + bool(row.again)


# ---- rows that need more than a model's name --------------------------------------------------------------------


def note(id: str, found: str, *, fallback: bool, stream: bool) -> None:
    """Note what was seen of a row, and that it is what must be."""
    situation = SITUATIONS[2 * stream + fallback]
    row = next(row for row in SPECIAL if row.id == id)
    SEEN[id, situation, "openai"] = found
    SEEN[id, "counts", "openai"] = row.counts
    assert found == row.must(situation)


@both
@fallbacks
@pytest.mark.parametrize("how", ["closes", "half-closes", "resets"])
@pytest.mark.parametrize("when", ["sending", "waiting", "reading"])
async def test_a_client_that_leaves(
    tmp_path: Path, leaks: Leaks, stream: bool, fallback: bool, how: str, when: str
) -> None:
    """F33: whenever and however it goes, the provider is let go of within a second, is not blamed, and nobody else is
    asked.
    """
    model = "fault/stall-after-3" if when == "reading" else "fault/hang"
    patient = {"first_event": 30.0, "answer": 30.0, "idle": 30.0, "total": 30.0}
    async with stage(tmp_path, leaks, model, fallback=fallback, timeouts=patient) as running:
        async with running.sidecar.connect() as wire:
            data = asked(stream=stream)
            wire.writer.write(data[:-9] if when == "sending" else data)
            if when == "sending":
                await until(lambda: bool(running.sidecar.app.sidecar.in_flight))
            elif when == "reading" and stream:
                await asyncio.wait_for(wire.reader.readuntil(b"CANARY"), 2)
            else:
                await until(lambda: running.a.requests == 1)
            leave(wire, how)
            timer = Timer()
            await asyncio.wait_for(running.a.idle.wait(), 2)
            await until(lambda: not running.sidecar.app.sidecar.in_flight)
            timer.check(0, 1)
        state = await running.state()
        assert (state["errors"], state["in_flight"], running.b.requests) == (0, 0, 0)
        assert running.a.requests == (when != "sending")
        assert [line["status"] for line in running.sidecar.log("request")] == [499] * (when != "sending")
        assert running.sidecar.log("attempt_failed") == []
    note("F33", "nothing any more; the provider is let go of within a second", fallback=fallback, stream=stream)


def leave(wire: Wire, how: str) -> None:
    """End a client's connection."""
    if how == "half-closes":
        wire.writer.write_eof()
    elif how == "resets":
        raw = wire.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        wire.writer.transport.abort()
    else:
        wire.writer.close()


@fallbacks
async def test_a_huge_stream_passes(tmp_path: Path, leaks: Leaks, fallback: bool) -> None:
    """F23: 100 MB of events go by; the sidecar holds almost nothing of them."""
    async with stage(tmp_path, leaks, "fault/huge", fallback=fallback, timeouts={"total": 60.0}) as running:
        with served("--policies", str(tmp_path), SIDECAR_API_KEYS=CLIENT_KEY, KEY=KEY) as process:
            async with running.sidecar.connect(process.address) as wire:
                await drink(wire, "echo")
                before_mb = rss_mb(process.process.pid, "VmRSS")
                size, end = await drink(wire, "test")
                grown_mb = rss_mb(process.process.pid, "VmHWM") - before_mb
        assert size > 100 << 20
        assert end.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert grown_mb < 16
    note("F23a", ANSWER, fallback=fallback, stream=True)


async def drink(wire: Wire, model: str) -> tuple[int, bytes]:
    """Read a chunked stream as it comes, without keeping it: its size and its end."""
    wire.writer.write(asked(stream=True).replace(b'"test"', b'"%b"' % model.encode()))
    size, end = 0, b""
    async with asyncio.timeout(30):
        while not end.endswith(b"\r\n0\r\n\r\n"):
            data = await wire.reader.read(1 << 20)
            assert data
            size += len(data)
            end = (end + data)[-64:]
    return size, end
