"""The input items that OpenAI's messages become."""

from typing import Any

import msgspec
import pytest

from proxy.adapter import Target

from .responses_words import ADAPTER, RESPONSES, body, function, items, thought
from .translated_words import HI, PIXEL, call, called, chat, image, result, text

DONE = {"type": "function_call_output", "call_id": "c1", "output": "ok"}
MADE = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
NO_RESULT = "(no result was given for this call)"


def test_a_conversation() -> None:
    """Each message keeps its role and its place; texts stay texts."""
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        HI,
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": None},
        {"role": "assistant", "content": ""},
    ]

    assert items(*talk) == [*talk[:4], {"role": "user", "content": ""}]


def test_parts() -> None:
    """Texts, images and files, in their order; where a part is marked for the cache, the mark stays."""
    mark = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    upload = {"type": "file", "file": {"file_id": "file-1"}}
    bare = {"type": "file", "file": {"file_data": "QQ==", "filename": "a.txt"}}
    nameless = {"type": "file", "file": {"file_data": "QQ=="}}
    data = {"type": "file", "file": {"file_data": "data:application/pdf;base64,QQ==", "filename": "b.pdf"}}
    parts = [{**text("a"), **mark}, image(detail="low"), image("https://a.example/x"), upload, bare, nameless, data]

    (message,) = items({"role": "user", "content": parts})

    assert message["content"] == [
        {"type": "input_text", "text": "a", **mark},
        {"type": "input_image", "image_url": PIXEL, "detail": "low"},
        {"type": "input_image", "image_url": "https://a.example/x", "detail": "auto"},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,QQ=="},
        {"type": "input_file", "filename": "file.pdf", "file_data": "data:application/pdf;base64,QQ=="},
        {"type": "input_file", "filename": "b.pdf", "file_data": "data:application/pdf;base64,QQ=="},
    ]


def test_calls_and_results() -> None:
    """Calls with their arguments as they are, then the results in the order of the calls."""
    talk = [
        HI,
        called(call("c1", '{"a": 1e3}'), call("c2", None, "other"), content="I look."),
        result("c2"),
        result("c1"),
    ]

    assert items(*talk) == [
        HI,
        {"role": "assistant", "content": "I look."},
        {**MADE, "arguments": '{"a": 1e3}'},
        {**MADE, "call_id": "c2", "name": "other"},
        DONE,
        {**DONE, "call_id": "c2"},
    ]


def test_arguments_may_be_broken() -> None:
    """They are a text, and the API takes any; none at all are an empty object."""
    found = items(HI, called(call("c1", '{"a'), call("c2", "")), result("c1"), result("c2"))

    assert [one["arguments"] for one in found if "arguments" in one] == ['{"a', "{}"]


def test_gaps_are_filled() -> None:
    """A call without a result, a result without its call, a result given twice: the API would refuse it all."""
    found = items(HI, called(call("c1"), call("c2")), result("c1", "old"), result("c1", "new"), result("x", "lost"))

    assert [one["output"] for one in found if "output" in one] == ["new", NO_RESULT]
    note = "(result of a tool call that is not in this conversation, x)"
    assert found[-1] == {
        "role": "user",
        "content": [{"type": "input_text", "text": note}, {"type": "input_text", "text": "lost"}],
    }


def test_a_result_may_belong_to_what_the_provider_keeps() -> None:
    """With a response to go on from, calls need not be here."""
    assert items(result("c1"), previous_response_id="resp_0") == [DONE]
    assert items(result("c1"), previous_response_id=None)[0]["role"] == "user"


def test_results_of_several_parts() -> None:
    """A text wherever it is only that; images stay images."""
    found = items(HI, called(call("c1")), result("c1", [text("a"), text("b")]))
    assert found[-1]["output"] == "a\nb"

    found = items(HI, called(call("c1")), result("c1", [text("a"), image()]))
    assert [part["type"] for part in found[-1]["output"]] == ["input_text", "input_image"]


def test_long_ids_become_short_ones() -> None:
    """The same each time, also for the result; another id becomes another."""
    long, other = "x" * 65, "y" * 65
    first, second, *outputs = items(HI, called(call(long), call(other)), result(other), result(long))[1:]

    assert [one["call_id"] for one in outputs] == [first["call_id"], second["call_id"]]
    assert len({first["call_id"], second["call_id"]}) == 2
    assert all(len(one["call_id"]) <= 64 for one in outputs)
    assert items(HI, called(call("x" * 64)))[1]["call_id"] == "x" * 64


def test_the_older_spelling() -> None:
    """A function call and its result, known by the function's name."""
    asked = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}}
    found = items(HI, asked, {"role": "function", "name": "look", "content": "ok"})

    assert found[1:] == [{**MADE, "call_id": "function_look"}, {**DONE, "call_id": "function_look"}]


def test_an_assistants_refusal_is_what_it_said() -> None:
    """As a message's, or as a part."""
    refused = {"role": "assistant", "content": None, "refusal": "No."}
    part = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}

    for message in (refused, part):
        assert items(HI, message)[1] == {"role": "assistant", "content": "No."}


def back(provider: str, change: Any = None) -> list[dict[str, Any]]:
    """The items of a turn that `provider` is sent, after one that "p" has made."""
    raw = body(thought("Hm.", sealed="S1"), function("c1"))
    reply = ADAPTER.parse(raw, chat(), Target("gpt-5.3-codex", provider="p"))
    message = msgspec.json.decode(reply.body)["choices"][0]["message"]
    if change is not None:
        message["reasoning_details"] = change
    return items(HI, message, result("c1"), provider=provider)


def test_encrypted_reasoning_goes_back_to_who_made_it() -> None:
    """Right before the call that it led to; to nobody else."""
    assert back("p") == [
        HI, {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "S1"}, MADE, DONE
    ]  # fmt: skip
    assert back("q") == [HI, MADE, DONE]


@pytest.mark.parametrize(
    "change", [[], 7, [7], [{"type": "reasoning.text", "text": "x"}], [{"sidecar_source": "p/gpt-5.3-codex"}]]
)
def test_what_is_not_ours_is_not_read(change: Any) -> None:
    """Other providers' entries, and ours after somebody has changed them."""
    assert back("p", change) == [HI, MADE, DONE]


def test_entries_of_ours_without_data_or_id() -> None:
    """An entry of text alone is none; without its id it is one all the same."""
    ours = {"sidecar_source": "p/gpt-5.3-codex", "format": "openai-responses-v1", "index": 0}
    text_only = {**ours, "type": "reasoning.text", "text": "x"}
    nameless = {**ours, "type": "reasoning.encrypted", "data": "S"}

    assert back("p", [text_only, nameless])[1] == {"type": "reasoning", "summary": [], "encrypted_content": "S"}


def test_reasoning_alone_is_not_sent() -> None:
    """The API refuses reasoning that nothing follows."""
    ours = {"sidecar_source": "p/gpt-5.3-codex", "format": "openai-responses-v1", "index": 0}
    kept = [{**ours, "type": "reasoning.encrypted", "data": "S"}]

    assert items(HI, {"role": "assistant", "content": "", "reasoning_details": kept}) == [HI]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]}, "content[0]"),
        ({"role": "user", "content": [{"type": "video"}]}, "content[0]"),
        ({"role": "user", "content": [{"type": "text"}]}, "content[0]"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "content[0]"),
        ({"role": "user", "content": [{"type": "file"}]}, "content[0]"),
        ({"role": "assistant", "content": [{"type": "image_url", "image_url": PIXEL}]}, "content"),
        ({"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {}}]}, "tool_calls"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        ({"role": "narrator", "content": "x"}, "role"),
    ],
)  # fmt: skip
def test_what_it_cannot_carry_is_for_another_upstream(message: Any, param: str) -> None:
    """Refused before anybody is asked, with the place of what it was."""
    assert RESPONSES.refusal(message).param == f"messages[0].{param}"
