"""Turn Gemini's events into chunks, one object per answer. Each event is an answer of its own that goes on.

Every candidate opens with a role chunk and ends with one finish chunk, at the very end: a reason may come more than
once, content may follow it, and Gemini never says goodbye. A call comes whole, in one part.
"""

from typing import Any, Final

import msgspec

from adapters._chat.reasoning import Step
from adapters._gemini.faults import fault_inside
from adapters._gemini.reply import (
    Answer,
    Candidate,
    Counts,
    Names,
    decode,
    finish_word,
    openai_logprobs,
)
from proxy import sse, wire
from proxy.adapter import Target, each, last_events
from proxy.errors import UnavailableError, UpstreamError
from proxy.wire import ChatRequest, Usage

# An error between the events comes as bare JSON; more than this of it is not kept.
_MAX_STRAY: Final = 64 * 1024
_SILENCE: Final = Step()


class _Choice:
    """One candidate: how many calls it has made, in how many parts, and its last reason to stop."""

    __slots__ = ("called", "parts", "reason")

    def __init__(self) -> None:
        self.called = 0
        self.parts = 0
        self.reason: str | int | None = None

    @property
    def finish(self) -> str | None:
        """OpenAI's finish reason, None while there is none."""
        return None if self.reason is None else finish_word(self.reason, called=self.called > 0)


class _Chunks(wire.ChunkWriter):
    """A writer that also knows the tokens of sound."""

    __slots__ = ()

    def counts(self, counts: Counts) -> bytes:
        """Return the event that ends a stream whose client asked for its usage."""
        return self._head + b',"choices":[],"usage":' + msgspec.json.encode(counts.openai()) + b"}\n\n"


class Stream:
    """Turns Gemini's events into chunks; see StreamParser for what the attributes mean."""

    def __init__(self, request: ChatRequest, target: Target, surface: str) -> None:
        self.started = False
        self.finish: str | None = None
        self.done = False
        self.usage: Usage | None = None
        self.model: str | None = None
        self._request = request
        self._target = target
        self._names = Names(request, target, surface)
        self._sse = sse.Decoder()
        self._writer: _Chunks | None = None
        self._counts = Counts()
        self._choices: dict[int, _Choice] = {}
        self._response_id: str | None = None
        # The piece with the end of the last event, and what came after it.
        self._since = b""
        self._out: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Return the chunks for `data`."""
        events = self._sse.feed(data)
        if events:
            self._since = data
        elif len(self._since) < _MAX_STRAY:
            self._since += data
        return each(events, self._step)

    def close(self) -> bytes:
        """Return the finish chunks, the usage chunk if asked for, and `[DONE]`."""
        try:
            last = last_events(self, self._sse, self._step)
        except UpstreamError as error:
            raise self._stray_fault(error) from None
        for index, choice in sorted(self._choices.items()):
            # A candidate that never gave a reason ends with the others.
            finish = choice.finish or finish_word(None, called=choice.called > 0)
            self._out.append(self._chunks().delta(wire.Delta(), finish, index))
        if self._request.include_usage and self.usage is not None:
            self._out.append(self._chunks().counts(self._counts))
        return last + self._taken() + sse.DONE

    def _stray_fault(self, cut: UpstreamError) -> UpstreamError:
        """Return the error that was told outside of the events, as JSON behind the last of them; else `cut`."""
        text = self._since.replace(b"\r\n", b"\n")
        behind = text[max(text.rfind(b"\ndata:"), 0) :].partition(b"\n\n")[2]
        # When the piece began at or in the blank line of its event, the text is all there is.
        return fault_inside(behind) or fault_inside(text) or cut

    def _step(self, event: sse.Event) -> bytes:
        answer = _decode(event.data)
        if answer.response_id:
            self._response_id = answer.response_id
        self.model = answer.model_version or self.model
        for number, candidate in enumerate(answer.candidates or ()):
            self._continue(number if candidate.index is None else candidate.index, candidate, answer)
        if answer.blocked:
            self._open(0, answer).reason = "SAFETY"
        if answer.usage_metadata is not None:
            self._counts.merge(answer.usage_metadata)
            self.usage = self._counts.usage() if self._counts.said() else None
        self._settle()
        return self._taken()

    def _taken(self) -> bytes:
        out, self._out = b"".join(self._out), []
        return out

    def _chunks(self, answer: Answer | None = None) -> _Chunks:
        if self._writer is None:
            self._writer = _Chunks(
                (answer.response_id if answer else None) or f"chatcmpl-{self._request.created}",
                (answer.model_version if answer else None) or self._target.model,
                self._request.created,
                include_usage=self._request.include_usage,
            )
        return self._writer

    def _open(self, index: int, answer: Answer) -> _Choice:
        """Return the candidate's state; the first call also writes its role chunk."""
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
            self._out.append(self._chunks(answer).delta(wire.Delta(role="assistant", content=""), index=index))
        return choice

    def _continue(self, index: int, candidate: Candidate, answer: Answer) -> None:
        choice = self._open(index, answer)
        logprobs = openai_logprobs(candidate.logprobs_result)
        for part in candidate.parts:
            call = None
            delta = Step()
            if part.function_call is not None:
                call = self._names.call(part, choice.called, self._response_id)
                call.index = choice.called
                choice.called += 1
                delta.tool_calls = [call]
            elif part.text and part.thought:
                delta.reasoning_content = part.text
            elif part.text:
                delta.content = part.text
            detail = self._names.detail(part, choice.parts, call)
            choice.parts += 1
            if detail is not None:
                delta.reasoning_details = [detail]
            if delta != _SILENCE:
                self._say(delta, index, logprobs)
                logprobs = None
        if logprobs is not None:
            self._say(wire.Delta(content=""), index, logprobs)
        if candidate.finish_reason is not None:
            choice.reason = candidate.finish_reason

    def _say(self, delta: wire.Delta, index: int, logprobs: dict[str, Any] | None) -> None:
        self._out.append(self._chunks().delta(delta, None, index, logprobs))
        self.started = True

    def _settle(self) -> None:
        """Note the finish reason of the whole: that of the first candidate, once all have one."""
        found = [choice.finish for choice in self._choices.values()]
        self.finish = found[0] if found and None not in found else None
        self.started = self.started or self.finish is not None


def _decode(data: bytes) -> Answer:
    """Return the answer in one event. Raises UpstreamError for an error in its place, or for nonsense."""
    try:
        answer = decode(data)
    except UnavailableError:
        raise UnavailableError("the upstream sent an event that is not valid", code="upstream_invalid_event") from None
    if answer.candidates is None and answer.prompt_feedback is None:
        fault = fault_inside(data)
        if fault is not None:
            raise fault
    return answer
