"""Each fault script of the demo providers, as the official OpenAI SDK or a raw client sees it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import openai
import pytest

from proxy.demo import PROFILES, DemoProvider, Profile

Ask = Callable[..., Any]


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
async def post(provider: DemoProvider) -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession() as session:

        def send(script: str, text: str = "one two", **fields: Any) -> Any:
            body = {"model": f"fault/{script}", "messages": [{"role": "user", "content": text}], **fields}
            return session.post(f"{provider.base_url}/chat/completions", json=body)

        yield send


def chat(script: str) -> dict[str, Any]:
    return {"model": f"fault/{script}", "messages": [{"role": "user", "content": "one two"}]}


async def said(stream: Any) -> list[str]:
    """Return the content events that arrive before the stream ends or breaks."""
    texts: list[str] = []
    try:
        async for chunk in stream:
            texts += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    except (openai.APIError, json.JSONDecodeError) as error:
        texts.append(type(error).__name__)
    return texts


async def settled(provider: DemoProvider) -> bool:
    """Return True once nothing is in flight; raises TimeoutError if something stays."""
    return await asyncio.wait_for(provider.idle.wait(), 5)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "status", "code", "retry_after"),
    [
        ("400", 400, "invalid_value", None),
        ("400-context", 400, "context_length_exceeded", None),
        ("400-filter", 400, "content_policy_violation", None),
        ("401", 401, "invalid_api_key", None),
        ("403", 403, "unsupported_country_region_territory", None),
        ("404", 404, "model_not_found", None),
        ("429", 429, "rate_limit_exceeded", "1"),
        ("429-quota", 429, "insufficient_quota", None),
        ("500", 500, "server_error", None),
        ("503", 503, "server_is_overloaded", "1"),
        ("529", 529, None, None),
    ],
)
async def test_a_refusal_is_raised_by_the_sdk(
    client: openai.AsyncOpenAI, script: str, status: int, code: str | None, retry_after: str | None, stream: bool
) -> None:
    """Status, code and Retry-After are a provider's own, streaming or not."""
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(**chat(script), stream=stream)

    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.response.headers.get("retry-after") == retry_after


@pytest.mark.parametrize(
    ("script", "texts"),
    [
        ("cut-after-0", ["APIConnectionError"]),
        ("cut-after-3", ["one", " two", " sed", "APIConnectionError"]),
        ("garbage-after-1", ["one", "JSONDecodeError"]),
        ("error-after-2", ["one", " two", "APIError"]),
        ("empty", []),
        ("no-done", ["one", " two"]),
        ("no-finish", ["one", " two"]),
        ("slow-1", ["one", " two"]),
        ("crlf", ["one", " two"]),
        ("comments", ["one", " two"]),
    ],
)
async def test_a_stream_shows_its_fault_to_the_sdk(client: openai.AsyncOpenAI, script: str, texts: list[str]) -> None:
    """What was said before the fault arrives; then it breaks as a real provider's stream would."""
    stream: Any = await client.chat.completions.create(**chat(script), stream=True)

    assert await said(stream) == texts


@pytest.mark.parametrize(
    ("script", "present", "absent"),
    [
        ("no-done", b'"finish_reason":"stop"', b"[DONE]"),
        ("no-finish", b"[DONE]", b'"finish_reason":"stop"'),
        ("empty", b'"finish_reason":"stop"', b'"content":"one"'),
        ("error-after-1", b'data: {"error":{', b"[DONE]"),
        ("garbage-after-1", b"[DONE]", b"\r"),
        ("usage-everywhere", b'"finish_reason":null}],"usage":{', b'"choices":[]'),
        ("usage-on-finish", b'"finish_reason":"stop"}],"usage":{', b'"choices":[]'),
        ("no-usage", b"[DONE]", b"total_tokens"),
        ("crlf", b"[DONE]\r\n\r\n", b"}\n"),
        ("comments", b": keep-alive\n\ndata: [DONE]\n\n", b"\r"),
    ],
)
async def test_a_stream_has_the_scripted_bytes(post: Ask, script: str, present: bytes, absent: bytes) -> None:
    """The SDK forgives much, so the framing is read raw."""
    asked = {"stream_options": {"include_usage": True}} if "-on-" in script or script == "no-usage" else {}
    async with post(script, stream=True, **asked) as reply:
        body = await reply.read()

    assert reply.status == 200
    assert present in body
    assert absent not in body


@pytest.mark.parametrize("script", ["truncated", "cut-after-1"])
async def test_a_complete_answer_is_cut_short(post: Ask, provider: DemoProvider, script: str) -> None:
    """The head promises more bytes than come before the socket closes."""
    async with post(script) as reply:
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()

    assert reply.status == 200
    assert await settled(provider)


@pytest.mark.parametrize(("script", "stream"), [("malformed", True), ("malformed", False), ("garbage-after-1", False)])
async def test_a_complete_answer_is_broken_json(post: Ask, script: str, stream: bool) -> None:
    """Status and content type are right, the body is not."""
    async with post(script, stream=stream) as reply:
        body = await reply.read()

    assert (reply.status, reply.content_type) == (200, "application/json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)


async def test_a_gateways_html_page(post: Ask) -> None:
    """A proxy before the provider answers in its own language."""
    async with post("html") as reply:
        body = await reply.text()

    assert (reply.status, reply.content_type) == (502, "text/html")
    assert body.startswith("<html>")


@pytest.mark.parametrize(
    ("script", "finish", "content", "usage"),
    [
        ("empty", "stop", "", True),
        ("no-finish", None, "one two", True),
        ("no-usage", "stop", "one two", False),
        ("usage-everywhere", "stop", "one two", True),
    ],
)
async def test_a_complete_answer_leaves_out_what_the_script_says(
    client: openai.AsyncOpenAI, script: str, finish: str | None, content: str, usage: bool
) -> None:
    """Faults of shape have their like in an answer that is not a stream."""
    reply = await client.chat.completions.create(**chat(script))

    assert (reply.choices[0].finish_reason, reply.choices[0].message.content) == (finish, content)
    assert (reply.usage is not None) is usage


async def test_an_error_in_a_stream_is_a_500_without_one(post: Ask) -> None:
    """Nothing was committed yet, so the status can still say it."""
    async with post("error-after-1") as reply:
        assert reply.status == 500


async def test_a_closed_connection_has_no_answer(client: openai.AsyncOpenAI, provider: DemoProvider) -> None:
    """`close` accepts the request and hangs up."""
    with pytest.raises(openai.APIConnectionError):
        await client.chat.completions.create(**chat("close"))

    assert await settled(provider)


async def test_a_client_that_leaves_ends_a_hanging_request(client: openai.AsyncOpenAI, provider: DemoProvider) -> None:
    """`hang` never answers, but a client that gives up is noticed at once."""
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.05).chat.completions.create(**chat("hang"))

    assert provider.requests == 1
    assert await settled(provider)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_a_stalled_answer(post: Ask, provider: DemoProvider, stream: bool) -> None:
    """`stall-after` keeps the connection open until the client is gone."""
    async with post("stall-after-1", stream=stream) as reply:
        start = await reply.content.read(16)

    assert start.startswith(b"data: " if stream else b'{"id":')
    assert await settled(provider)


async def test_stop_cuts_what_is_in_flight(post: Ask, provider: DemoProvider) -> None:
    """A provider that is stopped does not wait for its clients, and may be stopped twice."""
    async with post("stall-after-1", stream=True) as reply:
        await reply.content.read(16)
        await provider.stop()
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()
    await provider.stop()

    assert provider.in_flight == 0


async def test_a_provider_that_is_down_answers_503_until_it_is_up(client: openai.AsyncOpenAI) -> None:
    """`down` can be set and taken back at any time, also for the list of models."""
    provider = DemoProvider(PROFILES[1])
    await provider.start()
    other = client.with_options(base_url=provider.base_url)
    provider.down = True
    with pytest.raises(openai.InternalServerError):
        await other.models.list()
    shown = repr(provider)
    provider.down = False

    assert (await other.chat.completions.create(**chat("slow-0"))).usage is not None
    assert "swift down" in shown
    await provider.stop()


async def test_a_profile_may_be_faulty_for_every_model(client: openai.AsyncOpenAI) -> None:
    """A profile's script holds for any model and endpoint, and can be changed while running."""
    provider = DemoProvider(Profile("ill", fault="401"))
    await provider.start()
    other = client.with_options(base_url=provider.base_url)
    with pytest.raises(openai.AuthenticationError):
        await other.embeddings.create(model="embed", input="a")
    provider.fault = ""

    assert len((await other.embeddings.create(model="embed", input="a")).data) == 1
    await provider.stop()


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"\xff",
        b'{"model":"echo","messages":[]}',
        b'{"model":"echo","messages":[{"role":"user"}],"n":9}',
        b'{"model":"echo","messages":[{"role":"user"}],"max_tokens":0}',
        b'{"model":"echo","messages":[{"role":"user"}],"stop":5}',
        b'{"model":"echo","messages":[{"role":"user"}],"x":1,"x":"\\ud800"}',
        b'{"model":"echo","messages":[{"role":"user"}],"tools":[{"type":"function"}]}',
        b'{"model":"echo","messages":[{"role":"user"}],"tools":[{"type":"custom","custom":{"name":"a"}}],'
        b'"tool_choice":{"type":"custom","custom":{"name":"b"}}}',
        b'{"model":"fault/nonsense","messages":[{"role":"user"}]}',
        b'{"model":"fault/nonsense-1","messages":[{"role":"user"}]}',
    ],
)
async def test_a_wrong_request_is_refused(provider: DemoProvider, body: bytes) -> None:
    """Anything but a chat request is a 400 with an OpenAI error object, and nothing stays in flight."""
    url = f"{provider.base_url}/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as reply:
        error = (await reply.json())["error"]

    assert (reply.status, error["type"], provider.in_flight) == (400, "invalid_request_error", 0)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"input":"\xff"}', b"[" * 100_000])
async def test_a_wrong_embeddings_body_is_refused(provider: DemoProvider, body: bytes) -> None:
    """Broken JSON and other types than an object are a 400, however deep they nest."""
    async with aiohttp.ClientSession() as session, session.post(f"{provider.base_url}/embeddings", data=body) as reply:
        error = (await reply.json())["error"]

    assert (reply.status, error["type"]) == (400, "invalid_request_error")
