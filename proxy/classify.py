"""One table from what a provider says went wrong to one error class: by code, then by type, then by status.

Never by searching prose where a field exists; the texts below stand in for fields that Anthropic, Google, vLLM and
Ollama do not have. Evidence for each row: the error references of the providers and recorded answers.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

import msgspec

from proxy.errors import (
    AuthError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    QuotaError,
    RateLimitError,
    UnavailableError,
    UpstreamError,
    UpstreamTimeoutError,
    scrub,
    scrub_word,
)

BY_CODE: Final[dict[str, type[UpstreamError]]] = {
    "insufficient_quota": QuotaError,
    "billing_hard_limit_reached": QuotaError,
    "credit_balance_exhausted": QuotaError,
    "organization_spend_limit_exceeded": QuotaError,
    "project_spend_limit_exceeded": QuotaError,
    "organization_usage_limit_exceeded": QuotaError,
    "billing_not_active": QuotaError,
    "enforced_spend_limit_reached": QuotaError,
    "contract_spend_limit_reached": QuotaError,
    "rate_limit_exceeded": RateLimitError,
    "server_is_overloaded": OverloadedError,
    "context_length_exceeded": ContextLengthError,
    "exceed_context_size_error": ContextLengthError,
    "content_filter": ContentFilterError,
    "content_policy_violation": ContentFilterError,
    "image_content_policy_violation": ContentFilterError,
    "ResponsibleAIPolicyViolation": ContentFilterError,
    "invalid_prompt": ContentFilterError,
    "bio_policy": ContentFilterError,
    "misalignment_policy_violation": ContentFilterError,
    "model_not_found": NotFoundError,
    "model_not_supported": NotFoundError,
    "model_decommissioned": NotFoundError,
    "DeploymentNotFound": NotFoundError,
    "invalid_api_key": AuthError,
    "tool_use_failed": UnavailableError,
}
BY_TYPE: Final[dict[str, type[UpstreamError]]] = {
    "insufficient_quota": QuotaError,
    "billing_error": QuotaError,
    "rate_limit_error": RateLimitError,
    "rate_limited": RateLimitError,
    "too_many_requests": RateLimitError,
    "overloaded_error": OverloadedError,
    "service_unavailable_error": OverloadedError,
    "timeout_error": UpstreamTimeoutError,
    "exceed_context_size_error": ContextLengthError,
    "too_many_prompt_tokens": ContextLengthError,
    "invalid_request_prompt": ContextLengthError,  # Mistral's; its code 3051 says as much of wrong parameters
    "authentication_error": AuthError,
    "permission_error": AuthError,
    "not_found_error": NotFoundError,
    "invalid_model": NotFoundError,
}
BY_STATUS: Final[dict[int, type[UpstreamError]]] = {
    401: AuthError,
    402: QuotaError,
    403: AuthError,
    404: NotFoundError,
    408: UpstreamTimeoutError,
    409: UnavailableError,  # a lock, which somebody else holds for a moment
    424: UnavailableError,
    429: RateLimitError,
    503: OverloadedError,
    504: UpstreamTimeoutError,
    529: OverloadedError,
}
# The status that an error would have had outside of a 200 (error references of OpenAI and Anthropic).
STATUS_OF_TYPE: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "service_unavailable_error": 503,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_BY_TEXT: Final[tuple[tuple[str, type[UpstreamError]], ...]] = (
    ("prompt is too long", ContextLengthError),
    ("prompt too long", ContextLengthError),
    ("input is too long", ContextLengthError),
    ("maximum context length", ContextLengthError),
    ("maximum prompt length", ContextLengthError),
    ("reduce the length of the messages", ContextLengthError),
    ("input token count", ContextLengthError),
    ("input tokens exceeded", ContextLengthError),
    ("credit balance is too low", QuotaError),
    ("incorrect api key", AuthError),
)
_MODERATED: Final = ("reasons", "flagged_input")
# Not `isdigit`, which is true for a superscript two.
_STATUS: Final = re.compile("[45][0-9][0-9]")
# Seconds that somebody may mean, as in policy files: 31 years.
_MOST: Final = 1e9


class Fault(NamedTuple):
    """A provider's error in OpenAI's four fields, whatever shape it came in. `type` and `code` may be empty.

    `wait_s` is how long the body asks to wait, None when it does not.
    """

    message: str
    type: str = ""
    code: str = ""
    param: str | None = None
    wait_s: float | None = None


def read_fault(body: bytes) -> Fault:
    """Return the error object inside `body`: wrapped, bare, a list, plain text or nothing at all."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Fault(body[:2000].decode(errors="replace").strip())
    return fault_of(found)


def fault_of(found: Any) -> Fault:
    """Return the error inside an already decoded JSON value."""
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        return Fault(str(found))
    error = found.get("error", found)
    if not isinstance(error, dict):
        return Fault(str(error), code=_word(found.get("code")))
    text = error.get("message") or error.get("detail") or error.get("error") or ""
    stable, wait_s = _details(error)
    param = error.get("param")
    return Fault(
        text if isinstance(text, str) else msgspec.json.encode(text).decode(),
        _word(error.get("type")),
        _word(stable or error.get("code")),
        param if isinstance(param, str) else None,
        wait_s,
    )


def _details(error: dict[str, Any]) -> tuple[str, float | None]:
    """Return the code and the wait that stand deeper in an error, where providers keep what their `code` lacks."""
    details, metadata = error.get("details"), error.get("metadata")
    if isinstance(metadata, dict) and not metadata.keys().isdisjoint(_MODERATED):
        return "content_filter", None  # OpenRouter's moderation, which says 403 like a wrong key
    if isinstance(metadata, dict) and metadata.get("limit_source") == "openrouter_in_flight_budget":
        return "rate_limit_exceeded", None  # there is money, but too much of it is out with requests under way
    if isinstance(details, dict):
        return _word(details.get("error_code")), None  # Anthropic
    code, wait_s = "", None
    for detail in details if isinstance(details, list) else ():  # Google
        if not isinstance(detail, dict):
            continue
        if detail.get("reason") == "API_KEY_INVALID":
            code = "invalid_api_key"
        if "PerDay" in str(detail.get("violations")):
            code = "insufficient_quota"
        wait_s = _number(str(detail.get("retryDelay", "")).removesuffix("s")) or wait_s
    return code, wait_s


def _number(text: str) -> float | None:
    """Return the positive number in `text`; None when it is none, or more than anybody can mean."""
    try:
        return _meant(float(text))
    except ValueError:
        return None


def _meant(number: float) -> float | None:
    return number if 0 < number <= _MOST else None


def _word(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def classify(status: int, headers: Mapping[str, str], fault: Fault) -> UpstreamError:
    """Return the error to raise for an answer with `status`. `headers` may be empty (an error inside a stream)."""
    if fault.message.lstrip()[:1] == "<" and status not in (401, 429, 503, 529):
        # Some proxy's web page: whatever it says, it is not the provider's word, and no client can read it.
        return UnavailableError(
            "the upstream answered with a web page, not with JSON", code="upstream_invalid_response"
        )
    found = _class_of(status, fault)
    fault = _short(fault)
    wait_s = retry_after_s(headers) or fault.wait_s
    text = scrub(fault.message) if fault.message.lstrip()[:1] != "<" else ""
    text = text or f"the upstream answered with status {status}"
    if found in (QuotaError, RateLimitError, OverloadedError, NotFoundError, ContextLengthError):
        return found(text, retry_after_s=wait_s, param=fault.param)
    if found is AuthError:
        refused = AuthError(f"the upstream refused the sidecar's key (status {status}): {text}")
        refused.everywhere = status != 403 and fault.type != "permission_error"
        return refused
    if found is UpstreamTimeoutError:
        return UpstreamTimeoutError(text, retry_after_s=wait_s)
    if found is UnavailableError:
        # 500 stays 500; a 502, an unknown 5xx or a fault inside a 200 is a bad gateway to the client.
        return UnavailableError(text, status=500 if status == 500 else 502, code="server_error", retry_after_s=wait_s)
    code = fault.code or fault.type or None
    if found is ContentFilterError:
        return ContentFilterError(text, code=code, param=fault.param)
    passed = status if 400 <= status < 500 else 400
    return InvalidRequestError(
        text,
        status=passed,
        type=fault.type or "invalid_request_error",
        code=fault.code or None,
        param=fault.param,
    )


def _short(fault: Fault) -> Fault:
    param = None if fault.param is None else scrub_word(fault.param)
    return fault._replace(type=scrub_word(fault.type), code=scrub_word(fault.code), param=param)


def _class_of(status: int, fault: Fault) -> type[UpstreamError]:
    found = BY_CODE.get(fault.code) or BY_TYPE.get(fault.type)
    if found is not None and not (found in (AuthError, NotFoundError) and status >= 500):
        return found
    if status in (400, 413):
        lowered = fault.message.lower()
        for text, by_text in _BY_TEXT:
            if text in lowered:
                return by_text
    return BY_STATUS.get(status) or (UnavailableError if status >= 500 or status < 400 else InvalidRequestError)


def status_in(error: object) -> int:
    """Return the HTTP status that an error inside a 200 names in its `code` or `status`, or stands for by its `type`;
    502 when it names none.
    """
    if isinstance(error, dict):
        for key in ("code", "status", "status_code"):
            value = error.get(key)
            if isinstance(value, int | str) and _STATUS.fullmatch(str(value)):
                return int(value)
        return STATUS_OF_TYPE.get(_word(error.get("type")), 502)
    return 502


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the provider asks to wait: `retry-after-ms`, else `retry-after` as seconds or as a date.

    A date is compared with the answer's own `date`, so the clocks need not agree. None when nothing usable is there.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        number = _number(headers.get(name, ""))
        if number is not None:
            return number * unit
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
        return _meant((until - parsedate_to_datetime(headers.get("date", ""))).total_seconds())
    except (ValueError, TypeError, OverflowError):  # a year, or a time zone, that no calendar has
        return None
