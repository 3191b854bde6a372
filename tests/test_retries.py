"""The same upstream once more: after a 500, with another key; and the budget of all attempts after the first."""

import asyncio
import time

import msgspec
import pytest

from proxy.router import PAUSE_S
from tests.conftest import CHAT, IN_ORDER, StartSidecar, StartUpstream, check_error, request
from tests.fake_upstream import Play, completion, error, events, reply, stream

FALLBACK = 'strategy = "cheapest"\n[fallback]\n'


async def test_a_500_is_tried_again_where_nobody_is_left(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Once, after a pause that chance makes; with somebody to fall back on, not at all."""
    alone, other = await upstream(error(500), completion("at last")), await upstream(error(500))
    began = time.monotonic()
    got = await (await sidecar(alone)).post()
    assert (got.text, got.headers["x-sidecar-attempts"], len(alone.requests)) == ("at last", "2", 2)
    assert time.monotonic() - began >= PAUSE_S / 2

    got = await (await sidecar(other, await upstream(completion("B")))).post()
    assert (got.text, got.headers["x-sidecar-attempts"], len(other.requests)) == ("B", "2", 1)


@pytest.mark.parametrize(
    ("policy", "headers"),
    [("attempts = 1\n", {}), ('on = ["timeout"]\n', {}), ("", {"x_sidecar_fallback": "off"})],
)
async def test_a_500_is_not_tried_again_against_the_policy(
    sidecar: StartSidecar, upstream: StartUpstream, policy: str, headers: dict[str, str]
) -> None:
    """One attempt is one attempt, and a kind that the policy does not list is final."""
    asked = await upstream(error(500))
    got = await (await sidecar(asked, policy=FALLBACK + policy)).post(**headers)
    assert (got.status, got.headers["x-should-retry"], len(asked.requests)) == (500, "false", 1)


async def test_who_begins_to_rest_in_the_pause_is_not_asked(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Ten requests fail together: the fifth trips the upstream, and none of them comes back into the outage."""
    asked = await upstream(error(500))
    running = await sidecar(asked)
    got = await asyncio.gather(*[running.post() for _ in range(10)])
    assert {one.status for one in got} == {500}
    assert len(asked.requests) == 10


async def test_a_refused_key_is_passed_over(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The same request goes on with the next key, and later ones do not try the refused one."""
    asked = await upstream(error(401, "invalid_api_key"), completion("with the other"))
    running = await sidecar(asked, provider={"api_key": ["env:A", "env:B"]}, environ={"A": "aaaa", "B": "bbbb"})

    got = await running.post()
    assert (got.text, got.headers["x-sidecar-attempts"]) == ("with the other", "2")
    assert [(await running.post()).headers["x-sidecar-attempts"] for _ in range(3)] == ["1"] * 3

    used = [one.headers["authorization"] for one in asked.requests]
    assert (len(set(used)), set(used[1:])) == (2, {used[1]})


async def test_a_key_that_is_refused_alone_takes_its_provider_out(
    sidecar: StartSidecar, upstream: StartUpstream
) -> None:
    """F10: 502 and nobody else, as the policy says; after that the provider is not asked, until a reload."""
    asked, other = await upstream(error(401), completion("new key")), await upstream(completion("B"))
    running = await sidecar(asked, other, provider={"api_key": "env:A"}, environ={"A": "aaaa"})
    check_error(await running.post(), 502, "upstream_auth_failed")

    assert (await running.post()).text == "B"
    got = await running.post({**CHAT, "model": "p0/m"})
    check_error(got, 502, "upstream_auth_failed")
    assert "the provider refuses its key" in got.error["message"]
    assert (got.headers["x-should-retry"], "retry-after" in got.headers, len(asked.requests)) == ("false", False, 1)
    assert "refuses its key" in (await running.get("/status")).json["upstreams"]["p0/m"]["why"]

    (running.directory / "test.toml").write_text(IN_ORDER + 'description = "new"')
    running.app.check_files()
    assert (await running.post()).text == "new key"


async def test_a_provider_without_a_key_rests_by_model(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Where no key was sent a refusal says nothing of one: only the model that was refused is left alone."""
    running = await sidecar(await upstream(error(401), completion()))
    check_error(await running.post({**CHAT, "model": "p0/secret"}), 502, "upstream_auth_failed")

    assert (await running.post({**CHAT, "model": "p0/secret"})).headers["x-sidecar-attempts"] == "0"
    assert (await running.post({**CHAT, "model": "p0/m"})).status == 200


async def test_a_key_that_may_not_use_one_model_may_use_others(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """403: a client that asks for a model out of reach takes nothing from the others."""
    running = await sidecar(await upstream(error(403), completion()))
    check_error(await running.post({**CHAT, "model": "p0/secret"}), 502, "upstream_auth_failed")
    assert (await running.post()).status == 200
    check_error(await running.post({**CHAT, "model": "p0/secret"}), 502, "upstream_auth_failed")


async def test_a_limited_key_is_passed_over_where_nobody_is_left(
    sidecar: StartSidecar, upstream: StartUpstream
) -> None:
    """A 429 concerns the key: another candidate first, as its account is another for sure, then another key."""
    keys = {"provider": {"api_key": ["env:A", "env:B"]}, "environ": {"A": "a", "B": "b"}}
    limited = [error(429, "insufficient_quota"), completion("with the other")]
    got = await (await sidecar(await upstream(*limited), **keys)).post()
    assert (got.text, got.headers["x-sidecar-attempts"]) == ("with the other", "2")

    running = await sidecar(await upstream(*limited), await upstream(completion("B")), **keys)
    assert [(await running.post()).text for _ in range(3)] == ["B", "with the other", "with the other"]


async def test_retries_are_held_to_a_budget(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """When a policy's budget is spent the first fault is told, at once; log and metrics say why."""
    failing, other = await upstream(error(400, "context_length_exceeded")), await upstream(completion("B"))
    running = await sidecar(failing, other, policy=FALLBACK + 'on = ["context_length"]\nbudget = 0\n')
    got = [await running.post() for _ in range(150)]

    # A hundred to begin with, and ten a second since.
    served = sum(one.status == 200 for one in got)
    assert 100 <= served < 150
    assert len(other.requests) == served
    check_error(got[-1], 400, "context_length_exceeded")
    assert (got[-1].headers["x-should-retry"], got[-1].headers["x-sidecar-attempts"]) == ("false", "1")
    assert running.log("attempt_failed")[-1]["held"] == "budget"
    text = (await running.get("/metrics")).body.decode()
    assert f'sidecar_retries_held_total{{policy="test"}} {150 - served}' in text


async def test_the_first_attempt_is_free_whoever_gets_it(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Who cannot carry a request was not asked: the one behind gets the first attempt, which no budget holds."""
    running = await sidecar(await upstream(), await upstream(), policy=FALLBACK + "budget = 0\n")
    text = (running.directory / "catalog.toml").read_text()
    (running.directory / "catalog.toml").write_text(text.replace('name = "p0"', 'name = "p0"\nadapter = "anthropic"'))
    running.app.check_files()
    audio = [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]
    body = {**CHAT, "messages": [{"role": "user", "content": audio}]}
    assert {(await one).status for one in [asyncio.create_task(running.post(body)) for _ in range(150)]} == {200}


async def test_a_reload_does_not_fill_the_budget(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """What is spent is spent."""
    running = await sidecar(await upstream(error(400, "context_length_exceeded")), await upstream())
    policy = FALLBACK + 'on = ["context_length"]\nbudget = 0\n'
    for text in (policy, policy + "attempts = 2\n"):
        (running.directory / "test.toml").write_text(text)
        running.app.check_files()
        served = [(await running.post()).status for _ in range(110)].count(200)
    assert served < 60


async def test_quota_is_not_a_rate_limit(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The client may see when it is tried again, but its SDK must not wait for somebody to pay."""
    running = await sidecar(await upstream(error(429, "insufficient_quota")))
    await running.post()
    got = await running.post()
    check_error(got, 429, "insufficient_quota")
    assert (got.headers["x-should-retry"], int(got.headers["retry-after"]) > 200) == ("false", True)


async def test_what_the_client_sends_again_is_paid_from_the_budget(
    sidecar: StartSidecar, upstream: StartUpstream
) -> None:
    """SDKs say how often they have sent a request: such ones leave less for fallbacks, but are served themselves."""
    failing, other = await upstream(error(400, "context_length_exceeded")), await upstream(completion("B"))
    running = await sidecar(failing, other, policy=FALLBACK + 'on = ["context_length"]\nbudget = 0\n')
    # A hundred sent again take what a hundred fallbacks would have had.
    for count in ("2", "1") * 50:
        await running.post(x_stainless_retry_count=count, x_sidecar_fallback="off")
    served = [(await running.post()).status for _ in range(60)].count(200)
    assert served < 50


@pytest.mark.parametrize("count", ["0", "00", "-1", "x", "", "1e3", "\u0661"])
async def test_a_first_try_is_no_retry(sidecar: StartSidecar, upstream: StartUpstream, count: str) -> None:
    """SDKs send 0 with a first try; what is no number says nothing."""
    running = await sidecar(await upstream())
    got = await running.raw(
        request(msgspec.json.encode(CHAT), f"x-stainless-retry-count: {count}".encode().decode("latin-1"))
    )
    assert (got.status, running.app.gateway.generation.routes.budgets["test"].requests) == (200, 1)


async def test_a_known_head_with_another_count_is_another_head(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The count is judged with its head: on one connection, 0 and 1 and 0 again are two requests and one retry."""
    running = await sidecar(await upstream())
    async with running.connect() as wire:
        for count in ("0", "1", "0", "1", "0"):
            sent = request(msgspec.json.encode(CHAT), f"x-stainless-retry-count: {count}")
            assert (await wire.ask(sent)).status == 200
    assert running.app.gateway.generation.routes.budgets["test"].requests == 3


@pytest.mark.parametrize(
    "doubtful",
    [Play([], "close"), Play([], "hang"), reply(b'{"id":"x"'), stream(*events("a")[:1], then="close", end=False)],
    ids=["closed", "silent", "nonsense", "cut"],
)
@pytest.mark.parametrize("again", [True, False])
async def test_whether_doubtful_attempts_are_followed_by_others(
    sidecar: StartSidecar, upstream: StartUpstream, doubtful: Play, again: bool
) -> None:
    """`retry_ambiguous = false`: what may be on the bill already is not asked of somebody else."""
    asked, other = await upstream(doubtful), await upstream(completion("B"), stream(*events("B")))
    switch = "" if again else "retry_ambiguous = false\n"
    policy = f"{FALLBACK}{switch}[timeouts]\nfirst_event = 0.3\nanswer = 0.3\n"
    running = await sidecar(asked, other, policy=policy)
    got = await running.post({**CHAT, "stream": doubtful.pieces[:1] != [] and b"event-stream" in doubtful.pieces[0]})
    assert (got.status == 200, len(asked.requests), len(other.requests)) == (again, 1, again)
    if not again:
        assert [one["possibly_billed"] for one in got.error["metadata"]["attempts"]] == [True]
        assert got.headers["x-should-retry"] == "false"


async def test_what_was_never_sent_falls_back_all_the_same(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A refused connection, a 500 and a 503 are in no doubt: nobody pays for them."""
    policy = FALLBACK + "retry_ambiguous = false\n"
    other = await upstream(completion("B"))
    for first in ("http://127.0.0.1:9", await upstream(error(500)), await upstream(error(503))):
        assert (await (await sidecar(first, other, policy=policy)).post()).text == "B"


async def test_a_stream_may_go_on_though_doubt_is_final(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """`continue` has a switch of its own: what broke off is on the bill without any doubt."""
    broken = await upstream(stream(*events("one ", "two ")[:2], then="close", end=False))
    policy = FALLBACK + "retry_ambiguous = false\ncontinue = true\n"
    running = await sidecar(broken, await upstream(stream(*events("three"))), policy=policy)
    assert (await running.post({**CHAT, "stream": True})).text == "one three"
