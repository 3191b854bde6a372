"""Render an OpenAI chat request for Bedrock's Converse and ConverseStream.

What Converse has no word for is left out and named in `Rendered.dropped`; what would change the meaning of the answer
is refused with `unsent`, so that a chain can go on to a provider that has the word. What only some models know travels
in `additionalModelRequestFields`; a client may add to them, and its word counts.
"""

import re
from functools import partial
from typing import Any, Final

import msgspec

from adapters._anthropic.models import accepted_schema
from adapters._anthropic.tools import answer_schema
from adapters._bedrock.messages import Conversation, legal_name
from adapters._bedrock.models import family_for
from adapters._bedrock.thinking import Given, think
from adapters._bedrock.tools import declare
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
_MAX_STOPS: Final = 4
# Ids, profiles and ARNs: words with dots, colons and hyphens, and in ARNs slashes between them; never "..", "?" or "%".
_MODEL: Final = re.compile(r"[A-Za-z0-9][\w.:-]*(?:/[A-Za-z0-9][\w.:-]*)*", re.ASCII)
_MAX_MODEL: Final = 2048
# The patterns of requestMetadata in the service model, and its sixteen pairs.
_METADATA: Final = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}", re.ASCII)
_MAX_PAIRS: Final = 16
_TIERS: Final = {"default": "default", "flex": "flex", "priority": "priority", "fast": "priority"}


class _Body(Chat, kw_only=True):
    """Every field that has a meaning here. `thinking` is Claude's own, the last three are Bedrock's, which go through
    as they are.
    """

    thinking: MaybeRaw = UNSET
    user: str | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    guardrailConfig: MaybeRaw = UNSET  # noqa: N815  # Bedrock's spelling
    performanceConfig: MaybeRaw = UNSET  # noqa: N815
    additionalModelRequestFields: dict[str, msgspec.Raw] | None = None  # noqa: N815


_body: Final = msgspec.json.Decoder(_Body)
_KNOWN: Final = known_to(_Body) - {"seed", "frequency_penalty", "presence_penalty"}
_THROUGH: Final = ("guardrailConfig", "performanceConfig")


def render(request: ChatRequest, target: Target) -> Rendered:
    """Return Converse's request. Raises InvalidRequestError with `unsent` for what it cannot carry."""
    try:
        return _Draft(request, target).rendered()
    except RecursionError:
        raise not_sent("the request is nested too deeply") from None


def emulates_schema(request: ChatRequest, target: Target) -> bool:
    """Say whether the answer will come as a call of ANSWER_TOOL, because the model has no structured output."""
    return "json_schema" in request.needs and not family_for(target.model).native_schema


def names_of(request: ChatRequest, target: Target) -> Names:
    """Return what the tools that the answer calls are to the client."""
    changed = partial(_original_names, request)
    return Names(changed, emulated=emulates_schema(request, target))


def _original_names(request: ChatRequest) -> dict[str, str]:
    """Return the client's tool names by the name that Bedrock saw, those that had to be changed only."""
    return client_names(decoded(request.raw, _body), Conversation.language, legal_name)


def _path(model: str, *, stream: bool) -> str:
    """Return the path for a model: its id is one segment of it. Raises InvalidRequestError for what can be no id."""
    if len(model) > _MAX_MODEL or _MODEL.fullmatch(model) is None:
        raise invalid(f"Bedrock has no model id like {model[:80]!r}", "model")
    # Of what the pattern lets through, only these two have to be encoded.
    segment = model.replace(":", "%3A").replace("/", "%2F")
    return f"/model/{segment}/{'converse-stream' if stream else 'converse'}"


class _Draft:
    """One request in the making: `out` is Converse's body, `own` the fields of the model's own, `dropped` what was
    left out.
    """

    def __init__(self, request: ChatRequest, target: Target) -> None:
        self._path = _path(target.model, stream=request.stream)
        self._body, self.dropped = read(request.raw, _body, _KNOWN, Conversation.language)
        self._family = family_for(target.model)
        self._talk = Conversation(self._body.messages, target.source, self._family)
        self.dropped += self._talk.dropped
        self.out: dict[str, Any] = {"messages": self._talk.turns}
        self.own: dict[str, Any] = {}
        self._config: dict[str, Any] = {}
        self._add_format(request, target)
        self._add_limit(target)
        self._add_sampling()
        self._add_stops()
        self._add_rest()
        # What Converse does not know may be the model's own.
        self._left_out = self.dropped.settled(self.own, target)

    def rendered(self) -> Rendered:
        """Return the finished request."""
        self.own |= self._body.additionalModelRequestFields or {}
        parts = {
            "system": self._talk.system,
            "inferenceConfig": self._config,
            "additionalModelRequestFields": self.own,
        }
        self.out |= {name: part for name, part in parts.items() if part}
        return Rendered(self._path, msgspec.json.encode(self.out), {}, self._left_out)

    def _add_format(self, request: ChatRequest, target: Target) -> None:
        wanted, emulated = self._body.response_format, emulates_schema(request, target)
        schema = answer_schema(wanted, native=not emulated)
        if emulated and schema is not None and not self._family.forced:
            raise not_sent("this model cannot be held to a schema", "response_format")
        declared = declare(self._body, self._family, self._talk.tool_names, schema if emulated else None)
        self.dropped += declared.dropped
        self.out |= {"toolConfig": declared.config} if declared.config is not None else {}
        self.own |= declared.own
        self._forced = declared.forced
        if wanted is None or wanted.type == "text":
            return
        if wanted.type not in ("json_object", "json_schema"):
            raise invalid(f"there is no response format {wanted.type!r}", "response_format.type")
        if schema is None:
            self._talk.system.append({"text": _JSON_ONLY})
        elif not emulated:
            text = msgspec.json.encode(accepted_schema(schema)).decode()
            given = {"name": wanted.json_schema.name, "schema": text} if wanted.json_schema else {}
            given = {name: value for name, value in given.items() if value}
            self.out["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": given}}}

    def _add_limit(self, target: Target) -> None:
        """Add the limit and the thinking, which depend on each other."""
        body = self._body
        given = Given(
            limit=limit_of(body, target),
            max_output=target.max_output,
            may=not (self._forced or self._talk.prefilled or self._talk.thoughtless),
            forced=self._forced,
            sampled=body.temperature is not None or body.top_p is not None,
        )
        wish = think(self._family, body.reasoning_effort, body.thinking, given)
        self._thinks = wish.thinks
        self.own |= wish.fields
        self.dropped += wish.dropped
        if wish.limit is not None:
            self._config["maxTokens"] = wish.limit

    def _add_sampling(self) -> None:
        body, claude = self._body, self._family.claude
        given = {"temperature": body.temperature, "top_p": body.top_p, "top_k": body.top_k}
        given = {name: value for name, value in given.items() if value is not None}
        if not self._family.sampling or (claude is not None and self._thinks):
            self.dropped += given
            return
        if claude is not None and not claude.both_samplers and body.temperature is not None and body.top_p is not None:
            self.dropped.append("top_p")
            del given["top_p"]
        if body.temperature is not None:
            # OpenAI's scale ends at 2, Converse's at 1.
            self._config["temperature"] = min(body.temperature, 1)
        if "top_p" in given:
            self._config["topP"] = body.top_p
        if body.top_k is not None and self._family.top_k is not None:
            self.own |= self._family.top_k(body.top_k)
        elif body.top_k is not None:
            self.dropped.append("top_k")

    def _add_stops(self) -> None:
        # Claude takes none of white space only.
        stops = stops_of(self._body, self.dropped, most=_MAX_STOPS, blanks=self._family.claude is None)
        if stops:
            self._config["stopSequences"] = stops

    def _add_rest(self) -> None:
        body = self._body
        for name in _THROUGH:
            value = getattr(body, name)
            if value is not UNSET and value not in NOTHING:
                self.out[name] = value
        if body.service_tier in _TIERS:
            self.out["serviceTier"] = {"type": _TIERS[body.service_tier]}
        elif body.service_tier not in (None, "auto"):
            self.dropped.append("service_tier")
        if body.metadata or body.user:
            self._add_metadata(body.metadata or {}, body.user)

    def _add_metadata(self, metadata: dict[str, str], user: str | None) -> None:
        pairs = {**metadata, **({"user": user} if user else {})}
        kept = {name: text for name, text in list(pairs.items())[:_MAX_PAIRS] if _is_pair(name, text)}
        if kept:
            self.out["requestMetadata"] = kept
        self.dropped += ["user"] if user and "user" not in kept else []
        self.dropped += ["metadata"] if any(name not in kept for name in metadata) else []


def _is_pair(name: str, text: str) -> bool:
    return bool(name) and all(_METADATA.fullmatch(one) is not None for one in (name, text))
