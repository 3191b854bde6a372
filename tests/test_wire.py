"""What is read from a request, and what an answer's numbers mean."""

from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from proxy import restream, wire
from proxy.errors import ClientError
from proxy.wire import ChatRequest, ResponseMode, Usage, decode_chat

HI = [{"role": "user", "content": "hi"}]


def chat(**fields: Any) -> ChatRequest:
    return decode_chat(msgspec.json.encode({"model": "m", "messages": HI, **fields}), 1000)


def refusal(body: bytes) -> ClientError:
    with pytest.raises(ClientError) as raised:
        decode_chat(body, 0)
    assert raised.value.status == 400
    assert raised.value.type == "invalid_request_error"
    return raised.value


def chunks(stream: bytes) -> list[Any]:
    *events, done, rest = stream.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [msgspec.json.decode(event.removeprefix(b"data: ")) for event in events]


def test_body_is_kept_byte_for_byte() -> None:
    """Fields nobody here knows are neither read nor changed."""
    body = b'{ "x":1.0,"model":"m","messages":[{"role":"user","content":[]}],"y":12345678901234567890 }'

    request = decode_chat(body, 7)

    assert request.raw == body
    assert (request.model, request.created, request.mode) == ("m", 7, ResponseMode.COMPLETE)
    assert not request.stream


@pytest.mark.parametrize("value", [None, False, True])
def test_stream_may_be_null(value: bool | None) -> None:
    """SDKs send null for what was not set."""
    assert chat(stream=value).stream is bool(value)


@pytest.mark.parametrize(
    ("options", "asked"),
    [(None, False), ({}, False), ({"include_usage": None}, False), ({"include_usage": True}, True)],
)
def test_usage_is_included_only_when_asked(options: Any, asked: bool) -> None:
    """`stream_options.include_usage` decides, and its absence means no."""
    assert chat(stream=True, stream_options=options).include_usage is asked


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({}, set()),
        ({"tools": []}, set()),
        ({"tools": [{"type": "function"}]}, {"tools"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"json_schema"}),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, {"vision"}),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, {"audio"}),
        ({"messages": [{"role": "user", "content": [{"file": {}, "type": "file"}]}]}, {"files"}),
        ({"tools": [{"type": "function", "function": {"parameters": {"properties": {"file": {}}}}}]}, {"tools"}),
    ],
)
def test_needs_are_read_from_the_request(fields: Any, needs: set[str]) -> None:
    """Tools, images and schemas decide who can answer."""
    assert chat(**fields).needs == needs


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, 0),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_tokens": None}, 0),
        ({"max_tokens": -1}, 0),
        ({"max_tokens": 1e300}, 10**12),
    ],
)
def test_the_limit_on_the_answer_is_read(fields: Any, limit: int) -> None:
    """Under either name, the newer one first; what cannot be a limit is left for the provider to refuse."""
    assert chat(**fields).max_tokens == limit


@pytest.mark.parametrize(("role", "agent"), [("user", False), ("tool", True), ("assistant", True)])
def test_who_spoke_last(role: str, agent: bool) -> None:
    """A turn after a tool's answer is the agent's, not the user's."""
    assert chat(messages=[*HI, {"role": role, "content": "x"}]).agent_turn is agent


def test_input_is_estimated_from_its_length() -> None:
    """Four bytes count as one token."""
    assert chat(x="a" * 4000).input_tokens == pytest.approx(1000, abs=30)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b'{"messages":[{"role":"user"}]}', "model", "missing_required_parameter"),
        (b'{"model":"m"}', "messages", "missing_required_parameter"),
        (b'{"model":"m","messages":[{"content":"x"}]}', "messages[0].role", "missing_required_parameter"),
        (b'{"model":1,"messages":[{"role":"user"}]}', "model", "invalid_type"),
        (b'{"model":"m","messages":[{"role":"user"}],"temperature":"hot"}', "temperature", "invalid_type"),
        (b'{"model":"m","messages":[{"role":"user"}],"tools":[3]}', "tools[0]", "invalid_type"),
        (b"[]", None, "invalid_type"),
        (b'{"model":" ","messages":[{"role":"user"}]}', "model", "invalid_value"),
        (b'{"model":"m","messages":[]}', "messages", "empty_array"),
        (b'{"model":"m","model":"n","messages":[{"role":"user"}]}', "model", "invalid_value"),
        (b'{"model":"m","messages":[{"role":"user"}],"stream_options":{}}', "stream_options", "invalid_value"),
    ],
)
def test_refusal_names_the_field(body: bytes, param: str | None, code: str) -> None:
    """A client can tell from `param` and `code` what to mend."""
    error = refusal(body)

    assert (error.param, error.code) == (param, code)
    assert param is None or repr(param.rpartition(".")[0] or param) in error.message or param in error.message


@pytest.mark.parametrize(
    "rest",
    [
        b'"x":NaN}',
        b'"x":"\\ud83d"}',
        b'"x":"\\uD83D"}',
        b'"x":"\xff"}',
        b'"x":"\x01"}',
        b'"x":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'"x":1} trailing',
        b'"x":',
    ],
)
def test_what_cannot_be_sent_on_is_refused(rest: bytes) -> None:
    """Bad JSON, bad text and bottomless nesting are the client's fault, also in fields that are only passed on."""
    error = refusal(b'{"model":"m","messages":[{"role":"user"}],' + rest)

    assert error.code == "invalid_json"
    assert error.param is None


@pytest.mark.parametrize(
    "rest", [b'"x":"\\ud83d\\ude00"}', '"x":"😀"}'.encode(), b'"x":' + b"[" * 300 + b"]" * 300 + b"}"]
)
def test_what_can_be_sent_on_passes(rest: bytes) -> None:
    """Emojis, escaped or not, and a schema hundreds of levels deep are fine."""
    assert decode_chat(b'{"model":"m","messages":[{"role":"user"}],' + rest, 0).model == "m"


def test_byte_order_mark_is_refused() -> None:
    """Upstreams do not take one either."""
    assert refusal(b'\xef\xbb\xbf{"model":"m"}').code == "invalid_json"


def test_usage_is_read_with_its_details() -> None:
    """Cached and reasoning tokens are parts of the two sums; missing and null ones are 0."""
    full = {
        "prompt_tokens": 10,
        "completion_tokens": 5.0,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": None},
    }

    assert wire.parse_usage(msgspec.Raw(msgspec.json.encode(full))) == Usage(10, 5, 4, 1, 0)
    assert wire.parse_usage(msgspec.Raw(b'{"prompt_tokens":null,"prompt_tokens_details":null}')) == Usage()


@pytest.mark.parametrize(
    "raw",
    [
        b"null",
        b'"many"',
        b"[]",
        b'{"prompt_tokens":"x"}',
        b'{"prompt_tokens":1e999}',
        b'{"prompt_tokens":-1}',
        b'{"completion_tokens":' + b"9" * 400 + b"}",
        b'{"prompt_tokens":1e300}',
    ],
)
def test_nonsense_is_no_usage(raw: bytes) -> None:
    """Unknown stays unknown, never 0."""
    assert wire.parse_usage(msgspec.Raw(raw)) is None


def test_usage_survives_the_way_out_and_back() -> None:
    """What the client is told is what is billed."""
    usage = Usage(10, 5, 4, 1, 2)
    told = wire.usage_object(usage)

    assert told["total_tokens"] == 15
    assert wire.parse_usage(msgspec.Raw(msgspec.json.encode(told))) == usage


@pytest.mark.parametrize("usage", [None, Usage(1, 2)])
def test_translated_completion_is_valid(usage: Usage | None) -> None:
    """OpenAI's own types accept it; without usage there is no such key."""
    call = wire.ToolCall(wire.Function("look", "{}"), id="c1", type="function")
    message = wire.Message(tool_calls=[call])

    body = wire.encode_completion(id="x", model="m", created=1, message=message, finish="tool_calls", usage=usage)

    found = ChatCompletion.model_validate_json(body, strict=True)
    assert found.choices[0].message.tool_calls is not None
    assert (found.usage is None) is (usage is None)
    assert (b'"usage"' in body) is (usage is not None)


@pytest.mark.parametrize("asked", [True, False])
def test_translated_chunks_are_valid(asked: bool) -> None:
    """All chunks share id, model and time; `usage: null` rides on them only when usage was asked for."""
    writer = wire.ChunkWriter("x", "m", 1, include_usage=asked)

    stream = (
        writer.delta(wire.Delta(content="a")) + writer.delta(wire.Delta(), "stop", index=1) + writer.usage(Usage(1, 2))
    )
    first, last, usage = chunks(stream + b"data: [DONE]\n\n")

    assert ("usage" in first) is asked
    assert (last["choices"][0]["index"], last["choices"][0]["finish_reason"]) == (1, "stop")
    assert usage["choices"] == []
    for chunk in (first, last, usage):
        assert ChatCompletionChunk.model_validate(chunk).id == "x"


WHOLE = b"""{
  "id": "x", "object": "chat.completion", "created": 3, "model": "m", "system_fingerprint": "fp",
  "choices": [
    {"index": 0, "message": {"role": "assistant", "content": "a\\nb", "refusal": null, "reasoning": "hm"},
     "logprobs": {"content": []}, "finish_reason": "length"},
    {"index": 1, "message": {"role": "assistant", "content": null, "tool_calls": [
      {"id": "c1", "index": 0, "type": "function", "function": {\r\n "name": "f", "arguments": "{}"}},
      {"id": "c2", "index": 0, "type": "function", "function": {"name": "g", "arguments": "{}"}}
    ]}}
  ],
  "usage": {
    "prompt_tokens": 1,
    "completion_tokens": 2, "total_tokens": 3
  }
}"""


def test_whole_answer_becomes_a_stream_with_all_its_fields() -> None:
    """Unknown fields come along; every choice has its content, then its finish; tool calls are numbered."""
    found = chunks(restream.as_stream(WHOLE, include_usage=True))

    deltas = [chunk["choices"][0]["delta"] for chunk in found[:-1]]
    assert deltas[0] == {"role": "assistant", "content": "a\nb", "reasoning": "hm"}
    assert [call["index"] for call in deltas[2]["tool_calls"]] == [0, 1]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found[:-1]] == [None, "length", None, "stop"]
    assert found[0]["choices"][0]["logprobs"] == {"content": []}
    assert all(ChatCompletionChunk.model_validate(chunk).system_fingerprint == "fp" for chunk in found)
    assert [chunk["usage"] for chunk in found] == [None] * 4 + [
        {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    ]


def test_pretty_printed_answer_keeps_its_events_whole() -> None:
    """Line ends between the tokens of an answer must not become line ends of the framing."""
    for event in restream.as_stream(WHOLE, include_usage=True).split(b"\n\n"):
        assert b"\n" not in event
        assert b"\r" not in event


@pytest.mark.parametrize("asked", [True, False])
def test_stream_of_an_answer_without_usage(asked: bool) -> None:
    """What the upstream did not say is not made up, and what the client did not ask for is not sent."""
    body = WHOLE if not asked else b'{"choices":[{"message":{"content":"x","tool_calls":[]}}]}'

    found = chunks(restream.as_stream(body, include_usage=asked))

    assert all(chunk["choices"] for chunk in found)
    assert all(chunk.get("usage") is None for chunk in found)
    assert "tool_calls" not in found[0]["choices"][0]["delta"]


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"choices":[{}]}', b'{"choices":[{"message":{"tool_calls":5}}]}'])
def test_nonsense_is_no_stream(body: bytes) -> None:
    """The caller turns a decode error into its own fault."""
    with pytest.raises(msgspec.DecodeError):
        restream.as_stream(body, include_usage=False)
