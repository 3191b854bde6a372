"""The demo providers against the official OpenAI SDK, and against raw bytes where framing matters."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import openai
import pytest
from pydantic import BaseModel

from proxy import sse
from proxy.demo import DemoProvider, Profile
from proxy.demo_answers import Prefixes

Post = Callable[..., Any]
TEXT = "The nonce is \u2028 4f3a,\n  naïve 🙂 and averyveryveryverylongwordwithoutanyspaces \t"
FIXED = "This is the same sentence every time, whatever you ask."
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}
GRAMMAR: dict[str, Any] = {"type": "custom", "custom": {"name": "grammar"}}


@pytest.fixture
async def provider() -> AsyncIterator[DemoProvider]:
    provider = DemoProvider(Profile("test"))
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture
async def client(provider: DemoProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def post(provider: DemoProvider) -> AsyncIterator[Post]:
    async with aiohttp.ClientSession() as session:

        async def send(model: str, text: str = "one two", **fields: Any) -> tuple[int, bytes]:
            body = chat(model, text, **fields)
            async with session.post(f"{provider.base_url}/chat/completions", json=body) as reply:
                return reply.status, await reply.read()

        yield send


class Person(BaseModel):
    name: str
    friends: list["Person"]


def chat(model: str, text: Any, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def events(body: bytes) -> list[Any]:
    """Return the events of a whole stream, decoded but for [DONE]."""
    decoder = sse.Decoder()
    found = decoder.feed(body) + decoder.close()
    return [event.data.decode() if event.data == b"[DONE]" else json.loads(event.data) for event in found]


async def test_echo_returns_the_last_user_text_unchanged(client: openai.AsyncOpenAI, provider: DemoProvider) -> None:
    """What goes in comes out, byte for byte, so that a mixed-up answer can be seen."""
    reply = await client.chat.completions.create(**chat("gpt-4o-mini", TEXT))

    assert reply.choices[0].message.content == TEXT
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.object, reply.model, reply.system_fingerprint) == ("chat.completion", "gpt-4o-mini", "fp_demo")
    assert (provider.requests, provider.in_flight, len(provider.received)) == (1, 0, 1)


@pytest.mark.parametrize("event_ms", [0, 1])
async def test_a_stream_is_the_same_text_in_pieces(event_ms: float) -> None:
    """The pieces of a stream, joined, are exactly the text, whatever the pace."""
    provider = DemoProvider(Profile("slow", first_event_ms=1, event_ms=event_ms))
    await provider.start()
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="none") as client:
        stream = await client.chat.completions.create(**chat("echo", TEXT), stream=True)
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    await provider.stop()

    assert "".join(said) == TEXT
    assert len(said) > 8


async def test_a_stream_is_framed_as_openai_frames_it(post: Post) -> None:
    """Role, content, finish, usage without choices, [DONE]; usage is null before, because it was asked for."""
    _, body = await post("echo", "one two", stream=True, stream_options={"include_usage": True})
    *chunks, done = events(body)

    assert done == "[DONE]"
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 4
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:-1]] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "one"},
        {"content": " two"},
        {},
    ]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], 2)


async def test_usage_is_not_mentioned_unless_asked_for(post: Post) -> None:
    """Without include_usage no chunk has a usage field."""
    _, body = await post("echo", stream=True)

    assert b"usage" not in body
    assert len({chunk["id"] for chunk in events(body)[:-1]}) == 1


@pytest.mark.parametrize(
    ("fields", "content", "finish"),
    [
        ({"model": "lorem", "max_tokens": 3}, "sed non est", "stop"),
        ({"model": "fixed"}, FIXED, "stop"),
        ({"max_completion_tokens": 2}, "alpha be", "length"),
        ({"stop": "gam"}, "alpha beta ", "stop"),
        ({"stop": ["zeta", " beta"]}, "alpha", "stop"),
        ({"response_format": {"type": "json_object"}}, '{"answer":"alpha beta gamma"}', "stop"),
        ({"response_format": {"type": "json_schema"}}, "{}", "stop"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]},
            "a",
            "stop",
        ),
        ({"messages": [{"role": "assistant", "content": None}], "model": "x"}, FIXED, "stop"),
        ({"messages": [{"role": "tool", "content": "31"}], "model": "lorem"}, "The tool says: 31", "stop"),
    ],
)
async def test_the_request_decides_what_is_said(post: Post, fields: dict[str, Any], content: str, finish: str) -> None:
    """Model, limits, stop words and response format have their effect."""
    status, body = await post(**{"model": "echo", "text": "alpha beta gamma", **fields})
    choice = json.loads(body)["choices"][0]

    assert status == 200
    assert (choice["message"]["content"], choice["finish_reason"]) == (content, finish)


async def test_lorem_is_forty_words_of_one_token_each(client: openai.AsyncOpenAI) -> None:
    """The default answer has a known length in words and in tokens."""
    reply = await client.chat.completions.create(**chat("lorem", "go"))

    assert len((reply.choices[0].message.content or "").split()) == 40
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 40


async def test_a_prompt_may_be_as_large_as_a_picture(client: openai.AsyncOpenAI) -> None:
    """The HTTP library's own limit of 1 MiB does not hold here, neither in nor out."""
    text = "x" * (3 << 20)
    reply = await client.chat.completions.create(**chat("echo", text))

    assert reply.choices[0].message.content == text


async def test_several_choices_are_interleaved(client: openai.AsyncOpenAI, post: Post) -> None:
    """`n` answers come back, and in a stream their events alternate."""
    reply = await client.chat.completions.create(**chat("echo", "one two"), n=2)
    _, body = await post("echo", "one two", n=2, stream=True)

    assert [choice.message.content for choice in reply.choices] == ["one two", "one two"]
    assert [chunk["choices"][0]["index"] for chunk in events(body)[:-1]] == [0, 1] * 4


async def test_a_prompt_seen_before_is_cached(client: openai.AsyncOpenAI) -> None:
    """The second time a long prefix counts as cached tokens, for the same model only."""
    cached = []
    for model, text in [
        ("fixed", "x" * 5000),
        ("fixed", "x" * 5000 + "more"),
        ("echo", "x" * 5000),
        ("fixed", "é" * 9),
    ]:
        reply = await client.chat.completions.create(**chat(model, text))
        assert reply.usage is not None
        assert reply.usage.prompt_tokens_details is not None
        cached.append(reply.usage.prompt_tokens_details.cached_tokens)

    assert cached == [0, 1024, 0, 0]


def test_remembered_prompts_are_bounded() -> None:
    """However many prompts come, the oldest are forgotten."""
    prefixes = Prefixes()
    for i in range(1100):
        prefixes.cached("m", b"%04d" % i * 300)

    assert prefixes.cached("m", b"1099" * 300) == 256
    assert prefixes.cached("m", b"0000" * 300) == 0


async def test_tools_make_a_round_trip(client: openai.AsyncOpenAI) -> None:
    """A call that fits the schema, then an answer that quotes the tool's result."""
    asked: Any = chat("tools", "Weather in Rome?", tools=[WEATHER])
    first = await client.chat.completions.create(**asked)
    calls = first.choices[0].message.tool_calls or []
    call = calls[0].model_dump()
    asked["messages"] += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call["id"], "content": "31 degrees"},
    ]
    second = await client.chat.completions.create(**asked)

    assert (first.choices[0].finish_reason, first.choices[0].message.content) == ("tool_calls", None)
    assert json.loads(call["function"]["arguments"]) == {"city": "city", "unit": "C"}
    assert second.choices[0].message.content == "The tool says: 31 degrees"


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, ["weather"]),
        ({"tool_choice": "none"}, []),
        ({"tool_choice": {"type": "function", "function": {"name": "clock"}}}, ["clock"]),
        ({"tool_choice": {"type": "custom", "custom": {"name": "grammar"}}}, ["grammar"]),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [CLOCK]}}}, ["clock"]),
        ({"text": "ask both"}, ["weather", "clock", "grammar"]),
        ({"text": "ask both", "parallel_tool_calls": False}, ["weather"]),
    ],
)
async def test_the_choice_decides_which_tools_are_called(post: Post, fields: dict[str, Any], names: list[str]) -> None:
    """One tool, the forced one, or all of them when the user asks for both."""
    _, body = await post(**{"model": "echo", "tools": [WEATHER, CLOCK, GRAMMAR], **fields})
    calls = json.loads(body)["choices"][0]["message"].get("tool_calls", [])

    assert [call[call["type"]]["name"] for call in calls] == names
    assert len({call["id"] for call in calls}) == len(calls)


async def test_the_sdk_puts_streamed_calls_together(client: openai.AsyncOpenAI) -> None:
    """Id and name come once per call, the arguments in fragments; the SDK's own accumulator agrees."""
    async with client.chat.completions.stream(**chat("tools", "both", tools=[WEATHER, CLOCK])) as stream:
        completion = await stream.get_final_completion()
    calls = completion.choices[0].message.tool_calls or []

    assert [call.function.name for call in calls] == ["weather", "clock"]
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "city", "unit": "C"}, {}]
    assert completion.choices[0].finish_reason == "tool_calls"


async def test_custom_calls_stream_their_input(post: Post) -> None:
    """A custom tool gets the user's text as its input."""
    _, body = await post("echo", "one two", tools=[GRAMMAR], stream=True)
    calls = [chunk["choices"][0]["delta"]["tool_calls"][0]["custom"] for chunk in events(body)[1:-2]]

    assert "".join(call["input"] for call in calls) == "one two"


async def test_structured_output_parses_to_the_clients_model(client: openai.AsyncOpenAI) -> None:
    """The SDK's own parse() accepts what a JSON schema gets, recursion included."""
    reply = await client.chat.completions.parse(**chat("echo", "tell me"), response_format=Person)
    node = reply.choices[0].message.parsed

    assert node is not None
    assert (node.name, node.friends[0].name) == ("name", "name")


async def test_embeddings_are_the_same_for_the_same_text(client: openai.AsyncOpenAI) -> None:
    """One unit vector per text, the same in the SDK's base64 and in floats."""
    packed = await client.embeddings.create(model="embed", input=["a", "b", "a"])
    floats = await client.embeddings.create(model="embed", input="a", encoding_format="float")
    a, b, again = (row.embedding for row in packed.data)

    assert a == again != b
    assert a == pytest.approx(floats.data[0].embedding)
    assert sum(x * x for x in a) == pytest.approx(1, abs=1e-5)
    assert (len(a), packed.usage.prompt_tokens) == (256, 3)


async def test_embeddings_take_tokens_and_a_size(client: openai.AsyncOpenAI) -> None:
    """Token ids are an input like any other; `dimensions` is obeyed."""
    one = await client.embeddings.create(model="embed", input=[1, 2], dimensions=8)
    two = await client.embeddings.create(model="embed", input=[[1, 2], [3]], dimensions=8)

    assert (len(one.data), len(two.data), len(one.data[0].embedding)) == (1, 2, 8)
    assert one.data[0].embedding == two.data[0].embedding


@pytest.mark.parametrize("fields", [{"input": []}, {"input": [""]}, {"input": 3}, {"input": "a", "dimensions": 9999}])
async def test_a_wrong_embeddings_request_is_refused(client: openai.AsyncOpenAI, fields: dict[str, Any]) -> None:
    """What OpenAI refuses is refused, and the field is named."""
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(**{"model": "embed", **fields})

    assert caught.value.param in fields


async def test_models_are_listed(client: openai.AsyncOpenAI) -> None:
    """The behaviours are models; one that is none of them is not found."""
    ids = [model.id async for model in client.models.list()]

    assert {"echo", "lorem", "fixed"} <= set(ids)
    assert (await client.models.retrieve("lorem")).id == "lorem"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nobody")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/completions", 404), ("GET", "/chat/completions", 405), ("POST", "/models", 405)],
)
async def test_other_doors_are_closed_in_openais_words(
    provider: DemoProvider, method: str, path: str, status: int
) -> None:
    """An unknown path or method gets an OpenAI error object."""
    async with aiohttp.ClientSession() as session, session.request(method, provider.base_url + path) as reply:
        error = (await reply.json())["error"]

    assert reply.status == status
    assert error["type"] == "invalid_request_error"
