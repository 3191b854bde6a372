"""L6: the first choice goes dark at 200 requests a second and comes back. No storm of tries, then or after."""

import asyncio
import time
from typing import Final, NamedTuple

import uvloop

from loadtests.reliability.bed import MODEL, Bed, bed
from loadtests.reliability.client import Client, Outcome, at_rate
from loadtests.reliability.figure import Line, Settings, at_least, at_most, exactly, told
from loadtests.reliability.judge import Kind, tally
from loadtests.reliability.script import Script

_RATE: Final = 200
_STEADY_S: Final = 5.0
_DARK_S: Final = 60.0
# An upstream rests for up to 60 s and a fifth, so its probe may come that late after the light.
_LONGEST_REST_S: Final = 75.0
# The ramp is the product's and does not scale.
_RAMP_S: Final = 30.0
_BEGIN_S: Final = 3.0
_BEGIN_SHARE: Final = 0.4
_RETRY_SHARE: Final = 0.2
_RETRIES_A_SECOND: Final = 10
_OVER: Final = 1.2
_ANSWER_S: Final = 0.1


class Seen(NamedTuple):
    """Monotonic times: of the requests that each provider got, of when the first went dark and was back."""

    outcomes: list[Outcome]
    first: list[float]
    second: list[float]
    dark: float
    light: float
    ends: float


def dark(settings: Settings) -> list[Line]:
    """L6: dark for 60 s at 200 requests a second, then back for as long as the rest and the ramp last."""
    dark_s = settings.time(_DARK_S, 3.0)
    rate = settings.count(_RATE, 40)
    with bed() as it:
        seen = uvloop.run(_outage(it, rate, dark_s, settings))
    found = tally(seen.outcomes)
    probes = [at for at in seen.first if at >= seen.light]
    lines = [
        exactly("answers that are right", found.total, found.kinds[Kind.RIGHT]),
        at_most("retries in the worst second", _RETRY_SHARE * rate + _RETRIES_A_SECOND, _worst_second(seen)),
        told("asked while dark", f"{_between(seen.first, seen.dark, seen.light)} times in {dark_s:.0f} s"),
    ]
    if not probes:
        return [*lines, Line("asked again after it is back", "soon", "never", False)]
    return [*lines, *_recovery(seen, probes, rate, full=settings.scale >= 1)]


def _recovery(seen: Seen, probes: list[float], rate: int, *, full: bool) -> list[Line]:
    back = probes[0] + _ANSWER_S  # its first good answer ends
    steady = _between(seen.first, seen.dark - 2, seen.dark) / 2
    begin = _between(seen.first, back, back + _BEGIN_S) / _BEGIN_S / rate
    after = max(_between(seen.first, at, at + 1) for at in probes)
    late = _between(seen.first, seen.ends - 2, seen.ends) / 2 / rate
    lines = [
        told("first asked after it is back", f"{probes[0] - seen.light:.1f} s"),
        at_most("asked before its first answer", 1, _between(seen.first, seen.light, back)),
        at_most(f"its share in the {_BEGIN_S:g} s after that", _BEGIN_SHARE, round(begin, 3)),
        at_most("its busiest second afterwards, of its steady share", _OVER, round(after / steady, 3)),
    ]
    return [*lines, at_least(f"its share after {_RAMP_S:g} s", 0.9, round(late, 3))] if full else lines


async def _outage(it: Bed, rate: int, dark_s: float, settings: Settings) -> Seen:
    client = Client(it.port, MODEL)
    new = lambda _: Script.new(stream=False, wait=_ANSWER_S)  # noqa: E731
    outcomes = await at_rate(client, rate, _STEADY_S if settings.scale >= 1 else 2.0, new)
    dark = time.monotonic()
    await asyncio.to_thread(it.upstream.control, "dark", "a")
    outcomes += await at_rate(client, rate, dark_s, new)
    light = time.monotonic()
    await asyncio.to_thread(it.upstream.control, "light", "a")
    longest_s = min(_LONGEST_REST_S, 1.3 * dark_s + 3)
    while time.monotonic() < light + longest_s:
        outcomes += await at_rate(client, rate, 1.0, new)
        if any(at > light for at in await asyncio.to_thread(it.upstream.control, "times", "a")):
            break
    outcomes += await at_rate(client, rate, _RAMP_S + 4 if settings.scale >= 1 else _BEGIN_S + 1, new)
    ends = time.monotonic() - _ANSWER_S
    first, second = [await asyncio.to_thread(it.upstream.control, "times", name) for name in ("a", "b")]
    client.close()
    return Seen(outcomes, first, second, dark, light, ends)


def _between(times: list[float], begin: float, end: float) -> int:
    return sum(begin <= at < end for at in times)


def _worst_second(seen: Seen) -> int:
    """Return the most upstream requests in a second beyond those that clients began in it."""
    asked, tried = [one.began for one in seen.outcomes], seen.first + seen.second
    begin = int(seen.dark)
    seconds = range(begin, int(seen.ends))
    return max(_between(tried, at, at + 1) - _between(asked, at, at + 1) for at in seconds)
