"""What a provider allows us, over all its models: requests and tokens a minute, and so many requests at once."""

from aiolimiter import AsyncLimiter

from proxy.board import SharedBucket
from proxy.errors import RateLimitError
from proxy.policy import Limits


class Bucket(AsyncLimiter):
    """aiolimiter's leaky bucket, for who will not wait."""

    def has_room(self, amount: float) -> bool:
        """Say what `has_capacity` says; without asking for the time when the answer is plain."""
        # The level was this or higher: a bucket only leaks while nobody takes.
        return self._level + amount <= self.max_rate or self.has_capacity(min(amount, self.max_rate))

    def take(self, amount: float) -> bool:
        """Take `amount` at once, or all there can be. Returns False, and takes nothing, when there is no room."""
        amount = min(amount, self.max_rate)
        if not self.has_capacity(amount):
            return False
        self._level += amount  # what `acquire` does next; awaiting it would leak the bucket once more (1.5 us)
        return True

    def give_back(self, amount: float) -> None:
        """Undo a `take` of just now."""
        self._level -= amount


class Gate:
    """The limits of one provider, over all its models."""

    __slots__ = ("_most", "_requests", "_tokens", "in_flight", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.in_flight = 0
        self._most = limits.concurrency or float("inf")
        self._requests: Bucket | SharedBucket | None = Bucket(limits.rpm, 60) if limits.rpm else None
        self._tokens: Bucket | SharedBucket | None = Bucket(limits.tpm, 60) if limits.tpm else None

    def total(self) -> int:
        """Return how many attempts are under way, in all processes that share these limits."""
        return self.in_flight

    def refuses(self, tokens: int) -> str | None:
        """Return which limit an attempt of `tokens` would break; None when there is room."""
        if self.in_flight >= self._most:
            return f"limit of {self.limits.concurrency} requests at once"
        if self._requests is not None and not self._requests.has_room(1):
            return f"limit of {self.limits.rpm} requests per minute"
        if self._tokens is not None and not self._tokens.has_room(tokens):
            return f"limit of {self.limits.tpm} tokens per minute"
        return None

    def enter(self, tokens: int) -> None:
        """Take a place, at once. Raises RateLimitError with `unsent` when there is none, be it since `refuses`."""
        requests = self._requests
        if self.in_flight >= self._most or (requests is not None and not requests.take(1)):
            raise self._full(tokens)
        if self._tokens is not None and not self._tokens.take(tokens):
            if requests is not None:
                requests.give_back(1)
            raise self._full(tokens)
        self.in_flight += 1

    def leave(self) -> None:
        """Give the place back. Called exactly once per `enter`."""
        self.in_flight -= 1

    def _full(self, tokens: int) -> RateLimitError:
        error = RateLimitError(f"the sidecar keeps to its own {self.refuses(tokens) or 'limits'}")
        error.unsent = True
        return error
