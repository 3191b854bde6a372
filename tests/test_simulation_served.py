"""What a sidecar has served, replayed from its own ledger: the same requests, the same tokens, the same bill."""

import asyncio
from pathlib import Path

import pytest

from proxy.config import load_directory
from proxy.ledger import Read
from proxy.simulation.readers import read
from proxy.simulation.report import figures
from tests.conftest import CHAT, STREAM, StartSidecar, StartUpstream, catalog
from tests.fake_upstream import DONE, USAGE, chunk, completion, error, stream

from .simulation_words import answered_by, runs, world


async def test_a_replay_of_what_was_served(sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path) -> None:
    """One request per client request, whoever answered, with its tokens, needs and stream."""
    spoken = chunk({"content": "Hi"}), chunk({}, "stop"), USAGE, DONE
    used = {"prompt_tokens": 300, "completion_tokens": 40, "total_tokens": 340}
    first = await upstream(completion(usage=used), error(503), stream(*spoken))
    second = await upstream(completion(usage=used))
    ledger = tmp_path / "ledger"
    running = await sidecar(first, second, ledger=ledger)
    for body in (CHAT, {**CHAT, "tools": [{"type": "function", "function": {"name": "f"}}]}, STREAM):
        assert (await running.post(body)).status == 200

    found = read(ledger)
    # A replay has an event loop of its own, with a time of its own.
    run = (await asyncio.to_thread(runs, world(found, load_directory(running.directory))))[0]

    assert (list(found.input), list(found.output)) == ([300, 300, 10], [40, 40, 2])
    assert list(found.stream or ()) == [False, False, True]
    assert found.needs is not None
    assert found.needs[1] == {"tools"}
    assert [one.outcome for one in found.tries] == ["ok", "overloaded", "ok", "ok"]
    # In the replay nothing fails, for four attempts show nothing: the one at twice the price is saved.
    spent = sum(entry.usd or 0.0 for entry in Read().entries(ledger))
    assert answered_by(run) == ["p0/m"] * 3
    assert (figures(run).usd, spent) == pytest.approx((692e-6, 1032e-6))


async def test_conversations_in_a_ledger_are_known_again(
    sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path
) -> None:
    """The ledger has hashes of how prompts begin, and no word of them: so a replay knows what caches would hold."""
    ledger = tmp_path / "ledger"
    secret = "the garden behind the house " * 400
    both = await upstream(completion()), await upstream(completion())
    cached = catalog(*both).replace("price = { ", "price = { cached_input = 0.1, ")
    running = await sidecar(*both, ledger=ledger, files={"catalog.toml": cached})
    turn = {"role": "user", "content": secret}
    for messages in ([turn], [turn, turn], [turn, turn, turn]):
        assert (await running.post({**CHAT, "messages": messages})).status == 200

    assert b"garden" not in b"".join(file.read_bytes() for file in ledger.glob("*.jsonl"))
    found = read(ledger)
    assert found.blocks is not None
    one, two, three = found.blocks
    assert one
    assert (two[: len(one)], three[: len(two)]) == (one, two)
    run = (await asyncio.to_thread(runs, world(found, load_directory(running.directory))))[0]
    assert answered_by(run) == ["p0/m"] * 3
