"""The turns that Gemini is sent for OpenAI's messages."""

from typing import Any, Final

import msgspec
import pytest

from proxy.adapter import Target

from .gemini_words import (
    BUDGET,
    DUMMY,
    FLASH,
    GEMMA,
    HI,
    PRO,
    VERTEX,
    call,
    called,
    chat,
    made,
    parse,
    refusal,
    result,
    said,
    sent,
    text,
    turns,
)
from .gemini_words import answer as answered
from .gemini_words import candidate as one_answer


def test_leading_system_messages_are_the_instruction() -> None:
    """System and developer messages before the conversation are the system instruction; empty ones are left out."""
    body = sent(
        {"role": "system", "content": "one"},
        {"role": "developer", "content": [text("two"), text("")]},
        {"role": "system", "content": ""},
        HI,
    )

    assert body["systemInstruction"] == {"parts": [said("one"), said("two")]}
    assert body["contents"] == [{"role": "user", "parts": [said("hi")]}]


def test_later_system_message_becomes_marked_user_text() -> None:
    """There is one instruction per request, so what comes later is told as marked text in the user's turn."""
    found = turns(HI, {"role": "system", "content": "be brief"})

    assert found == [("user", [said("hi"), said("<system>\nbe brief\n</system>")])]


def test_system_alone_is_the_question() -> None:
    """Gemini wants a turn: a request of system messages only is asked as the user's."""
    body = sent({"role": "system", "content": "say hi"})

    assert body["contents"] == [{"role": "user", "parts": [said("say hi")]}]
    assert "systemInstruction" not in body


def test_model_without_instructions_gets_them_from_the_user() -> None:
    """Gemma refuses a system instruction: it goes before the user's first words."""
    body = sent({"role": "system", "content": "be brief"}, HI, model=GEMMA)

    assert body["contents"] == [{"role": "user", "parts": [said("be brief"), said("hi")]}]
    assert "systemInstruction" not in body


def test_turns_of_one_role_are_merged_and_gaps_filled() -> None:
    """Roles alternate, the user starts and ends, and no turn is empty, whatever the client sent."""
    found = turns(
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "b"}]},
        {"role": "assistant", "content": None, "refusal": "c"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": ""},
        {"role": "user", "content": "d"},
        {"role": "assistant", "content": "So"},
    )

    assert found == [
        ("user", [said("(start of conversation)")]),
        ("model", [said("a"), said("b"), said("c")]),
        ("user", [said("(empty message)"), said("d")]),
        ("model", [said("So")]),
        ("user", [said("Continue.")]),
    ]


def test_empty_conversation_still_has_a_turn() -> None:
    """A conversation of nothing but empty answers is still a valid request."""
    assert turns({"role": "assistant", "content": ""}) == [("user", [said("(empty message)")])]


FILES: Final = "https://generativelanguage.googleapis.com/v1beta/files/a1"


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("data:image/jpg;base64,QQ==", {"inlineData": {"mimeType": "image/jpeg", "data": "QQ=="}}),
        ("data:video/mp4;x=1;base64,QQ==", {"inlineData": {"mimeType": "video/mp4", "data": "QQ=="}}),
        ("https://x.test/a.PNG?size=1#top",
         {"fileData": {"fileUri": "https://x.test/a.PNG?size=1#top", "mimeType": "image/png"}}),
        ("gs://bucket/a.webp", {"fileData": {"fileUri": "gs://bucket/a.webp", "mimeType": "image/webp"}}),
        (FILES, {"fileData": {"fileUri": FILES}}),
    ],
)  # fmt: skip
def test_image_is_sent_inline_or_by_reference(url: str, part: Any) -> None:
    """An image is inline or an address whose type is known; alone it gets a text beside it."""
    found = turns(
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": url}]},
    )

    assert found == [("user", [part, part, said(" ")])]


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ({"file_data": "data:application/pdf;base64,QQ=="},
         {"inlineData": {"mimeType": "application/pdf", "data": "QQ=="}}),
        ({"file_data": "QQ==", "filename": "a.MD"}, {"inlineData": {"mimeType": "text/markdown", "data": "QQ=="}}),
        ({"file_data": "QQ=="}, {"inlineData": {"mimeType": "application/pdf", "data": "QQ=="}}),
        ({"file_id": "files/a1"}, {"fileData": {"fileUri": FILES}}),
        ({"file_id": "gs://b/a.pdf"}, {"fileData": {"fileUri": "gs://b/a.pdf", "mimeType": "application/pdf"}}),
    ],
)  # fmt: skip
def test_file_is_sent_inline_or_by_reference(file: Any, part: Any) -> None:
    """A file is inline, with its type or that of its name, or was uploaded to Google before."""
    assert turns({"role": "user", "content": [text("read"), {"type": "file", "file": file}]}) == [
        ("user", [said("read"), part])
    ]


def test_sound_is_sent_inline() -> None:
    """Sound goes as it came, with its type."""
    found = turns(
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "QQ==", "format": "WAV"}}]}
    )

    assert found[0][1][0] == {"inlineData": {"mimeType": "audio/wav", "data": "QQ=="}}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://x.test/a.png"}},
        {"type": "image_url", "image_url": {"url": "https://x.test/image?id=1"}},
        {"type": "image_url", "image_url": {"url": "data:text/plain,hello"}},
        {"type": "image_url", "image_url": {"url": "data:;base64,QQ=="}},
        {"type": "file", "file": {"file_id": "file-openai1"}},
    ],
)
def test_content_that_cannot_be_carried_is_not_sent(part: Any) -> None:
    """What Gemini has no part for goes to a provider that has one, not upstream."""
    error = refusal({"role": "user", "content": [part]})

    assert (error.code, error.param) == ("unsupported_parameter", "messages[0].content[0]")


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (5, "messages[0].content"),
        ([{"type": "text"}], "messages[0].content[0]"),
        ([{"type": "image_url"}], "messages[0].content[0]"),
        ([{"type": "input_audio"}], "messages[0].content[0]"),
        ([{"type": "file"}], "messages[0].content[0]"),
        ([{"type": "text", "text": 1}], "messages[0].content[0].text"),
        ([{"type": "smell"}], "messages[0].content[0]"),
    ],
)
def test_wrong_content_is_named(content: Any, param: str) -> None:
    """Content of the wrong type or shape is a 400 that says where it is."""
    error = refusal({"role": "user", "content": content})

    assert (error.code, error.param) == ("invalid_value", param)


def test_unknown_role_is_named() -> None:
    """A role that OpenAI does not have is a 400."""
    assert refusal({"role": "robot", "content": "x"}).param == "messages[0].role"


def test_assistant_holds_text_only() -> None:
    """An image that the assistant is said to have sent cannot be carried."""
    image = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}

    assert refusal(HI, {"role": "assistant", "content": [image]}).param == "messages[1].content"


# ---- calls and results -------------------------------------------------------------------------------------------


def outcome(output: str, name: str = "look") -> dict[str, Any]:
    """A result as an older model is sent it."""
    return {"functionResponse": {"name": name, "response": {"output": output}}}


def test_results_of_one_turn_come_first_in_the_next() -> None:
    """All results stand in one user turn behind the calls, in the order of the calls, by name, before any text."""
    found = turns(
        HI,
        called(call("a", name="one"), call("b", '{"q": 1.10}', name="two"), call("c"), content="wait"),
        result("b", "2"),
        {"role": "user", "content": "hurry"},
        result("a", [text("1"), text(""), text("more")]),
        result("c", ""),
        model=BUDGET,
    )

    assert found[1] == ("model", [said("wait"), made({}, "one"), made({"q": 1.10}, "two"), made({})])
    assert found[2] == ("user", [outcome("1\nmore", "one"), outcome("2", "two"), outcome(""), said("hurry")])


def test_picture_in_a_result_stands_beside_it() -> None:
    """A result holds text only; what it showed comes right behind the results."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}}

    found = turns(
        HI, called(call("a"), call("b")), result("a", [text("see"), image]), result("b", [image]), model=BUDGET
    )

    shown = {"inlineData": {"mimeType": "image/png", "data": "QQ=="}}
    assert found[2] == ("user", [outcome("see"), outcome(""), shown, shown])


def test_missing_result_gets_a_placeholder_and_the_last_of_two_wins() -> None:
    """Gemini refuses a call without a result; a result given twice counts as it was given last."""
    found = turns(HI, called(call("a"), call("b")), result("a", "old"), result("a", "new"), model=BUDGET)

    assert found[2][1] == [outcome("new"), outcome("(no result was given for this call)")]


def test_unanswered_last_call_gets_a_placeholder() -> None:
    """A conversation that ends in a call is continued by a user turn with its placeholder, and nothing else."""
    assert turns(HI, called(call("a")), model=BUDGET)[-1] == ("user", [outcome("(no result was given for this call)")])


def test_late_result_finds_its_call() -> None:
    """A result that comes after the conversation went on is put where its call is answered; its pictures stay."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}}
    history = (HI, called(call("a")), HI, {"role": "assistant", "content": "ok"})

    found = turns(*history, result("a", [text("late"), image]), HI, model=BUDGET)

    assert found[2][1][0] == outcome("late")
    assert [role for role, _ in found] == ["user", "model", "user", "model", "user"]
    assert "inlineData" in found[4][1][0]


def test_orphaned_result_is_told_as_text() -> None:
    """A result whose call was trimmed away from the history would be a 400 as a result."""
    found = turns(result("gone", "42"), HI)

    note = said("(result of a tool call that is not in this conversation, gone)")
    assert found == [("user", [note, said("42"), said("hi")])]


def test_result_without_an_id_is_refused() -> None:
    """A tool message that does not say what it answers is a 400."""
    assert refusal(HI, {"role": "tool", "content": "x"}).param == "messages[1].tool_call_id"


def test_ids_go_to_models_that_take_them() -> None:
    """From Gemini 3 on, calls and results carry the client's ids, each of them once; before that ids are a 400."""
    first = (HI, called(call("a"), call("a")), result("a", "1"), result("a", "2"))
    history = (*first, called(call("a"), call("")), result("a", "3"))

    found = turns(*history)

    results = [part["functionResponse"] for _, parts in found[2::2] for part in parts]
    assert [(one["id"], one["response"]["output"]) for one in results][:3] == [("a", "1"), ("a_2", "2"), ("a_3", "3")]
    assert [part["functionCall"]["id"] for _, parts in found[1::2] for part in parts] == ["a", "a_2", "a_3", "call"]
    assert b'"id"' not in msgspec.json.encode(turns(*history, model=BUDGET))


@pytest.mark.parametrize(
    ("arguments", "args"),
    [
        ("", b"{}"),
        ('{"a": 123456789012345678901, "b": 0.1234567890123456789}',
         b'{"a": 123456789012345678901, "b": 0.1234567890123456789}'),
        ("null", b'{"arguments":"null"}'),
        ("[1]", b'{"arguments":"[1]"}'),
        ('{"a":', b'{"arguments":"{\\"a\\":"}'),
        ('{"a":"\\u00e9"}', b'{"a":"\\u00e9"}'),
        ('{"a":"\\ud83d!"}', b'{"arguments":"{\\"a\\":\\"\\\\ud83d!\\"}"}'),
    ],
)  # fmt: skip
def test_arguments_become_an_object(arguments: str, args: bytes) -> None:
    """Arguments are an object with its digits untouched; what is none is wrapped, so that no history is a 500."""
    rendered = VERTEX.render(chat(HI, called(call("a", arguments)), result("a")), Target(BUDGET))

    assert b'"args":' + args + b"}" in rendered.body


def test_older_spelling_of_tools_is_understood() -> None:
    """`function_call` and the role "function" mean what tools mean."""
    found = turns(
        HI,
        {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
        {"role": "function", "name": "look", "content": "42"},
        model=BUDGET,
    )

    assert found[1:] == [("model", [made({})]), ("user", [outcome("42")])]


def test_custom_tool_call_in_history_is_not_sent() -> None:
    """A call of a free-text tool has no counterpart."""
    custom = {"id": "a", "type": "custom", "custom": {"name": "x", "input": "y"}}

    assert refusal(HI, called(custom)).param == "messages[1].tool_calls"


# ---- signatures --------------------------------------------------------------------------------------------------


def signatures(*calls: Any, model: str = FLASH) -> list[str | None]:
    """The signatures that go upstream with `calls`."""
    parts = turns(HI, called(*calls), model=model)[1][1]
    return [part.get("thoughtSignature") for part in parts]


def signed(signature: object = "sig", **fields: Any) -> dict[str, Any]:
    return call("a", extra_content={"google": {"thought_signature": signature, **fields}})


def test_signature_comes_back_to_its_model() -> None:
    """What the client got with a call, and sent back as the SDK dumps it, is what Gemini gets."""
    _, found = parse(answered(one_answer(made({}, signature="sig"), made({}))))
    message = found["choices"][0]["message"]

    parts = turns(HI, message, result(message["tool_calls"][0]["id"]))[1][1]

    assert [part.get("thoughtSignature") for part in parts] == ["sig", None]


def test_signature_of_another_model_is_replaced() -> None:
    """A signature is good for one model at one surface; elsewhere it would be a 400."""
    here = signed(sidecar_source=f"gemini/{FLASH}")

    assert signatures(here) == ["sig"]
    assert signatures(here, model=f"models/{FLASH}") == ["sig"]
    assert signatures(here, model=PRO) == [DUMMY]
    body = msgspec.json.decode(VERTEX.render(chat(HI, called(here)), Target(FLASH)).body)
    assert body["contents"][1]["parts"][0]["thoughtSignature"] == DUMMY


def test_signature_of_googles_own_endpoint_is_taken() -> None:
    """Google's OpenAI endpoint says the same without a source."""
    assert signatures(signed()) == ["sig"]


@pytest.mark.parametrize("extra", [None, "x", {}, {"google": None}, {"google": {"thought_signature": 1}}])
def test_lost_signature_is_replaced_once_per_step(extra: Any) -> None:
    """A client that dropped it, or another model's call: the first call of the step says so, the others nothing."""
    assert signatures(call("a", extra_content=extra), call("b")) == [DUMMY, None]


def test_older_models_need_no_signature() -> None:
    """Before Gemini 3 a signature is sent when there is one, and never made up."""
    assert signatures(call("a"), signed(), model=BUDGET) == [None, "sig"]
