"""Declare OpenAI's tools to the Responses API: functions lie flat there, its own tools go through as they are."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from adapters._chat.request import Called, Chat, Function, ToolChoice, invalid, schema_in
from proxy.adapter import not_sent

_NO_PARAMETERS: Final = msgspec.Raw(b'{"type":"object","properties":{}}')
_CHOICES: Final = ("none", "auto", "required")


class _Raw(msgspec.Struct):
    tools: list[msgspec.Raw] = []


class _Place(msgspec.Struct):
    city: str | None = None
    country: str | None = None
    region: str | None = None
    timezone: str | None = None


class _Location(msgspec.Struct):
    approximate: _Place = msgspec.field(default_factory=_Place)


class WebSearch(msgspec.Struct):
    """OpenAI's `web_search_options`, which is a tool here."""

    search_context_size: str | None = None
    user_location: _Location | None = None


_raw: Final = msgspec.json.Decoder(_Raw)


def tools_of(chat: Chat, raw: bytes, search: WebSearch | None) -> list[Any]:
    """Return the tools: functions with `strict` said each time, since its default is another one here; all others as
    they are. Raises InvalidRequestError for those that are wrong in themselves.
    """
    declared: list[Any] = []
    own: list[msgspec.Raw] = []
    for index, tool in enumerate(chat.tools or ()):
        if tool.type == "function":
            if tool.function is None:
                raise invalid("a function tool needs its function", f"tools[{index}].function")
            declared.append(_function(tool.function, f"tools[{index}].function"))
        elif tool.type == "custom":
            raise not_sent("custom tools cannot be asked for over the Responses API", f"tools[{index}].type")
        else:
            own = own or _raw.decode(raw).tools
            declared.append(own[index])
    for index, function in enumerate(chat.functions or ()):
        declared.append(_function(function, f"functions[{index}]"))
    if search is not None:
        declared.append(_search(search))
    return declared


def _function(function: Function, where: str) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "function", "name": function.name}
    if function.description:
        made["description"] = function.description
    made["parameters"] = schema_in(function.parameters, f"{where}.parameters") or _NO_PARAMETERS
    made["strict"] = bool(function.strict)
    return made


def _search(search: WebSearch) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "web_search"}
    if search.search_context_size:
        made["search_context_size"] = search.search_context_size
    if search.user_location is not None:
        place = msgspec.structs.asdict(search.user_location.approximate)
        made["user_location"] = {"type": "approximate", **{name: value for name, value in place.items() if value}}
    return made


def choice_of(chat: Chat) -> str | dict[str, Any] | None:
    """Return which tool the model has to call, None when the client did not say."""
    if chat.tool_choice is None and isinstance(chat.function_call, Called):
        return {"type": "function", "name": chat.function_call.name}
    chosen = chat.function_call if chat.tool_choice is None else chat.tool_choice
    if isinstance(chosen, ToolChoice):
        return _named(chosen)
    if chosen not in (None, *_CHOICES):
        raise invalid(f"there is no tool choice {chosen!r}", "tool_choice")
    return str(chosen) if chosen is not None else None


def _named(chosen: ToolChoice) -> dict[str, Any]:
    if chosen.type == "function" and chosen.function is not None:
        return {"type": "function", "name": chosen.function.name}
    if chosen.type == "allowed_tools" and chosen.allowed_tools is not None:
        tools: Iterable[dict[str, Any]] = (
            {"type": "function", "name": tool.function.name} if tool.function is not None else {"type": tool.type}
            for tool in chosen.allowed_tools.tools
        )
        return {"type": "allowed_tools", "mode": chosen.allowed_tools.mode, "tools": list(tools)}
    if chosen.type in ("function", "allowed_tools", "custom"):
        raise not_sent(f"{chosen.type!r} is no tool choice that can be asked for here", "tool_choice")
    return {"type": chosen.type}  # one of the API's own tools
