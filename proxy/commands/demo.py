"""`llm-sidecar demo`: four policies on three built-in providers, one of which dies half way. No key, no network."""

import argparse
import asyncio
from collections import Counter
from collections.abc import Iterable
from statistics import median, quantiles
from typing import Any, Final

import aiohttp
import msgspec
import uvloop

from proxy.app import App, Options
from proxy.log import tell

_POLICIES: Final = ("cheapest", "fastest", "quality", "balanced")
_AT_ONCE: Final = 16
_PROMPTS: Final = (
    "Say hello.",
    "Name three rivers and one lake.",
    "Summarise this in a sentence: " + "the quick brown fox jumps over the lazy dog. " * 12,
    "Translate to French: good morning, how are you today?",
)
Record = dict[str, Any]


def run(args: argparse.Namespace) -> int:
    """Run the demonstration; returns 1 when a request failed, which it should not."""
    if args.requests < len(_POLICIES) * 2:
        tell(f"llm-sidecar: --requests must be at least {len(_POLICIES) * 2}")
        return 2
    records, wrong = uvloop.run(_show(args.requests))
    for line in report(records, wrong):
        print(line)
    return 1 if wrong else 0


async def _show(count: int) -> tuple[list[Record], int]:
    records: list[Record] = []
    # No environment: whatever keys this machine has, a demonstration must not spend them.
    app = App(Options(port=0, demo=True, drain_timeout_s=2), {}, lambda lines: records.extend(_requests(lines)))
    await app.start()
    print(f"Three providers on loopback, {count} requests over four policies; half way, 'swift' dies.\n", flush=True)
    try:
        async with aiohttp.ClientSession() as session:
            first = await _send(app, session, range(count // 2))
            next(running for running in app.demo if running.profile.name == "swift").down = True
            second = await _send(app, session, range(count // 2, count))
    finally:
        await app.stop()
    return records, first + second


async def _send(app: App, session: aiohttp.ClientSession, numbers: Iterable[int]) -> int:
    """Send requests, a few at once; returns how many did not get their own words back."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> bool:
        policy, prompt = _POLICIES[number % len(_POLICIES)], f"{_PROMPTS[number // 4 % len(_PROMPTS)]} [{number}]"
        stream = number % 3 == 0
        body = {"model": policy, "stream": stream, "messages": [{"role": "user", "content": prompt}]}
        async with turn, session.post(f"{app.address}/v1/chat/completions", json=body) as response:
            answer = await response.read()
        return response.status == 200 and said(answer, stream=stream) == prompt

    return sum(not good for good in await asyncio.gather(*map(one, numbers)))


def said(answer: bytes, *, stream: bool) -> str:
    """Return the text of a complete or streamed answer."""
    if not stream:
        return str(msgspec.json.decode(answer)["choices"][0]["message"]["content"])
    events = [msgspec.json.decode(event[6:]) for event in answer.split(b"\n\n") if event.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event.get("choices", ()))


def report(records: list[Record], wrong: int) -> list[str]:
    """Return the table of what each policy did, from the log lines of its requests."""
    lines = [f"{'policy':10}{'requests':>9}{'cost':>12}{'p50 ms':>8}{'p95 ms':>8}{'fallbacks':>11}  answered by"]
    for policy in _POLICIES:
        mine = [record for record in records if record["policy"] == policy]
        ms = [record["ms"] for record in mine]
        shares = Counter(record["upstream"].partition("/")[0] for record in mine if record["status"] == 200)
        by = ", ".join(f"{name} {number}" for name, number in shares.most_common())
        cost = sum(record.get("usd", 0.0) for record in mine)
        fell = sum(record["attempts"] - 1 for record in mine)
        p95 = quantiles(ms, n=20)[-1]
        lines.append(f"{policy:10}{len(mine):9}{cost:11.6f}${median(ms):8.0f}{p95:8.0f}{fell:11}  {by}")
    own = [record["ms"] - record["upstream_ms"] for record in records if record["mode"] == "complete"]
    return [
        *lines,
        "",
        f"The sidecar itself added {median(own):.2f} ms (median of {len(own)} complete answers); "
        f"{wrong} answers were lost or wrong.",
        "",
        "Next: llm-sidecar serve         the same providers behind http://127.0.0.1:4141/v1",
        "      export OPENAI_API_KEY=... and serve again: real providers, the same policies",
        "      llm-sidecar explain --model balanced    why a request would go where it goes",
    ]


def _requests(lines: bytes) -> list[Record]:
    found: list[Record] = [msgspec.json.decode(line) for line in lines.splitlines()]
    return [record for record in found if record["event"] == "request"]
