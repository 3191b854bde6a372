"""The measurement of savings, on traces of a few requests: its table, what it calls missed, and how traces go on."""

import json
from pathlib import Path

import pytest

from loadtests.savings import main, tiled
from proxy.simulation.readers import read

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,4808,10\n2023-11-16 18:17:04.03,3180,8\n"
TALK = [
    {"timestamp": 1000 * at, "input_length": 4096, "output_length": 9, "hash_ids": list(range(8))} for at in range(20)
]


@pytest.fixture
def traces(tmp_path: Path) -> list[Path]:
    azure, talk = tmp_path / "a.csv", tmp_path / "m.jsonl"
    azure.write_text(AZURE)
    talk.write_text("".join(json.dumps(row) + "\n" for row in TALK))
    return [azure, talk]


def test_the_table(traces: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each policy, group and trace; groups of one price only where caches are known."""
    assert main(list(map(str, traces))) == 0
    out = capsys.readouterr().out
    assert "Prices: genai-prices " in out
    rows = [line for line in out.splitlines() if line.startswith("| ") and "candidates" not in line]
    assert len([row for row in rows if not row.startswith("| ---")]) == 2 * (2 * 2 + 2)
    assert all(row.endswith("| 0 / 0 |") for row in rows if not row.startswith("| ---"))


def test_a_trace_goes_on(traces: list[Path], tmp_path: Path) -> None:
    """Again and again, later and later; prompts of another turn are no continuation of this one's."""
    for source in traces:
        longer = tmp_path / f"longer{source.suffix}"
        longer.write_text("\n".join(tiled(source, 50)))
        once, often = read(source), read(longer)
        assert len(often) == 50
        assert list(often.at) == sorted(often.at)
        assert list(often.input)[: len(once)] == list(once.input)
    assert often.blocks is not None
    assert often.blocks[0] == often.blocks[19]
    assert set(often.blocks[0]).isdisjoint(often.blocks[20])
