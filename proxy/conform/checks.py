"""What one exchange is held to, a function each. A check raises Mismatch, which says what was expected and what came.

All of them are pure: the adapter is given bytes, and what it makes of them is read as OpenAI's SDK would.
"""

import re
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from openai.types import CompletionUsage

from proxy import errors
from proxy.adapter import Adapter, Reply, StreamParser, Target
from proxy.conform.cases import NO_ARGUMENTS, Case
from proxy.conform.sdk import DONE, Said, Unreadable, chunks, completion, said_complete, said_streamed
from proxy.wire import ChatRequest, Usage, decode_chat

T = TypeVar("T")
CREATED: Final = 1_760_000_000
MODEL: Final = "the-model"
_SHOWN: Final = 600
# A message longer than this is cut before it is told, see errors.scrub.
_LONG: Final = 400


class Mismatch(Exception):  # noqa: N818  # a finding, not an error
    """What an answer became is not what it means."""

    def __init__(self, what: str, expected: object, came: object) -> None:
        super().__init__(what, expected, came)
        self.what, self.expected, self.came = what, shown(expected), shown(came)

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, came {self.came}"


def shown(value: object) -> str:
    """Return `value` as it is printed in a report: short."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def tried(what: str, expected: str, call: Callable[[], T]) -> T:
    """Return what `call` returns. Raises Mismatch for what no adapter may raise, with the place in its code."""
    try:
        return call()
    except (errors.UpstreamError, Mismatch, Unreadable):
        raise
    except Exception as error:  # the adapter is somebody else's code, and may raise anything
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise Mismatch(what, expected, f"{error!r} in {place.filename}:{place.lineno}") from error


def same(what: str, expected: object, came: object) -> None:
    """Raise Mismatch unless the two are equal."""
    if expected != came:
        raise Mismatch(what, expected, came)


# ---- what the adapter is given ----------------------------------------------------------------------------------


def request_of(case: Case) -> ChatRequest:
    """Return what the client asked; a stand-in where that is not known, or no request that we would send on."""
    if case.sent is not None:
        try:
            return decode_chat(msgspec.json.encode(case.sent), CREATED)
        except errors.ClientError:
            pass
    return stand_in(stream=case.stream)


def stand_in(*, stream: bool, **fields: Any) -> ChatRequest:
    """Return a short request."""
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **fields}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return decode_chat(msgspec.json.encode(body), CREATED)


def target_of(case: Case) -> Target:
    """Return whom the answer came from."""
    return Target(request_of(case).model, quirks=case.quirks)


def parser_of(adapter: Adapter, case: Case) -> StreamParser:
    """Return a parser for a streamed answer."""
    return adapter.stream(request_of(case), target_of(case))


def answer_of(adapter: Adapter, case: Case) -> Reply:
    """Return what a complete answer becomes."""
    return adapter.parse(case.body, request_of(case), target_of(case))


def played(parser: StreamParser, pieces: Sequence[bytes]) -> bytes:
    """Return what a stream becomes."""
    return b"".join([parser.feed(piece) for piece in pieces]) + parser.close()


# ---- what it has to make of it ----------------------------------------------------------------------------------


def check_said(case: Case, said: Said) -> None:
    """Text, reasoning, tool calls and finish reason are those of the recording."""
    expected = case.expected.said
    if "content_parts" in case.quirks and said.text.startswith("{"):
        # An answer that was an object is told as the provider wrote it; `golden.json` sorts its keys.
        same("text", msgspec.json.decode(expected.text), msgspec.json.decode(said.text))
    else:
        same("text", expected.text, said.text)
    same("reasoning", expected.reasoning, said.reasoning)
    same("names of the tool calls", [name for name, _ in expected.tool_calls], [name for name, _ in said.tool_calls])
    for (name, wanted), (_, came) in zip(expected.tool_calls, said.tool_calls, strict=True):
        if not (wanted in NO_ARGUMENTS and came in NO_ARGUMENTS):
            same(f"arguments of {name}", wanted, came)
    same("finish reason", expected.finish, said.finish)


def check_billed(case: Case, usage: Usage | None) -> None:
    """The tokens that are counted are those that are paid for."""
    came = None if usage is None else (usage.input, usage.output, usage.cached)
    same("usage (input, output, cached)", case.expected.billed, came)


def check_told(case: Case, told: CompletionUsage | None) -> None:
    """The client is told the usage; whoever passes answers on tells what the provider told."""
    if case.expected.told is None:
        return
    if told is None:
        raise Mismatch("usage that is told (prompt, completion, cached)", case.expected.told, None)
    cached = told.prompt_tokens_details.cached_tokens if told.prompt_tokens_details is not None else None
    came = (told.prompt_tokens, told.completion_tokens, cached or 0)
    same("usage that is told (prompt, completion, cached)", case.expected.told, came)
    same("total that is told", told.prompt_tokens + told.completion_tokens, told.total_tokens)


def check_message(case: Case, message: str) -> None:
    """An error has the provider's words, of long ones the beginning."""
    wanted = case.expected.error or ""
    if wanted.lstrip().startswith("<"):
        return  # a web page is not passed on
    if errors.scrub(wanted)[:_LONG] not in message and _squeezed(wanted)[:_LONG] not in _squeezed(message):
        raise Mismatch("error message", wanted, message)


def _squeezed(text: str) -> str:
    """Leave out what is spelled in two ways where a message is JSON: blanks and quotes."""
    return re.sub(r"[\s'\"]", "", text)


def complete(adapter: Adapter, case: Case) -> None:
    """A complete answer is valid for OpenAI's strict types and says what the provider said."""
    reply = answer_of(adapter, case)
    found = completion(reply.body, strict=strict(adapter, case))
    check_said(case, said_complete(found))
    check_billed(case, reply.usage)
    check_told(case, found.usage)
    same("finish reason in the log", found.choices[0].finish_reason, reply.finish)


def streamed(adapter: Adapter, case: Case) -> None:
    """A stream is valid for OpenAI's strict types, chunk by chunk, and says what the provider said."""
    parser = parser_of(adapter, case)
    try:
        out = played(parser, case.pieces)
    except errors.UpstreamError as error:
        if not case.expected.late:
            raise
        check_message(case, error.message)  # beside the end, it may be told as either
        return
    found = chunks(out, strict=strict(adapter, case))
    check_said(case, said_streamed(found))
    check_billed(case, parser.usage)
    check_told(case, found[-1].usage)
    same("started", True, parser.started)
    same("finish reason in the log", True, parser.finish is not None)


def cut_anywhere(adapter: Adapter, case: Case) -> None:
    """The client gets the same bytes however the network cuts the stream: as recorded, whole, byte by byte."""
    whole, ways = played_or_told(adapter, case, [case.body]), {"as recorded": case.pieces}
    ways["byte by byte"] = [case.body[at : at + 1] for at in range(len(case.body))]
    for way, pieces in ways.items():
        same(f"the stream {way}", whole, played_or_told(adapter, case, pieces))


def played_or_told(adapter: Adapter, case: Case, pieces: Sequence[bytes]) -> tuple[bytes, str]:
    """Return what a stream becomes, and the error that it ends in, if any."""
    parser, out = parser_of(adapter, case), b""
    try:
        for piece in pieces:
            out += parser.feed(piece)
        return out + parser.close(), ""
    except errors.UpstreamError as error:
        return out + error.before, f"{error.kind}: {error.message}"


def cut_short(adapter: Adapter, case: Case) -> None:
    """A stream that ends before its finish is an error, so that nobody takes half an answer for a whole one."""
    probe, parser = parser_of(adapter, case), parser_of(adapter, case)
    for event in case.events:
        probe.feed(event)
        # The last event of a stream may lack the blank line that completes it.
        last = event == case.events[-1] and not event.endswith((b"\n\n", b"\r\n\r\n"))
        if probe.finish is not None or probe.done or last:
            break
        parser.feed(event)
    try:
        out = parser.close()
    except errors.UnavailableError as error:
        same("code of a stream that was cut short", "upstream_truncated", error.code)
        return
    raise Mismatch("a stream cut before its finish", "upstream_truncated", out)


def in_order(adapter: Adapter, case: Case) -> None:
    """A translated stream is one role chunk, content, one finish chunk and the usage, all under one id."""
    found = chunks(played(parser_of(adapter, case), [case.body]))
    same("ids, models and times of the chunks", 1, len({(chunk.id, chunk.model, chunk.created) for chunk in found}))
    told = [True] if case.expected.told is not None else []
    usages = [chunk.usage is not None for chunk in found]
    same("which chunks have usage", [False] * (len(found) - len(told)) + told, usages)
    for index in sorted({choice.index for chunk in found for choice in chunk.choices}):
        choices = [choice for chunk in found for choice in chunk.choices if choice.index == index]
        others = [False] * (len(choices) - 1)
        same("which chunks have a role", [True, *others], [bool(choice.delta.role) for choice in choices])
        same("which chunks have a finish", [*others, True], [bool(choice.finish_reason) for choice in choices])
    last = found[-1 - len(told)].choices
    same("a finish reason in the last chunk before the usage", True, any(choice.finish_reason for choice in last))


def error_inside(adapter: Adapter, case: Case) -> None:
    """An answer that is an error, or ends in one, is told no end; what was said before the error is not lost."""
    before = b""
    try:
        if case.stream:
            parser = parser_of(adapter, case)
            for piece in case.pieces:
                before += parser.feed(piece)
            out = parser.close()
        else:
            out = answer_of(adapter, case).body
    except errors.UpstreamError as error:
        check_error(case, error)
        said = said_streamed(chunks(before + error.before + DONE))
        same("what was said before the error", (case.expected.said.text, None), (said.text, said.finish))
        return
    raise Mismatch("an error inside a 200", case.expected.error, out)


def nothing(adapter: Adapter, case: Case) -> None:
    """What is no answer is never told as one: it is an unavailable upstream, so that the next one can be asked."""
    try:
        out = played(parser_of(adapter, case), case.pieces) if case.stream else answer_of(adapter, case).body
    except errors.UpstreamError as error:
        same("kind of an answer that is none", "unavailable", error.kind)
        return
    raise Mismatch("a 200 without an answer", "an error", out)


def error_answer(adapter: Adapter, case: Case) -> None:
    """An error answer has its kind, and the provider's words in OpenAI's shape."""
    check_error(case, adapter.parse_error(case.status, case.headers, case.body))


def check_error(case: Case, error: errors.UpstreamError) -> None:
    """An error has the kind that its fields or its status call for, and OpenAI's four keys."""
    same("kind of error", case.expected.kind, error.kind)
    told = msgspec.json.decode(error.body())["error"]
    same("keys of the error", ["code", "message", "param", "type"], sorted(told))
    check_message(case, told["message"])


def strict(adapter: Adapter, case: Case) -> bool:
    """Return whether OpenAI's types apply to the letter: to all but what its recorder edited, where they cannot."""
    if not case.edited or case.outcome != "answer":
        return True
    try:
        if case.stream:
            chunks(played(parser_of(adapter, case), case.pieces))
        else:
            completion(answer_of(adapter, case).body)
    except Unreadable:
        return False
    return True


def sent_on(adapter: Adapter, case: Case) -> None:
    """The client's request becomes the one that the exchange tells."""
    if case.wanted is None:
        return
    try:
        rendered = adapter.render(request_of(case), target_of(case))
    except errors.UpstreamError as error:
        raise Mismatch("request", case.wanted, repr(error)) from error
    same("path of the request", case.wanted[0], rendered.path)
    same("body of the request", case.wanted[1], msgspec.json.decode(rendered.body))


Check = Callable[[Adapter, Case], None]
_OF_OUTCOMES: Final[dict[str, tuple[Check, ...]]] = {
    "error": (error_answer,),
    "broken": (error_inside,),
    "nothing": (nothing,),
}


def checks_of(case: Case) -> tuple[Check, ...]:
    """Return what a case is held to."""
    if case.outcome != "answer":
        return (sent_on, *_OF_OUTCOMES[case.outcome])
    if not case.stream:
        return (sent_on, complete)
    return (sent_on, streamed, cut_anywhere, cut_short, *([in_order] if case.translated else []))
