"""Which policy answers a name, and what is said when nobody may be asked."""

import pytest

from proxy.config import Config, load
from proxy.gateway import changes
from tests.conftest import CHAT, NOWHERE, StartSidecar, StartUpstream, catalog, check_error
from tests.fake_upstream import Play, error

FILES = {
    "exact.toml": 'answers = ["gpt-4o-mini"]\ncandidates = ["p0/m"]\n',
    "narrow.toml": 'answers = ["gpt-4o*", "made/*"]\ncandidates = ["p1/m"]\n',
    "wide.toml": 'answers = ["*x-4*", "test"]\n',
}
MANY = {f"fast{number}.toml": 'strategy = "fastest"\n' for number in range(50)}


@pytest.mark.parametrize(
    ("model", "policy"),
    [
        ("narrow", "narrow"), ("gpt-4o-mini", "exact"), ("gpt-4o", "narrow"), ("x-4", "wide"), ("test", "test"),
        ("GPT-4o", None), ("made/up", "narrow"), ("p0/m", "direct"), ("p1/anything", "direct"), ("m", "direct"),
        ("nope", None), ("p9/m", None), ("catalog", None), ("p0/", None),
    ],
)  # fmt: skip
async def test_names(sidecar: StartSidecar, upstream: StartUpstream, model: str, policy: str | None) -> None:
    """A policy, then the most specific glob, an upstream, a provider's any model, a bare id; else 404."""
    running = await sidecar(await upstream(), await upstream(), files=FILES)
    got = await running.post({**CHAT, "model": model})
    assert got.headers.get("x-sidecar-policy") == policy
    assert got.status == (200 if policy else 404)


async def test_an_unknown_name_is_told_what_exists(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """404 that lists what can be asked for; a long name is cut."""
    got = await (await sidecar(await upstream(), await upstream())).post({**CHAT, "model": "nope" * 1000})
    check_error(got, 404, "model_not_found")
    assert "there are: test, p0/m, p1/m" in got.error["message"]
    assert (got.error["param"], len(got.body) < 1000) == ("model", True)


async def test_of_many_names_the_nearest_is_told(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A long list is cut, so the name that was probably meant comes first."""
    running = await sidecar(await upstream(), await upstream(), files=MANY)
    message = (await running.post({**CHAT, "model": "fest7"})).error["message"]
    assert "did you mean 'fast7'" in message
    assert message.endswith(", and 13 more")


async def test_an_unknown_policy_is_told_the_nearest(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """400 that names the header's value."""
    got = await (await sidecar(await upstream(), await upstream(), files=FILES)).post(x_sidecar_policy="narow")
    assert got.error["message"] == "x-sidecar-policy: no policy 'narow'; did you mean 'narrow'?"


async def test_everybody_is_off(sidecar: StartSidecar) -> None:
    """Without a key nobody can be asked: 503 that says which variable to set."""
    got = await (await sidecar(NOWHERE, provider={"api_key": "env:P0_KEY"})).post()
    check_error(got, 503, "no_provider_available")
    assert "p0/m: set P0_KEY to use it" in got.error["message"]
    assert (got.headers["retry-after"], got.headers["x-sidecar-attempts"]) == ("1", "0")


async def test_nobody_can_do_it(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """When every candidate lacks what the request needs, waiting will not help."""
    running = await sidecar(await upstream())
    (running.directory / "catalog.toml").write_text(catalog(NOWHERE) + 'features = ["vision"]\n')
    running.app.check_files()

    got = await running.post({**CHAT, "tools": [{"type": "function", "function": {"name": "f"}}]})

    check_error(got, 400, "unsupported_parameter")
    assert "p0/m: does not offer tools" in got.error["message"]


@pytest.mark.parametrize(
    ("play", "status", "code", "least"),
    [
        (error(429, retry_after="20"), 429, "rate_limit_exceeded", 20),
        (error(429), 429, "rate_limit_exceeded", 2),
        (error(429, "insufficient_quota"), 429, "insufficient_quota", 300),
        (error(503, retry_after="9"), 503, "no_provider_available", 9),
    ],
    ids=["rate limit", "bare", "quota", "overloaded"],
)
async def test_the_only_upstream_rests(
    sidecar: StartSidecar, upstream: StartUpstream, play: Play, status: int, code: str, least: int
) -> None:
    """It is not asked again before its time; the client is told at once, in the words of the limit, and when."""
    asked = await upstream(play)
    running = await sidecar(asked)
    await running.post()

    got = await running.post()

    check_error(got, status, code)
    assert least <= int(got.headers["retry-after"]) <= least * 1.2 + 1
    # Nobody pays while an SDK waits.
    assert (len(asked.requests), "x-should-retry" in got.headers) == (1, code == "insufficient_quota")


async def test_the_soonest_of_several_rests_counts(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """When all rest for different reasons, the client is told the first moment at which one may be asked."""
    running = await sidecar(await upstream(error(503, retry_after="40")), await upstream(error(429, retry_after="20")))
    await running.post()
    got = await running.post()
    check_error(got, 503, "no_provider_available")
    assert 20 <= int(got.headers["retry-after"]) <= 25


async def test_our_own_limit(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A provider's limit is kept by us: the request over it is 429 and never sent."""
    asked = await upstream()
    running = await sidecar(asked, provider={"limits": {"rpm": 2}})
    assert [(await running.post()).status for _ in range(3)] == [200, 200, 429]
    check_error(await running.post(), 429, "rate_limit_exceeded")
    assert len(asked.requests) == 2


async def test_a_full_provider_is_passed_over(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Over its limit the next best answers, as a first attempt."""
    running = await sidecar(await upstream(), await upstream(), provider={"limits": {"rpm": 1}})
    got = [await running.post(), await running.post()]
    assert [one.headers["x-sidecar-upstream"] for one in got] == ["p0/m", "p1/m"]
    assert got[1].headers["x-sidecar-attempts"] == "1"


def test_changes_are_named() -> None:
    """A reload is logged as a diff: what came, what went, what is different."""

    def config(*providers: str, **policies: str) -> Config:
        files = {f"{name}.toml": text.encode() for name, text in policies.items()}
        return load({"catalog.toml": catalog(*providers).encode(), **files})

    one, two = config(NOWHERE, NOWHERE, a='strategy = "cheapest"'), config(NOWHERE + "/x", b='strategy = "fastest"')
    assert changes(one, two) == ["~ provider p0", "- provider p1", "- model p1/m", "- policy a", "+ policy b"]
    assert changes(two, two) == []
