"""What each family of models accepts, as data: a row per pattern of names, the first that fits wins.

Sources: Google's model and thinking pages, and what litellm, pydantic-ai and opencode verified live (2026). A Gemini we
have never heard of gets the newest family's rules; a name that is no Gemini (Gemma and others are served in this
language too) gets the plainest ones.
"""

import re
from typing import Final, Literal

import msgspec

_ALL_LEVELS: Final = ("minimal", "low", "medium", "high")


class Rules(msgspec.Struct, frozen=True):
    """One family. Thinking is asked for by a budget in tokens (`least` to `most`; `least` 0 means that it can be off)
    or by one of `levels`, lowest first.

    `signatures`: the first call of a step must come back with its signature. `call_ids`: calls and results may carry
    ids, which older models answer with 400.
    """

    thinking: Literal["never", "budget", "level"] = "level"
    least: int = 0
    most: int = 24_576
    levels: tuple[str, ...] = _ALL_LEVELS
    call_ids: bool = True
    signatures: bool = True
    penalties: bool = False
    schema_with_tools: bool = True
    system: bool = True


_PLAIN: Final = Rules(thinking="never", call_ids=False, signatures=False, penalties=True, schema_with_tools=False)
_NO_SYSTEM: Final = msgspec.structs.replace(_PLAIN, system=False)
_2_5: Final = msgspec.structs.replace(_PLAIN, thinking="budget")
# Up to 3.x, only the Flash models can be told to think minimally.
_PRO: Final = Rules(levels=("low", "medium", "high"))

_FAMILIES: Final = tuple(
    (re.compile(pattern), rules)
    for pattern, rules in (
        (r"gemini-(1|2\.0|2\.5-.*(image|tts|audio))", _PLAIN),
        (r"gemini-2\.5-pro", msgspec.structs.replace(_2_5, least=128, most=32_768)),
        (r"gemini-2\.5", _2_5),
        (r"gemini-3-pro", Rules(levels=("low", "high"))),
        (r"gemini-.*flash", Rules()),
        (r"gemini-", _PRO),
        (r"gemma-[123]", _NO_SYSTEM),
    )
)


def bare_name(model: str) -> str:
    """Return the model's name without the collection that Google's lists put before it."""
    return model.removeprefix("models/")


def rules_for(model: str) -> Rules:
    """Return the rules of the family that `model` belongs to."""
    name = bare_name(model)
    for pattern, rules in _FAMILIES:
        if pattern.match(name):
            return rules
    return _PLAIN
