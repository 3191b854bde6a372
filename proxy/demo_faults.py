"""What can go wrong at a provider, by name. `demo_plays` shows it.

One vocabulary for the demo providers and the fault wall: `fault/NAME` as the model asks for one. Names that end in
`-<n>` carry a number: `cut-after-3` cuts the stream after three words, `cut-at-3` after three events of the wire,
whatever they say.
"""

import re
from typing import Final, NamedTuple

from proxy.demo_words import Refusal
from proxy.errors import ClientError

PREFIX: Final = "fault/"
REFUSALS: Final = {
    "400": Refusal(400, "invalid_request_error", "invalid_value", "A demo of a request that is refused."),
    "400-context": Refusal(
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 8 tokens.",
    ),
    "400-filter": Refusal(
        400, "invalid_request_error", "content_policy_violation", "A demo of content that is refused."
    ),
    "401": Refusal(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "403": Refusal(
        403,
        "invalid_request_error",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported.",
    ),
    "404": Refusal(
        404,
        "invalid_request_error",
        "model_not_found",
        "The model does not exist or you do not have access to it.",
    ),
    "429": Refusal(429, "requests", "rate_limit_exceeded", "Rate limit reached. Please try again in 1s.", 1),
    "429-quota": Refusal(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "500": Refusal(500, "server_error", "server_error", "The server had an error while processing your request."),
    "502": Refusal(502, "server_error", None, "Bad gateway."),
    "503": Refusal(503, "service_unavailable_error", "server_is_overloaded", "The engine is currently overloaded.", 1),
    "529": Refusal(529, "overloaded_error", None, "Overloaded"),
    "400-early": Refusal(400, "invalid_request_error", "invalid_value", "Refused before the body was read."),
    "413-early": Refusal(413, "invalid_request_error", "request_too_large", "Refused before the body was read."),
}
# Those that do not wait for the request's body.
EARLY: Final = ("400-early", "413-early")
# What an answer leaves out or adds; the rest of it is whole. Most show in streams only.
SHAPES: Final = {
    "empty": "an answer that says nothing",
    "no-finish": "no finish reason",
    "no-done": "a stream without its goodbye",
    "no-usage": "no usage",
    "usage-everywhere": "usage on every event",
    "usage-on-finish": "usage on the event that ends the answer",
    "crlf": "lines that end in CRLF",
    "cr": "lines that end in CR",
    "bom": "a byte order mark before the first event",
    "comments": "comments between the events",
    "bytes": "packets of one byte",
}
SCRIPTS: Final = {
    "hang": "no answer, the connection stays open",
    "close": "the connection is closed instead of an answer",
    "reset": "the connection is reset instead of an answer",
    "reset-on-reuse": "a connection's first request is answered, its second one reset",
    "stray": "behind the answer, bytes that nobody asked for",
    "dribble": "a head that comes byte by byte and never ends",
    "half-head": "half a head, then the end",
    "bad-status": "a status line that is no HTTP",
    "huge-header": "a header of 20 KB",
    "many-headers": "200 headers",
    "continue": "100 Continue before the answer",
    "early-hints": "103 Early Hints before the answer",
    "redirect": "307 to another path",
    "html": "a gateway's page with 502",
    "html-200": "a page with 200",
    "html-403": "a page with 403",
    "malformed": "200 with broken JSON",
    "error-200": "200 with an error in it",
    "text": "a good answer called text/plain",
    "whole": "a whole answer, also to who asked for a stream",
    "gzip": "a good answer, compressed",
    "truncated": "half of what content-length announces",
    "truncated-chunked": "half of the chunks",
    "truncated-close": "half of a body that ends with the connection",
    "truncated-gzip": "half of a compressed body",
    "huge": "100 MB",
    "big-event": "one event of 2 MB",
    "cut-after-finish": "a stream that is cut behind its finish reason",
}
STREAMED: Final = {
    "cut": "the stream is cut",
    "end": "the stream ends as if it were complete",
    "stall": "the stream falls silent",
    "garbage": "an event that is no JSON",
    "error": "an error as an event",
}
COUNTED: Final = {
    **{f"{kind}-after": f"{text}, after n words" for kind, text in STREAMED.items()},
    **{f"{kind}-at": f"{text}, after n events of the wire" for kind, text in STREAMED.items()},
    "slow": "the answer comes n ms late",
    "drip": "a word every n ms, without end",
    "split-at": "two packets, the first of n bytes",
}
_COUNTED: Final = re.compile(r"([a-z-]+)-(\d{1,6})")
# So many words behind the fault, that there is something to miss.
_MORE: Final = 4


class Fault(NamedTuple):
    """`kind` is a name without its number, "" for none; `amount` is that number."""

    kind: str
    amount: int = 0

    @property
    def words(self) -> int:
        """How many words the answer has to have beyond what was asked for."""
        return self.amount + _MORE if self.kind.endswith("-after") else 0


def parse(script: str) -> Fault:
    """Return the fault called `script`. Raises ClientError that lists them all."""
    if not script or script in REFUSALS or script in SHAPES or script in SCRIPTS:
        return Fault(script)
    match = _COUNTED.fullmatch(script)
    if match is None or match[1] not in COUNTED:
        known = ", ".join(names())
        raise ClientError(f"no fault is called {script!r}; there are {known}", param="model", code="invalid_value")
    return Fault(match[1], int(match[2]))


def names() -> list[str]:
    """Return the names of all faults."""
    return [*REFUSALS, *SCRIPTS, *SHAPES, *(f"{kind}-<n>" for kind in COUNTED)]
