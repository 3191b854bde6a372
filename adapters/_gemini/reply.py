"""Read Gemini's answers: parts become one message per candidate, counts OpenAI's usage, reasons its words.

Tools that ran at Google, and kinds of parts nobody knew yet, are skipped. Arguments keep their digits: they are never
decoded.
"""

import zlib
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from adapters._chat.chunks import logprob
from adapters._chat.reasoning import GEMINI, STAMP, Detail, Said
from adapters._gemini.faults import fault_inside, nonsense
from adapters._gemini.request import client_names, source_of
from proxy import wire
from proxy.adapter import Reply, Target
from proxy.errors import UnavailableError
from proxy.wire import ChatRequest, Number, Usage

# Reasons that nobody knew yet count as a plain end; OTHER, too: it says no more than they do.
_FINISH: Final = {
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    **dict.fromkeys(
        ("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "ESCALATION"),
        "content_filter",
    ),
    **dict.fromkeys(
        ("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER", "NO_IMAGE"), "content_filter"
    ),
}
# The model broke off its own answer. OpenAI has no word for that, and another attempt may do better.
_BROKEN: Final = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
    }
)
# One of Vertex AI's transports sends the numbers of the enum; from 9 on they differ between Google's APIs.
_NUMBERS: Final = {2: "MAX_TOKENS", **dict.fromkeys((3, 4, 6, 7, 8), "SAFETY")}
_SOUND: Final[frozenset[str | int]] = frozenset({"AUDIO", 4})
_PICTURES: Final[frozenset[str | int]] = frozenset({"IMAGE", 2})


class _Camel(msgspec.Struct, rename="camel"):
    """Wire names are camelCase."""


class FunctionCall(_Camel):
    """A call, always whole; older models give no id."""

    name: str = ""
    args: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None


class Part(_Camel):
    """A part of an answer; a thought is a text with a mark."""

    text: str | None = None
    thought: bool | None = None
    function_call: FunctionCall | None = None
    thought_signature: str | None = None


class _Content(_Camel):
    parts: list[Part] | None = None


class _Token(_Camel):
    token: str = ""
    log_probability: float = -9999.0


class _Tokens(_Camel):
    candidates: list[_Token] = []


class Logprobs(_Camel):
    """The chosen tokens, and at each place the likeliest ones."""

    chosen_candidates: list[_Token] = []
    top_candidates: list[_Tokens] = []


class Candidate(_Camel):
    """One of the answers, or in a stream the next piece of it."""

    content: _Content | None = None
    finish_reason: str | int | None = None
    index: int | None = None
    logprobs_result: Logprobs | None = None

    @property
    def parts(self) -> Iterable[Part]:
        """The parts; none for a candidate without content."""
        return (self.content.parts or ()) if self.content is not None else ()


class _Modality(_Camel):
    modality: str | int = ""
    token_count: Number | None = None


class Counts(_Camel):
    """Counts as Gemini sends them: snapshots of the whole answer, in which a field may be missing."""

    prompt_token_count: Number | None = None
    candidates_token_count: Number | None = None
    thoughts_token_count: Number | None = None
    tool_use_prompt_token_count: Number | None = None
    cached_content_token_count: Number | None = None
    total_token_count: Number | None = None
    prompt_tokens_details: list[_Modality] | None = None
    candidates_tokens_details: list[_Modality] | None = None
    cache_tokens_details: list[_Modality] | None = None

    def merge(self, later: "Counts") -> None:
        """Replace what `later` names."""
        for name in Counts.__struct_fields__:
            value = getattr(later, name)
            if value is not None:
                setattr(self, name, value)

    def said(self) -> bool:
        """Say whether there is a count at all, and none that cannot be; a blocked prompt is told without."""
        prompt, answer = self.prompt_token_count, self.candidates_token_count
        rest = self.thoughts_token_count, self.tool_use_prompt_token_count, self.cached_content_token_count
        return (prompt, answer) != (None, None) and wire.counted(prompt, answer, *rest) is not None

    def usage(self) -> Usage:
        """Return the counts in OpenAI's meaning, where the output includes the thoughts and the input what tools of
        Google's read.
        """
        prompt = int(self.prompt_token_count or 0) + int(self.tool_use_prompt_token_count or 0)
        answer, thoughts = int(self.candidates_token_count or 0), int(self.thoughts_token_count or 0)
        inside = thoughts and prompt + answer == self.total_token_count
        cached, heard = int(self.cached_content_token_count or 0), _tokens(_SOUND, self.prompt_tokens_details, prompt)
        return Usage(
            input=prompt,
            output=answer if inside else answer + thoughts,
            cached=cached,
            reasoning=thoughts,
            audio_input=heard,
            audio_output=_tokens(_SOUND, self.candidates_tokens_details, answer),
            cached_audio=_tokens(_SOUND, self.cache_tokens_details, min(cached, heard)),
            image_output=_tokens(_PICTURES, self.candidates_tokens_details, answer),
        )

    def openai(self) -> dict[str, Any]:
        """Return OpenAI's usage object; tokens of sound are told when there are any."""
        usage = self.usage()
        found: dict[str, Any] = wire.usage_object(usage)
        sounds = ("prompt_tokens_details", usage.audio_input), ("completion_tokens_details", usage.audio_output)
        for name, sound in sounds:
            if sound:
                found[name]["audio_tokens"] = sound
        return found


def _tokens(kinds: frozenset[str | int], details: list[_Modality] | None, most: int) -> int:
    """Return how many tokens are of these kinds, of `most` in all."""
    return max(0, min(most, sum(int(one.token_count or 0) for one in details or () if one.modality in kinds)))


class _Feedback(_Camel):
    block_reason: str | int | None = None
    block_reason_message: str | None = None


class Answer(_Camel):
    """An answer, whole or one event of a stream."""

    candidates: list[Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: Counts | None = None
    model_version: str | None = None
    response_id: str | None = None

    @property
    def blocked(self) -> bool:
        """Whether the prompt was refused, which leaves no candidate."""
        told = self.prompt_feedback
        return not self.candidates and told is not None and (told.block_reason or told.block_reason_message) is not None


class Called(wire.ToolCall, omit_defaults=True):
    """A call with the signature that has to come back with it."""

    extra_content: dict[str, Any] | None = None


_answer: Final = msgspec.json.Decoder(Answer)


class Names:
    """Tells what a call is to the client: the name it knows, an id, and where the signature belongs."""

    __slots__ = ("_request", "_source")

    def __init__(self, request: ChatRequest, target: Target, surface: str) -> None:
        self._request = request
        self._source = source_of(target, surface)

    def call(self, part: Part, number: int, response_id: str | None) -> Called:
        """Return OpenAI's call, the `number`-th of its message."""
        made = part.function_call or FunctionCall()
        name, text = made.name, json_text(made.args)
        # Only a name that had to be changed ends in a checksum; the others need no look at the request.
        told = client_names(self._request).get(name, name) if name[-9:-8] == "_" else name
        extra = None
        if part.thought_signature:
            extra = {"google": {"thought_signature": part.thought_signature, STAMP: self._source}}
        seed = response_id or f"{self._request.created} {name} {text}"
        call_id = made.id or f"call_{zlib.crc32(seed.encode()):08x}_{number}"
        return Called(wire.Function(told, text), id=call_id, type="function", extra_content=extra)

    def detail(self, part: Part, index: int, call: Called | None) -> Detail | None:
        """Return what has to come back with the `index`-th part, None when that is nothing."""
        if not part.thought_signature:
            return None
        id = None if call is None else call.id
        return Detail("reasoning.encrypted", GEMINI, index, self._source, id=id, data=part.thought_signature)


def parse(body: bytes, request: ChatRequest, target: Target, surface: str) -> Reply:
    """Return a complete answer as a chat completion. Raises UpstreamError for an error or nonsense in it."""
    answer = decode(body)
    names = Names(request, target, surface)
    choices = [_choice(number, one, names, answer) for number, one in enumerate(answer.candidates or ())]
    if answer.blocked:
        choices = [_as_choice(0, wire.Message(""), None, "content_filter")]
    if not choices:
        raise fault_inside(body) or nonsense()
    counts = answer.usage_metadata
    completion: dict[str, Any] = {
        "id": answer.response_id or f"chatcmpl-{request.created}",
        "object": "chat.completion",
        "created": request.created,
        "model": answer.model_version or target.model,
        "choices": choices,
    }
    usage = None
    if counts is not None and counts.said():
        usage, completion["usage"] = counts.usage(), counts.openai()
    return Reply(msgspec.json.encode(completion), usage, choices[0]["finish_reason"], answer.model_version)


def _choice(number: int, candidate: Candidate, names: Names, answer: Answer) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[wire.ToolCall] = []
    details: list[Detail | None] = []
    for place, part in enumerate(candidate.parts):
        call = None
        if part.function_call is not None:
            call = names.call(part, len(calls), answer.response_id)
            calls.append(call)
        elif part.text:
            (thoughts if part.thought else texts).append(part.text)
        details.append(names.detail(part, place, call))
    if candidate.finish_reason is None and not (texts or calls):
        raise nonsense()
    message = Said("".join(texts) or (None if calls else ""))
    message.think("".join(thoughts), details)
    if calls:
        message.tool_calls = calls
    finish = finish_word(candidate.finish_reason, called=bool(calls))
    place = number if candidate.index is None else candidate.index
    return _as_choice(place, message, openai_logprobs(candidate.logprobs_result), finish)


def _as_choice(index: int, message: wire.Message, logprobs: Any, finish: str) -> dict[str, Any]:
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}


def decode(body: bytes) -> Answer:
    """Return the answer in `body`, whole or one event. Raises UnavailableError for anything else."""
    try:
        return _answer.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise nonsense() from None


def finish_word(reason: str | int | None, *, called: bool) -> str:
    """Return OpenAI's finish reason. Raises UnavailableError when the model broke off its own answer."""
    word = _NUMBERS.get(reason, "STOP") if isinstance(reason, int) else reason or "STOP"
    if word in _BROKEN:
        raise UnavailableError(f"the model's answer broke off ({word})", code="upstream_invalid_response")
    return _FINISH.get(word, "tool_calls" if called else "stop")


def openai_logprobs(found: Logprobs | None) -> dict[str, Any] | None:
    """Return OpenAI's logprobs object; None for none."""
    if found is None or not found.chosen_candidates:
        return None
    tops = [place.candidates for place in found.top_candidates]
    tops += [[]] * (len(found.chosen_candidates) - len(tops))
    content = [
        {**_told(chosen), "top_logprobs": [_told(one) for one in top]}
        for chosen, top in zip(found.chosen_candidates, tops, strict=False)
    ]
    return {"content": content, "refusal": None}


def _told(token: _Token) -> dict[str, Any]:
    return logprob(token.token, token.log_probability)


def json_text(raw: msgspec.Raw) -> str:
    """Return a call's arguments as OpenAI's text of JSON."""
    # A value that was not decoded has not been checked for UTF-8 either.
    text = bytes(raw).decode(errors="replace")
    return "{}" if text == "null" else text
