"""One JSON object per line, written in batches. No prompt, no answer, no key ever comes here.

A line costs an encode and an append; the write happens once per turn of the event loop's timer, because a write per
line costs as much as the whole decision (a logging call: 16 us).
"""

import sys
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import quote

import msgspec

_encode: Final = msgspec.json.Encoder().encode
# Lines wait this long for company.
_FLUSH_S: Final = 0.05
_MAX_TEXT: Final = 200


class Later(Protocol):
    """The part of an event loop that a log needs."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> object:
        """Call `callback` in `delay` seconds."""
        ...


class Log:
    """Writes records through `write`; without a loop, at once."""

    def __init__(self, write: Callable[[bytes], object], loop: Later | None = None) -> None:
        self._write = write
        self._loop = loop
        self._lines: list[bytes] = []

    def __call__(self, event: str, ts: float, **fields: object) -> None:
        """Write one record; `ts` is Unix seconds. Fields that are None are left out."""
        record: dict[str, object] = {"ts": round(ts, 3), "event": event}
        record.update((name, value) for name, value in fields.items() if value is not None)
        self._append(_encode(record) + b"\n")

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        if self._loop is None:
            self.flush()
        elif len(self._lines) == 1:
            self._loop.call_later(_FLUSH_S, self.flush)

    def line(self, record: msgspec.Struct) -> None:
        """Write one record that is a type of its own: half the price of a call with fields."""
        self._append(_encode(record) + b"\n")

    def flush(self) -> None:
        """Write what waits."""
        lines, self._lines = self._lines, []
        if lines:
            self._write(b"".join(lines))


def short(text: str) -> str:
    """Return a client's text fit for a log line: bounded. Line ends are escaped by the JSON encoder."""
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."


def plain(name: str) -> str:
    """Return a client's `name` fit for a header: it may hold anything, and any amount of it."""
    name = short(name)
    return name if name.isascii() and name.isprintable() else quote(name, safe="/:@.-_ ")


def tell(line: str) -> None:
    """Print a line for a person: on stderr, because stdout carries the log."""
    print(line, file=sys.stderr, flush=True)
