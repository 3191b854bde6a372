"""Along the chain: who is asked after whom, how often, and what is remembered of it."""

import asyncio

import pytest

from proxy.optimizer import RANKED_S
from tests.conftest import CHAT, STREAM, StartSidecar, StartUpstream, check_error, until
from tests.fake_upstream import Play, completion, error, events, stream

FALLBACK = 'strategy = "cheapest"\n[fallback]\n'


async def test_the_chain_is_walked_in_order(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Best first, then the next best, until one answers; nobody after that is asked."""
    ups = [await upstream(error(500)), await upstream(error(429)), await upstream(), await upstream()]

    got = await (await sidecar(*ups)).post()

    assert [len(one.requests) for one in ups] == [1, 1, 1, 0]
    assert (got.text, got.headers["x-sidecar-attempts"], got.headers["x-sidecar-upstream"]) == ("Hello", "3", "p2/m")


async def test_attempts_are_bounded(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """`attempts` counts the first one."""
    ups = [await upstream(error(500)) for _ in range(4)]
    got = await (await sidecar(*ups, policy=FALLBACK + "attempts = 2\n")).post()
    assert [len(one.requests) for one in ups] == [1, 1, 0, 0]
    check_error(got, 500, "server_error")
    assert len(got.error["metadata"]["attempts"]) == 2


async def test_a_fixed_chain(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Behind a primary with a chain of its own, that chain and nothing else."""
    ups = [await upstream(error(500)), await upstream(), await upstream()]
    got = await (await sidecar(*ups, policy=FALLBACK + 'chain = { "p0/m" = ["p2/m"] }\n')).post()
    assert got.headers["x-sidecar-upstream"] == "p2/m"
    assert ups[1].requests == []


KINDS = {
    "rate_limit": error(429), "quota": error(429, "insufficient_quota"), "timeout": error(504), "auth": error(401),
    "unavailable": error(500), "overloaded": error(529), "context_length": error(400, "context_length_exceeded"),
    "content_filter": error(400, "content_filter"), "not_found": error(404), "invalid_request": error(400),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
async def test_on_is_the_whole_truth(sidecar: StartSidecar, upstream: StartUpstream, kind: str) -> None:
    """A kind falls back if the policy lists it and not if it does not; `rate_limit` brings `quota` along."""
    listed = await sidecar(await upstream(KINDS[kind]), await upstream(), policy=FALLBACK + f'on = ["{kind}"]\n')
    others = [one for one in KINDS if one not in (kind, "rate_limit" if kind == "quota" else kind)]
    unlisted = await sidecar(await upstream(KINDS[kind]), await upstream(), policy=FALLBACK + f"on = {others}\n")

    assert (await listed.post()).status == 200
    assert (await unlisted.post()).status >= 400


async def test_too_long_goes_on_to_a_larger_context_only(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Who surely takes no more than the one that found it too long is passed over; nobody left is the client's 400."""
    long = error(400, "context_length_exceeded")
    ups = [await upstream(long), await upstream(), await upstream(completion("large"))]
    facts = "".join(
        f'[[provider]]\nname = "p{at}"\nbase_url = "{one.url}"\n[[model]]\nprovider = "p{at}"\nid = "m"\n'
        f"context = {size}\nprice = {{ input = {at + 1}, output = 1 }}\n"
        for at, (one, size) in enumerate(zip(ups, (8000, 8000, 32_000), strict=True))
    )
    listed = FALLBACK + 'on = ["context_length"]\n'
    running = await sidecar(files={"catalog.toml": facts}, policy=listed)
    alone = await sidecar(files={"catalog.toml": facts}, policy=f'candidates = ["p0/m", "p1/m"]\n{listed}')

    got = await running.post()

    assert (got.text, got.headers["x-sidecar-attempts"], ups[1].requests) == ("large", "2", [])
    check_error(await alone.post(), 400, "context_length_exceeded")
    assert ups[1].requests == []


async def test_who_began_to_rest_meanwhile_is_passed_over(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The chain is decided at the start; whoever rests by the time of its turn is not asked."""
    held = Play([b"", *error(500).pieces])
    slow, limited, last = await upstream(held), await upstream(error(429)), await upstream()
    running = await sidecar(slow, limited, last)
    slow.go_on.clear()
    first = asyncio.create_task(running.post())
    await slow.arrived.wait()
    await running.post({**CHAT, "model": "p1/m"})
    slow.go_on.set()

    got = await first

    assert (got.headers["x-sidecar-upstream"], got.headers["x-sidecar-attempts"]) == ("p2/m", "2")
    assert len(limited.requests) == 1


async def test_who_cannot_carry_it_is_no_attempt(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """An upstream whose language lacks the words is skipped; when all do, the client is told which field."""
    ups = [await upstream(), await upstream()]
    running = await sidecar(*ups)
    text = (running.directory / "catalog.toml").read_text()
    (running.directory / "catalog.toml").write_text(text.replace('name = "p0"', 'name = "p0"\nadapter = "anthropic"'))
    running.app.check_files()
    body = {
        **CHAT,
        "messages": [
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}
        ],
    }

    got = await running.post(body)
    assert (got.headers["x-sidecar-upstream"], got.headers["x-sidecar-attempts"]) == ("p1/m", "1")

    got = await running.post({**body, "model": "p0/m"})
    assert (got.status, got.error["code"], got.headers["x-sidecar-attempts"]) == (400, "unsupported_parameter", "0")
    assert ups[0].requests == []


async def test_a_fault_outlasts_who_was_never_asked(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """When the last one could not carry the request, the client gets the fault of the last one that was asked."""
    running = await sidecar(await upstream(error(500)), await upstream())
    text = (running.directory / "catalog.toml").read_text()
    (running.directory / "catalog.toml").write_text(text.replace('name = "p1"', 'name = "p1"\nadapter = "anthropic"'))
    running.app.check_files()
    audio = [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]

    got = await running.post({**CHAT, "messages": [{"role": "user", "content": audio}]})

    check_error(got, 500, "server_error")
    assert [one["upstream"] for one in got.error["metadata"]["attempts"]] == ["p0/m", "p1/m"]


async def test_five_failures_in_a_row_trip(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A failing upstream is left alone after five, and the next one answers first."""
    failing, other = await upstream(error(500)), await upstream()
    running = await sidecar(failing, other)
    for _ in range(7):
        assert (await running.post()).status == 200
    assert (len(failing.requests), len(other.requests)) == (5, 7)
    assert (await running.get("/status")).json["upstreams"]["p0/m"]["breaker"] == "tripped"


async def test_success_forgets_failures(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Only failures in a row count."""
    flaky = await upstream(*[*[error(529)] * 4, completion()] * 2)
    running = await sidecar(flaky)
    assert [(await running.post()).status for _ in range(10)] == [*[503] * 4, 200, *[503] * 4, 200]


async def test_a_stream_that_speaks_has_passed_as_a_probe(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """It may go on for ten minutes: from its first content on, others may ask as well, and not before."""
    endless = stream(*events("a")[:2], then="hang", end=False)
    asked = await upstream(*[error(529)] * 5, endless, completion("me, too"))
    running = await sidecar(asked)
    for _ in range(5):
        await running.post()
    breaker = running.app.gateway.generation.routes.registry.list()[0].live.breaker
    assert breaker.rest is not None
    breaker.rest = breaker.rest._replace(until=0.0)  # its time is over
    async with running.session.post(f"{running.url}/chat/completions", json=STREAM) as probe:
        assert (await probe.content.readany()).startswith(b"data: ")
        assert (await running.post()).text == "me, too"


async def test_while_the_probe_is_silent_nobody_else_is_asked(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The others are told at once; when its client leaves, the next request is the probe."""
    asked = await upstream(*[error(529)] * 5, Play([], "hang"), completion("back"))
    running = await sidecar(asked)
    for _ in range(5):
        await running.post()
    breaker = running.app.gateway.generation.routes.registry.list()[0].live.breaker
    assert breaker.rest is not None
    breaker.rest = breaker.rest._replace(until=0.0)
    probe = asyncio.create_task(running.post())
    await until(lambda: len(asked.requests) == 6)

    got = await asyncio.gather(*[running.post() for _ in range(20)])

    assert {one.error["code"] for one in got} == {"no_provider_available"}
    assert len(asked.requests) == 6
    probe.cancel()
    await asked.idle.wait()
    await until(lambda: not running.app.sidecar.in_flight)
    assert (await running.post()).text == "back"
    assert {(await one).text for one in [asyncio.create_task(running.post()) for _ in range(5)]} == {"back"}
    assert (await running.get("/status")).json["upstreams"]["p0/m"]["breaker"] == "recovering"


async def test_a_rest_is_for_one_upstream(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Others go on; and the rest is kept in both modes."""
    limited, other = await upstream(error(429, retry_after="30")), await upstream(completion("B"), stream(*events("B")))
    running = await sidecar(limited, other)
    got = [await running.post(), await running.post(STREAM)]
    assert [(one.text, one.headers["x-sidecar-attempts"]) for one in got] == [("B", "2"), ("B", "1")]
    assert len(limited.requests) == 1


async def test_keys_rotate(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A list of keys takes turns."""
    asked = await upstream()
    running = await sidecar(asked, provider={"api_key": ["env:A", "env:B"]}, environ={"A": "a", "B": "b"})
    for _ in range(4):
        await running.post()
    assert sorted(one.headers["authorization"] for one in asked.requests) == ["Bearer a"] * 2 + ["Bearer b"] * 2


async def test_live_latency_moves_the_choice(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """`fastest` learns from answers: the one that turns out quicker than its prior wins."""
    slow, quick = await upstream(), await upstream()
    running = await sidecar(slow, quick, policy='strategy = "fastest"\n')
    assert (await running.post()).headers["x-sidecar-upstream"] == "p0/m"
    for _ in range(10):
        await running.post({**CHAT, "model": "p1/m"})
    learned = running.app.tools.clock()
    await until(lambda: running.app.tools.clock() > learned + RANKED_S)
    assert (await running.post()).headers["x-sidecar-upstream"] == "p1/m"


async def test_an_answer_without_usage_costs_nothing_known(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """No numbers, no bill; and an unknown price stays unknown."""
    running = await sidecar(await upstream(completion(usage=None), completion(model="other")))
    await running.post()
    await running.post({**CHAT, "model": "p0/other"})

    first, second = running.log("request")

    assert ("input_tokens" in first, "usd" in first) == (False, False)
    assert (second["input_tokens"], "usd" in second) == (10, False)
    assert 'sidecar_unpriced_total{upstream="p0/*"} 1' in (await running.get("/metrics")).body.decode()


async def test_a_thousand_at_once(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Every one of many concurrent requests gets its own answer, and nothing stays behind."""
    whole = [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n",
        completion("x").pieces[0],
    ]
    asked = await upstream(Play([whole[0] + whole[1].partition(b"\r\n\r\n")[2]], "close"))
    running = await sidecar(asked)
    got = await asyncio.gather(*[running.post() for _ in range(300)])
    assert {one.text for one in got} == {"x"}
    assert len({one.headers["x-request-id"] for one in got}) == 300
    assert (await running.get("/status")).json["upstreams"]["p0/m"]["in_flight"] == 0
