"""The ledger: what is written, when, and what happens when it cannot be."""

import asyncio
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger import Entry, Ledger, Page, Read, tag
from tests.conftest import CHAT, STREAM, Sidecar, StartSidecar, StartUpstream, until
from tests.fake_upstream import DONE, USAGE, Play, chunk, completion, error, events, stream

DAY_S = 86_400
MORNING = 20_000 * DAY_S + 3600.0  # 2024-10-04
TWO = 'strategy = "cheapest"\n[fallback]\nbudget = 10\n'
HEDGED = 'strategy = "cheapest"\n[fallback]\nhedge = 1.0\nbudget = 10\n'


class Kept:
    """A ledger and what it complained about."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.lost = 0
        self.said: list[str] = []
        self.ledger = Ledger(directory, self._lose, self.said.append, **options)

    def _lose(self) -> None:
        self.lost += 1

    def files(self) -> dict[str, list[str]]:
        """The ids in each file."""
        return {
            path.name: [msgspec.json.decode(line)["id"] for line in path.read_bytes().splitlines() if line]
            for path in sorted(self.directory.glob("*.jsonl"))
        }


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    """An open ledger."""
    made = Kept(tmp_path / "ledger")
    made.ledger.open(MORNING)
    yield made
    made.ledger.close()


def entry(id: str, ts: float = MORNING, **fields: Any) -> Entry:
    """A record."""
    return Entry(id=id, ts=ts, outcome="ok", **fields)


def written(directory: Path) -> list[Entry]:
    """All records of a ledger, in the order of their files."""
    read = Read()
    found = list(read.entries(directory))
    assert read.torn == 0
    return found


# ---- files ------------------------------------------------------------------------------------------------------


def test_records_are_there_at_once(kept: Kept) -> None:
    """Each is in its file when `add` returns, one line each, and only the owner may read them."""
    for number in range(3):
        kept.ledger.add(entry(f"r{number}"))
        assert kept.files() == {"2024-10-04-w0-001.jsonl": [f"r{n}" for n in range(number + 1)]}
    path = kept.directory / "2024-10-04-w0-001.jsonl"
    assert path.read_bytes().count(b"\n") == 3
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(kept.directory.stat().st_mode)) == (0o600, 0o700)


def test_a_day_has_its_own_files(kept: Kept) -> None:
    """A new one at midnight UTC, by when an attempt ended."""
    kept.ledger.add(entry("before", MORNING + 22.9 * 3600))
    kept.ledger.add(entry("over midnight", MORNING + 22.99 * 3600, ms=60_000))
    kept.ledger.add(entry("after", MORNING + DAY_S))
    assert kept.files() == {
        "2024-10-04-w0-001.jsonl": ["before"],
        "2024-10-05-w0-001.jsonl": ["over midnight", "after"],
    }


def test_a_full_file_is_followed_by_the_next(tmp_path: Path) -> None:
    """By size; after a restart the last one is gone on with while it has room, and no packed one is written over."""
    kept = Kept(tmp_path, worker=3, max_bytes=200)
    kept.ledger.open(MORNING)
    for number in range(5):
        kept.ledger.add(entry(f"r{number}", model="x" * 60))
    kept.ledger.close()
    assert kept.files() == {
        "2024-10-04-w3-001.jsonl": ["r0", "r1"],
        "2024-10-04-w3-002.jsonl": ["r2", "r3"],
        "2024-10-04-w3-003.jsonl": ["r4"],
    }
    (tmp_path / "2024-10-04-w3-001.jsonl").unlink()
    again = Kept(tmp_path, worker=3, max_bytes=200)
    again.ledger.open(MORNING)
    again.ledger.add(entry("r5", model="x" * 60))
    again.ledger.add(entry("r6"))
    again.ledger.close()
    assert again.files() == {
        "2024-10-04-w3-002.jsonl": ["r2", "r3"],
        "2024-10-04-w3-003.jsonl": ["r4", "r5"],
        "2024-10-04-w3-004.jsonl": ["r6"],
    }
    (tmp_path / "2024-10-04-w3-004.jsonl").rename(tmp_path / "2024-10-04-w3-004.jsonl.gz")
    last = Kept(tmp_path, worker=3)
    last.ledger.open(MORNING)
    last.ledger.close()
    assert (tmp_path / "2024-10-04-w3-005.jsonl").exists()


def test_two_that_share_a_directory_do_not_mix_lines(tmp_path: Path) -> None:
    """Two sidecars may write to one file: every record is one write at its end."""
    both = [Kept(tmp_path), Kept(tmp_path)]
    for one in both:
        one.ledger.open(MORNING)
    for number in range(100):
        both[number % 2].ledger.add(entry(f"r{number}"))
    for one in both:
        one.ledger.close()
    assert both[0].files() == {"2024-10-04-w0-001.jsonl": [f"r{n}" for n in range(100)]}


def test_half_a_line_is_left_behind(tmp_path: Path) -> None:
    """What a power cut left of a record is one line that cannot be read; the next one begins on its own."""
    path = tmp_path / "2024-10-04-w0-001.jsonl"
    path.write_bytes(b'{"id":"whole","outcome":"ok"}\n{"id":"ha')
    kept = Kept(tmp_path)
    kept.ledger.open(MORNING)
    kept.ledger.add(entry("next"))
    kept.ledger.close()
    read = Read()
    assert ([one.id for one in read.entries(tmp_path)], read.torn) == (["whole", "next"], 1)


@pytest.mark.parametrize("junk", [b"\xff\xfe\n", b"[]\n", b'{"ts":"soon"}\n', b"null\n", b"{}{}\n"])
def test_what_is_no_record_is_counted(tmp_path: Path, junk: bytes) -> None:
    """Anything may happen to a file; what is whole in it is read. Unknown fields of later versions do not matter."""
    path = tmp_path / "some.jsonl"
    path.write_bytes(b'\n{"id":"a","v":2,"new":[1]}\n' + junk + b'\n{"id":"b"}')
    read = Read()
    assert ([one.id for one in read.entries(path)], read.torn) == (["a", "b"], 1)


records = st.builds(
    Entry,
    ts=st.floats(0, 1e10),
    id=st.text(),
    model=st.text(),
    upstream=st.text(),
    tag=st.none() | st.text(),
    needs=st.lists(st.text()),
    input=st.integers(0, 10**12),
    usd=st.none() | st.floats(0, 1e6),
    final=st.booleans(),
    prefix=st.lists(st.integers(0, 2**64 - 1)),
)


@given(st.lists(records, max_size=5), st.integers(1, 30))
def test_what_is_written_is_read(found: list[Entry], cut: int) -> None:
    """Whatever stands in the fields. Half a record at the end takes none of the others with it."""
    with TemporaryDirectory() as directory:
        kept = Kept(Path(directory))
        kept.ledger.open(MORNING)
        for one in found:
            kept.ledger.add(msgspec.structs.replace(one, ts=MORNING, ms=0.0))
        kept.ledger.close()
        (file,) = kept.directory.iterdir()
        with file.open("ab") as end:
            end.write(msgspec.json.encode(entry("torn"))[:cut])
        read = Read()
        again = [msgspec.structs.replace(one, ts=0.0) for one in read.entries(file)]
        assert (again, read.torn) == ([msgspec.structs.replace(one, ts=0.0, ms=0.0) for one in found], 1)


# ---- trouble ----------------------------------------------------------------------------------------------------


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_once(kept: Kept) -> None:
    """Each lost record is counted; why is told once, and again after a record could be written."""
    line = len(msgspec.json.encode(entry("r0"))) + 1
    for _ in range(2):
        size = sum(path.stat().st_size for path in kept.directory.iterdir())
        with disk_of(size + line + line // 2):
            for number in range(4):
                kept.ledger.add(entry(f"r{number}"))
        kept.ledger.add(entry("later"))
    assert kept.lost == 6
    assert [text.partition(": ")[2] for text in kept.said] == ["a line was cut short: the disk is full"] * 2
    read = Read()
    assert ([one.id for one in read.entries(kept.directory)], read.torn) == (["r0", "later"] * 2, 2)


def test_a_directory_that_is_gone_comes_back(kept: Kept) -> None:
    """A file that cannot be opened is tried again, but not for every record."""
    kept.ledger.add(entry("first"))
    (kept.directory / "2024-10-04-w0-001.jsonl").unlink()
    kept.directory.rmdir()
    tomorrow = MORNING + DAY_S
    for number in range(3):
        kept.ledger.add(entry(f"lost{number}", tomorrow + 0.1 * number))
    kept.directory.mkdir()
    kept.ledger.add(entry("too soon", tomorrow + 0.5))
    kept.ledger.add(entry("found", tomorrow + 1.1))
    assert kept.files() == {"2024-10-05-w0-001.jsonl": ["found"]}
    assert kept.lost == 4
    assert kept.said == [f"{kept.directory}: No such file or directory"]


def test_all_is_brought_to_the_disk(tmp_path: Path) -> None:
    """`sync` closes the files that are done with, and may be called when there is nothing to do."""
    kept = Kept(tmp_path, max_bytes=1)
    kept.ledger.open(MORNING)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(3):
        kept.ledger.add(entry(f"r{number}"))
    assert len(os.listdir("/proc/self/fd")) == before + 2
    kept.ledger.sync()
    kept.ledger.sync()
    assert len(os.listdir("/proc/self/fd")) == before
    kept.ledger.close()
    kept.ledger.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


@pytest.mark.parametrize(
    ("text", "kept_of_it"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        ("team-a/b.c:1@x=y+z_", "team-a/b.c:1@x=y+z_"),
        (" two words\t", "two_words"),
        ('"},{\r\n', "_____"[:4]),
        ("ä" * 3, "___"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_a_tag_is_plain_and_short(text: str | None, kept_of_it: str | None) -> None:
    """Whatever a client sends for it."""
    assert tag(text) == kept_of_it


# ---- a request's page -------------------------------------------------------------------------------------------


def page(kept: Kept) -> Page:
    """The page of a request called r."""
    return Page(kept.ledger, id="r")


def begin(page: Page, upstream: str) -> Entry:
    """Begin an attempt."""
    return Entry(id=page.id, ts=MORNING, attempt=page.open(), upstream=upstream)


def finish(page: Page, entry: Entry, outcome: str) -> None:
    """End an attempt."""
    entry.outcome = outcome
    page.close(entry)


def told(kept: Kept) -> list[tuple[str, str, int, bool]]:
    """Upstream, outcome, number and whether final, of all records."""
    return [(one.upstream, one.outcome, one.attempt, one.final) for one in written(kept.directory)]


def test_the_last_failure_is_final(kept: Kept) -> None:
    """A failed attempt is written when the next begins, or when it is plain that none does."""
    one = page(kept)
    finish(one, begin(one, "a"), "timeout")
    assert told(kept) == []
    second = begin(one, "b")
    assert told(kept) == [("a", "timeout", 1, False)]
    finish(one, second, "overloaded")
    one.settle()
    one.settle()
    assert told(kept) == [("a", "timeout", 1, False), ("b", "overloaded", 2, True)]


def test_of_two_at_once_the_winner_is_final(kept: Kept) -> None:
    """The late one that is let go of is not; nor is one that failed while the other spoke."""
    one = page(kept)
    late, quick = begin(one, "late"), begin(one, "quick")
    finish(one, late, "cancelled")
    finish(one, quick, "ok")
    other = page(kept)
    failed, good = begin(other, "failed"), begin(other, "good")
    finish(other, failed, "timeout")
    finish(other, good, "ok")
    other.settle()
    both = page(kept)
    first, second = begin(both, "first"), begin(both, "second")
    finish(both, first, "ok")
    finish(both, second, "ok")
    assert told(kept) == [
        ("late", "cancelled", 1, False),
        ("quick", "ok", 2, True),
        ("failed", "timeout", 1, False),
        ("good", "ok", 2, True),
        ("first", "ok", 1, True),
        ("second", "ok", 2, False),
    ]


def test_when_the_client_leaves_one_of_two_is_final(kept: Kept) -> None:
    """A request always has exactly one final attempt."""
    one = page(kept)
    failed = begin(one, "failed")
    finish(one, failed, "timeout")
    first, second = begin(one, "first"), begin(one, "second")
    finish(one, first, "cancelled")
    finish(one, second, "cancelled")
    one.settle()
    assert [final for *_, final in told(kept)] == [False, False, True]


@given(st.lists(st.tuples(st.sampled_from(["open", "ok", "fail", "cancel"]), st.integers(0, 5)), max_size=12))
def test_a_request_has_one_final_attempt(steps: list[tuple[str, int]]) -> None:
    """In whatever order its attempts begin and end, none is lost and none is written twice."""
    found: list[Entry] = []

    class Memory(Ledger):
        def add(self, entry: Entry) -> None:
            found.append(entry)

    one, running, opened = Page(Memory(Path(), int, print), id="r"), list[Entry](), 0
    for step, which in [*steps, *[("ok" if steps and steps[0][1] % 2 else "fail", 0)] * len(steps)]:
        if step == "open" and not any(entry.outcome == "ok" for entry in found):
            running.append(begin(one, "u"))
            opened += 1
        elif step != "open" and running:
            ended = running.pop(which % len(running))
            finish(one, ended, {"ok": "ok", "fail": "timeout", "cancel": "cancelled"}[step])
            if not running and step == "cancel":
                break
    for ended in running:
        finish(one, ended, "cancelled")
    one.settle()
    assert sorted(entry.attempt for entry in found) == list(range(1, opened + 1))
    assert sum(entry.final for entry in found) == min(1, opened)


# ---- in a sidecar -----------------------------------------------------------------------------------------------

USED = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 50, "audio_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 60, "audio_tokens": 7},
}


async def keeping(sidecar: StartSidecar, tmp_path: Path, *upstreams: Any, **options: Any) -> tuple[Sidecar, Path]:
    """A sidecar with a ledger."""
    directory = tmp_path / "ledger"
    return await sidecar(*upstreams, ledger=directory, **options), directory


async def test_an_answer_has_its_record(sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path) -> None:
    """All that is known of it, when the client has it."""
    answering = await upstream(completion(model="m-2026", usage=USED))
    running, directory = await keeping(sidecar, tmp_path, answering)
    got = await running.post({**CHAT, "max_tokens": 50, "tools": [{"type": "function"}]}, x_sidecar_tag="team a")
    (one,) = written(directory)
    assert one.id == got.headers["x-request-id"]
    assert (one.policy, one.model, one.upstream, one.answered) == ("test", "test", "p0/m", "m-2026")
    assert (one.attempt, one.outcome, one.status, one.final, one.tag) == (1, "ok", 200, True, "team_a")
    assert (one.stream, one.needs, one.max_tokens, one.code) == (False, ["tools"], 50, None)
    assert (one.input, one.cached, one.cache_write, one.audio) == (1000, 400, 50, 5)
    assert (one.output, one.reasoning, one.audio_output, one.usd) == (100, 60, 7, 0.0011)
    assert one.estimate > 10
    assert 0 < one.ms < 5000
    assert one.first_ms is None
    assert abs(one.ts - running.log("request")[0]["ts"]) < 5
    assert b"Hello" not in b"".join(path.read_bytes() for path in directory.iterdir())


async def test_a_stream_has_its_record(sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path) -> None:
    """With the time of its first content; `max_completion_tokens` comes before the older name."""
    running, directory = await keeping(sidecar, tmp_path, await upstream(stream(*events("Hi"))))
    got = await running.post({**STREAM, "max_completion_tokens": 7, "max_tokens": 9})
    assert got.text == "Hi"
    (one,) = written(directory)
    assert (one.stream, one.outcome, one.final, one.input, one.output, one.max_tokens) == (True, "ok", True, 10, 2, 7)
    assert one.answered is None
    assert one.first_ms is not None
    assert 0 < one.first_ms <= one.ms


async def test_the_record_is_written_before_the_end_of_a_stream(
    sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path
) -> None:
    """Whoever has read `[DONE]` finds the record, though the upstream has not closed its answer yet."""
    answering = await upstream(stream(*events("Hi"), end=False, then="hang"))
    running, directory = await keeping(sidecar, tmp_path, answering)
    body = msgspec.json.encode(STREAM)
    async with running.session.post(running.url + "/chat/completions", data=body, headers=JSON) as response:
        await response.content.readuntil(DONE)
        assert [one.outcome for one in written(directory)] == ["ok"]


JSON = {"content-type": "application/json"}


async def test_every_attempt_has_a_record(sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path) -> None:
    """The one that failed and the one that answered; of those the last is what the client got."""
    first, second = await upstream(error(503, "overloaded")), await upstream(completion())
    running, directory = await keeping(sidecar, tmp_path, first, second, policy=TWO)
    assert (await running.post()).status == 200
    one, other = written(directory)
    assert (one.upstream, one.outcome, one.code, one.status) == ("p0/m", "overloaded", "overloaded", 503)
    assert (one.attempt, one.final, one.usd, one.possibly_billed) == (1, False, None, False)
    assert (other.upstream, other.outcome, other.attempt, other.final) == ("p1/m", "ok", 2, True)
    assert one.id == other.id


async def test_a_request_that_failed_is_on_record(
    sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path
) -> None:
    """Its last attempt is final; a broken answer that was paid for says so. Refused requests have no record."""
    broken = Play([b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{"], "close")
    running, directory = await keeping(sidecar, tmp_path, await upstream(broken))
    assert (await running.post()).status == 502
    assert (await running.post({"model": "nobody"})).status == 400
    assert (await running.post(x_sidecar_policy="nobody")).status == 400
    (one,) = written(directory)
    assert (one.outcome, one.code, one.final, one.possibly_billed) == ("unavailable", "upstream_truncated", True, True)


async def test_a_stream_that_breaks_is_on_record_before_the_client_knows(
    sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path
) -> None:
    """It has begun to speak, so it may be on the bill."""
    cut = stream(chunk({"content": "Hi"}), end=False, then="reset")
    running, directory = await keeping(sidecar, tmp_path, await upstream(cut))
    got = await running.post(STREAM)
    assert b"upstream_interrupted" in got.body
    (one,) = written(directory)
    assert (one.outcome, one.code, one.final, one.possibly_billed) == (
        "unavailable",
        "upstream_interrupted",
        True,
        True,
    )


async def test_a_stream_that_goes_on_has_two_records(
    sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path
) -> None:
    """With `continue` the broken half is not what the client got in the end."""
    first = await upstream(stream(chunk({"content": "One "}), end=False, then="reset"))
    second = await upstream(stream(*events("two.")))
    policy = 'strategy = "cheapest"\n[fallback]\ncontinue = true\n'
    running, directory = await keeping(sidecar, tmp_path, first, second, policy=policy)
    assert (await running.post(STREAM)).text == "One two."
    assert [(one.upstream, one.outcome, one.final) for one in written(directory)] == [
        ("p0/m", "unavailable", False),
        ("p1/m", "ok", True),
    ]


async def test_a_client_that_leaves_is_on_record(
    sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path
) -> None:
    """Cancelled and final, and nobody knows what it cost."""
    answering = await upstream(stream(chunk({"content": "Hi"}), end=False, then="hang"))
    running, directory = await keeping(sidecar, tmp_path, answering)
    body = msgspec.json.encode(STREAM)
    async with running.session.post(running.url + "/chat/completions", data=body, headers=JSON) as response:
        await response.content.readany()
    await until(lambda: bool(written(directory)))
    (one,) = written(directory)
    assert (one.outcome, one.final, one.status, one.possibly_billed) == ("cancelled", True, None, True)


async def test_a_hedged_request_has_both_records(
    sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path
) -> None:
    """The one that was let go of is not final."""
    late, quick = await upstream(Play([b""], "hang")), await upstream(completion())
    running, directory = await keeping(sidecar, tmp_path, late, quick, policy=HEDGED)
    for _ in range(30):
        running.app.gateway.generation.routes.registry.list()[0].live.answered(1, running.app.tools.clock())
    assert (await running.post()).status == 200
    await until(lambda: len(written(directory)) == 2)
    found = {one.upstream: (one.outcome, one.attempt, one.final) for one in written(directory)}
    assert found == {"p0/m": ("cancelled", 1, False), "p1/m": ("ok", 2, True)}


async def test_an_attempt_that_pauses_is_settled_when_the_client_leaves(
    sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path
) -> None:
    """Between a 500 and the second try nothing is open; what failed is final then."""
    answering = await upstream(error(500, "server_error"))
    running, directory = await keeping(sidecar, tmp_path, answering)
    asking = asyncio.create_task(running.post())
    await answering.arrived.wait()
    await until(lambda: running.app.metrics.attempts.total() == 1)
    assert written(directory) == []
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: bool(written(directory)))
    assert [(one.outcome, one.final) for one in written(directory)] == [("unavailable", True)]


async def test_no_secret_is_written(sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path) -> None:
    """Neither the sidecar's key, nor the provider's, nor what was said, nor an error's words about them."""
    refusing = await upstream(error(401, "invalid_api_key", message="bad key sk-provider-secret for 'my prompt'"))
    environ = {"P_KEY": "sk-provider-secret", "SIDECAR_API_KEYS": "sk-client-secret"}
    provider = {"api_key": "env:P_KEY"}
    running, directory = await keeping(sidecar, tmp_path, refusing, environ=environ, provider=provider)
    body = {**CHAT, "messages": [{"role": "user", "content": "my prompt"}], "user": "my name"}
    assert (await running.post(body, authorization="Bearer sk-client-secret")).status == 502
    data = b"".join(path.read_bytes() for path in directory.iterdir())
    assert b'"outcome":"auth"' in data
    assert all(word not in data for word in (b"secret", b"prompt", b"my name"))


async def test_serving_goes_on_when_the_disk_is_full(
    sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path
) -> None:
    """The log says so once, a metric counts, and clients do not notice."""
    running, directory = await keeping(sidecar, tmp_path, await upstream(completion()))
    with disk_of(0):
        assert [(await running.post()).status for _ in range(3)] == [200] * 3
    assert [line["error"] for line in running.log("ledger_failed")] == [f"{directory}: File too large"]
    assert "sidecar_ledger_lost_total 3\n" in (await running.get("/metrics")).body.decode()
    assert (await running.post()).status == 200
    assert len(written(directory)) == 1


async def test_without_a_ledger_nothing_is_written(
    sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path
) -> None:
    """It is off unless it is asked for."""
    running = await sidecar(await upstream(completion()))
    assert (await running.post()).status == 200
    assert not (tmp_path / "ledger").exists()


async def test_usage_without_a_finish_is_kept(sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path) -> None:
    """A stream whose usage came before it broke is billed by that, and needs no guess."""
    cut = stream(chunk({"content": "Hi"}), USAGE, end=False, then="reset")
    running, directory = await keeping(sidecar, tmp_path, await upstream(cut))
    await running.post(STREAM)
    (one,) = written(directory)
    assert (one.input, one.output, one.possibly_billed) == (10, 2, False)
    assert one.usd == pytest.approx(12e-6)
