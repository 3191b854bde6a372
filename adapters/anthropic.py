"""Anthropic Messages: OpenAI's requests are translated there, Anthropic's answers back. This is the map.

    _anthropic/request    the request: limits, thinking, sampling, structured output
    _anthropic/messages   its turns          _anthropic/tools    its tools
    _anthropic/models     what each family of models accepts
    _anthropic/reply      complete answers   _anthropic/stream   streamed ones

Version 2023-06-01 of the API, on purpose: the next one refuses sampling parameters that older models still honour.
Thinking reaches the client as `reasoning_content`, its signatures as `reasoning_details`. A client that does not send
these back gets no thinking in the steps of a tool loop where a model wants them.
"""

from collections.abc import Mapping
from typing import Final

from adapters._anthropic.reply import parse
from adapters._anthropic.request import render
from adapters._anthropic.stream import Stream
from proxy.adapter import Adapter, Rendered, Reply, StreamParser, Target
from proxy.classify import classify, read_fault
from proxy.errors import UpstreamError
from proxy.wire import ChatRequest


class Anthropic:
    """The language of Anthropic's Messages API."""

    quirks: Final[frozenset[str]] = frozenset()

    def auth(self, key: str | None) -> dict[str, str]:
        """Return the key's header and the API version."""
        headers = {"anthropic-version": "2023-06-01"}
        return {"x-api-key": key, **headers} if key else headers

    def render(self, request: ChatRequest, target: Target) -> Rendered:
        """Return Anthropic's request. Raises InvalidRequestError with `unsent` for what it cannot carry."""
        return render(request, target)

    def parse(self, body: bytes, request: ChatRequest, target: Target) -> Reply:
        """Return the answer as a chat completion."""
        return parse(body, request, target)

    def stream(self, request: ChatRequest, target: Target) -> StreamParser:
        """Return a parser that makes chunks of Anthropic's events."""
        return Stream(request, target)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Return the class of an error answer."""
        return classify(status, headers, read_fault(body))


ADAPTER: Final[Adapter] = Anthropic()
