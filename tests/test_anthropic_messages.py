"""The turns that Anthropic is sent for OpenAI's messages."""

from base64 import b64encode
from typing import Any, Final

import msgspec
import pytest

from .anthropic_words import CURRENT, HI, TOOL, refusal, render, sent, text, turns


def test_leading_system_messages_become_system_blocks() -> None:
    """System and developer messages before the conversation are the system; empty ones are left out."""
    body = sent(
        {"role": "system", "content": "one"},
        {"role": "developer", "content": [text("two"), text(" ")]},
        {"role": "system", "content": ""},
        HI,
    )

    assert body["system"] == [text("one"), text("two")]
    assert body["messages"] == [{"role": "user", "content": [text("hi")]}]


def test_later_system_message_becomes_marked_user_text() -> None:
    """A system message in mid-conversation is told as marked text in the user's turn."""
    found = turns(HI, {"role": "system", "content": "be brief"})

    assert found == [("user", [text("hi"), text("<system>\nbe brief\n</system>")])]


def test_system_alone_is_the_question() -> None:
    """Anthropic wants a turn: a request of system messages only is asked as the user's."""
    body = sent({"role": "system", "content": "say hi"})

    assert body["messages"] == [{"role": "user", "content": [text("say hi")]}]
    assert "system" not in body


def test_turns_of_one_role_are_merged_and_gaps_filled() -> None:
    """Roles alternate, the user starts, and no block is empty, whatever the client sent."""
    found = turns(
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "b"}]},
        {"role": "assistant", "content": None, "refusal": "c"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": " "},
        {"role": "user", "content": "d"},
    )

    assert found == [
        ("user", [text("(start of conversation)")]),
        ("assistant", [text("a"), text("b"), text("c")]),
        ("user", [text("(empty message)"), text("d")]),
    ]


def test_empty_conversation_still_has_a_turn() -> None:
    """A conversation of nothing but empty answers is still a valid request."""
    assert turns({"role": "assistant", "content": ""}) == [("user", [text("(empty message)")])]


def test_prefill_is_kept_where_models_take_it() -> None:
    """A final assistant message is a prefill up to Claude 4.5, without the trailing white space that is refused."""
    found = turns(HI, {"role": "assistant", "content": "So: \n"}, model=CURRENT)

    assert found[-1] == ("assistant", [text("So:")])


def test_prefill_becomes_an_ordinary_turn_on_newer_models() -> None:
    """From Claude 4.6 on a final assistant message is a 400, so the user is made to go on."""
    found = turns(HI, {"role": "assistant", "content": "So: "}, model="claude-sonnet-4-6")

    assert found[-2:] == [("assistant", [text("So: ")]), ("user", [text("Continue.")])]


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://x.test/a.png", {"type": "url", "url": "https://x.test/a.png"}),
        ("data:image/jpg;base64,QQ==", {"type": "base64", "media_type": "image/jpeg", "data": "QQ=="}),
    ],
)
def test_image_is_sent_by_reference_or_inline(url: str, source: Any) -> None:
    """An image is an https URL or a base64 data URI, as an object or (as some clients do) a bare string."""
    found = turns(
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": url}]},
    )

    assert found == [("user", [{"type": "image", "source": source}] * 2)]


PDF: Final = {"type": "base64", "media_type": "application/pdf", "data": "QQ=="}
PLAIN: Final = {"type": "text", "media_type": "text/plain", "data": "hé"}
PLAIN_64: Final = b64encode("hé".encode()).decode()


@pytest.mark.parametrize(
    ("file", "block"),
    [
        ({"file_data": "data:application/pdf;base64,QQ=="}, {"type": "document", "source": PDF}),
        ({"file_data": "QQ==", "filename": "a.pdf"}, {"type": "document", "source": PDF, "title": "a.pdf"}),
        ({"file_data": PLAIN_64, "filename": "a.MD"}, {"type": "document", "source": PLAIN, "title": "a.MD"}),
        ({"file_data": f"data:text/csv;charset=utf-8;base64,{PLAIN_64}"}, {"type": "document", "source": PLAIN}),
        (
            {"file_data": "data:image/png;base64,QQ==", "filename": "a.png"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}},
        ),
    ],
)
def test_file_becomes_a_document(file: Any, block: Any) -> None:
    """A file in the request is a document (PDF or text) or an image, by its media type, else by its name."""
    assert turns({"role": "user", "content": [{"type": "file", "file": file}]}) == [("user", [block])]


def test_file_id_asks_for_the_files_api() -> None:
    """An uploaded file is referred to by its id, which needs the beta header."""
    rendered = render({"role": "user", "content": [{"type": "file", "file": {"file_id": "file_1"}}]})

    assert rendered.headers == {"anthropic-beta": "files-api-2025-04-14"}
    content = msgspec.json.decode(rendered.body)["messages"][0]["content"]
    assert content == [{"type": "document", "source": {"type": "file", "file_id": "file_1"}}]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
        {"type": "image_url", "image_url": {"url": "http://x.test/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,QQ=="}},
        {"type": "image_url", "image_url": {"url": "data:text/plain,hello"}},
    ],
)
def test_content_that_cannot_be_carried_is_not_sent(part: Any) -> None:
    """What Anthropic has no block for goes to a provider that has one, not upstream."""
    error = refusal({"role": "user", "content": [part]})

    assert error.code == "unsupported_parameter"
    assert error.param == "messages[0].content[0]"


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (5, "messages[0].content"),
        ([{"type": "text"}], "messages[0].content[0]"),
        ([{"type": "image_url"}], "messages[0].content[0]"),
        ([{"type": "file"}], "messages[0].content[0]"),
        ([{"type": "text", "text": 1}], "messages[0].content[0].text"),
        ([{"type": "smell"}], "messages[0].content[0]"),
        ([{"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}], "messages[0].content[0]"),
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


def test_cache_marks_are_kept() -> None:
    """Anthropic's `cache_control` on a part or a tool goes through as it is."""
    mark = {"cache_control": {"type": "ephemeral"}}
    inner = {"type": "function", "function": {"name": "inner", **mark}}

    body = sent({"role": "user", "content": [{**text("hi"), **mark}]}, tools=[{**TOOL, **mark}, inner, TOOL])

    assert body["messages"][0]["content"] == [{**text("hi"), **mark}]
    assert [tool.get("cache_control") for tool in body["tools"]] == [{"type": "ephemeral"}] * 2 + [None]
