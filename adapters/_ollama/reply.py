"""Read Ollama's answers: a complete one is the line that a stream would end with, with everything in it.

Calls that have no id, which older servers do not give, get one that depends on the request only: the same in a
complete answer and in a stream, and another one in the next turn. Arguments keep their digits: they are never decoded.
"""

import zlib
from typing import Any, Final

import msgspec

from adapters._chat.chunks import logprob, plain
from proxy import wire
from proxy.adapter import Reply, Target
from proxy.classify import Fault, classify, fault_of, status_in
from proxy.errors import UnavailableError, UpstreamError
from proxy.wire import ChatRequest, Number, Usage

_FINISH: Final = {"length": "length"}


class Function(msgspec.Struct):
    """A called function. Its own `index` is left unread: servers have sent 0 for each of several calls."""

    name: Any = None
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class Call(msgspec.Struct):
    """A tool call, always whole."""

    id: Any = None
    function: Function | None = None


class Said(msgspec.Struct):
    """A message, or the next words of one."""

    content: Any = None
    thinking: Any = None
    tool_calls: list[Call] | None = None


class Token(msgspec.Struct):
    """A token of the answer, and those that might have been."""

    token: str = ""
    logprob: float = -9999.0
    top_logprobs: list["Token"] | None = None


class Line(msgspec.Struct):
    """A line of a stream, or a complete answer. Counts of 0 are left out."""

    model: str | None = None
    created_at: str = ""
    message: Said | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: Number | None = None
    eval_count: Number | None = None
    error: Any = None
    logprobs: list[Token] | None = None


_line: Final = msgspec.json.Decoder(Line)


def parse(body: bytes, request: ChatRequest, target: Target) -> Reply:
    """Return a complete answer as a chat completion. Raises UpstreamError for an error or nonsense in it."""
    answer = decode(body, "upstream_invalid_response")
    if answer.message is None or not answer.done:
        raise UnavailableError("the upstream's answer is no message", code="upstream_invalid_response")
    said = answer.message
    calls = [
        wire.ToolCall(wire.Function(name, arguments), id=id, type="function")
        for id, name, arguments in calls_in(said, request, 0)
    ]
    message = wire.Message(plain(said.content) or (None if calls else ""))
    thinking = plain(said.thinking)
    if thinking:
        message.reasoning_content = thinking
    if calls:
        message.tool_calls = calls
    finish, usage = finish_of(answer, called=bool(calls)), usage_of(answer)
    encoded = wire.encode_completion(
        id=id_of(answer, request),
        model=answer.model or target.model,
        created=request.created,
        message=message,
        finish=finish,
        usage=usage,
        logprobs=logprobs_of(answer),
    )
    return Reply(encoded, usage, finish, answer.model)


def decode(line: bytes, code: str = "upstream_invalid_event") -> Line:
    """Return the line. Raises UpstreamError for an error in it, or with `code` when it is none of Ollama's."""
    try:
        found = _line.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnavailableError("the upstream sent a line that is not valid", code=code) from None
    if found.error is not None:
        raise _fault_in(line)
    return found


def _fault_in(line: bytes) -> UpstreamError:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # in what the line's own decoder skips
        return classify(502, {}, Fault(""))
    return classify(status_in(found), {}, fault_of(found))


def calls_in(said: Said, request: ChatRequest, first: int) -> list[tuple[str, str, str]]:
    """Return id, name and arguments of the calls in a message; `first` is the number of the first of them."""
    calls = []
    for index, call in enumerate(said.tool_calls or (), first):
        function = call.function or Function()
        # A value that was not decoded has not been checked for UTF-8 either.
        arguments = bytes(function.arguments).decode(errors="replace")
        if arguments.startswith('"'):  # some models' templates give text, as OpenAI's do
            arguments = str(msgspec.json.decode(arguments))
        id = plain(call.id) or f"call_{zlib.crc32(request.raw):08x}_{index}"
        calls.append((id, plain(function.name), "{}" if arguments == "null" else arguments))
    return calls


def logprobs_of(line: Line) -> dict[str, Any] | None:
    """Return OpenAI's logprobs object; None for none."""
    if not line.logprobs:
        return None
    content = [
        {
            **logprob(one.token, one.logprob),
            "top_logprobs": [logprob(other.token, other.logprob) for other in one.top_logprobs or ()],
        }
        for one in line.logprobs
    ]
    return {"content": content, "refusal": None}


def id_of(line: Line, request: ChatRequest) -> str:
    """Return a name for the answer: Ollama has none, but says to the nanosecond when it began."""
    return f"chatcmpl-{''.join(filter(str.isdigit, line.created_at)) or request.created}"


def finish_of(line: Line, *, called: bool) -> str:
    """Return OpenAI's finish reason: "stop" is also what Ollama says after calls."""
    return _FINISH.get(line.done_reason or "", "tool_calls" if called else "stop")


def usage_of(line: Line) -> Usage | None:
    """Return what was counted; a prompt that was cached as a whole has no count. None when there is none at all,
    or one that cannot be.
    """
    if line.prompt_eval_count is None and line.eval_count is None:
        return None
    return wire.counted(line.prompt_eval_count, line.eval_count)
