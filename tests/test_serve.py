"""`llm-sidecar serve` as people run it: what it prints, which signals it takes, and how it exits."""

import gc
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from proxy.__main__ import main
from tests.conftest import CHAT, catalog
from tests.served import poll, send, served, told

Out = pytest.CaptureFixture[str]


@pytest.fixture
def collector() -> Iterator[None]:
    """Leave the garbage collector as it was: serve tunes it."""
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def ask(address: str, model: str = "demo") -> str:
    """What `model` says to a greeting."""
    body = json.dumps({**CHAT, "model": model}).encode()
    head = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/v1/chat/completions", body, head)) as answer:  # noqa: S310
        return str(json.load(answer)["choices"][0]["message"]["content"])


def test_serve_answers_reloads_and_leaves() -> None:
    """Six lines on stderr, JSON lines on stdout; SIGHUP reloads, SIGTERM ends with 0."""
    with served("--demo") as running:
        assert running.said[0].startswith("llm-sidecar listens on http://127.0.0.1:")
        assert len(running.said) == 6
        assert ask(running.address) == "Hello"
        assert json.loads(running.event("request"))["policy"] == "demo"
        running.tell(signal.SIGHUP)
        assert json.loads(running.event("reloaded"))["generation"] == 2
        running.tell(signal.SIGTERM)
        assert running.process.wait(10) == 0


def test_a_second_signal_means_now() -> None:
    """While it drains, another signal ends it at once, with 1."""
    with served("--drain-delay", "60") as running:
        running.tell(signal.SIGTERM)
        assert poll(lambda: _ready(running.address) == 503)
        with pytest.raises(TimeoutExpired):
            running.process.wait(0.05)
        running.tell(signal.SIGINT)
        assert running.process.wait(10) == 1


def _ready(address: str) -> int:
    try:
        with urllib.request.urlopen(f"{address}/readyz") as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_nobody_reads_the_log() -> None:
    """When whoever read stdout has gone the answers go on, and so does the good end."""
    with served() as running:
        assert running.process.stdout is not None
        running.process.stdout.close()
        for _ in range(3):
            assert ask(running.address) == "Hello"
            running.tell(signal.SIGHUP)
        running.tell(signal.SIGTERM)
        assert running.process.wait(10) == 0


def test_without_the_c_parser_it_says_so() -> None:
    """aiohttp's Python parser is slower and less strict: a person should know."""
    with served(AIOHTTP_NO_EXTENSIONS="1") as running:
        assert running.said[-2].startswith("warning: aiohttp runs without its C parser")
        assert ask(running.address) == "Hello"


@pytest.mark.usefixtures("collector")
def test_the_log_goes_to_stdout(tmp_path: Path, capsys: Out) -> None:
    """Log lines on stdout, words for people on stderr; options go where they belong."""
    log = tmp_path / "log"

    def signals() -> None:
        send(signal.SIGHUP)
        poll(lambda: b"reloaded" in log.read_bytes())
        send(signal.SIGTERM)

    argv = ["serve", "--port", "0", "--demo", "--admin", "[::1]:0", "--drain-timeout", "1"]
    with log.open("w") as file, redirect_stdout(file):
        code = told(argv, signal.SIGHUP, signals)

    assert code == 0
    assert [json.loads(line)["event"] for line in log.read_text().splitlines()] == ["reloaded"]
    assert capsys.readouterr().err.startswith("llm-sidecar listens on http://127.0.0.1:")


@pytest.mark.usefixtures("collector")
def test_a_closed_pipe_is_no_reason_to_stop(tmp_path: Path) -> None:
    """A log that nobody reads is dropped, quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    app = ["serve", "--port", "0", "--policies", str(tmp_path)]
    (tmp_path / "catalog.toml").write_text(catalog())

    def signals() -> None:
        (tmp_path / "test.toml").write_text("strategy = 5")
        send(signal.SIGHUP)
        poll(lambda: os.path.samestat(os.fstat(writer), os.stat(os.devnull)))
        send(signal.SIGTERM)

    with os.fdopen(writer, "w") as file, redirect_stdout(file):
        assert told(app, signal.SIGHUP, signals) == 0
        assert os.path.samestat(os.fstat(writer), os.stat(os.devnull))


def test_serve_says_why_it_cannot_start(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that fails is exit 2 and one sentence on stderr."""
    monkeypatch.delenv("SIDECAR_API_KEYS", raising=False)
    assert main(["serve", "--host", "0.0.0.0", "--port", "0"]) == 2  # noqa: S104
    assert main(["serve", "--admin", "0.0.0.0:0"]) == 2
    sentence = "llm-sidecar: 0.0.0.0 is no loopback address: set SIDECAR_API_KEYS to the keys clients send\n"
    assert capsys.readouterr() == ("", sentence * 2)


@pytest.mark.parametrize(
    "option", ["--max-in-flight=0", "--max-in-flight=x", "--drain-delay=-1", "--drain-timeout=90000"]
)
def test_numbers_are_checked(option: str, capsys: Out) -> None:
    """What cannot be meant is exit 2 and names the option."""
    with pytest.raises(SystemExit) as misuse:
        main(["serve", option])
    assert misuse.value.code == 2
    assert f"argument {option.partition('=')[0]}" in capsys.readouterr().err


def test_serve_with_its_port_in_use(capsys: Out) -> None:
    """A port in use is exit 2 and one sentence, not a traceback."""
    with served() as running:
        port = running.address.rpartition(":")[2]
        assert main(["serve", "--port", port]) == 2
    assert capsys.readouterr().err == f"llm-sidecar: cannot listen on 127.0.0.1:{port}: the port is in use\n"
