"""What an OpenAI client hears of Ollama: complete answers, streams of JSON lines, errors."""

from typing import Any

import msgspec
import pytest

from proxy import errors, sse
from proxy.adapter import StreamParser, Target
from proxy.wire import Usage
from tests.conftest import CHAT, STREAM, StartSidecar, StartUpstream, check_error
from tests.fake_upstream import Play, completion, reply, stream

from .translated_words import HI, Language, chat, chunks, said_by

OLLAMA = Language("ollama", "qwen3")
AT = "2026-08-07T06:08:11.017589Z"
COUNTS = {"prompt_eval_count": 9, "eval_count": 5}


def line(content: str = "", *, done: bool = False, reason: str = "stop", counts: Any = None, **message: Any) -> bytes:
    end = {"done_reason": reason, **(COUNTS if counts is None else counts)} if done else {}
    said = {"role": "assistant", "content": content, **message}
    return msgspec.json.encode({"model": "qwen3:8b", "created_at": AT, "message": said, "done": done, **end}) + b"\n"


def use(arguments: Any = None, name: str = "look", **fields: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": {} if arguments is None else arguments}, **fields}


def feed(parser: StreamParser, *pieces: bytes) -> bytes:
    return b"".join(map(parser.feed, pieces))


END = line(done=True)

# ---- complete answers -------------------------------------------------------------------------------------------


def test_a_complete_answer() -> None:
    """Text and thinking; the answer's name is when it began."""
    reply, choice = OLLAMA.parse(line("a", done=True, thinking="hm"))

    assert choice["message"] == {"role": "assistant", "content": "a", "refusal": None, "reasoning_content": "hm"}
    found = msgspec.json.decode(reply.body)
    assert (found["id"], found["model"], found["created"]) == ("chatcmpl-20260807060811017589", "qwen3:8b", 1000)


def test_calls_get_names_and_keep_their_digits() -> None:
    """A call without an id gets one of the request's own: the same when asked again, another in the next turn."""
    raw = msgspec.Raw(b'{"n":1.10,"m":123456789012345678901}')
    body = line(done=True, tool_calls=[use(raw), use(id="call_x", name="other"), {"function": {"name": "bare"}}, {}])

    reply, choice = OLLAMA.parse(body)
    again, later = OLLAMA.parse(body)[1], OLLAMA.parse(body, HI, HI)[1]

    calls = list(said_by(*choice["message"]["tool_calls"]))
    assert [call[1:] for call in calls] == [("look", bytes(raw).decode()), ("other", "{}"), ("bare", "{}"), ("", "{}")]
    assert len({call[0] for call in calls}) == 4
    assert calls[1][0] == "call_x"
    assert again == choice
    assert later["message"]["tool_calls"][0]["id"] != calls[0][0]
    assert (choice["message"]["content"], reply.finish) == (None, "tool_calls")


def test_null_arguments_are_an_empty_object() -> None:
    """A tool without parameters is called with an object."""
    body = line(done=True, tool_calls=[{"function": {"name": "look", "arguments": None}}])

    assert OLLAMA.parse(body)[1]["message"]["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize(
    ("reason", "calls", "finish"),
    [
        ("stop", [], "stop"),
        ("stop", [use()], "tool_calls"),
        ("length", [], "length"),
        ("length", [use()], "length"),
        ("load", [], "stop"),
        ("something_new", [], "stop"),
    ],
)
def test_only_openais_finish_reasons_reach_the_client(reason: str, calls: Any, finish: str) -> None:
    """Ollama says "stop" after calls, too."""
    reply, choice = OLLAMA.parse(line(done=True, reason=reason, tool_calls=calls))

    assert (reply.finish, choice["finish_reason"]) == (finish, finish)


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        (COUNTS, Usage(input=9, output=5)),
        ({"eval_count": 5}, Usage(input=0, output=5)),
        ({}, None),
        ({"eval_count": -1}, None),
        ({"eval_count": 10**400}, None),
    ],
)
def test_usage(counts: Any, usage: Usage | None) -> None:
    """A count of 0 is left out by Ollama: a prompt that was cached as a whole has none."""
    assert OLLAMA.parse(line(done=True, counts=counts))[0].usage == usage


def test_missing_names_are_filled() -> None:
    """An answer without model and time is still an answer."""
    reply, choice = OLLAMA.parse(b'{"message":{},"done":true}')

    found = msgspec.json.decode(reply.body)
    assert (found["id"], found["model"], choice["message"]["content"]) == ("chatcmpl-1000", "qwen3", "")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error":"model runner has unexpectedly stopped"}', errors.UnavailableError),
        (b'{"error":"busy","status":503}', errors.OverloadedError),
        (b'{"error":{"message":"x"}}', errors.UnavailableError),
        (b'{"error":"x","y":1e999}', errors.UnavailableError),
        (b'{"error":"x","y":"\xff"}', errors.UnavailableError),
        (line("half"), errors.UnavailableError),
        (b'{"done":true}', errors.UnavailableError),
        (b"<html>", errors.UnavailableError),
        (b"\xff", errors.UnavailableError),
        (b"[" * 5000, errors.UnavailableError),
        (b'{"message":{"content":5},"done":true}', errors.UnavailableError),
    ],
)
def test_a_200_that_is_no_answer_is_an_error(body: bytes, kind: type[errors.UpstreamError]) -> None:
    """Errors inside a 200 have their class; anything that is no whole answer is a broken upstream."""
    with pytest.raises(errors.UpstreamError) as raised:
        OLLAMA.parse(body)

    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, '"llama3" does not support tools', errors.InvalidRequestError),
        (401, "unauthorized", errors.AuthError),
        (404, "model 'x' not found", errors.NotFoundError),
        (429, "too many requests", errors.RateLimitError),
        (500, "model requires more system memory", errors.UnavailableError),
        (503, "server busy, please try again", errors.OverloadedError),
    ],
)
def test_error_answer_is_classified(status: int, text: str, kind: type[errors.UpstreamError]) -> None:
    """By the status: Ollama has a text and no code."""
    found = OLLAMA.adapter.parse_error(status, {}, msgspec.json.encode({"error": text}))

    assert type(found) is kind
    assert text in found.message


# ---- streams ----------------------------------------------------------------------------------------------------


def test_lines_become_chunks() -> None:
    """Thinking, text and calls of any line; calls are numbered over all lines, whatever index they have."""
    raw = msgspec.Raw(b'{"n":1.10}')
    found = OLLAMA.deltas(
        line(),
        line(thinking="hm"),
        line("a"),
        b"\n \r\n",
        line(tool_calls=[use(raw, id="one")]),
        line("b", tool_calls=[use(name="other", id="two")]),
        END,
    )

    assert found[:2] == [{"reasoning_content": "hm"}, {"content": "a"}]
    assert found[3] == {"content": "b"}
    calls = [delta["tool_calls"][0] for delta in (found[2], found[4])]
    assert [call["index"] for call in calls] == [0, 1]
    assert list(said_by(*calls)) == [("one", "look", '{"n":1.10}'), ("two", "other", "{}")]


def test_a_stream_and_a_complete_answer_name_calls_alike() -> None:
    """The made ids depend on the request and the call's number only."""
    parser = OLLAMA.parser()
    found = chunks(parser.feed(line(tool_calls=[use()]) + line(tool_calls=[use()]) + END) + parser.close())
    streamed = [chunk["choices"][0]["delta"]["tool_calls"][0]["id"] for chunk in found[1:3]]

    whole = OLLAMA.adapter.parse(line(done=True, tool_calls=[use(), use()]), chat(stream=True), Target("qwen3"))

    calls = msgspec.json.decode(whole.body)["choices"][0]["message"]["tool_calls"]
    assert [call["id"] for call in calls] == streamed
    assert len(set(streamed)) == 2


def test_nothing_is_started_before_content() -> None:
    """A line without words is no content, but the last one is: an empty answer is an answer."""
    parser = OLLAMA.parser()

    role = parser.feed(line())
    assert (parser.started, role.count(b'"role":"assistant"')) == (False, 1)
    empty = OLLAMA.parser()
    parser.feed(line("a"))
    empty.feed(END)

    assert (parser.started, empty.started) == (True, True)


@pytest.mark.parametrize(
    ("lines", "finish"),
    [
        ([line("a"), END], "stop"),
        ([line(tool_calls=[use()]), END], "tool_calls"),
        ([line("a"), line(done=True, reason="length")], "length"),
        ([line("a", done=True)], "stop"),
    ],
)
def test_finish(lines: list[bytes], finish: str) -> None:
    """One finish chunk, all chunks under one name; what comes after the last line does not count."""
    parser = OLLAMA.parser()

    found = chunks(parser.feed(b"".join(lines) + line("late")) + parser.close())

    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None] * (len(found) - 1) + [finish]
    assert (parser.finish, parser.done, b"late" in msgspec.json.encode(found)) == (finish, True, False)
    assert {(chunk["id"], chunk["model"]) for chunk in found} == {("chatcmpl-20260807060811017589", "qwen3:8b")}


def test_usage_is_told_only_when_asked_for() -> None:
    """The counts stand in the last line."""
    asked, unasked = OLLAMA.parser(stream_options={"include_usage": True}), OLLAMA.parser()

    found = chunks(asked.feed(line("a") + END) + asked.close())

    assert b"usage" not in unasked.feed(line("a") + END) + unasked.close()
    assert (found[-1]["choices"], found[-1]["usage"]["total_tokens"]) == ([], 14)
    assert unasked.usage == Usage(input=9, output=5)


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_the_last_line_may_lack_its_end(size: int) -> None:
    """However the bytes are cut, in the middle of a character too, all lines are heard; CRLF ends lines as well."""
    whole = b"\xef\xbb\xbf" + (line("Grüße") + line("😀\u2028") + END).replace(b"\n", b"\r\n").rstrip()
    parser = OLLAMA.parser()

    out = feed(parser, *[whole[at : at + size] for at in range(0, len(whole), size)]) + parser.close()

    found = chunks(out)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in found) == "Grüße😀\u2028"
    assert parser.finish == "stop"


def test_an_error_line_keeps_what_came_before_it() -> None:
    """An error in mid-stream has Ollama's words, and no finish chunk."""
    parser = OLLAMA.parser()

    with pytest.raises(errors.UnavailableError, match="an error was encountered") as raised:
        parser.feed(line("a") + b'{"error":"an error was encountered while running the model"}\n')

    assert (parser.finish, b'"content":"a"' in raised.value.before) == (None, True)


def test_a_cut_stream_is_no_answer() -> None:
    """Without its last line the answer is not whole."""
    parser = OLLAMA.parser()
    parser.feed(line("a"))

    with pytest.raises(errors.UnavailableError) as raised:
        parser.close()

    assert raised.value.code == "upstream_truncated"


@pytest.mark.parametrize("ended", [b"", b"\n"])
@pytest.mark.parametrize("size", [sse.MAX_EVENT + 1, 65_536])
def test_a_line_without_end_is_bounded(ended: bytes, size: int) -> None:
    """A line over the limit is a fault, whether its end comes or not, but not before what came ahead of it was told."""
    parser = OLLAMA.parser()
    first, much = parser.feed(line("a")), line("x" * sse.MAX_EVENT)[:-1] + ended

    with pytest.raises(errors.UnavailableError, match="over 1 MiB"):
        feed(parser, *[much[at : at + size] for at in range(0, len(much), size)], b"")

    assert b'"content":"a"' in first


# ---- behind the door --------------------------------------------------------------------------------------------

ROW: dict[str, Any] = {"adapter": "ollama"}
NDJSON = "application/x-ndjson"


async def test_a_line_is_passed_on_when_it_comes(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """JSON lines are a stream although they begin like a whole answer: the first words come before the last line."""
    head, first, *rest = stream(line("a"), END, content_type=NDJSON).pieces
    asked = await upstream(Play([head + first, *rest]))
    asked.go_on.clear()
    running = await sidecar(asked, provider=ROW)

    async with running.session.post(f"{running.url}/chat/completions", json=STREAM) as response:
        early = await response.content.readuntil(b'"content":"a"')
        asked.go_on.set()
        late = await response.read()

    assert response.content_type == "text/event-stream"
    assert b'"finish_reason":"stop"' not in early
    assert late.endswith(b"data: [DONE]\n\n")
    assert asked.requests[0].path == "/v1/api/chat"


async def test_an_error_in_the_first_line_falls_back(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Nothing has been told before the first content, so the next upstream may answer."""
    broken = await upstream(stream(line(), b'{"error":"no"}\n', content_type=NDJSON))
    running = await sidecar(broken, await upstream(stream(line("b"), END, content_type=NDJSON)), provider=ROW)

    got = await running.post(STREAM)

    assert (got.text, got.headers["x-sidecar-attempts"]) == ("b", "2")


async def test_a_web_page_is_no_stream(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Somebody's error page with a 200 is told as what it is."""
    running = await sidecar(await upstream(reply(b"<html>hello</html>", content_type="text/html")), provider=ROW)

    check_error(await running.post(STREAM), 502, "upstream_invalid_response")


async def test_other_languages_still_answer_a_stream_with_a_whole_answer(
    sidecar: StartSidecar, upstream: StartUpstream
) -> None:
    """Only a language of JSON lines reads them: a whole completion is still made a stream of."""
    got = await (await sidecar(await upstream(completion("Hi")))).post(STREAM)

    assert (got.text, got.events[-1]) == ("Hi", b"[DONE]")


async def test_what_was_dropped_is_told(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The client sees which of its parameters did not get through."""
    running = await sidecar(await upstream(reply(line("a", done=True))), provider=ROW)

    got = await running.post({**CHAT, "logit_bias": {"1": 1}})

    assert (got.text, got.headers["x-sidecar-dropped"]) == ("a", "logit_bias")


def test_logprobs_of_a_stream_come_with_their_words() -> None:
    """Ollama's tokens in OpenAI's object; a line without a word may have them, too."""
    tokens = [{"token": "é", "logprob": -0.5, "top_logprobs": [{"token": "x", "logprob": -1.5}]}]
    first, second = (msgspec.json.decode(line(text)) for text in ("é", ""))
    pieces = [msgspec.json.encode({**one, "logprobs": tokens}) + b"\n" for one in (first, second)]
    stream = OLLAMA.parser()

    found = chunks(feed(stream, *pieces, END) + stream.close())

    told = [chunk["choices"][0]["logprobs"] for chunk in found]
    entry = {"token": "é", "logprob": -0.5, "bytes": [195, 169]}
    content = [{**entry, "top_logprobs": [{"token": "x", "logprob": -1.5, "bytes": [120]}]}]
    assert told == [None, {"content": content, "refusal": None}, {"content": content, "refusal": None}, None]
