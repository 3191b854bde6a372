"""JSON schemas as Gemini takes them (`parametersJsonSchema`, `responseJsonSchema`): nearly all of it, untouched.

The few keywords that are refused become words in the description, and `const` an `enum` of one. Sources: Google's
structured-output page, and the schema rewriting that pydantic-ai and litellm verified live.
"""

import re
from typing import Any, Final

import msgspec

from adapters._chat.request import invalid

_REFUSED: Final = frozenset({"exclusiveMinimum", "exclusiveMaximum", "format"})
_USELESS: Final = frozenset({"$schema", "$id", "$comment", "title", "examples", "discriminator", "strict"})
_TO_LOOK_FOR: Final = re.compile(
    b'"(?:%s)"' % b"|".join(re.escape(word).encode() for word in sorted(_REFUSED | _USELESS | {"const"}))
)
_BY_NAME: Final = frozenset({"properties", "$defs", "definitions"})
_LISTS: Final = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_ONE: Final = frozenset({"items", "additionalProperties", "not"})
_TYPES: Final[dict[type, str]] = {str: "string", bool: "boolean", int: "integer", float: "number"}


def accepted_schema(raw: msgspec.Raw, where: str) -> msgspec.Raw | dict[str, Any]:
    """Return the schema in `raw`, as it is when it holds nothing that is refused. Raises for what is no object."""
    if not bytes(raw).lstrip().startswith(b"{"):
        raise invalid("a JSON schema is an object", where)
    if _TO_LOOK_FOR.search(raw) is None:
        return raw
    try:
        found: dict[str, Any] = msgspec.json.decode(raw)
    except msgspec.DecodeError:  # it is JSON, as all of the request is, but nobody has looked at its numbers
        raise invalid("a number in a JSON schema is out of range", where) from None
    return _accepted(found)


def _accepted(schema: dict[str, Any]) -> dict[str, Any]:
    accepted: dict[str, Any] = {}
    hints: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _REFUSED:
            hints[key] = value
        elif key == "const":
            accepted["enum"] = [value]
            if type(value) in _TYPES and "type" not in schema:
                accepted["type"] = _TYPES[type(value)]
        elif key not in _USELESS:
            accepted[key] = _inside(key, value)
    if hints:
        words = msgspec.json.encode(hints).decode()
        accepted["description"] = f"{accepted.get('description', '')}\n\n{words}".strip()
    return accepted


def _inside(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        if key in _BY_NAME:
            return {name: _inside("items", inner) for name, inner in value.items()}
        return _accepted(value) if key in _ONE else value
    if isinstance(value, list) and key in _LISTS:
        return [_inside("items", inner) for inner in value]
    return value
