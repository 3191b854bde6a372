"""The turns that Cohere is sent for OpenAI's messages."""

from typing import Any

import pytest

from .translated_words import HI, PIXEL, Language, call, called, image, result, text

COHERE = Language("cohere", "command-a-03-2025")


def made(id: str, arguments: str = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "look", "arguments": arguments}}


def test_the_system_comes_first_and_once() -> None:
    """Leading system messages are one turn; a later one, which Cohere refuses, is marked text of the user."""
    found = COHERE.turns(
        {"role": "system", "content": "one"},
        {"role": "developer", "content": [text("two"), text("three")]},
        {"role": "system", "content": ""},
        HI,
        {"role": "system", "content": "be brief"},
    )

    assert found == [
        {"role": "system", "content": "one\n\ntwo\nthree"},
        HI,
        {"role": "user", "content": "<system>\nbe brief\n</system>"},
    ]


def test_a_user_s_parts_keep_their_order() -> None:
    """Texts and images, an image as an object or (as some clients do) a bare string."""
    bare = {"type": "image_url", "image_url": "https://x.test/a.png"}

    [turn] = COHERE.turns({"role": "user", "content": [text("a"), image(detail="low"), text(""), bare]})

    assert turn["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
    ]


@pytest.mark.parametrize("content", ["", None, [], [text("")]])
def test_no_turn_is_empty(content: Any) -> None:
    """Cohere refuses a conversation with an empty turn."""
    assert COHERE.turns({"role": "user", "content": content}) == [{"role": "user", "content": "(empty message)"}]


def test_an_empty_answer_is_left_out() -> None:
    """An assistant that said nothing is no turn; a refusal is something said."""
    found = COHERE.turns(
        HI,
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "never"}]},
    )

    assert found == [HI, {"role": "assistant", "content": "no"}, {"role": "assistant", "content": "never"}]
    assert COHERE.turns({"role": "assistant", "content": ""}) == [{"role": "user", "content": "(empty message)"}]


def test_calls_and_results() -> None:
    """Calls keep their ids and arguments, and each is answered behind their turn, in their order."""
    found = COHERE.turns(
        HI,
        called(call("a", '{"n":1.10}'), call("b")),
        result("b", [text("x"), text("y")]),
        result("a"),
        {"role": "user", "content": "thanks"},
    )

    assert found[1:] == [
        {"role": "assistant", "tool_calls": [made("a", '{"n":1.10}'), made("b")]},
        {"role": "tool", "tool_call_id": "a", "content": "ok"},
        {"role": "tool", "tool_call_id": "b", "content": "x\ny"},
        {"role": "user", "content": "thanks"},
    ]


@pytest.mark.parametrize(
    ("fields", "plan"),
    [({"content": "I look."}, "I look."), ({"reasoning_content": "hm"}, "hm"), ({"content": ""}, None)],
)
def test_what_is_said_beside_calls_is_their_plan(fields: Any, plan: str | None) -> None:
    """A turn with calls has a plan where others have content; reasoning that a client sends back was one."""
    found = COHERE.turns(HI, called(call("a"), **fields), result("a"))

    assert found[1].get("tool_plan") == plan
    assert "content" not in found[1]


def test_gaps_are_filled() -> None:
    """A call without a result, a result twice, an empty one, one without a call: each has its fixed answer."""
    found = COHERE.turns(
        HI,
        called(call("a"), call("b"), call("c")),
        result("a", "first"),
        result("a", "last"),
        result("c", ""),
        result("lost", "found"),
    )

    assert [turn["content"] for turn in found[2:]] == [
        "last",
        "(no result was given for this call)",
        "(empty message)",
        "(result of a tool call that is not in this conversation, lost)\nfound",
    ]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        (None, "{}"),
        ("", "{}"),
        (' {"a": 123456789012345678901} ', '{"a": 123456789012345678901}'),
        ("null", '{"arguments":"null"}'),
        ("[1]", '{"arguments":"[1]"}'),
        ('{"a":', '{"arguments":"{\\"a\\":"}'),
        ('{"a":"\\ud83d"}', '{"arguments":"{\\"a\\":\\"\\\\ud83d\\"}"}'),
        ('{"a":"\\u00e9"}', '{"a":"\\u00e9"}'),
        ("[" * 9999, '{"arguments":"' + "[" * 9999 + '"}'),
    ],
)
def test_arguments_are_an_object(arguments: str | None, sent: str) -> None:
    """Digits are untouched; what is no object is wrapped in one, always the same way."""
    found = COHERE.turns(HI, called(call("a", arguments)), result("a"))

    assert found[1]["tool_calls"][0]["function"]["arguments"] == sent


def test_the_older_spelling_of_calls() -> None:
    """`function_call` and the role "function" belong together by the function's name."""
    found = COHERE.turns(
        HI,
        {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
        {"role": "function", "name": "look", "content": "ok"},
    )

    assert found[1]["tool_calls"] == [made("function_look")]
    assert found[2] == {"role": "tool", "tool_call_id": "function_look", "content": "ok"}


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"role": "robot", "content": "x"}, "invalid_value", "messages[0].role"),
        ({"role": "user", "content": [{"type": "smell"}]}, "invalid_value", "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "text"}]}, "invalid_value", "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "invalid_value", "messages[0].content[0]"),
        ({"role": "user", "content": [image("")]}, "invalid_value", "messages[0].content[0]"),
        ({"role": "user", "content": 5}, "invalid_value", "messages[0].content"),
        ({"role": "tool", "content": "x"}, "invalid_value", "messages[0].tool_call_id"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "unsupported_parameter", "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "file"}]}, "unsupported_parameter", "messages[0].content[0]"),
        ({"role": "assistant", "content": [image()]}, "unsupported_parameter", "messages[0].content"),
        (called({"id": "a", "type": "custom"}), "unsupported_parameter", "messages[0].tool_calls"),
    ],
)
def test_content_that_cannot_be_sent(message: Any, code: str, param: str) -> None:
    """What is wrong, or has no place in Cohere's messages, is named, and no upstream is asked."""
    error = COHERE.refusal(message)

    assert (error.code, error.param) == (code, param)
