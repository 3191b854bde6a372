"""Turn OpenAI's messages into Anthropic's turns: what a block looks like, and what of a message it can be."""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import ClassVar, Final

import msgspec

from adapters._chat.messages import Call, arguments_of
from adapters._chat.reasoning import returned
from adapters._chat.request import File, Message, Part, invalid
from adapters._chat.turns import MISSING_RESULT, Block, Turns, legal
from proxy.adapter import not_sent

_ILLEGAL: Final = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_NAME: Final = 128
_MAX_ID: Final = 64
_IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_TEXT_FILES: Final = (".txt", ".md", ".csv", ".json", ".xml", ".html", ".py")
THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})


def legal_name(name: str) -> str:
    """Return `name` as Anthropic takes it: itself, or with a checksum so that two names never become one."""
    return legal(name, _ILLEGAL, _MAX_NAME)


class Conversation(Turns):
    """The system blocks and the turns of one request to the model at `source`. `prefill`: it may go on with what the
    assistant said last.
    """

    language: ClassVar[str] = "Anthropic"
    result: ClassVar[str] = "tool_use_id"

    def __init__(self, messages: list[Message], source: str, *, prefill: bool) -> None:
        self.has_file_ids = False
        self._prefill = prefill
        super().__init__(messages, source)

    def _text(self, text: str) -> Block:
        return {"type": "text", "text": text}

    def _image(self, url: str, where: str) -> Block:
        return _image_at(url, where)

    def _file(self, file: File, where: str) -> Block:
        self.has_file_ids = self.has_file_ids or bool(file.file_id)
        return _file(file, where)

    def _with_marks(self, block: Block, part: Part, where: str) -> Iterable[Block]:
        return (block if part.cache_control is msgspec.UNSET else {**block, "cache_control": part.cache_control},)

    def _legal_id(self, call_id: str) -> str:
        return legal(call_id, _ILLEGAL, _MAX_ID)

    def _made(self, call: Call, legal_id: str) -> tuple[Block, Block]:
        name, given = legal_name(call.called.name), arguments_of(call.called)
        return (
            {"type": "tool_use", "id": legal_id, "name": name, "input": given},
            {"type": "tool_result", "tool_use_id": legal_id, "content": MISSING_RESULT},
        )

    def _answer(self, result: Block, blocks: list[Block]) -> None:
        result["content"] = blocks
        if not blocks:
            del result["content"]

    def _thoughts(self, message: Message) -> list[tuple[int, Block]]:
        return [
            (one.index, {"type": "redacted_thinking", "data": one.data})
            if one.data is not None
            else (one.index, {"type": "thinking", "thinking": one.text or "", "signature": one.signature})
            for one in returned(message, self._source)
        ]

    def _is_thought(self, block: Block) -> bool:
        return block["type"] in THOUGHTS

    def _may_prefill(self) -> bool:
        return self._prefill


def _image_at(url: str, where: str) -> Block:
    if url.startswith("https://"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    if url[:5].lower() == "data:":
        return _inlined(url, where)
    raise not_sent("Anthropic takes images as https URLs or base64 data URIs", where)


def _file(file: File, where: str) -> Block:
    if file.file_id:
        return {"type": "document", "source": {"type": "file", "file_id": file.file_id}}
    if not file.file_data:
        raise invalid("a file part needs file_data or file_id", where)
    data = file.file_data
    if data[:5].lower() != "data:":
        text = (file.filename or "").lower().endswith(_TEXT_FILES)
        data = f"data:{'text/plain' if text else 'application/pdf'};base64,{data}"
    block = _inlined(data, where)
    if file.filename and block["type"] == "document":
        block["title"] = file.filename
    return block


def _inlined(uri: str, where: str) -> Block:
    """Return the block for a base64 data URI: an image, a PDF or a text."""
    head, _, data = uri.partition(",")
    kind, *options = head[5:].lower().split(";")
    if "base64" not in options:
        raise not_sent("Anthropic takes data URIs in base64 only", where)
    kind = "image/jpeg" if kind == "image/jpg" else kind
    if kind in _IMAGES:
        return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}
    if kind == "application/pdf":
        return {"type": "document", "source": {"type": "base64", "media_type": kind, "data": data}}
    if not kind.startswith("text/") and kind != "application/json":
        raise not_sent(f"Anthropic takes no content of type {kind or 'unknown'}", where)
    try:
        text = base64.b64decode(data).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise invalid("the file is not text in base64", where) from None
    return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}
