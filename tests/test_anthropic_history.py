"""Tool calls and results of a conversation, as Anthropic is sent them."""

import pytest

from .anthropic_words import HI, call, called, refusal, render, result, sent, text, turns


def test_results_of_one_turn_come_first_in_the_next() -> None:
    """All results stand in one user turn right after the calls, in the order of the calls, before any text."""
    found = turns(
        HI,
        called(call("a"), call("b"), call("c"), content="wait"),
        result("b", "2"),
        {"role": "user", "content": "hurry"},
        result("a", [text("1"), text("")]),
        result("c", ""),
    )

    assert [block["type"] for block in found[1][1]] == ["text", "tool_use", "tool_use", "tool_use"]
    assert found[2][1] == [
        {"type": "tool_result", "tool_use_id": "a", "content": [text("1")]},
        {"type": "tool_result", "tool_use_id": "b", "content": [text("2")]},
        {"type": "tool_result", "tool_use_id": "c"},
        text("hurry"),
    ]


def test_missing_result_gets_a_placeholder_and_the_last_of_two_wins() -> None:
    """Anthropic refuses a call without a result; a result given twice counts as it was given last."""
    found = turns(HI, called(call("a"), call("b")), result("a", "old"), result("a", "new"))

    assert [block["content"] for block in found[2][1]] == [[text("new")], "(no result was given for this call)"]


def test_unanswered_last_call_gets_a_placeholder() -> None:
    """A conversation that ends in a call is continued by a user turn with its placeholder."""
    assert turns(HI, called(call("a")))[-1][0] == "user"


def test_late_result_finds_its_call() -> None:
    """A result that comes after the conversation went on is put where its call is answered."""
    found = turns(HI, called(call("a")), HI, {"role": "assistant", "content": "ok"}, result("a", "late"), HI)

    assert found[2][1][0]["content"] == [text("late")]
    assert [role for role, _ in found] == ["user", "assistant", "user", "assistant", "user"]


def test_orphaned_result_is_told_as_text() -> None:
    """A result whose call was trimmed away from the history would be a 400 as a tool result."""
    found = turns(result("gone", "42"), HI)

    note = text("(result of a tool call that is not in this conversation, gone)")
    assert found == [("user", [note, text("42"), text("hi")])]


def test_result_without_an_id_is_refused() -> None:
    """A tool message that does not say what it answers is a 400."""
    assert refusal(HI, {"role": "tool", "content": "x"}).param == "messages[1].tool_call_id"


def test_repeated_ids_are_made_unique() -> None:
    """Ids are unique upstream, and results find the right call: by order in one turn, by turn otherwise."""
    found = turns(
        HI, called(call("a"), call("a")), result("a", "1"), result("a", "2"), called(call("a")), result("a", "3")
    )

    answers = [(block["tool_use_id"], block["content"]) for _, turn in found[2::2] for block in turn]
    assert answers == [("a", [text("1")]), ("a_2", [text("2")]), ("a_3", [text("3")])]


@pytest.mark.parametrize("id", ["functions.look:0", "x" * 80, ""])
def test_illegal_call_id_is_made_legal(id: str) -> None:
    """Ids that Anthropic refuses are replaced, the same way each time, in the call and in its result."""
    found = turns(HI, called(call(id)), result(id))

    legal = found[1][1][0]["id"]
    assert found[2][1][0]["tool_use_id"] == legal
    assert legal.replace("_", "").isalnum()
    assert 0 < len(legal) <= 64
    assert legal == turns(HI, called(call(id)), result(id))[1][1][0]["id"]


@pytest.mark.parametrize(
    ("arguments", "input"),
    [
        ("", b"{}"),
        ('{"a": 1}', b'{"a": 1}'),
        (
            '{"a":123456789012345678901,"b":0.1234567890123456789}',
            b'{"a":123456789012345678901,"b":0.1234567890123456789}',
        ),
        ("null", b'{"arguments":"null"}'),
        ("[1]", b'{"arguments":"[1]"}'),
        ('{"a":', b'{"arguments":"{\\"a\\":"}'),
        ('{"a":"\\ud83d!"}', b'{"arguments":"{\\"a\\":\\"\\\\ud83d!\\"}"}'),
        ('{"a":"\\u00e9"}', b'{"a":"\\u00e9"}'),
    ],
)
def test_arguments_become_an_object(arguments: str, input: bytes) -> None:
    """Arguments are an object with its digits untouched; what is none is wrapped, so that no history is a 500."""
    body = render(HI, called(call("a", arguments)), result("a")).body

    assert b'"input":' + input + b"}" in body


def test_deeply_nested_arguments_are_wrapped() -> None:
    """Arguments that no decoder can follow are text."""
    body = sent(HI, called(call("a", '{"a":' + "[" * 3000)), result("a"))

    assert list(body["messages"][1]["content"][0]["input"]) == ["arguments"]


def test_older_spelling_of_tools_is_understood() -> None:
    """`functions`, `function_call` and the role "function" mean what tools mean."""
    body = sent(
        HI,
        {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
        {"role": "function", "name": "look", "content": "42"},
        functions=[{"name": "look"}],
        function_call={"name": "look"},
    )

    use_block, answer = body["messages"][1]["content"][0], body["messages"][2]["content"][0]
    assert use_block["id"] == answer["tool_use_id"]
    assert answer["content"] == [text("42")]
    assert body["tools"] == [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]
    assert body["tool_choice"] == {"type": "tool", "name": "look"}


def test_custom_tool_call_in_history_is_not_sent() -> None:
    """A call of a free-text tool has no counterpart."""
    custom = {"id": "a", "type": "custom", "custom": {"name": "x", "input": "y"}}

    assert refusal(HI, called(custom)).param == "messages[1].tool_calls"
