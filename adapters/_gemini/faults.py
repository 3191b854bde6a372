"""Google's errors: their status word becomes OpenAI's code, and inside a 200 also the HTTP status it stands for.

Words and numbers: https://cloud.google.com/apis/design/errors ("Error Model", google.rpc.Code). An error comes bare, or
as the only element of a list.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from proxy.classify import Fault, classify, fault_of, read_fault, status_in
from proxy.errors import UnavailableError, UpstreamError

_HTTP: Final = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# Cancelled or aborted on their side: nothing is wrong with the request.
_THEIR_SIDE: Final = {409: 500, 499: 500}


def fault_of_answer(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Return the class of an answer that is not 200."""
    found = _error(body)
    fault = read_fault(body) if found is None else _named(found)
    return classify(_THEIR_SIDE.get(status, status), headers, fault)


def fault_inside(body: bytes) -> UpstreamError | None:
    """Return the error that came inside a 200, None when there is none."""
    found = _error(body)
    if found is None:
        return None
    status = _HTTP.get(str(found.get("status"))) or status_in(found)
    return classify(_THEIR_SIDE.get(status, status), {}, _named(found))


def nonsense() -> UnavailableError:
    """Return the error for an answer that is none of Gemini's."""
    return UnavailableError("the upstream's answer is not valid", code="upstream_invalid_response")


def _error(body: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(found, list) and found:
        found = found[0]
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) else None


def _named(error: dict[str, Any]) -> Fault:
    """Return the fault with a word for its code: the number that Google calls `code` only repeats the HTTP status."""
    fault, word = fault_of({"error": error}), str(error.get("status") or "")
    if fault.code and not fault.code.isdigit():
        return fault
    if word == "FAILED_PRECONDITION" and "billing" in fault.message.lower():
        # No field tells this apart from an unsupported place or a model that is not ready.
        return fault._replace(code="insufficient_quota")
    return fault._replace(code=word.lower())
