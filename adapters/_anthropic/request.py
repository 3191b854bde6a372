"""Render an OpenAI chat request for Anthropic's Messages API.

What Anthropic has no word for is left out and named in `Rendered.dropped`; what would change the meaning of the answer
is refused with `unsent`, so that a chain can go on to a provider that has the word.
"""

import re
from functools import partial
from typing import Any, Final

import msgspec

from adapters._anthropic.messages import Conversation, legal_name
from adapters._anthropic.models import accepted_schema, rules_for
from adapters._anthropic.tools import answer_schema, declare
from adapters._chat.names import Names
from adapters._chat.request import (
    NOTHING,
    UNSET,
    Chat,
    MaybeRaw,
    decoded,
    invalid,
    known_to,
    limit_of,
    read,
    stops_of,
)
from adapters._chat.tools import client_names
from proxy.adapter import Rendered, Target, not_sent
from proxy.wire import ChatRequest

_JSON_ONLY: Final = "Answer with one JSON object and nothing else: no words around it and no code fence."
_BUDGETS: Final = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 24_576, "max": 24_576}
_MIN_BUDGET: Final = 1024
# Thinking counts against the limit; this many tokens (a quarter of a small limit) stay for the answer.
_ROOM: Final = 4096
_MAX_STOPS: Final = 4
_MAX_USER: Final = 256
# Anthropic forbids e-mail addresses and phone numbers as user ids.
_PERSONAL: Final = re.compile(r".*@.*|\+[\d\s()./-]{6,}", re.DOTALL)
_FILES_BETA: Final = {"anthropic-beta": "files-api-2025-04-14"}


class _Type(msgspec.Struct):
    type: str = ""


class _Body(Chat, kw_only=True):
    """Every field that has a meaning here; `thinking` is Anthropic's own and goes through as it is."""

    thinking: MaybeRaw = UNSET
    user: str | None = None
    safety_identifier: str | None = None


_body: Final = msgspec.json.Decoder(_Body)
_type: Final = msgspec.json.Decoder(_Type)
_KNOWN: Final = known_to(_Body) - {"seed", "frequency_penalty", "presence_penalty"}


def render(request: ChatRequest, target: Target) -> Rendered:
    """Return Anthropic's request. Raises InvalidRequestError with `unsent` for what it cannot carry."""
    try:
        return _Draft(request, target).rendered()
    except RecursionError:
        raise not_sent("the request is nested too deeply") from None


def emulates_schema(request: ChatRequest, target: Target) -> bool:
    """Say whether the answer will come as a call of ANSWER_TOOL, because the model has no structured output."""
    return "json_schema" in request.needs and not rules_for(target.model).native_schema


def names_of(request: ChatRequest, target: Target) -> Names:
    """Return what the tools that the answer calls are to the client."""
    changed = partial(_original_names, request)
    return Names(changed, emulated=emulates_schema(request, target))


def _original_names(request: ChatRequest) -> dict[str, str]:
    """Return the client's tool names by the name that Anthropic saw, those that had to be changed only."""
    return client_names(decoded(request.raw, _body), Conversation.language, legal_name)


class _Draft:
    """One request in the making: `out` is Anthropic's body, `dropped` what was left out of it."""

    def __init__(self, request: ChatRequest, target: Target) -> None:
        self._body, self.dropped = read(request.raw, _body, _KNOWN, Conversation.language)
        self._rules = rules_for(target.model)
        self._limited = True
        self._talk = Conversation(self._body.messages, target.source, prefill=self._rules.prefill)
        self.out: dict[str, Any] = {"model": target.model, "max_tokens": self._limit(target)}
        self._add_format(request, target)
        self._add_thinking()
        self._add_sampling()
        self._add_rest()
        if self._talk.system:
            self.out["system"] = self._talk.system
        self.out["messages"] = self._talk.turns
        if request.stream:
            self.out["stream"] = True
        self._left_out = self.dropped.settled(self.out, target)

    def rendered(self) -> Rendered:
        """Return the finished request."""
        headers = _FILES_BETA if self._talk.has_file_ids else {}
        return Rendered("/messages", msgspec.json.encode(self.out), headers, self._left_out)

    def _limit(self, target: Target) -> int:
        asked = limit_of(self._body, target)
        self._limited = asked is not None or target.max_output is not None
        return asked if asked is not None else target.max_output or self._rules.max_output

    def _add_format(self, request: ChatRequest, target: Target) -> None:
        wanted = self._body.response_format
        schema = answer_schema(wanted, native=self._rules.native_schema)
        tools, choice, dropped = declare(
            self._body, self._rules, self._talk.tool_names, schema if emulates_schema(request, target) else None
        )
        self.dropped += dropped
        self.out |= {"tools": tools} if tools else {}
        self.out |= {"tool_choice": choice} if choice else {}
        if wanted is None or wanted.type == "text":
            return
        if wanted.type not in ("json_object", "json_schema"):
            raise invalid(f"there is no response format {wanted.type!r}", "response_format.type")
        if schema is None:
            self._talk.system.append({"type": "text", "text": _JSON_ONLY})
        elif self._rules.native_schema:
            self.out["output_config"] = {"format": {"type": "json_schema", "schema": accepted_schema(schema)}}

    def _add_thinking(self) -> None:
        effort = self._body.reasoning_effort
        if self._body.thinking is not UNSET and self._body.thinking not in NOTHING:
            self.out["thinking"] = self._body.thinking
            if effort is not None:
                self.dropped.append("reasoning_effort")
        elif effort == "none":
            self._stop_thinking()
        elif effort in _BUDGETS:
            self._think(effort)
        elif effort is not None:
            raise invalid(f"there is no reasoning effort {effort!r}", "reasoning_effort")

    def _stop_thinking(self) -> None:
        match self._rules.thinking_off:
            case "disabled" | "between_tools" as kind:
                self.out["thinking"] = {"type": kind}
            case "impossible":
                self.dropped.append("reasoning_effort")
                self._set_effort("low")

    def _set_effort(self, effort: str) -> None:
        self.out.setdefault("output_config", {})["effort"] = effort

    def _think(self, effort: str) -> None:
        rules = self._rules
        forced = self.out.get("tool_choice", {}).get("type") in ("any", "tool")
        if rules.thinking == "adaptive":
            wanted = {"minimal": "low"}.get(effort, effort)
            self._set_effort(wanted if wanted in rules.efforts else "high")
            if not forced:
                self.out["thinking"] = {"type": "adaptive", "display": "summarized"}
            return
        # With a budget, the calls just answered must come with their thinking, which a client may not have kept.
        if rules.thinking == "never" or forced or self._talk.prefilled or self._talk.thoughtless:
            self.dropped.append("reasoning_effort")
            return
        limit = self.out["max_tokens"]
        if not self._limited:
            limit = max(limit, _BUDGETS[effort] + _ROOM)
        budget = min(_BUDGETS[effort], limit - min(_ROOM, limit // 4))
        if budget < _MIN_BUDGET:
            self.dropped.append("reasoning_effort")
            return
        self.out["max_tokens"] = limit
        self.out["thinking"] = {"type": "enabled", "budget_tokens": budget}

    def _add_sampling(self) -> None:
        body, rules = self._body, self._rules
        given = {"temperature": body.temperature, "top_p": body.top_p, "top_k": body.top_k}
        given = {name: value for name, value in given.items() if value is not None}
        if not rules.sampling or self._thinks():
            self.dropped += given
            return
        if "temperature" in given and "top_p" in given and not rules.both_samplers:
            self.dropped.append("top_p")
            del given["top_p"]
        if body.temperature is not None:
            # OpenAI's scale ends at 2, Anthropic's at 1.
            given["temperature"] = min(body.temperature, 1)
        self.out |= given

    def _thinks(self) -> bool:
        thinking = self.out.get("thinking")
        if isinstance(thinking, msgspec.Raw):
            try:
                thinking = {"type": _type.decode(thinking).type}
            except msgspec.DecodeError:
                raise invalid("thinking must be an object", "thinking") from None
        return thinking is not None and thinking["type"] in ("enabled", "adaptive")

    def _add_rest(self) -> None:
        stops = stops_of(self._body, self.dropped, most=_MAX_STOPS, blanks=False)
        if stops:
            self.out["stop_sequences"] = stops
        # OpenAI's newer word for it comes first; who gives both means the same person.
        name = "safety_identifier" if self._body.safety_identifier else "user"
        user = getattr(self._body, name)
        if user and (len(user) > _MAX_USER or _PERSONAL.fullmatch(user)):
            self.dropped.append(name)
        elif user:
            self.out["metadata"] = {"user_id": user}
