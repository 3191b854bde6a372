"""The long run of the fuzzer, kept short: what it prints, what it keeps, what it is told."""

from pathlib import Path

import pytest

from loadtests.fuzz import Catcher, main

from .fuzz import corpus


def test_a_run_prints_its_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each target, and a sum."""
    assert main(["named", "waiting", "--seconds", "0.05", "--plain"]) == 0
    rows = [line.split("|")[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [name.strip() for name, _ in rows[2:]] == ["named", "waiting", "all"]
    named, waiting, total = (int(count) for _, count in rows[2:])
    assert named + waiting == total > 100


def test_a_target_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Is named, with those that do."""
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "no target nothing; there are: request, " in capsys.readouterr().err


def test_what_breaks_is_kept_once_for_each_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first input of each kind goes to the others that are kept, and the run goes on."""

    def check(data: bytes) -> bool:
        if data.startswith(b"a"):
            raise ZeroDivisionError
        return bool(int(data))

    catch = Catcher("some", check, tmp_path)
    for data in (b"1", b"ab\n\xff'", b"ac", b"x", b"y", b"2"):
        catch(data)

    assert corpus.read("some", tmp_path) == [b"ab\n\xff'", b"x"]
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in told] == ["ZeroDivisionError", "ValueError"]
    corpus.keep("some", b"x", tmp_path)
    assert len(corpus.read("some", tmp_path)) == 2
