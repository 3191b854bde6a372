"""Play a trace through one choice. What happens next is a heap of moments; time moves only here.

Every attempt is a `proxy.attempt.Attempt` and every fallback a step of a `proxy.router.Walk`, so that breakers, rests,
limits, budgets and live numbers are the live ones; only the bytes are missing.
"""

import asyncio
import gc
from array import array
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Final, NamedTuple

import msgspec

from proxy import adapter
from proxy.adapter import Rendered
from proxy.ask import MAX_BLOCKS, Ask
from proxy.attempt import Attempt, Timing, Tools
from proxy.config import Config
from proxy.errors import RateLimitError, UpstreamError, UpstreamTimeoutError
from proxy.keys import Access
from proxy.log import Log
from proxy.metrics import Metrics
from proxy.registry import build
from proxy.router import Walk
from proxy.routes import Route
from proxy.simulation.choice import Choice, Chooser
from proxy.simulation.trace import Floats, Ints, Trace
from proxy.simulation.world import Assumed, Behaviour, Fit, Luck
from proxy.transport import Transport
from proxy.upstream import Upstream
from proxy.wire import Usage, decode_chat

# What can happen to a request, in this order when at once.
_SPEAKS: Final = 0
_ENDS: Final = 1
_ASKS: Final = 2
_RENDERED: Final = Rendered("", b"", {})
_BODY: Final = b'{"model":"m","messages":[{"role":"user","content":""}],"stream":%b}'
_NO_NEEDS: Final[frozenset[str]] = frozenset()
_UNKNOWN: Final = float("nan")
NOBODY: Final = "no_provider_available"
# A progress is told so many times.
_STEPS: Final = 200
_GARBAGE: Final = 100_000

Progress = Callable[[int], object]


class _Plan(NamedTuple):
    """What was decided when a request came."""

    ask: Ask
    route: Route
    chain: list[Upstream]


# When, which request, what happens; the attempt, None before it begins; when it speaks, None if never; what ends it.
_Event = tuple[float, int, int, _Plan, Upstream, Attempt | None, float | None, UpstreamError | None]


class Run(msgspec.Struct, frozen=True):
    """What became of each request, a column each: `by` is the place in `upstreams` of who answered, -1 for nobody;
    `usd` not a number when nobody did or its price is unknown; `ms` and `first_ms` until the whole answer or the
    error, and until its first content; `attempts` upstreams that were asked; `cached` tokens.

    `lost` counts the requests without an answer by the kind of their last fault; `metrics` are the sidecar's own.
    """

    choice: Choice
    upstreams: list[str]
    by: Ints
    usd: Floats
    ms: Floats
    first_ms: Floats
    attempts: Ints
    input: Ints
    cached: Ints
    lost: Counter[str]
    metrics: Metrics


class Clock:
    """Seconds since the first request."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return them."""
        return self.now


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that lives in the replay's time: there the limits look for it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._replayed = clock

    def time(self) -> float:
        return self._replayed.now


class World(msgspec.Struct, frozen=True):
    """What all choices are played in: the same traffic, catalog, luck and assumptions."""

    trace: Trace
    config: Config
    assumed: Assumed
    fits: dict[str, Fit]
    luck: Luck
    seed: int


def replay(world: World, choice: Choice, progress: Progress = lambda done: None) -> Run:
    """Return what `choice` would have come to. `progress` is told how many requests have come. Raises PolicyError."""
    clock = Clock()
    loop = _Loop(clock)
    # Next to nothing here lies in a circle: to look for those once in a while instead of all the time saves a tenth.
    often = gc.get_threshold()
    gc.set_threshold(_GARBAGE)
    try:
        return loop.run_until_complete(_play(world, choice, clock, progress))
    finally:
        gc.set_threshold(*often)
        loop.close()


async def _play(world: World, choice: Choice, clock: Clock, progress: Progress) -> Run:
    transport = Transport()  # attempts want one; nothing is ever sent
    try:
        chance = Random(world.seed)  # noqa: S311  # nosec B311  # jitter, and it must be the same again
        tools = Tools(transport, Metrics(), Log(lambda line: None), clock, clock, chance)
        stage = _Stage(world, choice, tools, clock)
        stage.run(progress)
        return stage.result
    finally:
        await transport.close()


def _empty(choice: Choice, upstreams: list[str], size: int, metrics: Metrics) -> Run:
    usd, ms, first_ms = (array("d", [_UNKNOWN]) * size for _ in range(3))
    input, cached = (array("q", [0]) * size for _ in range(2))
    attempts = array("B", [0]) * size
    return Run(
        choice, upstreams, array("h", [-1]) * size, usd, ms, first_ms, attempts, input, cached, Counter(), metrics
    )


class _Stage:
    """One replay under way."""

    def __init__(self, world: World, choice: Choice, tools: Tools, clock: Clock) -> None:
        trace, size = world.trace, len(world.trace)
        registry = build(world.config, adapter.load, lambda row: Access(row.base_url, (), "", None), None, tools.random)
        self._chooser = Chooser(choice, registry)
        self._trace = trace
        self._luck = world.luck
        self._tools = tools
        self._clock = clock
        self._heap: list[_Event] = []
        self._walks: dict[int, Walk] = {}  # of requests that have had a fault
        self._asked = [decode_chat(_BODY % word, 0) for word in (b"false", b"true")]
        timeouts = choice.policy.timeouts
        self._first_by_s = (timeouts.answer_s, timeouts.first_event_s)
        self._total_s = timeouts.total
        self._places = {one.name: place for place, one in enumerate(registry)}
        fits, others = world.fits, world.fits[""]
        self._behaviours = {one.name: Behaviour(one, fits.get(one.name, others), world.assumed) for one in registry}
        self.result = _empty(choice, list(self._places), size, tools.metrics)

    def run(self, progress: Progress) -> None:
        """Play all of it."""
        heap, at, clock = self._heap, self._trace.at, self._clock
        size = len(at)
        step = max(1, size // _STEPS)
        for begin in range(0, size, step):
            end = min(begin + step, size)
            for request in range(begin, end):
                now = at[request]
                while heap and heap[0][0] <= now:
                    self._happens(heappop(heap))
                clock.now = now
                self._comes(request, now)
            progress(end)
        while heap:
            self._happens(heappop(heap))

    def _comes(self, request: int, now: float) -> None:
        trace = self._trace
        stream = trace.stream is None or trace.stream[request]
        tokens = trace.input[request] if trace.estimate is None else trace.estimate[request]
        needs = _NO_NEEDS if trace.needs is None else trace.needs[request]
        most = 0 if trace.max_tokens is None else trace.max_tokens[request]
        route, task = self._chooser.narrowed(tokens, needs)
        # As `gateway.plan` asks: the prompt's beginning only where it matters.
        matters = trace.blocks is not None and tokens >= route.caches and self._chooser.priced
        prefix = trace.blocks[request][:MAX_BLOCKS] if matters and trace.blocks else ()
        ask = Ask(now, stream, tokens, needs, most, prefix, route.learned_as, task)
        chain = self._chooser.chain(route, ask)
        if chain:
            route.budget.requests += 1
            self._asks(request, _Plan(ask, route, chain), chain[0], 0)
        else:
            self._lost(request, 0, NOBODY)

    def _asks(self, request: int, plan: _Plan, upstream: Upstream, asked: int) -> None:
        """Begin an attempt, after `asked` others, and put its end into the heap."""
        now, ask, behaviour = self._clock.now, plan.ask, self._behaviours[upstream.name]
        try:
            upstream.provider.gate.enter(ask.tokens)
        except RateLimitError as full:
            self._fails(request, plan, upstream, full)
            return
        attempt = Attempt(upstream, _RENDERED, self._tools, ask)
        tokens = (round(self._trace.input[request] * behaviour.ratio), self._trace.output[request])
        first_s, whole_s, error = behaviour.answer(self._luck.of(request, asked), now, tokens, stream=ask.stream)
        most_s = self._trace.at[request] + self._total_s - now
        begins_by_s = min(self._first_by_s[ask.stream], most_s)
        if (first_s if ask.stream else whole_s) > begins_by_s:
            first_s = whole_s = begins_by_s
            error = UpstreamTimeoutError("a simulated answer came too late")
        elif whole_s > most_s:
            whole_s, error = most_s, UpstreamTimeoutError("a simulated answer took too long", code="deadline_exceeded")
        speaks_at = now + first_s if ask.stream and (error is None or first_s < whole_s) else None
        if speaks_at is not None or error is None:
            self._sends(request, behaviour, tokens[0], now)
        if speaks_at is not None and upstream.live.breaker.tripped:
            # A probe's first word ends an outage for all others. Any other's is only noted, which its end can do.
            heappush(self._heap, (speaks_at, request, _SPEAKS, plan, upstream, attempt, speaks_at, None))
        heappush(self._heap, (now + whole_s, request, _ENDS, plan, upstream, attempt, speaks_at, error))

    def _sends(self, request: int, behaviour: Behaviour, tokens: int, now: float) -> None:
        result, blocks = self.result, self._trace.blocks
        result.input[request] = tokens
        if blocks is not None:
            result.cached[request] = behaviour.cache.send(blocks[request], tokens, now)

    def _happens(self, event: _Event) -> None:
        now, request, what, plan, upstream, attempt, speaks_at, error = event
        if attempt is None:
            self._clock.now = now
            self._asks_again(request, plan, upstream)
            return
        if speaks_at is not None:
            self._clock.now = speaks_at
            attempt.speaks()
        self._clock.now = now
        if what == _SPEAKS:
            return
        if speaks_at is not None:
            self.result.first_ms[request] = (speaks_at - self._trace.at[request]) * 1000
        if error is None:
            self._answers(request, upstream, attempt)
            return
        attempt.close(error)
        # What ends an answer that has begun is the end of all time for it: nobody follows.
        self._fails(request, plan, upstream, error)

    def _answers(self, request: int, upstream: Upstream, attempt: Attempt) -> None:
        result = self.result
        input, output, cached = result.input[request], self._trace.output[request], result.cached[request]
        if self._trace.blocks is None:
            attempt.usage = Usage(input, output)
        else:
            attempt.usage = self._behaviours[upstream.name].bill(input, output, cached)
        attempt.close(None)
        self._over(request, 1 + self._failed(request))
        result.by[request] = self._places[upstream.name]
        if attempt.usd is not None:
            result.usd[request] = attempt.usd
        if attempt.first_s is None:
            result.first_ms[request] = result.ms[request]

    def _fails(self, request: int, plan: _Plan, upstream: Upstream, error: UpstreamError) -> None:
        walk = self._walks.get(request) or self._walk(request, plan)
        following = walk.after(upstream, error)
        if following is None:
            self._lost(request, self._failed(request), error.kind)
            return
        pause_s = walk.pause_s(following, error)
        if pause_s:
            again_at = self._clock.now + pause_s
            heappush(self._heap, (again_at, request, _ASKS, plan, following, None, None, None))
        else:
            self._asks(request, plan, following, walk.attempts)

    def _asks_again(self, request: int, plan: _Plan, upstream: Upstream) -> None:
        """Ask an upstream that failed just now, unless it has begun to rest meanwhile."""
        walk = self._walks[request]
        if upstream.rest(self._clock.now) is None:
            self._asks(request, plan, upstream, walk.attempts)
        else:
            self._lost(request, self._failed(request), walk.failed[-1][1].kind)

    def _walk(self, request: int, plan: _Plan) -> Walk:
        """Return the walk of a request whose first attempt has failed. To begin one for all was a tenth of a replay."""
        now, self._clock.now = self._clock.now, self._trace.at[request]  # its timers run since it came
        asked, route, tools = self._asked[plan.ask.stream], plan.route, self._tools
        timing = Timing(route.policy.timeouts, tools.clock, None, stream=asked.stream)
        walk = self._walks[request] = Walk(asked, plan.ask, route, tools, "", timing)
        walk.start(plan.chain[1:], fall_back=True)
        self._clock.now = now
        return walk

    def _failed(self, request: int) -> int:
        """Return how many upstreams were asked in vain for a request that is over."""
        walk = self._walks.pop(request, None)
        return 0 if walk is None else walk.attempts

    def _over(self, request: int, attempts: int) -> None:
        self.result.ms[request] = (self._clock.now - self._trace.at[request]) * 1000
        self.result.attempts[request] = attempts

    def _lost(self, request: int, attempts: int, kind: str) -> None:
        self._over(request, attempts)
        self.result.lost[kind] += 1
