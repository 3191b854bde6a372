"""A measured process: on a core of its own, in its own session, with its whole tree's CPU and memory. Linux only.

CPU is user and system of every thread of the tree, to the nanosecond where the kernel tells (schedstat), else to its
ticks. A process that ends takes its seconds along, so what is measured must not replace its processes meanwhile.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from loadtests.process import ROOT, clean_environ

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_STOP_S: Final = 10.0
# The kernel weighs sessions against each other first (autogroup): without it, being nice helps nobody.
_NICE: Final = -15
_AUTOGROUP: Final = b"-20"


class Sample(NamedTuple):
    """CPU so far: seconds of each thread by its id (empty where not told), of the tree by ticks, of each core busy."""

    at_s: float
    threads: dict[str, float]
    ticks_s: float
    cores_s: dict[int, float]


class Used(NamedTuple):
    """CPU seconds of a tree in a window, and what share of its core that was, and what share others used."""

    cpu_s: float
    own: float
    foreign: float


@contextmanager
def running(command: Sequence[str], core: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` on `core`, output to `log`; ended with its whole tree."""
    with log.open("ab") as out:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=ROOT,
            env=clean_environ(),
            start_new_session=True,
            preexec_fn=lambda: settle(core),
        )
    try:
        yield child
    finally:
        end(child)


def settle(core: int) -> None:
    """Move this process to `core` and before others, as far as it may."""
    os.sched_setaffinity(0, {core})
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_bytes(_AUTOGROUP)


def end(child: subprocess.Popen[bytes]) -> None:
    """Ask the tree of `child` to end, by process id, then make it."""
    pids = tree(child.pid)
    for signal in (15, 9):
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, signal)
        ends = time.monotonic() + _STOP_S
        while time.monotonic() < ends:
            child.poll()
            pids = [pid for pid in pids if _alive(pid)]
            if not pids:
                return
            time.sleep(0.02)


def _alive(pid: int) -> bool:
    fields = _stat(pid)
    return fields is not None and fields[0] != "Z"


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def tree(root: int) -> list[int]:
    """Return the processes of `root`: itself, its session, its descendants."""
    stats = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    alive = {pid: fields for pid, fields in stats.items() if fields}
    found = {pid for pid, fields in alive.items() if root in (pid, int(fields[3]))}
    while more := {pid for pid, fields in alive.items() if int(fields[1]) in found} - found:
        found |= more
    return sorted(found)


def sample(root: int) -> Sample:
    """Return what the tree of `root` and all cores have used so far."""
    threads, ticks = dict[str, float](), 0
    for pid in tree(root):
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                threads[task.name] = int((task / "schedstat").read_text().split()[0]) / 1e9
        ticks += sum(map(int, (_stat(pid) or ["0"] * 13)[11:13]))
    cores = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _idle, _wait, irq, softirq = map(int, fields[:7])
            cores[int(name[3:])] = (user + nice + system + irq + softirq) / _TICKS
    return Sample(time.monotonic(), threads, ticks / _TICKS, cores)


def used(before: Sample, after: Sample, core: int) -> Used:
    """Return what was used between two samples. Ticks count where a thread ended in between, with what it had used."""
    seconds = after.at_s - before.at_s
    cpu_s = sum(used_s - before.threads.get(thread, 0.0) for thread, used_s in after.threads.items())
    if before.threads.keys() - after.threads.keys() or not after.threads:
        cpu_s = max(cpu_s, after.ticks_s - before.ticks_s)
    busy_s = after.cores_s.get(core, 0.0) - before.cores_s.get(core, 0.0)
    return Used(cpu_s, cpu_s / seconds, max(0.0, (busy_s - cpu_s) / seconds))


def rss_kib(root: int) -> int:
    """Return the resident memory of the tree; what its processes share counts for each."""
    total = 0
    for pid in tree(root):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return total
