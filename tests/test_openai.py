"""OpenAI's own language, passed through: requests, complete answers, errors, and GitHub Copilot's quirks."""

from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletion

from proxy import errors
from proxy.wire import Usage

from .openai_words import ADAPTER, COPILOT, chat, parsed, rendered, sent, target

# What decoding and encoding would change: spacing, order, 1.0, 1e3, 20 digits, escapes, an unknown field.
ODD = (
    b'{ "zeta" : [1.0, 1e3, 12345678901234567890],\n"model":"m", "a\\u0062":"\\u00e9/\\/",'
    b'"messages":[{"role":"user","content":"model","model":"m","x":{"model":"m"}}],"temperature":0.20 }'
)


def test_only_the_model_changes() -> None:
    """Everything else goes out byte for byte, unknown fields, numbers and nested "model" keys included."""
    assert sent(ODD) == ODD.replace(b'"model":"m", ', b'"model":"up", ', 1)
    assert rendered(ODD).path == "/chat/completions"
    assert (rendered(ODD).headers, rendered(ODD).dropped) == ({}, ())


def test_nothing_changes_when_the_model_is_right() -> None:
    """The client's very bytes, also where it spells the name with escapes."""
    escaped = ODD.replace(b'"model":"m", ', b'"model":"\\u006d", ', 1)

    assert sent(ODD, model="m") == ODD
    assert sent(escaped, model="m") == escaped


@pytest.mark.parametrize("key", [b'"mod\\u0065l"', b'"\\u006d\\u006F\\u0064\\u0065\\u006C"', b'"model"'])
def test_an_escaped_key_is_the_same_key(key: bytes) -> None:
    """A model that is spelled with escapes is replaced, too, not added a second time."""
    body = b'{"messages":[{"role":"user","content":"\\"model\\": 1"}],' + key + b' : "m"}'

    assert sent(body) == body.replace(b'"m"}', b'"up"}')


def test_a_models_name_is_escaped() -> None:
    """Quotes in a name cannot break out of the value."""
    assert msgspec.json.decode(sent(ODD, model='a"b/é'))["model"] == 'a"b/é'


@pytest.mark.parametrize(
    ("options", "becomes"),
    [
        (b"", b'"stream_options":{"include_usage":true}'),
        (b',"stream_options":null', b'"stream_options":{"include_usage":true}'),
        (b',"stream_options":{}', b'"stream_options":{"include_usage":true}'),
        (b',"stream_options":{"include_usage":false,"x":1.0}', b'"stream_options":{"include_usage":true,"x":1.0}'),
        (b',"stream_\\u006fptions":{"x":1e3}', b'"stream_\\u006fptions":{"x":1e3,"include_usage":true}'),
        (b',"stream_options": { "include_usage" : true }', b'"stream_options": { "include_usage" : true }'),
    ],
)
def test_usage_is_asked_for_in_every_stream(options: bytes, becomes: bytes) -> None:
    """The bill needs it; the client's other stream options stay as they are."""
    head = b'{"model":"up","messages":[{"role":"user"}],"stream":true'

    assert sent(head + options + b"}") == head + b"," + becomes + b"}"


def test_a_complete_answer_is_not_asked_for_stream_options() -> None:
    """OpenAI refuses them without `stream`."""
    assert b"stream_options" not in sent(ODD)


def test_key_goes_into_the_bearer_header() -> None:
    """Without a key there is no header."""
    assert ADAPTER.auth("secret") == {"Authorization": "Bearer secret"}
    assert ADAPTER.auth(None) == ADAPTER.auth("") == {}


ANSWER = b'{"id": "x", "choices":[{"index":0,"message":{"content":"Hi","odd":1.0},"finish_reason":"stop"}],"new":1e3}'


def test_complete_answer_is_passed_on_byte_for_byte() -> None:
    """Unknown fields and numbers stay as the provider wrote them."""
    reply = parsed(ANSWER)

    assert (reply.body, reply.finish, reply.usage) == (ANSWER, "stop", None)


def test_usage_of_a_complete_answer_is_read() -> None:
    """And it stays in the answer."""
    reply = parsed(ANSWER[:-1] + b',"usage":{"prompt_tokens":10,"completion_tokens":5}}')

    assert reply.usage == Usage(10, 5)
    assert b'"usage"' in reply.body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nothing",
        b"[]",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":null}',
        b'{"choices":3}',
        b"[" * 3000,
        ANSWER[:40],
        ANSWER.replace(b"message", b"mess\xe9ge"),
    ],
)
def test_what_is_no_answer_is_a_fault(body: bytes) -> None:
    """Malformed or cut JSON, or an answer without choices, is never passed on."""
    with pytest.raises(errors.UnavailableError) as raised:
        parsed(body)

    assert (raised.value.status, raised.value.code) == (502, "upstream_invalid_response")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ({"message": "full", "code": 503}, "overloaded", "full"),
        ({"message": "slow", "type": "rate_limit_error"}, "rate_limit", "slow"),
        ({"message": "pay", "code": "insufficient_quota"}, "quota", "pay"),
        ("broken", "unavailable", "broken"),
        ([{"message": "listed", "code": 429}], "unavailable", "listed"),
        (True, "unavailable", "True"),
    ],
)
def test_an_error_in_a_200_is_an_error(error: Any, kind: str, message: str) -> None:
    """At the top or in a choice, whatever its shape: HTTP 200 does not mean success."""
    choice = {"index": 0, "message": {"content": ""}, "finish_reason": "error"}

    for body in ({"error": error}, {"choices": [choice | {"error": error}]}, {"error": error, "choices": [choice]}):
        with pytest.raises(errors.UpstreamError) as raised:
            parsed(body)
        assert (raised.value.kind, raised.value.message) == (kind, message)


@pytest.mark.parametrize("nothing", [None, "", {}, []])
def test_an_empty_error_is_none(nothing: Any) -> None:
    """Some servers send the key with every answer."""
    assert parsed({"choices": [{"message": {"content": "x"}, "error": nothing}], "error": nothing}).finish == "stop"


@pytest.mark.parametrize("text", [b"\xff", b"\\ud800"])
def test_an_error_that_is_no_text_is_still_a_fault_of_the_upstream(text: bytes) -> None:
    """Bytes that no decoder takes must not become a fault of the sidecar."""
    with pytest.raises(errors.UnavailableError):
        parsed(b'{"error":{"message":"' + text + b'"}}')
    with pytest.raises(errors.UnavailableError):
        parsed(b'{"error":1e400}')


def test_error_answer_has_its_class() -> None:
    """The table of `proxy.classify` judges; headers say how long to wait."""
    error = ADAPTER.parse_error(429, {"retry-after": "7"}, b'{"error":{"message":"slow"}}')

    assert (type(error), error.retry_after_s) == (errors.RateLimitError, 7)


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        (b'"max_tokens": 5', b'"max_completion_tokens": 5'),
        (b'"max_completion_tokens":5', b'"max_completion_tokens":5'),
        (b'"max_completion_tokens":5,"max_tokens":9', b'"max_completion_tokens":5'),
        (b'"x":{"max_tokens":5}', b'"x":{"max_tokens":5}'),
    ],
)
def test_copilot_gets_the_new_name_of_the_limit(given: bytes, becomes: bytes) -> None:
    """It refuses `max_tokens`; providers without the quirk get what the client wrote."""
    body = b'{"model":"up","messages":[{"role":"user"}],' + given + b"}"

    assert sent(body, "max_completion_tokens") == body.replace(given, becomes)
    assert sent(body) == body


@pytest.mark.parametrize(
    ("messages", "headers"),
    [
        ([{"role": "user", "content": "x"}], {"X-Initiator": "user"}),
        ([{"role": "user"}, {"role": "tool", "content": "x"}], {"X-Initiator": "agent"}),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}],
            {"X-Initiator": "user", "Copilot-Vision-Request": "true"},
        ),
    ],
)
def test_copilot_is_told_who_spoke_last_and_of_images(messages: Any, headers: dict[str, str]) -> None:
    """Its quota differs for people and agents; without the quirk nothing is said."""
    request = chat(messages=messages)

    assert ADAPTER.render(request, target("initiator")).headers == headers
    assert ADAPTER.render(request, target()).headers == {}


def filled(answer: Any) -> Any:
    return msgspec.json.decode(parsed(answer, *COPILOT).body)


def test_copilots_answer_is_completed() -> None:
    """Object, time and index are added where they lack, reasoning gets its usual name, the rest stays."""
    message = {"role": "assistant", "content": "Hi", "reasoning_text": "hm", "padding": "p"}
    body = {"id": "x", "model": "up", "choices": [{"message": message, "finish_reason": "stop"}], "created": None}

    found = filled(body)

    assert ChatCompletion.model_validate_json(msgspec.json.encode(found), strict=True).created == 1000
    assert (found["object"], found["choices"][0]["index"]) == ("chat.completion", 0)
    told = found["choices"][0]["message"]
    assert told == {"role": "assistant", "content": "Hi", "reasoning_content": "hm", "padding": "p"}


def test_what_is_there_is_not_filled_in() -> None:
    """The answer's own bytes stay, when nothing lacks; when something does, its numbers do, to the digit."""
    rest = b'"choices":[{"index":1,"message":{"x":1.0},"n":12345678901234567890,"finish_reason":"stop"}]}'
    body = b'{"id":"x","model":"m","created" : 7,"object":"chat.completion",' + rest

    assert parsed(body, *COPILOT).body == body
    assert rest in parsed(body.replace(b" : 7", b":null"), *COPILOT).body


def native(*blocks: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "message", "id": "msg_1", "content": blocks, "stop_reason": "end_turn", **fields}


def test_an_answer_in_anthropics_shape_becomes_openais() -> None:
    """Copilot's Claude models sometimes answer so: text is joined, calls become tool calls, usage is counted anew."""
    usage = {"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 2, "cache_creation_input_tokens": None}
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1.0}}
    body = native({"type": "text", "text": "a"}, {"type": "thinking"}, {"type": "text", "text": "b"}, use, usage=usage)

    reply = parsed(body, *COPILOT)

    found = ChatCompletion.model_validate_json(reply.body, strict=True)
    assert found.choices[0].message.tool_calls is not None
    (call,) = found.choices[0].message.tool_calls
    assert (found.choices[0].message.content, found.choices[0].finish_reason) == ("ab", "tool_calls")
    assert (
        msgspec.json.decode(reply.body)["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
        == '{"a":1.0}'
    )
    assert (call.id, call.type, found.id, found.model) == ("t1", "function", "msg_1", "m")
    assert reply.usage == Usage(7, 3, 2, 0)


@pytest.mark.parametrize(
    ("stop", "finish"),
    [("end_turn", "stop"), ("max_tokens", "length"), ("refusal", "content_filter"), (None, "stop")],
)
def test_stop_reasons_of_anthropics_shape(stop: str | None, finish: str) -> None:
    """They are told in OpenAI's words; an answer without text is an empty one, without usage an unknown one."""
    reply = parsed(native(stop_reason=stop), *COPILOT)

    assert (reply.finish, reply.usage) == (finish, None)
    assert msgspec.json.decode(reply.body)["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize(
    "body", [b"nothing", b'{"choices":7}', b'{"stop_reason":7}', b'{"content":7,"stop_reason":null}', b'{"content":[]}']
)
def test_filling_in_does_not_hide_a_fault(body: bytes) -> None:
    """What cannot be completed is judged as it came."""
    with pytest.raises(errors.UnavailableError) as raised:
        parsed(body, *COPILOT)

    assert raised.value.code == "upstream_invalid_response"
