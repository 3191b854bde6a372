"""Declare OpenAI's tools to a language that takes them in OpenAI's shape, and say which of them the model may call."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from adapters._chat.request import Called, Chat, Function, invalid, schema_in
from proxy.adapter import not_sent

_NO_PARAMETERS: Final = msgspec.Raw(b'{"type":"object","properties":{}}')


class Declared(NamedTuple):
    """The tools the model may see. `mode` is none, auto or required, and auto when there are none."""

    tools: list[dict[str, Any]]
    mode: str


def declare(chat: Chat, language: str, dropped: list[str]) -> Declared:
    """Return the tools in the shape OpenAI gave them, of a choice that names some only those.

    Adds to `dropped` what has no counterpart: strict arguments, one call at a time, a forced call without tools.
    """
    mode, allowed = _choice_of(chat, language)
    tools = [
        _tool(function, where, dropped)
        for where, function in _functions(chat, language)
        if allowed is None or function.name in allowed
    ]
    if chat.parallel_tool_calls is False and tools:
        dropped.append("parallel_tool_calls")
    if not tools and mode == "required":
        dropped.append("tool_choice")
    return Declared(tools, mode if tools else "auto")


def _choice_of(chat: Chat, language: str) -> tuple[str, frozenset[str] | None]:
    chosen = chat.tool_choice
    if chosen is None and isinstance(chat.function_call, Called):
        return "required", frozenset({chat.function_call.name})
    if chosen is None:
        chosen = chat.function_call if isinstance(chat.function_call, str) else "auto"
    if isinstance(chosen, str):
        if chosen not in ("none", "auto", "required"):
            raise invalid(f"there is no tool choice {chosen!r}", "tool_choice")
        return chosen, None
    if chosen.type == "function" and chosen.function is not None:
        return "required", frozenset({chosen.function.name})
    if chosen.type == "allowed_tools" and chosen.allowed_tools is not None:
        allowed = chosen.allowed_tools
        names = frozenset(tool.function.name for tool in allowed.tools if tool.function is not None)
        return "required" if allowed.mode == "required" else "auto", names
    raise not_sent(f"{language} has no tool choice of type {chosen.type!r}", "tool_choice")


def _functions(chat: Chat, language: str) -> Iterable[tuple[str, Function]]:
    for index, tool in enumerate(chat.tools or ()):
        if tool.type != "function":
            raise not_sent(f"{language} has function tools only", f"tools[{index}].type")
        if tool.function is None:
            raise invalid("a function tool needs its function", f"tools[{index}].function")
        yield f"tools[{index}].function", tool.function
    for index, function in enumerate(chat.functions or ()):
        yield f"functions[{index}]", function


def _tool(function: Function, where: str, dropped: list[str]) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": function.name}
    if function.description:
        declared["description"] = function.description
    declared["parameters"] = schema_in(function.parameters, f"{where}.parameters") or _NO_PARAMETERS
    if function.strict:
        dropped.append(f"{where}.strict")
    return {"type": "function", "function": declared}
