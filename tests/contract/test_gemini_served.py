"""Recordings of Gemini through a running sidecar, read by the official SDK with its strict validation.

`test_contract` says what the adapters do; this says that nothing between a socket and an SDK spoils it.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk

from tests.conftest import Sidecar, StartSidecar, StartUpstream
from tests.fake_upstream import Play, reply, stream

from . import corpus
from .corpus import Entry, Golden, Recording, Said
from .test_contract import ERROR_OF_FILE, ERROR_OF_STATUS, FINISH_OF_FILE, NO_ANSWER, used

GEMINI: Final = ("gemini", "vertex")
ASKED: Final[Any] = {"model": "p0/gemini-2.5-flash", "messages": [{"role": "user", "content": "hi"}]}
STREAMED: Final[Any] = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}
# How the adapters' paths end.
PATHS: Final = {
    False: "/v1/models/gemini-2.5-flash:generateContent",
    True: "/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
}
KEY: Final = "the-sidecars-own"
Start = Any


@pytest.fixture
async def served(sidecar: StartSidecar, upstream: StartUpstream) -> AsyncIterator[Start]:
    """Start a sidecar in front of an upstream that plays what it is given; returns it, a strict client and requests."""
    clients: list[AsyncOpenAI] = []

    async def start(entry: Entry, *plays: Play) -> tuple[Sidecar, AsyncOpenAI, list[Any]]:
        provider = {"adapter": entry.adapter, "api_key": "env:KEY"}
        plays_it = await upstream(*plays)
        running = await sidecar(plays_it, provider=provider, environ={"KEY": KEY})
        client = AsyncOpenAI(
            base_url=running.url, api_key="none", max_retries=0, _strict_response_validation=True, timeout=20
        )
        clients.append(client)
        return running, client, plays_it.requests

    yield start
    for client in clients:
        await client.close()


def check(entry: Entry, golden: Golden, said: Said, usage: Any) -> None:
    """What the client heard is what was recorded."""
    finish = FINISH_OF_FILE.get(entry.file, golden.openai_finish)
    assert said == Said(golden.text, golden.reasoning, golden.tool_calls, finish)
    if not golden.usage:
        assert usage is None
        return
    cached = usage.prompt_tokens_details.cached_tokens
    assert (usage.prompt_tokens, usage.completion_tokens, cached) == corpus.normal_usage(entry.api, golden.usage)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens_details.reasoning_tokens == (golden.usage.get("thoughtsTokenCount") or 0)


def ways(recording: Recording) -> list[Play]:
    """The recorded stream in one piece, as it was recorded, and byte by byte."""
    body = recording.body
    return [stream(body), stream(*recording.pieces()), stream(*[body[at : at + 1] for at in range(len(body))])]


def timeless(chunk: ChatCompletionChunk) -> dict[str, Any]:
    """A chunk without what the clock has a part in: its time, and ids that had to be made up."""
    found = chunk.model_dump(exclude={"created", "id"})
    for choice in found["choices"]:
        for call in choice["delta"]["tool_calls"] or ():
            call["id"] = call["id"] is not None
    return found


@pytest.mark.parametrize("entry", used(adapters=GEMINI, ok=True, stream=False))
async def test_complete_answer_reaches_the_sdk(entry: Entry, served: Start) -> None:
    """A complete answer validates strictly and says what was recorded."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    _, client, requests = await served(entry, reply(recording.body))

    answer = await client.chat.completions.create(**ASKED)

    check(entry, golden, corpus.said_complete(answer), answer.usage)
    assert [request.path for request in requests] == [PATHS[False]]
    name, value = ("authorization", f"Bearer {KEY}") if entry.adapter == "vertex" else ("x-goog-api-key", KEY)
    assert requests[0].headers[name] == value


@pytest.mark.parametrize("entry", used(adapters=GEMINI, ok=True, stream=True))
async def test_stream_reaches_the_sdk_however_it_is_cut(entry: Entry, served: Start) -> None:
    """A stream validates strictly, chunk by chunk, and says the same whole, as it was recorded and byte by byte."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    _, client, requests = await served(entry, *ways(recording))
    heard: list[list[ChatCompletionChunk]] = []

    for _ in range(3):
        answer = await client.chat.completions.create(**STREAMED)
        heard.append([chunk async for chunk in answer])

    bills = [chunk.usage for chunk in heard[0] if chunk.usage is not None]
    check(entry, golden, corpus.said_streamed(heard[0]), bills[0] if bills else None)
    assert [request.path for request in requests] == [PATHS[True]] * 3
    said = [[timeless(chunk) for chunk in chunks] for chunks in heard]
    assert said[0] == said[1] == said[2]


@pytest.mark.parametrize("entry", [one for one in used(adapters=GEMINI, ok=False) if one.values[0].status >= 400])
async def test_error_reaches_the_sdk_as_its_class(entry: Entry, served: Start) -> None:
    """An error answer is an exception of the SDK's with the provider's words, complete and streamed alike."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    expected = ERROR_OF_FILE.get(entry.file, ERROR_OF_STATUS[entry.status])
    running, client, _ = await served(entry, reply(recording.body, entry.status))

    with pytest.raises(openai.APIStatusError) as raised:
        await client.chat.completions.create(**(STREAMED if entry.stream else ASKED))

    assert raised.value.status_code == expected.status
    assert golden.error is not None
    assert golden.error in raised.value.message or len(golden.error) > 500
    assert [line["kind"] for line in running.log("attempt_failed")] == [expected.kind]


@pytest.mark.parametrize("entry", [one for one in used(adapters=GEMINI, ok=False) if one.values[0].status < 400])
async def test_no_answer_reaches_the_sdk_as_an_error(entry: Entry, served: Start) -> None:
    """A 200 without an answer in it is an exception of the SDK's, before or after the first words."""
    recording = corpus.read(entry)
    running, client, _ = await served(entry, stream(recording.body) if entry.stream else reply(recording.body))

    async def ask() -> None:
        answer = await client.chat.completions.create(**(STREAMED if entry.stream else ASKED))
        async for _ in answer:
            pass

    with pytest.raises(openai.APIError) as raised:
        await ask()

    # What was cut after the first words has a name of its own.
    assert raised.value.code in (NO_ANSWER[entry.file], "upstream_interrupted")
    assert [line["error"] for line in running.log("request")] == [raised.value.code]
