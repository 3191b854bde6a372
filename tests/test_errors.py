"""What a client is told, and what it is never told."""

import msgspec
import pytest

from proxy import errors
from proxy.policy import Fallback


def test_error_body_always_has_four_keys() -> None:
    """Node's SDK loses an error whose object lacks a key, so all four are there, null when unknown."""
    body = msgspec.json.decode(errors.ProxyError("broken").body())

    assert body == {"error": {"message": "broken", "type": "server_error", "param": None, "code": None}}


def test_own_values_replace_those_of_the_class() -> None:
    """Status, type, code and param can be said per error; what is left out is the class's."""
    error = errors.RateLimitError("slow down", code="tokens", param="messages", retry_after_s=2.5)
    moved = errors.ClientError("gone", status=410, type="gone_error")

    told = msgspec.json.decode(error.body())["error"]
    assert (error.status, error.retry_after_s) == (429, 2.5)
    assert told == {"message": "slow down", "type": "rate_limit_error", "param": "messages", "code": "tokens"}
    assert (moved.status, moved.type, moved.code) == (410, "gone_error", None)


def test_metadata_stands_inside_the_error_object() -> None:
    """The list of attempts is told where SDKs keep what they do not know."""
    error = errors.UnavailableError("all failed")
    error.metadata = {"attempts": [{"upstream": "a/b"}]}

    assert msgspec.json.decode(error.body())["error"]["metadata"] == {"attempts": [{"upstream": "a/b"}]}


def test_error_event_is_one_event() -> None:
    """A line end in a message does not end the event."""
    event = errors.OverloadedError("first\n\nsecond").event()

    assert event.startswith(b'data: {"error":')
    assert event.count(b"\n\n") == 1
    assert event.endswith(b"\n\n")


@pytest.mark.parametrize("kind", errors.KINDS)
def test_every_kind_has_a_class_of_its_own(kind: str) -> None:
    """A word of the fallback vocabulary is one class, which says it back."""
    assert errors.BY_KIND[kind].kind == kind


def test_default_fallback_is_for_what_heals() -> None:
    """Without a word in the policy only transient kinds fall back: never auth, invalid requests or content."""
    transient = {kind for kind, cls in errors.BY_KIND.items() if cls.transient}

    assert set(Fallback().on) == transient


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijkl",
        "sk-****************1234",
        "gsk_0123456789abcdef",
        "ghu_0123456789abcdef",
        "github_pat_0123456789",
        "xai-0123456789abcdef",
        "hf_0123456789abcdef",
        "AIzaSyA0123456789abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "Bearer anything.at-all",
    ],
)
def test_credentials_are_not_repeated(secret: str) -> None:
    """Whatever looks like a credential is cut out of a provider's text; the words around it stay."""
    told = errors.scrub(f"refused {secret} today")

    assert told == "refused [redacted] today"


@pytest.mark.parametrize("text", ["API key provided: {}.", "see https://x.test/?key={}&n=1", "x-api-key: {}"])
def test_keys_without_a_prefix_are_known_by_their_place(text: str) -> None:
    """A key of letters and digits is found by the words that providers quote it with."""
    assert errors.scrub(text.format("0123456789abcdef0123")) == text.format("[redacted]")


@pytest.mark.parametrize("text", ["Unknown key: max_completion_tokens", "ask-me-anything", "the task-oriented skill"])
def test_ordinary_words_are_no_credentials(text: str) -> None:
    """What merely resembles a key stays readable."""
    assert errors.scrub(text) == text


def test_long_texts_are_cut() -> None:
    """A provider's essay does not become ours, and cutting it does not bring half a key back."""
    text = errors.scrub("a" * 490 + " sk-proj-abcdefghijklmnop " + "b" * 5000)

    assert len(text) == 500
    assert "sk-" not in text
