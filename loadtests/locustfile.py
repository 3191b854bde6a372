"""Users who check every answer: 70 % want streams. A wrong, crossed, cut or late answer is a locust failure.

    llm-sidecar serve --demo                                      (in a shell without provider keys)
    locust -f loadtests/locustfile.py --headless -u 1000 -r 200 -t 60s --stop-timeout 30 --host http://127.0.0.1:4141

`python -m loadtests.run_locust` does both and prints a table. Every prompt is unique and the demo providers echo it, so
an answer that is not the prompt, byte for byte, was damaged or belongs to somebody else.
"""

import random
import time
from argparse import ArgumentParser
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec
from locust import FastHttpUser, events, task
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS

MODELS: Final = ("balanced", "cheapest", "demo", "swift/echo")
_PATH: Final = "/v1/chat/completions"
_MARK: Final = "nonce-"
_HEADERS: Final = {"content-type": "application/json", "authorization": "Bearer unused"}
_LATE_S: Final = 30.0
_numbers: Final = count(1)
# Sockets and HTTP framing, JSON, UTF-8 and missing fields.
_UNREADABLE: Final = (*FAILURE_EXCEPTIONS, msgspec.MsgspecError, ValueError, LookupError)


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message = _Message()
    delta: _Message = _Message()
    finish_reason: str | None = None


class Piece(msgspec.Struct):
    """A whole completion or one chunk of it."""

    id: str
    choices: list[_Choice]


class Tally:
    """What locust does not count: ms that the sidecar says it added, ms to the first words of a stream."""

    def __init__(self) -> None:
        self.added_ms: list[float] = []
        self.first_ms: list[float] = []


class WrongAnswerError(Exception):
    """An answer that breaks a promise. The text is one of a few, so that locust can count them."""


_piece: Final = msgspec.json.Decoder(Piece)
_tally: Final = Tally()


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator, unused-ignore]
def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--think", type=float, default=1.0, help="mean seconds between two requests of a user")
    parser.add_argument("--words", type=int, default=12, help="words per prompt, and so per answer")
    parser.add_argument("--tally", default="", help="file for the sidecar's own timings, as JSON")


@events.quitting.add_listener  # type: ignore[untyped-decorator, unused-ignore]
def _write_tally(environment: Any, **_: object) -> None:
    if environment.parsed_options.tally:
        Path(environment.parsed_options.tally).write_bytes(msgspec.json.encode(vars(_tally)))


def prompt(words: int) -> str:
    """Return a text that nobody else sends, its mark at both ends."""
    mark = f"{_MARK}{next(_numbers)}-{random.getrandbits(64):016x}"
    return f"{mark} {' '.join(f'word{random.randrange(1000)}' for _ in range(max(0, words - 2)))} {mark}"


def compare(said: str, asked: str) -> None:
    """Raise WrongAnswerError unless `said` is `asked`."""
    if said == asked:
        return
    if asked.startswith(said):
        raise WrongAnswerError("cut short")
    crossed = _MARK in said.replace(asked.partition(" ")[0], "")
    raise WrongAnswerError("crossed: another request's words" if crossed else "damaged")


def read_complete(body: bytes) -> str:
    """Return what a whole answer says. Raises WrongAnswerError."""
    choice = _piece.decode(body).choices[0]
    if choice.finish_reason != "stop":
        raise WrongAnswerError("no finish reason")
    return choice.message.content or ""


def read_stream(line: Callable[[], bytes], spoke: Callable[[], None]) -> str:
    """Return what a stream says; `line` returns the next event or b"", `spoke` is called at the first words."""
    parts: list[str] = []
    ids, finish, done = set[str](), "", False
    while event := line():
        if done or not event.startswith(b"data: "):
            raise WrongAnswerError("not an event" if not done else "events after [DONE]")
        data = event[6:-2]
        if data == b"[DONE]":
            done = True
            continue
        if data.startswith(b'{"error"'):
            raise WrongAnswerError("error event")
        piece = _piece.decode(data)
        ids.add(piece.id)
        for choice in piece.choices:
            finish = choice.finish_reason or finish
            if choice.delta.content:
                if not parts:
                    spoke()
                parts.append(choice.delta.content)
    if not done or finish != "stop":
        raise WrongAnswerError("no finish reason" if done else "no [DONE]")
    if len(ids) != 1:
        raise WrongAnswerError("crossed: chunks of several answers")
    return "".join(parts)


class _User(FastHttpUser):  # type: ignore[misc, unused-ignore]  # locust may be untyped
    abstract = True
    network_timeout = connection_timeout = _LATE_S

    def wait_time(self) -> float:
        """Think, up to twice the mean."""
        return random.uniform(0, 2 * self.environment.parsed_options.think)

    def ask(self, *, stream: bool) -> None:
        """Send one request and check its answer."""
        asked = prompt(self.environment.parsed_options.words)
        body = {"model": random.choice(MODELS), "messages": [{"role": "user", "content": asked}], "stream": stream}
        data, name = msgspec.json.encode(body).decode(), "stream" if stream else "complete"
        began = time.perf_counter()
        with self.client.post(
            _PATH, data=data, headers=_HEADERS, name=name, stream=stream, catch_response=True
        ) as response:
            try:
                _check(response, asked, began, stream=stream)
            except WrongAnswerError as error:
                response.failure(str(error))
            except _UNREADABLE as error:
                response.failure(f"unreadable: {type(error).__name__}")
            response.request_meta["response_time"] = (time.perf_counter() - began) * 1000


def _check(response: Any, asked: str, began: float, *, stream: bool) -> None:
    if response.status_code != 200:
        raise WrongAnswerError(f"status {response.status_code}")
    if not str(response.headers.get("x-sidecar-upstream", "")).endswith("/echo"):
        raise WrongAnswerError("not a demo provider: is a provider's key in the environment?")
    timing = str(response.headers.get("server-timing", ""))
    _tally.added_ms.append(float(timing.partition("proxy;dur=")[2].partition(",")[0]))
    if not stream:
        compare(read_complete(response.content), asked)
        return
    spoke = lambda: _tally.first_ms.append((time.perf_counter() - began) * 1000)  # noqa: E731
    # Up to the blank line that ends an event; b"" when the HTTP framing says that the answer is over.
    compare(read_stream(lambda: bytes(response._response.readline(b"\n\n")), spoke), asked)


class StreamUser(_User):
    """Wants server-sent events."""

    weight = 7

    @task  # type: ignore[untyped-decorator, unused-ignore]
    def stream(self) -> None:
        """Ask for a stream."""
        self.ask(stream=True)


class CompleteUser(_User):
    """Wants whole answers."""

    weight = 3

    @task  # type: ignore[untyped-decorator, unused-ignore]
    def complete(self) -> None:
        """Ask for a whole answer."""
        self.ask(stream=False)
