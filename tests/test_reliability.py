"""The reliability figures: what is right passes, each kind of wrong answer fails, and every script runs, small."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from loadtests.reliability import matrix
from loadtests.reliability.__main__ import FIGURES, main
from loadtests.reliability.bed import MODEL, Upstream, upstream
from loadtests.reliability.client import Client, Outcome, dechunk
from loadtests.reliability.figure import (
    Figure,
    Line,
    Settings,
    at_least,
    at_most,
    exactly,
    exit_code,
    render,
    skipped,
    told,
)
from loadtests.reliability.inside import lateness_ms
from loadtests.reliability.judge import Judged, Kind, judge, judge_words, tally
from loadtests.reliability.script import DamagedError, Script
from loadtests.reliability.seen import BROKEN, WRONG, Seen, saw
from loadtests.reliability.seen import ERROR as AN_ERROR
from loadtests.reliability.soak import slope
from loadtests.reliability.wall import Answer
from tests.fault_cells import ANSWER, OTHER
from tests.needs import ROOT

ERROR = b'{"error":{"message":"no","type":"server_error","param":null,"code":"overloaded"}}'
# What runs in seconds. L2 and L13 are L1 once more; the others take as long as the product's own timers.
CHEAP = ["L1", "L5", "L7", "L8", "L9", "L10", "L11", "bounds"]


def outcome(script: Script, body: bytes, status: int = 200, **fields: object) -> Outcome:
    """An answer of the sidecar that says it is from a/m."""
    whole = Outcome(script, "whole", status, {"x-sidecar-upstream": "a/m"}, body, 0.0, 0.0, 0.0)
    return whole._replace(**fields)  # type: ignore[arg-type]


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Upstream]:
    """A running scripted upstream."""
    with upstream(tmp_path) as running:
        yield running


async def asked(up: Upstream, script: Script) -> Outcome:
    """What the upstream itself answers, as if a sidecar had passed it on."""
    client = Client(up.port, MODEL, late_s=0.5)
    got = await client.ask(script)
    client.close()
    return got._replace(headers={**got.headers, "x-sidecar-upstream": f"a/{MODEL}"})


@pytest.mark.parametrize("size", [0, 100_000])
def test_a_script_survives_its_way(size: int) -> None:
    """The upstream reads what the client meant, also from JSON that somebody wrote anew."""
    script = Script.new(stream=False, events=7, gap=0.25, wait=0.5, fault="cut-3")._replace(size=size, faulty=2)
    body = script.body("m")

    assert Script.read(body) == script
    assert Script.read(body.replace(b":", b": ").replace(b": 0", b":0")) == script


def test_a_damaged_request_is_noticed() -> None:
    """A prompt without its end, or with another's, is not played."""
    body = Script.new().body("m")
    nonce = body.rpartition(b"|")[2][:8]

    for damaged in (b"{}", body.replace(b"|", b" "), body[:-20] + b"x" + body[-19:].replace(nonce, b"")):
        with pytest.raises((DamagedError, msgspec.MsgspecError)):
            Script.read(damaged)


@pytest.mark.parametrize("stream", [True, False])
async def test_what_the_upstream_says_is_right(scripted: Upstream, stream: bool) -> None:
    """Byte for byte, by both judges, and its journal knows the nonce."""
    got = await asked(scripted, Script.new(stream=stream))

    assert judge(got) == judge_words(got) == Judged(Kind.RIGHT)
    assert scripted.journal() == {
        "open": 0,
        "most_open": 1,
        "attempts": 1,
        "nonces": 1,
        "most_attempts": 1,
        "answered_twice": 0,
        "played": {},
        "damaged": 0,
        "by_provider": {"v1": 1},
    }


@pytest.mark.parametrize(
    ("fault", "kind", "why"),
    [
        ("500", Kind.REFUSED, "500 None"),
        ("html", Kind.WRONG, "502 without an OpenAI error"),
        ("malformed", Kind.WRONG, "cut without a word"),
        ("half", Kind.WRONG, "no answer"),
        ("close", Kind.WRONG, "no answer"),
        ("reset", Kind.WRONG, "no answer"),
        ("hang", Kind.WRONG, "late"),
        ("cut-2", Kind.WRONG, "cut"),
        ("stall-2", Kind.WRONG, "late"),
        ("end-2", Kind.WRONG, "cut without a word"),
        ("garbage-2", Kind.WRONG, "cut without a word"),
        ("error-2", Kind.TOLD, "None"),
        ("error-0", Kind.WRONG, "something else before the error event"),
    ],
)
async def test_faults_are_judged(scripted: Upstream, fault: str, kind: Kind, why: str) -> None:
    """Passed on as they are, faults are wrong, but for those that say what they are; the second attempt is right."""
    script = Script.new(fault=fault)

    assert judge(await asked(scripted, script)) == Judged(kind, why)
    assert judge(await asked(scripted, script)) == Judged(Kind.RIGHT)


def test_wrong_answers_are_named() -> None:
    """Another's words, a lost event, an end that is none, an error that is none."""
    one, other = Script.new(), Script.new()
    events = one.all_events("m")
    whole = b"".join(events)

    assert judge(outcome(one, whole)).kind is Kind.RIGHT
    assert judge(outcome(one, whole, end="cut")).why == "cut"
    assert judge(outcome(one, b"".join(other.all_events("m")))).why == "crossed: another request's nonce"
    assert judge(outcome(one, b"".join(events[:2] + events[3:]))).why == "damaged"
    assert judge(outcome(one, b"".join(events[:-1]))).why == "cut without a word"
    assert judge(outcome(one, whole.replace(b'"m"', b'"n"'))).why == "damaged"
    assert judge(outcome(one, b"".join(events[:3]) + b"data: " + ERROR + b"\n\n")) == Judged(Kind.TOLD, "overloaded")
    assert judge(outcome(one, b"".join(events[:3]) + b'data: {"error":"no"}\n\n')).kind is Kind.WRONG
    assert judge(outcome(one, ERROR, 503)) == Judged(Kind.REFUSED, "503 overloaded")
    assert judge(outcome(one, b"", 204)).why == "status 204"


def test_a_gateway_may_write_answers_anew_but_not_shorten_them() -> None:
    """Other fields and blanks are no fault; a missing word and an error in other words than OpenAI's are told apart."""
    script = Script.new()
    events = script.all_events("m")
    anew = b"".join(events).replace(b'"created":1,', b"").replace(b":", b": ").replace(b"data:  ", b"data: ")

    assert judge_words(outcome(script, anew)).kind is Kind.RIGHT
    assert judge_words(outcome(script, b"".join(events[:2] + events[-2:]))).why == "cut without a word"
    loose = b'data: {"error":{"message":"no","type":null}}\n\n'
    assert judge_words(outcome(script, events[1] + loose)).kind is Kind.TOLD
    assert judge(outcome(script, events[0] + events[1] + loose)).kind is Kind.WRONG


def test_half_a_chunk_is_not_read() -> None:
    """What came whole counts."""
    assert dechunk(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") == b"abcde"
    assert dechunk(b"3\r\nabc\r\n5\r\nde") == b"abc"


def test_a_wrong_answer_fails_the_run() -> None:
    """One line that does not hold decides the exit code and is seen in the table."""
    script = Script.new()
    good = outcome(script, b"".join(script.all_events("m")))
    bad = good._replace(body=good.body[:-20])
    figure = Figure("L0", "a figure", lambda settings: [])

    def lines(*outcomes: Outcome) -> list[Line]:
        found = tally(outcomes)
        return [exactly("right", found.total, found.kinds[Kind.RIGHT]), told("answers", found)]

    assert exit_code([(figure, lines(good, good))]) == 0
    assert exit_code([(figure, lines(good)), (figure, lines(good, bad))]) == 1
    assert "| right | 2 | 1 | FAIL |" in render([(figure, lines(good, bad))])
    assert "1 right, 1 wrong (1 x wrong: cut without a word)" in render([(figure, lines(good, bad))])


def test_bars() -> None:
    """A bar is held by being on it; what was skipped neither holds nor fails."""
    assert [at_most("x", 2, 2).good, at_most("x", 2, 2.1).good, at_least("x", 2, 1.9).good] == [True, False, False]
    assert at_most("RSS", 150, 65.25, " MiB") == Line("RSS", "<= 150 MiB", "65.25 MiB", True)
    assert skipped("no such option").verdict == ""
    assert exit_code([(Figure("L0", "", lambda _: []), [skipped("why")])]) == 0


def test_a_late_turn_counts_for_those_it_kept_away() -> None:
    """A stall of 12 ms is one turn, but who came within it at any moment waited."""
    assert lateness_ms(0.001) == [1.0]
    assert lateness_ms(0.0125) == pytest.approx([12.5, 7.5, 2.5])


def test_slope() -> None:
    """A line's slope is its slope, a point has none."""
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(1, 1)]) == 0


@pytest.mark.parametrize("name", CHEAP)
def test_every_figure_runs(name: str) -> None:
    """A hundredth of each load: all answers are as they must be. How long they took is for the machine to say."""
    figure = next(figure for figure in FIGURES if figure.name == name)

    lines = figure.run(Settings(scale=0.01, seconds=100))

    assert [line for line in lines if line.good is False and not line.bar.endswith("s")] == []
    assert lines


# ---- the matrix through a gateway ---------------------------------------------------------------------------------


def heard(body: str, status: int = 200, end: str = "whole", **headers: str) -> Answer:
    """An answer of some gateway."""
    kind = "text/event-stream" if body.startswith("data:") else "application/json"
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(end, status, {"content-type": kind, **named}, body.encode(), 0.1)  # type: ignore[arg-type]


def events(*deltas: str, end: str = "data: [DONE]\n\n") -> str:
    """A stream."""
    chunks = [{"choices": [{"delta": {"content": delta}, "finish_reason": None}]} for delta in deltas]
    return "".join(f"data: {msgspec.json.encode(chunk).decode()}\n\n" for chunk in chunks) + end


TOLD = f"data: {ERROR.decode()}\n\n"


@pytest.mark.parametrize(
    ("answer", "kind", "text", "silent"),
    [
        (heard('{"choices":[{"message":{"content":"a b"}}]}'), ANSWER, ANSWER, False),
        (heard('{"choices":[{"message":{"content":""}}]}'), WRONG, "an empty answer as if it were whole", True),
        (heard('{"choices":[{"message":{"content":"a"}}]}'), WRONG, "another text", True),
        (heard('{"choices":[]}'), WRONG, "200, but no completion", False),
        (heard(ERROR.decode(), 503, retry_after="1"), AN_ERROR, "503 `overloaded`, retry-after 1", False),
        (heard('{"error":{"message":"no"}}', 500), AN_ERROR, "500 no code", False),
        (heard('{"error":"no"}', 500), WRONG, "500 without an OpenAI error", False),
        (heard("<html>", 502), WRONG, "502 without an OpenAI error", False),
        (heard("", 0, "cut"), WRONG, "the connection closes", False),
        (heard("", 0, "late"), WRONG, "nothing in 12 s", False),
        (heard("data: ", 200, "late"), WRONG, "no end in 12 s", False),
        (heard(events("a", " b")), ANSWER, ANSWER, False),
        (heard(events("a", end="data: [DONE]\n\n")), WRONG, "half an answer as if it were whole", True),
        (heard(events("a", end="")), WRONG, "half an answer, and the stream ends", True),
        (heard(events("a", end=""), end="cut"), WRONG, "the words until then, and the connection closes", False),
        (heard(events()), WRONG, "an empty answer as if it were whole", True),
        (heard(events("a", end=TOLD)), BROKEN, "the words until then, then `overloaded`", False),
        (heard(TOLD), AN_ERROR, "200, then `overloaded`", False),
        (heard("data: {]\n\n"), WRONG, "an event that no SDK can read", False),
    ],
)
def test_what_a_client_saw(answer: Answer, kind: str, text: str, silent: bool) -> None:
    """Any gateway's answer comes to one of a few kinds; half of one that looks whole is the worst."""
    seen = saw(answer, "fault/text", "a b")
    assert seen == (kind, text, silent)
    assert seen.by_fallback().kind == (OTHER if kind == ANSWER else kind)


def test_the_matrix_through_the_sidecar(capsys: pytest.CaptureFixture[str]) -> None:
    """The script's own walls and clients come to what the tests of the matrix do."""
    assert matrix.main(["F7", "F18b", "F24", "F28"]) == 0
    assert "sidecar: 16 cells, 16 of the kind that they must be, 0 another choice, 0 missed" in capsys.readouterr().out


def test_what_another_gateway_chooses_is_no_miss() -> None:
    """The table has every fault, and in bold what is missed."""
    row = next(row for row in matrix.PLAYED if row.id == "F11b")
    situation = "complete, fallback"
    cells = [
        matrix.Cell(row, situation, row.must(situation, "openai"), Seen(kind, kind), 1)
        for kind in (AN_ERROR, OTHER, ANSWER, WRONG)
    ]
    assert [cell.held for cell in cells] == [True, None, None, False]
    assert matrix.lines(cells) == [[row.title, AN_ERROR, OTHER, ANSWER, f"**{WRONG}**"]]


def test_names_are_those_of_the_programme() -> None:
    """Each once."""
    names = [f"L{number}" for number in (*range(1, 12), 13)]
    assert Counter(figure.name for figure in FIGURES) == Counter([*names, "bounds"])


def test_the_command_prints_a_table() -> None:
    """And ends with 0 when everything held."""
    command = [sys.executable, "-m", "loadtests.reliability"]

    done = subprocess.run(
        [*command, "L10", "--scale", "0.01"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "| open at the upstream before | >= 5 | 5 | pass |" in done.stdout


def test_a_figure_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With a word on what there is."""
    with pytest.raises(SystemExit, match="2"):
        main(["L99"])

    assert "there is no 'L99', but L1" in capsys.readouterr().err
