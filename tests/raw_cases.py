"""Requests as attackers and broken clients write them, and what each may come to.

An `EVIL` request hides in many of them: in a body, behind a length that says otherwise, in a chunk. Who answers it, or
asks an upstream for it, has been smuggled past.
"""

import json
from typing import Final, NamedTuple

from tests.conftest import CHAT, request

SECRET: Final = "sk-CANARY-0123456789"
BODY: Final = json.dumps(CHAT).encode()
EVIL: Final = request(json.dumps({**CHAT, "user": "SMUGGLED"}).encode())
_N: Final = len(BODY)
_DOOR: Final = "POST /v1/chat/completions HTTP/1.1"
_CHUNKED: Final = "transfer-encoding: chunked"
_WHOLE: Final = b"%x\r\n%b\r\n0\r\n\r\n" % (_N, BODY)
_EVIL_CHUNK: Final = b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVIL), EVIL)


class Case(NamedTuple):
    """Bytes to send, and the statuses that must come back, in order.

    `then`: the connection is "closed" behind the last answer, "open" for the next request, or "waiting" for more of
    this one. `asked` is how often an upstream is asked.
    """

    data: bytes
    statuses: tuple[int, ...]
    then: str
    asked: int = 0


def head(*lines: str, door: str = _DOOR, host: str | None = "127.0.0.1", json: bool = True) -> bytes:
    """A request's head with these header lines, and those that every request has."""
    usual = [f"authorization: Bearer {SECRET}", *(["content-type: application/json"] if json else [])]
    named = [] if host is None else [f"host: {host}"]
    return "\r\n".join([door, *named, *usual, *lines, "", ""]).encode("latin-1")


def one(data: bytes) -> Case:
    """It is one request, and the next one may follow."""
    return Case(data, (200,), "open", 1)


def last(data: bytes) -> Case:
    """It is one request, and the last on its connection."""
    return Case(data, (200,), "closed", 1)


def two(data: bytes) -> Case:
    """It is one request, and what is behind it is another: nothing is hidden there."""
    return Case(data, (200, 200), "open", 2)


def no(data: bytes, status: int = 400, then: str = "closed") -> Case:
    """It is refused once, and nobody is asked."""
    return Case(data, (status,), then)


def length(value: str) -> bytes:
    """A request with this for its length, and another one behind it."""
    return head(f"content-length: {value}") + BODY + EVIL


def sized(size: bytes) -> bytes:
    """A request of one chunk with this line for its size, and another request behind it."""
    return head(_CHUNKED) + size + BODY + b"\r\n0\r\n\r\n" + EVIL


LENGTHS: Final = {
    "two lengths, the same": no(head(f"content-length: {_N}", f"content-length: {_N}") + BODY + EVIL),
    "two lengths, short first": no(head("content-length: 0", f"content-length: {_N}") + BODY + EVIL),
    "two lengths, long first": no(head(f"content-length: {_N + len(EVIL)}", f"content-length: {_N}") + BODY + EVIL),
    "a list of lengths": no(length(f"{_N}, {_N}")),
    "a list that differs": no(length(f"{_N}, 0")),
    "a plus": no(length(f"+{_N}")),
    "minus nothing": no(length("-0")),
    "hex": no(length(hex(_N))),
    "an underscore": no(length(f"{_N // 10}_{_N % 10}")),
    "a fraction": no(length(f"{_N}.0")),
    "an exponent": no(length("1e2")),
    "a word behind": no(length(f"{_N} x")),
    "two numbers": no(length(f"{_N} {_N}")),
    "a quoted length": no(length(f'"{_N}"')),
    "digits of Latin-1": no(length("\xb2")),
    "digits of another script": no(head().replace(b"\r\n\r\n", "\r\ncontent-length: ٦\r\n\r\n".encode()) + BODY),
    "no digits": no(length("")),
    "a form feed": no(length(f"\x0c{_N}")),
    "64 bits and more": no(length(str(2**64 + _N))),
    "more than the limit": Case(length(str(10**12)), (413,), "waiting"),
    "a folded length": no(length(f"\r\n {_N}")),
    "a NUL in a length": no(length(f"{_N}\0")),
    "a length in another name": Case(head(f"content_length: {_N}") + EVIL, (400, 200), "open", 1),
    "zeros in front": two(length(f"000{_N}")),
    "blanks around": two(length(f"  {_N}  ")),
    "a tab in front": two(length(f"\t{_N}")),
    "two requests": two(length(str(_N))),
    "less than announced": Case(head(f"content-length: {_N + 1}") + BODY, (), "waiting"),
}  # fmt: skip

CODINGS: Final = {
    "a length for the front, chunks for the back": no(
        head(f"content-length: {_N + len(EVIL)}", _CHUNKED) + b"0\r\n\r\n" + EVIL
    ),
    "chunks for the front, a length for the back": no(head(_CHUNKED, "content-length: 4") + _EVIL_CHUNK),
    "a length of zero and chunks": no(head("content-length: 0", _CHUNKED) + _EVIL_CHUNK),
    "chunked twice": no(head(_CHUNKED, _CHUNKED) + _WHOLE + EVIL),
    "chunked twice in a line": no(head("transfer-encoding: chunked, chunked") + _WHOLE + EVIL),
    "gzip alone": no(head("transfer-encoding: gzip", f"content-length: {_N}") + BODY + EVIL),
    "identity": no(head("transfer-encoding: identity", f"content-length: {_N}") + BODY + EVIL),
    "chunked and identity": no(head("transfer-encoding: chunked, identity") + _WHOLE + EVIL),
    "nearly chunked": no(head("transfer-encoding: xchunked", f"content-length: {_N}") + BODY + EVIL),
    "chunked in quotes": no(head('transfer-encoding: "chunked"', f"content-length: {_N}") + BODY + EVIL),
    "chunked with a weight": no(head("transfer-encoding: chunked;q=1", f"content-length: {_N}") + BODY + EVIL),
    "a vertical tab": no(head("transfer-encoding: \x0bchunked", f"content-length: {_N}") + BODY + EVIL),
    "a space before the colon": no(head("transfer-encoding : chunked", f"content-length: {_N}") + BODY + EVIL),
    "a space before the name": no(head("x: y", " transfer-encoding: chunked", f"content-length: {_N}") + BODY + EVIL),
    "a folded coding": no(head("transfer-encoding:\r\n chunked", f"content-length: {_N}") + BODY + EVIL),
    "behind a bare LF": no(head("x: y\ntransfer-encoding: chunked", f"content-length: {_N}") + BODY + EVIL),
    "behind a bare CR": no(head("x: y\rtransfer-encoding: chunked", f"content-length: {_N}") + BODY + EVIL),
    "a NUL in chunked": no(head("transfer-encoding: chun\0ked", f"content-length: {_N}") + BODY + EVIL),
    "chunks in HTTP/1.0": no(head(_CHUNKED, door=_DOOR.replace("1.1", "1.0")) + _WHOLE + EVIL),
    # Chunked is the last coding, so chunks are how the body is framed; what they hold is then no JSON, or is.
    "gzip and chunked": two(head("transfer-encoding: gzip, chunked") + _WHOLE + EVIL),
    "identity and chunked": two(head("transfer-encoding: identity, chunked") + _WHOLE + EVIL),
    "an empty coding": two(head("transfer-encoding:", f"content-length: {_N}") + BODY + EVIL),
    "underscores": two(head("transfer_encoding: chunked", f"content-length: {_N}") + BODY + EVIL),
    "capitals": one(head("TRANSFER-ENCODING: CHUNKED") + _WHOLE),
    "a tab before chunked": one(head("transfer-encoding:\tchunked") + _WHOLE),
}  # fmt: skip

CHUNKS: Final = {
    "chunks": two(head(_CHUNKED) + _WHOLE + EVIL),
    "many chunks": one(head(_CHUNKED) + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"),
    "an extension": one(head(_CHUNKED) + b"%x;a=b\r\n" % _N + BODY + b"\r\n0\r\n\r\n"),
    "an extension with a line in it": no(head(_CHUNKED) + b"%x;\n" % _N + BODY + b"\r\n0\r\n\r\n" + EVIL),
    "an extension with a CR in it": no(head(_CHUNKED) + b"%x;a\rb\r\n" % _N + BODY + b"\r\n0\r\n\r\n" + EVIL),
    "a size in 0x": no(sized(b"0x%x\r\n" % _N)),
    "a negative size": no(sized(b"-%x\r\n" % _N)),
    "a size with a plus": no(sized(b"+%x\r\n" % _N)),
    "a size with an underscore": no(sized(b"0_%x\r\n" % _N)),
    "a size of 80 bits": no(sized(b"1" + b"0" * 18 + b"%x\r\n" % _N)),
    "a size with a space in front": no(sized(b" %x\r\n" % _N)),
    "a size and a bare LF": no(sized(b"%x\n" % _N)),
    "a size and a bare CR": no(sized(b"%x\r" % _N)),
    "no size": no(sized(b"\r\n")),
    "a word for a size": no(sized(b"size\r\n")),
    "a size too small": no(sized(b"%x\r\n" % (_N - 2))),
    "a size too large": no(sized(b"%x\r\n" % (_N + 1))),
    "nothing between two chunks": no(head(_CHUNKED) + b"%x\r\n%b0\r\n\r\n" % (_N, BODY) + EVIL),
    "a bare LF behind a chunk": no(head(_CHUNKED) + b"%x\r\n%b\n0\r\n\r\n" % (_N, BODY) + EVIL),
    "a last chunk in bare LFs": no(head(_CHUNKED) + b"%x\r\n%b\r\n0\n\n" % (_N, BODY) + EVIL),
    "trailers that frame": no(head(_CHUNKED) + _WHOLE[:-2] + b"content-length: 5\r\nhost: evil\r\n\r\n" + EVIL),
    "a trailer": one(head(_CHUNKED) + _WHOLE[:-2] + b"x: y\r\n\r\n"),
    "a NUL in a trailer": no(head(_CHUNKED) + _WHOLE[:-2] + b"x: \0\r\n\r\n" + EVIL),
    "no last chunk": Case(head(_CHUNKED) + _WHOLE[:-5], (), "waiting"),
    "an endless size line": Case(head(_CHUNKED) + b"0" * 70_000 + b"1\r\n", (), "waiting"),
    "an endless extension": no(head(_CHUNKED) + b"1;" + b"x" * 70_000 + b"\r\n{\r\n0\r\n\r\n", 400, "open"),
}  # fmt: skip


def door(line: str, *, then: str = "closed", status: int = 400) -> Case:
    """A good request with another first line."""
    return Case(head(f"content-length: {_N}", door=line) + BODY, (status,), then)


FIRST_LINES: Final = {
    "a method in small letters": door(_DOOR.replace("POST", "post")),
    "a method of none": door("FETCH /v1/chat/completions HTTP/1.1"),
    "a long method": door("X" * 9000 + " /v1/chat/completions HTTP/1.1"),
    "two spaces": one(head(f"content-length: {_N}", door=_DOOR.replace(" /", "  /")) + BODY),
    "tabs": door(_DOOR.replace(" ", "\t")),
    "a space in front": door(" " + _DOOR),
    "a space behind": door(_DOOR + " "),
    "a word more": door(_DOOR + " x"),
    # aiohttp's parser takes these versions, for the last request of a connection.
    "no version": last(head(f"content-length: {_N}", door="POST /v1/chat/completions") + BODY),
    "HTTP/0.9": no(b"GET /livez\r\n\r\n", 403),
    "HTTP/0.9 by name": last(head(f"content-length: {_N}", door=_DOOR.replace("1.1", "0.9")) + BODY),
    "HTTP/2.0": last(head(f"content-length: {_N}", door=_DOOR.replace("1.1", "2.0")) + BODY),
    "HTTP/1.2": door(_DOOR.replace("1.1", "1.2")),
    "HTTP/11": door(_DOOR.replace("1.1", "11")),
    "http/1.1": door(_DOOR.replace("HTTP", "http")),
    "another protocol": door(_DOOR.replace("HTTP", "ICY")),
    "HTTP/2's preface": no(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
    "an asterisk": no(head(door="OPTIONS * HTTP/1.1"), 404, "open"),
    "a tunnel": Case(head(door="CONNECT evil.example:443 HTTP/1.1") + EVIL, (404, 200), "open", 1),
    "a trace": no(head(door="TRACE /v1/models HTTP/1.1"), 405, "open"),
    "no path": door(_DOOR.replace("/v1/chat/completions ", "")),
    "a path without a slash": door("POST v1/chat/completions HTTP/1.1"),
    "another host in the path": door("POST http://x@127.0.0.1/v1/chat/completions HTTP/1.1", then="open", status=404),
    "a path of two hosts": door("POST //evil.example/v1/chat/completions HTTP/1.1", then="open", status=404),
    "a fragment": door(_DOOR.replace("ions ", "ions#x "), then="open", status=404),
    "a NUL in the path": door(_DOOR.replace("ions ", "ions\0 ")),
    "an odd byte in the path": door(_DOOR.replace("ions ", "ions\xff ")),
    "an odd byte in a model's name": no(head(door="GET /v1/models/\xff HTTP/1.1")),
    "an odd byte, and the wrong method": no(head(door="DELETE /v1/models/\xff HTTP/1.1")),
    "a query that looks like a head": one(
        head(f"content-length: {_N}", door=_DOOR.replace("ions ", "ions?a=HTTP/1.1%0d%0acontent-length:0 ")) + BODY
    ),
    "empty lines in front": one(b"\r\n\r\n" + head(f"content-length: {_N}") + BODY),
    "bare LFs all over": no((head(f"content-length: {_N}") + BODY).replace(b"\r\n", b"\n")),
    "bare CRs all over": Case((head(f"content-length: {_N}") + BODY).replace(b"\r\n", b"\r"), (400,), "closed"),
}  # fmt: skip


def good(*lines: str, host: str | None = "127.0.0.1") -> bytes:
    """A whole request with these lines more."""
    return head(*lines, f"content-length: {_N}", host=host) + BODY


HOSTS: Final = {
    "no host": no(good(host=None)),
    "an empty host": no(good(host=""), 403, "open"),
    "two hosts, the same": no(good("host: 127.0.0.1")),
    "two hosts, the bad one last": no(good("host: evil.example")),
    "two hosts, the bad one first": no(good("host: 127.0.0.1", host="evil.example")),
    "a list of hosts": no(good(host="127.0.0.1, evil.example"), 403, "open"),
    "a host with a user": no(good(host="127.0.0.1@evil.example"), 403, "open"),
    "a host with a user and a port": no(good(host="127.0.0.1:80@evil.example"), 403, "open"),
    "a host with a path": no(good(host="evil.example/127.0.0.1"), 403, "open"),
    "a host with a query": no(good(host="evil.example?127.0.0.1"), 403, "open"),
    "a folded host": no(good("x: y\r\n host: evil.example")),
    "another name for the host": one(good("x-forwarded-host: evil.example", "x-original-url: /metrics")),
}

HEADERS: Final = {
    "a name of nothing": no(good(": x")),
    "a space in a name": no(good("x y: z")),
    "a NUL in a name": no(good("x\0y: z")),
    "an odd byte in a name": no(good("x\xff: z")),
    "a bracket in a name": no(good("x(y): z")),
    "a bare CR in a value": no(good("x: a\rb: c")),
    "a bare LF in a value": no(good("x: a\nhost: evil.example")),
    "a line of spaces": no(good("   ")),
    "a line of nothing but CR": no(good("\r")),
    "odd bytes in a value": one(good("x-note: \xff\xfe")),
    "odd bytes in a policy's name": no(good("x-sidecar-policy: \xff"), 400, "open"),
    "odd bytes for a strategy": no(good("x-sidecar-strategy: \xff"), 400, "open"),
    "odd bytes for fallback": no(good("x-sidecar-fallback: \xff"), 400, "open"),
    "odd bytes in an origin": no(good("origin: http://\xff"), 403, "open"),
    "odd bytes in the content type": no(
        head(f"content-length: {_N}", "content-type: \xff", json=False) + BODY, 415, "open"
    ),
    "a patience without end": one(good("x-stainless-read-timeout: 1e999")),
    "a patience of none": one(good("x-stainless-read-timeout: nan")),
    "a megabyte of headers": no(good(*[f"x-{number}: " + "y" * 8000 for number in range(125)]), 400),
    "a header of 9000 bytes": no(good("x: " + "y" * 9000)),
    "a name of 9000 bytes": no(good("x" * 9000 + ": y")),
    "an expectation of none": one(good("expect: 200-maybe")),
    "the length is hop by hop": one(good("connection: content-length, host")),
    "closed behind the first": no(good("connection: close") + EVIL),
    "HTTP/1.0, closed behind the first": no(good().replace(b"HTTP/1.1", b"HTTP/1.0") + EVIL),
    "HTTP/1.0, kept": one(good("connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")),
    "a websocket": one(good("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13")),
    # What is behind such a request could be another protocol's, and is thrown away.
    "HTTP/2 by upgrade": one(good("connection: upgrade", "upgrade: h2c", "http2-settings: AA") + EVIL),
}  # fmt: skip


def hidden(line: str, *lines: str, host: str = "127.0.0.1", json: bool = True) -> bytes:
    """A request whose whole body is another request."""
    return head(f"content-length: {len(EVIL)}", *lines, door=line, host=host, json=json) + EVIL


HIDDEN: Final = {
    "in the body": no(hidden(_DOOR), 400, "open"),
    "in the body of a GET": no(hidden("GET /livez HTTP/1.1"), 200, "open"),
    "in the chunks of a GET": no(head(_CHUNKED, door="GET /livez HTTP/1.1") + _EVIL_CHUNK, 200, "open"),
    "in the body of a DELETE": no(hidden("DELETE /v1/models/test HTTP/1.1"), 405, "open"),
    "in the body of an OPTIONS": no(hidden("OPTIONS /v1/chat/completions HTTP/1.1"), 405, "open"),
    "behind a path that is none": no(hidden("POST /nowhere HTTP/1.1"), 404, "open"),
    "behind a host that is none": no(hidden(_DOOR, host="evil.example"), 403, "open"),
    "behind another site": no(hidden(_DOOR, "origin: http://evil.example"), 403, "open"),
    "behind another content type": no(hidden(_DOOR, "content-type: text/plain", json=False), 415, "open"),
    "behind a compressed body": no(hidden(_DOOR, "content-encoding: gzip"), 415, "open"),
    "behind a bad word": no(hidden(_DOOR, "x-sidecar-fallback: perhaps"), 400, "open"),
    "behind a go-ahead that never came": no(
        hidden(_DOOR, "expect: 100-continue", "content-type: x", json=False), 415, "open"
    ),
}  # fmt: skip

CASES: Final = {
    f"{kind}: {name}": case
    for kind, cases in {
        "length": LENGTHS, "coding": CODINGS, "chunk": CHUNKS, "first line": FIRST_LINES, "host": HOSTS,
        "header": HEADERS, "hidden": HIDDEN,
    }.items()
    for name, case in cases.items()
}  # fmt: skip
