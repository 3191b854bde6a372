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
    return f"{hardware()}; {interpreter(*more)}; {sys.platform}"


def hardware() -> str:
    """Return the cores, their clock, and how busy they are."""
    return f"{len(os.sched_getaffinity(0))} cores{_clock()}, load before {os.getloadavg()[0]:.1f}"


def interpreter(*more: str) -> str:
    """Return the interpreter, how it was built, and the versions of what runs in it."""
    versions = ", ".join(f"{name} {version(name)}" for name in (*_LIBRARIES, *more))
    return f"Python {platform.python_version()} ({build()} build), {versions}"


def build() -> str:
    """Return `optimised` for an interpreter built with PGO, else `plain`, which is 1.2 to 1.35 times slower."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    # Debian and Ubuntu run the profiling build by hand, and take its second flag out of what they install.
    by_hand = sysconfig.get_config_var("PGO_PROF_GEN_FLAG") and not sysconfig.get_config_var("PGO_PROF_USE_FLAG")
    return "optimised" if "--enable-optimizations" in arguments or by_hand else "plain"


def _clock() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("cpu MHz"):
            return f" of {float(line.partition(':')[2]) / 1000:.1f} GHz"
    return ""
