"""What a client saw of one fault, through any gateway: its kind, and a few words on it."""

from typing import Any, Final, NamedTuple, Self

import msgspec

from loadtests.reliability.wall import Answer
from proxy import demo_faults
from proxy.demo_answers import Reply, lengthen
from tests.fault_cells import ANSWER, OTHER

ERROR: Final = "an error"
BROKEN: Final = "the words until then, then an error"
WRONG: Final = "wrong"
_OK: Final = 200


class Seen(NamedTuple):
    """`kind` is ANSWER, OTHER, ERROR, BROKEN or WRONG. `silent`: part of the answer, as if it were all."""

    kind: str
    text: str
    silent: bool = False

    def by_fallback(self) -> Self:
        """The same, when the fallback was asked."""
        return self._replace(kind=OTHER, text=OTHER) if self.kind == ANSWER else self


def saw(answer: Answer, model: str, prompt: str) -> Seen:
    """Return what came. A fallback's answer has the prompt's words alone, and those of a fault some more."""
    fault = demo_faults.parse(model.removeprefix("fault/") if model.startswith("fault/") else "")
    longer = lengthen(Reply(prompt, [], "stop"), fault.words).text if fault.words else prompt
    whole = {prompt, longer, prompt + "x" * (2 << 20)}  # the last one is `big-event`
    if answer.end == "late":
        return Seen(WRONG, "no end in 12 s" if answer.body else "nothing in 12 s")
    if answer.status == 0:
        return Seen(WRONG, "the connection closes")
    if answer.status != _OK:
        return _refused(answer)
    if "text/event-stream" in answer.headers.get("content-type", ""):
        return _streamed(answer, whole)
    try:
        said = msgspec.json.decode(answer.body)["choices"][0]["message"]["content"]
    except (msgspec.DecodeError, KeyError, IndexError, TypeError):
        return Seen(WRONG, "200, but no completion")
    if said in whole:
        return Seen(ANSWER, ANSWER)
    return Seen(WRONG, "an empty answer as if it were whole" if not said else "another text", silent=True)


def _refused(answer: Answer) -> Seen:
    code = _code(answer.body)
    if code is None:
        return Seen(WRONG, f"{answer.status} without an OpenAI error")
    wait = answer.headers.get("retry-after")
    return Seen(ERROR, f"{answer.status} {code}" + (f", retry-after {wait}" if wait else ""))


def _code(data: bytes | msgspec.Raw) -> str | None:
    """Return the code of an OpenAI error, None when it is none."""
    try:
        error = msgspec.json.decode(data)["error"]
        code = error.get("code")
        return (f"`{code}`" if code is not None else "no code") if isinstance(error["message"], str) else None
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return None


def _streamed(answer: Answer, whole: set[str | None]) -> Seen:
    # Not our own decoder, which takes no event over 1 MiB.
    events = [line[5:].strip() for line in answer.body.splitlines() if line.startswith(b"data:")]
    said, finished = "", b"[DONE]" in events
    for data in events:
        if data == b"[DONE]":
            continue
        if (code := _code(data)) is not None:
            return Seen(BROKEN, f"the words until then, then {code}") if said else Seen(ERROR, f"200, then {code}")
        try:
            choices: list[Any] = msgspec.json.decode(data)["choices"]
            said += "".join(choice["delta"].get("content") or "" for choice in choices)
            finished = finished or any(choice.get("finish_reason") for choice in choices)
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
            return Seen(WRONG, "an event that no SDK can read")
    if answer.end != "whole":
        return Seen(WRONG, "the words until then, and the connection closes")
    if said in whole and finished:
        return Seen(ANSWER, ANSWER)
    part = "half an answer" if said else "an empty answer"
    return Seen(WRONG, f"{part} as if it were whole" if finished else f"{part}, and the stream ends", silent=True)
