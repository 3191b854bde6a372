"""AWS Bedrock's Converse and ConverseStream: OpenAI's requests are translated there, the answers back. This is the map.

    _bedrock/request    the request: path, limits, sampling, structured output
    _bedrock/messages   its turns          _bedrock/media    its images and documents
    _bedrock/tools      its tools          _bedrock/thinking its reasoning
    _bedrock/models     what each family of models accepts
    _bedrock/reply      complete answers   _bedrock/stream   streamed ones
    _bedrock/frames     the event stream they come in
    _bedrock/faults     errors, in answers and in streams
    _bedrock/sigv4      signatures

The key is a Bedrock API key, sent as a bearer token, or "ACCESS:SECRET[:SESSION]", which signs each request. Reasoning
reaches the client as `reasoning_content`, its signatures as `reasoning_details`. A client that does not send these back
gets no thinking in the steps of a tool loop where a Claude wants them.
API: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and ..._ConverseStream.html
"""

from collections.abc import Mapping
from typing import Final

from adapters._bedrock.faults import parse_error
from adapters._bedrock.reply import parse
from adapters._bedrock.request import render
from adapters._bedrock.sigv4 import credentials_in, region_of, signed
from adapters._bedrock.stream import Stream
from proxy.adapter import Adapter, Rendered, Reply, StreamParser, Target
from proxy.errors import UpstreamError
from proxy.wire import ChatRequest


class Bedrock:
    """The language of the Converse API."""

    quirks: Final[frozenset[str]] = frozenset()

    def auth(self, key: str | None) -> dict[str, str]:
        """Return the header with a Bedrock API key; credentials of AWS are never sent."""
        return {"Authorization": f"Bearer {key}"} if key and credentials_in(key) is None else {}

    def sign(self, url: str, body: bytes, key: str | None, now: float) -> dict[str, str]:
        """Return the headers of Signature Version 4, none for a Bedrock API key."""
        who = credentials_in(key)
        return {} if who is None else signed(url, body, who, now, region=region_of(url), service="bedrock")

    def render(self, request: ChatRequest, target: Target) -> Rendered:
        """Return Converse's request. Raises InvalidRequestError with `unsent` for what it cannot carry."""
        return render(request, target)

    def parse(self, body: bytes, request: ChatRequest, target: Target) -> Reply:
        """Return the answer as a chat completion."""
        return parse(body, request, target)

    def stream(self, request: ChatRequest, target: Target) -> StreamParser:
        """Return a parser that makes chunks of ConverseStream's events."""
        return Stream(request, target)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Return the class of an error answer."""
        return parse_error(status, headers, body)


ADAPTER: Final[Adapter] = Bedrock()
