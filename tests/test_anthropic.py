"""What an OpenAI client hears of Anthropic's complete answers and errors."""

from typing import Any

import msgspec
import pytest

from proxy import errors
from proxy.adapter import Target
from proxy.wire import Usage

from .anthropic_words import ADAPTER, chat, message, parse, text, use


def test_answer_is_put_together_from_its_blocks() -> None:
    """Texts are joined, thinking is apart, tools of the provider and unknown blocks are skipped, digits are kept."""
    body = message(
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        text("a"),
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "new_thing", "text": {"not": "text"}, "name": 7},
        text("b"),
        {**use(), "input": msgspec.Raw(b'{"n":1.10,"m":123456789012345678901}')},
        stop="tool_use",
    )

    reply, choice = parse(body)

    assert choice["message"]["content"] == "ab"
    assert choice["message"]["reasoning_content"] == "hm"
    [made] = choice["message"]["tool_calls"]
    assert made["function"]["arguments"] == '{"n":1.10,"m":123456789012345678901}'
    assert (made["id"], made["type"], reply.finish) == ("toolu_1", "function", "tool_calls")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
        (None, "stop"),
    ],
)
def test_only_openais_finish_reasons_reach_the_client(reason: str | None, finish: str) -> None:
    """Every stop reason, known or not, is one of OpenAI's five words."""
    reply, choice = parse(message(stop=reason))

    assert (reply.finish, choice["finish_reason"], choice["message"]["content"]) == (finish, finish, "")


def test_usage_includes_the_cache() -> None:
    """OpenAI's prompt tokens include what was read from and written to the cache; Anthropic's do not."""
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 1000,
        "cache_creation_input_tokens": 100,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 2},
    }

    reply, _ = parse(message(usage=usage))

    assert reply.usage == Usage(input=1110, output=5, cached=1000, cache_write=100, reasoning=2)
    assert msgspec.json.decode(reply.body)["usage"]["total_tokens"] == 1115


def test_missing_names_are_filled() -> None:
    """An answer without id, model and usage is still an answer."""
    reply = ADAPTER.parse(b'{"type":"message","content":[]}', chat(), Target("claude-x"))

    found = msgspec.json.decode(reply.body)
    assert (found["id"], found["model"], found["created"]) == ("chatcmpl-1000", "claude-x", 1000)
    assert reply.usage is None


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}', errors.OverloadedError),
        (b'{"type":"error","error":{"type":"authentication_error","message":"x"}}', errors.AuthError),
        (b'{"type":"error","error":{"type":"odd_error","message":"x"}}', errors.UnavailableError),
        (b"<html>", errors.UnavailableError),
        (b"\xff", errors.UnavailableError),
        (b"[" * 5000, errors.UnavailableError),
        (b'{"type":"message"}', errors.UnavailableError),
        (b'{"type":"message","content":[{"type":"text","text":1}]}', errors.UnavailableError),
    ],
)
def test_a_200_that_is_no_answer_is_an_error(body: bytes, kind: type[errors.UpstreamError]) -> None:
    """Errors inside a 200 have their own class; anything else that is no message is a broken upstream."""
    with pytest.raises(errors.UpstreamError) as raised:
        parse(body)

    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (529, {"type": "overloaded_error", "message": "Overloaded"}, errors.OverloadedError),
        (400, {"type": "invalid_request_error", "message": "Your credit balance is too low"}, errors.QuotaError),
        (400, {"type": "invalid_request_error", "message": "prompt is too long: 9 > 5"}, errors.ContextLengthError),
        (
            429,
            {"type": "rate_limit_error", "message": "x", "details": {"error_code": "enforced_spend_limit_reached"}},
            errors.QuotaError,
        ),
        (
            429,
            {"type": "rate_limit_error", "message": "x", "details": {"error_code": "ramp_limit_exceeded"}},
            errors.RateLimitError,
        ),
        (413, {"type": "request_too_large", "message": "x"}, errors.InvalidRequestError),
        (500, {"type": "api_error", "message": "x"}, errors.UnavailableError),
    ],
)
def test_error_answer_is_classified(status: int, error: Any, kind: type[errors.UpstreamError]) -> None:
    """The stable code counts before the type, the type before the status, and two texts stand in for fields."""
    found = ADAPTER.parse_error(status, {}, msgspec.json.encode({"type": "error", "error": error}))

    assert type(found) is kind
