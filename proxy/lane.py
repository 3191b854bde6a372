"""The short lane: how a chat request with a known head gets from its connection to the chat door."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
from aiohttp import web

from proxy.client import Client, Going
from proxy.errors import ClientError, ProxyError
from proxy.heads import Heads, Key, Last
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
# Longer than the 60-75 s of usual load balancers and SDK pools, so that we are not the side that closes first.
KEEP_ALIVE_S: Final = 90.0
# What a client may send ahead of its answer before it is told to wait.
_AHEAD: Final = 1 << 16


class Rider(msgspec.Struct, eq=False):
    """A request that has no task, and may never need one. Its connection is the client's `wire`."""

    client: Client

    def going(self) -> Going:
        """Return what answers it in a task."""
        raise NotImplementedError

    def task(self) -> asyncio.Task[None]:
        """Let a task answer it, which begins in the next turn of the event loop."""
        return self.client.wire.switch(self.client, self.going())

    def cancel(self) -> None:
        """Break it off, in a task that has begun: it knows what there is to put away."""
        asyncio.get_running_loop().call_soon(self.task().cancel)


class Lane(Generic[T]):
    """The short way for chat requests whose heads are known: `answer` is called with what `heads` has for them, or
    `ride`, which may answer without a task.

    `max_body` in bytes; a whole body must be in within `body_s`. `room` is where those under way are counted.
    """

    __slots__ = ("answer", "body_s", "heads", "max_body", "ride", "room")

    def __init__(
        self,
        answer: Callable[[Client, T, bytes], Going],
        room: Room,
        max_body: int,
        body_s: float,
        ride: Callable[[Client, T, bytes], Going | Rider] | None = None,
    ) -> None:
        self.answer = answer
        self.ride = ride or answer
        self.heads = Heads[T]()
        self.room = room
        self.max_body = max_body
        self.body_s = body_s


class Arriving(Rider, eq=False):
    """A request whose body is not whole yet; `missing` in bytes, below 0 when more than the body has come."""

    lane: Lane[Any]
    judged: Any
    missing: int
    timer: asyncio.TimerHandle
    parts: list[bytes] = []
    whole: asyncio.Future[bytes] | None = None

    def take(self, data: bytes) -> bytes | None:
        """Take the next bytes. Returns the body once it is whole."""
        self.parts.append(data)
        self.missing -= len(data)
        if self.missing > 0:
            return None
        self.timer.cancel()
        if self.missing < 0:
            self.parts[-1] = data[: self.missing]
        body = b"".join(self.parts)
        if self.whole is not None and not self.whole.done():
            self.whole.set_result(body)
        return body

    async def going(self) -> None:
        """Wait for the body, and answer."""
        self.whole = asyncio.get_running_loop().create_future()
        try:
            body = await self.whole
        except asyncio.CancelledError:
            self.client.wire.refuse(shutting_down())  # unless it is the client who has left
            raise
        answering = self.lane.answer(self.client, self.judged, body)
        del body
        self.whole = None
        await answering


class OnLane(web.RequestHandler, ABC):
    """A connection's part of the lane. A body is collected, then answered, by a task or without one (`Rider`); what
    comes meanwhile waits.
    """

    __slots__ = ("_ahead", "_answering", "_arriving", "_lane", "_sent")

    def __init__(self, server: web.Server, lane: Lane[Any] | None, **options: Any) -> None:
        super().__init__(server, **options)
        self._lane: Lane[Any] = lane  # type: ignore[assignment]  # who is on it has come by it
        self._sent: Last[Any] | None = None  # the head that has come last
        self._arriving: Arriving | None = None
        self._answering: asyncio.Task[None] | Rider | None = None
        self._ahead = b""

    @property
    @abstractmethod
    def staying(self) -> bool:
        """False when answers are the last on their connections."""

    @property
    def full(self) -> bool:
        """True while the client takes less than is written."""
        return self._paused

    @abstractmethod
    def answered(self, *, last: bool) -> None:
        """Note that an answer that aiohttp waits for is out."""

    @abstractmethod
    def note(self, refusal: ProxyError) -> str:
        """Tell of `refusal`, and return the headers of its answer."""

    @abstractmethod
    async def drain(self) -> None:
        """Wait until the client has taken enough."""

    @abstractmethod
    def refuse(self, error: ProxyError) -> None:
        """Answer what nobody handles, and close."""

    @abstractmethod
    def _parse(self, data: bytes, key: Key | None) -> None: ...

    @abstractmethod
    def _stop_clock(self) -> None: ...

    def _judge(self, data: bytes) -> None:
        """Take the short lane with a known head."""
        sent, heads = self._sent, self._lane.heads
        key = sent.key(data) if sent is not None and sent.era == heads.era else None
        if sent is not None and key is not None:
            judged = sent.judged
        elif (key := heads.key(data)) is not None and (judged := heads.get(key)) is not None:
            self._sent = Last(key, data, judged, heads.era)
        else:
            self._parse(data, key)
            return
        if not self._enter(key, data, judged):
            self._parse(data, key)

    def _enter(self, key: Key, data: bytes, judged: Any) -> bool:
        """Take the request that begins `data`, whose head was `judged`. Returns False when its body is not usual."""
        lane = self._lane
        if not 0 < key.length <= lane.max_body:
            return False
        room = lane.room
        if len(room.inside) >= room.batch_most and room.full(batch=judged.batch):
            return self._turn_away(room, judged.batch, whole=len(data) == key.start + key.length)
        self._stop_clock()
        body = data[key.start :]
        client = Client(self, self.transport, keeps=True)
        if len(body) == key.length:
            self._begin(client, judged, body)
        else:
            timer = self._loop.call_later(lane.body_s, self.refuse, late_body(lane.body_s))
            self._arriving = arriving = Arriving(client, lane, judged, key.length, timer)
            self._wait_for(arriving)
            self._collect(arriving, body)
        return True

    def _turn_away(self, room: Room, batch: bool, *, whole: bool) -> bool:
        """Refuse a request that came `whole`. Returns False for any other: aiohttp's handler drops its rest as well."""
        if not whole or self._paused:
            return False
        self._stop_clock()
        client, refusal = Client(self, self.transport, keeps=True), room.refusal(batch=batch)
        client.fail(self.note(refusal), refusal)
        self._next_keepalive_close_time = self._loop.time() + KEEP_ALIVE_S
        if not client.keeps:
            self.force_close()
        return True

    def _begin(self, client: Client, judged: Any, body: bytes) -> None:
        """Answer a request that is all there."""
        answering = self._lane.ride(client, judged, body)
        if isinstance(answering, Rider):
            self._wait_for(answering)
        else:
            self._answer(client, answering)

    def _wait_for(self, rider: Rider) -> None:
        self._answering = rider
        self._lane.room.inside.add(rider)

    def _answer(self, client: Client, answering: Going) -> asyncio.Task[None]:
        self._answering = task = self._loop.create_task(self._carry(answering, client))
        self._lane.room.inside.add(task)
        return task

    def switch(self, client: Client, answering: Going) -> asyncio.Task[None]:
        """Let a task answer what came without."""
        self._lane.room.inside.discard(self._answering)
        return self._answer(client, answering)

    def arrive(self, client: Client) -> None:
        """Let the next request in, behind one that was answered without a task."""
        if self._paused:
            self.switch(client, nothing())
        else:
            self._next(keeps=client.keeps and self.staying)

    def _collect(self, arriving: Arriving, data: bytes) -> None:
        """Take the next bytes of a body. What comes behind its end is the next request's."""
        body = arriving.take(data)
        if body is None:
            return
        self._arriving = None
        if arriving.missing < 0:
            self._ahead = data[arriving.missing :]
        if self._answering is arriving:
            self._lane.room.inside.discard(arriving)
            self._begin(arriving.client, arriving.judged, body)

    async def _carry(self, answering: Going, client: Client) -> None:
        """Answer one request, then let the next one in."""
        keeps = False
        try:
            await answering
            if self._paused:
                await self.drain()
            keeps = client.keeps and self.staying
        except ConnectionError:
            pass  # the client left
        finally:
            self._next(keeps=keeps)

    def _next(self, *, keeps: bool) -> None:
        """Let the next request in, or close."""
        self._lane.room.inside.discard(self._answering)
        self._answering = None
        if not keeps:
            self.force_close()
        # What aiohttp does behind each of its answers.
        self._next_keepalive_close_time = self._loop.time() + KEEP_ALIVE_S
        if self._ahead and self.transport is not None:
            data, self._ahead = self._ahead, b""
            self.transport.resume_reading()
            self.data_received(data)

    def _take_more(self, data: bytes) -> None:
        """Take what comes before the answer is out: the rest of a body, or what waits for its turn."""
        if self._arriving is not None:
            self._collect(self._arriving, data)
            return
        self._ahead += data
        if len(self._ahead) > _AHEAD and self.transport is not None:
            self.transport.pause_reading()

    def _break_off(self) -> None:
        """The client has left."""
        if self._arriving is not None:
            self._arriving.timer.cancel()
            if self.transport is not None:  # else we have refused it
                self.note(client_left())
        if isinstance(self._answering, Rider):
            self._answering.cancel()
        elif self._answering is not None:
            # Not now: a task that has not begun would never close what was opened for it.
            self._loop.call_soon(self._answering.cancel)


def late_body(body_s: float) -> ClientError:
    """Return the refusal of a body that was not in within `body_s` seconds."""
    return ClientError(f"the body did not arrive within {body_s:g} s", status=408, code="request_timeout")


def client_left() -> ProxyError:
    """Return what the log says of a request whose client left in the middle of it. nginx's status for that."""
    return ClientError("the client left", status=499, code="client_cancelled")


async def nothing() -> None:
    """Answer what is answered already."""


def shutting_down() -> ProxyError:
    """Return what those are told that are still waiting when the sidecar stops."""
    return ProxyError("the sidecar is shutting down", status=503, code="shutting_down")
