"""Tools and structured answers, as Anthropic is asked for them and as the client hears of them."""

from typing import Any, Final

import msgspec
import pytest

from proxy.adapter import Target

from .anthropic_words import (
    ADAPTER,
    CURRENT,
    FORMAT,
    HI,
    NEWEST,
    OLD,
    SCHEMA,
    TOOL,
    begin,
    call,
    called,
    chat,
    chunks,
    closed,
    deltas,
    end,
    fragment,
    message,
    opened,
    parse,
    parser,
    piece,
    refusal,
    render,
    result,
    sent,
    text,
    use,
)


@pytest.mark.parametrize("name", ["mcp.server/tool", "x" * 200])
def test_illegal_tool_name_is_made_legal_and_told_as_it_was(name: str) -> None:
    """A name that Anthropic refuses is replaced upstream and comes back as the client knows it."""
    request = chat(tools=[{"type": "function", "function": {"name": name}}])
    legal = msgspec.json.decode(ADAPTER.render(request, Target(CURRENT)).body)["tools"][0]["name"]

    _, choice = parse(message(use(name=legal), stop="tool_use"), request)

    assert legal != name
    assert len(legal) <= 128
    assert choice["message"]["tool_calls"][0]["function"]["name"] == name


def test_long_legal_tool_name_is_kept() -> None:
    """100 characters are fine for Anthropic."""
    name = "x" * 100

    assert sent(tools=[{"type": "function", "function": {"name": name}}])["tools"][0]["name"] == name


def test_schema_of_a_tool_is_an_object() -> None:
    """The schema's bytes are kept where Anthropic takes them; a missing type is added."""
    function = {"name": "look", "description": "Look.", "parameters": {"properties": {"a": {"const": 1.10}}}}

    tool = sent(tools=[{"type": "function", "function": function}])["tools"][0]

    schema = {"properties": {"a": {"const": 1.10}}, "type": "object"}
    assert tool == {"name": "look", "description": "Look.", "input_schema": schema}


def test_strict_tool_is_strict_where_models_know_it() -> None:
    """`strict` needs structured output; elsewhere it is dropped and said so."""
    tool = {"type": "function", "function": {"name": "look", "strict": True, "parameters": SCHEMA}}

    assert sent(tools=[tool])["tools"][0] == {
        "name": "look",
        "strict": True,
        "input_schema": {**SCHEMA, "additionalProperties": False},
    }
    assert render(tools=[tool], model=OLD).dropped == ("tools[0].function.strict",)


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "custom", "custom": {"name": "x"}}, "tools[0].type"),
        ({"type": "function"}, "tools[0].function"),
        ({"type": "function", "function": {"name": "x", "parameters": [1]}}, "tools[0].function.parameters"),
        (
            {"type": "function", "function": {"name": "x", "strict": True, "parameters": 1}},
            "tools[0].function.parameters",
        ),
    ],
)
def test_tool_that_cannot_be_declared_is_named(tool: Any, param: str) -> None:
    """Free-text tools and tools without a proper schema are refused, with their place."""
    assert refusal(tools=[tool]).param == param


NAMED: Final = {"type": "function", "function": {"name": "look"}}


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, None),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": NAMED}, {"type": "tool", "name": "look"}),
        ({"function_call": "none"}, {"type": "none"}),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"parallel_tool_calls": False, "tool_choice": "none"}, {"type": "none"}),
        ({"parallel_tool_calls": False, "tool_choice": NAMED},
         {"type": "tool", "name": "look", "disable_parallel_tool_use": True}),
    ],
)  # fmt: skip
def test_tool_choice_is_translated(fields: Any, choice: Any) -> None:
    """The choice and the inverse flag for parallel calls are one field at Anthropic."""
    assert sent(tools=[TOOL], **fields).get("tool_choice") == choice


@pytest.mark.parametrize(("mode", "choice"), [("auto", None), ("required", {"type": "any"})])
def test_allowed_tools_are_the_only_ones_declared(mode: str, choice: Any) -> None:
    """A subset of the tools is expressed by declaring only those."""
    other = {"type": "function", "function": {"name": "other"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [NAMED]}}

    body = sent(tools=[TOOL, other], tool_choice=allowed)

    assert [tool["name"] for tool in body["tools"]] == ["look"]
    assert body.get("tool_choice") == choice


@pytest.mark.parametrize("choice", ["sometimes", {"type": "custom", "custom": {"name": "x"}}, {"type": "function"}])
def test_unknown_tool_choice_is_refused(choice: Any) -> None:
    """A choice that Anthropic has no word for is not silently dropped."""
    assert refusal(tools=[TOOL], tool_choice=choice).param == "tool_choice"


def test_tool_choice_without_tools_is_dropped() -> None:
    """There is nothing to choose from, and Anthropic would refuse the field."""
    rendered = render(tool_choice="required", parallel_tool_calls=False)

    assert b"tool_choice" not in rendered.body
    assert rendered.dropped == ("tool_choice",)


def test_model_that_cannot_be_forced_is_not_asked() -> None:
    """A forced call is a 400 on the newest models: refused here, by its name, so that a chain can go on."""
    assert refusal(model=NEWEST, tools=[TOOL], tool_choice="required").param == "tool_choice"


def test_tools_of_the_history_are_declared() -> None:
    """A history with calls but a request without tools: the tools are declared and forbidden."""
    body = sent(HI, called(call("a")), result("a"))

    assert body["tools"] == [{"name": "look", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "none"}


def test_schema_is_native_where_models_know_it() -> None:
    """The schema goes to `output_config`, in the subset that is taken: the rest becomes words."""
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "description": "count"},
            "f": {"oneOf": [{"type": "string", "format": "uuid"}, {"type": "string", "format": "color"}]},
            "l": {"type": "array", "items": {"type": "object"}, "minItems": 2},
            "odd": {"allOf": True, "properties": True},
            "z": {"format": ["date"]},
        },
        "$defs": {"x": True},
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "description": "D"}}

    found = sent(response_format=form)["output_config"]["format"]["schema"]

    assert found["additionalProperties"] is False
    assert found["description"] == "D"
    assert found["properties"] == {
        "n": {"type": "integer", "description": 'count\n\n{"minimum":1}'},
        "f": {"anyOf": [{"type": "string", "format": "uuid"}, {"type": "string", "description": '{"format":"color"}'}]},
        "l": {
            "type": "array",
            "items": {"type": "object", "additionalProperties": False},
            "description": '{"minItems":2}',
        },
        "odd": {"allOf": True, "properties": True, "additionalProperties": False},
        "z": {"description": '{"format":["date"]}'},
    }


@pytest.mark.parametrize(
    ("fields", "tools", "choice"),
    [
        ({}, ["sidecar_json_answer"], {"type": "tool", "name": "sidecar_json_answer"}),
        ({"tools": [TOOL]}, ["look", "sidecar_json_answer"], {"type": "any"}),
        ({"tools": [TOOL], "tool_choice": "none"}, ["look", "sidecar_json_answer"],
         {"type": "tool", "name": "sidecar_json_answer"}),
    ],
)  # fmt: skip
def test_schema_is_emulated_by_a_forced_tool(fields: Any, tools: list[str], choice: Any) -> None:
    """A model without structured output answers by calling a tool, or one of the client's tools if it may."""
    body = sent(model=OLD, response_format=FORMAT, **fields)

    assert [tool["name"] for tool in body["tools"]] == tools
    assert body["tools"][-1]["input_schema"] == SCHEMA
    assert body["tool_choice"] == {**choice, "disable_parallel_tool_use": True}


def test_forced_client_tool_needs_no_answer_tool() -> None:
    """A request that must end in a call of the client's tool will not have another answer."""
    body = sent(model=OLD, response_format=FORMAT, tools=[TOOL], tool_choice="required")

    assert [tool["name"] for tool in body["tools"]] == ["look"]


@pytest.mark.parametrize("form", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x"}}])
def test_json_without_a_schema_is_an_instruction(form: Any) -> None:
    """Anthropic has no JSON mode; the model is told."""
    assert "JSON object" in sent({"role": "system", "content": "s"}, HI, response_format=form)["system"][1]["text"]


def test_plain_text_format_is_nothing() -> None:
    """The default format needs no words."""
    assert "output_config" not in sent(response_format={"type": "text"})


@pytest.mark.parametrize(
    ("model", "form"),
    [
        (CURRENT, {"type": "grammar"}),
        (CURRENT, {"type": "json_schema", "json_schema": {"schema": 5}}),
        (OLD, {"type": "json_schema", "json_schema": {"schema": {"type": "array"}}}),
    ],
)
def test_format_that_cannot_be_asked_for_is_refused(model: str, form: Any) -> None:
    """Unknown formats, broken schemas, and emulated answers that are no objects."""
    assert str(refusal(model=model, response_format=form).param).startswith("response_format")


@pytest.mark.parametrize(
    "blocks",
    [[use({"a": 1}, "sidecar_json_answer")], [text("Here: "), use({"a": 1}, "sidecar_json_answer")]],
)
def test_emulated_answer_is_content(blocks: Any) -> None:
    """The arguments are the content, the call is not shown, and the finish is a plain stop."""
    request = chat(response_format=FORMAT)

    reply, choice = parse(message(*blocks, stop="tool_use"), request, OLD)

    assert choice["message"]["content"] == '{"a":1}'
    assert "tool_calls" not in choice["message"]
    assert reply.finish == "stop"


def test_streamed_emulated_answer_is_content() -> None:
    """The fragments are content as they come; words around the call and a second call are not."""
    name = "sidecar_json_answer"
    stream = parser(OLD, response_format=FORMAT)

    early = stream.feed(begin() + opened(0, text("")) + piece(0, "text_delta", text="Here: "))
    assert not stream.started
    late = stream.feed(
        opened(1, use(name=name)) + fragment(1, '{"a":') + fragment(1, "1}") + closed(1)
        + opened(2, use(name=name)) + fragment(2, "{}") + closed(2) + end("tool_use")
    )  # fmt: skip

    found = chunks(early + late + stream.close())
    assert [chunk["choices"][0]["delta"] for chunk in found[1:-1]] == [{"content": '{"a":'}, {"content": "1}"}]
    assert stream.finish == "stop"


def test_streamed_words_are_the_answer_when_the_answer_tool_was_not_called() -> None:
    """A model that does not call the answer tool has still said something."""
    found = deltas(
        begin(), opened(0, text("")), piece(0, "text_delta", text="no"), end(), model=OLD, response_format=FORMAT
    )

    assert found == [{"content": "no"}]


def test_client_tool_next_to_an_emulated_schema_is_a_call() -> None:
    """Only the answer tool is hidden."""
    request = chat(response_format=FORMAT, tools=[TOOL])

    reply, choice = parse(message(use({"q": 1}), stop="tool_use"), request, OLD)

    assert reply.finish == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"q":1}'}
