"""Render an OpenAI chat request for Gemini's generateContent.

What Gemini has no word for is left out and named in `Rendered.dropped`; what would change the meaning of the answer is
refused with `unsent`, so that a chain can go on to a provider that has the word.
"""

from typing import Any, Final
from urllib.parse import quote

import msgspec

from adapters._chat.request import (
    NOTHING,
    Chat,
    ResponseFormat,
    ToolFields,
    invalid,
    known_to,
    limit_of,
    read,
    stops_of,
)
from adapters._chat.tools import client_names as names_for
from adapters._gemini.messages import Conversation, legal_name
from adapters._gemini.models import Rules, bare_name, rules_for
from adapters._gemini.schema import accepted_schema
from adapters._gemini.tools import Declared, declare
from proxy.adapter import Rendered, Target, not_sent
from proxy.wire import ChatRequest, Number

_JSON_ONLY: Final = "Answer with one JSON object and nothing else: no words around it and no code fence."
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 32_768, "max": 32_768}
_LEVELS: Final = {"minimal": 0, "low": 1, "medium": 2, "high": 3, "xhigh": 3, "max": 3}
_WORDS: Final = ("minimal", "low", "medium", "high")
_TIERS: Final = {"flex": "flex", "priority": "priority", "fast": "priority"}
_DEFAULT_TIERS: Final = frozenset({"auto", "default"})
_MAX_STOPS: Final = 5
_MAX_ANSWERS: Final = 8
_MAX_SEED: Final = 0x7FFF_FFFF


class _ExtraBody(msgspec.Struct):
    google: dict[str, msgspec.Raw] = {}


class _Body(Chat, kw_only=True):
    """Every field that has a meaning here; `extra_body.google` is Google's own, as its OpenAI endpoint takes it."""

    logprobs: bool | None = None
    top_logprobs: Number | None = None
    service_tier: str | None = None
    extra_body: _ExtraBody | None = None


_body: Final = msgspec.json.Decoder(_Body)
_tool_fields: Final = msgspec.json.Decoder(ToolFields)
_KNOWN: Final = known_to(_Body)


def render(request: ChatRequest, target: Target, surface: str) -> Rendered:
    """Return Gemini's request. Raises InvalidRequestError with `unsent` for what it cannot carry."""
    try:
        return _Draft(request, target, surface).rendered(request, target)
    except RecursionError:
        raise not_sent("the request is nested too deeply") from None


def source_of(target: Target, surface: str) -> str:
    """Return whose signatures a model's are: they are good at the surface they were made at, and nowhere else."""
    return f"{target.provider or surface}/{bare_name(target.model)}"


def client_names(request: ChatRequest) -> dict[str, str]:
    """Return the client's names of those tools that Gemini knows by another one."""
    return names_for(_tool_fields.decode(request.raw), Conversation.language, legal_name)


class _Draft:
    """One request in the making: `out` is Gemini's body, `config` its generationConfig, `dropped` what was left out."""

    def __init__(self, request: ChatRequest, target: Target, surface: str) -> None:
        body, self.dropped = read(request.raw, _body, _KNOWN, Conversation.language, _MAX_ANSWERS)
        self._body = body
        self._rules = rules = rules_for(target.model)
        self.config: dict[str, Any] = {}
        talk = Conversation(body.messages, source_of(target, surface), rules)
        declared = declare(body)
        self.dropped += declared.dropped
        self._add_sampling(target)
        self._add_logprobs()
        self._add_thinking()
        self._add_format(declared, talk)
        self.out: dict[str, Any] = {"contents": talk.turns}
        if talk.system:
            self.out["systemInstruction"] = {"parts": talk.system}
        if declared.tools:
            self.out["tools"] = [{"functionDeclarations": declared.tools}]
        if declared.config is not None:
            self.out["toolConfig"] = declared.config
        self._add_tier(surface)
        self._add_own()
        if self.config:
            self.out["generationConfig"] = self.config
        self._left_out = self.dropped.settled(self.out, target)

    def rendered(self, request: ChatRequest, target: Target) -> Rendered:
        """Return the finished request."""
        act = ":streamGenerateContent?alt=sse" if request.stream else ":generateContent"
        path = f"/models/{quote(bare_name(target.model), safe='')}{act}"
        return Rendered(path, msgspec.json.encode(self.out), {}, self._left_out)

    def _add_sampling(self, target: Target) -> None:
        body, limit = self._body, limit_of(self._body, target)
        given = {
            "temperature": body.temperature,
            "topP": body.top_p,
            "topK": body.top_k,
            "maxOutputTokens": limit,
            # Gemini's seeds are 32 bits wide; the same seed stays the same.
            "seed": None if body.seed is None else body.seed & _MAX_SEED,
            "candidateCount": int(body.n) if body.n and body.n > 1 else None,
            "stopSequences": stops_of(body, self.dropped, most=_MAX_STOPS) or None,
        }
        self.config |= {name: value for name, value in given.items() if value is not None}
        penalties = {"presencePenalty": body.presence_penalty, "frequencyPenalty": body.frequency_penalty}
        for name, value in penalties.items():
            if value and (self._rules.penalties or target.forward):
                self.config[name] = value
            elif value:
                self.dropped.append("presence_penalty" if name == "presencePenalty" else "frequency_penalty")

    def _add_logprobs(self) -> None:
        if self._body.logprobs:
            self.config["responseLogprobs"] = True
            if self._body.top_logprobs:
                self.config["logprobs"] = int(self._body.top_logprobs)

    def _add_thinking(self) -> None:
        effort, rules = self._body.reasoning_effort, self._rules
        if effort is None:
            return
        if effort != "none" and effort not in _BUDGETS:
            raise invalid(f"there is no reasoning effort {effort!r}", "reasoning_effort")
        if rules.thinking == "never":
            if effort != "none":
                self.dropped.append("reasoning_effort")
            return
        thinking: dict[str, Any] = {"includeThoughts": True}
        if effort == "none":
            # Where it cannot be off, the least of it is the nearest.
            if rules.thinking == "level" or rules.least:
                self.dropped.append("reasoning_effort")
            thinking = {}
        if rules.thinking == "level":
            thinking["thinkingLevel"] = _level(effort, rules)
        else:
            thinking["thinkingBudget"] = rules.least if effort == "none" else min(_BUDGETS[effort], rules.most)
        self.config["thinkingConfig"] = thinking

    def _add_format(self, declared: Declared, talk: Conversation) -> None:
        wanted = self._body.response_format
        if wanted is None or wanted.type == "text":
            return
        if wanted.type not in ("json_object", "json_schema"):
            raise invalid(f"there is no response format {wanted.type!r}", "response_format.type")
        schema = self._schema(wanted)
        if declared.tools and not self._rules.schema_with_tools:
            # Before Gemini 3 a JSON answer next to tools is a 400: the model is told in words what it shall look like.
            words = _JSON_ONLY
            if schema is not None:
                words = f"{words} Its JSON schema: {msgspec.json.encode(schema).decode()}"
            talk.add_instruction(words)
            self.dropped.append("response_format")
            return
        self.config["responseMimeType"] = "application/json"
        if schema is not None:
            self.config["responseJsonSchema"] = schema

    def _schema(self, wanted: ResponseFormat) -> msgspec.Raw | dict[str, Any] | None:
        """Return the schema of the answer, None when the client gave none."""
        given = wanted.json_schema
        if given is None or isinstance(given.schema, msgspec.UnsetType) or given.schema in NOTHING:
            return None
        schema = accepted_schema(given.schema, "response_format.json_schema.schema")
        if not given.description:
            return schema
        found = msgspec.json.decode(schema, type=dict[str, msgspec.Raw]) if isinstance(schema, msgspec.Raw) else schema
        return {"description": given.description, **found}

    def _add_tier(self, surface: str) -> None:
        tier = self._body.service_tier
        if tier is None or tier in _DEFAULT_TIERS:
            return
        if tier in _TIERS and surface == "gemini":
            self.out["serviceTier"] = _TIERS[tier]
        else:
            self.dropped.append("service_tier")

    def _add_own(self) -> None:
        for name, value in (self._body.extra_body or _ExtraBody()).google.items():
            if name == "thinking_config":
                self.config["thinkingConfig"] = value
            elif name == "cached_content":
                self.out["cachedContent"] = value
            elif name == "safety_settings":
                self.out["safetySettings"] = value
            else:
                self.dropped.append(f"extra_body.google.{name}")


def _level(effort: str, rules: Rules) -> str:
    """Return the level nearest to `effort` that the model knows, rather more than less."""
    wanted = 0 if effort == "none" else _LEVELS[effort]
    return next(word for word in rules.levels if _WORDS.index(word) >= wanted)
