"""Cohere's chat API, version 2: OpenAI's requests are translated there, Cohere's answers back. This is the map.

    _cohere/request    the request: limits, sampling, thinking, tools, structured output
    _cohere/messages   its turns
    _cohere/reply      complete answers, usage, errors     _cohere/stream   streamed ones

Thinking and the plan that comes before tool calls reach the client as `reasoning_content`; in a conversation that is
sent on, it is the plan again. Citations have no place in OpenAI's answers and are left out.
Formats: https://docs.cohere.com/reference/chat, https://docs.cohere.com/reference/chat-stream, and recorded traffic.
"""

from collections.abc import Mapping
from typing import Final

from adapters._cohere.reply import parse, refused
from adapters._cohere.request import render
from adapters._cohere.stream import Stream
from proxy.adapter import Adapter, Rendered, Reply, StreamParser, Target
from proxy.errors import UpstreamError
from proxy.wire import ChatRequest


class Cohere:
    """The language of Cohere's v2 chat API."""

    quirks: Final[frozenset[str]] = frozenset()

    def auth(self, key: str | None) -> dict[str, str]:
        """Return the key's header."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def render(self, request: ChatRequest, target: Target) -> Rendered:
        """Return Cohere's request. Raises InvalidRequestError with `unsent` for what it cannot carry."""
        return render(request, target)

    def parse(self, body: bytes, request: ChatRequest, target: Target) -> Reply:
        """Return the answer as a chat completion."""
        return parse(body, request, target)

    def stream(self, request: ChatRequest, target: Target) -> StreamParser:
        """Return a parser that makes chunks of Cohere's events."""
        return Stream(request, target)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Return the class of an error answer."""
        return refused(status, headers, body)


ADAPTER: Final[Adapter] = Cohere()
