"""Select, then route: what a client may override, what it is told when nobody can be asked, what people are shown."""

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from proxy import adapter, errors
from proxy.answers import Answer
from proxy.attempt import Tools
from proxy.breaker import BARE_WAIT_S, MIN_WAIT_S, QUOTA_WAIT_S
from proxy.config import Config, PolicyError
from proxy.errors import ClientError, ProxyError, UpstreamError
from proxy.gateway import Gateway, Overrides, changes
from proxy.keys import access
from proxy.log import Log
from proxy.metrics import Metrics
from proxy.transport import Transport
from proxy.upstream import Upstream
from proxy.wire import ChatRequest, decode_chat
from tests.conftest import CHAT, StartUpstream
from tests.fake_upstream import completion

from .upstream_words import Steady, catalog, config

FACTS = catalog("a/m", "b/m")
PICTURE = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "file", "file": {}}]}
]
NONE = Overrides()
NOW = 100.0
Start = Callable[..., Gateway]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Make a gateway for a directory, by default at a moment that never passes; nothing is in its environment."""
    transport = Transport()

    def make(found: Config, clock: Callable[[], float] = lambda: NOW) -> Gateway:
        tools = Tools(transport, Metrics(), Log(lambda lines: None), clock, lambda: 0.0)
        subject = Gateway(tools, adapter.load, lambda row: access(row, {}), Steady())
        subject.install(found)
        return subject

    yield make
    await transport.close()


def ask(model: str, **fields: Any) -> ChatRequest:
    return decode_chat(msgspec.json.encode({**CHAT, "model": model, **fields}), created=0)


def one(subject: Gateway, name: str) -> Upstream:
    found = subject.generation.routes.registry.get(name)
    assert found is not None
    return found


def fail(subject: Gateway, *failures: UpstreamError) -> None:
    """Let the upstreams fail just now, in the catalog's order, one with each error."""
    for upstream, error in zip(subject.generation.routes.registry, failures, strict=True):
        upstream.live.failed(error, NOW)


async def told(subject: Gateway, request: ChatRequest) -> ProxyError:
    """The error for a request that nobody may be asked for."""
    plan = subject.plan(request, NONE)
    with pytest.raises(ProxyError) as raised:
        await subject.go(subject.walk(request, plan, "r", NONE), plan, NONE)
    return raised.value


def shown(error: ProxyError) -> tuple[int, str, str | None, float | None]:
    return error.status, error.type, error.code, error.retry_after_s


def test_changes_are_lines() -> None:
    """What came, what is different, what went; and nothing of what stayed."""
    old = config(FACTS, p='strategy = "cheapest"', q='strategy = "fastest"', r='strategy = "quality"')
    new = config(catalog("a/m", "c/m"), p='strategy = "cheapest"', q='strategy = "quality"', s='strategy = "fastest"')

    assert changes(old, new) == [
        "- provider b",
        "+ provider c",
        "- model b/m",
        "+ model c/m",
        "~ policy q",
        "- policy r",
        "+ policy s",
    ]
    assert changes(old, old) == []


async def test_install_is_a_new_generation(start: Start) -> None:
    """Numbered, told as changes; live numbers stay, and what was planned before keeps its own."""
    subject = start(config(FACTS))
    plan, live, before = subject.plan(ask("a/m"), NONE), one(subject, "a/m").live, subject.generation

    lines = subject.install(config(catalog("a/m"), p='strategy = "fastest"'))

    assert lines == ["- provider b", "- model b/m", "+ policy p"]
    assert (before.number, subject.generation.number) == (1, 2)
    assert one(subject, "a/m").live is live
    assert plan.route.candidates[0] is not one(subject, "a/m")


async def test_a_broken_directory_changes_nothing(start: Start) -> None:
    """The last good one stays whole."""
    subject = start(config(FACTS))
    before = subject.generation

    with pytest.raises(PolicyError, match="no adapter 'nope'"):
        subject.install(config(FACTS + '[[provider]]\nname = "c"\nbase_url = "http://c"\nadapter = "nope"\n'))

    assert subject.generation is before


async def test_overrides_replace_policy_and_strategy(start: Start) -> None:
    """The policy of the header, whatever model was asked for; the strategy of the header, whatever the policy's."""
    subject = start(config(FACTS, p='strategy = "cheapest"\ncandidates = ["b/m"]'))

    plan = subject.plan(ask("unheard-of"), Overrides(policy="p", strategy="quality"))

    assert (plan.route.name, plan.strategy, [one.name for one in plan.decision.chain]) == ("p", "quality", ["b/m"])
    assert subject.plan(ask("p"), NONE).strategy == "cheapest"
    assert subject.plan(ask("m"), Overrides(strategy="fastest")).strategy == "fastest"


@pytest.mark.parametrize(
    ("overrides", "param", "text"),
    [
        (Overrides(policy="cheep"), "x-sidecar-policy", "no policy 'cheep'; did you mean 'cheap'?"),
        (Overrides(policy="a/m"), "x-sidecar-policy", "no policy 'a/m'; known: cheap, good"),
        (Overrides(strategy="luck"), "x-sidecar-strategy", "'luck' is not one of cheapest, fastest, quality, balanced"),
    ],
)
async def test_an_override_that_names_nothing(start: Start, overrides: Overrides, param: str, text: str) -> None:
    """400 that names header and value, and what there is."""
    subject = start(config(FACTS, cheap='strategy = "cheapest"', good='strategy = "quality"'))

    with pytest.raises(ClientError) as raised:
        subject.plan(ask("cheap"), overrides)

    assert (raised.value.status, raised.value.param, raised.value.code) == (400, param, "invalid_value")
    assert raised.value.message == f"{param}: {text}"


async def test_an_unknown_model_is_404_that_lists_what_exists(start: Start) -> None:
    """Policies and upstreams; what was asked for is quoted, but not at any length."""
    subject = start(config(FACTS, p='strategy = "cheapest"'))

    with pytest.raises(ClientError) as raised:
        subject.plan(ask("x" * 5000), NONE)

    error = raised.value
    assert (error.status, error.param, error.code) == (404, "model", "model_not_found")
    assert error.message == f"the model {'x' * 200!r} does not exist; there are: p, a/m, b/m"


async def test_a_long_list_of_names_is_cut_and_the_nearest_told(start: Start) -> None:
    """Forty names are enough for a message."""
    subject = start(config(catalog(*(f"a/model-{number:02}" for number in range(50)), "b/m")))

    with pytest.raises(ClientError, match=r"; did you mean 'a/model-49'\?; there are: a/model-00, .*, and 11 more$"):
        subject.plan(ask("model-491"), NONE)


async def test_without_any_name_there_are_none(start: Start) -> None:
    """Before the first directory is installed nothing exists."""
    tools = start(config(FACTS)).tools
    subject = Gateway(tools, adapter.load, lambda row: access(row, {}))

    with pytest.raises(ClientError, match="there are: none"):
        subject.plan(ask("m"), NONE)


async def test_a_need_that_nobody_offers_is_the_clients_fault(start: Start) -> None:
    """400: no waiting would help, and the message says what is missing."""
    subject = start(config(catalog("a/m") + "features = []"))

    error = await told(subject, ask("m", tools=[{"type": "function"}]))

    assert shown(error) == (400, "invalid_request_error", "unsupported_parameter", None)
    assert error.message == "policy 'direct' has no upstream to ask (a/m: does not offer tools)"


@pytest.mark.parametrize(
    ("row", "fields", "code", "param", "reason"),
    [
        ("context = 10", {"max_tokens": 11}, "context_length_exceeded", "messages", "takes 10 tokens"),
        ("max_output = 10", {"max_completion_tokens": 11}, "invalid_value", "max_tokens", "answers with 10 tokens"),
        ("features = []", {"messages": PICTURE}, "unsupported_parameter", None, "does not offer files, vision"),
    ],
)
async def test_what_fits_nobody_is_the_clients_fault(
    start: Start, row: str, fields: dict[str, Any], code: str, param: str | None, reason: str
) -> None:
    """400 with the reason for each, whoever else is off: no waiting would help."""
    off = '[[provider]]\nname = "b"\nbase_url = "http://b"\napi_key = "env:KEY"\n[[model]]\nprovider = "b"\nid = "m"\n'
    subject = start(config(f"{catalog('a/m')}{row}\n{off}"))

    error = await told(subject, ask("m", **fields))

    assert (shown(error), error.param) == ((400, "invalid_request_error", code, None), param)
    assert f"a/m: {reason}" in error.message
    assert "b/m: " in error.message


@pytest.mark.parametrize(
    ("failures", "status", "code", "wait_s"),
    [
        (
            [errors.RateLimitError("", retry_after_s=9), errors.RateLimitError("")],
            429,
            "rate_limit_exceeded",
            BARE_WAIT_S,
        ),
        ([errors.QuotaError(""), errors.QuotaError("", retry_after_s=60)], 429, "insufficient_quota", 60),
        ([errors.QuotaError(""), errors.RateLimitError("")], 429, "rate_limit_exceeded", BARE_WAIT_S),
        ([errors.QuotaError(""), errors.QuotaError("")], 429, "insufficient_quota", QUOTA_WAIT_S),
        ([errors.OverloadedError("", retry_after_s=7)] * 2, 503, "no_provider_available", 7),
        ([errors.RateLimitError(""), errors.OverloadedError("", retry_after_s=7)], 503, "no_provider_available", 2),
    ],
)
async def test_while_all_rest_the_client_is_told_until_when(
    start: Start, failures: list[UpstreamError], status: int, code: str, wait_s: float
) -> None:
    """The soonest end of a rest; 429 if limits are all there is, and credit only if credit is."""
    subject = start(config(FACTS))
    fail(subject, *failures)

    error = await told(subject, ask("m"))

    assert (error.status, error.code, error.retry_after_s) == (status, code, wait_s)
    assert "a/m: resting" in error.message
    assert "b/m: resting" in error.message


async def test_a_limit_of_our_own_is_a_rate_limit(start: Start) -> None:
    """A full gate is told as what it is, whatever else is off."""
    facts = catalog("a/m").replace('"http://a"', '"http://a"\nlimits = { rpm = 1 }')
    subject = start(config(facts + catalog("b/m").replace('"http://b"', '"http://b"\napi_key = "env:B"')))
    one(subject, "a/m").provider.gate.enter(0)

    error = await told(subject, ask("m"))

    assert shown(error) == (429, "rate_limit_error", "rate_limit_exceeded", MIN_WAIT_S)
    assert "a/m: limit of 1 requests per minute; b/m: set B to use it" in error.message


async def test_a_probe_under_way_is_over_in_a_moment(start: Start) -> None:
    """Its rest has passed: the client is not sent back into it, nor told to come at once."""
    subject = start(config(catalog("a/m")), lambda: NOW + 50)
    live = one(subject, "a/m").live
    for _ in range(5):
        live.failed(errors.UnavailableError("down"), NOW)
    live.begin()

    assert shown(await told(subject, ask("m")))[2:] == ("no_provider_available", MIN_WAIT_S)


@pytest.mark.parametrize(
    ("row", "policy", "reason"),
    [
        ('base_url = "http://a"\napi_key = "env:KEY"', "", "a/m: set KEY to use it"),
        ('base_url = "env:URL"', "", "a/m: set URL to use it"),
        ('base_url = "http://a"', "require = { min_quality = 9 }", "a/m: quality unknown is below 9"),
        ('base_url = "http://a"', "candidates = []", "no candidates"),
    ],
)
async def test_nobody_to_ask_is_503(start: Start, row: str, policy: str, reason: str) -> None:
    """With the reason for each, and Retry-After: a key or a reload may come."""
    facts = catalog("a/m").replace('base_url = "http://a"', row)
    subject = start(config(facts, p=f'description = "x"\n{policy}'))

    error = await told(subject, ask("p"))

    assert shown(error) == (503, "service_unavailable_error", "no_provider_available", MIN_WAIT_S)
    assert error.message == f"policy 'p' has no upstream to ask ({reason})"


async def test_a_plan_is_walked(start: Start, upstream: StartUpstream) -> None:
    """Whoever was decided for is asked, and what it cost is seen in the status."""
    fake = await upstream(completion("Hi"))
    price = "price = { input = 1, output = 1 }"
    subject = start(config(catalog("a/m").replace("http://a", fake.url) + price), time.monotonic)
    request = ask("m")
    plan = subject.plan(request, NONE)

    answer = await subject.go(subject.walk(request, plan, "r", NONE), plan, NONE)

    assert isinstance(answer, Answer)
    assert b'"Hi"' in answer.body
    status: Any = subject.status()
    assert status["upstreams"]["a/m"]["requests"] == 1
    assert status["spend_usd"] == status["upstreams"]["a/m"]["spend_usd"] > 0


async def test_status_shows_every_provider_and_upstream(start: Start) -> None:
    """Why a provider is off, which limits it has, and the live numbers of each upstream; as JSON."""
    rows = FACTS.replace('"http://b"', '"http://b"\napi_key = "env:KEY"\nlimits = { rpm = 5 }')
    subject = start(config(rows, p='strategy = "cheapest"'))
    one(subject, "a/m").live.failed(errors.RateLimitError("", retry_after_s=30), NOW)

    status = msgspec.json.decode(msgspec.json.encode(subject.status()))

    assert (status["generation"], status["policies"], status["spend_usd"]) == (1, ["p"], 0)
    assert status["digest"] == subject.generation.config.digest
    assert status["providers"]["a"]["on"] is True
    assert status["providers"]["b"]["why"] == "set KEY to use it"
    assert status["providers"]["b"]["limits"]["rpm"] == 5
    a, b = status["upstreams"]["a/m"], status["upstreams"]["b/m"]
    assert (a["on"], a["resting_s"], a["requests"], a["errors"], a["success_rate"]) == (True, 30, 1, 1, 0.75)
    assert (b["on"], b["breaker"], b["latency_ms"]["p50"], b["list_usd_per_mtok"]) == (False, "standby", 1000, None)


async def test_explain_is_the_decision_in_words_and_numbers(start: Start) -> None:
    """The documented shape; what is excluded comes with its reason, and nothing is called."""
    facts = catalog("a/m") + "quality = 8\n" + catalog("b/m") + "features = []\n" + catalog("c/m") + "quality = 4\n"
    subject = start(config(facts, p='strategy = "quality"\ncandidates = ["*"]'))

    found = subject.explain(ask("p", tools=[{"type": "function"}]), Overrides(strategy="balanced"))

    expected = {"usd": None, "cached_tokens": 0, "output_tokens": 256, "latency_ms": 1000}
    assert found == {
        "model": "p",
        "policy": "p",
        "strategy": "balanced",
        "when": None,
        "class": None,
        "order": [
            {
                "upstream": name,
                "score": score,
                "parts": {"cost": 0, "latency": 0, "quality": quality},
                "expected": {**expected, "input_tokens": 22, "quality": good},
            }
            for name, score, quality, good in (("a/m", 0, 0, 8), ("c/m", 0.1, 0.5, 4))
        ],
        "chain": ["a/m", "c/m"],
        "excluded": [{"upstream": "b/m", "reason": "does not offer tools"}],
    }
