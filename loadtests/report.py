"""Numbers into a markdown table, and what they were measured on. Nothing here measures anything."""

import os
import platform
import sys
import sysconfig
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

_LIBRARIES = ("aiohttp", "uvloop", "msgspec", "orjson")


def percentile(numbers: Sequence[float], share: float) -> float:
    """Return the number below which `share` (0 to 1) of `numbers` lie; 0 for none."""
    if not numbers:
        return 0.0
    return sorted(numbers)[min(len(numbers) - 1, int(share * len(numbers)))]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table: the first column to the left, the others to the right."""
    marks = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, marks, *rows))


def machine(*more: str) -> str:
    """Return one line on what this ran on; `more` are further packages whose versions matter."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    build = "optimised" if "--enable-optimizations" in arguments else "plain"
    versions = ", ".join(f"{name} {version(name)}" for name in (*_LIBRARIES, *more))
    cores = len(os.sched_getaffinity(0))
    python = f"Python {platform.python_version()} ({build} build)"
    load = os.getloadavg()[0]
    return f"{cores} cores{_clock()}, load before {load:.1f}; {python}, {versions}; {sys.platform}"


def _clock() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("cpu MHz"):
            return f" of {float(line.partition(':')[2]) / 1000:.1f} GHz"
    return ""
