"""What providers do differently in OpenAI's language, each repair by itself: whole answers, chunks, requests."""

from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from proxy import errors
from proxy.wire import Usage

from .openai_words import (
    ADAPTER,
    DONE,
    USAGE,
    answer,
    chat,
    chunk,
    chunks,
    deltas,
    end,
    event,
    parsed,
    parser,
    say,
    sent,
    target,
    told,
    whole,
)

QUIRKS = sorted(ADAPTER.quirks)
ODD_NUMBERS = b'"x":{"a":1.0,"b":1e3,"c":12345678901234567890,"d":"\\u00e9"}'


# ---- the clean path ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quirk", [(), *((quirk,) for quirk in QUIRKS), tuple(QUIRKS)])
def test_what_is_not_odd_keeps_its_bytes(quirk: tuple[str, ...]) -> None:
    """With every quirk there is, an answer as OpenAI writes it is passed on as it came: spacing, numbers, order."""
    call = b'{"index":0,"id":"t","type":"function","function":{"name":"f","arguments":"{}"}}'
    head = b'{ "id":"c","object":"chat.completion.chunk","created":1,"model":"up","service_tier":"default",'
    steps = [
        b'{"content":"a","reasoning_content":"b"}, "logprobs":{"content":[]},"finish_reason":null',
        b'{"tool_calls":[' + call + b'],"content" : null},"logprobs":null,"finish_reason":null',
    ]
    events = b"".join(event(head + ODD_NUMBERS + b',"choices":[{"index":0,"delta":' + step + b"}]}") for step in steps)
    body = (
        b'{"object":"chat.completion",'
        + ODD_NUMBERS
        + (
            b',"id":"c","created": 1,"model":"up","choices":[{"index":0,"finish_reason":"tool_calls",'
            b'"message":{"role":"assistant","content":"a","tool_calls":[' + call + b"]}}]}"
        )
    )

    assert parser(*quirk).feed(events) == events
    assert parsed(body, *quirk).body == body


@pytest.mark.parametrize("quirk", QUIRKS)
def test_a_repair_leaves_the_rest_of_an_event_alone(quirk: str) -> None:
    """Numbers that a decoder would spell anew, and fields nobody knows, stay also where one was repaired."""
    odd = chunk(
        {"content": [{"type": "text", "text": "a"}], "reasoning": "r", "function_call": {"name": ""}}, object=""
    )
    odd["choices"][0]["logprobs"] = -1.5
    body = msgspec.json.encode(odd)[:-1] + b',"service_tier":"odd",' + ODD_NUMBERS + b"}"

    assert ODD_NUMBERS in parser(quirk).feed(event(body))


@pytest.mark.parametrize("odd", ["text", 7, [7], {"name": 7}])
def test_what_no_repair_understands_is_passed_on(odd: Any) -> None:
    """Nothing in a provider's answer may become a fault of the sidecar's own."""
    names = "content", "function_call", "audio", "tool_calls", "reasoning", "reasoning_content"
    events = [event(chunk({name: odd}, service_tier=odd)) for name in names]

    for quirk in sorted({*QUIRKS} - {"early_finish"}):
        assert len(chunks(told(parser(quirk), *events, end()))) == len(names) + 1


@pytest.mark.parametrize("garbage", [b"nothing", b'{"choices":7}', b'{"choices":[{"delta":7}]}', b"[" * 3000])
def test_no_repair_hides_a_fault(garbage: bytes) -> None:
    """What cannot be read is judged as it came."""
    with pytest.raises(errors.UnavailableError):
        parser(*QUIRKS).feed(event(garbage))
    with pytest.raises(errors.UnavailableError):
        parsed(garbage.replace(b"delta", b"message"), *QUIRKS)


@pytest.mark.parametrize("key", [b'"\\ud800"', b'"\xff"'])
def test_what_no_decoder_reads_is_a_fault_of_the_upstream(key: bytes) -> None:
    """Also where it stands beside what is repaired for every provider."""
    choice = b'{"choices":[{"index":0,"finish_reason":"eos","delta":{' + key + b":1}}]," + key + b":1}"

    with pytest.raises(errors.UnavailableError):
        parser().feed(event(choice))
    with pytest.raises(errors.UnavailableError):
        parsed(choice.replace(b"delta", b"message"))


# ---- choices without what clients read --------------------------------------------------------------------------


def test_a_choice_without_a_message_gets_one() -> None:
    """Azure leaves it out when the answer was filtered; `choices[0].message.content` would crash."""
    body = {**answer(None, "content_filter"), "choices": [{"index": 0, "finish_reason": "content_filter"}]}

    found = ChatCompletion.model_validate_json(parsed(body).body, strict=True)

    assert (found.choices[0].message.content, found.choices[0].finish_reason) == (None, "content_filter")


@pytest.mark.parametrize(("quirks", "kept"), [((), True), (("empty_chunks",), False)])
def test_chunks_without_choices_go_where_the_row_says_so(quirks: tuple[str, ...], kept: bool) -> None:
    """Azure's first one. The usage chunk has no choices either, and comes."""
    first = event({"choices": [], "id": "", "object": "", "prompt_filter_results": []})
    usage = event(chunk(choices=[], usage=USAGE))

    out = told(parser(*quirks, usage=True), first + say("a") + end() + usage + DONE)

    assert out == (first if kept else b"") + say("a") + end() + usage + DONE


# ---- fill_missing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "chat.completion.done", None])
def test_the_kind_of_object_is_filled_in(kind: Any) -> None:
    """Z.ai leaves it out, Perplexity's last chunk has a word of its own. The usage chunk is like the others."""
    last = chunk(finish="stop", object=kind, id="", model=None, created=None, usage=USAGE)
    out = told(parser("fill_missing", usage=True), say("a"), event(last))

    for one in chunks(out):
        ChatCompletionChunk.model_validate_json(msgspec.json.encode(one), strict=True)
    found = ChatCompletion.model_validate_json(
        parsed({**answer({"role": "assistant", "content": "a"}), "object": kind, "id": None}, "fill_missing").body,
        strict=True,
    )
    assert found.id.startswith("chatcmpl-")


def test_all_chunks_get_the_same_id() -> None:
    """Gemini's have none; clients put an answer together by it."""
    nameless = {name: value for name, value in chunk({"content": "a"}).items() if name != "id"}

    assert len({one["id"] for one in chunks(told(parser("fill_missing"), event(nameless) * 3, DONE))}) == 1


# ---- reasoning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reasoning", "reasoning_text"])
def test_reasoning_has_one_name(name: str) -> None:
    """Clients read `reasoning_content`; where both are given, that stands."""
    message = {"content": "a", name: "hm", "reasoning_details": [{"text": "hm"}]}

    assert whole(message, name)["message"] == {
        "content": "a",
        "reasoning_details": [{"text": "hm"}],
        "reasoning_content": "hm",
    }
    assert whole({"content": "a", name: "no", "reasoning_content": "hm"}, name)["message"]["reasoning_content"] == "hm"
    assert whole({"content": "a", name: "hm", "reasoning_content": ""}, name)["message"]["reasoning_content"] == "hm"
    assert deltas(event(chunk({name: "hm"})), quirks=(name,))[0] == {"reasoning_content": "hm"}
    assert whole(message)["message"] == message


@pytest.mark.parametrize("name", ["reasoning", "reasoning_text"])
def test_the_provider_gets_its_own_name_back(name: str) -> None:
    """Groq refuses a name that is not its own. What is no reasoning of a message keeps its bytes."""
    other = b'{"role": "user", "content":"reasoning_content \\"reasoning_content\\"","n":1.0}'
    body = b'{"model":"up","messages":[' + other + b',{"role":"assistant","reasoning_content":"hm"}],"y":1e3}'

    assert sent(body, name) == body.replace(b'"reasoning_content":"hm"', b'"' + name.encode() + b'":"hm"')
    assert sent(body) == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"up","m\\u0065ssages":[{"role":"assistant","reasoning_content":"hm"}]}',
        b'{"model":"up","messages":[{"role":"assistant","reasoning_content":"hm","\\ud83d\\ude00":1}]}',
    ],
)
def test_names_are_found_however_the_request_is_written(body: bytes) -> None:
    """Escapes in keys do not matter."""
    message = msgspec.json.decode(sent(body, "reasoning"))["messages"][0]
    assert (message["reasoning"], "reasoning_content" in message) == ("hm", False)


# ---- content ----------------------------------------------------------------------------------------------------

THOUGHT: dict[str, Any] = {
    "type": "thinking",
    "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}],
}


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab", None),
        ([THOUGHT, {"type": "text", "text": "a"}], "a", "hm"),
        ([THOUGHT], "", "hm"),
        ([{"type": "thinking", "thinking": "hm"}, "a"], "a", "hm"),
        (["a", {"type": "reference", "reference_ids": [1]}, 7, {"type": "text", "text": None}], "a", None),
        ([], "", None),
        ({"n": 1.0, "a": [1]}, '{"n":1.0,"a":[1]}', None),
    ],
)
def test_content_is_text(content: Any, text: str, reasoning: str | None) -> None:
    """Mistral's lists and Cloudflare's objects become what OpenAI's types and everybody's clients expect."""
    expected = {"content": text} | ({} if reasoning is None else {"reasoning_content": reasoning})

    assert whole({"content": content}, "content_parts")["message"] == expected
    assert deltas(event(chunk({"content": content})), quirks=("content_parts",))[0] == expected


def test_content_that_is_text_stays() -> None:
    """Lists and strings alternate in one stream."""
    events = say("a"), event(chunk({"content": [{"type": "text", "text": "b"}]})), say('"content":[')

    assert [one.get("content") for one in deltas(*events, quirks=("content_parts",))] == ["a", "b", '"content":[', None]
    odd = event(chunk({"content": "a", "x": {"content": [1]}}))
    assert parser("content_parts").feed(odd) == odd


# ---- small things -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["on_demand", "provisioned", ""])
def test_unknown_tiers_are_left_out(tier: str) -> None:
    """OpenAI's types are strict about them; its own stay."""
    body = answer({"content": "a"}, service_tier=tier)

    assert "service_tier" not in msgspec.json.decode(parsed(body, "service_tier").body)
    assert msgspec.json.decode(parsed(body).body)["service_tier"] == tier
    assert b"service_tier" in parser("service_tier").feed(event(chunk({"content": "a"}, service_tier="flex")))


def test_logprobs_are_an_object() -> None:
    """A number is of no use to any client."""
    odd = answer({"content": "a"})
    odd["choices"][0]["logprobs"] = -1.5

    assert msgspec.json.decode(parsed(odd, "logprobs").body)["choices"][0]["logprobs"] is None
    assert msgspec.json.decode(parsed(odd).body)["choices"][0]["logprobs"] == -1.5


def test_annotations_are_openais() -> None:
    """Files (OpenRouter) and bare addresses are kept under another name; in chunks, where all may stand, nothing is."""
    cited = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 1, "title": "t", "url": "u"}}
    file, bare = {"type": "file", "file": {"hash": "h"}}, {"type": "url_citation", "url_citation": {"url": "u"}}
    said = whole({"role": "assistant", "content": "a", "annotations": [file, cited, bare]}, "annotations")["message"]

    assert said["annotations"] == [cited]
    assert said["other_annotations"] == [file, bare]
    for kept in ([cited], [], None):
        body = msgspec.json.encode(answer({"role": "assistant", "content": "a", "annotations": kept}))
        assert parsed(body, "annotations").body == body
    odd = event(chunk({"content": "a", "annotations": [file]}))
    assert parser("annotations").feed(odd) == odd


def test_blank_calls_are_none() -> None:
    """Clients take a `function_call` for a call and `audio` for a sound; real ones stay."""
    blank = {"content": "a", "function_call": {"name": "", "arguments": ""}, "audio": {"id": "", "data": ""}}
    real = {"content": "a", "function_call": {"name": "f", "arguments": ""}, "audio": {"id": "s"}}

    assert whole(blank, "blank_fields")["message"] == {"content": "a"}
    assert whole(real, "blank_fields")["message"] == real
    assert whole(blank)["message"] == blank


@pytest.mark.parametrize(
    ("usage", "normal"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, Usage(10, 5)),
        # xAI
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 22,
                "completion_tokens_details": {"reasoning_tokens": 7},
            },
            Usage(10, 12, reasoning=7),
        ),
        # reasoning within, as OpenAI counts it
        (USAGE | {"completion_tokens_details": {"reasoning_tokens": 5}}, Usage(10, 5, reasoning=5)),
        # Mistral
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 115,
                "prompt_tokens_details": {"audio_tokens": 100},
            },
            Usage(110, 5, audio_input=100),
        ),
        (USAGE | {"prompt_cache_hit_tokens": 4}, Usage(10, 5, 4)),
        (USAGE | {"cached_tokens": 4}, Usage(10, 5, 4)),
        (USAGE | {"reasoning_tokens": 3}, Usage(10, 5, reasoning=3)),
        # a total that nothing explains, and what cannot be a count
        (USAGE | {"total_tokens": 40}, Usage(10, 5)),
        (USAGE | {"total_tokens": 10**300, "cached_tokens": -1}, Usage(10, 5)),
        (USAGE | {"total_tokens": "many"}, Usage(10, 5)),
        (USAGE | {"total_tokens": None}, Usage(10, 5)),
        ("none", None),
    ],
)
def test_usage_is_counted_as_openai_does(usage: Any, normal: Usage | None) -> None:
    """In the log and the price; the client gets the provider's numbers."""
    stream, body = parser(), answer({"content": "a"}, usage=usage)
    told(stream, say("a") + end(usage=usage))

    assert stream.usage == normal
    assert parsed(body).usage == normal
    assert msgspec.json.decode(parsed(body).body)["usage"] == usage


def test_thoughts_that_only_the_total_has() -> None:
    """Gemini's compatible endpoint; they are generated and billed."""
    usage = USAGE | {"total_tokens": 40}

    assert parsed(answer({"content": "a"}, usage=usage), "thoughts_in_total").usage == Usage(10, 30, reasoning=25)
    assert parsed(answer({"content": "a"}, usage=USAGE), "thoughts_in_total").usage == Usage(10, 5)


def test_usage_without_choices_gets_some() -> None:
    """A usage chunk that leaves `choices` out is told as one that has none."""
    bare = {name: value for name, value in chunk(usage=USAGE).items() if name != "choices"}

    assert chunks(told(parser(usage=True), say("a") + end() + event(bare)))[-1]["choices"] == []


def test_the_old_name_of_the_limit() -> None:
    """DeepSeek, Mistral and Ollama do not know the new one."""
    body = b'{"model":"up","messages":[{"role":"user"}],"max_completion_tokens": 5}'

    assert sent(body, "max_tokens") == body.replace(b"max_completion_tokens", b"max_tokens")
    assert sent(body, "max_tokens", "max_completion_tokens") == body
    assert ADAPTER.render(chat(max_tokens=5), target("max_tokens")).body == chat(max_tokens=5).raw.replace(
        b'"m"', b'"up"'
    )


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "too long", "code": "context_length_exceeded"}},
        {"error": {"message": "too long", "type": "exceed_context_size_error", "code": 400}},
        {"error": {"message": "too long", "type": "too_many_prompt_tokens", "code": 400}},
        {"error": {"message": "Please reduce the length of the messages or completion."}},
        {"error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens."},
    ],
)
def test_a_prompt_that_is_too_long(body: Any) -> None:
    """By code or type where there is one (Groq, llama.cpp, Perplexity), by its words where not (xAI)."""
    assert type(ADAPTER.parse_error(400, {}, msgspec.json.encode(body))) is errors.ContextLengthError
