"""docs/features.md says what each wire language carries; here each cell of it is tried."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from proxy.adapter import Target, load
from proxy.errors import InvalidRequestError
from proxy.wire import decode_chat
from tests import anthropic_words as claude
from tests import bedrock_words as bedrock
from tests import responses_words as responses

PAGE: Final = Path(__file__).parent.parent / "docs" / "features.md"
# A model of each language that takes as much as any.
MODELS: Final = {
    "openai": "m",
    "responses": "gpt-5.1",
    "anthropic": "claude-sonnet-4-6",
    "bedrock": "anthropic.claude-sonnet-4-6",
    "gemini": "gemini-3.8-flash",
    "vertex": "gemini-3.8-flash",
    "cohere": "command-a-reasoning-08-2025",
    "ollama": "m",
}
HI: Final = {"role": "user", "content": "hi"}
TOOL: Final = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
CALLS: Final = [
    {"id": f"call{at}", "type": "function", "function": {"name": "look", "arguments": f'{{"at":{at}}}'}}
    for at in (1, 2)
]
TOOLS: Final[dict[str, Any]] = {"tools": [TOOL]}
SCHEMA: Final = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {}}}}


def part(**fields: Any) -> dict[str, Any]:
    """A request whose user shows something beside a word."""
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, fields]}]}


def image(url: str) -> dict[str, Any]:
    return part(type="image_url", image_url={"url": url})


def pdf(**fields: str) -> dict[str, Any]:
    return part(type="file", file=fields)


# What is asked for, the request without it, and the words by which it shows in the provider's request, if any.
REQUESTS: Final[dict[str, tuple[dict[str, Any], dict[str, Any], str]]] = {
    "`system`": ({"messages": [{"role": "system", "content": "BE-BRIEF"}, HI]}, {}, "BE-BRIEF"),
    "`developer`": ({"messages": [{"role": "developer", "content": "BE-BRIEF"}, HI]}, {}, "BE-BRIEF"),
    "`system` later on": ({"messages": [HI, {"role": "system", "content": "BE-BRIEF"}, HI]}, {}, "BE-BRIEF"),
    "images, base64": (image("data:image/png;base64,UElYRUw="), {}, "UElYRUw="),
    "images, https": (image("https://x/PIXEL.png"), {}, "https://x/PIXEL.png"),
    "sound": (part(type="input_audio", input_audio={"data": "U09VTkQ=", "format": "wav"}), {}, "U09VTkQ="),
    "files, base64": (pdf(file_data="data:application/pdf;base64,RklMRQ==", filename="a.pdf"), {}, "RklMRQ=="),
    "files, uploaded": (pdf(file_id="files/FILE1"), {}, "FILE1"),
    "`tools`": (TOOLS, {}, "look"),
    "several calls and their results": (
        {
            "messages": [
                HI,
                {"role": "assistant", "content": None, "tool_calls": CALLS},
                {"role": "tool", "tool_call_id": "call1", "content": "RESULT"},
                {"role": "tool", "tool_call_id": "call2", "content": "RESULT"},
            ],
            **TOOLS,
        },
        TOOLS,
        "RESULT",
    ),
    "images in results": (
        {
            "messages": [
                HI,
                {"role": "assistant", "content": None, "tool_calls": CALLS[:1]},
                {"role": "tool", "tool_call_id": "call1", **image("data:image/png;base64,UElYRUw=")["messages"][0]}
                | {"role": "tool"},
            ],
            **TOOLS,
        },
        TOOLS,
        "UElYRUw=",
    ),
    "`tool_choice` required": ({**TOOLS, "tool_choice": "required"}, TOOLS, ""),
    "`tool_choice` none": ({**TOOLS, "tool_choice": "none"}, TOOLS, ""),
    "`tool_choice` of one": ({**TOOLS, "tool_choice": {"type": "function", "function": {"name": "look"}}}, TOOLS, ""),
    "`parallel_tool_calls` false": ({**TOOLS, "parallel_tool_calls": False}, TOOLS, ""),
    "`strict` arguments": ({"tools": [{**TOOL, "function": {**TOOL["function"], "strict": True}}]}, TOOLS, ""),  # type: ignore[dict-item]  # a table of JSON
    "`json_schema`": ({"response_format": SCHEMA}, {}, ""),
    "`json_object`": ({"response_format": {"type": "json_object"}}, {}, ""),
    "`max_tokens`": ({"max_tokens": 7777}, {}, "7777"),
    "`temperature`": ({"temperature": 0.4711}, {}, "0.4711"),
    "`top_p`": ({"top_p": 0.4711}, {}, "0.4711"),
    "`top_k`": ({"top_k": 4711}, {}, ""),
    "`stop`": ({"stop": ["HALT"]}, {}, "HALT"),
    "`seed`": ({"seed": 4711}, {}, "4711"),
    "`n` above 1": ({"n": 2}, {}, "2"),
    "`presence_penalty`": ({"presence_penalty": 0.4711}, {}, "0.4711"),
    "`logit_bias`": ({"logit_bias": {"4711": 1}}, {}, "4711"),
    "`logprobs`": ({"logprobs": True, "top_logprobs": 3}, {}, "ogprobs"),
    "`reasoning_effort`": ({"reasoning_effort": "high"}, {}, ""),
    "`user`": ({"user": "u4711"}, {}, "u4711"),
    "`service_tier` flex": ({"service_tier": "flex"}, {}, "flex"),
    "fields nobody knows": ({"own_field": "OWN"}, {}, "OWN"),
}


def carried(language: str, feature: str) -> str:
    """What becomes of a feature: "yes", "dropped" (and reported), or "-" (the request goes to the next candidate)."""
    fields, without, words = REQUESTS[feature]

    def rendered(given: dict[str, Any]) -> tuple[bytes, tuple[str, ...]]:
        request = decode_chat(msgspec.json.encode({"model": "m", "messages": [HI], **given}), 0)
        found = load(language).render(request, Target(MODELS[language]))
        return found.body, found.dropped

    try:
        body, dropped = rendered(fields)
    except InvalidRequestError:
        return "-"
    if dropped:
        return "dropped"
    assert words.encode() in body, (language, feature, body)
    assert body != rendered(without)[0]
    return "yes"


def gemini(*parts: Any, **fields: Any) -> bytes:
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": fields.pop("finish", "STOP")}
    return msgspec.json.encode({"candidates": [{**candidate, **fields.pop("more", {})}], **fields})


def cohere(*content: Any, **fields: Any) -> bytes:
    message = {"role": "assistant", "content": content, **fields.pop("message", {})}
    return msgspec.json.encode({"id": "1", "finish_reason": "COMPLETE", "message": message, **fields})


def ollama(**fields: Any) -> bytes:
    message = {"role": "assistant", "content": "x", **fields.pop("message", {})}
    return msgspec.json.encode({"model": "m", "done": True, "done_reason": "stop", "message": message, **fields})


def openai(message: Any = None, **fields: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x", **(message or {})}, "finish_reason": "stop"}
    return msgspec.json.encode({"choices": [{**choice, **fields.pop("choice", {})}], **fields})


def google(**counts: Any) -> bytes:
    counted = {"promptTokenCount": 9, "candidatesTokenCount": 9, **counts}
    return gemini({"text": "x"}, usageMetadata=counted)


WORDS: Final = {"type": "text", "text": "x"}
ANSWERED: Final = responses.message(responses.text("x"))
CALLED: Final = [{"functionCall": {"name": "look", "args": {}, "id": f"g{at}"}} for at in (1, 2)]
TOP: Final = {"token": "x", "logprob": -0.5}
GOOGLE_TOP: Final = {"token": "x", "logProbability": -0.5}
GOOGLE_TOPS: Final = {"chosenCandidates": [GOOGLE_TOP], "topCandidates": [{"candidates": [GOOGLE_TOP]}]}
Seen = Callable[[Any, Any, Any], Any]
# By feature: how it shows to the client (in answer, choice and message), and an answer with it in each language.
ANSWERS: Final[dict[str, tuple[Seen, dict[str, bytes]]]] = {
    "reasoning text": (
        lambda answer, choice, message: message["reasoning_content"] == "THOUGHT",
        {
            "openai": openai({"reasoning_content": "THOUGHT"}),
            "responses": responses.body(responses.thought("THOUGHT"), ANSWERED),
            "anthropic": claude.message({"type": "thinking", "thinking": "THOUGHT", "signature": ""}, WORDS),
            "bedrock": bedrock.answer({"reasoningContent": {"reasoningText": {"text": "THOUGHT"}}}),
            "gemini": gemini({"text": "THOUGHT", "thought": True}, {"text": "x"}),
            "cohere": cohere({"type": "thinking", "thinking": "THOUGHT"}),
            "ollama": ollama(message={"thinking": "THOUGHT"}),
        },
    ),
    "signatures that come back": (
        lambda answer, choice, message: "SIGNED" in str(message["reasoning_details"]),
        {
            "openai": openai({"reasoning_details": [{"type": "reasoning.text", "signature": "SIGNED"}]}),
            "responses": responses.body(responses.thought(sealed="SIGNED"), ANSWERED),
            "anthropic": claude.message({"type": "thinking", "thinking": "t", "signature": "SIGNED"}, WORDS),
            "bedrock": bedrock.answer({"reasoningContent": {"reasoningText": {"text": "t", "signature": "SIGNED"}}}),
            "gemini": gemini({"functionCall": {"name": "look", "args": {}}, "thoughtSignature": "SIGNED"}),
        },
    ),
    "parallel tool calls": (
        lambda answer, choice, message: len(message["tool_calls"]) == 2 and choice["finish_reason"] == "tool_calls",
        {
            "openai": openai({"tool_calls": CALLS}, choice={"finish_reason": "tool_calls"}),
            "responses": responses.body(responses.function("a"), responses.function("b")),
            "anthropic": claude.message(claude.use(id="a"), claude.use(id="b"), stop="tool_use"),
            "bedrock": bedrock.answer(bedrock.use("a"), bedrock.use("b"), stop="tool_use"),
            "gemini": gemini(*CALLED),
            "cohere": cohere(message={"tool_calls": CALLS}, finish_reason="TOOL_CALL"),
            "ollama": ollama(message={"tool_calls": [{"function": {"name": "look", "arguments": {}}}] * 2}),
        },
    ),
    "refusals in words": (
        lambda answer, choice, message: message["refusal"] == "NO",
        {
            "openai": openai({"content": None, "refusal": "NO"}),
            "responses": responses.body(responses.message({"type": "refusal", "refusal": "NO"})),
            "anthropic": claude.message(stop="refusal", stop_details={"type": "refusal", "explanation": "NO"}),
        },
    ),
    "content filter": (
        lambda answer, choice, message: choice["finish_reason"] == "content_filter",
        {
            "openai": openai(choice={"finish_reason": "content_filter"}),
            "responses": responses.body(ANSWERED, status="incomplete", incomplete_details={"reason": "content_filter"}),
            "anthropic": claude.message(WORDS, stop="refusal"),
            "bedrock": bedrock.answer({"text": "x"}, stop="guardrail_intervened"),
            "gemini": gemini({"text": "x"}, finish="SAFETY"),
        },
    ),
    "length": (
        lambda answer, choice, message: choice["finish_reason"] == "length",
        {
            "openai": openai(choice={"finish_reason": "length"}),
            "responses": responses.body(
                ANSWERED, status="incomplete", incomplete_details={"reason": "max_output_tokens"}
            ),
            "anthropic": claude.message(WORDS, stop="max_tokens"),
            "bedrock": bedrock.answer({"text": "x"}, stop="max_tokens"),
            "gemini": gemini({"text": "x"}, finish="MAX_TOKENS"),
            "cohere": cohere(WORDS, finish_reason="MAX_TOKENS"),
            "ollama": ollama(done_reason="length"),
        },
    ),
    "logprobs": (
        lambda answer, choice, message: choice["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] == -0.5,
        {
            "openai": openai(choice={"logprobs": {"content": [{**TOP, "top_logprobs": [TOP]}]}}),
            "responses": responses.body(
                responses.message(responses.text("x", logprobs=[{**TOP, "top_logprobs": [TOP]}]))
            ),
            "gemini": gemini({"text": "x"}, more={"logprobsResult": GOOGLE_TOPS}),
            "ollama": ollama(logprobs=[{**TOP, "top_logprobs": [TOP]}]),
        },
    ),
    "usage: cached tokens": (
        lambda answer, choice, message: answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 5,
        {
            "openai": openai(usage={"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 5}}),
            "responses": responses.body(
                ANSWERED, usage={"input_tokens": 9, "input_tokens_details": {"cached_tokens": 5}}
            ),
            "anthropic": claude.message(WORDS, usage={"input_tokens": 4, "cache_read_input_tokens": 5}),
            "bedrock": bedrock.answer({"text": "x"}, cacheReadInputTokens=5),
            "gemini": google(cachedContentTokenCount=5),
            "cohere": cohere(WORDS, usage={"tokens": {"input_tokens": 9, "output_tokens": 9}, "cached_tokens": 5}),
        },
    ),
    "usage: tokens written to a cache": (
        lambda answer, choice, message: answer["usage"]["prompt_tokens_details"]["cache_write_tokens"] == 5,
        {
            "openai": openai(usage={"prompt_tokens": 9, "prompt_tokens_details": {"cache_write_tokens": 5}}),
            "responses": responses.body(
                ANSWERED, usage={"input_tokens": 9, "input_tokens_details": {"cache_write_tokens": 5}}
            ),
            "anthropic": claude.message(WORDS, usage={"input_tokens": 4, "cache_creation_input_tokens": 5}),
            "bedrock": bedrock.answer({"text": "x"}, cacheWriteInputTokens=5),
        },
    ),
    "usage: reasoning tokens": (
        lambda answer, choice, message: answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 5,
        {
            "openai": openai(usage={"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 5}}),
            "responses": responses.body(
                ANSWERED, usage={"output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 5}}
            ),
            "anthropic": claude.message(
                WORDS, usage={"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 5}}
            ),
            "gemini": google(thoughtsTokenCount=5),
            "cohere": cohere(WORDS, usage={"tokens": {"output_tokens": 9, "reasoning_tokens": 5}}),
        },
    ),
    "usage: audio tokens": (
        lambda answer, choice, message: answer["usage"]["prompt_tokens_details"]["audio_tokens"] == 5,
        {
            "openai": openai(usage={"prompt_tokens": 9, "prompt_tokens_details": {"audio_tokens": 5}}),
            "gemini": google(promptTokensDetails=[{"modality": "AUDIO", "tokenCount": 5}]),
        },
    ),
}


def told(language: str, feature: str) -> str:
    """Whether the client is told: "yes", or "-" for what the language has no word for."""
    seen, answers = ANSWERS[feature]
    body = answers.get("gemini" if language == "vertex" else language)
    if body is None:
        return "-"
    request = decode_chat(msgspec.json.encode({"model": "m", "messages": [HI], **TOOLS}), 0)
    answer = msgspec.json.decode(load(language).parse(body, request, Target(MODELS[language])).body)
    choice = answer["choices"][0]
    assert seen(answer, choice, choice["message"]), (language, feature, answer)
    return "yes"


def table(title: str, cell: Callable[[str, str], str], features: Any) -> list[str]:
    """The lines of one table."""
    lines = [f"| {title} | " + " | ".join(f"`{one}`" for one in MODELS) + " |", "|---" * (len(MODELS) + 1) + "|"]
    return [*lines, *(f"| {name} | " + " | ".join(cell(one, name) for one in MODELS) + " |" for name in features)]


@pytest.mark.parametrize(
    ("title", "cell", "features"), [("a request's", carried, REQUESTS), ("an answer's", told, ANSWERS)]
)
def test_the_page_says_what_is_carried(title: str, cell: Callable[[str, str], str], features: Any) -> None:
    """Every cell was tried just now; when one has changed, so must the page."""
    lines = table(title, cell, features)
    text = "\n".join(lines)
    assert text in PAGE.read_text(), f"docs/features.md needs this table:\n{text}"
