"""Recorded exchanges with providers, read from a folder: what was answered, and what that means in OpenAI's words.

A folder has either an `index.json` and a `golden.json` beside `<provider>/<name>.json` (a corpus), or one JSON file per
exchange with its meaning in it (docs/adding-a-provider.md). Which adapter and which quirks an exchange of a corpus
needs follows from its API and its provider, never from its name.
"""

import base64
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from proxy.config import CATALOG, shipped
from proxy.conform import responses

# Which adapter speaks an API. What is not here is for no adapter, whoever the provider is.
SPOKEN: Final = {
    "openai_chat": "openai",
    "anthropic_messages": "anthropic",
    "bedrock_converse": "bedrock",
    "cohere_chat_v2": "cohere",
    "gemini": "gemini",
    "ollama_chat": "ollama",
    responses.API: "responses",
}
# Providers at which an API has an adapter of its own.
HOSTED: Final = {("gemini", "vertex"): "vertex"}
# What the catalog calls a provider, where recordings call it otherwise.
ROWS: Final = {
    "github_copilot": "copilot",
    "vercel_gateway": "vercel",
    "ollama_cloud": "ollama-cloud",
    "bedrock_mantle": "bedrock-mantle",
    **dict.fromkeys(
        ("gpustack", "litellm_proxy", "llamacpp", "lmstudio", "localai", "mistralrs", "ollama", "sglang", "vllm"),
        "local",
    ),
}
# What a row would say for OpenAI-compatible endpoints of providers whose row speaks another language.
COMPATIBLE: Final = {"gemini": frozenset({"fill_missing", "tool_calls", "stop_with_calls", "thoughts_in_total"})}
# What the row of an OpenAI-compatible provider may need of which nothing is known yet: all that mends answers.
UNKNOWN: Final = frozenset(
    {
        *("fill_missing", "reasoning", "content_parts", "tool_calls", "service_tier", "logprobs", "annotations"),
        "blank_fields",
    }
)


class Entry(msgspec.Struct, frozen=True):
    """One line of a folder's index; `root` is the folder."""

    file: str
    provider: str
    api: str
    status: int
    stream: bool
    features: tuple[str, ...] = ()
    fidelity: str = ""
    root: str = ""

    @property
    def adapter(self) -> str | None:
        """The adapter this recording is for; None when no adapter of ours speaks its API."""
        return HOSTED.get((self.api, self.provider)) or SPOKEN.get(self.api)

    @property
    def known(self) -> bool:
        """Whether its provider has a row in the shipped catalog, under its own or a compatible name."""
        return ROWS.get(self.provider, self.provider) in _catalog() or self.provider in COMPATIBLE

    @property
    def quirks(self) -> frozenset[str]:
        """What the provider's row in the shipped catalog says of it; for one without a row, all that mends answers."""
        if self.adapter != "openai":
            return frozenset()
        row = _catalog().get(ROWS.get(self.provider, self.provider))
        return COMPATIBLE.get(self.provider, UNKNOWN) if row is None else row


class Request(msgspec.Struct):
    """What was asked. `body` is None where only the answer was recorded."""

    body: Any = None


class Response(msgspec.Struct):
    """What was answered: text, or base64 of bytes that are no text. `chunk_sizes` are the pieces it came in."""

    status: int = 200
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

    @property
    def blank(self) -> bool:
        """Whether there is neither an answer nor an error in it."""
        return not (self.text or self.reasoning or self.tool_calls or self.error) and self.finish is None


class Recording(msgspec.Struct):
    """One exchange."""

    request: Request
    response: Response

    @property
    def body(self) -> bytes:
        """The answer's bytes."""
        if self.response.body_base64 is not None:
            return base64.b64decode(self.response.body_base64)
        return self.response.body.encode("utf-8", "surrogatepass")

    def pieces(self) -> list[bytes]:
        """Return the answer as it was received, or event by event when the recorder did not keep that."""
        body, at, pieces = self.body, 0, []
        for size in self.response.chunk_sizes or ():
            pieces.append(body[at : at + size])
            at += size
        return [*pieces, body[at:]] if pieces and at < len(body) else pieces or self.events()

    def events(self) -> list[bytes]:
        """Return the answer event by event; JSON lines are one event each."""
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

    @property
    def refusal(self) -> str:
        """Why Anthropic says that Claude refused; `golden.json` leaves it out."""
        found = re.search(r'"type":\s*"refusal",[^{}]*"explanation":\s*("(?:[^"\\]|\\.)*")', self.response.body)
        return str(msgspec.json.decode(found[1])) if found else ""


def _frames(body: bytes) -> Iterator[bytes]:
    """The messages of an AWS event stream: each begins with its length."""
    at = 0
    while at < len(body):
        size = max(int.from_bytes(body[at : at + 4]), 1)
        yield body[at : at + size]
        at += size


def entries(root: Path) -> list[Entry]:
    """Return the index of a corpus; empty when it is not there. Raises msgspec.DecodeError for another format."""
    index = root / "index.json"
    if not index.exists():
        return []
    found = msgspec.json.decode(index.read_bytes(), type=list[Entry])
    return [msgspec.structs.replace(entry, root=str(root)) for entry in found]


def read(entry: Entry) -> Recording:
    """Return the recording itself."""
    return msgspec.json.decode((Path(entry.root) / entry.file).read_bytes(), type=Recording)


def golden(entry: Entry) -> Golden:
    """Return what the recording means, as the corpus says it; what it says nothing of is read from the answer."""
    if entry.api == responses.API and entry.file not in _goldens(entry.root):
        return msgspec.convert(responses.digest(read(entry).response.body, entry.status), type=Golden)
    return msgspec.json.decode(_goldens(entry.root)[entry.file], type=Golden)


@cache
def _goldens(root: str) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode((Path(root) / "golden.json").read_bytes(), type=dict[str, msgspec.Raw])


@cache
def _catalog() -> dict[str, frozenset[str]]:
    """The quirks of each row of the shipped catalog that speaks OpenAI's language."""
    rows = tomllib.loads((shipped() / CATALOG).read_text())["provider"]
    return {row["name"]: frozenset(row.get("quirks", ())) for row in rows if row.get("adapter", "openai") == "openai"}
