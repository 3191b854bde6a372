"""The verbs of the command line: what each prints, where, and with which exit code."""

import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from proxy import __version__
from proxy.__main__ import main
from proxy.commands.demo import report, said
from proxy.commands.run import bill, environment
from proxy.config import CATALOG, shipped
from proxy.metrics import Metrics
from tests.conftest import CHAT, IN_ORDER, catalog
from tests.served import send, told

Out = pytest.CaptureFixture[str]
BROKEN = 'strategy = "cheepest"'
PROBLEM = "test.toml: strategy: 'cheepest' is not known; did you mean 'cheapest'?"
TEST = '[[test]]\nname = "first"\nexpect = ["p{}/m"]\n'
# What a program does that knows nothing of the sidecar: asks where its environment tells it to.
CLIENT = """
import json, os, sys, urllib.error, urllib.request
url, head = os.environ["OPENAI_BASE_URL"] + "/chat/completions", {"content-type": "application/json"}
for model in sys.argv[1:]:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]}).encode()
    try:
        urllib.request.urlopen(urllib.request.Request(url, body, head)).close()
    except urllib.error.HTTPError as error:
        error.close()
"""


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the keys of this machine away."""
    for row in tomllib.loads((shipped() / CATALOG).read_text())["provider"]:
        keys = row.get("api_key", [])
        for place in [row["base_url"], *([keys] if isinstance(keys, str) else keys)]:
            monkeypatch.delenv(place.removeprefix("env:"), raising=False)
    monkeypatch.delenv("SIDECAR_API_KEYS", raising=False)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of policy files with two providers, p1 without a key, and the policy test."""
    keyed = catalog("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1").replace(
        'name = "p1"\n', 'name = "p1"\napi_key = "env:P1_KEY"\n'
    )
    (tmp_path / "catalog.toml").write_text(keyed)
    (tmp_path / "test.toml").write_text(IN_ORDER + 'description = "in order"\n')
    return tmp_path


def misuse(*argv: str) -> int | str | None:
    """The exit code of a command line that argparse ends."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    return ended.value.code


def test_version(capsys: Out) -> None:
    """The verb and the option print the same line."""
    assert (main(["version"]), misuse("--version")) == (0, 0)
    assert capsys.readouterr().out == f"llm-sidecar {__version__}\n" * 2


def test_help_lists_every_verb(capsys: Out) -> None:
    """Help is no error, and names all that can be done."""
    assert misuse("--help") == 0
    text = capsys.readouterr().out
    for verb in ("serve", "demo", "run", "check", "explain", "models", "providers", "probe", "login", "version"):
        assert f"\n    {verb}" in text
        assert misuse(verb, "--help") == 0


@pytest.mark.parametrize(
    "argv",
    [
        [], ["dance"], ["serve", "--port", "65536"], ["serve", "--port", "x"], ["serve", "--admin", "host:"],
        ["serve", "--drain-delay", "-1"], ["serve", "--drain-timeout", "nan"], ["models", "extra"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_misuse_is_2(argv: list[str], capsys: Out) -> None:
    """What cannot be meant is said on stderr with the usage, and nothing runs."""
    assert misuse(*argv) == 2
    out, err = capsys.readouterr()
    assert (out, err.startswith("usage: llm-sidecar")) == ("", True)


def test_check_of_good_files(directory: Path, capsys: Out) -> None:
    """Good files: one line with what was found, exit 0; the shipped files are good, and are the default."""
    with (directory / "test.toml").open("a") as file:
        file.write(TEST.format(0))

    assert (main(["check", str(directory)]), main(["check"])) == (0, 0)

    own, ours = capsys.readouterr().out.splitlines()
    assert own == f"{directory}: 1 policies, 2 models, 1 tests, all good"
    assert ours.startswith(f"{shipped()}: 5 policies, ")


def test_check_names_a_failing_test(directory: Path, capsys: Out) -> None:
    """A test that fails is told by file and name, with what came instead; exit 1."""
    with (directory / "test.toml").open("a") as file:
        file.write(TEST.format(0) + TEST.format(1).replace("first", "second"))

    assert main(["check", str(directory)]) == 1

    assert capsys.readouterr().out.splitlines() == [
        "test.toml: test 'second': expected p1/m, got p0/m",
        "    - p1/m  2 of 2 by score 2, 0.00251 USD",
        "    + p0/m  1 of 2 by score 1, 0.00126 USD",
        f"{directory}: 1 policies, 2 models, 2 tests, 1 failed",
    ]


def test_check_tells_all_problems(directory: Path, capsys: Out) -> None:
    """Every file is looked at before it ends; exit 1. An adapter that does not exist is found, too."""
    (directory / "test.toml").write_text(BROKEN)
    (directory / "other.toml").write_text("")
    assert main(["check", str(directory)]) == 1
    assert capsys.readouterr().out.splitlines() == ["other.toml: the file is empty", PROBLEM]

    (directory / "catalog.toml").write_text(catalog(adapter="opnai"))
    (directory / "test.toml").write_text(IN_ORDER)
    (directory / "other.toml").unlink()
    assert main(["check", str(directory)]) == 1
    assert capsys.readouterr().out.startswith("catalog.toml: provider 'p0': no adapter 'opnai'")


def test_check_of_no_directory_is_misuse(tmp_path: Path, capsys: Out) -> None:
    """A path that is no directory is a slip of the pen, not a finding."""
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr() == ("", f"llm-sidecar: {tmp_path / 'nowhere'}: no such directory\n")


def test_explain_prints_the_decision(directory: Path, capsys: Out) -> None:
    """The decision is JSON on stdout: the order with scores, and who is out and why. Nothing is called."""
    argv = ["explain", "--policies", str(directory), "--model", "test"]
    assert (main(argv), main([*argv, "--strategy", "quality"])) == (0, 0)

    text = capsys.readouterr().out
    first, second = (json.loads(part) for part in text.replace("}\n{", "}\0{").split("\0"))
    assert (first["model"], first["policy"], first["strategy"], second["strategy"]) == (
        *("test", "test", "cheapest", "quality"),
    )
    assert [row["upstream"] for row in first["order"]] == first["chain"] == ["p0/m"]
    assert first["excluded"] == [{"upstream": "p1/m", "reason": "set P1_KEY to use it"}]


def test_explain_takes_a_request_from_a_file(directory: Path, capsys: Out) -> None:
    """A body as a client would send it; --model asks for another model with the same body."""
    file = directory / "request.json"
    file.write_text(json.dumps({**CHAT, "model": "p0/m", "stream": True}))
    argv = ["explain", "--policies", str(directory), "--request", str(file)]

    assert (main(argv), main([*argv, "--model", "test"])) == (0, 0)

    text = capsys.readouterr().out
    assert [json.loads(part)["model"] for part in text.replace("}\n{", "}\0{").split("\0")] == ["p0/m", "test"]


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["--model", "nosuch"], 1, "the model 'nosuch' does not exist; there are: test, "),
        (["--model", "test", "--strategy", "best"], 1, "x-sidecar-strategy: 'best' is not one of cheapest, "),
        (["--request", "{bad}"], 1, "the body is not valid JSON"),
        (["--request", "{bad}", "--model", "test"], 1, "the body is not valid JSON"),
        (["--request", "{bad}/none"], 2, "[Errno "),
        ([], 2, "explain needs --model NAME or --request FILE"),
        (["--model", "test", "--policies", "{bad}"], 2, "the policy files cannot be used:\n"),
    ],
    ids=["model", "strategy", "file", "file and model", "no file", "nothing", "policies"],
)
def test_explain_refuses(
    directory: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch, argv: list[str], code: int, text: str
) -> None:
    """A request that the sidecar would refuse is exit 1 with the same words; what cannot be read is 2."""
    monkeypatch.setenv("P1_KEY", "key")  # were one provider alone on, it would be asked for names it does not list
    bad = directory / "bad.json"
    bad.write_text("{")
    given = [part.replace("{bad}", str(bad)) for part in argv]

    assert main(["explain", "--policies", str(directory), *given]) == code

    out, err = capsys.readouterr()
    assert (out, err.startswith(f"llm-sidecar: {text}")) == ("", True), err


def test_models_lists_what_can_be_asked_for(directory: Path, capsys: Out) -> None:
    """Policies with their strategy, then models with price, quality and whether they are on."""
    with (directory / "catalog.toml").open("a") as file:
        file.write('[[model]]\nprovider = "p0"\nid = "free"\n')

    assert main(["models", "--policies", str(directory)]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "test     policy  cheapest  in order",
        "p0/m     on      $1 in, $1 out per Mtok (catalog), quality 5",
        "p1/m     off     $2 in, $2 out per Mtok (catalog), quality 6",
        "p0/free  on      price unknown",
    ]


def test_providers_says_who_is_on(directory: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    """On with the variable the key came from, which is not shown; off with what is wanted."""
    argv = ["providers", "--policies", str(directory)]
    assert main(argv) == 0
    monkeypatch.setenv("P1_KEY", "sk-CANARY")
    assert main(argv) == 0

    assert capsys.readouterr().out.splitlines() == [
        "p0  on   openai  1 model  127.0.0.1:9  no key needed",
        "p1  off  openai  1 model  127.0.0.1:9  set P1_KEY to use it",
        "p0  on  openai  1 model  127.0.0.1:9  no key needed",
        "p1  on  openai  1 model  127.0.0.1:9  P1_KEY",
    ]


@pytest.mark.parametrize(
    "argv", [["models"], ["providers"], ["serve", "--port", "0"], ["run"]], ids=lambda argv: argv[0]
)
def test_broken_files_are_2(directory: Path, capsys: Out, argv: list[str]) -> None:
    """Every verb that needs the files says what is wrong with them, once, on stderr."""
    (directory / "test.toml").write_text(BROKEN)
    command = ["--", "true"] if argv == ["run"] else []
    assert main([*argv, "--policies", str(directory), *command]) == 2
    assert capsys.readouterr() == ("", f"llm-sidecar: the policy files cannot be used:\n{PROBLEM}\n")


def test_no_models_at_all(tmp_path: Path, capsys: Out) -> None:
    """An empty catalog is no fault: there is nothing to list."""
    (tmp_path / "catalog.toml").write_text("model = []")
    assert (main(["models", "--policies", str(tmp_path)]), main(["providers", "--policies", str(tmp_path)])) == (0, 0)
    assert capsys.readouterr().out == ""


def test_run_points_the_command_at_the_sidecar(capfd: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child finds the address in both SDKs' variables and a key that is no provider's; its exit code is ours."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-CANARY")
    script = 'echo "$OPENAI_BASE_URL $OPENAI_API_BASE $ANTHROPIC_BASE_URL $OPENAI_API_KEY $ANTHROPIC_API_KEY"; exit 3'

    assert main(["run", "--demo", "--", "sh", "-c", script]) == 3

    out, err = capfd.readouterr()
    base, other, plain, *keys = out.split()
    assert base == other == plain + "/v1"
    assert keys == ["llm-sidecar", "llm-sidecar"]
    assert err.startswith(f"llm-sidecar listens on {plain} for: sh -c ")


def test_run_prints_the_bill(capfd: Out) -> None:
    """At the end stderr tells what was asked of whom and what it cost; an unknown price is not 0."""
    models = ("swift/echo", "swift/echo", "sage/other", "fault/none/such")

    assert main(["run", "--demo", sys.executable, "-c", CLIENT, *models]) == 0

    total, *rows = capfd.readouterr().err.splitlines()[-3:]
    unknown, swift = rows
    assert total.startswith("4 requests, 1 failed, 0 fallbacks, $0.0000")
    assert unknown.split()[:3] == ["sage/*", "1", "answers"]
    assert unknown.endswith("price unknown")
    assert swift.split()[:3] == ["swift/echo", "2", "answers"]
    assert float(swift.rpartition("$")[2]) > 0


def test_a_bill_for_nothing() -> None:
    """Who was asked in vain cost nothing; a command that asked nobody has one line."""
    metrics = Metrics()
    assert bill(metrics) == ["0 requests, 0 failed, 0 fallbacks, $0.000000"]
    metrics.attempts.add(("p0/m", "timeout"))
    assert bill(metrics)[1].split() == ["p0/m", "0", "answers", "0", "tokens", "in", "0", "out", "$0.000000"]


def test_the_command_gets_a_key_of_the_sidecar() -> None:
    """Where the sidecar asks for keys the command has the first one; the rest of its environment stays."""
    found = environment("http://x", {"SIDECAR_API_KEYS": " one ,two", "HOME": "/", "OPENAI_API_KEY": "sk-CANARY"})
    assert (found["OPENAI_API_KEY"], found["ANTHROPIC_API_KEY"], found["HOME"]) == ("one", "one", "/")


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (["--", "no-such-command"], 127, "cannot run no-such-command: No such file or directory"),
        (["--"], 2, "nothing to run; write: llm-sidecar run -- CMD ..."),
        ([], 2, "nothing to run; write: llm-sidecar run -- CMD ..."),
    ],
    ids=["not found", "nothing", "not even --"],
)
def test_run_without_a_command(capsys: Out, command: list[str], code: int, text: str) -> None:
    """What cannot be run is said as a shell says it, without a bill."""
    assert main(["run", "--demo", *command]) == code
    assert capsys.readouterr().err.splitlines()[-1] == f"llm-sidecar: {text}"


def test_run_passes_sigterm_on(capfd: Out) -> None:
    """A command that a signal ended is 128 and its number; SIGTERM is passed on, and SIGINT has reached it already."""

    argv = ["run", "--demo", "sleep", "60"]
    code = told(argv, signal.SIGTERM, lambda: send(signal.SIGINT, signal.SIGTERM))

    assert code == 128 + signal.SIGTERM
    assert "0 requests, 0 failed" in capfd.readouterr().err


def test_demo_shows_four_policies(capsys: Out) -> None:
    """Each policy has a row with its share of the requests, although a provider dies half way; nothing gets lost."""
    assert main(["demo", "--requests", "16"]) == 0

    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1] for line in lines[3:7]}
    assert rows == dict.fromkeys(("cheapest", "fastest", "quality", "balanced"), "4")
    assert "; 0 answers were lost or wrong." in "".join(lines)


def test_demo_needs_a_few_requests(capsys: Out) -> None:
    """Too few to show anything is misuse."""
    assert main(["demo", "--requests", "7"]) == 2
    assert capsys.readouterr().err == "llm-sidecar: --requests must be at least 8\n"


def test_demo_reads_both_kinds_of_answers() -> None:
    """What was said is compared word for word: in a complete answer, and in the pieces of a stream."""
    chunk = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n'
    assert said(b'{"choices":[{"message":{"content":"Hi there"}}]}', stream=False) == "Hi there"
    assert said(chunk % b"Hi " + chunk % b"there" + b"data: [DONE]\n\n", stream=True) == "Hi there"
    row = {"ms": 3.0, "upstream_ms": 2.0, "status": 200, "attempts": 2, "mode": "complete", "upstream": "a/b"}
    records = [{**row, "policy": policy} for policy in ("cheapest", "fastest", "quality", "balanced") for _ in "12"]
    assert "added 1.00 ms (median of 8 complete answers); 3 answers" in "\n".join(report(records, 3))


def test_who_reads_only_the_head_hears_no_complaint() -> None:
    """`llm-sidecar models | head -1` ends quietly."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-m", "proxy", "models"], stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
