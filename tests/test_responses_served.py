"""The Responses API behind a running sidecar: a provider in two languages, and one that gives nothing but streams."""

from typing import Any, Final

import pytest

from tests.conftest import IN_ORDER, Got, Sidecar, StartSidecar, StartUpstream, check_error
from tests.fake_upstream import FakeUpstream, completion, reply, stream

from .responses_words import added, body, completed, created, done, event, function, message, piece, text

WHOLE: Final = message(text("Hello"))
STREAM: Final = (created(), added(0, message()), piece("output_text", 0, "Hello"), done(0, WHOLE))


async def started(sidecar: StartSidecar, up: FakeUpstream, **provider: Any) -> Sidecar:
    return await sidecar(up, provider={"adapter": "responses", **provider})


async def asked(running: Sidecar, **fields: Any) -> Got:
    return await running.post({"model": "test", "messages": [{"role": "user", "content": "hi"}], **fields})


async def test_one_provider_in_two_languages(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A model's row names its language; address and key are the provider's, and the other models stay as they are."""
    up = await upstream(reply(body(WHOLE)), completion("Hi"))
    rows = (
        f'[[provider]]\nname = "openai"\nbase_url = "{up.url}"\napi_key = "env:KEY"\n'
        '[[model]]\nprovider = "openai"\nid = "o3-pro"\nadapter = "responses"\n'
    )
    running = await sidecar(files={"catalog.toml": rows}, environ={"KEY": "k"})

    first = await asked(running, model="openai/o3-pro", temperature=0.5)
    second = await asked(running, model="openai/gpt-4o", temperature=0.5)

    assert (first.text, first.headers["x-sidecar-dropped"]) == ("Hello", "temperature")
    assert (second.text, second.headers.get("x-sidecar-dropped")) == ("Hi", None)
    assert [request.path for request in up.requests] == ["/v1/responses", "/v1/chat/completions"]
    assert {request.headers["authorization"] for request in up.requests} == {"Bearer k"}
    assert "input" in up.requests[0].json


@pytest.mark.parametrize("whole", [(), (WHOLE,)])
async def test_a_complete_answer_of_a_provider_that_streams_only(
    sidecar: StartSidecar, upstream: StartUpstream, whole: tuple[Any, ...]
) -> None:
    """ChatGPT's backend: the client gets one answer, whether the last event repeats it or not."""
    up = await upstream(stream(*STREAM, done(1, function("c1")), completed(*whole)))
    running = await started(sidecar, up, quirks=["stream_only", "instructions", "no_limit"])

    got = await asked(running, max_tokens=20)

    assert got.text == "Hello"
    assert got.headers["x-sidecar-dropped"] == "max_tokens"
    assert up.requests[0].json["stream"] is True
    assert got.json["usage"]["total_tokens"] == 150


async def test_a_stream(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The client hears the words as chunks, and no usage that it did not ask for."""
    running = await started(sidecar, await upstream(stream(*STREAM, completed(WHOLE))))

    got = await asked(running, stream=True)

    assert got.text == "Hello"
    assert got.body.endswith(b"data: [DONE]\n\n")
    assert b"usage" not in got.body
    assert running.log("request")[0]["output_tokens"] == 50


async def test_an_error_before_the_first_word_falls_back(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The status was 200, and a response had been created."""
    broken = await upstream(stream(created(), event("error", code="server_is_overloaded", message="Later.")))
    good = await upstream(stream(*STREAM, completed()))
    running = await sidecar(broken, good, policy=IN_ORDER, provider={"adapter": "responses"})

    got = await asked(running, stream=True)

    assert (got.text, got.headers["x-sidecar-attempts"]) == ("Hello", "2")
    assert [line["kind"] for line in running.log("attempt_failed")] == ["overloaded"]


async def test_an_error_after_it_is_told(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """As the last event, without a goodbye."""
    running = await started(
        sidecar, await upstream(stream(*STREAM, event("error", code="server_error", message="Oh.")))
    )  # fmt: skip

    got = await asked(running, stream=True)

    assert got.text == "Hello"
    assert b'"message":"Oh."' in got.events[-1]
    assert b"[DONE]" not in got.body


async def test_a_failed_response_is_an_error(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Though its status was 200."""
    error = {"code": "invalid_image_url", "message": "No such image."}
    running = await started(sidecar, await upstream(reply(body(status="failed", error=error, usage=None))))

    check_error(await asked(running), 400, "invalid_image_url")
