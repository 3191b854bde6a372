"""The figures of `loadtests.affinity` come from the live decisions; here on a small trace of our own."""

from pathlib import Path

import msgspec
import pytest

from loadtests.affinity import SETS, main, read, replay, ways


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Eleven conversations of thirty turns, each a block of 512 tokens longer than the last, side by side."""
    lines = [
        {
            "timestamp": 3000 * turn + 250 * talk,
            "input_length": 512 * (4 + turn) + 100,
            "output_length": 60,
            "hash_ids": [1000 * talk + block for block in range(5 + turn)],
        }
        for turn in range(30)
        for talk in range(11)
    ]
    path = tmp_path / "trace.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    return path


def test_conversations_stay_where_they_are_warm(trace: Path) -> None:
    """Nearly as much is read from caches as if there were one provider for all, and it costs less than scattering."""
    asked = read(trace, 10_000)
    found = {
        way: replay(asked, able, choose, cached=known)
        for way, able, choose, known in ways(SETS["one model, one price"])
    }

    assert found["cheapest, with"].cached > 0.92 * found["all at one"].cached
    assert found["cheapest, with"].usd < 0.92 * found["in turn"].usd
    assert found["cheapest, with"].switched == 0 < found["in turn"].switched
    again = {
        way: replay(asked, able, choose, cached=known)
        for way, able, choose, known in ways(SETS["one model, one price"])
    }
    assert again == found


def test_it_prints_a_table_for_each_set(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many requests as it is told."""
    assert main([str(trace), "--requests", "50"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("50 requests") == len(SETS)
    assert printed.count("| cheapest, with |") == len(SETS)


def test_a_trace_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its name; exit 2."""
    (tmp_path / "not.jsonl").write_text("TIMESTAMP,ContextTokens\n")
    assert main([str(tmp_path / "not.jsonl")]) == 2
    assert main([str(tmp_path / "gone.jsonl")]) == 2
    assert "not.jsonl: " in capsys.readouterr().err
