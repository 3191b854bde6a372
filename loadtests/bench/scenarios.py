"""What is asked of a gateway: how many connections, how large, how fast the upstream is. One line each.

Connections ask again as soon as they have their answer. Streams have 64 events and [DONE], each its own write.
"""

from typing import Final, Literal, NamedTuple

EVENTS: Final = 64
TRANSLATED: Final = ("anthropic", "gemini", "bedrock", "cohere", "ollama", "responses")
Unit = Literal["request", "event"]
Timing = Literal["latency", "added", "ttft", "delay"]


class Scenario(NamedTuple):
    """`seconds` at scale 1; `timings` are those worth a row; `warm_conns` when not as many as `conns`."""

    what: str
    conns: int
    seconds: float
    lat_ms: float = 0.0
    gap_ms: float = 0.0
    size: int = 1_200
    stream: bool = False
    adapter: str = "openai"
    timings: tuple[Timing, ...] = ()
    warm_conns: int | None = None
    # Whether each connection is kept busy, so that its memory is worth a figure.
    memory: bool = False

    @property
    def translated(self) -> bool:
        """Return whether the upstream speaks another language than the client."""
        return self.adapter != "openai"

    @property
    def unit(self) -> Unit:
        """Return what its CPU is told per."""
        return "event" if self.stream else "request"


SCENARIOS: Final[dict[str, Scenario]] = {
    "start": Scenario("from its start to its first answer", 0, 0),
    "c1": Scenario("1 connection", 1, 3, timings=("added",)),
    "c64": Scenario("64 connections", 64, 4),
    "c1000": Scenario("1000 connections", 1000, 5, timings=("latency",)),
    "users64": Scenario("64 users, upstream takes 200 ms", 64, 5, lat_ms=200, timings=("added",)),
    "burst1000": Scenario("1000 at once, upstream takes 1 s", 1000, 4, lat_ms=1000, timings=("added",)),
    "body20k": Scenario("bodies of 20 KB, 16 connections", 16, 3, size=20_000),
    "body87k": Scenario("bodies of 87 KB, 16 connections", 16, 3, size=87_000),
    "body500k": Scenario("bodies of 500 KB, 16 connections", 16, 3, size=500_000),
    "body2m": Scenario("bodies of 2 MB, 16 connections", 16, 3, size=2_000_000),
    "stream16": Scenario("16 streams, an event every 10 ms", 16, 5, gap_ms=10, stream=True, timings=("ttft",)),
    "stream64": Scenario("64 streams, saturated", 64, 4, stream=True),
    "streams1000": Scenario(
        "1000 streams, an event every 100 ms",
        1000,
        8,
        lat_ms=100,
        gap_ms=100,
        stream=True,
        timings=("ttft", "delay"),
        warm_conns=16,
        memory=True,
    ),
    **{f"c64_{name}": Scenario(f"64 connections, {name}", 64, 3, adapter=name) for name in TRANSLATED},
    **{
        f"stream64_{name}": Scenario(f"64 streams, saturated, {name}", 64, 3, stream=True, adapter=name)
        for name in TRANSLATED
    },
}
