"""From the name of an AWS exception to one error class.

The name stands in the header `x-amzn-errortype`, in the body's `__type` or, inside a stream, in the message's own
headers; it decides before the status does. Only ValidationException says everything from a bad field to an unknown
model, so its words are looked at. Sources: the error lists of Converse and ConverseStream in the Bedrock Runtime API
reference, AWS's "Common errors", and recorded answers.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from proxy.classify import Fault, classify, read_fault
from proxy.errors import AuthError, UpstreamError

# Name -> the status it has outside of a stream, and a code of `proxy.classify` where the status says too little.
_KNOWN: Final[dict[str, tuple[int, str]]] = {
    "ThrottlingException": (429, ""),
    "TooManyRequestsException": (429, ""),
    "ModelNotReadyException": (429, ""),
    "ServiceQuotaExceededException": (400, "insufficient_quota"),
    "ValidationException": (400, ""),
    "SerializationException": (400, ""),
    "ModelTimeoutException": (408, ""),
    "ModelErrorException": (424, ""),
    "ModelStreamErrorException": (424, ""),
    "InternalServerException": (500, ""),
    "InternalFailure": (500, ""),
    "ServiceUnavailableException": (503, ""),
    "ServiceUnavailable": (503, ""),
    # The account's agreement with the model's vendor is being made: it will be there in a moment.
    "MPAgreementBeingCreated": (503, ""),
    "AccessDeniedException": (403, ""),
    "UnrecognizedClientException": (403, ""),
    "InvalidSignatureException": (403, ""),
    "IncompleteSignatureException": (403, ""),
    "MissingAuthenticationTokenException": (403, ""),
    "ExpiredTokenException": (403, ""),
    "ResourceNotFoundException": (404, ""),
}
# These are about the key whatever it is for; AccessDeniedException may be about one model.
_BAD_KEY: Final = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "IncompleteSignatureException",
        "MissingAuthenticationTokenException",
        "ExpiredTokenException",
    }
)
_ABOUT_SIGNATURES: Final = frozenset({"InvalidSignatureException", "SignatureDoesNotMatch"})
_UNKNOWN_MODEL: Final = "model identifier is invalid"


class _Body(msgspec.Struct):
    """An error's body; some services of AWS write `Message`, and a model's own words are `originalMessage`."""

    type: str = msgspec.field(name="__type", default="")
    code: str = ""
    message: str = ""
    capital: str = msgspec.field(name="Message", default="")
    original: str = msgspec.field(name="originalMessage", default="")


_body: Final = msgspec.json.Decoder(_Body)


def parse_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Return the error of a non-200 answer."""
    found = _decode(body)
    name = headers.get("x-amzn-errortype") or found.type or found.code
    return _error(status, headers, name, found.message)


def fault_in_stream(name: str, payload: bytes) -> UpstreamError:
    """Return the error that a message of a stream stands for: "throttlingException" is ThrottlingException."""
    return _error(502, {}, name[:1].upper() + name[1:], _decode(payload).message)


def fault_in_answer(body: bytes) -> UpstreamError | None:
    """Return the error that came inside a 200, None when its body names none."""
    found = _decode(body)
    return _error(502, {}, found.type, found.message) if found.type else None


def _decode(body: bytes) -> _Body:
    """Return an error's body; the words of a body in any other shape are its `message`."""
    try:
        found = _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _Body()
    found.message = found.message or found.capital or found.original or read_fault(body).message
    return found


def _error(status: int, headers: Mapping[str, str], name: str, message: str) -> UpstreamError:
    # "ValidationException:http://internal.amazon.com/..." in headers, "com.amazon.coral.service#..." in bodies.
    name = name.partition(":")[0].rpartition("#")[2]
    status, code = _KNOWN.get(name, (status, ""))
    if name in _ABOUT_SIGNATURES:
        # What follows the first line quotes the signed headers, a session's token among them.
        message = message.partition("\n")[0]
    if name == "ValidationException" and _UNKNOWN_MODEL in message:
        code = "model_not_found"
    error = classify(status, headers, Fault(message, code=code or name))
    if isinstance(error, AuthError) and name in _BAD_KEY:
        error.everywhere = True
    return error
