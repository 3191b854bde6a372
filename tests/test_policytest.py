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


def first_line(told: str | None) -> str | None:
    """What was expected and what came, without the lines on each upstream."""
    return None if told is None else told.splitlines()[0]


async def asked(test: str, policy: str = BEST_FIRST) -> list[str]:
    """The providers that a test finds asked, by what it says when it expects the impossible."""
    told = await result(f'expect = ["a/m", "a/m"]\n{test}', policy)
    assert told is not None
    names = told.splitlines()[0].partition(", got ")[2]
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
    assert first_line(await result(f"expect = {expect}")) == told


async def test_a_test_that_finds_nobody_says_so() -> None:
    """And one that expects it passes."""
    down = 'given = { "a/m" = { down = true } }\n'
    policy = BEST_FIRST + 'candidates = ["a/m"]'

    assert first_line(await result(f'expect = ["a/m"]\n{down}', policy)) == "expected a/m, got nobody"
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


# ---- what else a test may say --------------------------------------------------------------------------------------

CACHED = (
    'scores = "s.toml"\n'
    '[[provider]]\nname = "a"\nbase_url = "http://a"\n[[provider]]\nname = "b"\nbase_url = "http://b"\n'
    '[[model]]\nprovider = "a"\nid = "m"\nquality = 5\nprice = { input = 2, cached_input = 0.2, output = 8 }\n'
    '[[model]]\nprovider = "b"\nid = "m"\nquality = 7\nprice = { input = 1.8, cached_input = 0.18, output = 7 }\n'
    '[[model]]\nprovider = "b"\nid = "free"\n'
)
SCORES = '[scores.code]\n"a/m" = 9\n'
WHENS = BEST_FIRST + (
    'candidates = ["*/m"]\nrouter = "tests.upstream_words"\n'
    '[[when]]\ntokens_above = 10_000\ncandidates = ["a/m"]\n'
    '[[when]]\nheader = { X-Task = "code" }\nclass = "code"\n'
    '[[when]]\nrouted = "any"\ncandidates = ["b/free"]\n'
)


async def told(test: str, policy: str = BEST_FIRST + 'candidates = ["*/m"]\n') -> list[str]:
    """The lines that a test fails with; none when it passes."""
    found = config(CACHED, p=f'{policy}\n[[test]]\nname = "t"\n{test}', s=SCORES)
    return (failures(found, "p", found.policies["p"].test[0]) or "").splitlines()


@pytest.mark.parametrize(
    ("test", "first"),
    [
        ("request = { tokens = 5000 }", "b"),
        ('request = { tokens = 5000 }\ngiven = { "a/m" = { warm = 4096 } }', "a"),
        ('given = { "a/m" = { warm = 4096 } }', "a"),
        ('request = { tokens = 5000 }\ngiven = { "a/m" = { warm = 600 } }', "b"),
        ('given = { "a/m" = { warm = 4096 }, "b/m" = { warm = 4096 } }', "b"),
    ],
)
async def test_a_given_cache_is_warm(test: str, first: str) -> None:
    """For so many tokens of the prompt, if the provider keeps prompts that short."""
    assert await told(f'expect = {{ first = "{first}/m" }}\n{test}') == []


async def test_a_spent_budget_leaves_one_attempt() -> None:
    """As in an outage that has lasted."""
    test = 'given = { "b/m" = { error = "timeout" } }\n'
    assert await told(f'{test}expect = ["b/m", "a/m"]') == []
    assert await told(f'{test}budget = "spent"\nexpect = ["b/m"]') == []


@pytest.mark.parametrize(
    ("request_", "expect"),
    [
        ("tokens = 20_000", 'first = "a/m", when = 1'),
        ('header = { x-task = "code" }', 'first = "b/m", when = 2, class = "code"'),
        ('header = { x-task = "code" }, strategy = "quality"', 'first = "a/m", not = ["b/m"]'),
        ('strategy = "quality"', 'first = "b/m", when = 0'),
        ('routed = "any"', 'asked = ["b/free"], when = 3, class = "any"'),
        ("tokens = 1000", "usd_below = 0.004"),
    ],
)
async def test_properties_instead_of_a_list(request_: str, expect: str) -> None:
    """What matters of a decision, whoever else is asked."""
    assert await told(f"request = {{ {request_} }}\nexpect = {{ {expect} }}", WHENS) == []


@pytest.mark.parametrize(
    ("expect", "complaint"),
    [
        ('first = "a/m"', "expected a/m first, got b/m"),
        ('asked = ["a/m", "b/m"]', "expected a/m -> b/m, got b/m"),
        ('not = ["b/m"]', "expected not to ask b/m, got b/m"),
        ("usd_below = 0.001", "expected less than 0.001 USD, got 0.00359 USD at b/m"),
        ("when = 2", "expected [[when]] number 2, got none"),
        ('class = "code"', "expected class 'code', got 'none'"),
        ('first = "a/m", when = 1', "expected a/m first, got b/m; expected [[when]] number 1, got none"),
    ],
)
async def test_every_property_that_fails_is_told(expect: str, complaint: str) -> None:
    """All of them, in one line, before the lines on each upstream."""
    assert (await told(f"expect = {{ {expect} }}", WHENS))[0] == complaint


async def test_an_unknown_price_is_not_below_anything() -> None:
    """Nor is nobody."""
    assert (await told('request = { routed = "any" }\nexpect = { usd_below = 1e6 }', WHENS))[0].endswith(
        "got no known price"
    )
    down = 'given = { "a/m" = { down = true } }\nexpect = { usd_below = 1, first = "a/m" }'
    assert (await told(down, BEST_FIRST + 'candidates = ["a/m"]\n'))[0] == (
        "expected a/m first, got nobody; expected less than 1 USD, got no known price"
    )


async def test_the_difference_is_told_line_by_line() -> None:
    """Who was asked as expected, who was not, and why."""
    test = 'given = { "b/m" = { down = true }, "a/m" = { error = "timeout" } }\nexpect = ["b/m", "a/m"]'
    assert await told(test) == [
        "expected b/m -> a/m, got a/m",
        "    - b/m  resting 1.0 s more after unavailable",
        "    = a/m  1 of 1 by score 1, 0.00405 USD",
    ]
    assert await told('expect = ["b/free"]') == [
        "expected b/free, got b/m",
        "    - b/free  no candidate here",
        "    + b/m     1 of 2 by score 1, 0.00359 USD",
    ]
    assert await told('request = { strategy = "quality" }\nexpect = ["b/free"]', BEST_FIRST) == [
        "expected b/free, got b/m",
        "    - b/free  3 of 3 by score inf, no known price",
        "    + b/m     1 of 3 by score -7, 0.00359 USD",
    ]
