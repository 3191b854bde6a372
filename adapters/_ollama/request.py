"""Render an OpenAI chat request for Ollama's `/api/chat`.

What Ollama has no word for is left out and named in `Rendered.dropped`; content it cannot see is refused with `unsent`,
so that a chain can go on to a provider that can. Ollama's own fields go through, and its own `options` win.
"""

from typing import Any, Final

import msgspec

from adapters._chat.messages import answered_call, arguments_of, calls_of, image_of, text_of, words_of
from adapters._chat.request import (
    NOTHING,
    UNSET,
    Chat,
    MaybeRaw,
    Message,
    format_of,
    invalid,
    known_to,
    limit_of,
    read,
    stops_of,
)
from adapters._chat.tools import declare
from proxy.adapter import Rendered, Target, not_sent
from proxy.wire import ChatRequest, Number

Turn = dict[str, Any]


class _Body(Chat, kw_only=True):
    """Every field that has a meaning here; the last ones are Ollama's own."""

    min_p: Number | None = None
    repeat_penalty: Number | None = None
    num_ctx: int | None = None
    options: dict[str, msgspec.Raw] | None = None
    think: MaybeRaw = UNSET
    logprobs: bool | None = None
    top_logprobs: int | None = None
    keep_alive: MaybeRaw = UNSET


LANGUAGE: Final = "Ollama"
_body: Final = msgspec.json.Decoder(_Body)
_KNOWN: Final = known_to(_Body)
# What tunes the answer has the same name among Ollama's options.
_OPTIONS: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "repeat_penalty",
    "num_ctx",
)
_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_THINK: Final[dict[str, bool | str]] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "max",
}


def render(request: ChatRequest, target: Target) -> Rendered:
    """Return Ollama's request. Raises InvalidRequestError with `unsent` for what it cannot carry."""
    body, dropped = read(request.raw, _body, _KNOWN, LANGUAGE)
    # It streams unless told not to.
    out: dict[str, Any] = {"model": target.model, "messages": _turns(body.messages), "stream": request.stream}
    tools, mode = declare(body, LANGUAGE, dropped)
    if tools and mode != "none":
        out["tools"] = tools
        # Ollama has no tool choice; a choice among tools is one among those it sees, forcing a call is not possible.
        dropped += ["tool_choice"] if mode == "required" else []
    wanted = format_of(body)
    if wanted is not None:
        out["format"] = wanted.schema or "json"
    options = _options(body, target, dropped)
    if options:
        out["options"] = options
    if body.keep_alive is not UNSET:
        out["keep_alive"] = body.keep_alive
    if body.logprobs:
        out |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    _add_thinking(body, out, dropped)
    left_out = dropped.settled(out, target)
    return Rendered("/api/chat", msgspec.json.encode(out), {}, left_out, json_lines=True)


def _options(body: _Body, target: Target, dropped: list[str]) -> dict[str, Any]:
    given = {name: getattr(body, name) for name in _OPTIONS}
    options = {name: value for name, value in given.items() if value is not None}
    limit, stops = limit_of(body, target), stops_of(body, dropped)
    if limit is not None:
        options["num_predict"] = limit
    if stops:
        options["stop"] = stops
    return options | (body.options or {})


def _add_thinking(body: _Body, out: dict[str, Any], dropped: list[str]) -> None:
    effort = body.reasoning_effort
    if effort is not None and effort not in _THINK:
        raise invalid(f"there is no reasoning effort {effort!r}", "reasoning_effort")
    if body.think is not UNSET and body.think != NOTHING[0]:
        out["think"] = body.think
        dropped += ["reasoning_effort"] if effort is not None else []
    elif effort is not None:
        out["think"] = _THINK[effort]


def _turns(messages: list[Message]) -> list[Turn]:
    turns = []
    names: dict[str, str] = {}  # of the called tools by call, for the results: Ollama's templates want the name
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        role = _ROLES.get(message.role)
        if role is None:
            raise invalid(f"there is no role {message.role!r}", f"{where}.role")
        turn: Turn = {"role": role}
        if role == "user":
            _add_content(turn, message, where)
        else:
            turn["content"] = text_of(message, where, LANGUAGE)
        if role == "assistant":
            _add_calls(turn, message, where, names)
        elif role == "tool":
            call_id = answered_call(message, where)
            turn["tool_name"] = names.get(call_id) or message.name or call_id
            turn["tool_call_id"] = call_id
        turns.append(turn)
    return turns


def _add_calls(turn: Turn, message: Message, where: str, names: dict[str, str]) -> None:
    if message.reasoning_content:
        turn["thinking"] = message.reasoning_content
    calls = []
    for call_id, called, _ in calls_of(message, where, LANGUAGE):
        names[call_id] = called.name
        calls.append({"id": call_id, "function": {"name": called.name, "arguments": arguments_of(called)}})
    if calls:
        turn["tool_calls"] = calls


def _add_content(turn: Turn, message: Message, where: str) -> None:
    """Add a user's texts as lines and the images beside them: their places among the texts cannot be told."""
    if message.content is None or isinstance(message.content, str):
        turn["content"] = message.content or ""
        return
    texts, images = [], []
    for index, part in enumerate(message.content):
        place = f"{where}.content[{index}]"
        text = words_of(part, place, LANGUAGE)
        if text is None:
            images.append(_inlined(image_of(part, place).url, place))
        elif text:
            texts.append(text)
    turn["content"] = "\n".join(texts)
    if images:
        turn["images"] = images


def _inlined(url: str, where: str) -> str:
    """Return the base64 in a data URI. Ollama fetches nothing, and neither does the sidecar."""
    head, _, data = url.partition(",")
    if head[:5].lower() != "data:" or not head.lower().endswith(";base64") or not data:
        raise not_sent("Ollama takes images as base64 data URIs only", where)
    return data
