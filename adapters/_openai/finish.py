"""Finish reasons in OpenAI's words.

Sources: recorded answers of Together (`eos`), Azure's DeepSeek (`tool_call`) and Snowflake (empty); the references of
Mistral (`model_length`, `error`), DeepSeek (`insufficient_system_resource`), Anthropic and vLLM (`abort`).
"""

from typing import Final

from proxy.classify import Fault, classify

WORDS: Final = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_SPELLED: Final = {
    **{word: word for word in WORDS},
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "refusal": "content_filter",
    "safety": "content_filter",
}
# Not the end of an answer but of an attempt.
_FAILED: Final = frozenset({"error", "abort", "insufficient_system_resource"})


def word(said: str, *, called: bool) -> str:
    """Return OpenAI's word for what a provider `said`; a word nobody knows means that the answer came to its end.

    Raises UnavailableError for the words that say that it did not.
    """
    if said in _FAILED:
        raise classify(502, {}, Fault(f"the upstream ended its answer with {said!r}"))
    return _SPELLED.get(said.lower()) or ("tool_calls" if called else "stop")
