"""Too many requests at once: who is turned away, how early, what is said about it, and that it ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from proxy.room import MOST, most_for
from tests.conftest import CHAT, Sidecar, StartSidecar, StartUpstream, Wire, check_error, request, until
from tests.fake_upstream import FakeUpstream, Play, completion

BODY = json.dumps(CHAT).encode()
HEAD = request(BODY).removesuffix(BODY)
BATCH = "x-sidecar-class: batch"
WAITS = Play([b"", *completion().pieces])

ways = pytest.mark.parametrize("known", [False, True], ids=["long way", "short lane"])


@asynccontextmanager
async def crowd(running: Sidecar, asked: FakeUpstream, count: int, *lines: str) -> AsyncIterator[list[Wire]]:
    """So many requests under way at once; they have their answers at the end."""
    async with AsyncExitStack() as stack:
        asked.go_on.clear()
        wires = [await stack.enter_async_context(running.connect()) for _ in range(count)]
        before = len(asked.requests)
        for wire in wires:
            wire.writer.write(request(BODY, *lines))
        await until(lambda: len(asked.requests) == before + count)
        yield wires
        asked.go_on.set()
        for wire in wires:
            assert (await wire.ask(b"")).text == "Hello"
    await until(lambda: len(running.app.sidecar.in_flight) == 0)


async def teach(running: Sidecar, *lines: str) -> None:
    """Let the next request with these lines in its head take the short lane."""
    assert (await running.raw(request(BODY, *lines))).status == 200


async def series(running: Sidecar, name: str) -> list[str]:
    """What /metrics says of `name`."""
    text = (await running.get("/metrics")).body.decode()
    return [line for line in text.splitlines() if line.startswith(name)]


@ways
async def test_one_too_many(sidecar: StartSidecar, upstream: StartUpstream, known: bool) -> None:
    """503 with a time to come back, nobody is asked, the connection stays, and when there is room all is well."""
    asked = await upstream(WAITS)
    running = await sidecar(asked, max_in_flight=3)
    async with running.connect() as late:
        if known:
            await teach(running)
        async with crowd(running, asked, 3):
            count = len(asked.requests)
            for _ in range(2):
                got = await late.ask(request(BODY))
                check_error(got, 503, "overloaded")
                assert got.headers["retry-after"] == "1"
                assert {"x-should-retry", "connection"}.isdisjoint(got.headers)
            assert (await running.get("/status")).json["in_flight"] == len(asked.requests) - count + 3 == 3
        assert (await late.ask(request(BODY))).text == "Hello"
    assert [line["code"] for line in running.log("refused")] == ["overloaded"] * 2


@ways
@pytest.mark.parametrize("begun", [b"", BODY[:-1]], ids=["no body", "half a body"])
async def test_the_refusal_does_not_wait_for_the_body(
    sidecar: StartSidecar, upstream: StartUpstream, known: bool, begun: bytes
) -> None:
    """The head decides; who asks for a go-ahead gets none, and the rest of a body is not taken for a request."""
    asked = await upstream(WAITS)
    running = await sidecar(asked, max_in_flight=1)
    if known:
        await teach(running)
    async with crowd(running, asked, 1), running.connect() as late:
        got = await late.ask(HEAD + begun)
        check_error(got, 503, "overloaded")
        assert got.headers["connection"] == "close"
        late.writer.write(BODY[len(begun) :])
        assert await late.closed()
        check_error(await running.raw(request(BODY, "expect: 100-continue")), 503, "overloaded")


@ways
async def test_a_body_that_comes_in_takes_a_place(sidecar: StartSidecar, upstream: StartUpstream, known: bool) -> None:
    """Half a request counts like a whole one: a thousand slow bodies are not free."""
    running = await sidecar(await upstream(), max_in_flight=1)
    if known:
        await teach(running)
    async with running.connect() as slow:
        slow.writer.write(HEAD + BODY[:-1])
        await until(lambda: len(running.app.sidecar.in_flight) == 1)
        check_error(await running.post(), 503, "overloaded")
        check_error(await running.post(path="/explain"), 503, "overloaded")
        assert (await slow.ask(BODY[-1:])).text == "Hello"
    assert (await running.post(path="/explain")).status == 200


@ways
async def test_batch_goes_first(sidecar: StartSidecar, upstream: StartUpstream, known: bool) -> None:
    """From four fifths on batch requests are turned away and people are not; each kind is counted."""
    asked = await upstream(WAITS)
    running = await sidecar(asked, max_in_flight=5)
    if known:
        await teach(running)
        await teach(running, BATCH)
    async with crowd(running, asked, 4, BATCH):
        check_error(await running.raw(request(BODY, BATCH)), 503, "overloaded")
        async with crowd(running, asked, 1):
            check_error(await running.raw(request(BODY, BATCH)), 503, "overloaded")
            check_error(await running.raw(request(BODY)), 503, "overloaded")
            asked.go_on.set()
    assert await series(running, "sidecar_shed_total{") == [
        'sidecar_shed_total{class="batch"} 2',
        'sidecar_shed_total{class="interactive"} 1',
    ]


async def test_a_room_for_one_takes_batch(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """However small the room, an idle sidecar takes anything."""
    running = await sidecar(await upstream(), max_in_flight=1)
    assert (await running.post(x_sidecar_class=" Batch")).status == 200


@ways
async def test_a_class_that_means_nothing(sidecar: StartSidecar, upstream: StartUpstream, known: bool) -> None:
    """A misspelt class would be taken for a person's."""
    running = await sidecar(await upstream())
    if known:
        await teach(running)
    got = await running.post(x_sidecar_class="bulk")
    check_error(got, 400, "invalid_value")
    assert got.error["param"] == "x-sidecar-class"


async def test_probes_and_numbers_are_never_turned_away(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Whoever looks why it is full finds out: what is under way, what may be, and that the process is well."""
    asked = await upstream(WAITS)
    running = await sidecar(asked, max_in_flight=2)
    async with crowd(running, asked, 2):
        for path in ("/livez", "/readyz", "/v1/models"):
            assert (await running.get(path)).status == 200
        status = (await running.get("/status")).json
        assert (status["in_flight"], status["max_in_flight"]) == (2, 2)
        assert await series(running, "sidecar_in_flight ") == ["sidecar_in_flight 2"]
        assert await series(running, "sidecar_max_in_flight ") == ["sidecar_max_in_flight 2"]


@ways
async def test_a_burst_of_three_times_as_many(sidecar: StartSidecar, upstream: StartUpstream, known: bool) -> None:
    """L11: the first ones in are served to their end, every other one is told at once, and no place is lost."""
    asked = await upstream(WAITS)
    running = await sidecar(asked, max_in_flight=20)
    if known:
        await teach(running)
    for _ in range(2):
        asked.go_on.clear()
        asking = [asyncio.create_task(running.raw(request(BODY))) for _ in range(60)]
        await until(lambda tasks=asking: sum(task.done() for task in tasks) == 40)  # type: ignore[misc]
        asked.go_on.set()
        assert sorted([(await task).status for task in asking]) == [200] * 20 + [503] * 40


async def test_places_of_clients_that_left_are_free(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Nobody holds a place who is not there any more."""
    asked = await upstream(completion(), Play([], "hang"))
    running = await sidecar(asked, max_in_flight=2)
    await teach(running)
    for _ in range(3):
        async with running.connect() as one, running.connect() as other:
            one.writer.write(request(BODY))
            other.writer.write(request(BODY, "x-other: 1")[:-1])
            await until(lambda: len(running.app.sidecar.in_flight) == 2)
        await until(lambda: len(running.app.sidecar.in_flight) == 0)


async def test_refusals_do_not_pile_up(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A client that asks on and on and does not read is refused once, and then no more until it has read that."""
    asked = await upstream(WAITS)
    running = await sidecar(asked, max_in_flight=1)
    await teach(running)
    async with crowd(running, asked, 1), running.connect() as deaf:
        check_error(await deaf.ask(request(BODY)), 503, "overloaded")
        ((_, server),) = running.app._listeners
        connection = next(one for one in server.connections if one._answering is None)  # type: ignore[attr-defined]
        connection.pause_writing()  # as the event loop says when a client takes nothing
        check_error(await deaf.ask(request(BODY)), 503, "overloaded")
        deaf.writer.write(request(BODY))
        for _ in range(3):  # by then it would have been read and refused
            assert (await running.get("/livez")).status == 200
        assert len(running.log("refused")) == 2
        connection.resume_writing()
        check_error(await deaf.ask(b""), 503, "overloaded")


def test_the_default_is_what_files_allow() -> None:
    """Two files for each request; never more than one core can serve, never none."""
    assert [most_for(files) for files in (10, 256, 1024, 10_200, 1 << 20)] == [1, 28, 412, MOST, MOST]
