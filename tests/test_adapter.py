"""How wire languages are found, and what they share."""

from pathlib import Path

import pytest

from proxy.adapter import Target, each, load, names, not_sent
from proxy.errors import UnavailableError
from proxy.sse import DONE, Event
from proxy.wire import decode_chat

BUILT_IN = ["anthropic", "bedrock", "cohere", "gemini", "ollama", "openai", "responses", "vertex"]
OUTSIDE = "from adapters.openai import ADAPTER as ADAPTER\n"


def test_the_built_in_languages_are_listed() -> None:
    """A language is a file in `adapters/`; what begins with _ is a helper."""
    assert names() == BUILT_IN


@pytest.mark.parametrize("name", [*BUILT_IN, "adapters.openai"])
def test_a_language_is_loaded_by_its_name(name: str) -> None:
    """Each module says which object speaks it, and loading twice gives the same one."""
    adapter = load(name)
    assert adapter is load(name)
    assert isinstance(adapter.quirks, frozenset)
    assert any("Bearer k" in text or text == "k" for text in adapter.auth("k").values())


def test_a_language_may_come_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any importable "package.module" will do; nothing is registered."""
    package = tmp_path / "their_company"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "llm.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    assert load("their_company.llm") is load("openai")


@pytest.mark.parametrize("name", ["nothing", "no.such.module", "proxy.errors", ".openai", "", "_anthropic"])
def test_an_unknown_language_lists_the_known(name: str) -> None:
    """Whoever misspells a name is told which there are."""
    with pytest.raises(LookupError, match=f"built in: {', '.join(BUILT_IN)}") as caught:
        load(name)
    assert repr(name) in str(caught.value)


def test_an_error_takes_along_what_was_whole_before_it() -> None:
    """Events that share bytes with a bad one are not lost."""

    def step(event: Event) -> bytes:
        if event.data == b"bad":
            raise UnavailableError("no")
        return event.data

    with pytest.raises(UnavailableError) as caught:
        each([Event(b"", data) for data in (b"1", b"2", b"bad", b"3")], step)
    assert caught.value.before == b"12"


def test_what_cannot_be_sent_was_not_sent() -> None:
    """A request that a language cannot carry is the client's, and counts as no attempt."""
    error = not_sent("no", "n")
    assert (error.unsent, error.status, error.code, error.param) == (True, 400, "unsupported_parameter", "n")


@pytest.mark.parametrize("half", [b'data: {"choices": [{"del', b"data: \xff"])
def test_half_an_event_at_the_end_was_cut(half: bytes) -> None:
    """Without a finish reason what the end leaves unfinished is a fault; with one it does not matter."""
    request = decode_chat(b'{"model":"m","stream":true,"messages":[{"role":"user"}]}', 0)
    cut, through = (load("openai").stream(request, Target("m")) for _ in range(2))
    cut.feed(half)
    with pytest.raises(UnavailableError) as caught:
        cut.close()
    assert caught.value.code == "upstream_truncated"

    through.feed(b'data: {"choices":[{"finish_reason":"stop"}]}\n\n' + half)

    assert through.close() == DONE


def test_a_module_that_fails_to_load_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever somebody else's module raises is one clear error, and no reason to stop watching the policy files."""
    (tmp_path / "failing_company.py").write_text("raise ZeroDivisionError('at import')")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(LookupError, match="at import"):
        load("failing_company.nothing")
