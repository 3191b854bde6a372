"""The walk over OpenAI's messages that Anthropic, Bedrock and Gemini share: user and assistant alternate, the user
begins, and every tool call is answered in the very next turn.

OpenAI lets a client leave gaps that these refuse with a 400 for the whole conversation. They are filled the same way
each time, so that a conversation keeps its cached prefix: see `MISSING_RESULT`, `EMPTY`, `START` and `GO_ON`.
"""

import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final

from adapters._chat.messages import Call, answered_call, calls_of, image_of
from adapters._chat.request import File, Message, Part, invalid
from proxy.adapter import not_sent

Block = dict[str, Any]

MISSING_RESULT: Final = "(no result was given for this call)"
EMPTY: Final = "(empty message)"
START: Final = "(start of conversation)"
GO_ON: Final = "Continue."


def legal(text: str, illegal: re.Pattern[str], limit: int) -> str:
    """Return `text` itself, or where it is illegal with a checksum, so that two never become one. Needs no memory."""
    replaced = illegal.sub("_", text)
    if replaced == text and 0 < len(text) <= limit:
        return text
    return f"{replaced[: limit - 9]}_{zlib.crc32(text.encode()):08x}"


class Turns(ABC):
    """The system blocks and the turns of one request; a language says how a block looks.

    `tool_names` are the tools its history has called; `prefilled` says that the assistant spoke last, `in_tool_loop`
    that its calls have just been answered, `thoughtless` that the steps of this loop lack the thinking they began with.
    """

    language: ClassVar[str]
    # What the language calls the assistant and a turn's content, and the keys that tell a text and a result.
    assistant: ClassVar[str] = "assistant"
    content: ClassVar[str] = "content"
    texts: ClassVar[frozenset[str]] = frozenset({"text"})
    # Whether a text may be white space alone: most models refuse that.
    blanks: ClassVar[bool] = False
    result: ClassVar[str]

    def __init__(self, messages: list[Message], source: str) -> None:
        self.system: list[Block] = []
        self.turns: list[Block] = []
        self.tool_names: dict[str, None] = {}
        self.prefilled = False
        self.in_tool_loop = False
        self.thoughtless = False
        self._source = source
        self._ids: set[str] = set()
        # The results of the last assistant turn, placed in the user turn after it, filled as tool messages come.
        self._results: list[Block] = []
        self._by_call: dict[str, list[Block]] = {}
        for position, message in enumerate(messages):
            self._add(message, f"messages[{position}]")
        self._finish()

    # ---- what a language adds

    @abstractmethod
    def _text(self, text: str) -> Block:
        """Return the block of a text."""

    @abstractmethod
    def _image(self, url: str, where: str) -> Block:
        """Return the block of an image. Raises InvalidRequestError for one that the language does not take."""

    @abstractmethod
    def _file(self, file: File, where: str) -> Block:
        """Return the block of a file. Raises InvalidRequestError for one that the language does not take."""

    @abstractmethod
    def _made(self, call: Call, legal_id: str) -> tuple[Block, Block]:
        """Return the blocks of a call and of its result, which says that there is none."""

    @abstractmethod
    def _answer(self, result: Block, blocks: list[Block]) -> None:
        """Put `blocks` into the block of a result."""

    @abstractmethod
    def _legal_id(self, call_id: str) -> str:
        """Return the id of a call as the language takes it."""

    def _audio(self, part: Part, where: str) -> Block:
        raise not_sent(f"{self.language} takes no audio", where)

    def _with_marks(self, block: Block, part: Part, where: str) -> Iterable[Block]:
        """Return a block with what its part says besides (`cache_control`)."""
        return (block,)

    def _thoughts(self, message: Message) -> list[tuple[int, Block]]:
        """Return the thinking that comes back to who has signed it, with its places among the blocks of the answer."""
        return []

    def _sign(self, said: list[Block], calls: list[Call], message: Message) -> None:  # noqa: B027  # few languages do
        """Put signatures back on the blocks they came with."""

    def _is_thought(self, block: Block) -> bool:
        return False

    def _join(self, content: list[Block], said: list[Block]) -> None:
        """Add what a message says to its turn."""
        content += said

    def _may_prefill(self) -> bool:
        return False

    # ---- the walk

    def _add(self, message: Message, where: str) -> None:
        match message.role:
            case "system" | "developer":
                self._add_system(self._texts(message, where))
            case "user":
                self._add_user(self._blocks(message, where) or [self._text(EMPTY)])
            case "assistant":
                self._add_assistant(message, where)
            case "tool" | "function":
                self._add_result(message, where)
            case role:
                raise invalid(f"there is no role {role!r}", f"{where}.role")

    def _add_user(self, blocks: list[Block]) -> None:
        self._user_turn().extend(blocks)

    def _add_system(self, blocks: list[Block]) -> None:
        if not self.turns:
            self.system += blocks
        elif blocks:
            # Few models take a system entry in mid-conversation; as marked text every model reads it.
            self._add_user([_marked(block) for block in blocks])

    def _add_assistant(self, message: Message, where: str) -> None:
        said = self._texts(message, where)
        if not said and message.refusal:
            said = [self._text(message.refusal)]
        calls = calls_of(message, where, self.language)
        if not said and not calls:
            return
        if not self.turns:
            self.turns.append({"role": "user", self.content: [self._text(START)]})
        if self.turns[-1]["role"] == "user":
            self.turns.append({"role": self.assistant, self.content: []})
        said += [self._call(call) for call in calls]
        if message.reasoning_details is not None:
            self._sign(said, calls, message)
            for place, thought in self._thoughts(message):
                # Never at the end: a turn does not end with a thought.
                said.insert(min(place, len(said) - 1), thought)
        self._join(self.turns[-1][self.content], said)

    def _call(self, call: Call) -> Block:
        base = unique = self._legal_id(call.id or "call")
        number = 1
        while unique in self._ids:
            number += 1
            unique = f"{base[:60]}_{number}"
        self._ids.add(unique)
        made, result = self._made(call, unique)
        waiting = self._by_call.get(call.id, [])
        # An id used twice in one turn waits for two results; one used again in a later turn starts afresh.
        same_turn = any(result is other for result in waiting for other in self._results)
        self._by_call[call.id] = [*waiting, result] if same_turn else [result]
        self._results.append(result)
        self.tool_names[call.called.name] = None
        return made

    def _add_result(self, message: Message, where: str) -> None:
        call_id = answered_call(message, where)
        blocks = self._blocks(message, where)
        waiting = self._by_call.get(call_id)
        if not waiting:
            note = f"(result of a tool call that is not in this conversation, {call_id})"
            self._add_user([self._text(note), *blocks])
            return
        if self._results:
            self._user_turn()
        self._answer(waiting.pop(0) if len(waiting) > 1 else waiting[0], blocks)

    def _user_turn(self) -> list[Block]:
        if not self.turns or self.turns[-1]["role"] != "user":
            self.turns.append({"role": "user", self.content: self._results})
            self._results = []
        content: list[Block] = self.turns[-1][self.content]
        return content

    def _finish(self) -> None:
        if not self.turns:
            # At least one turn is wanted: a lone system message is the question.
            self.turns.append({"role": "user", self.content: self.system or [self._text(EMPTY)]})
            self.system = []
        if self._results:
            self._user_turn()
        self.in_tool_loop = self._is_answer(self.turns[-1])
        self.thoughtless = self.in_tool_loop and not any(map(self._is_thought, self._loop()))
        if self.turns[-1]["role"] == "user":
            return
        self.prefilled = self._may_prefill()
        if not self.prefilled:
            self._user_turn().append(self._text(GO_ON))
            return
        # A prefilled answer must not end in white space.
        content = self.turns[-1][self.content]
        content[:] = [block for block in content if "text" in block]
        content[-1]["text"] = content[-1]["text"].rstrip()

    def _is_answer(self, turn: Block) -> bool:
        return any(self.result in block for block in turn[self.content])

    def _loop(self) -> Iterator[Block]:
        """Yield the first blocks of the assistant's turns since the user last spoke."""
        for turn in reversed(self.turns):
            if turn["role"] != "user":
                yield turn[self.content][0]
            elif not self._is_answer(turn):
                return

    def _texts(self, message: Message, where: str) -> list[Block]:
        blocks = self._blocks(message, where)
        if not isinstance(message.content, str) and any(self.texts.isdisjoint(block) for block in blocks):
            raise not_sent(f"a message of role {message.role!r} can only hold text", f"{where}.content")
        return blocks

    def _blocks(self, message: Message, where: str) -> list[Block]:
        """Return the blocks of a message's content; empty texts, which are refused, are left out."""
        content = message.content
        if isinstance(content, str):
            return [self._text(content)] if content and (self.blanks or not content.isspace()) else []
        blocks: list[Block] = []
        for index, part in enumerate(content or ()):
            here = f"{where}.content[{index}]"
            block = self._block(part, here)
            if block is not None:
                blocks += self._with_marks(block, part, here)
        return blocks

    def _block(self, part: Part, where: str) -> Block | None:
        """Return the block for one part, None for an empty text."""
        match part.type:
            case "text" | "refusal":
                text = part.text if part.type == "text" else part.refusal
                if text is None:
                    raise invalid(f"a {part.type} part needs its text", where)
                return self._text(text) if text and (self.blanks or not text.isspace()) else None
            case "image_url":
                return self._image(image_of(part, where).url, where)
            case "file":
                return self._file(part.file or File(), where)
            case "input_audio":
                return self._audio(part, where)
            case kind:
                raise invalid(f"there is no content part {kind!r}", where)


def _marked(block: Block) -> Block:
    """Return a system text as one that stands among a user's words."""
    return {**block, "text": f"<system>\n{block['text']}\n</system>"} if "text" in block else block
