"""Kept inputs: `corpus/<target>.txt`, one a line, each a Python bytes literal; `#` begins a remark.

They are where every run starts, and all of them run in CI. An input that once broke something is added for good.
"""

import ast
from pathlib import Path
from typing import Final

KEPT: Final = Path(__file__).parent / "corpus"


def read(name: str, folder: Path = KEPT) -> list[bytes]:
    """Return the inputs kept for a target, oldest first."""
    file = folder / f"{name}.txt"
    lines = file.read_text("ascii").splitlines() if file.exists() else []
    return [_literal(line) for line in lines if line and not line.startswith("#")]


def keep(name: str, data: bytes, folder: Path = KEPT) -> Path:
    """Add an input to those kept for a target, if it is not there; returns the file."""
    file = folder / f"{name}.txt"
    if data not in read(name, folder):
        with file.open("a", encoding="ascii") as lines:
            lines.write(f"{data!r}\n")
    return file


def _literal(line: str) -> bytes:
    found = ast.literal_eval(line)
    assert isinstance(found, bytes)
    return found
