"""What an app does with the official OpenAI SDK. One script for three majors; it knows nothing about the sidecar.

It runs in a virtual environment that holds only the SDK. Address and key come as apps give them to the SDK, in
OPENAI_BASE_URL and OPENAI_API_KEY. For each behaviour it prints one line, {"name": ..., "problem": text or null}.
The models it asks for are set up in `world.py`.
"""

import asyncio
import json
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

MODEL: Final = "gpt-4o-mini"
TEXT: Final = "Say it as it is: na\u00efve \u2028 \U0001f642, word by word."
MESSAGES: Final[Any] = [{"role": "user", "content": TEXT}]
WEATHER: Final[Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Person(BaseModel):
    """What `parse` is asked for."""

    name: str
    age: int


def answers_whole(client: OpenAI) -> None:
    """An unchanged app with an unchanged model name gets an answer, a reason and a bill."""
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)

    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0


def streams_word_by_word(client: OpenAI) -> None:
    """The pieces of a stream are the answer; usage that nobody asked for is not among them."""
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))

    said = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(said) == TEXT
    assert len([piece for piece in said if piece]) > 5
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert not any(chunk.usage for chunk in chunks)


def streams_usage_when_asked(client: OpenAI) -> None:
    """With include_usage, the last chunk holds the bill and no choice."""
    asked: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, stream_options=asked))

    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


def leaves_a_stream_early(client: OpenAI) -> None:
    """A client that stops listening can go on with the next request."""
    stream = client.chat.completions.create(model="flaky/fault/stall-after-3", messages=MESSAGES, stream=True)
    next(iter(stream))
    stream.close()

    answers_whole(client)


def serves_many_at_once(client: OpenAI) -> None:
    """Twenty async calls and twenty async streams side by side all get their own answer."""

    async def whole(many: AsyncOpenAI, text: str) -> bool:
        answer = await many.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}])
        return answer.choices[0].message.content == text

    async def streamed(many: AsyncOpenAI, text: str) -> bool:
        messages: Any = [{"role": "user", "content": text}]
        stream = await many.chat.completions.create(model=MODEL, messages=messages, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == text

    async def side_by_side() -> list[bool]:
        async with AsyncOpenAI() as many:
            calls = [each(many, f"{i} for {each.__name__}") for i in range(20) for each in (whole, streamed)]
            return await asyncio.gather(*calls)

    assert asyncio.run(side_by_side()) == [True] * 40


def calls_a_tool_and_back(client: OpenAI) -> None:
    """The model calls a tool, is told the result, and answers with it."""
    first = client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=[WEATHER])
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls
    call: Any = message.tool_calls[0]
    assert list(json.loads(call.function.arguments)) == ["city"]

    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    history: Any = [*MESSAGES, message.model_dump(exclude_none=True), result]
    second = client.chat.completions.create(model=MODEL, messages=history, tools=[WEATHER])

    assert "rain" in (second.choices[0].message.content or "")


def streams_a_tool_call(client: OpenAI) -> None:
    """A call's name comes once, its arguments in pieces that join to JSON."""
    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=[WEATHER], stream=True)
    parts = [call for chunk in stream for choice in chunk.choices for call in choice.delta.tool_calls or ()]

    assert [part.function.name for part in parts if part.function and part.function.name] == ["weather"]
    arguments = "".join(part.function.arguments or "" for part in parts if part.function)
    assert list(json.loads(arguments)) == ["city"]


def shows_headers(client: OpenAI) -> None:
    """`with_raw_response` shows who answered and how long it took; the request id is where the SDK looks for it."""
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)

    assert "/" in raw.headers["x-sidecar-upstream"]
    assert raw.headers["x-sidecar-attempts"] == "1"
    assert "proxy;dur=" in raw.headers["server-timing"]
    answer = raw.parse()
    assert answer.choices[0].message.content == TEXT
    assert answer._request_id == raw.headers["x-request-id"]


def parses_into_a_model(client: OpenAI) -> None:
    """`parse` sends a strict schema and gets an object that is true to it."""
    answer = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Person)

    person = answer.choices[0].message.parsed
    assert isinstance(person, Person)


def helps_with_streams(client: OpenAI) -> None:
    """The stream helper accumulates deltas and ends with the whole completion."""
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content == TEXT


def lists_models(client: OpenAI) -> None:
    """What can be asked for is listed; each can be looked up, a name with a slash too."""
    names = [model.id for model in client.models.list()]

    assert {"demo", "swift/echo"} <= set(names)
    assert [client.models.retrieve(name).id for name in names] == names


def _error(act: Callable[[], object], kind: type[openai.APIError]) -> Any:
    """Return the error that `act` raises; it must be exactly a `kind`."""
    try:
        act()
    except openai.APIError as error:
        found = error
    else:
        raise AssertionError("nothing was raised")
    assert type(found) is kind, f"{type(found).__name__} instead of {kind.__name__}: {found}"
    return found


def _raises(client: OpenAI, kind: type[openai.APIError], model: str, status: int | None = None, **more: Any) -> Any:
    """Return the error that asking `model` raises, streamed as well as whole."""

    def ask(stream: bool) -> None:
        answer = client.chat.completions.create(model=model, messages=MESSAGES, stream=stream, **more)
        if stream:
            list(answer)

    for error in (_error(partial(ask, stream), kind) for stream in (True, False)):
        if status is not None:
            assert error.status_code == status
            assert error.request_id
    return error


def raises_bad_request(client: OpenAI) -> None:
    """400 with the code that apps look for."""
    assert _raises(client, openai.BadRequestError, "flaky/fault/400", 400).code == "invalid_value"
    error = _raises(client, openai.BadRequestError, "flaky/fault/400-context", 400)
    assert error.code == "context_length_exceeded"
    assert _raises(client, openai.BadRequestError, MODEL, 400, temperature="hot").param


def raises_authentication(client: OpenAI) -> None:
    """401 when the sidecar's own key is wrong."""
    wrong = client.with_options(api_key="wrong", max_retries=2)
    assert _raises(wrong, openai.AuthenticationError, MODEL, 401).code == "invalid_api_key"


def raises_permission_denied(client: OpenAI) -> None:
    """403 for what comes from a foreign web page."""
    foreign = {"origin": "https://example.com"}
    assert _raises(client, openai.PermissionDeniedError, MODEL, 403, extra_headers=foreign).code == "forbidden_origin"


def raises_not_found(client: OpenAI) -> None:
    """404 for a name that means nobody, here and at the provider."""
    assert _raises(client, openai.NotFoundError, "no-such-model", 404).code == "model_not_found"
    assert _raises(client, openai.NotFoundError, "flaky/fault/404", 404).code == "model_not_found"


def raises_rate_limit(client: OpenAI) -> None:
    """429 for a limit that heals and for credit that is used up; the first says when."""
    patient = client.with_options(max_retries=0)
    error = _raises(patient, openai.RateLimitError, "flaky/fault/429", 429)
    assert error.code == "rate_limit_exceeded"
    assert float(error.response.headers["retry-after"]) > 0
    assert _raises(patient, openai.RateLimitError, "flaky/fault/429-quota", 429).code == "insufficient_quota"


def raises_internal_server_error(client: OpenAI) -> None:
    """500, 502, 503 and 504 are all the SDK's InternalServerError, never a web page."""
    once = client.with_options(max_retries=0)
    _raises(once, openai.InternalServerError, "flaky/fault/500", 500)
    _raises(once, openai.InternalServerError, "flaky/fault/html", 502)
    _raises(once, openai.InternalServerError, "flaky/fault/401", 502)
    _raises(once, openai.InternalServerError, "flaky/fault/503", 503)
    _raises(once, openai.InternalServerError, "impatient", 504)


def raises_in_mid_stream(client: OpenAI) -> None:
    """A stream that breaks after its first words raises APIError with a code; it never just ends."""
    said: list[str] = []

    def listen(fault: str) -> None:
        for chunk in client.chat.completions.create(model=f"flaky/fault/{fault}", messages=MESSAGES, stream=True):
            said.extend(choice.delta.content for choice in chunk.choices if choice.delta.content)

    for fault in ("error-after-3", "cut-after-3", "garbage-after-3"):
        said.clear()
        assert _error(partial(listen, fault), openai.APIError).code, fault
        assert said, fault


def raises_timeout(client: OpenAI) -> None:
    """The app's own timeout is APITimeoutError. The header keeps the sidecar from answering 504 at that moment."""
    hurried = client.with_options(timeout=0.3, max_retries=0)
    unhurried = {"x-stainless-read-timeout": "60"}
    _raises(hurried, openai.APITimeoutError, "flaky/fault/hang", extra_headers=unhurried)


def asks_a_dead_chain_once(client: OpenAI) -> None:
    """The SDK does not try again when every upstream has failed for good. `world.py` counts what arrived."""
    _raises(client.with_options(max_retries=2), openai.InternalServerError, "doomed", 500)


def retries_what_heals(client: OpenAI) -> None:
    """A 429 with Retry-After is asked again by the SDK, and then answered."""
    answer = client.with_options(max_retries=3).chat.completions.create(model="healing", messages=MESSAGES)

    assert answer.choices[0].message.content == "healed"


BEHAVIOURS: Final[tuple[Callable[[OpenAI], None], ...]] = (
    answers_whole,
    streams_word_by_word,
    streams_usage_when_asked,
    leaves_a_stream_early,
    serves_many_at_once,
    calls_a_tool_and_back,
    streams_a_tool_call,
    shows_headers,
    parses_into_a_model,
    helps_with_streams,
    lists_models,
    raises_bad_request,
    raises_authentication,
    raises_permission_denied,
    raises_not_found,
    raises_rate_limit,
    raises_internal_server_error,
    raises_in_mid_stream,
    raises_timeout,
    asks_a_dead_chain_once,
    retries_what_heals,
)


def main() -> None:
    """Try each behaviour and say how it went."""
    print(json.dumps({"version": openai.__version__}), flush=True)
    for behaviour in BEHAVIOURS:
        problem = None
        try:
            with OpenAI() as client:
                behaviour(client)
        except Exception:
            problem = traceback.format_exc()
        print(json.dumps({"name": behaviour.__name__, "problem": problem}), flush=True)


if __name__ == "__main__":
    main()
