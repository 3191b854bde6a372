"""The bytes of each fault, and the one player of them. Pure but for `perform`: a fault and an answer in, a play out.

Whatever an error says quotes the key that came with the request, as careless providers do: who hands it on leaks it.
"""

import asyncio
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from typing import Final, Literal, NamedTuple, Protocol

from proxy.demo_faults import EARLY, REFUSALS, STREAMED, Fault
from proxy.demo_words import Refusal, Words

_HUGE: Final = 100 << 20
_PIECE: Final = 1 << 16
_PAUSE_S: Final = 0.02


class Writer(Protocol):
    """The way to the client."""

    def write(self, data: bytes, /) -> object:
        """Write `data`."""
        ...

    async def drain(self) -> None:
        """Wait until more may come. Raises ConnectionResetError when the client has left."""
        ...


Then = Literal["keep", "close", "reset", "hang", "linger"]


class Play(NamedTuple):
    """An answer on the wire: each piece is a write of its own, `pause_s` apart; `then` is what the connection does.

    "hang" does nothing more until the client leaves, "linger" closes it when the client has sent all it wants to.
    """

    pieces: Iterable[bytes]
    then: Then = "keep"
    pause_s: float = 0.0
    wait_s: float = 0.0


class Scene(NamedTuple):
    """Who plays what. `key` came with the request; `reused` says that its connection has had an answer before."""

    fault: Fault
    words: Words
    model: str = ""
    key: str = ""
    reused: bool = False

    def quote(self, text: str) -> str:
        """Return `text` with the key in it."""
        return f"{text} You sent the key {self.key}." if self.key else text


def play(scene: Scene) -> Play:
    """Return what goes over the wire."""
    kind, amount = scene.fault
    if kind in REFUSALS:
        return _refusal(scene, REFUSALS[kind])
    if kind == "slow":
        return Play(_answer(scene), wait_s=amount / 1000)
    if kind in _PLAYS:
        return _PLAYS[kind](scene)
    broken, _, where = kind.rpartition("-")
    if broken in STREAMED:
        return _broken(scene, broken, where)
    if kind.startswith("truncated"):
        return _truncated(scene)
    return Play(_answer(scene))


async def perform(play: Play, client: Writer) -> None:
    """Write the pieces when they are due; what `then` says is left to whoever has the connection."""
    await asyncio.sleep(play.wait_s)
    for number, piece in enumerate(play.pieces):
        if number:
            await asyncio.sleep(play.pause_s)
        client.write(piece)
        await client.drain()


# ---- whole answers and streams, framed --------------------------------------------------------------------------


def _head(scene: Scene, *lines: str, status: int = 200, type: str = "application/json") -> bytes:
    about = [f"HTTP/1.1 {status} X", f"content-type: {type}", f"x-request-id: req-{scene.words.id}", *lines]
    return "\r\n".join([*about, "", ""]).encode("latin-1", "replace")


def _whole(scene: Scene, body: bytes, *lines: str, status: int = 200, type: str = "application/json") -> bytes:
    return _head(scene, *lines, f"content-length: {len(body)}", status=status, type=type) + body


def _open(scene: Scene, *lines: str) -> bytes:
    """Return the head of a stream."""
    media_type = scene.words.media_type
    return _head(scene, "cache-control: no-cache", "transfer-encoding: chunked", *lines, type=media_type)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_LAST: Final = b"0\r\n\r\n"
_SSE: Final = "text/event-stream"


def _answer(scene: Scene) -> list[bytes]:
    """Return the answer as it should be, but for the shape of what it says."""
    shape, words = scene.fault.kind, scene.words
    if not words.stream:
        return [_whole(scene, words.completion(shape))]
    events = words.events(shape).all()
    if words.media_type == _SSE:
        events = _respelled(events, shape)
    return [_open(scene), *map(_chunk, events), _LAST]


def _respelled(events: list[bytes], shape: str) -> list[bytes]:
    """Return the same server-sent events, written otherwise. The other framings can be written in one way only."""
    if shape in ("crlf", "cr"):
        end = b"\r\n" if shape == "crlf" else b"\r"
        return [event.replace(b"\r\n", b"\n").replace(b"\n", end) for event in events]
    if shape == "comments":
        return [b": keep-alive\n\n" + event for event in events]
    return [b"\xef\xbb\xbf", *events] if shape == "bom" else events


def _honest(scene: Scene) -> bytes:
    return b"".join(_answer(scene._replace(fault=Fault(""))))


def _refusal(scene: Scene, refusal: Refusal) -> Play:
    body = scene.words.error(refusal._replace(message=scene.quote(refusal.message)))
    lines = [] if refusal.wait_s is None else [f"retry-after: {refusal.wait_s}"]
    if scene.fault.kind not in EARLY:
        return Play([_whole(scene, body, *lines, status=refusal.status)])
    return Play([_whole(scene, body, *lines, "connection: close", status=refusal.status)], "linger")


# ---- streams that break -----------------------------------------------------------------------------------------


def _broken(scene: Scene, kind: str, where: str) -> Play:
    if not scene.words.stream:
        return _broken_whole(scene, kind)
    events = scene.words.events("")
    place = scene.fault.amount + (len(events.opening) if where == "after" else 0)
    before, behind = events.all()[:place], events.all()[place:]
    said = [_open(scene), *map(_chunk, before)]
    if kind == "garbage":
        said += map(_chunk, [scene.words.garbage(scene.key.encode()), *behind])
    if kind == "error":
        said.append(_chunk(scene.words.error_event(scene.quote("The server had an error."))))
    ends: dict[str, Then] = {"cut": "close", "stall": "hang"}
    return Play(said if kind in ends else [*said, _LAST], ends.get(kind, "keep"))


def _broken_whole(scene: Scene, kind: str) -> Play:
    """Faults of a stream have their like in a whole answer."""
    if kind == "garbage":
        return _malformed(scene)
    if kind == "error":
        return _refusal(scene, REFUSALS["500"])
    whole = _whole(scene, scene.words.completion(""))
    half = len(whole) - len(scene.words.completion("")) // 2
    return Play([whole[:half]], "hang" if kind == "stall" else "close")


def _cut_after_finish(scene: Scene) -> Play:
    if not scene.words.stream:
        return _truncated(scene)
    events = scene.words.events("")
    return Play([_open(scene), *map(_chunk, events._replace(rest=[]).all())], "close")


def _drip(scene: Scene) -> Play:
    pause_s = scene.fault.amount / 1000
    if not scene.words.stream:
        return Play(chain([_head(scene, "transfer-encoding: chunked")], repeat(_chunk(b" "))), pause_s=pause_s)
    opening = map(_chunk, scene.words.events("").opening)
    return Play(chain([_open(scene)], opening, repeat(_chunk(scene.words.saying("drip ")))), pause_s=pause_s)


# ---- framing ----------------------------------------------------------------------------------------------------


def _body(scene: Scene) -> tuple[bytes, str]:
    """Return the answer without its framing, and its content type."""
    if scene.words.stream:
        return b"".join(scene.words.events("").all()), scene.words.media_type
    return scene.words.completion(""), "application/json"


def _truncated(scene: Scene) -> Play:
    body, type = _body(scene)
    how = scene.fault.kind.removeprefix("truncated").lstrip("-")
    half = body[: len(body) // 2]
    if how == "chunked":
        head = _head(scene, "transfer-encoding: chunked", type=type)
        return Play([head, _chunk(half)], "close")
    if how == "close":
        return Play([_head(scene, "connection: close", type=type), half], "close")
    if how == "gzip":
        packed = gzip.compress(body)
        return Play([_whole(scene, packed[: len(packed) // 2], "content-encoding: gzip", type=type)])
    return Play([_head(scene, f"content-length: {len(body)}", type=type), half], "close")


def _gzip(scene: Scene) -> Play:
    if not scene.words.stream:
        return Play([_whole(scene, gzip.compress(scene.words.completion("")), "content-encoding: gzip")])
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in scene.words.events("").all()]
    return Play([_open(scene, "content-encoding: gzip"), *map(_chunk, packed), _chunk(packer.flush()), _LAST])


def _huge(scene: Scene) -> Play:
    if scene.words.stream:
        events = scene.words.events("")
        event = _chunk(scene.words.saying("x" * _PIECE))
        ending = map(_chunk, [*events.finish, *events.rest])
        many = repeat(event, _HUGE // _PIECE)
        return Play(chain([_open(scene)], map(_chunk, events.opening), many, ending, [_LAST]))
    head = _head(scene, f"content-length: {_HUGE}")
    return Play(chain([head, b'{"x":"', b" " * (_PIECE - 6)], repeat(b"x" * _PIECE, _HUGE // _PIECE - 1)))


def _big_event(scene: Scene) -> Play:
    if not scene.words.stream:
        return _huge(scene)
    events = scene.words.events("")
    events.words.append(scene.words.saying("x" * (2 << 20)))
    return Play([_open(scene), *map(_chunk, events.all()), _LAST])


def _in_bytes(data: bytes) -> Iterator[bytes]:
    return (data[place : place + 1] for place in range(len(data)))


def _split(scene: Scene) -> Play:
    data = _honest(scene)
    return Play([data[: scene.fault.amount], data[scene.fault.amount :]], pause_s=0.001)


# ---- heads and odd answers --------------------------------------------------------------------------------------


def _page(scene: Scene, status: int) -> Play:
    page = f"<html><head><title>{status}</title></head><body><h1>{scene.quote('No API here.')}</h1></body></html>"
    return Play([_whole(scene, page.encode(), status=status, type="text/html")])


def _malformed(scene: Scene) -> Play:
    return Play([_whole(scene, b'{"id":"x","object":"chat.completion","choices":[{"%b"' % scene.key.encode())])


def _many_headers(scene: Scene) -> Play:
    lines = [f"x-header-{number}: {number}" for number in range(200)]
    return Play([_whole(scene, scene.words.completion(""), *lines)])


def _text(scene: Scene) -> Play:
    if scene.words.stream:
        return Play([_honest(scene).replace(scene.words.media_type.encode(), b"text/plain", 1)])
    return Play([_whole(scene, scene.words.completion(""), type="text/plain")])


def _error_200(scene: Scene) -> Play:
    return Play([_whole(scene, scene.words.error(Refusal(529, "overloaded_error", None, scene.quote("Overloaded"))))])


def _redirect(scene: Scene) -> Play:
    return Play([_whole(scene, b"", "location: /elsewhere", status=307)])


def _reset_on_reuse(scene: Scene) -> Play:
    return Play([], "reset") if scene.reused else Play([_honest(scene)])


_PLAYS: Final[dict[str, Callable[[Scene], Play]]] = {
    "hang": lambda scene: Play([], "hang"),
    "close": lambda scene: Play([], "close"),
    "reset": lambda scene: Play([], "reset"),
    "reset-on-reuse": _reset_on_reuse,
    "stray": lambda scene: Play([_honest(scene), _whole(scene, b'{"stray":true}')], pause_s=_PAUSE_S),
    "dribble": lambda scene: Play(chain(_in_bytes(_head(scene)[:-4]), repeat(b"x")), pause_s=_PAUSE_S),
    "half-head": lambda scene: Play([_head(scene)[:30]], "close"),
    "bad-status": lambda scene: Play([f"HTTP/9 what {scene.key}\r\n\r\n".encode()], "close"),
    "huge-header": lambda scene: Play([_whole(scene, b"{}", f"x-huge: {scene.key}{'x' * 20_000}")]),
    "many-headers": _many_headers,
    "continue": lambda scene: Play([b"HTTP/1.1 100 Continue\r\n\r\n", _honest(scene)]),
    "early-hints": lambda scene: Play([b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n", _honest(scene)]),
    "redirect": _redirect,
    "html": lambda scene: _page(scene, 502),
    "html-200": lambda scene: _page(scene, 200),
    "html-403": lambda scene: _page(scene, 403),
    "malformed": _malformed,
    "error-200": _error_200,
    "text": _text,
    "whole": lambda scene: Play([_whole(scene, scene.words.completion(""))]),
    "gzip": _gzip,
    "huge": _huge,
    "big-event": _big_event,
    "cut-after-finish": _cut_after_finish,
    "drip": _drip,
    "split-at": _split,
    "bytes": lambda scene: Play(_in_bytes(_honest(scene))),
}
