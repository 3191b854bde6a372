"""Turn OpenAI's messages into Cohere's: the system first and once, every call answered behind its turn, no turn empty.

Cohere refuses a whole conversation with a gap (API reference, "Errors"): "system turn must be the first in the list",
"message must not be empty in a turn". The gaps are filled the same way each time, see `EMPTY` and `MISSING_RESULT`.
"""

from typing import Any, Final

import msgspec

from adapters._chat.messages import answered_call, arguments_of, calls_of, image_of, text_of, words_of
from adapters._chat.request import Message, invalid

Turn = dict[str, Any]

LANGUAGE: Final = "Cohere"
EMPTY: Final = "(empty message)"
MISSING_RESULT: Final = "(no result was given for this call)"


def turns_of(messages: list[Message]) -> list[Turn]:
    """Return Cohere's messages. Raises InvalidRequestError with `unsent` for content it cannot carry."""
    talk = _Talk()
    for position, message in enumerate(messages):
        talk.add(message, f"messages[{position}]")
    return talk.turns or [{"role": "user", "content": EMPTY}]


class _Talk:
    """A conversation in the making; `_results` are the tool turns of the calls so far, by call."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self._results: dict[str, Turn] = {}

    def add(self, message: Message, where: str) -> None:
        match message.role:
            case "user":
                self.turns.append({"role": "user", "content": _content(message, where)})
            case "assistant":
                self._add_assistant(message, where)
            case "tool" | "function":
                self._add_result(message, where)
            case "system" | "developer":
                self._add_system(text_of(message, where, LANGUAGE))
            case role:
                raise invalid(f"there is no role {role!r}", f"{where}.role")

    def _add_system(self, text: str) -> None:
        if not text:
            return
        if not self.turns:
            self.turns.append({"role": "system", "content": text})
        elif self.turns[-1]["role"] == "system":
            self.turns[-1]["content"] += f"\n\n{text}"
        else:
            self.turns.append({"role": "user", "content": f"<system>\n{text}\n</system>"})

    def _add_assistant(self, message: Message, where: str) -> None:
        text, calls = text_of(message, where, LANGUAGE), calls_of(message, where, LANGUAGE)
        if not calls:
            if text:
                self.turns.append({"role": "assistant", "content": text})
            return
        turn: Turn = {"role": "assistant", "tool_calls": []}
        # A turn with calls has a plan where others have content.
        plan = text or message.reasoning_content
        if plan:
            turn["tool_plan"] = plan
        self.turns.append(turn)
        for call_id, called, _ in calls:
            function = {"name": called.name, "arguments": bytes(arguments_of(called)).decode()}
            turn["tool_calls"].append({"id": call_id, "type": "function", "function": function})
            result = {"role": "tool", "tool_call_id": call_id, "content": MISSING_RESULT}
            self._results[call_id] = result
            self.turns.append(result)

    def _add_result(self, message: Message, where: str) -> None:
        call_id = answered_call(message, where)
        text = text_of(message, where, LANGUAGE) or EMPTY
        result = self._results.get(call_id)
        if result is not None:
            result["content"] = text
            return
        note = f"(result of a tool call that is not in this conversation, {call_id})"
        self.turns.append({"role": "user", "content": f"{note}\n{text}"})


def _content(message: Message, where: str) -> str | list[Turn]:
    """Return a user's content: a text, or parts in their order."""
    if message.content is None or isinstance(message.content, str):
        return message.content or EMPTY
    parts: list[Turn] = []
    for index, part in enumerate(message.content):
        place = f"{where}.content[{index}]"
        text = words_of(part, place, LANGUAGE)
        if text is None:
            parts.append({"type": "image_url", "image_url": msgspec.to_builtins(image_of(part, place))})
        elif text:
            parts.append({"type": "text", "text": text})
    return parts or EMPTY
