"""Gemini's streams, as the client hears them."""

from typing import Any

import pytest

from proxy import errors

from .gemini_words import FLASH, candidate, chunks, deltas, event, made, parser, piece, said, streamed


def test_texts_and_thoughts_are_deltas() -> None:
    """A role chunk, what was said and thought as it came, one finish chunk; empty parts say nothing."""
    found = streamed(
        piece({"text": "Hm", "thought": True}), piece(said("Good ")), piece(said("")), piece(said("day"), finish="STOP")
    )

    choices = [chunk["choices"][0] for chunk in found]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Hm"},
        {"content": "Good "},
        {"content": "day"},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["stop"]
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in found} == {("r1", "gemini", 1000)}


def test_call_is_one_delta_and_the_reason() -> None:
    """A call comes whole, numbered and with its signature; a STOP behind it means the calls."""
    stream = parser()
    out = stream.feed(
        piece(said("So"))
        + piece(made({"a": 1}, signature="sig"), made(name="wait"))
        + piece({"text": "", "thoughtSignature": "x"}, finish="STOP")
    )
    found = chunks(out + stream.close())

    calls = [call for chunk in found for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [(call["index"], call["function"]) for call in calls] == [
        (0, {"name": "look", "arguments": '{"a":1}'}),
        (1, {"name": "wait", "arguments": "{}"}),
    ]
    assert calls[0]["id"] != calls[1]["id"]
    assert calls[0]["extra_content"]["google"] == {"thought_signature": "sig", "sidecar_source": f"gemini/{FLASH}"}
    assert found[-1]["choices"][0]["finish_reason"] == stream.finish == "tool_calls"


def test_last_reason_counts_and_content_may_follow_one() -> None:
    """Some models say STOP with every piece: the finish chunk waits for the end and has the last reason."""
    found = streamed(piece(said("a"), finish="STOP"), piece(said("b"), finish="MAX_TOKENS"))

    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, None, None, "length"]


def test_usage_is_the_last_snapshot_of_each_count() -> None:
    """Counts are snapshots in which one may be missing again: they replace, and never add up."""
    stream = parser(stream_options={"include_usage": True})
    out = stream.feed(
        piece(said("a"), usageMetadata={"promptTokenCount": 10})
        + piece(
            said("b"),
            usageMetadata={
                "promptTokenCount": 10,
                "candidatesTokenCount": 3,
                "thoughtsTokenCount": 7,
                "totalTokenCount": 20,
            },
        )
        + piece(finish="STOP", usageMetadata={"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 22})
    )
    found = chunks(out + stream.close())

    assert [chunk["usage"] for chunk in found[:-1]] == [None] * 4
    usage = found[-1]["usage"]
    assert found[-1]["choices"] == []
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (10, 12, 22)
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 7


def test_usage_that_nobody_asked_for_is_only_counted() -> None:
    """Without include_usage no chunk mentions it; the sidecar knows it all the same."""
    stream = parser()
    out = stream.feed(piece(said("a"), finish="STOP", usageMetadata={"promptTokenCount": 10})) + stream.close()

    assert b"usage" not in out
    assert stream.usage is not None
    assert stream.usage.input == 10


def test_several_answers_interleave() -> None:
    """Each candidate has its own role chunk, calls and reason; the stream is finished when all are."""
    stream = parser()
    out = stream.feed(event(candidate(said("a"), index=0), candidate(made({}), finish=None, index=1)))
    assert stream.finish is None
    out += stream.feed(event(candidate(finish="STOP", index=1)))
    found = [chunk["choices"][0] for chunk in chunks(out + stream.close())]

    assert [choice["index"] for choice in found] == [0, 0, 1, 1, 0, 1]
    assert [choice["finish_reason"] for choice in found[-2:]] == ["stop", "tool_calls"]
    assert found[3]["delta"]["tool_calls"][0]["index"] == 0


def test_logprobs_come_with_their_text() -> None:
    """Log probabilities stand in the chunk of the text, or in one of their own when there is none."""
    told = {"chosenCandidates": [{"token": "a", "logProbability": -1}]}

    found = streamed(
        event(candidate(said("a"), said("b"), finish=None, logprobsResult=told)),
        event(candidate(finish="STOP", logprobsResult=told)),
    )

    assert [chunk["choices"][0]["logprobs"] is not None for chunk in found] == [False, True, False, True, False]


def test_nothing_counts_before_content() -> None:
    """Events with counts or empty parts do not commit the answer; a reason does."""
    stream = parser()
    stream.feed(piece(said(""), usageMetadata={"promptTokenCount": 1}) + event(responseId=None))
    stream.feed(b'data: {"usageMetadata":{"promptTokenCount":1}}\n\n')
    assert not stream.started
    stream.feed(piece(finish="STOP"))
    assert stream.started


def test_refused_prompt_is_filtered() -> None:
    """A prompt that was blocked ends the stream without a word, filtered."""
    stream = parser()
    out = stream.feed(b'data: {"promptFeedback":{"blockReason":"SAFETY"}}\n\n')
    found = chunks(out + stream.close())

    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, "content_filter"]
    assert found[0]["id"] == "chatcmpl-1000"
    assert stream.started


def test_broken_off_answer_is_an_error_in_the_stream() -> None:
    """A malformed call in mid-stream is an error, never a clean end; what was whole before it is kept."""
    stream = parser()

    with pytest.raises(errors.UnavailableError) as raised:
        stream.feed(piece(said("a")) + piece(finish="MALFORMED_FUNCTION_CALL"))

    assert b'"content":"a"' in raised.value.before
    assert stream.finish is None


ERROR = b'{\n  "error": {\n    "code": 503,\n    "message": "busy",\n    "status": "UNAVAILABLE"\n  }\n}'
ALONE = [ERROR, ERROR + b"\r\n\r\n", b"[" + ERROR + b"]", b"\r\n" + ERROR.replace(b"\n", b"\r\n")]


@pytest.mark.parametrize("error", ALONE)
@pytest.mark.parametrize("before", [b"", piece(said("a")), piece(said("a")).replace(b"\r\n", b"\n")])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_error_between_the_events_is_told(before: bytes, error: bytes, size: int) -> None:
    """An error in mid-stream is bare JSON outside of any event; it has its class however the bytes are cut."""
    stream, body = parser(), before + error
    for at in range(0, len(body), size):
        stream.feed(body[at : at + size])

    with pytest.raises(errors.OverloadedError) as raised:
        stream.close()

    assert raised.value.message == "busy"
    assert stream.started is bool(before)


@pytest.mark.parametrize("cut", range(1, 14))
def test_error_is_found_wherever_the_bytes_are_cut(cut: int) -> None:
    """The end of the last event may be cut in the middle of its blank line."""
    stream, before = parser(), piece(said("a"))
    stream.feed(before[: len(before) - 7 + cut] + ERROR[: max(cut - 7, 0)])
    stream.feed(before[len(before) - 7 + cut :] + ERROR[max(cut - 7, 0) :] if cut < 7 else ERROR[cut - 7 :])

    with pytest.raises(errors.OverloadedError):
        stream.close()


def test_error_as_an_event_is_told() -> None:
    """An error may also come as an event."""
    stream = parser()

    with pytest.raises(errors.RateLimitError) as raised:
        stream.feed(piece(said("a")) + b'data: {"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"x"}}\n\n')

    assert b'"content":"a"' in raised.value.before


@pytest.mark.parametrize("broken", [b"data: {\n\n", b"data: \xff\n\n", b"data: [1]\n\n", b'data: {"candidates":1}\n\n'])
def test_broken_event_is_an_error(broken: bytes) -> None:
    """An event that cannot be read is a fault of the upstream."""
    with pytest.raises(errors.UnavailableError) as raised:
        parser().feed(broken)

    assert raised.value.code == "upstream_invalid_event"


@pytest.mark.parametrize("rest", [b"", b'data: {"candidates"', b": quiet\n", b"x" * 100_000])
def test_cut_stream_is_not_a_whole_answer(rest: bytes) -> None:
    """Without a reason there is no end, however the bytes stop, and no more than a little of them is kept."""
    stream = parser()
    stream.feed(piece(said("half")))
    for at in range(0, len(rest), 10_000):
        stream.feed(rest[at : at + 10_000])

    with pytest.raises(errors.UnavailableError):
        stream.close()


def test_half_an_event_after_the_reason_does_not_matter() -> None:
    """What was cut behind the finish reason was not needed."""
    stream = parser()
    out = stream.feed(piece(said("a"), finish="STOP") + b"data: {") + stream.close()

    assert chunks(out)[-1]["choices"][0]["finish_reason"] == "stop"


def test_last_event_without_its_blank_line_counts() -> None:
    """Some streams end in the middle of their last event's end."""
    stream = parser()
    out = stream.feed(piece(said("a"), finish="STOP").rstrip()) + stream.close()

    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks(out)] == ["", "a", None]


def test_parts_that_nobody_knows_are_skipped() -> None:
    """Code that ran at Google, and what is to come, is no answer of the model's."""
    parts: list[Any] = [{"executableCode": {"code": "1"}}, {"toolCall": {"id": "x"}}, {"inlineData": {"data": "QQ=="}}]

    assert deltas(piece(*parts), piece(said("a"), finish="STOP")) == [{"content": "a"}]
