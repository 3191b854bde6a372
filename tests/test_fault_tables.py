"""The error tables of the providers, row by row: one class each, by status, type and code."""

from typing import Any

import msgspec
import pytest

from proxy.adapter import Target, load
from proxy.errors import UpstreamError
from proxy.wire import decode_chat


def wrapped(**fields: Any) -> Any:
    return {"error": {"message": "no", **fields}}


def google(status: str, *details: Any, message: str = "no") -> Any:
    return {"error": {"code": 1, "message": message, "status": status, "details": list(details)}}


def judged(language: str, status: int, body: Any, headers: dict[str, str]) -> UpstreamError:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return load(language).parse_error(status, headers, raw)


OPENAI = [
    (400, wrapped(type="invalid_request_error", code="context_length_exceeded", param="messages"), "context_length"),
    (400, wrapped(type="invalid_request_error", code="unsupported_parameter"), "invalid_request"),
    (400, wrapped(type="invalid_request_error", code="content_policy_violation"), "content_filter"),
    (400, wrapped(type="image_generation_user_error", code="image_content_policy_violation"), "content_filter"),
    (400, wrapped(type="invalid_request_error", code="invalid_prompt"), "content_filter"),
    (401, wrapped(type="invalid_request_error", code="invalid_api_key"), "auth"),
    (401, wrapped(type="invalid_request_error", code=None), "auth"),
    (403, wrapped(code="unsupported_country_region_territory"), "auth"),
    (404, wrapped(type="invalid_request_error", code="model_not_found"), "not_found"),
    (408, wrapped(), "timeout"),
    (409, wrapped(), "unavailable"),
    (413, wrapped(), "invalid_request"),
    (422, wrapped(), "invalid_request"),
    (429, wrapped(type="requests", code="rate_limit_exceeded"), "rate_limit"),
    (429, wrapped(type="tokens", code="slow_down"), "rate_limit"),
    (429, wrapped(type="insufficient_quota", code="insufficient_quota"), "quota"),
    (429, wrapped(type="insufficient_quota", code="organization_spend_limit_exceeded"), "quota"),
    (429, wrapped(type="insufficient_quota", code="some_new_limit"), "quota"),
    (429, wrapped(code="billing_not_active"), "quota"),
    (500, wrapped(type="server_error", code="server_error"), "unavailable"),
    (502, b"<html>", "unavailable"),
    (503, wrapped(type="service_unavailable_error", code="server_is_overloaded"), "overloaded"),
    (503, wrapped(type="service_unavailable_error", code="slow_down"), "overloaded"),
    (504, b"", "timeout"),
    # Azure
    (400, wrapped(code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}), "content_filter"),
    (404, wrapped(code="DeploymentNotFound"), "not_found"),
    (429, wrapped(type="too_many_requests"), "rate_limit"),
    # Copilot, Mistral, Groq, DeepSeek
    (400, b"Bad Request\n", "invalid_request"),
    (400, wrapped(code="model_not_supported"), "not_found"),
    (400, {"object": "error", "message": "no", "type": "invalid_request_prompt", "code": "3051"}, "context_length"),
    (422, {"detail": [{"loc": ["body", "n"], "msg": "no"}]}, "invalid_request"),
    (429, {"message": "no", "type": "rate_limited", "code": "1300"}, "rate_limit"),
    (400, wrapped(type="invalid_request_error", code="tool_use_failed", failed_generation="x"), "unavailable"),
    (402, wrapped(type="unknown_error", code="invalid_request_error"), "quota"),
    # OpenRouter
    (402, wrapped(code=402), "quota"),
    (402, wrapped(code=402, metadata={"limit_source": "openrouter_in_flight_budget"}), "rate_limit"),
    (403, wrapped(code=403, metadata={"reasons": ["x"], "flagged_input": "y"}), "content_filter"),
    (403, wrapped(code=403, metadata={"flagged_input": "y"}), "content_filter"),
    (502, wrapped(code=502, metadata={"provider_name": "x", "raw": "y"}), "unavailable"),
    (503, wrapped(code=503), "overloaded"),
    # vLLM, llama.cpp, Ollama /v1
    (400, {"object": "error", "message": "maximum context length is 8", "code": 400}, "context_length"),
    (400, wrapped(type="exceed_context_size_error", code=400), "context_length"),
    (503, wrapped(type="unavailable_error", code=503, message="Loading model"), "overloaded"),
    (404, wrapped(type="not_found_error", param=None), "not_found"),
]
ANTHROPIC = [
    (400, wrapped(type="invalid_request_error"), "invalid_request"),
    (400, wrapped(type="invalid_request_error", message="prompt is too long: 9 tokens > 8"), "context_length"),
    (400, wrapped(type="invalid_request_error", message="Your credit balance is too low"), "quota"),
    (401, wrapped(type="authentication_error"), "auth"),
    (402, wrapped(type="billing_error"), "quota"),
    (403, wrapped(type="permission_error"), "auth"),
    (404, wrapped(type="not_found_error"), "not_found"),
    (413, wrapped(type="request_too_large"), "invalid_request"),
    (429, wrapped(type="rate_limit_error"), "rate_limit"),
    (429, wrapped(type="rate_limit_error", details={"error_code": "ramp_limit_exceeded"}), "rate_limit"),
    (429, wrapped(type="rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}), "quota"),
    (429, wrapped(type="rate_limit_error", details={"error_code": "contract_spend_limit_reached"}), "quota"),
    (500, wrapped(type="api_error"), "unavailable"),
    (504, wrapped(type="timeout_error"), "timeout"),
    (529, wrapped(type="overloaded_error"), "overloaded"),
    (408, wrapped(), "timeout"),
    (409, wrapped(), "unavailable"),
    (412, wrapped(), "invalid_request"),
    (501, wrapped(), "unavailable"),
    (503, wrapped(), "overloaded"),
]
DAILY = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]}
GEMINI = [
    (400, google("INVALID_ARGUMENT"), "invalid_request"),
    (400, google("INVALID_ARGUMENT", {"reason": "API_KEY_INVALID"}), "auth"),
    (400, google("INVALID_ARGUMENT", message="The input token count (9) exceeds the maximum"), "context_length"),
    (400, google("FAILED_PRECONDITION", message="enable billing on your project"), "quota"),
    (400, google("FAILED_PRECONDITION", message="User location is not supported"), "invalid_request"),
    (401, google("UNAUTHENTICATED"), "auth"),
    (403, google("PERMISSION_DENIED"), "auth"),
    (404, google("NOT_FOUND"), "not_found"),
    (429, google("RESOURCE_EXHAUSTED", {"retryDelay": "14s"}), "rate_limit"),
    (429, [google("RESOURCE_EXHAUSTED", DAILY)], "quota"),
    (499, google("CANCELLED"), "unavailable"),
    (500, google("INTERNAL"), "unavailable"),
    (503, google("UNAVAILABLE"), "overloaded"),
    (504, google("DEADLINE_EXCEEDED"), "timeout"),
]
BEDROCK = [
    (429, "ThrottlingException", "no", "rate_limit"),
    (429, "ModelNotReadyException", "no", "rate_limit"),
    (400, "ServiceQuotaExceededException", "no", "quota"),
    (408, "ModelTimeoutException", "no", "timeout"),
    (424, "ModelErrorException", "no", "unavailable"),
    (424, "ModelStreamErrorException", "no", "unavailable"),
    (500, "InternalServerException", "no", "unavailable"),
    (503, "ServiceUnavailableException", "no", "overloaded"),
    (400, "ValidationException", "no", "invalid_request"),
    (400, "ValidationException", "Input is too long for requested model.", "context_length"),
    (400, "ValidationException", "The provided model identifier is invalid.", "not_found"),
    (403, "AccessDeniedException", "no", "auth"),
    (403, "UnrecognizedClientException", "no", "auth"),
    (403, "InvalidSignatureException", "no", "auth"),
    (403, "ExpiredTokenException", "no", "auth"),
    (403, "MPAgreementBeingCreated", "no", "overloaded"),
    (404, "ResourceNotFoundException", "no", "not_found"),
]
COHERE = [
    (400, {"message": "no"}, "invalid_request"),
    (400, {"message": "no", "error_type": "TOO_MANY_TOKENS"}, "context_length"),
    (401, {"message": "no"}, "auth"),
    (402, {"message": "no"}, "quota"),
    (404, {"message": "no"}, "not_found"),
    (422, {"message": "no"}, "invalid_request"),
    (429, {"message": "no"}, "rate_limit"),
    (429, {"message": "limited to 1000 API calls / month"}, "quota"),
    (499, {"message": "no"}, "unavailable"),
    (500, {"message": "no"}, "unavailable"),
    (503, {"message": "no"}, "overloaded"),
    (504, {"message": "no"}, "timeout"),
]
OLLAMA = [
    (400, {"error": "no"}, "invalid_request"),
    (404, {"error": "model 'x' not found"}, "not_found"),
    (429, {"error": "no"}, "rate_limit"),
    (500, {"error": "no"}, "unavailable"),
    (502, {"error": "no"}, "unavailable"),
    (503, {"error": "server busy"}, "overloaded"),
]
TABLE = [
    *(("openai", status, body, {}, kind) for status, body, kind in OPENAI),
    *(("anthropic", status, body, {}, kind) for status, body, kind in ANTHROPIC),
    *(("gemini", status, body, {}, kind) for status, body, kind in GEMINI),
    *(("vertex", status, body, {}, kind) for status, body, kind in GEMINI),
    *(("bedrock", at, {"message": text}, {"x-amzn-errortype": name}, kind) for at, name, text, kind in BEDROCK),
    *(("bedrock", at, {"message": text, "__type": f"a#{name}"}, {}, kind) for at, name, text, kind in BEDROCK),
    *(("cohere", status, body, {}, kind) for status, body, kind in COHERE),
    *(("ollama", status, body, {}, kind) for status, body, kind in OLLAMA),
]


@pytest.mark.parametrize(("language", "status", "body", "headers", "kind"), TABLE)
def test_each_fault_has_its_class(language: str, status: int, body: Any, headers: dict[str, str], kind: str) -> None:
    """And the client gets OpenAI's four keys, whatever shape it came in."""
    error = judged(language, status, body, headers)

    assert error.kind == kind
    assert set(msgspec.json.decode(error.body())["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "invalid_request_error"}, "invalid_request"),
        ({"type": "authentication_error"}, "auth"),
        ({"type": "rate_limit_error"}, "rate_limit"),
        ({"type": "server_error"}, "unavailable"),
        ({"type": "service_unavailable_error"}, "overloaded"),
        ({"type": "overloaded_error"}, "overloaded"),
        ({"type": "timeout_error"}, "timeout"),
        ({"code": 429}, "rate_limit"),
        ({"code": "400", "type": "server_error"}, "invalid_request"),
        ({"type": "new"}, "unavailable"),
    ],
)
def test_a_fault_inside_a_200_has_the_class_it_would_have_had(error: dict[str, Any], kind: str) -> None:
    """By the status that it names, or else by its type."""
    body = msgspec.json.encode({"error": {"message": "no", **error}})
    request = decode_chat(b'{"model":"m","messages":[{"role":"user","content":"x"}]}', 0)

    with pytest.raises(UpstreamError) as raised:
        load("openai").parse(body, request, Target("m"))

    assert raised.value.kind == kind
