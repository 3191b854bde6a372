"""Upstreams by name, from one generation of the files to the next."""

import pytest

from proxy import adapter
from proxy.config import Config, PolicyError
from proxy.keys import Access
from proxy.registry import Registry, build, made_up
from proxy.upstream import MOST_MADE_UP

from .upstream_words import catalog, config, registry, upstream

KEYLESS = '[[provider]]\nname = "a"\nbase_url = "http://a"\n'


def problems(facts: str) -> str:
    with pytest.raises(PolicyError) as raised:
        registry(config(facts))
    return str(raised.value)


def test_what_is_registered_is_found() -> None:
    """By name, in order, and nobody else."""
    subject, first, second = Registry(), upstream("a/m"), upstream("b/m")
    subject.register(first)
    subject.register(second)

    assert subject.get("a/m") is first
    assert subject.get("c/m") is None
    assert subject.list() == list(subject) == [first, second]
    assert (len(subject), "b/m" in subject, "c/m" in subject) == (2, True, False)


def test_a_name_is_taken_once() -> None:
    """Registering a name twice is a mistake that nobody should overlook."""
    subject = Registry()
    subject.register(upstream("a/m"))

    with pytest.raises(ValueError, match="a/m"):
        subject.register(upstream("a/m"))


def test_what_is_unregistered_is_gone() -> None:
    """One by one, or all at once; taking away what is not there is no error."""
    subject, first = Registry(), upstream("a/m")
    subject.register(first)
    assert subject.unregister("a/m") is first
    assert subject.unregister("a/m") is None
    subject.register(first)

    subject.clear()

    assert len(subject) == 0


def test_upstreams_stand_in_the_catalogs_order() -> None:
    """The order of the file is the order of ties."""
    subject = registry(config(catalog("b/two", "a/one", "b/one")))

    assert [one.name for one in subject] == ["b/two", "a/one", "b/one"]
    assert list(subject.providers) == ["b", "a"]


def test_live_numbers_survive_a_reload() -> None:
    """Stats, rests and limits belong to an upstream, not to a file; a newcomer starts anew."""
    before = registry(config(catalog("a/m")))
    after = registry(config(catalog("a/m", "a/n")), previous=before)

    for name in ("a/m", "a/n"):
        new, old = after.get(name), before.get(name)
        assert new is not None
        assert (old is not None and new.live is old.live) is (name == "a/m")
    assert after.providers["a"].gate is before.providers["a"].gate
    assert after.providers["a"].made_up is before.providers["a"].made_up


def test_new_limits_are_a_new_gate() -> None:
    """A limit that was changed in the file holds from now on."""
    before = registry(config(KEYLESS))
    after = registry(config(KEYLESS + "limits = { rpm = 5 }\n"), previous=before)

    assert after.providers["a"].gate is not before.providers["a"].gate
    assert after.providers["a"].gate.limits.rpm == 5


def test_jitter_is_random_unless_said() -> None:
    """Without a generator of its own a registry makes one."""
    found = build(config(catalog("a/m")), adapter.load, lambda row: Access(row.base_url, (), "", None))

    assert len(found) == 1
    assert len(build(Config({}, {}, {}, ""), adapter.load, lambda row: Access("", (), "", None))) == 0


def test_a_made_up_model_has_live_numbers_of_its_own() -> None:
    """No price, no quality, one bounded label for all of them; but what one did is not held against another."""
    owner = registry(config(KEYLESS)).providers["a"]

    first, second = made_up(owner, "x/y"), made_up(owner, "z")

    assert (first.name, first.target.model, first.label, second.label) == ("a/x/y", "x/y", "a/*", "a/*")
    assert first.live is made_up(owner, "x/y").live is not second.live
    assert first.usd_per_mtok is None


def test_made_up_models_cannot_fill_the_memory() -> None:
    """Past a few dozen names, and for very long ones, live numbers are shared."""
    owner = registry(config(KEYLESS)).providers["a"]

    long, *others = [made_up(owner, "x" * 300).live, *(made_up(owner, str(n)).live for n in range(MOST_MADE_UP))]

    assert len({id(live) for live in others}) == MOST_MADE_UP
    assert made_up(owner, "one more").live is long


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('adapter = "opnai"', ["no adapter 'opnai'", "built in: anthropic", "openai"]),
        ('quirks = ["fil_missing"]', ["quirks: 'fil_missing' is not known; did you mean 'fill_missing'?"]),
        ('quirks = ["a", "b"]', ["'a' is not known", "'b' is not known"]),
        ('api_key = "sk-secret"', ["a key must not stand in a file", 'write "env:VARIABLE"']),
    ],
)
def test_a_row_that_cannot_work_is_refused(line: str, words: list[str]) -> None:
    """All problems of all rows are told, with file, entry and what there is instead; a key is never quoted."""
    told = problems(KEYLESS + line + "\n")

    assert told.startswith("catalog.toml: provider 'a': ")
    assert all(word in told for word in words)
    assert "sk-secret" not in told


TWO_LANGUAGES = (
    KEYLESS
    + """quirks = ["tool_calls", "initiator", "reasoning_summary"]
[[model]]
provider = "a"
id = "chat"
[[model]]
provider = "a"
id = "pro"
adapter = "responses"
[[model]]
provider = "a"
id = "codex"
adapter = "responses"
"""
)


def test_a_model_may_speak_another_language() -> None:
    """One account, one limit, one set of keys; each model heeds the quirks of its own language."""
    subject = registry(config(TWO_LANGUAGES))
    chat, pro, codex = subject

    assert chat.provider is subject.providers["a"]
    assert codex.provider is pro.provider
    assert pro.provider is not chat.provider
    assert (chat.provider.adapter, pro.provider.adapter) == (adapter.load("openai"), adapter.load("responses"))
    assert pro.provider.gate is chat.provider.gate
    assert pro.provider.parked is chat.provider.parked
    assert sorted(chat.target.quirks) == ["initiator", "tool_calls"]
    assert sorted(pro.target.quirks) == ["initiator", "reasoning_summary"]
    assert made_up(subject.providers["a"], "other").provider.adapter is adapter.load("openai")


def test_a_models_own_language_is_its_providers() -> None:
    """Said once more it changes nothing."""
    subject = registry(config(KEYLESS + '[[model]]\nprovider = "a"\nid = "m"\nadapter = "openai"\n'))

    assert [one.provider for one in subject] == [subject.providers["a"]]


def test_a_models_language_must_exist() -> None:
    """The problem names the model; a quirk of no language of the provider's is none."""
    text = problems(KEYLESS + 'quirks = ["x"]\n[[model]]\nprovider = "a"\nid = "m"\nadapter = "reponses"\n')

    assert "model 'a/m': no adapter 'reponses'" in text
    assert "provider 'a': quirks: 'x' is not known" in text
