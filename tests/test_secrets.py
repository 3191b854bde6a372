"""Canaries: no key and no prompt comes out anywhere, whatever goes wrong."""

import json

import pytest

from tests.conftest import StartSidecar, StartUpstream, until
from tests.fake_upstream import Play, chunk, error, events, reply, stream

CLIENT, PROVIDER, PROMPT = "client-CANARY-1", "Pr0viderCANARY2", "prompt CANARY 3"
ENVIRON = {"SIDECAR_API_KEYS": CLIENT, "KEY": PROVIDER}
SAID = f"Key {PROVIDER} cannot take {PROMPT!r}"
EVENT = b"data: " + json.dumps({"error": {"message": SAID, "code": "bad"}}).encode() + b"\n\n"
# Each names the key and the prompt in what it says.
PLAYS = {
    "refused key": error(401, "invalid_api_key", message=SAID),
    "bad request": error(400, "bad", message=SAID),
    "rate limit": error(429, message=SAID),
    "broken": error(500, message=SAID),
    "page": reply(f"<html>{SAID}</html>".encode(), 500, "text/html"),
    "plain text": reply(SAID.encode(), 503, "text/plain"),
    "nonsense": reply(SAID.encode()),
    "truncated": Play([b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n" + SAID.encode()], "close"),
    "no HTTP": Play([SAID.encode() + b"\r\n\r\n"], "close"),
    "error event": stream(EVENT),
    "late error event": stream(chunk({"content": "Hi"}), EVENT),
    "bad event": stream(chunk({"content": "Hi"}), b"data: " + SAID.encode() + b"\n\n"),
    "good": stream(*events("Hi")),
}


@pytest.mark.parametrize("play", PLAYS.values(), ids=PLAYS)
@pytest.mark.parametrize("streamed", [True, False])
async def test_nothing_leaks(
    sidecar: StartSidecar,
    upstream: StartUpstream,
    play: Play,
    streamed: bool,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Keys are in no answer, log, metric or status; the prompt comes back in the provider's own words at most."""
    caplog.set_level("DEBUG")
    running = await sidecar(await upstream(play), environ=ENVIRON, provider={"api_key": "env:KEY"})
    auth = {"authorization": f"Bearer {CLIENT}"}
    body = {"model": "test", "stream": streamed, "messages": [{"role": "user", "content": PROMPT}]}

    answers = [await running.post(body, **auth), await running.post(json.dumps(body).encode()[:-1], **auth)]
    pages = [await running.get(path, **auth) for path in ("/metrics", "/status", "/v1/models")]
    pages.append(await running.post(body, path="/explain", **auth))

    await until(lambda: running.log("request") != [])
    own = [*map(repr, pages), *running.app.lines(), *capfd.readouterr(), caplog.text]
    assert PROMPT not in "".join([*own, repr(running.lines)])
    everything = "".join([*own, *map(repr, answers), repr(running.lines)])
    assert [text for text in (CLIENT, PROVIDER) if text in everything] == []


async def test_a_wrong_key_is_not_repeated(sidecar: StartSidecar) -> None:
    """What was sent as a key may be somebody's key elsewhere."""
    running = await sidecar(environ=ENVIRON)
    got = await running.post(b"{}", authorization="Bearer sk-elsewhere-CANARY")
    assert b"CANARY" not in got.body
    assert "CANARY" not in repr(running.log("refused"))


async def test_a_key_in_a_providers_words_is_redacted_wherever_it_stands(
    sidecar: StartSidecar, upstream: StartUpstream
) -> None:
    """Type, code and param reach the client like the message, so a key must not travel in them either."""
    key = "0ddLook1ngKey"
    body = json.dumps({"error": dict.fromkeys(("message", "type", "code", "param"), f"no {key}")}).encode()
    running = await sidecar(await upstream(reply(body, 400)), provider={"api_key": "env:ODD"}, environ={"ODD": key})
    got = await running.post()
    assert got.status == 400
    assert {got.error[name] for name in ("message", "type", "code", "param")} == {"no [redacted]"}
    assert key not in repr(got)
