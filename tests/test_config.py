"""What may stand in policy files, and what is said of what may not."""

from pathlib import Path

import msgspec
import pytest

from proxy.config import CATALOG, MAX_FILE, PolicyError, digest, load, load_directory, matching, nearest, read_files
from proxy.policy import FEATURES, Timeouts

from .upstream_words import catalog, config

FACTS = catalog("a/m", "a/n", "b/m")


def told(policy: str = 'description = "fine"', facts: str = FACTS) -> list[str]:
    """The problems of a directory with this policy and catalog, a line each."""
    with pytest.raises(PolicyError) as raised:
        config(facts, p=policy)
    assert str(raised.value) == "\n".join(map(str, raised.value.problems))
    return [str(problem) for problem in raised.value.problems]


def test_a_directory_is_its_catalog_and_its_policies() -> None:
    """Every other file is a policy named after it; what it leaves out has the documented default."""
    found = config(FACTS, cheap='strategy = "cheapest"\ncandidates = ["b/*", "a/m"]', plain='description = "x"')

    assert (list(found.providers), list(found.models)) == (["a", "b"], ["a/m", "a/n", "b/m"])
    assert found.policies["cheap"].candidates == ["b/*", "a/m"]
    plain = found.policies["plain"]
    assert (plain.strategy, plain.candidates, plain.fallback.attempts) == ("balanced", ["*"], 3)
    assert (plain.weights.cost, plain.weights.latency, plain.weights.quality) == (0.5, 0.3, 0.2)


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ('stratgy = "balanced"', "unknown key 'stratgy'; did you mean 'strategy'?"),
        ('strategy = "cheepest"', "strategy: 'cheepest' is not known; did you mean 'cheapest'?"),
        ("strategy = 5", "strategy: expected `str`, got `int`"),
        ("weights = { costs = 1 }", "weights: unknown key 'costs'; did you mean 'cost'?"),
        ("weights = { cost = -1 }", "weights.cost: expected `float` >= 0.0"),
        ("weights = { cost = inf }", "weights.cost: expected `float` <= 1000000000.0"),
        ("weights = { cost = nan }", "weights.cost: expected `float` >= 0.0"),
        ("weights = { cost = 0, latency = 0, quality = 0 }", "weights: at least one weight must be above zero"),
        ("limits = { rpm = 1 }", "unknown key 'limits'; known: "),
        ('fallback = { on = ["ratelimit"] }', "'ratelimit' is not known; did you mean 'rate_limit'?"),
        ("fallback = { attempts = 99 }", "fallback.attempts: expected `int` <= 10"),
        ("timeouts = { idle = 0 }", "timeouts.idle: expected `float` > 0.0"),
        ("timeouts = { firstevent = 1 }", "timeouts: unknown key 'firstevent'; did you mean 'first_event'?"),
        ('candidates = ["a/mm"]', "candidates: no upstream 'a/mm' in the catalog; did you mean 'a/m'?"),
        ('candidates = ["z*"]', "candidates: no upstream 'z*' in the catalog; known: a/m, a/n, b/m"),
        ('[fallback.chain]\n"a/x" = ["b/m"]', "fallback.chain 'a/x': no upstream 'a/x' in the catalog"),
        ('[fallback.chain]\n"a/m" = ["b/x"]', "fallback.chain 'a/m': no upstream 'b/x' in the catalog"),
        ("test = 3", "test: expected `array`, got `int`"),
        ("test = [3]", "test 1: expected `object`, got `int`"),
        ('[[test]]\nname = "t"', "test 't': the key 'expect' is missing"),
        ('[[test]]\nname = "t"\nexpect = ["a/q"]', "test 't': no upstream 'a/q' in the catalog"),
        ('[[test]]\nname = "t"\nexpect = []\ngiven = { "a/q" = {} }', "test 't': no upstream 'a/q' in the catalog"),
        (
            '[[test]]\nname = "t"\nexpect = []\ngiven = { "a/m" = { error = "boom" } }',
            "test 't': given 'a/m': error: 'boom' is not known",
        ),
        (
            '[[test]]\nname = "t"\nexpect = []\nrequest = { needs = ["tool"] }',
            "test 't': needs: 'tool' is not known; did you mean 'tools'?",
        ),
        (
            '[[test]]\nname = "t"\nexpect = []\nrequest = { neds = [] }',
            "test 't': request: unknown key 'neds'; did you",
        ),
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ('a = 1\nstrategy = "x', "Unterminated string (at end of document)"),
        ("a = 1\nb = = 2", "Invalid value (at line 2, column 5)"),
        ("a = " + "[" * 5000, "nested too deeply"),
        ("# " + "x" * MAX_FILE, "the file is over 1 MiB"),
    ],
)
def test_a_problem_names_file_entry_and_nearest_word(policy: str, problem: str) -> None:
    """A person finds the place and the mend in one message."""
    (line,) = told(policy)

    prefix, rest = line[: len("p.toml: ")], line[len("p.toml: ") :]
    assert prefix == "p.toml: "
    assert problem in rest


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ('[[provider]]\nname = "a"', "provider 'a': the key 'base_url' is missing"),
        ("[[provider]]\nurl = 1", "provider number 1: unknown key 'url'"),
        ("[[provider]]\nname = 3", "provider number 1: name: expected `str`, got `int`"),
        ("provider = 3", "provider: expected `array`, got `int`"),
        ("providers = []", "unknown key 'providers'; did you mean 'provider'?"),
        (catalog("a/m") + catalog("a/m"), "provider 'a': 'a' is listed twice"),
        (catalog("a/m") + "price = { input = 1 }", "model 'm': price: the key 'output' is missing"),
        (catalog("a/m") + "price = { inptu = 1, output = 1 }", "price: unknown key 'inptu'; did you mean 'input'?"),
        ('[[provider]]\nname = "a/b"\nbase_url = "http://x"', "provider 'a/b': the name must not contain a slash"),
        (catalog("a/m") + '[[model]]\nprovider = "a"\nid = "m"', "model 'm': 'a/m' is listed twice"),
        (catalog("a/m") + f"context = {10**12 + 1}", "model 'm': context: expected `int` <= 1000000000000"),
        (catalog("a/m") + "quality = 11", "model 'm': quality: expected `float` <= 10"),
        (catalog("a/m") + 'features = ["tool"]', "model 'm': features: 'tool' is not known; did you mean 'tools'?"),
        (catalog("abc/m").replace('r = "abc"', 'r = "abd"'), "model 'm': no provider 'abd'; did you mean 'abc'?"),
    ],
)
def test_a_problem_in_the_catalog(facts: str, problem: str) -> None:
    """The same for facts: the entry is named by what it calls itself, or by its number."""
    line = told(facts=facts)[0]

    assert line.startswith(f"{CATALOG}: ")
    assert problem in line


def test_a_provider_with_a_slash_is_the_only_one_told_off() -> None:
    """In "a/b/m" nobody could tell where the provider ends; a model's id may have as many slashes as it likes."""
    assert told(facts=catalog("a/m/n") + '[[provider]]\nname = "b/c"\nbase_url = "http://x"') == [
        "catalog.toml: provider 'b/c': the name must not contain a slash"
    ]
    assert list(config(catalog("a/m/n")).models) == ["a/m/n"]


def test_every_known_feature_may_be_listed() -> None:
    """By models and by tests alike."""
    words = msgspec.json.encode(FEATURES).decode()
    policy = f'[[test]]\nname = "t"\nexpect = ["a/m"]\nrequest = {{ needs = {words} }}'

    found = config(catalog("a/m") + f"features = {words}", p=policy)

    assert found.models["a/m"].features == found.policies["p"].test[0].request.needs == list(FEATURES)


def test_all_problems_are_told_at_once() -> None:
    """Every file, every row and every test is looked at before anything is said."""
    policy = 'stratgy = "x"\n[[test]]\nname = "one"\n[[test]]\nname = "two"\nexpect = 1\n'

    lines = told(policy, FACTS + "colour = 1\n[[model]]\n")

    assert [line.partition(": ")[0] for line in lines] == ["catalog.toml"] * 2 + ["p.toml"] * 3
    for line, word in zip(lines, ("'m'", "number 4", "stratgy", "'one'", "'two'"), strict=True):
        assert word in line


def test_a_catalog_that_cannot_be_read_blames_only_itself() -> None:
    """Its policies are not told off for models that it may well list."""
    assert [line[:14] for line in told('candidates = ["a/m"]', "provider = ")] == ["catalog.toml: "]


def test_bytes_that_are_no_text_are_a_problem() -> None:
    """TOML is UTF-8."""
    with pytest.raises(PolicyError, match=r"p\.toml: .*utf-8"):
        load({"p.toml": b"x = '\xe9'"}, FACTS.encode())


def test_the_shipped_catalog_stands_in() -> None:
    """A directory of wishes needs no facts of its own; with its own, only those count."""
    assert list(load({"p.toml": b"strategy = 'fastest'"}, FACTS.encode()).models) == ["a/m", "a/n", "b/m"]
    assert list(load({CATALOG: catalog("z/m").encode()}, FACTS.encode()).models) == ["z/m"]


def test_no_file_at_all_is_a_problem(tmp_path: Path) -> None:
    """An empty directory is a mistake, not a wish for nothing."""
    with pytest.raises(PolicyError, match=r"no \.toml file"):
        load({})
    with pytest.raises(PolicyError, match="nowhere: No such file"):
        load_directory(tmp_path / "nowhere")


def test_only_toml_files_are_read(tmp_path: Path) -> None:
    """Editors' and ConfigMaps' hidden files, readmes and backups are not policies."""
    for name in ("p.toml", ".p.toml", "..data", "README.md", "p.toml~"):
        (tmp_path / name).write_text("strategy = 'fastest'")

    assert list(read_files(tmp_path)) == ["p.toml"]
    assert list(load_directory(tmp_path).policies) == ["p"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A dangling link is told by its own name, and so is a file that was given for a directory."""
    (tmp_path / "gone.toml").symlink_to(tmp_path / "nothing")

    with pytest.raises(PolicyError, match=r"gone\.toml: No such file"):
        read_files(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(PolicyError, match="file: Not a directory"):
        read_files(tmp_path / "file")


def test_the_shipped_directory_is_valid() -> None:
    """What comes with the sidecar loads."""
    found = load_directory(None)

    assert {"balanced", "cheapest", "fastest", "quality"} <= set(found.policies)


def test_digest_changes_with_every_byte_and_name() -> None:
    """A reload is due when it differs; moving bytes from one file to the next is a change, too."""
    files = [{"a": b"x", "b": b"y"}, {"a": b"xy", "b": b""}, {"a": b"x", "c": b"y"}, {"a": b"x"}, {"a": b"z"}]
    files += [{"a": b"1b8" + b"x" * 8}, {"a": b"1", "b": b"x" * 8}]

    assert len({digest(one) for one in files}) == len(files)
    assert digest({"b": b"y", "a": b"x"}) == digest(files[0])
    assert config(FACTS).digest == digest({CATALOG: FACTS.encode()})


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["*"], ["a/m", "a/n", "b/m"]),
        (["b/m", "a/*"], ["b/m", "a/m", "a/n"]),
        (["?/m"], ["a/m", "b/m"]),
        (["a/[n]", "*"], ["a/n", "a/m", "b/m"]),
        (["A/*", "x"], []),
    ],
)
def test_patterns_give_their_own_order(patterns: list[str], found: list[str]) -> None:
    """First as the patterns stand, then as the catalog does; each once; case counts."""
    assert matching(patterns, ["a/m", "a/n", "b/m"]) == found


def test_nearest_word_or_what_there_is() -> None:
    """Far from everything: a short list is shown, a long one is not."""
    assert nearest("bat", ["cat", "dog"]) == "; did you mean 'cat'?"
    assert nearest("zzz", ["cat", "dog"]) == "; known: cat, dog"
    assert nearest("zzz", ["a\nb", "c"]) == r"; known: 'a\nb', c"
    assert nearest("zzz", []) == nearest("zzz", map(str, range(100, 120))) == ""


@pytest.mark.parametrize(
    ("given", "first_event_s", "answer_s"),
    [({}, 60, 300), ({"first_event": 5}, 5, 5), ({"answer": 9}, 60, 9), ({"first_event": 5, "answer": 9}, 5, 9)],
)
def test_answer_timeout_follows_the_first_event(given: dict[str, int], first_event_s: float, answer_s: float) -> None:
    """Left out, it is the file's first_event, else 300 s."""
    timeouts = msgspec.convert(given, Timeouts)

    assert (timeouts.first_event_s, timeouts.answer_s) == (first_event_s, answer_s)


def test_tests_are_kept_with_their_policy() -> None:
    """In order, with the state and the request they are about."""
    first = '[[test]]\nname = "one"\nexpect = ["a/m"]\ngiven = { "b/m" = { down = true } }\n'
    second = '[[test]]\nname = "two"\nexpect = []\n'

    one, two = config(FACTS, p=first + second).policies["p"].test

    assert (one.name, one.expect, one.given["b/m"].down, two.name) == ("one", ["a/m"], True, "two")


SCORED = 'scores = "scores.toml"\n' + FACTS


def scored(scores: str, policy: str = 'description = "fine"', facts: str = SCORED) -> list[str]:
    """The problems of a directory with this file of scores."""
    with pytest.raises(PolicyError) as raised:
        load({CATALOG: facts.encode(), "scores.toml": scores.encode(), "p.toml": policy.encode()})
    return [str(problem) for problem in raised.value.problems]


def test_scores_are_no_policy() -> None:
    """The file that the catalog names holds numbers by class and upstream; without it there are none."""
    scores = '[scores.code]\n"a/m" = 9\n"b/m" = 0.5\n[scores.prose]\n'
    found = config(SCORED, scores=scores, p='class = "code"')

    assert found.scores == {"code": {"a/m": 9, "b/m": 0.5}, "prose": {}}
    assert list(found.policies) == ["p"]
    assert config(FACTS).scores == {}


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        ('[scores.code]\n"a/m" = 11', "scores.toml: scores.code 'a/m': expected `float` <= 10.0"),
        ("[scores]\ncode = 7", "scores.toml: scores.code: expected `object`, got `int`"),
        ('[score.code]\n"a/m" = 1', "scores.toml: unknown key 'score'; did you mean 'scores'?"),
        (
            '[scores.code]\n"a/mm" = 1',
            "catalog.toml: scores of 'code': no upstream 'a/mm' in the catalog; did you mean 'a/m'?",
        ),
    ],
)
def test_scores_that_cannot_be_used_are_told(scores: str, problem: str) -> None:
    """By file, class and upstream."""
    assert scored(scores) == [problem]


def test_a_file_of_scores_must_be_there() -> None:
    """Under the name that the catalog says."""
    facts = 'scores = "score.toml"\n' + FACTS
    found = scored('[scores.code]\n"a/m" = 1', facts=facts)
    assert found[0] == "catalog.toml: scores: there is no 'score.toml' beside it; did you mean 'scores.toml'?"


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ('class = "cod"', "class: no scores for 'cod'; did you mean 'code'?"),
        ('[[when]]\nclass = "cod"', "when 1: class: no scores for 'cod'; did you mean 'code'?"),
        ('[[when]]\n[[when]]\ncandidates = ["a/x"]', "when 2: candidates: no upstream 'a/x' in the catalog"),
        ('[[when]]\nneeds = ["tool"]', "when 1: needs: 'tool' is not known; did you mean 'tools'?"),
        ('[[when]]\nrouted = "hard"', "when 1: routed: the policy has no router that could say so"),
        ("[[when]]\ntoken_above = 3", "when[0]: unknown key 'token_above'; did you mean 'tokens_above'?"),
        ('[[test]]\nname = "t"\nexpect = { first = "a/q" }', "test 't': no upstream 'a/q' in the catalog"),
        ('[[test]]\nname = "t"\nexpect = { not = ["a/q"] }', "test 't': no upstream 'a/q' in the catalog"),
        ('[[test]]\nname = "t"\nexpect = { frst = "a/m" }', "expect: unknown key 'frst'; did you mean 'first'?"),
        ('[[test]]\nname = "t"\nexpect = { when = 2 }\n[[when]]', "expect.when: the policy has 1 [[when]] tables"),
    ],
)
def test_requests_of_a_kind_that_cannot_be_are_told(policy: str, problem: str) -> None:
    """A class without scores, a table without its candidates, a test of something that is not there."""
    (told_of,) = scored('[scores.code]\n"a/m" = 1', policy)
    assert told_of.startswith("p.toml: ")
    assert problem in told_of
