"""Exchanges in files of one's own, a JSON object each, with their meaning: docs/adding-a-provider.md has the form.

A key that nobody knows is refused, so that a misspelt expectation is not one that always holds.
"""

import base64
from pathlib import Path
from typing import Any

import msgspec

from proxy.conform.cases import OPENAI, Case, Expected, Outcome
from proxy.conform.recordings import Recording, Request, Response
from proxy.conform.sdk import Said
from proxy.errors import KINDS


class UnreadableError(Exception):
    """A file that is no exchange; the text says which and why."""


class Calls(msgspec.Struct, forbid_unknown_fields=True):
    """A tool call that a client has to find; arguments that are no object are their text."""

    name: str
    arguments: dict[str, Any] | str


class Meaning(msgspec.Struct, forbid_unknown_fields=True):
    """What a client has to find. `usage` is input, output and cached tokens, null when none is told.

    `error` is part of the message and `kind` one of the words of `[fallback] on`, where the answer is, or ends in, one.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: list[Calls] = []
    finish: str | None = None
    usage: tuple[int, int, int] | None = None
    error: str | None = None
    kind: str | None = None


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    """What the provider answers: text, base64 of bytes that are no text, or the pieces in which it came."""

    status: int = 200
    headers: dict[str, str] = {}
    body: str | list[str] = ""
    body_base64: str | None = None


class Sent(msgspec.Struct, forbid_unknown_fields=True):
    """What the adapter has to make of `request`."""

    path: str
    body: Any


class Exchange(msgspec.Struct, forbid_unknown_fields=True):
    """One file. `request` is a client's, in OpenAI's words; without it, one that wants such an answer."""

    response: Answer
    expect: Meaning
    stream: bool = False
    request: dict[str, Any] | None = None
    sent: Sent | None = None
    quirks: list[str] = []


def cases(root: Path, adapter: str) -> list[Case]:
    """Return the exchanges of a folder and the folders in it. Raises UnreadableError, also when there are none."""
    files = sorted(root.rglob("*.json"))
    if not files:
        raise UnreadableError(f"{root}: no recordings: neither an index.json nor any other *.json")
    return [_case(file, str(file.relative_to(root)), adapter) for file in files]


def _case(file: Path, name: str, adapter: str) -> Case:
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Exchange)
        recording = _recording(found)
        body = recording.body
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise UnreadableError(f"{file}: {error}") from None
    how, meaning = _outcome(found), found.expect
    if how in ("error", "broken") and meaning.kind not in KINDS:
        raise UnreadableError(f"{file}: expect.kind: {meaning.kind!r} is none of {', '.join(KINDS)}")
    calls = [(call.name, _arguments(call.arguments)) for call in meaning.tool_calls]
    said = Said(meaning.text, meaning.reasoning, calls, meaning.finish)
    return Case(
        file=name,
        provider=name.rpartition("/")[0] or adapter,
        api=adapter,
        adapter=adapter,
        quirks=frozenset(found.quirks),
        status=found.response.status,
        stream=found.stream,
        outcome=how,
        sent=found.request,
        headers=found.response.headers,
        body=body,
        pieces=_pieces(found.response, recording),
        events=[event for event in recording.events() if event],
        expected=Expected(
            said, meaning.usage, meaning.usage if adapter != OPENAI else None, meaning.error, meaning.kind
        ),
        wanted=None if found.sent is None else (found.sent.path, found.sent.body),
    )


def _recording(found: Exchange) -> Recording:
    """Raises ValueError for what is no base64."""
    answer, text = found.response, found.response.body
    if answer.body_base64 is not None:
        base64.b64decode(answer.body_base64, validate=True)
    whole = text if isinstance(text, str) else "".join(text)
    return Recording(Request(), Response(answer.status, whole, answer.body_base64))


def _pieces(answer: Answer, recording: Recording) -> list[bytes]:
    told = answer.body if isinstance(answer.body, list) and answer.body_base64 is None else []
    return [piece.encode() for piece in told if piece] or [piece for piece in recording.pieces() if piece]


def _outcome(found: Exchange) -> Outcome:
    if found.response.status >= 400:
        return "error"
    if found.expect.error is not None or found.expect.kind is not None:
        return "broken"
    return "answer" if found.expect.finish is not None else "nothing"


def _arguments(found: dict[str, Any] | str) -> Any:
    return {"__unparsable__": found} if isinstance(found, str) else found
