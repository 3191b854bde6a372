"""What an answer is: right, a well-formed error, a stream that says how it broke, or wrong. There is no fifth."""

from collections import Counter
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from loadtests.reliability.client import Outcome
from loadtests.reliability.script import DONE

_ERROR: Final = b'data: {"error":'
_OK: Final = 200
_FAULT: Final = 400


class Kind(StrEnum):
    """RIGHT: whole, byte-equal. REFUSED: an OpenAI error. TOLD: right so far, then an error event. WRONG: the rest."""

    RIGHT = "right"
    REFUSED = "refused"
    TOLD = "told"
    WRONG = "wrong"


class Judged(NamedTuple):
    """`why` is an error's code, or what is wrong."""

    kind: Kind
    why: str = ""


class _Error(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class _LooseError(msgspec.Struct):
    message: str
    type: str | None = None
    code: str | int | None = None


class _Body(msgspec.Struct):
    error: _Error


class _LooseBody(msgspec.Struct):
    error: _LooseError


_error: Final = msgspec.json.Decoder(_Body)
_loose_error: Final = msgspec.json.Decoder(_LooseBody)
_Errors = msgspec.json.Decoder[_Body] | msgspec.json.Decoder[_LooseBody]


def judge(outcome: Outcome) -> Judged:
    """Judge an answer of the sidecar: it must be byte-equal to what the upstream that it names has sent."""
    model = outcome.headers.get("x-sidecar-upstream", "").partition("/")[2]
    return _judged(outcome, lambda: _equal(outcome, model), _error)


def judge_words(outcome: Outcome) -> Judged:
    """Judge an answer of a gateway that writes it anew: words and end count, and of an error its message."""
    return _judged(outcome, lambda: _says_the_same(outcome), _loose_error)


def _judged(outcome: Outcome, content: Callable[[], Judged], errors: _Errors) -> Judged:
    if outcome.end != "whole":
        return Judged(Kind.WRONG, outcome.end if outcome.end != "cut" or outcome.status else "no answer")
    if outcome.status >= _FAULT:
        try:
            return Judged(Kind.REFUSED, f"{outcome.status} {errors.decode(outcome.body).error.code}")
        except msgspec.MsgspecError:
            return Judged(Kind.WRONG, f"{outcome.status} without an OpenAI error")
    return content() if outcome.status == _OK else Judged(Kind.WRONG, f"status {outcome.status}")


def _equal(outcome: Outcome, model: str) -> Judged:
    script, body = outcome.script, outcome.body
    if not script.stream:
        return Judged(Kind.RIGHT) if body == script.complete(model) else Judged(Kind.WRONG, _difference(outcome))
    events = script.all_events(model)
    if body == b"".join(events):
        return Judged(Kind.RIGHT)
    begin = body.rfind(_ERROR)
    if begin < 0:
        return Judged(Kind.WRONG, _difference(outcome))
    # Whole events and nothing else before the error, and content among them: else it should have been a status.
    before = [b"".join(events[:count]) for count in range(2, len(events) - 1)]
    if body[:begin] not in before or DONE in body:
        return Judged(Kind.WRONG, "something else before the error event")
    return _told(body[begin:], _error)


def _told(event: bytes, errors: _Errors) -> Judged:
    try:
        return Judged(Kind.TOLD, str(errors.decode(event.removeprefix(b"data: ").rstrip(b"\n")).error.code))
    except msgspec.MsgspecError:
        return Judged(Kind.WRONG, "an error event that is no OpenAI error")


def _difference(outcome: Outcome) -> str:
    """Return what is wrong with a body, in a few words that can be counted."""
    nonce = outcome.script.nonce
    run = nonce.partition("-")[0].encode()
    others = outcome.body.replace(f"{nonce}.".encode(), b"").replace(f'{nonce}"'.encode(), b"")
    if run in others:
        return "crossed: another request's nonce"
    return "cut without a word" if outcome.script.stream and DONE not in outcome.body else "damaged"


class _Words(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Words = msgspec.field(default_factory=_Words)
    delta: _Words = msgspec.field(default_factory=_Words)
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list)


_answer: Final = msgspec.json.Decoder(_Answer)


def _says_the_same(outcome: Outcome) -> Judged:
    script, body = outcome.script, outcome.body
    text = script.text
    try:
        if not script.stream:
            return _compared(_answer.decode(body).choices[0].message.content or "", text)
        data = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
        if data and data[-1].startswith(b'{"error":'):
            return _told(data[-1], _loose_error)
        if not data or data[-1] != b"[DONE]":
            return Judged(Kind.WRONG, "cut without a word")
        choices = [choice for line in data[:-1] for choice in _answer.decode(line).choices]
        return _compared("".join(choice.delta.content or "" for choice in choices), text)
    except (msgspec.MsgspecError, IndexError):
        return Judged(Kind.WRONG, "unreadable")


def _compared(said: str, text: str) -> Judged:
    if said == text:
        return Judged(Kind.RIGHT)
    return Judged(Kind.WRONG, "cut without a word" if text.startswith(said) else "damaged")


class Tally(NamedTuple):
    """All answers of a run, counted."""

    kinds: Counter[Kind]
    whys: Counter[str]

    @property
    def total(self) -> int:
        """How many answers."""
        return self.kinds.total()

    def __str__(self) -> str:
        said = [f"{self.kinds[kind]} {kind}" for kind in Kind if self.kinds[kind]]
        whys = [f"{count} x {why}" for why, count in self.whys.most_common(4)]
        return ", ".join(said) + (f" ({'; '.join(whys)})" if whys else "")


def tally(outcomes: Iterable[Outcome], judged_by: Callable[[Outcome], Judged] = judge) -> Tally:
    """Count what the answers are."""
    judged = [judged_by(outcome) for outcome in outcomes]
    whys = Counter(f"{one.kind}: {one.why}" for one in judged if one.why)
    return Tally(Counter(one.kind for one in judged), whys)
