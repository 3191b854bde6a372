"""What we send against what was recorded: every field of a translated request was seen on the wire, or is listed."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

from proxy.adapter import Target, load
from proxy.conform import recordings
from proxy.wire import decode_chat

from . import corpus

PIXEL: Final = "data:image/png;base64,iVBORw0KGgo="
CALL: Final = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
TOOL: Final = {"type": "function", "function": {"name": "look", "description": "d", "parameters": {"type": "object"}}}
TALK: Final = [
    {"role": "developer", "content": "be brief"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "hi"},
            {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        ],
    },
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "I look."},
    {"role": "tool", "tool_call_id": "c1", "content": "ok"},
    {"role": "assistant", "content": "done"},
    {"role": "user", "content": "and now?"},
]
NUMBERS: Final = {
    "temperature": 0.2,
    "top_p": 0.8,
    "top_k": 20,
    "seed": 11,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "max_tokens": 24,
}
SCHEMA: Final = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
REQUESTS: Final[list[dict[str, Any]]] = [
    {"tools": [TOOL], "tool_choice": "required", "stop": "Paris", "stream": True, **NUMBERS},
    {"tools": [TOOL], "tool_choice": "none", "reasoning_effort": "low"},
    {"response_format": SCHEMA, "stream": False},
]
MODELS: Final = {
    "bedrock": "us.anthropic.claude-haiku-4-5-20251001-v1:0",
    "cohere": "command-a-reasoning-08-2025",
    "ollama": "qwen3:4b",
    "responses": "gpt-5.1",
}
# Fields that nobody recorded, by where else they are known from.
UNRECORDED: Final = {
    "bedrock": {
        ".messages[].content[].image.source.bytes:str": "service model, ImageBlock; recorded inside of tool results",
        ".additionalModelRequestFields.thinking.budget_tokens:number": "user guide, Extended thinking",
        ".additionalModelRequestFields.top_k:number": "user guide, inference parameters of Claude",
        ".additionalModelRequestFields.tool_choice.type:str": "pydantic-ai 2.68, verified live",
    },
    "cohere": {".thinking.token_budget:number": "API reference, Chat"},
    "ollama": {
        ".messages[].images[]:str": "API reference, Generate a chat message",
        ".messages[].tool_calls[].id:str": "recorded in answers",
        ".messages[].tool_call_id:str": "Ollama's api/types.go",
        ".think:str": "API reference: a level instead of true",
        ".options.top_p:number": "API reference, options",
        ".options.top_k:number": "the same",
        ".options.frequency_penalty:number": "the same",
        ".options.presence_penalty:number": "the same",
        ".options.stop[]:str": "the same",
    },
    "responses": {".top_p:number": "API reference, Create a model response"},
}
# What is the client's own business inside.
OPAQUE: Final = {"parameters", "json_schema", "schema", "arguments", "json"}
# Those of single languages: what is a schema in one is more of the request in another.
OPAQUE_IN: Final = {"bedrock": OPAQUE | {"input"}, "cohere": OPAQUE, "ollama": OPAQUE | {"format"}, "responses": OPAQUE}


def shapes(value: Any, opaque: set[str], at: str = "") -> Iterator[str]:
    """Where there are values in a request, and of which kind."""
    if isinstance(value, dict) and at.rpartition(".")[2] not in opaque:
        for name, inner in value.items():
            yield from shapes(inner, opaque, f"{at}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from shapes(inner, opaque, f"{at}[]")
    else:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        yield f"{at}:{'number' if number else type(value).__name__}"


def recorded(language: str) -> set[str]:
    """The shapes of all recorded requests that were answered."""
    answered = corpus.cases("answer", adapters=(language,))
    bodies = [recordings.read(one.values[0]).request.body for one in answered]
    return {shape for body in bodies if body for shape in shapes(body, OPAQUE_IN[language])}


@pytest.mark.parametrize("language", MODELS)
def test_every_field_was_seen_on_the_wire(language: str) -> None:
    """No field of a request is made up: others have sent it and were answered, or its source is named."""
    corpus.need_corpus()
    ours = set()
    for fields in REQUESTS:
        body = msgspec.json.encode({"model": "m", "messages": TALK, **fields})
        rendered = load(language).render(decode_chat(body, 0), Target(MODELS[language]))
        ours |= set(shapes(msgspec.json.decode(rendered.body), OPAQUE_IN[language]))

    # Other recordings may show less or more of what is listed, but nothing else.
    assert ours - recorded(language) - set(UNRECORDED[language]) == set()
