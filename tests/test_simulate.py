"""`llm-sidecar simulate`: what it prints, what its page holds, and what it says to mistakes."""

import json
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO
from multiprocessing import Pipe, active_children
from pathlib import Path
from typing import Any

import pytest

from proxy.__main__ import main
from proxy.commands.simulate import bar
from proxy.simulation.charts import Axis, Series, areas, bars, clock, decades, from_zero, lines
from proxy.simulation.choice import comparisons
from proxy.simulation.report import dollars, span
from proxy.simulation.together import play, run_apart

from . import simulation_words as words
from .simulation_words import CATALOG, CHEAPEST, THREE, config, encoded, runs, world

Out = pytest.CaptureFixture[str]
HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A directory with a policy whose name is no good HTML, and another."""
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "catalog.toml").write_text(CATALOG.format(limits=""))
    (directory / "<cheap & quick>.toml").write_text(CHEAPEST)
    (directory / "quick.toml").write_text('strategy = "fastest"\n[fallback]\nhedge = 0.1')
    return directory


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Ten minutes of Azure's format."""
    file = tmp_path / "trace.csv"
    rows = [
        f"2023-11-16 18:{number // 60:02}:{number % 60:02}.5000000,{900 + number},{number % 90}\n"
        for number in range(600)
    ]
    file.write_text(HEAD + "".join(rows))
    return file


def simulated(capsys: Out, *argv: object) -> dict[str, Any]:
    """What `simulate --json` prints."""
    assert main(["simulate", *map(str, argv), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_table(policies: Path, trace: Path, capsys: Out) -> None:
    """One line per policy and baseline, who answered, and everything that was assumed; no bar where nobody looks."""
    assert main(["simulate", str(trace), "--policies", str(policies)]) == 0
    out, err = capsys.readouterr()

    assert err == ""
    first, _, head, cheap, quick, primary, *rest = out.splitlines()
    assert first == "trace.csv (azure): 600 requests over 9 min 59 s, 0.72 M tokens in, 0.03 M out; seed 1"
    assert head.split("  ")[0] == "policy"
    assert re.match(r"<cheap & quick> +\$0\.7713 +90\.0 % ", cheap)
    assert re.match(r"quick +\$7\.\d\d +", quick)
    assert re.match(r"primary +\$7\.71 +- ", primary)
    assert "  <cheap & quick>: a/m 100.0 %" in rest
    assumed = rest[rest.index("assumed") + 1 :]
    assert len(assumed) > 8
    assert any("Hedges are not played" in line for line in assumed)
    assert any("quality is the catalog's number" in line for line in assumed)


def test_json_has_the_same_figures(policies: Path, trace: Path, capsys: Out) -> None:
    """The whole report as data; the same seed prints the same bytes, whether runs share a process or not."""
    argv = (trace, "--policies", policies, "--baseline", "primary", "--baseline", "round-robin", "--baseline", "a/m")
    found = simulated(capsys, *argv)

    assert [one["name"] for one in found["policies"]] == ["<cheap & quick>", "quick"]
    cheap = found["policies"][0]
    assert cheap["usd"] == pytest.approx((sum(range(900, 1500)) + 2 * sum(number % 90 for number in range(600))) / 1e6)
    assert [saved["baseline"] for saved in cheap["savings"]] == ["primary", "round-robin", "a/m"]
    assert [saved["share"] for saved in cheap["savings"]] == pytest.approx([0.9, 1 - 2 / 11, 0.0], abs=0.01)
    names = [one["name"] for one in found["baselines"]]
    assert names == ["primary", "round-robin", "a/m", "primary for quick", "round-robin for quick"]
    assert simulated(capsys, *argv) == found


def test_runs_in_processes_of_their_own(policies: Path, trace: Path) -> None:
    """Several at once print what one after the other prints."""
    argv = [sys.executable, "-m", "proxy", "simulate", trace, "--policies", policies, "--failure-rate", "0.1"]
    one, two = (
        subprocess.run([*map(str, argv), "--jobs", jobs], capture_output=True, check=True, timeout=60) for jobs in "12"
    )
    assert one.stdout == two.stdout
    assert (one.stderr, two.stderr) == (b"", b"")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forking beside the threads of a test run
def test_progress_of_several_runs() -> None:
    """Requests are counted over all runs, and never backwards; the runs come in the order in which they were asked."""
    played = world(THREE, config(one=CHEAPEST, two='strategy = "fastest"'))
    choices = [choice for choice, _ in comparisons(played.config, [], [])]
    for jobs in (1, 2):
        told = list[int]()
        runs = play(played, choices, told.append, jobs)
        assert [run.choice.name for run in runs] == ["one", "two"]
        assert told == sorted(told)
        assert told[-1] == 2 * len(THREE)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_run_whose_process_is_killed() -> None:
    """Whatever kills it, there is no report of half the runs, and the others end."""
    long = words.trace(*((float(number), 10, 1) for number in range(5000)))
    played = world(long, config(one=CHEAPEST, two='strategy = "fastest"'))
    choices = [choice for choice, _ in comparisons(played.config, [], [])]

    def kill(done: int) -> None:
        for process in active_children():
            process.kill()

    with pytest.raises(ChildProcessError, match="a process of its own was killed"):
        play(played, choices, kill, 2)
    assert active_children() == []


def test_what_a_process_of_its_own_tells() -> None:
    """How far it is, and at last its run."""
    played = world(THREE)
    before = signal.getsignal(signal.SIGINT)
    told, tell = Pipe(duplex=False)
    run_apart(played, comparisons(played.config, [], [])[0].choice, tell)
    signal.signal(signal.SIGINT, before)
    counts = [told.recv() for _ in THREE.at]
    assert (counts, encoded(told.recv())) == ([1, 2, 3], encoded(runs(played)[0]))


def test_options(policies: Path, trace: Path, capsys: Out) -> None:
    """Some policies, some requests, faster, with faults and an outage by a pattern."""
    found = simulated(
        capsys, trace, "--policies", policies, "--policy", "quick", "--limit", 300, "--speed", 10, "--seed", 5,
        "--failure-rate", "a/m=1", "--failure-rate", "0.1", "--outage", "b/*@10+5",
    )  # fmt: skip

    assert (found["requests"], found["seconds"], found["seed"]) == (300, 29.9, 5)
    (quick,) = found["policies"]
    assert quick["lost"]["unavailable"] > 0
    faults = next(line for line in found["assumed"] if line.startswith("Faults"))
    assert faults.startswith("Faults, by chance: 100 % of the attempts at a/m, 10 % of the attempts at all others, ")
    assert "all at b/m from 10 to 15 s" in faults


def test_a_ledger_says_how_upstreams_behave(policies: Path, tmp_path: Path, capsys: Out) -> None:
    """Pace, faults and tokens of the ledger stand where the assumptions do."""
    attempt = {"outcome": "ok", "final": True, "stream": True, "upstream": "a/m", "ms": 1500.0, "first_ms": 500.0}
    rows = [
        {**attempt, "ts": 1000.0 + number, "id": f"r{number}", "estimate": 100, "input": 120, "output": 50}
        for number in range(30)
    ]
    rows += [{**rows[0], "id": f"f{number}", "outcome": "overloaded", "input": 0, "output": 0} for number in range(3)]
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = simulated(capsys, tmp_path / "ledger.jsonl", "--policies", policies)

    assumed = "\n".join(found["assumed"])
    assert "As the ledger had it instead, where it had enough: a/m." in assumed
    assert "as the ledger had them: 9.1 % at a/m" in assumed
    assert "1.20 at a/m" in assumed
    assert "3 requests have no answer in the ledger" in assumed
    assert found["policies"][0]["latency_ms"]["p50"] == pytest.approx(1500, rel=0.01)


def test_what_a_trace_knows_is_not_assumed(policies: Path, tmp_path: Path, capsys: Out) -> None:
    """Mooncake's blocks say what is cached; a table by header fits nothing; baselines not asked for are not told."""
    (policies / "quick.toml").write_text(
        'strategy = "fastest"\n[[when]]\nheader = { team = "x" }\ncandidates = ["a/m"]'
    )
    row = {"input_length": 2048, "output_length": 9, "hash_ids": [1, 2, 3, 4]}
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({"timestamp": at * 1000, **row}) + "\n\n" for at in range(3)))
    found = simulated(capsys, tmp_path / "m.jsonl", "--policies", policies, "--baseline", "a/m")

    assumed = "\n".join(found["assumed"])
    assert "300 s after their last use, from 1024 tokens on, and finds them again in whole blocks of 512" in assumed
    assert "A [[when]] that goes by a header or a router fits no request" in assumed
    assert "'primary'" not in assumed
    assert found["policies"][0]["cached_share"] == pytest.approx(2 * 2047 / (3 * 2048))
    assert found["policies"][1]["answered_by"] == {"b/m": 1.0}


def test_answers_without_a_price_are_told(policies: Path, trace: Path, capsys: Out) -> None:
    """They are in no sum, and nobody reads a small sum for a saving."""
    catalog = (policies / "catalog.toml").read_text()
    (policies / "catalog.toml").write_text(catalog.replace("price = { input = 10, output = 20 }\n", ""))
    assert main(["simulate", str(trace), "--policies", str(policies), "--policy", "quick"]) == 0
    out = capsys.readouterr().out
    told = re.search(r"quick: (\d+) answers have no known price and are not in its cost", out)
    assert told is not None
    assert f"quick: {told[1]} requests are not compared with primary" in out
    assert "Unknown, and so in no sum: b/m." in out


@pytest.mark.parametrize(
    ("argv", "wrong"),
    [
        (["--policy", "quik"], "no policy 'quik'; did you mean 'quick'?"),
        (["--baseline", "primery"], "no upstream 'primery'; known: a/m, b/m"),
        (["--failure-rate", "2"], "--failure-rate 2: '2' is no number from 0 to 1"),
        (["--failure-rate", "c/m=0.1"], "no upstream 'c/m'; did you mean 'b/m'?"),
        (["--outage", "a/m@x+5"], "--outage a/m@x+5: 'x' is no number from 0 to 1e+09"),
        (["--outage", "a/m"], "--outage a/m: 'a/m' is no number from 0 to 1e+09"),
        (["--html", "/nowhere/page.html"], "/nowhere/page.html: No such file or directory"),
    ],
)
def test_mistakes(policies: Path, trace: Path, capsys: Out, argv: list[str], wrong: str) -> None:
    """One line on stderr that says what is wrong, exit 2, nothing on stdout."""
    assert main(["simulate", str(trace), "--policies", str(policies), *argv]) == 2
    assert capsys.readouterr() == ("", f"llm-sidecar: {wrong}\n")


def test_a_bad_trace(policies: Path, trace: Path, capsys: Out) -> None:
    """As any other mistake, with the line."""
    with trace.open("a") as file:
        file.write("2023-11-16 19:00:00,1,\n")
    assert main(["simulate", str(trace), "--policies", str(policies)]) == 2
    assert capsys.readouterr().err == f"llm-sidecar: {trace}: line 602: invalid literal for int() with base 10: ''\n"


def test_a_directory_without_policies(policies: Path, trace: Path, capsys: Out) -> None:
    """A catalog alone has nothing to play."""
    for file in policies.glob("*[!g].toml"):
        file.unlink()
    assert main(["simulate", str(trace), "--policies", str(policies)]) == 2
    assert capsys.readouterr().err == "llm-sidecar: there is no policy to play: the directory has a catalog only\n"


class Terminal(StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        return True


def test_the_bar() -> None:
    """It fills, and is gone at the end; where nobody looks it is never there."""
    terminal, file = Terminal(), StringIO()
    for out in (terminal, file):
        draw = bar(out, 200)
        draw(100)
        draw(200)
    assert terminal.getvalue() == (
        f"\r[{'#' * 15}{'.' * 15}]  50 % of 200 requests\r[{'#' * 30}] 100 % of 200 requests\r\033[K"
    )
    assert file.getvalue() == ""


# ---- the page ---------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What is in a page; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


@pytest.fixture
def page(policies: Path, trace: Path, tmp_path: Path, capsys: Out) -> tuple[Page, str, dict[str, Any]]:
    """The page of a busy replay, its text, and the figures that it should show."""
    file = tmp_path / "page.html"
    argv = ("--policies", policies, "--failure-rate", "0.4", "--baseline", "primary", "--html", file)
    found = simulated(capsys, trace, *argv)
    text = file.read_text()
    return Page(text), text, found


def test_the_page_needs_nothing_else(page: tuple[Page, str, dict[str, Any]]) -> None:
    """One file: no script, nothing fetched, and a policy that forbids both."""
    parsed, text, _ = page
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "link", "img", "iframe", "object", "image", "use"})
    attributes = [(name, value or "") for _, given in parsed.tags for name, value in given.items()]
    assert not [name for name, _ in attributes if name in ("src", "href") or name.startswith("on")]
    assert re.search(r"url\(|@import|https?:", text) is None
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_the_page_tells_the_figures(page: tuple[Page, str, dict[str, Any]]) -> None:
    """The table has what `--json` has, and what was assumed stands below; names are text, whatever is in them."""
    parsed, _, found = page
    for one in (*found["policies"], *found["baselines"]):
        assert one["name"] in parsed.words
        assert dollars(one["usd"]) in parsed.words
        assert f"{100 * one['availability']:.2f} %" in parsed.words
    assert set(found["assumed"]) <= set(parsed.words)


def test_the_page_draws_within_its_pictures(page: tuple[Page, str, dict[str, Any]]) -> None:
    """Every point is a number inside the picture, every picture has a name, every shape a colour that exists."""
    parsed, text, _ = page
    pictures = [given for tag, given in parsed.tags if tag == "svg"]
    assert len(pictures) == 4 + 4
    assert all(given["role"] == "img" and given["aria-label"] for given in pictures)
    shapes = [given for tag, given in parsed.tags if tag in ("polyline", "polygon")]
    assert len(shapes) > 12
    for given in shapes:
        points = [tuple(map(float, point.split(","))) for point in (given["points"] or "").split()]
        assert points
        assert all(0 <= x <= 640 and 0 <= y <= 260 for x, y in points)
        tone = (given["class"] or "").split()[1]
        assert f".{tone} {{ --tone: var(--{tone}); }}" in text
        assert text.count(f"--{tone}: #") == 2  # by day and by night


def test_a_page_of_one_request(policies: Path, trace: Path, tmp_path: Path, capsys: Out) -> None:
    """Nothing is divided by the time between the first and the last request, or by the answers there were."""
    for faults in ("0", "1"):
        found = simulated(
            capsys, trace, "--policies", policies, "--limit", 1, "--failure-rate", faults, "--html", tmp_path / "p"
        )
        assert found["policies"][0]["answered"] == 1 - int(faults)
        assert "nan" not in (tmp_path / "p").read_text()


def test_axes() -> None:
    """Round marks: from zero, in decades, and as a clock has them."""
    assert from_zero(0.93, str).ticks == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert from_zero(0, str).high == 1.0
    assert decades(0.3, 12, str).ticks == pytest.approx([0.5, 1, 2, 5, 10])
    assert decades(1, 1, str).at(5) == 1.0
    marks = {seconds: list(map(clock(seconds).shown, clock(seconds).ticks)) for seconds in (50, 3600, 200_000, 5e6)}
    assert marks[50] == ["0 s", "10 s", "20 s", "30 s", "40 s", "50 s"]
    assert marks[3600][:3] == ["0 s", "10 min", "20 min"]
    assert marks[200_000][-1] == "2 d"
    assert len(marks[5e6]) <= 8


def test_charts_of_nothing() -> None:
    """No series, no rows: an empty picture, not an error."""
    share = Axis(0, 1, (0, 1), str)
    for drawn in (lines("x", [Series("n", "c0", [])], share, share), areas("x", [], share, share), bars("x", [])):
        assert drawn.startswith('<svg role="img" aria-label="x"')


def test_words() -> None:
    """Money to three digits, time in two units."""
    assert [dollars(usd) for usd in (0, 0.01234, 1.5, 1234.5)] == ["$0.00", "$0.0123", "$1.50", "$1,234.50"]
    assert [span(s) for s in (3.25, 90, 3700, 200_000)] == ["3.25 s", "1 min 30 s", "1 h 1 min", "2 d 7 h"]
