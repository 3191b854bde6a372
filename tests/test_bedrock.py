"""What an OpenAI client hears of Bedrock's complete answers and errors."""

import msgspec
import pytest

from proxy import errors
from proxy.adapter import Target
from proxy.wire import Usage

from .bedrock_words import ADAPTER, FORMAT, OLD_CLAUDE, answer, chat, parse, text, use


def test_answer_is_put_together_from_its_blocks() -> None:
    """Texts are joined, cited ones too; reasoning is apart; AWS's own tools and unknown blocks are skipped."""
    body = answer(
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
        {"reasoningContent": {"redactedContent": "eA=="}},
        text("a"),
        use("s", {"query": "x"}, "nova_grounding", type="server_tool_use"),
        {"toolResult": {"toolUseId": "s", "content": [text("hidden")], "type": "nova_grounding_result"}},
        {"newThing": {"text": {"not": "text"}}},
        {"citationsContent": {"content": [text("b"), {"image": {}}], "citations": [{"title": "t"}]}},
        {"citationsContent": {"citations": []}},
        use("tooluse_1", msgspec.Raw(b'{"n":1.10,"m":123456789012345678901}')),
        stop="tool_use",
    )

    reply, choice = parse(body)

    assert choice["message"]["content"] == "ab"
    assert choice["message"]["reasoning_content"] == "hm"
    [made] = choice["message"]["tool_calls"]
    assert made["function"]["arguments"] == '{"n":1.10,"m":123456789012345678901}'
    assert (made["id"], made["type"], reply.finish) == ("tooluse_1", "function", "tool_calls")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("tool_use", "stop"),
        ("something_new", "stop"),
        (None, "stop"),
    ],
)
def test_only_openais_finish_reasons_reach_the_client(reason: str | None, finish: str) -> None:
    """Every stop reason, known or not, is one of OpenAI's five words."""
    reply, choice = parse(answer(stop=reason))

    assert (reply.finish, choice["finish_reason"], choice["message"]["content"]) == (finish, finish, "")


@pytest.mark.parametrize("reason", ["end_turn", "tool_use"])
def test_a_call_is_told_as_one(reason: str) -> None:
    """An answer that calls a tool ends with "tool_calls", and without words it has no content."""
    reply, choice = parse(answer(use("one", None, type="tool_use"), stop=reason))

    assert (reply.finish, choice["message"]["content"]) == ("tool_calls", None)
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_a_null_input_is_an_empty_object() -> None:
    """Arguments are a JSON object, whatever the model left out."""
    _, choice = parse(answer(use("one", msgspec.Raw(b"null")), stop="tool_use"))

    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_usage_includes_the_cache() -> None:
    """OpenAI's prompt tokens include what was read from and written to the cache; Bedrock's do not."""
    body = answer(
        inputTokens=10, outputTokens=5, totalTokens=1115, cacheReadInputTokens=1000, cacheWriteInputTokens=100
    )

    reply, _ = parse(body)

    assert reply.usage == Usage(input=1110, output=5, cached=1000, cache_write=100)
    assert msgspec.json.decode(reply.body)["usage"]["total_tokens"] == 1115


def test_names_are_made() -> None:
    """Bedrock names neither answer nor model: the id is made of time and content, the model is the one asked for."""
    one = ADAPTER.parse(b'{"output":{"message":{"content":[]}}}', chat(), Target("amazon.x"))
    other = ADAPTER.parse(b'{"output":{"message":{"content": []}}}', chat(), Target("amazon.x"))

    found = msgspec.json.decode(one.body)
    assert (found["id"][:14], found["model"], found["created"]) == ("chatcmpl-1000-", "amazon.x", 1000)
    assert msgspec.json.decode(other.body)["id"] != found["id"]
    assert one.usage is None


def test_structured_answer_of_an_older_model_is_content() -> None:
    """The call that stands for the answer is the content, alone, and no call to the client."""
    twice = [use("x", {"a": 1}, "sidecar_json_answer"), use("y", {"a": 2}, "sidecar_json_answer")]
    body = answer(text("Here:"), *twice, stop="tool_use")

    reply, choice = parse(body, chat(response_format=FORMAT), OLD_CLAUDE)

    assert (choice["message"]["content"], reply.finish) == ('{"a":1}', "stop")
    assert "tool_calls" not in choice["message"]


def test_renamed_tool_gets_its_name_back() -> None:
    """Only names with a checksum are looked up; a client's own tool of that look keeps its name."""
    request = chat(tools=[{"type": "function", "function": {"name": "mcp.server/tool"}}])
    body = answer(use("a", None, "mcp_server_tool_eb8df48a"), use("b", None, "x_12345678"), stop="tool_use")

    _, choice = parse(body, request)

    names = [call["function"]["name"] for call in choice["message"]["tool_calls"]]
    assert names == ["mcp.server/tool", "x_12345678"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"__type":"com.amazon.coral.service#ThrottlingException","message":"x"}', errors.RateLimitError),
        (b'{"__type":"NewException","message":"x"}', errors.UnavailableError),
        (answer(stop="malformed_model_output"), errors.UnavailableError),
        (answer(stop="malformed_tool_use"), errors.UnavailableError),
        (b'{"message":"x"}', errors.UnavailableError),
        (b"<html>", errors.UnavailableError),
        (b"\xff", errors.UnavailableError),
        (b"[" * 5000, errors.UnavailableError),
        (b"{}", errors.UnavailableError),
        (b'{"output":{"message":{}}}', errors.UnavailableError),
        (answer({"text": 1}), errors.UnavailableError),
    ],
)
def test_a_200_that_is_no_answer_is_an_error(body: bytes, kind: type[errors.UpstreamError]) -> None:
    """Errors inside a 200 have their own class; anything else that is no message is a broken upstream."""
    with pytest.raises(errors.UpstreamError) as raised:
        parse(body)

    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("status", "name", "message", "kind"),
    [
        (429, "ThrottlingException", "Too many tokens", errors.RateLimitError),
        (400, "ThrottlingException", "x", errors.RateLimitError),
        (429, "ModelNotReadyException", "x", errors.RateLimitError),
        (400, "ServiceQuotaExceededException", "x", errors.QuotaError),
        (408, "ModelTimeoutException", "x", errors.UpstreamTimeoutError),
        (424, "ModelErrorException", "x", errors.UnavailableError),
        (500, "InternalServerException", "x", errors.UnavailableError),
        (503, "ServiceUnavailableException", "Model is getting throttled.", errors.OverloadedError),
        (400, "ValidationException", "Malformed input request", errors.InvalidRequestError),
        (400, "ValidationException", "Input is too long for requested model.", errors.ContextLengthError),
        (400, "ValidationException", "The provided model identifier is invalid.", errors.NotFoundError),
        (403, "AccessDeniedException", "The provided model identifier is invalid.", errors.AuthError),
        (400, "UnrecognizedClientException", "x", errors.AuthError),
        (403, "MPAgreementBeingCreated", "x", errors.OverloadedError),
        (404, "ResourceNotFoundException", "x", errors.NotFoundError),
        (413, "NewException", "x", errors.InvalidRequestError),
        (500, "NewException", "x", errors.UnavailableError),
        (403, "", "x", errors.AuthError),
    ],
)
@pytest.mark.parametrize("place", ["header", "__type", "code"])
def test_error_answer_is_classified(
    status: int, name: str, message: str, kind: type[errors.UpstreamError], place: str
) -> None:
    """The name of the exception counts before the status, wherever it stands; words only where the name says little."""
    headers = {"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/"} if place == "header" and name else {}
    body = {} if place == "header" else {place: f"com.amazon.coral.service#{name}"}

    found = ADAPTER.parse_error(status, headers, msgspec.json.encode({**body, "message": message}))

    assert (type(found), message in found.message) == (kind, True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"Message":"capital"}', "capital"),
        (b'{"originalMessage":"theirs"}', "theirs"),
        (b'{"message":{"odd":1}}', '{"odd":1}'),
        (b"plain words", "plain words"),
        (b"", "status 400"),
        (b"[" * 5000, "["),
    ],
)
def test_any_shape_of_error_has_words(body: bytes, words: str) -> None:
    """AWS's services spell the message differently, and a proxy in between may say anything."""
    assert words in ADAPTER.parse_error(400, {}, body).message


@pytest.mark.parametrize(("name", "everywhere"), [("ExpiredTokenException", True), ("AccessDeniedException", False)])
def test_a_bad_key_is_told_from_a_forbidden_model(name: str, everywhere: bool) -> None:
    """Both are 403: the one is no use to any model, the other may be good for the next."""
    found = ADAPTER.parse_error(403, {"x-amzn-errortype": name}, b'{"message":"x"}')

    assert isinstance(found, errors.AuthError)
    assert found.everywhere is everywhere


def test_retry_after_is_kept() -> None:
    """What the headers ask to wait reaches the cooldown."""
    headers = {"x-amzn-errortype": "ThrottlingException", "retry-after": "7"}

    assert ADAPTER.parse_error(429, headers, b'{"message":"x"}').retry_after_s == 7


def test_the_key_is_a_bearer_token() -> None:
    """A Bedrock API key goes into one header; without a key there is none."""
    assert ADAPTER.auth("abc") == {"Authorization": "Bearer abc"}
    assert ADAPTER.auth(None) == {}


def test_the_exceptions_name_is_the_code() -> None:
    """The client learns which exception it was."""
    error = ADAPTER.parse_error(400, {"x-amzn-errortype": "ValidationException"}, b'{"message":"no"}')

    assert (error.code, error.status, error.type) == ("ValidationException", 400, "invalid_request_error")
