"""Parameters that an upstream cannot take: left out and reported, refused, or sent all the same."""

from typing import Any

import msgspec
import pytest

from proxy import adapter
from proxy.adapter import Target
from proxy.wire import decode_chat
from tests.conftest import CHAT, IN_ORDER, StartSidecar, StartUpstream, check_error
from tests.fake_upstream import FakeUpstream, completion, events, reply, stream

from .upstream_words import catalog, config, registry

TUNED: dict[str, Any] = {**CHAT, "temperature": 0.5, "seed": 7, "top_p": None}
REJECT = 'unsupported_parameters = "reject"\n' + IN_ORDER
FORWARD = 'unsupported_parameters = "forward"\n' + IN_ORDER
CLAUDE = (
    b'{"type":"message","id":"m1","role":"assistant","model":"m","content":[{"type":"text","text":"Hi"}],'
    b'"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}'
)


def facts(*rows: tuple[FakeUpstream, str, list[str]]) -> str:
    """A catalog of providers p0, p1, ... with their languages and what their model m does not take."""
    return "\n".join(
        f'[[provider]]\nname = "p{number}"\nadapter = "{language}"\nbase_url = "{one.url}"\n'
        f'[[model]]\nprovider = "p{number}"\nid = "m"\nunsupported = {msgspec.json.encode(names).decode()}\n'
        f"price = {{ input = {number + 1}, output = {number + 1} }}\n"
        for number, (one, language, names) in enumerate(rows)
    )


async def test_what_a_model_does_not_take_is_cut_out_of_the_bytes(
    sidecar: StartSidecar, upstream: StartUpstream
) -> None:
    """Every other byte goes out as it came, and the client is told what is missing; a null is not worth a word."""
    reasoner = await upstream(completion())
    running = await sidecar(files={"catalog.toml": facts((reasoner, "openai", ["temperature", "top_p", "stop"]))})
    talk = b'"messages":[{"role":"user","content":"a"}]}'
    body = b'{"temperature": 0.5,  "model":"test", "x" : [1.50],"top_p":null, ' + talk

    got = await running.post(body)

    assert got.headers["x-sidecar-dropped"] == "temperature"
    assert reasoner.requests[0].body == b'{"model":"m", "x" : [1.50],' + talk


async def test_a_stream_reports_what_was_dropped(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Before its first byte, as a complete answer does."""
    running = await sidecar(files={"catalog.toml": facts((await upstream(stream(*events("Hi"))), "openai", ["seed"]))})

    assert (await running.post({**TUNED, "stream": True})).headers["x-sidecar-dropped"] == "seed"


async def test_reject_passes_over_who_would_drop_something(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """By its row or by its language: the next one that takes it all answers, and that is the first attempt."""
    lacking, claude, able = await upstream(), await upstream(), await upstream(completion("able"))
    rows = facts((lacking, "openai", ["seed"]), (claude, "anthropic", []), (able, "openai", []))
    running = await sidecar(files={"catalog.toml": rows}, policy=REJECT)

    got = await running.post(TUNED)

    assert (got.text, got.headers["x-sidecar-upstream"], got.headers["x-sidecar-attempts"]) == ("able", "p2/m", "1")
    assert (lacking.requests, claude.requests) == ([], [])
    assert "x-sidecar-dropped" not in got.headers


async def test_reject_holds_without_fallback(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Who may not be asked was no candidate: the best that can take it is the one that is asked."""
    lacking, able = await upstream(), await upstream(completion("able"))
    rows = facts((lacking, "openai", ["seed"]), (able, "openai", []))
    running = await sidecar(files={"catalog.toml": rows}, policy=REJECT)

    assert (await running.post(TUNED, x_sidecar_fallback="off")).text == "able"


@pytest.mark.parametrize("headers", [{}, {"x_sidecar_fallback": "off"}])
@pytest.mark.parametrize("language", ["openai", "anthropic"])
async def test_reject_names_the_parameter_when_nobody_takes_it(
    sidecar: StartSidecar, upstream: StartUpstream, language: str, headers: dict[str, str]
) -> None:
    """A 400 of ours with the field in `param`; nobody is asked."""
    only = await upstream()
    running = await sidecar(files={"catalog.toml": facts((only, language, ["seed"]))}, policy=REJECT)

    got = await running.post(TUNED, **headers)

    check_error(got, 400, "unsupported_parameter")
    assert (got.error["param"], "'seed'" in got.error["message"], only.requests) == ("seed", True, [])


async def test_forward_sends_it_to_whom_it_may_concern(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The row's list is not looked at, and a translated request has the field under its own name."""
    plain, claude = await upstream(completion()), await upstream(reply(CLAUDE))
    first = await sidecar(files={"catalog.toml": facts((plain, "openai", ["seed"]))}, policy=FORWARD)
    second = await sidecar(files={"catalog.toml": facts((claude, "anthropic", []))}, policy=FORWARD)

    assert "x-sidecar-dropped" not in (await first.post(TUNED)).headers
    assert "x-sidecar-dropped" not in (await second.post(TUNED)).headers
    assert plain.requests[0].json["seed"] == claude.requests[0].json["seed"] == 7


async def test_explain_says_who_cannot_take_it(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The reason stands among the excluded, nothing is called; what a language cannot carry at all is told, too."""
    lacking, cohere, able = await upstream(), await upstream(), await upstream()
    rows = facts((lacking, "openai", ["seed"]), (cohere, "cohere", []), (able, "openai", []))
    running = await sidecar(files={"catalog.toml": rows}, policy=REJECT)
    told = (await running.post({**TUNED, "n": 2}, path="/explain")).json

    assert [one["upstream"] for one in told["order"]] == told["chain"] == ["p2/m"]
    assert {one["upstream"]: one["reason"] for one in told["excluded"]} == {
        "p0/m": "p0/m does not take 'seed'",
        "p1/m": "Cohere gives one answer per request",
    }


@pytest.mark.parametrize("name", ["model", "messages", "stream", "tools", "response_format"])
def test_what_makes_a_request_cannot_be_unsupported(name: str) -> None:
    """Those are a model's features, or nothing it could do without."""
    with pytest.raises(Exception, match=f"unsupported: '{name}' is no parameter"):
        config(catalog("a/m") + f'unsupported = ["{name}"]')


def test_the_mode_is_one_of_three() -> None:
    """A wrong word is answered with the nearest."""
    with pytest.raises(Exception, match="'refuse' is not known"):
        config(catalog("a/m"), p='unsupported_parameters = "refuse"')


def test_upstreams_know_whose_signatures_they_take() -> None:
    """One model at one provider."""
    one = registry(config(catalog("a/m"))).get("a/m")

    assert one is not None
    assert one.target.source == "a/m"


LANGUAGES = {
    "anthropic": "claude-opus-4-8",
    "bedrock": "anthropic.claude-opus-4-8",
    "cohere": "command-a-03-2025",
    "gemini": "gemini-3.8-flash",
    "ollama": "m",
    "vertex": "gemini-3.8-flash",
}
STRICT = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}


def rendered(language: str, *, forward: bool = False, **fields: Any) -> tuple[Any, tuple[str, ...]]:
    """The body of a translated request, and what it lacks."""
    request = decode_chat(msgspec.json.encode({**CHAT, **fields}), 0)
    found = adapter.load(language).render(request, Target(LANGUAGES[language], forward=forward))
    return msgspec.json.decode(found.body), found.dropped


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_drops_and_forwards_by_name(language: str) -> None:
    """What it has no word for is named, or sent as the client spelled it, once and at its place."""
    given: dict[str, Any] = {"own": {"a": [1.5]}, "store": True}

    assert set(rendered(language, **given)[1]) == {"own", "store"}
    body, left_out = rendered(language, forward=True, **given)
    place = body["additionalModelRequestFields"] if language == "bedrock" else body
    assert ({name: place.get(name) for name in given}, left_out) == (given, ())


@pytest.mark.parametrize("language", ["gemini", "vertex", "ollama"])
def test_what_stands_deeper_is_dropped_even_so(language: str) -> None:
    """There is no place for it; the client is told."""
    assert rendered(language, forward=True, tools=[STRICT])[1] == ("tools[0].function.strict",)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_default_is_nothing_to_drop(language: str) -> None:
    """It says what a missing field says: no header, and nobody is passed over for it."""
    plain: dict[str, Any] = {
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "n": 1,
        "service_tier": "auto",
        "logit_bias": {},
    }
    plain |= {"parallel_tool_calls": True, "verbosity": "medium", "logprobs": False, "store": False, "user": None}

    assert rendered(language, **plain)[1] == ()


def test_a_models_rules_do_not_hold_what_is_forwarded() -> None:
    """The newest Claude and Gemini refuse these today; who forwards wants to know better."""
    claude = rendered("anthropic", forward=True, temperature=0.5, top_p=0.5)[0]
    gemini = rendered("gemini", forward=True, presence_penalty=0.5)

    assert (claude["temperature"], claude["top_p"]) == (0.5, 0.5)
    assert (gemini[0]["generationConfig"]["presencePenalty"], gemini[1]) == (0.5, ())


async def test_who_asks_for_nothing_special_is_passed_through(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A list of what a model does not take costs a request without any of it nothing."""
    up = await upstream(completion())
    running = await sidecar(files={"catalog.toml": facts((up, "openai", ["temperature"]))})

    got = await running.post(b'{"model": "p0/m", "messages":[{"role":"user", "content":"a"}]}')

    assert "x-sidecar-dropped" not in got.headers
    assert up.requests[0].body == b'{"model": "m", "messages":[{"role":"user", "content":"a"}]}'
