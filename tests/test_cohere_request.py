"""The request that Cohere is sent for OpenAI's."""

from typing import Any

import msgspec
import pytest

from proxy.adapter import Target
from proxy.wire import ChatRequest

from .translated_words import FORMAT, HI, OTHER, SCHEMA, TOOL, Language, chat

COHERE = Language("cohere", "command-a-03-2025")
THINKER = "command-a-reasoning-08-2025"
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def test_a_plain_request() -> None:
    """Model and messages, at Cohere's path; nothing that the client did not ask for."""
    rendered = COHERE.render()

    assert rendered.path == "/chat"
    assert msgspec.json.decode(rendered.body) == {"model": "command-a-03-2025", "messages": [HI]}
    assert COHERE.sent(stream=True)["stream"] is True
    assert COHERE.adapter.auth("k") == {"authorization": "Bearer k"}
    assert COHERE.adapter.auth(None) == {}


def test_parameters_have_cohere_s_names() -> None:
    """What Cohere has a word for is sent under it."""
    numbers = {"temperature": 0.5, "seed": 7, "frequency_penalty": 0.5, "presence_penalty": 0.25, "max_tokens": 5}
    body = COHERE.sent(top_p=0.5, top_k=20, stop="x", **numbers)

    del body["model"], body["messages"]
    assert body == {"p": 0.5, "k": 20, "stop_sequences": ["x"], **numbers}


@pytest.mark.parametrize(
    ("name", "value", "word", "sent"),
    [
        ("top_p", 1, "p", 0.99),
        ("top_p", 0, "p", 0.01),
        ("frequency_penalty", 1.5, "frequency_penalty", 1),
        ("presence_penalty", 2, "presence_penalty", 1),
    ],
)
def test_numbers_stay_in_cohere_s_range(name: str, value: float, word: str, sent: float) -> None:
    """The ends of OpenAI's ranges that Cohere answers with 400 become the ends of its own."""
    assert COHERE.sent(**{name: value})[word] == sent


def test_what_has_no_word_is_dropped_and_named() -> None:
    """A parameter that cannot be taken is left out, and the client is told; one that says nothing is not."""
    rendered = COHERE.render(
        frequency_penalty=-1, seed=-1, logit_bias={"1": 1}, user="u", logprobs=False, store=None,
        tools=[TOOL, {**TOOL, "function": {"name": "b", "strict": True}}], parallel_tool_calls=False,
    )  # fmt: skip

    assert sorted(rendered.dropped) == [
        "frequency_penalty", "logit_bias", "parallel_tool_calls", "seed", "tools[1].function.strict", "user"
    ]  # fmt: skip
    assert not {"seed", "user", "logit_bias"} & msgspec.json.decode(rendered.body).keys()


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_completion_tokens": 7, "max_tokens": 9}, 7),
        ({"max_tokens": 9000}, 4000),
        ({"max_tokens": 9000, "max_output": None}, 9000),
        ({}, None),
    ],
)
def test_the_limit(fields: dict[str, Any], limit: int | None) -> None:
    """The newer name counts, and a model is not asked for more than it can say."""
    assert COHERE.sent(**{"max_output": 4000, **fields}).get("max_tokens") == limit


def test_stop_sequences() -> None:
    """One or several; an empty one stops nothing."""
    assert COHERE.sent(stop=["a", "", "b"])["stop_sequences"] == ["a", "b"]
    assert "stop_sequences" not in COHERE.sent(stop="")


def test_cohere_s_own_fields_go_through() -> None:
    """Documents, citations and the like as they came, digits and all; they win over what OpenAI's fields say."""
    own: dict[str, Any] = {
        "documents": [{"data": {"n": 1.0}}],
        "citation_options": {"mode": "off"},
        "safety_mode": "NONE",
        "k": 3,
    }

    rendered = COHERE.render(**own, p=0.3, top_p=0.9, priority=1, strict_tools=True)

    body = msgspec.json.decode(rendered.body)
    assert {name: body[name] for name in own} == own
    assert (body["p"], body["priority"], body["strict_tools"], rendered.dropped) == (0.3, 1, True, ())
    assert b'"n":1.0' in rendered.body


# ---- tools and formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "tools", "sent"),
    [
        (None, ["look", "other"], None),
        ("auto", ["look", "other"], None),
        ("required", ["look", "other"], "REQUIRED"),
        ("none", ["look", "other"], "NONE"),
        ({"type": "function", "function": {"name": "other"}}, ["other"], "REQUIRED"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}, ["look"], None),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOL]}}, ["look"], "REQUIRED"),
    ],
)
def test_tool_choice(choice: Any, tools: list[str], sent: str | None) -> None:
    """Cohere can be made to call some tool, so a tool with a name is the only one it sees."""
    body = COHERE.sent(tools=[TOOL, OTHER], tool_choice=choice)

    assert [tool["function"]["name"] for tool in body["tools"]] == tools
    assert body.get("tool_choice") == sent


def test_tools_keep_openai_s_shape() -> None:
    """Name, description and schema; a tool without parameters has an empty object of them."""
    assert COHERE.sent(tools=[TOOL, OTHER])["tools"] == [
        LOOK,
        {
            "type": "function",
            "function": {"name": "other", "description": "d", "parameters": {"type": "object", "properties": {}}},
        },
    ]


def test_the_older_spelling_of_tools() -> None:
    """`functions` are tools, `function_call` is their choice."""
    named = COHERE.sent(functions=[TOOL["function"], OTHER["function"]], function_call={"name": "look"})
    none = COHERE.sent(functions=[TOOL["function"]], function_call="none")

    assert (named["tools"], named["tool_choice"]) == ([LOOK], "REQUIRED")
    assert none["tool_choice"] == "NONE"


def test_a_call_of_no_tool_cannot_be_forced() -> None:
    """Without tools there is no choice among them."""
    rendered = COHERE.render(tool_choice="required")

    assert "tool_choice" not in msgspec.json.decode(rendered.body)
    assert rendered.dropped == ("tool_choice",)


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (FORMAT, {"type": "json_object", "json_schema": SCHEMA}),
        ({"type": "json_schema"}, {"type": "json_object"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": None}}, {"type": "json_object"}),
    ],
)
def test_response_format(wanted: Any, sent: Any) -> None:
    """A schema is a field of Cohere's one JSON format."""
    assert COHERE.sent(response_format=wanted).get("response_format") == sent


def test_json_and_tools_exclude_each_other() -> None:
    """Cohere refuses both at once: another provider is asked, unless the tools are closed anyway."""
    assert COHERE.refusal(tools=[TOOL], response_format=FORMAT).param == "response_format"
    closed = COHERE.sent(tools=[TOOL], tool_choice="none", response_format=FORMAT)
    assert "tools" not in closed
    assert closed["response_format"]["json_schema"] == SCHEMA


# ---- thinking ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("effort", "fields", "thinking"),
    [
        ("none", {}, {"type": "disabled"}),
        ("low", {}, {"type": "enabled", "token_budget": 2048}),
        ("low", {"max_tokens": 9000}, {"type": "enabled", "token_budget": 2048}),
        ("low", {"max_tokens": 2048}, {"type": "enabled"}),
        ("max", {}, {"type": "enabled"}),
        (None, {}, None),
    ],
)
def test_effort_is_a_budget_of_thoughts(effort: str | None, fields: Any, thinking: Any) -> None:
    """Models that think are told how much, but never so much that no room is left for the answer."""
    assert COHERE.sent(model=THINKER, reasoning_effort=effort, **fields).get("thinking") == thinking


@pytest.mark.parametrize(("effort", "dropped"), [("none", ()), ("high", ("reasoning_effort",))])
def test_other_models_never_think(effort: str, dropped: tuple[str, ...]) -> None:
    """They would refuse the field; not thinking is what "none" asks for."""
    rendered = COHERE.render(reasoning_effort=effort)

    assert rendered.dropped == dropped
    assert "thinking" not in msgspec.json.decode(rendered.body)


def test_cohere_s_own_thinking_wins() -> None:
    """Who writes Cohere's field means it."""
    rendered = COHERE.render(model=THINKER, thinking={"type": "disabled"}, reasoning_effort="high")

    assert msgspec.json.decode(rendered.body)["thinking"] == {"type": "disabled"}
    assert rendered.dropped == ("reasoning_effort",)
    assert COHERE.sent(model=THINKER, thinking=None, reasoning_effort="none")["thinking"] == {"type": "disabled"}


# ---- what cannot be sent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"n": 2}, "unsupported_parameter", "n"),
        ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
        ({"tools": [{"type": "custom"}]}, "unsupported_parameter", "tools[0].type"),
        ({"tools": [TOOL], "tool_choice": {"type": "custom"}}, "unsupported_parameter", "tool_choice"),
        ({"tools": [{"type": "function"}]}, "invalid_value", "tools[0].function"),
        ({"tools": [{"function": {"name": "a", "parameters": 1}}]}, "invalid_value", "tools[0].function.parameters"),
        ({"tool_choice": "some"}, "invalid_value", "tool_choice"),
        ({"reasoning_effort": "huge"}, "invalid_value", "reasoning_effort"),
        ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
        ({"stop": [1]}, "invalid_value", "stop[0]"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": []}}},
            "invalid_value",
            "response_format.json_schema.schema",
        ),
    ],
)
def test_a_request_that_cannot_be_sent(fields: Any, code: str, param: str) -> None:
    """What changes the meaning of the answer, or is wrong in itself, is named and goes to no upstream."""
    error = COHERE.refusal(**fields)

    assert (error.code, error.param) == (code, param)


def test_nesting_beyond_the_decoder_is_refused() -> None:
    """A request too deep for the decoder is a clean 400."""
    deep = b'{"messages":[{"role":"user","content":"hi"}],"x":' + b"[" * 5000 + b"]" * 5000 + b"}"
    request = ChatRequest(deep, "m", None, False, False, frozenset(), False, 1, 0)

    with pytest.raises(Exception, match="nested too deeply"):
        COHERE.adapter.render(request, Target("m"))


def test_one_choice_is_fine() -> None:
    """n = 1 is what one gets anyway."""
    assert COHERE.adapter.render(chat(n=1), Target("m")).dropped == ()


def test_strict_is_for_all_tools_at_once() -> None:
    """Cohere's switch holds every tool to its schema; when only some are strict, none is, and that is told."""
    declared: list[Any] = [TOOL, OTHER]
    strict = [{**one, "function": {**one["function"], "strict": True}} for one in declared]
    some = COHERE.render(tools=[strict[0], OTHER])

    assert COHERE.sent(tools=strict)["strict_tools"] is True
    assert COHERE.render(tools=strict).dropped == ()
    assert (b"strict_tools" in some.body, some.dropped) == (False, ("tools[0].function.strict",))
