"""Turn OpenAI's messages into Gemini's turns: roles alternate, and every call is answered in the very next turn.

OpenAI lets a client leave gaps that Gemini refuses with a 400 for the whole conversation. They are filled the same way
each time, so that a conversation keeps its cached prefix: see `MISSING_RESULT`, `EMPTY`, `START` and `GO_ON`.
"""

import base64
import re
import zlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from adapters._chat.request import Called
from adapters._gemini.media import Part, invalid, part_of
from adapters._gemini.models import Rules
from proxy.adapter import not_sent

Block = dict[str, Any]

MISSING_RESULT: Final = "(no result was given for this call)"
EMPTY: Final = "(empty message)"
START: Final = "(start of conversation)"
GO_ON: Final = "Continue."
# What Google documents for a call whose signature is not known, because another model made it or it was lost.
NO_SIGNATURE: Final = base64.b64encode(b"skip_thought_signature_validator").decode()

_LEGAL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.-]{0,63}")
_ILLEGAL: Final = re.compile(r"[^a-zA-Z0-9_.-]")
_MAX_NAME: Final = 64


class ToolCall(msgspec.Struct):
    """One call in an assistant message. `extra_content` is where we, and Google's OpenAI endpoint, put signatures."""

    id: str = ""
    function: Called | None = None
    extra_content: Any = None


class Message(msgspec.Struct):
    """One message of any role. `function_call` and the role "function" are OpenAI's older spelling of tools."""

    role: str
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Called | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: str | None = None


def legal_name(name: str) -> str:
    """Return `name` as Gemini takes it: itself, or with a checksum so that two names never become one."""
    if _LEGAL.fullmatch(name):
        return name
    legal = _ILLEGAL.sub("_", name)
    if not legal[:1].isalpha():
        legal = f"_{legal}"
    return f"{legal[: _MAX_NAME - 9]}_{zlib.crc32(name.encode()):08x}"


def call_args(arguments: str | None) -> msgspec.Raw:
    """Return the JSON object in `arguments` with its digits untouched; nothing at all is an empty object.

    What is no object (broken JSON, a list, null) becomes {"arguments": "<the text>"}.
    """
    text = (arguments or "").strip() or "{}"
    try:
        raw = msgspec.json.decode(text, type=msgspec.Raw)
        if "\\u" in text:
            # Skipping a value does not look at its escapes, and nobody takes half of a surrogate pair.
            msgspec.json.decode(text)
        if text.startswith("{"):
            return raw
    except (msgspec.DecodeError, RecursionError):
        pass
    return msgspec.Raw(msgspec.json.encode({"arguments": arguments}))


class Conversation:
    """The system parts and the turns of one request, for a model with `rules` at `source` (surface and model)."""

    def __init__(self, messages: list[Message], rules: Rules, source: str) -> None:
        self.system: list[Block] = []
        self.turns: list[Block] = []
        self._rules = rules
        self._source = source
        self._ids: set[str] = set()
        # The results of the last model turn, placed in the user turn after it, filled as tool messages come.
        self._results: list[Block] = []
        self._by_call: dict[str, list[Block]] = {}
        for position, message in enumerate(messages):
            self._add(message, f"messages[{position}]")
        self._finish()

    def add_instruction(self, words: str) -> None:
        """Say one more thing before the conversation."""
        if self._rules.system:
            self.system.append(_text(words))
        else:
            self.turns[0]["parts"].insert(0, _text(words))

    def _add(self, message: Message, where: str) -> None:
        match message.role:
            case "system" | "developer":
                self._add_system(message, where)
            case "user":
                parts = self._user_turn()
                parts += list(_parts(message, where)) or [_text(EMPTY)]
            case "assistant":
                self._add_assistant(message, where)
            case "tool" | "function":
                self._add_result(message, where)
            case role:
                raise invalid(f"there is no role {role!r}", f"{where}.role")

    def _add_system(self, message: Message, where: str) -> None:
        parts = list(_texts(message, where))
        if not self.turns:
            self.system += parts
            return
        for part in parts:
            # There is one system instruction per request; as marked text every model reads what comes later.
            self._user_turn().append(_text(f"<system>\n{part['text']}\n</system>"))

    def _add_assistant(self, message: Message, where: str) -> None:
        parts = list(_texts(message, where))
        if not parts and message.refusal:
            parts = [_text(message.refusal)]
        calls = list(message.tool_calls or ())
        if message.function_call is not None:
            calls.append(ToolCall(f"function {message.function_call.name}", message.function_call))
        if not parts and not calls:
            return
        if not self.turns:
            self.turns.append({"role": "user", "parts": [_text(START)]})
        if self.turns[-1]["role"] == "user":
            self.turns.append({"role": "model", "parts": []})
        said: list[Block] = self.turns[-1]["parts"]
        said += parts
        for call in calls:
            if call.function is None:
                raise not_sent("Gemini has function tools only", f"{where}.tool_calls")
            part = self._call(call, call.function)
            signature = self._signature(call)
            if signature is None and self._rules.signatures and not any("functionCall" in other for other in said):
                signature = NO_SIGNATURE
            if signature is not None:
                part["thoughtSignature"] = signature
            said.append(part)

    def _signature(self, call: ToolCall) -> str | None:
        """Return the signature that came with `call`, None when it has none or another model made it."""
        extra = call.extra_content.get("google") if isinstance(call.extra_content, dict) else None
        if not isinstance(extra, dict) or extra.get("source", self._source) != self._source:
            return None
        signature = extra.get("thought_signature")
        return signature if isinstance(signature, str) and signature else None

    def _call(self, call: ToolCall, called: Called) -> Block:
        base = unique = call.id or "call"
        number = 1
        while unique in self._ids:
            number += 1
            unique = f"{base}_{number}"
        self._ids.add(unique)
        name = legal_name(called.name)
        result: Block = {"name": name, "response": {"output": MISSING_RESULT}}
        made: Block = {"name": name, "args": call_args(called.arguments)}
        if self._rules.call_ids:
            result["id"] = made["id"] = unique
        waiting = self._by_call.get(call.id, [])
        # An id used twice in one turn waits for two results; one used again in a later turn starts afresh.
        same_turn = any(result is other for result in waiting for other in self._results)
        self._by_call[call.id] = [*waiting, result] if same_turn else [result]
        self._results.append(result)
        return {"functionCall": made}

    def _add_result(self, message: Message, where: str) -> None:
        call_id = message.tool_call_id if message.role == "tool" else f"function {message.name}"
        if call_id is None:
            raise invalid("a tool message needs the id of its call", f"{where}.tool_call_id")
        parts = list(_parts(message, where))
        waiting = self._by_call.get(call_id)
        if not waiting:
            note = f"(result of a tool call that is not in this conversation, {call_id})"
            self._user_turn().extend([_text(note), *parts])
            return
        turn = self._user_turn() if self._results else None
        result = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        # As text, whatever it is: inside of an object, Gemini would read a "$ref" as a reference of its own.
        result["response"] = {"output": "\n".join(part["text"] for part in parts if "text" in part)}
        pictures = [part for part in parts if "text" not in part]
        if pictures:
            (self._user_turn() if turn is None else turn).extend(pictures)

    def _user_turn(self) -> list[Block]:
        if not self.turns or self.turns[-1]["role"] != "user":
            parts = [{"functionResponse": result} for result in self._results]
            self.turns.append({"role": "user", "parts": parts})
            self._results = []
        content: list[Block] = self.turns[-1]["parts"]
        return content

    def _finish(self) -> None:
        if not self.turns or (self.system and not self._rules.system):
            # A lone system message is the question; and some models take no instructions but the user's.
            if not self.turns:
                self._user_turn()
            self.turns[0]["parts"][:0] = self.system or [_text(EMPTY)]
            self.system = []
        if self._results:
            self._user_turn()
        if self.turns[-1]["role"] != "user":
            # Gemini wants the user to have the last word.
            self._user_turn().append(_text(GO_ON))
        for turn in self.turns:
            if not any(
                "text" in part or "functionResponse" in part or "functionCall" in part for part in turn["parts"]
            ):
                # A turn of pictures or sound alone is refused by some models.
                turn["parts"].append(_text(" "))


def _text(text: str) -> Block:
    return {"text": text}


def _texts(message: Message, where: str) -> Iterator[Block]:
    for part in _parts(message, where):
        if "text" not in part:
            raise not_sent(f"a message of role {message.role!r} can only hold text", f"{where}.content")
        yield part


def _parts(message: Message, where: str) -> Iterator[Block]:
    """Yield the parts of a message's content; empty texts are left out."""
    content = message.content
    if content is None or isinstance(content, str):
        if content:
            yield _text(content)
        return
    for index, part in enumerate(content):
        found = part_of(part, f"{where}.content[{index}]")
        if found is not None:
            yield found
