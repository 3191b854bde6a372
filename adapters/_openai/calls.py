"""Number tool calls the way OpenAI does: the SDKs put a call together by its `index`, and join repeated ids and names.

In a stream a call is new when it has an id that its index did not have before, or, without an index, an id that was
not seen, or a name. Only its first piece keeps id, type and name. Evidence: recorded streams of Mistral, Gemini and
Ollama (no index), Cerebras and OpenRouter (one index for several calls), Venice and Z.ai (repeated or empty fields).
"""

import zlib
from typing import Final

import msgspec

from adapters._openai.opened import Fields, Opened, fill, raw, raw_list, raw_object, text
from adapters._openai.shape import EMPTY, NULL
from proxy.wire import ChatRequest

_FUNCTION: Final = "function"
_CUT: Final = msgspec.Raw(b'"length"')
_NAMELESS: Final = msgspec.Raw(b'"null"')  # Mistral's word for no id
_NO_ARGUMENTS: Final = msgspec.Raw(b'"{}"')


class Call(msgspec.Struct):
    """A call of a stream: the number the client knows it by, the id and name its first piece gave.

    `empty` says that no piece had arguments yet, which a custom call never has.
    """

    number: int
    id: str
    name: str
    empty: bool = True


class Calls:
    """The calls of one answer, over all its pieces. One object per answer."""

    __slots__ = ("_last", "_request", "_seen", "_slots")

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._seen: dict[bytes, list[Call]] = {}
        self._slots: dict[tuple[bytes, bytes], Call] = {}
        self._last: dict[bytes, Call] = {}

    def mend(self, opened: Opened) -> bool:
        """Repair the tool calls in `opened`. Returns whether anything changed."""
        changed = False
        for choice, said in opened.each():
            listed = said.get("tool_calls", NULL)
            calls = raw_list.decode(listed) if listed not in EMPTY else []
            reason = choice.get("finish_reason", NULL)
            if opened.whole:
                mended = [self._whole(call, number, cut=reason == _CUT) for number, call in enumerate(calls)]
            else:
                at = bytes(choice.get("index", b"0"))
                mended = [self._piece(at, call) for call in calls]
                if reason not in (*EMPTY, _CUT):
                    mended += [self._no_arguments(call, calls) for call in self._seen.get(at, ()) if call.empty]
            if any(mended):
                said["tool_calls"] = raw(calls)
                changed = True
        return changed

    def _whole(self, call: Fields, number: int, *, cut: bool) -> bool:
        changed = self._named(call, number)
        function = _function(call)
        if function is None or cut:
            return changed
        arguments = function.get("arguments", NULL)
        if arguments in EMPTY:
            function["arguments"] = _NO_ARGUMENTS
        elif not _spelled(function):
            return changed
        call[_FUNCTION] = raw(function)
        return True

    def _named(self, call: Fields, number: int) -> bool:
        """Give the call an id and a type where it has none. The id is the same whenever the same request is sent."""
        if call.get("id") == _NAMELESS:
            call["id"] = NULL
        changed = fill(call, "id", f"call_{zlib.crc32(self._request.raw):08x}_{number}")
        return fill(call, "type", _FUNCTION if _FUNCTION in call else "custom") or changed

    def _piece(self, choice: bytes, piece: Fields) -> bool:
        before = dict(piece)
        function = _function(piece) or {}
        id, name = _id(piece), text(function.get("name", NULL))
        index = bytes(piece.get("index", NULL))
        call = self._known(choice, index, id, name)
        if call is None:
            call = self._new(choice, index, piece, name)
        else:
            for repeated in ("id", "type"):
                piece.pop(repeated, None)
            if name in ("", call.name):
                function.pop("name", None)
        piece["index"] = raw(call.number)
        _spelled(function)
        call.empty = call.empty and function.get("arguments", NULL) in EMPTY
        if function:
            piece[_FUNCTION] = raw(function)
        return before.keys() != piece.keys() or any(_differs(before[key], piece[key]) for key in before)

    def _no_arguments(self, call: Call, calls: list[Fields]) -> bool:
        """Add what OpenAI says of a call without arguments, once: clients read them as JSON (Databricks says "")."""
        calls.append({"index": raw(call.number), _FUNCTION: raw({"arguments": _NO_ARGUMENTS})})
        call.empty = False
        return True

    def _known(self, choice: bytes, index: bytes, id: str, name: str) -> Call | None:
        """Return the call that a piece goes on with, None when it begins one."""
        if index == b"null":
            if id:
                return next((call for call in self._seen.get(choice, ()) if call.id == id), None)
            return None if name else self._last.get(choice)
        call = self._slots.get((choice, index))
        return None if call is not None and id not in ("", call.id) else call

    def _new(self, choice: bytes, index: bytes, piece: Fields, name: str) -> Call:
        seen = self._seen.setdefault(choice, [])
        self._named(piece, len(seen))
        call = Call(len(seen), _id(piece), name, empty="custom" not in piece)
        seen.append(call)
        self._slots[choice, index] = self._last[choice] = call
        return call


def _differs(before: msgspec.Raw, after: msgspec.Raw) -> bool:
    """Return whether two values are different, spacing apart."""
    return before != after and bool(msgspec.json.decode(before) != msgspec.json.decode(after))


def _id(call: Fields) -> str:
    id = call.get("id", NULL)
    return "" if id == _NAMELESS else text(id)


def _function(call: Fields) -> Fields | None:
    function = call.get(_FUNCTION, NULL)
    return None if function == NULL else raw_object.decode(function)


def _spelled(function: Fields) -> bool:
    """Make text of arguments that are an object, as Mistral's may be. Returns whether they were."""
    arguments = bytes(function.get("arguments", NULL))
    if not arguments.startswith((b"{", b"[")):
        return False
    function["arguments"] = raw(arguments.decode())
    return True
