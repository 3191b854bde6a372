"""Declare OpenAI's tools to Converse, and say which of them the model may, must or must not call.

Converse has no word for "none": without a history of calls the tools are left out, with one they have to stay, and only
a Claude can then be told so in its own words. A certain tool can be demanded of Claude and Nova; for the others it is
the only one that is declared.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from adapters._anthropic.models import accepted_schema
from adapters._anthropic.tools import schema_object
from adapters._bedrock.messages import cache_point, legal_name
from adapters._bedrock.models import Family
from adapters._chat.names import ANSWER_TOOL
from adapters._chat.request import NOTHING, Function, MaybeRaw, ToolFields, invalid
from adapters._chat.tools import Choice, choice_of, functions_of
from proxy.adapter import not_sent

_EMPTY_SCHEMA: Final = {"type": "object", "properties": {}}
# Claude's own word, which Converse lacks; it must not stand beside a `toolChoice`.
_NONE: Final = {"tool_choice": {"type": "none"}}
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Declared(NamedTuple):
    """`config` is the request's `toolConfig`, None without tools; `own` are fields of the model's own; `forced` says
    that the model must call a tool; `dropped` are the parameters that were left out.
    """

    config: dict[str, Any] | None
    own: dict[str, Any]
    forced: bool
    dropped: list[str]


def declare(fields: ToolFields, family: Family, history: Iterable[str], answer: dict[str, Any] | None) -> Declared:
    """Return the tools of a request.

    `history` are the names its messages have called; `answer` is the schema of an answer that has to come as a call of
    ANSWER_TOOL, None when it does not.
    """
    choice = choice_of(fields, "Bedrock")
    dropped: list[str] = []
    if answer is None and not (fields.tools or fields.functions or history):
        return Declared(None, {}, False, ["tool_choice"] if choice.mode == "required" else [])
    tools = [
        tool
        for where, function, mark in functions_of(fields, "Bedrock")
        if choice.allows(function.name)
        for tool in _tools_for(function, mark, family, where, dropped)
    ]
    if answer is not None and choice.mode != "required":
        wanted = _spec(ANSWER_TOOL, answer)
        wanted["toolSpec"]["description"] = "Give the final answer."
        # The answer or, when the client's own tools are open, one of those.
        tools = [wanted] if choice.mode == "none" else [*tools, wanted]
        return Declared({"tools": tools, "toolChoice": {"any": {}}}, {}, True, dropped)
    if not tools:
        # A history with calls is refused when no tool is declared; that none may be called keeps the meaning.
        dropped += ["tool_choice"] if choice.mode == "required" else []
        tools = [_spec(name, _EMPTY_SCHEMA) for name in history]
        return Declared({"tools": tools} if tools else None, _NONE if family.claude and tools else {}, False, dropped)
    if choice.mode == "none" and not history:
        return Declared(None, {}, False, dropped)
    return _chosen(tools, choice, fields, family, dropped)


def _chosen(
    tools: list[dict[str, Any]], choice: Choice, fields: ToolFields, family: Family, dropped: list[str]
) -> Declared:
    """Return the client's tools and which of them may, must or must not be called."""
    config: dict[str, Any] = {"tools": tools}
    own: dict[str, Any] = {}
    if choice.mode == "required":
        config |= _demanded(tools, choice.name, family)
    elif choice.mode == "none" and family.claude is not None:
        own = _NONE
    elif choice.mode == "none":
        dropped.append("tool_choice")
    if fields.parallel_tool_calls is False and choice.mode != "none":
        if choice.mode == "auto" and family.claude is not None:
            own = {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
        else:
            dropped.append("parallel_tool_calls")
    return Declared(config, own, choice.mode == "required", dropped)


def _demanded(tools: list[dict[str, Any]], name: str | None, family: Family) -> dict[str, Any]:
    """Return the fields of `toolConfig` that make the model call a tool."""
    if not family.forced:
        raise not_sent("this model cannot be made to call a tool", "tool_choice")
    if name is None:
        return {"toolChoice": {"any": {}}}
    if family.named:
        return {"toolChoice": {"tool": {"name": legal_name(name)}}}
    return {"tools": _only(tools, name), "toolChoice": {"any": {}}}


def _only(tools: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    found = [tool for tool in tools if tool.get("toolSpec", {}).get("name") == legal_name(name)]
    if not found:
        raise invalid(f"there is no tool {name!r}", "tool_choice")
    return found


def _tools_for(
    function: Function, mark: MaybeRaw, family: Family, where: str, dropped: list[str]
) -> list[dict[str, Any]]:
    """Return the declaration of one function, and the cache point after it if it is marked."""
    parameters = function.parameters
    if function.strict and family.native_schema and not isinstance(parameters, msgspec.UnsetType):
        tool = _spec(function.name, accepted_schema(schema_object(parameters, f"{where}.parameters")))
        tool["toolSpec"]["strict"] = True
    else:
        tool = _spec(function.name, _input_schema(parameters, f"{where}.parameters"))
        dropped += [f"{where}.strict"] if function.strict else []
    if function.description:
        tool["toolSpec"]["description"] = function.description
    if isinstance(mark, msgspec.UnsetType) or mark in NOTHING:
        return [tool]
    if family.claude is None:
        dropped.append("cache_control")
        return [tool]
    return [tool, cache_point(mark, f"{where}.cache_control")]


def _spec(name: str, schema: msgspec.Raw | dict[str, Any]) -> dict[str, Any]:
    return {"toolSpec": {"name": legal_name(name), "inputSchema": {"json": schema}}}


def _input_schema(parameters: MaybeRaw, where: str) -> msgspec.Raw | dict[str, Any]:
    """Return a tool's schema, its bytes untouched where Converse takes them: the type must be "object"."""
    if isinstance(parameters, msgspec.UnsetType) or parameters in NOTHING:
        return _EMPTY_SCHEMA
    try:
        fields: dict[str, Any] = _fields.decode(parameters)
    except msgspec.DecodeError:
        raise invalid("a JSON schema is an object", where) from None
    if fields.get("type") == msgspec.Raw(b'"object"'):
        return parameters
    return {**fields, "type": "object"}
