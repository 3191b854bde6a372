"""All runs of a simulation: one after the other, or a process each, which changes no figure: runs share nothing."""

import errno
import os
import signal
from collections.abc import Sequence
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Final

from proxy.simulation.choice import Choice
from proxy.simulation.replay import Progress, Run, World, replay

# From so many requests on, over all runs, processes are worth what they cost.
_MANY: Final = 50_000


def play(world: World, choices: Sequence[Choice], progress: Progress, jobs: int | None = None) -> list[Run]:
    """Return the run of each of `choices`, `jobs` at once (None: as many as pay). `progress` is told how many requests
    have come, over all of them. Raises ChildProcessError when a process is killed.
    """
    if jobs is None:
        jobs = _cores() if len(world.trace) * len(choices) >= _MANY else 1
    # Without `fork` a process would have to be sent the whole trace.
    if min(jobs, len(choices)) > 1 and "fork" in get_all_start_methods():
        return _at_once(world, choices, progress, jobs)
    size = len(world.trace)
    return [replay(world, choice, partial(_further, progress, number * size)) for number, choice in enumerate(choices)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _further(progress: Progress, before: int, done: int) -> None:
    progress(before + done)


def _at_once(world: World, choices: Sequence[Choice], progress: Progress, jobs: int) -> list[Run]:
    waiting = list(enumerate(choices))[::-1]
    running: dict[Connection, tuple[int, ForkProcess]] = {}
    found, come = dict[int, Run](), [0] * len(choices)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, choice = waiting.pop()
                pipe, process = _begin(world, choice)
                running[pipe] = number, process
            wait(list(running))
            for pipe, (number, process) in [one for one in running.items() if one[0].poll()]:
                told = _told(pipe)
                if isinstance(told, Run):
                    found[number] = told
                    process.join()
                    del running[pipe]
                else:
                    come[number] = told
                    progress(sum(come))
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()
    return [found[number] for number in range(len(choices))]


def _begin(world: World, choice: Choice) -> tuple[Connection, ForkProcess]:
    context = get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run_apart, args=(world, choice, theirs), daemon=True)
    process.start()
    theirs.close()
    return mine, process


def _told(pipe: Connection) -> int | Run:
    try:
        told: int | Run = pipe.recv()
    except EOFError:
        raise ChildProcessError(errno.ECHILD, "a process of its own was killed", "simulate") from None
    return told


def run_apart(world: World, choice: Choice, pipe: Connection) -> None:
    """Tell `pipe` how many requests have come, and at last the run. In a process of its own, which Ctrl-C leaves to
    its parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe.send(replay(world, choice, pipe.send))
