"""OpenAI's chat request as a translated language reads it: messages, tools, formats, and what is wrong with them.

Only what both Cohere and Ollama need: their tools are declared in OpenAI's shape, one at a time cannot be forced, and
a text is a text. Format: OpenAI API reference, "Create chat completion".
"""

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from proxy.adapter import Target, not_sent
from proxy.errors import InvalidRequestError
from proxy.wire import Number

UNSET: Final = msgspec.UNSET
MaybeRaw = msgspec.Raw | msgspec.UnsetType
# Values that say no more than a missing field.
NOTHING: Final = tuple(msgspec.Raw(value) for value in (b"null", b"false"))
_NO_PARAMETERS: Final = msgspec.Raw(b'{"type":"object","properties":{}}')
_NOT_TEXT: Final = frozenset({"input_audio", "file"})
_PATH: Final = re.compile(r" - at `\$\.?(.*)`$")
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ImageUrl(msgspec.Struct, omit_defaults=True):
    """Where an image is: a URL or a data URI."""

    url: str
    detail: str | None = None


class Part(msgspec.Struct):
    """One content part; `type` says which of the other fields counts."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | ImageUrl | None = None


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
    reasoning_content: str | None = None


class Function(msgspec.Struct):
    """A declared function; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: MaybeRaw = UNSET
    strict: bool | None = None


class Tool(msgspec.Struct):
    """A declared tool."""

    type: str = "function"
    function: Function | None = None


class AllowedTools(msgspec.Struct):
    """Some of the declared tools."""

    mode: str = "auto"
    tools: list[Tool] = []


class ToolChoice(msgspec.Struct):
    """A choice that names tools."""

    type: str
    function: Called | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchema(msgspec.Struct):
    """A schema and what it is called."""

    schema: MaybeRaw = UNSET


class ResponseFormat(msgspec.Struct):
    """What the answer has to look like."""

    type: str
    json_schema: JsonSchema | None = None


class Chat(msgspec.Struct, kw_only=True):
    """The fields that have a meaning in every translated language; a language adds its own."""

    messages: list[Message]
    tools: list[Tool] | None = None
    functions: list[Function] | None = None
    tool_choice: str | ToolChoice | None = None
    function_call: str | Called | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    stop: str | list[str] | None = None
    max_completion_tokens: Number | None = None
    max_tokens: Number | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    top_k: Number | None = None
    seed: int | None = None
    frequency_penalty: Number | None = None
    presence_penalty: Number | None = None
    reasoning_effort: str | None = None
    n: Number | None = None
    modalities: list[str] | None = None


class Format(NamedTuple):
    """JSON is wanted; `schema` is None when any object will do."""

    schema: msgspec.Raw | None


class Declared(NamedTuple):
    """The tools the model may see. `mode` is none, auto or required, and auto when there are none."""

    tools: list[dict[str, Any]]
    mode: str


Language = TypeVar("Language", bound=Chat)


def invalid(message: str, param: str) -> InvalidRequestError:
    """Return the error for a request that is wrong in itself."""
    error = InvalidRequestError(message, code="invalid_value", param=param)
    error.unsent = True
    return error


def read(raw: bytes, decoder: "msgspec.json.Decoder[Language]", language: str) -> tuple[Language, list[str]]:
    """Return the request and the names of its fields that `language` has no word for.

    Raises InvalidRequestError with `unsent` for a wrong request, and for one that asks for several answers or audio.
    """
    try:
        chat = decoder.decode(raw)
        given = _fields.decode(raw)
    except msgspec.DecodeError as error:
        text = str(error)
        path = _PATH.search(text)
        raise invalid(_PATH.sub("", text), path.group(1) if path else "messages") from None
    except RecursionError:
        raise not_sent("the request is nested too deeply") from None
    if chat.n is not None and chat.n > 1:
        raise not_sent(f"{language} gives one answer per request", "n")
    if "audio" in (chat.modalities or ()):
        raise not_sent(f"{language} gives no audio", "modalities")
    known = {*chat.__struct_fields__, "model", "stream", "stream_options"}
    return chat, [name for name, value in given.items() if name not in known and value not in NOTHING]


def limit_of(chat: Chat, target: Target) -> int | None:
    """Return how many tokens the answer may have, never more than the model can say; None for no limit."""
    asked = chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens
    if asked is None:
        return None
    return min(int(asked), target.max_output) if target.max_output else int(asked)


def stops_of(chat: Chat) -> list[str]:
    """Return the stop sequences; empty ones, which stop nothing, are left out."""
    stop = [chat.stop] if isinstance(chat.stop, str) else chat.stop or []
    return [text for text in stop if text]


def format_of(chat: Chat) -> Format | None:
    """Return what the answer has to look like, None for plain text."""
    wanted = chat.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type not in ("json_object", "json_schema"):
        raise invalid(f"there is no response format {wanted.type!r}", "response_format.type")
    given = wanted.json_schema
    if wanted.type == "json_object" or given is None:
        return Format(None)
    return Format(_schema(given.schema, "response_format.json_schema.schema"))


def _schema(raw: MaybeRaw, where: str) -> msgspec.Raw | None:
    if isinstance(raw, msgspec.UnsetType) or raw in NOTHING:
        return None
    if not bytes(raw).startswith(b"{"):
        raise invalid("a JSON schema is an object", where)
    return raw


# ---- tools ------------------------------------------------------------------------------------------------------


def declare(chat: Chat, language: str, dropped: list[str]) -> Declared:
    """Return the tools in the shape OpenAI gave them, of a choice that names some only those.

    Adds to `dropped` what has no counterpart: strict arguments, one call at a time, a forced call without tools.
    """
    mode, allowed = _choice_of(chat, language)
    tools = [
        _tool(function, where, dropped)
        for where, function in _functions(chat, language)
        if allowed is None or function.name in allowed
    ]
    if chat.parallel_tool_calls is False and tools:
        dropped.append("parallel_tool_calls")
    if not tools and mode == "required":
        dropped.append("tool_choice")
    return Declared(tools, mode if tools else "auto")


def _choice_of(chat: Chat, language: str) -> tuple[str, frozenset[str] | None]:
    chosen = chat.tool_choice
    if chosen is None and isinstance(chat.function_call, Called):
        return "required", frozenset({chat.function_call.name})
    if chosen is None:
        chosen = chat.function_call if isinstance(chat.function_call, str) else "auto"
    if isinstance(chosen, str):
        if chosen not in ("none", "auto", "required"):
            raise invalid(f"there is no tool choice {chosen!r}", "tool_choice")
        return chosen, None
    if chosen.type == "function" and chosen.function is not None:
        return "required", frozenset({chosen.function.name})
    if chosen.type == "allowed_tools" and chosen.allowed_tools is not None:
        allowed = chosen.allowed_tools
        names = frozenset(tool.function.name for tool in allowed.tools if tool.function is not None)
        return "required" if allowed.mode == "required" else "auto", names
    raise not_sent(f"{language} has no tool choice of type {chosen.type!r}", "tool_choice")


def _functions(chat: Chat, language: str) -> Iterable[tuple[str, Function]]:
    for index, tool in enumerate(chat.tools or ()):
        if tool.type != "function":
            raise not_sent(f"{language} has function tools only", f"tools[{index}].type")
        if tool.function is None:
            raise invalid("a function tool needs its function", f"tools[{index}].function")
        yield f"tools[{index}].function", tool.function
    for index, function in enumerate(chat.functions or ()):
        yield f"functions[{index}]", function


def _tool(function: Function, where: str, dropped: list[str]) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": function.name}
    if function.description:
        declared["description"] = function.description
    declared["parameters"] = _schema(function.parameters, f"{where}.parameters") or _NO_PARAMETERS
    if function.strict:
        dropped.append(f"{where}.strict")
    return {"type": "function", "function": declared}


# ---- messages ---------------------------------------------------------------------------------------------------


def calls_of(message: Message, where: str, language: str) -> list[tuple[str, Called]]:
    """Return the calls of an assistant message with their ids; the older spelling is known by its name."""
    calls = []
    for call in message.tool_calls or ():
        if call.function is None:
            raise not_sent(f"{language} has function tools only", f"{where}.tool_calls")
        calls.append((call.id, call.function))
    if message.function_call is not None:
        calls.append((f"function_{message.function_call.name}", message.function_call))
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
            # Skipping a value does not look at its escapes: half of a surrogate pair is no JSON either.
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
