"""What an OpenAI client gets of complete answers and errors of the Responses API."""

from typing import Any

import msgspec
import pytest

from proxy import errors
from proxy.adapter import Target
from proxy.wire import Usage

from .responses_words import (
    ADAPTER,
    RESPONSES,
    USAGE,
    added,
    body,
    completed,
    done,
    event,
    function,
    message,
    piece,
    response,
    text,
    thought,
)
from .translated_words import chat


def choice_of(raw: bytes) -> Any:
    return RESPONSES.parse(raw)[1]


def fault_of(raw: bytes) -> errors.UpstreamError:
    with pytest.raises(errors.UpstreamError) as raised:
        RESPONSES.parse(raw)
    return raised.value


def test_a_whole_answer() -> None:
    """Id, model, text, finish reason and usage; the client's clock, not the provider's."""
    reply, choice = RESPONSES.parse(body(message(text("Hello "), text("there."))))

    found = msgspec.json.decode(reply.body)
    assert (found["id"], found["model"], found["created"]) == ("resp_1", "codex-1", 1000)
    assert choice["message"] == {"role": "assistant", "content": "Hello there.", "refusal": None}
    assert (choice["finish_reason"], reply.finish, choice["logprobs"]) == ("stop", "stop", None)
    assert reply.usage == Usage(100, 50, 60, 10, 30)
    assert found["usage"]["total_tokens"] == 150
    assert found["usage"]["completion_tokens_details"] == {"reasoning_tokens": 30}


def test_calls() -> None:
    """Each function call is a tool call under its `call_id`; there is no content then. No arguments are an object."""
    choice = choice_of(body(function("c1", '{"a":1}'), function("c2", "", "other")))

    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "other", "arguments": "{}"}},
    ]


def test_a_call_without_call_id_keeps_the_items() -> None:
    """Some servers know one id only."""
    choice = choice_of(body({**function("x"), "call_id": None}))

    assert choice["message"]["tool_calls"][0]["id"] == "fc_1"


def test_reasoning() -> None:
    """Summaries are reasoning, a blank line between two; where the reasoning itself is told, it is that."""
    whole = thought("not this", content=[{"type": "reasoning_text", "text": "all of it"}])
    choice = choice_of(body(thought("One.", "Two."), thought(), whole, message(text("x"))))

    assert choice["message"]["reasoning_content"] == "One.\n\nTwo.\n\nall of it"
    assert "reasoning_details" not in choice["message"]


def test_encrypted_reasoning_is_told_with_its_source() -> None:
    """What an answer begins with; what comes later has no place in a chat that it could be put back to."""
    target = Target("gpt-5.3-codex", provider="p")
    raw = body(thought(sealed="S1"), thought(sealed="S2", id="rs_2"), function("c1"), thought(sealed="S3"))

    reply = ADAPTER.parse(raw, chat(), target)

    details = msgspec.json.decode(reply.body)["choices"][0]["message"]["reasoning_details"]
    assert [(one["id"], one["data"], one["index"]) for one in details] == [("rs_1", "S1", 0), ("rs_2", "S2", 1)]
    assert {one["sidecar_source"] for one in details} == {"p/gpt-5.3-codex"}
    assert {(one["type"], one["format"]) for one in details} == {("reasoning.encrypted", "openai-responses-v1")}


def test_a_refusal() -> None:
    """It has a place of its own, and there is no content."""
    choice = choice_of(body(message({"type": "refusal", "refusal": "No."})))

    assert choice["message"] == {"role": "assistant", "content": None, "refusal": "No."}
    assert choice["finish_reason"] == "stop"


def test_cited_pages() -> None:
    """As OpenAI's chat tells them; cited files, and what is no citation, are left out."""
    page = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 3}
    odd = [{"type": "file_citation", "file_id": "f"}, {**page, "title": None}, 7]
    choice = choice_of(body(message(text("abc", annotations=[page, *odd]), text("d", annotations=None))))

    del page["type"]
    assert choice["message"]["annotations"] == [{"type": "url_citation", "url_citation": page}]


def test_log_probabilities() -> None:
    """As OpenAI's chat tells them; bytes that are missing are the token's."""
    top = {"token": "é", "logprob": -0.5}
    given = [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": [top]}]
    choice = choice_of(body(message(text("a", logprobs=given))))

    expected = {**given[0], "top_logprobs": [{**top, "bytes": [195, 169]}]}
    assert choice["logprobs"] == {"content": [expected], "refusal": None}
    assert choice_of(body(message(text("a", logprobs=["?"]))))["logprobs"] is None


def test_what_the_provider_does_by_itself_is_passed_over() -> None:
    """Hosted tools, and items that nobody knows, whatever they look like."""
    hosted = [{"type": "web_search_call", "content": 7}, {"type": "new", "arguments": {}, "summary": "x"}]
    choice = choice_of(body(*hosted, message(text("x"))))

    assert choice["message"]["content"] == "x"
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [({"reason": "max_output_tokens"}, "length"), ({"reason": "content_filter"}, "content_filter"), (None, "length")],
)
def test_an_answer_that_was_cut(reason: Any, finish: str) -> None:
    """An incomplete answer says why, also with a call in it."""
    raw = body(function("c1", '{"a'), status="incomplete", incomplete_details=reason)

    choice = choice_of(raw)

    assert choice["finish_reason"] == finish
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"a'


@pytest.mark.parametrize("usage", [None, {**USAGE, "output_tokens": -9}, {}])
def test_usage_that_is_none(usage: Any) -> None:
    """No usage, and counts below zero, are told as nothing; missing ones are 0."""
    reply, _ = RESPONSES.parse(body(message(text("x")), usage=usage))

    assert reply.usage == (Usage() if usage == {} else None)
    assert ("usage" in msgspec.json.decode(reply.body)) is (usage == {})


def test_an_empty_answer_is_one() -> None:
    """Nothing was said, and that is told; missing names are made up."""
    reply, choice = RESPONSES.parse(msgspec.json.encode({"output": []}))

    assert choice["message"]["content"] == ""
    assert msgspec.json.decode(reply.body)["id"] == "chatcmpl-1000"
    assert msgspec.json.decode(reply.body)["model"] == "gpt-5.3-codex"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>Hello</html>",
        b"{",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"output": [7]}',
        b'{"output": [{"type": "message", "content": 7}]}',
        b'{"output": [{"type": "message", "content": [{"text": 7}]}]}',
        b'{"object": "response", "output": "x"}',
    ],
)
def test_nonsense_is_no_answer(raw: bytes) -> None:
    """Whatever it is, the next upstream can be asked."""
    error = fault_of(raw)

    assert type(error) is errors.UnavailableError
    assert error.code in ("upstream_invalid_response", "upstream_invalid_event")


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled"])
def test_an_answer_that_was_never_finished(status: str) -> None:
    """A response that goes on in the background is no answer to a chat."""
    error = fault_of(body(status=status))

    assert (type(error), error.code) == (errors.UnavailableError, "upstream_invalid_response")


FAULTS: list[tuple[dict[str, Any], type[errors.UpstreamError], int]] = [
    ({"code": "server_error"}, errors.UnavailableError, 502),
    ({"code": "unheard_of"}, errors.UnavailableError, 502),
    ({"code": None}, errors.UnavailableError, 502),
    ({"code": "rate_limit_exceeded"}, errors.RateLimitError, 429),
    ({"code": "insufficient_quota"}, errors.QuotaError, 429),
    ({"code": "server_is_overloaded"}, errors.OverloadedError, 503),
    ({"code": "slow_down"}, errors.OverloadedError, 503),
    ({"code": "vector_store_timeout"}, errors.UpstreamTimeoutError, 504),
    ({"code": "context_length_exceeded"}, errors.ContextLengthError, 400),
    ({"code": "invalid_prompt"}, errors.ContentFilterError, 400),
    ({"code": "bio_policy"}, errors.ContentFilterError, 400),
    ({"code": "image_content_policy_violation"}, errors.ContentFilterError, 400),
    ({"code": "misalignment_policy_violation"}, errors.ContentFilterError, 400),
    ({"code": "model_not_found"}, errors.NotFoundError, 404),
    ({"code": "invalid_api_key"}, errors.AuthError, 502),
    ({"code": "image_too_large"}, errors.InvalidRequestError, 400),
    ({"code": "invalid_image_url"}, errors.InvalidRequestError, 400),
    ({"code": "odd", "type": "invalid_request_error", "param": "input"}, errors.InvalidRequestError, 400),
]


@pytest.mark.parametrize(("error", "kind", "status"), FAULTS)
def test_a_response_that_failed_has_a_class(error: Any, kind: type[errors.UpstreamError], status: int) -> None:
    """By its code, then its type: the same inside a response, in an event, and in either shape of an event."""
    told = {"message": "Oh.", **error}
    whole = body(status="failed", error=told, usage=None)
    shapes = [event("error", **{**told, "type": "error"}), event("error", error=told)]
    if "type" in error:
        del shapes[0]  # which has no room for a type

    for raw in (whole, *shapes, event("response.failed", response=response(status="failed", error=told))):
        found = fault_of(raw)
        assert (type(found), found.status) == (kind, status)
        assert "Oh." in found.message


def test_an_event_may_name_its_status() -> None:
    """ChatGPT's backend does; a status that is none is not believed."""
    told = {"type": "usage_limit_reached", "message": "Later."}

    assert type(fault_of(event("error", status=429, error=told))) is errors.RateLimitError
    assert type(fault_of(event("error", status=200, error=told))) is errors.UnavailableError


def test_a_failure_without_words() -> None:
    """It is an error all the same, and a text alone is one, too."""
    assert fault_of(body(status="failed")).message == "the upstream could not finish its answer"
    assert fault_of(b'{"error": "Gone."}').message == "Gone."
    assert fault_of(b'{"error": 7}').message == "the upstream could not finish its answer"


def test_a_stream_where_a_whole_answer_was_due() -> None:
    """Where a provider gives nothing else, the last event counts; without items, those that were told before."""
    pieces = added(0, message()) + piece("output_text", 0, "x")
    reply, choice = RESPONSES.parse(pieces + done(0, message(text("x"))) + done(1, function("c1")) + completed())
    assert (choice["message"]["content"], choice["finish_reason"]) == ("x", "tool_calls")
    assert reply.usage == Usage(100, 50, 60, 10, 30)

    _, choice = RESPONSES.parse(done(0, message(text("x"))) + completed(message(text("y"))) + b"data: [DONE]\n\n")
    assert choice["message"]["content"] == "y"


def test_a_stream_that_breaks_off_is_no_whole_answer() -> None:
    """Without its last event nobody knows whether it was all."""
    assert fault_of(done(0, message(text("x")))).code == "upstream_truncated"
    assert fault_of(b"data: {\n\n").code == "upstream_invalid_response"


@pytest.mark.parametrize(
    ("status", "raw", "kind"),
    [
        (400, b'{"error": {"message": "m", "type": "invalid_request_error", "code": "context_length_exceeded"}}',
         errors.ContextLengthError),
        (400, b'{"detail": "Unsupported parameter: max_output_tokens"}', errors.InvalidRequestError),
        (400, b'{"code": "invalid-argument", "error": "Incorrect API key provided."}', errors.AuthError),
        (401, b"unauthorized: token expired", errors.AuthError),
        (429, b'{"error": {"message": "m", "code": "insufficient_quota"}}', errors.QuotaError),
        (503, b"", errors.OverloadedError),
    ],
)  # fmt: skip
def test_error_answers(status: int, raw: bytes, kind: type[errors.UpstreamError]) -> None:
    """In each shape that providers of this API use."""
    assert type(ADAPTER.parse_error(status, {}, raw)) is kind


def test_the_key_is_a_bearer() -> None:
    """And there is no header without a key."""
    assert ADAPTER.auth("k") == {"Authorization": "Bearer k"}
    assert ADAPTER.auth(None) == {}
