"""`serve --workers N` as people run it: real processes on one port, and what happens when one of them dies."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.__main__ import main
from proxy.commands.serve import pieces
from proxy.log import Log
from proxy.workers import FIRST_DELAY_S, LONGEST_DELAY_S, Parent, Post, delay_s
from tests.conftest import CHAT, IN_ORDER, NOWHERE, StartUpstream, catalog
from tests.fake_upstream import Play, completion
from tests.served import ROOT, Served, poll, served

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="workers need Linux"),
    # Other tests may have left a thread of the event loop's behind; `serve` forks before there is any.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def children(pid: int) -> list[int]:
    """The processes that `pid` has started, dead ones left out."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if alive(int(text))]


def alive(pid: int) -> bool:
    """Whether there is such a process, and not only what is left of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def crew(directory: Path, *argv: str, workers: int = 2) -> Iterator[tuple[Served, list[int]]]:
    """Serve `directory` with several workers; they are all gone at the end."""
    with served("--workers", str(workers), "--policies", str(directory), *argv) as running:
        pids = children(running.process.pid)
        assert len(pids) == workers
        yield running, pids
    assert poll(lambda: not any(map(alive, pids)))


def write(directory: Path, *upstreams: Any, **provider: Any) -> None:
    """Write a catalog and a policy."""
    (directory / "catalog.toml").write_text(catalog(*upstreams, **provider))
    (directory / "test.toml").write_text(IN_ORDER)


async def ask(address: str, count: int, *, at_once: bool = False) -> tuple[Counter[int], set[str]]:
    """Send `count` requests, each on a connection of its own; returns the statuses, and who answered."""
    statuses, prefixes = Counter[int](), set[str]()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:

        async def one() -> None:
            async with session.post(f"{address}/v1/chat/completions", json=CHAT) as got:
                statuses[got.status] += 1
                prefixes.add(got.headers["x-request-id"].rpartition("_")[0])

        if at_once:
            await asyncio.gather(*(one() for _ in range(count)))
        else:
            for _ in range(count):
                await one()
    return statuses, prefixes


async def get(address: str, path: str) -> str:
    """What stands at `path`, asked on a fresh connection."""
    async with aiohttp.ClientSession() as session, session.get(address + path) as got:
        return await got.text()


async def settles(address: str, words: str) -> bool:
    """Whether /metrics comes to say `words`: what one worker knows of another may be a second old."""
    ends = time.monotonic() + 5
    while words not in await get(address, "/metrics"):
        if time.monotonic() > ends:
            return False
        await asyncio.sleep(0.02)
    return True


async def test_two_workers_on_one_port(tmp_path: Path, upstream: StartUpstream) -> None:
    """Both answer, ids are unique, the numbers are those of both whoever is asked, and SIGTERM ends all with 0."""
    write(tmp_path, await upstream(completion()))
    with crew(tmp_path, "--max-in-flight", "50") as (running, pids):
        assert [line for line in running.said if line.startswith("workers:")] == ["workers:       2"]
        statuses, prefixes = await ask(running.address, 60)
        assert (statuses, len(prefixes)) == ({200: 60}, 2)

        series = 'sidecar_requests_total{policy="test",mode="complete",status="200"} 60\n'
        assert await settles(running.address, series)
        told = set[int]()
        for _ in range(20):
            assert series in await get(running.address, "/metrics")
            status = json.loads(await get(running.address, "/status"))
            assert (status["spend_usd"], status["workers"]) == (pytest.approx(60 * 15e-6), 2)
            assert status["max_in_flight"] == 100
            told.add(status["worker"])
        assert told == {0, 1}

        running.tell(signal.SIGHUP)
        assert [json.loads(running.event("reloaded"))["generation"] for _ in pids] == [2, 2]
        running.tell(signal.SIGTERM)
        assert running.process.wait(10) == 0
        assert not any(map(alive, pids))


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_minutes_share_is_one_for_all(tmp_path: Path, upstream: StartUpstream, at_once: bool) -> None:
    """Five requests per minute are five, not five for each worker."""
    first = await upstream(completion())
    write(tmp_path, first, limits={"rpm": 5})
    with crew(tmp_path) as (running, _):
        statuses, prefixes = await ask(running.address, 60, at_once=at_once)
        assert (statuses, len(prefixes)) == ({200: 5, 429: 55}, 2)
        assert len(first.requests) == 5


async def test_places_are_for_all(tmp_path: Path, upstream: StartUpstream) -> None:
    """Four at once are four over both workers, and what is under way is seen by both."""
    whole = completion().pieces[0]
    first = await upstream(Play([whole[:-1], whole[-1:]]))
    first.go_on.clear()
    write(tmp_path, first, limits={"concurrency": 4})
    with crew(tmp_path) as (running, _):
        asking = asyncio.create_task(ask(running.address, 40, at_once=True))
        while len(first.requests) < 4:  # noqa: ASYNC110  # the event is for the first only
            await asyncio.sleep(0.005)
        for _ in range(8):
            status = json.loads(await get(running.address, "/status"))
            assert status["providers"]["p0"]["in_flight"] == 4
        await asyncio.sleep(0.05)
        assert len(first.requests) == 4
        first.go_on.set()
        statuses, _ = await asking
        assert statuses[200] >= 4
        assert set(statuses) <= {200, 429, 503}
        assert json.loads(await get(running.address, "/status"))["providers"]["p0"]["in_flight"] == 0


async def test_a_dead_worker_is_replaced(tmp_path: Path, upstream: StartUpstream) -> None:
    """Service goes on, another comes at once, what the dead one had counted and used up stays, and the log says so."""
    write(tmp_path, await upstream(completion()), limits={"rpm": 50})
    with crew(tmp_path) as (running, pids):
        await ask(running.address, 40)
        await asyncio.sleep(1.1)  # what is counted is shown every second
        os.kill(pids[0], signal.SIGKILL)
        assert poll(lambda: len(set(children(running.process.pid)) - set(pids)) == 1)
        line = json.loads(running.event("worker_ended"))
        assert (line["worker"], line["exit_code"], line["restart_s"]) == (0, -9, 0)
        assert alive(pids[1])
        statuses, told = Counter[int](), set[str]()
        while len(told) < 2:
            more, prefixes = await ask(running.address, 10)
            statuses += more
            told |= prefixes
        # 50 a minute: another one leaks out about every second.
        assert 10 <= statuses[200] <= 14
        assert await settles(running.address, f'outcome="ok"}} {40 + statuses[200]}\n')
        running.tell(signal.SIGTERM)
        assert running.process.wait(10) == 0


def test_without_their_parent_workers_end(tmp_path: Path) -> None:
    """A parent that is killed leaves nobody behind; `crew` sees to it."""
    write(tmp_path, NOWHERE)
    with crew(tmp_path, workers=3) as (running, pids):
        running.tell(signal.SIGKILL)
        assert poll(lambda: not any(map(alive, pids)))


def test_a_second_signal_ends_all_now(tmp_path: Path) -> None:
    """The first may come twice to a worker (a terminal tells them all); two to the parent mean now, with 1."""
    write(tmp_path, NOWHERE)
    with crew(tmp_path, "--drain-delay", "60") as (running, pids):
        for pid in [running.process.pid, *pids, *pids]:
            os.kill(pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(0.3)
        assert all(map(alive, pids))
        running.tell(signal.SIGTERM)
        assert running.process.wait(10) == 1


def refused(*argv: str) -> str:
    """What `serve` says that ends with 2 at its start."""
    command = [sys.executable, "-m", "proxy", "serve", "--workers", "4", *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    """Even when who listens there would share it; one sentence, the same as for one process."""
    write(tmp_path, NOWHERE)
    with crew(tmp_path) as (running, _):
        port = running.address.rpartition(":")[2]
        assert refused("--port", port) == f"llm-sidecar: cannot listen on 127.0.0.1:{port}: the port is in use\n"
        assert main(["serve", "--workers", "2", "--port", port]) == 2
        said = refused("--port", "0", "--admin", f"127.0.0.1:{port}")
        assert said == f"llm-sidecar: cannot listen on 127.0.0.1:{port}: the port is in use\n"


def test_what_cannot_start_says_so_once(tmp_path: Path) -> None:
    """Four workers, one complaint."""
    (tmp_path / "test.toml").write_text("strategy = 5")
    assert refused("--port", "0", "--policies", str(tmp_path)).count("cannot be used") == 1
    sentence = "llm-sidecar: 0.0.0.0 is no loopback address: set SIDECAR_API_KEYS to the keys clients send\n"
    assert refused("--port", "0", "--host", "0.0.0.0") == sentence  # noqa: S104


def test_the_number_of_workers_is_checked() -> None:
    """At least one, at most 64."""
    for number in ("0", "65", "x"):
        assert "argument --workers" in refused("--workers", number)


def test_log_pieces_end_at_lines() -> None:
    """Several processes write to one pipe: what goes in at once stays together, so it holds whole lines."""
    lines = [b"x" * size + b"\n" for size in (10, 5000, 4000, 90, 9, 4095, 1, 9000)]
    cut = list(pieces(b"".join(lines)))

    assert b"".join(cut) == b"".join(lines)
    assert all(piece.endswith(b"\n") for piece in cut)
    assert all(len(piece) <= 4096 or piece.count(b"\n") == 1 for piece in cut)


def test_delays_grow_and_are_forgotten() -> None:
    """Who lived a while is replaced at once; who dies at its start, later and later."""
    assert delay_s(1.0, 20.0) == 0
    assert delay_s(0.9, 0) == FIRST_DELAY_S
    delays = [0.0]
    for _ in range(12):
        delays.append(delay_s(0.1, delays[-1]))
    assert delays[1:4] == [0.1, 0.2, 0.4]
    assert delays[-1] == LONGEST_DELAY_S


class Crew:
    """A parent in this process, and what it did."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.buried: list[int] = []
        self.lines: list[dict[str, Any]] = []

    def run(self, count: int, work: Any) -> int:
        """Run a parent over `count` workers."""
        log = Log(lambda lines: self.lines.append(json.loads(lines)))
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        handler = signal.getsignal(signal.SIGTERM)
        code = Parent(count, work, self.buried.append, log).run(self.said.append)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
        assert signal.getsignal(signal.SIGTERM) == handler
        return code


def tell_parent(*numbers: signal.Signals) -> None:
    """A worker's word to its parent."""
    for number in numbers:
        os.kill(os.getppid(), number)


def until_told(post: Post) -> int:
    """Be a worker that ends well when it is told to."""
    post.say(f"worker {post.number}")
    return 0 if signal.sigwait([signal.SIGTERM]) else 1


def test_the_parent_greets_once_and_ends_last() -> None:
    """It says what the first worker said, passes SIGHUP and SIGTERM on, and ends with 0."""

    def work(post: Post) -> int:
        post.say(f"worker {post.number}")
        if post.number == 1:
            tell_parent(signal.SIGHUP)
        assert signal.sigwait([signal.SIGHUP, signal.SIGTERM]) == signal.SIGHUP
        if post.number == 0:
            tell_parent(signal.SIGTERM)
        return 0 if signal.sigwait([signal.SIGTERM]) else 1

    crew = Crew()
    assert crew.run(2, work) == 0
    assert (crew.said, sorted(crew.buried), crew.lines) == (["worker 0\n"], [0, 1], [])


def test_a_worker_that_fails_at_its_end_is_told() -> None:
    """0 is for workers that all ended well."""

    def work(post: Post) -> int:
        if post.number:
            tell_parent(signal.SIGTERM)
        return until_told(post) + post.number

    assert Crew().run(2, work) == 1


@pytest.mark.parametrize(("code", "ends"), [(2, 2), (0, 1)])
def test_a_first_start_that_fails_ends_all(code: int, ends: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Those that had begun are told to stop, nobody is greeted."""
    crew = Crew()
    assert crew.run(3, lambda post: code if post.number == 1 else until_told(post)) == ends
    assert (crew.said, crew.buried, crew.lines) == ([], [0], [])
    assert crew.run(1, lambda post: 1 // 0) == 1
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_who_dies_is_started_again(tmp_path: Path) -> None:
    """At once or after a delay; its log line says which, and the others do not notice."""
    starts = tmp_path / "starts"
    crew = Crew()
    code = crew.run(1, lambda post: _dying(post, starts))
    assert code == 0
    assert [line["exit_code"] for line in crew.lines] == [1, 2]
    assert [line["restart_s"] for line in crew.lines] == [0.1, 0.2]


def _dying(post: Post, starts: Path) -> int:
    """Die with 1, then with 2, then live until told."""
    with starts.open("a") as file:
        file.write("x")
    begun = starts.stat().st_size
    post.say("again")
    if begun < 3:
        return begun
    tell_parent(signal.SIGTERM)
    return 0 if signal.sigwait([signal.SIGTERM]) else 1


def test_told_to_stop_while_starting() -> None:
    """A signal before all are ready ends those that are there, with 0, and no more are started."""

    def work(post: Post) -> int:
        assert post.number < 2
        if post.number == 1:
            tell_parent(signal.SIGTERM)
        return until_told(post)

    crew = Crew()
    assert crew.run(3, work) == 0
    assert crew.said == []


def test_the_second_signal_kills() -> None:
    """Who does not end when told is killed when told again; that is no good end."""

    def work(post: Post) -> int:
        post.say("deaf")
        tell_parent(signal.SIGTERM)
        time.sleep(0.05)
        tell_parent(signal.SIGINT)
        return signal.sigwait([signal.SIGUSR1])

    assert Crew().run(1, work) == 1
