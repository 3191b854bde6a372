"""Large bodies are decoded one after the other, so that many at once do not hold everybody else up."""

import msgspec

from tests.conftest import StartSidecar, StartUpstream, request, until
from tests.fake_upstream import completion

LARGE = b'{"model":"test","messages":[{"role":"user","content":"%b"}]}' % (b"x" * 300_000)


async def test_small_requests_pass_large_ones_that_wait(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """While a large body has its turn the next one waits for it, and a small one does not."""
    asked = await upstream(completion())
    running = await sidecar(asked)
    async with running.app.sidecar._large, running.connect() as large:
        large.writer.write(request(LARGE))
        await until(lambda: len(running.app.sidecar.in_flight) == 1)
        assert (await running.post()).text == "Hello"
        assert [len(one.body) < len(LARGE) for one in asked.requests] == [True]
    assert (await running.post(msgspec.Raw(LARGE))).text == "Hello"


async def test_a_client_that_leaves_while_its_body_waits(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """It is in the log like any other that left, and nobody was asked for it."""
    asked = await upstream(completion())
    running = await sidecar(asked)
    async with running.app.sidecar._large:
        async with running.connect() as large:
            large.writer.write(request(LARGE))
            await until(lambda: len(running.app.sidecar.in_flight) == 1)
            large.writer.transport.abort()
        await until(lambda: not running.app.sidecar.in_flight)
    assert [(line["status"], line["code"]) for line in running.log("refused")] == [(499, "client_cancelled")]
    assert asked.requests == []


async def test_the_end_does_not_wait_for_bodies(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Who waits when the sidecar has to stop is told so."""
    running = await sidecar(await upstream(completion()))
    async with running.app.sidecar._large, running.connect() as large:
        large.writer.write(request(LARGE))
        await until(lambda: len(running.app.sidecar.in_flight) == 1)
        await running.app.stop()
        got = await large.ask(b"")
    assert (got.status, got.error["code"]) == (503, "shutting_down")
