"""The bed that every figure lies on: the scripted upstream and a sidecar, each a process of its own, on loopback."""

import asyncio
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from loadtests.process import Process, Usage, free_port, get_json

# The policy that all figures ask for.
MODEL: Final = "steady"
PROVIDERS: Final = ("a", "b", "c", "d")
_PROVIDER: Final = """[[provider]]
name = "{name}"
base_url = "http://127.0.0.1:{port}/{name}/v1"

[[model]]
provider = "{name}"
id = "{name}1"
quality = 5
price = {{ input = {price}, output = {price} }}
latency = {{ p50_ms = 100, p99_ms = 1000 }}

"""
# Cheapest first: `a` is the first choice as long as it may be asked.
_POLICY: Final = """strategy = "cheapest"
candidates = [{candidates}]

[timeouts]
first_event = {first_s}
answer = {first_s}
idle = {idle_s}
"""
_UPSTREAM_START_S: Final = 10.0
_LOOK_S: Final = 0.1
# Where a sidecar that can be looked into writes.
INSIDE: Final = "inside.json"


class Upstream:
    """The scripted upstream and its journal."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    def journal(self) -> dict[str, Any]:
        """Return the journal's summary."""
        found: dict[str, Any] = self.control("journal")
        return found

    def control(self, *words: str) -> Any:
        """Do or ask something: `dark NAME`, `light NAME`, `sound NAME` (it plays no fault), `times NAME`, `journal`."""
        return get_json(f"http://127.0.0.1:{self.port}/control/{'/'.join(words)}")


class Bed:
    """What a figure needs. `port` is the sidecar's."""

    def __init__(self, directory: Path, upstream: Upstream, sidecar: Process, port: int) -> None:
        self.directory = directory
        self.upstream = upstream
        self.sidecar = sidecar
        self.port = port

    def status(self) -> dict[str, Any]:
        """Return what the sidecar says of itself."""
        found: dict[str, Any] = get_json(f"http://127.0.0.1:{self.port}/status")
        return found

    def log(self) -> list[dict[str, Any]]:
        """Return the lines of the sidecar's log."""
        lines = self.sidecar.log.read_bytes().splitlines()
        return [msgspec.json.decode(line) for line in lines if line.startswith(b"{")]

    def events(self) -> Counter[str]:
        """Return how often each event is in the log."""
        return Counter(line["event"] for line in self.log())


@contextmanager
def upstream(directory: Path) -> Iterator[Upstream]:
    """Run the scripted upstream."""
    log = directory / "upstream.log"
    with Process([sys.executable, "-m", "loadtests.reliability.upstream"], log) as process:
        ends = time.monotonic() + _UPSTREAM_START_S
        while not log.read_bytes().endswith(b"\n"):
            if time.monotonic() > ends or process.exit_code(0.01) is not None:
                raise RuntimeError(f"the upstream does not start: {log.read_text(errors='replace')[-800:]}")
        yield Upstream(process, int(log.read_bytes()))


@contextmanager
def bed(
    *arguments: str,
    providers: Sequence[str] = PROVIDERS[:2],
    first_s: float = 60,
    idle_s: float = 60,
    inside: bool = False,
) -> Iterator[Bed]:
    """Run upstream and sidecar; `arguments` go to `serve`. `inside`: one that can be looked into."""
    with TemporaryDirectory() as name, upstream(Path(name)) as up:
        policies = Path(name) / "policies"
        policies.mkdir()
        rows = [_PROVIDER.format(name=one, port=up.port, price=place + 1) for place, one in enumerate(providers)]
        (policies / "catalog.toml").write_text("".join(rows))
        candidates = ", ".join(f'"{one}/{one}1"' for one in providers)
        policy = _POLICY.format(candidates=candidates, first_s=first_s, idle_s=idle_s)
        (policies / f"{MODEL}.toml").write_text(policy)
        port = free_port()
        module = ["loadtests.reliability.inside", str(Path(name) / INSIDE)] if inside else ["proxy"]
        command = [sys.executable, "-m", *module, "serve", "--port", str(port), "--policies", str(policies), *arguments]
        with Process(command, Path(name) / "sidecar.log") as process:
            process.wait_ready(f"http://127.0.0.1:{port}/readyz")
            yield Bed(Path(name), up, process, port)


def allow_files(wanted: int) -> bool:
    """Raise the soft limit of open files, for this process and what it starts. Returns False when that is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft >= wanted


class Peak:
    """What a process had at the most, of what was looked at."""

    def __init__(self) -> None:
        self.rss_mb = 0.0
        self.files = 0
        self.seen: list[tuple[float, float]] = []

    def look(self, usage: Usage) -> None:
        """Take one look."""
        self.seen.append((time.monotonic(), usage.rss_mb))
        self.rss_mb = max(self.rss_mb, usage.rss_mb)
        self.files = max(self.files, usage.files)


@asynccontextmanager
async def watched(process: Process, every_s: float = 0.5) -> AsyncIterator[Peak]:
    """Look at a process again and again."""
    peak = Peak()

    async def look() -> None:
        while True:
            peak.look(process.usage())
            await asyncio.sleep(every_s)

    task = asyncio.create_task(look())
    try:
        yield peak
    finally:
        task.cancel()


def wait_until(true: Callable[[], bool], within_s: float, every_s: float = _LOOK_S) -> float | None:
    """Return the seconds until `true()`; None when it did not come true in time."""
    began = time.monotonic()
    while not true():
        if time.monotonic() > began + within_s:
            return None
        time.sleep(every_s)
    return time.monotonic() - began
