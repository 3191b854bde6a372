"""Streams that break at every place: between any two events of twelve in each language, and split at any byte."""

import asyncio
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import msgspec
import pytest

from proxy import demo_plays
from proxy.demo_faults import parse
from proxy.demo_languages import LANGUAGES
from proxy.demo_plays import Scene
from proxy.demo_words import Events, Words
from tests.conftest import Got
from tests.fault_cells import ANSWER, OTHER, PROMPT, Leaks, Timer, asked, seen, stage
from tests.fault_matrix import broken

# How many words make twelve events: the others say who speaks, that a part begins or ends, why all ends.
WORDS = {"openai": 8, "anthropic": 6, "gemini": 11, "bedrock": 8, "cohere": 8, "ollama": 11, "responses": 8}
PATHS = {
    "openai": "/chat/completions",
    "anthropic": "/messages",
    "gemini": ":streamGenerateContent",
    "bedrock": "/converse-stream",
    "cohere": "/chat",
    "ollama": "/api/chat",
    "responses": "/responses",
}
TEXT = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
# What ends a stream that has begun, and what a client is told before that.
CODES = {
    "cut": ("upstream_interrupted", "502 `upstream_truncated`"),
    "end": ("upstream_interrupted", "502 `upstream_truncated`"),
    "garbage": ("upstream_invalid_event", "502 `upstream_invalid_event`"),
    "error": ("server_error", "502 `server_error`"),
}
OVERLOADED = ("overloaded", "503 `overloaded`")
ERRORS = {"anthropic": OVERLOADED, "gemini": OVERLOADED, "bedrock": ("server_error", "500 `server_error`")}
# Thirteen at once need longer to their first words than one.
UNHURRIED = {"first_event": 0.8, "answer": 0.8, "idle": 0.8}
SILENT = ("upstream_idle_timeout", "504 `upstream_timeout`")


@pytest.fixture
def leaks(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Leaks:
    """Looks for keys in what is said."""
    return Leaks(capfd, caplog)


def prompt_of(language: str) -> str:
    """What makes a stream of twelve events."""
    return " ".join(TEXT[: WORDS[language]])


def speaker(language: str, model: str, prompt: str, created: int = 1, id: str = "a-1") -> Words:
    """What the provider says when nothing goes wrong."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": prompt}]}
    if language == "openai":
        body["stream_options"] = {"include_usage": True}
    if language == "responses":
        body["input"] = body.pop("messages")
    return LANGUAGES[PATHS[language]](msgspec.json.encode(body), id, created, 0)


def twelve(language: str, model: str, created: int = 1, id: str = "a-1") -> Events:
    """The events of it."""
    events = speaker(language, model, prompt_of(language), created, id).events("")
    assert len(events.all()) == 12
    return events


def cells() -> Iterator[tuple[str, str, int, bool]]:
    """Every place in every language; with a fallback those of a cut, in OpenAI's and Anthropic's all."""
    for language, kind, place, fallback in product(WORDS, CODES, range(13), (False, True)):
        if not fallback or kind == "cut" or language in ("openai", "anthropic"):
            yield language, kind, place, fallback


@pytest.mark.parametrize(("language", "kind", "place", "fallback"), list(cells()))
async def test_every_place(tmp_path: Path, leaks: Leaks, language: str, kind: str, place: int, fallback: bool) -> None:
    """F18, F20, F21: before the first words a plain error or the fallback's answer; among them what was said, then an
    error event; behind the finish reason the whole answer.
    """
    model = f"fault/{kind}-at-{place}"
    codes = ERRORS.get(language, CODES[kind]) if kind == "error" else CODES[kind]
    async with stage(tmp_path, leaks, model, language=language, fallback=fallback) as running:
        timer = Timer()
        got = await running.ask(stream=True, prompt=prompt_of(language))
        timer.check(0, 3)
        fell = check_place(got, language, model, place, codes, fallback=fallback)
        # A provider's own 5xx is tried once more where nobody else can be asked.
        again = got.status != 200 and got.error["code"] == "server_error"
        assert (running.a.requests, running.b.requests) == (1 + again, fell)


@pytest.mark.parametrize("fallback", [False, True], ids=["alone", "fallback"])
@pytest.mark.parametrize("language", WORDS)
async def test_every_silence(tmp_path: Path, leaks: Leaks, language: str, fallback: bool) -> None:
    """F19: the same where the stream falls silent, at all places at once: each waits for a timer."""
    models = [f"fault/stall-at-{place}" for place in range(13)]
    async with stage(
        tmp_path, leaks, "echo", language=language, fallback=fallback, timeouts=UNHURRIED, also=models
    ) as running:
        timer = Timer()
        asks = [running.ask(stream=True, prompt=prompt_of(language), model=str(place)) for place in range(13)]
        answers = await asyncio.gather(*asks)
        timer.check(UNHURRIED["idle"], 4)
        fell = [
            check_place(got, language, model, place, SILENT, fallback=fallback)
            for place, (got, model) in enumerate(zip(answers, models, strict=True))
        ]
        assert (running.a.requests, running.b.requests) == (13, sum(fell))


def check_place(got: Got, language: str, model: str, place: int, codes: tuple[str, str], *, fallback: bool) -> bool:
    """Fail unless a client saw what it must of a fault at `place`. Returns whether the fallback had to answer."""
    (late, early), events, prompt = codes, twelve(language, model), prompt_of(language)
    spoken, found = place - len(events.opening), seen(got, model, prompt)
    if spoken <= 0:
        assert found == (OTHER if fallback else early)
        return fallback
    if spoken < len(events.words) + len(events.finish):
        assert found == broken(late)
        check_said(got, language, model, min(spoken, len(events.words)))
    else:
        assert found == ANSWER
    return False


def check_said(got: Got, language: str, model: str, words: int) -> None:
    """A client gets the words before the fault, all and no other: in OpenAI's language the very bytes."""
    said = got.events[:-1]
    if language == "openai":
        first = msgspec.json.decode(said[0])
        events = twelve(language, model, first["created"], first["id"].removeprefix("chatcmpl-"))
        assert b"".join(b"data: " + event + b"\n\n" for event in said) == b"".join(events.all()[: 1 + words])
    assert got.text == " ".join(TEXT[:words])


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
