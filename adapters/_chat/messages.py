"""What stands in OpenAI's messages: texts, images, calls of tools and their results."""

from typing import Any, Final, NamedTuple

import msgspec

from adapters._chat.request import Called, ImageUrl, Message, Part, invalid
from proxy.adapter import not_sent

_NOT_TEXT: Final = frozenset({"input_audio", "file"})


class Call(NamedTuple):
    """A tool call of an assistant message; `extra` is what a client sends back with it, None for nothing."""

    id: str
    called: Called
    extra: Any = None


def calls_of(message: Message, where: str, language: str) -> list[Call]:
    """Return the calls of an assistant message; the older spelling is known by its name."""
    calls = []
    for call in message.tool_calls or ():
        if call.function is None:
            raise not_sent(f"{language} has function tools only", f"{where}.tool_calls")
        calls.append(Call(call.id, call.function, call.extra_content))
    if message.function_call is not None:
        calls.append(Call(f"function_{message.function_call.name}", message.function_call))
    return calls


def answered_call(message: Message, where: str) -> str:
    """Return the id of the call that a tool message answers."""
    call_id = message.tool_call_id if message.role == "tool" else f"function_{message.name}"
    if call_id is None:
        raise invalid("a tool message needs the id of its call", f"{where}.tool_call_id")
    return call_id


def arguments_of(called: Called) -> msgspec.Raw:
    """Return the JSON object in the arguments with its digits untouched; nothing at all is an empty object.

    What is no object (broken JSON, a list, null) becomes {"arguments": "<the text>"}.
    """
    text = (called.arguments or "").strip() or "{}"
    try:
        raw = msgspec.json.decode(text, type=msgspec.Raw)
        if "\\u" in text:
            # Skipping a value does not look at its escapes, and nobody takes half of a surrogate pair.
            msgspec.json.decode(text)
        if text.startswith("{"):
            return raw
    except (msgspec.DecodeError, RecursionError):
        pass
    return msgspec.Raw(msgspec.json.encode({"arguments": called.arguments}))


def text_of(message: Message, where: str, language: str) -> str:
    """Return the text of a message that can only hold text; several parts become lines."""
    if message.content is None or isinstance(message.content, str):
        return message.content or message.refusal or ""
    texts = []
    for index, part in enumerate(message.content):
        text = words_of(part, f"{where}.content[{index}]", language)
        if text is None:
            raise not_sent(f"a message of role {message.role!r} can only hold text", f"{where}.content")
        texts.append(text)
    return "\n".join(filter(None, texts))


def words_of(part: Part, where: str, language: str) -> str | None:
    """Return the text of a part, None for an image. Raises InvalidRequestError for any other part."""
    if part.type in ("text", "refusal"):
        text = part.text if part.type == "text" else part.refusal
        if text is None:
            raise invalid(f"a {part.type} part needs its text", where)
        return text
    if part.type == "image_url":
        return None
    if part.type in _NOT_TEXT:
        raise not_sent(f"{language} takes no content part {part.type!r}", where)
    raise invalid(f"there is no content part {part.type!r}", where)


def image_of(part: Part, where: str) -> ImageUrl:
    """Return where the image of a part is; some clients write the bare URL."""
    image = ImageUrl(part.image_url) if isinstance(part.image_url, str) else part.image_url
    if image is None or not image.url:
        raise invalid("an image part needs a url", where)
    return image
