"""Files into traces: three formats, told apart by what is in them; whatever is wrong is told with its line."""

import json
from pathlib import Path

import msgspec
import pytest

from proxy.ledger import Entry
from proxy.simulation.readers import read
from proxy.simulation.trace import TraceError
from proxy.simulation.world import ENOUGH, fit

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:03.9999600,110,27
"""
MOONCAKE = [
    {"timestamp": 27000, "input_length": 1100, "output_length": 52, "hash_ids": [0, 1, 2]},
    {"timestamp": 30000, "input_length": 1024, "output_length": 26, "hash_ids": [0, 1]},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace"


def write(file: Path, *rows: object) -> Path:
    """JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def ledger(file: Path, *entries: Entry) -> Path:
    """A ledger as the sidecar writes it."""
    file.write_bytes(b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries))
    return file


def test_azure(file: Path) -> None:
    """Seconds since the first request, in the order in which they came, and tokens."""
    file.write_text(AZURE)
    found = read(file)

    assert found.format == "azure"
    assert list(found.at) == pytest.approx([0, 0.02, 0.052])
    assert (list(found.input), list(found.output)) == ([4808, 110, 3180], [10, 27, 8])
    assert (found.blocks, found.stream, found.needs, found.estimate, found.max_tokens) == (None,) * 5


@pytest.mark.parametrize("stamp", ["2024-05-10 00:00:00.009930+00:00", "2024-05-10T00:00:00"])
def test_azure_of_another_year(file: Path, stamp: str) -> None:
    """The later files have a time zone; a byte order mark, other line ends and empty lines do no harm."""
    file.write_bytes(f"\ufeff{AZURE.splitlines()[0]}\r\n{stamp},1,2\r\n\r\n".encode())
    assert list(read(file).input) == [1]


def test_mooncake(file: Path) -> None:
    """Milliseconds, and the ids of whole blocks: a part of a block is no beginning of a longer prompt."""
    found = read(write(file, *MOONCAKE))

    assert found.format == "mooncake"
    assert list(found.at) == [0, 3]
    assert found.blocks == [(0, 1), (0, 1)]


def test_limit_and_speed(file: Path) -> None:
    """The first requests only, and faster than they came."""
    file.write_text(AZURE)
    assert list(read(file, limit=2, speed=2).at) == pytest.approx([0, 0.026])
    assert len(read(write(file, *MOONCAKE), limit=1)) == 1


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "line 1: neither TIMESTAMP,ContextTokens,GeneratedTokens (Azure), nor JSON with input_length"),
        ("a,b,c\n1,2,3\n", "line 1: neither"),
        ('{"prompt": "secret"}\n', "line 1: neither"),
        (AZURE.splitlines()[0], "there is no request in it"),
        (AZURE + "yesterday,1,2\n", "line 5: Invalid isoformat string: 'yesterday'"),
        (AZURE + "2023-11-16 18:17:05,1\n", "line 5: 2 columns instead of 3"),
        (AZURE + "2023-11-16 18:17:05,many,2\n", "line 5: invalid literal for int() with base 10: 'many'"),
        (AZURE + "2023-11-16 18:17:05,-1,2\n", "line 5: '-1' is no number of tokens"),
        (AZURE + "2023-11-16 18:17:05+00:00,1,2\n", "line 5: can't subtract offset-naive and offset-aware"),
        (AZURE.splitlines()[0] + "\n" + "1" * 200_000 + "\n", "line 2: field larger than field limit"),
        (json.dumps(MOONCAKE[0]) + "\n{\n", "line 2: Input data was truncated"),
        (json.dumps(MOONCAKE[0] | {"input_length": -1}), "line 1: Expected `int` >= 0 - at `$.input_length`"),
        (json.dumps(MOONCAKE[0] | {"timestamp": "x"}), "line 1: Expected `float`, got `str` - at `$.timestamp`"),
    ],
)  # fmt: skip
def test_bad_files(file: Path, text: str, wrong: str) -> None:
    """The message names the file, the line, and what is wrong there."""
    file.write_text(text)
    with pytest.raises(TraceError) as told:
        read(file)
    assert str(told.value).startswith(f"{file}: {wrong}")


def test_files_that_cannot_be_read(file: Path) -> None:
    """No file, and a file that is no text."""
    with pytest.raises(TraceError, match=r"trace: No such file or directory$"):
        read(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match=r"trace: this is no text in UTF-8$"):
        read(file)
    file.write_bytes(AZURE.encode() + b"\n" * 10_000 + b"2023-11-16 18:17:05,\xff,1\n")
    with pytest.raises(TraceError, match=r"trace: this is no text in UTF-8$"):
        read(file)


def entry(id: str, ts: float, **fields: object) -> Entry:
    """One attempt: an answer of `a/m`, unless `fields` say otherwise."""
    answered = {"upstream": "a/m", "outcome": "ok", "final": True, "estimate": 100, "input": 130, "output": 20}
    return msgspec.convert({**answered, "id": id, "ts": ts, "ms": 900.0, **fields}, Entry)


def test_a_ledger(file: Path) -> None:
    """One request per id, from its first attempt on, with the tokens of its answer; attempts may be in any order."""
    failed = {"outcome": "overloaded", "final": False, "input": 0, "output": 0}
    found = read(
        ledger(
            file,
            entry("two", 1005, stream=True, needs=["tools"], max_tokens=50, prefix=[7, 8]),
            entry("one", 1001, attempt=2, upstream="b/m"),
            entry("one", 1000, **failed),
            entry("three", 1006, **failed),
        )
    )

    assert found.format == "ledger"
    assert list(found.at) == [0, 5, 6]
    assert (list(found.input), list(found.estimate or ())) == ([130, 130, 100], [100] * 3)
    assert list(found.output) == [20, 20, 20]
    assert found.stream == [False, True, False]
    assert found.needs == [frozenset(), frozenset({"tools"}), frozenset()]
    assert list(found.max_tokens or ()) == [0, 50, 0]
    assert found.blocks == [(), (7, 8), ()]
    assert len(found.tries) == 4
    assert found.notes == ["1 requests have no answer in the ledger: one of 20 tokens is assumed, the usual length."]


def test_of_two_answers_the_client_got_one(file: Path) -> None:
    """Where two were asked at once, the final answer counts, whichever is written first."""
    both = entry("one", 1, output=5), entry("one", 2, output=6, final=False)
    assert list(read(ledger(file, *both)).output) == list(read(ledger(file, *both[::-1])).output) == [5]


def test_a_ledger_of_failures(file: Path) -> None:
    """Nothing was answered: nothing is known, and the replay says so."""
    found = read(ledger(file, entry("one", 1, outcome="timeout", input=0, output=0)))
    assert (list(found.input), list(found.output)) == ([100], [0])


def test_torn_lines_are_left_out(file: Path) -> None:
    """Half a line, as a power cut leaves it, costs that line and is told."""
    ledger(file, entry("one", 1))
    file.write_bytes(file.read_bytes() + b'{"ts":2,"id":"tw\n')
    found = read(file)
    assert (len(found), found.notes) == (1, ["1 lines of the ledger are no records and are left out."])


def test_a_directory_is_a_ledger(tmp_path: Path) -> None:
    """All of its files, in any order of names."""
    ledger(tmp_path / "2026-11-24-w0-001.jsonl", entry("two", 2))
    ledger(tmp_path / "2026-11-25-w0-001.jsonl", entry("one", 1))
    assert (len(read(tmp_path)), read(tmp_path).name) == (2, tmp_path.name)


def test_tokens_are_reckoned_back_by_who_counted_them(file: Path) -> None:
    """A replay on the upstream that answered has the tokens of the ledger, one on another what that would count."""
    entries = [entry(f"a{number}", number) for number in range(ENOUGH)]
    entries += [entry(f"b{number}", 100 + number, upstream="b/m", input=80) for number in range(ENOUGH)]
    found = read(ledger(file, *entries))

    assert set(found.input) == {100}
    fits = fit(found.tries)
    assert (fits["a/m"].ratio, fits["b/m"].ratio) == pytest.approx((1.3, 0.8))
    assert fits[""].ratio == pytest.approx(1.05)
