"""What a client may call a model, and whom that means."""

from typing import Any

import pytest

from proxy.routes import DIRECT, Route, Routes

from .upstream_words import catalog, config, registry

FACTS = catalog("a/m", "a/n", "b/m", "b/x/y")
CHAIN = '[fallback.chain]\n"a/m" = ["b/m", "a/n"]\n'


def routes(*off: str, facts: str = FACTS, **policies: str) -> Routes:
    """The names of a directory; the providers in `off` have no key."""
    found = config(facts, **policies)
    return Routes(found, registry(found, *off))


def meant(route: Route | None) -> tuple[str, list[str]]:
    """The policy that answers and its candidates."""
    assert route is not None
    return route.name, [upstream.name for upstream in route.candidates]


def answering(*globs: str) -> str:
    return f"answers = {list(globs)}"


def test_a_policy_is_a_name() -> None:
    """Its candidates are those of the file, in the file's order."""
    subject = routes(p='candidates = ["b/*", "a/m"]')

    assert meant(subject.resolve("p")) == ("p", ["b/m", "b/x/y", "a/m"])


def test_a_policys_own_name_beats_every_other_meaning() -> None:
    """Also what another policy answers, exact or not, and the id of a model."""
    subject = routes(m='candidates = ["a/n"]', q=answering("m", "*"))

    assert meant(subject.resolve("m")) == ("m", ["a/n"])
    assert meant(subject.resolve("n"))[0] == "q"


@pytest.mark.parametrize(
    ("asked", "policy"),
    [
        ("gpt-4o", "exact"),
        ("gpt-4o-mini", "narrow"),
        ("gpt-4", "wide"),
        ("GPT-4o", "any"),
        ("a/m", "any"),
        ("p[1]", "any"),
        ("p1", "set"),
    ],
)
def test_exact_beats_narrower_beats_wider(asked: str, policy: str) -> None:
    """The glob with the most letters of its own wins, whatever the order of the files; case counts."""
    named = {"any": "*", "exact": "gpt-4o", "narrow": "gpt-4o*", "set": "p[12]", "wide": "gpt-*"}
    subject = routes(**{name: answering(glob) for name, glob in named.items()})

    assert meant(subject.resolve(asked))[0] == policy


def test_equal_globs_go_to_the_first_policy() -> None:
    """By the names of the files, as everything that is equal."""
    subject = routes(y=answering("gpt-*"), x=answering("gpt-*"))

    assert meant(subject.resolve("gpt-5"))[0] == "y"


def test_answers_beat_upstreams() -> None:
    """A policy may take a model's whole name over, so that an unchanged app is routed."""
    subject = routes(p='answers = ["a/m"]\ncandidates = ["b/m"]')

    assert meant(subject.resolve("a/m")) == ("p", ["b/m"])
    assert meant(subject.resolve("a/n")) == (DIRECT, ["a/n"])


def test_an_upstream_is_pinned() -> None:
    """Without a chain for it nobody stands by, whatever the policies list for others."""
    route = routes(p='strategy = "cheapest"', q=CHAIN).resolve("b/m")

    assert meant(route) == (DIRECT, ["b/m"])
    assert route is not None
    assert route.chains == {}


def test_a_pinned_upstream_falls_back_by_the_policy_that_lists_its_chain() -> None:
    """By the first that does, with all that this policy wants."""
    subject = routes(o='strategy = "cheapest"', p=CHAIN + '"b/m" = []\n', q='[fallback.chain]\n"a/m" = ["b/x/y"]')
    route = subject.resolve("a/m")

    assert meant(route) == ("p", ["a/m"])
    assert route is not None
    assert [upstream.name for upstream in route.chains["a/m"]] == ["b/m", "a/n"]
    assert meant(subject.resolve("b/m")) == ("p", ["b/m"])


def test_a_pinned_upstream_stays_one_when_its_provider_is_off() -> None:
    """The client then reads why, and no other provider gets what was meant for this one."""
    route = routes("a").resolve("a/m")

    assert meant(route) == (DIRECT, ["a/m"])
    assert route is not None
    assert route.candidates[0].provider.access.off == "no key"


@pytest.mark.parametrize("id", ["new", "org/new", "x/y/z", "m "])
def test_any_id_of_a_provider_that_is_on(id: str) -> None:
    """A model that the catalog does not list yet can be asked for; its price is unknown."""
    route = routes().resolve(f"b/{id}")

    assert meant(route) == (DIRECT, [f"b/{id}"])
    assert route is not None
    (upstream,) = route.candidates
    assert (upstream.target.model, upstream.usd_per_mtok, upstream.label) == (id, None, "b/*")


def test_a_bare_id_is_every_upstream_that_offers_it() -> None:
    """In the catalog's order, chosen among by the default strategy; slashes may belong to the id."""
    subject = routes()
    route = subject.resolve("m")

    assert meant(route) == (DIRECT, ["a/m", "b/m"])
    assert route is not None
    assert route.policy.strategy == "balanced"
    assert meant(subject.resolve("x/y")) == (DIRECT, ["b/x/y"])


def test_a_bare_id_whose_offers_are_all_off_is_still_known() -> None:
    """Its providers say why; the only one that is on does not offer it."""
    assert meant(routes("b").resolve("x/y")) == (DIRECT, ["b/x/y"])
    assert meant(routes("a", "b").resolve("m")) == (DIRECT, ["a/m", "b/m"])


def test_a_bare_id_that_nobody_lists_goes_to_the_only_provider_that_is_on() -> None:
    """So an unchanged app keeps working with one key; with two nobody guesses."""
    assert meant(routes("a").resolve("gpt-9")) == (DIRECT, ["b/gpt-9"])
    assert routes().resolve("gpt-9") is None
    assert routes("a", "b").resolve("gpt-9") is None


@pytest.mark.parametrize("asked", ["", "c", "c/m", "a", "a/", "/", "/m", "M", "A/m", "a\n/m", "*", "?/m"])
def test_an_unknown_name_means_nobody(asked: str) -> None:
    """Names are compared letter by letter; what a client sends is no glob."""
    assert routes(p='strategy = "cheapest"').resolve(asked) is None


def test_a_name_is_looked_up_once() -> None:
    """The next request for it gets the same route."""
    subject = routes(p=answering("gpt-*"))

    assert all(subject.resolve(name) is subject.resolve(name) for name in ("p", "gpt-5", "a/m", "a/new", "m"))


def test_names_that_clients_make_up_do_not_fill_the_memory() -> None:
    """Past a thousand they are looked up anew; the answer is the same."""
    subject = routes()
    for number in range(3000):
        assert meant(subject.resolve(f"a/made-up-{number}"))[1] == [f"a/made-up-{number}"]
        assert subject.resolve(f"nobody-{number}") is None

    assert len(subject._known) == 1024
    assert meant(subject.resolve("m")) == (DIRECT, ["a/m", "b/m"])


def test_names_are_policies_and_upstreams_that_are_on() -> None:
    """What a client is told it can ask for."""
    assert routes("a", p='strategy = "cheapest"').names() == ["p", "b/m", "b/x/y"]


@pytest.mark.parametrize(
    ("on", "falls_back"),
    [
        ({}, {"rate_limit", "quota", "timeout", "unavailable", "overloaded"}),
        ({"on": ["rate_limit"]}, {"rate_limit", "quota"}),
        ({"on": ["timeout", "auth"]}, {"timeout", "auth"}),
        ({"on": []}, set()),
    ],
)
def test_rate_limit_includes_quota(on: dict[str, Any], falls_back: set[str]) -> None:
    """Both are a provider that has nothing left for us."""
    route = routes(p=f"fallback = {{ {', '.join(f'{key} = {value}' for key, value in on.items())} }}").resolve("p")

    assert route is not None
    assert route.on == falls_back


def test_made_up_names_share_one_budget() -> None:
    """Who invents model names, or pins one, gets no budget for it; a chain is paid by the policy that it stands in."""
    subject = routes(p=f'candidates = ["b/m"]\n{CHAIN}', q='candidates = ["b/m"]')
    found = {name: subject.resolve(name) for name in ("a/n", "a/new", "b/other", "n", "p", "q", "a/m")}
    budgets = {name: route.budget for name, route in found.items() if route is not None}

    assert len({id(budgets[name]) for name in ("a/n", "a/new", "b/other", "n")}) == 1
    assert budgets["a/m"] is budgets["p"]
    assert len({id(one) for one in budgets.values()}) == 3


def test_budgets_outlive_a_generation() -> None:
    """Those of policies that are still there."""
    found = config(FACTS, p='candidates = ["b/m"]')
    old = Routes(found, registry(found))
    new = Routes(found, registry(found), old.budgets, 5.0)

    assert new.policies["p"].budget is old.policies["p"].budget
    assert new.budgets[DIRECT] is old.budgets[DIRECT]
