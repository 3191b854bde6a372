"""Recordings through a running sidecar, read by the official SDK with its strict types: what a client really gets.

Each provider's recordings are played in turn to one sidecar, whose provider row has the quirks of the shipped catalog:
whole and in the pieces in which they were received; short streams also byte by byte (`test_contract` does all so).
"""

from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import Any, Final

import openai
import pytest
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from proxy import errors
from proxy.adapter import load
from proxy.conform.cases import Case
from proxy.conform.checks import check_message, check_said, check_told, same, strict
from proxy.conform.sdk import said_complete, said_streamed
from tests.conftest import Sidecar, StartSidecar, StartUpstream
from tests.fake_upstream import FakeUpstream, Play, reply, stream

from . import corpus

# By adapter, the paths asked for a complete answer and for a stream.
PATHS: Final = {
    "anthropic": ("/v1/messages", "/v1/messages"),
    "bedrock": ("/v1/model/m/converse", "/v1/model/m/converse-stream"),
    "cohere": ("/v1/chat", "/v1/chat"),
    "gemini": ("/v1/models/m:generateContent", "/v1/models/m:streamGenerateContent?alt=sse"),
    "ollama": ("/v1/api/chat", "/v1/api/chat"),
    "openai": ("/v1/chat/completions", "/v1/chat/completions"),
    "responses": ("/v1/responses", "/v1/responses"),
    "vertex": ("/v1/models/m:generateContent", "/v1/models/m:streamGenerateContent?alt=sse"),
}
# By adapter, the header that has the key, where it is not OpenAI's.
KEYED: Final = {"anthropic": ("x-api-key", "{}"), "gemini": ("x-goog-api-key", "{}")}
ASKED: Final[dict[str, Any]] = {"model": "test", "messages": [{"role": "user", "content": "hi"}]}
STREAMED: Final[dict[str, Any]] = {**ASKED, "stream": True, "stream_options": {"include_usage": True}}
KEY: Final = "the-sidecars-own"
# Byte by byte, an answer is as many writes.
_SHORT: Final = 4_000
# What a client is told of a key that the provider refuses: it is the sidecar's.
_BAD_GATEWAY: Final = 502


@cache
def served() -> dict[str, list[Case]]:
    """The recordings by adapter and provider."""
    cases = [corpus.case(entry) for entry in corpus.found()]
    by_name = sorted(cases, key=lambda case: (case.adapter, case.provider, case.file))
    return {f"{adapter}-{provider}": list(found) for (adapter, provider), found in groupby(by_name, key=_row)}


def _row(case: Case) -> tuple[str, str]:
    return case.adapter, case.provider


def cuts(case: Case) -> Iterator[Play]:
    """The recorded answer as the network may bring it. A head without its body's length comes with a stream only."""
    if case.status >= 400:
        kept = {name.replace("-", "_"): text for name, text in case.headers.items() if name.startswith("x-amzn")}
        yield reply(case.body, case.status, **kept)
        return
    kind = case.headers.get("content-type", "application/json")
    if not case.stream:
        yield reply(case.body, content_type=kind)
        return
    yield stream(case.body, content_type=kind)
    yield stream(*case.pieces, content_type=kind)
    if len(case.body) <= _SHORT:
        yield stream(*(case.body[at : at + 1] for at in range(len(case.body))), content_type=kind)


def client_of(running: Sidecar) -> openai.AsyncOpenAI:
    """The official SDK, which checks every answer against OpenAI's types."""
    return openai.AsyncOpenAI(
        base_url=running.url, api_key="none", max_retries=0, _strict_response_validation=True
    )  # fmt: skip


class Client:
    """Asks once and keeps what it hears: chunks or a completion, and the error that it ends in, if any."""

    def __init__(self, sdk: openai.AsyncOpenAI, case: Case) -> None:
        self.sdk, self.case = sdk, case
        self.chunks: list[ChatCompletionChunk] = []
        self.whole: ChatCompletion | None = None
        self.error: openai.APIError | None = None

    async def ask(self) -> None:
        """Ask as the recorded client did: for an answer or for a stream."""
        try:
            if not self.case.stream:
                self.whole = await self.sdk.chat.completions.create(**ASKED)
                return
            async for chunk in await self.sdk.chat.completions.create(**STREAMED):
                self.chunks.append(chunk)  # what came before an error counts
        except openai.APIError as error:
            self.error = error

    def check(self) -> None:
        """What was heard is what was recorded."""
        if self.case.outcome != "answer":
            self._check_error()
            return
        if self.error is not None and self.case.expected.late:
            check_message(self.case, self.error.message)
            return
        assert self.error is None, self.error
        said = said_streamed(self.chunks) if self.whole is None else said_complete(self.whole)
        check_said(self.case, said)
        check_told(self.case, self._usage())
        told = [chunk.usage is not None for chunk in self.chunks[:-1]]
        same("chunks with usage before the last", [False] * len(told), told)

    def _usage(self) -> CompletionUsage | None:
        return self.chunks[-1].usage if self.whole is None else self.whole.usage

    def _check_error(self) -> None:
        assert self.error is not None, "an error was told as an answer"
        kind = self.case.expected.kind
        if kind is None:
            assert self.error.code in ("upstream_truncated", "upstream_invalid_response", "upstream_interrupted")
            return
        check_message(self.case, self.error.message)
        # A class without a status of its own passes the provider's on.
        if isinstance(self.error, openai.APIStatusError) and kind not in ("invalid_request", "unavailable"):
            same("status", errors.BY_KIND[kind].status, self.error.status_code)
        if self.case.status < 400:
            said = said_streamed(self.chunks)
            same("what was said before the error", (self.case.expected.said.text, None), (said.text, said.finish))


def check_log(case: Case, line: dict[str, Any]) -> None:
    """The log counts what is paid for."""
    if case.expected.late:
        return  # the usage comes with the error
    if case.outcome != "answer":
        assert line["error"]
        return
    billed = (line.get("input_tokens"), line.get("output_tokens"))
    same("tokens in the log", case.expected.billed[:2] if case.expected.billed else (None, None), billed)


def check_asked(case: Case, provider: FakeUpstream) -> None:
    """The provider was asked at its own path, with the sidecar's key where it wants one."""
    name, value = KEYED.get(case.adapter, ("authorization", "Bearer {}"))
    for request in provider.requests:
        assert request.path in PATHS[case.adapter]
        assert request.headers.get(name) == value.format(KEY)


# After a failure an upstream rests; here every recording is to be asked for.
POLICY: Final = 'strategy = "cheapest"\n[fallback]\non = []\nattempts = 1\n'


@pytest.mark.parametrize("row", served())
async def test_a_client_gets_what_was_recorded(row: str, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Text, reasoning, calls, finish reason, usage and errors are those of the recording, however the network cuts."""
    cases = [case for case in served()[row] if not case.edited or strict(load(case.adapter), case)]
    bad = [case for case in cases if case.outcome != "answer"]
    await _play([case for case in cases if case.outcome == "answer"], sidecar, upstream)
    for case in bad:
        await _play([case], sidecar, upstream)


async def _play(cases: list[Case], sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Play recordings in turn to one sidecar; one that ends in an error has one to itself, as its upstream rests."""
    plays = [(case, play) for case in cases for play in cuts(case)]
    if not plays:
        return
    first = cases[0]
    provider = await upstream(*(play for _, play in plays))
    row = {"adapter": first.adapter, "api_key": "env:KEY", "quirks": sorted(first.quirks)}
    running = await sidecar(provider, provider=row, environ={"KEY": KEY}, policy=POLICY)
    async with client_of(running) as sdk:
        for case, _ in plays if first.outcome == "answer" else plays[:1]:
            client = Client(sdk, case)
            await client.ask()
            try:
                client.check()
            except Exception as error:
                raise AssertionError(f"{case.file}: {error}") from error
            check_log(case, running.log("request")[-1])
    check_asked(first, provider)


def test_every_recording_is_served() -> None:
    """Every recording is in the test above, but for those that somebody changed so that no strict client reads them."""
    listed = [case for cases in served().values() for case in cases]
    assert {case.file for case in listed} == {entry.file for entry in corpus.found()}
    assert len(listed) == len(corpus.found())
