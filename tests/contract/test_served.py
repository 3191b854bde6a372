"""Recordings through a running sidecar, read by the official SDK with its strict types: what a client really gets.

For the languages that came after the first: the upstream plays a recording whole, in the pieces in which it was
received, and byte by byte.
"""

import re
from typing import Any, Final

import openai
import pytest
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.conftest import Sidecar, StartSidecar, StartUpstream
from tests.fake_upstream import FakeUpstream, Play, reply, stream

from . import corpus
from .corpus import Entry, Golden, Recording
from .test_contract import BROKEN, ERROR_OF_FILE, ERROR_OF_STATUS, NO_ANSWER, check_said, check_told, used

# The languages, and the paths asked for a complete answer and for a stream.
PATHS: Final = {
    "cohere": ("/v1/chat", "/v1/chat"),
    "gemini": ("/v1/models/m:generateContent", "/v1/models/m:streamGenerateContent?alt=sse"),
    "ollama": ("/v1/api/chat", "/v1/api/chat"),
    "responses": ("/v1/responses", "/v1/responses"),
    "vertex": ("/v1/models/m:generateContent", "/v1/models/m:streamGenerateContent?alt=sse"),
}
LANGUAGES: Final = tuple(PATHS)
ASKED: Final[dict[str, Any]] = {"model": "test", "messages": [{"role": "user", "content": "hi"}]}
STREAMED: Final[dict[str, Any]] = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}
KEY: Final = "the-sidecars-own"


def plays(recording: Recording) -> list[Play]:
    """The recorded answer in three cuts."""
    body = recording.body
    cuts = [[body], recording.pieces(), [body[at : at + 1] for at in range(len(body))]]
    kind = recording.response.headers.get("content-type", "application/json")
    return [stream(*filter(None, pieces), content_type=kind) for pieces in cuts]


async def started(entry: Entry, sidecar: StartSidecar, upstream: FakeUpstream) -> Sidecar:
    """A sidecar in front of what plays a recording."""
    return await sidecar(upstream, provider={"adapter": entry.adapter, "api_key": "env:KEY"}, environ={"KEY": KEY})


def client_of(running: Sidecar) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=running.url, api_key="none", max_retries=0, _strict_response_validation=True
    )  # fmt: skip


async def streamed(client: openai.AsyncOpenAI, heard: list[ChatCompletionChunk]) -> None:
    """Put the chunks of a stream into `heard`, as far as it comes."""
    async for chunk in await client.chat.completions.create(**STREAMED):
        heard.append(chunk)  # noqa: PERF401  # what came before an error counts


def timeless(chunk: ChatCompletionChunk) -> dict[str, Any]:
    """A chunk without what the clock has a part in: its time, and ids that had to be made up."""
    found = chunk.model_dump(exclude={"created", "id"})
    for choice in found["choices"]:
        for call in choice["delta"]["tool_calls"] or ():
            call["id"] = call["id"] is not None
    return found


def check_usage(entry: Entry, golden: Golden, usage: CompletionUsage | None) -> None:
    """The client is told the recorded usage, and none when none was recorded."""
    check_told(entry, golden, usage)
    assert (usage is None) == (not golden.usage)
    if usage is not None and entry.api == "gemini":
        assert usage.completion_tokens_details is not None
        thought = golden.usage.get("thoughtsTokenCount") or 0
        assert usage.completion_tokens_details.reasoning_tokens == thought


def check_asked(entry: Entry, provider: FakeUpstream) -> None:
    """The provider was asked at its own path each time, with the sidecar's key where it wants one."""
    name, value = ("x-goog-api-key", KEY) if entry.adapter == "gemini" else ("authorization", f"Bearer {KEY}")
    found = [(request.path, request.headers.get(name)) for request in provider.requests]
    assert found == [(PATHS[str(entry.adapter)][entry.stream], value)] * 3


def check_billed(entry: Entry, running: Sidecar, usage: dict[str, Any]) -> None:
    """The log counts what is paid for, the same for each cut."""
    expected = corpus.normal_usage(entry.api, usage)[:2] if usage else (None, None)
    lines = running.log("request")
    assert [(line.get("input_tokens"), line.get("output_tokens")) for line in lines] == [expected] * 3


@pytest.mark.parametrize("entry", used(adapters=LANGUAGES, ok=True, stream=False))
async def test_complete_answers(entry: Entry, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Text, reasoning, calls, finish reason and usage are those of the recording, however the network cut it."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    provider = await upstream(*plays(recording))
    running = await started(entry, sidecar, provider)

    async with client_of(running) as client:
        for _ in range(3):
            found: ChatCompletion = await client.chat.completions.create(**ASKED)
            check_said(entry, recording, golden, corpus.said_complete(found))
            check_usage(entry, golden, found.usage)

    check_asked(entry, provider)
    check_billed(entry, running, golden.usage)


@pytest.mark.parametrize("entry", used(adapters=LANGUAGES, ok=True, stream=True))
async def test_streams(entry: Entry, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The same of streams, which are the same chunks in each cut; JSON lines become events."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    provider = await upstream(*plays(recording))
    running = await started(entry, sidecar, provider)
    said: list[list[dict[str, Any]]] = []

    async with client_of(running) as client:
        for _ in range(3):
            heard: list[ChatCompletionChunk] = []
            await streamed(client, heard)
            check_said(entry, recording, golden, corpus.said_streamed(heard))
            check_usage(entry, golden, heard[-1].usage)
            said.append([timeless(chunk) for chunk in heard])

    assert said[0] == said[1] == said[2]
    check_asked(entry, provider)
    check_billed(entry, running, golden.usage)


@pytest.mark.parametrize("entry", [one for one in used(adapters=LANGUAGES) if one.values[0].file in BROKEN])
async def test_errors_inside_a_200(entry: Entry, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The client hears what was said before the error, then the error, and nothing that looks like an end."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    assert golden.error is not None

    for play in plays(recording):
        running = await started(entry, sidecar, await upstream(play))  # one each: a quota makes an upstream rest
        async with client_of(running) as client:
            heard: list[ChatCompletionChunk] = []
            with pytest.raises(openai.APIError) as raised:
                await streamed(client, heard)
        assert raised.value.message.endswith(golden.error)
        assert corpus.said_streamed(heard) == (golden.text, recording.plan, [], None)


@pytest.mark.parametrize("entry", [one for one in used(adapters=LANGUAGES) if one.values[0].file in NO_ANSWER])
async def test_a_200_without_an_answer(entry: Entry, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """It is an exception of the SDK's, before or after the first words, and the log says the same."""
    recording = corpus.read(entry)
    running = await started(entry, sidecar, await upstream(plays(recording)[0]))

    async with client_of(running) as client:
        with pytest.raises(openai.APIError) as raised:
            await (streamed(client, []) if entry.stream else client.chat.completions.create(**ASKED))

    # What was cut after the first words has a name of its own.
    assert raised.value.code in (NO_ANSWER[entry.file], "upstream_interrupted")
    assert [line["error"] for line in running.log("request")] == [raised.value.code]


@pytest.mark.parametrize("entry", [one for one in used(adapters=LANGUAGES) if one.values[0].status >= 400])
async def test_error_answers(entry: Entry, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """An error has its class and the provider's words, complete and streamed alike."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    kind = ERROR_OF_FILE.get(entry.file, ERROR_OF_STATUS[entry.status])
    running = await started(entry, sidecar, await upstream(reply(recording.body, entry.status)))

    async with client_of(running) as client:
        with pytest.raises(openai.APIStatusError) as raised:
            await client.chat.completions.create(**(STREAMED if entry.stream else ASKED))

    # A class without a code of its own leaves room for the provider's word.
    word = re.search(r'"(?:status|code)":\s*"(\w+)"', recording.response.body)
    code = kind.code or (word[1].lower() if word else None)
    assert (raised.value.status_code, raised.value.code) == (kind.status, code)
    assert golden.error is not None
    assert golden.error in raised.value.message or len(golden.error) > 500
    assert [line["kind"] for line in running.log("attempt_failed")] == [kind.kind]


def test_no_recording_is_left_out() -> None:
    """Every recording of these languages is in one of the tests above."""
    listed = [one.values[0] for one in used(adapters=LANGUAGES)]
    print({language: sum(entry.adapter == language for entry in listed) for language in LANGUAGES})
    whole = [len(used(adapters=LANGUAGES, ok=True, stream=stream)) for stream in (False, True)]
    failed = [one.values[0] for one in used(adapters=LANGUAGES, ok=False)]
    assert sum(whole) + len(failed) == len(listed)
    assert all(entry.status >= 400 or entry.file in {*BROKEN, *NO_ANSWER} for entry in failed)
