"""Tools and structured answers, as Gemini is asked for them."""

from typing import Any, Final

import msgspec
import pytest

from .gemini_words import BUDGET, FORMAT, GEMMA, HI, SCHEMA, TOOL, config, refusal, render, sent


def declared(*functions: Any, **fields: Any) -> list[Any]:
    """The declarations of these functions."""
    tools = [{"type": "function", "function": function} for function in functions]
    return list(sent(tools=tools, **fields)["tools"][0]["functionDeclarations"])


def parameters(schema: Any) -> Any:
    """The schema that goes upstream for a function with `schema`."""
    return declared({"name": "look", "parameters": schema})[0].get("parametersJsonSchema")


@pytest.mark.parametrize("name", ["mcp/tool", "x" * 65, "1st", "-a", "é", ""])
def test_illegal_tool_name_is_made_legal(name: str) -> None:
    """A name that Gemini refuses is replaced, the same way each time, in the declaration and in the history."""
    legal = declared({"name": name})[0]["name"]

    call = {"id": "a", "type": "function", "function": {"name": name, "arguments": "{}"}}
    history = sent(HI, {"role": "assistant", "tool_calls": [call]})["contents"]
    assert history[1]["parts"][0]["functionCall"]["name"] == legal
    assert history[2]["parts"][0]["functionResponse"]["name"] == legal
    assert legal != name
    assert len(legal) <= 64
    assert legal.isascii()
    assert legal[0].isalpha() or legal[0] == "_"


def test_names_that_differ_stay_different() -> None:
    """Two names never become one."""
    one, two = declared({"name": "a/b"}, {"name": "a b"})

    assert one["name"] != two["name"]


def test_legal_name_is_kept() -> None:
    """Dots and dashes are fine."""
    assert declared({"name": "_a.b-c"}) == [{"name": "_a.b-c"}]


def test_schema_of_a_tool_is_kept() -> None:
    """Gemini takes JSON schema as it is, references and unions included."""
    schema = {
        "type": "object",
        "properties": {"a": {"anyOf": [{"$ref": "#/$defs/x"}, {"type": "null"}]}},
        "$defs": {"x": {"type": ["string", "null"], "minLength": 1}},
        "additionalProperties": False,
    }

    tool = declared({"name": "look", "description": "Look.", "parameters": schema})[0]

    assert tool == {"name": "look", "description": "Look.", "parametersJsonSchema": schema}
    raw = b'"parametersJsonSchema":{"type": "object", "properties": {"a": {"default": 1.10}}}'
    body = b'{"name":"look","parameters":{"type": "object", "properties": {"a": {"default": 1.10}}}}'
    assert raw in render(tools=[{"type": "function", "function": msgspec.Raw(body)}]).body


@pytest.mark.parametrize("schema", [None, {}, {"type": "object"}, {"type": "object", "properties": {}},
                                    {"properties": {}, "additionalProperties": False, "required": []}])  # fmt: skip
def test_tool_that_takes_nothing_has_no_schema(schema: Any) -> None:
    """An object without properties is refused by some models; without a schema a function takes nothing, too."""
    assert parameters(schema) is None


def test_tool_that_takes_anything_keeps_its_schema() -> None:
    """A free-form object has no properties either, and is not nothing."""
    assert parameters({"type": "object", "additionalProperties": True}) is not None


def test_refused_keywords_become_words() -> None:
    """What Gemini refuses is told in the description; decoration goes, and a constant is a choice of one."""
    schema = {
        "$schema": "x",
        "title": "T",
        "type": "object",
        "properties": {
            "title": {"type": "string", "title": "Title", "format": "uuid"},
            "n": {"description": "N.", "type": "integer", "exclusiveMinimum": 0},
            "kind": {"const": "a"},
            "flag": {"const": True},
            "one": {"type": "number", "const": 1},
            "nil": {"const": None},
            "any": True,
            "list": {"type": "array", "items": {"oneOf": [{"const": 1}, {"const": 1.5}, True]}},
        },
        "required": ["title"],
    }

    assert parameters(schema) == {
        "type": "object",
        "properties": {
            "title": {"type": "string", "description": '{"format":"uuid"}'},
            "n": {"description": 'N.\n\n{"exclusiveMinimum":0}', "type": "integer"},
            "kind": {"enum": ["a"], "type": "string"},
            "flag": {"enum": [True], "type": "boolean"},
            "one": {"enum": [1], "type": "number"},
            "nil": {"enum": [None]},
            "any": True,
            "list": {
                "type": "array",
                "items": {"oneOf": [{"enum": [1], "type": "integer"}, {"enum": [1.5], "type": "number"}, True]},
            },
        },
        "required": ["title"],
    }


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "custom", "custom": {"name": "x"}}, "tools[0].type"),
        ({"type": "function"}, "tools[0].function"),
        ({"type": "function", "function": {"name": "x", "parameters": [1]}}, "tools[0].function.parameters"),
    ],
)
def test_tool_that_cannot_be_declared_is_named(tool: Any, param: str) -> None:
    """Free-text tools and tools without a proper schema are refused, with their place."""
    assert refusal(tools=[tool]).param == param


def test_strict_is_dropped_and_said_so() -> None:
    """Gemini has no word for a single strict tool."""
    tool = {"type": "function", "function": {"name": "look", "strict": True}}

    assert render(tools=[tool]).dropped == ("tools[0].function.strict",)


def test_older_spelling_of_tools_is_understood() -> None:
    """`functions` and `function_call` mean what tools mean."""
    body = sent(functions=[{"name": "look"}], function_call={"name": "look"})

    assert body["tools"] == [{"functionDeclarations": [{"name": "look"}]}]
    assert body["toolConfig"]["functionCallingConfig"] == {"mode": "ANY", "allowedFunctionNames": ["look"]}


NAMED: Final = {"type": "function", "function": {"name": "look"}}


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, None),
        ({"tool_choice": "none"}, {"mode": "NONE"}),
        ({"tool_choice": "required"}, {"mode": "ANY"}),
        ({"tool_choice": NAMED}, {"mode": "ANY", "allowedFunctionNames": ["look"]}),
        ({"function_call": "none"}, {"mode": "NONE"}),
    ],
)
def test_tool_choice_is_translated(fields: Any, choice: Any) -> None:
    """The choice is a mode, with names when it is among some."""
    found = sent(tools=[TOOL], **fields).get("toolConfig")

    assert found == (None if choice is None else {"functionCallingConfig": choice})


def test_choice_of_a_renamed_tool_is_renamed() -> None:
    """A tool is chosen by the name that Gemini knows."""
    tool = {"type": "function", "function": {"name": "a/b"}}

    body = sent(tools=[tool], tool_choice=tool)

    legal = body["tools"][0]["functionDeclarations"][0]["name"]
    assert body["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"] == [legal]


OTHER: Final = {"type": "function", "function": {"name": "other"}}


def test_allowed_tools_may_or_must_be_called() -> None:
    """A subset that must be called is named; one that may be called is all that is declared."""
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
    must = sent(tools=[TOOL, OTHER], tool_choice=allowed)
    may = sent(tools=[TOOL, OTHER], tool_choice={**allowed, "allowed_tools": {"mode": "auto", "tools": [NAMED]}})

    assert len(must["tools"][0]["functionDeclarations"]) == 2
    assert must["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"] == ["look"]
    assert [tool["name"] for tool in may["tools"][0]["functionDeclarations"]] == ["look"]
    assert "toolConfig" not in may


@pytest.mark.parametrize("choice", ["sometimes", {"type": "custom", "custom": {"name": "x"}}, {"type": "function"}])
def test_unknown_tool_choice_is_refused(choice: Any) -> None:
    """A choice that Gemini has no word for is not silently dropped."""
    assert refusal(tools=[TOOL], tool_choice=choice).param == "tool_choice"


def test_tool_choice_without_tools_is_dropped() -> None:
    """There is nothing to choose from, and Gemini would refuse the field."""
    rendered = render(tool_choice="required", parallel_tool_calls=False)

    assert b"toolConfig" not in rendered.body
    assert rendered.dropped == ("tool_choice",)


@pytest.mark.parametrize(
    ("fields", "dropped"),
    [({"parallel_tool_calls": True}, ()), ({"parallel_tool_calls": False}, ("parallel_tool_calls",)),
     ({"parallel_tool_calls": False, "tool_choice": "none"}, ())],
)  # fmt: skip
def test_one_call_at_a_time_cannot_be_asked_for(fields: Any, dropped: tuple[str, ...]) -> None:
    """Gemini has no switch for parallel calls; that is told where it would have made a difference."""
    assert render(tools=[TOOL], **fields).dropped == dropped


# ---- structured answers ------------------------------------------------------------------------------------------


def test_json_is_a_type_of_answer() -> None:
    """JSON mode is a MIME type, a schema stands beside it, and plain text is nothing."""
    json = {"responseMimeType": "application/json"}

    assert config(response_format={"type": "json_object"}) == json
    assert config(response_format=FORMAT) == {**json, "responseJsonSchema": SCHEMA}
    assert config(response_format={"type": "text"}) is None
    for given in (None, {"name": "x"}, {"name": "x", "schema": None}):
        assert config(response_format={"type": "json_schema", "json_schema": given}) == json


def test_description_of_a_schema_is_kept() -> None:
    """What the client says about the answer goes into the schema, if the schema does not say it itself."""
    for schema in (SCHEMA, {**SCHEMA, "title": "T"}):
        given = {"name": "x", "description": "An a.", "schema": schema}
        found = config(response_format={"type": "json_schema", "json_schema": given})
        assert found["responseJsonSchema"] == {"description": "An a.", **SCHEMA}


@pytest.mark.parametrize("model", [BUDGET, GEMMA])
def test_json_next_to_tools_is_asked_for_in_words(model: str) -> None:
    """Before Gemini 3 both together are a 400: the schema is told in words, and that it is only words."""
    rendered = render({"role": "system", "content": "be brief"}, HI, model=model, tools=[TOOL], response_format=FORMAT)

    body = msgspec.json.decode(rendered.body)
    assert "generationConfig" not in body
    assert rendered.dropped == ("response_format",)
    told = body.get("systemInstruction") or body["contents"][0]
    assert any(msgspec.json.encode(SCHEMA).decode() in part["text"] for part in told["parts"])
    assert sent(model=model, tools=[TOOL], response_format={"type": "json_object"})


def test_json_next_to_tools_is_native_from_gemini_3_on() -> None:
    """Newer models take both."""
    rendered = render(tools=[TOOL], response_format=FORMAT)

    assert msgspec.json.decode(rendered.body)["generationConfig"]["responseJsonSchema"] == SCHEMA
    assert rendered.dropped == ()


@pytest.mark.parametrize(
    ("format", "param"),
    [
        ({"type": "poem"}, "response_format.type"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": [1]}}, "response_format.json_schema.schema"),
    ],
)
def test_unknown_format_is_named(format: Any, param: str) -> None:
    """A format that OpenAI does not have, or a schema that is none, is a 400."""
    assert refusal(response_format=format).param == param
