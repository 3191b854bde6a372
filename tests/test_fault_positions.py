"""Streams that break at every place: between any two events of twelve in each language, and split at any byte."""

import asyncio
import re
from pathlib import Path

import msgspec
import pytest

from proxy import demo_plays
from proxy.demo_faults import parse
from proxy.demo_plays import Scene
from proxy.demo_words import Anthropic, Events, OpenAI, Words
from tests.conftest import Got
from tests.fault_cells import HASTY, LANGUAGES, PROMPT, Leaks, Timer, asked, seen, stage
from tests.fault_matrix import broken

# With these each language takes twelve events.
PROMPTS = {"openai": "one two three four five six seven eight", "anthropic": "one two three four five six"}
# What ends a stream that has begun, and what a client is told before that.
CODES = {
    "cut": ("upstream_interrupted", "502 `upstream_truncated`"),
    "end": ("upstream_interrupted", "502 `upstream_truncated`"),
    "stall": ("upstream_idle_timeout", "504 `upstream_timeout`"),
    "garbage": ("upstream_invalid_event", "502 `upstream_invalid_event`"),
    "error": ("server_error", "502 `server_error`"),
}
OVERLOADED = ("overloaded", "503 `overloaded`")


@pytest.fixture
def leaks(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Leaks:
    """Looks for keys in what is said."""
    return Leaks(capfd, caplog)


def speaker(language: str, model: str, prompt: str, created: int = 1) -> Words:
    """What the provider says when nothing goes wrong."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": prompt}]}
    if language == "openai":
        body["stream_options"] = {"include_usage": True}
    read = OpenAI.read if language == "openai" else Anthropic.read
    return read(msgspec.json.encode(body), "a-1", created, 0)


def twelve(language: str, model: str, created: int = 1) -> Events:
    """The events of it."""
    events = speaker(language, model, PROMPTS[language], created).events("")
    assert len(events.all()) == 12
    return events


@pytest.mark.parametrize("fallback", [False, True], ids=["alone", "fallback"])
@pytest.mark.parametrize("place", range(13))
@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_place(tmp_path: Path, leaks: Leaks, language: str, kind: str, place: int, fallback: bool) -> None:
    """F18 to F21: before the first words a plain error or the fallback's answer; among them what was said, then an
    error event; behind the finish reason the whole answer.
    """
    model, prompt = f"fault/{kind}-at-{place}", PROMPTS[language]
    events = twelve(language, model)
    spoken = place - len(events.opening)
    late, early = CODES[kind] if (kind, language) != ("error", "anthropic") else OVERLOADED
    async with stage(
        tmp_path, leaks, model, language=language, fallback=fallback, timeouts=HASTY if kind == "stall" else None
    ) as running:
        timer = Timer()
        got = await running.ask(stream=True, prompt=prompt)
        timer.check(0, 3)

        found = seen(got, model, prompt)
        if spoken <= 0:
            assert found == ("the fallback's answer" if fallback else early)
        elif spoken < len(events.words) + len(events.finish):
            assert found == broken(late)
            check_said(got, language, model, min(spoken, len(events.words)))
        else:
            assert found == "the answer"
        # A provider's own 5xx is tried once more where nobody else can be asked.
        again = found == "502 `server_error`"
        assert (running.a.requests, running.b.requests) == (1 + again, spoken <= 0 and fallback)


def check_said(got: Got, language: str, model: str, words: int) -> None:
    """A client gets the words before the fault, all and no other: in OpenAI's language the very bytes."""
    said = got.events[:-1]
    created = msgspec.json.decode(said[0])["created"]
    if language == "openai":
        events = twelve(language, model, created)
        assert b"".join(b"data: " + event + b"\n\n" for event in said) == b"".join(events.all()[: 1 + words])
    assert got.text == " ".join(PROMPTS[language].split()[:words])


async def test_every_split(tmp_path: Path, leaks: Leaks) -> None:
    """F22: a stream in two packets is the same stream, wherever they part: in the head, a chunk's size, a character."""
    scene = Scene(parse("split-at-0"), speaker("openai", "fault/split-at-1000", PROMPT))
    places = iter(range(1, sum(map(len, demo_plays.play(scene).pieces))))
    async with stage(tmp_path, leaks, "echo", timeouts={"first_event": 5.0}) as running:
        found = set()

        async def take() -> None:
            async with running.sidecar.connect() as wire:
                for place in places:
                    model = f"fault/split-at-{place}"
                    got = await wire.ask(asked(stream=True, model=f"a/{model}"))
                    assert seen(got, model) == "the answer", place
                    found.add(re.sub(rb'"(id|created|model)":("[^"]*"|\d+)', b"", got.body))

        await asyncio.gather(*(take() for _ in range(8)))
        assert len(found) == 1
        assert running.a.requests > 3000
