"""Policy files change under a running sidecar: what takes over, what stays, and what is said about it."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.conftest import CHAT, IN_ORDER, STREAM, Sidecar, StartSidecar, StartUpstream, catalog, until
from tests.fake_upstream import completion, error, events, stream

BROKEN = 'strategy = "cheepest"'
DEAR = 'strategy = "quality"\n'


def changes(running: Sidecar) -> list[list[str]]:
    """What each reload changed, the first one first."""
    return [line["changes"] for line in running.log("reloaded")]


async def metric(running: Sidecar, outcome: str) -> str:
    """How many reloads ended like this, as the metrics say it."""
    text = (await running.get("/metrics")).body.decode()
    return next((line for line in text.splitlines() if f'reloads_total{{outcome="{outcome}"}}' in line), "").split()[-1]


async def test_a_changed_file_takes_over(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The next request is routed by the new file, and the log says what changed."""
    running = await sidecar(await upstream(completion("cheap")), await upstream(completion("good")))
    assert (await running.post()).text == "cheap"

    (running.directory / "test.toml").write_text(DEAR)
    running.app.check_files()

    assert (await running.post()).text == "good"
    assert changes(running) == [["~ policy test"]]
    assert running.log("reloaded")[0]["generation"] == 2


async def test_the_same_files_are_left_alone(sidecar: StartSidecar) -> None:
    """Content counts, not times: a file written again, or one that is no policy file, changes nothing."""
    running = await sidecar()
    before = running.app.gateway.generation

    (running.directory / "test.toml").write_text(IN_ORDER)
    (running.directory / "notes.txt").write_text("not ours")
    (running.directory / ".test.toml").write_text(BROKEN)
    running.app.check_files()

    assert running.app.gateway.generation is before
    assert (running.log("reloaded"), running.log("reload_refused")) == ([], [])


async def test_a_file_appears_and_goes(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A new file is a new model name at once; without the file the name does not exist any more."""
    running = await sidecar(await upstream(), await upstream())
    body = {**CHAT, "model": "extra"}
    (running.directory / "extra.toml").write_text(IN_ORDER)
    running.app.check_files()
    assert (await running.post(body)).status == 200

    (running.directory / "extra.toml").unlink()
    running.app.check_files()

    assert (await running.post(body)).error["code"] == "model_not_found"
    assert changes(running) == [["+ policy extra"], ["- policy extra"]]


async def test_a_directory_swapped_by_a_symlink(sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path) -> None:
    """As Kubernetes does it: the path stays, what it points to is another directory from one moment to the next."""
    running = await sidecar(await upstream(completion("cheap")), await upstream(completion("good")))
    old, new, swap = tmp_path / "old", tmp_path / "new", tmp_path / "swap"
    running.directory.rename(old)
    running.directory.symlink_to(old, target_is_directory=True)
    shutil.copytree(old, new)
    (new / "test.toml").write_text(DEAR)
    running.app.check_files()
    assert changes(running) == []

    swap.symlink_to(new, target_is_directory=True)
    swap.replace(running.directory)
    running.app.check_files()

    assert (changes(running), (await running.post()).text) == ([["~ policy test"]], "good")


async def test_the_files_are_watched(sidecar: StartSidecar) -> None:
    """Nobody has to say that a file has changed."""
    running = await sidecar()
    (running.directory / "test.toml").write_text(DEAR)
    await until(lambda: changes(running) == [["~ policy test"]])
    assert await metric(running, "ok") == "1"


async def test_reload_looks_at_once(sidecar: StartSidecar) -> None:
    """Told to reload, the sidecar does so with unchanged files, too: a key file may be another one now."""
    running = await sidecar()

    running.app.reload()
    await until(lambda: changes(running) != [])

    assert changes(running) == [[]]
    assert running.app.gateway.generation.number == 2


async def test_a_reload_reads_key_files_again(sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path) -> None:
    """A key that was rotated in its file is the one that is sent after a reload."""
    asked, key = await upstream(), tmp_path / "key"
    key.write_text("old\n")
    running = await sidecar(asked, provider={"api_key": f"file:{key}"})
    await running.post()

    key.write_text("new\n")
    running.app.reload()
    await until(lambda: changes(running) != [])
    await running.post()

    assert [request.headers["authorization"] for request in asked.requests] == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("test.toml", BROKEN, "test.toml: strategy: 'cheepest' is not known; did you mean 'cheapest'?"),
        ("test.toml", "", "test.toml: the file is empty"),
        ("catalog.toml", catalog(adapter="opnai"), "catalog.toml: provider 'p0': no adapter 'opnai'"),
        ("new.toml", 'candidates = ["p7/m"]', "new.toml: candidates: no upstream 'p7/m' in the catalog"),
    ],
    ids=["word", "empty", "adapter", "new"],
)
async def test_broken_files_leave_everything_as_it_was(
    sidecar: StartSidecar, upstream: StartUpstream, name: str, text: str, problem: str
) -> None:
    """The last good files stay in force, and what is wrong is logged once however often it is looked at."""
    running = await sidecar(await upstream())
    before = running.app.gateway.generation

    (running.directory / name).write_text(text)
    for _ in range(3):
        running.app.check_files()

    assert running.app.gateway.generation is before
    assert (await running.post()).status == 200
    (refused,) = running.log("reload_refused")
    assert refused["problems"][0].startswith(problem)
    assert await metric(running, "invalid") == "1"


async def test_mended_files_take_over_and_a_new_fault_is_told_again(sidecar: StartSidecar) -> None:
    """Each fault is told when it appears, also the same one for the second time."""
    running = await sidecar()
    for text in (BROKEN, IN_ORDER, BROKEN, DEAR):
        (running.directory / "test.toml").write_text(text)
        running.app.check_files()

    assert changes(running) == [[], ["~ policy test"]]
    assert len(running.log("reload_refused")) == 2


async def test_told_to_reload_a_broken_file_is_told_again(sidecar: StartSidecar) -> None:
    """Whoever asks for a reload wants to know why there is none."""
    running = await sidecar()
    (running.directory / "test.toml").write_text(BROKEN)
    running.app.check_files()

    running.app.reload()

    await until(lambda: len(running.log("reload_refused")) == 2)


async def test_a_directory_that_is_gone_changes_nothing(
    sidecar: StartSidecar, upstream: StartUpstream, tmp_path: Path
) -> None:
    """While the directory is away everything runs on; it is told once each time that it goes."""
    running = await sidecar(await upstream())
    for _ in range(2):
        running.directory.rename(tmp_path / "away")
        running.app.check_files()
        running.app.check_files()
        assert (await running.post()).status == 200
        (tmp_path / "away").rename(running.directory)
        running.app.check_files()

    refused = [line["problems"] for line in running.log("reload_refused")]
    assert refused == [[f"{running.directory}: No such file or directory"]] * 2
    assert changes(running) == []


async def test_live_numbers_and_rests_survive(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A reload forgets nothing that was learnt about upstreams that are still there."""
    limited = await upstream(error(429, retry_after="60"))
    running = await sidecar(limited, await upstream())
    await running.post()
    before = (await running.get("/status")).json["upstreams"]
    assert before["p0/m"]["resting_s"] > 50

    (running.directory / "test.toml").write_text(IN_ORDER + 'description = "new"')
    running.app.check_files()
    after = (await running.get("/status")).json["upstreams"]

    kept = ("breaker", "requests", "errors", "tokens", "spend_usd")
    assert [[row[name] for name in kept] for row in after.values()] == [
        [row[name] for name in kept] for row in before.values()
    ]
    assert (await running.post()).headers["x-sidecar-upstream"] == "p1/m"
    assert (after["p0/m"]["resting_s"] > 50, len(limited.requests)) == (True, 1)


async def test_an_upstream_that_comes_back_starts_anew(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """What left the catalog is forgotten; what is added is asked like any other."""
    first, second = await upstream(error(429, retry_after="60"), completion("again")), await upstream()
    running = await sidecar(first, second)
    both = (running.directory / "catalog.toml").read_text()
    await running.post()

    alone = catalog(second).replace("p0", "p1")
    for text in (alone, both):
        (running.directory / "catalog.toml").write_text(text)
        running.app.check_files()

    assert (await running.post()).text == "again"
    assert [changed[:1] for changed in changes(running)] == [["- provider p0"], ["+ provider p0"]]


async def test_a_stream_is_never_touched(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A stream under way when its upstream leaves the catalog ends as it would have."""
    play = stream(*events("one", "two"))
    asked = await upstream(play._replace(pieces=[b"".join(play.pieces[:3]), *play.pieces[3:]]))
    running, other = await sidecar(asked), await upstream()
    asked.go_on.clear()
    async with running.session.post(running.url + "/chat/completions", json=STREAM) as response:
        (running.directory / "catalog.toml").write_text(catalog(other))
        running.app.check_files()
        asked.go_on.set()
        body = await response.read()

    assert body.endswith(b"data: [DONE]\n\n")
    assert (changes(running), other.requests) == ([["~ provider p0"]], [])


async def test_reloads_under_load(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """L8: ten reloads, two of them broken, while requests go on and streams are open: none fails, none is cut."""
    cheap, good = await upstream(stream(*events("cheap"))), await upstream(stream(*events("good")))
    slow = await upstream(stream(*events("one", "two")))
    two = 'candidates = ["p0/m", "p1/m"]\n'
    running = await sidecar(cheap, good, slow, policy=IN_ORDER + two, files={"slow.toml": 'candidates = ["p2/m"]\n'})
    slow.go_on.clear()
    opened = [asyncio.create_task(running.post({**STREAM, "model": "slow"})) for _ in range(20)]
    await until(lambda: len(slow.requests) == 20)
    answers: list[tuple[int, str, bytes]] = []
    enough = asyncio.Event()

    async def ask_on() -> None:
        while not enough.is_set():
            got = await running.post(STREAM)
            answers.append((got.status, got.text, got.events[-1]))

    asking = [asyncio.create_task(ask_on()) for _ in range(8)]
    for number in range(10):
        text = BROKEN if number % 4 == 3 else f'description = "{number}"\n' + two + (DEAR if number % 2 else IN_ORDER)
        (running.directory / "test.toml").write_text(text)
        running.app.reload()
        seen = len(answers)
        await until(lambda: len(changes(running)) + len(running.log("reload_refused")) == number + 1)  # noqa: B023
        await until(lambda: len(answers) >= seen + 20)  # noqa: B023
    enough.set()
    await asyncio.gather(*asking)
    slow.go_on.set()

    assert set(answers) == {(200, "cheap", b"[DONE]"), (200, "good", b"[DONE]")}
    assert {(got.text, got.events[-1]) for got in await asyncio.gather(*opened)} == {("onetwo", b"[DONE]")}
    assert (await metric(running, "ok"), await metric(running, "invalid")) == ("8", "2")
    assert running.log("fault") == running.log("attempt_failed") == []


async def test_a_reload_does_not_keep_the_sidecar_from_stopping(sidecar: StartSidecar) -> None:
    """Told to reload and then to stop in one breath, it stops."""
    running = await sidecar()
    running.app.reload()
    async with asyncio.timeout(2):
        await running.app.stop()
