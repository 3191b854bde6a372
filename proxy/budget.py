"""How often the requests of one policy may be asked more than once. Time is an argument.

Retries multiply a provider's outage just when it can bear it least: with three attempts per request, three times the
load. So only a share of the requests has more than one: 20 % and ten a second by default, as in linkerd and Finagle.
"""

from math import exp
from typing import Final

# What was not used is forgotten in about this time: a quiet night does not pay for a storm in the morning.
WINDOW_S: Final = 10.0
# Where there is little traffic a share of it is nothing; so many retries a second are always allowed.
FLOOR_PER_S: Final = 10.0
# Hedges cost money when nothing is wrong: no floor, and no more of them saved up than this.
HEDGES_SAVED: Final = 10.0


class Budget:
    """One policy's; survives a reload. A request adds itself to `requests`, which is all it costs if it goes well."""

    __slots__ = ("_at", "_credit", "_explores", "_explores_seen", "_hedges", "_hedges_seen", "_seen", "requests")

    def __init__(self, now: float) -> None:
        """Start full, as after a quiet time."""
        self.requests = 0
        self._at = now
        self._seen = 0
        self._credit = WINDOW_S * FLOOR_PER_S
        self._hedges = 0.0
        self._hedges_seen = 0
        self._explores = 0.0
        self._explores_seen = 0

    def retry(self, share: float, now: float) -> bool:
        """Take one more attempt at `now` out of the budget. Returns False when it is spent."""
        elapsed_s, came = now - self._at, self.requests - self._seen
        # Credit comes in evenly since the last call and fades with time, old and new alike.
        left = exp(-elapsed_s / WINDOW_S)
        kept = WINDOW_S * (1.0 - left) / elapsed_s if elapsed_s > 0 else 1.0
        self._credit = self._credit * left + (FLOOR_PER_S * elapsed_s + share * came) * kept
        self._at, self._seen = now, self.requests
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    def came_again(self, share: float, now: float) -> None:
        """Note a request that its client has sent before. It earns nothing, and what it takes of the budget others
        lack; it is asked itself whatever is left, for it has waited as it was told.
        """
        self.retry(share, now)

    def explore(self, share: float) -> bool:
        """Say whether this request may look who else there is: `share` of them, evenly, none saved up."""
        self._explores = min(1.0, self._explores + share * (self.requests - self._explores_seen))
        self._explores_seen = self.requests
        if self._explores < 1.0:
            return False
        self._explores = 0.0
        return True

    def hedge(self, share: float) -> bool:
        """Take one second request beside a late one out of the budget: `share` of the requests, on average."""
        self._hedges = min(HEDGES_SAVED, self._hedges + share * (self.requests - self._hedges_seen))
        self._hedges_seen = self.requests
        if self._hedges < 1.0:
            return False
        self._hedges -= 1.0
        return True
