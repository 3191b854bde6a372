"""Declare OpenAI's tools to Gemini, and say which of them the model may, must or must not call.

A name that Gemini refuses is replaced by `legal_name`, which needs no memory: the same name always becomes the same.
"""

from typing import Any, Final, NamedTuple

import msgspec

from adapters._chat.request import NOTHING, Function, ToolFields
from adapters._chat.tools import choice_of, functions_of
from adapters._gemini.messages import legal_name
from adapters._gemini.schema import accepted_schema


class Declared(NamedTuple):
    """What goes into Gemini's request, and the parameters that were left out. `config` None: the model decides."""

    tools: list[dict[str, Any]]
    config: dict[str, Any] | None
    dropped: list[str]


_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_properties: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
# Where a schema says what an object holds, and the values that say: nothing.
_TAKES: Final = ("properties", "additionalProperties", "patternProperties", "$ref", "anyOf", "oneOf", "allOf")
_EMPTY: Final = frozenset({b"{}", b"null", b"false"})


def declare(fields: ToolFields) -> Declared:
    """Return the tools of a request. Raises InvalidRequestError with `unsent` for what Gemini has no word for."""
    choice = choice_of(fields, "Gemini")
    mode = _MODES[choice.mode]
    allowed = choice.allowed if choice.name is None else frozenset({choice.name})
    dropped: list[str] = []
    tools = [
        _declaration(function, where, dropped)
        for where, function, _ in functions_of(fields, "Gemini")
        if mode == "ANY" or choice.allows(function.name)
    ]
    if fields.parallel_tool_calls is False and tools and mode != "NONE":
        dropped.append("parallel_tool_calls")
    if not tools:
        # The field is refused when there is nothing to choose from.
        return Declared([], None, [*dropped, *(["tool_choice"] if mode == "ANY" else [])])
    if mode == "AUTO":
        return Declared(tools, None, dropped)
    config: dict[str, Any] = {"mode": mode}
    if allowed is not None:
        config["allowedFunctionNames"] = sorted(map(legal_name, allowed))
    return Declared(tools, {"functionCallingConfig": config}, dropped)


def _declaration(function: Function, where: str, dropped: list[str]) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": legal_name(function.name)}
    if function.description:
        declared["description"] = function.description
    parameters = function.parameters
    if not isinstance(parameters, msgspec.UnsetType) and parameters not in NOTHING:
        schema = accepted_schema(parameters, f"{where}.parameters")
        if _has_properties(parameters):
            declared["parametersJsonSchema"] = schema
    if function.strict:
        dropped.append(f"{where}.strict")
    return declared


def _has_properties(parameters: msgspec.Raw) -> bool:
    """Say whether a function takes anything; an object without properties is refused by some models."""
    fields = _properties.decode(parameters)
    return any(b"".join(bytes(fields[key]).split()) not in _EMPTY for key in _TAKES if key in fields)
