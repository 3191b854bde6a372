"""A wire language with a mistake in its streams, to see what becomes of a fault of our own after the first content."""

from typing import Final

from adapters._openai.stream import Stream
from adapters.openai import OpenAI
from proxy.adapter import Adapter, StreamParser, Target
from proxy.wire import ChatRequest


class _Breaks(Stream):
    def feed(self, data: bytes) -> bytes:
        if b"oops" in data:
            raise ZeroDivisionError(data.decode())
        return super().feed(data)


class _Broken(OpenAI):
    def stream(self, request: ChatRequest, target: Target) -> StreamParser:
        return _Breaks(request, target)


ADAPTER: Final[Adapter] = _Broken()
