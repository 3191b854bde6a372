"""One exchange as a case: what the adapter is given, and what a client has to find. Every rule here goes by the data.

Nothing is left out silently: `unusable` says why an exchange says nothing about chat completions.
"""

import re
from functools import cache
from typing import Any, Final, Literal

import msgspec

from proxy.conform import recordings, responses
from proxy.conform.recordings import Entry, Golden, Recording
from proxy.conform.sdk import Said
from proxy.conform.usage import Counts, normal_usage, thoughts_in_total, told_usage

# "answer"; "error": a status of 400 or more; "broken": an error inside a 200; "nothing": a 200 without an answer.
Outcome = Literal["answer", "error", "broken", "nothing"]
OPENAI: Final = "openai"
# How a reason begins that is no property of a recording but a fault of its folder.
UNREADABLE: Final = "cannot be read"
WORDS: Final = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
# Reasons why an answer ended that say that it failed: Gemini's, Bedrock's, Cohere's, and those of OpenAI's language.
FAILED: Final = frozenset(
    {
        *("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE"),
        *("MALFORMED_RESPONSE", "malformed_model_output", "malformed_tool_use", "ERROR", "TIMEOUT"),
        *("error", "abort", "insufficient_system_resource"),
    }
)
# What tells an error's kind, in this order: the provider's own words, then the status. See docs/policies.md, `on`.
_KINDS: Final = tuple(
    (kind, re.compile(words, re.IGNORECASE | re.DOTALL))
    for kind, words in (
        ("quota", r"insufficient_quota|credit balance|spend_limit_reached|billing_hard_limit|PerDay|billing_error"),
        ("quota", r"ServiceQuotaExceeded|FAILED_PRECONDITION(?=.*billing)|billing(?=.*FAILED_PRECONDITION)"),
        ("context_length", r"context.length.exceeded|exceed_context_size|too_many_prompt_tokens|TOO_MANY_TOKENS"),
        (
            "context_length",
            r"prompt (is )?too long|input is too long|maximum (context|prompt) length|input token count",
        ),
        ("context_length", r"reduce the length of|input tokens exceed"),
        ("content_filter", r"\"content_filter\"|content_policy_violation|ResponsibleAIPolicy|\"invalid_prompt\""),
        ("auth", r"API_KEY_INVALID|incorrect api key|\"invalid_api_key\"|\"(authentication|permission)_error\""),
        ("not_found", r"model_not_found|model_not_supported|model_decommissioned|\"invalid_model\"|DeploymentNotFound"),
        ("not_found", r"provided model identifier is invalid|\"not_found_error\""),
        ("rate_limit", r"\"(rate_limit_error|rate_limited|rate_limit_exceeded)\""),
        ("overloaded", r"\"(overloaded_error|server_is_overloaded)\""),
        ("timeout", r"\"timeout_error\""),
        ("unavailable", r"tool_use_failed"),
        ("timeout", r"\"TIMEOUT\""),
    )
)
# Of these kinds only an answer to a request that was wrong in itself can be.
_OF_REQUESTS: Final = {"context_length", "content_filter"}
# And what is 500 or more is about neither key nor model, whatever it says.
_NOT_OF_SERVERS: Final = {"auth", "not_found"}
_BY_STATUS: Final = {
    401: "auth",
    402: "quota",
    403: "auth",
    404: "not_found",
    408: "timeout",
    424: "unavailable",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
_STATUS: Final = re.compile(r"\"(?:code|status|status_code)\":\s*\"?([45]\d\d)\b")
# Arguments of a call that are none, in the words in which providers say so.
NO_ARGUMENTS: Final[list[Any]] = [
    None,
    {},
    {"__unparsable__": ""},
    {"__unparsable__": "null"},
    {"__unparsable__": None},
]


class Expected(msgspec.Struct, frozen=True):
    """What a client has to find. `told` is the usage it is told, None when that is whatever the provider tells.

    `said` is what came before an error, too. `error` is part of the message; a `late` error came after the end.
    """

    said: Said
    billed: Counts | None = None
    told: Counts | None = None
    error: str | None = None
    kind: str | None = None
    late: bool = False


class Case(msgspec.Struct, frozen=True):
    """One exchange. `sent` is what the client asked, in OpenAI's words, None: anything that wants such an answer.

    `wanted` is the path and the JSON that have to go upstream, None when that is not told. `edited`: its recorder has
    changed the answer, so that it may be more odd than any provider's.
    """

    file: str
    provider: str
    api: str
    adapter: str
    quirks: frozenset[str]
    status: int
    stream: bool
    outcome: Outcome
    sent: dict[str, Any] | None
    headers: dict[str, str]
    body: bytes
    pieces: list[bytes]
    events: list[bytes]
    expected: Expected
    features: tuple[str, ...] = ()
    edited: bool = False
    wanted: tuple[str, Any] | None = None

    @property
    def translated(self) -> bool:
        """Whether the answer is put into OpenAI's words rather than passed on."""
        return self.adapter != OPENAI


def unusable(entry: Entry) -> str | None:
    """Return why an exchange says nothing about chat completions, None when it does."""
    if entry.adapter is None:
        return f"no adapter speaks {entry.api}"
    try:
        body, golden = _body(entry), recordings.golden(entry)
    except (OSError, ValueError, KeyError) as error:
        return f"{UNREADABLE}: {error!r}"
    if "json_array_stream" in entry.features or (entry.api == "gemini" and entry.stream and body[:1] == b"["):
        return "a stream that is no SSE, as only requests without alt=sse get it"
    if entry.api == "gemini" and b'"willContinue"' in body:
        return "arguments of calls in pieces, which are never asked for"
    if entry.api == responses.API and entry.status < 400 and (why := responses.unusable(body.decode())) is not None:
        return why
    if entry.status >= 400 or entry.stream or not golden.blank:
        return None
    found = _object(body)
    if "choices" in found or "candidates" in found or "error" in found or "promptFeedback" in found:
        return None
    kinds = {"embedding": "an embedding", "embeddings": "embeddings", "totalTokens": "a count of tokens"}
    kinds |= {"pages": "read from a document", "data": "a list of data", "predictions": "predictions"}
    return next((f"{kind}, not a chat completion" for name, kind in kinds.items() if name in found), None)


@cache
def outcome(entry: Entry) -> Outcome:
    """Return what kind of answer it is."""
    if entry.status >= 400:
        return "error"
    golden = recordings.golden(entry)
    if golden.error is not None or golden.finish in FAILED:
        return "answer" if _late(entry, golden) else "broken"
    if entry.adapter == OPENAI or golden.finish is not None:
        return "answer"
    if entry.stream:
        return "nothing"  # a translated stream without a reason why it ended was cut
    found = _object(_body(entry))
    if found.get("candidates") == [] and "promptFeedback" in found:
        return "answer"
    return "nothing" if golden.blank else "answer"


def _late(entry: Entry, golden: Golden) -> bool:
    """Whether the error came when all had been said, so that the end stands."""
    return entry.stream and entry.adapter == OPENAI and golden.finish in WORDS


def _body(entry: Entry) -> bytes:
    return recordings.read(entry).body


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def case_of(entry: Entry, adapter: str | None = None, quirks: frozenset[str] | None = None) -> Case:
    """Return an exchange of a corpus as a case; `adapter` and `quirks` instead of those that the data asks for."""
    recording, golden = recordings.read(entry), recordings.golden(entry)
    how = outcome(entry)
    return Case(
        file=entry.file,
        provider=entry.provider,
        api=entry.api,
        adapter=adapter or entry.adapter or OPENAI,
        quirks=entry.quirks if quirks is None else quirks,
        status=entry.status,
        stream=entry.stream,
        outcome=how,
        sent=_sent(entry, recording),
        headers=recording.response.headers,
        body=recording.body,
        pieces=[piece for piece in recording.pieces() if piece],
        events=[event for event in recording.events() if event],
        expected=_expected(entry, recording, golden, how),
        features=entry.features,
        edited=entry.fidelity == "response-only",
    )


def _sent(entry: Entry, recording: Recording) -> dict[str, Any] | None:
    """Return the request where it is OpenAI's; older ones of Azure name the model in their address only."""
    body = recording.request.body
    if entry.adapter != OPENAI or not isinstance(body, dict):
        return None
    return body if "model" in body else {"model": "deployment", **body}


def _expected(entry: Entry, recording: Recording, golden: Golden, how: Outcome) -> Expected:
    finish = _finish(entry, recording, golden) if how == "answer" else None
    # What a Cohere model plans before its calls is told as reasoning.
    plan = recording.plan if entry.adapter == "cohere" else ""
    calls = golden.tool_calls if how == "answer" else []
    billed = normal_usage(entry.api, golden.usage) if golden.usage else None
    if billed and "thoughts_in_total" in entry.quirks:
        billed = thoughts_in_total(golden.usage)
    told = told_usage(entry.api, golden.usage) if golden.usage and entry.adapter != OPENAI else None
    named = recording.response.headers.get("x-amzn-errortype", "")  # where AWS has it
    kind = kind_of(entry.status, recording.response.body + named) if how in ("error", "broken") else None
    refusal = recording.refusal if entry.adapter == "anthropic" else ""
    said = Said(golden.text + refusal, golden.reasoning + plan, calls, finish)
    return Expected(said, billed, told, golden.error, kind, late=golden.error is not None and how == "answer")


def _finish(entry: Entry, recording: Recording, golden: Golden) -> str | None:
    """Return what the client is told. OpenAI says "stop" after a call that the request forced; that is passed on."""
    if golden.finish is None:
        if b'"promptFeedback"' in recording.body and golden.blank:
            return "content_filter"
        return "tool_calls" if golden.tool_calls else "stop"
    if entry.adapter == OPENAI and golden.finish == "stop" and "stop_with_calls" not in entry.quirks:
        return "stop"
    return golden.openai_finish


def kind_of(status: int, body: str) -> str:
    """Return the kind of an error by what its body says, else by its status: inside a 200 the one that it names."""
    for kind, words in _KINDS:
        if kind in _OF_REQUESTS and status not in (200, 400, 403, 413, 422):
            continue
        if kind in _NOT_OF_SERVERS and status >= 500:
            continue
        if words.search(body):
            return kind
    if status < 400:
        named = _STATUS.search(body)
        status = int(named[1]) if named else 502
    return _BY_STATUS.get(status) or ("invalid_request" if status < 500 else "unavailable")
