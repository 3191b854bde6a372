"""OpenAI's request in Converse's words: path, limits, sampling, reasoning, and what is left out."""

from typing import Any

import pytest

from adapters._bedrock.models import family_for
from proxy import errors
from proxy.adapter import Target

from .bedrock_words import (
    ADAPTER,
    ADAPTIVE,
    BUDGET_CLAUDE,
    CLAUDE,
    FORMAT,
    HI,
    LLAMA,
    NEWEST,
    NOVA,
    OLD_CLAUDE,
    TOOL,
    UNKNOWN,
    call,
    called,
    chat,
    own,
    refusal,
    render,
    result,
    sent,
)

GPT_OSS = "openai.gpt-oss-120b-1:0"
QWEN = "qwen.qwen3-32b-v1:0"
GROK = "us.xai.grok-4-6"


def config(model: str = CLAUDE, max_output: int | None = None, **fields: Any) -> Any:
    return sent(model=model, max_output=max_output, **fields).get("inferenceConfig")


def test_the_least_request() -> None:
    """Nothing goes out that was not asked for."""
    found = render()

    assert found.body == b'{"messages":[{"role":"user","content":[{"text":"hi"}]}]}'
    assert (found.headers, found.dropped) == ({}, ())


@pytest.mark.parametrize(
    ("model", "segment"),
    [
        ("amazon.nova-lite-v1:0", "amazon.nova-lite-v1%3A0"),
        (CLAUDE, "us.anthropic.claude-sonnet-4-5-20250929-v1%3A0"),
        (
            UNKNOWN,
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A000000000000%3Aapplication-inference-profile%2Fabc123",
        ),
        (
            "arn:aws:bedrock:us-east-1::foundation-model/a.b",
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Fa.b",
        ),
    ],
)
def test_the_model_is_one_segment_of_the_path(model: str, segment: str) -> None:
    """Ids, profiles and ARNs are percent-encoded whole; a stream has a path of its own."""
    assert render(model=model).path == f"/model/{segment}/converse"
    assert render(model=model, stream=True).path == f"/model/{segment}/converse-stream"


@pytest.mark.parametrize(
    "model",
    [
        "..",
        "a/../../b",
        "../x",
        "a/",
        "/a",
        "a//b",
        "a?b=c",
        "a#b",
        "a%2e",
        "a\\b",
        "a b",
        "a\r\nHost: x",
        "é",
        ".",
        "x" * 2049,
    ],
)
def test_a_name_cannot_leave_its_segment(model: str) -> None:
    """The client chooses a model, never a path, a query or a header."""
    with pytest.raises(errors.InvalidRequestError) as raised:
        ADAPTER.render(chat(), Target(model))

    assert (raised.value.unsent, raised.value.param) == (True, "model")


def test_limits() -> None:
    """Either spelling is the limit, never more than the model can say; without one Bedrock's own default holds."""
    assert config(max_tokens=5) == {"maxTokens": 5}
    assert config(max_tokens=5, max_completion_tokens=6) == {"maxTokens": 6}
    assert config(max_tokens=5000, max_output=100) == {"maxTokens": 100}
    assert config(max_output=100) is None


def test_sampling() -> None:
    """OpenAI's temperature ends at 2, Converse's at 1."""
    assert config(NOVA, temperature=0.5, top_p=0.9) == {"temperature": 0.5, "topP": 0.9}
    assert config(NOVA, temperature=2) == {"temperature": 1}
    assert config(NOVA, temperature=0) == {"temperature": 0}


@pytest.mark.parametrize(
    ("model", "dropped"),
    [
        (ADAPTIVE, ("temperature", "top_p", "top_k")),
        (GROK, ("temperature", "top_p", "top_k")),
        ("openai.gpt-5.6-sol", ("temperature", "top_p", "top_k")),
        (CLAUDE, ("top_p",)),
        (OLD_CLAUDE, ()),
        (NOVA, ()),
        (LLAMA, ("top_k",)),
    ],
)
def test_sampling_that_a_model_refuses_is_dropped(model: str, dropped: tuple[str, ...]) -> None:
    """Newer Claudes, GPT and Grok take none; one Claude generation takes only one of the two; few know top_k."""
    assert render(model=model, temperature=1, top_p=0.5, top_k=9).dropped == dropped


def test_top_k_stands_where_the_family_wants_it() -> None:
    """Converse has no field for it."""
    assert own(model=CLAUDE, top_k=9) == {"top_k": 9}
    assert own(model=NOVA, top_k=9) == {"inferenceConfig": {"topK": 9}}


@pytest.mark.parametrize(
    ("stop", "model", "kept", "dropped"),
    [
        ("a", CLAUDE, ["a"], ()),
        (["a", ""], NOVA, ["a"], ("stop",)),
        ("\n", NOVA, ["\n"], ()),
        ("\n", CLAUDE, None, ("stop",)),
        ([], NOVA, None, ()),
    ],
)
def test_stop_sequences(stop: Any, model: str, kept: Any, dropped: tuple[str, ...]) -> None:
    """Empty ones are never taken, white space not by Claude."""
    found = render(stop=stop, model=model)

    assert (config(model, stop=stop) or {}).get("stopSequences") == kept
    assert found.dropped == dropped
    assert refusal(stop=["a"] * 5).param == "stop"


@pytest.mark.parametrize(
    ("model", "effort", "fields"),
    [
        (ADAPTIVE, "minimal", {"output_config": {"effort": "low"}}),
        (ADAPTIVE, "xhigh", {"output_config": {"effort": "xhigh"}}),
        ("us.anthropic.claude-sonnet-4-6", "xhigh", {"output_config": {"effort": "high"}}),
        (NOVA, "minimal", {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}),
        (NOVA, "high", {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}),
        (NOVA, "none", None),
        (GPT_OSS, "medium", {"reasoning_effort": "medium"}),
        (GPT_OSS, "max", {"reasoning_effort": "high"}),
        ("openai.gpt-6-sol", "none", {"reasoning": {"effort": "none"}}),
        (QWEN, "medium", {"reasoning_config": "high"}),
        (QWEN, "none", {"reasoning_config": "none"}),
        ("deepseek.v3.2", "low", {"reasoning_effort": "high"}),
        ("zai.glm-5", "none", {"reasoning_effort": "none"}),
        ("zai.glm-5.3", "max", {"reasoning_effort": "max"}),
        (GROK, "high", {"reasoning": {"effort": "high"}}),
    ],
)
def test_reasoning_effort_in_the_words_of_the_family(model: str, effort: str, fields: Any) -> None:
    """Each family has its own field and its own words; OpenAI's seven are folded to the nearest."""
    found = own(model=model, reasoning_effort=effort)

    if found is not None and "thinking" in found:
        assert found.pop("thinking") == {"type": "adaptive", "display": "summarized"}
    assert found == fields
    assert render(model=model, reasoning_effort=effort).dropped == ()


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (GPT_OSS, {"reasoning_effort": "low"}),
        (GROK, {"reasoning": {"effort": "low"}}),
        ("zai.glm-5.3", {"reasoning_effort": "low"}),
        (NEWEST, {"output_config": {"effort": "low"}}),
    ],
)
def test_reasoning_that_cannot_be_stopped_is_least(model: str, fields: Any) -> None:
    """Whoever asks for none gets as little as there is, and is told."""
    assert own(model=model, reasoning_effort="none") == fields
    assert render(model=model, reasoning_effort="none").dropped == ("reasoning_effort",)


@pytest.mark.parametrize(
    "model", [LLAMA, OLD_CLAUDE, UNKNOWN, "amazon.nova-lite-v1:0", "qwen.qwen3-coder-30b-a3b-v1:0"]
)
def test_reasoning_is_dropped_where_there_is_none(model: str) -> None:
    """A field that a model does not know would be a 400."""
    assert own(model=model, reasoning_effort="high") is None
    assert render(model=model, reasoning_effort="high").dropped == ("reasoning_effort",)


def test_claude_is_kept_from_thinking_where_it_can_be() -> None:
    """ "none" is said where leaving it out would mean thinking."""
    assert own(model="global.anthropic.claude-opus-5", reasoning_effort="none") == {"thinking": {"type": "disabled"}}
    assert own(model=CLAUDE, reasoning_effort="none") is None
    between = own(model="global.anthropic.claude-sonnet-5-5", reasoning_effort="none")
    assert between == {"thinking": {"type": "between_tools"}}


def test_thinking_leaves_room_for_the_answer() -> None:
    """Thinking counts against the limit; Bedrock's default of 4096 would be used up by it."""
    assert config(ADAPTIVE, reasoning_effort="low") == {"maxTokens": 128_000}
    assert config(ADAPTIVE, reasoning_effort="low", max_output=64_000) == {"maxTokens": 64_000}
    assert config(ADAPTIVE, reasoning_effort="low", max_tokens=500) == {"maxTokens": 500}


@pytest.mark.parametrize(
    ("fields", "budget", "limit"),
    [
        ({"reasoning_effort": "low"}, 2048, 64_000),
        ({"reasoning_effort": "high", "max_tokens": 8000}, 6000, 8000),
        ({"reasoning_effort": "low", "max_tokens": 1000}, None, 1000),
    ],
)
def test_thinking_with_a_budget(fields: Any, budget: int | None, limit: int) -> None:
    """Older Claudes think with a budget below the limit; if nothing is left for it they do not."""
    body = sent(model=CLAUDE, **fields)

    assert body["inferenceConfig"]["maxTokens"] == limit
    if budget is None:
        assert render(model=CLAUDE, **fields).dropped == ("reasoning_effort",)
    else:
        assert body["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": budget}}


def test_a_small_default_grows_for_the_budget() -> None:
    """Where the model's own limit is small, the budget decides."""
    assert config(BUDGET_CLAUDE, reasoning_effort="low") == {"maxTokens": 2048 + 4096}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": (HI, called(call("a")), result("a")), "tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "required"},
        {"messages": (HI, {"role": "assistant", "content": "{"})},
        {"response_format": FORMAT},
    ],
)
def test_no_budget_where_it_would_be_refused(fields: dict[str, Any]) -> None:
    """In a tool loop the thoughts would have to come back; a forced call or a prefilled answer excludes them."""
    messages = fields.pop("messages", (HI,))

    found = render(*messages, model=BUDGET_CLAUDE, reasoning_effort="high", **fields)

    assert b'"thinking"' not in found.body
    assert found.dropped == ("reasoning_effort",)


def test_a_forced_call_excludes_adaptive_thinking() -> None:
    """The effort stays, the thinking does not."""
    assert own(model=ADAPTIVE, reasoning_effort="low", tools=[TOOL], tool_choice="required") == {
        "output_config": {"effort": "low"}
    }


def test_nova_thinks_less_beside_a_limit() -> None:
    """Nova refuses its highest effort together with a limit or sampling; the client's limit counts more."""
    for fields in ({"max_tokens": 5}, {"temperature": 0.5}, {"top_p": 0.5}):
        found = own(model=NOVA, reasoning_effort="high", **fields)
        assert found["reasoningConfig"]["maxReasoningEffort"] == "medium"


def test_claudes_own_thinking_goes_through() -> None:
    """It counts before OpenAI's field, switches sampling off, and means nothing to other models."""
    thinking = {"type": "enabled", "budget_tokens": 2000}

    found = render(model=CLAUDE, thinking=thinking, reasoning_effort="low", temperature=1)

    assert own(model=CLAUDE, thinking=thinking) == {"thinking": thinking}
    assert found.dropped == ("reasoning_effort", "temperature")
    assert render(model=CLAUDE, thinking={"type": "disabled"}, temperature=1).dropped == ()
    assert render(model=NOVA, thinking=thinking).dropped == ("thinking",)
    assert own(model=NOVA, thinking=thinking, reasoning_effort="low") is not None
    assert render(model=CLAUDE, thinking=None).dropped == ()
    assert refusal(model=CLAUDE, thinking=5).param == "thinking"
    assert refusal(reasoning_effort="huge").param == "reasoning_effort"


def test_bedrocks_own_fields_go_through() -> None:
    """Guardrails and latency are Bedrock's; fields of the model's own are added to ours and count before them."""
    guard = {"guardrailIdentifier": "g", "guardrailVersion": "1"}

    body = sent(
        model=QWEN,
        guardrailConfig=guard,
        performanceConfig={"latency": "optimized"},
        additionalModelRequestFields={"reasoning_config": "low", "k": 1.10},
        reasoning_effort="high",
    )

    assert body["guardrailConfig"] == guard
    assert body["performanceConfig"] == {"latency": "optimized"}
    assert body["additionalModelRequestFields"] == {"reasoning_config": "low", "k": 1.10}
    assert "guardrailConfig" not in sent(guardrailConfig=None)


@pytest.mark.parametrize(
    ("tier", "expected", "dropped"),
    [
        ("auto", None, ()),
        ("default", "default", ()),
        ("flex", "flex", ()),
        ("priority", "priority", ()),
        ("fast", "priority", ()),
        ("scale", None, ("service_tier",)),
    ],
)
def test_service_tiers(tier: str, expected: str | None, dropped: tuple[str, ...]) -> None:
    """Those that both know have the same names."""
    found = sent(service_tier=tier).get("serviceTier")

    assert found == (None if expected is None else {"type": expected})
    assert render(service_tier=tier).dropped == dropped


def test_metadata_and_user_are_request_metadata() -> None:
    """What fits Bedrock's patterns goes into its logs; what does not is dropped and named."""
    assert sent(metadata={"team": "a b"}, user="u-1")["requestMetadata"] == {"team": "a b", "user": "u-1"}
    odd = render(metadata={"team": "ä", "ok": "1"}, user="x" * 257)
    assert b'"requestMetadata":{"ok":"1"}' in odd.body
    assert odd.dropped == ("user", "metadata")
    many = {str(number): "x" for number in range(16)}
    assert render(metadata=many, user="u").dropped == ("user",)
    assert "requestMetadata" not in sent(metadata={}, user="")
    assert "requestMetadata" not in sent(user="ä")


def test_unknown_parameters_are_dropped_and_named() -> None:
    """Null and false say nothing, so nothing is lost with them."""
    found = render(seed=1, logprobs=False, logit_bias=None, frequency_penalty=0.5, prompt_cache_key="x", n=1)

    assert found.dropped == ("seed", "frequency_penalty", "prompt_cache_key")


@pytest.mark.parametrize(
    ("fields", "param"), [({"n": 2}, "n"), ({"modalities": ["audio"]}, "modalities"), ({"stop": 5}, "stop")]
)
def test_what_changes_the_answer_is_refused(fields: Any, param: str) -> None:
    """Two answers, or a spoken one, are not one text."""
    assert refusal(**fields).param == param


def test_a_schema_nested_without_end_is_refused() -> None:
    """What cannot be encoded again is a 400, never a crash."""
    schema: Any = {}
    for _ in range(400):
        schema = {"type": "object", "properties": {"a": schema}}

    assert render(tools=[{"type": "function", "function": {"name": "x", "parameters": schema}}]).body
    strict = {"name": "x", "parameters": schema, "strict": True}
    assert refusal(tools=[{"type": "function", "function": strict}]).param is None


@pytest.mark.parametrize(
    ("model", "same"),
    [
        ("us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", CLAUDE),
        (
            "arn:aws:bedrock:us-east-1:000000000000:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            CLAUDE,
        ),
        ("global.amazon.nova-2-lite-v1:0", NOVA),
        ("someone.else-1", UNKNOWN),
        ("nodots", UNKNOWN),
    ],
)
def test_families_are_known_by_any_name(model: str, same: str) -> None:
    """Geographies and ARNs do not hide the family; whom nobody knows gets the plainest rules."""
    assert family_for(model) == family_for(same)
