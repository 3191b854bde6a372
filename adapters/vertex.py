"""Gemini on Vertex AI: the language of `adapters.gemini`, with an OAuth access token instead of an API key.

Project and place stand in the provider's base URL, up to and including `/publishers/google`. A token lives an hour, so
let something renew it, or use an API key: express mode is `adapters.gemini` at Vertex's address.
"""

from typing import Final

from adapters.gemini import Gemini
from proxy.adapter import Adapter


class Vertex(Gemini):
    """Gemini's language as Vertex AI speaks it."""

    surface = "vertex"

    def auth(self, key: str | None) -> dict[str, str]:
        """Return the access token's header."""
        return {"authorization": f"Bearer {key}"} if key else {}


ADAPTER: Final[Adapter] = Vertex()
