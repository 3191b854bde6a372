"""What an OpenAI client hears of the events of a response."""

from typing import Any

import msgspec
import pytest

from proxy import errors
from proxy.wire import Usage

from .responses_words import (
    added,
    completed,
    created,
    deltas,
    done,
    event,
    function,
    message,
    parser,
    piece,
    response,
    steps,
    text,
    thought,
)
from .translated_words import chunks

TALK = (
    created(),
    event("response.in_progress", response=response(status="in_progress")),
    added(0, message()),
    event("response.content_part.added", output_index=0, content_index=0, part=text("")),
    piece("output_text", 0, "He", logprobs=[], obfuscation="xyz"),
    piece("output_text", 0, "llo"),
    event("response.output_text.done", output_index=0, text="Hello"),
    done(0, message(text("Hello"))),
)
WHOLE = b"".join((*TALK, completed(message(text("Hello")))))


def test_a_stream() -> None:
    """One role chunk, the words, the finish reason, the usage that was asked for: all under the response's id."""
    stream = parser(stream_options={"include_usage": True})

    found = chunks(stream.feed(WHOLE) + stream.close())

    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in found} == {("resp_1", "codex-1", 1000)}
    said = [(chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]) for chunk in found[:-1]]
    role = {"role": "assistant", "content": ""}
    assert said == [(role, None), ({"content": "He"}, None), ({"content": "llo"}, None), ({}, "stop")]
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["total_tokens"] == 150
    assert stream.usage == Usage(100, 50, 60, 10, 30)
    assert (stream.finish, stream.done) == ("stop", True)


def test_usage_is_told_only_when_asked_for() -> None:
    """The sidecar counts it all the same."""
    stream = parser()

    found = chunks(stream.feed(WHOLE) + stream.close())

    assert not any("usage" in chunk for chunk in found)
    assert stream.usage == Usage(100, 50, 60, 10, 30)


def test_any_split_gives_the_same_bytes() -> None:
    """In two pieces, wherever they part, and byte by byte."""
    whole = b"".join((*TALK, done(1, function("c1", '{"é":1}')), completed()))
    expected = parser()
    out = expected.feed(whole) + expected.close()

    for at in range(1, len(whole)):
        stream = parser()
        assert stream.feed(whole[:at]) + stream.feed(whole[at:]) + stream.close() == out
    stream = parser()
    assert b"".join([stream.feed(whole[at : at + 1]) for at in range(len(whole))]) + stream.close() == out


def test_nothing_is_started_before_content() -> None:
    """The beginning of a response and of an item, and encrypted reasoning by itself, are no content."""
    stream = parser()

    stream.feed(created() + added(0, thought()) + done(0, thought(sealed="S")) + added(1, message()))
    assert not stream.started
    stream.feed(piece("output_text", 1, "x"))

    assert stream.started


@pytest.mark.parametrize("place", range(len(TALK)))
def test_a_stream_that_was_cut_is_an_error(place: int) -> None:
    """Before its last event nothing is whole, wherever the cut is; a goodbye does not heal it."""
    for goodbye in (b"", b"data: [DONE]\n\n"):
        stream = parser()
        stream.feed(b"".join(TALK[:place]) + goodbye)

        with pytest.raises(errors.UnavailableError) as raised:
            stream.close()

        assert raised.value.code == "upstream_truncated"


def test_what_follows_the_end_says_nothing() -> None:
    """OpenRouter's goodbye, or anything else."""
    stream = parser()
    out = stream.feed(WHOLE) + stream.feed(piece("output_text", 0, "x") + b"data: [DONE]\n\n" + b"data: {\n\n")

    assert len(chunks(out + stream.close())) == 4


def test_calls_in_pieces() -> None:
    """Calls are numbered from 0, whatever stands before them; id and name come once, fragments by their item."""
    found = deltas(
        created(), added(0, thought()), done(0, thought()),
        added(1, function("c1", "")), added(2, function("c2", "", "other")),
        piece("function_call_arguments", 2, '{"b"', item_id="changing"),
        piece("function_call_arguments", 1, "{}"),
        piece("function_call_arguments", 2, ":1}", item_id="ids"),
        done(1, function("c1", "{}")), done(2, function("c2", '{"b":1}', "other")), completed(),
    )  # fmt: skip

    pieces = [delta["tool_calls"][0] for delta in found]
    assert pieces == [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}},
        {"index": 1, "id": "c2", "type": "function", "function": {"name": "other", "arguments": ""}},
        {"index": 1, "function": {"arguments": '{"b"'}},
        {"index": 0, "function": {"arguments": "{}"}},
        {"index": 1, "function": {"arguments": ":1}"}},
    ]


@pytest.mark.parametrize(
    "events",
    [
        (added(0, function("c1", "")), done(0, function("c1", '{"a":1}'))),
        (done(0, function("c1", '{"a":1}')),),
        (added(0, function("c1", '{"a":1}')), done(0, function("c1", '{"a":1}'))),
        (added(0, function("c1", "")), piece("function_call_arguments", 0, '{"a":1}')),
        (),
    ],
)
def test_arguments_are_told_once(events: tuple[bytes, ...]) -> None:
    """However a provider tells them: in pieces, with the item, or with the last event only."""
    last = completed(function("c1", '{"a":1}'))

    *_, (_, finish, _) = found = steps(created(), *events, last)

    calls = [call for delta, _, _ in found for call in delta.get("tool_calls", ())]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"a":1}'
    assert [call["id"] for call in calls if "id" in call] == ["c1"]
    assert finish == "tool_calls"


@pytest.mark.parametrize(
    "events", [(added(0, function("c1", "")), done(0, function("c1", ""))), (added(0, function("c1", "")),)]
)
def test_a_call_without_arguments_has_an_empty_object(events: tuple[bytes, ...]) -> None:
    """Whether its item was finished or not; clients read them as JSON."""
    found = deltas(created(), *events, completed())

    assert [delta["tool_calls"][0]["function"]["arguments"] for delta in found] == ["", "{}"]


def test_a_call_that_was_cut_keeps_what_it_has() -> None:
    """No empty object is made of arguments that never came."""
    last = event("response.incomplete", response=response(status="incomplete"))

    found = steps(created(), added(0, function("c1", "")), last)

    assert [delta.get("tool_calls", [{}])[0].get("function") for delta, _, _ in found] == [
        {"name": "look", "arguments": ""}, None
    ]  # fmt: skip
    assert found[-1][1] == "length"


def test_arguments_of_no_call_are_nothing() -> None:
    """A hosted tool's, say; nobody could tell whose they are."""
    assert deltas(created(), piece("function_call_arguments", 3, "{}"), *TALK[2:], completed()) == [
        {"content": "He"}, {"content": "llo"}
    ]  # fmt: skip


def test_reasoning() -> None:
    """Its summary or itself; between two parts stands a blank line, also between those of two items."""
    found = deltas(
        created(), added(0, thought()),
        piece("reasoning_summary_text", 0, "One", summary_index=0),
        piece("reasoning_summary_text", 0, ".", summary_index=0),
        piece("reasoning_summary_text", 0, "", summary_index=1),
        piece("reasoning_summary_text", 0, "Two.", summary_index=1),
        done(0, thought("One.", "Two.")),
        piece("reasoning_text", 1, "Three.", content_index=0),
        completed(),
    )  # fmt: skip

    assert [delta["reasoning_content"] for delta in found] == ["One", ".", "\n\nTwo.", "\n\nThree."]


def test_reasoning_that_came_whole() -> None:
    """With its item, where there were no pieces of it."""
    assert deltas(created(), done(0, thought("One.", "Two.")), completed()) == [
        {"reasoning_content": "One."}, {"reasoning_content": "\n\nTwo."}
    ]  # fmt: skip


def test_encrypted_reasoning_comes_before_the_first_word() -> None:
    """In one step of its own, whole; what comes later is let go, and so is what no word follows."""
    found = deltas(
        created(), done(0, thought("Hm.", sealed="S1")), done(1, thought("So.", sealed="S2")),
        added(2, function("c1", "{}")), done(3, thought(sealed="S3")), added(4, function("c2", "{}")), completed(),
    )  # fmt: skip

    kinds = [next(iter(delta)) for delta in found]
    assert kinds == ["reasoning_content", "reasoning_content", "reasoning_details", "tool_calls", "tool_calls"]
    assert [(one["data"], one["sidecar_source"]) for one in found[2]["reasoning_details"]] == [
        ("S1", "p/gpt-5.3-codex"), ("S2", "p/gpt-5.3-codex")
    ]  # fmt: skip
    assert deltas(created(), done(0, thought(sealed="S1")), completed()) == []


def test_a_refusal() -> None:
    """Under its own name, in pieces or whole."""
    pieces = (piece("refusal", 0, "I can"), piece("refusal", 0, "not."))
    whole = message({"type": "refusal", "refusal": "I cannot."})

    assert deltas(created(), added(0, message()), *pieces, done(0, whole), completed(whole)) == [
        {"refusal": "I can"}, {"refusal": "not."}
    ]  # fmt: skip
    assert deltas(created(), completed(whole)) == [{"refusal": "I cannot."}]


def test_cited_pages() -> None:
    """As they are told, or with their item, but once."""
    page: dict[str, Any] = {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 3}
    told = {"type": "url_citation", **page}
    cited = {"annotations": [{"type": "url_citation", "url_citation": page}]}
    whole = message(text("abc", annotations=[told]))
    early = event("response.output_text.annotation.added", output_index=0, annotation=told)
    odd = event("response.output_text.annotation.added", output_index=0, annotation={"type": "file_citation"})

    assert deltas(created(), piece("output_text", 0, "abc"), odd, early, done(0, whole), completed(whole)) == [
        {"content": "abc"}, cited
    ]  # fmt: skip
    assert deltas(created(), piece("output_text", 0, "abc"), odd, done(0, whole), completed(whole))[1:] == [cited]
    assert deltas(created(), completed(whole)) == [{"content": "abc"}, cited]


def test_log_probabilities() -> None:
    """With the words they are of, in pieces or whole."""
    given = [{"token": "a", "logprob": -0.1, "top_logprobs": []}]
    expected = {"content": [{**given[0], "bytes": [97]}], "refusal": None}

    for events in ((piece("output_text", 0, "a", logprobs=given),), ()):
        found = steps(created(), *events, completed(message(text("a", logprobs=given))))
        assert [(delta, logprobs) for delta, _, logprobs in found] == [({"content": "a"}, expected), ({}, None)]


@pytest.mark.parametrize(
    "odd",
    [
        event("response.web_search_call.searching", output_index=0, item_id="ws_1"),
        event("response.new_thing", delta={"a": [1]}, output_index="zero", item=7),
        event("keepalive", sequence_number=3),
        event("response.output_item.added"),
        event("response.output_item.done"),
        event("response.completed"),
        event("response.created"),
        added(7, {"type": "image_generation_call", "content": 3}),
        done(7, {"type": "mcp_list_tools", "summary": {}}),
        b": comment\n\n",
        b"event: ping\ndata: {}\n\n",
    ],
)
def test_events_that_mean_nothing_are_passed_over(odd: bytes) -> None:
    """Known or not, whatever their shape."""
    assert deltas(odd, *TALK, odd, completed()) == [{"content": "He"}, {"content": "llo"}]


@pytest.mark.parametrize(
    "broken",
    [
        b"data: {\n\n",
        b"data: 7\n\n",
        piece("output_text", 0, 7),
        event("response.output_text.delta", output_index="zero", delta="x"),
        done(0, 7),
        done(0, message(7)),
        completed(message(), 7),
        event("response.completed", response=7),
    ],
)
def test_events_that_are_broken_are_errors(broken: bytes) -> None:
    """What was whole before is not lost."""
    stream = parser()

    with pytest.raises(errors.UnavailableError) as raised:
        stream.feed(b"".join(TALK) + broken)

    assert raised.value.code == "upstream_invalid_event"
    assert b'"content":"llo"' in raised.value.before


LATER = {"code": "rate_limit_exceeded", "message": "Later."}


@pytest.mark.parametrize(
    "events",
    [
        event("error", code="rate_limit_exceeded", message="Later.", param=None),
        event("error", error={"type": "requests", **LATER}),
        event("response.failed", response=response(status="failed", error=LATER)),
    ],
)  # fmt: skip
def test_an_error_in_the_stream(events: bytes) -> None:
    """In each shape, before the first word and after it; there is no finish."""
    for before in (created(), b"".join(TALK)):
        stream = parser()

        with pytest.raises(errors.RateLimitError, match="Later"):
            stream.feed(before + events)

        assert stream.finish is None
        assert stream.started is (before != created())


def test_an_incomplete_response_says_why() -> None:
    """With its usage."""
    last = event(
        "response.incomplete", response=response(status="incomplete", incomplete_details={"reason": "content_filter"})
    )
    stream = parser()

    chunks(stream.feed(b"".join(TALK) + last) + stream.close())

    assert (stream.finish, stream.usage) == ("content_filter", Usage(100, 50, 60, 10, 30))


def test_a_stream_without_a_beginning_has_names_all_the_same() -> None:
    """A provider that leaves out `response.created` and the names."""
    stream = parser()
    last = event("response.completed", response={"status": "completed"})

    found = chunks(stream.feed(piece("output_text", 0, "x") + last) + stream.close())

    assert {(chunk["id"], chunk["model"]) for chunk in found} == {("chatcmpl-1000", "gpt-5.3-codex")}
    assert msgspec.json.encode(found[-1]).count(b'"stop"') == 1
    assert stream.usage is None
