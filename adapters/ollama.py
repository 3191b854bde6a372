"""Ollama's own chat API, `/api/chat`: OpenAI's requests are translated there, Ollama's answers back. This is the map.

    _ollama/request    the request: messages, tools, format, options
    _ollama/reply      complete answers and errors     _ollama/stream   streamed ones, a JSON object per line

Unlike Ollama's OpenAI-compatible door (the adapter `openai` speaks that) this one takes `options` such as `num_ctx` and
`keep_alive`, and asks for thinking. What the request does not say stays as the model's own file has it.
Formats: https://docs.ollama.com/api/chat, https://docs.ollama.com/api/errors, and recorded traffic.
"""

from collections.abc import Mapping
from typing import Final

from adapters._ollama.reply import parse
from adapters._ollama.request import render
from adapters._ollama.stream import Stream
from proxy.adapter import Adapter, Rendered, Reply, StreamParser, Target
from proxy.classify import classify, read_fault
from proxy.errors import UpstreamError
from proxy.wire import ChatRequest


class Ollama:
    """The language of Ollama's chat API."""

    quirks: Final[frozenset[str]] = frozenset()

    def auth(self, key: str | None) -> dict[str, str]:
        """Return the key's header; a server of one's own needs none, Ollama's cloud does."""
        return {"authorization": f"Bearer {key}"} if key else {}

    def render(self, request: ChatRequest, target: Target) -> Rendered:
        """Return Ollama's request. Raises InvalidRequestError with `unsent` for what it cannot carry."""
        return render(request, target)

    def parse(self, body: bytes, request: ChatRequest, target: Target) -> Reply:
        """Return the answer as a chat completion."""
        return parse(body, request, target)

    def stream(self, request: ChatRequest, target: Target) -> StreamParser:
        """Return a parser that makes chunks of Ollama's lines."""
        return Stream(request, target)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Return the class of an error answer."""
        return classify(status, headers, read_fault(body))


ADAPTER: Final[Adapter] = Ollama()
