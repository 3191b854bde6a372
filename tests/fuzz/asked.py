"""What must hold for whatever a client sends: the request decoder, the edits of its body, the adapters' requests."""

from typing import Final

import msgspec

from adapters import openai
from proxy import adapter, splice
from proxy.adapter import Adapter, Rendered, Target
from proxy.client import head_bytes
from proxy.errors import ClientError, ProxyError, UpstreamError
from proxy.framing import Head, read_head
from proxy.log import plain
from proxy.wire import ChatRequest, decode_chat

from . import strict
from .strict import Pairs

_NAMES: Final = (b"model", b"stream_options", b"max_tokens", b"usage", b"choices", b"a")
_NEW: Final = ("new/model", strict.Object([("\n", strict.Number("1.0"))]))
_NEW_JSON: Final = (b'"new/model"', b'{"\\n":1.0}')
# Those that rename inside of messages aside: what is compared here are the top level's fields.
_ALL_QUIRKS: Final = Target("new/model", openai.ADAPTER.quirks - {"reasoning", "reasoning_text"})
TRANSLATORS: Final = tuple(name for name in adapter.names() if name != "openai")
# Models for which an adapter follows other rules; one without such rules gets the last.
_MODELS: Final = ("claude-3-haiku", "claude-sonnet-4-5", "claude-opus-5-5", "m")


def check_refusal(error: ProxyError, *statuses: int) -> None:
    """An error is told in valid JSON, with all four keys, and with one of these statuses."""
    assert error.status in (statuses or range(400, 600))
    told = strict.object_in(error.body()).last()["error"].last()
    assert {"message", "type", "param", "code"} <= told.keys()
    assert told["message"]


def decoded(data: bytes) -> ChatRequest | None:
    """Return the request, None when it was refused as it should be: ClientError, 400, and nothing else."""
    try:
        return decode_chat(data, 7)
    except ClientError as error:
        check_refusal(error, 400)
        return None


def request(data: bytes) -> bool:
    """A second decoder takes what was let through, and sees in it what was decided on; not a byte has changed."""
    found = decoded(data)
    if found is None:
        return False
    assert found.raw == data
    try:
        pairs = strict.object_in(data).pairs
    except RecursionError:
        return True  # deeper than the second decoder goes; the first one has its own bound
    seen = dict(pairs)
    assert [name for name, _ in pairs].count("model") == 1
    assert seen["model"] == found.model
    assert found.stream is (seen.get("stream") is True)
    assert found.model_at is None or strict.decode(data[slice(*found.model_at)]) == found.model
    check_sent(found, pairs, openai.ADAPTER.render(found, Target("new/model")), quirks=False)
    check_sent(found, pairs, openai.ADAPTER.render(found, _ALL_QUIRKS), quirks=True)
    return True


def check_sent(found: ChatRequest, pairs: Pairs, sent: Rendered, *, quirks: bool) -> None:
    """Of what goes to a provider of OpenAI's language, only what must be is changed."""
    expected = after_set(pairs, "model", "new/model")
    got = strict.object_in(sent.body).pairs
    if found.stream and not found.include_usage:
        asked = dict(got)["stream_options"]
        assert asked.last()["include_usage"] is True
        expected = after_set(expected, "stream_options", asked)
    if quirks:
        expected = after_rename(expected, "max_tokens", "max_completion_tokens")
    assert got == expected
    for name, value in sent.headers.items():
        assert (name + value).isascii()
        assert (name + value).isprintable()


def rendered(data: bytes) -> bool:
    """Every adapter that translates makes valid JSON of a request, or refuses it before anybody is asked."""
    found = decoded(data)
    if found is None:
        return False
    pairs = [(name, model) for name in TRANSLATORS for model in _MODELS[0 if name == "anthropic" else -1 :]]
    verdicts = [translated(adapter.load(name), found, Target(model)) for name, model in pairs]
    return any(verdicts)


def translated(language: Adapter, found: ChatRequest, target: Target) -> bool:
    """Translate a request for one model. Returns False when it was refused."""
    try:
        sent = language.render(found, target)
    except UpstreamError as error:
        check_unsent(error)
        return False
    body = strict.object_in(sent.body).last()
    assert body.get("model", target.model) == target.model
    assert sent.path.startswith("/")
    assert sent.path.isascii()
    check_head(sent.dropped, found.model)
    return True


def check_unsent(error: UpstreamError) -> None:
    """A request that cannot be translated is refused before anybody is asked."""
    assert error.unsent
    check_refusal(error)


# ---- splice ------------------------------------------------------------------------------------------------------


def spliced(data: bytes) -> bool:
    """Every edit of a JSON object is what a decoder would make of the same edit, and nothing else moves."""
    try:
        pairs = strict.object_in(data).pairs
        msgspec.json.decode(data)
    except (ValueError, RecursionError, msgspec.DecodeError):
        return False  # callers pass objects that a decoder has accepted
    assert [member.name.decode() for member in splice.members(data)] == [name for name, _ in pairs]
    for raw in _NAMES:
        name = raw.decode()
        check_found(data, pairs, raw)
        for new, json in zip(_NEW, _NEW_JSON, strict=True):
            assert strict.object_in(splice.set_value(data, raw, json)).pairs == after_set(pairs, name, new)
        assert strict.object_in(splice.remove(data, raw)).pairs == [pair for pair in pairs if pair[0] != name]
        for other in {"fresh", "model"} - {name}:
            renamed = strict.object_in(splice.rename(data, raw, other.encode())).pairs
            assert renamed == after_rename(pairs, name, other)
    return True


def check_found(data: bytes, pairs: Pairs, raw: bytes) -> None:
    """A member is found where it stands, the last one of several."""
    values = [value for name, value in pairs if name == raw.decode()]
    member, only = splice.find(data, raw), None
    assert (member is not None) is bool(values)
    if member is not None:
        assert strict.decode(data[member.value : member.end]) == values[-1]
        assert strict.decode(data[member.key : member.key_end]) == raw.decode()
        only = splice.only(data, raw)
    assert splice.repeats(data, raw) is (len(values) > 1)
    assert only is None or [strict.decode(data[slice(*only)])] == values


def after_set(pairs: Pairs, name: str, value: object) -> Pairs:
    """Return `pairs` with the last `name` set; added at the end when there is none."""
    places = [place for place, (key, _) in enumerate(pairs) if key == name]
    if not places:
        return [*pairs, (name, value)]
    return [*pairs[: places[-1]], (name, value), *pairs[places[-1] + 1 :]]


def after_rename(pairs: Pairs, name: str, new: str) -> Pairs:
    """Return `pairs` with the last `name` called `new`, and no other `name`; none at all where `new` is there."""
    if name not in dict(pairs):
        return pairs
    last = max(place for place, (key, _) in enumerate(pairs) if key == name)
    if new not in dict(pairs):
        pairs = [*pairs[:last], (new, pairs[last][1]), *pairs[last + 1 :]]
    return [pair for pair in pairs if pair[0] != name]


# ---- heads -------------------------------------------------------------------------------------------------------


def named(data: bytes) -> bool:
    """Names that a client made up stay within their header, whatever they hold."""
    text = data.decode(errors="replace")
    check_head(tuple(text.split(",")[:20]), text)
    return plain(text) == text


def check_head(dropped: tuple[str, ...], model: str) -> None:
    """The head of an answer that names them is still the one head it was."""
    values = [", ".join(map(plain, dropped)), plain(model)]
    lines = [f"x-sidecar-dropped: {values[0]}\r\n", f"x-sidecar-policy: {values[1]}\r\n"]
    head = head_bytes(200, "".join(lines), 5, close=False)
    assert len(values[1]) <= 12 * 203
    assert head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n") == 6
    assert len(head) > 8000 or read_head(head) == Head(len(head), 5, should_close=False)
    for value in values:
        assert value.isascii()
        assert value.isprintable()
