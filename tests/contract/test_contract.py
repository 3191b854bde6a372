"""Every recording of a provider goes through the adapter that speaks its API. No sockets: `test_served` has those.

Nothing is left out silently: a recording is used or has a reason (`proxy.conform.cases.unusable`). What each is held to
is `proxy.conform.checks`, which third parties run, too; a sample of each kind is also told otherwise (`stress`).
"""

from collections import Counter
from typing import Any, Final

import msgspec
import pytest

from proxy import errors
from proxy.adapter import Target, load, names
from proxy.conform import recordings
from proxy.conform.cases import UNREADABLE, Case
from proxy.conform.checks import CREATED, checks_of, strict
from proxy.conform.contract import CONTRACT, Contract
from proxy.conform.features import shown_by
from proxy.conform.recordings import Entry
from proxy.conform.stress import stresses_of
from proxy.wire import decode_chat

from . import corpus

# The two names of the limit on the answer: what a row's quirk replaces.
LIMITS: Final = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}


@pytest.mark.parametrize("entry", corpus.cases())
def test_a_recording_becomes_what_it_means(entry: Entry) -> None:
    """Text, reasoning, calls, finish reason, usage and errors, valid for OpenAI's strict types, however it is cut."""
    case = corpus.case(entry)
    adapter = load(case.adapter)
    for check in checks_of(case):
        check(adapter, case)


def sample() -> list[Any]:
    """One recording of each kind: provider, API, way, outcome and what it shows."""
    kinds: dict[tuple[Any, ...], Any] = {}
    for one in corpus.cases():
        entry: Entry = one.values[0]
        case = corpus.case(entry)
        kinds.setdefault((entry.provider, entry.api, entry.stream, case.outcome, *shown_by(case)[1:2]), one)
    return list(kinds.values())


@pytest.mark.parametrize("entry", sample())
def test_a_recording_told_otherwise_means_the_same(entry: Entry) -> None:
    """Comments, unknown fields, other line ends and any cut change nothing; damage ends in an error of ours."""
    case = corpus.case(entry)
    adapter = load(case.adapter)
    for check in stresses_of(case):
        check(adapter, case)


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("name", names())
def test_every_adapter_keeps_the_contract(name: str, promise: Contract) -> None:
    """What `proxy.adapter` promises holds of each adapter, without and with all its quirks."""
    adapter = load(name)
    promise(adapter, Target("the-model"))
    promise(adapter, Target("the-model", quirks=adapter.quirks))


@pytest.mark.parametrize(
    "entry", [one for one in corpus.cases(adapters=("openai",)) if corpus.case(one.values[0]).sent]
)
def test_passed_through_request_keeps_its_bytes(entry: Entry) -> None:
    """Only the model and the asking for usage differ, and the names that the provider's row says it has."""
    case = corpus.case(entry)
    assert case.sent is not None
    raw = msgspec.json.encode(case.sent)
    try:
        request = decode_chat(raw, CREATED)
    except errors.ClientError:
        assert case.status >= 400, "a request is refused that the provider has answered"
        return

    sent = load("openai").render(request, Target("another-model", quirks=case.quirks)).body

    assert sent == msgspec.json.encode(expected_of(case, case.sent))


def expected_of(case: Case, sent: dict[str, Any]) -> dict[str, Any]:
    """What goes to the provider for a client's request."""
    expected = sent | {"model": "another-model"}
    if case.sent is not None and case.sent.get("stream"):
        expected["stream_options"] = (sent.get("stream_options") or {}) | {"include_usage": True}
    expected = named(expected, {LIMITS[quirk]: quirk for quirk in case.quirks & LIMITS.keys()})
    if "reasoning" in case.quirks:
        expected["messages"] = [named(one, {"reasoning_content": "reasoning"}) for one in sent["messages"]]
    return expected


def named(table: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in table.items()}


def test_account_of_all_recordings() -> None:
    """Every recording is used or has its reason; each that is used is held to something."""
    listed = corpus.everything()
    table = Counter((one.provider, one.api, corpus.unused().get(one.file, "used")) for one in listed)
    for (provider, api, verdict), count in sorted(table.items()):
        print(f"{count:5} {provider:24} {api:20} {verdict}")

    assert len(corpus.found()) + len(corpus.unused()) == len(listed)
    assert [(file, why) for file, why in corpus.unused().items() if why.startswith(UNREADABLE)] == []
    assert all(checks_of(corpus.case(entry)) for entry in corpus.found())


def test_only_what_was_edited_is_read_leniently() -> None:
    """OpenAI's types apply to the letter to all but a handful of fixtures that somebody changed by hand."""
    answers = [corpus.case(one.values[0]) for one in corpus.cases("answer")]
    lenient = [case.file for case in answers if case.edited and not strict(load(case.adapter), case)]
    print(*lenient, sep="\n")
    assert len(lenient) <= max(1, len(answers) // 200)


def test_the_whole_corpus_is_there() -> None:
    """Without the corpus only the recordings of the repository were checked, and the report says so."""
    corpus.need_corpus()
    assert len(corpus.found()) > len(recordings.entries(corpus.FIXTURES))
