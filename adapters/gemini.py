"""Gemini's generateContent: OpenAI's requests are translated there, Google's answers back. This is the map.

    _gemini/request    the request: limits, thinking, sampling, structured output
    _gemini/messages   its turns           _gemini/media   images, sound and files in them
    _gemini/tools      its tools           _gemini/schema  the JSON schemas it takes
    _gemini/models     what each family of models accepts
    _gemini/reply      complete answers    _gemini/stream  streamed ones    _gemini/faults  errors

Gemini 3 wants its thought signatures back with the calls they came with. They travel in `reasoning_details`, as in the
other languages, and as Google's own OpenAI endpoint does it, in `tool_calls[].extra_content.google`; a client that
drops both, or a call that another model made, is told to Gemini with the placeholder that Google documents for that.
Sources: the Gemini API reference (v1beta) and Google's SDK.
"""

from collections.abc import Mapping
from typing import Final

from adapters._gemini.faults import fault_of_answer
from adapters._gemini.reply import parse
from adapters._gemini.request import render
from adapters._gemini.stream import Stream
from proxy.adapter import Adapter, Rendered, Reply, StreamParser, Target
from proxy.errors import UpstreamError
from proxy.wire import ChatRequest


class Gemini:
    """The language of Gemini's API with an API key: Google AI Studio, and Vertex AI in express mode.

    Signatures are good at the `surface` they were made at, and nowhere else.
    """

    quirks: Final[frozenset[str]] = frozenset()
    surface: str = "gemini"

    def auth(self, key: str | None) -> dict[str, str]:
        """Return the key's header."""
        return {"x-goog-api-key": key} if key else {}

    def render(self, request: ChatRequest, target: Target) -> Rendered:
        """Return Gemini's request. Raises InvalidRequestError with `unsent` for what it cannot carry."""
        return render(request, target, self.surface)

    def parse(self, body: bytes, request: ChatRequest, target: Target) -> Reply:
        """Return the answer as a chat completion."""
        return parse(body, request, target, self.surface)

    def stream(self, request: ChatRequest, target: Target) -> StreamParser:
        """Return a parser that makes chunks of Gemini's events."""
        return Stream(request, target, self.surface)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Return the class of an error answer."""
        return fault_of_answer(status, headers, body)


ADAPTER: Final[Adapter] = Gemini()
