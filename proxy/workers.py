"""The parent of the workers of one `serve`: starts them, starts a dead one again, passes signals on, and ends last.

It serves nothing, has one thread and no event loop, so that it can fork at any moment. Signals become bytes in a pipe
(`signal.set_wakeup_fd`): none is lost between a look and a wait. Workers hold the reading end of another pipe, which
ends with the parent, however that ends.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from select import select
from typing import Final, NamedTuple

import msgspec

from proxy.log import Log

# A worker that dies sooner than this after its start is started again with a delay, which doubles from the first to
# the longest: a fault at start must not become a storm of forks.
SOON_S: Final = 1.0
FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 30.0
_STOPS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
# A new worker has them blocked, and lets them through when it can take them.
HEARD: Final = frozenset({*_STOPS, signal.SIGHUP, signal.SIGCHLD})


class Post(NamedTuple):
    """What a new worker is told: its number from 0, what to wait on for the parent's end, where to say it is ready."""

    number: int
    parent: int
    ready: int

    def say(self, text: str) -> None:
        """Tell the parent that this worker serves. Call it once."""
        with suppress(BrokenPipeError):  # nobody asks a successor
            os.write(self.ready, text.encode() + b"\n")
        os.close(self.ready)


class _Worker(msgspec.Struct):
    """One place among the workers. When nobody is there, `due` says from when on somebody shall be."""

    number: int
    since: float = 0.0
    delay_s: float = 0.0
    due: float = 0.0


class Parent:
    """Runs `work` in `count` processes; `bury` is called with the number of one that died, before its successor comes.

    `work` returns the exit code: 2 when it cannot start, which is believed at the first start only.
    """

    def __init__(self, count: int, work: Callable[[Post], int], bury: Callable[[int], object], log: Log) -> None:
        self._work = work
        self._bury = bury
        self.log = log
        self._absent = [_Worker(number) for number in range(count)]
        self._present: dict[int, _Worker] = {}
        self._life = os.pipe()
        self._signals = os.pipe()
        self._heard: list[int] = []
        self._stopping = False
        self._code = 0

    def run(self, greet: Callable[[str], object]) -> int:
        """Return the exit code when all workers have ended. `greet` gets what the first one said when all are ready."""
        before = {number: signal.signal(number, lambda number, frame: None) for number in HEARD}
        os.set_blocking(self._signals[1], False)
        signal.set_wakeup_fd(self._signals[1])
        try:
            said = self._start_all()
            if said:
                greet(said)
            while self._present or not self._stopping:
                self._turn()
            return self._code
        finally:
            self._send(signal.SIGKILL)
            for pid in self._present:
                os.waitpid(pid, 0)
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            for end in (*self._life, *self._signals):
                os.close(end)

    def _start_all(self) -> str:
        """Start one after the other, so that what is wrong is said once. Returns what the first one said."""
        first = ""
        while self._absent:
            pid, heard = self._start(self._absent.pop(0))
            said = self._listen(heard)
            if not _STOPS.isdisjoint(self._heard):
                return ""
            if not said:
                self._give_up(pid)
                return ""
            first = first or said
        return first

    def _give_up(self, pid: int) -> None:
        """End everything with the exit code of the worker that could not start."""
        del self._present[pid]
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._code = code if code > 0 else 1
        self._stop()

    def _start(self, worker: _Worker) -> tuple[int, int]:
        """Fork. Returns the worker's process id, and what to read its word from."""
        heard, ready = os.pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in HEARD:
                signal.signal(number, signal.SIG_DFL)
            for end in (heard, self._life[1], *self._signals):
                os.close(end)
            _live(self._work, Post(worker.number, self._life[0], ready))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(ready)
        worker.since = time.monotonic()
        self._present[pid] = worker
        return pid, heard

    def _turn(self) -> None:
        """Wait for a signal or for the next start that is due, and do what it says."""
        dues = [] if self._stopping else [worker.due for worker in self._absent]
        if not self._heard:
            self._wait(max(0.0, min(dues) - time.monotonic()) if dues else None)
        number = self._heard.pop(0) if self._heard else 0
        if number == signal.SIGHUP:
            self._send(signal.SIGHUP)
        if number in _STOPS:
            self._stop()
        now = time.monotonic()
        for pid in list(self._present):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._bid_farewell(self._present.pop(pid), os.waitstatus_to_exitcode(status), now)
        if not self._stopping:
            for worker in [worker for worker in self._absent if worker.due <= now]:
                self._absent.remove(worker)
                os.close(self._start(worker)[1])

    def _wait(self, wait_s: float | None, *files: int) -> list[int]:
        """Wait for a signal, or for one of `files` to be readable; returns what is."""
        ready = select([self._signals[0], *files], [], [], wait_s)[0]
        if self._signals[0] in ready:
            self._heard.extend(os.read(self._signals[0], 4096))
        return ready

    def _listen(self, heard: int) -> str:
        """Return what a new worker says; empty when it ended instead, or when the parent is told to stop meanwhile."""
        said = b""
        with open(heard, "rb", buffering=0) as file:
            while _STOPS.isdisjoint(self._heard):
                if heard not in self._wait(None, heard):
                    continue
                piece = file.read(65_536)
                if not piece:
                    break
                said += piece
        return said.decode() if said.endswith(b"\n") else ""

    def _stop(self) -> None:
        """Pass the order on; the second one means now. Workers do not count: they may have it from a terminal, too."""
        self._send(signal.SIGKILL if self._stopping else signal.SIGTERM)
        self._stopping = True

    def _bid_farewell(self, worker: _Worker, code: int, now: float) -> None:
        self._bury(worker.number)
        self._absent.append(worker)
        if self._stopping:
            self._code = self._code or int(code != 0)
            return
        worker.delay_s = delay_s(now - worker.since, worker.delay_s)
        worker.due = now + worker.delay_s
        self.log("worker_ended", time.time(), worker=worker.number, exit_code=code, restart_s=worker.delay_s)

    def _send(self, number: signal.Signals) -> None:
        for pid in self._present:
            os.kill(pid, number)  # not waited for yet, so the id is still its own


def delay_s(lived_s: float, last_s: float) -> float:
    """Return how long to wait before a dead worker is started again, after `last_s` the last time."""
    if lived_s >= SOON_S:
        return 0.0
    return min(LONGEST_DELAY_S, max(FIRST_DELAY_S, 2 * last_s))


def _live(work: Callable[[Post], int], post: Post) -> None:
    """Be a worker. Does not return: what the parent's callers have still to do is not for a worker."""
    code = 1
    try:
        code = work(post)
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        os._exit(code)
