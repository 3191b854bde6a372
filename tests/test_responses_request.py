"""The request for a response that a provider is sent for OpenAI's chat request."""

from typing import Any

import msgspec
import pytest

from adapters._responses.models import reasons, samples
from proxy.adapter import Target

from .responses_words import ADAPTER, RESPONSES, sent, to
from .translated_words import FORMAT, HI, SCHEMA, TOOL, call, called, chat, image, result

LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
PLAIN = "gpt-4.1"


def test_a_plain_request() -> None:
    """Model and messages, at the API's path; nothing is stored, nothing else is said."""
    rendered = to()

    assert rendered.path == "/responses"
    assert msgspec.json.decode(rendered.body) == {"model": "gpt-5.3-codex", "input": [HI], "store": False}
    assert (rendered.dropped, dict(rendered.headers)) == ((), {})
    assert sent(stream=True, stream_options={"include_usage": True})["stream"] is True
    assert sent(store=True)["store"] is True


def test_what_both_know_goes_through() -> None:
    """As it came, under its own name; what says nothing is not sent."""
    same = {
        "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s", "service_tier": "flex", "prompt_cache_key": "k",
        "prompt_cache_options": {"mode": "explicit"}, "prompt_cache_retention": "24h", "max_tool_calls": 3,
        "truncation": "auto", "moderation": {"model": "m"}, "previous_response_id": "resp_0",
    }  # fmt: skip
    body = sent(**same)

    del body["model"], body["input"], body["store"]
    assert body == same
    assert "user" not in sent(user=None)


@pytest.mark.parametrize(
    ("given", "limit"),
    [({"max_tokens": 50}, 50), ({"max_completion_tokens": 60, "max_tokens": 50}, 60), ({"max_tokens": 1}, 16)],
)
def test_the_limit_has_another_name(given: dict[str, int], limit: int) -> None:
    """And a least; never more than the model can say."""
    assert sent(**given)["max_output_tokens"] == limit
    target = Target("m", max_output=40)
    assert msgspec.json.decode(ADAPTER.render(chat(**given), target).body)["max_output_tokens"] == min(limit, 40)


def test_sampling_goes_to_models_that_take_it() -> None:
    """The others answer 400: it is left out, and the client is told."""
    given: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "logprobs": True, "top_logprobs": 2}

    body = sent(model=PLAIN, **given)
    assert (body["temperature"], body["top_p"], body["top_logprobs"]) == (0.5, 0.9, 2)
    assert body["include"] == ["message.output_text.logprobs"]
    assert sent(model=PLAIN, logprobs=True)["top_logprobs"] == 0

    rendered = to(**given)
    assert rendered.dropped == ("temperature", "top_p", "logprobs")
    assert not {"temperature", "top_p", "top_logprobs", "include"} & msgspec.json.decode(rendered.body).keys()


@pytest.mark.parametrize(
    ("model", "effort", "reasoning", "sampling"),
    [
        ("o3-pro", None, True, False),
        ("o4-mini-deep-research-2025-06-26", None, True, False),
        ("codex-mini-latest", None, True, False),
        ("gpt-5", None, True, False),
        ("gpt-5-2025-08-07", "none", True, False),
        ("gpt-5-pro", None, True, False),
        ("gpt-5-chat-latest", None, False, True),
        ("gpt-5.1", None, True, True),
        ("gpt-5.1", "low", True, False),
        ("gpt-5.4-mini", "none", True, True),
        ("gpt-5.3-codex", "none", True, False),
        ("gpt-5.2-pro", "none", True, False),
        ("openai.gpt-5.5", None, True, False),
        ("openai/gpt-5.6-sol", "none", True, True),
        ("gpt-6-sol", None, True, False),
        ("grok-4.3", None, True, True),
        ("gpt-4o", None, False, True),
        ("my-deployment", None, False, True),
        ("my-deployment", "low", True, True),
        ("my-deployment", "none", False, True),
    ],
)
def test_models_by_name(model: str, effort: str | None, *, reasoning: bool, sampling: bool) -> None:
    """Whose reasoning can be had encrypted, and who takes a temperature."""
    assert (reasons(model, effort), samples(model, effort)) == (reasoning, sampling)


def test_what_has_no_word_is_dropped_and_named() -> None:
    """A parameter that cannot be taken is left out, and the client is told; one that says nothing is not."""
    rendered = to(
        stop="x", seed=0, frequency_penalty=0.5, presence_penalty=0, logit_bias={"1": 1}, top_k=3, prediction={},
        tool_choice="required", parallel_tool_calls=True,
    )  # fmt: skip

    assert sorted(rendered.dropped) == [
        "frequency_penalty", "logit_bias", "prediction", "seed", "stop", "tool_choice", "top_k"
    ]  # fmt: skip
    assert to(stop=[], logprobs=False, tool_choice="auto").dropped == ()


def test_what_is_dropped_may_be_forwarded() -> None:
    """Where the policy says so."""
    rendered = ADAPTER.render(chat(seed=7, stop="x"), Target("m", forward=True))

    assert rendered.dropped == ()
    assert msgspec.json.decode(rendered.body)["seed"] == 7


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "tool_choice"),
        ({"tools": [TOOL, {"type": "function"}]}, "tools[1].function"),
        ({"tools": [TOOL], "tool_choice": "some"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
    ],
)
def test_what_it_cannot_carry_is_for_another_upstream(fields: dict[str, Any], param: str) -> None:
    """Refused before anybody is asked, with the name of what it was."""
    assert RESPONSES.refusal(**fields).param == param


def test_reasoning() -> None:
    """The effort as it came; a summary where the row or the client wants one, and reasoning is wanted at all."""
    assert sent(reasoning_effort="xhigh")["reasoning"] == {"effort": "xhigh"}
    assert sent(reasoning_effort="low", quirks="reasoning_summary")["reasoning"] == {"effort": "low", "summary": "auto"}
    assert sent(reasoning_effort="none", quirks="reasoning_summary")["reasoning"] == {"effort": "none"}
    assert "reasoning" not in sent(quirks="reasoning_summary")
    own = {"summary": "detailed"}
    assert sent(reasoning_effort="low", reasoning=own, quirks="reasoning_summary")["reasoning"] == {
        "summary": "detailed", "effort": "low"
    }  # fmt: skip
    assert sent(reasoning={"effort": "high"}, reasoning_effort="low")["reasoning"] == {"effort": "high"}


def test_encrypted_reasoning_is_asked_for() -> None:
    """Where it can have a use: with tools, at a model that reasons, when the provider itself does not keep it."""
    assert sent(tools=[TOOL])["include"] == ["reasoning.encrypted_content"]
    assert "include" not in sent()
    assert "include" not in sent(tools=[TOOL], model=PLAIN)
    assert "include" not in sent(tools=[TOOL], store=True)
    own = ["web_search_call.action.sources", "reasoning.encrypted_content"]
    assert sent(tools=[TOOL], include=own)["include"] == own


def test_formats() -> None:
    """They lie under `text`; whether a schema is strict is said each time, and one without a schema is any object."""
    schema = {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": False}
    named = {"name": "x", "schema": SCHEMA, "strict": True, "description": "d"}
    strict = {"type": "json_schema", "json_schema": named}

    assert sent(response_format=FORMAT)["text"] == {"format": schema}
    assert sent(response_format=strict)["text"] == {"format": {**schema, "strict": True, "description": "d"}}
    nameless = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    assert sent(response_format=nameless)["text"]["format"]["name"] == "answer"
    assert sent(response_format={"type": "json_object"}, verbosity="low")["text"] == {
        "format": {"type": "json_object"}, "verbosity": "low"
    }  # fmt: skip
    assert sent(response_format={"type": "json_schema"})["text"] == {"format": {"type": "json_object"}}
    assert "text" not in sent(response_format={"type": "text"})


def test_a_schema_keeps_its_bytes() -> None:
    """Digits, order and blanks of it are the client's."""
    raw = b'{"type": "object",  "maximum": 12345678901234567890123}'
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":'
    request = chat()
    request = msgspec.structs.replace(request, raw=body + b'{"name":"f","parameters":' + raw + b"}}]}")

    assert raw in ADAPTER.render(request, Target("m")).body


def test_functions_lie_flat() -> None:
    """Whether arguments are strict is said each time; the older spelling is a function, too."""
    strict = {"type": "function", "function": {"name": "other", "description": "d", "strict": True}}
    old = {"name": "old", "parameters": {"type": "object"}}
    body = sent(tools=[TOOL, strict], functions=[old], parallel_tool_calls=False)

    nothing = {"type": "object", "properties": {}}
    assert body["tools"] == [
        LOOK,
        {"type": "function", "name": "other", "description": "d", "parameters": nothing, "strict": True},
        {**LOOK, "name": "old"},
    ]
    assert body["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in sent(parallel_tool_calls=False)


def test_the_apis_own_tools_go_through() -> None:
    """With all their fields; OpenAI's `web_search_options` are one of them."""
    search = {"type": "web_search_preview", "search_context_size": "low"}
    assert sent(tools=[TOOL, search])["tools"] == [LOOK, search]

    place = {"type": "approximate", "approximate": {"city": "Paris", "country": "FR"}}
    options = {"search_context_size": "high", "user_location": place}
    assert sent(web_search_options=options)["tools"] == [
        {
            "type": "web_search",
            "search_context_size": "high",
            "user_location": {"type": "approximate", "city": "Paris", "country": "FR"},
        }
    ]
    assert sent(web_search_options={})["tools"] == [{"type": "web_search"}]


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({"tool_choice": "required"}, "required"),
        ({"tool_choice": "none"}, "none"),
        ({"function_call": "auto"}, "auto"),
        ({"function_call": {"name": "look"}}, {"type": "function", "name": "look"}),
        ({"tool_choice": {"type": "function", "function": {"name": "look"}}}, {"type": "function", "name": "look"}),
        ({"tool_choice": {"type": "web_search_preview"}}, {"type": "web_search_preview"}),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [TOOL, {"type": "mcp"}]}}},
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}, {"type": "mcp"}]},
        ),
    ],
)  # fmt: skip
def test_choices(fields: dict[str, Any], choice: Any) -> None:
    """All of OpenAI's; that of some tools has its own word here."""
    assert sent(tools=[TOOL], **fields)["tool_choice"] == choice
    assert "tool_choice" not in sent(tools=[TOOL])


def test_chatgpts_backend() -> None:
    """It wants instructions, always, and a stream; it takes no limit, and the client is told."""
    quirks = "instructions no_limit stream_only"
    talk = [{"role": "system", "content": "Be brief."}, {"role": "developer", "content": "And kind."}, HI]
    rendered = to(*talk, {"role": "system", "content": "Now."}, quirks=quirks, max_tokens=9)

    body = msgspec.json.decode(rendered.body)
    assert body["instructions"] == "Be brief.\n\nAnd kind."
    assert body["input"] == [HI, {"role": "developer", "content": "Now."}]
    assert (body["stream"], body["store"]) == (True, False)
    assert "max_output_tokens" not in body
    assert rendered.dropped == ("max_tokens",)
    assert to(quirks=quirks, max_completion_tokens=9).dropped == ("max_completion_tokens",)
    assert sent(quirks=quirks)["instructions"] == ""


def test_copilot_is_told_who_spoke_last() -> None:
    """And that there are images."""
    assert to(quirks="initiator").headers == {"X-Initiator": "user"}
    asked = [HI, called(call("c1")), result("c1"), {"role": "user", "content": [image()]}, called(call("c2"))]
    assert to(*asked, result("c2"), quirks="initiator").headers == {
        "X-Initiator": "agent", "Copilot-Vision-Request": "true"
    }  # fmt: skip
