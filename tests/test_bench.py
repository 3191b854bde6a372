"""The bench's own programs: the load client passes what is right, and counts and names every wrong answer."""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import msgspec
import pytest

from loadtests.bench.programs import COMPILER, NONCE, Report, Spread, body, build, report
from loadtests.bench.scenarios import EVENTS, TRANSLATED
from loadtests.bench.tables import tables, wrong
from loadtests.bench.targets import Target
from loadtests.bench.trial import Trial
from loadtests.bench.watch import Used, end, sample, used
from loadtests.process import free_port
from proxy import adapter as languages
from proxy.wire import decode_chat
from tests.needs import ROOT, need

OPENAI = ["path=/v1/chat/completions"]
ANTHROPIC = ["path=/v1/messages", "anthropic=1"]
WIRES = pytest.mark.parametrize("wire", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])
EVERY = 5


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both programs."""
    need(Path(shutil.which(COMPILER) or COMPILER), COMPILER)
    directory = tmp_path_factory.mktemp("programs")
    build(directory)
    return directory


@contextmanager
def upstream(programs: Path, *options: str) -> Iterator[int]:
    """A running upstream's port."""
    with subprocess.Popen([programs / "upstream", *options], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline())
        finally:
            child.terminate()


def load(programs: Path, port: int, *options: str, stream: bool = False, size: int = 1_200) -> Report:
    """What the load client says of a short run."""
    file = programs / "body.json"
    file.write_bytes(body("bench", size, stream=stream))
    command = [str(programs / "load"), f"port={port}", f"body={file}", f"stream={stream:d}"]
    command += ["conns=4", "seconds=0.06", *options]
    return report(subprocess.run(command, stdout=subprocess.PIPE, timeout=30, check=True).stdout)


@WIRES
@pytest.mark.parametrize("size", [1_200, 2_000_000])
def test_right_answers_pass(programs: Path, wire: list[str], size: int) -> None:
    """Complete answers of the upstream are right, however large the request."""
    with upstream(programs) as port:
        found = load(programs, port, *wire, size=size)

    assert found.errors == {}
    assert found.good == found.asked > 0
    assert found.added_ms is not None


@WIRES
def test_right_streams_pass(programs: Path, wire: list[str]) -> None:
    """So are streams; each has its 64 events, and [DONE] or what Anthropic has instead."""
    with upstream(programs) as port:
        found = load(programs, port, *wire, stream=True)

    assert found.errors == {}
    assert found.good == found.asked > 0
    assert found.events == found.good * (65 if wire is OPENAI else 66)
    assert found.ttft_ms is not None


@WIRES
@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("nonce", "nonce"),
        ("text", "text"),
        ("status", "status"),
        ("cut", "cut"),
        ("short", "cut"),
        ("extra", "framing"),
    ],
)
def test_a_wrong_answer_is_found(programs: Path, wire: list[str], damage: str, named: str) -> None:
    """Every fifth is spoilt; exactly those are counted, by the name of what is wrong with them."""
    with upstream(programs, f"damage={damage}", f"every={EVERY}") as port:
        found = load(programs, port, *wire)

    assert found.errors == {named: found.asked // EVERY}
    assert found.good == found.asked - found.asked // EVERY
    assert found.first_error.startswith(named)


@WIRES
@pytest.mark.parametrize("damage", ["nonce", "cut", "order", "finish", "done", "status"])
def test_a_wrong_stream_is_found(programs: Path, wire: list[str], damage: str) -> None:
    """One event of another's, out of order, or missing makes the whole stream wrong."""
    with upstream(programs, f"damage={damage}", f"every={EVERY}") as port:
        found = load(programs, port, *wire, stream=True)

    assert found.asked >= EVERY
    assert found.errors == {damage: found.asked // EVERY}


# By wire language, the paths that an adapter asks.
ASKED = {
    "anthropic": ("/v1/messages", "/v1/messages"),
    "bedrock": ("/v1/model/m/converse", "/v1/model/m/converse-stream"),
    "cohere": ("/v1/chat", "/v1/chat"),
    "gemini": ("/v1/models/m:generateContent", "/v1/models/m:streamGenerateContent?alt=sse"),
    "ollama": ("/v1/api/chat", "/v1/api/chat"),
    "responses": ("/v1/responses", "/v1/responses"),
}


@pytest.mark.parametrize("language", TRANSLATED)
@pytest.mark.parametrize("damage", ["", "finish"])
def test_the_upstream_speaks_each_language(programs: Path, language: str, damage: str) -> None:
    """What it says is an answer to the adapter, with all its words and usage; without its finish it is none."""
    adapter, target = languages.load(language), languages.Target("m")
    told: list[str] = []
    with upstream(programs, f"damage={damage}") as port:
        for stream in (False, True):
            request = decode_chat(body("m", 0, stream=stream), 7)
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("POST", ASKED[language][stream], adapter.render(request, target).body)
            answer = connection.getresponse().read()
            connection.close()
            if not stream:
                reply = adapter.parse(answer, request, target)
                assert reply.finish == "stop"
                assert reply.usage is not None
                continue
            parser = adapter.stream(request, target)
            told.append(parser.feed(answer).decode())
            if damage:
                assert parser.finish is None
                continue
            told.append(parser.close().decode())
            assert (parser.finish, parser.usage is not None) == ("stop", True)
    assert "".join(told).count('"w000') == EVENTS - 3


def test_an_answer_in_the_wrong_words_is_found(programs: Path) -> None:
    """Where Anthropic's stream was to be translated, passing it on as it is counts as wrong."""
    with upstream(programs) as port:
        found = load(programs, port, "path=/v1/messages", stream=True)

    assert found.good == 0
    assert found.errors


def test_a_late_answer_and_a_closed_port_are_found(programs: Path) -> None:
    """What does not come in time is an error, and so is where nobody listens; the run ends all the same."""
    with upstream(programs, "lat=5000") as port:
        assert load(programs, port, "timeout=0.2").errors == {"timeout": 4}

    assert load(programs, free_port()).errors == {"connect": 4}


def test_load_at_a_rate_begins_on_time(programs: Path) -> None:
    """At 100 a second a fifth of a second has at most 20 requests, however fast the answers come."""
    with upstream(programs, "lat=30") as port:
        found = load(programs, port, "rate=100", "seconds=0.2", "conns=20")

    assert found.errors == {}
    assert 10 <= found.good <= 20


def test_the_upstream_keeps_its_pace(programs: Path) -> None:
    """Its latency comes before the first byte and its gap between events."""
    with upstream(programs, "lat=50", "gap=5", "events=20") as port:
        found = load(programs, port, "events=20", stream=True)

    assert found.errors == {}
    assert found.ttft_ms is not None
    assert found.latency_ms is not None
    assert found.ttft_ms.p50 >= 55
    assert found.latency_ms.p50 >= 50 + 20 * 5


@pytest.mark.parametrize("size", [1_200, 20_000, 2_000_000])
def test_bodies_have_their_size_and_a_nonce_at_both_ends(size: int) -> None:
    """What is between two nonces must have come through whole."""
    made = body("bench", size, stream=True)

    assert len(made) == pytest.approx(size, rel=0.1)
    assert made.count(NONCE.encode()) == 2
    assert made.count(b"@") == 2
    assert [turn["role"] for turn in msgspec.json.decode(made)["messages"]][-2:] == ["assistant", "user"]


def test_the_cpu_of_children_counts() -> None:
    """A tree's CPU is that of whatever it started."""
    spin = (
        "import time\nends = time.process_time() + 0.2\nwhile time.process_time() < ends: pass\nprint(1, flush=True)\n"
    )
    nested = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {spin + 'time.sleep(60)'!r}])"
    child = subprocess.Popen([sys.executable, "-c", nested], stdout=subprocess.PIPE, start_new_session=True)
    before = sample(child.pid)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        spent = used(before, sample(child.pid), 0)
        end(child)

    assert 0.2 <= spent.cpu_s < 2


def trial(cpu_s: float, errors: dict[str, int] | None = None) -> Trial:
    """A trial of a thousand right answers."""
    spread = Spread(1.0, 2.0, 3.0)
    seen = Report(1000, 1000, 0, 1.0, 1000.0, errors or {}, "nonce: x", 1800, spread, spread, None, None)
    return Trial(100.0, 1024.0, 1.0, Used(cpu_s, cpu_s, 0.01), seen)


def test_ratios_are_made_within_a_round() -> None:
    """Half the speed in a noisy round is half for both, so the ratio holds where medians of the two would not."""
    trials = {("c64", "sidecar"): [trial(0.2), trial(0.8)], ("c64", "nginx"): [trial(0.1), trial(0.4)]}

    lines = tables(trials).splitlines()

    assert (
        "| 64 connections: request | sidecar | 500.0 (200.0-800.0) | 2.00 | 2.5 / 1.7: must | 1000 | 0.50 | 0.01 | 0 |"
        in lines
    )


def test_wrong_answers_are_told_with_the_first() -> None:
    """They decide the exit code."""
    assert wrong({("c64", "nginx"): [trial(0.1)]}) == []
    assert wrong({("c64", "nginx"): [trial(0.1), trial(0.1, {"nonce": 2})]}) == [
        "2 wrong: c64 through nginx: {'nonce': 2} nonce: x"
    ]


def test_a_wrong_answer_while_warming_up_counts() -> None:
    """Its time does not, but a wrong answer is one whenever it comes."""
    warm, counted = trial(0.1, {"nonce": 2}).report, trial(0.1, {"nonce": 1, "cut": 1}).report
    assert warm is not None
    assert counted is not None

    assert counted.after(warm).errors == {"nonce": 3, "cut": 1}
    assert counted.after(warm).wrong == 4


@pytest.mark.parametrize(("value", "says"), [(1.7, "stretch"), (1.8, "must"), (2.6, "MISSED"), (math.nan, "MISSED")])
def test_targets(value: float, says: str) -> None:
    """A bar is reached by being at most it; nothing measured reaches nothing."""
    assert Target(2.5, 1.7).verdict(value) == says


def test_the_command_measures_this_checkout(programs: Path) -> None:
    """One scenario, as short as can be, gives a row for the sidecar and ends with 0."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("the bench needs two cores")
    command = [sys.executable, "-m", "loadtests.bench", "--only", "c1", "--through", "sidecar"]
    command += ["--rounds", "1", "--scale", "0.1"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert "| 1 connection: request | sidecar |" in done.stdout
