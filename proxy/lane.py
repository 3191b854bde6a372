"""The short lane: how a chat request with a known head gets from its connection to the chat door."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, Protocol, TypeVar

from proxy.client import Client
from proxy.errors import ClientError, ProxyError
from proxy.heads import Heads
from proxy.room import Room


class Judged(Protocol):
    """What a head asks for, as far as the lane needs to know."""

    @property
    def batch(self) -> bool:
        """True when the request can wait."""
        ...


T = TypeVar("T", bound=Judged)

# A whole body must be in within this: absolute, so that a byte now and then does not help.
BODY_S: Final = 30.0


class Lane(Generic[T]):
    """The short way for chat requests whose heads are known: `answer` is called with what `heads` has for them.

    `max_body` in bytes; a whole body must be in within `body_s`. `room` is where the tasks that answer are counted.
    """

    __slots__ = ("answer", "body_s", "heads", "max_body", "room")

    def __init__(
        self,
        answer: Callable[[Client, T, bytes], Coroutine[Any, Any, None]],
        room: Room,
        max_body: int,
        body_s: float,
    ) -> None:
        self.answer = answer
        self.heads = Heads[T]()
        self.room = room
        self.max_body = max_body
        self.body_s = body_s


class Arriving:
    """A body that is not `whole` yet; `missing` in bytes."""

    __slots__ = ("missing", "parts", "timer", "whole")

    def __init__(self, missing: int, timer: asyncio.TimerHandle, whole: asyncio.Future[bytes]) -> None:
        self.missing = missing
        self.parts: list[bytes] = []
        self.timer = timer
        self.whole = whole


def late_body(body_s: float) -> ClientError:
    """Return the refusal of a body that was not in within `body_s` seconds."""
    return ClientError(f"the body did not arrive within {body_s:g} s", status=408, code="request_timeout")


def client_left() -> ProxyError:
    """Return what the log says of a request whose client left in the middle of it. nginx's status for that."""
    return ClientError("the client left", status=499, code="client_cancelled")


def shutting_down() -> ProxyError:
    """Return what those are told that are still waiting when the sidecar stops."""
    return ProxyError("the sidecar is shutting down", status=503, code="shutting_down")
