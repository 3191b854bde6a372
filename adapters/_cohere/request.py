"""Render an OpenAI chat request for Cohere's v2 chat API.

What Cohere has no word for is left out and named in `Rendered.dropped`; what would change the meaning of the answer is
refused with `unsent`, so that a chain can go on to a provider that has the word. Cohere's own fields go through.
"""

from typing import Any, Final

import msgspec

from adapters._chat.request import (
    NOTHING,
    UNSET,
    Chat,
    MaybeRaw,
    format_of,
    invalid,
    known_to,
    limit_of,
    read,
    stops_of,
)
from adapters._chat.tools import declare
from adapters._cohere.messages import LANGUAGE, turns_of
from proxy.adapter import Rendered, Target, not_sent
from proxy.wire import ChatRequest, Number


class _Body(Chat, kw_only=True):
    """Every field that has a meaning here; the last ones are Cohere's own and go through as they are."""

    k: MaybeRaw = UNSET
    p: MaybeRaw = UNSET
    thinking: MaybeRaw = UNSET
    documents: MaybeRaw = UNSET
    citation_options: MaybeRaw = UNSET
    safety_mode: MaybeRaw = UNSET
    strict_tools: MaybeRaw = UNSET
    priority: MaybeRaw = UNSET


_body: Final = msgspec.json.Decoder(_Body)
_KNOWN: Final = known_to(_Body)
_OWN: Final = ("k", "p", "thinking", "documents", "citation_options", "safety_mode", "strict_tools", "priority")
# OpenAI's field, Cohere's word for it, and the range that Cohere takes (API reference, "Chat").
_NUMBERS: Final[tuple[tuple[str, str, Number, Number], ...]] = (
    ("temperature", "temperature", 0, float("inf")),
    ("top_p", "p", 0.01, 0.99),
    ("top_k", "k", 0, 500),
    ("seed", "seed", 0, (1 << 64) - 1),
    ("frequency_penalty", "frequency_penalty", 0, 1),
    ("presence_penalty", "presence_penalty", 0, 1),
)
_CHOICES: Final = {"required": "REQUIRED", "none": "NONE"}
# The models that think, by the beginning of their names; the others refuse the field.
_THINKERS: Final = ("command-a-reasoning", "command-a-plus")
# Tokens for thinking; None is as many as the model wants.
_BUDGETS: Final = {"minimal": 1024, "low": 2048, "medium": 8192, "high": None, "xhigh": None, "max": None}


def render(request: ChatRequest, target: Target) -> Rendered:
    """Return Cohere's request. Raises InvalidRequestError with `unsent` for what it cannot carry."""
    body, dropped = read(request.raw, _body, _KNOWN, LANGUAGE)
    out: dict[str, Any] = {"model": target.model, "messages": turns_of(body.messages)}
    if request.stream:
        out["stream"] = True
    limit = limit_of(body, target)
    if limit is not None:
        out["max_tokens"] = limit
    stops = stops_of(body, dropped)
    if stops:
        out["stop_sequences"] = stops
    _add_numbers(body, out, dropped)
    _add_tools(body, out, dropped)
    _add_thinking(body, target, out, dropped)
    for name in _OWN:
        value = getattr(body, name)
        if value is not UNSET and value not in NOTHING:
            out[name] = value
    left_out = dropped.settled(out, target)
    return Rendered("/chat", msgspec.json.encode(out), {}, left_out)


def _add_numbers(body: _Body, out: dict[str, Any], dropped: list[str]) -> None:
    """Add what tunes the choice of words. Above Cohere's range is its end; a negative penalty or seed has no word."""
    for name, word, lowest, highest in _NUMBERS:
        value = getattr(body, name)
        if value is None:
            continue
        if value < 0:
            dropped.append(name)
        else:
            out[word] = min(max(value, lowest), highest)


def _add_tools(body: _Body, out: dict[str, Any], dropped: list[str]) -> None:
    wanted = format_of(body)
    tools, mode = declare(body, LANGUAGE, dropped)
    if wanted is not None:
        if tools and mode != "none":
            raise not_sent("Cohere answers in JSON or calls tools, not both", "response_format")
        tools = []
        out["response_format"] = {"type": "json_object"}
        if wanted.schema is not None:
            out["response_format"]["json_schema"] = wanted.schema
    if tools:
        out["tools"] = tools
        strict = [name for name in dropped if name.endswith(".strict")]
        if len(strict) == len(tools):
            # Cohere's word is for all of them at once.
            out["strict_tools"] = True
            dropped[:] = [name for name in dropped if name not in strict]
        if mode in _CHOICES:
            out["tool_choice"] = _CHOICES[mode]


def _add_thinking(body: _Body, target: Target, out: dict[str, Any], dropped: list[str]) -> None:
    effort = body.reasoning_effort
    if effort is None:
        return
    if effort != "none" and effort not in _BUDGETS:
        raise invalid(f"there is no reasoning effort {effort!r}", "reasoning_effort")
    own = body.thinking is not UNSET and body.thinking not in NOTHING
    if own or not target.model.startswith(_THINKERS):
        # A model that never thinks does as "none" says.
        dropped += ["reasoning_effort"] if own or effort != "none" else []
        return
    if effort == "none":
        out["thinking"] = {"type": "disabled"}
        return
    out["thinking"] = {"type": "enabled"}
    budget, limit = _BUDGETS[effort], out.get("max_tokens")
    # Thinking counts against the limit: a budget as large as it would leave no room for the answer.
    if budget is not None and (limit is None or budget < limit):
        out["thinking"]["token_budget"] = budget
