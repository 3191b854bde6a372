"""A wire language with a mistake in it, to see what becomes of a fault of our own."""

from typing import Final

from adapters.openai import OpenAI
from proxy.adapter import Adapter, Rendered, Target
from proxy.wire import ChatRequest


class _Broken(OpenAI):
    def render(self, request: ChatRequest, target: Target) -> Rendered:
        raise ZeroDivisionError(request.raw.decode())


ADAPTER: Final[Adapter] = _Broken()
