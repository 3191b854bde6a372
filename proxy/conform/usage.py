"""Providers' own counts in OpenAI's meaning. Written from their references, not from the adapters that it judges.

Counts are (input, output, cached): the input includes the cached tokens. `usage` is flattened, as in `golden.json`.
"""

from collections.abc import Callable
from typing import Any, Final

Flat = dict[str, Any]
Counts = tuple[int, int, int]


def _anthropic(usage: Flat) -> Counts:
    cached, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    return (usage.get("input_tokens") or 0) + cached + written, usage.get("output_tokens") or 0, cached


def _bedrock(usage: Flat) -> Counts:
    cached, written = usage.get("cacheReadInputTokens") or 0, usage.get("cacheWriteInputTokens") or 0
    return (usage.get("inputTokens") or 0) + cached + written, usage.get("outputTokens") or 0, cached


def _cohere(usage: Flat) -> Counts:
    """What is billed; a client is told tokens, see `told_usage`. Either stands for the other where it lacks."""
    units = "billed_units" if "billed_units.output_tokens" in usage else "tokens"
    return _count(usage, f"{units}.input_tokens"), _count(usage, f"{units}.output_tokens"), 0


def _cohere_told(usage: Flat) -> Counts:
    if "tokens.output_tokens" not in usage:
        return _cohere(usage)
    read = _count(usage, "tokens.input_tokens") + _count(usage, "tokens.image_tokens")
    return read, _count(usage, "tokens.output_tokens"), _count(usage, "cached_tokens")


def _count(usage: Flat, name: str) -> int:
    return int(usage.get(name) or 0)


def _ollama(usage: Flat) -> Counts:
    return usage.get("prompt_eval_count") or 0, usage.get("eval_count") or 0, 0


def _responses(usage: Flat) -> Counts:
    cached = usage.get("input_tokens_details.cached_tokens") or 0
    return usage.get("input_tokens") or 0, usage.get("output_tokens") or 0, cached


def _gemini(usage: Flat) -> Counts:
    """The total is Google's own sum of all; where it was not told, or edited, the parts are."""
    prompt = (usage.get("promptTokenCount") or 0) + (usage.get("toolUsePromptTokenCount") or 0)
    answer, total = usage.get("candidatesTokenCount") or 0, usage.get("totalTokenCount") or 0
    if total < prompt + answer:
        total = prompt + answer + (usage.get("thoughtsTokenCount") or 0)
    return prompt, total - prompt, usage.get("cachedContentTokenCount") or 0


def _openai(usage: Flat) -> Counts:
    """What xAI counts beside the answer is reasoning, and is in the total; Mistral counts audio beside the prompt."""
    cached = usage.get("prompt_tokens_details.cached_tokens") or usage.get("cached_tokens") or 0
    cached = cached or usage.get("prompt_cache_hit_tokens") or 0
    read, written = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    if usage.get("prompt_audio_seconds"):
        read += usage.get("prompt_tokens_details.audio_tokens") or 0
    beside = (usage.get("total_tokens") or 0) - read - written
    thought = usage.get("completion_tokens_details.reasoning_tokens") or usage.get("reasoning_tokens") or 0
    return read, written + (beside if beside == thought else 0), cached


def thoughts_in_total(usage: Flat) -> Counts:
    """Gemini, in OpenAI's language, has its reasoning in the total and nowhere else."""
    read, written, cached = _openai(usage)
    return read, max(written, (usage.get("total_tokens") or 0) - read), cached


_BILLED: Final[dict[str, Callable[[Flat], Counts]]] = {
    "anthropic_messages": _anthropic,
    "bedrock_converse": _bedrock,
    "cohere_chat_v2": _cohere,
    "ollama_chat": _ollama,
    "gemini": _gemini,
    "openai_responses": _responses,
}


def normal_usage(api: str, usage: Flat) -> Counts:
    """Return what is billed."""
    return _BILLED.get(api, _openai)(usage)


def told_usage(api: str, usage: Flat) -> Counts:
    """Return what the client is told of it: the same, but for Cohere, which bills other units than tokens."""
    return _cohere_told(usage) if api == "cohere_chat_v2" else normal_usage(api, usage)
