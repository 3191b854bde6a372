"""OpenAI's Responses API as an upstream: chat completions are translated there, responses back. This is the map.

    _responses/request    the request: limits, reasoning, sampling, structured output
    _responses/messages   its items         _responses/tools   its tools
    _responses/models     what each family of models takes
    _responses/items      the items of an answer
    _responses/reply      complete answers, usage, errors     _responses/stream   streamed ones

For the models that are to be had there only. Nothing is stored at the provider (`store` is false unless the client
says otherwise). Reasoning reaches the client as `reasoning_content`, where a summary was asked for; what is encrypted
of it as `reasoning_details`, which go back to the model that made them.
Formats: OpenAI's API reference, "Create a model response", "Streaming events", and recorded traffic.
"""

from collections.abc import Mapping
from typing import Final

from adapters._responses.reply import parse
from adapters._responses.request import QUIRKS, render
from adapters._responses.stream import Stream
from proxy.adapter import Adapter, Rendered, Reply, StreamParser, Target
from proxy.classify import classify, read_fault
from proxy.errors import UpstreamError
from proxy.wire import ChatRequest


class Responses:
    """The language of OpenAI's Responses API."""

    quirks: Final = QUIRKS

    def auth(self, key: str | None) -> dict[str, str]:
        """Return the key's header."""
        return {"Authorization": f"Bearer {key}"} if key else {}

    def render(self, request: ChatRequest, target: Target) -> Rendered:
        """Return the request for a response. Raises InvalidRequestError with `unsent` for what it cannot carry."""
        return render(request, target)

    def parse(self, body: bytes, request: ChatRequest, target: Target) -> Reply:
        """Return the answer as a chat completion; a stream, where the provider gives nothing else, all the same."""
        return parse(body, request, target)

    def stream(self, request: ChatRequest, target: Target) -> StreamParser:
        """Return a parser that makes chunks of the events of a response."""
        return Stream(request, target)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Return the class of an error answer."""
        return classify(status, headers, read_fault(body))


ADAPTER: Final[Adapter] = Responses()
