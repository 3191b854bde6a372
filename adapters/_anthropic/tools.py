"""Declare OpenAI's tools to Anthropic, and say which of them the model may, must or must not call.

A name that Anthropic refuses is replaced by `legal_name`, which needs no memory: the same name always becomes the same.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from adapters._anthropic.messages import legal_name
from adapters._anthropic.models import Rules, accepted_schema
from adapters._chat.names import ANSWER_TOOL
from adapters._chat.request import NOTHING, UNSET, Function, MaybeRaw, ResponseFormat, ToolFields, invalid
from adapters._chat.tools import Choice, choice_of, functions_of
from proxy.adapter import not_sent

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Declared(NamedTuple):
    """What goes into Anthropic's request, and the parameters that were left out. `choice` None: the model decides."""

    tools: list[dict[str, Any]]
    choice: dict[str, Any] | None
    dropped: list[str]


def declare(fields: ToolFields, rules: Rules, history: Iterable[str], answer: dict[str, Any] | None) -> Declared:
    """Return the tools of a request.

    `history` are the names its messages have called; `answer` is the schema of an answer that has to come as a call of
    ANSWER_TOOL, None when it does not.
    """
    choice = choice_of(fields, "Anthropic")
    dropped: list[str] = []
    tools = [
        _tool(function, mark, rules, where, dropped)
        for where, function, mark in functions_of(fields, "Anthropic")
        if choice.allows(function.name)
    ]
    if not tools:
        if choice.mode == "required":
            dropped.append("tool_choice")
        # Anthropic wants the tools of a history to be declared; forbidding them keeps the meaning.
        tools = [{"name": legal_name(name), "input_schema": {"type": "object"}} for name in history]
        choice = Choice("none")
    if answer is not None and choice.mode != "required":
        tools.append({"name": ANSWER_TOOL, "description": "Give the final answer.", "input_schema": answer})
        # One call only: the answer or, when the client's own tools are open, one of those.
        named = {"type": "tool", "name": ANSWER_TOOL} if choice.mode == "none" else {"type": "any"}
        return Declared(tools, {**named, "disable_parallel_tool_use": True}, dropped)
    return Declared(tools, _chosen(choice, fields, rules) if tools else None, dropped)


def schema_object(raw: msgspec.Raw, where: str) -> dict[str, Any]:
    """Return a decoded JSON schema. Raises InvalidRequestError when it is no object, or holds 1e999."""
    try:
        found = msgspec.json.decode(raw)
    except msgspec.DecodeError:  # it is JSON, as all of the request is, but nobody has looked at its numbers
        raise invalid("a number in a JSON schema is out of range", where) from None
    if not isinstance(found, dict):
        raise invalid("a JSON schema is an object", where)
    return found


def answer_schema(wanted: ResponseFormat | None, *, native: bool) -> dict[str, Any] | None:
    """Return the schema of the answer, None when the client gave none. Raises InvalidRequestError with `unsent` for an
    answer that is no object where that has to come as the input of a tool: it is not `native` to the model.
    """
    given = wanted.json_schema if wanted is not None and wanted.type == "json_schema" else None
    if given is None or isinstance(given.schema, msgspec.UnsetType) or given.schema in NOTHING:
        return None
    schema = schema_object(given.schema, "response_format.json_schema.schema")
    if given.description:
        schema.setdefault("description", given.description)
    if not native and schema.setdefault("type", "object") != "object":
        raise not_sent("this model's structured answers are objects", "response_format")
    return schema


def _tool(function: Function, mark: MaybeRaw, rules: Rules, where: str, dropped: list[str]) -> dict[str, Any]:
    tool: dict[str, Any] = {"name": legal_name(function.name)}
    if function.description:
        tool["description"] = function.description
    parameters = function.parameters
    if function.strict and rules.native_schema and not isinstance(parameters, msgspec.UnsetType):
        tool["strict"] = True
        tool["input_schema"] = accepted_schema(schema_object(parameters, f"{where}.parameters"))
    else:
        tool["input_schema"] = _input_schema(parameters, f"{where}.parameters")
        if function.strict:
            dropped.append(f"{where}.strict")
    if mark is not UNSET:
        tool["cache_control"] = mark
    return tool


def _chosen(choice: Choice, fields: ToolFields, rules: Rules) -> dict[str, Any] | None:
    if choice.mode == "required" and not rules.forced_tools:
        raise not_sent("this model cannot be made to call a tool", "tool_choice")
    chosen: dict[str, Any] = {"type": "any" if choice.mode == "required" else choice.mode}
    if choice.name is not None:
        chosen = {"type": "tool", "name": legal_name(choice.name)}
    if fields.parallel_tool_calls is False and choice.mode != "none":
        chosen["disable_parallel_tool_use"] = True
    return chosen if chosen != {"type": "auto"} else None


def _input_schema(parameters: MaybeRaw, where: str) -> msgspec.Raw | dict[str, Any]:
    """Return a tool's schema, its bytes untouched where Anthropic takes them: the type must be "object"."""
    if isinstance(parameters, msgspec.UnsetType) or parameters in NOTHING:
        return {"type": "object", "properties": {}}
    try:
        fields: dict[str, Any] = _fields.decode(parameters)
    except msgspec.DecodeError:
        raise invalid("a JSON schema is an object", where) from None
    if fields.get("type") == msgspec.Raw(b'"object"'):
        return parameters
    return {**fields, "type": "object"}
