"""How long a decision takes, in this process, and what a fallback costs, over sockets. Against the budgets.

    python -m loadtests.decisions                       all tables, about a minute
    python -m loadtests.decisions --rounds 1 --runs 500 a quick look

Budgets: selection < 1 ms, registry lookup < 0.5 ms, routing decision < 2 ms, a fallback adds < 100 ms. Every call is
timed on its own, clock included (the first row says what the clock alone costs); each figure is the median over the
rounds. "Added" is against the median without a fallback. Exit code 1 when a p99 is over its budget.
"""

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import aiohttp
import msgspec

from loadtests.process import free_port
from loadtests.report import machine, percentile, table
from proxy import adapter
from proxy.app import App, Options
from proxy.ask import BLOCK_TOKENS, Ask
from proxy.attempt import Tools
from proxy.config import load
from proxy.demo import DemoProvider, Profile
from proxy.gateway import Gateway, Overrides
from proxy.keys import access
from proxy.log import Log
from proxy.metrics import Metrics
from proxy.optimizer import decide
from proxy.policy import STRATEGIES
from proxy.transport import Transport
from proxy.wire import Usage, decode_chat

SIZES: Final = (5, 50, 300)
# Bytes: a question, a coding agent's first request, a picture.
BODIES: Final = {"1 KB": 1_000, "87 KB": 87_000, "1 MB": 1_000_000}
SELECTION_US: Final = 1000.0
LOOKUP_US: Final = 500.0
DECISION_US: Final = 2000.0
FALLBACK_MS: Final = 100.0
_PROVIDERS: Final = 3
# A conversation of 20 000 tokens: so many blocks, all but the last two in the caches of the first three upstreams.
_BLOCKS: Final = 40
_WARM: Final = 3
_FILLER: Final = "Rivers rise in hills and end in seas; tell me which ones, and why. "
_nothing: Final = Overrides()


class Spread(NamedTuple):
    """Median and 99th percentile of many runs."""

    p50: float
    p99: float


class Row(NamedTuple):
    """One measurement and its budget, in the same unit; no budget: for comparison."""

    what: str
    column: str
    spread: Spread
    budget: float | None


# ---- in process -------------------------------------------------------------------------------------------------


def catalog(size: int) -> dict[str, bytes]:
    """Return policy files: `size` upstreams at three providers, a policy per strategy that may ask all of them."""
    random = Random(size)
    rows = [f'[[provider]]\nname = "p{n}"\nbase_url = "http://127.0.0.1:9/v1"' for n in range(_PROVIDERS)]
    rows += (
        f'[[model]]\nprovider = "p{number % _PROVIDERS}"\nid = "m{number}"\nquality = {random.uniform(3, 9):.1f}\n'
        f"price.input = {random.uniform(0.1, 5):.2f}\nprice.output = {random.uniform(0.4, 20):.2f}\n"
        f"price.cached_input = 0.05\n"
        f"latency = {{ p50_ms = {random.uniform(100, 900):.0f} }}\nfeatures = ['tools', 'vision']"
        for number in range(size)
    )
    policy = 'strategy = "{0}"\nanswers = ["{0}-*"]\nrequire = {{ min_quality = 2, min_success_rate = 0.5 }}'
    files = {f"{strategy}.toml": policy.format(strategy).encode() for strategy in STRATEGIES}
    return {"catalog.toml": "\n".join(rows).encode(), **files}


def gateway(size: int, tools: Tools) -> Gateway:
    """Return a gateway over `catalog(size)` whose upstreams have all answered lately."""
    made = Gateway(tools, adapter.load, lambda row: access(row, {}), Random(size))
    made.install(load(catalog(size)))
    now = tools.clock()
    for upstream in made.generation.routes.registry:
        for ms in (150, 300, 600):
            upstream.live.stats.answered(ms, now)
            upstream.live.stats.first_token.add(ms / 3, now)
        for strategy in STRATEGIES:
            for output in (200, 300, 400):
                upstream.learn(Ask(now, tokens=1_000, policy=strategy), Usage(1_100, output), 0.001, now)
    for upstream in made.generation.routes.registry.list()[:_WARM]:
        upstream.live.learned.warm.touch(tuple(range(_BLOCKS - 2)), now)
    return made


def body(model: str, size: int = 1_000, *, stream: bool = False) -> bytes:
    """Return a chat request with a tool, of about `size` bytes, in messages of 1 KB."""
    tool = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}
    talk = [{"role": "user", "content": _FILLER * 13} for _ in range(max(1, size // 1_000))]
    return msgspec.json.encode({"model": model, "messages": talk, "tools": [tool], "stream": stream})


def timed(call: Callable[[], object], runs: int) -> Spread:
    """Return the microseconds of one call, over `runs` calls."""
    clock, took = time.perf_counter_ns, list[int]()
    for _ in range(max(10, runs // 20)):
        call()
    for _ in range(runs):
        began = clock()
        call()
        took.append(clock() - began)
    return Spread(percentile(took, 0.5) / 1000, percentile(took, 0.99) / 1000)


def measurements(made: Gateway, size: int) -> Iterator[tuple[str, Callable[[], object], float | None]]:
    """Return what is measured on one gateway: what it is, call, budget in microseconds."""
    routes, fresh = made.generation.routes, count()
    registry, last = routes.registry, f"p{(size - 1) % _PROVIDERS}/m{size - 1}"
    yield "the clock alone", lambda: None, None
    yield "registry lookup: there", lambda: registry.get(last), LOOKUP_US
    yield "registry lookup: absent", lambda: registry.get("nobody/nothing"), LOOKUP_US
    yield "name resolution: a policy", lambda: routes.resolve("balanced"), None
    yield "name resolution: a name it answers", lambda: routes.resolve("balanced-1"), None
    yield "name resolution: never seen before", lambda: routes.resolve(f"p0/new-{next(fresh)}"), None
    for strategy in STRATEGIES:
        yield f"selection: {strategy}", _selection(made, strategy), SELECTION_US
    for strategy in STRATEGIES:
        yield f"whole decision: {strategy}", _decision(made, body(strategy)), DECISION_US


def _selection(made: Gateway, strategy: str) -> Callable[[], object]:
    route = made.generation.routes.policies[strategy]
    ask = Ask(
        made.tools.clock(),
        stream=True,
        tokens=_BLOCKS * BLOCK_TOKENS,
        needs=frozenset({"tools"}),
        prefix=tuple(range(_BLOCKS)),
        policy=strategy,
    )
    return lambda: decide(route, strategy, ask)


def _decision(made: Gateway, data: bytes) -> Callable[[], object]:
    """From the body to the upstream's bytes: decode, resolve, decide, render."""

    def once() -> object:
        request = decode_chat(data, 0)
        first = made.plan(request, _nothing).decision.chain[0]
        return first.provider.adapter.render(request, first.target)

    return once


class Case(NamedTuple):
    """What is measured, in which column of a table, how often in a round, and its budget in microseconds."""

    what: str
    column: str
    call: Callable[[], object]
    runs: int
    budget: float | None


def cases(tools: Tools, runs: int) -> list[Case]:
    """Return all that is measured in process: by number of upstreams, then by size of body (five upstreams)."""
    made = {size: gateway(size, tools) for size in SIZES}
    found = [
        Case(what, str(size), call, runs, budget)
        for size in SIZES
        for what, call, budget in measurements(made[size], size)
    ]
    for column, size in BODIES.items():
        for stream in (False, True):
            call = _decision(made[5], body("balanced", size, stream=stream))
            often = max(10, min(runs, 30 * runs * 1_000 // size))
            found.append(Case(f"whole decision: {'stream' if stream else 'complete'}", column, call, often, None))
    return found


async def decisions(rounds: int, runs: int) -> list[Row]:
    """Return the median of `rounds` rounds; a round goes through all cases, so that noise spreads evenly."""
    transport = Transport()
    tools = Tools(transport, Metrics(), Log(lambda lines: None), time.monotonic, time.time)
    todo = cases(tools, runs)
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)  # as `llm-sidecar serve` does
    found = [[timed(case.call, case.runs) for case in todo] for _ in range(rounds)]
    await transport.close()
    return [
        Row(case.what, case.column, _middle(spreads), case.budget)
        for case, spreads in zip(todo, zip(*found, strict=True), strict=True)
    ]


def _middle(spreads: Sequence[Spread]) -> Spread:
    return Spread(median(one.p50 for one in spreads), median(one.p99 for one in spreads))


# ---- over sockets -----------------------------------------------------------------------------------------------


def fallback_files(refusing: str, closed: str, answering: str, times: int) -> dict[str, str]:
    """Return policy files, `times` policies per way to fail: an upstream that failed rests, so none is used twice."""
    urls = {"refusing": refusing, "closed": closed, "answering": answering}
    rows = [f'[[provider]]\nname = "{name}"\nbase_url = "{url}"' for name, url in urls.items()]
    rows.append('[[model]]\nprovider = "answering"\nid = "echo"\nprice = { input = 2, output = 2 }')
    files = {}
    for way in ("refusing", "closed"):
        for number in range(times):
            rows.append(f'[[model]]\nprovider = "{way}"\nid = "m{number}"\nprice = {{ input = 1, output = 1 }}')
            chain = f'["{way}/m{number}", "answering/echo"]'
            files[f"{way}{number}.toml"] = f'strategy = "cheapest"\ncandidates = {chain}'
    return {"catalog.toml": "\n".join(rows), **files}


async def fallbacks(rounds: int, times: int) -> list[Row]:
    """Return ms per answer: asked directly, and after a first upstream failed."""
    async with AsyncExitStack() as stack:
        providers = [DemoProvider(Profile("refusing", fault="429")), DemoProvider(Profile("answering"))]
        for provider in providers:
            await provider.start()
            stack.push_async_callback(provider.stop)
        refusing, answering = (provider.base_url for provider in providers)
        directory = Path(stack.enter_context(TemporaryDirectory()))
        closed = f"http://127.0.0.1:{free_port()}/v1"
        files = fallback_files(refusing, closed, answering, 2 * rounds * times)
        for name, text in files.items():
            (directory / name).write_text(text)
        app = App(Options(policies=directory, port=0, drain_timeout_s=1.0), {}, lambda lines: None)
        await app.start()
        stack.push_async_callback(app.stop)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        return await _fallback_rows(session, app.address, rounds, times)


async def _fallback_rows(session: aiohttp.ClientSession, address: str, rounds: int, times: int) -> list[Row]:
    ways = {"direct": "first upstream answers", "refusing": "first answers 429", "closed": "first refuses to connect"}
    took: dict[tuple[str, bool], list[Spread]] = {}
    fresh = {way: count() for way in ways}
    for _ in range(rounds):
        for stream in (False, True):
            for way in ways:
                ms = []
                for _ in range(times):
                    model = "answering/echo" if way == "direct" else f"{way}{next(fresh[way])}"
                    ms.append(await _ask(session, address, model, 1 if way == "direct" else 2, stream=stream))
                took.setdefault((way, stream), []).append(Spread(percentile(ms, 0.5), percentile(ms, 0.99)))
    rows = []
    for (way, stream), spreads in took.items():
        mode, spread, direct = "stream" if stream else "complete", _middle(spreads), _middle(took["direct", stream]).p50
        rows.append(Row(ways[way], mode, spread, None))
        if way != "direct":
            added = Spread(spread.p50 - direct, spread.p99 - direct)
            rows.append(Row(f"{ways[way]}: added", mode, added, FALLBACK_MS))
    return rows


async def _ask(session: aiohttp.ClientSession, address: str, model: str, attempts: int, *, stream: bool) -> float:
    """Return ms until the answer is whole. Raises RuntimeError when it is not the one that was asked for."""
    sent = {"model": model, "messages": [{"role": "user", "content": "Hello there"}], "stream": stream}
    data, headers = msgspec.json.encode(sent), {"content-type": "application/json"}
    began = time.perf_counter()
    async with session.post(f"{address}/v1/chat/completions", data=data, headers=headers) as response:
        text = await response.read()
        took_ms = (time.perf_counter() - began) * 1000
        if response.status != 200 or response.headers["x-sidecar-attempts"] != str(attempts):
            raise RuntimeError(f"{model}: status {response.status}, {text[:300]!r}")
    return took_ms


def wide(rows: Sequence[Row], columns: Sequence[str], head: str, unit: str) -> str:
    """Return a table with one line per `what`, "p50 / p99" in each of `columns`."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        lines.setdefault(row.what, [row.what]).append(f"{row.spread.p50:.2f} / {row.spread.p99:.2f}")
    for row in rows:
        if len(lines[row.what]) == len(columns) + 1:
            lines[row.what].append("" if row.budget is None else f"{row.budget:g}")
    return table((head, *columns, f"budget {unit}"), list(lines.values()))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, choices=range(1, 21), default=3, metavar="N", help="1-20 (default 3)")
    parser.add_argument("--runs", type=int, default=3000, metavar="N", help="calls per round (default 3000)")
    parser.add_argument("--fallbacks", type=int, default=100, metavar="N", help="per round and kind (default 100)")
    args = parser.parse_args(argv)
    runs, times = min(max(args.runs, 10), 100_000), min(max(args.fallbacks, 10), 500)
    print(machine())
    rows = asyncio.run(decisions(args.rounds, runs))
    columns = [f"{size} upstreams" for size in SIZES]
    by_size = [row for row in rows if row.column not in BODIES]
    print("\n" + wide(by_size, columns, "microseconds, p50 / p99", "us"))
    by_body = [row for row in rows if row.column in BODIES]
    print("\n" + wide(by_body, list(BODIES), "microseconds by size of body, p50 / p99", "us"))
    walked = asyncio.run(fallbacks(args.rounds, times))
    print("\n" + wide(walked, ["complete", "stream"], "milliseconds to the whole answer, p50 / p99", "ms"))
    over = [row for row in (*rows, *walked) if row.budget is not None and row.spread.p99 > row.budget]
    for row in over:
        print(f"\nover budget: {row.what}, {row.column}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
