"""What is repaired of an answer, one function for each deviation; a provider's row names those it needs.

A repair looks at an event only if that holds one of its `marks`, and an event that no repair changes keeps its bytes.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from adapters._openai.calls import Calls
from adapters._openai.opened import Fields, Opened, fill, raw, raw_list, raw_object
from adapters._openai.shape import EMPTY, NULL, UNREADABLE
from proxy.wire import ChatRequest

# By quirk, what a provider calls `reasoning_content`.
REASONING: Final = {"reasoning": "reasoning", "reasoning_text": "reasoning_text"}
_CITED: Final = frozenset({"start_index", "end_index", "title", "url"})
_TIERS: Final = frozenset({b"null", b'"auto"', b'"default"', b'"flex"', b'"scale"', b'"priority"', b'"fast"'})


class Memory:
    """What the repairs of one answer share: the request it answers, and its tool calls."""

    __slots__ = ("calls", "request")

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.calls = Calls(request)


class Repair(NamedTuple):
    """`mend` changes what it is given and returns whether it did."""

    marks: tuple[bytes, ...]
    mend: Callable[[Opened, Memory], bool]


def mended(body: bytes, repairs: Iterable[Repair], memory: Memory, *, whole: bool) -> bytes:
    """Return a completion (`whole`) or a chunk after all `repairs` that have something to do, else its very bytes.

    What cannot be read is left to be judged as it came.
    """
    wanted = [one.mend for one in repairs if not one.marks or any(body.find(mark) >= 0 for mark in one.marks)]
    if not wanted:
        return body
    try:
        opened = Opened(body, whole=whole)
        changes = [mend(opened, memory) for mend in wanted]
    except UNREADABLE:
        return body
    return opened.join() if any(changes) else body


def _missing(opened: Opened, memory: Memory) -> bool:
    """Fill in what OpenAI's types want: Z.ai and Copilot leave out `object`, Gemini the id, Snowflake's is empty."""
    if "choices" not in opened.fields:
        return False
    kind = "chat.completion" if opened.whole else "chat.completion.chunk"
    defaults: dict[str, object] = {
        "id": f"chatcmpl-{memory.request.created}",
        "created": memory.request.created,
        "model": memory.request.model,
    }
    changed = [fill(opened.fields, name, value) for name, value in defaults.items()]
    changed += [fill(choice, "index", index) for index, choice in enumerate(opened.choices)]
    if opened.fields.get("object") != raw(kind):  # Perplexity's last chunk is a "chat.completion.done"
        opened.fields["object"] = raw(kind)
        return True
    return any(changed)


def _renamed(name: str) -> Callable[[Opened, Memory], bool]:
    """Return the repair that calls reasoning `reasoning_content` where it is called `name`."""

    def mend(opened: Opened, memory: Memory) -> bool:
        changed = False
        for said in opened.said:
            if name in said:
                value = said.pop(name)
                if said.get("reasoning_content", NULL) in EMPTY:
                    said["reasoning_content"] = value
                changed = True
        return changed

    return mend


def _parts(opened: Opened, memory: Memory) -> bool:
    """Make text of content that is a list (Mistral, with thinking in it) or an object (Cloudflare's JSON mode)."""
    changed = False
    for said in opened.said:
        content = bytes(said.get("content", NULL))
        if content.startswith(b"{"):
            said["content"] = raw(content.decode())
        elif content.startswith(b"["):
            _split(said, msgspec.json.decode(content))
        else:
            continue
        changed = True
    return changed


def _split(said: Fields, parts: list[Any]) -> None:
    said["content"] = raw("".join(_text(part) for part in parts))
    thoughts = [part.get("thinking") for part in parts if isinstance(part, dict) and part.get("type") == "thinking"]
    if thoughts:
        said["reasoning_content"] = raw("".join(_text(one) for each in thoughts for one in _listed(each)))


def _text(part: Any) -> str:
    """Return the text of a part; of what is no text (references), none."""
    if isinstance(part, dict):
        part = part.get("text")
    return part if isinstance(part, str) else ""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _tier(opened: Opened, memory: Memory) -> bool:
    """Leave out a tier that OpenAI's types do not know: `on_demand` (Groq), an empty one (Snowflake)."""
    if bytes(opened.fields.get("service_tier", NULL)) in _TIERS:
        return False
    del opened.fields["service_tier"]
    return True


def _logprobs(opened: Opened, memory: Memory) -> bool:
    """Leave out logprobs that are a number (Together behind OpenRouter): OpenAI's are an object."""
    odd = [one for one in opened.choices if bytes(one.get("logprobs", NULL))[:1] not in (b"{", b"n")]
    for choice in odd:
        choice["logprobs"] = NULL
    return bool(odd)


def _blanks(opened: Opened, memory: Memory) -> bool:
    """Leave out a `function_call` without a name and `audio` without an id (Snowflake): clients take them for real."""
    changed = False
    for said in opened.said:
        for field, key in (("function_call", "name"), ("audio", "id")):
            value = said.get(field, NULL)
            if value not in EMPTY and raw_object.decode(value).get(key, NULL) in EMPTY:
                del said[field]
                changed = True
    return changed


def _annotations(opened: Opened, memory: Memory) -> bool:
    """Move annotations that OpenAI's types do not know to `other_annotations`: files (OpenRouter), bare addresses."""
    changed = False
    for said in opened.said if opened.whole else ():
        listed = said.get("annotations", NULL)
        found = raw_list.decode(listed) if listed not in EMPTY else []
        odd = [one for one in found if not _is_citation(one)]
        if odd:
            said["annotations"] = raw([one for one in found if _is_citation(one)])
            said["other_annotations"] = raw(odd)
            changed = True
    return changed


def _is_citation(annotation: Fields) -> bool:
    cited = annotation.get("url_citation", NULL)
    return cited not in EMPTY and raw_object.decode(cited).keys() >= _CITED


def _calls(opened: Opened, memory: Memory) -> bool:
    return memory.calls.mend(opened)


def _silence(opened: Opened, memory: Memory) -> bool:
    """Let a choice say nothing rather than be without a message; `Opened` has put it there."""
    return True


# The finish reason matters, too: calls are whole then.
CALLS: Final = Repair((b'"tool_calls"', b'"finish_reason":"', b'"finish_reason": "'), _calls)
SILENCE: Final = Repair((), _silence)
# In this order: what fills in comes before what looks at it.
QUIRKS: Final = {
    "fill_missing": Repair((), _missing),
    **{quirk: Repair((f'"{name}"'.encode(),), _renamed(name)) for quirk, name in REASONING.items()},
    "content_parts": Repair((b'"content":[', b'"content":{', b'"content": [', b'"content": {'), _parts),
    "tool_calls": CALLS,
    "service_tier": Repair((b'"service_tier"',), _tier),
    "logprobs": Repair((b'"logprobs"',), _logprobs),
    "annotations": Repair((b'"annotations"',), _annotations),
    "blank_fields": Repair((b'"function_call"', b'"audio"'), _blanks),
}


def of(quirks: frozenset[str]) -> tuple[Repair, ...]:
    """Return the repairs that `quirks` name."""
    return tuple(repair for quirk, repair in QUIRKS.items() if quirk in quirks)
