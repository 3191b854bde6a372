"""Tool calls that are not numbered or named as OpenAI's are, and what a client gets to see of them."""

from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from .openai_words import DONE, chunk, chunks, end, event, parsed, parser, told


def piece(id: Any = None, name: Any = None, arguments: Any = None, **fields: Any) -> dict[str, Any]:
    """A piece of a tool call; what is None is not there."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    own = {} if id is None else {"id": id}
    return {**own, **({"function": function} if function else {}), **fields}


def said(*events: list[dict[str, Any]], quirks: tuple[str, ...] = ("tool_calls",), finish: str = "tool_calls") -> Any:
    """All pieces that a client gets of a stream; each event holds some. OpenAI's types have no custom ones."""
    pieces = [event(chunk({"tool_calls": calls})) for calls in events]
    found = chunks(told(parser(*quirks), *pieces, end(finish), DONE))
    for one in found:
        if b'"custom"' not in pieces[0]:
            ChatCompletionChunk.model_validate_json(msgspec.json.encode(one), strict=True)
    return [call for one in found for call in one["choices"][0]["delta"].get("tool_calls", ())]


def joined(pieces: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call, put together as the SDK does it: by index, text added to text."""
    calls: dict[int, list[str]] = {}
    for one in pieces:
        call = calls.setdefault(one["index"], ["", "", ""])
        function = one.get("function", {})
        for at, text in enumerate((one.get("id"), function.get("name"), function.get("arguments"))):
            call[at] += text or ""
    assert list(calls) == list(range(len(calls)))
    return [(id, name, arguments) for id, name, arguments in calls.values()]


TWO = [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')]


@pytest.mark.parametrize(
    "events",
    [
        # no index: in one event, in two, in pieces
        [[piece("a", "f", '{"x":1}'), piece("b", "g", '{"y":2}')]],
        [[piece("a", "f", '{"x":1}')], [piece("b", "g", '{"y":2}')]],
        [[piece("a", "f", '{"x"')], [piece(arguments=":1}")], [piece("b", "g", "")], [piece("b", arguments='{"y":2}')]],
        # one index for both
        [[piece("a", "f", '{"x":1}', index=0)], [piece("b", "g", '{"y":2}', index=0)]],
        # id, type and name repeated, empty or null
        [
            [piece("a", "f", '{"x"', index=0, type="function")],
            [piece("a", "f", ":1}", index=0, type="function")],
            [piece("b", "g", '{"y"', index=1, type="function")],
            [piece("", "", ":2}", index=1, type="")],
        ],
        [
            [piece("a", "f", '{"x":1}', index=0), piece("b", "g", index=1)],
            [{"index": 1, "id": None, "type": None, "function": {"name": None, "arguments": '{"y":2}'}}],
        ],
        # numbers that start at one, with a gap
        [[piece("a", "f", '{"x":1}', index=1)], [piece("b", "g", '{"y":2}', index=3)]],
        # arguments that are an object
        [[piece("a", "f", {"x": 1}), piece("b", "g", {"y": 2})]],
    ],
)
def test_two_calls_are_two(events: list[list[dict[str, Any]]]) -> None:
    """However they are numbered, a client of the SDK gets both, whole."""
    assert joined(said(*events)) == TWO


def test_a_missing_index_is_repaired_for_every_provider() -> None:
    """The SDK cannot read the stream otherwise; the pieces that follow count on."""
    events = [piece("a", "f", '{"x":1}')], [piece("b", "g", '{"y"')], [piece(arguments=":2}")]

    assert joined(said(*events, quirks=())) == TWO


def test_a_name_instead_of_an_id_begins_a_call() -> None:
    """Gemini's have empty ids; each gets one of its own, the same whenever the same request is sent."""
    pieces = said([piece("", "f", "{}")], [piece("null", "g", "{}")])

    (first, *_), (second, *_) = joined(pieces)
    assert first != second
    assert first.startswith("call_")
    assert second.startswith("call_")
    assert [one["id"] for one in said([piece("", "f", "{}")], [piece("null", "g", "{}")])] == [first, second]
    assert [one["type"] for one in pieces] == ["function", "function"]


def test_a_piece_of_nothing_is_a_call_of_its_own() -> None:
    """There is nothing yet that it could go on with."""
    assert joined(said([piece(arguments="{}")]))[0][1:] == ("", "{}")


def test_choices_number_their_calls_apart() -> None:
    """With n = 2 both begin at 0."""
    stream = parser("tool_calls")
    events = [event(chunk({"tool_calls": [piece(id, "f", "{}")]}, index=index)) for index, id in enumerate("ab")]

    found = chunks(told(stream, *events, end(), end(index=1)))

    assert [one["choices"][0]["delta"]["tool_calls"][0]["index"] for one in found[:2]] == [0, 0]


@pytest.mark.parametrize(("finish", "arguments"), [("tool_calls", "{}"), ("stop", "{}"), ("length", "")])
def test_no_arguments_are_an_empty_object(finish: str, arguments: str) -> None:
    """Clients read them as JSON; Databricks says "". Where the answer was cut off, nobody knows what was to come."""
    begun = piece("a", "f", "", index=0, type="function")

    assert joined(said([begun], finish=finish)) == [("a", "f", arguments)]
    body = {"choices": [{"index": 0, "message": {"tool_calls": [begun]}, "finish_reason": finish}]}
    (call,) = msgspec.json.decode(parsed(body, "tool_calls").body)["choices"][0]["message"]["tool_calls"]
    assert call["function"]["arguments"] == arguments


def test_no_arguments_are_told_once() -> None:
    """A second finish reason adds nothing."""
    stream = parser("tool_calls")
    out = told(
        stream, event(chunk({"tool_calls": [piece("a", "f", "", index=0)]})), end("tool_calls"), end("tool_calls")
    )

    assert out.count(b'"{}"') == 1


def test_an_empty_object_of_arguments_is_told_once() -> None:
    """It becomes text; nothing is missing then."""
    assert joined(said([piece("a", "f", {})])) == [("a", "f", "{}")]


def test_custom_calls_have_no_arguments() -> None:
    """OpenAI's free-form tools have an input instead."""
    call = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": ""}}

    assert said([call]) == [call]


def whole(*calls: dict[str, Any]) -> Any:
    choice = {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": calls}, "logprobs": None}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    reply = parsed({**body, "choices": [choice | {"finish_reason": "tool_calls"}]}, "tool_calls")
    ChatCompletion.model_validate_json(reply.body, strict=True)
    return msgspec.json.decode(reply.body)["choices"][0]["message"]["tool_calls"]


def test_calls_of_a_whole_answer_are_completed() -> None:
    """Id, type and arguments are filled in where they lack; arguments that are an object become text."""
    first, second, third = whole(
        piece("", "f", {"x": 1.0}), piece("b", "g", index=7), piece("null", "h", "[1]", type="function")
    )

    assert (first["type"], first["function"]) == ("function", {"name": "f", "arguments": '{"x":1.0}'})
    assert second == {"id": "b", "index": 7, "type": "function", "function": {"name": "g", "arguments": "{}"}}
    assert third["function"]["arguments"] == "[1]"
    assert len({first["id"], second["id"], third["id"], "null", ""}) == 5


def test_a_custom_call_of_a_whole_answer_stays() -> None:
    """Only its type is added where it lacks."""
    call = {"id": "a", "custom": {"name": "f", "input": "x"}}

    assert whole(call) == [call | {"type": "custom"}]


def test_other_bytes_of_a_call_stay() -> None:
    """Spacing alone is no reason to touch an event, and what is unknown in a touched one is kept to the digit."""
    good = b'{"index" : 0, "id":"a","type":"function","function" : {"name":"f","arguments":"{}"}}'
    spaced = event(b'{"choices":[{"index":0,"delta":{"tool_calls" : [' + good + b"]}}]}")
    odd = spaced.replace(b'"index" : 0, ', b'"x":[1.0,1e3,12345678901234567890],')

    assert parser("tool_calls").feed(spaced) == spaced
    assert b'"x":[1.0,1e3,12345678901234567890]' in parser("tool_calls").feed(odd)
