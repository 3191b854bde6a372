"""The two C programs and their words: builds them, makes their requests, reads their report. Nothing is timed here.

The upstream and the load client are C because the machine has to have room left for what is measured: they need about
a tenth of what the fastest gateway does.
"""

import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

SOURCES: Final = Path(__file__).parent
# Marks that the load client replaces with the number of the request; an answer must say both (common.h).
NONCE: Final = "@n000000000000"
COMPILER: Final = "gcc"
_BUILD_S: Final = 120
# What an agent has said so far, in turns of about this many characters.
_TURN_CHARS: Final = 2_000
_WORDS: Final = "Rivers rise in hills and end in seas; tell me which ones, and why, and where the others have gone. "
_SYSTEM: Final = (
    "You are a helpful assistant for the customers of a small online shop. Answer briefly, in the customer's language, "
    "and never promise a refund before the order has been looked up."
)
_TOOL: Final = {
    "name": "lookup_order",
    "description": "Look up an order of the shop by its number and return its state and its parcels",
    "parameters": {
        "type": "object",
        "properties": {
            "order_number": {"type": "string", "description": "The eight digits of the order number"},
            "with_parcels": {"type": "boolean", "description": "Whether to list the parcels too"},
        },
        "required": ["order_number"],
    },
}


class Spread(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50: float
    p99: float
    max: float


class Report(msgspec.Struct, frozen=True):
    """What the load client saw. `errors` counts wrong answers by kind; times are of right ones, None without any."""

    asked: int
    good: int
    events: int
    seconds: float
    per_second: float
    errors: dict[str, int]
    first_error: str
    request_bytes: int
    latency_ms: Spread | None
    added_ms: Spread | None
    ttft_ms: Spread | None
    delay_ms: Spread | None

    @property
    def wrong(self) -> int:
        """Return how many answers were not what was asked for, or never came."""
        return sum(self.errors.values())

    def after(self, earlier: "Report") -> "Report":
        """Return this with the wrong answers of `earlier`, a warm-up: its time is left out, its faults are not."""
        errors = dict(Counter(earlier.errors) + Counter(self.errors))
        return msgspec.structs.replace(self, errors=errors, first_error=earlier.first_error or self.first_error)


def missing() -> str | None:
    """Return what keeps the programs from being built here, None when nothing does."""
    return None if shutil.which(COMPILER) else f"{COMPILER} is not installed"


def build(directory: Path) -> None:
    """Build `upstream` and `load` in `directory`. Raises RuntimeError with the compiler's words."""
    for name in ("upstream", "load"):
        command = [COMPILER, "-O2", "-Wall", "-Wextra", "-o", str(directory / name), str(SOURCES / f"{name}.c")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{name}.c does not build here: {done.stderr[-1500:]}")


def body(model: str, size: int, *, stream: bool) -> bytes:
    """Return a chat request with a tool, of about `size` bytes (at least 1.2 KB), with a nonce near both ends."""
    last = f"It is order number {NONCE}, placed on Monday. Where is the second mug, and may I change the address?"
    talk = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": f"{NONCE} Hello, one mug is missing."}]
    request = {"model": model, "messages": talk, "tools": [{"type": "function", "function": _TOOL}], "max_tokens": 256}
    if stream:
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    left = size - len(msgspec.json.encode(request)) - len(last) - 40
    while left > 0:
        role = "assistant" if talk[-1]["role"] == "user" else "user"
        turn = (_WORDS * (_TURN_CHARS // len(_WORDS) + 1))[: min(left, _TURN_CHARS)]
        talk.append({"role": role, "content": turn})
        left -= len(turn) + 40
    if talk[-1]["role"] == "user":
        talk.append({"role": "assistant", "content": "Could you tell me the number of your order, please?"})
    talk.append({"role": "user", "content": last})
    return msgspec.json.encode(request)


def report(output: bytes) -> Report:
    """Return what the load client printed. Raises RuntimeError when that is no report."""
    try:
        return msgspec.json.decode(output, type=Report)
    except msgspec.DecodeError as error:
        raise RuntimeError(f"the load client gave no report: {error}") from error
