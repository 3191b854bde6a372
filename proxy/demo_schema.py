"""A JSON schema in, a value that is true to it out. Pure and deterministic.

Obeyed: types, enum, const, required, nested objects, arrays, anyOf, oneOf, allOf, local $ref, bounds, usual formats.
Not obeyed: `pattern`, `uniqueItems`, `not`, `if`.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

# JSON at the border: objects of a shape that only the client knows.
Json = dict[str, Any]

_FORMATS: Final = {
    "date-time": "2025-01-01T12:00:00Z",
    "date": "2025-01-01",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "demo@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
# Strings so named are the user's own words.
_ECHOED: Final = frozenset({"answer", "content", "input", "message", "prompt", "query", "question", "text"})
# Deeper than this, or after this many values, a schema gets the least it asks for.
_DEPTH: Final = 12
_VALUES: Final = 1000


def sample(schema: Any, said: str = "") -> Any:
    """Return a value that is true to the JSON schema; `said` fills strings that are named like the user's text.

    Recursion ends at the least that is valid; a schema that can never end gets null where it would go on.
    """
    return _Sampler(schema if isinstance(schema, dict) else {}, said).value(schema, "", 0)


class _Sampler:
    """Walks one schema once. `left` bounds the work that a hostile schema can ask for."""

    __slots__ = ("left", "root", "said")

    def __init__(self, root: Json, said: str) -> None:
        self.root = root
        self.said = said
        self.left = _VALUES

    def value(self, schema: Any, name: str, depth: int) -> Any:
        self.left -= 1
        if not isinstance(schema, dict):
            return "demo" if schema else None
        least = depth > _DEPTH or self.left < 0
        if depth > 2 * _DEPTH or self.left < -_VALUES:
            return None
        for keyword in ("$ref", "allOf", "anyOf", "oneOf"):
            if schema.get(keyword):
                return self.value(self._resolve(schema, keyword, least), name, depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        kind = _kind(schema, least)
        if kind == "object":
            return self._object(schema, depth, least)
        if kind == "array":
            return self._array(schema, name, depth, least)
        if kind in ("integer", "number"):
            return _number(schema, kind)
        return {"boolean": True, "null": None}[kind] if kind in ("boolean", "null") else self._string(schema, name)

    def _resolve(self, schema: Json, keyword: str, least: bool) -> Json:
        """Return `schema` with one level of `keyword` replaced by what it stands for."""
        merged = {key: value for key, value in schema.items() if key != keyword}
        found = schema[keyword]
        if keyword == "$ref":
            parts: list[Any] = [self._pointer(str(found))]
        elif keyword == "allOf":
            parts = found
        else:
            parts = [min(found, key=_weight) if least else found[0]]
        for part in (part for part in parts if isinstance(part, dict)):
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            required = [*merged.get("required", []), *part.get("required", [])]
            merged = {**merged, **part, "required": required}
            if properties:
                merged["properties"] = properties
        return merged

    def _pointer(self, ref: str) -> Any:
        node: Any = self.root
        for step in ref.removeprefix("#").split("/")[1:]:
            node = node.get(step.replace("~1", "/").replace("~0", "~"), {}) if isinstance(node, dict) else {}
        return node

    def _object(self, schema: Json, depth: int, least: bool) -> Json:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        names: Iterable[str] = required if least else dict.fromkeys([*properties, *required])
        return {name: self.value(properties.get(name, True), name, depth + 1) for name in names}

    def _array(self, schema: Json, name: str, depth: int, least: bool) -> list[Any]:
        fixed = schema.get("prefixItems", [])
        wanted = max(schema.get("minItems", 0), 0 if least else 1, len(fixed))
        count = min(wanted, schema.get("maxItems", wanted), _VALUES)
        items = [*fixed, *[schema.get("items", True)] * (count - len(fixed))][:count]
        return [self.value(item, name, depth + 1) for item in items]

    def _string(self, schema: Json, name: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = self.said if self.said and name.lower() in _ECHOED else name or "demo"
        return text.ljust(min(schema.get("minLength", 0), 4096), ".")[: schema.get("maxLength")]


def _kind(schema: Json, least: bool) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return "null" if least and "null" in kind else str(kind[0])
    if kind is None:
        return (
            "object"
            if "properties" in schema
            else "array"
            if "items" in schema or "prefixItems" in schema
            else "string"
        )
    return str(kind)


def _weight(schema: Any) -> int:
    """Return how much a choice may grow: null, then scalars, then what can nest."""
    if not isinstance(schema, dict):
        return 1
    kind = schema.get("type")
    return 0 if kind == "null" else 3 if "$ref" in schema or kind == "object" else 2 if kind == "array" else 1


def _number(schema: Json, kind: str) -> int | float:
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    half = 0 if kind == "integer" or math.inf in (-low, high) else (high - low) / 2
    step = schema.get("multipleOf") or half or 1
    if low > -math.inf:
        value = math.ceil(low / step) * step
        value += step if value == schema.get("exclusiveMinimum") else 0
    else:
        value = math.floor(min(high, step) / step) * step
        value -= step if value == schema.get("exclusiveMaximum") else 0
    return int(value) if kind == "integer" else float(value)
