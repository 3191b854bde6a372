"""Limits, thinking, sampling and the other parameters, as Gemini is sent them."""

from typing import Any

import msgspec
import pytest

from proxy import errors
from proxy.adapter import Target
from proxy.wire import decode_chat

from .gemini_words import (
    ADAPTER,
    BUDGET,
    BUDGET_PRO,
    FLASH,
    GEMMA,
    OLD,
    PRO,
    VERTEX,
    chat,
    config,
    refusal,
    render,
    sent,
)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (FLASH, "/models/gemini-3.8-flash"),
        ("models/gemini-2.5-pro", "/models/gemini-2.5-pro"),
        ("gemini@001", "/models/gemini%40001"),
        ("../x?y#z", "/models/..%2Fx%3Fy%23z"),
    ],
)
def test_model_and_kind_of_answer_are_the_path(model: str, path: str) -> None:
    """The model is one segment of the path, whatever a client calls it; a stream is another method."""
    assert render(model=model).path == f"{path}:generateContent"
    assert render(model=model, stream=True).path == f"{path}:streamGenerateContent?alt=sse"


def test_plain_request_has_no_more_than_its_turns() -> None:
    """What the client does not say is left to the model's defaults."""
    rendered = render(stream=True, n=1, temperature=None, logprobs=False, presence_penalty=0)

    assert list(msgspec.json.decode(rendered.body)) == ["contents"]
    assert rendered.dropped == ()
    assert rendered.headers == {}


def test_sampling_has_geminis_words() -> None:
    """Each parameter has its counterpart, values untouched."""
    fields: Any = {"temperature": 1.7, "top_p": 0.5, "top_k": 7, "seed": 3, "n": 2, "stop": ["a", "", "b"]}

    assert config(**fields) == {
        "temperature": 1.7,
        "topP": 0.5,
        "topK": 7,
        "seed": 3,
        "candidateCount": 2,
        "stopSequences": ["a", "b"],
    }
    assert config(stop="END") == {"stopSequences": ["END"]}
    assert config(stop=[]) is None


@pytest.mark.parametrize("seed", [2**31, -1, 2**62 + 5])
def test_wide_seed_is_narrowed(seed: int) -> None:
    """OpenAI's seeds have 64 bits, Gemini's 32: the same seed becomes the same."""
    assert 0 <= config(seed=seed)["seed"] < 2**31
    assert config(seed=seed) == config(seed=seed)


@pytest.mark.parametrize(
    ("max_output", "fields", "limit"),
    [
        (None, {"max_tokens": 50}, 50),
        (None, {"max_tokens": 50, "max_completion_tokens": 60.0}, 60),
        (40, {"max_tokens": 50}, 40),
    ],
)
def test_limit_is_the_clients_and_at_most_the_models(max_output: int | None, fields: Any, limit: int) -> None:
    """More than the model can say would be a 400, and means the same as all it can say."""
    body = msgspec.json.decode(render(max_output=max_output, **fields).body)

    assert body["generationConfig"] == {"maxOutputTokens": limit}


@pytest.mark.parametrize(
    ("model", "kept", "dropped"),
    [
        (BUDGET, {"presencePenalty": 0.5, "frequencyPenalty": 1}, ()),
        (FLASH, None, ("presence_penalty", "frequency_penalty")),
    ],
)
def test_penalties_go_to_models_that_take_them(model: str, kept: Any, dropped: tuple[str, ...]) -> None:
    """From Gemini 3 on penalties are a 400, so they are left out and said so."""
    rendered = render(model=model, presence_penalty=0.5, frequency_penalty=1)

    assert msgspec.json.decode(rendered.body).get("generationConfig") == kept
    assert rendered.dropped == dropped


def test_logprobs_are_asked_for() -> None:
    """The number of alternatives only counts together with the switch."""
    assert config(logprobs=True) == {"responseLogprobs": True}
    assert config(logprobs=True, top_logprobs=3) == {"responseLogprobs": True, "logprobs": 3}
    assert config(top_logprobs=3) is None


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "dropped"),
    [
        (FLASH, "minimal", {"includeThoughts": True, "thinkingLevel": "minimal"}, False),
        (FLASH, "max", {"includeThoughts": True, "thinkingLevel": "high"}, False),
        (FLASH, "none", {"thinkingLevel": "minimal"}, True),
        (PRO, "minimal", {"includeThoughts": True, "thinkingLevel": "low"}, False),
        (PRO, "medium", {"includeThoughts": True, "thinkingLevel": "medium"}, False),
        (PRO, "none", {"thinkingLevel": "low"}, True),
        ("gemini-3-pro-preview", "medium", {"includeThoughts": True, "thinkingLevel": "high"}, False),
        ("gemini-9-ultra", "high", {"includeThoughts": True, "thinkingLevel": "high"}, False),
        (BUDGET, "low", {"includeThoughts": True, "thinkingBudget": 1024}, False),
        (BUDGET, "xhigh", {"includeThoughts": True, "thinkingBudget": 24_576}, False),
        (BUDGET, "none", {"thinkingBudget": 0}, False),
        (BUDGET_PRO, "xhigh", {"includeThoughts": True, "thinkingBudget": 32_768}, False),
        (BUDGET_PRO, "none", {"thinkingBudget": 128}, True),
        (OLD, "high", None, True),
        (OLD, "none", None, False),
        ("gemini-2.5-flash-image", "high", None, True),
        (GEMMA, "high", None, True),
        ("somebody-elses", "high", None, True),
    ],
)
def test_reasoning_effort_follows_the_family(model: str, effort: str, thinking: Any, dropped: bool) -> None:
    """Effort is a level from Gemini 3 on, a budget before, nothing for the oldest; none is the least there is."""
    rendered = render(model=model, reasoning_effort=effort)

    body = msgspec.json.decode(rendered.body)
    assert body.get("generationConfig", {}).get("thinkingConfig") == thinking
    assert rendered.dropped == (("reasoning_effort",) if dropped else ())


def test_googles_own_fields_go_through() -> None:
    """What Google's OpenAI endpoint takes in `extra_body.google` is taken here, and counts more than the effort."""
    google = {"thinking_config": {"thinking_budget": 5}, "cached_content": "c/1", "safety_settings": [], "x": 1}

    rendered = render(reasoning_effort="high", extra_body={"google": google})

    body = msgspec.json.decode(rendered.body)
    assert body["generationConfig"]["thinkingConfig"] == {"thinking_budget": 5}
    assert (body["cachedContent"], body["safetySettings"]) == ("c/1", [])
    assert rendered.dropped == ("extra_body.google.x",)


@pytest.mark.parametrize(
    ("tier", "kept"),
    [
        ("flex", "flex"),
        ("priority", "priority"),
        ("fast", "priority"),
        ("auto", None),
        ("default", None),
        ("scale", None),
    ],
)
def test_service_tier_is_told_where_it_exists(tier: str, kept: str | None) -> None:
    """The Gemini API has tiers of its own; Vertex AI has them elsewhere."""
    rendered = render(service_tier=tier)
    vertex = VERTEX.render(chat(service_tier=tier), Target(FLASH))

    assert msgspec.json.decode(rendered.body).get("serviceTier") == kept
    assert rendered.dropped == (("service_tier",) if tier == "scale" else ())
    assert b"serviceTier" not in vertex.body
    assert vertex.dropped == (() if tier in ("auto", "default") else ("service_tier",))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "heroic"}, "reasoning_effort"),
        ({"n": 9}, "n"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"stop": list("abcdef")}, "stop"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_parameter_that_would_change_the_answer_is_refused(fields: Any, param: str) -> None:
    """What cannot be carried and cannot be left out either is a local 400 that names it."""
    assert refusal(**fields).param == param


def test_unknown_parameters_are_dropped_and_listed() -> None:
    """What Gemini has no word for is left out; null and false say nothing and are not worth a mention."""
    rendered = render(user="u", logit_bias=None, store=False, verbosity="low", modalities=["text"])

    assert rendered.dropped == ("user", "verbosity")


def test_schema_of_300_levels_is_no_crash() -> None:
    """A tool's schema passes at any depth; one that has to be rewritten may be refused, never a 500."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(300):
        schema = {"type": "object", "properties": {"a": schema}}
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}

    assert sent(tools=[tool])["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"] == schema


@pytest.mark.parametrize("number", ["1e999", "9" * 5000])
def test_number_that_no_decoder_takes_is_a_clean_refusal(number: str) -> None:
    """A schema that has to be read may hold what was only passed on so far; one that is passed on passes."""
    head = '{"model":"m","messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_schema",'
    for extra, refused in (('"title":"x",', True), ("", False)):
        given = f'"json_schema":{{"name":"x","description":"d","schema":{{{extra}"maximum":{number}}}}}}}}}'
        request = decode_chat((head + given).encode(), 1000)
        if not refused:
            assert f'"maximum":{number}'.encode() in ADAPTER.render(request, Target(FLASH)).body
            continue
        with pytest.raises(errors.InvalidRequestError) as raised:
            ADAPTER.render(request, Target(FLASH))
        assert (raised.value.unsent, raised.value.param) == (True, "response_format.json_schema.schema")


def test_endless_nesting_is_a_clean_refusal() -> None:
    """A schema that is too deep to be rewritten is a 400."""
    schema = '{"title":"x","properties":{"a":' * 450 + "{}" + "}}" * 450
    raw = '{"model":"m","messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_schema",'
    request = decode_chat((raw + f'"json_schema":{{"name":"x","schema":{schema}}}}}}}').encode(), 1000)

    with pytest.raises(errors.InvalidRequestError) as raised:
        ADAPTER.render(request, Target(FLASH))

    assert raised.value.unsent
