"""Declare OpenAI's tools to Gemini, and say which of them the model may, must or must not call.

A name that Gemini refuses is replaced by `legal_name`, which needs no memory: the same name always becomes the same.
"""

from typing import Any, Final, NamedTuple

import msgspec

from adapters._chat.request import NOTHING, Called, Function, Tool, ToolChoice
from adapters._gemini.media import invalid
from adapters._gemini.messages import legal_name
from adapters._gemini.schema import accepted_schema
from proxy.adapter import not_sent


class ToolFields(msgspec.Struct):
    """The fields of a request that are about tools. `functions` and `function_call` are the older spelling."""

    tools: list[Tool] | None = None
    functions: list[Function] | None = None
    tool_choice: str | ToolChoice | None = None
    function_call: str | Called | None = None
    parallel_tool_calls: bool | None = None


class _Choice(NamedTuple):
    """`tool_choice` in one shape: `mode` is Gemini's word; `allowed` None when every tool may be called."""

    mode: str
    allowed: frozenset[str] | None = None


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
    choice = _choice_of(fields)
    dropped: list[str] = []
    tools = [
        _declaration(function, where, dropped)
        for where, function in _functions(fields)
        if choice.allowed is None or choice.mode == "ANY" or function.name in choice.allowed
    ]
    if fields.parallel_tool_calls is False and tools and choice.mode != "NONE":
        dropped.append("parallel_tool_calls")
    if not tools:
        # The field is refused when there is nothing to choose from.
        return Declared([], None, [*dropped, *(["tool_choice"] if choice.mode == "ANY" else [])])
    if choice.mode == "AUTO":
        return Declared(tools, None, dropped)
    config: dict[str, Any] = {"mode": choice.mode}
    if choice.allowed is not None:
        config["allowedFunctionNames"] = sorted(map(legal_name, choice.allowed))
    return Declared(tools, {"functionCallingConfig": config}, dropped)


def original_names(fields: ToolFields) -> dict[str, str]:
    """Return the client's tool names by the name that Gemini saw, those that had to be changed only."""
    names = [function.name for _, function in _functions(fields)]
    return {legal_name(name): name for name in names if legal_name(name) != name}


def _functions(fields: ToolFields) -> list[tuple[str, Function]]:
    """Return the client's functions with the place where each is declared."""
    found: list[tuple[str, Function]] = []
    for index, tool in enumerate(fields.tools or ()):
        if tool.type != "function":
            raise not_sent("Gemini has function tools only", f"tools[{index}].type")
        if tool.function is None:
            raise invalid("a function tool needs its function", f"tools[{index}].function")
        found.append((f"tools[{index}].function", tool.function))
    found += [(f"functions[{index}]", function) for index, function in enumerate(fields.functions or ())]
    return found


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


def _choice_of(body: ToolFields) -> _Choice:
    chosen = body.tool_choice
    if chosen is None and isinstance(body.function_call, Called):
        return _Choice("ANY", frozenset({body.function_call.name}))
    if chosen is None:
        chosen = body.function_call if isinstance(body.function_call, str) else "auto"
    if isinstance(chosen, str):
        if chosen not in _MODES:
            raise invalid(f"there is no tool choice {chosen!r}", "tool_choice")
        return _Choice(_MODES[chosen])
    if chosen.type == "function" and chosen.function is not None:
        return _Choice("ANY", frozenset({chosen.function.name}))
    if chosen.type == "allowed_tools" and chosen.allowed_tools is not None:
        names = frozenset(tool.function.name for tool in chosen.allowed_tools.tools if tool.function is not None)
        return _Choice("ANY" if chosen.allowed_tools.mode == "required" else "AUTO", names)
    raise not_sent(f"Gemini has no tool choice of type {chosen.type!r}", "tool_choice")
