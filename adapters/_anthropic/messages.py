"""Turn OpenAI's messages into Anthropic's turns: roles alternate, every tool call is answered in the very next turn.

OpenAI lets a client leave gaps that Anthropic refuses with a 400 for the whole conversation. They are filled the same
way each time, so that a conversation keeps its cached prefix: see `MISSING_RESULT`, `EMPTY`, `START` and `GO_ON`.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from proxy.adapter import not_sent
from proxy.errors import InvalidRequestError

Block = dict[str, Any]

MISSING_RESULT: Final = "(no result was given for this call)"
EMPTY: Final = "(empty message)"
START: Final = "(start of conversation)"
GO_ON: Final = "Continue."

_ILLEGAL: Final = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_NAME: Final = 128
_MAX_ID: Final = 64
_IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_TEXT_FILES: Final = (".txt", ".md", ".csv", ".json", ".xml", ".html", ".py")


class ImageUrl(msgspec.Struct):
    """Where an image is: an https URL or a data URI."""

    url: str


class File(msgspec.Struct):
    """A file in the request, or one uploaded to Anthropic before."""

    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class Part(msgspec.Struct):
    """One content part; `type` says which of the other fields counts. `cache_control` is Anthropic's own."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | ImageUrl | None = None
    file: File | None = None
    cache_control: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Called(msgspec.Struct):
    """A called function; `arguments` is JSON text, or what a model took for it."""

    name: str
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """One call in an assistant message."""

    id: str = ""
    function: Called | None = None


class Message(msgspec.Struct):
    """One message of any role. `function_call` and the role "function" are OpenAI's older spelling of tools."""

    role: str
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Called | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: str | None = None


def invalid(message: str, param: str) -> InvalidRequestError:
    """Return the error for a request that is wrong in itself."""
    error = InvalidRequestError(message, code="invalid_value", param=param)
    error.unsent = True
    return error


def legal_name(name: str) -> str:
    """Return `name` as Anthropic takes it: itself, or with a checksum so that two names never become one."""
    return _legal(name, _MAX_NAME)


def _legal(text: str, limit: int) -> str:
    legal = _ILLEGAL.sub("_", text)
    if legal == text and 0 < len(text) <= limit:
        return text
    return f"{legal[: limit - 9]}_{zlib.crc32(text.encode()):08x}"


def call_input(arguments: str | None) -> msgspec.Raw:
    """Return the JSON object in `arguments` with its digits untouched; nothing at all is an empty object.

    What is no object (broken JSON, a list, null) becomes {"arguments": "<the text>"}.
    """
    text = (arguments or "").strip() or "{}"
    try:
        raw = msgspec.json.decode(text, type=msgspec.Raw)
        if "\\u" in text:
            # Skipping a value does not look at its escapes, and Anthropic refuses half of a surrogate pair.
            msgspec.json.decode(text)
        if text.startswith("{"):
            return raw
    except (msgspec.DecodeError, RecursionError):
        pass
    return msgspec.Raw(msgspec.json.encode({"arguments": arguments}))


class Conversation:
    """The system blocks and the turns of one request.

    `tool_names` are the tools its history has called; `prefilled` says that the assistant spoke last, `in_tool_loop`
    that its calls have just been answered.
    """

    def __init__(self, messages: list[Message], *, prefill: bool) -> None:
        self.system: list[Block] = []
        self.turns: list[Block] = []
        self.tool_names: dict[str, None] = {}
        self.prefilled = False
        self.in_tool_loop = False
        self.has_file_ids = False
        self._ids: set[str] = set()
        # The results of the last assistant turn, placed in the user turn after it, filled as tool messages come.
        self._results: list[Block] = []
        self._by_call: dict[str, list[Block]] = {}
        for position, message in enumerate(messages):
            self._add(message, f"messages[{position}]")
        self._finish(prefill=prefill)

    def _add(self, message: Message, where: str) -> None:
        match message.role:
            case "system" | "developer":
                self._add_system(message, where)
            case "user":
                content = self._user_turn()
                content += list(self._blocks(message, where)) or [_text(EMPTY)]
            case "assistant":
                self._add_assistant(message, where)
            case "tool" | "function":
                self._add_result(message, where)
            case role:
                raise invalid(f"there is no role {role!r}", f"{where}.role")

    def _add_system(self, message: Message, where: str) -> None:
        blocks = list(self._texts(message, where))
        if not self.turns:
            self.system += blocks
            return
        for block in blocks:
            # Most models refuse a system entry in mid-conversation; as marked text every model reads it.
            block["text"] = f"<system>\n{block['text']}\n</system>"
            self._user_turn().append(block)

    def _add_assistant(self, message: Message, where: str) -> None:
        blocks = list(self._texts(message, where))
        if not blocks and message.refusal:
            blocks = [_text(message.refusal)]
        calls = [(call.id, call.function) for call in message.tool_calls or ()]
        if message.function_call is not None:
            calls.append((f"function {message.function_call.name}", message.function_call))
        if not blocks and not calls:
            return
        if not self.turns:
            self.turns.append({"role": "user", "content": [_text(START)]})
        if self.turns[-1]["role"] == "user":
            self.turns.append({"role": "assistant", "content": []})
        content = self.turns[-1]["content"]
        content += blocks
        for call_id, called in calls:
            if called is None:
                raise not_sent("Anthropic has function tools only", f"{where}.tool_calls")
            content.append(self._call(call_id, called))

    def _call(self, call_id: str, called: Called) -> Block:
        base = legal = _legal(call_id or "call", _MAX_ID)
        number = 1
        while legal in self._ids:
            number += 1
            legal = f"{base[: _MAX_ID - 4]}_{number}"
        self._ids.add(legal)
        result: Block = {"type": "tool_result", "tool_use_id": legal, "content": MISSING_RESULT}
        waiting = self._by_call.get(call_id, [])
        # An id used twice in one turn waits for two results; one used again in a later turn starts afresh.
        same_turn = any(result is other for result in waiting for other in self._results)
        self._by_call[call_id] = [*waiting, result] if same_turn else [result]
        self._results.append(result)
        self.tool_names[called.name] = None
        name = legal_name(called.name)
        return {"type": "tool_use", "id": legal, "name": name, "input": call_input(called.arguments)}

    def _add_result(self, message: Message, where: str) -> None:
        call_id = message.tool_call_id if message.role == "tool" else f"function {message.name}"
        if call_id is None:
            raise invalid("a tool message needs the id of its call", f"{where}.tool_call_id")
        blocks = list(self._blocks(message, where))
        waiting = self._by_call.get(call_id)
        if not waiting:
            self._user_turn().append(_text(f"(result of a tool call that is not in this conversation, {call_id})"))
            self._user_turn().extend(blocks)
            return
        if self._results:
            self._user_turn()
        result = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        result["content"] = blocks
        if not blocks:
            del result["content"]

    def _user_turn(self) -> list[Block]:
        if not self.turns or self.turns[-1]["role"] != "user":
            self.turns.append({"role": "user", "content": list(self._results)})
            self._results = []
        content: list[Block] = self.turns[-1]["content"]
        return content

    def _finish(self, *, prefill: bool) -> None:
        if not self.turns:
            # Anthropic wants at least one turn: a lone system message is the question.
            self.turns.append({"role": "user", "content": self.system or [_text(EMPTY)]})
            self.system = []
        if self._results:
            self._user_turn()
        content = self.turns[-1]["content"]
        self.in_tool_loop = any(block["type"] == "tool_result" for block in content)
        if self.turns[-1]["role"] != "assistant":
            return
        if not prefill:
            self._user_turn().append(_text(GO_ON))
            return
        self.prefilled = True
        # A prefilled answer must not end in white space.
        content[-1]["text"] = content[-1]["text"].rstrip()

    def _texts(self, message: Message, where: str) -> Iterator[Block]:
        for block in self._blocks(message, where):
            if block["type"] != "text":
                raise not_sent(f"a message of role {message.role!r} can only hold text", f"{where}.content")
            yield block

    def _blocks(self, message: Message, where: str) -> Iterator[Block]:
        """Yield the blocks of a message's content; texts of white space only, which Anthropic refuses, are left out."""
        content = message.content
        if content is None or isinstance(content, str):
            if content and not content.isspace():
                yield _text(content)
            return
        for index, part in enumerate(content):
            block = _block(part, f"{where}.content[{index}]")
            if block is None:
                continue
            if block["type"] == "document" and block["source"]["type"] == "file":
                self.has_file_ids = True
            if part.cache_control is not msgspec.UNSET:
                block["cache_control"] = part.cache_control
            yield block


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _block(part: Part, where: str) -> Block | None:
    """Return the block for one part, None for an empty text."""
    match part.type:
        case "text" | "refusal":
            text = part.text if part.type == "text" else part.refusal
            if text is None:
                raise invalid(f"a {part.type} part needs its text", where)
            return _text(text) if text and not text.isspace() else None
        case "image_url":
            url = part.image_url.url if isinstance(part.image_url, ImageUrl) else part.image_url
            if not url:
                raise invalid("an image part needs a url", where)
            return _image(url, where)
        case "file":
            return _file(part.file or File(), where)
        case "input_audio":
            raise not_sent("Anthropic takes no audio", where)
        case kind:
            raise invalid(f"there is no content part {kind!r}", where)


def _image(url: str, where: str) -> Block:
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
