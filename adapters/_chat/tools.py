"""Read OpenAI's tools and which of them the model may call; declare them to a language that takes OpenAI's shape."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from adapters._chat.request import UNSET, Called, Chat, Function, MaybeRaw, ToolFields, invalid, schema_in
from proxy.adapter import not_sent

_NO_PARAMETERS: Final = msgspec.Raw(b'{"type":"object","properties":{}}')


class Declared(NamedTuple):
    """The tools the model may see. `mode` is none, auto or required, and auto when there are none."""

    tools: list[dict[str, Any]]
    mode: str


class Choice(NamedTuple):
    """`tool_choice` in one shape: `mode` is none, auto or required; `allowed` None when every tool may be called."""

    mode: str
    name: str | None = None
    allowed: frozenset[str] | None = None

    def allows(self, name: str) -> bool:
        """Say whether a tool is among those that may be called."""
        return self.allowed is None or name in self.allowed


class Given(NamedTuple):
    """A function of the client's, the place where it is declared, and its cache mark."""

    where: str
    function: Function
    mark: MaybeRaw


def declare(chat: Chat, language: str, dropped: list[str]) -> Declared:
    """Return the tools in the shape OpenAI gave them, of a choice that names some only those.

    Adds to `dropped` what has no counterpart: strict arguments, one call at a time, a forced call without tools.
    """
    choice = choice_of(chat, language)
    mode = choice.mode
    tools = [
        _tool(function, where, dropped)
        for where, function, _ in functions_of(chat, language)
        if choice.allows(function.name) and choice.name in (None, function.name)
    ]
    if chat.parallel_tool_calls is False and tools:
        dropped.append("parallel_tool_calls")
    if not tools and mode == "required":
        dropped.append("tool_choice")
    return Declared(tools, mode if tools else "auto")


def choice_of(fields: ToolFields, language: str) -> Choice:
    """Return what a request says of its tools, in one shape. Raises InvalidRequestError for any other."""
    chosen = fields.tool_choice
    if chosen is None and isinstance(fields.function_call, Called):
        return Choice("required", fields.function_call.name)
    if chosen is None:
        chosen = fields.function_call if isinstance(fields.function_call, str) else "auto"
    if isinstance(chosen, str):
        if chosen not in ("none", "auto", "required"):
            raise invalid(f"there is no tool choice {chosen!r}", "tool_choice")
        return Choice(chosen)
    if chosen.type == "function" and chosen.function is not None:
        return Choice("required", chosen.function.name)
    if chosen.type == "allowed_tools" and chosen.allowed_tools is not None:
        allowed = chosen.allowed_tools
        names = frozenset(tool.function.name for tool in allowed.tools if tool.function is not None)
        return Choice("required" if allowed.mode == "required" else "auto", allowed=names)
    raise not_sent(f"{language} has no tool choice of type {chosen.type!r}", "tool_choice")


def functions_of(fields: ToolFields, language: str) -> list[Given]:
    """Return the client's functions. Raises InvalidRequestError for tools that are none."""
    found: list[Given] = []
    for index, tool in enumerate(fields.tools or ()):
        if tool.type != "function":
            raise not_sent(f"{language} has function tools only", f"tools[{index}].type")
        if tool.function is None:
            raise invalid("a function tool needs its function", f"tools[{index}].function")
        mark = tool.function.cache_control if tool.cache_control is UNSET else tool.cache_control
        found.append(Given(f"tools[{index}].function", tool.function, mark))
    found += [Given(f"functions[{index}]", one, UNSET) for index, one in enumerate(fields.functions or ())]
    return found


def client_names(fields: ToolFields, language: str, legal_name: Callable[[str], str]) -> dict[str, str]:
    """Return the client's tool names by the name that the provider saw, those that had to be changed only."""
    names = [given.function.name for given in functions_of(fields, language)]
    return {legal_name(name): name for name in names if legal_name(name) != name}


def _tool(function: Function, where: str, dropped: list[str]) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": function.name}
    if function.description:
        declared["description"] = function.description
    declared["parameters"] = schema_in(function.parameters, f"{where}.parameters") or _NO_PARAMETERS
    if function.strict:
        dropped.append(f"{where}.strict")
    return {"type": "function", "function": declared}
