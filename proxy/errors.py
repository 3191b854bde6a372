"""What can go wrong, and what the client is told about it. Nothing here knows a provider's name.

    ProxyError                    status, code, type, param, retry_after_s
    ├── ClientError               the request cannot be served as sent, or we refuse it ourselves
    └── UpstreamError             an upstream failed; `kind` is one word of the fallback vocabulary
        ├── RateLimitError        429, heals after Retry-After
        ├── QuotaError            money or allowance used up, heals when somebody pays
        ├── UpstreamTimeoutError  no answer in time
        ├── UnavailableError      no connection, a broken answer, a 5xx
        ├── OverloadedError       503, 529
        ├── AuthError             the provider refuses our key
        ├── NotFoundError         the provider does not know the model
        ├── ContextLengthError    the prompt is too long for this model
        ├── ContentFilterError    the provider refuses the content
        └── InvalidRequestError   the provider (or the adapter, before it) cannot take this request

Whether a kind falls back is a policy's choice (`[fallback] on`); a class only says whether it is `transient`.
"""

import re
from typing import Any, ClassVar, Final, Literal, get_args

import msgspec

Kind = Literal[
    "rate_limit",
    "quota",
    "timeout",
    "unavailable",
    "overloaded",
    "context_length",
    "content_filter",
    "auth",
    "not_found",
    "invalid_request",
]
KINDS: Final[tuple[str, ...]] = get_args(Kind)

# Provider texts are quoted to the client at most this long, and never with anything that looks like a credential.
_MAX_MESSAGE: Final = 500
# The same for the words beside it. A `param` may be a path into a long conversation.
_MAX_WORD: Final = 200
_SECRET: Final = re.compile(
    r"(?i)\bbearer\s+\S+"
    r"|\b(?:sk|pk|gsk|csk|xai|hf|fw|ghu|gho|ghp|github_pat|key)[-_][\w\-*.]{6,}"
    r"|\bAIza[\w\-]{10,}|\bAKIA\w{12,}|\beyJ[\w\-]{10,}[\w\-.]*"
    # Keys without a prefix, where a provider quotes one: "API key provided: 0123...", "?key=0123...".
    r"|(?:(?<=key: )|(?<=key=)|(?<=provided: ))(?=\S*\d)[\w\-]{16,}"
)


def scrub(text: str) -> str:
    """Return `text` shortened and without anything that looks like a credential."""
    return _SECRET.sub("[redacted]", text[: 4 * _MAX_MESSAGE])[:_MAX_MESSAGE]


def scrub_word(text: str) -> str:
    """Return a provider's `type`, `code` or `param`, shortened and scrubbed like its message."""
    return scrub(text)[:_MAX_WORD]


class ProxyError(Exception):
    """An answer to the client in the making.

    `retry_after_s` is None when waiting would not help or nothing is known; `param` names the offending field.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = self.status if status is None else status
        self.type = self.type if type is None else type
        self.code = self.code if code is None else code
        self.param = param
        self.retry_after_s = retry_after_s
        self.metadata: dict[str, Any] | None = None

    def body(self) -> bytes:
        """Return the OpenAI error object as JSON; all four keys are always there."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        if self.metadata is not None:
            error["metadata"] = self.metadata
        return msgspec.json.encode({"error": error})

    def event(self) -> bytes:
        """Return the error as one server-sent event, which every OpenAI SDK raises as an APIError."""
        return b"data: " + self.body() + b"\n\n"


class ClientError(ProxyError):
    """The request cannot be served as sent."""

    status = 400
    type = "invalid_request_error"


class UpstreamError(ProxyError):
    """An upstream failed. `kind` is one of KINDS; `transient` says that the same request may work later."""

    kind: ClassVar[str] = "unavailable"
    transient: ClassVar[bool] = True
    # True when the upstream was never asked, because its language cannot carry the request.
    unsent: bool = False
    # True when the request went out and no word of the provider's says what became of it: it may be on the bill.
    possibly_billed: bool = False
    # In a stream: the client's bytes that were complete before the fault.
    before: bytes = b""


class RateLimitError(UpstreamError):
    """429 that heals; `retry_after_s` when the provider said when."""

    kind, status, type, code = "rate_limit", 429, "rate_limit_error", "rate_limit_exceeded"


class QuotaError(UpstreamError):
    """Credit or a hard limit is used up."""

    kind, status, type, code = "quota", 429, "insufficient_quota", "insufficient_quota"
    transient = False


class UpstreamTimeoutError(UpstreamError):
    """A timer ran out: connect, first event, answer, idle or total."""

    kind, status, type, code = "timeout", 504, "timeout_error", "upstream_timeout"


class UnavailableError(UpstreamError):
    """No connection, a broken answer, or a 5xx; `code` says which."""

    kind, status, type, code = "unavailable", 502, "server_error", "upstream_unreachable"


class OverloadedError(UpstreamError):
    """The provider is up but has no room."""

    kind, status, type, code = "overloaded", 503, "service_unavailable_error", "overloaded"


class AuthError(UpstreamError):
    """The provider refuses the key of the sidecar. Told as 502: the client's own key is not at fault.

    `everywhere` is False when the key may be good for other models (403).
    """

    kind, status, type, code = "auth", 502, "server_error", "upstream_auth_failed"
    transient = False
    everywhere = True


class NotFoundError(UpstreamError):
    """The provider does not know the model, or not for this key."""

    kind, status, type, code = "not_found", 404, "invalid_request_error", "model_not_found"
    transient = False


class ContextLengthError(UpstreamError):
    """The prompt does not fit this model."""

    kind, status, type, code = "context_length", 400, "invalid_request_error", "context_length_exceeded"
    transient = False


class ContentFilterError(UpstreamError):
    """The provider refuses the content."""

    kind, status, type, code = "content_filter", 400, "invalid_request_error", "content_filter"
    transient = False


class InvalidRequestError(UpstreamError):
    """The provider calls the request wrong; its status, code and param are passed on."""

    kind, status, type = "invalid_request", 400, "invalid_request_error"
    transient = False


BY_KIND: Final[dict[str, type[UpstreamError]]] = {
    cls.kind: cls
    for cls in (
        RateLimitError,
        QuotaError,
        UpstreamTimeoutError,
        UnavailableError,
        OverloadedError,
        AuthError,
        NotFoundError,
        ContextLengthError,
        ContentFilterError,
        InvalidRequestError,
    )
}
