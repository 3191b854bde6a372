"""OpenAI's own streams, passed through."""

from typing import Any

import msgspec
import pytest

from proxy import errors
from proxy.wire import Usage

from .openai_words import DONE, USAGE, chunk, chunks, end, event, fault, parser, say, told, usages

# Twelve events, with all that framing allows: a BOM, comments, CRLF and CR, a name, a ping, split characters.
TWELVE = [
    b"\xef\xbb\xbf" + event(chunk({"role": "assistant", "content": ""})),
    b": keep-alive\n\n" + say("Gr\u00fc\u00df \U0001f600"),
    say("\u2028\u0085").replace(b"\n", b"\r\n"),
    b"event: ping\ndata: still here\n\n",
    say("b").replace(b"\n", b"\r"),
    b"id: 7\nretry: 100\n" + say("c"),
    event(chunk({"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "f"}}]})),
    event(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})),
    event(chunk({"content": None}, usage=None)),
    end("tool_calls"),
    event(chunk(choices=[], usage=USAGE)),
    DONE,
]
WHOLE = b"".join(TWELVE)


# Usage in a chunk of its own, in the finish chunk, in every chunk.
USED = [
    say("a") + end() + event(chunk(choices=[], usage=USAGE)),
    say("a") + end(usage=USAGE),
    event(chunk({"content": "a"}, usage={"prompt_tokens": 10})) + end(usage=USAGE),
]


def test_events_are_passed_on_byte_for_byte() -> None:
    """Unknown fields, key order and numbers stay; what the framing had besides does not."""
    odd = b'{ "new":1.0,"choices":[{"delta":{"content":"a","odd":1e3},"x":12345678901234567890}] }'

    assert parser().feed(b": hello\r\n\r\nid: 1\r\ndata:" + odd + b"\r\n\r\n") == b"data: " + odd + b"\n\n"


@pytest.mark.parametrize("usage", [False, True])
def test_every_cut_of_the_bytes_gives_the_same_output(usage: bool) -> None:
    """Byte by byte, in two pieces at any place, or event by event: the client gets the same bytes."""
    wanted = told(parser(usage=usage), WHOLE)

    assert told(parser(usage=usage), *TWELVE) == wanted
    assert told(parser(usage=usage), *(WHOLE[at : at + 1] for at in range(len(WHOLE)))) == wanted
    for at in range(1, len(WHOLE)):
        assert told(parser(usage=usage), WHOLE[:at], WHOLE[at:]) == wanted


def test_the_twelve_events_say_what_they_said() -> None:
    """Nothing is lost or doubled; the ping and the comments are gone."""
    found = chunks(told(parser(usage=True), WHOLE))

    text = "".join(one["choices"][0]["delta"].get("content") or "" for one in found[:-1])
    assert text == "Gr\u00fc\u00df \U0001f600\u2028\u0085bc"
    assert [one["choices"][0]["finish_reason"] for one in found[:-1]] == [None] * 8 + ["tool_calls"]
    assert found[-1]["usage"] == USAGE


@pytest.mark.parametrize("end_of_bytes", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE] \n\n", b""])
def test_the_goodbye_is_always_whole(end_of_bytes: bytes) -> None:
    """A last event without its blank line counts, and what the client gets ends in `[DONE]` and a blank line."""
    assert told(parser(), say("a") + end() + end_of_bytes) == say("a") + end() + DONE


def test_last_event_without_its_blank_line_is_delivered() -> None:
    """Some servers forget it, and the SDKs would lose the event."""
    assert told(parser(), say("a") + end().rstrip()) == say("a") + end() + DONE


def test_nothing_counts_after_the_goodbye() -> None:
    """Whatever comes after `[DONE]` is no part of the answer."""
    stream = parser()

    assert told(stream, say("a") + end() + DONE, say("b") + event(b"nonsense")) == say("a") + end() + DONE
    assert stream.done


@pytest.mark.parametrize(
    ("delta", "content"),
    [
        ({}, False),
        ({"role": "assistant", "content": ""}, False),
        ({"content": None, "tool_calls": []}, False),
        ({"content": "a"}, True),
        ({"refusal": "no"}, True),
        ({"tool_calls": [{"index": 0}]}, True),
        ({"reasoning_content": "hm"}, True),
        ({"reasoning": "hm"}, True),
        ({"audio": {"id": "a"}}, True),
        ({"function_call": {"name": "f"}}, True),
    ],
)
def test_the_first_content_starts_the_answer(delta: Any, content: bool) -> None:
    """Until then a fault can still fall back: a role alone has not said anything."""
    stream = parser()
    stream.feed(event(chunk(delta)))

    assert stream.started is content
    stream.feed(say("b"))
    assert stream.started


def test_an_empty_answer_with_a_finish_is_an_answer() -> None:
    """The finish reason is content enough."""
    stream, only = parser(), event({"choices": [{"delta": {}, "finish_reason": "stop"}]})

    assert told(stream, only) == only + DONE
    assert (stream.started, stream.finish) == (True, "stop")


@pytest.mark.parametrize("choice", [{"delta": None}, {}])
def test_a_choice_without_a_delta_says_nothing(choice: Any) -> None:
    """Azure's filter results come so, and an SDK's loop over `choices[0].delta.content` would crash on them."""
    stream = parser()
    out = told(stream, event({"choices": [choice | {"content_filter_results": {}}]}) + end())

    assert chunks(out)[0]["choices"] == [{"content_filter_results": {}, "delta": {}}]


@pytest.mark.parametrize(
    "noise", [{}, {"object": "chat.completion.chunk"}, {"choices": None}, {"choices": [], "usage": "?"}]
)
def test_events_without_choices_are_not_passed_on(noise: Any) -> None:
    """An SDK's loop over `choices[0]` would crash on them."""
    stream = parser()

    assert stream.feed(event(noise)) == b""
    assert not stream.started


def test_empty_choices_of_azure_are_passed_on() -> None:
    """Its first chunk carries the filter results, which its clients read."""
    first = event({"choices": [], "id": "", "prompt_filter_results": [{"prompt_index": 0}]})
    stream = parser()

    assert stream.feed(first) == first
    assert not stream.started


@pytest.mark.parametrize("events", USED)
def test_usage_comes_once_at_the_end_when_asked(events: bytes) -> None:
    """Wherever the upstream put it, the client gets one last chunk without choices."""
    stream = parser(usage=True)
    out = told(stream, events + DONE)

    *before, last = usages(out)
    assert last == (False, USAGE)
    assert all(one == (True, None) for one in before)
    assert chunks(out)[-1]["usage"] == USAGE
    assert stream.usage == Usage(10, 5)


@pytest.mark.parametrize("choices", [{}, {"choices": None}])
def test_usage_has_choices_even_where_it_came_without(choices: Any) -> None:
    """Clients count on the key in every chunk."""
    out = told(parser(usage=True), say("a") + end() + event({"id": "c1", "usage": USAGE, **choices}) + DONE)

    assert chunks(out)[-1] == {"id": "c1", "usage": USAGE, "choices": []}


@pytest.mark.parametrize("events", USED)
def test_usage_is_dropped_when_not_asked(events: bytes) -> None:
    """Neither a key nor a chunk of it reaches the client, but the bill has it."""
    stream = parser()

    out = told(stream, events + DONE)

    assert b"usage" not in out
    assert chunks(out)[-1]["choices"][0]["finish_reason"] == "stop"
    assert stream.usage == Usage(10, 5)


def test_usage_that_never_came_is_not_made_up() -> None:
    """Unknown stays unknown."""
    stream = parser(usage=True)

    assert usages(told(stream, say("a") + end() + DONE)) == []
    assert stream.usage is None


def test_null_and_nonsense_for_usage_are_passed_on() -> None:
    """Only real usage is taken out."""
    odd = event(chunk({"content": "a"}, usage=None)) + event(chunk({"content": "b"}, usage="?"))

    assert told(parser(), odd + end()) == odd + end() + DONE


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        ({"error": {"message": "full", "code": 503}}, "overloaded", "full"),
        ({"error": {"message": "slow", "code": "rate_limit_exceeded"}}, "rate_limit", "slow"),
        ({"error": "broken"}, "unavailable", "broken"),
        (chunk({"content": ""}, "error") | {"error": {"message": "late", "code": 502}}, "unavailable", "late"),
        ({"choices": [{"delta": {}, "error": {"message": "in a choice", "code": 429}}]}, "rate_limit", "in a choice"),
    ],
)
def test_an_error_event_is_an_error(data: Any, kind: str, message: str) -> None:
    """Wherever it stands in the event; what came before it in the same piece is kept in `before`."""
    error = fault(parser(), say("a") + say("b") + event(data) + say("never"))

    assert (error.kind, error.message) == (kind, message)
    assert error.before == say("a") + say("b")


def test_an_event_named_error_is_an_error() -> None:
    """Also when its data has no `error` key and would pass for a chunk."""
    named = b"event: error\n" + event({"message": "full", "type": "overloaded_error"})

    assert type(fault(parser(), named)) is errors.OverloadedError
    wrapped = b"event: error\n" + event({"error": {"message": "slow", "type": "rate_limit_error"}})
    assert type(fault(parser(), wrapped)) is errors.RateLimitError


NOT_UTF_8 = b'{"choices":[{"delta":{"content":"\xff"}}]}'


@pytest.mark.parametrize(
    "garbage", [b"{", b"Internal error", b'"text"', b"[]", b'{"choices":{}}', b"[" * 3000, NOT_UTF_8]
)
def test_garbage_is_a_fault_and_not_forwarded(garbage: bytes) -> None:
    """What was whole before it is the client's. Where the bytes end in it, it is half an event, and the stream cut."""
    assert fault(parser(), say("a") + b"data: " + garbage).code == "upstream_truncated"
    error = fault(parser(), say("a") + event(garbage))

    assert (type(error), error.code) == (errors.UnavailableError, "upstream_invalid_event")
    assert error.before == say("a")


@pytest.mark.parametrize("cut", range(10))
def test_a_stream_cut_at_any_event_is_not_whole(cut: int) -> None:
    """Without a finish reason and without `[DONE]` half an answer would pass for a whole one."""
    error = fault(parser(), b"".join(TWELVE[: min(cut, 9)]))

    assert error.code == "upstream_truncated"


@pytest.mark.parametrize("rest", [b"", b'data: {"half', b"data: nonsense\n\n"])
def test_after_the_finish_the_end_is_an_end(rest: bytes) -> None:
    """Only the goodbye is missing then, and half an event does not matter."""
    stream = parser()
    out = stream.feed(say("a") + end())
    if rest.endswith(b"\n\n"):
        with pytest.raises(errors.UnavailableError):
            stream.feed(rest)
        rest = b""

    assert out + stream.feed(rest) + stream.close() == say("a") + end() + DONE


@pytest.mark.parametrize(
    ("delta", "finish"), [({"content": "a"}, "stop"), ({"tool_calls": [{"index": 0, "id": "t"}]}, "tool_calls")]
)
def test_a_missing_finish_is_added(delta: Any, finish: str) -> None:
    """`[DONE]` without a finish reason makes Node's helper throw; the added chunk is like those before it."""
    out = told(parser(), event(chunk(delta, system_fingerprint="fp", id=5)) + DONE)

    first, last = chunks(out)
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": finish}]
    assert {name: last[name] for name in last if name != "choices"} == {
        name: first[name] for name in first if name != "choices"
    }


def test_nothing_but_a_goodbye_is_an_empty_answer() -> None:
    """The upstream said it is through: one finish chunk, valid by itself."""
    stream = parser()

    (only,) = chunks(told(stream, DONE))
    assert (only["object"], only["created"], only["model"]) == ("chat.completion.chunk", 1000, "m")
    assert (only["choices"][0]["finish_reason"], stream.finish) == ("stop", "stop")


def test_two_choices_may_be_interleaved() -> None:
    """The answer has finished when the last of them has."""
    stream = parser()

    stream.feed(say("a") + say("b", 1) + end(index=1))
    assert stream.finish is None
    stream.feed(say("c") + end("length"))

    assert stream.finish == "length"


@pytest.mark.parametrize("rest", [b"", say("b", 1)])
def test_a_choice_that_begins_late_is_waited_for(rest: bytes) -> None:
    """One choice may be through before the next begins; a cut in the second is a cut."""
    stream = parser()
    stream.feed(say("a") + end() + say("b", 1))

    assert stream.finish is None
    assert fault(stream, rest).code == "upstream_truncated"


def test_each_open_choice_gets_its_missing_finish() -> None:
    """And those that have one get no second."""
    out = told(parser(), say("a") + say("b", 1) + say("c", 2) + end("length", 1) + DONE)

    assert [one["index"] for one in chunks(out)[-1]["choices"]] == [0, 2]


def test_choices_are_found_however_the_event_is_written() -> None:
    """Spacing and escapes of the provider do not matter to the bookkeeping."""
    spaced = b'{ "choices" : [ { "delta" : { "cont\\u0065nt" : "a" } , "finish_reason" : "stop" } ] }'
    stream = parser()

    assert msgspec.json.decode(stream.feed(event(spaced))[6:])["choices"][0]["finish_reason"] == "stop"
    assert (stream.started, stream.finish) == (True, "stop")


# Behind two plain events: some differ from them in their text alone, some only look like it.
BEHIND = {
    "alike": say("more"),
    "empty": say(""),
    "two at once": say("a") + say("b"),
    "escaped": say('a "word"\n\\'),
    "beyond ASCII": say("Gr\u00fc\u00df"),
    "control character": say("a").replace(b'"a"', b'"\x01"'),
    "bad UTF-8": say("a").replace(b'"a"', b'"\xff"'),
    "a second text": say("a").replace(b'"a"', b'"a","content":"b"'),
    "finished": say("a").replace(b'"finish_reason":null', b'"finish_reason":"stop"'),
    "a tool": event(chunk({"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "f"}}]})),
    "usage": event(chunk(choices=[], usage=USAGE)),
    "usage on it": event(chunk({"content": "a"}, usage=USAGE)),
    "another choice": event(chunk(choices=[{"index": 1, "delta": {"content": "a"}, "finish_reason": None}])),
    "a fault": event({"error": {"message": "no", "code": "server_error"}}),
    "a comment": b": still here\n\n",
    "half": say("more")[:-9],
    "no blank line": say("more")[:-1],
    "carriage returns": say("more").replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("name", BEHIND)
@pytest.mark.parametrize("usage", [False, True])
def test_an_event_like_the_last_one_is_judged_alike(name: str, usage: bool) -> None:
    """Whether an event is read or recognised, the client gets the same, and the same is known of the stream."""
    seen = []
    plain = say("a") + say("b")
    for behind in (BEHIND[name], BEHIND[name] + say("c"), BEHIND[name] + end() + DONE):
        one, other = parser(usage=usage), parser(usage=usage)
        pieces = [say("a"), say("b"), *behind.splitlines(keepends=True)]
        # An event that comes in two pieces is never recognised, one that comes alone may be.
        seen.append(outcome(one, say("a"), say("b"), BEHIND[name], behind.removeprefix(BEHIND[name])))
        assert seen[-1] == outcome(other, plain + behind) == outcome(parser(usage=usage), *pieces)


def outcome(subject: Any, *pieces: bytes) -> tuple[Any, ...]:
    """What the client gets, what went wrong, and what is known in the end."""
    out, fault = b"", None
    try:
        for piece in pieces:
            out += subject.feed(piece) if piece else b""
        out += subject.close()
    except errors.UpstreamError as error:
        out, fault = out + error.before, (type(error), error.code, error.message)
    return out, fault, subject.finish, subject.usage, subject.done, subject.started
