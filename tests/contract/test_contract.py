"""Every recording of a provider that an adapter under test speaks with goes through that adapter. No sockets.

Nothing is left out silently: a recording is used or has a reason (`reason_unused`), and what is checked less strictly
is listed file by file below. `pytest -rP -k account` prints the table.
"""

from collections import Counter
from typing import Any, Final

import msgspec
import pytest
from openai.types import CompletionUsage

from proxy import errors, sse
from proxy.adapter import Adapter, Reply, StreamParser, load
from proxy.wire import ChatRequest, Usage, decode_chat

from . import corpus, dialects, responses
from .corpus import Entry, Golden, Recording, Said
from .dialects import ARGUMENTS, NOT_STRICT, REFUSED, UNUSABLE

CREATED: Final = 1_760_000_000
# Answers with status 200 that are none, with the code of the error that they are.
NO_ANSWER: Final = {
    **responses.NO_ANSWER,
    "vertex/vertexai-sdk-test-data--streaming-failure-empty-content--b632f4f1.json": "upstream_truncated",
    "vertex/vertexai-sdk-test-data--streaming-failure-malformed-content--0a960414.json": "upstream_truncated",
    "vertex/vertexai-sdk-test-data--streaming-success-quotes-escaped--a7c99d1f.json": "upstream_truncated",
    "vertex/vertexai-sdk-test-data--unary-failure-empty-content--167e00e7.json": "upstream_invalid_response",
    "vertex/vertexai-sdk-test-data--unary-failure-invalid-response--736b7c8f.json": "upstream_invalid_response",
}
# Recordings of other calls than chat, or of chat with what is never asked for.
NOT_ASKED: Final = {
    "gemini/ai--google-stream-tool-call-arguments--e70cac97.json": "arguments streamed in pieces",
    "gemini/ai--google-stream-tool-call-array-arguments-missing-terminal-function-call--c2a33051.json": (
        "arguments streamed in pieces"
    ),
    "gemini/prism--multimodal-embeddings-aggregate-1--a6d127a0.json": "an embedding",
    "gemini/prism--multimodal-embeddings-batch-1--a589d027.json": "an embedding",
    "vertex/vertexai-sdk-test-data--unary-success-no-billable-characters--c44ef09d.json": "a count of tokens",
}
# Where the digest has no finish reason and the answer has one all the same.
FINISH_OF_FILE: Final = {
    "gemini/vertexai-sdk-test-data--unary-failure-only-prompt-feedback--e42aa9d0.json": "content_filter",
    "vertex/vertexai-sdk-test-data--unary-success-missing-safety-ratings--6ba0c7b5.json": "stop",
}
ERROR_OF_STATUS: Final = {
    400: errors.InvalidRequestError,
    401: errors.AuthError,
    403: errors.AuthError,
    404: errors.NotFoundError,
    422: errors.InvalidRequestError,
    429: errors.RateLimitError,
    500: errors.UnavailableError,
}
ERROR_OF_FILE: Final[dict[str, type[errors.UpstreamError]]] = {
    **dialects.ERRORS,
    **responses.ERRORS,
    "gemini/req-llm-old--google-gemini-1-5-flash-streaming--9db12501.json": errors.AuthError,
    "gemini/ruby-llm--chat-error-handling-with-gemini-gemini-2-5-flash-raises-appropriate-au--a9ddf96a.json": (
        errors.AuthError
    ),
    "gemini/vertexai-sdk-test-data--unary-failure-api-key--85787af9.json": errors.AuthError,
    "vertex/vertexai-sdk-test-data--streaming-failure-api-key--c37ea46c.json": errors.AuthError,
    "vertex/ruby-llm--chat-real-error-scenarios-vertexai-gemini-2-5-flash-handles-context-le--a11cc04f.json": (
        errors.ContextLengthError
    ),
    "anthropic/ruby-llm--chat-real-error-scenarios-anthropic-claude-haiku-4-5-handles-context-l--7ab5b9c3.json": (
        errors.ContextLengthError
    ),
    "bedrock/opentelemetry-python-con--test-converse-stream-with-invalid-model--11505f1d.json": errors.NotFoundError,
    "bedrock/opentelemetry-python-con--test-converse-with-invalid-model--b1902cfe.json": errors.NotFoundError,
    "cohere/ruby-llm--chat-real-error-scenarios-cohere-command-a-03-2025-handles-context-len--174a9716.json": (
        errors.ContextLengthError
    ),
}
# Answers of status 200 that end in an error.
BROKEN: Final[dict[str, type[errors.UpstreamError]]] = {
    **dialects.BROKEN,
    **responses.BROKEN,
    "cohere/langchain-cohere--test-sql-agent--4f8f9705.json": errors.UnavailableError,
}


def reason_unused(entry: Entry) -> str | None:
    """Return why a recording is not used, None when it is."""
    if entry.adapter is None:
        return f"{entry.api} of this provider is for no adapter under test"
    if "json_array_stream" in entry.features:
        return "a stream that is no SSE, as only requests without alt=sse get it"
    return NOT_ASKED.get(entry.file) or UNUSABLE.get(entry.file) or responses.UNUSABLE.get(entry.file)


def everything() -> list[Entry]:
    """Return all recordings, each once: the corpus, then those that come with the repository."""
    known: dict[str, Entry] = {}
    for entry in corpus.entries(corpus.CORPUS) + corpus.entries(corpus.FIXTURES):
        known.setdefault(entry.file, entry)
    return list(known.values())


def used(*, adapters: tuple[str, ...] | None = None, ok: bool | None = None, stream: bool | None = None) -> list[Any]:
    """Return the recordings to test as parameters; None leaves a property open. `ok` is a 200 with an answer in it."""
    return [
        pytest.param(entry, id=entry.file.removesuffix(".json"))
        for entry in everything()
        if reason_unused(entry) is None
        and (adapters is None or entry.adapter in adapters)
        and ok in (None, entry.status < 400 and entry.file not in {*BROKEN, *NO_ANSWER})
        and stream in (None, entry.stream)
    ]


def adapter_of(entry: Entry) -> Adapter:
    assert entry.adapter is not None
    return load(entry.adapter)


def sent_by(recording: Recording) -> dict[str, Any] | None:
    """Return the recorded request in OpenAI's language; older ones of Azure name the model in their address only."""
    body = recording.request.body
    return body if body is None or "model" in body else {"model": "deployment", **body}


def request_of(entry: Entry, recording: Recording) -> ChatRequest:
    """Return the recorded request when it is OpenAI's, else a stand-in that wants the same kind of answer."""
    if entry.adapter == "openai" and recording.request.body is not None and entry.file not in REFUSED:
        return decode_chat(msgspec.json.encode(sent_by(recording)), CREATED)
    stand_in: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    if entry.stream:
        stand_in |= {"stream": True, "stream_options": {"include_usage": True}}
    return decode_chat(msgspec.json.encode(stand_in), CREATED)


def parser_of(entry: Entry, recording: Recording) -> StreamParser:
    request = request_of(entry, recording)
    return adapter_of(entry).stream(request, corpus.target(entry, request.model))


def answer_of(entry: Entry, recording: Recording) -> Reply:
    request = request_of(entry, recording)
    return adapter_of(entry).parse(recording.body, request, corpus.target(entry, request.model))


def check_said(entry: Entry, recording: Recording, golden: Golden, said: Said) -> None:
    if "content_parts" in entry.quirks and said.text.startswith("{"):
        # An answer that was an object is told as the provider wrote it; `golden.json` sorts its keys.
        assert msgspec.json.decode(said.text) == msgspec.json.decode(golden.text)
    else:
        assert said.text == golden.text
    assert said.reasoning == golden.reasoning + (recording.plan if entry.adapter == "cohere" else "")
    if entry.file in ARGUMENTS:
        assert [name for name, _ in said.tool_calls] == [name for name, _ in golden.tool_calls]
    else:
        assert said.tool_calls == golden.tool_calls
    assert said.finish == finish_of(entry, golden)


def finish_of(entry: Entry, golden: Golden) -> str | None:
    """What the client is to be told. OpenAI says "stop" after a call that the request forced; that is passed on."""
    if entry.adapter in corpus.TRANSLATED:
        return FINISH_OF_FILE.get(entry.file, golden.openai_finish)
    if golden.finish is None:
        return "tool_calls" if golden.tool_calls else "stop"
    return golden.finish if golden.finish == "stop" and "stop_with_calls" not in entry.quirks else golden.openai_finish


def check_usage(entry: Entry, golden: Golden, usage: Usage | None) -> None:
    if not golden.usage:
        assert usage is None
        return
    assert usage is not None
    assert (usage.input, usage.output, usage.cached) == corpus.normal_usage(entry.api, golden.usage)


def check_told(entry: Entry, golden: Golden, told: CompletionUsage | None) -> None:
    """What the client is told; whoever passes answers through tells what the provider told."""
    if entry.adapter not in corpus.TRANSLATED or not golden.usage:
        return
    assert told is not None
    details = told.prompt_tokens_details
    cached = details.cached_tokens if details is not None else None
    assert (told.prompt_tokens, told.completion_tokens, cached) == corpus.told_usage(entry.api, golden.usage)
    assert told.total_tokens == told.prompt_tokens + told.completion_tokens


@pytest.mark.parametrize("entry", used(ok=True, stream=False))
def test_complete_answer_means_what_was_recorded(entry: Entry) -> None:
    """A complete answer is valid for OpenAI's strict types and says what the provider said."""
    recording, golden = corpus.read(entry), corpus.golden(entry)

    reply = answer_of(entry, recording)

    found = corpus.completion(reply.body, strict=entry.file not in NOT_STRICT)
    said = corpus.said_complete(found)
    check_said(entry, recording, golden, said)
    check_usage(entry, golden, reply.usage)
    check_told(entry, golden, found.usage)
    assert reply.finish == said.finish


@pytest.mark.parametrize("entry", used(ok=True, stream=True))
def test_streamed_answer_means_what_was_recorded(entry: Entry) -> None:
    """A stream is valid for OpenAI's strict types, chunk by chunk, and says what the provider said."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    parser = parser_of(entry, recording)

    out = b"".join([parser.feed(piece) for piece in recording.pieces()]) + parser.close()

    found = corpus.chunks(out, strict=entry.file not in NOT_STRICT)
    check_said(entry, recording, golden, corpus.said_streamed(found))
    check_usage(entry, golden, parser.usage)
    check_told(entry, golden, found[-1].usage)
    assert parser.started
    assert parser.finish is not None


@pytest.mark.parametrize("entry", used(ok=True, stream=True))
def test_pieces_do_not_matter(entry: Entry) -> None:
    """The client gets the same bytes however the network cuts the stream: as recorded, whole, byte by byte."""
    recording = corpus.read(entry)
    body = recording.body
    results = set()

    for pieces in (recording.pieces(), [body], [body[at : at + 1] for at in range(len(body))]):
        parser = parser_of(entry, recording)
        results.add(b"".join([parser.feed(piece) for piece in pieces]) + parser.close())

    assert len(results) == 1


@pytest.mark.parametrize("entry", used(ok=True, stream=True))
def test_a_cut_stream_is_never_taken_for_whole(entry: Entry) -> None:
    """A stream that ends before its finish raises, so that nobody takes half an answer for a whole one."""
    recording = corpus.read(entry)
    probe, parser = parser_of(entry, recording), parser_of(entry, recording)
    for event in recording.events():
        probe.feed(event)
        # Some of Gemini's recordings stop without the last blank line, which completes the event with the finish.
        last = entry.api == "gemini" and not event.endswith((b"\n\n", b"\r\n\r\n"))
        if probe.finish is not None or probe.done or last:
            break
        parser.feed(event)

    with pytest.raises(errors.UnavailableError) as raised:
        parser.close()

    assert raised.value.code == "upstream_truncated"


@pytest.mark.parametrize("entry", used(adapters=corpus.TRANSLATED, ok=True, stream=True))
def test_translated_stream_has_openais_order(entry: Entry) -> None:
    """A translated stream is one role chunk, content, one finish chunk and the usage, all under one id."""
    recording = corpus.read(entry)
    parser = parser_of(entry, recording)

    found = corpus.chunks(parser.feed(recording.body) + parser.close(), strict=True)

    finishes = [bool(chunk.choices and chunk.choices[0].finish_reason) for chunk in found]
    told = [True] if corpus.golden(entry).usage else []
    assert len({(chunk.id, chunk.model, chunk.created) for chunk in found}) == 1
    assert [bool(chunk.choices and chunk.choices[0].delta.role) for chunk in found] == [True] + [False] * len(found[1:])
    assert [chunk.usage is not None for chunk in found] == [False] * (len(found) - len(told)) + told
    assert finishes == [False] * (len(found) - len(told) - 1) + [True] + [False] * len(told)


@pytest.mark.parametrize("entry", [one for one in used() if one.values[0].file in BROKEN])
def test_an_error_in_an_answer_is_one(entry: Entry) -> None:
    """An answer that is an error, or ends in one, is told no end; what was said before the error is not lost."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    parser = parser_of(entry, recording)

    with pytest.raises(errors.UpstreamError) as raised:
        parser.feed(recording.body) if entry.stream else answer_of(entry, recording)

    assert type(raised.value) is BROKEN[entry.file]
    assert raised.value.message == golden.error
    said = corpus.said_streamed(corpus.chunks(raised.value.before + sse.DONE, strict=True))
    assert (said.text, said.finish) == (golden.text, None)


@pytest.mark.parametrize("entry", [one for one in used() if one.values[0].file in NO_ANSWER])
def test_no_answer_in_a_200_is_an_error(entry: Entry) -> None:
    """What is no answer is never told as one: it is an unavailable upstream, so that the next one can be asked."""
    recording = corpus.read(entry)

    def read() -> None:
        if not entry.stream:
            answer_of(entry, recording)
            return
        parser = parser_of(entry, recording)
        parser.feed(recording.body)
        parser.close()

    with pytest.raises(errors.UnavailableError) as raised:
        read()

    assert raised.value.code == NO_ANSWER[entry.file]


@pytest.mark.parametrize("entry", [one for one in used(ok=False) if one.values[0].status >= 400])
def test_error_answer_becomes_its_class(entry: Entry) -> None:
    """An error answer has the class its status (or its text) calls for, and the provider's words in OpenAI's shape."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    assert golden.error is not None

    error = adapter_of(entry).parse_error(entry.status, recording.response.headers, recording.body)

    assert type(error) is ERROR_OF_FILE.get(entry.file, ERROR_OF_STATUS[entry.status])
    told = msgspec.json.decode(error.body())["error"]
    assert set(told) == {"message", "type", "param", "code"}
    assert golden.error in told["message"] or len(golden.error) > 500


@pytest.mark.parametrize(
    "entry", [one for one in used(adapters=("openai",)) if corpus.read(one.values[0]).request.body]
)
def test_passed_through_request_keeps_its_bytes(entry: Entry) -> None:
    """Only the model and the asking for usage differ, and the names that the provider's row says it has."""
    body = sent_by(corpus.read(entry))
    assert body is not None
    raw = msgspec.json.encode(body)
    if entry.file in REFUSED:
        with pytest.raises(errors.ClientError) as raised:
            decode_chat(raw, CREATED)
        assert raised.value.code == REFUSED[entry.file]
        return
    request = decode_chat(raw, CREATED)

    sent = adapter_of(entry).render(request, corpus.target(entry, "another-model")).body

    expected = body | {"model": "another-model"}
    if entry.stream:
        expected["stream_options"] = (body.get("stream_options") or {}) | {"include_usage": True}
    expected = named(expected, {LIMITS[quirk]: quirk for quirk in entry.quirks & LIMITS.keys()})
    if "reasoning" in entry.quirks:
        expected["messages"] = [named(one, {"reasoning_content": "reasoning"}) for one in body["messages"]]
    assert sent == msgspec.json.encode(expected)


# The two names of the limit on the answer: what a row's quirk replaces.
LIMITS: Final = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}


def named(table: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in table.items()}


def test_account_of_all_recordings() -> None:
    """Every recording is used or has its reason, and every exception listed above is still needed."""
    listed = everything()
    table = Counter((entry.provider, entry.api, reason_unused(entry) or "used") for entry in listed)

    for (provider, api, verdict), count in sorted(table.items()):
        print(f"{count:5} {provider:24} {api:20} {verdict}")

    assert sum(table.values()) == len(listed)
    assert sum(count for (*_, verdict), count in table.items() if verdict == "used") == len(used())
    files = {entry.file for entry in listed}
    if corpus.entries(corpus.CORPUS):
        excepted = {*NOT_STRICT, *REFUSED, *ARGUMENTS, *UNUSABLE, *ERROR_OF_FILE, *BROKEN}
        excepted |= {*responses.UNUSABLE, *responses.NOT_COUNTED}
        assert files >= {*excepted, *NO_ANSWER, *NOT_ASKED, *FINISH_OF_FILE}


def test_the_whole_corpus_is_there() -> None:
    """Without the corpus only the recordings of the repository were checked, and the report says so."""
    if not corpus.entries(corpus.CORPUS):
        pytest.skip(f"no recordings in {corpus.CORPUS}: set SIDECAR_CORPUS; only tests/contract/fixtures was checked")
    assert len(used()) > len(corpus.entries(corpus.FIXTURES))
