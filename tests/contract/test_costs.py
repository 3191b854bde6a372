"""What recorded answers cost: the same as the price library says, to a billionth of a dollar.

Twice for each recording with usage: the library prices the counts that our adapter read, and the library reads the
counts itself from the provider's own words and prices those. What the book does not know is listed, model by model;
`pytest -rP -k account` prints the table.
"""

import re
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import msgspec
import pytest
from genai_prices import Usage as TheirUsage
from genai_prices.data import providers as KNOWN  # noqa: N812  # a table, as its use shows
from genai_prices.types import ModelInfo, Provider

from proxy.adapter import load
from proxy.config import load_directory
from proxy.conform import recordings
from proxy.conform.checks import answer_of, parser_of
from proxy.conform.recordings import ROWS, Entry
from proxy.errors import UpstreamError
from proxy.prices import Quote, Tariff, cost
from proxy.registry import tariff
from proxy.usage import Usage

from . import corpus

CONFIG: Final = load_directory(None)
# The moment at which tariffs stand that nobody has told the time.
NOON: Final = datetime.fromisoformat(f"{CONFIG.prices.written}T12:00+00:00").astimezone(UTC)
BY_ID: Final[dict[str, Provider]] = {one.id: one for one in KNOWN}
THEIR_ID: Final = {
    "copilot": "github-copilot",
    "gemini": "google",
    "vertex": "google",
    "xai": "x-ai",
    "bedrock": "aws",
    "bedrock-mantle": "aws",
}
FLAVOR: Final = {"openai_chat": "chat", "openai_responses": "responses", "anthropic_messages": "anthropic"}
# Models that the library lists without any price: it says 0, we say unknown.
NO_PRICE: Final = {
    "cerebras/qwen-3-coder-480b",
    "copilot/gpt-4.1-2025-04-14",
    "copilot/gpt-4o-2024-11-20",
    "copilot/gpt-4o-mini-2024-07-18",
    "openrouter/meta-llama/llama-4-scout:free",
}
# More cached than there were tokens, as Azure's Anthropic reported: the library refuses them.
IMPOSSIBLE: Final = "azure/"
# What the library does not read in these recordings, and we do.
MISREAD: Final = {
    "deepseek/prism--generate-text-with-multiple-tools-1--504b2cf0.json": "prompt_cache_hit_tokens",
    "gemini/pydantic-ai--test-compatible-api-with-tool-calls-without-id--22c9eb1d.json": "thoughts in the total only",
    "gemini/pydantic-ai--test-compatible-api-with-tool-calls-without-id--d1bad004.json": "thoughts in the total only",
    "mistral/ruby-llm--chat-audio-models-mistral-voxtral-small-latest-can-understand-mp3-audi--b7bbc6e5.json": (
        "sound beside the prompt's tokens"
    ),
}


class Billed(NamedTuple):
    """A recording as we bill it, and whose prices the library has for it; None where it has none."""

    usage: Usage
    quote: Quote
    called: str
    provider: Provider | None
    model: ModelInfo | None

    @property
    def usd(self) -> float | None:
        """What we say that it cost."""
        return None if self.quote.price is None else cost(self.quote.price, self.usage)


# What the library cannot read at all.
UNREADABLE: Final = {
    "vertex/opentelemetry-python-con--test-generate-content-extra-params--a573927b.json": "kinds of tokens as numbers",
}


def bill(entry: Entry) -> Billed | None:
    """Bill a recording; None when it carries no usage."""
    case = corpus.case(entry)
    if not recordings.golden(entry).usage:
        return None
    if entry.stream:
        parser = parser_of(load(case.adapter), case)
        with suppress(UpstreamError):  # one that came when all had been said
            parser.feed(case.body)
            parser.close()
        usage, answered = parser.usage, parser.model
    else:
        reply = answer_of(load(case.adapter), case)
        usage, answered = reply.usage, reply.model
    assert usage is not None
    name = ROWS.get(entry.provider, entry.provider)
    asked = asked_of(entry) or answered or "?"
    row = CONFIG.providers.get(name)
    base_url = "" if row is None or row.base_url.startswith("env:") else row.base_url
    costs = Tariff(CONFIG.prices, name, base_url, {}) if row is None else tariff(CONFIG, row, base_url)
    provider = next((one for one in KNOWN if base_url and re.match(one.api_pattern, base_url)), None)
    provider = provider or BY_ID.get(THEIR_ID.get(name, name))
    names = [each for each in (answered, asked) if each]
    found = (provider.find_model(each, all_providers=KNOWN) for each in names) if provider else iter(())
    quote = _book_only(costs, asked, answered)
    return Billed(usage, quote, f"{name}/{answered or asked}", provider, next(filter(None, found), None))


def _book_only(costs: Tariff, asked: str, answered: str | None) -> Quote:
    """The book's price, also where the catalog has one of its own."""
    return Tariff(CONFIG.prices, costs._name, costs._base_url, {}).quote(asked, answered)


def asked_of(entry: Entry) -> str | None:
    """The model that the recorded request named, in its body or in its address."""
    sent = msgspec.json.decode((Path(entry.root) / entry.file).read_bytes())["request"]
    body = sent.get("body")
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        return str(body["model"])
    found = re.search(r"/(?:models?|deployments)/([^/:?]+(?::\d+)?)", unquote(sent.get("url") or ""))
    return found.group(1) if found else None


def theirs(usage: Usage) -> TheirUsage:
    """Our counts in the library's words."""
    return TheirUsage(
        input_tokens=usage.input,
        output_tokens=usage.output,
        cache_read_tokens=usage.cached,
        cache_write_tokens=usage.cache_write,
        cache_write_5m_tokens=usage.cache_write - usage.cache_write_1h,
        cache_write_1h_tokens=usage.cache_write_1h,
        output_reasoning_tokens=min(usage.reasoning, usage.output),
        input_audio_tokens=usage.audio_input,
        output_audio_tokens=usage.audio_output,
        cache_audio_read_tokens=usage.cached_audio,
        output_image_tokens=usage.image_output,
        web_searches=usage.searches,
    )


def as_recorded(entry: Entry) -> dict[str, Any]:
    """The provider's own usage, as the library reads it: out of a whole answer, or of a stream's last word on it."""
    if entry.api == "gemini":
        recording = recordings.read(entry)
        merged: dict[str, Any] = {}
        for event in recording.events() if entry.stream else [recording.body]:
            text = event.strip().removeprefix(b"data:")
            merged |= msgspec.json.decode(text).get("usageMetadata", {}) if text else {}
        return {"usageMetadata": merged}
    nested: dict[str, Any] = {}
    for path, value in recordings.golden(entry).usage.items():
        *tables, last = path.split(".")
        table = nested
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = value
    return {"usage": nested}


@pytest.mark.parametrize("entry", corpus.cases("answer"))
def test_the_library_agrees(entry: Entry) -> None:
    """On what the counts cost that we read; and where it has no price, we have none."""
    billed = bill(entry)
    if billed is None:
        return
    if billed.model is None or billed.called in NO_PRICE:
        assert billed.usd is None
        return
    usage = billed.usage
    if usage.cached > usage.input:
        assert entry.file.startswith(IMPOSSIBLE)
        usage = msgspec.structs.replace(usage, input=usage.cached)  # which is what we bill
    assert billed.provider is not None
    paid = billed.model.calc_price(theirs(usage), billed.provider, genai_request_timestamp=NOON)
    assert billed.usd == pytest.approx(float(paid.total_price), abs=1e-9, rel=0)


@pytest.mark.parametrize("entry", corpus.cases("answer"))
def test_the_library_reads_the_same(entry: Entry) -> None:
    """What it makes of the provider's own words costs the same, but for what it does not read."""
    billed = bill(entry)
    if billed is None or billed.usd is None or billed.usage.cached > billed.usage.input:
        return
    assert billed.provider is not None
    assert billed.model is not None
    flavors = {extractor.api_flavor for extractor in billed.provider.extractors or ()}
    flavor = next((each for each in (FLAVOR.get(entry.api), "default") if each in flavors), None)
    if flavor is None or (entry.api.startswith("openai_") and billed.provider.id == "aws"):
        return  # it reads nothing of this provider's, or only its other language
    if entry.file in UNREADABLE:
        with pytest.raises(AttributeError):
            billed.provider.extract_usage(as_recorded(entry), api_flavor=flavor)
        return
    _, usage = billed.provider.extract_usage(as_recorded(entry), api_flavor=flavor)
    paid = billed.model.calc_price(usage, billed.provider, genai_request_timestamp=NOON)
    agrees = billed.usd == pytest.approx(float(paid.total_price), abs=1e-9, rel=0)
    assert agrees is (entry.file not in MISREAD), (billed.usd, paid.total_price)


def test_account_for_every_recording() -> None:
    """How many are priced, and each model that the book does not know with the number of its recordings."""
    found = [bill(param.values[0]) for param in corpus.cases("answer")]
    billed = [one for one in found if one is not None]
    unknown = Counter(one.called for one in billed if one.quote.price is None)
    print(f"{len(found)} answers, {len(billed)} with usage, {len(billed) - unknown.total()} priced; unknown:")
    for called, count in sorted(unknown.items()):
        print(f"  {count:4} {called}")
    assert len(billed) - unknown.total() > unknown.total()
