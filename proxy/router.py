"""Walk a chain of upstreams until one answers. Nothing here knows HTTP's server side or a provider's name.

The commit rule: nothing goes to the client before the first event with content. Until then every fault of a kind that
the policy lists tries the next upstream; after it, none does: the stream ends with the error (unless the policy says
`continue`, see `resume`).

When nobody is left, the last one is asked once more if that can help: at once with another key, if it was the key that
was limited or refused; after a short pause if the provider itself answered 500. Silence and broken answers are not
tried again there: they may be on the bill.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from typing import Final

import msgspec

from proxy import parameters, restream, splice
from proxy.adapter import Rendered
from proxy.answers import Answer, StreamAnswer, keyless
from proxy.ask import Ask
from proxy.attempt import Attempt, Timing, Tools
from proxy.errors import UnavailableError, UpstreamError, UpstreamTimeoutError
from proxy.ledger import Page
from proxy.link import Link
from proxy.log import short
from proxy.routes import Route
from proxy.transport import Received
from proxy.upstream import Upstream
from proxy.wire import ChatRequest

# Before the same upstream is asked again: half to one and a half of this, by chance. Those who failed together must
# not come back together, and somebody waits.
PAUSE_S: Final = 0.2
# What is left of a body that is not held: one that says nothing, for whoever looks into it all the same.
_NO_BODY: Final = b'{"messages":[]}'
# Faults of an answer that began well: what it cost to make is due all the same.
_BROKEN: Final = frozenset(
    ("upstream_truncated", "upstream_invalid_response", "upstream_invalid_event", "response_too_large")
)


_NOBODY: Final[Iterator[Upstream]] = iter(())


class Asked(msgspec.Struct, eq=False):
    """An attempt that was opened at `began`; `link` is where its request went, None as long as it has not."""

    attempt: Attempt
    rendered: Rendered
    url: str
    headers: Mapping[str, str]
    began: float
    link: Link | None = None


class Walk(msgspec.Struct, eq=False):
    """One request's way along its chain; `failed` are the attempts that came to nothing.

    `asking` is whom it has asked last. Once the client has `left` nobody else is asked.
    """

    request: ChatRequest
    ask: Ask
    route: Route
    tools: Tools
    request_id: str
    _timing: Timing
    page: Page | None = None
    failed: list[tuple[Upstream, UpstreamError]] = []
    attempts: int = 0  # upstreams that were asked and failed
    speaking: bool = False  # another one was asked and has answered
    upstream_s: float = 0.0
    asking: Upstream | None = None
    left: bool = False
    started: bool = False
    resent: bool = False  # its client has sent it before
    _fall_back: bool = False
    _waiting: Iterator[Upstream] = _NOBODY
    _under_way: Asked | None = None

    def start(self, along: list[Upstream], *, fall_back: bool, again: bool = False) -> None:
        """Take the way `along` these upstreams; nobody is asked yet. `again`: its client has sent it before."""
        self.started = True
        self.resent = again
        self._waiting = iter(along)
        self._fall_back = fall_back

    def set_out(self) -> Asked:
        """Open the first attempt and, if a kept connection is free, send its request. A good answer that comes there at
        once and whole is for `arrived`, anything else for `go_on`. Raises UpstreamError when nobody could be asked.
        """
        self._under_way = asked = self._open(next(self._waiting))
        self._announce()
        if asked.attempt.upstream.provider.sign is None:
            body, by = asked.rendered.body, self._timing.first_by
            asked.link = self.tools.transport.begin(asked.url, asked.headers, body, by)
        return asked

    def arrived(self, asked: Asked, body: bytes) -> Answer:
        """Return the answer that `body` is. Raises UpstreamError, as `go_on` will, when it is none."""
        answer = self._whole(asked.attempt, body)
        self._under_way = None
        self.upstream_s = self.tools.clock() - asked.began
        self.speaking = True
        return answer

    def go_on(self) -> Awaitable[Answer | StreamAnswer]:
        """Return the first answer along the chain. Raises the last UpstreamError, with the attempts in its metadata."""
        asked = self._under_way
        if asked is not None:
            return self._ask(asked.attempt.upstream)
        return self._ask(self.first())

    def first(self) -> Upstream:
        """Return whom to ask first."""
        self._announce()
        return next(self._waiting)

    def _announce(self) -> None:
        """Tell the budget of this request: once, whoever asks first for it."""
        budget = self.route.budget
        if self.resent:
            budget.came_again(self.route.policy.fallback.budget, self.tools.clock())
        else:
            budget.requests += 1

    async def resume(self, request: ChatRequest, answer: StreamAnswer, error: UpstreamError) -> Answer | StreamAnswer:
        """Return what goes on with `request` after `error` broke `answer` off. Raises like `go_on`."""
        answer.close()
        self.speaking = False
        self.request = request
        # What half a request is answered with teaches nothing.
        self.ask = msgspec.structs.replace(self.ask, tokens=0, prefix=())
        return await self._ask(await self._next(answer.attempt.upstream, error, broke_off=True))

    async def _ask(self, upstream: Upstream) -> Answer | StreamAnswer:
        while True:
            try:
                answer = await self._attempt(upstream)
            except UpstreamError as error:
                upstream = await self._next(upstream, error)
            else:
                self.speaking = True
                return answer

    async def _next(self, upstream: Upstream, error: UpstreamError, *, broke_off: bool = False) -> Upstream:
        """Return who is asked after `upstream` failed, when it is time to. Raises what the client is told if nobody."""
        following = self.after(upstream, error, broke_off=broke_off)
        if following is None or not await self._ready(following, error):
            raise self._told(error) from None
        return following

    def after(self, upstream: Upstream, error: UpstreamError, *, broke_off: bool = False) -> Upstream | None:
        """Note that `upstream` failed. Returns who is asked next, None for nobody."""
        self.failed.append((upstream, error))
        self.attempts += not error.unsent
        # What broke off is not in doubt, it is on the bill; `continue` is the switch for that.
        final = error.possibly_billed and not (broke_off or self.route.policy.fallback.retry_ambiguous)
        following = self._following(upstream, error) if self._fall_back and not final else None
        held = following is not None and not self._affords()
        self._note(upstream, error, following, held=held)
        return None if held else following

    def pause_s(self, following: Upstream, error: UpstreamError) -> float:
        """Return how long to wait before `following` is asked after `error`: 0 unless it failed itself just now."""
        if following is not self.failed[-1][0] or error.kind != "unavailable":
            return 0.0
        return PAUSE_S * (0.5 + self.tools.random.random())

    def _following(self, upstream: Upstream, error: UpstreamError) -> Upstream | None:
        """Return who is to be asked after `error`: the next that may be, or else `upstream` again; None for nobody."""
        if self.left or self.attempts >= self.route.policy.fallback.attempts or self._timing.spent():
            return None
        now, following = self.tools.clock(), None
        if error.unsent or error.kind in self.route.on:
            # Whoever has begun to rest since the decision is passed over, and after a prompt that was too long whoever
            # surely takes no more than the one it was too long for.
            longer = error.kind != "context_length"
            following = next(
                (one for one in self._waiting if one.rest(now) is None and (longer or one.outgrows(upstream))), None
            )
        return following or (upstream if self._again(upstream, error, now) else None)

    def _again(self, upstream: Upstream, error: UpstreamError, now: float) -> bool:
        """Say whether `upstream` itself is worth asking once more."""
        if error.unsent or upstream.rest(now) is not None:
            return False
        if error.kind in ("rate_limit", "quota", "auth"):
            return True  # as it does not rest, another of its keys is free
        first = sum(one is upstream for one, _ in self.failed) == 1
        momentary = error.code == "server_error" and error.kind in self.route.on
        return first and momentary and now + 1.5 * PAUSE_S < self._timing.deadline

    def _affords(self) -> bool:
        """Take one more attempt out of the policy's budget. The first one, whoever is asked for it, is free."""
        route = self.route
        if not self.attempts or route.budget.retry(route.policy.fallback.budget, self.tools.clock()):
            return True
        self.tools.metrics.held.add((route.name,))
        return False

    async def _ready(self, following: Upstream, error: UpstreamError) -> bool:
        """Pause before an upstream that failed is asked again. Returns False when it has begun to rest meanwhile."""
        pause_s = self.pause_s(following, error)
        if not pause_s:
            return True
        await asyncio.sleep(pause_s)
        self.upstream_s += pause_s
        return following.rest(self.tools.clock()) is None

    def _told(self, error: UpstreamError) -> UpstreamError:
        """Return what the client is told when `error` was the last."""
        if self.page is not None:
            self.page.settle()
        # An upstream that was never asked has not answered: the last one that was asked has.
        told = next((one for _, one in reversed(self.failed) if not one.unsent), error)
        told.metadata = self._history()
        return told

    def _open(self, upstream: Upstream) -> Asked:
        """Open an attempt. Raises UpstreamError when its request cannot be made, or may not be."""
        request, provider = self.request, upstream.provider
        self.asking = upstream
        mode = self.route.policy.unsupported_parameters
        if mode == "drop" and not upstream.row.unsupported:
            rendered = provider.adapter.render(request, upstream.target)  # what `parameters` would do
        else:
            rendered = parameters.render(request, upstream, mode)
        provider.gate.enter(request.input_tokens)
        attempt = Attempt(upstream, rendered, self.tools, self.ask, self.page)
        began = self.tools.clock()
        self._timing.start_attempt(began)
        headers = attempt.credential.headers
        if rendered.headers:
            headers = {**headers, **rendered.headers}
        return Asked(attempt, rendered, provider.access.base_url + rendered.path, headers, began)

    async def _attempt(self, upstream: Upstream) -> Answer | StreamAnswer:
        timing, received = self._timing, None
        asked, self._under_way = self._under_way or self._open(upstream), None
        attempt, rendered, headers = asked.attempt, asked.rendered, asked.headers
        try:
            if (sign := upstream.provider.sign) is not None:
                proof = sign(asked.url, rendered.body, attempt.credential.key, self.tools.wall())
                headers = {**headers, **proof} if proof else headers
            received = await self.tools.transport.send(
                asked.url,
                headers,
                rendered.body,
                connect_s=timing.connect_s,
                by=timing.first_by,
                begun=asked.link,
            )
            return await self._read(attempt, received, json_lines=rendered.json_lines)
        except BaseException as error:
            if isinstance(error, UpstreamError):
                keyless(error, upstream)
                if received is not None and received.status == 200 and error.code in _BROKEN:
                    error.possibly_billed = True
            if isinstance(error, UpstreamTimeoutError) and timing.spent():
                error.code = "deadline_exceeded"
            attempt.close(error)
            if received is not None:
                received.abort()
            raise
        finally:
            self.upstream_s += self.tools.clock() - asked.began

    async def _read(self, attempt: Attempt, received: Received, *, json_lines: bool) -> Answer | StreamAnswer:
        request, timing, upstream = self.request, self._timing, attempt.upstream
        adapter = upstream.provider.adapter
        if received.status != 200:
            raise adapter.parse_error(received.status, received.headers, await received.read_error(timing.first_by))
        if not request.stream:
            return self._whole(attempt, await received.read(timing.deadline))
        # What it is, its first byte says: servers send events as JSON and JSON as events.
        data = await received.next(timing.first_by)
        if data.lstrip()[:1] in ((b"<",) if json_lines else (b"{", b"<")):
            return self._whole(attempt, data + await received.read(timing.deadline))
        # A stream may last for minutes, and a body be megabytes: it is held only while it may have to be sent again, or
        # a call be told by the name that the client gave its tool.
        named = "tools" in request.needs or splice.seek(request.raw, b'"functions"') >= 0
        kept = request if named else msgspec.structs.replace(request, raw=_NO_BODY)
        stream = StreamAnswer(attempt, received, adapter.stream(kept, upstream.target), timing)
        await stream.begin(data)
        if not self.route.policy.fallback.resume:
            self.request = kept
        return stream

    def _whole(self, attempt: Attempt, body: bytes) -> Answer:
        request, upstream = self.request, attempt.upstream
        reply = upstream.provider.adapter.parse(body, request, upstream.target)
        body = reply.body
        if request.stream:
            body = _reframed(body, include_usage=request.include_usage)
        attempt.usage, attempt.answered = reply.usage, reply.model
        attempt.close(None)
        return Answer(attempt, body, reply.finish)

    def _note(self, upstream: Upstream, error: UpstreamError, following: Upstream | None, *, held: bool) -> None:
        if following is not None and following is not upstream and not held:
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
            possibly_billed=error.possibly_billed or None,
            next=short(following.name) if following is not None and not held else None,
            held="budget" if held else None,
        )

    def _history(self) -> dict[str, object] | None:
        """Return what the client is told of the attempts; None when there was only the one, and nothing to pay."""
        if len(self.failed) < 2 and not any(error.possibly_billed for _, error in self.failed):
            return None
        return {"attempts": [_told_of(upstream, error) for upstream, error in self.failed]}


def _told_of(upstream: Upstream, error: UpstreamError) -> dict[str, object]:
    kind, code = error.kind, error.code
    told: dict[str, object] = {"upstream": short(upstream.name), "kind": kind, "code": code, "message": error.message}
    return {**told, "possibly_billed": True} if error.possibly_billed else told


def _reframed(body: bytes, *, include_usage: bool) -> bytes:
    try:
        return restream.as_stream(body, include_usage=include_usage)
    except msgspec.DecodeError:
        raise UnavailableError("the upstream's answer is no stream", code="upstream_invalid_response") from None
