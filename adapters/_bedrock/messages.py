"""Turn OpenAI's messages into Converse's turns: user and assistant alternate, the user begins, and every tool call is
answered in the very next turn.

The rules are those of the Anthropic language, with three of Bedrock's own: no URLs, a document needs a text beside it,
and some models refuse anything beside a tool result. Gaps that a client left are filled the same way each time.
"""

import re
import zlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from adapters._anthropic.messages import (
    EMPTY,
    GO_ON,
    MISSING_RESULT,
    START,
    Called,
    File,
    Message,
    Part,
    call_input,
    invalid,
)
from adapters._anthropic.tools import NOTHING
from adapters._bedrock import media
from adapters._bedrock.models import Family
from proxy.adapter import not_sent

Block = dict[str, Any]

EMPTY_RESULT: Final = "(empty result)"
NOTED: Final = "OK."
SEE_DOCUMENT: Final = "See the document."

# The patterns ToolName and ToolUseId of the service model; both end at 64 characters.
_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_-]")
_NOT_IN_IDS: Final = re.compile(r"[^a-zA-Z0-9_.:-]")
_MAX: Final = 64


class _CacheControl(msgspec.Struct):
    ttl: str | None = None


def legal_name(name: str) -> str:
    """Return `name` as Bedrock takes it: itself, or with a checksum so that two names never become one."""
    return _legal(name, _NOT_IN_NAMES)


def _legal(text: str, illegal: re.Pattern[str]) -> str:
    legal = illegal.sub("_", text)
    if legal == text and 0 < len(text) <= _MAX:
        return text
    return f"{legal[: _MAX - 9]}_{zlib.crc32(text.encode()):08x}"


def cache_point(mark: msgspec.Raw, where: str) -> Block:
    """Return the block that stands for a `cache_control` mark on what is before it."""
    try:
        ttl = msgspec.json.decode(mark, type=_CacheControl).ttl
    except msgspec.DecodeError:
        raise invalid("cache_control must be an object", where) from None
    return {"cachePoint": {"type": "default", **({"ttl": ttl} if ttl else {})}}


class Conversation:
    """The system blocks and the turns of one request.

    `tool_names` are the tools its history has called; `prefilled` says that the assistant spoke last, `in_tool_loop`
    that its calls have just been answered; `dropped` are marks that the model does not know.
    """

    def __init__(self, messages: list[Message], family: Family) -> None:
        self.system: list[Block] = []
        self.turns: list[Block] = []
        self.tool_names: dict[str, None] = {}
        self.prefilled = False
        self.in_tool_loop = False
        self.dropped: list[str] = []
        self._family = family
        self._ids: set[str] = set()
        self._documents: set[str] = set()
        # The results of the last assistant turn, placed in the user turn after it, filled as tool messages come.
        self._results: list[Block] = []
        self._by_call: dict[str, list[Block]] = {}
        for position, message in enumerate(messages):
            self._add(message, f"messages[{position}]")
        self._finish()

    def _add(self, message: Message, where: str) -> None:
        match message.role:
            case "system" | "developer":
                self._add_system(message, where)
            case "user":
                self._add_user(list(self._blocks(message, where)) or [_text(EMPTY)])
            case "assistant":
                self._add_assistant(message, where)
            case "tool" | "function":
                self._add_result(message, where)
            case role:
                raise invalid(f"there is no role {role!r}", f"{where}.role")

    def _add_user(self, blocks: list[Block]) -> None:
        documents = any("document" in block for block in blocks)
        if documents and not any("text" in block for block in blocks):
            blocks.append(_text(SEE_DOCUMENT))
        content = self._user_turn()
        if content and "toolResult" in content[0] and (documents or self._family.results_alone):
            self.turns.append({"role": "assistant", "content": [_text(NOTED)]})
            content = self._user_turn()
        content += blocks

    def _add_system(self, message: Message, where: str) -> None:
        blocks = list(self._texts(message, where))
        if not self.turns:
            self.system += blocks
        elif blocks:
            # Few models take the role "system" in mid-conversation; as marked text every model reads it.
            self._add_user([_marked(block) for block in blocks])

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
        # Within a turn texts come before calls; two messages in a row make one turn.
        place = next((at for at, block in enumerate(content) if "toolUse" in block), len(content))
        content[place:place] = blocks
        for call_id, called in calls:
            if called is None:
                raise not_sent("Bedrock has function tools only", f"{where}.tool_calls")
            content.append(self._call(call_id, called))

    def _call(self, call_id: str, called: Called) -> Block:
        base = legal = _legal(call_id or "call", _NOT_IN_IDS)
        number = 1
        while legal in self._ids:
            number += 1
            legal = f"{base[: _MAX - 4]}_{number}"
        self._ids.add(legal)
        result: Block = {"toolUseId": legal, "content": [_text(MISSING_RESULT)]}
        waiting = self._by_call.get(call_id, [])
        # An id used twice in one turn waits for two results; one used again in a later turn starts afresh.
        same_turn = any(result is other["toolResult"] for result in waiting for other in self._results)
        self._by_call[call_id] = [*waiting, result] if same_turn else [result]
        self._results.append({"toolResult": result})
        self.tool_names[called.name] = None
        name = legal_name(called.name)
        return {"toolUse": {"toolUseId": legal, "name": name, "input": call_input(called.arguments)}}

    def _add_result(self, message: Message, where: str) -> None:
        call_id = message.tool_call_id if message.role == "tool" else f"function {message.name}"
        if call_id is None:
            raise invalid("a tool message needs the id of its call", f"{where}.tool_call_id")
        # Inside of a result there are no cache points.
        blocks = [block for block in self._blocks(message, where) if "cachePoint" not in block]
        waiting = self._by_call.get(call_id)
        if not waiting:
            words = _text(f"(result of a tool call that is not in this conversation, {call_id})")
            self._add_user([words, *blocks])
            return
        if self._results:
            self._user_turn()
        result = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        result["content"] = blocks or [_text(EMPTY_RESULT)]

    def _user_turn(self) -> list[Block]:
        if not self.turns or self.turns[-1]["role"] != "user":
            self.turns.append({"role": "user", "content": list(self._results)})
            self._results = []
        content: list[Block] = self.turns[-1]["content"]
        return content

    def _finish(self) -> None:
        if not self.turns:
            # Converse wants at least one turn: a lone system message is the question.
            self.turns.append({"role": "user", "content": self.system or [_text(EMPTY)]})
            self.system = []
        if self._results:
            self._user_turn()
        content = self.turns[-1]["content"]
        self.in_tool_loop = "toolResult" in content[0]
        if self.turns[-1]["role"] != "assistant":
            return
        if self._family.claude is None or not self._family.claude.prefill:
            self._user_turn().append(_text(GO_ON))
            return
        self.prefilled = True
        # A prefilled answer must not end in white space.
        content[:] = [block for block in content if "text" in block]
        content[-1]["text"] = content[-1]["text"].rstrip()

    def _texts(self, message: Message, where: str) -> Iterator[Block]:
        for block in self._blocks(message, where):
            if "text" not in block and "cachePoint" not in block:
                raise not_sent(f"a message of role {message.role!r} can only hold text", f"{where}.content")
            yield block

    def _blocks(self, message: Message, where: str) -> Iterator[Block]:
        """Yield the blocks of a message's content; texts of white space only, which many models refuse, are left
        out.
        """
        content = message.content
        if content is None or isinstance(content, str):
            if content and not content.isspace():
                yield _text(content)
            return
        for index, part in enumerate(content):
            here = f"{where}.content[{index}]"
            block = self._block(part, here)
            if block is None:
                continue
            yield block
            mark = part.cache_control
            if isinstance(mark, msgspec.UnsetType) or mark in NOTHING:
                continue
            if self._family.caches:
                yield cache_point(mark, f"{here}.cache_control")
            else:
                self.dropped.append("cache_control")

    def _block(self, part: Part, where: str) -> Block | None:
        """Return the block for one part, None for an empty text."""
        match part.type:
            case "text" | "refusal":
                text = part.text if part.type == "text" else part.refusal
                if text is None:
                    raise invalid(f"a {part.type} part needs its text", where)
                return _text(text) if text and not text.isspace() else None
            case "image_url":
                return media.image(part, where)
            case "file":
                return media.file(part.file or File(), self._documents, where)
            case "input_audio":
                raise not_sent("Bedrock takes no audio", where)
            case kind:
                raise invalid(f"there is no content part {kind!r}", where)


def _text(text: str) -> Block:
    return {"text": text}


def _marked(block: Block) -> Block:
    """Return a system text as one that stands among a user's words."""
    return _text(f"<system>\n{block['text']}\n</system>") if "text" in block else block
