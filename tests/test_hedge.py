"""A second upstream beside a late one: who answers, who is let go, what it costs."""

import asyncio
import re
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from proxy.answers import Answer, StreamAnswer
from proxy.budget import HEDGES_SAVED, Budget
from proxy.gateway import Overrides
from proxy.stats import LatencySketch
from proxy.wire import decode_chat
from tests.conftest import CHAT, STREAM, Sidecar, StartSidecar, StartUpstream, catalog, check_error, until
from tests.fake_upstream import FakeUpstream, Play, completion, error, events, stream

HEDGED = 'strategy = "cheapest"\nfallback = { hedge = 1.0 }\n'
both = pytest.mark.parametrize("body", [CHAT, STREAM], ids=["complete", "stream"])


def healthy(text: str) -> list[Play]:
    """A complete answer, whoever asks first, then a stream."""
    return [completion(text), stream(*events(text))]


def says(text: str, body: dict[str, Any]) -> Play:
    return healthy(text)[body is STREAM]


def held(play: Play) -> Play:
    """The same, behind an empty piece: it comes once the upstream may go on."""
    return play._replace(pieces=[b"", *play.pieces])


@pytest.fixture
def hedged(sidecar: StartSidecar) -> StartSidecar:
    """A sidecar that hedges, in front of upstreams that are late after some 30 ms, or after 6/10 of `p99_ms`."""

    async def start(*upstreams: FakeUpstream | str, policy: str = HEDGED, p99_ms: int = 50, **options: Any) -> Sidecar:
        prior = f"p50_ms = {p99_ms // 5}, p99_ms = {p99_ms}"
        quick = re.sub(r"p50_ms = \d+", prior, catalog(*upstreams))
        return await sidecar(*upstreams, policy=policy, files={"catalog.toml": quick}, **options)

    return start


async def counted(running: Sidecar) -> set[str]:
    """The series of hedges, without the name."""
    lines = (await running.get("/metrics")).body.decode().splitlines()
    return {line.removeprefix("sidecar_hedges_total") for line in lines if line.startswith("sidecar_hedges_total{")}


async def in_flight(running: Sidecar) -> list[int]:
    upstreams = (await running.get("/status")).json["upstreams"]
    return [row["in_flight"] for row in upstreams.values()]


@both
async def test_a_late_upstream_is_overtaken(
    hedged: StartSidecar, upstream: StartUpstream, body: dict[str, Any]
) -> None:
    """The second answers, the first is let go: its connection closes, and nothing counts against it."""
    late, other = await upstream(Play([], "hang")), await upstream(says("B", body))
    running = await hedged(late, other)

    got = await running.post(body)

    assert (got.status, got.text, got.headers["x-sidecar-upstream"]) == (200, "B", "p1/m")
    assert got.headers["x-sidecar-attempts"] == "2"
    await late.idle.wait()
    assert await in_flight(running) == [0, 0]
    row = (await running.get("/status")).json["upstreams"]["p0/m"]
    # It would have taken at least so long: that is learnt, or the next one would be late even sooner.
    assert (row["errors"], row["first_token_ms" if body is STREAM else "latency_ms"]["p50"] > 10) == (0, True)
    proxy, spent = (float(one.rpartition("=")[2]) for one in got.headers["server-timing"].split(","))
    assert 0 <= proxy < spent > 20
    assert await counted(running) == {'{upstream="p0/m",winner="second"} 1'}
    assert [(line["upstream"], line["winner"]) for line in running.log("hedged")] == [("p0/m", "second")]


@both
async def test_who_is_in_time_is_alone(hedged: StartSidecar, upstream: StartUpstream, body: dict[str, Any]) -> None:
    """Nobody else is asked, and nothing is counted, as long as answers come when they usually do."""
    first, other = await upstream(says("A", body)), await upstream()
    running = await hedged(first, other, p99_ms=5000)
    assert {(await running.post(body)).text for _ in range(5)} == {"A"}
    assert (other.requests, await counted(running)) == ([], set())


@both
async def test_hedging_is_off_by_default(hedged: StartSidecar, upstream: StartUpstream, body: dict[str, Any]) -> None:
    """However late the first is, without the policy's word nobody else is asked."""
    late, other = await upstream(held(says("A", body))), await upstream()
    late.go_on.clear()
    asked = asyncio.create_task((await hedged(late, other, policy='strategy = "cheapest"\n')).post(body))
    await late.arrived.wait()
    with suppress(TimeoutError):
        await asyncio.wait_for(other.arrived.wait(), 0.2)
    late.go_on.set()
    assert ((await asked).text, other.requests) == ("A", [])


@both
async def test_a_late_first_may_still_win(hedged: StartSidecar, upstream: StartUpstream, body: dict[str, Any]) -> None:
    """Who speaks first wins; the other one is let go, and the client sees one answer."""
    late, slower = await upstream(held(says("A", body))), await upstream(Play([], "hang"))
    late.go_on.clear()
    running = await hedged(late, slower)
    asked = asyncio.create_task(running.post(body))
    await slower.arrived.wait()
    late.go_on.set()

    got = await asked

    assert (got.text, got.headers["x-sidecar-upstream"], got.headers["x-sidecar-attempts"]) == ("A", "p0/m", "2")
    await slower.idle.wait()
    assert await in_flight(running) == [0, 0]


@both
async def test_a_hedged_answer_is_whole(hedged: StartSidecar, upstream: StartUpstream, body: dict[str, Any]) -> None:
    """Both answer at the same moment, many times: every answer is one of them, whole, and nothing stays open."""
    plays = held(stream(*events("A", "A", "A")) if body is STREAM else completion("AAA"))
    others = held(stream(*events("B", "B", "B")) if body is STREAM else completion("BBB"))
    first, second = await upstream(plays), await upstream(others)
    running = await hedged(first, second)
    stats = running.app.gateway.generation.routes.registry.list()[0].live.stats
    for turn in range(6):
        stats.latency = stats.first_token = LatencySketch(
            10, 50
        )  # what was late does not make the next one wait longer
        first.go_on.clear()
        second.go_on.clear()
        asked = asyncio.create_task(running.post(body))
        await until(lambda turn=turn: len(second.requests) == turn + 1)  # type: ignore[misc]
        for one in (first, second) if turn % 2 else (second, first):
            one.go_on.set()
        assert (await asked).text in ("AAA", "BBB")
    assert await in_flight(running) == [0, 0]
    assert running.log("fault") == []


@both
async def test_a_first_that_fails_late_is_noted(
    hedged: StartSidecar, upstream: StartUpstream, body: dict[str, Any]
) -> None:
    """The second was under way already: its answer is taken, and the first one's fault stands in the log."""
    late, other = await upstream(held(error(500))), await upstream(held(says("B", body)))
    late.go_on.clear()
    other.go_on.clear()
    running = await hedged(late, other)
    asked = asyncio.create_task(running.post(body))
    await other.arrived.wait()
    late.go_on.set()
    await until(lambda: running.app.tools.metrics.attempts.values.get(("p0/m", "unavailable")) == 1)
    other.go_on.set()

    got = await asked

    assert (got.text, got.headers["x-sidecar-attempts"]) == ("B", "2")
    assert [(line["upstream"], line["next"]) for line in running.log("attempt_failed")] == [("p0/m", "p1/m")]


@both
async def test_when_both_fail_the_next_is_asked(
    hedged: StartSidecar, upstream: StartUpstream, body: dict[str, Any]
) -> None:
    """And without a next one the client is told, with all that was tried."""
    late, bad, good = await upstream(held(error(500))), await upstream(error(529)), await upstream(says("C", body))
    for ups, policy in (((late, bad, good), HEDGED), ((late, bad), HEDGED.replace("1.0", "1.0, attempts = 2"))):
        late.go_on.clear()
        bad.arrived.clear()
        running = await hedged(*ups, policy=policy)
        asked = asyncio.create_task(running.post(body))
        await bad.arrived.wait()
        await until(lambda on=running: on.app.tools.metrics.attempts.values.get(("p1/m", "overloaded")) == 1)  # type: ignore[misc]
        late.go_on.set()
        got = await asked
        if len(ups) == 3:
            assert (got.text, got.headers["x-sidecar-attempts"]) == ("C", "3")
        else:
            check_error(got, 500, "server_error")
            assert [one["upstream"] for one in got.error["metadata"]["attempts"]] == ["p1/m", "p0/m"]
        assert await counted(running) == {'{upstream="p0/m",winner="none"} 1'}


@both
async def test_a_client_that_leaves_ends_both(
    hedged: StartSidecar, upstream: StartUpstream, body: dict[str, Any]
) -> None:
    """Both connections close and both attempts end; nobody is blamed."""
    late, other = await upstream(Play([], "hang")), await upstream(Play([], "hang"))
    running = await hedged(late, other)
    asked = asyncio.create_task(running.post(body))
    await other.arrived.wait()

    asked.cancel()
    await late.idle.wait()
    await other.idle.wait()

    await until(lambda: not running.app.sidecar.in_flight)
    assert await in_flight(running) == [0, 0]
    outcomes = running.app.tools.metrics.attempts.values
    assert outcomes == {("p0/m", "cancelled"): 1, ("p1/m", "cancelled"): 1}


async def test_hedges_keep_to_their_share(hedged: StartSidecar, upstream: StartUpstream) -> None:
    """With a half, the first late request waits for its upstream, and the second has another one."""
    late, other = await upstream(held(completion("A"))), await upstream(completion("B"))
    running = await hedged(late, other, policy=HEDGED.replace("1.0", "0.5"))
    late.go_on.clear()
    asked = asyncio.create_task(running.post())
    with suppress(TimeoutError):
        await asyncio.wait_for(other.arrived.wait(), 0.2)
    late.go_on.set()
    assert ((await asked).text, other.requests) == ("A", [])

    late.go_on.clear()
    assert (await running.post()).text == "B"


async def test_who_is_not_asked_beside_is_still_there_behind(hedged: StartSidecar, upstream: StartUpstream) -> None:
    """A hedge that the share does not allow takes nobody out of the chain: the late one fails, the next answers."""
    late, other = await upstream(held(error(500))), await upstream(completion("B"))
    running = await hedged(late, other, policy=HEDGED.replace("1.0", "0.5"))
    late.go_on.clear()
    asked = asyncio.create_task(running.post())
    with suppress(TimeoutError):
        await asyncio.wait_for(other.arrived.wait(), 0.2)
    assert other.requests == []
    late.go_on.set()
    assert (await asked).text == "B"


@pytest.mark.parametrize(("policy", "headers"), [(", attempts = 1", {}), ("", {"x_sidecar_fallback": "off"})])
async def test_one_attempt_is_never_hedged(
    hedged: StartSidecar, upstream: StartUpstream, policy: str, headers: dict[str, str]
) -> None:
    """A hedge is an attempt, and another upstream: who allows neither gets none."""
    late, other = await upstream(held(completion("A"))), await upstream()
    late.go_on.clear()
    running = await hedged(late, other, policy=HEDGED.replace("1.0", f"1.0{policy}"))
    asked = asyncio.create_task(running.post(**headers))
    with suppress(TimeoutError):
        await asyncio.wait_for(other.arrived.wait(), 0.2)
    late.go_on.set()
    assert ((await asked).text, other.requests) == ("A", [])


async def test_a_hedging_policy_keeps_to_one_probe(hedged: StartSidecar, upstream: StartUpstream) -> None:
    """Its attempts start a moment after they were decided: whoever is no longer welcome then asks the next."""
    dark, other = await upstream(*[error(529)] * 5, Play([], "hang")), await upstream()
    running = await hedged(dark, other, p99_ms=5000)
    for _ in range(5):
        await running.post()
    breaker = running.app.gateway.generation.routes.registry.list()[0].live.breaker
    assert breaker.rest is not None
    breaker.rest = breaker.rest._replace(until=0.0)

    asked = [asyncio.create_task(ask(running)) for _ in range(20)]
    await until(lambda: sum(one.done() for one in asked) == 19)

    assert (len(dark.requests), len(other.requests)) == (6, 5 + 19)
    for one in asked:
        one.cancel()


async def ask(running: Sidecar) -> Answer | StreamAnswer:
    """Decide and ask in one turn of the event loop, as the main door does."""
    gateway, said = running.app.gateway, Overrides()
    request = decode_chat(msgspec.json.encode(CHAT), 0)
    plan = gateway.plan(request, said)
    return await gateway.go(gateway.walk(request, plan, "r", said), plan, said)


def test_the_budget_of_hedges() -> None:
    """A share of the requests, exactly; and after a quiet day no more at once than a few."""
    budget = Budget(0.0)
    granted = 0
    for _ in range(10_000):
        budget.requests += 1
        granted += budget.hedge(0.05)
    assert granted == pytest.approx(500, abs=1)

    budget.requests += 1_000_000
    assert sum(budget.hedge(0.05) for _ in range(1000)) == HEDGES_SAVED
