"""What each Claude family accepts, as data: a row per model-name prefix, the longest prefix wins.

Sources: Anthropic's model pages and migration notes, and what pydantic-ai and litellm verified live (November 2026).
A Claude we have never heard of gets the newest family's rules; a name that is no Claude (other vendors serve this
language too) gets the plainest ones: sampling allowed, nothing that only newer Claudes know.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

Thinking = Literal["never", "budget", "adaptive"]
ThinkingOff = Literal["omitted", "disabled", "between_tools", "impossible"]


class Rules(msgspec.Struct, frozen=True):
    """One family. `max_output` is the default limit in tokens; `thinking` how reasoning is asked for, `thinking_off`
    how it is kept away; `efforts` are the words `output_config.effort` takes.
    """

    max_output: int = 128_000
    sampling: bool = False
    # Both temperature and top_p in one request: fine up to Claude 4.0, a 400 after that.
    both_samplers: bool = False
    thinking: Thinking = "adaptive"
    thinking_off: ThinkingOff = "omitted"
    efforts: frozenset[str] = frozenset({"low", "medium", "high", "xhigh", "max"})
    forced_tools: bool = True
    native_schema: bool = True
    prefill: bool = False


_UP_TO_MAX: Final = frozenset({"low", "medium", "high", "max"})
_NO_EFFORT: Final[frozenset[str]] = frozenset()

# 4096: a limit that does not fit the window next to the prompt is a 400 there, so the default stays small.
_CLAUDE_3: Final = Rules(
    max_output=4096,
    sampling=True,
    both_samplers=True,
    thinking="never",
    efforts=_NO_EFFORT,
    native_schema=False,
    prefill=True,
)
_CLAUDE_4_0: Final = msgspec.structs.replace(_CLAUDE_3, thinking="budget")
_CLAUDE_4_1: Final = msgspec.structs.replace(_CLAUDE_4_0, both_samplers=False, native_schema=True)
_CLAUDE_4_5: Final = msgspec.structs.replace(_CLAUDE_4_1, max_output=64_000)
_CLAUDE_4_6: Final = Rules(sampling=True, efforts=_UP_TO_MAX)
_CLAUDE_4_7: Final = Rules()
_CLAUDE_5: Final = Rules(thinking_off="disabled")
_ALWAYS_THINKS: Final = Rules(thinking_off="impossible")
_NEWEST: Final = Rules(thinking_off="impossible", forced_tools=False)
_FOREIGN: Final = msgspec.structs.replace(_CLAUDE_4_0, max_output=8192)

_BY_PREFIX: Final[dict[str, Rules]] = {
    "claude-": _NEWEST,
    "claude-2": _CLAUDE_3,
    "claude-instant": _CLAUDE_3,
    "claude-3": _CLAUDE_3,
    "claude-3-7-": _CLAUDE_4_0,
    # Dated names: claude-opus-4-20250514 is 4.0, and so is the alias claude-opus-4-0.
    "claude-opus-4": _CLAUDE_4_0,
    "claude-sonnet-4": _CLAUDE_4_0,
    "claude-opus-4-1": _CLAUDE_4_1,
    "claude-opus-4-5": _CLAUDE_4_5,
    "claude-sonnet-4-5": _CLAUDE_4_5,
    "claude-haiku-4-5": _CLAUDE_4_5,
    "claude-opus-4-6": _CLAUDE_4_6,
    "claude-sonnet-4-6": _CLAUDE_4_6,
    "claude-opus-4-7": _CLAUDE_4_7,
    "claude-opus-4-8": _CLAUDE_4_7,
    "claude-opus-5": _CLAUDE_5,
    "claude-sonnet-5": _CLAUDE_5,
    "claude-haiku-5": _CLAUDE_5,
    "claude-fable-5": _ALWAYS_THINKS,
    "claude-mythos-5": _ALWAYS_THINKS,
    "claude-opus-5-5": _NEWEST,
    "claude-sonnet-5-5": Rules(thinking_off="between_tools", forced_tools=False),
    "claude-fable-5-1": _NEWEST,
    "claude-fable-5-2": _NEWEST,
    "claude-mythos-5-1": _NEWEST,
    "claude-mythos-5-2": _NEWEST,
}
_LONGEST_FIRST: Final = tuple(sorted(_BY_PREFIX.items(), key=lambda row: -len(row[0])))


def rules_for(model: str) -> Rules:
    """Return the rules of the family that `model` belongs to."""
    for prefix, rules in _LONGEST_FIRST:
        if model.startswith(prefix):
            return rules
    return _FOREIGN


# ---- JSON schemas for structured output --------------------------------------------------------------------------

_REFUSED: Final = re.compile(
    r"(?:minimum|maximum|exclusive(?:Min|Max)imum|multipleOf|m(?:in|ax)(?:Length|Contains|Properties)|maxItems"
    r"|uniqueItems|contains|patternProperties|propertyNames|unevaluated(?:Properties|Items)"
    r"|dependent(?:Required|Schemas)|if|then|else|not)"
)
_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
_SCHEMAS_BY_NAME: Final = frozenset({"properties", "$defs", "definitions"})
_SCHEMA_LISTS: Final = frozenset({"anyOf", "allOf", "prefixItems"})


def accepted_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return `schema` in the subset that structured output takes.

    Keywords outside it become words in the description, `oneOf` becomes `anyOf`, and objects are closed.
    """
    accepted: dict[str, Any] = {}
    hints = dict(_refused(schema))
    for key, value in schema.items():
        if key in hints:
            continue
        if key in _SCHEMAS_BY_NAME and isinstance(value, dict):
            accepted[key] = {name: _accepted(inner) for name, inner in value.items()}
        elif key == "oneOf":
            accepted["anyOf"] = _accepted_list(value)
        elif key in _SCHEMA_LISTS:
            accepted[key] = _accepted_list(value)
        else:
            accepted[key] = _accepted(value) if key == "items" else value
    if accepted.get("type") == "object" or "properties" in accepted:
        accepted["additionalProperties"] = False
    if hints:
        words = msgspec.json.encode(hints).decode()
        accepted["description"] = f"{accepted.get('description', '')}\n\n{words}".strip()
    return accepted


def _refused(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        refused = (
            _REFUSED.fullmatch(key) is not None
            or (key == "minItems" and value not in (0, 1))
            or (key == "format" and not (isinstance(value, str) and value in _FORMATS))
        )
        if refused:
            yield key, value


def _accepted(schema: Any) -> Any:
    return accepted_schema(schema) if isinstance(schema, dict) else schema


def _accepted_list(schemas: Any) -> Any:
    return [_accepted(schema) for schema in schemas] if isinstance(schemas, list) else schemas
