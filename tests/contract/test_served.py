"""Recordings through a running sidecar, read by the official SDK with its strict types: what a client really gets.

For the languages that came after the first: the upstream plays a recording whole, in the pieces in which it was
received, and byte by byte.
"""

from typing import Any, Final

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.conftest import Sidecar, StartSidecar, StartUpstream
from tests.fake_upstream import Play, reply, stream

from . import corpus
from .corpus import Entry, Recording
from .test_contract import BROKEN, ERROR_OF_FILE, check_said, check_told, used

LANGUAGES: Final = ("cohere", "ollama")
ASKED: Final[dict[str, Any]] = {"model": "test", "messages": [{"role": "user", "content": "hi"}]}


def plays(recording: Recording) -> list[Play]:
    """The recorded answer in three cuts."""
    body = recording.body
    cuts = [[body], recording.pieces(), [body[at : at + 1] for at in range(len(body))]]
    kind = recording.response.headers.get("content-type", "application/json")
    return [stream(*filter(None, pieces), content_type=kind) for pieces in cuts]


def client_of(running: Sidecar) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=running.url, api_key="none", max_retries=0, _strict_response_validation=True
    )  # fmt: skip


async def streamed(client: openai.AsyncOpenAI, heard: list[ChatCompletionChunk]) -> None:
    """Put the chunks of a stream into `heard`, as far as it comes."""
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    async for chunk in await client.chat.completions.create(**ASKED, **options):
        heard.append(chunk)  # noqa: PERF401  # what came before an error counts


@pytest.mark.parametrize("entry", used(adapters=LANGUAGES, ok=True, stream=False))
async def test_complete_answers(entry: Entry, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Text, reasoning, calls, finish reason and usage are those of the recording, however the network cut it."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    running = await sidecar(await upstream(*plays(recording)), provider={"adapter": entry.adapter})

    async with client_of(running) as client:
        for _ in range(3):
            found: ChatCompletion = await client.chat.completions.create(**ASKED)
            check_said(entry, recording, golden, corpus.said_complete(found))
            check_told(entry, golden, found.usage)

    check_billed(entry, running, golden.usage)


@pytest.mark.parametrize("entry", used(adapters=LANGUAGES, ok=True, stream=True))
async def test_streams(entry: Entry, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The same of streams; JSON lines become events."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    running = await sidecar(await upstream(*plays(recording)), provider={"adapter": entry.adapter})

    async with client_of(running) as client:
        for _ in range(3):
            heard: list[ChatCompletionChunk] = []
            await streamed(client, heard)
            check_said(entry, recording, golden, corpus.said_streamed(heard))
            check_told(entry, golden, heard[-1].usage)

    check_billed(entry, running, golden.usage)


def check_billed(entry: Entry, running: Sidecar, usage: dict[str, Any]) -> None:
    """The log counts what is paid for, the same for each cut."""
    expected = corpus.normal_usage(entry.api, usage)[:2] if usage else (None, None)
    lines = running.log("request")
    assert [(line.get("input_tokens"), line.get("output_tokens")) for line in lines] == [expected] * 3


@pytest.mark.parametrize("entry", [one for one in used(adapters=LANGUAGES) if one.values[0].file in BROKEN])
async def test_errors_inside_a_200(entry: Entry, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The client hears what was said before the error, then the error, and nothing that looks like an end."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    running = await sidecar(await upstream(*plays(recording)), provider={"adapter": entry.adapter})

    async with client_of(running) as client:
        for _ in range(3):
            heard: list[ChatCompletionChunk] = []
            with pytest.raises(openai.APIError) as raised:
                await streamed(client, heard)
            assert raised.value.message == golden.error
            assert corpus.said_streamed(heard) == (golden.text, recording.plan, [], None)


@pytest.mark.parametrize(
    "entry", [one for one in used(adapters=LANGUAGES, ok=False) if one.values[0].file not in BROKEN]
)
async def test_error_answers(entry: Entry, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """An error has its class and the provider's words."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    kind, play = ERROR_OF_FILE[entry.file], reply(recording.body, entry.status)
    running = await sidecar(await upstream(play), provider={"adapter": entry.adapter})

    async with client_of(running) as client:
        with pytest.raises(openai.APIStatusError) as raised:
            await client.chat.completions.create(**ASKED)

    assert (raised.value.status_code, raised.value.code) == (kind.status, kind.code)
    assert golden.error is not None
    assert golden.error in raised.value.message


def test_no_recording_is_left_out() -> None:
    """Every recording of these languages is in one of the tests above."""
    listed = [one.values[0] for one in used(adapters=LANGUAGES)]
    print({language: sum(entry.adapter == language for entry in listed) for language in LANGUAGES})
    whole = [len(used(adapters=LANGUAGES, ok=True, stream=stream)) for stream in (False, True)]
    failed = used(adapters=LANGUAGES, ok=False)
    assert sum(whole) + len(failed) == len(listed)
    assert all(one.values[0].file in {*BROKEN, *ERROR_OF_FILE} for one in failed)
