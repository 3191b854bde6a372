"""Every recording of Bedrock's Converse goes through a running sidecar to the official SDK, over real sockets.

Streams are played whole, in the pieces they were recorded in, and byte by byte. No recording is left out: the last
test counts them.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.conftest import Sidecar, StartSidecar, StartUpstream
from tests.fake_upstream import FakeUpstream, Play, reply, stream

from . import corpus
from .corpus import Entry, Golden, Recording, Said
from .test_contract import everything, used

HI: Final[Any] = [{"role": "user", "content": "hi"}]
KEY: Final = "bedrock-key"
EVENTS: Final = "application/vnd.amazon.eventstream"
MODEL: Final = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
# What a client of the SDK is told: a key that AWS refuses is the sidecar's, hence 502.
STATUS_OF: Final = {400: 404, 403: 502, 404: 404}
CUTS: Final[dict[str, Callable[[Recording], list[bytes]]]] = {
    "whole": lambda recording: [recording.body],
    "recorded": Recording.pieces,
    "bytes": lambda recording: [recording.body[at : at + 1] for at in range(len(recording.body))],
}


def play(recording: Recording, pieces: list[bytes] | None = None) -> Play:
    """The recorded answer: with `pieces` as a stream, else whole."""
    if pieces is not None:
        return stream(*pieces, content_type=EVENTS)
    kept = {name: text for name, text in recording.response.headers.items() if name.startswith("x-amzn")}
    return reply(recording.body, recording.response.status, **kept)


async def started(sidecar: StartSidecar, upstream: StartUpstream, answer: Play) -> tuple[Sidecar, FakeUpstream]:
    """A sidecar in front of Bedrock, which plays `answer`."""
    bedrock = await upstream(answer)
    running = await sidecar(
        bedrock, provider={"adapter": "bedrock", "api_key": "env:AWS_KEY"}, environ={"AWS_KEY": KEY}
    )
    return running, bedrock


def client(running: Sidecar) -> openai.AsyncOpenAI:
    """The official SDK, which checks every answer against OpenAI's types."""
    return openai.AsyncOpenAI(base_url=running.url, api_key="unused", max_retries=0, _strict_response_validation=True)


def check(golden: Golden, said: Said, usage: Any) -> None:
    """What the client found is what was recorded, and so are the tokens."""
    assert said == Said(golden.text, golden.reasoning, golden.tool_calls, golden.openai_finish)
    if not golden.usage:
        assert usage is None
        return
    found = (usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens)
    assert found == corpus.normal_usage("bedrock_converse", golden.usage)
    assert usage.total_tokens == golden.usage["totalTokens"]


def check_account(running: Sidecar, golden: Golden) -> None:
    """The sidecar's own books say the same."""
    [line] = running.log("request")
    wanted = corpus.normal_usage("bedrock_converse", golden.usage)[:2] if golden.usage else (None, None)
    assert (line.get("input_tokens"), line.get("output_tokens")) == wanted


@pytest.mark.parametrize("entry", used(adapters=("bedrock",), ok=True, stream=False))
async def test_complete_answer(sidecar: StartSidecar, upstream: StartUpstream, entry: Entry) -> None:
    """A complete answer satisfies the SDK, says what was recorded and is accounted; the request was Bedrock's."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    running, bedrock = await started(sidecar, upstream, play(recording))

    async with client(running) as sdk:
        found: ChatCompletion = await sdk.chat.completions.create(model=f"p0/{MODEL}", messages=HI)

    check(golden, corpus.said_complete(found), found.usage)
    check_account(running, golden)
    [request] = bedrock.requests
    assert request.path == "/v1/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.json == {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("entry", used(adapters=("bedrock",), ok=True, stream=True))
async def test_streamed_answer(sidecar: StartSidecar, upstream: StartUpstream, entry: Entry, cut: str) -> None:
    """A stream satisfies the SDK, says what was recorded and is accounted, however the network cuts it."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    running, bedrock = await started(sidecar, upstream, play(recording, CUTS[cut](recording)))

    async with client(running) as sdk:
        chunks: AsyncIterator[ChatCompletionChunk] = await sdk.chat.completions.create(
            model=f"p0/{MODEL}", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        found = [chunk async for chunk in chunks]

    check(golden, corpus.said_streamed(found), found[-1].usage)
    check_account(running, golden)
    assert bedrock.requests[0].path.endswith("/converse-stream")


@pytest.mark.parametrize("entry", used(adapters=("bedrock",), ok=False))
async def test_error_answer(sidecar: StartSidecar, upstream: StartUpstream, entry: Entry) -> None:
    """An error is raised by the SDK with the status of its class and the provider's words."""
    recording, golden = corpus.read(entry), corpus.golden(entry)
    running, _ = await started(sidecar, upstream, play(recording))

    async with client(running) as sdk:
        with pytest.raises(openai.APIStatusError) as raised:
            await sdk.chat.completions.create(model=f"p0/{MODEL}", messages=HI, stream=entry.stream)

    assert raised.value.status_code == STATUS_OF[entry.status]
    assert golden.error is not None
    assert golden.error in raised.value.message


def test_account_of_bedrock_recordings() -> None:
    """Every recording of Converse was played: complete, streamed or as an error."""
    recorded = [entry for entry in everything() if entry.api == "bedrock_converse"]
    table = Counter((entry.status, "stream" if entry.stream else "complete") for entry in recorded)

    for (status, mode), count in sorted(table.items()):
        print(f"{count:5} {status} {mode}")

    assert sum(table.values()) == len(used(adapters=("bedrock",)))
