"""Which requests of a policy have other candidates, and a router that was learned elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.config import PolicyError
from proxy.policy import When
from proxy.routes import Routes
from proxy.when import classify, fits, load, words
from proxy.wire import ChatRequest, decode_chat
from tests.conftest import CHAT, StartSidecar, StartUpstream
from tests.fake_upstream import completion

from .upstream_words import catalog, config, registry

NOBODY: Mapping[str, str] = {}
ROUTER = """
def classify(request):
    if b"crash" in request.raw:
        raise ValueError("a model file is missing")
    return "hard" if b"prove" in request.raw else "easy"
"""


def when(**fields: Any) -> When:
    return msgspec.convert(fields, When)


def chat(text: str) -> ChatRequest:
    return decode_chat(msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": text}]}), 0)


@pytest.fixture
def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module outside of ours with a `classify`."""
    (tmp_path / "toy_router.py").write_text(ROUTER)
    monkeypatch.syspath_prepend(tmp_path)
    return "toy_router"


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({}, True),
        ({"tokens_above": 99}, True),
        ({"tokens_above": 100}, False),
        ({"tokens_below": 101}, True),
        ({"tokens_below": 100}, False),
        ({"needs": ["tools"]}, True),
        ({"needs": ["tools", "vision"]}, False),
        ({"header": {"X-Task": "code"}}, True),
        ({"header": {"x-task": "prose"}}, False),
        ({"header": {"x-other": "code"}}, False),
        ({"routed": "hard"}, True),
        ({"routed": "easy"}, False),
        ({"tokens_above": 99, "needs": ["tools"], "header": {"x-task": "code"}, "routed": "hard"}, True),
        ({"tokens_above": 100, "needs": ["tools"]}, False),
    ],
)
def test_all_that_a_table_names_must_hold(fields: dict[str, Any], holds: bool) -> None:
    """A request of 100 tokens with tools, a header, and a class by the router."""
    assert fits(when(**fields), 100, frozenset({"tools"}), {"x-task": "code"}, "hard") is holds


def test_a_table_is_told_in_the_words_of_its_file() -> None:
    """So that `explain` can say which one it was."""
    told = words(when(tokens_above=5, tokens_below=9, needs=["tools"], header={"x-task": "code"}, routed="hard"))
    assert told == "tokens_above = 5, tokens_below = 9, needs = [tools], x-task = code, routed = hard"
    assert words(when()) == "always"


def test_the_first_table_that_fits_counts() -> None:
    """It has candidates or a class of its own, and the rest of the policy; without one the policy's are meant."""
    policy = (
        'strategy = "cheapest"\ncandidates = ["a/m"]\nclass = "prose"\nfallback = { attempts = 2 }\n'
        '[[when]]\ntokens_above = 1000\ncandidates = ["b/m"]\n'
        '[[when]]\ntokens_above = 500\nclass = "code"\n'
    )
    facts = 'scores = "s.toml"\n' + catalog("a/m", "b/m")
    found = config(facts, p=policy, s='[scores.code]\n"a/m" = 9\n[scores.prose]\n"a/m" = 2')
    route = Routes(found, registry(found)).policies["p"]

    def taken(tokens: int, routed: str = "") -> tuple[str, list[str], str]:
        narrow, task = route.narrowed(tokens, frozenset(), NOBODY, routed)
        assert narrow.policy.fallback.attempts == 2
        assert narrow.budget is route.budget
        return narrow.when, [one.name for one in narrow.candidates], task

    assert taken(2000) == ("tokens_above = 1000", ["b/m"], "prose")
    assert taken(600) == ("tokens_above = 500", ["a/m"], "code")
    assert taken(600, "other") == ("tokens_above = 500", ["a/m"], "code")
    assert taken(10) == ("", ["a/m"], "prose")
    assert taken(10, "code") == ("", ["a/m"], "code")
    assert len({route.learned_as, *(narrow.learned_as for _, narrow in route.whens)}) == 3


def test_a_pinned_upstream_is_not_routed_away() -> None:
    """Who names an upstream means it, whatever the policy that lists its chain says of such requests."""
    policy = '[fallback.chain]\n"a/m" = ["b/m"]\n[[when]]\ncandidates = ["b/m"]\n'
    found = config(catalog("a/m", "b/m"), p=policy)
    route = Routes(found, registry(found)).resolve("a/m")

    assert route is not None
    assert (route.name, route.whens) == ("p", ())


# ---- a learned router -------------------------------------------------------------------------------------------


def test_a_router_names_the_class_of_a_request(router: str) -> None:
    """It sees the whole request; what it raises is told, and counts as no class."""
    toy, faults = load(router), list[Exception]()

    assert [classify(toy, chat(text), faults.append) for text in ("prove it", "hello", "crash")] == ["hard", "easy", ""]
    assert [str(fault) for fault in faults] == ["a model file is missing"]


@pytest.mark.parametrize("name", ["no_such_module_here", "math"])
def test_a_router_that_cannot_be_had_is_a_problem_of_its_file(name: str) -> None:
    """Told with file and entry, and nothing changes."""
    found = config(catalog("a/m"), p=f'router = "{name}"')

    with pytest.raises(PolicyError, match=f"p.toml: router: no router '{name}'"):
        Routes(found, registry(found))


ROUTED = """
candidates = ["p0/m"]
strategy = "cheapest"
router = "toy_router"

[[when]]
routed = "hard"
candidates = ["p1/m"]
"""


async def test_a_router_decides_in_a_running_sidecar(
    sidecar: StartSidecar, upstream: StartUpstream, router: str
) -> None:
    """And one that fails harms nobody: the log says so, without a word of the request or of its own."""
    small, large = await upstream(completion("small")), await upstream(completion("large"))
    running = await sidecar(small, large, policy=ROUTED)

    async def ask(text: str) -> str:
        return (await running.post({**CHAT, "messages": [{"role": "user", "content": text}]})).text

    assert [await ask(text) for text in ("hello", "prove it", "crash", "hello")] == ["small", "large", "small", "small"]
    (fault,) = running.log("fault")
    assert (fault["error"], fault["at"]) == ("ValueError", "router toy_router of policy test")


# ---- by a header ------------------------------------------------------------------------------------------------

TASKS = """
candidates = ["p0/m"]
strategy = "cheapest"

[[when]]
header = { X-Task = "code" }
candidates = ["p1/m"]
"""


async def test_a_header_decides_on_every_request(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The first of a kind is parsed, later ones take the short lane: it is the same to both."""
    prose, code = await upstream(completion("prose")), await upstream(completion("code"))
    running = await sidecar(prose, code, policy=TASKS)

    for _ in range(3):
        assert (await running.post()).text == "prose"
        assert (await running.post(x_task="code")).text == "code"
        assert (await running.post(x_task="else")).text == "prose"


async def test_a_reload_looks_at_other_headers_at_once(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Heads that were judged when nobody looked at that header are judged anew."""
    prose, code = await upstream(completion("prose")), await upstream(completion("code"))
    running = await sidecar(prose, code, policy=TASKS.replace("X-Task", "x-other"))
    for _ in range(3):
        assert (await running.post(x_task="code")).text == "prose"

    (running.directory / "test.toml").write_text(TASKS)
    running.app.check_files()

    assert [(await running.post(x_task="code")).text for _ in range(3)] == ["code"] * 3
