"""Limits, thinking, sampling and the other parameters, as Anthropic is sent them."""

from typing import Any

import msgspec
import pytest

from proxy import errors
from proxy.adapter import Target
from proxy.wire import decode_chat

from .anthropic_words import (
    ADAPTER,
    ADAPTIVE,
    BUDGET,
    CURRENT,
    HI,
    NEWEST,
    OLD,
    TOOL,
    call,
    called,
    refusal,
    render,
    result,
    sent,
)


@pytest.mark.parametrize(
    ("model", "max_output", "fields", "limit"),
    [
        (OLD, None, {}, 4096),
        (CURRENT, None, {}, 64_000),
        (NEWEST, None, {}, 128_000),
        ("claude-unheard-of-9", None, {}, 128_000),
        ("glm-5", None, {}, 8192),
        (CURRENT, 32_000, {}, 32_000),
        (CURRENT, 32_000, {"max_tokens": 50_000}, 32_000),
        (CURRENT, None, {"max_tokens": 50}, 50),
        (CURRENT, 32_000, {"max_tokens": 50, "max_completion_tokens": 60}, 60),
    ],
)
def test_limit_is_always_there(model: str, max_output: int | None, fields: Any, limit: int) -> None:
    """Anthropic needs a limit: the client's, at most the model's own, else the family's default."""
    assert msgspec.json.decode(render(model=model, max_output=max_output, **fields).body)["max_tokens"] == limit


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "output", "dropped"),
    [
        (ADAPTIVE, "minimal", {"type": "adaptive", "display": "summarized"}, {"effort": "low"}, ()),
        (ADAPTIVE, "xhigh", {"type": "adaptive", "display": "summarized"}, {"effort": "xhigh"}, ()),
        ("claude-opus-4-6", "xhigh", {"type": "adaptive", "display": "summarized"}, {"effort": "high"}, ()),
        (BUDGET, "low", {"type": "enabled", "budget_tokens": 2048}, None, ()),
        (OLD, "high", None, None, ("reasoning_effort",)),
        (ADAPTIVE, "none", None, None, ()),
        (BUDGET, "none", None, None, ()),
        ("claude-opus-5", "none", {"type": "disabled"}, None, ()),
        ("claude-sonnet-5-5", "none", {"type": "between_tools"}, None, ()),
        (NEWEST, "none", None, {"effort": "low"}, ("reasoning_effort",)),
    ],
)
def test_reasoning_effort_follows_the_family(
    model: str, effort: str, thinking: Any, output: Any, dropped: tuple[str, ...]
) -> None:
    """Effort is a word for adaptive models, a budget for older ones, nothing for the oldest; none is off if it can."""
    rendered = render(model=model, reasoning_effort=effort)

    body = msgspec.json.decode(rendered.body)
    assert (body.get("thinking"), body.get("output_config"), rendered.dropped) == (thinking, output, dropped)


@pytest.mark.parametrize(
    ("fields", "limit", "budget"),
    [({}, 20_480, 16_384), ({"max_tokens": 4000}, 4000, 3000), ({"max_tokens": 1300}, 1300, None)],
)
def test_thinking_budget_leaves_room_for_the_answer(fields: Any, limit: int, budget: int | None) -> None:
    """The budget is inside the limit: without one the default grows, with a small one thinking shrinks or goes."""
    rendered = render(model=BUDGET, reasoning_effort="high", **fields)

    body = msgspec.json.decode(rendered.body)
    assert (body["max_tokens"], body.get("thinking", {}).get("budget_tokens")) == (limit, budget)
    assert ("reasoning_effort" in rendered.dropped) is (budget is None)


@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        ([HI], {"tools": [TOOL], "tool_choice": "required"}),
        ([HI, called(call("a")), result("a")], {"tools": [TOOL]}),
        ([HI, {"role": "assistant", "content": "So"}], {}),
    ],
)
def test_budget_thinking_is_off_where_it_would_be_refused(messages: Any, fields: Any) -> None:
    """Forced tools, answered calls without their thinking blocks, and prefill exclude thinking with a budget."""
    rendered = render(*messages, model=BUDGET, reasoning_effort="high", **fields)

    assert b'"thinking"' not in rendered.body
    assert rendered.dropped == ("reasoning_effort",)


def test_forced_tool_keeps_the_effort_of_an_adaptive_model() -> None:
    """Thinking excludes a forced call, the effort does not."""
    body = sent(model=ADAPTIVE, reasoning_effort="high", tools=[TOOL], tool_choice="required")

    assert body["output_config"] == {"effort": "high"}
    assert "thinking" not in body


def test_anthropics_own_fields_go_through() -> None:
    """A client that speaks of `thinking` and `top_k` knows what it does."""
    thinking = {"type": "enabled", "budget_tokens": 2000}

    rendered = render(model=BUDGET, thinking=thinking, reasoning_effort="high")

    assert msgspec.json.decode(rendered.body)["thinking"] == thinking
    assert rendered.dropped == ("reasoning_effort",)
    assert sent(model=BUDGET, thinking={"type": "disabled"}, top_k=5)["top_k"] == 5
    assert "thinking" not in sent(model=BUDGET, thinking=None)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"reasoning_effort": "heroic"}, "reasoning_effort"), ({"thinking": 1}, "thinking"), ({"n": 2}, "n"),
     ({"modalities": ["audio"]}, "modalities"), ({"stop": list("abcde")}, "stop")],
)  # fmt: skip
def test_parameter_that_would_change_the_answer_is_refused(fields: Any, param: str) -> None:
    """What cannot be carried and cannot be left out either is a local 400 that names it."""
    assert refusal(**fields).param == param


@pytest.mark.parametrize(
    ("model", "fields", "kept", "dropped"),
    [
        (OLD, {"temperature": 0, "top_p": 0.5}, {"temperature": 0, "top_p": 0.5}, ()),
        (OLD, {"temperature": 1.7}, {"temperature": 1}, ()),
        (CURRENT, {"temperature": 0.3, "top_p": 0.5}, {"temperature": 0.3}, ("top_p",)),
        (CURRENT, {"top_p": 0.5, "top_k": 7}, {"top_p": 0.5, "top_k": 7}, ()),
        (NEWEST, {"temperature": 0, "top_k": 7}, {}, ("temperature", "top_k")),
        (BUDGET, {"temperature": 0, "reasoning_effort": "low"}, {}, ("temperature",)),
    ],
)
def test_sampling_follows_the_family(model: str, fields: Any, kept: Any, dropped: tuple[str, ...]) -> None:
    """Sampling parameters are kept as far as the model takes them, never while it thinks."""
    rendered = render(model=model, **fields)

    body = msgspec.json.decode(rendered.body)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == kept
    assert rendered.dropped == dropped


@pytest.mark.parametrize(
    ("stop", "kept", "dropped"),
    [("END", ["END"], ()), (["a", "\n", "b"], ["a", "b"], ("stop",)), ("\n", None, ("stop",)), ([], None, ())],
)
def test_stop_sequences_are_never_white_space(stop: Any, kept: Any, dropped: tuple[str, ...]) -> None:
    """White space alone is refused as a stop sequence, so it is left out and said so."""
    rendered = render(stop=stop)

    assert msgspec.json.decode(rendered.body).get("stop_sequences") == kept
    assert rendered.dropped == dropped


@pytest.mark.parametrize(("user", "kept"), [("u-1", True), ("a@b.test", False), ("+49 30 1234567", False), ("", None)])
def test_user_is_told_unless_it_is_personal(user: str, kept: bool | None) -> None:
    """Anthropic forbids addresses and phone numbers as user ids."""
    rendered = render(user=user)

    assert (b"metadata" in rendered.body) is bool(kept)
    assert rendered.dropped == (("user",) if kept is False else ())


def test_unknown_parameters_are_dropped_and_listed() -> None:
    """What Anthropic has no word for is left out; null and false say nothing and are not worth a mention."""
    rendered = render(seed=1, logprobs=False, logit_bias=None, presence_penalty=0.5, n=1, stream=True)

    assert rendered.dropped == ("seed", "presence_penalty")
    assert msgspec.json.decode(rendered.body)["stream"] is True
    assert rendered.path == "/messages"


def test_schema_of_300_levels_is_no_crash() -> None:
    """A tool's schema passes at any depth; one that has to be rewritten may be refused, never a 500."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(300):
        schema = {"type": "object", "properties": {"a": schema}}
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}

    assert sent(tools=[tool])["tools"][0]["input_schema"] == schema


def test_endless_nesting_is_a_clean_refusal() -> None:
    """A schema that is too deep to be rewritten is a 400."""
    schema = '{"properties":{"a":' * 350 + "{}" + "}}" * 350
    raw = '{"model":"m","messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_schema",'
    request = decode_chat((raw + f'"json_schema":{{"name":"x","schema":{schema}}}}}}}').encode(), 1000)

    with pytest.raises(errors.InvalidRequestError) as raised:
        ADAPTER.render(request, Target(CURRENT))

    assert raised.value.unsent


@pytest.mark.parametrize("number", ["1e999", "9" * 5000])
def test_number_that_no_decoder_takes_is_a_clean_refusal(number: str) -> None:
    """A schema that has to be read may hold what was only passed on so far."""
    schema = '{"type":"object","maximum":' + number + "}"
    raw = '{"model":"m","messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_schema",'
    request = decode_chat((raw + f'"json_schema":{{"name":"x","schema":{schema}}}}}}}').encode(), 1000)

    with pytest.raises(errors.InvalidRequestError) as raised:
        ADAPTER.render(request, Target(CURRENT))

    assert (raised.value.unsent, raised.value.param) == (True, "response_format.json_schema.schema")


def test_key_and_version_are_headers() -> None:
    """The key is in x-api-key; without one only the version is told."""
    assert ADAPTER.auth("k") == {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    assert ADAPTER.auth(None) == {"anthropic-version": "2023-06-01"}
    assert ADAPTER.quirks == frozenset()
