"""One scenario through one gateway, both fresh: start, first answer, warm up, load, end. All measuring is here."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from loadtests.bench.gateways import Gateway, Ports
from loadtests.bench.programs import Report, body, report
from loadtests.bench.scenarios import EVENTS, Scenario
from loadtests.bench.watch import Used, rss_kib, running, sample, settle, used
from loadtests.process import free_port

# The policy's name, and LiteLLM's for its only model.
MODEL: Final = "bench"
_TIMEOUT_S: Final = 20.0
_UPSTREAM_START_S: Final = 5.0
_WARM_S: Final = 1.0
# A window shorter than this says nothing, whatever the scale.
_LEAST_S: Final = 0.3
_REST_S: Final = 0.3
# Memory is read this far into the window: all connections are open, and none is done for good.
_MIDDLE: Final = 0.8


class Cores(NamedTuple):
    """Where the gateway runs, and where everything else does."""

    gateway: int
    rest: int


class Bench(NamedTuple):
    """Where the programs are, on which cores all runs, and how long: times the scenarios' seconds."""

    programs: Path
    cores: Cores
    scale: float


class Subject(NamedTuple):
    """What is measured: a gateway that has answered once, or the upstream itself."""

    pid: int
    port: int
    core: int
    cold_start_ms: float
    log: Path


class Trial(NamedTuple):
    """What one run gave. KiB of memory: after the first answer, and what each connection added. No load: no report."""

    cold_start_ms: float
    idle_kib: float
    conn_kib: float
    used: Used
    report: Report | None


def run(bench: Bench, gateway: Gateway, scenario: Scenario) -> Trial:
    """Measure once. Raises RuntimeError, with the gateway's last words, when there is nothing to measure."""
    if gateway.most_conns is not None:
        scenario = scenario._replace(conns=min(scenario.conns, gateway.most_conns), warm_conns=None)
    with TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "body.json").write_bytes(body(MODEL, scenario.size, stream=scenario.stream))
        with _upstream(bench, scenario, directory) as upstream, _subject(bench, gateway, scenario, upstream) as subject:
            command = [str(bench.programs / "load"), f"port={subject.port}", f"body={directory / 'body.json'}"]
            command += [f"timeout={_TIMEOUT_S}", f"events={EVENTS}", f"stream={scenario.stream:d}"]
            try:
                return _measure(bench, subject, scenario, command)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                raise RuntimeError(f"{gateway.name}: {error}\n{_last_words(subject.log)}") from error


@contextmanager
def _upstream(bench: Bench, scenario: Scenario, directory: Path) -> Iterator[Subject]:
    log = directory / "upstream.log"
    command = [str(bench.programs / "upstream"), f"events={EVENTS}", f"lat={scenario.lat_ms}", f"gap={scenario.gap_ms}"]
    with running(command, bench.cores.rest, log) as child:
        ends = time.monotonic() + _UPSTREAM_START_S
        while not log.read_bytes().endswith(b"\n"):  # the port, in a line
            if time.monotonic() > ends or child.poll() is not None:
                raise RuntimeError(f"the upstream does not start: {_last_words(log)}")
            time.sleep(0.002)
        yield Subject(child.pid, int(log.read_bytes()), bench.cores.rest, 0.0, log)


@contextmanager
def _subject(bench: Bench, gateway: Gateway, scenario: Scenario, upstream: Subject) -> Iterator[Subject]:
    """Start the gateway and see it answer; without one, the upstream is what is measured."""
    if gateway.command is None:
        yield upstream
        return
    directory, port = upstream.log.parent, free_port()
    log = directory / "gateway.log"
    command = gateway.command(directory, Ports(upstream.port, port), scenario.adapter)
    began = time.monotonic()
    with running(command, bench.cores.gateway, log) as child:
        while not _answers(port):
            if time.monotonic() > began + gateway.start_s or child.poll() is not None:
                raise RuntimeError(f"{gateway.name} does not start: {_last_words(log)}")
            time.sleep(0.002)
        cold_start_ms = (time.monotonic() - began) * 1000 - scenario.lat_ms
        yield Subject(child.pid, port, bench.cores.gateway, cold_start_ms, log)


def _answers(port: int) -> bool:
    """Return whether a gateway gives a whole answer of the upstream."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    headers = {"content-type": "application/json", "authorization": "Bearer this-is-no-key"}
    try:
        connection.request("POST", "/v1/chat/completions", body(MODEL, 0, stream=False), headers)
        response = connection.getresponse()
        return response.status == 200 and b"canned answer" in response.read()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace")[-1000:]


def _measure(bench: Bench, subject: Subject, scenario: Scenario, command: list[str]) -> Trial:
    idle_kib = rss_kib(subject.pid)
    if not scenario.conns:
        return Trial(subject.cold_start_ms, idle_kib, 0.0, Used(0.0, 0.0, 0.0), None)
    warm_s = max(_LEAST_S, _WARM_S * min(1.0, bench.scale))
    with _load(bench, [*command, f"conns={scenario.warm_conns or scenario.conns}", f"seconds={warm_s}"]) as warming:
        warmed = report(warming.communicate(timeout=_limit_s(warm_s))[0])
    time.sleep(_REST_S)
    seconds = max(_LEAST_S, scenario.seconds * bench.scale)
    before_kib, before = rss_kib(subject.pid), sample(subject.pid)
    with _load(bench, [*command, f"conns={scenario.conns}", f"seconds={seconds}"]) as loading:
        time.sleep(_MIDDLE * seconds)
        conn_kib = (rss_kib(subject.pid) - before_kib) / scenario.conns
        found = report(loading.communicate(timeout=_limit_s(seconds))[0])
    spent = used(before, sample(subject.pid), subject.core)
    if not rss_kib(subject.pid):
        raise RuntimeError("ended under load")
    return Trial(subject.cold_start_ms, idle_kib, conn_kib, spent, found.after(warmed))


def _limit_s(seconds: float) -> float:
    """Return when to end a load client that does not end by itself: it waits for answers, but not for ever."""
    return seconds + 2 * _TIMEOUT_S


@contextmanager
def _load(bench: Bench, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: settle(bench.cores.rest),
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate()
