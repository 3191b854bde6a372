"""`llm-sidecar prices`: which price book is in use, and `--update DIR` to write the one of the installed genai-prices.

The library's words become ours here and nowhere else. What has no price per token (speech by the hour, pages) is left
out, and so are images to look at and searches in files, which no usage of ours counts apart.
"""

import argparse
import json
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from proxy.config import load_directory
from proxy.log import tell
from proxy.policy import Price, Tier
from proxy.prices import PRICES, Dated, Listed, Model, Rule

try:
    from genai_prices.data import providers
except ModuleNotFoundError:  # an extra, as only --update needs it
    _known: list[Any] | None = None
else:
    _known = list(providers)

# Our word for each of the library's.
_WORDS: Final = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
    "cache_audio_read_mtok": "cached_audio",
    "output_image_mtok": "image_output",
}
_CLAUSES: Final = {
    "ClauseEquals": "equals",
    "ClauseStartsWith": "starts",
    "ClauseEndsWith": "ends",
    "ClauseContains": "contains",
    "ClauseRegex": "regex",
}
_LIBRARY: Final = "genai-prices"
_MISSING: Final = "--update needs the library genai-prices: pip install 'llm-sidecar[prices]'"


def run(args: argparse.Namespace) -> int:
    """Tell of the book, or write a new one; returns 2 when that cannot be. Raises PolicyError."""
    if args.update is None:
        book = load_directory(args.policies).prices
        models = sum(len(msgspec.json.decode(listed.models)) for listed in book.providers)
        print(f"{book.name}: {models} models of {len(book.providers)} providers")
        return 0
    return update(args.update, _known)


def update(directory: Path, known: list[Any] | None) -> int:
    """Write the book of the library's providers, None without it; returns 2 when that cannot be."""
    if known is None:
        tell(f"llm-sidecar: {_MISSING}")
        return 2
    path = directory / PRICES
    draft = path.with_suffix(".new")
    try:
        draft.write_text(text(listing(known), date.today()))
        draft.replace(path)  # a sidecar that looks at the directory finds the old one or the new one
    except OSError as error:
        tell(f"llm-sidecar: {directory}: {error.strerror}")
        return 2
    print(f"{path}: {_source()}")
    return 0


def listing(known: list[Any]) -> list[Listed]:
    """Return the library's providers in our words."""
    return [listed for one in known if (listed := _provider(one))]


def _source() -> str:
    return f"{_LIBRARY} {version(_LIBRARY)}"


def text(providers: list[Listed], day: date) -> str:
    """Return the file of `day`: a line per model, so that two books can be compared."""
    heads = []
    for listed in providers:
        models = ",\n".join(json.dumps(model) for model in msgspec.json.decode(listed.models))
        head = json.dumps({"id": listed.id, "url": listed.url, "others": listed.others})
        heads.append(f'{head[:-1]}, "models": [\n{models}\n]}}')
    return f'{{"source": "{_source()}", "written": "{day}", "providers": [\n' + ",\n".join(heads) + "\n]}\n"


def _provider(found: Any) -> Listed | None:
    models = [model for one in found.models if (model := _model(one))]
    raw = msgspec.Raw(msgspec.json.encode(models))
    return Listed(found.id, found.api_pattern, raw, found.fallback_model_providers or []) if models else None


def _model(found: Any) -> Model | None:
    conditional = found.prices if isinstance(found.prices, list) else [None]
    dated = [_dated(one, found.prices) for one in conditional]
    prices = [one for one in dated if one is not None]
    return Model(found.id, _rule(found.match), prices) if prices and len(prices) == len(dated) else None


def _dated(found: Any, always: Any) -> Dated | None:
    price = _price(always if found is None else found.prices)
    condition = None if found is None else found.constraint
    if price is None or condition is None:
        return None if price is None else Dated(price)
    if hasattr(condition, "start_date"):
        return Dated(price, since=str(condition.start_date))
    return Dated(price, daily=(_second(condition.start_time), _second(condition.end_time)))


def _second(time: Any) -> int:
    """Return the second of the day in UTC."""
    offset = time.utcoffset()
    seconds = time.hour * 3600 + time.minute * 60 + time.second - (int(offset.total_seconds()) if offset else 0)
    return int(seconds % 86_400)


def _price(found: Any) -> Price | None:
    """Return a price per token; None where there is none, and for what answers without a price for its output."""
    values = {ours: value for theirs, ours in _WORDS.items() if (value := getattr(found, theirs)) is not None}
    if "input" not in values:
        return None
    base = {name: float(getattr(value, "base", value)) for name, value in values.items()}
    base.setdefault("output", 0.0)  # an embedding: the library counts no output, and there is none
    for ours, per in ("request", found.requests_kcount), ("search", found.web_searches_kcount):
        if per is not None:
            base[ours] = float(per) / 1000
    tiered = {name: value.tiers for name, value in values.items() if hasattr(value, "tiers")}
    starts = sorted({tier.start for tiers in tiered.values() for tier in tiers})
    return Price(**base, tiers=[_tier(start, tiered) for start in starts])


def _tier(start: int, tiered: dict[str, Any]) -> Tier:
    """Return every price as it is above `start`."""
    held = {name: [float(tier.price) for tier in tiers if tier.start <= start] for name, tiers in tiered.items()}
    return Tier(above=start, **{name: prices[-1] for name, prices in held.items() if prices})


def _rule(clause: Any) -> Rule:
    """Return a clause of the library's, its alternatives by kind."""
    kind = type(clause).__name__
    if kind == "ClauseAnd":
        return Rule(all=[_rule(one) for one in clause.and_])
    if kind != "ClauseOr":
        word = _CLAUSES[kind]
        value = getattr(clause, {"starts": "starts_with", "ends": "ends_with"}.get(word, word))
        return Rule(**{word: [value if word == "regex" else value.lower()]})
    either: dict[str, list[Any]] = {}
    for rule in map(_rule, clause.or_):
        for word in Rule.__struct_fields__:
            either.setdefault(word, []).extend(getattr(rule, word))
    return Rule(**either)
