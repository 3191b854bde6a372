"""Why an answer comes from whom it does: in `explain` and in a header, in the same words."""

from typing import Any

import pytest

from proxy.gateway import Overrides
from tests.conftest import CHAT, StartSidecar, StartUpstream
from tests.fake_upstream import completion, error

CACHED = """
[[provider]]
name = "near"
base_url = "{0}"

[[provider]]
name = "far"
base_url = "{1}"

[[model]]
provider = "near"
id = "m"
price = {{ input = 2, cached_input = 0.2, output = 8 }}
quality = 6

[[model]]
provider = "far"
id = "m"
price = {{ input = 1.9, cached_input = 0.19, output = 7.6 }}
quality = 7

[[model]]
provider = "far"
id = "blind"
features = []
"""
LONG = {**CHAT, "messages": [{"role": "user", "content": "river " * 4000}]}


def usage(cached: int = 0) -> dict[str, Any]:
    """Six thousand tokens read, two hundred said."""
    details = {"cached_tokens": cached}
    return {"prompt_tokens": 6000, "completion_tokens": 200, "total_tokens": 6200, "prompt_tokens_details": details}


async def test_nothing_is_told_that_was_not_asked_for(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Answers stay small; a word that means nothing is refused."""
    running = await sidecar(await upstream())

    assert "x-sidecar-decision" not in (await running.post()).headers
    assert "x-sidecar-decision" not in (await running.post(x_sidecar_explain="off")).headers
    refused = await running.post(x_sidecar_explain="please")
    assert (refused.status, refused.error["param"]) == (400, "x-sidecar-explain")


async def test_the_header_says_what_explain_says(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Strategy, expected cost and tokens, place, and who was left out."""
    first, second = await upstream(), await upstream()
    running = await sidecar(first, second)

    got = await running.post({**CHAT, "max_tokens": 7}, x_sidecar_explain="on")

    assert got.headers["x-sidecar-decision"] == "cheapest; usd=2.6e-05; tokens=19+7; 1 of 2"


async def test_the_header_names_who_answered_and_who_could_not(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """After a fallback it is about the second; who rests is named with the reason, errors say it, too."""
    down, well = await upstream(error(429, retry_after="60")), await upstream(completion(), error(400))
    running = await sidecar(down, well)

    fell_back = await running.post(x_sidecar_explain="on")
    resting = await running.post(x_sidecar_explain="on")

    assert fell_back.headers["x-sidecar-decision"].endswith("; 2 of 2")
    assert resting.status == 400
    assert resting.headers["x-sidecar-decision"].endswith("; 1 of 1; skipped: p0/m rest")


async def test_a_refusal_says_who_was_left_out(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Nobody was asked: there is no place and no cost to tell."""
    running = await sidecar(await upstream(error(429, retry_after="60")))
    await running.post()

    refused = await running.post(x_sidecar_explain="on")

    assert refused.status == 429
    assert refused.headers["x-sidecar-decision"] == "cheapest; skipped: p0/m rest"


async def test_many_who_were_left_out_are_counted(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The header stays short."""
    refusing = [await upstream(error(429, retry_after="60")) for _ in range(5)]
    running = await sidecar(*refusing, await upstream(), policy='strategy = "cheapest"\nfallback = { attempts = 9 }')
    await running.post()

    told = (await running.post(x_sidecar_explain="on")).headers["x-sidecar-decision"]

    assert told.endswith("; 1 of 1; skipped: p0/m rest, p1/m rest, p2/m rest, p3/m rest, 1 more")


async def test_a_table_and_a_class_are_told(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """In the header and in `explain`; so is a price that nobody knows."""
    answers = await upstream()
    facts = f'scores = "s.toml"\n[[provider]]\nname = "a"\nbase_url = "{answers.url}"\n'
    facts += '[[model]]\nprovider = "a"\nid = "m"\n'
    policy = '[[when]]\ntokens_above = 5\nclass = "code"\n'
    files = {"catalog.toml": facts, "s.toml": '[scores.code]\n"a/m" = 9.5'}
    running = await sidecar(answers, policy=policy, files=files)

    told = (await running.post(x_sidecar_explain="on")).headers["x-sidecar-decision"]
    found = (await running.post(path="/explain")).json

    assert told.startswith("balanced; when tokens_above = 5; class code; usd unknown; tokens=")
    assert (found["when"], found["class"]) == ("tokens_above = 5", "code")
    assert found["order"][0]["expected"]["quality"] == 9.5
    assert found["order"][0]["expected"]["usd"] is None


async def test_a_conversation_stays_where_its_prompt_is_cached(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """From the first answer on; `explain` shows what is expected of the cache, and asks nobody."""
    near = await upstream(completion("near", usage=usage(5800)))
    far = await upstream(error(500), completion("far", usage=usage()))
    policy = 'strategy = "cheapest"\ncandidates = ["*/m"]'
    running = await sidecar(near, policy=policy, files={"catalog.toml": CACHED.format(near.url, far.url)})

    fell_back = await running.post(LONG)
    turns = [(await running.post(LONG, x_sidecar_explain="on")) for _ in range(4)]
    other = await running.post({**LONG, "messages": [{"role": "user", "content": "hills " * 4000}]})

    assert (fell_back.text, fell_back.headers["x-sidecar-attempts"]) == ("near", "2")
    assert [turn.text for turn in turns] == ["near"] * 4
    assert "; cached=" in turns[-1].headers["x-sidecar-decision"]
    assert other.text == "far"
    asked = len(near.requests) + len(far.requests)
    best = (await running.post(LONG, path="/explain")).json["order"][0]
    assert best["upstream"] == "near/m"
    assert best["expected"]["cached_tokens"] > 4000
    assert len(near.requests) + len(far.requests) == asked


async def test_explain_spends_nothing(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Looking is free: no request is counted, and the next one goes where it would have gone."""
    running = await sidecar(await upstream(), await upstream(), policy='strategy = "fastest"\nexplore = 1')
    gateway = running.app.gateway
    budget = gateway.generation.routes.policies["test"].budget

    for _ in range(5):
        found = (await running.post(path="/explain")).json
        assert found["order"][0]["upstream"] == found["chain"][0]

    assert budget.requests == 0
    assert Overrides().explain is False


@pytest.mark.parametrize("stream", [False, True])
async def test_the_latency_that_is_told_is_the_one_that_counts(
    sidecar: StartSidecar, upstream: StartUpstream, stream: bool
) -> None:
    """Of the first token for a stream, of the whole answer otherwise."""
    running = await sidecar(await upstream())
    live = running.app.gateway.generation.routes.registry.list()[0].live
    now = running.app.tools.clock()
    for _ in range(30):
        live.stats.first_token.add(20, now)
        live.stats.latency.add(4000, now)

    told = (await running.post({**CHAT, "stream": stream}, path="/explain")).json["order"][0]["expected"]["latency_ms"]

    assert (told < 200) is stream
