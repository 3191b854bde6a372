"""Recordings in OpenAI's language through a running sidecar, read by the official SDK with its strict types.

Each provider's recordings are played in turn to one sidecar, whose provider row has the quirks of the shipped catalog;
the adapter has seen the other cuts of them in `test_contract`.
"""

from typing import Any, Final

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.conftest import Sidecar, StartSidecar, StartUpstream
from tests.fake_upstream import Play, reply, stream

from . import corpus
from .corpus import Entry, Recording
from .dialects import BROKEN, LATE, NOT_STRICT
from .test_contract import ERROR_OF_FILE, ERROR_OF_STATUS, check_said, used

ASKED: Final[dict[str, Any]] = {"model": "test", "messages": [{"role": "user", "content": "hi"}]}
STREAMED: Final[dict[str, Any]] = {"stream": True, "stream_options": {"include_usage": True}}


def recorded(*, ok: bool) -> dict[str, list[Entry]]:
    """The recordings by provider; those that OpenAI's types refuse cannot be read by a strict client."""
    found: dict[str, list[Entry]] = {}
    for one in used(adapters=("openai",), ok=ok):
        entry: Entry = one.values[0]
        if entry.file not in (*NOT_STRICT, *LATE):
            found.setdefault(entry.provider, []).append(entry)
    return found


def play(entry: Entry, recording: Recording) -> Play:
    """The recorded answer in one piece; a stream ends with its connection."""
    if entry.status < 400 and entry.stream:
        return stream(recording.body)
    return reply(recording.body, entry.status)


def client_of(running: Sidecar) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=running.url, api_key="none", max_retries=0, _strict_response_validation=True
    )  # fmt: skip


async def heard(client: openai.AsyncOpenAI, entry: Entry) -> list[ChatCompletionChunk] | ChatCompletion:
    if not entry.stream:
        found: ChatCompletion = await client.chat.completions.create(**ASKED)
        return found
    return [chunk async for chunk in await client.chat.completions.create(**ASKED, **STREAMED)]


@pytest.mark.parametrize("provider", recorded(ok=True))
async def test_answers(provider: str, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Text, reasoning, calls and finish reason are those of the recording; usage is what is paid for."""
    entries = recorded(ok=True)[provider]
    recordings = [corpus.read(entry) for entry in entries]
    plays = [play(entry, recording) for entry, recording in zip(entries, recordings, strict=True)]
    quirks = {"quirks": sorted(entries[0].quirks)}
    running = await sidecar(await upstream(*plays), provider=quirks)

    async with client_of(running) as client:
        for entry, recording in zip(entries, recordings, strict=True):
            found = await heard(client, entry)
            said = corpus.said_streamed(found) if isinstance(found, list) else corpus.said_complete(found)
            check_said(entry, recording, corpus.golden(entry), said)
            if isinstance(found, list):
                assert [chunk.usage is not None for chunk in found[:-1]] == [False] * (len(found) - 1)

    lines = running.log("request")
    billed = [(line.get("input_tokens"), line.get("output_tokens")) for line in lines]
    usages = [corpus.golden(entry).usage for entry in entries]
    assert billed == [corpus.normal_usage("openai_chat", usage)[:2] if usage else (None, None) for usage in usages]


@pytest.mark.parametrize("provider", recorded(ok=False))
async def test_errors(provider: str, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """An error has its class and the provider's words, also inside a 200, where what was said before it is heard."""
    for entry in recorded(ok=False)[provider]:
        recording, golden = corpus.read(entry), corpus.golden(entry)
        quirks = {"quirks": sorted(entry.quirks)}
        running = await sidecar(await upstream(play(entry, recording)), provider=quirks)
        kind = BROKEN.get(entry.file) or ERROR_OF_FILE.get(entry.file) or ERROR_OF_STATUS[entry.status]

        async with client_of(running) as client:
            with pytest.raises(openai.APIError) as raised:
                await heard(client, entry)

        assert golden.error is not None
        assert golden.error in raised.value.message or len(golden.error) > 500
        if isinstance(raised.value, openai.APIStatusError) and kind.status not in (400, 502):
            assert raised.value.status_code == kind.status


@pytest.mark.parametrize("file", LATE)
async def test_an_error_behind_the_end(file: str, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The answer had ended: its finish reason stands."""
    found = [one.values[0] for one in used(adapters=("openai",)) if one.values[0].file == file]
    if not found:
        pytest.skip(f"no recordings in {corpus.CORPUS}: set SIDECAR_CORPUS")
    quirks = {"quirks": sorted(found[0].quirks)}
    running = await sidecar(await upstream(play(found[0], corpus.read(found[0]))), provider=quirks)

    async with client_of(running) as client:
        chunks = await heard(client, found[0])

    assert isinstance(chunks, list)
    assert corpus.said_streamed(chunks).finish == LATE[file]


def test_no_recording_is_left_out() -> None:
    """Every recording in this language is in one of the tests above, but for those that no strict client can read."""
    listed = [one.values[0] for one in used(adapters=("openai",))]
    served = [entry for ok in (True, False) for entries in recorded(ok=ok).values() for entry in entries]
    assert {entry.file for entry in listed} - {entry.file for entry in served} <= {*NOT_STRICT, *LATE}
    assert len(served) == len({entry.file for entry in served})
