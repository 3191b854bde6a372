"""What a family of models takes over the Responses API: a table by name, not a rule per provider.

Names come bare ("gpt-5.5"), or behind a vendor's ("openai/gpt-5", "openai.gpt-5.5"). A name that nobody knows, such as
that of a deployment, is asked for nothing special. Sources: OpenAI's reasoning guide, recorded answers.
"""

import re
from typing import Final

_O_SERIES: Final = re.compile(r"(?:^|[/.])(?:o[1-9](?:-|$)|codex-|computer-use)")
_GPT: Final = re.compile(r"(?:^|[/.])gpt-([5-9])(?:\.(\d+))?(?:[-.]|$)")
_GROK: Final = re.compile(r"(?:^|[/.])grok-[4-9]")
# Those of the later families that always reason; and the one that never does.
_ALWAYS: Final = re.compile(r"codex|-pro|-chat")
_NEVER: Final = re.compile(r"(?:^|[/.])gpt-5-chat")
# Up to this version a model reasons only when it is asked to, from the next one on unless it is asked not to.
_ON_REQUEST: Final = ((5, 1), (5, 4))


def reasons(model: str, effort: str | None) -> bool:
    """Return whether the model's reasoning can be had encrypted: one that has none answers 400 when asked for it."""
    if _NEVER.search(model):
        return False
    return any(family.search(model) for family in (_O_SERIES, _GPT, _GROK)) or effort not in (None, "none")


def samples(model: str, effort: str | None) -> bool:
    """Return whether `temperature` and its like are taken: OpenAI's models answer 400 to them while they reason."""
    if _NEVER.search(model):
        return True
    if _O_SERIES.search(model):
        return False
    found = _GPT.search(model)
    if found is None:
        return True
    version = int(found[1]), int(found[2] or 0)
    if version < _ON_REQUEST[0] or _ALWAYS.search(model):
        return False
    return effort == "none" or (effort is None and version <= _ON_REQUEST[1])
