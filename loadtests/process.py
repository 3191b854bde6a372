"""A process under load: started without any provider key, measured from /proc, ended by its pid. Linux only."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import msgspec

ROOT: Final = Path(__file__).parent.parent
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_START_S: Final = 20.0
_STOP_S: Final = 30.0
# Nothing of the caller's environment but these: with a provider key in it, a load test would cost money.
_KEPT: Final = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
# Loopback only, whatever proxies the environment names.
_open: Final = build_opener(ProxyHandler({})).open


class Usage(NamedTuple):
    """What a process has taken so far. `peak_mb` is the highest resident memory since its start."""

    cpu_s: float
    rss_mb: float
    peak_mb: float
    files: int


class Process:
    """A subprocess whose output goes to `log`; a context manager that ends it."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT, env=clean_environ()
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._child.send_signal(number)

    def exit_code(self, within_s: float) -> int | None:
        """Return the exit code, None when it has not ended `within_s` seconds from now."""
        try:
            return self._child.wait(within_s)
        except subprocess.TimeoutExpired:
            return None

    def wait_ready(self, url: str, within_s: float = _START_S) -> None:
        """Return when `url` answers 200. Raises RuntimeError with the end of the log when it does not in time."""
        ends = time.monotonic() + within_s
        while time.monotonic() < ends and self._child.poll() is None:
            try:
                with _open(url, timeout=1):
                    return
            except (URLError, OSError):
                time.sleep(0.02)
        raise RuntimeError(f"not ready: {self.log.read_text(errors='replace')[-1000:]}")

    def usage(self) -> Usage:
        """Return what it has taken so far."""
        proc = Path(f"/proc/{self._child.pid}")
        ticks = (proc / "stat").read_text().rpartition(")")[2].split()[11:13]
        fields = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        rss, peak = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        return Usage(sum(map(int, ticks)) / _TICKS, rss, peak, len(list((proc / "fd").iterdir())))

    def forget_peak(self) -> None:
        """Begin anew with the highest resident memory."""
        Path(f"/proc/{self._child.pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        """Ask it to end, then make it."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()


def sidecar(log: Path, port: int, *arguments: str) -> Process:
    """Start a sidecar on `port` and return it when it is ready."""
    command = [sys.executable, "-m", "proxy", "serve", "--port", str(port), *arguments]
    process = Process(command, log)
    try:
        process.wait_ready(f"http://127.0.0.1:{port}/readyz")
    except BaseException:
        process.stop()
        raise
    return process


def clean_environ() -> dict[str, str]:
    """Return the environment for whatever is measured: nothing that holds a key or names a proxy."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ}


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def get(url: str) -> bytes:
    """Return the body at a loopback `url`."""
    with _open(url, timeout=10) as response:
        body: bytes = response.read()
        return body


def get_json(url: str) -> Any:
    """Return the JSON at a loopback `url`."""
    return msgspec.json.decode(get(url))
