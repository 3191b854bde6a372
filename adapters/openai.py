"""OpenAI chat completions, passed through: the client's bytes go out with the model renamed, the answer's come back.

Providers that deviate say so in their catalog row (`quirks`, a table in docs/policies.md); everybody else's bytes are
left alone, but for what no client could read: a finish reason that is none of OpenAI's or is told twice, a tool call
without its index, a choice without its message.
"""

from collections.abc import Mapping
from typing import Final

from adapters._openai import finish, repairs
from adapters._openai.native import completion_of
from adapters._openai.opened import raw, reopen
from adapters._openai.repairs import Memory, mended
from adapters._openai.request import LIMIT, render
from adapters._openai.shape import EMPTY, NULL, Body, decode, raise_error
from adapters._openai.stream import EARLY, NO_CHOICES, STOP, Stream
from adapters._openai.usage import THOUGHTS, usage_of
from proxy.adapter import Adapter, Rendered, Reply, StreamParser, Target
from proxy.classify import classify, read_fault
from proxy.errors import UnavailableError, UpstreamError
from proxy.wire import ChatRequest


class OpenAI:
    """The OpenAI language."""

    quirks: Final = frozenset({*repairs.QUIRKS, *LIMIT, "initiator", EARLY, NO_CHOICES, STOP, THOUGHTS})

    def auth(self, key: str | None) -> dict[str, str]:
        """Return the bearer header; nothing without a key (local servers)."""
        return {"Authorization": f"Bearer {key}"} if key else {}

    def render(self, request: ChatRequest, target: Target) -> Rendered:
        """Return the client's own bytes with the model replaced, and usage asked for in a stream."""
        return render(request, target)

    def parse(self, body: bytes, request: ChatRequest, target: Target) -> Reply:
        """Return `body` as it is, after making sure that it is an answer that clients can read."""
        if target.quirks:
            if "fill_missing" in target.quirks:
                body = completion_of(body, request)
            body = mended(body, repairs.of(target.quirks), Memory(request), whole=True)
        found = decode(body, "upstream_invalid_response")
        raise_error(found)
        if not found.choices:
            raise UnavailableError("the upstream's answer has no choices", code="upstream_invalid_response")
        body = _finished(found, body, target.quirks)
        return Reply(body, usage_of(found.usage, target.quirks), found.choices[0].finish_reason, found.name)

    def stream(self, request: ChatRequest, target: Target) -> StreamParser:
        """Return a parser that passes events on."""
        return Stream(request, target)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Return the class of an error answer; OpenAI's shape and its many dialects."""
        return classify(status, headers, read_fault(body))


def _finished(found: Body, body: bytes, quirks: frozenset[str]) -> bytes:
    """Return a whole answer in which every choice has a message and one of OpenAI's finish reasons."""
    choices = found.choices or []
    for one in choices:
        if one.finish_reason not in finish.WORDS or one.message == NULL:
            break
    else:
        if STOP not in quirks:
            return body
    if any(one.message == NULL and not one.finish_reason for one in choices):
        return body  # it neither says nor ends anything: whoever needs a message will find none
    opened = reopen(body, "upstream_invalid_response", whole=True)
    changed = False
    for choice, (fields, said) in zip(choices, opened.each(), strict=True):
        called = said.get("tool_calls", NULL) not in EMPTY
        reason = finish.word(choice.finish_reason or "", called=called)
        if reason == "stop" and called and STOP in quirks:
            reason = "tool_calls"
        if reason != choice.finish_reason or choice.message == NULL:
            changed = True
        choice.finish_reason = reason
        fields["finish_reason"] = raw(reason)
    return opened.join() if changed else body


ADAPTER: Final[Adapter] = OpenAI()
