"""What an OpenAI client hears of Cohere's complete answers and errors."""

from typing import Any

import msgspec
import pytest

from proxy import errors
from proxy.wire import Usage

from .translated_words import Language, said_by, text

COHERE = Language("cohere", "command-a-03-2025")
UNITS = {"input_tokens": 9.0, "output_tokens": 5.0}


def answer(*content: Any, finish: str | None = "COMPLETE", usage: Any = None, **message: Any) -> bytes:
    said = {"role": "assistant", "content": content, **message}
    return msgspec.json.encode({"id": "id-1", "message": said, "finish_reason": finish, "usage": usage})


def use(id: str = "c1", arguments: str | None = "{}", name: str = "look") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_answer_is_put_together_from_its_parts() -> None:
    """Texts are joined, thoughts are apart, citations and parts nobody knows are left out."""
    body = answer(
        {"type": "thinking", "thinking": "hm"},
        text("a"),
        {"type": "new_thing", "thing": {"text": "x"}},
        text("b"),
        citations=[{"start": 0, "end": 1, "text": "a", "sources": [{"type": "document", "id": "d"}]}],
    )

    reply, choice = COHERE.parse(body)

    assert choice["message"] == {"role": "assistant", "content": "ab", "refusal": None, "reasoning_content": "hm"}
    found = msgspec.json.decode(reply.body)
    assert (found["id"], found["model"], found["created"]) == ("id-1", "command-a-03-2025", 1000)


def test_calls_and_their_plan() -> None:
    """Arguments are the text they were, none at all are an empty object; the plan is reasoning."""
    body = answer(
        finish="TOOL_CALL", tool_plan="I look.", tool_calls=[use("c1", '{"n":1.10}'), use("c2", ""), {"id": "c3"}]
    )

    reply, choice = COHERE.parse(body)

    message = choice["message"]
    assert list(said_by(*message["tool_calls"])) == [
        ("c1", "look", '{"n":1.10}'),
        ("c2", "look", "{}"),
        ("c3", "", "{}"),
    ]
    assert {one["type"] for one in message["tool_calls"]} == {"function"}
    assert (message["content"], message["reasoning_content"], reply.finish) == (None, "I look.", "tool_calls")


@pytest.mark.parametrize(
    ("reason", "calls", "finish"),
    [
        ("COMPLETE", [], "stop"),
        ("STOP_SEQUENCE", [], "stop"),
        ("MAX_TOKENS", [], "length"),
        ("MAX_TOKENS", [use()], "length"),
        ("TOOL_CALL", [use()], "tool_calls"),
        ("COMPLETE", [use()], "tool_calls"),
        ("TOOL_CALL", [], "stop"),
        ("SOMETHING_NEW", [], "stop"),
        (None, [], "stop"),
    ],
)
def test_only_openais_finish_reasons_reach_the_client(reason: str | None, calls: Any, finish: str) -> None:
    """Every reason, known or not, is one of OpenAI's words."""
    reply, choice = COHERE.parse(answer(text("a"), finish=reason, tool_calls=calls))

    assert (reply.finish, choice["finish_reason"]) == (finish, finish)


def test_tokens_are_told_and_units_are_billed() -> None:
    """Cohere bills other counts than it reads and writes; an image counts apart from the text."""
    tokens = {"input_tokens": 501.0, "output_tokens": 65.0, "image_tokens": 518.0, "reasoning_tokens": 7.0}

    reply, _ = COHERE.parse(answer(usage={"billed_units": UNITS, "tokens": tokens, "cached_tokens": 480.0}))

    told = msgspec.json.decode(reply.body)["usage"]
    assert reply.usage == Usage(input=9, output=5)
    assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (1019, 65, 1084)
    assert told["prompt_tokens_details"]["cached_tokens"] == 480
    assert told["completion_tokens_details"]["reasoning_tokens"] == 7


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"tokens": UNITS}, Usage(input=9, output=5)),
        ({"billed_units": UNITS}, Usage(input=9, output=5)),
        ({"billed_units": {"search_units": 1}}, Usage()),
        ({"tokens": UNITS, "cached_tokens": 10}, Usage(input=9, output=5)),
        ({}, None),
        (None, None),
        ({"tokens": {**UNITS, "output_tokens": -1}}, None),
        ({"billed_units": {**UNITS, "image_tokens": 10**400}}, None),
    ],
)
def test_one_kind_of_count_stands_for_the_other(usage: Any, counted: Usage | None) -> None:
    """Without units the tokens are billed, without tokens the units are told; nothing counted is no usage."""
    reply, _ = COHERE.parse(answer(usage=usage))

    told = msgspec.json.decode(reply.body).get("usage")
    assert reply.usage == counted
    assert (told and told["total_tokens"]) == (counted and counted.input + counted.output)


def test_an_answer_without_words() -> None:
    """No content at all is an empty text, and a missing id is filled."""
    reply, choice = COHERE.parse(b'{"message":{},"finish_reason":"COMPLETE"}')

    assert choice["message"]["content"] == ""
    assert msgspec.json.decode(reply.body)["id"] == "chatcmpl-1000"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b'{"message":{},"finish_reason":"ERROR","error":"no luck"}', errors.UnavailableError, "no luck"),
        (b'{"message":{},"finish_reason":"ERROR"}', errors.UnavailableError, "ended its answer with ERROR"),
        (b'{"message":{},"finish_reason":"TIMEOUT"}', errors.UpstreamTimeoutError, "ended its answer with TIMEOUT"),
        (
            b'{"message":{},"finish_reason":"ERROR","error":"x","error_type":"TOO_MANY_TOKENS"}',
            errors.ContextLengthError,
            "x",
        ),
        (b'{"id":"x"}', errors.UnavailableError, "no message"),
        (b'{"message":"text"}', errors.UnavailableError, "no message"),
        (b"<html>", errors.UnavailableError, "no message"),
        (b"\xff", errors.UnavailableError, "no message"),
        (b"[" * 5000, errors.UnavailableError, "no message"),
        (b'{"message":{"content":[{"text":1}]}}', errors.UnavailableError, "not valid"),
    ],
)
def test_a_200_that_is_no_answer_is_an_error(body: bytes, kind: type[errors.UpstreamError], words: str) -> None:
    """An answer that failed has its own class; anything that is no message is a broken upstream."""
    with pytest.raises(errors.UpstreamError, match=words) as raised:
        COHERE.parse(body)

    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, {"message": "x", "error_type": "TOO_MANY_TOKENS"}, errors.ContextLengthError, "context_length_exceeded"),
        (400, {"message": "x", "error_type": "INVALID_TOOL_GENERATION"}, errors.UnavailableError, "server_error"),
        (400, {"message": "x", "error_type": "ODD"}, errors.InvalidRequestError, "ODD"),
        (400, {"message": "x"}, errors.InvalidRequestError, None),
        (401, {"message": "invalid api token"}, errors.AuthError, "upstream_auth_failed"),
        (402, {"message": "x"}, errors.QuotaError, "insufficient_quota"),
        (404, {"message": "model 'x' not found"}, errors.NotFoundError, "model_not_found"),
        (429, {"message": "limited to 40 API calls / minute"}, errors.RateLimitError, "rate_limit_exceeded"),
        (429, {"message": "limited to 1000 API calls / month"}, errors.QuotaError, "insufficient_quota"),
        (499, {"message": "request cancelled"}, errors.UnavailableError, "server_error"),
        (500, {"message": "x"}, errors.UnavailableError, "server_error"),
        (503, {"message": "x"}, errors.OverloadedError, "overloaded"),
        (400, "text", errors.InvalidRequestError, None),
        (400, {"error_type": 5}, errors.InvalidRequestError, None),
    ],
)
def test_error_answer_is_classified(status: int, body: Any, kind: type[errors.UpstreamError], code: str | None) -> None:
    """Cohere's own word for the error counts before the status."""
    found = COHERE.adapter.parse_error(status, {}, msgspec.json.encode(body))

    assert (type(found), found.code) == (kind, code)


def test_a_wait_is_kept() -> None:
    """How long to rest is read from the head of the answer."""
    assert COHERE.adapter.parse_error(429, {"retry-after": "7"}, b"{}").retry_after_s == 7
