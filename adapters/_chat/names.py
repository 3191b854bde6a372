"""What a called tool is to the client: one of its own, under the name it gave, or the wrap of a structured answer."""

from collections.abc import Callable, Mapping
from typing import Final

# Models without structured output answer by calling this tool, whose arguments are the answer.
ANSWER_TOOL: Final = "sidecar_json_answer"


class Names:
    """The names of one answer's calls. `originals` are those that had to be changed, by what they became.

    `emulated` is True when the answer is expected as a call of the answer tool.
    """

    __slots__ = ("_originals", "emulated")

    def __init__(self, originals: Callable[[], Mapping[str, str]], *, emulated: bool) -> None:
        self._originals = originals
        self.emulated = emulated

    def is_answer(self, name: str | None) -> bool:
        """Say whether a tool called `name` is the answer tool."""
        return self.emulated and name == ANSWER_TOOL

    def of(self, name: str) -> str:
        """Return the client's name of the tool called `name`."""
        # Only a name that had to be changed ends in a checksum; the others need no look at the request.
        return self._originals().get(name, name) if name[-9:-8] == "_" else name
