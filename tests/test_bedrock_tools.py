"""OpenAI's tools and structured output in Converse's words."""

from typing import Any

import msgspec
import pytest

from .bedrock_words import (
    ADAPTIVE,
    CLAUDE,
    FORMAT,
    HI,
    LLAMA,
    MISTRAL,
    NEWEST,
    NOVA,
    OLD_CLAUDE,
    SCHEMA,
    TOOL,
    UNKNOWN,
    call,
    called,
    own,
    refusal,
    render,
    result,
    sent,
    spec,
)

OTHER = {"type": "function", "function": {"name": "other"}}
LOOK = spec("look", {"type": "object"})
HISTORY = (HI, called(call("a")), result("a"))
NAMED = {"type": "function", "function": {"name": "look"}}
POINT = {"cachePoint": {"type": "default"}}
ANSWER = spec("sidecar_json_answer", SCHEMA, description="Give the final answer.")


def config(*messages: Any, **fields: Any) -> Any:
    return sent(*messages, **fields).get("toolConfig")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ({"name": "look"}, spec("look")),
        ({"name": "look", "parameters": None, "description": ""}, spec("look")),
        ({"name": "look", "description": "d", "parameters": {"type": "object"}}, {**LOOK}),
        ({"name": "look", "parameters": {"properties": {}}}, spec("look")),
    ],
)
def test_functions_are_tool_specs(function: Any, expected: Any) -> None:
    """A schema is an object's, and empty descriptions, which Bedrock refuses, are left out."""
    if function.get("description"):
        expected = spec("look", {"type": "object"}, description="d")

    assert config(tools=[{"type": "function", "function": function}]) == {"tools": [expected]}
    assert config(functions=[function]) == {"tools": [expected]}


def test_schemas_keep_their_bytes() -> None:
    """A schema goes out as it came, digits, order and all."""
    schema = b'{"type":"object","properties":{"n":{"maximum":1.10}},"x-own":123456789012345678901}'
    tool = {"type": "function", "function": {"name": "look", "parameters": msgspec.Raw(schema)}}

    assert schema in render(tools=[tool]).body


def test_strict_tools_are_strict_where_the_model_can() -> None:
    """Strictness is for models with structured output, with the schema in the subset they take; else it is dropped."""
    function = {"name": "look", "strict": True, "parameters": {"type": "object", "properties": {"a": {"minimum": 1}}}}
    tool = {"type": "function", "function": function}

    [strict] = config(tools=[tool])["tools"]
    assert strict["toolSpec"]["strict"] is True
    assert strict["toolSpec"]["inputSchema"]["json"]["additionalProperties"] is False
    assert "minimum" not in strict["toolSpec"]["inputSchema"]["json"]["properties"]["a"]
    older = render(tools=[tool], model=NOVA)
    assert b'"strict"' not in older.body
    assert older.dropped == ("tools[0].function.strict",)


@pytest.mark.parametrize(
    ("choice", "model", "expected"),
    [
        ("auto", CLAUDE, None),
        ("required", CLAUDE, {"any": {}}),
        ("required", UNKNOWN, {"any": {}}),
        (NAMED, CLAUDE, {"tool": {"name": "look"}}),
        (NAMED, NOVA, {"tool": {"name": "look"}}),
    ],
)
def test_tool_choice(choice: Any, model: str, expected: Any) -> None:
    """All tools are declared, and what must be called is said in Converse's words."""
    found = config(tools=[TOOL, OTHER], tool_choice=choice, model=model)

    assert found["tools"] == [LOOK, spec("other")]
    assert found.get("toolChoice") == expected


def test_a_named_tool_is_the_only_one_where_none_can_be_named() -> None:
    """Only Claude and Nova know the choice of one tool; elsewhere any of one tool means the same."""
    found = config(tools=[TOOL, OTHER], tool_choice=NAMED, model=MISTRAL)

    assert found == {"tools": [LOOK], "toolChoice": {"any": {}}}
    missing = {"type": "function", "function": {"name": "missing"}}
    assert refusal(tools=[TOOL], tool_choice=missing, model=MISTRAL).param == "tool_choice"


@pytest.mark.parametrize("model", [LLAMA, NEWEST, "cohere.command-r-v1:0"])
@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_call_that_cannot_be_forced_is_not_sent(model: str, choice: Any) -> None:
    """The next upstream may be able to; a 400 of the provider would end the chain."""
    assert refusal(tools=[TOOL], tool_choice=choice, model=model).param == "tool_choice"


def test_older_spelling_of_the_choice() -> None:
    """`function_call` is `tool_choice`."""
    assert config(functions=[{"name": "look"}], function_call={"name": "look"})["toolChoice"] == {
        "tool": {"name": "look"}
    }
    assert config(functions=[{"name": "look"}], function_call="none") is None


def test_allowed_tools_are_the_only_ones() -> None:
    """The others are not declared; the mode is auto or required."""
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}

    assert config(tools=[TOOL, OTHER], tool_choice=choice) == {"tools": [LOOK], "toolChoice": {"any": {}}}
    choice = {"type": "allowed_tools", "allowed_tools": {"tools": [NAMED]}}
    assert config(tools=[TOOL, OTHER], tool_choice=choice) == {"tools": [LOOK]}


def test_none_leaves_the_tools_out() -> None:
    """Converse has no "none": what is not declared is not called."""
    assert config(tools=[TOOL], tool_choice="none") is None
    assert own(tools=[TOOL], tool_choice="none") is None
    assert render(tools=[TOOL], tool_choice="none").dropped == ()


def test_none_with_a_history_of_calls() -> None:
    """The tools must stay declared then; Claude is told in its own words, and for others the choice is dropped."""
    assert config(*HISTORY, tools=[TOOL], tool_choice="none") == {"tools": [LOOK]}
    assert own(*HISTORY, tools=[TOOL], tool_choice="none") == {"tool_choice": {"type": "none"}}
    other = render(*HISTORY, tools=[TOOL], tool_choice="none", model=NOVA)
    assert b"toolConfig" in other.body
    assert b"tool_choice" not in other.body
    assert other.dropped == ("tool_choice",)


@pytest.mark.parametrize(("model", "fields"), [(CLAUDE, {"tool_choice": {"type": "none"}}), (NOVA, None)])
def test_a_history_of_calls_needs_tools(model: str, fields: Any) -> None:
    """A request without tools whose history has calls declares those, so that Bedrock takes it."""
    assert config(*HISTORY, model=model) == {"tools": [spec("look")]}
    assert own(*HISTORY, model=model) == fields
    assert render(*HISTORY, model=model).dropped == ()


def test_required_without_tools_is_dropped() -> None:
    """There is nothing to require."""
    assert render(tool_choice="required").dropped == ("tool_choice",)
    assert config(tool_choice="required") is None


def test_one_call_at_a_time() -> None:
    """Claude knows it as a field of its own beside an open choice; elsewhere it is dropped, and without tools moot."""
    one = {"type": "auto", "disable_parallel_tool_use": True}

    assert own(tools=[TOOL], parallel_tool_calls=False) == {"tool_choice": one}
    assert render(tools=[TOOL], parallel_tool_calls=False, model=NOVA).dropped == ("parallel_tool_calls",)
    forced = render(tools=[TOOL], tool_choice="required", parallel_tool_calls=False)
    assert (forced.dropped, b"disable_parallel" in forced.body) == (("parallel_tool_calls",), False)
    assert render(parallel_tool_calls=False).dropped == ()
    assert own(tools=[TOOL], parallel_tool_calls=True) is None


def test_illegal_names_are_replaced_everywhere() -> None:
    """A name is the same in declaration and choice."""
    tool = {"type": "function", "function": {"name": "a.b"}}

    found = config(tools=[tool], tool_choice={"type": "function", "function": {"name": "a.b"}})

    name = found["tools"][0]["toolSpec"]["name"]
    assert found["toolChoice"] == {"tool": {"name": name}}
    assert name.startswith("a_b_")


def test_marked_tools_are_cached() -> None:
    """Claude takes a cache point among the tools; elsewhere the mark is dropped."""
    outside = {**TOOL, "cache_control": {"type": "ephemeral"}}
    inside = {"type": "function", "function": {"name": "other", "cache_control": {"type": "ephemeral"}}}

    assert config(tools=[outside, inside])["tools"] == [LOOK, POINT, spec("other"), POINT]
    assert render(tools=[outside], model=NOVA).dropped == ("cache_control",)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "x", "parameters": 1}}]}, "tools[0].function.parameters"),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "custom"}}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": FORMAT, "model": LLAMA}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array"}}}, "model": NOVA},
            "response_format",
        ),
    ],
)
def test_what_cannot_be_declared_is_refused(fields: Any, param: str) -> None:
    """The client, or the next upstream, learns which field it was."""
    assert refusal(**fields).param == param


@pytest.mark.parametrize("model", [CLAUDE, ADAPTIVE, "qwen.qwen3-32b-v1:0", "mistral.mistral-large-3-675b-instruct"])
def test_structured_output(model: str) -> None:
    """A schema goes out as the text that Bedrock wants, in the subset that models take."""
    schema = {**SCHEMA, "properties": {"a": {"type": "integer", "minimum": 1}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "description": "d"}}

    found = sent(response_format=wanted, model=model)["outputConfig"]["textFormat"]

    assert found["type"] == "json_schema"
    given = found["structure"]["jsonSchema"]
    inside = msgspec.json.decode(given["schema"])
    assert given["name"] == "x"
    assert (inside["additionalProperties"], inside["description"]) == (False, "d")
    assert "minimum" not in inside["properties"]["a"]


@pytest.mark.parametrize("model", [OLD_CLAUDE, NOVA, UNKNOWN, "us.anthropic.claude-opus-4-1-20250805-v1:0"])
def test_structured_output_by_a_tool(model: str) -> None:
    """A model without structured output is made to call a tool with its answer."""
    body = sent(response_format=FORMAT, model=model)

    assert body["toolConfig"] == {"tools": [ANSWER], "toolChoice": {"any": {}}}
    assert "outputConfig" not in body


def test_structured_output_beside_tools() -> None:
    """The answer or, when they are open, one of the client's tools; a demanded call comes before any answer."""
    with_tools: dict[str, Any] = {"response_format": FORMAT, "tools": [TOOL], "model": NOVA}

    assert config(**with_tools) == {"tools": [LOOK, ANSWER], "toolChoice": {"any": {}}}
    assert config(**with_tools, tool_choice="none") == {"tools": [ANSWER], "toolChoice": {"any": {}}}
    assert config(**with_tools, tool_choice="required") == {"tools": [LOOK], "toolChoice": {"any": {}}}


@pytest.mark.parametrize(
    "wanted",
    [{"type": "json_object"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "x"}}],
)
def test_json_without_a_schema_is_asked_for_in_words(wanted: Any) -> None:
    """There is no such mode at Bedrock."""
    body = sent({"role": "system", "content": "s"}, HI, response_format=wanted)

    assert len(body["system"]) == 2
    assert "JSON" in body["system"][1]["text"]
    assert "toolConfig" not in body


def test_plain_text_is_the_default() -> None:
    """Asking for text asks for nothing."""
    assert sent(response_format={"type": "text"}) == sent()
