"""What an OpenAI client hears of Bedrock's streams."""

import pytest

from proxy import errors
from proxy.wire import Usage

from .bedrock_words import (
    CLAUDE,
    FORMAT,
    OLD_CLAUDE,
    begin,
    chunks,
    closed,
    counted,
    deltas,
    end,
    event,
    exception,
    fragment,
    frame,
    opened,
    parser,
    piece,
    stop,
)


def test_nothing_is_started_before_content() -> None:
    """The start of a message and an empty text are no content; the role chunk may be written already."""
    stream = parser()

    role = stream.feed(begin() + piece(0, text=""))
    assert not stream.started
    stream.feed(piece(0, text="x"))

    assert stream.started
    assert b'"role":"assistant"' in role


def test_tool_calls_have_their_own_numbers() -> None:
    """Blocks before a call do not shift the client's index; id and name are told once, arguments in fragments."""
    found = deltas(
        begin(),
        piece(0, text="t"),
        closed(0),
        opened(1, "s", "nova_grounding", type="server_tool_use"),
        fragment(1, '{"q":1}'),
        closed(1),
        opened(2, "one"),
        fragment(2, ""),
        fragment(2, '{"a":'),
        fragment(2, "1}"),
        closed(2),
        opened(3, "two", type="tool_use"),
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
    """No fragment, or only empty ones, is "{}", also when the block is never closed."""
    found = deltas(begin(), opened(0, "one"), *events, end("tool_use"))

    assert "".join(delta["tool_calls"][0]["function"]["arguments"] for delta in found) == "{}"


def test_reasoning_is_reasoning_content() -> None:
    """Reasoning has its own field; its signature and what is redacted come whole, in another."""
    found = deltas(
        begin(),
        piece(0, reasoningContent={"text": "a"}),
        piece(0, reasoningContent={"text": "b"}),
        piece(0, reasoningContent={"signature": "s"}),
        piece(1, reasoningContent={"redactedContent": "eA=="}),
        end(),
    )

    details = [delta["reasoning_details"][0] for delta in found if "reasoning_details" in delta]
    assert found[:2] == [{"reasoning_content": "a"}, {"reasoning_content": "b"}]
    assert [(one["type"], one["index"], one.get("signature"), one.get("data")) for one in details] == [
        ("reasoning.text", 0, "s", None),
        ("reasoning.encrypted", 1, None, "eA=="),
    ]
    assert len(found) == 4


def test_usage_comes_after_the_stop() -> None:
    """The stream is done when both are in; input includes the cache, as OpenAI counts; the usage chunk is last."""
    stream = parser(stream_options={"include_usage": True})

    out = stream.feed(begin() + piece(0, text="x") + stop())
    assert (stream.finish, stream.done, stream.usage) == ("stop", False, None)
    out += stream.feed(
        counted(inputTokens=10, outputTokens=5, totalTokens=1115, cacheReadInputTokens=1000, cacheWriteInputTokens=100)
    )

    assert stream.done
    assert stream.usage == Usage(input=1110, output=5, cached=1000, cache_write=100)
    found = chunks(out + stream.close())
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert (found[-1]["choices"], found[-1]["usage"]["total_tokens"]) == ([], 1115)


def test_usage_before_the_stop_counts_too() -> None:
    """The order of the last two events does not matter."""
    stream = parser()

    stream.feed(begin() + counted(inputTokens=1, outputTokens=2))
    assert not stream.done
    stream.feed(stop())

    assert (stream.done, stream.usage) == (True, Usage(input=1, output=2))


def test_usage_is_told_only_when_asked_for() -> None:
    """A client that did not ask gets no chunk without choices; nor does one whose upstream told nothing."""
    unasked, untold = parser(), parser(stream_options={"include_usage": True})

    out = unasked.feed(begin() + end()) + unasked.close()
    assert b"usage" not in out
    assert unasked.usage == Usage(input=1, output=2)
    assert b'"choices":[]' not in untold.feed(stop() + event("metadata")) + untold.close()
    assert untold.usage is None


def test_empty_answer_is_an_answer() -> None:
    """A stop reason alone counts as started: the client gets a role, a finish and nothing between them."""
    stream = parser()

    out = stream.feed(begin() + end())

    assert (stream.started, stream.done, stream.finish) == (True, True, "stop")
    assert len(chunks(out + stream.close())) == 2


def test_nothing_is_said_behind_the_end() -> None:
    """The finish is the last that a client hears of an answer, but for its usage."""
    stream = parser()

    out = stream.feed(begin() + piece(0, text="a") + stop() + piece(0, text="b") + opened(1, "one") + counted())

    found = chunks(out + stream.close())
    assert [bool(chunk["choices"][0]["finish_reason"]) for chunk in found] == [False, False, True]


def test_finish_is_told_once() -> None:
    """A second stop, and what comes after the end, are ignored."""
    stream = parser()

    out = stream.feed(begin() + stop() + stop("max_tokens") + counted() + begin() + piece(0, text="late") + end())

    found = chunks(out + stream.close())
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, "stop"]


@pytest.mark.parametrize("odd", [event("newThing", delta="x"), frame({":message-type": "event"}, b"x"), closed(9)])
def test_unknown_events_are_ignored(odd: bytes) -> None:
    """New event types may come at any time, of any shape."""
    stream = parser()

    assert stream.feed(odd) == b""
    assert not stream.started


@pytest.mark.parametrize(
    "hollow",
    [
        event("contentBlockDelta", contentBlockIndex=0),
        event("contentBlockStart", contentBlockIndex=0),
        event("contentBlockStart", contentBlockIndex=0, start={"toolResult": {"toolUseId": "x"}}),
        piece(0, citation={"title": "x"}),
        piece(0, toolResult=[{"text": "hidden"}]),
        piece(0, image={"source": {}}),
        fragment(7, "x"),
    ],
)
def test_hollow_events_say_nothing(hollow: bytes) -> None:
    """A known event without anything for the client is no content and no crash."""
    stream = parser()

    assert stream.feed(hollow) == b""
    assert not stream.started


@pytest.mark.parametrize(
    "payload",
    [b"{", b"\xff", b"[1]", b'{"delta":{"text":5}}', b'{"contentBlockIndex":"x"}', b"[" * 5000, b""],
)
def test_broken_event_is_an_error(payload: bytes) -> None:
    """An event that we should be able to read and cannot is a fault of the upstream."""
    headers = {":event-type": "contentBlockDelta", ":message-type": "event"}

    with pytest.raises(errors.UnavailableError) as raised:
        parser().feed(begin() + frame(headers, payload))

    assert raised.value.code == "upstream_invalid_event"
    assert b'"role":"assistant"' in raised.value.before


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        (exception("throttlingException", message="slow"), errors.RateLimitError, 429),
        (exception("internalServerException", message="x"), errors.UnavailableError, 500),
        (exception("serviceUnavailableException", message="x"), errors.OverloadedError, 503),
        (exception("modelStreamErrorException", originalMessage="x"), errors.UnavailableError, 502),
        (exception("modelTimeoutException", message="x"), errors.UpstreamTimeoutError, 504),
        (exception("validationException", message="Input is too long"), errors.ContextLengthError, 400),
        (exception("validationException", message="no"), errors.InvalidRequestError, 400),
        (exception("newException", message="x"), errors.UnavailableError, 502),
    ],
)
@pytest.mark.parametrize("before", [b"", begin() + piece(0, text="said")])
def test_exception_in_the_stream_is_raised(
    before: bytes, fault: bytes, kind: type[errors.UpstreamError], status: int
) -> None:
    """An exception has its class before and after content alike; the router knows what was sent."""
    stream = parser()
    stream.feed(before)

    with pytest.raises(errors.UpstreamError) as raised:
        stream.feed(fault)

    assert (type(raised.value), raised.value.status) == (kind, status)
    assert stream.started is bool(before)


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use"])
def test_malformed_output_is_a_fault(reason: str) -> None:
    """What Bedrock could not read is no answer: nobody is told "stop"."""
    stream = parser()

    with pytest.raises(errors.UnavailableError):
        stream.feed(begin() + stop(reason))

    assert (stream.started, stream.finish) == (False, None)


@pytest.mark.parametrize("half", [b"", begin() + piece(0, text="half"), begin() + counted(), begin() + stop()[:-1]])
def test_cut_stream_is_not_a_whole_answer(half: bytes) -> None:
    """Without a stop reason there is no end, however the bytes stop."""
    stream = parser()
    stream.feed(half)

    with pytest.raises(errors.UnavailableError) as raised:
        stream.close()

    assert raised.value.code == "upstream_truncated"


def test_stream_without_a_beginning_has_a_role() -> None:
    """Events without a messageStart still make a well-formed stream, under one id, named after the model."""
    stream = parser()

    found = chunks(stream.feed(piece(0, text="x") + end()) + stream.close())

    assert {(chunk["id"][:14], chunk["model"]) for chunk in found} == {("chatcmpl-1000-", CLAUDE)}
    assert len({chunk["id"] for chunk in found}) == 1
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"


def test_two_answers_have_two_ids() -> None:
    """Bedrock pads its first event at random, and so its checksum tells two answers of one second apart."""
    one, other = parser(), parser()

    first = chunks(one.feed(event("messageStart", role="assistant", pad="a") + end()) + one.close())
    second = chunks(other.feed(event("messageStart", role="assistant", pad="b") + end()) + other.close())

    assert first[0]["id"] != second[0]["id"]


def test_structured_answer_of_an_older_model_is_content() -> None:
    """The call that stands for the answer becomes the content; words around it, and a second one, are left out."""
    found = deltas(
        begin(),
        piece(0, text="Here:"),
        opened(1, "one", "sidecar_json_answer"),
        fragment(1, '{"a":'),
        fragment(1, "1}"),
        closed(1),
        opened(2, "two", "sidecar_json_answer"),
        fragment(2, '{"a":2}'),
        closed(2),
        end("tool_use"),
        model=OLD_CLAUDE,
        response_format=FORMAT,
    )

    assert found == [{"content": '{"a":'}, {"content": "1}"}]


def test_structured_answer_without_a_call_is_its_words() -> None:
    """A model that answers in words all the same is heard, and says "stop"."""
    stream = parser(OLD_CLAUDE, response_format=FORMAT)

    found = chunks(stream.feed(begin() + piece(0, text='{"a"') + piece(0, text=":1}") + end()) + stream.close())

    assert [chunk["choices"][0]["delta"].get("content") for chunk in found] == ["", '{"a":1}', None]
    assert found[-1]["choices"][0]["finish_reason"] == "stop"


def test_renamed_tool_gets_its_name_back() -> None:
    """A name that Bedrock refuses is the client's own again in the answer."""
    name = "mcp.server/tool"
    tools = [{"type": "function", "function": {"name": name}}]

    found = deltas(begin(), opened(0, "one", "mcp_server_tool_eb8df48a"), end("tool_use"), tools=tools)

    assert found[0]["tool_calls"][0]["function"]["name"] == name
