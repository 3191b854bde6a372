"""GitHub Copilot: Claude's answers in Anthropic's shape, and what the provider wants to know in headers."""

from typing import Final

import msgspec

from adapters._openai.opened import raw_object
from adapters._openai.shape import UNREADABLE
from proxy import wire
from proxy.wire import ChatRequest, Usage

# Stop reasons whose word differs; all others are "stop".
_FINISH: Final = {"max_tokens": "length", "refusal": "content_filter"}


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Usage(msgspec.Struct):
    """Anthropic counts cached tokens beside the input, OpenAI within."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def normal(self) -> Usage:
        cached, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        return Usage(self.input_tokens + cached + written, self.output_tokens, cached, written)


class _Answer(msgspec.Struct):
    content: list[_Block]
    id: str = "chatcmpl-0"
    model: str = ""
    stop_reason: str | None = None
    usage: _Usage | None = None


def initiator(request: ChatRequest) -> dict[str, str]:
    """Return the headers that say who spoke last, and that there are images."""
    headers = {"X-Initiator": "agent" if request.agent_turn else "user"}
    if "vision" in request.needs:
        headers["Copilot-Vision-Request"] = "true"
    return headers


def completion_of(body: bytes, request: ChatRequest) -> bytes:
    """Return an answer in Anthropic's shape as OpenAI's; anything else as it is."""
    if body.find(b'"stop_reason"') < 0:
        return body
    try:
        fields = raw_object.decode(body)
        if "choices" in fields or not {"content", "stop_reason"} <= fields.keys():
            return body
        found = msgspec.json.decode(body, type=_Answer)
    except UNREADABLE:
        return body
    return _completion(found, request)


def _completion(found: _Answer, request: ChatRequest) -> bytes:
    calls = [
        wire.ToolCall(wire.Function(block.name, bytes(block.input).decode()), id=block.id, type="function")
        for block in found.content
        if block.type == "tool_use"
    ]
    text = "".join(block.text for block in found.content if block.type == "text")
    message = wire.Message(content=text or (None if calls else ""))
    if calls:
        message.tool_calls = calls
    finish = "tool_calls" if calls else _FINISH.get(found.stop_reason or "", "stop")
    return wire.encode_completion(
        id=found.id,
        model=found.model or request.model,
        created=request.created,
        message=message,
        finish=finish,
        usage=None if found.usage is None else found.usage.normal(),
    )
