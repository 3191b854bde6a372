"""What every attempt came to, one JSON line each, safe from crashes. Never what was said, never a key.

A record is one write to a file opened for appending, made before the last byte of its answer goes to the client: who
has seen the end of an answer has it in the ledger, also if this process is killed right then. The system has it from
there; what it has not brought to the disk within a second is lost when the power fails. A write takes 1.3 us, so
nothing is gained by waiting for company (`loadtests/README.md`).

Each process has files of its own, a new one each day (UTC) and whenever one is full: `2026-11-25-w0-001.jsonl`. They
are only ever appended to: pack, move or delete those of yesterday as you like.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec

MAX_BYTES: Final = 128 << 20
# How much of the ledger a power cut may cost, seconds.
SYNC_S: Final = 1.0
_DAY_S: Final = 86_400
# After a file could not be opened, that is not tried again for so many seconds.
_AGAIN_S: Final = 1.0
# A tag is a client's word: so much of it is kept.
_LONGEST_TAG: Final = 64
_TAG: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@+=")


class Entry(msgspec.Struct, omit_defaults=True, gc=False):
    """One attempt at one upstream; what is at its default is left out. Requests refused before any attempt have none.

    `ts` is Unix seconds when it began; `id` the request's, `attempt` counts its attempts from 1. `model` is as asked,
    shortened; `upstream` is "provider/id"; `answered` what the upstream calls itself, if otherwise. `tag` is the
    request's `x-sidecar-tag`. `outcome` is "ok", the kind of error, or "cancelled"; `final` that it is what the client
    got. `estimate` is the input in tokens as estimated from bytes. Tokens are counted as OpenAI does: `input` includes
    `cached`, `cache_write` and `audio`, `output` includes `reasoning` and `audio_output`; `cache_write_1h` is the part
    of `cache_write` that is kept for an hour. `usd` is None when the price, or the usage, is unknown;
    `possibly_billed` says that an attempt without it may be on the bill all the same. `first_ms` is the first content
    of a stream. `prefix` are salted hashes of the prompt's blocks, where cache affinity computed them.
    """

    v: int = 1
    ts: float = 0.0
    id: str = ""
    attempt: int = 1
    policy: str = ""
    model: str = ""
    upstream: str = ""
    answered: str | None = None
    tag: str | None = None
    stream: bool = False
    needs: list[str] = []
    outcome: str = ""
    code: str | None = None
    status: int | None = None
    final: bool = False
    estimate: int = 0
    max_tokens: int | None = None
    input: int = 0
    cached: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    audio: int = 0
    audio_output: int = 0
    usd: float | None = None
    possibly_billed: bool = False
    ms: float = 0.0
    first_ms: float | None = None
    prefix: list[int] = []


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Entry).decode


class Ledger:
    """Appends entries to files in `directory`. Who serves goes on when that fails: `lost` is told of each entry that
    could not be written, `complain` why, once until a write succeeds again.
    """

    def __init__(
        self,
        directory: Path,
        lost: Callable[[], object],
        complain: Callable[[str], object],
        *,
        worker: int = 0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._directory = directory
        self._lost = lost
        self._complain = complain
        self._worker = worker
        self._max_bytes = max_bytes
        self._file: int | None = None
        self._size = 0
        self._day_ends = 0.0  # Unix seconds
        self._again = 0.0
        self._torn = False  # the file ends in half a line
        self._well = True
        self._written = 0  # records; only the event loop counts them
        self._synced = 0  # as many of them are on the disk; only `sync` says so
        self._full: list[int] = []  # files that wait for their last fsync
        self._syncing = Lock()

    def open(self, now: float) -> None:
        """Make the directory and open today's file, at `now` (Unix seconds). Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._turn(now)

    def add(self, entry: Entry) -> None:
        """Append `entry`."""
        line = _encode(entry) + b"\n"
        if self._torn:
            line = b"\n" + line
        now = entry.ts + entry.ms / 1000
        try:
            if self._file is None or now >= self._day_ends or self._size >= self._max_bytes:
                self._turn(now)
            written = os.write(self._file, line)  # type: ignore[arg-type]  # `_turn` has opened it
        except OSError as error:
            self._failed(error.strerror or str(error))
            return
        self._size += written
        self._written += 1
        self._torn = written < len(line)
        if self._torn:
            self._failed("a line was cut short: the disk is full")
        else:
            self._well = True

    def sync(self) -> None:
        """Bring to the disk what was written. Takes milliseconds: not for the event loop's thread."""
        with self._syncing:
            full, self._full = self._full, []
            written, file = self._written, self._file
            # Should a new file be turned to just now, this one is among the full ones: open until it is their turn.
            current = [file] if file is not None and written != self._synced else []
            for one in (*full, *current):
                with suppress(OSError):  # the next write will say so
                    os.fdatasync(one)
            for one in full:
                os.close(one)
            self._synced = written

    async def keep_synced(self) -> None:
        """Bring to the disk what was written, again and again, beside the event loop."""
        while True:
            await asyncio.sleep(SYNC_S)
            await asyncio.to_thread(self.sync)

    def close(self) -> None:
        """Bring all to the disk and close."""
        if self._file is not None:
            self._full.append(self._file)
            self._file = None
        self.sync()

    def _turn(self, now: float) -> None:
        """Go on in the file for `now`. Raises OSError."""
        if now < self._again:
            raise OSError(0, "no file could be opened")
        self._again = now + _AGAIN_S
        if self._file is not None:
            self._full.append(self._file)
            self._file = None
        day = datetime.fromtimestamp(now, UTC).date()
        path = self._path(f"{day}-w{self._worker}-")
        self._file = file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(file).st_size
        self._torn = self._size > 0 and os.pread(file, 1, self._size - 1) != b"\n"
        self._day_ends = now - now % _DAY_S + _DAY_S
        self._again = 0.0

    def _path(self, beginning: str) -> Path:
        """Return the last file of a day while it has room, or else the next one."""
        known = sorted(self._directory.glob(f"{beginning}[0-9][0-9][0-9].jsonl*"))  # packed ones keep their numbers
        last = int(known[-1].name[len(beginning) :][:3]) if known else 0
        if known and known[-1].suffix == ".jsonl" and known[-1].stat().st_size < self._max_bytes:
            return known[-1]
        return self._directory / f"{beginning}{last + 1:03}.jsonl"

    def _failed(self, reason: str) -> None:
        self._lost()
        if self._well:
            self._well = False
            self._complain(f"{self._directory}: {reason}")


class Page(msgspec.Struct, gc=False):
    """The entries of one request. One that failed waits for what follows: only then is known whether it was the last.

    Nothing is awaited between the two but a pause before the same upstream is asked again. `id` to `tag` are what all
    its entries have in common, see `Entry`.
    """

    ledger: Ledger
    id: str = ""
    policy: str = ""
    model: str = ""
    tag: str | None = None
    attempts: int = 0
    running: int = 0
    answered: bool = False
    failed: list[Entry] = []

    def open(self) -> int:
        """Note that an attempt begins. Returns its number."""
        if self.failed:
            self.settle(final=False)
        self.running += 1
        self.attempts += 1
        return self.attempts

    def close(self, entry: Entry) -> None:
        """Write `entry`, whose `outcome` is known."""
        self.running -= 1
        if entry.outcome == "ok":
            if self.failed:
                self.settle(final=False)
            entry.final = not self.answered
            self.answered = True
        elif entry.outcome == "cancelled":
            # While somebody else is asked, or has answered, this is a late one that was let go of.
            entry.final = not (self.answered or self.running)
            if entry.final:
                self.settle(final=False)
        else:
            self.failed.append(entry)
            return
        self.ledger.add(entry)

    def settle(self, *, final: bool = True) -> None:
        """Write what has failed; `final`: nothing follows, the last of it is what the client is told."""
        if self.failed:
            failed, self.failed = self.failed, []
            failed[-1].final = final and not self.answered
            for entry in failed:
                self.ledger.add(entry)


def tag(text: str | None) -> str | None:
    """Return a client's tag fit for a ledger: bounded, and of plain characters; None when there is none."""
    if not text:
        return None
    return "".join(mark if mark in _TAG else "_" for mark in text.strip()[:_LONGEST_TAG]) or None


# ---- reading ----------------------------------------------------------------------------------------------------


class Read:
    """Reads entries out of files, one pass, whatever their size. `torn` counts lines that are no entry."""

    def __init__(self) -> None:
        self.torn = 0

    def entries(self, path: Path) -> Iterator[Entry]:
        """Return the entries of a file, or of all `.jsonl` files of a directory. Raises OSError."""
        for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
            with file.open("rb", buffering=1 << 20) as lines:
                for line in lines:
                    try:
                        yield _decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        # Blank ones stand behind half a line, which is counted already.
                        self.torn += not line.isspace()
