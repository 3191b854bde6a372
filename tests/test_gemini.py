"""Complete answers, errors and keys of Gemini, as the client hears of them."""

from typing import Any

import msgspec
import pytest

from proxy import errors
from proxy.adapter import Target

from .gemini_words import ADAPTER, BUDGET, FLASH, VERTEX, answer, candidate, chat, made, parse, said


def test_keys_are_headers() -> None:
    """An API key has Google's own header, an access token is a bearer's; without one there is no header."""
    assert ADAPTER.auth("k") == {"x-goog-api-key": "k"}
    assert VERTEX.auth("k") == {"authorization": "Bearer k"}
    assert ADAPTER.auth(None) == VERTEX.auth(None) == {}
    assert ADAPTER.quirks == VERTEX.quirks == frozenset()


def test_answer_becomes_a_completion() -> None:
    """Texts are joined, thoughts are reasoning, and the answer keeps its own id and model."""
    parts = [{"text": "Hm", "thought": True}, said("Good "), {"text": "", "thoughtSignature": "s"}, said("day")]

    reply, found = parse(answer(candidate(*parts)))

    message = found["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"], message["refusal"]) == ("Good day", "Hm", None)
    assert (found["id"], found["model"], found["created"], reply.finish) == ("r1", "gemini", 1000, "stop")
    assert "usage" not in found


def test_answer_without_a_name_gets_one() -> None:
    """An answer that says neither its id nor its model is still a whole completion."""
    _, found = parse(msgspec.json.encode({"candidates": [candidate(said("x"))]}))

    assert (found["id"], found["model"]) == ("chatcmpl-1000", FLASH)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"), (None, "stop"), ("OTHER", "stop"), ("NEVER_HEARD_OF", "stop"), (1, "stop"), (77, "stop"),
        ("MAX_TOKENS", "length"), (2, "length"), ("CONTINUATION", "length"), ("SAFETY", "content_filter"),
        (3, "content_filter"), ("RECITATION", "content_filter"), ("MODEL_ARMOR", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
    ],
)  # fmt: skip
def test_reasons_to_stop_are_openais(reason: str | int | None, finish: str) -> None:
    """Whatever Gemini says, as a word or a number, the client hears one of OpenAI's words."""
    reply, _ = parse(answer(candidate(said("x"), finish=reason)))

    assert reply.finish == finish


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"])
def test_broken_off_answer_is_an_unavailable_upstream(reason: str) -> None:
    """An answer that the model itself broke off is not told as one: another attempt may do better."""
    with pytest.raises(errors.UnavailableError) as raised:
        parse(answer(candidate(said("x"), finish=reason)))

    assert reason in raised.value.message


@pytest.mark.parametrize("count", [-1, 10**400, 1e300])
def test_usage_that_nobody_can_have_is_unknown(count: float) -> None:
    """Money is reckoned with it; the answer itself is not to blame."""
    counts = {"promptTokenCount": 1, "candidatesTokenCount": 2, "thoughtsTokenCount": count}

    reply, found = parse(answer(candidate(said("x")), usageMetadata=counts))

    assert (reply.usage, found.get("usage")) == (None, None)


@pytest.mark.parametrize("feedback", [{"blockReason": "SAFETY"}, {"blockReasonMessage": "no"}])
def test_refused_prompt_is_an_empty_answer(feedback: Any) -> None:
    """A prompt that was blocked is answered with nothing, filtered; its usage has no counts."""
    reply, found = parse(msgspec.json.encode({"promptFeedback": feedback, "usageMetadata": {"trafficType": "x"}}))

    assert found["choices"][0]["message"]["content"] == ""
    assert (reply.finish, reply.usage) == ("content_filter", None)


def test_calls_are_numbered_and_named() -> None:
    """Calls get ids where Gemini gave none, arguments are its bytes, and the reason is the calls."""
    reply, found = parse(
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"look","args":{"a": 1.10}}},'
        b'{"functionCall":{"name":"wait"}},{"functionCall":{"name":"go","args":null,"id":"own"}}]},'
        b'"finishReason":"STOP"}],"responseId":"r1"}'
    )

    message = found["choices"][0]["message"]
    calls = message["tool_calls"]
    assert (message["content"], reply.finish) == (None, "tool_calls")
    assert [one["function"] for one in calls] == [
        {"name": "look", "arguments": '{"a": 1.10}'},
        {"name": "wait", "arguments": "{}"},
        {"name": "go", "arguments": "{}"},
    ]
    assert len({one["id"] for one in calls}) == 3
    assert calls[2]["id"] == "own"
    assert {one["type"] for one in calls} == {"function"}


def test_made_up_ids_differ_from_answer_to_answer() -> None:
    """Two answers of one conversation never use the same id, and it fits what OpenAI takes back."""
    ids = set()
    for named in ({"responseId": "r1"}, {"responseId": "r2"}, {"responseId": None}):
        _, found = parse(answer(candidate(made({})), **named))
        ids.add(found["choices"][0]["message"]["tool_calls"][0]["id"])

    assert len(ids) == 3
    assert all(len(one) <= 40 for one in ids)


def test_signature_goes_to_the_client() -> None:
    """A thought signature stands where Google's OpenAI endpoint puts it, with where it is good."""
    _, found = parse(answer(candidate(made({}, signature="sig"), made({}))))

    first, second = found["choices"][0]["message"]["tool_calls"]
    assert first["extra_content"] == {"google": {"thought_signature": "sig", "sidecar_source": f"gemini/{FLASH}"}}
    assert "extra_content" not in second


def test_changed_tool_name_is_told_as_it_was() -> None:
    """A name that Gemini refuses comes back as the client knows it."""
    name = "1 mcp/tool"
    request = chat(tools=[{"type": "function", "function": {"name": name}}])
    legal = msgspec.json.decode(ADAPTER.render(request, Target(FLASH)).body)["tools"][0]["functionDeclarations"][0]

    _, found = parse(answer(candidate(made({}, name=legal["name"]))), request)

    assert legal["name"] != name
    assert found["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == name


def test_several_answers_are_several_choices() -> None:
    """Each candidate is a choice with its own number."""
    _, found = parse(answer(candidate(said("a"), index=0), candidate(said("b"), index=1), candidate(said("c"))))

    assert [(one["index"], one["message"]["content"]) for one in found["choices"]] == [(0, "a"), (1, "b"), (2, "c")]


def test_logprobs_are_openais() -> None:
    """The chosen tokens with their bytes, and the likeliest ones at each place where Gemini says them."""
    told = {
        "chosenCandidates": [{"token": "é", "logProbability": -0.5}, {"token": "b", "logProbability": -1}],
        "topCandidates": [{"candidates": [{"token": "é", "logProbability": -0.5}]}],
    }

    _, found = parse(answer(candidate(said("éb"), logprobsResult=told), candidate(said("x"), logprobsResult={})))

    token = {"token": "é", "logprob": -0.5, "bytes": [195, 169]}
    assert found["choices"][0]["logprobs"]["content"] == [
        {**token, "top_logprobs": [token]},
        {"token": "b", "logprob": -1.0, "bytes": [98], "top_logprobs": []},
    ]
    assert found["choices"][1]["logprobs"] is None


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 7, "totalTokenCount": 22},
         (10, 12, 0, 7)),
        ({"promptTokenCount": 10, "candidatesTokenCount": 12, "thoughtsTokenCount": 7, "totalTokenCount": 22},
         (10, 12, 0, 7)),
        ({"promptTokenCount": 10, "toolUsePromptTokenCount": 4, "candidatesTokenCount": 5, "totalTokenCount": 19},
         (14, 5, 0, 0)),
        ({"promptTokenCount": 10, "cachedContentTokenCount": 8}, (10, 0, 8, 0)),
    ],
)  # fmt: skip
def test_usage_is_openais(counts: Any, told: Any) -> None:
    """The output includes the thoughts, unless they are in it already; the input what Google's tools read."""
    reply, found = parse(answer(candidate(said("x")), usageMetadata=counts))

    usage = reply.usage
    assert usage is not None
    assert (usage.input, usage.output, usage.cached, usage.reasoning) == told
    assert found["usage"]["total_tokens"] == usage.input + usage.output


def test_tokens_of_sound_are_told_apart() -> None:
    """Sound has a price of its own, so the client is told how much of it there was."""
    details = [{"modality": "AUDIO", "tokenCount": 6}, {"modality": "TEXT", "tokenCount": 4}]
    counts = {"promptTokenCount": 10, "candidatesTokenCount": 1, "promptTokensDetails": details}

    _, found = parse(answer(candidate(said("x")), usageMetadata=counts))

    assert found["usage"]["prompt_tokens_details"]["audio_tokens"] == 6
    assert "audio_tokens" not in found["usage"]["completion_tokens_details"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b"{}", b'{"candidates":[]}', b'{"candidates":[{"index":0}]}', b'{"candidates":1}']
)
def test_nonsense_is_an_unavailable_upstream(body: bytes) -> None:
    """What is no answer is a fault, so that the next upstream can be asked."""
    with pytest.raises(errors.UnavailableError) as raised:
        parse(body)

    assert raised.value.code == "upstream_invalid_response"


QUOTA = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "RequestsPerDayPerModel"}]}
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "14s"}
BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}


@pytest.mark.parametrize(
    ("status", "word", "details", "kind", "code"),
    [
        (400, "INVALID_ARGUMENT", [], errors.InvalidRequestError, "invalid_argument"),
        (400, "INVALID_ARGUMENT", [BAD_KEY], errors.AuthError, "upstream_auth_failed"),
        (400, "FAILED_PRECONDITION", [], errors.InvalidRequestError, "failed_precondition"),
        (401, "UNAUTHENTICATED", [], errors.AuthError, "upstream_auth_failed"),
        (403, "PERMISSION_DENIED", [], errors.AuthError, "upstream_auth_failed"),
        (404, "NOT_FOUND", [], errors.NotFoundError, "model_not_found"),
        (429, "RESOURCE_EXHAUSTED", [RETRY], errors.RateLimitError, "rate_limit_exceeded"),
        (429, "RESOURCE_EXHAUSTED", [QUOTA, RETRY], errors.QuotaError, "insufficient_quota"),
        (499, "CANCELLED", [], errors.UnavailableError, "server_error"),
        (500, "INTERNAL", [], errors.UnavailableError, "server_error"),
        (503, "UNAVAILABLE", [], errors.OverloadedError, "overloaded"),
        (504, "DEADLINE_EXCEEDED", [], errors.UpstreamTimeoutError, "upstream_timeout"),
    ],
)  # fmt: skip
def test_error_has_its_class(status: int, word: str, details: Any, kind: type[errors.UpstreamError], code: str) -> None:
    """The class is that of the status and the details, alone, in a list, or inside of a 200."""
    error = {"error": {"code": status, "message": "no", "status": word, "details": details}}
    body = msgspec.json.encode(error)

    outside = ADAPTER.parse_error(status, {}, body)
    listed = ADAPTER.parse_error(status, {}, msgspec.json.encode([error]))
    with pytest.raises(errors.UpstreamError) as raised:
        parse(body)

    for found in (outside, listed, raised.value):
        assert (type(found), found.code) == (kind, code)
        assert found.retry_after_s == (14 if RETRY in details else None)


def test_error_inside_a_200_may_have_a_word_only() -> None:
    """Without a number, the word says which status it would have been; without both it is a bad gateway."""
    for error, status in (({"status": "UNAVAILABLE"}, 503), ({"message": "x"}, 502)):
        with pytest.raises(errors.UpstreamError) as raised:
            parse(msgspec.json.encode({"error": error}))
        assert raised.value.status == status


def test_missing_billing_is_a_quota() -> None:
    """A project without billing is refused with the same word as an unsupported place; only the text tells."""
    error = {"code": 400, "message": "Please enable billing on your project.", "status": "FAILED_PRECONDITION"}

    assert type(ADAPTER.parse_error(400, {}, msgspec.json.encode({"error": error}))) is errors.QuotaError


def test_too_long_prompt_is_told_as_such() -> None:
    """A prompt over the model's window has OpenAI's code, so that a larger model can be asked."""
    text = "The input token count (1250074) exceeds the maximum number of tokens allowed (1048576)."
    error = {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}

    assert ADAPTER.parse_error(400, {}, msgspec.json.encode({"error": error})).code == "context_length_exceeded"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error":"no"}', b'"no"'])
def test_error_of_any_shape_has_a_class(body: bytes) -> None:
    """A front end's own answers are errors, too."""
    assert isinstance(ADAPTER.parse_error(503, {}, body), errors.OverloadedError)


def test_answer_does_not_need_the_family() -> None:
    """A model's answer is read the same whatever its name."""
    reply, _ = parse(answer(candidate(said("x"))), model=f"models/{BUDGET}")

    assert reply.finish == "stop"
