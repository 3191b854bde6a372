"""OpenAI's chat request as a translated language reads it, and what is said when it is wrong in itself.

Format: OpenAI API reference, "Create chat completion".
"""

import re
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from proxy.adapter import Target, not_sent
from proxy.errors import InvalidRequestError
from proxy.wire import Number

UNSET: Final = msgspec.UNSET
MaybeRaw = msgspec.Raw | msgspec.UnsetType
# Values that say no more than a missing field.
NOTHING: Final = tuple(msgspec.Raw(value) for value in (b"null", b"false"))
# What OpenAI's API reference says these are when they are not given. (A temperature of 1 is not everybody's default.)
DEFAULTS: Final = {
    name: tuple(map(msgspec.Raw, values))
    for name, values in {
        **dict.fromkeys(("frequency_penalty", "presence_penalty", "top_logprobs"), (b"0", b"0.0")),
        "n": (b"1", b"1.0"),
        **dict.fromkeys(("logit_bias", "metadata"), (b"{}",)),
        "parallel_tool_calls": (b"true",),
        "service_tier": (b'"auto"', b'"default"'),
        "verbosity": (b'"medium"',),
    }.items()
}
_PATH: Final = re.compile(r" - at `\$\.?(.*)`$")
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ImageUrl(msgspec.Struct, omit_defaults=True):
    """Where an image is: a URL or a data URI."""

    url: str
    detail: str | None = None


class InputAudio(msgspec.Struct):
    """Sound in base64."""

    data: str = ""
    format: str = ""


class File(msgspec.Struct):
    """A file in the request, or one uploaded to its provider before."""

    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class Part(msgspec.Struct):
    """One content part; `type` says which of the other fields counts. `cache_control` is Anthropic's own."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | ImageUrl | None = None
    input_audio: InputAudio | None = None
    file: File | None = None
    cache_control: MaybeRaw = UNSET


class Called(msgspec.Struct):
    """A called function; `arguments` is JSON text, or what a model took for it."""

    name: str
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """One call in an assistant message. `extra_content` is where Google's OpenAI endpoint puts signatures."""

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
    reasoning_content: str | None = None
    reasoning_details: Any = None


class Function(msgspec.Struct):
    """A declared function; `parameters` is a JSON schema, `cache_control` Anthropic's own."""

    name: str
    description: str | None = None
    parameters: MaybeRaw = UNSET
    strict: bool | None = None
    cache_control: MaybeRaw = UNSET


class Tool(msgspec.Struct):
    """A declared tool."""

    type: str = "function"
    function: Function | None = None
    cache_control: MaybeRaw = UNSET


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

    name: str = ""
    description: str | None = None
    schema: MaybeRaw = UNSET


class ResponseFormat(msgspec.Struct):
    """What the answer has to look like."""

    type: str
    json_schema: JsonSchema | None = None


class ToolFields(msgspec.Struct, kw_only=True):
    """The fields of a request that are about tools. `functions` and `function_call` are the older spelling."""

    tools: list[Tool] | None = None
    functions: list[Function] | None = None
    tool_choice: str | ToolChoice | None = None
    function_call: str | Called | None = None
    parallel_tool_calls: bool | None = None


class Chat(ToolFields, kw_only=True):
    """The fields that have a meaning in every translated language; a language adds its own."""

    messages: list[Message]
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


Language = TypeVar("Language", bound=ToolFields)
Talk = TypeVar("Talk", bound=Chat)


def invalid(message: str, param: str) -> InvalidRequestError:
    """Return the error for a request that is wrong in itself."""
    error = InvalidRequestError(message, code="invalid_value", param=param)
    error.unsent = True
    return error


def known_to(kind: type[Chat]) -> frozenset[str]:
    """Return the names of the fields that are read, here or before."""
    return frozenset({*kind.__struct_fields__, "model", "stream", "stream_options"})


class Dropped(list[str]):
    """Names of what is left out of a request; `given` is what its client gave at the top, as JSON."""

    def __init__(self, given: dict[str, msgspec.Raw], known: frozenset[str]) -> None:
        super().__init__(name for name, value in given.items() if name not in known and value not in NOTHING)
        self.given = given

    def settled(self, out: dict[str, Any], target: Target) -> tuple[str, ...]:
        """Return the names of what is left out in the end, each once; a default says no more than a missing field.

        Where `target` forwards, what the client gave goes into `out` as it is, and the provider may judge it; what
        stands deeper than at the top cannot.
        """
        given = self.given
        names = [name for name in dict.fromkeys(self) if given.get(name) not in DEFAULTS.get(name, ())]
        if target.forward:
            out |= {name: given[name] for name in names if name in given and name not in out}
            names = [name for name in names if name not in given or out[name] is not given[name]]
        return tuple(names)


def decoded(raw: bytes, decoder: "msgspec.json.Decoder[Language]") -> Language:
    """Return the request. Raises InvalidRequestError with `unsent` for a wrong one."""
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        text = str(error)
        path = _PATH.search(text)
        raise invalid(_PATH.sub("", text), path.group(1) if path else "messages") from None
    except RecursionError:
        raise not_sent("the request is nested too deeply") from None


def read(
    raw: bytes, decoder: "msgspec.json.Decoder[Talk]", known: frozenset[str], language: str, answers: int = 1
) -> tuple[Talk, Dropped]:
    """Return the request and the names of its fields that `language` has no word for: those that are not `known`.

    Raises InvalidRequestError with `unsent` for a wrong request, and for one that asks for more than `answers` or for
    audio.
    """
    chat = decoded(raw, decoder)
    if chat.n is not None and chat.n > answers:
        most = "one answer" if answers == 1 else f"at most {answers} answers"
        raise not_sent(f"{language} gives {most} per request", "n")
    if "audio" in (chat.modalities or ()):
        raise not_sent(f"{language} gives no audio", "modalities")
    return chat, Dropped(_fields.decode(raw), known)


def limit_of(chat: Chat, target: Target) -> int | None:
    """Return how many tokens the answer may have, never more than the model can say; None for no limit."""
    asked = chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens
    if asked is None:
        return None
    return min(int(asked), target.max_output) if target.max_output else int(asked)


def stops_of(chat: Chat, dropped: list[str], *, most: int | None = None, blanks: bool = True) -> list[str]:
    """Return the stop sequences; empty ones, which stop nothing, are left out, and so are `blanks` where refused."""
    stop = [chat.stop] if isinstance(chat.stop, str) else chat.stop or []
    if most is not None and len(stop) > most:
        raise invalid(f"at most {most} stop sequences are allowed", "stop")
    kept = [text for text in stop if text and (blanks or not text.isspace())]
    if len(kept) < len(stop):
        dropped.append("stop")
    return kept


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
    return Format(schema_in(given.schema, "response_format.json_schema.schema"))


def schema_in(raw: MaybeRaw, where: str) -> msgspec.Raw | None:
    """Return a JSON schema with its bytes untouched, None when there is none."""
    if isinstance(raw, msgspec.UnsetType) or raw in NOTHING:
        return None
    if not bytes(raw).startswith(b"{"):
        raise invalid("a JSON schema is an object", where)
    return raw
