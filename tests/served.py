"""A real `llm-sidecar serve` in a process of its own, and signals that come when somebody listens for them."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Thread, Timer

from proxy.__main__ import main

ROOT = Path(__file__).parent.parent
_DEADLINE_S = 10.0


def poll(true: Callable[[], bool]) -> bool:
    """Wait until `true()`; False when it does not come true in time."""
    ends = time.monotonic() + _DEADLINE_S
    while not (found := true()) and time.monotonic() < ends:
        time.sleep(0.005)
    return found


def told(argv: Sequence[str], number: signal.Signals, act: Callable[[], object]) -> int:
    """Run a verb in this process, and `act` as soon as it handles the signal `number`. Returns its exit code."""
    _forget()

    def soon() -> None:
        if poll(lambda: signal.getsignal(number) is not signal.SIG_DFL):
            act()

    thread = Thread(target=soon)
    thread.start()
    code = main(argv)
    thread.join()
    _forget()
    return code


def send(*numbers: signal.Signals) -> None:
    """Send signals to this process."""
    for number in numbers:
        os.kill(os.getpid(), number)


def _forget() -> None:
    """A verb's process ends with it, so it leaves its signal handlers; here they must go."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Served:
    """The process and where it listens."""

    def __init__(self, process: Popen[bytes], said: list[str]) -> None:
        self.process = process
        self.said = said
        self.address = said[0].split()[3]

    def tell(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def event(self, name: str) -> str:
        """The next log line with this event."""
        assert self.process.stdout is not None
        return next(line for line in map(bytes.decode, self.process.stdout) if f'"event":"{name}"' in line)


@contextmanager
def served(*argv: str, **environ: str) -> Iterator[Served]:
    """Run `llm-sidecar serve --port 0` with these arguments; killed when it is still there at the end."""
    command = [sys.executable, "-m", "proxy", "serve", "--port", "0", *argv]
    clean = {name: text for name, text in os.environ.items() if not name.endswith(("_API_KEY", "_API_KEYS"))}
    with Popen(command, cwd=ROOT, env={**clean, **environ}, stdout=PIPE, stderr=PIPE) as process:
        late = Timer(3 * _DEADLINE_S, process.kill)
        late.start()
        try:
            assert process.stderr is not None
            said: list[str] = []
            while not said or not said[-1].startswith("try: "):
                line = process.stderr.readline().decode()
                assert line, said
                said.append(line.rstrip("\n"))
            yield Served(process, said)
        finally:
            late.cancel()
            process.kill()
