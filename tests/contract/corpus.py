"""Recorded exchanges with providers, and what their answers mean in OpenAI's words.

`SIDECAR_CORPUS` names a folder of recordings (`index.json`, `golden.json`, `<provider>/<name>.json`); the default is a
checkout next to this repository. A few recordings come with the repository, so that something always runs.
"""

import base64
import os
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from proxy.adapter import Target
from proxy.config import CATALOG, shipped

from . import responses

Model = TypeVar("Model", ChatCompletion, ChatCompletionChunk)

FIXTURES: Final = Path(__file__).parent / "fixtures"
CORPUS: Final = Path(os.environ.get("SIDECAR_CORPUS") or Path(__file__).parents[3] / "shared" / "corpus")
TRANSLATED: Final = ("anthropic", "bedrock", "cohere", "gemini", "ollama", "responses", "vertex")
# Languages that several providers speak, each by one adapter.
COMMON: Final = {"openai_chat": "openai", "openai_responses": "responses"}
# Which recordings go through which adapter, by API and provider.
SPOKEN: Final = {
    ("anthropic_messages", "anthropic"): "anthropic",
    ("anthropic_messages", "azure"): "anthropic",
    ("anthropic_messages", "vertex"): "anthropic",
    ("bedrock_converse", "bedrock"): "bedrock",
    ("cohere_chat_v2", "cohere"): "cohere",
    ("ollama_chat", "ollama"): "ollama",
    ("gemini", "gemini"): "gemini",
    ("gemini", "vertex"): "vertex",
}
# What the catalog calls a provider, where recordings call it otherwise.
ROWS: Final = {
    "github_copilot": "copilot",
    "vercel_gateway": "vercel",
    "ollama_cloud": "ollama-cloud",
    "bedrock_mantle": "bedrock-mantle",
    **dict.fromkeys(("gpustack", "litellm_proxy", "llamacpp", "mistralrs", "ollama", "vllm"), "local"),
}
# What a row would say for OpenAI-compatible endpoints of providers whose row speaks another language.
COMPATIBLE: Final = {"gemini": frozenset({"fill_missing", "tool_calls", "stop_with_calls", "thoughts_in_total"})}


class Entry(msgspec.Struct, frozen=True):
    """One line of a folder's index; `root` is the folder."""

    file: str
    provider: str
    api: str
    status: int
    stream: bool
    features: list[str] = []
    root: str = ""

    @property
    def adapter(self) -> str | None:
        """The adapter this recording is for; None when no adapter of ours speaks with that provider."""
        return COMMON.get(self.api) or SPOKEN.get((self.api, self.provider))

    @property
    def quirks(self) -> frozenset[str]:
        """What the provider's row in the shipped catalog says of it."""
        if self.adapter != "openai":
            return frozenset()
        row = _catalog().get(ROWS.get(self.provider, self.provider))
        return COMPATIBLE.get(self.provider, frozenset()) if row is None else row


class _Request(msgspec.Struct):
    body: Any = None


class _Response(msgspec.Struct):
    status: int
    body: str = ""
    body_base64: str | None = None
    headers: dict[str, str] = {}
    chunk_sizes: list[int] | None = None


class Golden(msgspec.Struct):
    """What the answer means. `finish` and `usage` (flattened) are the provider's own, `error` is its message.

    `text` includes a refusal; arguments that are no JSON are {"__unparsable__": text}.
    """

    text: str
    reasoning: str
    tool_calls: list[tuple[Any, Any]]
    finish: str | int | None
    openai_finish: str | None
    usage: dict[str, Any]
    error: str | None


class Recording(msgspec.Struct):
    """One exchange."""

    request: _Request
    response: _Response

    @property
    def body(self) -> bytes:
        """The answer's bytes."""
        if self.response.body_base64 is not None:
            return base64.b64decode(self.response.body_base64)
        return self.response.body.encode("utf-8", "surrogatepass")

    def pieces(self) -> list[bytes]:
        """The answer as it was received, or event by event when the recorder did not keep that."""
        body, at, pieces = self.body, 0, []
        for size in self.response.chunk_sizes or ():
            pieces.append(body[at : at + size])
            at += size
        return pieces or self.events()

    def events(self) -> list[bytes]:
        """The answer event by event; JSON lines are one event each."""
        if self.response.body_base64 is not None:
            return list(_frames(self.body))
        lines = rb"(?<=\n)" if self.body.startswith(b"{") else rb"(?<=\n\n)|(?<=\r\n\r\n)"
        return re.split(lines, self.body)

    @property
    def plan(self) -> str:
        """What a Cohere answer says before its tool calls; `golden.json` leaves it out."""
        return "".join(
            msgspec.json.decode(text) for text in re.findall(r'"tool_plan":\s*("(?:[^"\\]|\\.)*")', self.response.body)
        )


def _frames(body: bytes) -> Iterator[bytes]:
    """The messages of an AWS event stream: each begins with its length."""
    at = 0
    while at < len(body):
        size = int.from_bytes(body[at : at + 4])
        yield body[at : at + size]
        at += size


class Said(NamedTuple):
    """What a client of the official SDK finds in an answer."""

    text: str
    reasoning: str
    tool_calls: list[tuple[str, Any]]
    finish: str | None


def entries(root: Path) -> list[Entry]:
    """Return the index of a folder; empty when it is not there."""
    index = root / "index.json"
    if not index.exists():
        return []
    found = msgspec.json.decode(index.read_bytes(), type=list[Entry])
    return [msgspec.structs.replace(entry, root=str(root)) for entry in found]


def read(entry: Entry) -> Recording:
    """Return the recording itself."""
    return msgspec.json.decode((Path(entry.root) / entry.file).read_bytes(), type=Recording)


def golden(entry: Entry) -> Golden:
    """Return what the recording means."""
    if entry.api == "openai_responses":
        return msgspec.convert(responses.digest(entry.file, read(entry).response.body, entry.status), type=Golden)
    return msgspec.json.decode(_goldens(entry.root)[entry.file], type=Golden)


@cache
def _goldens(root: str) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode((Path(root) / "golden.json").read_bytes(), type=dict[str, msgspec.Raw])


@cache
def _catalog() -> dict[str, frozenset[str]]:
    """The quirks of each row of the shipped catalog that speaks OpenAI's language."""
    rows = tomllib.loads((shipped() / CATALOG).read_text())["provider"]
    return {row["name"]: frozenset(row.get("quirks", ())) for row in rows if row.get("adapter", "openai") == "openai"}


def target(entry: Entry, model: str) -> Target:
    """Return whom the recording was made with."""
    return Target(model, quirks=entry.quirks)


def normal_usage(api: str, usage: dict[str, Any]) -> tuple[int, int, int]:
    """Return billed input, output and cached tokens in OpenAI's meaning: the input includes the cached ones."""
    if api == "anthropic_messages":
        cached = usage.get("cache_read_input_tokens") or 0
        written = usage.get("cache_creation_input_tokens") or 0
        return usage["input_tokens"] + cached + written, usage["output_tokens"], cached
    if api == "bedrock_converse":
        cached = usage.get("cacheReadInputTokens") or 0
        written = usage.get("cacheWriteInputTokens") or 0
        return usage["inputTokens"] + cached + written, usage["outputTokens"], cached
    if api == "cohere_chat_v2":
        return usage["billed_units.input_tokens"], usage["billed_units.output_tokens"], 0
    if api == "openai_responses":
        return usage["input_tokens"], usage["output_tokens"], usage.get("input_tokens_details.cached_tokens") or 0
    if api == "ollama_chat":
        return usage.get("prompt_eval_count", 0), usage["eval_count"], 0
    if api == "gemini":
        prompt = (usage.get("promptTokenCount") or 0) + (usage.get("toolUsePromptTokenCount") or 0)
        answer = usage.get("candidatesTokenCount") or 0
        total = usage.get("totalTokenCount") or 0
        if total < prompt + answer:
            # The total is Google's own sum of all; where it was not told, or edited, the parts are.
            total = prompt + answer + (usage.get("thoughtsTokenCount") or 0)
        return prompt, total - prompt, usage.get("cachedContentTokenCount") or 0
    cached = usage.get("prompt_tokens_details.cached_tokens") or usage.get("prompt_cache_hit_tokens") or 0
    read, written = usage["prompt_tokens"], usage["completion_tokens"]
    heard = usage.get("prompt_audio_seconds") and usage["prompt_tokens_details.audio_tokens"]
    read += heard or 0
    # Whoever counts reasoning beside the answer (xAI, Gemini) has it in the total.
    return read, max(written, (usage.get("total_tokens") or 0) - read), cached


def told_usage(api: str, usage: dict[str, Any]) -> tuple[int, int, int]:
    """Return what the client is told of it: the same, but for Cohere, which bills other units than tokens."""
    if api != "cohere_chat_v2":
        return normal_usage(api, usage)
    read = usage["tokens.input_tokens"] + usage.get("tokens.image_tokens", 0)
    return read, usage["tokens.output_tokens"], usage.get("cached_tokens", 0)


def chunks(stream: bytes, *, strict: bool) -> list[ChatCompletionChunk]:
    """Return the chunks of a client's stream. `strict` is OpenAI's types to the letter; the framing always is."""
    assert stream.endswith(b"data: [DONE]\n\n")
    return [_model(ChatCompletionChunk, data, strict=strict) for data in _events(stream)]


def completion(body: bytes, *, strict: bool) -> ChatCompletion:
    """Return a complete answer; see `chunks`."""
    return _model(ChatCompletion, body, strict=strict)


def _model(kind: type[Model], data: bytes, *, strict: bool) -> Model:
    return kind.model_validate_json(data, strict=True) if strict else kind.construct(**msgspec.json.decode(data))


def _events(stream: bytes) -> Iterator[bytes]:
    for event in stream.removesuffix(b"data: [DONE]\n\n").split(b"\n\n")[:-1]:
        assert event.startswith(b"data: {"), event
        yield event.removeprefix(b"data: ")


def said_complete(found: ChatCompletion) -> Said:
    """Return what the first choice of a completion says."""
    choice = found.choices[0].model_dump()
    message = choice["message"]
    calls = [call.get("function") or call["custom"] for call in message.get("tool_calls") or ()]
    if message.get("function_call"):
        calls.append(message["function_call"])
    return Said(
        (message.get("content") or "") + (message.get("refusal") or ""),
        message.get("reasoning_content") or "",
        [(call["name"], _arguments(call.get("arguments", call.get("input")))) for call in calls],
        choice.get("finish_reason"),
    )


def said_streamed(found: list[ChatCompletionChunk]) -> Said:
    """Return what the first choice of a stream says, put together the way clients do: calls by their index."""
    text = reasoning = ""
    finish = None
    calls: dict[int, list[str]] = {}
    for choice in (choice for chunk in found for choice in chunk.choices if choice.index == 0):
        delta = choice.delta.model_dump()
        text += (delta.get("content") or "") + (delta.get("refusal") or "")
        reasoning += delta.get("reasoning_content") or ""
        finish = choice.finish_reason or finish
        pieces = [(call["index"], call["function"]) for call in delta.get("tool_calls") or ()]
        if delta.get("function_call"):
            pieces.append((0, delta["function_call"]))
        for index, function in pieces:
            call = calls.setdefault(index, ["", ""])
            call[0] += function.get("name") or ""
            call[1] += function.get("arguments") or ""
    assert list(calls) == list(range(len(calls)))
    return Said(text, reasoning, [(name, _arguments(text)) for name, text in calls.values()], finish)


def _arguments(text: str) -> Any:
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {"__unparsable__": text}
    return found if isinstance(found, dict) else {"__unparsable__": text}
