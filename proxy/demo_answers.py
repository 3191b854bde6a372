"""What a demo provider says: a request in, an answer out. Pure and deterministic: no I/O, no clock, no randomness.

The model id picks the behaviour (`echo`, `lorem`, `fixed`; any other id echoes). Tools come first: given tools and no
tool result yet, the answer is a call whose arguments fit the tool's JSON schema. A response format comes second.
A token is four characters, begun ones included.
"""

import base64
import hashlib
import math
import re
import struct
from collections import OrderedDict
from typing import Any, Final, NamedTuple

import msgspec

from proxy import demo_schema, sse, wire
from proxy.demo_schema import Json
from proxy.errors import ClientError

_MAX_INPUTS: Final = 2048
_MAX_DIMENSIONS: Final = 4096
_MAX_WORDS: Final = 16_384
_DIMENSIONS: Final = 256
# Prompts are remembered by the hash of a prefix of 1 KiB, 2 KiB, 4 KiB and so on: few entries for any prompt.
_PREFIX: Final = 1024
_PREFIXES: Final = 1024
_FIXED: Final = "This is the same sentence every time, whatever you ask."
# Three letters and a space are one token, so a lorem answer to max_tokens is as many words as tokens.
_LOREM: Final = "sed non est qui aut cum vel nec per hic nam sic ubi nos vos ars rex lex pax lux mos vir dux dei "
_PIECE: Final = re.compile(r"\s*\S{1,24}|\s+")
_MANY: Final = re.compile(r"\b(both|parallel)\b", re.IGNORECASE)


class Reply(msgspec.Struct, frozen=True):
    """One answer. `text` is None when there are `calls`, which are OpenAI's tool call objects."""

    text: str | None
    calls: list[Json]
    finish: str


def answer(request: Json, id: str) -> Reply:
    """Return the answer to a chat request; `id` makes the ids of its tool calls unique.

    Raises ClientError (400) for fields that OpenAI would refuse, too.
    """
    try:
        return _answer(request, id)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        # OpenAI checks every field; here the ones that matter are found wrong when they are used.
        raise ClientError(f"the request holds a value that cannot be used: {error}", code="invalid_value") from error


def _answer(request: Json, id: str) -> Reply:
    calls = [_call(tool, f"call_{id}_{i}", _said(request)) for i, tool in enumerate(_chosen(request))]
    if calls:
        return Reply(None, calls, "tool_calls")
    text = _text(request)
    stop = request.get("stop") or []
    for end in [stop] if isinstance(stop, str) else stop:
        text = text.partition(end)[0]
    limit = _limit(request)
    if limit is not None and tokens(text) > limit:
        return Reply(text[: 4 * limit], [], "length")
    return Reply(text, [], "stop")


class Answer(NamedTuple):
    """One answer on its way to the wire; `usage` is OpenAI's object, `copies` is the client's `n`."""

    id: str
    chat: wire.ChatRequest
    reply: Reply
    copies: int
    usage: Json

    def completion(self, kind: str) -> bytes:
        """Return the whole answer, but for what the fault `kind` leaves out."""
        reply = self.reply
        message: Json = {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
        if reply.calls:
            message["tool_calls"] = reply.calls
        finish = None if kind == "no-finish" else reply.finish
        choice = {"message": message, "logprobs": None, "finish_reason": finish}
        whole = self._top("chat.completion") | {"choices": [{"index": i, **choice} for i in range(self.copies)]}
        return msgspec.json.encode(whole if kind == "no-usage" else whole | {"usage": self.usage})

    def deltas(self) -> list[Json]:
        """Return what is said, a word or a fragment of a tool call at a time."""
        if self.reply.text is not None:
            return [{"content": piece} for piece in pieces(self.reply.text)]
        deltas: list[Json] = []
        for i, call in enumerate(self.reply.calls):
            kind = call["type"]
            field = "arguments" if kind == "function" else "input"
            start = {"index": i, **call, kind: {"name": call[kind]["name"], field: ""}}
            more = [{"index": i, kind: {field: piece}} for piece in pieces(call[kind][field])]
            deltas += ({"tool_calls": [part]} for part in (start, *more))
        return deltas

    def events(self, kind: str) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """Return the stream's events: who speaks, what is said, how it ended; the fault `kind` shapes them."""
        start = b"data: " + msgspec.json.encode(self._top("chat.completion.chunk"))[:-1] + b',"choices":['
        usage = b'],"usage":' + msgspec.json.encode(self.usage) + b"}\n\n"
        plain = b'],"usage":null}\n\n' if self.chat.include_usage else b"]}\n\n"
        if kind == "usage-everywhere":
            plain = usage

        def each(delta: Json, finish: str | None = None, end: bytes = plain) -> list[bytes]:
            choice = {"delta": delta, "logprobs": None, "finish_reason": finish}
            return [start + msgspec.json.encode({"index": i, **choice}) + end for i in range(self.copies)]

        said = "" if self.reply.text is not None else None
        head = each({"role": "assistant", "content": said, "refusal": None})
        body = [event for delta in self.deltas() for event in each(delta)]
        on_finish = kind == "usage-on-finish"
        tail = [] if kind == "no-finish" else each({}, self.reply.finish, usage if on_finish else plain)
        if self.chat.include_usage and not on_finish and kind != "no-usage":
            tail.append(start + usage)
        return head, body, tail if kind == "no-done" else [*tail, sse.DONE]

    def _top(self, object: str) -> Json:
        return {
            "id": f"chatcmpl-{self.id}",
            "object": object,
            "created": self.chat.created,
            "model": self.chat.model,
            "service_tier": "default",
            "system_fingerprint": "fp_demo",
        }


def lengthen(reply: Reply, count: int) -> Reply:
    """Return `reply` with `count` more words, so that a stream of it is long enough to break in the middle."""
    return reply if reply.text is None else Reply(f"{reply.text} {_lorem(count)}", [], reply.finish)


def pieces(text: str) -> list[str]:
    """Return `text` in pieces of at most a word; joined they are `text` again."""
    return _PIECE.findall(text)


def tokens(text: str) -> int:
    """Return the tokens of `text` as the demo providers count them."""
    return -(-len(text) // 4)


def prompt(request: Json) -> str:
    """Return all that a model would have to read, tools first, as OpenAI's cache sees it."""
    parts = [msgspec.json.encode(request["tools"]).decode()] if request.get("tools") else []
    for message in request["messages"]:
        parts += (message["role"], _plain(message.get("content")))
        if message.get("tool_calls"):
            parts.append(msgspec.json.encode(message["tool_calls"]).decode())
    return "\n".join(parts)


class Prefixes:
    """The prompt cache of one provider: hashes of the last prefixes, never more than 1024."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: OrderedDict[int, None] = OrderedDict()

    def cached(self, model: str, text: bytes) -> int:
        """Return the tokens of the longest prefix of `text` that `model` has seen, and remember its prefixes."""
        size, known = _PREFIX, 0
        while size < len(text):
            key = hash((model, text[:size]))
            known = size if key in self._seen else known
            self._seen[key] = None
            self._seen.move_to_end(key)
            size *= 2
        while len(self._seen) > _PREFIXES:
            self._seen.popitem(last=False)
        return known // 4


def _text(request: Json) -> str:
    results = _results(request["messages"])
    said = f"The tool says: {'; '.join(results)}" if results else _said(request)
    form = request.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = (form.get("json_schema") or {}).get("schema") or {"type": "object"}
        return msgspec.json.encode(demo_schema.sample(schema, said)).decode()
    if form.get("type") == "json_object":
        return msgspec.json.encode({"answer": said}).decode()
    if request["model"] == "lorem" and not results:
        return _lorem(min(_limit(request) or 40, _MAX_WORDS))
    if request["model"] == "fixed" and not results:
        return _FIXED
    return said or _FIXED


def _lorem(count: int) -> str:
    return (_LOREM * (4 * count // len(_LOREM) + 1))[: 4 * count - 1]


def _limit(request: Json) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        if request.get(name) is not None:
            if request[name] < 1:
                raise ClientError(f"'{name}' must be at least 1", param=name, code="integer_below_min_value")
            return int(request[name])
    return None


def _said(request: Json) -> str:
    """Return the last user message's text; empty when nobody said anything."""
    for message in reversed(request["messages"]):
        if message["role"] == "user":
            return _plain(message.get("content"))
    return ""


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _results(messages: list[Json]) -> list[str]:
    """Return the tool results at the end of a conversation, oldest first."""
    results: list[str] = []
    for message in reversed(messages):
        if message["role"] not in ("tool", "function"):
            break
        results.insert(0, _plain(message.get("content")))
    return results


def _chosen(request: Json) -> list[Json]:
    """Return the tools to call, in the order given: none, one, or all when the user asked for both."""
    tools, choice = request.get("tools") or [], request.get("tool_choice")
    if not tools or choice == "none" or _results(request["messages"]):
        return []
    if isinstance(choice, dict):
        allowed = choice.get("type") == "allowed_tools"
        wanted = {_name(tool) for tool in choice["allowed_tools"]["tools"]} if allowed else {_name(choice)}
        tools = [tool for tool in tools if _name(tool) in wanted]
        if not tools:
            raise ClientError("'tool_choice' names no given tool", param="tool_choice", code="invalid_value")
    many = request.get("parallel_tool_calls") is not False and _MANY.search(_said(request))
    return tools if many else tools[:1]


def _name(tool: Json) -> str:
    inner = tool.get(tool.get("type", ""))
    if not isinstance(inner, dict) or not inner.get("name"):
        raise ClientError("a tool needs a type and a name", param="tools", code="invalid_value")
    return str(inner["name"])


def _call(tool: Json, id: str, said: str) -> Json:
    name = _name(tool)
    if tool["type"] == "custom":
        return {"id": id, "type": "custom", "custom": {"name": name, "input": said}}
    schema = tool["function"].get("parameters") or {"type": "object"}
    arguments = msgspec.json.encode(demo_schema.sample(schema, said)).decode()
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def embeddings(request: Json) -> Json:
    """Return OpenAI's embeddings answer; the same text has the same unit vector in either encoding.

    Raises ClientError (400) for an input or a size that cannot be embedded.
    """
    texts = _inputs(request.get("input"))
    size = request.get("dimensions") or _DIMENSIONS
    if not isinstance(size, int) or not 1 <= size <= _MAX_DIMENSIONS:
        raise ClientError("'dimensions' is out of range", param="dimensions", code="invalid_value")
    rows = []
    for i, text in enumerate(texts):
        packed = _vector(text, size)
        text_wanted = request.get("encoding_format") == "base64"
        value = base64.b64encode(packed).decode() if text_wanted else struct.unpack(f"<{size}f", packed)
        rows.append({"object": "embedding", "index": i, "embedding": value})
    count = sum(tokens(text) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": rows, "model": request.get("model"), "usage": usage}


def _inputs(given: Any) -> list[str]:
    """Return the texts to embed; lists of token ids count as texts of their own."""
    items = [given] if isinstance(given, str) or (isinstance(given, list) and given and _ids(given)) else given
    if not isinstance(items, list) or not 1 <= len(items) <= _MAX_INPUTS:
        raise ClientError(f"'input' must be 1 to {_MAX_INPUTS} texts", param="input", code="invalid_value")
    if not all(item and (isinstance(item, str) or _ids(item)) for item in items):
        raise ClientError("'input' must hold texts or lists of token ids", param="input", code="invalid_type")
    return [item if isinstance(item, str) else " ".join(map(str, item)) for item in items]


def _ids(item: Any) -> bool:
    return isinstance(item, list) and all(isinstance(part, int) for part in item)


def _vector(text: str, size: int) -> bytes:
    """Return a unit vector as little-endian float32."""
    raw = struct.unpack(f"<{size}h", hashlib.shake_128(text.encode()).digest(2 * size))
    length = math.hypot(*raw) or 1.0
    return struct.pack(f"<{size}f", *(part / length for part in raw))
