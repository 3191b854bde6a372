"""Render an OpenAI chat request for the Responses API.

What it has no word for is left out and named in `Rendered.dropped`; what would change the meaning of the answer is
refused with `unsent`, so that a chain can go on. The API's own fields, and those that both know, go through.
"""

from typing import Any, Final

import msgspec

from adapters._chat.request import (
    NOTHING,
    UNSET,
    Chat,
    Dropped,
    JsonSchema,
    MaybeRaw,
    ResponseFormat,
    format_of,
    known_to,
    limit_of,
    read,
)
from adapters._openai.native import initiator
from adapters._responses.messages import LANGUAGE, Message, Talk
from adapters._responses.models import reasons, samples
from adapters._responses.tools import WebSearch, choice_of, tools_of
from proxy.adapter import Rendered, Target
from proxy.wire import ChatRequest, Number

# The provider wants to know who spoke last (GitHub Copilot), takes the system's texts as `instructions` only, answers
# with a stream only, takes no limit (the last three: ChatGPT's backend), and sums up reasoning where it is asked for.
INITIATOR: Final = "initiator"
INSTRUCTIONS: Final = "instructions"
STREAM_ONLY: Final = "stream_only"
NO_LIMIT: Final = "no_limit"
SUMMARY: Final = "reasoning_summary"
QUIRKS: Final = frozenset({INITIATOR, INSTRUCTIONS, STREAM_ONLY, NO_LIMIT, SUMMARY})


class _JsonSchema(JsonSchema):
    strict: bool | None = None


class _ResponseFormat(ResponseFormat):
    json_schema: _JsonSchema | None = None


class _Body(Chat, kw_only=True):
    """Every field that has a meaning here; the last ones go through as they are."""

    messages: list[Message]  # type: ignore[assignment]
    response_format: _ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Number | None = None
    verbosity: str | None = None
    web_search_options: WebSearch | None = None
    store: bool | None = None
    reasoning: dict[str, msgspec.Raw] | None = None
    include: list[str] | None = None
    metadata: MaybeRaw = UNSET
    moderation: MaybeRaw = UNSET
    user: MaybeRaw = UNSET
    safety_identifier: MaybeRaw = UNSET
    service_tier: MaybeRaw = UNSET
    prompt_cache_key: MaybeRaw = UNSET
    prompt_cache_options: MaybeRaw = UNSET
    prompt_cache_retention: MaybeRaw = UNSET
    previous_response_id: MaybeRaw = UNSET
    max_tool_calls: MaybeRaw = UNSET
    truncation: MaybeRaw = UNSET


_body: Final = msgspec.json.Decoder(_Body)
_KNOWN: Final = known_to(_Body)
_OWN: Final = (
    "metadata",
    "moderation",
    "user",
    "safety_identifier",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "previous_response_id",
    "max_tool_calls",
    "truncation",
)
# Fields of a chat that have no counterpart (API reference, "Create a model response").
_NO_WORD: Final = ("stop", "seed", "frequency_penalty", "presence_penalty", "top_k")
_MIN_LIMIT: Final = 16
_NAME: Final = "answer"  # of a schema that has none
_ENCRYPTED: Final = "reasoning.encrypted_content"
_LOGPROBS: Final = "message.output_text.logprobs"


def render(request: ChatRequest, target: Target) -> Rendered:
    """Return the request for a response. Raises InvalidRequestError with `unsent` for what it cannot carry."""
    body, dropped = read(request.raw, _body, _KNOWN, LANGUAGE)
    dropped += [name for name in _NO_WORD if getattr(body, name) not in (None, [])]
    out: dict[str, Any] = {"model": target.model, **_said(body, target)}
    if request.stream or STREAM_ONLY in target.quirks:
        out["stream"] = True
    out["store"] = bool(body.store)
    limit = limit_of(body, target)
    if limit is not None and NO_LIMIT in target.quirks:
        dropped.append("max_tokens" if body.max_completion_tokens is None else "max_completion_tokens")
    elif limit is not None:
        out["max_output_tokens"] = max(limit, _MIN_LIMIT)
    _add_sampling(body, target, out, dropped)
    _add_reasoning(body, target, out)
    _add_text(body, out)
    tools = tools_of(body, request.raw, body.web_search_options)
    _add_tools(body, tools, out, dropped)
    _add_include(body, target, out, tools=bool(tools))
    for name in _OWN:
        value = getattr(body, name)
        if value is not UNSET and value not in NOTHING:
            out[name] = value
    headers = initiator(request) if INITIATOR in target.quirks else {}
    left_out = dropped.settled(out, target)
    return Rendered("/responses", msgspec.json.encode(out), headers, left_out)


def _said(body: _Body, target: Target) -> dict[str, Any]:
    stored = body.previous_response_id is not UNSET and body.previous_response_id not in NOTHING
    talk = Talk(target.source, apart=INSTRUCTIONS in target.quirks, stored=stored)
    for position, message in enumerate(body.messages):
        talk.add(message, f"messages[{position}]")
    if talk.instructions is None:
        return {"input": talk.items}
    return {"instructions": "\n\n".join(filter(None, talk.instructions)), "input": talk.items}


def _add_sampling(body: _Body, target: Target, out: dict[str, Any], dropped: Dropped) -> None:
    given: dict[str, Any] = {"temperature": body.temperature, "top_p": body.top_p}
    if body.logprobs:
        # Without a number the API gives no log probabilities at all.
        given["top_logprobs"] = int(body.top_logprobs or 0)
    given = {name: value for name, value in given.items() if value is not None}
    if samples(target.model, body.reasoning_effort):
        out.update(given)
    else:
        dropped += ["logprobs" if name == "top_logprobs" else name for name in given]


def _add_reasoning(body: _Body, target: Target, out: dict[str, Any]) -> None:
    """Add the effort, and a summary where the row or the client wants one: OpenAI shows none to accounts that it has
    not verified, and answers 400.
    """
    wanted: dict[str, Any] = dict(body.reasoning or {})
    effort = body.reasoning_effort
    if effort is not None:
        wanted.setdefault("effort", effort)
    if SUMMARY in target.quirks and effort not in (None, "none"):
        wanted.setdefault("summary", "auto")
    if wanted:
        out["reasoning"] = wanted


def _add_text(body: _Body, out: dict[str, Any]) -> None:
    text: dict[str, Any] = {}
    wanted = format_of(body)
    given = None if body.response_format is None else body.response_format.json_schema
    if wanted is not None and wanted.schema is not None and given is not None:
        text["format"] = {"type": "json_schema", "name": given.name or _NAME, "schema": wanted.schema}
        text["format"]["strict"] = bool(given.strict)
        if given.description:
            text["format"]["description"] = given.description
    elif wanted is not None:
        text["format"] = {"type": "json_object"}
    if body.verbosity is not None:
        text["verbosity"] = body.verbosity
    if text:
        out["text"] = text


def _add_tools(body: _Body, tools: list[Any], out: dict[str, Any], dropped: Dropped) -> None:
    choice = choice_of(body)
    if not tools:
        dropped += ["tool_choice"] if choice not in (None, "none", "auto") else []
        return
    out["tools"] = tools
    if choice is not None:
        out["tool_choice"] = choice
    if body.parallel_tool_calls is not None:
        out["parallel_tool_calls"] = body.parallel_tool_calls


def _add_include(body: _Body, target: Target, out: dict[str, Any], *, tools: bool) -> None:
    include = list(body.include or ())
    if tools and not body.store and reasons(target.model, body.reasoning_effort):
        include.append(_ENCRYPTED)
    if "top_logprobs" in out:
        include.append(_LOGPROBS)
    if include:
        out["include"] = list(dict.fromkeys(include))
