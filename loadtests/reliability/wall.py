"""The fault wall as a process, a sidecar before it, and one question at a time: what a single fault comes to."""

import asyncio
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from loadtests.process import Process, free_port, sidecar
from loadtests.reliability.client import End, Wire

_START_S: Final = 10.0
_LATE: End = "late"


class Wall:
    """A running wall."""

    def __init__(self, process: Process, port: int) -> None:
        self.port = port
        self._process = process

    def asked(self) -> Counter[tuple[str, str]]:
        """Return how often it was asked, by mode ("complete" or "stream") and model."""
        lines = [line.split(" ", 2) for line in self._process.log.read_text(errors="replace").splitlines()]
        return Counter((line[1], line[2]) for line in lines if line[0].startswith("/"))


@contextmanager
def wall(log: Path) -> Iterator[Wall]:
    """Run a wall that logs to `log`. Raises RuntimeError when it does not start."""
    port = free_port()
    with Process([sys.executable, "-m", "proxy", "faults", "--port", str(port)], log) as process:
        ends = time.monotonic() + _START_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if time.monotonic() > ends:
                raise RuntimeError(f"the wall does not start: {log.read_text(errors='replace')[-800:]}")
            time.sleep(0.02)
        yield Wall(process, port)


@contextmanager
def gateway(directory: Path, files: Mapping[str, str]) -> Iterator[tuple[Process, int]]:
    """Run a sidecar with these policy files, by name; yields it and its port."""
    policies, port = directory / "policies", free_port()
    policies.mkdir()
    for name, text in files.items():
        (policies / f"{name}.toml").write_text(text)
    with sidecar(directory / "sidecar.log", port, "--policies", str(policies)) as process:
        yield process, port


class Answer(NamedTuple):
    """What came back. `end` as in `client.Outcome`; `total_s` until then."""

    end: End
    status: int
    headers: dict[str, str]
    body: bytes
    total_s: float


async def ask(port: int, model: str, prompt: str, *, stream: bool, late_s: float = 10.0) -> Answer:
    """Ask the gateway at `port` on a connection of its own."""
    said = {"model": model, "stream": stream, "messages": [{"role": "user", "content": prompt}]}
    body = msgspec.json.encode(said)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    began, end = time.monotonic(), _LATE
    _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", port)
    with suppress(TimeoutError):
        async with asyncio.timeout(late_s):
            await wire.ask(head.encode() + body)
            end = "whole" if wire.whole() else "cut"
    wire.transport.abort()
    return Answer(end, *wire.read(), time.monotonic() - began)
