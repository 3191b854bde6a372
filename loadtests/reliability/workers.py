"""L7: one of two workers is killed. Only what it had open is lost, and its successor serves soon."""

import asyncio
import os
import signal
import time
from collections import Counter
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Final, NamedTuple

import uvloop

from loadtests.bench.watch import tree
from loadtests.reliability.bed import MODEL, Bed, bed, wait_until
from loadtests.reliability.client import Client, Outcome
from loadtests.reliability.figure import Line, Settings, at_least, at_most, exactly, told
from loadtests.reliability.judge import Kind, judge, tally
from loadtests.reliability.script import Script

_HANDS: Final = 100
_WAIT_S: Final = 0.3
_BEFORE_S: Final = 2.0
_AFTER_S: Final = 4.0
_SERVING_S: Final = 2.0
_PATIENCE_S: Final = 10.0
# The kernel closes a killed process's sockets one after the other, its listener at any place among them.
_DYING_S: Final = 0.1
_ESTABLISHED: Final = "01"


class Killed(NamedTuple):
    """`open` counts the client connections that it had at `counted`, `serving_s` is None when no successor answered."""

    open: int
    counted: float
    at: float
    serving_s: float | None


def kill(settings: Settings) -> list[Line]:
    """L7: 100 clients that always have a request under way; kill -9 one of two workers."""
    hands = settings.count(_HANDS, 20)
    with bed("--workers", "2") as it:
        outcomes, killed = uvloop.run(_run(it, hands, settings))
        found = tally(outcomes)
        wait_until(lambda: it.events()["request"] >= found.kinds[Kind.RIGHT], 2.0)
        wrong = [one for one in outcomes if judge(one).kind is not Kind.RIGHT]
        early = [one for one in wrong if one.began < killed.counted]
        late = [one for one in wrong if one.began > killed.at + _DYING_S]
        ids = Counter(line["request_id"] for line in it.log() if line["event"] == "request")
        right = [one.headers["x-request-id"] for one in outcomes if judge(one).kind is Kind.RIGHT]
        return [
            at_least("open on it when it was killed", hands // 10, killed.open),
            at_most("failed requests", killed.open, len(early)),
            told("failed that came to it while it died", len(wrong) - len(early) - len(late)),
            exactly("failed that were begun afterwards", 0, len(late)),
            at_most("its successor answers", _SERVING_S, round(killed.serving_s or _PATIENCE_S, 2), " s"),
            exactly("answered twice by an upstream (nonce)", 0, it.upstream.journal()["answered_twice"]),
            exactly("requests logged twice", 0, sum(times > 1 for times in ids.values())),
            exactly("worker_ended in the log", 1, it.events()["worker_ended"]),
            told("right answers without a log line", sum(one not in ids for one in right)),
            told("answers", found),
        ]


async def _run(it: Bed, hands: int, settings: Settings) -> tuple[list[Outcome], Killed]:
    client = Client(it.port, MODEL)
    going = True
    outcomes: list[Outcome] = []

    async def hand() -> None:
        while going:
            outcomes.append(await client.ask(Script.new(stream=False, wait=_WAIT_S)))

    async with asyncio.TaskGroup() as group:
        for _ in range(hands):
            group.create_task(hand())
        await asyncio.sleep(settings.time(_BEFORE_S, 0.5))
        killed = await asyncio.to_thread(_kill, it)
        await asyncio.sleep(settings.time(_AFTER_S))
        going = False
    client.close()
    return outcomes, killed


def _kill(it: Bed) -> Killed:
    """Stop a worker, count what it has open, kill it, and wait until another process in its place has answered."""
    before = _workers(it)
    victim = max(before, key=lambda pid: len(_owned(pid) & _clients(it.port)))
    os.kill(victim, signal.SIGSTOP)
    # A connection that nobody has accepted yet has no owner; it may be the victim's.
    counted = time.monotonic()
    opened = len(_owned(victim) & _clients(it.port)) + _waiting(it.port)
    os.kill(victim, signal.SIGKILL)
    at = time.monotonic()
    while time.monotonic() < at + _PATIENCE_S:
        new = set(_workers(it)) - set(before)
        if new and _answered_by(it.port, new):
            return Killed(opened, counted, at, time.monotonic() - at)
        time.sleep(0.02)
    return Killed(opened, counted, at, None)


def _workers(it: Bed) -> list[int]:
    return [pid for pid in tree(it.sidecar.pid) if pid != it.sidecar.pid]


def _owned(pid: int) -> set[str]:
    """Return the inodes of the sockets of a process; none when it is gone."""
    found = set[str]()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
    return found


def _connections(port: int) -> list[tuple[str, str]]:
    """Return remote port (hexadecimal) and inode of each established connection to the loopback `port`."""
    ours = f":{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    rows = [line for line in lines if line[1].endswith(ours) and line[3] == _ESTABLISHED]
    return [(line[2].rpartition(":")[2], line[9]) for line in rows]


def _clients(port: int) -> set[str]:
    return {inode for _, inode in _connections(port)}


def _waiting(port: int) -> int:
    return sum(inode == "0" for _, inode in _connections(port))


def _answered_by(port: int, pids: set[int]) -> bool:
    """Ask once, and say whether one of these processes answered."""
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/livez")
        if connection.getresponse().status != 200:
            return False
        mine = f"{connection.sock.getsockname()[1]:04X}"
        inodes = {inode for remote, inode in _connections(port) if remote == mine}
        return any(inodes & _owned(pid) for pid in pids)
    except OSError:
        return False
    finally:
        connection.close()
