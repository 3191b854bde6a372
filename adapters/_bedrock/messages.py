"""Turn OpenAI's messages into Converse's turns: what a block looks like, and Bedrock's own rules for them.

No URLs, a document needs a text beside it, some models refuse anything beside a tool result, texts come before calls.
"""

import re
from collections.abc import Iterable
from typing import ClassVar, Final

import msgspec

from adapters._bedrock import media
from adapters._bedrock.models import Family
from adapters._chat.messages import Call, arguments_of
from adapters._chat.reasoning import returned
from adapters._chat.request import NOTHING, File, InputAudio, Message, Part, invalid
from adapters._chat.turns import MISSING_RESULT, Block, Turns, legal
from proxy.adapter import not_sent

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
    return legal(name, _NOT_IN_NAMES, _MAX)


def cache_point(mark: msgspec.Raw, where: str) -> Block:
    """Return the block that stands for a `cache_control` mark on what is before it."""
    try:
        ttl = msgspec.json.decode(mark, type=_CacheControl).ttl
    except msgspec.DecodeError:
        raise invalid("cache_control must be an object", where) from None
    return {"cachePoint": {"type": "default", **({"ttl": ttl} if ttl else {})}}


class Conversation(Turns):
    """The system blocks and the turns of one request to the model at `source`. `dropped` are marks that it does not
    know.
    """

    language: ClassVar[str] = "Bedrock"
    texts: ClassVar[frozenset[str]] = frozenset({"text", "cachePoint"})
    result: ClassVar[str] = "toolResult"

    def __init__(self, messages: list[Message], source: str, family: Family) -> None:
        self.dropped: list[str] = []
        self._family = family
        self._documents: set[str] = set()
        super().__init__(messages, source)

    def _text(self, text: str) -> Block:
        return {"text": text}

    def _image(self, url: str, where: str) -> Block:
        return media.image(url, where)

    def _file(self, file: File, where: str) -> Block:
        return media.file(file, self._documents, where)

    def _audio(self, part: Part, where: str) -> Block:
        if not self._family.hears:
            raise not_sent("this model takes no audio", where)
        return media.sound(part.input_audio or InputAudio(), where)

    def _with_marks(self, block: Block, part: Part, where: str) -> Iterable[Block]:
        yield block
        mark = part.cache_control
        if isinstance(mark, msgspec.UnsetType) or mark in NOTHING:
            return
        if self._family.caches:
            yield cache_point(mark, f"{where}.cache_control")
        else:
            self.dropped.append("cache_control")

    def _legal_id(self, call_id: str) -> str:
        return legal(call_id, _NOT_IN_IDS, _MAX)

    def _made(self, call: Call, legal_id: str) -> tuple[Block, Block]:
        name, given = legal_name(call.called.name), arguments_of(call.called)
        return (
            {"toolUse": {"toolUseId": legal_id, "name": name, "input": given}},
            {"toolResult": {"toolUseId": legal_id, "content": [self._text(MISSING_RESULT)]}},
        )

    def _answer(self, result: Block, blocks: list[Block]) -> None:
        # Inside of a result there are no cache points.
        kept = [block for block in blocks if "cachePoint" not in block]
        result["toolResult"]["content"] = kept or [self._text(EMPTY_RESULT)]

    def _thoughts(self, message: Message) -> list[tuple[int, Block]]:
        return [
            (one.index, {"reasoningContent": {"redactedContent": one.data}})
            if one.data is not None
            else (one.index, {"reasoningContent": {"reasoningText": {"text": one.text, "signature": one.signature}}})
            for one in returned(message, self._source)
        ]

    def _is_thought(self, block: Block) -> bool:
        return "reasoningContent" in block

    def _may_prefill(self) -> bool:
        return self._family.claude is not None and self._family.claude.prefill

    def _join(self, content: list[Block], said: list[Block]) -> None:
        # Two messages in a row make one turn.
        place = next((at for at, block in enumerate(content) if "toolUse" in block), None)
        if place is None:
            content += said
            return
        content[place:place] = [block for block in said if "toolUse" not in block]
        content += [block for block in said if "toolUse" in block]

    def _add_user(self, blocks: list[Block]) -> None:
        documents = any("document" in block for block in blocks)
        if documents and not any("text" in block for block in blocks):
            blocks.append(self._text(SEE_DOCUMENT))
        content = self._user_turn()
        if content and "toolResult" in content[0] and (documents or self._family.results_alone):
            self.turns.append({"role": "assistant", "content": [self._text(NOTED)]})
            content = self._user_turn()
        content += blocks
