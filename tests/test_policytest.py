"""`[[test]]`: the live decision with a made-up state, and what is said when it comes out otherwise."""

import pytest

from proxy.policy import Given, PolicyTest
from proxy.policytest import failures

from .upstream_words import catalog, config

PRICED = "price = {{ input = {0}, output = {0} }}\nlatency = {{ p50_ms = {1} }}\nquality = {2}\nfeatures = {3}\n"
FACTS = "".join(
    f'[[provider]]\nname = "{name}"\nbase_url = "http://{name}"\napi_key = "env:{name}"\nlimits = {{ rpm = 1 }}\n'
    f'[[model]]\nprovider = "{name}"\nid = "m"\n' + PRICED.format(*numbers)
    for name, *numbers in (("a", 1, 300, 5, ["tools"]), ("b", 2, 200, 7, ["tools", "audio"]), ("c", 3, 100, 9, []))
)
BEST_FIRST = 'strategy = "cheapest"\n'


async def result(test: str, policy: str = BEST_FIRST) -> str | None:
    """What one test of a policy comes to; `test` are the lines of its table."""
    found = config(FACTS, p=f'{policy}\n[[test]]\nname = "t"\n{test}')
    return failures(found, "p", found.policies["p"].test[0])


async def asked(test: str, policy: str = BEST_FIRST) -> list[str]:
    """The providers that a test finds asked, by what it says when it expects the impossible."""
    told = await result(f'expect = ["a/m", "a/m"]\n{test}', policy)
    assert told is not None
    names = told.partition(", got ")[2]
    return [] if names == "nobody" else [name.removesuffix("/m") for name in names.split(" -> ")]


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ("", "a"),
        ('"a/m" = { error = "rate_limit" }', "ab"),
        ('"a/m" = { error = "quota" }', "ab"),
        ('"a/m" = { error = "timeout" }, "b/m" = { error = "overloaded" }', "abc"),
        ('"a/m" = { error = "auth" }', "a"),
        ('"b/m" = { error = "unavailable" }', "a"),
        ('"a/m" = { down = true }', "b"),
        ('"a/m" = { down = true }, "b/m" = { down = true }, "c/m" = { down = true }', ""),
        ('"a/m" = { down = true, error = "timeout" }, "b/m" = { error = "timeout" }', "bc"),
    ],
)
async def test_errors_and_outages(given: str, order: str) -> None:
    """Who errs is asked and the next one follows, if the policy falls back on that; who is down is not asked."""
    assert await asked(f"given = {{ {given} }}") == list(order)


@pytest.mark.parametrize(
    ("given", "request_", "order"),
    [
        ("", "", "c"),
        ('"a/m" = { p50_ms = 10 }', "", "a"),
        ('"a/m" = { p50_ms = 10 }', "stream = true", "a"),
        ('"c/m" = { p50_ms = 5000 }', "stream = true", "b"),
    ],
)
async def test_a_given_latency_is_the_live_one(given: str, request_: str, order: str) -> None:
    """It replaces the catalog's, for whole answers and for streams."""
    lines = f"given = {{ {given} }}\nrequest = {{ {request_} }}"

    assert await asked(lines, 'strategy = "fastest"') == list(order)


@pytest.mark.parametrize(("rate", "order"), [(0, "b"), (0.89, "b"), (0.91, "a"), (1, "a")])
async def test_a_given_success_rate_is_the_live_one(rate: float, order: str) -> None:
    """As if it had been measured a thousand times: no prior softens it."""
    policy = BEST_FIRST + "require = { min_success_rate = 0.9 }"

    assert await asked(f'given = {{ "a/m" = {{ success_rate = {rate} }} }}', policy) == list(order)


@pytest.mark.parametrize(
    ("request_", "order"),
    [
        ('needs = ["audio"]', "b"),
        ('needs = ["tools", "audio"]', "b"),
        ('needs = ["reasoning"]', ""),
        ('strategy = "quality"', "c"),
        ('strategy = "quality", needs = ["tools"]', "b"),
        ('strategy = "fastest"', "c"),
    ],
)
async def test_the_request_decides_along(request_: str, order: str) -> None:
    """What it needs, and the strategy its header asks for."""
    assert await asked(f"request = {{ {request_} }}") == list(order)


SIZED = FACTS.replace(
    'id = "m"\nprice = { input = 1', 'id = "m"\ncontext = 1000\nmax_output = 100\nprice = { input = 1'
)
LONG = BEST_FIRST + 'fallback = { on = ["context_length", "timeout"] }'


@pytest.mark.parametrize(
    ("request_", "order"),
    [
        ("tokens = 3000", "a"),
        ("tokens = 3100", "b"),
        ("tokens = 3000, max_tokens = 50", "b"),
        ("max_tokens = 100", "a"),
        ("max_tokens = 101", "b"),
    ],
)
async def test_the_size_of_the_request_decides_along(request_: str, order: str) -> None:
    """Who surely cannot take it is not asked."""
    found = config(SIZED, p=f'{BEST_FIRST}[[test]]\nname = "t"\nexpect = ["{order}/m"]\nrequest = {{ {request_} }}')
    assert failures(found, "p", found.policies["p"].test[0]) is None


@pytest.mark.parametrize(
    ("sizes", "errs", "order"),
    [
        ("1000 500 2000", {"a": "context_length"}, "ac"),
        ("1000 500 1000", {"a": "context_length"}, "a"),
        ("1000 500 0", {"a": "context_length"}, "ac"),
        ("0 500 1000", {"a": "context_length"}, "ab"),
        ("1000 2000 1500", {"a": "context_length", "b": "context_length"}, "ab"),
        ("1000 500 500", {"a": "timeout"}, "ab"),
    ],
)
async def test_too_long_goes_on_to_who_takes_more(sizes: str, errs: dict[str, str], order: str) -> None:
    """After `context_length` only a larger context, or an unknown one (0 here), is asked."""
    facts = FACTS
    for name, size in zip("abc", sizes.split(), strict=True):
        if size != "0":
            facts = facts.replace(f'provider = "{name}"\n', f'provider = "{name}"\ncontext = {size}\n')
    given = ", ".join(f'"{name}/m" = {{ error = "{kind}" }}' for name, kind in errs.items())
    expect = ", ".join(f'"{name}/m"' for name in order)
    found = config(facts, p=f'{LONG}\n[[test]]\nname = "t"\nexpect = [{expect}]\ngiven = {{ {given} }}')
    assert failures(found, "p", found.policies["p"].test[0]) is None


async def test_a_test_keeps_to_the_policys_attempts_and_chain() -> None:
    """The same limits as in the live walk."""
    all_err = ", ".join(f'"{name}/m" = {{ error = "timeout" }}' for name in "abc")
    given = f"given = {{ {all_err} }}"

    assert await asked(given, BEST_FIRST + "fallback = { attempts = 2 }") == ["a", "b"]
    assert await asked(given, BEST_FIRST + '[fallback.chain]\n"a/m" = ["c/m"]') == ["a", "c"]
    assert await asked(given, BEST_FIRST + "fallback = { on = [] }") == ["a"]


@pytest.mark.parametrize(
    ("expect", "told"),
    [
        ('["a/m"]', None),
        ('["b/m", "c/m"]', "expected b/m -> c/m, got a/m"),
        ('["a/m", "b/m"]', "expected a/m -> b/m, got a/m"),
        ("[]", "expected nobody, got a/m"),
    ],
)
async def test_a_failure_says_what_was_expected_and_what_came(expect: str, told: str | None) -> None:
    """In the words of the file, so that a person sees which of the two is wrong."""
    assert await result(f"expect = {expect}") == told


async def test_a_test_that_finds_nobody_says_so() -> None:
    """And one that expects it passes."""
    down = 'given = { "a/m" = { down = true } }\n'
    policy = BEST_FIRST + 'candidates = ["a/m"]'

    assert await result(f'expect = ["a/m"]\n{down}', policy) == "expected a/m, got nobody"
    assert await result(f"expect = []\n{down}", policy) is None


async def test_tests_do_not_disturb_each_other() -> None:
    """Each has a state of its own, and keys and limits of this machine play no part."""
    found = config(
        FACTS,
        p=BEST_FIRST
        + '[[test]]\nname = "down"\nexpect = ["b/m"]\ngiven = { "a/m" = { down = true } }\n'
        + '[[test]]\nname = "up"\nexpect = ["a/m"]\n',
    )

    for _ in range(3):
        assert [failures(found, "p", test) for test in found.policies["p"].test] == [None, None]


def test_a_state_of_an_upstream_that_is_gone_touches_nobody() -> None:
    """A test that outlived its model is `check`'s to refuse; here it is not in the way."""
    found = config(catalog("a/m"), p=BEST_FIRST)
    outlived = PolicyTest(name="t", expect=["a/m"], given={"a/old": Given(down=True)})

    assert failures(found, "p", outlived) is None
