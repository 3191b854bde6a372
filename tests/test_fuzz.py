"""Fuzzing in brief: all inputs that are kept, then changed ones, the same in every run. For long: `loadtests.fuzz`."""

from random import Random

import pytest

from .fuzz import corpus, strict
from .fuzz.listener import check_let_in, parsed
from .fuzz.mutate import MAX_SIZE, mutate
from .fuzz.streams import Told, check_every_choice_ends, chunks_in
from .fuzz.targets import TARGETS, mutated, seeds


def let_through(name: str, data: bytes) -> bool:
    """Try one input; when a promise is broken, pytest shows it."""
    try:
        return TARGETS[name].check(data)
    except Exception as error:
        error.add_note(f"{name}: {data!r}")
        raise


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs(name: str) -> None:
    """What once broke something, and what looks as if it could, keeps every promise."""
    assert len(seeds(name)) >= 1
    for data in seeds(name):
        let_through(name, data)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs(name: str) -> None:
    """So do inputs like them; and they are neither all refused nor all let through, which would try but half."""
    random = Random(name)
    verdicts = [let_through(name, mutated(name, random)) for _ in range(TARGETS[name].brief)]
    assert 0.02 < sum(verdicts) / len(verdicts) < 0.98


def test_what_is_kept_is_known() -> None:
    """No file of inputs is without its target."""
    assert {file.stem for file in corpus.KEPT.glob("*")} <= set(TARGETS)


def test_changes_are_the_same_in_every_run() -> None:
    """One seed makes one series of inputs, each different from where it began, none too large."""
    for data in (b"", b"data: {}\n\n", b"x" * MAX_SIZE):
        first, again = ([mutate(data, [b"y"], random) for _ in range(200)] for random in (Random(1), Random(1)))
        assert first == again
        assert len(set(first)) > 20
        assert max(map(len, first)) <= MAX_SIZE


BROKEN = {
    "half an event": Told(b'data: {"choices":[]}\n', None, "stop", None),
    "no JSON": Told(b"data: {\n\ndata: [DONE]\n\n", None, "stop", None),
    "no text": Told(b'data: {"choices":["\xff"]}\n\ndata: [DONE]\n\n', None, "stop", None),
    "not a number": Told(b'data: {"choices":[NaN]}\n\ndata: [DONE]\n\n', None, "stop", None),
    "no choices": Told(b"data: {}\n\ndata: [DONE]\n\n", None, "stop", None),
    "no goodbye": Told(b'data: {"choices":[]}\n\n', None, "stop", None),
    "a goodbye behind an error": Told(b"data: [DONE]\n\n", "upstream_truncated", None, None),
    "a naked line": Told(b'{"choices":[]}\n\ndata: [DONE]\n\n', None, "stop", None),
}


@pytest.mark.parametrize("told", BROKEN.values(), ids=BROKEN)
def test_the_net_holds(told: Told) -> None:
    """What a client must never get is noticed."""
    with pytest.raises((AssertionError, ValueError, KeyError)):
        chunks_in(told)


@pytest.mark.parametrize(
    "data", [b'[{"choices":[{"index":0}]}]', b'[{"choices":[{"index":0,"finish_reason":"stop"},{"index":1}]}]']
)
def test_a_choice_without_an_end_is_noticed(data: bytes) -> None:
    """One of two is enough."""
    with pytest.raises(AssertionError):
        check_every_choice_ends([chunk.last() for chunk in strict.decode(data)])


def test_another_request_let_in_is_noticed() -> None:
    """One way may stop earlier; none may see what no other saw."""
    check_let_in([b"a"], [b"a", b"b"], [])
    with pytest.raises(AssertionError):
        check_let_in([b"a", b"c"], [b"a", b"b"])


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"oops",
        b"HTTP/1.1 400 X\r\nconnection: close\r\ncontent-length: 1\r\n\r\na" * 2,
    ],
)
def test_half_an_answer_is_noticed(said: bytes) -> None:
    """Nor may anything follow the last answer of a connection."""
    with pytest.raises(AssertionError):
        list(parsed(said))
