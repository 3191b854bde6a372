"""What is told about one request: the headers of its answer, its log line, its counters. Never what was said in it."""

from typing import Final
from urllib.parse import quote

from proxy.attempt import Tools
from proxy.errors import ProxyError
from proxy.gateway import Plan
from proxy.log import short
from proxy.router import Answer, StreamAnswer, Walk
from proxy.wire import ChatRequest

# nginx's word for "the client left before its answer did".
CLIENT_LEFT: Final = 499
# A header names at most this many dropped parameters.
_LISTED: Final = 20


class Visit:
    """One request at the main door, from its plan to its end. `began` is monotonic seconds."""

    def __init__(self, request: ChatRequest, request_id: str, plan: Plan, walk: Walk, began: float) -> None:
        self.answer: Answer | StreamAnswer | None = None
        self.error: ProxyError | None = None
        self.status = CLIENT_LEFT
        self._request = request
        self._request_id = request_id
        self._plan = plan
        self._walk = walk
        self._began = began

    def headers(self) -> dict[str, str]:
        """Return the headers of the answer, whether it is one or an error."""
        walk, answer = self._walk, self.answer
        upstream_ms = walk.upstream_s * 1000
        proxy_ms = (walk.tools.clock() - self._began) * 1000 - upstream_ms
        headers = {
            "x-request-id": self._request_id,
            "x-sidecar-policy": _plain(self._plan.route.name),
            "x-sidecar-attempts": str(walk.attempts + (answer is not None)),
            "server-timing": f"proxy;dur={proxy_ms:.3f}, upstream;dur={upstream_ms:.3f}",
        }
        if answer is not None:
            headers["x-sidecar-upstream"] = _plain(answer.attempt.upstream.name)
            if dropped := answer.attempt.rendered.dropped:
                headers["x-sidecar-dropped"] = ", ".join(map(_plain, dropped[:_LISTED]))
        elif walk.failed:
            headers["x-sidecar-upstream"] = _plain(walk.failed[-1][0].name)
        if self._request.stream and answer is not None:
            headers["content-type"] = "text/event-stream; charset=utf-8"
            headers["cache-control"] = "no-cache"
        return headers

    def record(self, tools: Tools) -> None:
        """Count the request and write its log line."""
        request, plan, walk, answer = self._request, self._plan, self._walk, self.answer
        seconds = tools.clock() - self._began
        tools.metrics.requests.add((plan.route.name, request.mode.value, str(self.status)))
        tools.metrics.duration.add(seconds)
        if not isinstance(answer, StreamAnswer):
            tools.metrics.overhead.add(max(0.0, seconds - walk.upstream_s))
        attempt = answer.attempt if answer is not None else None
        usage = attempt.usage if attempt is not None else None
        tools.log(
            "request",
            tools.wall(),
            request_id=self._request_id,
            policy=plan.route.name,
            model=short(request.model),
            upstream=short(attempt.upstream.name) if attempt is not None else None,
            mode=request.mode.value,
            status=self.status,
            attempts=walk.attempts + (attempt is not None),
            ms=round(seconds * 1000, 3),
            upstream_ms=round(walk.upstream_s * 1000, 3),
            first_token_ms=round(attempt.first_s * 1000, 3) if attempt is not None and attempt.first_s else None,
            finish=answer.finish if answer is not None else None,
            input_tokens=usage.input if usage is not None else None,
            output_tokens=usage.output if usage is not None else None,
            usd=attempt.usd if attempt is not None else None,
            error=(self.error.code or self.error.type) if self.error is not None else None,
        )


def _plain(name: str) -> str:
    """Return a client's `name` fit for a header: it may hold anything, and any amount of it."""
    name = short(name)
    return name if name.isascii() and name.isprintable() else quote(name, safe="/:@.-_ ")
