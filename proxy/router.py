"""Walk a chain of upstreams until one answers. Nothing here knows HTTP's server side or a provider's name.

The commit rule: nothing goes to the client before the first event with content. Until then every fault of a kind that
the policy lists tries the next upstream; after it, none does: the stream ends with the error.
"""

from typing import Protocol

import msgspec

from proxy import wire
from proxy.adapter import StreamParser
from proxy.attempt import Attempt, Timing, Tools
from proxy.errors import UnavailableError, UpstreamError, UpstreamTimeoutError
from proxy.log import short
from proxy.routes import Route
from proxy.transport import Received
from proxy.upstream import Upstream
from proxy.wire import ChatRequest


class Reader(Protocol):
    """Whoever asked for a stream."""

    def write(self, data: bytes, /) -> bool:
        """Take `data`. Returns False when that is enough for now. Must not raise."""
        ...

    async def drain(self) -> None:
        """Wait until more may come. Raises ConnectionResetError when the client has left, or does not read."""
        ...


class Answer:
    """A complete answer: `body` is what the client gets."""

    __slots__ = ("attempt", "body", "finish")

    def __init__(self, attempt: Attempt, body: bytes, finish: str | None) -> None:
        self.attempt = attempt
        self.body = body
        self.finish = finish


class StreamAnswer:
    """A stream that has begun to speak. `pour` what follows `first`, then `close`, always."""

    def __init__(self, attempt: Attempt, received: Received, parser: StreamParser, timing: Timing) -> None:
        self.attempt = attempt
        self.first = b""
        self._client: Reader
        self._fault: UpstreamError | None = None
        self._received = received
        self._parser = parser
        self._timing = timing
        self._ended = False

    @property
    def finish(self) -> str | None:
        """Return the finish reason, None until it is known."""
        return self._parser.finish

    async def begin(self, data: bytes) -> None:
        """Read on from `data` to the first content, and hold it in `first`. Raises UpstreamError when there is none."""
        while True:
            try:
                self.first += self._feed(data)
            except UpstreamError as error:
                if not self._parser.started:
                    raise
                # Content and fault came in one piece: the content counts, whatever the packets were.
                self.first += self._failed(error)
            if self._parser.started or self._ended:
                break
            data = await self._received.next(self._timing.first_by)
        self.attempt.speaks()
        self._timing.speaks()

    async def pour(self, client: Reader) -> None:
        """Hand the rest to `client` as it comes. Raises UpstreamError when the stream cannot go on."""
        self._client = client
        while not self._ended:
            if self._fault is not None:
                raise self._interrupted(self._fault)
            try:
                await self._received.pour(self._pass_on, self._timing.idle_s, self._timing.deadline)
            except UpstreamError as error:
                client.write(self._failed(error))
            await client.drain()

    def _pass_on(self, data: bytes) -> bool:
        """Give the client what `data` is for it. Returns False when that is enough for now."""
        try:
            out = self._feed(data)
        except UpstreamError as error:
            out = self._failed(error)
        return self._client.write(out) and not self._ended and self._fault is None

    def _feed(self, data: bytes) -> bytes:
        """Return the client's bytes for `data`; b"" is the end of the upstream's."""
        out = self._parser.feed(data) if data else b""
        if data and not self._parser.done:
            return out
        self._ended = True
        return out + self._parser.close()

    def _failed(self, error: UpstreamError) -> bytes:
        """Return what was whole before the fault. After the finish reason only the goodbye is missing: a clean end."""
        self._ended = self._parser.finish is not None
        if self._ended:
            return error.before + self._parser.close()
        self._fault = error
        return error.before

    def _interrupted(self, error: UpstreamError) -> UpstreamError:
        """Return what the client is told in mid-stream."""
        if isinstance(error, UpstreamTimeoutError):
            error.code = "deadline_exceeded" if self._timing.spent() else "upstream_idle_timeout"
        elif error.code in ("upstream_truncated", "upstream_disconnected"):
            error.code = "upstream_interrupted"
        return _keyless(error, self.attempt.upstream)

    def close(self) -> None:
        """End the attempt, however the stream ended: stats, metrics, the socket. Before its end: the client left."""
        error = self._fault or (None if self._ended else ConnectionResetError("the client left"))
        self.attempt.usage = self._parser.usage
        self.attempt.close(error)
        if error is None:
            self._received.finish()
        else:
            self._received.abort()


class Walk:
    """One request's way along its chain; `failed` are the attempts that came to nothing.

    `asking` is whom it has asked last. Once the client has `left` nobody else is asked.
    """

    __slots__ = (
        "_client_s", "_timing", "asking", "attempts", "failed", "left", "request", "request_id", "route", "tools",
        "upstream_s",
    )  # fmt: skip

    def __init__(
        self, request: ChatRequest, route: Route, tools: Tools, request_id: str, client_s: float | None
    ) -> None:
        self.request = request
        self.route = route
        self.tools = tools
        self.request_id = request_id
        self.failed: list[tuple[Upstream, UpstreamError]] = []
        self.attempts = 0  # upstreams that were asked and failed
        self.upstream_s = 0.0
        self.asking: Upstream | None = None
        self.left = False
        self._client_s = client_s
        self._timing = Timing(route.policy.timeouts, tools.clock, client_s, stream=request.stream)

    async def go(self, chain: list[Upstream], *, fall_back: bool) -> Answer | StreamAnswer:
        """Return the first answer along `chain`. Raises the last UpstreamError, with the attempts in its metadata."""
        waiting = iter(chain)
        upstream = next(waiting)
        while True:
            try:
                return await self._attempt(upstream)
            except UpstreamError as error:
                self.failed.append((upstream, error))
                self.attempts += not error.unsent
                # Whoever has begun to rest since the decision is passed over.
                able = (one for one in waiting if one.live.refuses(self.tools.clock()) is None)
                following = next(able, None) if fall_back and self._may_go_on(error) else None
                self._note(upstream, error, following)
                if following is None:
                    # An upstream that was never asked has not answered: the last one that was asked has.
                    told = next((one for _, one in reversed(self.failed) if not one.unsent), error)
                    told.metadata = self._history()
                    raise told from None
                upstream = following

    def _may_go_on(self, error: UpstreamError) -> bool:
        """Say whether the policy lets another upstream be asked after `error`."""
        more = self.attempts < self.route.policy.fallback.attempts and not self._timing.spent() and not self.left
        return more and (error.unsent or error.kind in self.route.on)

    async def _attempt(self, upstream: Upstream) -> Answer | StreamAnswer:
        request, timing, provider = self.request, self._timing, upstream.provider
        self.asking = upstream
        rendered = provider.adapter.render(request, upstream.target)
        provider.gate.enter(request.input_tokens)
        attempt = Attempt(upstream, rendered, self.tools)
        timing.start_attempt()
        received = None
        began = self.tools.clock()
        try:
            headers = provider.headers()
            received = await self.tools.transport.send(
                provider.access.base_url + rendered.path,
                {**headers, **rendered.headers} if rendered.headers else headers,
                rendered.body,
                connect_s=timing.connect_s,
                by=timing.first_by,
            )
            return await self._read(attempt, received)
        except BaseException as error:
            if isinstance(error, UpstreamError):
                _keyless(error, upstream)
            if isinstance(error, UpstreamTimeoutError) and timing.spent():
                error.code = "deadline_exceeded"
            attempt.close(error)
            if received is not None:
                received.abort()
            raise
        finally:
            self.upstream_s += self.tools.clock() - began

    async def _read(self, attempt: Attempt, received: Received) -> Answer | StreamAnswer:
        request, timing, upstream = self.request, self._timing, attempt.upstream
        adapter = upstream.provider.adapter
        if received.status != 200:
            raise adapter.parse_error(received.status, received.headers, await received.read(timing.first_by))
        if not request.stream:
            return self._whole(attempt, await received.read(timing.deadline))
        # What it is, its first byte says: servers send events as JSON and JSON as events.
        data = await received.next(timing.first_by)
        if data.lstrip()[:1] in (b"{", b"<"):
            return self._whole(attempt, data + await received.read(timing.deadline))
        stream = StreamAnswer(attempt, received, adapter.stream(request, upstream.target), timing)
        await stream.begin(data)
        return stream

    def _whole(self, attempt: Attempt, body: bytes) -> Answer:
        request, upstream = self.request, attempt.upstream
        reply = upstream.provider.adapter.parse(body, request, upstream.target)
        body = reply.body
        if request.stream:
            body = _reframed(body, include_usage=request.include_usage)
        attempt.usage = reply.usage
        attempt.close(None)
        return Answer(attempt, body, reply.finish)

    def _note(self, upstream: Upstream, error: UpstreamError, following: Upstream | None) -> None:
        if following is not None:
            self.tools.metrics.fallbacks.add((upstream.label, error.kind))
        self.tools.log(
            "attempt_failed",
            self.tools.wall(),
            request_id=self.request_id,
            policy=self.route.name,
            upstream=short(upstream.name),
            kind=error.kind,
            code=short(error.code or "") or None,
            status=error.status,
            next=short(following.name) if following is not None else None,
        )

    def _history(self) -> dict[str, object] | None:
        """Return what the client is told of the attempts; None when there was only the one."""
        if len(self.failed) < 2:
            return None
        return {
            "attempts": [
                {"upstream": short(upstream.name), "kind": error.kind, "code": error.code, "message": error.message}
                for upstream, error in self.failed
            ]
        }


def _keyless(error: UpstreamError, upstream: Upstream) -> UpstreamError:
    """Take the provider's own keys out of its words, whatever they look like."""
    for key in upstream.provider.access.keys:
        error.message = error.message.replace(key, "[redacted]")
    return error


def _reframed(body: bytes, *, include_usage: bool) -> bytes:
    try:
        return wire.as_stream(body, include_usage=include_usage)
    except msgspec.DecodeError:
        raise UnavailableError("the upstream's answer is no stream", code="upstream_invalid_response") from None
