"""Raw HTTP against a running sidecar: each case is one request, or none. See `raw_cases`."""

import asyncio

import pytest

from tests.conftest import Got, Sidecar, StartSidecar, StartUpstream, Wire, request
from tests.fake_upstream import FakeUpstream

from .raw_cases import BODY, CASES, SECRET, Case, head

GOOD = head(f"content-length: {len(BODY)}") + BODY


async def answer(wire: Wire) -> Got:
    """Read one answer; what has a status below 200 has no body."""
    got = await wire.ask(b"", head=True)
    if got.status >= 200:
        got.body = await wire._body(got.headers)
    return got


async def outcome(wire: Wire, case: Case) -> list[Got]:
    """Send the case and read its answers; fails when there are more or fewer, or when the connection is not as said."""
    wire.writer.write(case.data)
    got = [await answer(wire) for _ in case.statuses]
    if case.then == "open":
        assert (await wire.ask(request(path="/livez"))).json == {"status": "ok"}
    if case.then == "waiting":
        await asyncio.sleep(0.02)  # for an answer that must not come
        wire.writer.write_eof()
    if case.then != "open":
        assert await wire.closed()
    return got


def check_answer(got: Got) -> None:
    """It is an answer of ours, in OpenAI's words."""
    if got.status < 400:
        return
    assert {"message", "type", "param", "code"} <= got.error.keys()
    assert got.headers["content-type"] == "application/json"
    assert got.headers["x-request-id"]
    assert "Traceback" not in got.body.decode()


async def check_case(running: Sidecar, asked: FakeUpstream, case: Case, *, known: bool) -> str:
    """Try the case on a connection of its own, `known` behind two good requests; returns all that was told."""
    async with running.connect() as wire:
        for _ in range(2 * known):
            assert (await wire.ask(GOOD)).text == "Hello"
        before = len(asked.requests)
        got = await outcome(wire, case)
    for one in got:
        check_answer(one)
    calls = asked.requests[before:]
    assert tuple(one.status for one in got) == case.statuses
    assert len(calls) == case.asked
    assert sum(b"SMUGGLED" in one.body for one in calls) == max(0, len(case.statuses) - 1)
    for call in calls:
        assert (call.json["model"], int(call.headers["content-length"])) == ("m", len(call.body))
    assert running.log("fault") == []
    return "".join([*map(str, got), str(running.lines)])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_one_request_or_none(
    sidecar: StartSidecar,
    upstream: StartUpstream,
    case: Case,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Answers and upstream calls are as many as said, hidden requests are never served, and no key is repeated: first
    with a head that nobody has seen, then behind requests that took the short lane.
    """
    asked = await upstream()
    running = await sidecar(asked)
    told = [await check_case(running, asked, case, known=known) for known in (False, True)]
    assert SECRET[:12] not in "".join([*told, *capfd.readouterr(), caplog.text])


def test_there_are_enough() -> None:
    """The table is long, and nothing stands in it twice."""
    assert len(CASES) >= 60
    assert len({case.data for case in CASES.values()}) == len(CASES)
