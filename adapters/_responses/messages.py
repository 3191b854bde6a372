"""Turn OpenAI's messages into the input items of a response, and see that the API finds a result for each call.

It refuses a whole conversation where a call has no result, or a result no call; the gaps are filled the same way each
time. Ids longer than it takes become shorter ones, always the same: nothing about a conversation is kept here.
"""

import hashlib
import mimetypes
from typing import Any, Final

from adapters._chat import messages, request
from adapters._chat.messages import answered_call, calls_of, image_of, text_of
from adapters._chat.request import NOTHING, UNSET, Called, File, MaybeRaw, invalid
from adapters._responses.items import CALL, returned_items

Item = dict[str, Any]

LANGUAGE: Final = "The Responses API"
MISSING_RESULT: Final = "(no result was given for this call)"
# The longest id of a call that is taken.
MAX_ID: Final = 64
_RESULT: Final = "function_call_output"
_TEXTS: Final = frozenset({"text", "refusal"})


class Part(request.Part):
    """A content part, with OpenAI's own mark for its cache."""

    prompt_cache_breakpoint: MaybeRaw = UNSET


class Message(request.Message):
    """One message of any role."""

    content: str | list[Part] | None = None  # type: ignore[assignment]


class Talk:
    """A conversation in the making. `instructions` are the texts that came first, None where they are items, too.

    `_open` are the results so far, by call; `stored` says that the provider may know calls that are not here.
    """

    def __init__(self, source: str, *, apart: bool, stored: bool) -> None:
        self.items: list[Item] = []
        self.instructions: list[str] | None = [] if apart else None
        self._source = source
        self._stored = stored
        self._open: dict[str, Item] = {}

    def add(self, message: Message, where: str) -> None:
        """Add a message. Raises InvalidRequestError with `unsent` for content that the API cannot take."""
        match message.role:
            case "user":
                self.items.append({"role": "user", "content": _content(message, where)})
            case "assistant":
                self._add_assistant(message, where)
            case "tool" | "function":
                self._add_result(message, where)
            case "system" | "developer" as role:
                self._add_system(role, message, where)
            case role:
                raise invalid(f"there is no role {role!r}", f"{where}.role")

    def _add_system(self, role: str, message: Message, where: str) -> None:
        if self.instructions is not None and not self.items:
            self.instructions.append(text_of(message, where, LANGUAGE))
            return
        role = role if self.instructions is None else "developer"
        self.items.append({"role": role, "content": _content(message, where)})

    def _add_assistant(self, message: Message, where: str) -> None:
        text, calls = text_of(message, where, LANGUAGE), calls_of(message, where, LANGUAGE)
        if text or calls:
            self.items += returned_items(message, self._source)
        if text:
            self.items.append({"role": "assistant", "content": text})
        results = [self._add_call(_short(call.id), call.called) for call in calls]
        self.items += results

    def _add_call(self, id: str, called: Called) -> Item:
        """Add a call and return the item of its result, which stands behind all calls of the message."""
        arguments = called.arguments or "{}"
        self.items.append({"type": CALL, "call_id": id, "name": called.name, "arguments": arguments})
        result = self._open[id] = {"type": _RESULT, "call_id": id, "output": MISSING_RESULT}
        return result

    def _add_result(self, message: Message, where: str) -> None:
        call_id = _short(answered_call(message, where))
        output = _output(message, where)
        result = self._open.get(call_id)
        if result is not None:
            result["output"] = output
        elif self._stored:
            self.items.append({"type": _RESULT, "call_id": call_id, "output": output})
        else:
            note = f"(result of a tool call that is not in this conversation, {call_id})"
            said = [{"type": "input_text", "text": output}] if isinstance(output, str) else output
            self.items.append({"role": "user", "content": [{"type": "input_text", "text": note}, *said]})


def _short(id: str) -> str:
    return id if len(id) <= MAX_ID else f"call_{hashlib.sha256(id.encode()).hexdigest()[:32]}"


def _content(message: Message, where: str) -> str | list[Item]:
    """Return a content: a text as it is, or parts in their order."""
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    return [_part(part, f"{where}.content[{index}]") for index, part in enumerate(message.content)]


def _output(message: Message, where: str) -> str | list[Item]:
    """Return a result: a text wherever it is only that, which all providers take."""
    parts = message.content if isinstance(message.content, list) else []
    if _TEXTS.issuperset(part.type for part in parts):
        return text_of(message, where, LANGUAGE)
    return _content(message, where)


def _part(part: Part, where: str) -> Item:
    if part.type == "file":
        made = {"type": "input_file", **_file(part.file or File(), where)}
    else:
        text = messages.words_of(part, where, LANGUAGE)
        if text is None:
            image = image_of(part, where)
            made = {"type": "input_image", "image_url": image.url, "detail": image.detail or "auto"}
        else:
            made = {"type": "input_text", "text": text}
    if part.prompt_cache_breakpoint is not UNSET and part.prompt_cache_breakpoint not in NOTHING:
        made["prompt_cache_breakpoint"] = part.prompt_cache_breakpoint
    return made


def _file(file: File, where: str) -> Item:
    if file.file_id:
        return {"file_id": file.file_id}
    if not file.file_data:
        raise invalid("a file part needs file_data or file_id", where)
    name = file.filename or "file.pdf"
    data = file.file_data
    if data[:5].lower() != "data:":
        data = f"data:{mimetypes.guess_type(name)[0] or 'application/pdf'};base64,{data}"
    return {"filename": name, "file_data": data}
