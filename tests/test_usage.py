"""`llm-sidecar usage`: what a hand-made ledger adds up to, for people and for programs."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.__main__ import main
from proxy.commands.usage import MOST_GROUPS, OTHERS, Tally, tally
from proxy.ledger import Entry
from tests.conftest import catalog

Out = pytest.CaptureFixture[str]
DAY = 1_795_564_800.0  # 2026-11-25
MTOK = 1_000_000


def ok(id: str, **fields: Any) -> Entry:
    """An answer that a client got."""
    return Entry(
        id=id, outcome="ok", status=200, **{"ts": DAY, "final": True, "ms": 100.0, "upstream": "p0/m", **fields}
    )


def failed(id: str, **fields: Any) -> Entry:
    """An attempt that came to nothing."""
    return Entry(id=id, **{"ts": DAY, "outcome": "timeout", "upstream": "p0/m", "ms": 9000.0, **fields})


LEDGER = [
    ok("a", policy="cheap", tag="red", model="x", input=MTOK, cached=400_000, output=1000, usd=1.5, ms=100),
    failed("b", policy="cheap", attempt=1),
    ok("b", policy="cheap", attempt=2, upstream="p1/m", input=1000, output=10, usd=0.25, ms=200, ts=DAY + 86_399),
    failed("c", policy="good", final=True, input=500, usd=0.125, ts=DAY + 86_400),
    Entry(id="d", policy="good", ts=DAY + 86_400, upstream="p1/m", outcome="cancelled", final=True, ms=5),
    ok("e", policy="good", upstream="p1/m", input=7, output=7, ts=DAY + 90_000, ms=400),
]


@pytest.fixture
def usage(tmp_path: Path, capsys: Out) -> Callable[..., str]:
    """Run the verb on LEDGER, kept in two files with a torn line; returns what it prints."""
    folder = tmp_path / "ledger"
    folder.mkdir()
    lines = [msgspec.json.encode(one) + b"\n" for one in LEDGER]
    (folder / "2026-11-25-w0-001.jsonl").write_bytes(b"".join(lines[:3]) + b'{"id":"torn","ts":17955')
    (folder / "2026-11-26-w0-001.jsonl").write_bytes(b"".join(lines[3:]))
    (folder / "notes.txt").write_text("not of the ledger")
    (tmp_path / "catalog.toml").write_text(catalog("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1"))

    def run(*argv: str, code: int = 0) -> str:
        assert main(["usage", str(folder), "--policies", str(tmp_path), *argv]) == code
        return "".join(capsys.readouterr())

    return run


def test_a_report_for_people(usage: Callable[..., str]) -> None:
    """Aligned, dearest first, a total, and what the sums do not hold."""
    assert usage("--by", "policy, upstream") == (
        "policy  upstream  requests  attempts  success    input  cached  output       USD  unpriced  p50 ms  p95 ms\n"
        "cheap   p0/m             1         2   100.0%  1000000  400000    1000  1.500000         0    99.9    99.9\n"
        "cheap   p1/m             1         1   100.0%     1000       0      10  0.250000         0     200     200\n"
        "good    p0/m             1         1     0.0%      500       0       0  0.125000         0       -       -\n"
        "good    p1/m             2         2   100.0%        7       0       7  0.000000         1     400     400\n"
        "total                    5         6    75.0%  1001507  400000    1017  1.875000         1     200     400\n"
        "1 answers have no known price: their cost is not in the sums\n"
        "1 lines are no records (cut off by a crash, or damaged)\n"
    )


def test_a_report_by_day(usage: Callable[..., str]) -> None:
    """In the order of days (UTC); one line needs no total, and nothing to say is not said."""
    lines = usage("--by", "day").splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["2026-11-25", "2026-11-26", "total"]
    only = usage("--by", "tag", "--until", "2026-11-25T00:00:01").splitlines()
    assert [line.split()[:3] for line in only] == [
        ["tag", "requests", "attempts"],
        ["red", "1", "1"],
        ["-", "0", "1"],
        ["total", "1", "2"],
        ["1", "lines", "are"],
    ]


def test_without_keys_there_is_one_line(usage: Callable[..., str]) -> None:
    """Everything together."""
    lines = usage("--by", "").splitlines()
    assert lines[0].split()[0] == "requests"
    assert lines[1].split()[:2] == ["5", "6"]


@pytest.mark.parametrize(
    ("argv", "requests"),
    [
        (["--since", "2026-11-26"], 3),
        (["--until", "2026-11-25"], 2),
        (["--since", "2026-11-25T23:59:59"], 4),
        (["--since", "2026-11-26T00:59:59+00:00", "--until", "2026-11-26"], 1),
        (["--since", "2026-11-26T02:00:00+01:00"], 1),
        (["--until", "2026-11-24"], 0),
    ],
)
def test_a_time_may_be_given(usage: Callable[..., str], argv: list[str], requests: int) -> None:
    """From a day or time on, to the end of a day or before a time."""
    assert json.loads(usage("--json", *argv))["total"]["requests"] == requests


def test_a_report_for_programs(usage: Callable[..., str]) -> None:
    """JSON has groups, total and torn lines; CSV has the groups with the same numbers."""
    report = json.loads(usage("--json", "--by", "policy"))
    assert report["total"] == {
        "by": {},
        "requests": 5,
        "attempts": 6,
        "success": 0.75,
        "input": 1_001_507,
        "cached": 400_000,
        "output": 1017,
        "usd": 1.875,
        "unpriced": 1,
        "p50_ms": 200.0,
        "p95_ms": 400.0,
        "baseline_usd": None,
        "saved_usd": None,
    }
    assert (report["torn"], report["baseline"], report["assumes"]) == (1, None, None)
    rows = list(csv.DictReader(io.StringIO(usage("--csv", "--by", "policy"))))
    for row, group in zip(rows, report["rows"], strict=True):
        assert row.pop("policy") == group["by"]["policy"]
        assert {name: float(value) for name, value in row.items()} == {name: group[name] for name in row}


def test_savings_against_a_baseline(usage: Callable[..., str]) -> None:
    """What the answers would have cost at one upstream; unpriced ones are left out, failed ones are not forgiven."""
    report = json.loads(usage("--json", "--by", "policy", "--baseline", "p1/m"))
    # p1/m costs 2 USD per million tokens: (1,001,000 + 1000 + 10) of "a" and "b"; "c" failed, "e" has no price
    total = report["total"]
    assert total["baseline_usd"] == pytest.approx(2 * (1_001_000 + 1010) / 1e6)
    assert total["saved_usd"] == pytest.approx(total["baseline_usd"] - 1.875)
    assert report["rows"][1]["saved_usd"] == -0.125
    assert report["baseline"] == "p1/m"
    assert "the same tokens" in report["assumes"]
    told = usage("--baseline", "p1/m")
    assert "\nsaved $0.129020 (6.4%), if p1/m were paid for the same tokens, as many of them cached, " in told
    assert "baseline USD" in told
    assert "saved_usd" in usage("--csv", "--baseline", "p1/m")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--by", "policy,upstraem"], "--by: 'upstraem' is not known; did you mean 'upstream'?"),
        (["--since", "yesterday"], "'yesterday' is no time; write 2026-11-25 or 2026-11-25T13:00"),
        (["--baseline", "p2/m"], "--baseline: no upstream 'p2/m'; did you mean"),
        (["--baseline", "p0"], "--baseline: no upstream 'p0'"),
        (["--baseline", "p0/other"], "--baseline: the price of 'p0/other' is unknown"),
    ],
)
def test_what_means_nothing_is_said(usage: Callable[..., str], argv: list[str], told: str) -> None:
    """Exit 2 and one line."""
    assert usage(*argv, code=2).startswith(f"llm-sidecar: {told}")


def test_a_ledger_that_is_not_there(tmp_path: Path, capsys: Out) -> None:
    """Exit 2, and how to keep one."""
    assert main(["usage", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == (
        f"llm-sidecar: {tmp_path / 'none'}: no such ledger; `llm-sidecar serve --ledger DIR` keeps one\n"
    )
    assert main(["usage", "/dev/null/x"]) == 2


def test_an_empty_ledger(tmp_path: Path, capsys: Out) -> None:
    """Nothing was asked, and that is no error."""
    assert main(["usage", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["total", "0", "0", "-"]


def test_a_name_cannot_break_the_table(tmp_path: Path, capsys: Out) -> None:
    """Clients choose model names."""
    (tmp_path / "x.jsonl").write_bytes(msgspec.json.encode(ok("a", model="x\n\x1b[31mtotal 1")))
    assert main(["usage", str(tmp_path), "--by", "model"]) == 0
    assert r"'x\n\x1b[31mtotal 1'" in capsys.readouterr().out


def test_only_so_many_groups_are_told_apart() -> None:
    """The rest shares a line, so that memory is bounded whatever clients send."""
    found: dict[Any, Tally] = {}
    entries = (ok(str(number), model=str(number)) for number in range(MOST_GROUPS + 5))
    tally(entries, lambda entry: (entry.model,), found, 0, float("inf"), None)
    assert len(found) == MOST_GROUPS + 1
    assert found[OTHERS,].requests == 5


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=200), st.sampled_from([0.5, 0.95]))
def test_percentiles_are_right_to_two_percent(times: list[float], share: float) -> None:
    """Without keeping the times: the one at that place, within a bucket and the rounding."""
    sums = Tally()
    for ms in times:
        sums.add(ok("a", ms=ms), None)
    row = sums.row({}, compared=False)
    told = row.p50_ms if share == 0.5 else row.p95_ms
    exact = sorted(times)[max(0, -int(-share * len(times) // 1) - 1)]
    assert told is not None
    assert told == pytest.approx(max(exact, 0.001), rel=0.02, abs=2e-5)


@given(st.lists(st.sampled_from(LEDGER), max_size=20), st.integers(0, 20))
def test_groups_add_up(entries: list[Entry], at: int) -> None:
    """Two parts of a ledger together are the whole."""
    whole, one, other = Tally(), Tally(), Tally()
    for number, entry in enumerate(entries):
        whole.add(entry, None)
        (one if number < at else other).add(entry, None)
    one.take_in(other)
    assert one.row({}, compared=True) == whole.row({}, compared=True)
