"""What an OpenAI client hears of Cohere's streams."""

from typing import Any

import msgspec
import pytest

from proxy import errors
from proxy.wire import Usage

from .translated_words import Language, chunks

COHERE = Language("cohere", "command-a-03-2025")
BILLED = {"input_tokens": 9, "output_tokens": 5}
TOKENS = {"input_tokens": 90, "output_tokens": 50}


def event(kind: str, *, index: int | None = None, **fields: Any) -> bytes:
    place = {} if index is None else {"index": index}
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **place, **fields}))


def said(kind: str, index: int | None = None, **message: Any) -> bytes:
    return event(kind, index=index, delta={"message": message})


def word(text: str, kind: str = "text") -> bytes:
    return said("content-delta", 0, content={kind: text})


def plan(text: str) -> bytes:
    return said("tool-plan-delta", tool_plan=text)


def opened(index: int, id: str, arguments: str | None = "", name: str = "look") -> bytes:
    function = {"name": name, "arguments": arguments}
    return said("tool-call-start", index, tool_calls={"id": id, "type": "function", "function": function})


def fragment(index: int, arguments: str) -> bytes:
    return said("tool-call-delta", index, tool_calls={"function": {"arguments": arguments}})


def closed(index: int) -> bytes:
    return event("tool-call-end", index=index)


def end(finish: str = "COMPLETE", **delta: Any) -> bytes:
    return event("message-end", delta={"finish_reason": finish, **delta})


BEGIN = event("message-start", id="id-1", delta={"message": {"role": "assistant", "content": [], "tool_calls": []}})
DONE = b"data: [DONE]\n\n"


def test_nothing_is_started_before_content() -> None:
    """The start of a message and of an empty part are no content; the role chunk may be written already."""
    stream = COHERE.parser()

    role = stream.feed(BEGIN + said("content-start", 0, content={"type": "text", "text": ""}))
    assert not stream.started
    stream.feed(word("x"))

    assert stream.started
    assert chunks(role + DONE)[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_words_thoughts_and_plans() -> None:
    """Text is content; thinking and the plan before calls are reasoning; citations and unknown events are nothing."""
    found = COHERE.deltas(
        BEGIN,
        word("hm", "thinking"),
        plan("I look."),
        said("content-start", 1, content={"type": "text", "text": "a"}),
        word("b"),
        word(""),
        said("citation-start", 0, citations={"start": 0, "end": 1, "text": "a", "sources": []}),
        event("debug", prompt="x", delta="text"),
        event("new-thing", delta=[1]),
        event("content-end", index=1),
        end(),
    )

    assert found == [{"reasoning_content": "hm"}, {"reasoning_content": "I look."}, {"content": "a"}, {"content": "b"}]


def test_tool_calls_have_their_own_numbers() -> None:
    """Whatever index Cohere gives: id and name are told once, arguments in fragments, none at all as an object."""
    found = COHERE.deltas(
        BEGIN,
        opened(1, "one"),
        fragment(1, '{"a":'),
        fragment(1, ""),
        fragment(1, "1}"),
        closed(1),
        opened(2, "two"),
        closed(2),
        closed(2),
        opened(3, "three", '{"b":2}'),
        closed(3),
        opened(1, "four", None),
        end("TOOL_CALL"),
    )

    calls = [delta["tool_calls"][0] for delta in found]
    assert calls == [
        {"index": 0, "id": "one", "type": "function", "function": {"name": "look", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": "1}"}},
        {"index": 1, "id": "two", "type": "function", "function": {"name": "look", "arguments": ""}},
        {"index": 1, "function": {"arguments": "{}"}},
        {"index": 2, "id": "three", "type": "function", "function": {"name": "look", "arguments": '{"b":2}'}},
        {"index": 3, "id": "four", "type": "function", "function": {"name": "look", "arguments": ""}},
        {"index": 3, "function": {"arguments": "{}"}},
    ]


def test_a_call_without_its_function_is_nothing() -> None:
    """An event that says nothing of a call says nothing to the client."""
    assert COHERE.deltas(BEGIN, said("tool-call-delta", 0, tool_calls={"id": "x"}), word("a"), end()) == [
        {"content": "a"}
    ]


@pytest.mark.parametrize(
    ("reason", "calls", "finish"),
    [("COMPLETE", b"", "stop"), ("MAX_TOKENS", b"", "length"), ("COMPLETE", opened(0, "a"), "tool_calls")],
)
def test_finish(reason: str, calls: bytes, finish: str) -> None:
    """One finish chunk, in OpenAI's words; what comes after it does not count."""
    stream = COHERE.parser()

    found = chunks(stream.feed(BEGIN + calls + end(reason) + end("ERROR") + DONE + word("late")) + stream.close())

    assert [chunk["choices"][0]["finish_reason"] for chunk in found if chunk["choices"][0]["finish_reason"]] == [finish]
    assert (stream.finish, stream.done) == (finish, True)
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in found} == {("id-1", "command-a-03-2025", 1000)}


def test_an_answer_without_words_is_one() -> None:
    """A finish reason is content: the client gets an empty answer, not the next upstream's."""
    stream = COHERE.parser()

    stream.feed(BEGIN + end())

    assert stream.started


def test_done_may_be_missing() -> None:
    """After the finish reason the end of the bytes is the end of the answer, also in the middle of an event."""
    stream = COHERE.parser()

    out = stream.feed(word("a") + end() + b"data: [DO") + stream.close()

    assert len(chunks(out)) == 3


def test_nothing_is_said_behind_the_end() -> None:
    """The finish is the last that a client hears of an answer."""
    stream = COHERE.parser()

    out = stream.feed(BEGIN + word("a") + end() + word("b") + opened(0, "one") + end()) + stream.close()

    assert [bool(chunk["choices"][0]["finish_reason"]) for chunk in chunks(out)] == [False, False, True]


def test_the_finish_reason_may_be_missing() -> None:
    """[DONE] ends the answer as well; clients that need a finish reason get one, and a call its arguments."""
    stream = COHERE.parser()

    found = chunks(stream.feed(opened(0, "a") + DONE) + stream.close())

    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, None, None, "tool_calls"]
    assert found[2]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_usage_is_told_in_tokens_and_billed_in_units() -> None:
    """The last event counts both ways; a client that did not ask is told nothing."""
    asked, unasked = COHERE.parser(stream_options={"include_usage": True}), COHERE.parser()
    events = BEGIN + word("a") + end(usage={"billed_units": BILLED, "tokens": TOKENS, "cached_tokens": 80})

    found = chunks(asked.feed(events) + asked.close())
    assert b"usage" not in unasked.feed(events) + unasked.close()

    assert asked.usage == unasked.usage == Usage(input=9, output=5)
    assert (found[-1]["choices"], found[-1]["usage"]["total_tokens"]) == ([], 140)
    assert found[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 80


@pytest.mark.parametrize(
    ("delta", "kind"),
    [
        ({"error": "no luck"}, errors.UnavailableError),
        ({"error": "no luck", "error_type": "INVALID_TOOL_GENERATION"}, errors.UnavailableError),
        ({"error": "no luck", "error_type": "TOO_MANY_TOKENS"}, errors.ContextLengthError),
    ],
)
def test_an_error_keeps_what_came_before_it(delta: Any, kind: type[errors.UpstreamError]) -> None:
    """A failed answer is an error with Cohere's words, and no finish chunk."""
    stream = COHERE.parser()

    with pytest.raises(errors.UpstreamError, match="no luck") as raised:
        stream.feed(BEGIN + word("a") + end("ERROR", usage={}, **delta) + DONE)

    assert type(raised.value) is kind
    assert (stream.finish, b'"content":"a"' in raised.value.before) == (None, True)


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {\n\n",
        b"data: \xff\n\n",
        b"data: " + b"[" * 5000 + b"\n\n",
        event("content-delta", delta="text"),
        said("content-delta", 0, content={"text": 1}),
    ],
)
def test_an_event_that_is_not_valid(bad: bytes) -> None:
    """Nonsense in an event that we know, or in no event at all, is a broken upstream."""
    with pytest.raises(errors.UnavailableError) as raised:
        COHERE.parser().feed(bad)

    assert raised.value.code == "upstream_invalid_event"


def test_a_cut_stream_is_no_answer() -> None:
    """Without a finish reason and without [DONE] the answer is not whole."""
    stream = COHERE.parser()
    stream.feed(BEGIN + word("a"))

    with pytest.raises(errors.UnavailableError) as raised:
        stream.close()

    assert raised.value.code == "upstream_truncated"
