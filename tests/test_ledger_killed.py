"""The ledger of real processes: killed in the middle of load, several workers, a directory that cannot be had."""

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path
from random import Random

import aiohttp
import pytest

from proxy.__main__ import main
from proxy.ledger import Read
from tests.conftest import CHAT, IN_ORDER, STREAM, StartSidecar, StartUpstream, catalog, until
from tests.fake_upstream import DONE, Play, completion, error, events, stream
from tests.served import Served, poll, served

# Four kinds of answers in turn: whole, streamed, one that fails over, one that fails for good.
PLAYS = {"whole": [completion()], "stream": [stream(*events("one ", "two"))], "broken": [error(503, "overloaded")]}


class Crowd:
    """Clients that never stop asking; `seen` are the ids of the requests whose answers they have had to the end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.seen: list[str] = []

    async def ask(self, session: aiohttp.ClientSession, model: str, *, stream: bool) -> None:
        """Ask once; what breaks off is not seen."""
        body = {**(STREAM if stream else CHAT), "model": model}
        async with session.post(f"{self.address}/v1/chat/completions", json=body) as response:
            request_id = response.headers["x-request-id"]
            if stream and response.status == 200:
                # An SDK stops reading here, and does not wait for the end of the framing.
                await response.content.readuntil(DONE)
            else:
                await response.read()
            # Who rests after failures is not asked, and what nobody was asked for has no record.
            if response.headers["x-sidecar-attempts"] != "0":
                self.seen.append(request_id)

    async def client(self, number: int) -> None:
        """Ask again and again, until the sidecar is gone."""
        model = ("whole/m", "stream/m", "falls", "broken/m")[number % 4]
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    await self.ask(session, model, stream=number % 4 == 1)
                except (aiohttp.ClientError, asyncio.IncompleteReadError, ConnectionError):
                    return


async def drain(running: Served) -> None:
    """Read the log to its end: a sidecar whose log nobody reads stands still when the pipe is full."""
    assert running.process.stdout is not None
    await asyncio.to_thread(running.process.stdout.read)


async def write(directory: Path, upstream: StartUpstream) -> None:
    """A catalog of the providers whole, stream and broken, and a policy that falls over."""
    started = {name: await upstream(*plays) for name, plays in PLAYS.items()}
    rows = [
        f'[[provider]]\nname = "{name}"\nbase_url = "{one.url}"\n'
        f'[[model]]\nprovider = "{name}"\nid = "m"\nprice = {{ input = 1, output = 1 }}\n'
        for name, one in started.items()
    ]
    (directory / "catalog.toml").write_text("\n".join(rows))
    (directory / "falls.toml").write_text(
        'strategy = "cheapest"\ncandidates = ["broken/m", "whole/m"]\n[fallback]\nbudget = 10\n'
    )


async def test_kill_loses_nothing_that_a_client_has_seen(tmp_path: Path, upstream: StartUpstream) -> None:
    """However often it is killed in the middle of load: who has had an answer to its end is in the ledger, once."""
    policies, ledger, random = tmp_path / "policies", tmp_path / "ledger", Random(7)
    policies.mkdir()
    await write(policies, upstream)
    seen: list[str] = []
    for _ in range(3):
        with served("--policies", str(policies), "--ledger", str(ledger)) as running:
            crowd, reading = Crowd(running.address), asyncio.create_task(drain(running))
            asking = [asyncio.create_task(crowd.client(number)) for number in range(16)]
            enough = 150 + random.randrange(50)
            await until(lambda crowd=crowd, enough=enough: len(crowd.seen) >= enough)  # type: ignore[misc]
            running.process.kill()
            running.process.wait()
            await asyncio.gather(reading, *asking)
        seen += crowd.seen
    read = Read()
    final = Counter(one.id for one in read.entries(ledger) if one.final)
    assert len(seen) >= 450
    assert [id for id in seen if final[id] != 1] == []
    assert read.torn == 0
    assert len(list(ledger.iterdir())) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="workers need Linux")
async def test_each_worker_has_its_own_files(tmp_path: Path, upstream: StartUpstream) -> None:
    """All they answered is there once, whoever answered; SIGTERM leaves nothing behind."""
    policies, ledger = tmp_path / "policies", tmp_path / "ledger"
    policies.mkdir()
    (policies / "catalog.toml").write_text(catalog(await upstream(completion())))
    (policies / "test.toml").write_text(IN_ORDER)
    with served("--workers", "2", "--policies", str(policies), "--ledger", str(ledger)) as running:
        crowd = Crowd(running.address)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(crowd.ask(session, "test", stream=False) for _ in range(100)))
        running.tell(signal.SIGTERM)
        assert running.process.wait() == 0
    names = sorted(path.name[11:] for path in ledger.iterdir())
    assert names == ["w0-001.jsonl", "w1-001.jsonl"]
    found = [one.id for one in Read().entries(ledger)]
    assert sorted(found) == sorted(crowd.seen)
    assert all(path.stat().st_size for path in ledger.iterdir())


async def test_files_turn_under_load(sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path) -> None:
    """Small files, many requests at once, and a thread that brings them to the disk: nothing is lost or doubled."""
    ledger = tmp_path / "ledger"
    running = await sidecar(await upstream(completion()), ledger=ledger)
    assert running.app.ledger is not None
    running.app.ledger._max_bytes = 1000
    crowd = Crowd(running.app.address)
    syncing = asyncio.create_task(_sync(running.app.ledger.sync))
    await asyncio.gather(*(crowd.ask(running.session, "test", stream=False) for _ in range(200)))
    syncing.cancel()
    await asyncio.gather(syncing, return_exceptions=True)
    read = Read()
    assert sorted(one.id for one in read.entries(ledger)) == sorted(crowd.seen)
    assert read.torn == 0
    assert len(list(ledger.iterdir())) > 20
    assert max(path.stat().st_size for path in ledger.iterdir()) < 1500


async def _sync(sync: object) -> None:
    assert callable(sync)
    while True:
        await asyncio.to_thread(sync)


def test_a_ledger_that_cannot_be_kept_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the start: exit 2, one line."""
    (tmp_path / "file").write_text("")
    assert main(["serve", "--demo", "--port", "0", "--ledger", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"llm-sidecar: cannot write the ledger in {tmp_path / 'file'}: File exists\n"


async def test_the_ledger_reaches_the_disk_within_a_second(
    sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path
) -> None:
    """Without anybody asking for it."""
    running = await sidecar(await upstream(completion(), Play([b""], "hang")), ledger=tmp_path / "ledger")
    ledger = running.app.ledger
    assert ledger is not None
    await running.post()
    assert ledger._synced == 0
    await asyncio.to_thread(poll, lambda: ledger._synced == 1)
    assert ledger._synced == 1
