"""What it costs to put a request into another wire language, in this process: half a megabyte and two, by adapter.

    python -m loadtests.translation                      all adapters, about half a minute
    python -m loadtests.translation --only gemini        one of them

"agent" is turns of text, tool calls with arguments and their results, and a dozen tools; "talk" is turns of text only,
"results" a few large results of tools, "turns" as many short turns as there can be (60 000). The time has to grow with
the size and not with its square, so 2 MB may take up to ten times what 500 KB take: the garbage collector looks at
all turns again while they are made, and takes half of the time for 60 000 of them. Each figure is CPU, the least of
several runs: what a machine does beside it only adds. Exit code 1 when that bar is missed.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from loadtests.report import machine, table
from proxy.adapter import Target, load, names
from proxy.errors import UpstreamError
from proxy.wire import decode_chat

SIZES: Final = {"500 KB": 500_000, "2 MB": 2_000_000}
_MOST_GROWTH: Final = 10.0
_RUNS: Final = 7
# A model of each provider's that takes everything that is asked for here.
MODELS: Final = {
    "anthropic": "claude-sonnet-4-5",
    "bedrock": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "cohere": "command-a-03-2025",
    "gemini": "gemini-2.5-flash",
    "ollama": "qwen3",
    "openai": "gpt-4o",
    "responses": "gpt-5.1",
    "vertex": "gemini-2.5-flash",
}
_WORDS: Final = 'Rivers rise in hills and end in "seas";\ntell me which ones, and why, and where the others have gone. '


def _said(role: str, size: int, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": (_WORDS * (size // len(_WORDS) + 1))[:size], **fields}


def _tool(number: int) -> dict[str, Any]:
    properties = {f"field_{n}": {"type": "string", "description": _WORDS} for n in range(6)}
    schema = {"type": "object", "properties": properties, "required": ["field_0"]}
    return {"type": "function", "function": {"name": f"tool_{number}", "description": _WORDS, "parameters": schema}}


def _step(number: int, argument: int, result: int) -> list[dict[str, Any]]:
    """A call of an agent's, and its result."""
    arguments = msgspec.json.encode({"field_0": _WORDS[:argument], "line": number, "share": 0.25}).decode()
    call = {"id": f"call_{number:08d}", "type": "function", "function": {"name": "tool_1", "arguments": arguments}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    return [asked, _said("tool", result, tool_call_id=call["id"])]


# By shape: what comes next in a conversation.
SHAPES: Final[dict[str, Callable[[int], list[dict[str, Any]]]]] = {
    "agent": lambda number: [*_step(number, 90, 1_800), _said("assistant", 300), _said("user", 200)],
    "talk": lambda number: [_said("assistant", 2_000), _said("user", 500)],
    "results": lambda number: [*_step(number, 20, 60_000), _said("user", 50)],
    "turns": lambda number: [_said("assistant", 3), _said("user", 3)],
}


def body(shape: str, size: int) -> bytes:
    """Return a request of about `size` bytes."""
    messages = [_said("system", 2_000), _said("user", 200)]
    request = {"model": "m", "messages": messages, "tools": [_tool(number) for number in range(12)]}
    made, number = len(msgspec.json.encode(request)), 0
    while made < size:
        more = SHAPES[shape](number)
        messages += more
        made += len(msgspec.json.encode(more))
        number += 1
    return msgspec.json.encode(request)


def least_ms(call: Callable[[], object]) -> float:
    """Return the least of several runs, in milliseconds of CPU; the collector runs between them, not within."""
    spent = []
    for _ in range(_RUNS):
        gc.collect()
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return min(spent) * 1e3


def rows(adapters: Sequence[str]) -> Iterator[tuple[list[str], bool]]:
    """Return a row for each adapter and shape, and whether it grows as it may."""
    for name in adapters:
        for shape in SHAPES:
            found = [_measured(name, shape, size) for size in SIZES.values()]
            growth = found[-1] / found[0]
            cells = [f"{name}: {shape}", *(f"{ms:.2f}" for ms in found), f"{found[-1] / 2:.2f}", f"{growth:.1f}"]
            yield cells, growth <= _MOST_GROWTH


def _measured(name: str, shape: str, size: int) -> float:
    request, target = decode_chat(body(shape, size), 0), Target(MODELS[name])
    adapter = load(name)
    try:
        return least_ms(lambda: adapter.render(request, target))
    except UpstreamError as error:
        raise RuntimeError(f"{name} does not take {shape}: {error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(
        "python -m loadtests.translation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=names(), help="one adapter")
    only = parser.parse_args(argv).only
    print(f"{time.strftime('%Y-%m-%d')}; {machine()}\n", flush=True)
    found = [*rows([only] if only else names())]
    head = ("render, ms", *SIZES, "a MB", "2 MB / 500 KB")
    print(table(head, [cells for cells, _ in found]))
    missed = [cells[0] for cells, good in found if not good]
    print("".join(f"\nMISSED: {name} grows faster than its size" for name in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
