"""One JSON object per line, in batches."""

from collections.abc import Callable

import msgspec
import pytest

from proxy.log import Log, short, tell


class Turns:
    """An event loop's timer, wound by hand."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def call_later(self, delay: float, callback: Callable[[], object], /) -> object:
        assert delay > 0
        self.waiting.append(callback)
        return None


def test_without_a_loop_a_line_is_written_at_once() -> None:
    """Before the loop runs and after it ended, nothing may be lost."""
    written: list[bytes] = []

    Log(written.append)("started", 1.23456, port=80, why=None)

    assert written == [b'{"ts":1.235,"event":"started","port":80}\n']


def test_lines_of_one_turn_are_one_write() -> None:
    """A write per line costs as much as a decision; lines wait for company."""
    written: list[bytes] = []
    turns = Turns()
    log = Log(written.append, turns)

    log("a", 1)
    log("b", 2)
    assert written == []
    assert len(turns.waiting) == 1
    turns.waiting.pop()()
    log("c", 3)

    assert len(turns.waiting) == 1
    assert [msgspec.json.decode(line)["event"] for line in written[0].splitlines()] == ["a", "b"]


def test_flushing_nothing_writes_nothing() -> None:
    """The last flush at the end may find the lines gone already."""
    written: list[bytes] = []
    Log(written.append).flush()

    assert written == []


def test_a_name_cannot_forge_a_line() -> None:
    """Line ends in a client's text are escaped."""
    written: list[bytes] = []

    Log(written.append)("asked", 1, model='x"}\n{"event":"forged"}\r\u2028')

    assert written[0].count(b"\n") == 1
    assert b"\r" not in written[0]


def test_long_texts_are_cut_for_the_log() -> None:
    """A client's megabyte does not become a log's."""
    assert short("a" * 200) == "a" * 200
    assert short("a" * 201) == "a" * 200 + "..."


def test_people_are_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Stdout carries the log alone, so that a machine can read it."""
    tell("listening")

    assert capsys.readouterr() == ("", "listening\n")
