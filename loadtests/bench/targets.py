"""What the sidecar has to reach, and what it would be proud of. Ratios are to nginx in the same round.

`must` puts a Python process ahead of Envoy and of every LLM gateway that was measured beside it.
"""

from typing import Final, NamedTuple

from loadtests.bench.scenarios import TRANSLATED


class Target(NamedTuple):
    """At most this, as a ratio to nginx (or to our own pass-through) or in the figure's own unit; None: no such bar."""

    must: float | None
    stretch: float

    def __str__(self) -> str:
        return f"{'-' if self.must is None else f'{self.must:g}'} / {self.stretch:g}"

    def verdict(self, value: float) -> str:
        """Return what `value` reaches."""
        if value <= self.stretch:
            return "stretch"
        if self.must is None:
            return "not reached"
        return "must" if value <= self.must else "MISSED"


# By scenario and figure.
RATIOS: Final[dict[tuple[str, str], Target]] = {
    ("c64", "cpu"): Target(2.5, 1.7),
    ("c1000", "cpu"): Target(2.5, 1.7),
    ("c1000", "latency p99"): Target(4.0, 2.0),
    ("stream16", "cpu"): Target(1.6, 1.2),
    ("stream64", "cpu"): Target(2.5, 1.3),
    ("body87k", "cpu"): Target(3.0, 2.0),
    ("c1", "added p50"): Target(1.5, 1.15),
    ("users64", "added p99"): Target(None, 1.5),
    # To our own pass-through: nginx does not translate.
    **{(f"stream64_{name}", "cpu"): Target(3.0, 2.0) for name in TRANSLATED},
    **{(f"c64_{name}", "cpu"): Target(3.0, 2.0) for name in TRANSLATED},
}
COLD_START_MS: Final = Target(1000, 400)
IDLE_MB: Final = Target(60, 45)
STREAM_KIB: Final = Target(24, 16)
