"""`llm-sidecar faults`: the fault wall on a port of its own, to see how an app or a sidecar takes what providers do."""

import argparse
import asyncio
import signal
from collections.abc import Callable

import uvloop

from proxy import demo_faults
from proxy.demo_wall import Wall
from proxy.log import tell


def run(args: argparse.Namespace) -> int:
    """Play until told to stop; returns 2 when the port cannot be had."""
    if args.list:
        for line in listing():
            print(line)
        return 0
    try:
        return uvloop.run(_play(args.port))
    except OSError as error:
        tell(f"llm-sidecar: cannot listen on 127.0.0.1:{args.port}: {error.strerror}")
    return 2


async def _play(port: int) -> int:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    wall = Wall(note=_say)
    await wall.start(port=port)
    for line in welcome(wall.base_url):
        tell(line)
    await stop.wait()
    await wall.stop()
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def welcome(base_url: str) -> list[str]:
    """Return what to do with a wall at `base_url`."""
    return [
        f"llm-sidecar plays faults on {base_url}: /chat/completions and /responses (OpenAI), /messages",
        "(Anthropic), and at the native paths of Gemini, Bedrock, Cohere and Ollama (docs/faults.md)",
        'ask for model "fault/NAME"; any other model answers what you say. --list shows the names',
        "in a catalog, to be asked for as wall/fault/NAME (with https:// its TLS handshake fails):",
        "    [[provider]]",
        '    name = "wall"',
        f'    base_url = "{base_url}"',
        f"try: curl -iN {base_url}/chat/completions -H 'content-type: application/json' "
        """-d '{"model":"fault/cut-after-3","stream":true,"messages":[{"role":"user","content":"Hello!"}]}'""",
    ]


def listing() -> list[str]:
    """Return a line for each fault."""
    refusals = {name: f"{one.status} {one.message}" for name, one in demo_faults.REFUSALS.items()}
    numbered = {f"{kind}-<n>": text for kind, text in demo_faults.COUNTED.items()}
    groups = (refusals, demo_faults.SCRIPTS, demo_faults.SHAPES, numbered)
    row: Callable[[tuple[str, str]], str] = lambda pair: f"{pair[0]:20} {pair[1]}"  # noqa: E731
    return [row(pair) for group in groups for pair in group.items()]
