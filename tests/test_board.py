"""Memory between processes: what one writes the other reads, and a death leaves nothing half done."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable

import pytest

from proxy.board import Board

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="workers need Linux"),
    # Other tests may have left a thread of the event loop's behind; `serve` forks before there is any.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def child(work: Callable[[], object]) -> int:
    """Run `work` in a process of its own; returns its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def wait(pid: int) -> int:
    """The exit code of a child; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_name_has_the_same_place_everywhere() -> None:
    """A provider that a worker is the first to meet is found by the others, and never moves."""
    board = Board(2, places=3)
    assert wait(child(lambda: [board.place("a"), board.place("b")])) == 0

    assert [board.place("b"), board.place("c"), board.place("a")] == [1, 2, 0]
    assert board.place("d") is None


def test_numbers_cross_processes() -> None:
    """What a worker writes is there for the others, and its death gives back what it had under way."""
    board = Board(2)
    board.in_flight(7)[0] = 1

    def work() -> None:
        board.in_flight(7)[1] = 5

    assert wait(child(work)) == 0
    assert list(board.in_flight(7)) == [1, 5]
    board.bury(1)
    assert list(board.in_flight(7)) == [1, 0]


async def test_one_bucket_for_all() -> None:
    """Two workers fill one bucket, and it leaks once, by the clock, not once for each."""
    board, now = Board(2), [100.0]
    one, other = (board.bucket(3, 0, 60, lambda: now[0]) for _ in range(2))
    for _ in range(30):
        assert one.take(1)
        assert other.take(1)
    assert not one.has_room(1)
    assert not other.has_room(1)
    assert board.bucket(3, 1, 60, lambda: now[0]).has_room(60)
    one.give_back(1)
    assert other.take(1)

    now[0] += 10
    assert (one.has_room(10), other.has_room(11)) == (True, False)
    now[0] += 1000
    assert other.take(999)
    assert not other.take(1)


def test_the_lock_goes_with_its_holder() -> None:
    """One process at a time; one that is killed while it holds the lock stops nobody."""
    board = Board(1)
    heard, said = os.pipe()

    def hold() -> None:
        with board.lock():
            os.write(said, b"!")
            signal.pause()

    holder = child(hold)
    os.read(heard, 1)
    with pytest.raises(BlockingIOError):
        fcntl.lockf(board._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.kill(holder, signal.SIGKILL)
    with board.lock():
        assert wait(holder) == -signal.SIGKILL


def test_a_page_is_the_last_whole_one() -> None:
    """Pages replace each other; what does not fit changes nothing; a death is noted and undone by a successor."""
    board = Board(2, page_bytes=10)
    assert board.page(1) == (b"", True)
    for page in (b"first", b"second one", b"third"):
        assert board.publish(1, page)
        assert board.page(1) == (page, True)

    assert not board.publish(1, b"far too long")
    board.bury(1)
    assert board.page(1) == (b"third", False)
    assert board.page(0) == (b"", True)
    assert board.publish(1, b"successor")
    assert board.page(1) == (b"successor", True)
