"""When an upstream may be asked again: a breaker for its outages, rests for its keys. Time is an argument.

    standby      asked like any other
    tripped      five hard failures in a row, half of 20 and more, or one that says it is set up wrongly (no TLS
                 connection, a redirect): not asked for 1 s, doubling to 60 s
    recovering   then one request, the probe, is let in; it fails: tripped again; it answers: a first choice takes
                 a tenth of its requests, rising to all of them in 30 s

Only what an upstream does wrong counts: no answer in time, no connection, nonsense, a 5xx. A 429 is an order to wait,
not an outage, and concerns the key that was used; a client that leaves or sends nonsense says nothing about anybody.
"""

from random import Random
from typing import Final, Literal, NamedTuple

from proxy.errors import UpstreamError

# Five in a row, as Envoy's outlier detection has it; the rest doubles from 1 s to 60 s while its probes fail.
TRIP_AFTER: Final = 5
MAX_REST_S: Final = 60.0
# Or half of at least 20 attempts, over 30 s, or over the last hundred where those come sooner: what is half broken
# answers now and then, and would never fail five times in a row.
TRIP_SHARE: Final = 0.5
TRIP_LEAST: Final = 20
WINDOW_S: Final = 30.0
WINDOW_MOST: Final = 100
# Or at once: no chance makes a certificate wrong or an address move, and the next request would find the same.
TRIP_CODES: Final = frozenset({"upstream_tls_error", "upstream_redirect"})
# The share of its requests that an upstream takes as a first choice when its probe has answered, and how long it
# takes until that is all of them. What has just come up is easily brought down.
RAMP_FROM: Final = 0.1
RAMP_S: Final = 30.0
# Retry-After is believed between these; nobody can park an upstream for a day with one header.
MIN_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 300.0
# A 429 that says nothing rests its key for a moment; used-up credit does not come back that soon. A refused key may
# have been a provider's hiccup: it is tried again, but by one request in a while.
BARE_WAIT_S: Final = 2.0
QUOTA_WAIT_S: Final = 300.0
REFUSED_WAIT_S: Final = 60.0

State = Literal["standby", "tripped", "recovering"]


class Rest(NamedTuple):
    """Somebody is not asked before `until` (monotonic seconds), because of a failure of this kind."""

    until: float
    kind: str

    def reason(self, now: float) -> str:
        """Return it in words."""
        left_s = self.until - now
        if left_s <= 0:
            return f"recovering, one probe is under way after {self.kind}"
        if self.kind == "auth":
            return f"the provider refuses its key, which is tried again in {left_s:.1f} s"
        return f"resting {left_s:.1f} s more after {self.kind}"


class Breaker:
    """Takes one upstream out after too many failures, and lets it in again by a single probe.

    While nothing is wrong `rest` is None and `tripped` and `ramping` are False: that is all a request looks at.
    """

    __slots__ = (
        "_back_at",
        "_broken",
        "_probing",
        "_random",
        "_trips",
        "_window_at",
        "_window_from",
        "failures",
        "ramping",
        "rest",
        "tripped",
    )

    def __init__(self, random: Random) -> None:
        self.failures = 0  # in a row
        self.rest: Rest | None = None
        self.tripped = False
        self.ramping = False
        self._random = random
        self._probing = False
        self._trips = 0
        self._back_at = 0.0
        self._window_at = float("-inf")
        self._window_from = 0
        self._broken = 0

    def refuses(self, now: float) -> Rest | None:
        """Return what keeps the upstream from being asked at `now`; None when nothing does."""
        rest = self.rest
        if rest is None or now < rest.until:
            return rest
        if self.tripped:
            return rest if self._probing else None
        self.rest = None
        return None

    def state(self, now: float) -> State:
        """Return the state at `now`."""
        if self.tripped:
            return "tripped" if self.rest is not None and now < self.rest.until else "recovering"
        return "recovering" if self.ramps(now) else "standby"

    def begin(self) -> bool:
        """Note that an attempt starts. True for the one that probes a tripped upstream, which must come to an `end`."""
        if not self.tripped or self._probing:
            return False
        self._probing = True
        return True

    def end(self) -> None:
        """Note that the probe is over; with neither `recovered` nor `failed` behind it the next request is one."""
        self._probing = False

    def recovered(self, now: float) -> None:
        """Note that the probe answered."""
        self.tripped = self._probing = False
        self.rest = None
        self.ramping = True
        self._back_at = now

    def failed(self, error: UpstreamError, now: float, requests: int, *, probe: bool) -> None:
        """Count a hard failure. `requests` is how many attempts have ended so far, this one and good ones included."""
        if self.tripped:
            # All but the probe began before the trip: one outage, however many were under way, doubles nothing.
            if probe:
                self._trip(error, now)
            return
        self.failures += 1
        if self.failures >= TRIP_AFTER or error.code in TRIP_CODES or self._half_broken(now, requests):
            self._trip(error, now)
        elif error.retry_after_s is not None:
            self._take_out(error, now, wait_s(error))

    def ramps(self, now: float) -> bool:
        """Say whether the upstream has recovered so lately that it takes only a share of its requests."""
        if self.ramping and now - self._back_at >= RAMP_S:
            self.ramping = False
        return self.ramping

    def yields(self, now: float) -> bool:
        """Say whether a first choice that `ramps` leaves this request to the next one."""
        return self._random.random() >= RAMP_FROM + (1.0 - RAMP_FROM) * (now - self._back_at) / RAMP_S

    def _half_broken(self, now: float, requests: int) -> bool:
        # A window begins with a failure, so answers are counted without touching anything here.
        if now - self._window_at > WINDOW_S or requests - self._window_from > WINDOW_MOST:
            self._window_at, self._window_from, self._broken = now, requests - 1, 0
        self._broken += 1
        asked = requests - self._window_from
        return asked >= TRIP_LEAST and self._broken >= TRIP_SHARE * asked

    def _trip(self, error: UpstreamError, now: float) -> None:
        if not self.tripped and not self.ramps(now):
            self._trips = 0  # who falls again while it comes back goes on doubling
        self._trips += 1
        self.tripped = True
        self.ramping = False
        self.failures = 0
        self._window_at = float("-inf")
        asked_s = 0.0 if error.retry_after_s is None else wait_s(error)
        self._take_out(error, now, max(asked_s, min(MAX_REST_S, 2.0 ** (self._trips - 1))))

    def _take_out(self, error: UpstreamError, now: float, wait_s: float) -> None:
        until = now + jittered(wait_s, self._random)
        if self.rest is None or until > self.rest.until:
            self.rest = Rest(until, error.kind)


class Parking(dict[str, Rest]):
    """Keys that may not be used for now, each with its rest."""

    def park(self, key: str, error: UpstreamError, now: float, random: Random) -> None:
        """Park `key`. A shorter rest does not end a longer one."""
        until = now + jittered(wait_s(error), random)
        parked = self.get(key)
        if parked is None or until > parked.until:
            self[key] = Rest(until, error.kind)

    def rest(self, key: str, now: float) -> Rest | None:
        """Return the rest of `key` at `now`; None when it may be used."""
        found = self.get(key)
        if found is not None and now >= found.until:
            del self[key]
            return None
        return found


def wait_s(error: UpstreamError) -> float:
    """Return how long to rest after `error`: what the provider asks for, within bounds, or what its kind is worth."""
    if error.retry_after_s is not None:
        return min(max(error.retry_after_s, MIN_WAIT_S), MAX_WAIT_S)
    return {"quota": QUOTA_WAIT_S, "auth": REFUSED_WAIT_S}.get(error.kind, BARE_WAIT_S)


def jittered(seconds: float, chance: Random) -> float:
    """Return 0-20 % more, so that the replicas of an app do not come back all at once."""
    return seconds * (1.0 + 0.2 * chance.random())
