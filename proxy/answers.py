"""What an upstream's answer becomes for a client: whole, or a stream that has begun to speak.

A stream is held back until its first event with content, so that whatever fails before can be tried elsewhere. From
then on its pieces go to the client as they come, and a fault is told in it; it never just ends.
"""

from typing import Protocol

from proxy.adapter import StreamParser
from proxy.attempt import Attempt, Timing
from proxy.errors import UpstreamError, UpstreamTimeoutError
from proxy.transport import Received
from proxy.upstream import Upstream


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
        if self.attempt.first_s is None:
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
        return out + self._goodbye()

    def _failed(self, error: UpstreamError) -> bytes:
        """Return what was whole before the fault. After the finish reason only the goodbye is missing: a clean end."""
        self._ended = self._parser.finish is not None
        if self._ended:
            return error.before + self._goodbye()
        self._fault = error
        return error.before

    def _goodbye(self) -> bytes:
        """Return the last bytes of a stream that ends well. The books are closed first: who has seen the end of an
        answer will find it there.
        """
        last = self._parser.close()
        if self.attempt.first_s is None:
            self.attempt.speaks()
        self._book(None)
        return last

    def _book(self, error: BaseException | None) -> None:
        self.attempt.usage, self.attempt.answered = self._parser.usage, self._parser.model
        self.attempt.close(error)

    def _interrupted(self, error: UpstreamError) -> UpstreamError:
        """Return what the client is told in mid-stream."""
        if isinstance(error, UpstreamTimeoutError):
            error.code = "deadline_exceeded" if self._timing.spent() else "upstream_idle_timeout"
        elif error.code in ("upstream_truncated", "upstream_disconnected"):
            error.code = "upstream_interrupted"
        return keyless(error, self.attempt.upstream)

    def close(self) -> None:
        """End the attempt, however the stream ended: stats, metrics, the socket. Before its end: the client left."""
        error = self._fault or (None if self._ended else ConnectionResetError("the client left"))
        self._book(error)
        if error is None:
            self._received.finish()
        else:
            self._received.abort()


def keyless(error: UpstreamError, upstream: Upstream) -> UpstreamError:
    """Take the provider's own keys out of its words, whatever they look like."""
    for key in upstream.provider.access.keys:
        error.message = error.message.replace(key, "[redacted]")
        error.type = error.type.replace(key, "[redacted]")
        error.code = error.code and error.code.replace(key, "[redacted]")
        error.param = error.param and error.param.replace(key, "[redacted]")
    return error
