"""What keeping conversations where their prompts are cached is worth, on a published trace. No network, no clock.

    python -m loadtests.affinity TRACE                        Mooncake's conversation trace (JSON lines)
    python -m loadtests.affinity TRACE --requests 2000        a quick look

The decisions are the live code's, with the trace's time. Each provider keeps a prompt's blocks of 512 tokens for five
minutes after they were last used, and takes PLACES requests at once; answers take a second and 25 ms a token, times a
log-normal chance, drawn anew for all of a provider every half minute. One seed, one result. A row is one way to choose:

    in turn         round robin
    all at one      whoever is first, for all: the most that a cache can hold, if one provider could take it all
    without, with   a policy over the three, without and with what is known of their caches
"""

import argparse
import heapq
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import msgspec

from loadtests.report import table
from proxy import adapter
from proxy.ask import BLOCK_TOKENS, Ask
from proxy.config import load
from proxy.keys import Access
from proxy.optimizer import decide_again
from proxy.policy import Policy
from proxy.registry import Registry, build
from proxy.routes import Route, bind
from proxy.upstream import Upstream
from proxy.wire import Usage

TTL_S: Final = 300.0
LEAST_TOKENS: Final = 1024
PLACES: Final = 24
_MS_PER_TOKEN: Final = 25.0
_WEATHER_S: Final = 30.0
# Three that cost the same but for their caches, and one model at three prices: what a router would be choosing among.
SETS: Final = {
    "one model, one price": [(2.5, 1.25, 10.0)] * 3,
    "one model, prices 4 % apart": [(2.4, 1.2, 9.6), (2.5, 1.25, 10.0), (2.6, 1.3, 10.4)],
    "three models": [(2.0, 0.5, 8.0), (2.0, 0.1, 10.0), (2.0, 0.2, 12.0)],
}


class Request(msgspec.Struct, frozen=True):
    """One line of the trace; `timestamp` in ms."""

    timestamp: int
    input_length: int
    output_length: int
    hash_ids: list[int]


class Result(NamedTuple):
    """What one way of choosing came to."""

    cached: float
    usd: float
    seconds: float
    switched: int
    full: int


Choose = Callable[[Ask], Upstream | None]


def read(path: Path, most: int) -> list[Request]:
    """Return the first requests of a trace."""
    decoder = msgspec.json.Decoder(Request)
    with path.open("rb") as lines:
        return [decoder.decode(line) for line, _ in zip(lines, range(most), strict=False)]


def upstreams(prices: Sequence[tuple[float, float, float]]) -> list[Upstream]:
    """Return one upstream per price (input, cached, output), each at a provider of its own."""
    rows = []
    for number, (reads, again, says) in enumerate(prices):
        rows.append(f'[[provider]]\nname = "p{number}"\nbase_url = "http://x"\nlimits = {{ concurrency = {PLACES} }}')
        price = f"price = {{ input = {reads}, cached_input = {again}, output = {says} }}"
        rows.append(f'[[model]]\nprovider = "p{number}"\nid = "m"\nquality = 8\n{price}')
    config = load({"catalog.toml": "\n".join(rows).encode()})
    return list(build(config, adapter.load, lambda row: Access(row.base_url, (), "", None), random=Random(7)))


class Provider:
    """One provider's cache and weather."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._seen: dict[int, float] = {}

    def cached(self, request: Request, now: float) -> int:
        """Return how many tokens of the prompt are read from the cache, and keep all of it."""
        blocks = 0
        for block in request.hash_ids:
            if now - self._seen.get(block, -TTL_S - 1) > TTL_S:
                break
            blocks += 1
        self._seen.update(dict.fromkeys(request.hash_ids, now))
        tokens = min(blocks * BLOCK_TOKENS, request.input_length)
        return tokens if tokens >= LEAST_TOKENS else 0

    def answers_in(self, request: Request, now: float) -> float:
        """Return how many seconds an answer takes that is asked for at `now`."""
        weather = Random(self._seed * 100_003 + int(now / _WEATHER_S)).lognormvariate(0.0, 0.4)
        return (1.0 + request.output_length * _MS_PER_TOKEN / 1000) * weather


def replay(trace: Sequence[Request], able: Sequence[Upstream], choose: Choose, *, cached: bool) -> Result:
    """Return what `choose` makes of `trace`. It is told of the prompts' blocks if `cached`."""
    providers = {one.name: Provider(number) for number, one in enumerate(able)}
    under_way: list[tuple[float, int, Upstream, Ask, Usage, float]] = []
    read_tokens = all_tokens = switched = full = 0
    usd = seconds = 0.0
    last: dict[int, Upstream] = {}
    for number, request in enumerate(trace):
        now = 1000.0 + request.timestamp / 1000
        while under_way and under_way[0][0] <= now:
            close(*heapq.heappop(under_way))
        blocks = tuple(request.hash_ids[: request.input_length // BLOCK_TOKENS])
        ask = Ask(now, False, request.input_length, prefix=blocks if cached else (), policy="p")
        chosen = choose(ask)
        if chosen is None:
            full += 1
            continue
        provider = providers[chosen.name]
        again, took = provider.cached(request, now), provider.answers_in(request, now)
        usage = Usage(request.input_length, request.output_length, again)
        chosen.provider.gate.enter(0)
        heapq.heappush(under_way, (now + took, number, chosen, ask, usage, took))
        talk = request.hash_ids[min(2, len(request.hash_ids) - 1)]
        switched += last.get(talk, chosen) is not chosen
        last[talk] = chosen
        read_tokens += again
        all_tokens += request.input_length
        usd += chosen.cost_usd(usage) or 0.0
        seconds += took
    return Result(read_tokens / all_tokens, usd, seconds / (len(trace) - full), switched, full)


def close(now: float, _: int, upstream: Upstream, ask: Ask, usage: Usage, took: float) -> None:
    """Close an attempt's books, as `proxy.attempt` does."""
    upstream.provider.gate.leave()
    upstream.live.answered(took * 1000, now)
    upstream.learn(ask, usage, upstream.cost_usd(usage), now)


def free(upstream: Upstream) -> bool:
    """Say whether an upstream has a place left."""
    return upstream.provider.gate.refuses(0) is None


def in_turn(able: Sequence[Upstream]) -> Choose:
    """Return round robin over those with a place."""
    turn = cycle(able)
    return lambda ask: next((one for one, _ in zip(turn, able, strict=False) if free(one)), None)


def by_policy(able: Sequence[Upstream], strategy: str) -> Choose:
    """Return the live decision of a policy."""
    route = _route(able, strategy)

    def choose(ask: Ask) -> Upstream | None:
        chain = decide_again(route, strategy, ask).chain
        if chain:
            route.budget.requests += 1
        return chain[0] if chain else None

    return choose


def _route(able: Sequence[Upstream], strategy: str) -> Route:
    registry = Registry()
    for one in able:
        registry.register(one)
    return bind("p", msgspec.convert({"strategy": strategy}, Policy), registry)


def ways(prices: Sequence[tuple[float, float, float]]) -> Iterator[tuple[str, list[Upstream], Choose, bool]]:
    """Return the rows of a table: what it is called, over whom, how, and whether it knows of caches."""
    able = upstreams(prices)
    yield "in turn", able, in_turn(able), False
    able = upstreams(prices)[:1]
    one = able[0]
    one.provider.gate.limits = msgspec.structs.replace(one.provider.gate.limits, concurrency=None)
    yield "all at one", able, lambda ask: one, False
    for strategy in ("cheapest", "balanced", "fastest"):
        for cached in (False, True):
            able = upstreams(prices)
            yield f"{strategy}, {'with' if cached else 'without'}", able, by_policy(able, strategy), cached


def main(argv: Sequence[str] | None = None) -> int:
    """Replay and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path, help="mooncake_conversation.jsonl")
    parser.add_argument("--requests", type=int, default=1_000_000, metavar="N", help="the first N (default: all)")
    args = parser.parse_args(argv)
    try:
        trace = read(args.trace, max(1, args.requests))
    except (OSError, msgspec.DecodeError) as error:
        print(f"{args.trace}: {error}", file=sys.stderr)
        return 2
    for called, prices in SETS.items():
        found = [(way, replay(trace, able, choose, cached=known)) for way, able, choose, known in ways(prices)]
        base = found[0][1].usd
        rows = [
            (
                *(way, f"{100 * one.cached:.1f} %", f"{one.usd:.2f}", f"{100 * (1 - one.usd / base):.1f} %"),
                *(f"{one.seconds:.1f}", str(one.switched), str(one.full)),
            )
            for way, one in found
        ]
        print(f"\n{called}: {len(trace)} requests\n")
        print(table(("", "input cached", "USD", "saved", "s per answer", "switched", "refused"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
