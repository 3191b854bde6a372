"""What tokens cost: the catalog's own price, else the price book's, else unknown, which is never 0.

The price book is a file, `prices.json`: what the library genai-prices says, in the words of our catalog. Importing the
library takes 0.4 s and 30 MB; decoding the file takes milliseconds, and only the providers in use are looked into.
`llm-sidecar prices --update` writes a new one from the library; tests hold the two to the same cents.

A book lists a provider's models with rules for their names, in the order in which the rules are tried, and for each
its prices: later ones replace earlier ones from a day on, or at some hours of every day (all UTC).
"""

import re
from calendar import timegm
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Final, NamedTuple

import msgspec

from proxy.policy import Price, Tier
from proxy.usage import Usage

PRICES: Final = "prices.json"
UNKNOWN: Final = "unknown"
_DAY_S: Final = 86_400
_NEVER: Final = float("inf")
# What catalogs call a provider of the book, where no address says it: some are in the environment.
_CALLED: Final = {
    "bedrock": "aws", "bedrock-mantle": "aws", "copilot": "github-copilot", "gemini": "google",
    "moonshot": "moonshotai", "vertex": "google", "voyage": "voyageai", "xai": "x-ai",
}  # fmt: skip
# Pairs of a model that was asked and one that answered whose prices are remembered; beyond them they are looked up.
_REMEMBERED: Final = 1024
_DATED: Final = re.compile(r"(.*-)(20\d\d)(\d\d)(\d\d)$")


# ---- the file ---------------------------------------------------------------------------------------------------


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Matches a name, in small letters, by any of these; `all` by every one of its rules."""

    equals: list[str] = []
    starts: list[str] = []
    ends: list[str] = []
    contains: list[str] = []
    regex: list[str] = []
    all: list["Rule"] = []

    def matches(self, name: str) -> bool:
        """Say whether `name` is meant."""
        return (
            name in self.equals
            or (bool(self.starts) and name.startswith(tuple(self.starts)))
            or (bool(self.ends) and name.endswith(tuple(self.ends)))
            or any(part in name for part in self.contains)
            or any(re.search(pattern, name) for pattern in self.regex)
            or (bool(self.all) and all(rule.matches(name) for rule in self.all))
        )


class Dated(msgspec.Struct, frozen=True, omit_defaults=True):
    """A price that holds from the day `since` on ("2026-12-31"), or daily from one second of the day to another."""

    price: Price
    since: str | None = None
    daily: tuple[int, int] | None = None

    def holds(self, now: float) -> bool:
        """Say whether this is the price at `now` (Unix seconds)."""
        if self.since is not None:
            return now >= _seconds(self.since)
        if self.daily is None:
            return True
        begins, ends = self.daily
        second = now % _DAY_S
        return begins <= second < ends if begins <= ends else second >= begins or second < ends

    def changes(self, now: float) -> float:
        """Return when, after `now`, that may be otherwise; infinite for never."""
        if self.since is not None:
            begins = _seconds(self.since)
            return begins if begins > now else _NEVER
        if self.daily is None:
            return _NEVER
        midnight = now - now % _DAY_S
        return min(at for edge in self.daily for at in (midnight + edge, midnight + edge + _DAY_S) if at > now)


class Model(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model of the book; `prices` is never empty."""

    id: str
    match: Rule
    prices: Annotated[list[Dated], msgspec.Meta(min_length=1)]

    def check(self) -> None:
        """Raise ValueError or re.error for what would not do when it is needed."""
        for rule in (self.match, *self.match.all):
            for pattern in rule.regex:
                re.compile(pattern)
        for dated in self.prices:
            dated.changes(0.0)


class Listed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A provider of the book: its address as a pattern, its models, and whose models it sells besides."""

    id: str
    url: str
    models: msgspec.Raw
    others: list[str] = []


class Book(msgspec.Struct, frozen=True):
    """A price book, from `source` ("genai-prices 0.2.3"), `written` on a day ("2026-11-25")."""

    source: str = ""
    written: str = "2026-01-01"
    providers: list[Listed] = []

    @property
    def name(self) -> str:
        """Return which book it is and of when."""
        return f"{self.source} of {self.written}"

    def lists(self, name: str, base_url: str) -> list[list[Model]]:
        """Return the models of the provider at `base_url`, or called `name` in a catalog; then those of whose models it
        sells besides. Empty when the book does not know it.
        """
        found = next((listed for listed in self.providers if re.match(listed.url, base_url)), None)
        found = found or self._called(_CALLED.get(name, name))
        if found is None:
            return []
        return [_model_list.decode(one.models) for one in (found, *filter(None, map(self._called, found.others)))]

    def _called(self, id: str) -> Listed | None:
        return next((listed for listed in self.providers if listed.id == id), None)


_book: Final = msgspec.json.Decoder(Book)
_model_list: Final = msgspec.json.Decoder(list[Model])


def read(data: bytes) -> Book:
    """Return the book in `data`. Raises ValueError when it is none."""
    book = _book.decode(data)
    try:
        _seconds(book.written)
        for listed in book.providers:
            re.compile(listed.url)
            for model in _model_list.decode(listed.models):
                model.check()
    except re.error as error:
        raise ValueError(f"{error.pattern!r}: {error}") from None
    return book


def _find(lists: list[list[Model]], name: str) -> Model | None:
    """Return the first model that goes by `name`; None when there is none."""
    name = name.lower()
    for spelled in dict.fromkeys((name, _dashed(name))):
        for models in lists:
            for model in models:
                if model.match.matches(spelled):
                    return model
    return None


def _dashed(name: str) -> str:
    """Return `name` with a date as OpenAI writes it: some write gpt-5.2-20251211."""
    return _DATED.sub(r"\1\2-\3-\4", name)


def _seconds(day: str) -> float:
    return timegm(date.fromisoformat(day).timetuple())


# ---- the prices of one provider ---------------------------------------------------------------------------------


class Quote(NamedTuple):
    """A price and where it is from: "catalog", the book's `name`, or "unknown". `until` (Unix s) it holds."""

    price: Price | None
    source: str
    until: float = _NEVER


_NONE: Final = Quote(None, UNKNOWN)


class Tariff:
    """What the models of one provider cost: at noon of the day the book was written, until `tick` tells the time."""

    __slots__ = ("_base_url", "_book", "_lists", "_name", "_now", "_own", "_quotes", "_until")

    def __init__(self, book: Book, name: str, base_url: str, own: Mapping[str, Price]) -> None:
        """`own` are the catalog's prices by model id."""
        self._book, self._name, self._base_url, self._own = book, name, base_url, own
        self._now = _seconds(book.written) + _DAY_S / 2
        self._lists: list[list[Model]] | None = None
        self._quotes: dict[tuple[str, str | None], Quote] = {}
        self._until = _NEVER

    def tick(self, now: float) -> bool:
        """Take notice of the time. Returns whether a price may have changed."""
        back, self._now = now < self._now, now
        if now < self._until and not back:
            return False
        self._quotes.clear()
        self._until = _NEVER
        return True

    def quote(self, asked: str, answered: str | None = None) -> Quote:
        """Return what tokens cost when model `asked` was asked and says that it is `answered`.

        The catalog's word comes first: on the model that answered, then on the one that was asked. Then the book's, in
        the same order: "gpt-4o" is paid as the "gpt-4o-2024-08-06" it turned out to be, a deployment that is called
        anything as the model behind it, and an answer under a name that nobody knows as what was asked for.
        """
        quote = self._quotes.get((asked, answered))
        if quote is None:
            quote = self._quote(asked, answered)
            if len(self._quotes) < _REMEMBERED:
                self._quotes[asked, answered] = quote
                self._until = min(self._until, quote.until)
        return quote

    def _quote(self, asked: str, answered: str | None) -> Quote:
        names = (asked,) if answered is None or answered == asked else (answered, asked)
        for name in names:
            if name in self._own:
                return Quote(self._own[name], "catalog")
        if self._lists is None:
            self._lists = self._book.lists(self._name, self._base_url)
        for name in names:
            model = _find(self._lists, name)
            if model is not None:
                return _dated(model, self._now, self._book.name)
        return _NONE


def _dated(model: Model, now: float, source: str) -> Quote:
    """Return the price at `now`: the last that holds, or else the first."""
    price = next((one.price for one in reversed(model.prices) if one.holds(now)), model.prices[0].price)
    return Quote(price, source, min(one.changes(now) for one in model.prices))


# ---- the sum ----------------------------------------------------------------------------------------------------


def cost(price: Price, usage: Usage) -> float:
    """Return what `usage` costs in USD. A part that is said to be larger than its whole leaves nothing beside it."""
    if price.tiers:
        price = _within(price, usage.input)
    usd = _input(price, usage) + usage.output * price.output
    if usage.reasoning and price.reasoning is not None:
        usd += usage.reasoning * (price.reasoning - price.output)
    if usage.audio_output and price.audio_output is not None:
        usd += usage.audio_output * (price.audio_output - price.output)
    if usage.image_output and price.image_output is not None:
        usd += usage.image_output * (price.image_output - price.output)
    return usd / 1e6 + price.request + usage.searches * price.search


# Line by line: a loop over pairs of counts and prices took three times as long.
def _input(price: Price, usage: Usage) -> float:
    plain, total = usage.input, 0.0
    if usage.cached and price.cached_input is not None:
        plain -= usage.cached
        total += usage.cached * price.cached_input
    if usage.cache_write:
        write = price.input if price.cache_write is None else price.cache_write
        plain -= usage.cache_write
        total += usage.cache_write * write
        if usage.cache_write_1h and price.cache_write_1h is not None:
            total += usage.cache_write_1h * (price.cache_write_1h - write)
    if usage.audio_input and price.audio_input is not None:
        fresh = usage.audio_input - usage.cached_audio
        plain -= fresh
        total += fresh * price.audio_input
        if usage.cached_audio and price.cached_audio is not None and price.cached_input is not None:
            total += usage.cached_audio * (price.cached_audio - price.cached_input)
    return total + plain * price.input if plain > 0 else total


def _within(price: Price, tokens: int) -> Price:
    """Return `price` as it is for an input of so many tokens."""
    tier = next((one for one in reversed(price.tiers) if tokens > one.above), None)
    if tier is None:
        return price
    said = {name: value for name in _TIERED if (value := getattr(tier, name)) is not None}
    return msgspec.structs.replace(price, **said)


_TIERED: Final = tuple(name for name in Tier.__struct_fields__ if name != "above")


# ---- what a request may cost ----------------------------------------------------------------------------------------


class Rates(NamedTuple):
    """USD per token of a request with more than `above` tokens of input, as its expected cost is reckoned with;
    `request` is USD per request.
    """

    above: int
    input: float
    cached: float
    output: float
    request: float


def rates(price: Price) -> list[Rates]:
    """Return the rates of `price`, those of its highest tier first."""
    return [_rates(one.above, _within(price, one.above + 1)) for one in reversed(price.tiers)] + [_rates(0, price)]


def _rates(above: int, price: Price) -> Rates:
    cached = price.input if price.cached_input is None else price.cached_input
    return Rates(above, price.input / 1e6, cached / 1e6, price.output / 1e6, price.request)
