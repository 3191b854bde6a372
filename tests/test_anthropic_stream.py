"""What an OpenAI client hears of Anthropic's streams."""

import pytest

from proxy import errors
from proxy.wire import Usage

from .anthropic_words import (
    CURRENT,
    begin,
    chunks,
    closed,
    deltas,
    end,
    event,
    fragment,
    opened,
    parser,
    piece,
    text,
    use,
)


def test_nothing_is_started_before_content() -> None:
    """The start of a message, an empty block and a ping are no content; the role chunk may be written already."""
    stream = parser()

    role = stream.feed(begin() + event("ping") + opened(0, text("")))
    assert not stream.started
    stream.feed(piece(0, "text_delta", text="x"))

    assert stream.started
    assert b'"role":"assistant"' in role


def test_tool_calls_have_their_own_numbers() -> None:
    """Blocks before a call do not shift the client's index; id and name are told once, arguments in fragments."""
    found = deltas(
        begin(),
        opened(0, text("t")),
        closed(0),
        opened(1, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
        fragment(1, '{"q":1}'),
        closed(1),
        opened(2, use(id="one")),
        fragment(2, ""),
        fragment(2, '{"a":'),
        fragment(2, "1}"),
        closed(2),
        opened(3, use(id="two")),
        closed(3),
        end("tool_use"),
    )

    calls = [delta["tool_calls"][0] for delta in found[1:]]
    assert found[0] == {"content": "t"}
    assert calls == [
        {"index": 0, "id": "one", "type": "function", "function": {"name": "look", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": "1}"}},
        {"index": 1, "id": "two", "type": "function", "function": {"name": "look", "arguments": ""}},
        {"index": 1, "function": {"arguments": "{}"}},
    ]


@pytest.mark.parametrize("events", [[fragment(0, ""), closed(0)], [closed(0)], []])
def test_call_without_arguments_has_an_empty_object(events: list[bytes]) -> None:
    """No fragment, or only empty ones, is "{}", also when the block is never closed; never the placeholder twice."""
    found = deltas(begin(), opened(0, use()), *events, end("tool_use"))

    assert "".join(delta["tool_calls"][0]["function"]["arguments"] for delta in found) == "{}"


def test_whole_call_in_the_start_event() -> None:
    """A message may begin with a finished call and a stop reason, and nothing may come after it."""
    stream = parser()

    out = stream.feed(begin(use({"a": 1}), stop="tool_use")) + stream.close()

    found = chunks(out)
    assert found[2]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_thinking_is_reasoning_content() -> None:
    """Thinking has its own field; its signature and what is redacted come whole, in another."""
    found = deltas(
        begin(),
        opened(0, {"type": "thinking", "thinking": "a"}),
        piece(0, "thinking_delta", thinking="b"),
        piece(0, "thinking_delta", thinking=""),
        piece(0, "signature_delta", signature="s"),
        opened(1, {"type": "redacted_thinking", "data": "x"}),
        end(),
    )

    details = [delta["reasoning_details"][0] for delta in found if "reasoning_details" in delta]
    assert found[:2] == [{"reasoning_content": "a"}, {"reasoning_content": "b"}]
    assert [(one["type"], one["index"], one.get("signature"), one.get("data")) for one in details] == [
        ("reasoning.text", 0, "s", None),
        ("reasoning.encrypted", 1, None, "x"),
    ]
    assert len(found) == 4


def test_usage_is_replaced_field_by_field() -> None:
    """Each report is a snapshot: what it names replaces, what it leaves out stays."""
    stream = parser(stream_options={"include_usage": True})

    stream.feed(begin(input_tokens=10, cache_read_input_tokens=1000, cache_creation_input_tokens=100, output_tokens=1))
    found = chunks(stream.feed(end(output_tokens=5)) + stream.close())

    assert stream.usage == Usage(input=1110, output=5, cached=1000, cache_write=100)
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["total_tokens"] == 1115


@pytest.mark.parametrize("count", [-1, 10**400, 1e300])
def test_usage_that_nobody_can_have_is_unknown(count: float) -> None:
    """Money is reckoned with it; the answer itself is not to blame."""
    stream = parser(stream_options={"include_usage": True})

    out = stream.feed(begin(input_tokens=1) + opened(0, text("x")) + end(output_tokens=count)) + stream.close()

    assert stream.usage is None
    assert [chunk["usage"] for chunk in chunks(out)] == [None] * 3


def test_usage_is_told_only_when_asked_for() -> None:
    """A client that did not ask gets no chunk without choices; nor does one whose upstream told nothing."""
    unasked, untold = parser(), parser(stream_options={"include_usage": True})

    out = unasked.feed(begin(output_tokens=1) + end(output_tokens=5)) + unasked.close()
    assert b"usage" not in out
    assert unasked.usage == Usage(output=5)
    bare = event("message_delta", delta={"stop_reason": "end_turn"})
    assert b'"choices":[]' not in untold.feed(bare) + untold.close()


def test_empty_answer_is_an_answer() -> None:
    """A stop reason alone counts as started: the client gets a role, a finish and nothing between them."""
    stream = parser()

    out = stream.feed(begin() + end())

    assert stream.started
    assert stream.done
    assert stream.finish == "stop"
    assert len(chunks(out + stream.close())) == 2


def test_finish_is_told_once() -> None:
    """What comes after the end of the message, OpenAI's end mark included, is ignored."""
    stream = parser()

    out = stream.feed(begin() + end() + end() + b"event: data\ndata: [DONE]\n\n" + b"data: nonsense\n\n")

    assert (out + stream.close()).count(b'"finish_reason":"stop"') == 1


@pytest.mark.parametrize(("block", "finish"), [(text("x"), "stop"), (use(), "tool_calls")])
def test_a_missing_reason_is_added(block: dict[str, str], finish: str) -> None:
    """An answer that its sender calls whole never ends without a finish reason; in OpenAI's language neither."""
    stream = parser()

    out = stream.feed(begin() + opened(0, block) + event("message_stop")) + stream.close()

    assert stream.finish == finish
    assert chunks(out)[-1]["choices"][0]["finish_reason"] == finish


def test_end_mark_of_another_language_is_tolerated() -> None:
    """Some gateways end Anthropic's streams with OpenAI's mark before or instead of its own."""
    stream = parser()

    stream.feed(begin() + event("message_delta", delta={"stop_reason": "end_turn"}) + b"data: [DONE]")

    assert stream.close().endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("odd", [event("new_thing", delta="x", index="y"), b'data: {"a":1}\n\n', event("message_stop")])
def test_unknown_events_are_ignored(odd: bytes) -> None:
    """New event types may come at any time, of any shape."""
    stream = parser()

    stream.feed(odd)

    assert not stream.started


@pytest.mark.parametrize(
    "incomplete",
    [
        event("content_block_delta", index=0),
        event("content_block_start", index=0),
        event("message_start"),
        event("message_delta"),
        fragment(7, "x"),
    ],
)
def test_hollow_events_say_nothing(incomplete: bytes) -> None:
    """A known event without its inside is no content and no crash."""
    stream = parser()

    assert stream.feed(incomplete) == b""
    assert not stream.started


@pytest.mark.parametrize(
    "broken",
    [
        b"data: {\n\n",
        b"data: \xff\n\n",
        b"data: [1]\n\n",
        event("content_block_delta", index="x"),
        piece(0, "text_delta", text=5),
    ],
)
def test_broken_event_is_an_error(broken: bytes) -> None:
    """An event that we should be able to read and cannot is a fault of the upstream."""
    with pytest.raises(errors.UnavailableError) as raised:
        parser().feed(begin() + broken)

    assert raised.value.code == "upstream_invalid_event"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (event("error", error={"type": "overloaded_error", "message": "x"}), errors.OverloadedError),
        (b'data: {"type":"error","error":{"type":"rate_limit_error","message":"x"}}\n\n', errors.RateLimitError),
        (b"event: error\ndata: out of order\n\n", errors.UnavailableError),
    ],
)
@pytest.mark.parametrize("before", [b"", begin() + opened(0, text("said"))])
def test_error_in_the_stream_is_raised(before: bytes, fault: bytes, kind: type[errors.UpstreamError]) -> None:
    """An error is raised before and after content alike; the router knows what was sent."""
    stream = parser()
    stream.feed(before)

    with pytest.raises(errors.UpstreamError) as raised:
        stream.feed(fault)

    assert type(raised.value) is kind
    assert stream.started is bool(before)


def test_cut_stream_is_not_a_whole_answer() -> None:
    """Without a stop reason there is no end, however the bytes stop."""
    stream = parser()
    stream.feed(begin() + opened(0, text("half")))

    with pytest.raises(errors.UnavailableError) as raised:
        stream.close()

    assert raised.value.code == "upstream_truncated"


def test_stream_without_a_beginning_is_named_by_us() -> None:
    """Events without a message_start still make a well-formed stream."""
    stream = parser()

    found = chunks(stream.feed(opened(0, text("x")) + end()) + stream.close())

    assert {(chunk["id"], chunk["model"]) for chunk in found} == {("chatcmpl-1000", CURRENT)}
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"


def test_a_refusal_has_its_words() -> None:
    """What Anthropic says about it is OpenAI's `refusal`, before the finish chunk."""
    told = event(
        "message_delta", delta={"stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "No."}}
    )
    stream = parser()
    found = chunks(stream.feed(begin() + told + event("message_stop")) + stream.close())

    assert [chunk["choices"][0]["delta"].get("refusal") for chunk in found] == [None, "No.", None]
    assert found[-1]["choices"][0]["finish_reason"] == "content_filter"
