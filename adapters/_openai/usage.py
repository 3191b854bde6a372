"""Usage in OpenAI's meaning. What providers count beside their own counts shows in their total."""

from typing import Final

import msgspec

from proxy import wire
from proxy.wire import Number, Usage

THOUGHTS: Final = "thoughts_in_total"


class _Beside(msgspec.Struct):
    total_tokens: Number | None = 0
    reasoning_tokens: Number | None = 0
    cached_tokens: Number | None = 0
    prompt_cache_hit_tokens: Number | None = 0
    num_search_queries: Number | None = 0


_beside: Final = msgspec.json.Decoder(_Beside)


def usage_of(raw: msgspec.Raw, quirks: frozenset[str]) -> Usage | None:
    """Return a `usage` object in normal form; None for null and for what is no usage object.

    Copilot names reasoning at the top, Together cached tokens, DeepSeek's older answers `prompt_cache_hit_tokens`,
    Perplexity its searches. The
    total has xAI's reasoning, which its `completion_tokens` lack, and Mistral's audio, which its `prompt_tokens` lack;
    Gemini's (quirk `thoughts_in_total`) has thoughts that are named nowhere else.
    """
    usage = wire.parse_usage(raw)
    if usage is None:
        return None
    try:
        beside = _beside.decode(raw)
    except msgspec.DecodeError:
        return usage
    reasoning = usage.reasoning or _count(beside.reasoning_tokens)
    cached = usage.cached or _count(beside.cached_tokens) or _count(beside.prompt_cache_hit_tokens)
    rest = max(0, _count(beside.total_tokens) - usage.input - usage.output)
    read, written = usage.input, usage.output
    if rest and rest == usage.audio_input:
        read += rest
    elif rest and (rest == reasoning or THOUGHTS in quirks):
        reasoning, written = max(reasoning, rest), written + rest
    searches = _count(beside.num_search_queries)
    return Usage(
        read,
        written,
        cached,
        usage.cache_write,
        reasoning,
        audio_input=usage.audio_input,
        audio_output=usage.audio_output,
        searches=searches,
    )


def _count(found: Number | None) -> int:
    """Return `found` as a count, 0 for what cannot be one."""
    return int(found) if found is not None and 0 <= found <= wire.MOST_TOKENS else 0
