"""Finish reasons: in OpenAI's words, once for each choice, and at the end."""

from typing import Any

import pytest

from proxy import errors

from .openai_words import DONE, USAGE, answer, chunk, chunks, end, event, parsed, parser, say, told, whole


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("STOP", "stop"),
        ("tool_call", "tool_calls"),
        ("tool_use", "tool_calls"),
        ("model_length", "length"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("refusal", "content_filter"),
        *((word, word) for word in ("stop", "length", "tool_calls", "content_filter", "function_call")),
    ],
)
def test_finish_reasons_are_openais(said: str, word: str) -> None:
    """Whatever a provider calls it; the log and the client hear the same."""
    stream = parser()

    assert chunks(told(stream, say("a") + end(said)))[-1]["choices"][0]["finish_reason"] == word
    assert stream.finish == word
    assert whole({"content": "a"}, finish=said)["finish_reason"] == word
    assert parsed(answer({"content": "a"}, said)).finish == word


@pytest.mark.parametrize("said", ["error", "abort", "insufficient_system_resource"])
def test_a_finish_that_is_none_is_a_fault(said: str) -> None:
    """The upstream gave up: nobody may take that for an end."""
    with pytest.raises(errors.UnavailableError) as raised:
        parser().feed(say("a") + end(said))
    assert raised.value.before == say("a")
    with pytest.raises(errors.UnavailableError):
        parsed(answer({"content": "a"}, said))


CALL: dict[str, Any] = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("said", ["", None, "whatever"])
def test_a_finish_that_says_nothing_follows_from_the_answer(said: str | None) -> None:
    """Snowflake's is empty, xAI's after calls, OpenRouter's is null in some whole answers."""
    assert whole({"content": "a"}, finish=said)["finish_reason"] == "stop"
    assert whole({"content": None, "tool_calls": [CALL]}, finish=said)["finish_reason"] == "tool_calls"
    for delta, word in (({"content": "a"}, "stop"), ({"tool_calls": [CALL]}, "tool_calls")):
        found = chunks(told(parser(), event(chunk(delta)), end(said or ""), DONE))
        assert [one["choices"][0]["finish_reason"] for one in found if one["choices"][0]["finish_reason"]] == [word]


def test_a_finish_of_nothing_is_no_end() -> None:
    """A stream that stops behind an empty finish reason, without `[DONE]`, was cut."""
    with pytest.raises(errors.UnavailableError):
        told(parser(), say("a") + end(""))


def test_an_empty_finish_in_every_chunk_is_none() -> None:
    """OpenAI's types have null for it."""
    found = chunks(told(parser(), event(chunk({"content": "a"}, "")), end()))

    assert [one["choices"][0]["finish_reason"] for one in found] == [None, "stop"]


@pytest.mark.parametrize("usage", [False, True])
def test_a_finish_is_told_once(usage: bool) -> None:
    """OpenRouter, Avian and Doubleword say it again with the usage; clients that join what they hear double it."""
    first, again = end(), end(usage=USAGE)
    out = told(parser(usage=usage), say("a") + first + again + DONE)

    found = chunks(out)
    assert [one["choices"][0]["finish_reason"] for one in found if one["choices"]] == [None, "stop"]
    assert ("usage" in found[-1]) is usage


def test_what_is_said_with_a_second_finish_is_kept() -> None:
    """Only the finish reason is not told again."""
    again = event(chunk({"content": "b"}, "stop"))

    found = chunks(told(parser(), say("a") + end() + again))

    assert [one["choices"][0]["delta"].get("content") for one in found] == ["a", None, "b"]
    assert [one["choices"][0]["finish_reason"] for one in found] == [None, "stop", None]


def test_a_choice_without_finish_goes_on_beside_one_that_repeats_it() -> None:
    """Chunks may hold several choices."""
    both = chunk(finish="stop")
    both["choices"].append({"index": 1, "delta": {"content": "b"}, "finish_reason": None})

    found = chunks(told(parser(), say("b", 1) + end() + event(both) + end(index=1)))

    assert [choice["finish_reason"] for one in found for choice in one["choices"]] == [None, "stop", None, None, "stop"]


def test_an_early_finish_waits_for_the_end() -> None:
    """Gemini behind OpenRouter says it with each of several calls; a client that stops there would lose some."""
    stream = parser("early_finish", usage=True)
    calls = [event(chunk({"tool_calls": [CALL | {"index": n, "id": f"t{n}"}]}, "tool_calls")) for n in (0, 1)]

    before = stream.feed(b"".join(calls) + end("tool_calls", usage=USAGE))
    found = chunks(before + stream.feed(DONE) + stream.close())

    assert stream.finish == "tool_calls"
    assert [one["choices"][0]["finish_reason"] for one in found[:-1]] == [None, None, None, "tool_calls"]
    assert found[-2]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]
    assert (found[-1]["choices"], found[-1]["usage"]) == ([], USAGE)


def test_an_early_finish_is_told_for_each_choice() -> None:
    """And for those that have none, what is missing."""
    out = told(parser("early_finish"), say("a") + say("b", 1) + end("length", 1) + DONE)

    assert [(one["index"], one["finish_reason"]) for one in chunks(out)[-1]["choices"]] == [
        (0, "length"),
        (1, "length"),
    ]


@pytest.mark.parametrize(("quirks", "word"), [((), "stop"), (("stop_with_calls",), "tool_calls")])
def test_stop_after_calls(quirks: tuple[str, ...], word: str) -> None:
    """OpenAI means it (the call was forced); Gemini's and Ollama's clients would not run the calls."""
    found = chunks(told(parser(*quirks), event(chunk({"tool_calls": [CALL]})) + end()))

    assert found[-1]["choices"][0]["finish_reason"] == word
    assert whole({"content": None, "tool_calls": [CALL]}, *quirks)["finish_reason"] == word
    assert whole({"content": "a"}, *quirks)["finish_reason"] == "stop"
