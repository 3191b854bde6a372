"""The request that Ollama is sent for OpenAI's."""

from typing import Any

import msgspec
import pytest

from .translated_words import FORMAT, HI, OTHER, SCHEMA, TOOL, Language, call, called, image, result, text

OLLAMA = Language("ollama", "qwen3")


def test_a_plain_request() -> None:
    """Model, messages and whether to stream, which Ollama would do by itself; nothing else is set."""
    rendered = OLLAMA.render()

    assert (rendered.path, rendered.json_lines, rendered.dropped) == ("/api/chat", True, ())
    assert msgspec.json.decode(rendered.body) == {"model": "qwen3", "messages": [HI], "stream": False}
    assert OLLAMA.sent(stream=True)["stream"] is True
    assert OLLAMA.adapter.auth(None) == {}
    assert OLLAMA.adapter.auth("k") == {"authorization": "Bearer k"}


def test_parameters_become_options() -> None:
    """What tunes the answer has the same name among the options, but for the limit."""
    given = {"temperature": 0, "top_p": 1, "top_k": 20, "min_p": 0.1, "seed": -1, "repeat_penalty": 1.1}
    more = {"frequency_penalty": -1, "presence_penalty": 2, "num_ctx": 8192}

    body = OLLAMA.sent(**given, **more, max_tokens=9, max_completion_tokens=7, stop="x")

    assert body["options"] == {**given, **more, "num_predict": 7, "stop": ["x"]}


def test_ollama_s_own_fields_go_through() -> None:
    """`options` as they came, digits and all, before OpenAI's names; `keep_alive`, also the 0 that unloads a model."""
    rendered = OLLAMA.render(options={"num_ctx": 4096, "temperature": 0.50, "x": [1]}, temperature=1, keep_alive=0)

    body = msgspec.json.decode(rendered.body)
    assert body["options"] == {"temperature": 0.5, "num_ctx": 4096, "x": [1]}
    assert (body["keep_alive"], rendered.dropped) == (0, ())


def test_what_has_no_word_is_dropped_and_named() -> None:
    """A parameter that cannot be taken is left out, and the client is told."""
    rendered = OLLAMA.render(logit_bias={"1": 1}, user="u", store=False, tools=[TOOL], parallel_tool_calls=False)

    assert sorted(rendered.dropped) == ["logit_bias", "parallel_tool_calls", "user"]


@pytest.mark.parametrize(
    ("choice", "tools", "dropped"),
    [
        (None, ["look", "other"], ()),
        ("none", None, ()),
        ("required", ["look", "other"], ("tool_choice",)),
        ({"type": "function", "function": {"name": "other"}}, ["other"], ("tool_choice",)),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}, ["look"], ()),
    ],
)
def test_tool_choice_is_what_the_model_sees(choice: Any, tools: list[str] | None, dropped: tuple[str, ...]) -> None:
    """Ollama has no tool choice: closed tools are not shown, and that a call cannot be forced is told."""
    rendered = OLLAMA.render(tools=[TOOL, OTHER], tool_choice=choice)

    sent = msgspec.json.decode(rendered.body).get("tools")
    assert (sent and [tool["function"]["name"] for tool in sent]) == tools
    assert rendered.dropped == dropped


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        (FORMAT, SCHEMA),
        ({"type": "json_schema"}, "json"),
    ],
)
def test_response_format(wanted: Any, sent: Any) -> None:
    """The word "json", or the schema itself."""
    assert OLLAMA.sent(response_format=wanted).get("format") == sent


@pytest.mark.parametrize(
    ("effort", "think"),
    [("none", False), ("minimal", "low"), ("low", "low"), ("medium", "medium"), ("xhigh", "high"), ("max", "max")],
)
def test_effort_is_a_level_of_thinking(effort: str, think: Any) -> None:
    """Ollama has four levels and none."""
    assert OLLAMA.sent(reasoning_effort=effort)["think"] == think


def test_ollama_s_own_think_wins() -> None:
    """Who writes Ollama's field means it; null is no word."""
    rendered = OLLAMA.render(think=False, reasoning_effort="high")

    assert (msgspec.json.decode(rendered.body)["think"], rendered.dropped) == (False, ("reasoning_effort",))
    assert OLLAMA.render(think=True).dropped == ()
    assert OLLAMA.sent(think=None, reasoning_effort="low")["think"] == "low"
    assert "think" not in OLLAMA.sent()


# ---- messages ---------------------------------------------------------------------------------------------------


def test_roles_and_texts() -> None:
    """The system may stand anywhere; several parts are lines of one text."""
    found = OLLAMA.turns(
        {"role": "developer", "content": "one"},
        {"role": "user", "content": [text("a"), text(""), text("b")]},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "system", "content": [text("two")]},
        {"role": "user", "content": None},
    )

    assert found == [
        {"role": "system", "content": "one"},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "no"},
        {"role": "system", "content": "two"},
        {"role": "user", "content": ""},
    ]


def test_images_are_beside_the_text() -> None:
    """Bare base64, without the head of the data URI, however that is spelled."""
    bare = {"type": "image_url", "image_url": "DATA:image/jpeg;charset=x;BASE64,Qg=="}

    [turn] = OLLAMA.turns({"role": "user", "content": [image(), text("what is it?"), bare]})

    assert turn == {"role": "user", "content": "what is it?", "images": ["QQ==", "Qg=="]}


@pytest.mark.parametrize("url", ["https://x.test/a.png", "data:image/png,QQ==", "data:image/png;base64,", "x,y"])
def test_an_image_that_would_have_to_be_fetched(url: str) -> None:
    """Ollama takes no URL and the sidecar fetches nothing: another provider is asked."""
    error = OLLAMA.refusal({"role": "user", "content": [image(url)]})

    assert (error.code, error.param) == ("unsupported_parameter", "messages[0].content[0]")


def test_calls_and_results() -> None:
    """Arguments are objects with their digits, results name their tool, and thoughts go back."""
    rendered = OLLAMA.render(
        HI,
        called(call("a", '{"n":1.10}'), call("b", "oops", "other"), reasoning_content="hm"),
        result("b"),
        result("a", [text("x")]),
        {**result("lost"), "name": "named"},
        result("found"),
    )

    assert b'"arguments":{"n":1.10}' in rendered.body
    assert msgspec.json.decode(rendered.body)["messages"][1:] == [
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [
                {"id": "a", "function": {"name": "look", "arguments": {"n": 1.1}}},
                {"id": "b", "function": {"name": "other", "arguments": {"arguments": "oops"}}},
            ],
        },
        {"role": "tool", "content": "ok", "tool_name": "other", "tool_call_id": "b"},
        {"role": "tool", "content": "x", "tool_name": "look", "tool_call_id": "a"},
        {"role": "tool", "content": "ok", "tool_name": "named", "tool_call_id": "lost"},
        {"role": "tool", "content": "ok", "tool_name": "found", "tool_call_id": "found"},
    ]


def test_the_older_spelling_of_calls() -> None:
    """`function_call` and the role "function" belong together by the function's name."""
    found = OLLAMA.turns(
        {"role": "assistant", "content": "", "function_call": {"name": "look", "arguments": "{}"}},
        {"role": "function", "name": "look", "content": "ok"},
    )

    assert found[0]["tool_calls"][0]["function"] == {"name": "look", "arguments": {}}
    assert found[1]["tool_name"] == "look"


@pytest.mark.parametrize(
    ("message", "fields", "code", "param"),
    [
        ({"role": "robot", "content": "x"}, {}, "invalid_value", "messages[0].role"),
        ({"role": "user", "content": [{"type": "smell"}]}, {}, "invalid_value", "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "file"}]}, {}, "unsupported_parameter", "messages[0].content[0]"),
        ({"role": "system", "content": [image()]}, {}, "unsupported_parameter", "messages[0].content"),
        ({"role": "tool", "content": "x"}, {}, "invalid_value", "messages[0].tool_call_id"),
        (HI, {"n": 2}, "unsupported_parameter", "n"),
        (HI, {"reasoning_effort": "huge"}, "invalid_value", "reasoning_effort"),
        (HI, {"options": 5}, "invalid_value", "options"),
    ],
)
def test_a_request_that_cannot_be_sent(message: Any, fields: Any, code: str, param: str) -> None:
    """What changes the meaning of the answer, or is wrong in itself, is named and goes to no upstream."""
    error = OLLAMA.refusal(message, **fields)

    assert (error.code, error.param) == (code, param)
