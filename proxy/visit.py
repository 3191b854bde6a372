"""What is told about one request: the headers of its answer, its log line, its counters. Never what was said in it."""

from typing import Final

import msgspec

from proxy.answers import Answer, StreamAnswer
from proxy.attempt import Tools
from proxy.errors import ProxyError
from proxy.gateway import Plan
from proxy.log import plain, short
from proxy.router import Walk

# nginx's word for "the client left before its answer did".
CLIENT_LEFT: Final = 499
# A header names at most this many dropped parameters.
_LISTED: Final = 20
_EVENTS: Final = "content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"


class Visit(msgspec.Struct, eq=False):
    """One request at the main door, from its plan to its end. `began` is monotonic seconds."""

    request_id: str
    model: str
    stream: bool
    plan: Plan
    walk: Walk
    began: float
    answer: Answer | StreamAnswer | None = None
    error: ProxyError | None = None
    status: int = CLIENT_LEFT

    def drains(self) -> bool:
        """Say whether the answer is read to its end even though the client has left, and note that it has."""
        self.walk.left = True
        return self.walk.asking is not None and self.walk.asking.provider.row.on_disconnect == "drain"

    @property
    def resumes(self) -> bool:
        """Say whether a stream that breaks off may go on elsewhere."""
        return self.plan.route.policy.fallback.resume

    def head(self) -> str:
        """Return the header lines of the answer, whether it is one or an error."""
        walk, answer = self.walk, self.answer
        upstream_ms = walk.upstream_s * 1000
        proxy_ms = (walk.tools.clock() - self.began) * 1000 - upstream_ms
        upstream = answer.attempt.upstream if answer is not None else walk.failed[-1][0] if walk.failed else None
        lines = (
            f"x-request-id: {self.request_id}\r\n"
            f"x-sidecar-policy: {plain(self.plan.route.name)}\r\n"
            f"x-sidecar-attempts: {walk.attempts + walk.speaking}\r\n"
            f"server-timing: proxy;dur={proxy_ms:.3f}, upstream;dur={upstream_ms:.3f}\r\n"
        )
        if upstream is not None:
            lines += f"x-sidecar-upstream: {upstream.plain_name}\r\n"
        if self.plan.expected is not None:
            lines += f"x-sidecar-decision: {self.plan.header(upstream, self.plan.expected)}\r\n"
        if answer is None:
            return lines
        if dropped := answer.attempt.dropped:
            lines += f"x-sidecar-dropped: {', '.join(map(plain, dropped[:_LISTED]))}\r\n"
        return lines + _EVENTS if self.stream else lines

    def close(self) -> None:
        """End the answer, if it is a stream, and the attempt behind it. Called before the client sees the end."""
        if isinstance(self.answer, StreamAnswer):
            self.answer.close()
        if self.walk.page is not None:
            self.walk.page.settle()

    def record(self, tools: Tools) -> None:
        """Count the request and write its log line."""
        walk, answer = self.walk, self.answer
        if walk.left:
            self.status, self.error = CLIENT_LEFT, None
        seconds, upstream_s = tools.clock() - self.began, walk.upstream_s
        mode, policy, status = "stream" if self.stream else "complete", self.plan.route.name, self.status
        metrics = tools.metrics
        metrics.requests.add((policy, mode, str(status)))
        metrics.duration.add(seconds)
        if not isinstance(answer, StreamAnswer):
            metrics.overhead.add(seconds - upstream_s if seconds > upstream_s else 0.0)
        line = RequestLine(
            ts=_millis(tools.wall()),
            request_id=self.request_id,
            policy=policy,
            model=short(self.model),
            mode=mode,
            status=status,
            attempts=walk.attempts + walk.speaking,
            ms=_millis(seconds * 1000),
            upstream_ms=_millis(upstream_s * 1000),
        )
        if answer is not None:
            attempt = answer.attempt
            line.upstream = attempt.upstream.short_name
            line.finish = answer.finish
            line.usd = attempt.usd
            if attempt.first_s:
                line.first_token_ms = _millis(attempt.first_s * 1000)
            if (usage := attempt.usage) is not None:
                line.input_tokens, line.output_tokens = usage.input, usage.output
        if status == CLIENT_LEFT:
            line.error = "client_cancelled"
        if self.error is not None:
            line.error = self.error.code or self.error.type
        tools.log.line(line)


def _millis(number: float) -> float:
    """Return `number` to three places: 0.2 us, where `round`, which goes by way of text, takes 0.5."""
    return int(number * 1000 + 0.5) / 1000


class RequestLine(msgspec.Struct, omit_defaults=True, tag_field="event", tag="request", kw_only=True):
    """A request's line in the log; what is None is left out."""

    ts: float
    request_id: str
    policy: str
    model: str
    upstream: str | None = None
    mode: str
    status: int
    attempts: int
    ms: float
    upstream_ms: float
    first_token_ms: float | None = None
    finish: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    usd: float | None = None
    error: str | None = None
