"""The matrix: for each fault what a client must see, in four situations. Written down before anything is run.

The rows are those of the project's reliability contract, F1 to F36, as a provider that speaks OpenAI's language plays
them. `DIALECTS` has what the other languages cannot say, or say in words of their own.
"""

from typing import Any, Final, NamedTuple, Self

from tests.fault_cells import ANSWER, LANGUAGES, OTHER

SITUATIONS: Final = ("complete", "complete, fallback", "stream", "stream, fallback")


class Row(NamedTuple):
    """One fault at provider `a`: `model` plays it, `complete` is what a client sees without a fallback.

    The other situations follow from it. A fault that `falls` back shows the fallback's answer; one that `interrupts` a
    stream ends it with that code, fallback or not; `stream` is what a stream shows else. `asks` is how many requests
    reach the provider for one of the client, `counts` how it stands afterwards. `again` asks twice and looks at the
    second answer: at once, on the connection that was "kept", or when it has been "dropped".
    """

    id: str
    title: str
    model: str
    complete: str
    counts: str
    falls: bool = True
    stream: str = ""
    interrupts: str = ""
    asks: int = 1
    url: str = "{wall}"
    least_s: float = 0.0
    total_s: float = 5.0
    again: str = ""
    large: bool = False

    def spoken(self, language: str) -> Self:
        """The row in another language."""
        return self._replace(**DIALECTS.get((language, self.id), {}))

    def must(self, situation: str, language: str) -> str:
        """What the client must see."""
        mode, _, fallback = situation.partition(", ")
        alone = self.complete
        if mode == "stream":
            alone = broken(self.interrupts) if self.interrupts else self.stream or alone
        heals = self.falls and alone != ANSWER and not (mode == "stream" and self.interrupts)
        # For one of these, a complete answer's time is all of it.
        if fallback and (heals or (mode == "stream" and self.id == "F19a")):
            return OTHER
        return _CODES.get(language, {}).get(alone, alone)

    def must_ask(self, situation: str, language: str) -> int:
        """How many requests must reach the provider when nobody else can be asked: its own 5xx is tried once more."""
        own = self.must(situation, language) in (_SERVER, "502 `server_error`")
        return self.asks + own


def broken(code: str) -> str:
    """What a client sees of a stream that fails after its first words."""
    return f"the words until then, then `{code}`"


_INVALID: Final = "502 `upstream_invalid_response`"
_CUT: Final = "502 `upstream_truncated`"
_GONE: Final = "502 `upstream_disconnected`"
_LATE: Final = "504 `upstream_timeout`"
_TLS: Final = "502 `upstream_tls_error`"
_NOBODY: Final = "502 `upstream_unreachable`"
_SERVER: Final = "500 `server_error`"
_OVERLOADED: Final = "503 `overloaded`"
_AUTH: Final = "502 `upstream_auth_failed`"
_INTERRUPTED: Final = "upstream_interrupted"
_SPENT: Final = "504 `deadline_exceeded`"

ROWS: Final = (
    Row("F1", "nobody listens", "m", _NOBODY, "counts", asks=0, url="http://127.0.0.1:9/v1"),
    Row("F2a", "accepts the connection and closes it", "m", _GONE, "counts", asks=0, url="{slammed}"),
    Row("F2b", "closes instead of an answer", "fault/close", _GONE, "counts"),
    Row("F2c", "resets instead of an answer", "fault/reset", _GONE, "counts"),
    Row("F2d", "closes in the middle of the head", "fault/half-head", _GONE, "counts"),
    Row("F3", "hangs before the answer", "fault/hang", _LATE, "counts", least_s=0.2),
    Row("F4", "sends a head byte by byte, without end", "fault/dribble", _LATE, "counts", least_s=0.2),
    Row("F5", "429 with Retry-After", "fault/429", "429 `rate_limit_exceeded`, retry-after 1", "rests 1 s"),
    Row("F6", "429, credit used up", "fault/429-quota", "429 `insufficient_quota`", "rests 5 min"),
    Row("F7", "500", "fault/500", _SERVER, "counts"),
    Row("F8", "503 with Retry-After", "fault/503", f"{_OVERLOADED}, retry-after 1", "rests 1 s"),
    Row("F9", "529", "fault/529", _OVERLOADED, "counts"),
    Row("F10a", "401", "fault/401", _AUTH, "rests", falls=False),
    Row("F10b", "403", "fault/403", _AUTH, "rests", falls=False),
    Row("F11a", "400, the prompt is too long", "fault/400-context", "400 `context_length_exceeded`", "-", falls=False),
    Row("F11b", "400", "fault/400", "400 `invalid_value`", "-", falls=False),
    Row("F12", "404, no such model", "fault/404", "404 `model_not_found`", "-", falls=False),
    Row("F13", "200 with broken JSON", "fault/malformed", _INVALID, "counts"),
    Row("F14a", "less than content-length says", "fault/truncated", _CUT, "counts", interrupts=_INTERRUPTED),
    Row("F14b", "a chunk is missing", "fault/truncated-chunked", _CUT, "counts", interrupts=_INTERRUPTED),
    Row("F14c", "closes before the body's end", "fault/truncated-close", _INVALID, "counts", interrupts=_INTERRUPTED),
    Row("F14d", "half a gzip", "fault/truncated-gzip", _INVALID, "counts", stream=_CUT),
    Row("F15a", "a good answer called text/plain", "fault/text", ANSWER, "-"),
    Row("F15b", "a whole answer, though a stream was asked for", "fault/whole", ANSWER, "-"),
    Row("F15c", "200 with an error in it", "fault/error-200", _OVERLOADED, "counts"),
    Row("F16a", "a gateway's page with 502", "fault/html", _INVALID, "counts"),
    Row("F16b", "a page with 200", "fault/html-200", _INVALID, "counts"),
    Row("F16c", "a page with 403", "fault/html-403", _INVALID, "counts"),
    Row("F17", "gzip that nobody asked for", "fault/gzip", ANSWER, "-"),
    Row("F18a", "cut before the first words", "fault/cut-after-0", _CUT, "counts"),
    Row("F18b", "cut after three words", "fault/cut-after-3", _CUT, "counts", interrupts=_INTERRUPTED),
    Row(
        "F18c",
        "ends after three words as if that were all",
        "fault/end-after-3",
        _CUT,
        "counts",
        interrupts=_INTERRUPTED,
    ),
    Row("F18d", "cut behind the finish reason", "fault/cut-after-finish", _CUT, "counts", stream=ANSWER),
    Row(
        "F19a",
        "silent before the first words",
        "fault/stall-after-0",
        _SPENT,
        "counts",
        falls=False,
        stream=_LATE,
        least_s=0.2,
        total_s=0.4,
    ),
    Row(
        "F19b",
        "silent after three words",
        "fault/stall-after-3",
        _SPENT,
        "counts",
        falls=False,
        interrupts="upstream_idle_timeout",
        least_s=0.2,
        total_s=0.4,
    ),
    Row(
        "F20a",
        "an event that is no JSON, first",
        "fault/garbage-after-0",
        _INVALID,
        "counts",
        stream="502 `upstream_invalid_event`",
    ),
    Row(
        "F20b",
        "an event that is no JSON, after three words",
        "fault/garbage-after-3",
        _INVALID,
        "counts",
        interrupts="upstream_invalid_event",
    ),
    Row(
        "F21a",
        "an error event before the first words",
        "fault/error-after-0",
        _SERVER,
        "counts",
        stream="502 `server_error`",
    ),
    Row(
        "F21b", "an error event after three words", "fault/error-after-3", _SERVER, "counts", interrupts="server_error"
    ),
    Row("F22a", "packets of one byte", "fault/bytes", ANSWER, "-"),
    Row("F22b", "lines that end in CRLF", "fault/crlf", ANSWER, "-"),
    Row("F22c", "lines that end in CR", "fault/cr", ANSWER, "-"),
    Row("F22d", "a byte order mark first", "fault/bom", ANSWER, "-"),
    Row("F22e", "comments between the events", "fault/comments", ANSWER, "-"),
    Row(
        "F23b",
        "one event of 2 MB",
        "fault/big-event",
        "502 `response_too_large`",
        "counts",
        interrupts="upstream_invalid_event",
    ),
    Row("F24", "resets a kept connection", "fault/reset-on-reuse", ANSWER, "-", asks=3, again="kept"),
    Row("F25", "a TLS handshake that fails", "m", _TLS, "rests", asks=0, url="https://127.0.0.1:{port}/v1"),
    Row("F26", "a name that does not resolve", "m", _NOBODY, "counts", asks=0, url="http://nowhere.invalid/v1"),
    Row("F27", "a redirect", "fault/redirect", "502 `upstream_redirect`", "rests"),
    Row("F28", "bytes that nobody asked for, between two answers", "fault/stray", ANSWER, "-", asks=2, again="dropped"),
    Row("F29a", "a status line that is no HTTP", "fault/bad-status", _INVALID, "counts"),
    Row("F29b", "a header of 20 KB", "fault/huge-header", _INVALID, "counts"),
    Row("F29c", "200 headers", "fault/many-headers", _INVALID, "counts"),
    Row(
        "F30a",
        "413 before the body was read",
        "fault/413-early",
        "413 `request_too_large`",
        "-",
        falls=False,
        large=True,
    ),
    Row("F30b", "400 before the body was read", "fault/400-early", "400 `invalid_value`", "-", falls=False, large=True),
    Row("F31a", "100 Continue before the answer", "fault/continue", ANSWER, "-"),
    Row("F31b", "103 Early Hints before the answer", "fault/early-hints", ANSWER, "-"),
    Row(
        "F32",
        "a word now and then, past all limits",
        "fault/drip-20",
        _SPENT,
        "counts",
        falls=False,
        interrupts="deadline_exceeded",
        least_s=0.4,
        total_s=0.4,
    ),
)

# What the errors of a language call things: some have no codes. In mid-stream each plays its usual error.
_NO_CODES: Final = {"400 `invalid_value`": "400 no code", "413 `request_too_large`": "413 no code"}
_BUSY: Final = {"502 `server_error`": "503 `overloaded`", broken("server_error"): broken("overloaded")}
_CODES: Final[dict[str, dict[str, str]]] = {
    "anthropic": _NO_CODES | _BUSY,
    "gemini": {
        "400 `invalid_value`": "400 `invalid_argument`",
        "413 `request_too_large`": "413 `invalid_argument`",
        **_BUSY,
    },
    "bedrock": {
        "400 `invalid_value`": "400 `ValidationException`",
        "413 `request_too_large`": "413 `RequestEntityTooLargeException`",
        "502 `server_error`": _SERVER,
    },
    "cohere": _NO_CODES,
    "ollama": _NO_CODES,
}
# What changes in a row: (language, row) -> fields.
DIALECTS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    # An event stream of AWS packs badly: half of it holds words.
    ("bedrock", "F14d"): {"stream": "", "interrupts": _INTERRUPTED},
    # A Cohere error is an object with a message, which without a status could be anything.
    ("cohere", "F15c"): {"complete": _INVALID},
    # Ollama's errors are a text: with the status 429 it is a limit, without one the server's own fault.
    ("ollama", "F6"): {"complete": "429 `rate_limit_exceeded`", "counts": "rests 1 s"},
    ("ollama", "F15c"): {"complete": "502 `server_error`"},
    # JSON that ends too soon is a line that does not end.
    ("ollama", "F13"): {"stream": _CUT},
}
# Nothing in these has been said in any language yet, or nothing is wrong with what is said.
_BELOW: Final = ("F1", "F2", "F3", "F4", "F24", "F25", "F26", "F27", "F28", "F29", "F31")
# `tests/test_fault_positions.py` has silence at every event; time runs out in any language alike.
_TIMED: Final = ("F19", "F32")
# Server-sent events can be written in many ways, the other framings in one.
_SPELLINGS: Final = ("F22b", "F22c", "F22d", "F22e")


def situations(row: Row, language: str) -> tuple[str, ...]:
    """The situations in which a row is played in a language: in OpenAI's and Anthropic's all; in the others those that
    hang on the language, and with a fallback only where a stream has begun, or where the language differs.
    """
    if language in LANGUAGES[:2]:
        return SITUATIONS
    if row.id.rstrip("abcd") in (*_BELOW, *_TIMED) or (row.id in _SPELLINGS and language in ("bedrock", "ollama")):
        return ()
    spoken = row.spoken(language)
    differs = any(spoken.must(one, language) != row.must(one, "openai") for one in SITUATIONS)
    return SITUATIONS if spoken.interrupts or differs else ("complete", "stream")


class Special(NamedTuple):
    """A fault that is no provider's, or takes more than one request: a test of its own plays it."""

    id: str
    title: str
    complete: str
    stream: str
    fallback: dict[str, str] = {}  # noqa: RUF012  # never changed
    counts: str = "-"

    def must(self, situation: str) -> str:
        """What the client must see."""
        alone = self.complete if situation.startswith("complete") else self.stream
        return self.fallback.get(situation, alone)


NOT_SO: Final = "-"
LEFT: Final = "nothing any more; the provider is let go of within a second"
STALLED: Final = "cut off after 60 s; the provider is let go of"
_RESTING: Final = "503 `no_provider_available`, retry-after 1"
SPECIAL: Final = (
    Special("F23a", "100 MB", "502 `response_too_large`", ANSWER, {"complete, fallback": OTHER}, counts="counts"),
    Special("F33", "answers, but your client leaves", LEFT, LEFT),
    Special("F34", "answers, but your client does not read", NOT_SO, STALLED),
    Special(
        "F35",
        "429, and then the fallback answers 500",
        NOT_SO,
        NOT_SO,
        {"complete, fallback": _SERVER, "stream, fallback": _SERVER},
    ),
    Special("F36", "has failed five times in a row, and so has the fallback", _RESTING, _RESTING, counts="rests 1 s"),
)
