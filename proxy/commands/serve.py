"""`llm-sidecar serve`: run until told to stop, in one process or in several that share the port."""

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import msgspec
import uvloop

from proxy.app import App, Options, StartError, cannot_listen, raise_file_limit
from proxy.board import Board
from proxy.config import PolicyError
from proxy.listener import reserve
from proxy.log import Log, tell
from proxy.peers import Peers
from proxy.workers import HEARD, Parent, Post

# So much goes into a pipe in one piece (PIPE_BUF on Linux): several workers write to the same one.
_A_PIECE: Final = 4096


def run(args: argparse.Namespace) -> int:
    """Serve; returns 0 after a clean stop, 2 when the sidecar cannot start."""
    options = Options(
        policies=args.policies,
        host=args.host,
        port=args.port,
        admin=args.admin,
        demo=args.demo,
        drain_delay_s=args.drain_delay,
        drain_timeout_s=args.drain_timeout,
        max_in_flight=args.max_in_flight,
        ledger=args.ledger,
    )
    try:
        if args.workers > 1:
            return _share(options, args.workers)
        return uvloop.run(_serve(App(options, os.environ, _write_log)))
    except StartError as error:
        tell(f"llm-sidecar: {error}")
    return 2


def _share(options: Options, count: int) -> int:
    """Serve in `count` processes. Raises StartError."""
    if sys.platform != "linux":  # elsewhere the kernel gives all connections of a shared port to one process
        raise StartError("--workers needs Linux")
    board = Board(count)
    with ExitStack() as kept:
        port = _reserve(options.host, options.port, kept)
        admin = options.admin and (options.admin[0], _reserve(*options.admin, kept))
        options = msgspec.structs.replace(options, port=port, admin=admin)
        parent = Parent(count, lambda post: _work(options, board, post), board.bury, Log(_write_log))
        return parent.run(lambda said: tell(said.rstrip("\n")))


def _reserve(host: str, port: int, kept: ExitStack) -> int:
    """Return the port, which nobody else can have as long as `kept` is open. Raises StartError."""
    try:
        return int(kept.enter_context(reserve(host, port)).getsockname()[1])
    except OSError as error:
        raise cannot_listen(host, port, error) from error


def _work(options: Options, board: Board, post: Post) -> int:
    """Be one of the workers; returns 0 after a clean stop, 2 when it cannot start."""
    app = App(options, os.environ, _write_pieces, Peers(board, post.number))
    try:
        return uvloop.run(_serve(app, post))
    except PolicyError as error:
        tell(error.complaint())
    except StartError as error:
        tell(f"llm-sidecar: {error}")
    return 2


async def _serve(app: App, post: Post | None = None) -> int:
    raise_file_limit()
    await app.start()
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, app.reload)
    lines = "\n".join(app.lines())
    if post is None:
        tell(lines)
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        loop.add_reader(post.parent, stop.set)  # at its end: the parent is gone
        post.say(lines)
    # What is loaded now stays; the collector need not look at it again. Worst pause 33 -> 2.7 ms.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    await stop.wait()
    if post is None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, os._exit, 1)  # a second signal means now
    else:
        loop.remove_reader(post.parent)  # and a second signal is the parent's affair
    await app.stop()
    return 0


def pieces(lines: bytes) -> Iterator[bytes]:
    """Cut log lines into pieces that a pipe takes whole, at line ends; a longer line is a piece of its own."""
    start = 0
    while len(lines) - start > _A_PIECE:
        end = lines.rfind(b"\n", start, start + _A_PIECE) + 1 or lines.find(b"\n", start) + 1 or len(lines)
        yield lines[start:end]
        start = end
    if start < len(lines):
        yield lines[start:]


def _write_pieces(lines: bytes) -> None:
    for piece in pieces(lines):
        _write_log(piece)


def _write_log(lines: bytes) -> None:
    try:
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()
    except OSError:
        # A closed pipe: whoever read the log has gone. The answers matter more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
