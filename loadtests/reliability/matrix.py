"""The fault matrix through two gateways: what a client sees of each fault from the sidecar, and from LiteLLM's proxy.

    python -m loadtests.reliability.matrix                     through the sidecar
    python -m loadtests.reliability.matrix --litellm VENV      and through LiteLLM's proxy, from its environment

The rows and what must come are those of `tests/fault_matrix.py`, in its four situations. LiteLLM has no retries and no
cooldowns here, so that each cell is one try and, where there is a fallback, the fallback. What counts is the kind of
outcome, not its words: the answer, the fallback's answer, an error that OpenAI's SDKs can read, or the words until then
and then such an error. Where the contract does not fall back (a refused key, a wrong request) and LiteLLM does, or it
passes on an answer that the contract calls too large, that is a choice and no miss. About five minutes; exit code 0
when the sidecar does all that it must.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import msgspec
import uvloop

from loadtests.process import Process, free_port
from loadtests.reliability.faults import litellm_command, litellm_version
from loadtests.reliability.seen import BROKEN, ERROR, Seen, saw
from loadtests.reliability.wall import Wall, ask, gateway, wall
from loadtests.report import machine, table
from tests.fault_cells import ANSWER, OTHER, PROMPT
from tests.fault_matrix import ROWS, SITUATIONS, Row

_HANDS: Final = 8
_TIMER_S: Final = 2.0
_LATE_S: Final = 12.0
_START_S: Final = 120.0
_ENDLESS: Final = ("F4", "F32")
# Until the bytes that nobody asked for are in.
_STRAY_S: Final = 0.3
# Long enough to be still on its way when an early answer comes.
_LONG: Final = " x" * 100_000
_POLICY: Final = """strategy = "cheapest"
candidates = {candidates}
[timeouts]
first_event = {timer_s}
answer = {timer_s}
idle = {timer_s}
total = 4
"""
# What is no gateway's doing: a port that closes at once is played by the tests themselves.
PLAYED: Final = tuple(row for row in ROWS if "{slammed}" not in row.url)


class Cell(NamedTuple):
    """One fault in one situation; `held` None: a choice that the contract makes otherwise."""

    row: Row
    situation: str
    must: str
    seen: Seen
    asked: int

    @property
    def held(self) -> bool | None:
        """Whether it is of the kind that it must be."""
        must = {ANSWER: ANSWER, OTHER: OTHER}.get(self.must, BROKEN if "until then" in self.must else ERROR)
        chosen = (must == ERROR and self.seen.kind == OTHER) or (must in (ERROR, BROKEN) and self.seen.kind == ANSWER)
        return None if chosen else must == self.seen.kind


class Gateway(NamedTuple):
    """Where a gateway is, and what it calls the model that plays a row."""

    port: int
    prefix: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; returns the exit code."""
    parser = argparse.ArgumentParser(
        "python -m loadtests.reliability.matrix",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--litellm", type=Path, metavar="VENV", help="LiteLLM's proxy, too, from this environment")
    parser.add_argument("rows", nargs="*", metavar="F1", help="which rows (default: all)")
    args = parser.parse_args(argv)
    rows = [row for row in PLAYED if not args.rows or row.id in args.rows]
    ours = [cell for situation in SITUATIONS for cell in through_sidecar(rows, situation)]
    print(f"{machine()}\n\n{_summary('sidecar', ours)}\n")
    for cell in ours:
        if not cell.held:
            print(f"- {cell.row.title}, {cell.situation}: {cell.must}; saw {cell.seen.text}")
    if args.litellm is not None:
        theirs = [cell for situation in SITUATIONS for cell in through_litellm(rows, situation, args.litellm)]
        print(_summary(f"LiteLLM {litellm_version(args.litellm)}", theirs))
        print(f"\n{table(('the provider', *SITUATIONS), lines(theirs))}")
    return int(not all(cell.held for cell in ours))


def through_sidecar(rows: Sequence[Row], situation: str) -> list[Cell]:
    """Return the cells of one situation. A sidecar of its own for each: what rests in one does not in the next."""
    fallback = situation.endswith("fallback")
    with TemporaryDirectory() as name, wall(Path(name) / "a.log") as a, wall(Path(name) / "b.log") as b:
        files = {"catalog": "".join(_catalog(rows, a, b))}
        for row in rows:
            candidates = [f"a{row.id}/{row.model}", *([f"b/sound-{row.id}"] if fallback else [])]
            files[f"x-{row.id}"] = _POLICY.format(candidates=msgspec.json.encode(candidates).decode(), timer_s=_TIMER_S)
        with gateway(Path(name), files) as (_, port):
            return uvloop.run(_situation(Gateway(port, "x"), rows, situation, a, b))


def _catalog(rows: Sequence[Row], a: Wall, b: Wall) -> Iterator[str]:
    yield f'[[provider]]\nname = "b"\nbase_url = "http://127.0.0.1:{b.port}/v1"\n'
    for row in rows:
        yield f'[[provider]]\nname = "a{row.id}"\nbase_url = "{_url(row, a)}"\n'
        for provider, model, usd in ((f"a{row.id}", row.model, 1), ("b", f"sound-{row.id}", 2)):
            yield f'[[model]]\nprovider = "{provider}"\nid = "{model}"\nprice = {{ input = {usd}, output = {usd} }}\n'


def _url(row: Row, a: Wall) -> str:
    return row.url.format(wall=f"http://127.0.0.1:{a.port}/v1", port=a.port)


def through_litellm(rows: Sequence[Row], situation: str, environment: Path) -> list[Cell]:
    """Return the cells of one situation through a LiteLLM proxy of its own."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        a, b = (stack.enter_context(wall(directory / f"{name}.log")) for name in "ab")
        config, port = directory / "litellm.yaml", free_port()
        config.write_bytes(msgspec.json.encode(_config(rows, a, b)))  # JSON is YAML
        process = Process(litellm_command(environment, config, port), directory / "litellm.log")
        stack.enter_context(process).wait_ready(f"http://127.0.0.1:{port}/health/liveliness", _START_S)
        place = Gateway(port, "fall" if situation.endswith("fallback") else "alone")
        return uvloop.run(_situation(place, rows, situation, a, b))


def _config(rows: Sequence[Row], a: Wall, b: Wall) -> dict[str, object]:
    models, fallbacks = [], []
    for row in rows:
        sound = f"http://127.0.0.1:{b.port}/v1"
        for name, model, url in (
            (f"alone-{row.id}", row.model, _url(row, a)),
            (f"fall-{row.id}", row.model, _url(row, a)),
            (f"sound-{row.id}", f"sound-{row.id}", sound),
        ):
            params = {"model": f"openai/{model}", "api_base": url, "api_key": "none", "max_retries": 0}
            timers = {"timeout": _TIMER_S, "stream_timeout": _TIMER_S}
            models.append({"model_name": name, "litellm_params": {**params, **timers}})
        fallbacks.append({f"fall-{row.id}": [f"sound-{row.id}"]})
    return {
        "model_list": models,
        "litellm_settings": {"telemetry": False, "num_retries": 0, "request_timeout": _TIMER_S, "fallbacks": fallbacks},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True, "allowed_fails": 1_000_000},
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
    }


async def _situation(place: Gateway, rows: Sequence[Row], situation: str, a: Wall, b: Wall) -> list[Cell]:
    """Return the cells of a situation, a few of them at a time. Whom was asked the walls know."""
    stream = situation.startswith("stream")
    mode, asked, other = "stream" if stream else "complete", a.asked(), b.asked()
    # What happens to a kept connection must not happen to another row's; what has no end must not slow the others.
    waiting = (row for row in rows if not row.again and row.id not in _ENDLESS)
    alone, last = [row for row in rows if row.again], (row for row in rows if row.id in _ENDLESS)
    seen: dict[str, Seen] = {}

    async def hand(waiting: Iterable[Row]) -> None:
        for row in waiting:
            prompt = PROMPT + _LONG if row.large else PROMPT
            for number in range(2 if row.again else 1):
                if number and row.again == "dropped":
                    await asyncio.sleep(_STRAY_S)
                answer = await ask(place.port, f"{place.prefix}-{row.id}", prompt, stream=stream, late_s=_LATE_S)
            seen[row.id] = saw(answer, row.model, prompt)

    await asyncio.gather(*(hand(waiting) for _ in range(_HANDS)))
    await hand(alone)
    await asyncio.gather(*(hand(last) for _ in _ENDLESS))
    await asyncio.sleep(_TIMER_S / 10)  # the last lines of the walls
    asked, other = a.asked() - asked, b.asked() - other
    return [
        Cell(
            row,
            situation,
            row.must(situation, "openai"),
            seen[row.id].by_fallback() if other[mode, f"sound-{row.id}"] else seen[row.id],
            asked[mode, row.model],
        )
        for row in rows
    ]


def _summary(who: str, cells: Sequence[Cell]) -> str:
    counts = Counter(cell.held for cell in cells)
    silent = sum(cell.seen.silent for cell in cells)
    return (
        f"{who}: {len(cells)} cells, {counts[True]} of the kind that they must be, {counts[None]} another choice, "
        f"{counts[False]} missed, {silent} of them half an answer as if it were whole"
    )


def lines(cells: Sequence[Cell]) -> list[list[str]]:
    """Return a line for each fault, its title and its situations; what it missed is in bold."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        text = cell.seen.text
        found.setdefault(cell.row.title, []).append(f"**{text}**" if cell.held is False else text)
    return [[title, *line] for title, line in found.items()]


if __name__ == "__main__":
    sys.exit(main())
