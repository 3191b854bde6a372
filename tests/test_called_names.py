"""Calls in a stream through a running sidecar: they have the client's names, although a stream holds no body."""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from proxy.adapter import Target, load
from proxy.wire import decode_chat
from tests import anthropic_words, bedrock_words, gemini_words
from tests.conftest import StartSidecar, StartUpstream
from tests.fake_upstream import Play, stream

ASKED: Final = {"model": "test", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
# No provider here takes this name.
TOOL: Final = {"name": "mcp server/tool", "parameters": {"type": "object"}}


def anthropic(name: str) -> Play:
    words = anthropic_words
    return stream(words.begin(), words.opened(0, words.use(name=name)), words.closed(0), words.end("tool_use"))


def bedrock(name: str) -> Play:
    words = bedrock_words
    events = [words.begin(), words.opened(0, "one", name), words.closed(0), words.end("tool_use")]
    return stream(*events, content_type="application/vnd.amazon.eventstream")


def gemini(name: str) -> Play:
    return stream(gemini_words.piece(gemini_words.made(name=name), finish="STOP"))


LANGUAGES: Final = [anthropic, bedrock, gemini]


@pytest.mark.parametrize(
    "fields", [{"tools": [{"type": "function", "function": TOOL}]}, {"functions": [TOOL]}], ids=str
)
@pytest.mark.parametrize("called", LANGUAGES)
async def test_renamed_tool_gets_its_name_back(
    sidecar: StartSidecar, upstream: StartUpstream, called: Callable[[str], Play], fields: dict[str, Any]
) -> None:
    """A name that the provider refuses is the client's own again in its stream."""
    adapter, body = called.__name__, msgspec.json.encode(ASKED | fields)
    sent = load(adapter).render(decode_chat(body, 0), Target("m")).body
    renamed = re.search(rb"mcp_server_tool_[0-9a-f]{8}", sent)
    assert renamed is not None
    running = await sidecar(await upstream(called(renamed[0].decode())), provider={"adapter": adapter})

    got = await running.post(body)

    assert (got.status, got.events[-1]) == (200, b"[DONE]")
    assert b'"name":"mcp server/tool"' in got.body
    assert renamed[0] not in got.body


@pytest.mark.parametrize("called", LANGUAGES)
async def test_call_of_a_tool_that_nobody_named(
    sidecar: StartSidecar, upstream: StartUpstream, called: Callable[[str], Play]
) -> None:
    """A name that looks like a changed one is passed on when the request named no tool."""
    running = await sidecar(await upstream(called("best_language_to_learn")), provider={"adapter": called.__name__})

    got = await running.post(msgspec.json.encode(ASKED))

    assert (got.status, got.events[-1]) == (200, b"[DONE]")
    assert b'"name":"best_language_to_learn"' in got.body
