"""What each family of models on Bedrock accepts, as data: a row per prefix of the model id, the longest prefix wins.

The Converse API is one, what stands behind it is not. Sources: the service model of botocore 1.44, recorded requests,
and what pydantic-ai 2.68 and litellm 1.106 verified live (2026). What a Claude accepts is the table of the Anthropic
language. A model that no row knows (an application inference profile, a vendor of tomorrow) gets the plainest rules.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from adapters._anthropic.models import Rules, rules_for

Fields = dict[str, Any]


class Family(msgspec.Struct, frozen=True):
    """One family. `forced` says that it can be made to call a tool, `named` to call a certain one; `results_alone`
    that a turn with tool results must hold nothing else; `caches` that it knows cache points, `hears` that it takes
    sound. `efforts` are its words for OpenAI's reasoning efforts, `effort` makes the field of such a word, `top_k` that
    of a number. `claude` are the rules of a Claude, None for everybody else.
    """

    sampling: bool = True
    forced: bool = True
    named: bool = False
    native_schema: bool = False
    results_alone: bool = False
    caches: bool = False
    hears: bool = False
    efforts: Mapping[str, str] = {}
    effort: Callable[[str], Fields] | None = None
    top_k: Callable[[float], Fields] | None = None
    claude: Rules | None = None


_EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def _scale(words: str) -> Mapping[str, str]:
    """Return a family's words for OpenAI's seven efforts, in their order; "-" leaves the field out."""
    return dict(zip(_EFFORTS, words.split(), strict=True))


def _flat(word: str) -> Fields:
    return {"reasoning_effort": word}


def _nested(word: str) -> Fields:
    return {"reasoning": {"effort": word}}


def _qwen(word: str) -> Fields:
    return {"reasoning_config": word}


def _nova(word: str) -> Fields:
    return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": word}}


def _claude_top_k(number: float) -> Fields:
    return {"top_k": number}


def _nova_top_k(number: float) -> Fields:
    return {"inferenceConfig": {"topK": number}}


_PLAIN: Final = Family()
_SCHEMA: Final = Family(native_schema=True)
_NOVA: Final = Family(named=True, caches=True, top_k=_nova_top_k)
_NOVA_2: Final = msgspec.structs.replace(_NOVA, effort=_nova, efforts=_scale("- low low medium high high high"))
_ALONE: Final = Family(results_alone=True)
_ALONE_SCHEMA: Final = Family(results_alone=True, native_schema=True)
_HEARS: Final = Family(results_alone=True, native_schema=True, hears=True)
# Only "high" makes these reason; the lower words are taken and do nothing.
_ALL_OR_NOTHING: Final = _scale("none high high high high high high")
_GPT: Final = Family(sampling=False, effort=_nested, efforts=_scale("none low low medium high xhigh xhigh"))
_GPT_ALWAYS: Final = Family(sampling=False, effort=_nested, efforts=_scale("low low low medium high xhigh xhigh"))

_BY_PREFIX: Final[dict[str, Family]] = {
    "amazon.nova": _NOVA,
    "amazon.nova-2": _NOVA_2,
    "amazon.nova-2-omni": msgspec.structs.replace(_NOVA_2, hears=True),
    "cohere.": Family(forced=False),
    "deepseek.v3.2": Family(effort=_flat, efforts=_ALL_OR_NOTHING),
    "google.gemma-3-12b-it": _SCHEMA,
    "google.gemma-3-27b-it": _SCHEMA,
    "meta.": Family(forced=False, results_alone=True),
    "minimax.minimax-m2": _SCHEMA,
    "mistral.": _ALONE,
    "mistral.magistral-small": _ALONE_SCHEMA,
    "mistral.ministral-3": _ALONE_SCHEMA,
    "mistral.mistral-large-3": _ALONE_SCHEMA,
    "mistral.voxtral": _HEARS,
    "moonshot.": _SCHEMA,
    "moonshotai.": _SCHEMA,
    "nvidia.nemotron-nano": _SCHEMA,
    "openai.gpt-5": _GPT,
    "openai.gpt-6": _GPT,
    "openai.gpt-6-astra": _GPT_ALWAYS,
    "openai.gpt-6.1-sol": _GPT_ALWAYS,
    "openai.gpt-oss": Family(effort=_flat, efforts=_scale("low low low medium high high high")),
    "qwen.qwen3": Family(native_schema=True, effort=_qwen, efforts=_scale("none low low high high high high")),
    "qwen.qwen3-coder": _SCHEMA,
    "writer.": _ALONE,
    "xai.": _GPT_ALWAYS,
    "zai.": Family(native_schema=True, effort=_flat, efforts=_ALL_OR_NOTHING),
    "zai.glm-5.3": Family(native_schema=True, effort=_flat, efforts=_scale("low low low medium high xhigh max")),
}
_LONGEST_FIRST: Final = sorted(_BY_PREFIX.items(), key=lambda row: -len(row[0]))
_BY_VENDOR: Final = {
    vendor: [row for row in _LONGEST_FIRST if row[0].partition(".")[0] == vendor]
    for vendor in {prefix.partition(".")[0] for prefix in _BY_PREFIX}
}
_GEOGRAPHIES: Final = frozenset({"us", "us-gov", "eu", "apac", "jp", "au", "ca", "global"})
_CLAUDE: Final = "anthropic."
# Claudes that have structured output at Anthropic, but not here.
_NO_SCHEMA: Final = ("claude-opus-4-1", "claude-fable-5")


def family_for(model: str) -> Family:
    """Return the family of a model id, an inference profile ("us.amazon.nova-lite-v1:0") or the ARN of either."""
    name = model.rpartition("/")[2]
    geography, _, rest = name.partition(".")
    name = rest if geography in _GEOGRAPHIES else name
    if name.startswith(_CLAUDE):
        return _claude(name.removeprefix(_CLAUDE))
    for prefix, family in _BY_VENDOR.get(name.partition(".")[0], ()):
        if name.startswith(prefix):
            return family
    return _PLAIN


def _claude(name: str) -> Family:
    rules = rules_for(name)
    return Family(
        sampling=rules.sampling,
        forced=rules.forced_tools,
        named=True,
        native_schema=rules.native_schema and not name.startswith(_NO_SCHEMA),
        caches=True,
        top_k=_claude_top_k,
        claude=rules,
    )
