"""Walk a chain of upstreams until one answers. Nothing here knows HTTP's server side or a provider's name.

The commit rule: nothing goes to the client before the first event with content. Until then every fault of a kind that
the policy lists tries the next upstream; after it, none does: the stream ends with the error.
"""

import msgspec

from proxy import wire
from proxy.adapter import StreamParser
from proxy.attempt import Attempt, Timing, Tools
from proxy.errors import ProxyError, UnavailableError, UpstreamError, UpstreamTimeoutError
from proxy.log import short
from proxy.routes import Route
from proxy.transport import Received
from proxy.upstream import Upstream
from proxy.wire import ChatRequest


class Answer:
    """A complete answer: `body` is what the client gets."""

    def __init__(self, attempt: Attempt, body: bytes, finish: str | None) -> None:
        self.attempt = attempt
        self.body = body
        self.finish = finish


class StreamAnswer:
    """A stream that has begun to speak. `next` until it returns b"" or raises, then `close`, always."""

    def __init__(self, attempt: Attempt, received: Received, parser: StreamParser, timing: Timing) -> None:
        self.attempt = attempt
        self.first = b""
        self.fault: UpstreamError | None = None
        self._received = received
        self._parser = parser
        self._timing = timing
        self._ended = False
        self._error: BaseException | None = None

    @property
    def finish(self) -> str | None:
        """Return the finish reason, None until it is known."""
        return self._parser.finish

    async def begin(self) -> None:
        """Read up to the first content and hold it in `first`. Raises UpstreamError when there is none."""
        held = b""
        while not self._parser.started:
            try:
                held += await self._step(self._timing.first_by)
            except UpstreamTimeoutError:
                raise UpstreamTimeoutError("the upstream sent no content in time") from None
            except UpstreamError as error:
                if not self._parser.started:
                    raise
                # Content and fault came in one piece: the content counts, whatever the packets were.
                self.fault = error
                held += error.before
            if self._ended:
                break
        self.first = held
        self.attempt.speaks()

    async def next(self) -> bytes:
        """Return the client's next bytes, b"" after the end. Raises UpstreamError when the stream cannot go on."""
        if self.fault is not None:
            raise self._interrupted(self.fault)
        while not self._ended:
            try:
                if out := await self._step(self._timing.idle_by()):
                    return out
            except UpstreamError as error:
                if self._parser.finish is not None:
                    self._ended = True  # all was said; only the goodbye is missing
                    return error.before + self._parser.close()
                self.fault = error
                if error.before:
                    return error.before
                raise self._interrupted(error) from error
        return b""

    async def _step(self, by: float) -> bytes:
        data = await self._received.next(by)
        if data:
            out = self._parser.feed(data)
            if not self._parser.done:
                return out
            self._ended = True
            return out + self._parser.close()
        self._ended = True
        return self._parser.close()

    def _interrupted(self, error: UpstreamError) -> UpstreamError:
        """Return what the client is told in mid-stream."""
        if isinstance(error, UpstreamTimeoutError):
            error.code = "deadline_exceeded" if self._timing.spent() else "upstream_idle_timeout"
        elif error.code in ("upstream_truncated", "upstream_disconnected"):
            error.code = "upstream_interrupted"
        self._error = error
        return error

    def close(self) -> None:
        """End the attempt, however the stream ended: stats, metrics, the socket. Before its end: the client left."""
        error = self._error or (None if self._ended else ConnectionResetError("the client left"))
        self.attempt.usage = self._parser.usage
        self.attempt.close(error)
        if error is None:
            self._received.finish()
        else:
            self._received.abort()


class Walk:
    """One request's way along its chain; `failed` are the attempts that came to nothing."""

    def __init__(
        self, request: ChatRequest, route: Route, tools: Tools, request_id: str, client_s: float | None
    ) -> None:
        self.request = request
        self.route = route
        self.tools = tools
        self.request_id = request_id
        self.failed: list[tuple[Upstream, UpstreamError]] = []
        self.upstream_s = 0.0
        self._client_s = client_s
        self._timing = Timing(route.policy.timeouts, tools.clock, client_s, stream=request.stream)

    @property
    def attempts(self) -> int:
        """Return how many upstreams were asked and failed."""
        return sum(not error.unsent for _, error in self.failed)

    async def go(self, chain: list[Upstream], *, fall_back: bool) -> Answer | StreamAnswer:
        """Return the first answer along `chain`. Raises the last UpstreamError, with the attempts in its metadata."""
        policy = self.route.policy
        for place, upstream in enumerate(chain):
            try:
                return await self._attempt(upstream)
            except UpstreamError as error:
                self.failed.append((upstream, error))
                more = fall_back and self.attempts < policy.fallback.attempts and place + 1 < len(chain)
                more = more and (error.unsent or error.kind in self.route.on) and not self._timing.spent()
                self._note(upstream, error, chain[place + 1] if more else None)
                if not more:
                    raise self._last(error) from error
        raise AssertionError("an empty chain is refused before the walk")

    async def _attempt(self, upstream: Upstream) -> Answer | StreamAnswer:
        request, timing, provider = self.request, self._timing, upstream.provider
        rendered = provider.adapter.render(request, upstream.target)
        await provider.gate.enter(request.input_tokens)
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
        if request.stream and received.is_stream:
            stream = StreamAnswer(attempt, received, adapter.stream(request, upstream.target), timing)
            await stream.begin()
            return stream
        body = await received.read(timing.deadline)
        if request.stream and not body.lstrip().startswith(b"{"):
            # Events under another content type: some servers say application/json.
            parser = adapter.stream(request, upstream.target)
            body = parser.feed(body) + parser.close()
            attempt.usage, finish = parser.usage, parser.finish
        else:
            reply = adapter.parse(body, request, upstream.target)
            attempt.usage, finish, body = reply.usage, reply.finish, reply.body
            if request.stream:
                body = _reframed(body, include_usage=request.include_usage)
        attempt.close(None)
        return Answer(attempt, body, finish)

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
            code=error.code,
            status=error.status,
            message=error.message,
            next=short(following.name) if following is not None else None,
        )

    def _last(self, error: UpstreamError) -> ProxyError:
        """Return the error for the client: the last one, with what happened before it."""
        if len(self.failed) > 1:
            error.metadata = {
                "attempts": [
                    {"upstream": upstream.name, "kind": one.kind, "code": one.code, "message": one.message}
                    for upstream, one in self.failed
                ]
            }
        return error


def _reframed(body: bytes, *, include_usage: bool) -> bytes:
    try:
        return wire.as_stream(body, include_usage=include_usage)
    except msgspec.DecodeError:
        raise UnavailableError("the upstream's answer is no stream", code="upstream_invalid_response") from None
