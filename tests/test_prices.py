"""What tokens cost: parts and tiers, whose price holds, and when."""

import argparse
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.__main__ import main
from proxy.commands import prices as verb
from proxy.config import PolicyError, load, load_directory, shipped_prices
from proxy.policy import Price, Tier
from proxy.prices import PRICES, Book, Dated, Listed, Model, Quote, Rule, Tariff, cost, read
from proxy.usage import Usage
from tests.conftest import StartSidecar, StartUpstream, catalog
from tests.fake_upstream import completion

MTOK = 1_000_000
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
PLAIN = Price(input=1, output=2)


def second(hour: float) -> int:
    """Seconds from midnight."""
    return int(hour * 3600)


def at(day: str, hour: float = 12) -> float:
    """Unix seconds of a time of day in UTC."""
    return datetime.fromisoformat(f"{day}T00:00+00:00").timestamp() + second(hour)


def model(name: str, *prices: Dated | float, **rule: Any) -> Model:
    """A model of a book; a number is the price of its input."""
    dated = [one if isinstance(one, Dated) else Dated(Price(input=one, output=0)) for one in prices]
    return Model(name, Rule(**(rule or {"equals": [name]})), dated)


def book(*models: Model, others: tuple[Model, ...] = ()) -> Book:
    """A book of a provider called acme, which sells `others` of a provider called far besides."""
    acme = Listed("acme", r"https://api\.acme\.test", msgspec.Raw(msgspec.json.encode(models)), ["far"])
    far = Listed("far", r"https://far\.test", msgspec.Raw(msgspec.json.encode(others)))
    return Book("the book", "2026-11-25", [acme, far])


def tariff(*models: Model, others: tuple[Model, ...] = (), **own: float) -> Tariff:
    """What acme's models cost, with the catalog's `own` prices of the input."""
    prices = {name: Price(input=value, output=0) for name, value in own.items()}
    return Tariff(book(*models, others=others), "acme", "https://api.acme.test/v1", prices)


def per_mtok(quote: Quote) -> float | None:
    """The price of the input, None when it is unknown."""
    return None if quote.price is None else quote.price.input


# ---- the sum ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "usage", "usd"),
    [
        (PLAIN, Usage(), 0.0),
        (PLAIN, Usage(input=MTOK), 1.0),
        (PLAIN, Usage(output=MTOK, reasoning=MTOK), 2.0),
        # What has no price of its own costs what it is a part of.
        (PLAIN, Usage(input=MTOK, cached=MTOK, cache_write=0, audio_input=MTOK), 1.0),
        (PLAIN, Usage(input=MTOK, cache_write=MTOK, cache_write_1h=MTOK), 1.0),
        (Price(input=1, output=5, cached_input=0.1), Usage(input=MTOK, cached=900_000), 0.19),
        (Price(input=1, output=5, cache_write=1.25, cache_write_1h=2), Usage(input=MTOK, cache_write=MTOK), 1.25),
        (
            Price(input=1, output=5, cache_write=1.25, cache_write_1h=2),
            Usage(input=MTOK, cache_write=MTOK, cache_write_1h=MTOK),
            2.0,
        ),
        (Price(input=1, output=5, cache_write_1h=2), Usage(input=MTOK, cache_write=MTOK, cache_write_1h=400_000), 1.4),
        (Price(input=2, output=8, reasoning=3), Usage(output=MTOK, reasoning=600_000), 5.0),
        (Price(input=1, output=2, audio_input=10), Usage(input=MTOK, audio_input=500_000), 5.5),
        (Price(input=1, output=2, audio_output=20), Usage(output=MTOK, audio_output=500_000), 11.0),
        (
            Price(input=1, output=2, cached_input=0.5, audio_input=10, cached_audio=3),
            Usage(input=MTOK, cached=500_000, audio_input=600_000, cached_audio=400_000),
            # 300,000 plain, 100,000 cached text, 400,000 cached sound, 200,000 fresh sound
            0.3 + 0.05 + 1.2 + 2.0,
        ),
        (
            Price(input=1, output=2, cached_input=0.5, audio_input=10),
            Usage(input=MTOK, cached=500_000, audio_input=600_000, cached_audio=400_000),
            0.3 + 0.25 + 2.0,
        ),
        (Price(input=1, output=2, request=0.012, search=0.01), Usage(input=MTOK, searches=3), 1.042),
        # More cached than there is, as some servers report: what is said to be cached is paid, and nothing beside it.
        (Price(input=1, output=2, cached_input=0.1), Usage(input=100, cached=MTOK), 0.1),
        # Worked values of the vendors' lists.
        (
            Price(input=1, output=5, cached_input=0.1, cache_write=1.25, cache_write_1h=2),
            Usage(input=1110, output=5, cached=1000, cache_write=100, cache_write_1h=60),
            0.000305,
        ),
        (Price(input=5, output=30, cached_input=0.5), Usage(input=100, output=50, cached=80), 0.00164),
    ],
)
def test_what_tokens_cost(price: Price, usage: Usage, usd: float) -> None:
    """Each kind of token at its own price, or at that of its whole."""
    assert cost(price, usage) == pytest.approx(usd, abs=1e-12)


def test_a_tier_prices_all_tokens() -> None:
    """A longer prompt makes every token of the request dearer, and what the tier does not name stays as it is."""
    price = Price(
        input=1.25,
        output=10,
        cached_input=0.125,
        tiers=[Tier(above=200_000, input=2.5, output=15), Tier(above=500_000, input=5)],
    )
    assert cost(price, Usage(input=200_000, output=1000)) == pytest.approx(0.26)
    assert cost(price, Usage(input=200_001, output=1000)) == pytest.approx(0.5150025)
    assert cost(price, Usage(input=201_000, cached=201_000)) == pytest.approx(201_000 * 0.125 / 1e6)
    assert cost(price, Usage(input=600_000)) == pytest.approx(3.0)


counts = st.integers(0, 10**7)
rates = st.one_of(st.none(), st.floats(0, 1000))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Usage whose parts fit their wholes."""
    cached, write, audio, plain, output = (draw(counts) for _ in range(5))
    return Usage(
        input=cached + write + audio + plain,
        output=output,
        cached=cached,
        cache_write=write,
        reasoning=draw(st.integers(0, output)),
        cache_write_1h=draw(st.integers(0, write)),
        audio_input=audio,
        searches=draw(st.integers(0, 9)),
    )


priced = st.builds(
    Price,
    input=st.floats(0, 1000),
    output=st.floats(0, 1000),
    cached_input=rates,
    cache_write=rates,
    cache_write_1h=rates,
    reasoning=rates,
    audio_input=rates,
    search=st.floats(0, 1),
)


@given(priced, usages(), usages())
def test_without_tiers_costs_add_up(price: Price, one: Usage, other: Usage) -> None:
    """Two answers cost what one with the tokens of both would."""
    both = Usage(*map(sum, zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)))
    assert cost(price, both) == pytest.approx(cost(price, one) + cost(price, other), rel=1e-9, abs=1e-12)


@given(priced, usages(), counts)
def test_more_tokens_never_cost_less(price: Price, usage: Usage, more: int) -> None:
    """Neither more plain input nor more output makes an answer cheaper, and none has a negative price."""
    paid = cost(price, usage)
    slack = 1e-9 * (1 + paid)
    assert paid >= -slack
    assert cost(price, msgspec.structs.replace(usage, input=usage.input + more)) >= paid - slack
    assert cost(price, msgspec.structs.replace(usage, output=usage.output + more)) >= paid - slack


@given(priced, usages(), st.sampled_from([0.0, 0.5, 2.0, 1024.0]))
def test_costs_scale_with_prices(price: Price, usage: Usage, factor: float) -> None:
    """Twice the prices, twice the cost."""
    scaled = {
        name: value * factor for name, value in msgspec.structs.asdict(price).items() if value and name != "tiers"
    }
    assert cost(msgspec.structs.replace(price, **scaled), usage) == pytest.approx(factor * cost(price, usage))


# ---- whose price ------------------------------------------------------------------------------------------------


def test_the_catalog_comes_first() -> None:
    """An own price wins over the book's, that of the model that answered over that of the one that was asked."""
    costs = tariff(model("big", 7), model("big-2026-01-01", 8), model("small", 9), big=1, small=2)
    assert costs.quote("big") == Quote(Price(input=1, output=0), "catalog")
    assert per_mtok(costs.quote("big", "big")) == 1
    assert per_mtok(costs.quote("big", "big-2026-01-01")) == 1
    assert per_mtok(costs.quote("big", "small")) == 2


def test_the_book_bills_whoever_answered() -> None:
    """An alias is paid as the snapshot behind it, a deployment as its model, a name nobody knows as what was asked."""
    costs = tariff(model("big-2024-05-13", 5), model("big", 2, equals=["big"], starts=["big-2026"]))
    assert per_mtok(costs.quote("big")) == 2
    assert per_mtok(costs.quote("big", "big-2024-05-13")) == 5
    assert per_mtok(costs.quote("big", "big-2026-08-06")) == 2
    assert per_mtok(costs.quote("our-deployment", "BIG-2024-05-13")) == 5
    assert per_mtok(costs.quote("big", "/models/big.gguf")) == 2
    assert costs.quote("big").source == "the book of 2026-11-25"


def test_unknown_stays_unknown() -> None:
    """No row, no entry, or no such provider: no price, which is not 0."""
    assert tariff(model("big", 7)).quote("other", "another") == Quote(None, "unknown")
    assert Tariff(book(model("big", 7)), "elsewhere", "http://127.0.0.1:9/v1", {}).quote("big").price is None


@pytest.mark.parametrize(
    ("rule", "name", "meant"),
    [
        ({"equals": ["a"]}, "A", True),
        ({"equals": ["a"]}, "ab", False),
        ({"starts": ["a-", "b-"]}, "b-1", True),
        ({"ends": [":free"]}, "x:free", True),
        ({"contains": ["claude"]}, "eu.claude-3", True),
        ({"regex": ["^o[134]"]}, "o3-mini", True),
        ({"regex": ["^o[134]"]}, "foo3", False),
        ({"all": [Rule(contains=["llama"]), Rule(contains=["8b"])]}, "llama-3-8b", True),
        ({"all": [Rule(contains=["llama"]), Rule(contains=["8b"])]}, "llama-3-70b", False),
        ({"equals": ["m-2025-12-11"]}, "m-20251211", True),
        ({"equals": ["m-20251211"]}, "m-20251211", True),
        ({}, "", False),
    ],
)
def test_names_are_matched_by_rules(rule: dict[str, Any], name: str, meant: bool) -> None:
    """Any of the alternatives; capitals do not matter, and a date may be written without dashes."""
    costs = tariff(Model("m", Rule(**rule), [Dated(PLAIN)]))
    assert (costs.quote(name).price is not None) == meant


def test_the_first_match_counts_and_others_are_asked_last() -> None:
    """Rules overlap: their order decides. Who sells another's models has that one's prices behind its own."""
    costs = tariff(model("a", 1, starts=["a"]), model("ab", 2), others=(model("ab", 3), model("c", 4)))
    assert [per_mtok(costs.quote(name)) for name in ("ab", "c")] == [1, 4]


def test_a_provider_is_known_by_its_address_or_its_name() -> None:
    """The address first: a name is anybody's choice."""
    known = book(model("m", 1), others=(model("m", 2),))
    quoted = [
        Tariff(known, name, url, {}).quote("m")
        for name, url in (("mine", "https://api.acme.test/v1"), ("acme", "https://far.test"), ("acme", ""), ("x", ""))
    ]
    assert [per_mtok(quote) for quote in quoted] == [1, 2, 1, None]


def test_only_so_many_names_are_remembered() -> None:
    """Upstreams choose the names that answer; each gets its price, and memory stays bounded."""
    costs = tariff(model("m", 1, starts=["m"]))
    assert all(per_mtok(costs.quote("m", f"m-{number}")) == 1 for number in range(1100))
    assert len(costs._quotes) == 1024


# ---- when -------------------------------------------------------------------------------------------------------


def test_a_price_changes_on_its_day() -> None:
    """The last price that has begun holds; before any has, the first."""
    later = Dated(Price(input=9, output=0), since="2027-01-01")
    costs = tariff(model("m", 3, later), model("late", later))
    assert costs.quote("m") == Quote(Price(input=3, output=0), "the book of 2026-11-25", at("2027-01-01", 0))
    assert per_mtok(costs.quote("late")) == 9
    assert not costs.tick(at("2026-12-31", 23.9))
    assert per_mtok(costs.quote("m")) == 3
    assert costs.tick(at("2027-01-01", 0))
    assert costs.quote("m") == Quote(Price(input=9, output=0), "the book of 2026-11-25")
    assert not costs.tick(at("2028-01-01"))
    assert costs.tick(at("2026-12-01"))  # somebody has set the clock back
    assert per_mtok(costs.quote("m")) == 3


@pytest.mark.parametrize(
    ("daily", "peak", "off"),
    [((second(1), second(4)), (1, 2.5, 3.99), (0, 4, 12)), ((second(16.5), second(0.5)), (16.5, 23, 0.4), (0.5, 12))],
)
def test_a_price_changes_with_the_hour(daily: tuple[int, int], peak: tuple[float, ...], off: tuple[float, ...]) -> None:
    """Every day between two times, also over midnight."""
    costs = tariff(model("m", 1, Dated(Price(input=2, output=0), daily=daily)))
    for price, hours in ((2, peak), (1, off)):
        for hour in hours:
            costs.tick(at("2026-12-01", hour))
            assert per_mtok(costs.quote("m")) == price, hour


def test_a_price_says_until_when_it_holds() -> None:
    """The nearest of all changes, today's or tomorrow's."""
    costs = tariff(model("m", 1, Dated(PLAIN, daily=(second(1), second(4))), Dated(PLAIN, since="2026-12-02")))
    untils = []
    for hour in (0, 2, 5):
        costs.tick(at("2026-12-01", hour))
        untils.append(costs.quote("m").until)
    assert untils == [at("2026-12-01", 1), at("2026-12-01", 4), at("2026-12-02", 0)]
    costs.tick(at("2026-12-03", 5))
    assert costs.quote("m").until == at("2026-12-04", 1)


# ---- in a sidecar -----------------------------------------------------------------------------------------------

GPT = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


def priced_by_book(*models: Model) -> str:
    """A price book file for the provider p0."""
    providers = [Listed("p0", "https://p0[.]test", msgspec.Raw(msgspec.json.encode(models)))]
    return msgspec.json.encode(Book("test", "2026-11-25", providers)).decode()


async def test_answers_are_billed_by_the_book(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A model without a price costs what the book says of the model that answered; without an entry it is unknown."""
    answering = await upstream(completion(model="m-big", usage=GPT), completion(model="m", usage=GPT))
    unpriced = f'[[provider]]\nname = "p0"\nbase_url = "{answering.url}"\n[[model]]\nprovider = "p0"\nid = "m"\n'
    files = {"catalog.toml": unpriced, PRICES: priced_by_book(model("m", 1), model("m-big", 10))}
    running = await sidecar(answering, files=files)
    for _ in range(2):
        assert (await running.post()).status == 200
    await running.post({"model": "p0/other", "messages": [{"role": "user", "content": "Hi"}]})
    assert [line.get("usd") for line in running.log("request")] == [0.01, 0.001, 0.001]
    assert (await running.get("/status")).json["upstreams"]["p0/m"]["list_usd_per_mtok"] == 0.75


async def test_prices_change_while_the_sidecar_runs(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A new book in the directory is read like any policy file; a broken one changes nothing and is reported."""
    row = '[[provider]]\nname = "p0"\nbase_url = "http://127.0.0.1:9"\n[[model]]\nprovider = "p0"\nid = "m"\n'
    running = await sidecar(files={"catalog.toml": row, PRICES: priced_by_book(model("m", 1))})
    gateway = running.app.gateway
    (running.directory / PRICES).write_text(priced_by_book(model("m", 2)))
    running.app.check_files()
    assert gateway.generation.routes.registry.list()[0].usd_per_mtok == 1.5
    (running.directory / PRICES).write_text("{}}")
    running.app.check_files()
    assert gateway.generation.routes.registry.list()[0].usd_per_mtok == 1.5
    assert running.log("reload_refused")[0]["problems"][0].startswith("prices.json: no price book: ")


async def test_prices_change_at_their_time(sidecar: StartSidecar) -> None:
    """When an hour or a day begins at which a price changes, rankings and bills change with it, others stay."""
    row = (
        '[[provider]]\nname = "p0"\nbase_url = "http://127.0.0.1:9"\n[[model]]\nprovider = "p0"\nid = "m"\n'
        '[[provider]]\nname = "p1"\nbase_url = "http://127.0.0.1:9"\n[[model]]\nprovider = "p1"\nid = "m"\n'
    )
    soon = Dated(Price(input=8, output=0), since="2999-01-01")
    running = await sidecar(files={"catalog.toml": row, PRICES: priced_by_book(model("m", 4, soon))})
    gateway = running.app.gateway
    changing, unknown = gateway.generation.routes.registry.list()
    assert (changing.usd_per_mtok, unknown.usd_per_mtok) == (3.0, None)
    gateway.tools = msgspec.structs.replace(gateway.tools, wall=lambda: at("2999-01-02"))
    gateway.reprice()
    assert (changing.usd_per_mtok, unknown.usd_per_mtok) == (6.0, None)


# ---- the file ---------------------------------------------------------------------------------------------------


def test_the_shipped_book_prices_the_shipped_catalog() -> None:
    """All models but Copilot's, which is paid by the seat or not told."""
    config = load_directory(None)
    quotes = {
        name: Tariff(config.prices, row.provider, config.providers[row.provider].base_url, {}).quote(row.id)
        for name, row in config.models.items()
    }
    assert [name for name, quote in quotes.items() if quote.price is None] == ["copilot/gpt-4o"]
    assert quotes["gemini/gemini-2.5-pro"].price == Price(
        input=1.25,
        output=10,
        cached_input=0.125,
        search=0.035,
        tiers=[Tier(above=200_000, input=2.5, output=15, cached_input=0.25)],
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"providers": [{"id": "x", "url": "(", "models": []}]}',
        '{"written": "yesterday"}',
        '{"providers": [{"id": "x", "url": "x", "models": [{"id": "m"}]}]}',
        '{"providers": [{"id": "x", "url": "x", "models": [{"id": "m", "match": {"regex": ["("]}, "prices": []}]}]}',
        '{"providers": [{"id": "x", "url": "x", "models": [{"id": "m", "match": {}, "prices": []}]}]}',
        '{"providers": [{"id": "x", "url": "x", "models": [{"id": "m", "match": {}, "prices": '
        '[{"price": {"input": 1, "output": 1}, "since": "soon"}]}]}]}',
        '{"providers": [{"id": "x", "url": "x", "models": [{"id": "m", "match": {}, "prices": '
        '[{"price": {"input": -1, "output": 1}}]}]}]}',
    ],
)
def test_a_file_that_is_no_book_is_refused(text: str) -> None:
    """With the file's name, and before anybody is billed by it."""
    with pytest.raises(PolicyError, match=r"^prices\.json: no price book: "):
        load({"catalog.toml": catalog().encode(), PRICES: text.encode()})


def test_the_verb_tells_which_book_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Source, day and size."""
    (tmp_path / "catalog.toml").write_text(catalog())
    (tmp_path / PRICES).write_text(priced_by_book(model("a", 1), model("b", 2)))
    assert main(["prices", "--policies", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "test of 2026-11-25: 2 models of 1 providers\n"


def test_the_verb_writes_the_book_of_the_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as the shipped one, which was written from this version, but for its day."""
    assert main(["prices", "--update", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / PRICES}: genai-prices 0.2.3\n"
    written, known = json.loads((tmp_path / PRICES).read_text()), json.loads(shipped_prices())
    assert written.pop("written") == date.today().isoformat()
    assert {**written, "written": known["written"]} == known
    assert [path.name for path in tmp_path.iterdir()] == [PRICES]


def test_the_verb_says_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No directory: exit 2 and one line. Without the library it says where to get it."""
    assert main(["prices", "--update", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"llm-sidecar: {tmp_path / 'none'}: No such file or directory\n"
    assert verb.update(tmp_path, None) == 2
    assert "pip install 'llm-sidecar[prices]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_book_is_checked_as_strictly() -> None:
    """What `read` lets through can be looked into without an error."""
    whole = read(shipped_prices())
    for listed in whole.providers:
        assert Tariff(whole, listed.id, "", {}).quote("no such model at all").source == "unknown"
    assert len(whole.providers) > 40
    assert isinstance(verb.run(argparse.Namespace(update=None, policies=None)), int)
