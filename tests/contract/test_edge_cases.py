"""The forty edge cases of wire formats, made by hand where nobody has recorded them, and errors that nobody records.

The numbers are those of the list in `edge_cases`, which names for each of the forty the tests that hold it.
"""

import ast
import re
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from proxy import errors
from proxy.adapter import Target, load
from proxy.conform.checks import played, stand_in
from proxy.conform.sdk import DONE, Said, chunks, completion, said_complete, said_streamed
from tests.bedrock_words import frame

from .edge_cases import HELD_BY

TESTS: Final = Path(__file__).parents[1]
CALL: Final[Any] = ("look", {"a": 1})


def sse(*events: Any) -> bytes:
    """Events; text as it is, objects as data, Anthropic's and Cohere's with their names."""
    return b"".join(event if isinstance(event, bytes) else _event(event) for event in events)


def _event(found: dict[str, Any]) -> bytes:
    name = f"event: {found['type']}\n" if "type" in found else ""
    return f"{name}data: ".encode() + msgspec.json.encode(found) + b"\n\n"


def lines(*found: Any) -> bytes:
    return b"".join(msgspec.json.encode(one) + b"\n" for one in found)


def bedrock(*events: dict[str, Any]) -> bytes:
    """Messages of an AWS event stream."""
    names = {":message-type": "event", ":content-type": "application/json"}
    return b"".join(
        frame({**names, ":event-type": kind}, msgspec.json.encode(body)) for one in events for kind, body in one.items()
    )


def chunk(delta: Any = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": fields.pop("index", 0), "delta": delta or {}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **fields}


def out(adapter: str, body: bytes, *quirks: str, model: str = "m", **fields: Any) -> bytes:
    """What a stream becomes."""
    parser = load(adapter).stream(stand_in(stream=True, **fields), Target(model, quirks=frozenset(quirks)))
    return played(parser, [body])


def said(adapter: str, body: bytes, *quirks: str, **fields: Any) -> Said:
    return said_streamed(chunks(out(adapter, body, *quirks, **fields)))


def broken(adapter: str, body: bytes) -> tuple[bytes, errors.UpstreamError]:
    """What a stream becomes that ends in an error, and the error."""
    parser, told = load(adapter).stream(stand_in(stream=True), Target("m")), b""
    try:
        told = parser.feed(body)
        told += parser.close()
    except errors.UpstreamError as error:
        return told + error.before, error
    raise AssertionError(f"no error in {told!r}")


def sent(adapter: str, *messages: Any, model: str, **fields: Any) -> Any:
    """The body that goes upstream."""
    rendered = load(adapter).render(stand_in(stream=False, messages=messages, **fields), Target(model))
    return msgspec.json.decode(rendered.body, type=dict[str, Any])


def usage(adapter: str, body: bytes) -> tuple[int, ...]:
    told = chunks(out(adapter, body))[-1].usage
    assert told is not None
    details, of_answer = told.prompt_tokens_details, told.completion_tokens_details
    cached = (details.cached_tokens if details else 0) or 0
    thought = (of_answer.reasoning_tokens if of_answer else 0) or 0
    return told.prompt_tokens, told.completion_tokens, told.total_tokens, cached, thought


# ---- Anthropic's and the others' events, as short as they can be ------------------------------------------------

START: Final = {"type": "message_start", "message": {"id": "m", "model": "c", "usage": {"input_tokens": 1}}}
STOP: Final = {"type": "message_stop"}


def block(index: int, begin: Any, *deltas: Any) -> list[dict[str, Any]]:
    told = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    begin = {"type": "content_block_start", "index": index, "content_block": begin}
    return [begin, *told, {"type": "content_block_stop", "index": index}]


def end(reason: str) -> list[dict[str, Any]]:
    return [{"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 5}}, STOP]


TEXT: Final = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Hi"})


def tool(index: int, *fragments: str) -> list[dict[str, Any]]:
    pieces = [{"type": "input_json_delta", "partial_json": text} for text in fragments]
    return block(index, {"type": "tool_use", "id": f"t{index}", "name": "look", "input": {}}, *pieces)


def gemini(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": parts}, "index": 0, **fields}]}


# ---- streams and framing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [sse(chunk({"content": "Hi"}), chunk({}, "stop")), sse(START, *TEXT, *end("end_turn"))]
)
def test_01_the_last_event_needs_no_blank_line(body: bytes) -> None:
    """It is delivered, and what the client gets ends with one."""
    adapter = "anthropic" if b"event:" in body else "openai"
    found = out(adapter, body.rstrip(b"\n"))
    assert said_streamed(chunks(found))[::3] == ("Hi", "stop")
    assert found.endswith(b"\n\n")


def test_02_what_crashes_an_sdk_is_not_passed_on() -> None:
    """Comments, pings, ids, waits and empty data are no events of an answer."""
    noise = b": hello\n\nevent: ping\ndata: {}\n\nid: 7\n\nretry: 100\n\ndata:\n\ndata: \n\n"
    found = out("openai", noise + sse(chunk({"content": "Hi"})) + noise + sse(chunk({}, "stop"), DONE))
    assert re.findall(rb"^(?!data: [{[]).+", found, re.MULTILINE) == []
    assert said_streamed(chunks(found)).text == "Hi"


def test_03_only_bytes_end_a_line() -> None:
    """An emoji and a CRLF may be cut anywhere; U+2028, U+2029 and U+0085 inside of text are text."""
    text = "\N{GRINNING FACE}\u2028\u2029\u0085é"
    body = sse(chunk({"content": text}), chunk({}, "stop")).replace(b"\n", b"\r\n")
    for at in range(len(body)):
        parser = load("openai").stream(stand_in(stream=True), Target("m"))
        assert said_streamed(chunks(played(parser, [body[:at], body[at:]]))).text == text


@pytest.mark.parametrize("where", ["finish", "every", "last"])
def test_05_usage_is_one_chunk_before_the_end(where: str) -> None:
    """Wherever the provider puts it; in no other chunk."""
    tokens = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    some: dict[str, Any]
    at_finish: dict[str, Any]
    some, at_finish = {"usage": tokens} if where == "every" else {}, {"usage": tokens} if where != "last" else {}
    body = sse(chunk({"content": "Hi"}, **some), chunk({}, "stop", **at_finish))
    if where == "last":
        body += sse(chunk(choices=[], usage=tokens))
    found = chunks(out("openai", body + DONE))
    assert [(chunk.choices == [], chunk.usage is not None) for chunk in found[-1:]] == [(True, True)]
    assert not any(chunk.usage or not chunk.choices for chunk in found[:-1])


ERRORS_AFTER_CONTENT: Final = {
    "anthropic": sse(START, *TEXT, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    "bedrock": bedrock({"messageStart": {"role": "assistant"}}, {"contentBlockDelta": {"delta": {"text": "Hi"}}})
    + frame({":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"Overloaded"}'),
    "gemini": sse(gemini({"text": "Hi"})) + b'{"error":{"code":503,"message":"Overloaded","status":"UNAVAILABLE"}}\n',
    "openai": sse(chunk({"content": "Hi"}), {"error": {"message": "Overloaded", "code": 502}}),
    "ollama": lines({"message": {"content": "Hi"}}, {"error": "Overloaded"}),
    "cohere": sse(
        {"type": "content-delta", "delta": {"message": {"content": {"text": "Hi"}}}},
        {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "Overloaded"}},
    ),
}


@pytest.mark.parametrize("adapter", ERRORS_AFTER_CONTENT)
def test_08_an_error_after_content_is_no_end(adapter: str) -> None:
    """What was said is told, then the error; no finish reason and no goodbye."""
    told, error = broken(adapter, ERRORS_AFTER_CONTENT[adapter])
    found = said_streamed(chunks(told + DONE))
    assert (found.text, found.finish, error.message) == ("Hi", None, "Overloaded")
    assert set(msgspec.json.decode(error.body())["error"]) == {"message", "type", "code", "param"}


@pytest.mark.parametrize("adapter", ERRORS_AFTER_CONTENT)
def test_09_nothing_is_committed_before_content(adapter: str) -> None:
    """Role chunks, pings, message starts and empty chunks do not begin an answer: the fallback can still have it."""
    silent = {
        "anthropic": sse(START, {"type": "ping"}, *block(0, {"type": "text", "text": ""})),
        "bedrock": bedrock({"messageStart": {"role": "assistant"}}),
        "gemini": sse(gemini({"text": ""})),
        "openai": sse(chunk(choices=[]), chunk({"role": "assistant", "content": ""})),
        "ollama": lines({"message": {"role": "assistant", "content": ""}}),
        "cohere": sse({"type": "message-start", "id": "x", "delta": {"message": {"role": "assistant"}}}),
    }
    parser = load(adapter).stream(stand_in(stream=True), Target("m"))
    parser.feed(silent[adapter])
    assert not parser.started


@pytest.mark.parametrize(("delta", "finish"), [({"content": "Hi"}, "stop"), ({"tool_calls": [{}]}, "tool_calls")])
def test_11_a_missing_finish_is_added(delta: dict[str, Any], finish: str) -> None:
    """`[DONE]` alone ends an answer; Node's helper wants a reason."""
    if "tool_calls" in delta:
        delta = {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "look", "arguments": "{}"}}]}
    assert said("openai", sse(chunk(delta), DONE)).finish == finish


def test_12_13_each_choice_ends_once() -> None:
    """Two choices interleave, one is through first, both say so twice."""
    body = sse(
        *(chunk({"content": text}, index=index) for index, text in ((0, "a"), (1, "b"), (0, "c"))),
        *(chunk({}, "stop", index=index) for index in (1, 0, 0, 1)),
        DONE,
    )
    found = [(one.index, one.finish_reason) for part in chunks(out("openai", body)) for one in part.choices]
    assert [one for one in found if one[1]] == [(1, "stop"), (0, "stop")]


def test_14_azures_first_chunk_is_left_out() -> None:
    """It has no choices; later filter results beside an empty delta pass."""
    first = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": []}
    body = sse(first, chunk({"content": "Hi"}), chunk({}, "stop", x_filter={"a": 1}), DONE)
    found = chunks(out("openai", body, "empty_chunks"))
    assert [part.id for part in found] == ["c", "c"]


def test_15_a_damaged_message_is_a_fault() -> None:
    """Three reads of one message, two messages in one read; a wrong checksum ends the answer in an error."""
    body = bedrock({"contentBlockDelta": {"delta": {"text": "Hi"}}}, {"messageStop": {"stopReason": "end_turn"}})
    body += bedrock({"metadata": {"usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}}})
    parser = load("bedrock").stream(stand_in(stream=True), Target("m"))
    found = chunks(played(parser, [body[:9], body[9:70], body[70:]]))
    assert said_streamed(found)[::3] == ("Hi", "stop")
    assert found[-1].choices == []
    with pytest.raises(errors.UnavailableError):
        out("bedrock", body.replace(b"Hi", b"Ho"))


# ---- tools ------------------------------------------------------------------------------------------------------


def test_17_calls_are_numbered_from_zero() -> None:
    """A block of text before them shifts nothing."""
    found = said("anthropic", sse(START, *TEXT, *tool(1, "{}"), *tool(2, '{"a":1}'), *end("tool_use")))
    assert found.tool_calls == [("look", {}), CALL]


@pytest.mark.parametrize(
    ("fragments", "wanted"), [(('{"a":', "1}"), '{"a":1}'), ((), "{}"), (("", ""), "{}")], ids=["two", "none", "empty"]
)
def test_18_the_placeholder_is_no_argument(fragments: tuple[str, ...], wanted: str) -> None:
    """The `input: {}` of the start is told only where nothing follows."""
    found = chunks(out("anthropic", sse(START, *tool(0, *fragments), *end("tool_use"))))
    deltas = [call for part in found for one in part.choices for call in one.delta.tool_calls or ()]
    assert "".join((call.function and call.function.arguments) or "" for call in deltas) == wanted


def test_19_geminis_stop_after_a_call_is_a_call() -> None:
    """A call without arguments, then STOP with an empty text: no empty content, and tool_calls."""
    parts = gemini({"functionCall": {"name": "look"}}), gemini({"text": ""}, finishReason="STOP")
    found = chunks(out("gemini", sse(*parts)))
    assert said_streamed(found) == Said("", "", [("look", {})], "tool_calls")
    calls = [call for part in found for one in part.choices for call in one.delta.tool_calls or ()]
    assert all(call.id for call in calls)


def test_20_ollamas_calls_are_told_apart() -> None:
    """Both have index 0, no id, arguments that are objects, and the end is `stop`."""
    calls = [{"function": {"index": 0, "name": "look", "arguments": {"a": number}}} for number in (1, 2)]
    body = lines({"message": {"tool_calls": calls}}, {"message": {"content": ""}, "done": True, "done_reason": "stop"})
    assert said("ollama", body) == Said("", "", [CALL, ("look", {"a": 2})], "tool_calls")


def test_20_ollamas_arguments_may_be_text() -> None:
    """Some templates give JSON as text; it is not wrapped once more."""
    call = {"function": {"name": "look", "arguments": '{"a":1}'}}
    body = lines({"message": {"tool_calls": [call]}}, {"message": {"content": ""}, "done": True, "done_reason": "stop"})
    assert said("ollama", body).tool_calls == [CALL]


@pytest.mark.parametrize("index", [{}, {"index": 0}])
def test_21_names_are_told_once(index: dict[str, int]) -> None:
    """An id and a name in each piece, or no index: one call for each id, whole."""
    pieces = [
        {**index, "id": id, "type": "function", "function": {"name": "look", "arguments": part}}
        for id in ("t1", "t2")
        for part in ('{"a":', "1}")
    ]
    body = sse(*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "tool_calls"), DONE)
    assert said("openai", body, "tool_calls").tool_calls == [CALL, CALL]


def history(arguments: str = "{}", ids: tuple[str, ...] = ("a", "b", "c")) -> list[dict[str, Any]]:
    """Calls, their results, and a question."""
    calls = [{"id": id, "type": "function", "function": {"name": "look", "arguments": arguments}} for id in ids]
    results = [{"role": "tool", "tool_call_id": id, "content": f"r{id}"} for id in ids]
    return [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        *results,
        {"role": "user", "content": "and?"},
    ]


def test_22_results_of_one_turn_stand_together() -> None:
    """In one turn of the user's, before what the user says."""
    [*_, turn] = sent("anthropic", *history(), model="claude-sonnet-4-5")["messages"]
    assert [part["type"] for part in turn["content"]] == ["tool_result"] * 3 + ["text"]
    [*_, turn] = sent("bedrock", *history(), model="anthropic.claude-sonnet-4-5-v1:0")["messages"]
    assert [next(iter(part)) for part in turn["content"]] == ["toolResult"] * 3 + ["text"]
    [*_, turn] = sent("gemini", *history(), model="gemini-2.5-flash")["contents"]
    assert [next(iter(part)) for part in turn["parts"]] == ["functionResponse"] * 3 + ["text"]
    assert {part["functionResponse"]["name"] for part in turn["parts"][:3]} == {"look"}


@pytest.mark.parametrize("id", ["functions.get_weather:0", "x" * 80])
def test_24_ids_are_legal_upstream(id: str) -> None:
    """And the same in the call and in its result."""
    turns = sent("anthropic", *history(ids=(id,)), model="claude-sonnet-4-5")["messages"]
    named = [part.get("id") or part.get("tool_use_id") for turn in turns for part in turn["content"] if "type" in part]
    found = {one for one in named if one}
    assert len(found) == 1
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", one) for one in found)
    turns = sent("bedrock", *history(ids=(id,)), model="anthropic.claude-sonnet-4-5-v1:0")["messages"]
    (call,) = turns[1]["content"]
    assert re.fullmatch(r"[a-zA-Z0-9_.:-]{1,64}", call["toolUse"]["toolUseId"])
    assert turns[2]["content"][0]["toolResult"]["toolUseId"] == call["toolUse"]["toolUseId"]


MODELS: Final = {
    "anthropic": "claude-sonnet-4-5",
    "bedrock": "anthropic.claude-sonnet-4-5-v1:0",
    "gemini": "gemini-2.5-flash",
    "ollama": "qwen3",
}


@pytest.mark.parametrize("adapter", MODELS)
@pytest.mark.parametrize("arguments", ["", "null", "[1]", '{"a":'])
def test_25_arguments_are_an_object_upstream(adapter: str, arguments: str) -> None:
    """Whatever a model made up before: nothing is an empty object, anything else is wrapped."""
    text = msgspec.json.encode(sent(adapter, *history(arguments), model=MODELS[adapter])).decode()
    found = re.findall(r'"(?:input|args|arguments)":(\{[^}]*\})', text)
    assert len(found) == 3
    assert (found[0] == "{}") == (arguments == "")


@pytest.mark.parametrize("adapter", MODELS)
def test_26_digits_stay(adapter: str) -> None:
    """A number goes out as it was written."""
    digits = '{"a":123456789012345678901,"b":0.1234567890123456789}'
    request = stand_in(stream=False, messages=history(digits, ("a",)))
    assert digits.encode() in load(adapter).render(request, Target(MODELS[adapter])).body


def test_31_effort_is_never_dropped_silently() -> None:
    """On OpenAI's own API a request with tools goes out with the effort that the client gave, or without any."""
    function = {"type": "function", "function": {"name": "look"}}
    for given in ({}, {"reasoning_effort": "high"}):
        request = stand_in(stream=False, tools=[function], **given)
        rendered = load("openai").render(request, Target("gpt-5.6"))
        effort = msgspec.json.decode(rendered.body).get("reasoning_effort")
        assert effort == given.get("reasoning_effort") or "reasoning_effort" in rendered.dropped


# ---- reasoning, usage, finish -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quirk", "delta"),
    [
        ("reasoning", {"reasoning": "hm"}),
        ("reasoning_text", {"reasoning_text": "hm"}),
        ("tool_calls", {"reasoning_content": "hm"}),
        ("content_parts", {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
    ],
)
def test_34_reasoning_has_one_name(quirk: str, delta: Any) -> None:
    """`reasoning_content`, whatever a provider calls it, and never the content."""
    body = sse(chunk(delta), chunk({"content": "Hi"}), chunk({}, "stop"), DONE)
    assert said("openai", body, quirk) == Said("Hi", "hm", [], "stop")


def test_35_anthropics_reports_replace_one_another() -> None:
    """Prompt tokens include what was read from the cache and written to it."""
    counts = {"input_tokens": 10, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 100}
    begin = {"type": "message_start", "message": {"id": "m", "model": "c", "usage": {**counts, "output_tokens": 1}}}
    assert usage("anthropic", sse(begin, *TEXT, *end("end_turn"))) == (1110, 5, 1115, 1000, 0)


def test_36_geminis_snapshots_are_not_summed() -> None:
    """The last value of each field counts, and thoughts are part of the answer."""
    first = {"promptTokenCount": 10, "candidatesTokenCount": 3, "thoughtsTokenCount": 7, "totalTokenCount": 20}
    last = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 22}
    body = sse(
        {**gemini({"text": "H"}), "usageMetadata": {"promptTokenCount": 10}},
        {**gemini({"text": "i"}), "usageMetadata": first},
        {**gemini(finishReason="STOP"), "usageMetadata": last},
    )
    assert usage("gemini", body) == (10, 12, 22, 0, 7)


@pytest.mark.parametrize(
    ("finish", "told"), [("", "stop"), ("eos", "stop"), ("model_length", "length"), ("abort", ""), ("error", "")]
)
def test_37_only_openais_words_reach_the_client(finish: str, told: str) -> None:
    """A reason that says that the answer failed is an error."""
    body = sse(chunk({"content": "Hi"}), chunk({}, finish), DONE)
    if told:
        assert said("openai", body).finish == told
        return
    with pytest.raises(errors.UnavailableError):
        out("openai", body)


# ---- errors -----------------------------------------------------------------------------------------------------

GOOGLE: Final = {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}
QUOTA: Final = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}]}
# Number or provider, adapter, status, body, kind, and how long to wait.
ERRORS: Final[list[tuple[str, str, int, Any, str, float | None]]] = [
    ("38a", "openai", 429, {"error": {"message": "m", "code": "insufficient_quota"}}, "quota", None),
    (
        "38b",
        "anthropic",
        429,
        {
            "error": {
                "type": "rate_limit_error",
                "message": "m",
                "details": {"error_code": "enforced_spend_limit_reached"},
            }
        },
        "quota",
        None,
    ),
    ("38c", "gemini", 429, {"error": {**GOOGLE, "details": [QUOTA]}}, "quota", None),
    (
        "38d",
        "anthropic",
        400,
        {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}},
        "quota",
        None,
    ),
    ("38e", "openai", 402, {}, "quota", None),
    ("38f", "gemini", 429, {"error": {**GOOGLE, "details": [{"retryDelay": "14s"}]}}, "rate_limit", 14),
    ("38g", "gemini", 400, {"error": {"code": 400, "details": [{"reason": "API_KEY_INVALID"}]}}, "auth", None),
    (
        "38h",
        "openai",
        403,
        {"error": {"code": 403, "message": "m", "metadata": {"reasons": ["violence"]}}},
        "content_filter",
        None,
    ),
    # Errors that nobody records, as people quote them.
    (
        "Anthropic 529",
        "anthropic",
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        "overloaded",
        None,
    ),
    (
        "Anthropic 529, newer",
        "anthropic",
        529,
        {"type": "error", "error": {"details": None, "type": "overloaded_error", "message": "Overloaded"}},
        "overloaded",
        None,
    ),
    (
        "OpenAI 429",
        "openai",
        429,
        {"error": {"message": "Rate limit reached", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}},
        "rate_limit",
        None,
    ),
    (
        "OpenAI 500",
        "openai",
        500,
        {"error": {"message": "m", "type": "server_error", "param": None, "code": None}},
        "unavailable",
        None,
    ),
    ("OpenAI 503", "openai", 503, {"error": {"message": "m", "code": "server_is_overloaded"}}, "overloaded", None),
    ("Cloudflare's page", "openai", 502, "<html><h1>502 Bad gateway</h1></html>", "unavailable", None),
    ("Cloudflare's page, 520", "openai", 520, "<!DOCTYPE html><html></html>", "unavailable", None),
    (
        "Cloudflare's JSON",
        "openai",
        502,
        {"error": {"code": 502, "message": "Bad gateway.", "param": None, "type": "cf_bad_gateway"}},
        "unavailable",
        None,
    ),
    (
        "Gemini 503",
        "gemini",
        503,
        {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}},
        "overloaded",
        None,
    ),
    (
        "Azure 429",
        "openai",
        429,
        {"error": {"code": "429", "message": "Please retry after 86400 seconds."}},
        "rate_limit",
        None,
    ),
    (
        "Groq 429",
        "openai",
        429,
        {"error": {"message": "Limit 7000, Requested ~12903", "type": "tokens", "code": "rate_limit_exceeded"}},
        "rate_limit",
        None,
    ),
    (
        "Mistral 429",
        "openai",
        429,
        {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "param": None, "code": "1300"},
        "rate_limit",
        None,
    ),
    (
        "Mistral's capacity",
        "openai",
        429,
        {
            "object": "error",
            "message": "Service tier capacity exceeded for this model.",
            "type": "invalid_request_error",
        },
        "rate_limit",
        None,
    ),
    (
        "Copilot 400",
        "openai",
        400,
        {"error": {"message": "not supported", "code": "model_not_supported", "param": "model"}},
        "not_found",
        None,
    ),
    ("Copilot's plain 400", "openai", 400, "Bad Request", "invalid_request", None),
    (
        "OpenRouter 429",
        "openai",
        429,
        {"error": {"code": 429, "message": "m", "metadata": {"provider_name": "x", "limit_source": "upstream"}}},
        "rate_limit",
        None,
    ),
    (
        "Bedrock's throttling",
        "bedrock",
        429,
        {"message": "Too many tokens, please wait before trying again."},
        "rate_limit",
        None,
    ),
]


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: row[0])
def test_38_an_error_has_its_kind(row: tuple[str, str, int, Any, str, float | None]) -> None:
    """By its fields first, by its status last."""
    _, adapter, status, body, kind, wait_s = row
    raw = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
    error = load(adapter).parse_error(status, {}, raw)
    assert (error.kind, error.retry_after_s) == (kind, wait_s)


@pytest.mark.parametrize(
    "body", ['{"message":"x"}', '{"error":"x"}', '[{"error":{"message":"x"}}]', '{"detail":[{"msg":"x"}]}', "<p>", ""]
)
@pytest.mark.parametrize("adapter", [*MODELS, "openai", "cohere"])
def test_39_every_shape_becomes_openais(adapter: str, body: str) -> None:
    """All four keys, whatever a provider or a proxy on the way says; no web page."""
    told = msgspec.json.decode(load(adapter).parse_error(500, {}, body.encode()).body())["error"]
    assert {"message", "type", "param", "code"} <= told.keys()
    assert told["message"]
    assert "<" not in told["message"]


def test_a_complete_answer_has_the_same_edges() -> None:
    """Two calls behind a text, and an empty input."""
    blocks = [{"type": "text", "text": "Hi"}, {"type": "tool_use", "id": "t", "name": "look", "input": {}}]
    body = {"id": "m", "type": "message", "role": "assistant", "content": blocks, "stop_reason": "tool_use"}
    reply = load("anthropic").parse(msgspec.json.encode(body), stand_in(stream=False), Target("m"))
    assert said_complete(completion(reply.body)) == Said("Hi", "", [("look", {})], "tool_calls")


# ---- the list ---------------------------------------------------------------------------------------------------


def test_each_of_the_forty_is_held() -> None:
    """Every number names tests, and every test that is named exists."""
    assert sorted(HELD_BY) == list(range(1, 41))
    for number, tests in HELD_BY.items():
        assert tests, number
        for test in tests:
            file, _, name = test.partition("::")
            found = ast.parse((TESTS / file).read_text()).body
            names = {one.name for one in found if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
            assert name in names, f"{number}: {test}"


def test_every_numbered_test_is_in_the_list() -> None:
    """A test of this file that has a number stands in the list under it."""
    numbered = re.findall(r"^def (test_(\d\d)(?:_(\d\d))?_\w+)", Path(__file__).read_text(), re.MULTILINE)
    for name, *numbers in numbered:
        for number in filter(None, numbers):
            assert f"contract/test_edge_cases.py::{name}" in HELD_BY[int(number)]
