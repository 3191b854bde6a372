"""Who may knock, and with what. Whoever may not is told so in OpenAI's words, and no upstream hears of it."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from proxy.admission import Admission, is_loopback
from proxy.errors import ClientError
from tests.conftest import CHAT, StartSidecar, StartUpstream, check_error, request, until

BODY = msgspec.json.encode(CHAT)
KEYS = {"SIDECAR_API_KEYS": "sk-first, sk-second"}
DEEP = b'{"model":"test","messages":[{"role":"user","content":"Hi"}],"tools":[{"x":%b1%b}]}'

# name: body, status, code, param
BAD_BODIES = {
    "nothing": (b"", "invalid_json", None),
    "no JSON": (b"hello", "invalid_json", None),
    "half": (BODY[:-2], "invalid_json", None),
    "two": (BODY + BODY, "invalid_json", None),
    "a list": (b"[]", "invalid_type", None),
    "null": (b"null", "invalid_type", None),
    "BOM": (b"\xef\xbb\xbf" + BODY, "invalid_json", None),
    "UTF-16": (BODY.decode().encode("utf-16"), "invalid_json", None),
    "bad UTF-8": (BODY.replace(b"Hello", b"\xff"), "invalid_json", None),
    "bad UTF-8 in the unknown": (BODY[:-1] + b',"x":"\xff"}', "invalid_json", None),
    "a lone surrogate": (BODY.replace(b"Hello", b"\\ud800"), "invalid_json", None),
    "a lone surrogate in the unknown": (BODY[:-1] + b',"x":"\\uDC00"}', "invalid_json", None),
    "too deep": (DEEP % (b'{"x":' * 2000, b"}" * 2000), "invalid_json", None),
    "no model": (b'{"messages":[{"role":"user"}]}', "missing_required_parameter", "model"),
    "no messages": (b'{"model":"test"}', "missing_required_parameter", "messages"),
    "empty messages": (b'{"model":"test","messages":[]}', "empty_array", "messages"),
    "empty model": (b'{"model":" ","messages":[{"role":"user"}]}', "invalid_value", "model"),
    "two models": (BODY[:-1] + b',"model":"x"}', "invalid_value", "model"),
    "two models, one in disguise": (BODY[:-1] + b',"mod\\u0065l":"x"}', "invalid_value", "model"),
    "model is a number": (b'{"model":1,"messages":[{"role":"user"}]}', "invalid_type", "model"),
    "messages is text": (b'{"model":"test","messages":"Hi"}', "invalid_type", "messages"),
    "a message without a role": (
        b'{"model":"test","messages":[{}]}',
        "missing_required_parameter",
        "messages[0].role",
    ),
    "stream is text": (BODY[:-1] + b',"stream":"yes"}', "invalid_type", "stream"),
    "temperature is text": (BODY[:-1] + b',"temperature":"hot"}', "invalid_type", "temperature"),
}


@pytest.mark.parametrize(("body", "code", "param"), BAD_BODIES.values(), ids=BAD_BODIES)
async def test_bad_body(
    sidecar: StartSidecar, upstream: StartUpstream, body: bytes, code: str, param: str | None
) -> None:
    """A body that is not a chat request is 400 that names the field, and goes no further."""
    asked = await upstream()

    got = await (await sidecar(asked)).post(body)

    check_error(got, 400, code)
    assert (got.error["param"], got.error["type"]) == (param, "invalid_request_error")
    assert (got.headers["x-should-retry"], asked.requests) == ("false", [])


async def test_a_schema_sixty_levels_deep_passes(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Real tool schemas are deep."""
    asked = await upstream()
    got = await (await sidecar(asked)).post(DEEP % (b'{"x":' * 60, b"}" * 60))
    assert (got.status, asked.requests[0].body.count(b"}")) == (200, 63)


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp", ""],
)
async def test_only_json(sidecar: StartSidecar, upstream: StartUpstream, kind: str) -> None:
    """A page can post other types across origins without being asked first, so none of them is taken."""
    data = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n" % len(BODY)
    line = f"content-type: {kind}\r\n".encode() if kind else b""
    check_error(
        await (await sidecar(await upstream())).raw(data + line + b"\r\n" + BODY), 415, "unsupported_media_type"
    )


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json"])
async def test_json_by_any_name(sidecar: StartSidecar, upstream: StartUpstream, kind: str) -> None:
    """Parameters and case of the content type do not matter."""
    assert (await (await sidecar(await upstream())).post(content_type=kind)).status == 200


async def test_compressed_bodies_are_refused(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A bomb is small until it is unpacked."""
    running = await sidecar(await upstream())
    check_error(await running.post(content_encoding="gzip"), 415, "unsupported_media_type")
    assert (await running.post(content_encoding="identity")).status == 200


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("announced", [True, False])
async def test_body_limit(sidecar: StartSidecar, upstream: StartUpstream, extra: int, announced: bool) -> None:
    """32 MiB pass, a byte more is 413, whether the length is announced or comes in chunks."""
    running = await sidecar(await upstream())
    body = BODY[:-1] + b" " * ((32 << 20) - len(BODY) + extra) + b"}"

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 1 << 20):
            yield body[at : at + (1 << 20)]

    data = {"content-type": "application/json", **({"content-length": str(len(body))} if announced else {})}
    async with running.session.post(f"{running.url}/chat/completions", data=chunks(), headers=data) as response:
        assert response.status == (413 if extra else 200)
        assert extra == 0 or (await response.json())["error"]["code"] == "request_too_large"


async def test_an_absurd_length_is_refused_at_once(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """413 needs no byte of the body."""
    running = await sidecar(await upstream())
    line = "content-type: application/json"
    got = await running.raw(request(None, line, "content-length: 999999999999", method="POST"))
    check_error(got, 413, "request_too_large")
    assert got.headers["connection"] == "close"


async def test_a_body_that_stalls_is_refused(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A whole body must be in within an absolute time, however its bytes drip."""
    running = await sidecar(await upstream())
    running.app.sidecar.admission = msgspec.structs.replace(running.app.sidecar.admission, body_s=0.1)

    got = await running.raw(request(BODY)[:-1])

    check_error(got, 408, "request_timeout")
    assert got.headers["connection"] == "close"


async def test_a_body_in_bad_chunks_is_refused(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Framing that lies is the client's mistake, not ours, and is told at once to whoever waits for the body."""
    running = await sidecar(await upstream())
    head = request(None, "content-type: application/json", "transfer-encoding: chunked", method="POST")
    async with running.connect() as wire:
        wire.writer.write(head + b"2\r\n{}\r\n")
        await until(lambda: len(running.app.sidecar.in_flight) == 1)
        got = await wire.ask(b"oops\r\n")
        assert await wire.closed()
    assert (got.status, got.error["type"], got.headers["connection"]) == (400, "invalid_request_error", "close")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LocalHost:1", 200), ("127.0.0.1:4141", 200), ("[::1]", 200), ("[::1]:4141", 200),
        ("evil.example", 403), ("localhost.evil.example", 403), ("127.0.0.1.nip.io", 403), ("evil.example?x", 403),
        ("10.0.0.1", 403), ("", 403), ("[::2]", 403), ("localhost@evil.example", 403),
        ("127.0.0.1:80@evil.example", 403), ("127.0.0.1:80.evil.example", 403), ("localhost:x", 403), ("[::1]x", 403),
        ("localhost/evil", 403), ("[::1", 403), ("localhost:", 200),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/livez", "/v1/models", "/metrics"])
async def test_host(sidecar: StartSidecar, host: str, status: int, path: str) -> None:
    """A name that some other site's DNS points here is not ours."""
    got = await (await sidecar()).raw(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
    assert got.status == status
    assert status == 200 or got.error["code"] == "forbidden_host"


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("origin", "http://localhost:3000", 200), ("origin", "http://127.0.0.1", 200), ("origin", "http://[::1]", 200),
        ("origin", "https://evil.example", 403), ("origin", "null", 403), ("origin", "http://localhost.evil.org", 403),
        ("origin", "http://localhost:80@evil.example", 403), ("origin", "http://localhost:3000.evil.example", 403),
        ("sec-fetch-site", "cross-site", 403), ("sec-fetch-site", "same-origin", 200), ("sec-fetch-site", "none", 200),
    ],
)  # fmt: skip
async def test_origin(sidecar: StartSidecar, upstream: StartUpstream, name: str, value: str, status: int) -> None:
    """A page of another site may not use the sidecar, nor is it told that it could (no CORS headers)."""
    asked = await upstream()

    got = await (await sidecar(asked)).post(**{name: value})

    assert (got.status, len(asked.requests)) == (status, status == 200)
    assert status == 200 or got.error["code"] == "forbidden_origin"
    assert not [header for header in got.headers if header.startswith("access-control")]


async def test_a_preflight_is_refused(sidecar: StartSidecar) -> None:
    """Browsers ask before they send JSON across origins; the answer is no."""
    asked = request(None, "origin: https://evil.example", method="OPTIONS")
    check_error(await (await sidecar()).raw(asked), 403, "forbidden_origin")


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Bearer sk-other", "Bearer sk-firs", "Basic sk-first", "sk-first", "Bearer \xff"]
)
async def test_wrong_key(sidecar: StartSidecar, upstream: StartUpstream, given: str) -> None:
    """Every wrong key gets the same answer, and gets it before the body is looked at."""
    running = await sidecar(await upstream(), environ=KEYS)
    lines = [f"authorization: {given}"] if given else []

    got = await running.raw(request(b"no JSON", *lines))

    check_error(got, 401, "invalid_api_key")
    assert got.body == (await running.raw(request(BODY))).body
    assert got.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("given", ["Bearer sk-first", "bearer sk-second", "Bearer  sk-first "])
async def test_right_key(sidecar: StartSidecar, upstream: StartUpstream, given: str) -> None:
    """Any of the keys opens, and stays here."""
    asked = await upstream()
    got = await (await sidecar(asked, environ=KEYS)).post(authorization=given)
    assert got.status == 200
    assert "authorization" not in asked.requests[0].headers


@pytest.mark.parametrize(
    ("path", "status"),
    [("/livez", 200), ("/readyz", 200), ("/v1/models", 401), ("/metrics", 401), ("/status", 401), ("/nowhere", 401)],
)
async def test_what_needs_no_key(sidecar: StartSidecar, path: str, status: int) -> None:
    """Only the two probes are free; what does not exist is told to those with a key only."""
    assert (await (await sidecar(environ=KEYS)).get(path)).status == status


async def test_a_refused_big_body_still_gets_its_answer(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A client that is still sending reads why it was refused: the connection is not reset under it."""
    running = await sidecar(await upstream(), environ=KEYS)
    async with running.connect() as wire:
        got = await wire.ask(request(b" " * (8 << 20)))
        check_error(got, 401, "invalid_api_key")
        assert await wire.closed()


def test_any_host_when_bound_elsewhere() -> None:
    """Off loopback the name does not matter, the key does."""
    Admission(None).check_caller({"Host": "sidecar.example"})
    with pytest.raises(ClientError):
        Admission(None).check_caller({"Host": "sidecar.example", "Origin": "https://evil.example"})


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("10.0.0.1", False)],
)
def test_loopback(host: str, local: bool) -> None:
    """What counts as reachable from this machine only."""
    assert is_loopback(host) is local
