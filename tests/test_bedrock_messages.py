"""OpenAI's messages as Converse's turns."""

import re
from typing import Any

import pytest

from .bedrock_words import (
    CLAUDE,
    HI,
    LLAMA,
    MISTRAL,
    NEWEST,
    NOVA,
    OLD_CLAUDE,
    PIXEL,
    TOOL,
    call,
    called,
    part,
    refusal,
    render,
    result,
    sent,
    text,
    turns,
    use,
    used,
    user,
)

PDF = {"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk=", "filename": "a.pdf"}}
IMAGE = {"type": "image_url", "image_url": {"url": PIXEL}}
IMAGE_BLOCK = {"image": {"format": "png", "source": {"bytes": "aGk="}}}


def document(name: str, format: str = "pdf") -> dict[str, Any]:
    return {"document": {"format": format, "name": name, "source": {"bytes": "aGk="}}}


def file(**fields: Any) -> dict[str, Any]:
    return {"type": "file", "file": fields}


def test_system_messages_have_their_own_place() -> None:
    """Leading system and developer messages are the system blocks; empty ones are left out."""
    body = sent(
        {"role": "system", "content": "a"},
        {"role": "developer", "content": [part("b"), part("")]},
        {"role": "system", "content": " "},
        HI,
    )

    assert body["system"] == [text("a"), text("b")]
    assert body["messages"] == [{"role": "user", "content": [text("hi")]}]


def test_later_system_message_is_marked_text() -> None:
    """In mid-conversation it stands in the user's turn, so that every model reads it and roles alternate."""
    found = turns(HI, {"role": "system", "content": "be brief"}, {"role": "system", "content": ""}, HI)

    assert found == [("user", [text("hi"), text("<system>\nbe brief\n</system>"), text("hi")])]


def test_roles_alternate() -> None:
    """Messages of one role in a row make one turn."""
    said = {"role": "assistant", "content": "a"}

    found = turns(HI, HI, said, said, HI)

    assert [role for role, _ in found] == ["user", "assistant", "user"]
    assert [len(content) for _, content in found] == [2, 2, 1]


def test_a_conversation_begins_and_ends_with_the_user() -> None:
    """What is missing is filled in the same way each time."""
    found = turns({"role": "assistant", "content": "a "}, model=NOVA)

    assert found == [
        ("user", [text("(start of conversation)")]),
        ("assistant", [text("a ")]),
        ("user", [text("Continue.")]),
    ]


def test_older_claudes_go_on_from_a_prefilled_answer() -> None:
    """Only they may be given the beginning of their answer, which must not end in white space."""
    marked = {"role": "assistant", "content": [part("{ ", cache_control={"type": "ephemeral"})]}

    assert turns(HI, marked, model=OLD_CLAUDE)[-1] == ("assistant", [text("{")])
    assert turns(HI, marked, model=NEWEST)[-1] == ("user", [text("Continue.")])


def test_a_lone_system_message_is_the_question() -> None:
    """Converse wants at least one turn, with something in it."""
    body = sent({"role": "system", "content": "a"})

    assert "system" not in body
    assert body["messages"] == [{"role": "user", "content": [text("a")]}]
    assert turns({"role": "assistant", "content": ""}) == [("user", [text("(empty message)")])]


@pytest.mark.parametrize("content", ["", " \n", [], [part("")], None])
def test_empty_message_has_a_placeholder(content: Any) -> None:
    """An empty text is refused by the models, so it never goes out."""
    assert turns({"role": "user", "content": content}) == [("user", [text("(empty message)")])]


def test_calls_are_answered_in_the_next_turn() -> None:
    """All results stand together, before the user's words, in the order of the calls."""
    found = turns(
        HI,
        called(call("a", '{"x":1.10}'), call("b"), call("c"), content="let me see"),
        result("b", "two"),
        result("a", [part("one")]),
        result("c", ""),
        {"role": "user", "content": "and?"},
        tools=[TOOL],
    )

    assert found[1] == ("assistant", [text("let me see"), use("a", {"x": 1.10}), use("b"), use("c")])
    results = [used("a", text("one")), used("b", text("two")), used("c", text("(empty result)"))]
    assert found[2] == ("user", [*results, text("and?")])


def test_digits_in_arguments_are_kept() -> None:
    """Arguments go out as they are, not through a float."""
    body = render(HI, called(call("a", '{"n":1.10,"m":123456789012345678901}')), result("a"), tools=[TOOL]).body

    assert b'{"n":1.10,"m":123456789012345678901}' in body


@pytest.mark.parametrize(
    ("arguments", "input"),
    [("", {}), ("null", {"arguments": "null"}), ("[1]", {"arguments": "[1]"}), ("{", {"arguments": "{"})],
)
def test_arguments_that_are_no_object_are_wrapped(arguments: str, input: Any) -> None:
    """Converse needs an object; what a model made up instead is kept as text."""
    found = turns(HI, called(call("a", arguments)), result("a"), tools=[TOOL])

    assert found[1] == ("assistant", [use("a", input)])


def test_missing_and_repeated_results() -> None:
    """A call without a result gets a placeholder, of two results the last one counts, one too many becomes text."""
    found = turns(
        HI,
        called(call("a"), call("b")),
        result("a", "first"),
        result("a", "second"),
        result("zzz", "lost"),
        tools=[TOOL],
    )

    lost = text("(result of a tool call that is not in this conversation, zzz)")
    missing = text("(no result was given for this call)")
    assert found[2] == ("user", [used("a", text("second")), used("b", missing), lost, text("lost")])


def test_a_conversation_may_end_with_calls() -> None:
    """The turn after the last calls is there all the same."""
    assert turns(HI, called(call("a")), tools=[TOOL])[2] == (
        "user",
        [used("a", text("(no result was given for this call)"))],
    )


def test_an_id_used_twice() -> None:
    """Ids are unique upstream; two results of one turn find their calls in order."""
    found = turns(
        HI,
        called(call("a"), call("a")),
        result("a", "1"),
        result("a", "2"),
        called(call("a")),
        result("a", "3"),
        tools=[TOOL],
    )

    assert [block["toolUse"]["toolUseId"] for role, content in found if role == "assistant" for block in content] == [
        "a",
        "a_2",
        "a_3",
    ]
    assert found[2] == ("user", [used("a", text("1")), used("a_2", text("2"))])
    assert found[4] == ("user", [used("a_3", text("3"))])


@pytest.mark.parametrize("id", ["functions.look:0", "x" * 64, "tooluse_abc-DEF"])
def test_legal_ids_are_kept(id: str) -> None:
    """Bedrock's alphabet is wider than Anthropic's."""
    found = turns(HI, called(call(id)), result(id), tools=[TOOL])

    assert found[1] == ("assistant", [use(id)])
    assert found[2] == ("user", [used(id)])


@pytest.mark.parametrize(("id", "name"), [("call/1", "mcp.server/tool"), ("x" * 65, "y" * 65), ("", "z")])
def test_illegal_ids_and_names_are_replaced(id: str, name: str) -> None:
    """Both fit the patterns of the service model, call and result agree, and the same becomes the same again."""
    [_, (_, [block]), (_, [answer])] = turns(HI, called(call(id, name=name)), result(id), tools=[TOOL])

    tool_use = block["toolUse"]
    assert re.fullmatch(r"[a-zA-Z0-9_.:-]{1,64}", tool_use["toolUseId"])
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool_use["name"])
    assert answer["toolResult"]["toolUseId"] == tool_use["toolUseId"]


def test_texts_come_before_calls() -> None:
    """Two assistant messages in a row are one turn, in which words stand first."""
    found = turns(HI, called(call("a")), {"role": "assistant", "content": "looking"}, result("a"), tools=[TOOL])

    assert found[1] == ("assistant", [text("looking"), use("a")])


def test_older_spelling_of_calls() -> None:
    """`function_call` and the role "function" are a call and its result."""
    found = turns(
        HI,
        {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
        {"role": "function", "name": "look", "content": "ok"},
        functions=[{"name": "look"}],
    )

    [block] = found[1][1]
    assert block["toolUse"]["name"] == "look"
    assert found[2] == ("user", [used(block["toolUse"]["toolUseId"])])


@pytest.mark.parametrize(("model", "apart"), [(LLAMA, True), (MISTRAL, True), (CLAUDE, False), (NOVA, False)])
def test_results_stand_alone_where_they_must(model: str, apart: bool) -> None:
    """Llama and Mistral refuse a turn with results and words, so that a filler stands between them."""
    found = turns(HI, called(call("a")), result("a"), {"role": "user", "content": "and?"}, model=model, tools=[TOOL])

    if apart:
        assert found[2:] == [("user", [used("a")]), ("assistant", [text("OK.")]), ("user", [text("and?")])]
    else:
        assert found[2:] == [("user", [used("a"), text("and?")])]


def test_documents_do_not_stand_beside_results() -> None:
    """Claude refuses that; a filler stands between them."""
    found = turns(HI, called(call("a")), result("a"), user(part("read"), PDF), tools=[TOOL])

    assert [role for role, _ in found[2:]] == ["user", "assistant", "user"]
    assert found[-1] == ("user", [text("read"), document("a pdf")])


def test_results_may_hold_images() -> None:
    """A tool that returns a picture shows it; a cache mark has no place there."""
    shown = result("a", [part("see", cache_control={"type": "ephemeral"}), IMAGE])

    found = turns(HI, called(call("a")), shown, tools=[TOOL])

    assert found[2] == ("user", [used("a", text("see"), IMAGE_BLOCK)])


@pytest.mark.parametrize(
    ("url", "format"),
    [
        ("data:image/png;base64,aGk=", "png"),
        ("data:image/jpeg;base64,aGk=", "jpeg"),
        ("DATA:IMAGE/JPG;base64,aGk=", "jpeg"),
        ("data:image/gif;base64,aGk=", "gif"),
        ("data:image/webp;charset=x;base64,aGk=", "webp"),
    ],
)
@pytest.mark.parametrize("bare", [True, False])
def test_images_are_sent_as_bytes(url: str, format: str, bare: bool) -> None:
    """A data URI becomes bytes of its format, however the client spells it."""
    image = {"type": "image_url", "image_url": url if bare else {"url": url, "detail": "low"}}

    assert turns(user(image)) == [("user", [{"image": {"format": format, "source": {"bytes": "aGk="}}}])]


@pytest.mark.parametrize(
    ("given", "format", "name"),
    [
        ({"file_data": "data:application/pdf;base64,aGk=", "filename": "Report_2026 (v1).pdf"}, "pdf", None),
        ({"file_data": "data:text/csv;base64,aGk="}, "csv", "document"),
        ({"file_data": "data:text/x-python;base64,aGk=", "filename": "a.py"}, "txt", "a py"),
        ({"file_data": "data:text/markdown;base64,aGk=", "filename": "!!!"}, "md", "document"),
        ({"file_data": "data:application/octet-stream;base64,aGk=", "filename": "a.DOCX"}, "docx", "a DOCX"),
        ({"file_data": "aGk=", "filename": "table.xlsx"}, "xlsx", "table xlsx"),
        ({"file_data": "aGk=", "filename": "data.json"}, "txt", "data json"),
        ({"file_data": "aGk="}, "pdf", "document"),
        ({"file_data": "aGk=", "filename": "x" * 300}, "pdf", "x" * 194),
    ],
)
def test_files_are_documents(given: Any, format: str, name: str | None) -> None:
    """The format is told by media type or ending; the name keeps only what Bedrock allows."""
    name = "Report 2026 (v1) pdf" if name is None else name

    assert turns(user(part("read"), file(**given))) == [("user", [text("read"), document(name, format)])]


def test_document_has_a_text_beside_it() -> None:
    """A document alone is refused; names do not repeat; an image sent as a file is an image."""
    found = turns(user(PDF, PDF, file(file_data=PIXEL)))

    assert found == [("user", [document("a pdf"), document("a pdf (2)"), IMAGE_BLOCK, text("See the document.")])]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (user({"type": "image_url", "image_url": {"url": "https://x/y.png"}}), "messages[0].content[0]"),
        (user({"type": "image_url", "image_url": {"url": "data:image/tiff;base64,x"}}), "messages[0].content[0]"),
        (user({"type": "image_url", "image_url": {"url": "data:;base64,x"}}), "messages[0].content[0]"),
        (user({"type": "image_url", "image_url": {"url": "data:image/png,x"}}), "messages[0].content[0]"),
        (user({"type": "image_url"}), "messages[0].content[0]"),
        (user({"type": "input_audio", "input_audio": {}}), "messages[0].content[0]"),
        (user(file(file_id="file-1")), "messages[0].content[0]"),
        (user(file()), "messages[0].content[0]"),
        (user(file(file_data="data:application/zip;base64,x")), "messages[0].content[0]"),
        (user(file(file_data="aGk=", filename="a.zip")), "messages[0].content[0]"),
        (user({"type": "file"}), "messages[0].content[0]"),
        (user({"type": "text"}), "messages[0].content[0]"),
        (user({"type": "new"}), "messages[0].content[0]"),
        ({"role": "system", "content": [IMAGE]}, "messages[0].content"),
        ({"role": "assistant", "content": [PDF]}, "messages[0].content"),
        ({"role": "robot", "content": "x"}, "messages[0].role"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "assistant", "tool_calls": [{"id": "a", "type": "custom"}]}, "messages[0].tool_calls"),
        (user(part("x", cache_control="y")), "messages[0].content[0].cache_control"),
    ],
)
def test_what_cannot_be_said_is_refused(message: Any, param: str) -> None:
    """Nothing is fetched, dropped or guessed that would change the meaning; the place is named."""
    assert refusal(message).param == param


def test_refusals_are_words() -> None:
    """What the assistant refused before is what it said."""
    refused = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}

    assert turns(HI, refused, HI)[1] == ("assistant", [text("no")])
    assert turns(HI, {"role": "assistant", "refusal": "no"}, HI)[1] == ("assistant", [text("no")])


def test_cache_marks_are_cache_points() -> None:
    """`cache_control` puts a point after what it marks, for models that know them; for others it is dropped."""
    system = {"role": "system", "content": [part("s", cache_control={"type": "ephemeral", "ttl": "1h"})]}
    asked = user(part("q", cache_control={"type": "ephemeral"}), part("r", cache_control=None))
    said = {"role": "assistant", "content": [part("a", cache_control={"type": "ephemeral"})]}
    late = {"role": "system", "content": [part("t", cache_control={"type": "ephemeral"})]}

    body = sent(system, asked, said, HI, late)

    point = {"cachePoint": {"type": "default"}}
    assert body["system"] == [text("s"), {"cachePoint": {"type": "default", "ttl": "1h"}}]
    assert body["messages"][0]["content"] == [text("q"), point, text("r")]
    assert body["messages"][1]["content"] == [text("a"), point]
    assert body["messages"][2]["content"] == [text("hi"), text("<system>\nt\n</system>"), point]
    plain = render(system, asked, model=LLAMA)
    assert b"cachePoint" not in plain.body
    assert plain.dropped == ("cache_control",)


@pytest.mark.parametrize("model", ["mistral.voxtral-mini-3b-2507", "us.amazon.nova-2-omni-v1:0"])
def test_sound_goes_to_models_that_hear(model: str) -> None:
    """In a format that Converse names; everybody else is not asked."""
    heard = user({"type": "input_audio", "input_audio": {"data": "UklG", "format": "WAV"}})
    odd = user({"type": "input_audio", "input_audio": {"data": "UklG", "format": "midi"}})
    empty = user({"type": "input_audio", "input_audio": {"format": "wav"}})

    assert turns(heard, model=model)[0][1][0] == {"audio": {"format": "wav", "source": {"bytes": "UklG"}}}
    for message in (odd, empty):
        assert refusal(message, model=model).param == "messages[0].content[0]"
    assert refusal(heard).message == "this model takes no audio"
