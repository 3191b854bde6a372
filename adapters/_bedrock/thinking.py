"""Ask a model on Bedrock to reason, in the words of its family, and leave it room for the answer."""

from typing import Any, Final, NamedTuple

import msgspec

from adapters._anthropic.models import Rules
from adapters._bedrock.models import Family
from adapters._chat.request import NOTHING, MaybeRaw, invalid

# How many tokens a Claude with a budget may think.
_BUDGETS: Final = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 24_576, "max": 24_576}
_EFFORTS: Final = frozenset({"none", *_BUDGETS})
_MIN_BUDGET: Final = 1024
# Thinking counts against the limit; this many tokens (a quarter of a small limit) stay for the answer.
_ROOM: Final = 4096


class Wish(NamedTuple):
    """What goes into the request. `limit` is the answer's, None when the model's own default holds; `thinks` says that
    a Claude will think.
    """

    fields: dict[str, Any]
    limit: int | None
    thinks: bool = False
    dropped: tuple[str, ...] = ()


class Given(NamedTuple):
    """What a wish depends on. `limit` is the client's, `max_output` the model's; `may` is False where thinking with a
    budget is refused; `forced` when the model must call a tool; `sampled` when temperature or top_p are given.
    """

    limit: int | None
    max_output: int | None
    may: bool
    forced: bool
    sampled: bool


class _Type(msgspec.Struct):
    type: str = ""


def think(family: Family, effort: str | None, thinking: MaybeRaw, given: Given) -> Wish:
    """Return how `family` is asked for `effort`, or for `thinking` in Claude's own words, which count before it."""
    if effort is not None and effort not in _EFFORTS:
        raise invalid(f"there is no reasoning effort {effort!r}", "reasoning_effort")
    asked = () if effort is None else ("reasoning_effort",)
    if not isinstance(thinking, msgspec.UnsetType) and thinking not in NOTHING:
        if family.claude is None:
            wish = think(family, effort, msgspec.UNSET, given)
            return wish._replace(dropped=(*wish.dropped, "thinking"))
        return Wish({"thinking": thinking}, given.limit, _is_on(thinking), asked)
    if effort is None:
        return Wish({}, given.limit)
    if family.claude is not None:
        return _claude(family.claude, effort, given)
    if family.effort is None:
        return Wish({}, given.limit, dropped=asked)
    word = family.efforts[effort]
    if word == "-":
        return Wish({}, given.limit)
    if family.efforts["none"] == "-" and word == "high" and (given.limit is not None or given.sampled):
        # Nova takes no limit and no sampling together with its highest effort.
        word = "medium"
    cannot_stop = effort == "none" and word != "none"
    return Wish(family.effort(word), given.limit, dropped=asked if cannot_stop else ())


def _is_on(thinking: msgspec.Raw) -> bool:
    try:
        return msgspec.json.decode(thinking, type=_Type).type in ("enabled", "adaptive")
    except msgspec.DecodeError:
        raise invalid("thinking must be an object", "thinking") from None


def _claude(rules: Rules, effort: str, given: Given) -> Wish:
    if effort == "none":
        return _without(rules, given)
    if rules.thinking != "adaptive":
        return _with_budget(rules, effort, given)
    wanted = {"minimal": "low"}.get(effort, effort)
    fields: dict[str, Any] = {"output_config": {"effort": wanted if wanted in rules.efforts else "high"}}
    if not given.forced:
        fields["thinking"] = {"type": "adaptive", "display": "summarized"}
    # Bedrock's default of 4096 tokens would go into the thinking.
    limit = given.limit or given.max_output or rules.max_output
    return Wish(fields, limit, not given.forced)


def _without(rules: Rules, given: Given) -> Wish:
    match rules.thinking_off:
        case "disabled" | "between_tools" as kind:
            return Wish({"thinking": {"type": kind}}, given.limit)
        case "impossible":
            return Wish({"output_config": {"effort": "low"}}, given.limit, dropped=("reasoning_effort",))
    return Wish({}, given.limit)


def _with_budget(rules: Rules, effort: str, given: Given) -> Wish:
    # The calls just answered must come with their thinking, which a client may not have kept.
    refused = Wish({}, given.limit, dropped=("reasoning_effort",))
    if rules.thinking == "never" or not given.may:
        return refused
    limit = given.limit
    if limit is None:
        limit = max(given.max_output or rules.max_output, _BUDGETS[effort] + _ROOM)
    budget = min(_BUDGETS[effort], limit - min(_ROOM, limit // 4))
    if budget < _MIN_BUDGET:
        return refused
    return Wish({"thinking": {"type": "enabled", "budget_tokens": budget}}, limit, thinks=True)
