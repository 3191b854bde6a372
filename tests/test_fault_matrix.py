"""The fault matrix, run: each fault in four situations, in every wire language, through real sockets.

It also writes docs/faults.md: `SIDECAR_WRITE_FAULTS=1 python -m pytest tests/test_fault_matrix.py`.
"""

import asyncio
import os
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
    CLIENT_KEY,
    HASTY,
    KEY,
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
from tests.fault_matrix import LEFT, ROWS, SITUATIONS, SPECIAL, STALLED, Row, situations
from tests.served import served

CELLS = [
    pytest.param(row.spoken(language), situation, language, id=f"{row.id} {row.title}-{situation}-{language}")
    for row in ROWS
    for language in LANGUAGES
    for situation in situations(row, language)
]
both = pytest.mark.parametrize("stream", [False, True], ids=["complete", "stream"])
fallbacks = pytest.mark.parametrize("fallback", [False, True], ids=["alone", "fallback"])


@pytest.fixture
def leaks(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Leaks:
    """Looks for keys in what is said."""
    return Leaks(capfd, caplog)


@asynccontextmanager
async def play(tmp_path: Path, leaks: Leaks, row: Row, language: str, *, fallback: bool) -> AsyncIterator[Stage]:
    """Run a row."""
    async with Slammed() as slammed:
        url = row.url.replace("{slammed}", f"http://127.0.0.1:{slammed.port}/v1")
        async with stage(
            tmp_path,
            leaks,
            row.model,
            language=language,
            fallback=fallback,
            url=url,
            timeouts=(HASTY if row.least_s else {}) | {"total": row.total_s},
        ) as running:
            yield running


@pytest.mark.parametrize(("row", "situation", "language"), CELLS)
async def test_a_cell(tmp_path: Path, leaks: Leaks, row: Row, situation: str, language: str) -> None:
    """A client sees what the matrix says, in time; whoever was asked was asked as often as it says, and it is all in
    the books.
    """
    stream, fallback = situation.startswith("stream"), situation.endswith("fallback")
    # Once with more than all buffers on the way hold; what an early answer says does not hang on the size.
    prompt = PROMPT + " x" * (4_000_000 if language == "openai" else 100_000) if row.large else PROMPT
    async with play(tmp_path, leaks, row, language, fallback=fallback) as running:
        if row.again:
            await running.ask(stream=stream, prompt="first")
        if row.again == "dropped":
            await asyncio.wait_for(running.a.idle.wait(), 2)
        timer = Timer()
        got = await running.ask(stream=stream, prompt=prompt)
        timer.check(row.least_s, row.least_s + SLACK_S)

        found = SEEN[row.id, situation, language] = seen(got, row.model, prompt)
        assert found == row.must(situation, language)
        assert running.b.requests == (found == OTHER)
        check_books(running, row, got, found)
        if not fallback:
            assert running.a.requests == row.must_ask(situation, language)
        counts = counted(await running.state())
        SEEN.setdefault((row.id, "then", language), counts)
        # Whose answer was used is not held to account for how it came. How long "rests" is may be left open.
        must = "-" if found == ANSWER else row.counts
        assert counts == must or (must == "rests" and counts.startswith(must))


def check_books(running: Stage, row: Row, got: Got, found: str) -> None:
    """The header, the log and the counters agree on how many attempts there were."""
    asked_for_one = 1 if row.again else max(1, running.a.requests)
    attempts = asked_for_one + (found == OTHER)
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
    SEEN[id, "then", "openai"] = row.counts
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
    note("F33", LEFT, fallback=fallback, stream=stream)


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
async def test_a_huge_answer_is_refused(tmp_path: Path, leaks: Leaks, fallback: bool) -> None:
    """F23: a complete answer has to be held in memory, so it must not be larger than 32 MiB."""
    async with stage(tmp_path, leaks, "fault/huge", fallback=fallback) as running:
        note("F23a", seen(await running.ask(stream=False), "fault/huge"), fallback=fallback, stream=False)
        assert counted(await running.state()) == "counts"


@fallbacks
async def test_a_huge_stream_passes(tmp_path: Path, leaks: Leaks, fallback: bool) -> None:
    """F23: 100 MB of events go by and take less than 2 MiB, once the first few have warmed the process up."""
    async with stage(tmp_path, leaks, "fault/huge", fallback=fallback, timeouts={"total": 60.0}) as running:
        with served("--policies", str(tmp_path), SIDECAR_API_KEYS=CLIENT_KEY, KEY=KEY) as process:
            async with running.sidecar.connect(process.address) as wire:
                await drink(wire, "b/echo")
                async with running.sidecar.connect(process.address) as other:
                    other.writer.write(asked(stream=True))
                    await other.reader.readexactly(4 << 20)
                memory = Path(f"/proc/{process.process.pid}")
                (memory / "clear_refs").write_text("5")  # forget the highest so far
                before_mb = highest_mb(memory)
                size, end = await drink(wire, "test")
                grown_mb = highest_mb(memory) - before_mb
        assert size > 100 << 20
        assert end.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert grown_mb < 2
    note("F23a", ANSWER, fallback=fallback, stream=True)


def highest_mb(process: Path) -> float:
    """The most memory that a process has had."""
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


async def drink(wire: Wire, model: str) -> tuple[int, bytes]:
    """Read a chunked stream as it comes, without keeping it: its size and its end."""
    wire.writer.write(asked(stream=True, model=model))
    size, end = 0, b""
    async with asyncio.timeout(30):
        while not end.endswith(b"\r\n0\r\n\r\n"):
            data = await wire.reader.read(1 << 20)
            assert data
            size += len(data)
            end = (end + data)[-64:]
    return size, end


@fallbacks
async def test_a_client_that_does_not_read(tmp_path: Path, leaks: Leaks, fallback: bool) -> None:
    """F34: it is cut off, the provider let go of and not blamed, and nobody else is asked."""
    async with stage(tmp_path, leaks, "fault/huge", fallback=fallback) as running:
        doors = running.sidecar.app.sidecar
        hasty = Server(doors.handle, doors.note, stall_s=0.3)
        listener = Listener("127.0.0.1", 0, hasty)
        async with running.sidecar.connect(listener.address) as wire:
            wire.writer.write(asked(stream=True))
            await until(lambda: running.a.requests == 1)
            timer = Timer()
            await asyncio.wait_for(running.a.idle.wait(), 5)
            timer.check(0.2, 2)
        listener.close()
        await hasty.shutdown(0.1)
        await until(lambda: running.sidecar.log("request") != [])
        assert (await running.state())["errors"] == running.b.requests == 0
        assert [line["status"] for line in running.sidecar.log("request")] == [499]
    note("F34", STALLED, fallback=fallback, stream=True)


@both
async def test_when_all_fail(tmp_path: Path, leaks: Leaks, stream: bool) -> None:
    """F35: the client gets the last fault, with a list of all of them, and is told not to try again."""
    async with stage(tmp_path, leaks, "fault/429", fallback=True, other="fault/500") as running:
        got = await running.ask(stream=stream)
        listed = [(one["upstream"], one["kind"], one["code"]) for one in got.error["metadata"]["attempts"]]
        assert listed == [
            ("a/fault/429", "rate_limit", "rate_limit_exceeded"),
            ("b/fault/500", "unavailable", "server_error"),
            ("b/fault/500", "unavailable", "server_error"),
        ]
        assert (running.a.requests, running.b.requests, got.headers["x-sidecar-attempts"]) == (1, 2, "3")
        assert [line.get("next") for line in running.sidecar.log("attempt_failed")] == [
            "b/fault/500",
            "b/fault/500",
            None,
        ]
    note("F35", seen(got, ""), fallback=True, stream=stream)


@both
@fallbacks
async def test_when_everybody_rests(tmp_path: Path, leaks: Leaks, stream: bool, fallback: bool) -> None:
    """F36: whoever has failed too often is not asked: 503 within 5 ms, with the time of the next try."""
    async with stage(tmp_path, leaks, "fault/500", fallback=fallback, other="fault/500") as running:
        while (await running.state())["resting_s"] == 0:
            await running.ask(stream=stream)
        before = running.a.requests, running.b.requests
        took = []
        for _ in range(10):
            timer = Timer()
            got = await running.ask(stream=stream)
            took.append(timer.seconds())
            assert (running.a.requests, running.b.requests, got.headers["x-sidecar-attempts"]) == (*before, "0")
        assert min(took) < 0.005
        assert got.headers["retry-after"] in ("1", "2")
        got.headers["retry-after"] = "1"
    note("F36", seen(got, ""), fallback=fallback, stream=stream)


@both
@fallbacks
async def test_a_refused_connection_is_not_waited_for(
    tmp_path: Path, leaks: Leaks, stream: bool, fallback: bool
) -> None:
    """F1: told within 200 ms, after a second try at once; a fallback's answer is there within 100."""
    url, took = "http://127.0.0.1:9/v1", []
    async with stage(tmp_path, leaks, "m", fallback=fallback, url=url) as running:
        for _ in range(4):  # before the fifth it would rest
            timer = Timer()
            got = await running.ask(stream=stream)
            took.append(timer.seconds())
            assert got.headers["x-sidecar-attempts"] == str(1 + fallback)
        assert (got.status, running.b.requests) == ((200, 4) if fallback else (502, 0))
        assert min(took) < (0.1 if fallback else 0.2)


async def test_an_early_answer_leaves_no_half_request_behind(tmp_path: Path, leaks: Leaks) -> None:
    """F30: who answers early and reads no further keeps that connection; the next request goes over another."""

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"early"}}'
        writer.write(b"HTTP/1.1 400 X\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        async with stage(tmp_path, leaks, "m", url=url) as running:
            large = await running.ask(stream=False, prompt="x" * 16_000_000)
            small = await running.ask(stream=False)
            assert (seen(large, ""), seen(small, "")) == ("400 `early`", "400 `early`")
            for writer in writers:
                writer.close()
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()
        await server.wait_closed()


# ---- docs/faults.md ---------------------------------------------------------------------------------------------


def test_the_page_says_what_was_seen() -> None:
    """docs/faults.md has the rows that this run saw, as it saw them."""
    before, within, behind = fault_docs.split(fault_docs.PAGE.read_text())
    rows, listed, whole = fault_docs.table(), set(within.splitlines()), fault_docs.whole()
    if os.environ.get("SIDECAR_WRITE_FAULTS"):
        assert whole, "run all of the matrix to write the page"
        fault_docs.PAGE.write_text(before + fault_docs.page() + behind)
    elif whole:
        assert within == fault_docs.page()
    else:
        assert set(rows) <= listed
