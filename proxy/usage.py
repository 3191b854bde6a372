"""Tokens of one answer in normal form, which is OpenAI's: parts are counted within their whole.

Format: OpenAI API reference, "Create chat completion", `usage`. Adapters bring what other providers count to it.
"""

from typing import Final

import msgspec

Number = int | float


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one answer as OpenAI counts: `input` includes `cached`, `cache_write` and `audio_input`, `output`
    includes `reasoning`, `audio_output` and `image_output`; `cache_write_1h` is the part of `cache_write` that is kept
    for an hour, `cached_audio` that of `cached` which is sound. `searches` are web searches that the provider ran.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    cache_write_1h: int = 0
    audio_input: int = 0
    audio_output: int = 0
    cached_audio: int = 0
    searches: int = 0
    image_output: int = 0


class _PromptDetails(msgspec.Struct):
    cached_tokens: Number | None = 0
    cache_write_tokens: Number | None = 0
    audio_tokens: Number | None = 0


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: Number | None = 0
    audio_tokens: Number | None = 0


class _RawUsage(msgspec.Struct):
    prompt_tokens: Number | None = 0
    completion_tokens: Number | None = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


_usage: Final = msgspec.json.Decoder(_RawUsage)
# Far more than any answer has: money is reckoned with these, so their sums must fit a float.
MOST_TOKENS: Final = 10**12


def parse_usage(raw: msgspec.Raw) -> Usage | None:
    """Return OpenAI's `usage` object in normal form; None for null and for what cannot be anybody's usage."""
    try:
        usage = _usage.decode(raw)
    except msgspec.DecodeError:
        return None
    prompt = usage.prompt_tokens_details or _PromptDetails()
    completion = usage.completion_tokens_details or _CompletionDetails()
    details = prompt.cached_tokens, prompt.cache_write_tokens, completion.reasoning_tokens, 0
    sound = prompt.audio_tokens, completion.audio_tokens
    return counted(usage.prompt_tokens, usage.completion_tokens, *details, *sound)


def counted(*found: Number | None) -> Usage | None:
    """Return the counts of a `Usage`, in its order, as one; None when one of them cannot be a count."""
    counts = [int(count or 0) for count in found]
    return Usage(*counts) if min(counts) >= 0 and max(counts) <= MOST_TOKENS else None


def usage_object(usage: Usage) -> dict[str, object]:
    """Return `usage` as OpenAI's object."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
