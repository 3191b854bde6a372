"""Turn OpenAI's messages into Gemini's turns: what a part looks like, and where signatures belong."""

import base64
import re
import zlib
from typing import Any, ClassVar, Final

from adapters._chat.messages import Call, arguments_of
from adapters._chat.reasoning import STAMP, is_ours, returned
from adapters._chat.request import File, Message, Part
from adapters._chat.turns import MISSING_RESULT, Block, Turns
from adapters._gemini import media
from adapters._gemini.models import Rules

# What Google documents for a call whose signature is not known, because another model made it or it was lost.
NO_SIGNATURE: Final = base64.b64encode(b"skip_thought_signature_validator").decode()

_LEGAL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.-]{0,63}")
_ILLEGAL: Final = re.compile(r"[^a-zA-Z0-9_.-]")
_MAX_NAME: Final = 64


def legal_name(name: str) -> str:
    """Return `name` as Gemini takes it: itself, or with a checksum so that two names never become one."""
    if _LEGAL.fullmatch(name):
        return name
    changed = _ILLEGAL.sub("_", name)
    if not changed[:1].isalpha():
        changed = f"_{changed}"
    return f"{changed[: _MAX_NAME - 9]}_{zlib.crc32(name.encode()):08x}"


class Conversation(Turns):
    """The system parts and the turns of one request, for a model with `rules` at `source`."""

    language: ClassVar[str] = "Gemini"
    assistant: ClassVar[str] = "model"
    content: ClassVar[str] = "parts"
    blanks: ClassVar[bool] = True
    result: ClassVar[str] = "functionResponse"

    def __init__(self, messages: list[Message], source: str, rules: Rules) -> None:
        self._rules = rules
        super().__init__(messages, source)

    def add_instruction(self, words: str) -> None:
        """Say one more thing before the conversation."""
        if self._rules.system:
            self.system.append(self._text(words))
        else:
            self.turns[0]["parts"].insert(0, self._text(words))

    def _text(self, text: str) -> Block:
        return {"text": text}

    def _image(self, url: str, where: str) -> Block:
        return media.at(url, where)

    def _file(self, file: File, where: str) -> Block:
        return media.file(file, where)

    def _audio(self, part: Part, where: str) -> Block:
        return media.sound(part.input_audio, where)

    def _legal_id(self, call_id: str) -> str:
        return call_id

    def _made(self, call: Call, legal_id: str) -> tuple[Block, Block]:
        name = legal_name(call.called.name)
        made: Block = {"name": name, "args": arguments_of(call.called)}
        result: Block = {"name": name, "response": {"output": MISSING_RESULT}}
        if self._rules.call_ids:
            result["id"] = made["id"] = legal_id
        part: Block = {"functionCall": made}
        signature = _signature_in(call.extra, self._source)
        if signature is not None:
            part["thoughtSignature"] = signature
        return part, {"functionResponse": result}

    def _sign(self, said: list[Block], calls: list[Call], message: Message) -> None:
        made = [part for part in said if "functionCall" in part]
        by_call = dict(zip((call.id for call in calls), made, strict=True))
        for detail in returned(message, self._source):
            # A signature that came with no call came with the last words.
            words = next((part for part in reversed(said) if "text" in part), None)
            part = words if detail.id is None else by_call.get(detail.id)
            if part is not None and detail.data:
                part["thoughtSignature"] = detail.data

    def _join(self, content: list[Block], said: list[Block]) -> None:
        if self._rules.signatures and not any("functionCall" in part for part in content):
            first = next((part for part in said if "functionCall" in part), None)
            if first is not None:
                first.setdefault("thoughtSignature", NO_SIGNATURE)
        content += said

    def _answer(self, result: Block, blocks: list[Block]) -> None:
        # As text, whatever it is: inside of an object, Gemini would read a "$ref" as a reference of its own.
        text = "\n".join(part["text"] for part in blocks if "text" in part)
        result["functionResponse"]["response"] = {"output": text}
        pictures = [part for part in blocks if "text" not in part]
        if pictures:
            self._user_turn().extend(pictures)

    def _finish(self) -> None:
        super()._finish()
        if self.system and not self._rules.system:
            # Some models take no instructions but the user's.
            self.turns[0]["parts"][:0] = self.system
            self.system = []
        for turn in self.turns:
            if not any(key in part for part in turn["parts"] for key in ("text", "functionResponse", "functionCall")):
                # A turn of pictures or sound alone is refused by some models.
                turn["parts"].append(self._text(" "))


def _signature_in(extra: Any, source: str) -> str | None:
    """Return the signature in a call's `extra_content`, as Google's OpenAI endpoint has it; None when it has none, or
    when another model made it.
    """
    found = extra.get("google") if isinstance(extra, dict) else None
    if not isinstance(found, dict) or not (STAMP not in found or is_ours(found, source)):
        return None
    signature = found.get("thought_signature")
    return signature if isinstance(signature, str) and signature else None
