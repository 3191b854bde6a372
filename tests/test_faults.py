"""The fault matrix: what a client sees when an upstream fails before it has said anything, for each kind of fault.

Every fault is met four ways: a complete answer or a stream, with or without somebody to fall back on. Until the first
content nothing was sent, so a stream fails with a plain status as a complete answer does.
"""

import gzip
from typing import NamedTuple

import pytest

from proxy.breaker import TRIP_CODES
from tests.conftest import CHAT, NOWHERE, STREAM, Got, StartSidecar, StartUpstream, check_error
from tests.fake_upstream import FakeUpstream, Play, completion, completion_body, error, events, reply, stream

HTML = b"<html><body>CANARY Bad gateway</body></html>"
WHOLE = completion_body("from A")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
LONG = f"content-length: {len(WHOLE)}\r\n\r\n".encode()


class Fault(NamedTuple):
    """One row: what the upstream does, what the client is told, what it counts as, and how often it is asked alone."""

    play: Play
    status: int
    code: str | None
    kind: str = "unavailable"
    falls_back: bool = True
    retry_after: str | None = None
    times: int = 1


# Rows F1 (nobody listens), F3 and F19 (silence) and F18, F20, F21 (faults between events) have tests of their own.
FAULTS = {
    "F2 closes at once": Fault(Play([], "close"), 502, "upstream_disconnected"),
    "F2 resets at once": Fault(Play([], "reset"), 502, "upstream_disconnected"),
    "F5 rate limit": Fault(error(429, retry_after="7"), 429, "rate_limit_exceeded", "rate_limit", retry_after="7"),
    "F5 rate limit in ms": Fault(
        error(429, retry_after_ms="1500", retry_after="90"), 429, "rate_limit_exceeded", "rate_limit", retry_after="2"
    ),
    "F6 quota": Fault(error(429, "insufficient_quota"), 429, "insufficient_quota", "quota"),
    "F7 500": Fault(error(500), 500, "server_error", times=2),
    "F7 502": Fault(error(502), 502, "server_error", times=2),
    "F8 503": Fault(error(503), 503, "overloaded", "overloaded"),
    "F8 503 with a time": Fault(error(503, retry_after="3"), 503, "overloaded", "overloaded", retry_after="3"),
    "F9 529": Fault(error(529, type="overloaded_error"), 503, "overloaded", "overloaded"),
    "F10 401": Fault(error(401, "invalid_api_key"), 502, "upstream_auth_failed", "auth", falls_back=False),
    "F10 403": Fault(error(403), 502, "upstream_auth_failed", "auth", falls_back=False),
    "F11 too long": Fault(
        error(400, "context_length_exceeded"), 400, "context_length_exceeded", "context_length", falls_back=False
    ),
    "F11 bad field": Fault(error(422, "bad_thing"), 422, "bad_thing", "invalid_request", falls_back=False),
    "F12 no such model": Fault(error(404, "model_not_found"), 404, "model_not_found", "not_found", falls_back=False),
    "F13 no JSON": Fault(reply(b'{"choices": [}'), 502, "upstream_invalid_response"),
    "F13 no choices": Fault(reply(b'{"object": "list"}'), 502, "upstream_invalid_response"),
    "F13 error in a 200": Fault(reply(b'{"error": {"message": "no", "code": 503}}'), 503, "overloaded", "overloaded"),
    "F14 shorter than announced": Fault(Play([HEAD + LONG + WHOLE[:-9]], "close"), 502, "upstream_truncated"),
    "F14 a chunk is missing": Fault(
        Play([HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{\"id\"\r\n"], "close"), 502, "upstream_truncated"
    ),
    "F14 closed too early": Fault(
        Play([HEAD + b"connection: close\r\n\r\n" + WHOLE[:-9]], "close"), 502, "upstream_invalid_response"
    ),
    "F14 half a gzip": Fault(
        reply(gzip.compress(WHOLE)[:-30], content_encoding="gzip"), 502, "upstream_invalid_response"
    ),
    "F16 a page with 200": Fault(reply(HTML, content_type="text/html"), 502, "upstream_invalid_response"),
    "F16 a page with 502": Fault(reply(HTML, 502, "text/html"), 502, "upstream_invalid_response"),
    "F27 a redirect": Fault(
        reply(b"", 307, location="http://127.0.0.1:1/"), 502, "upstream_redirect"
    ),
    "F29 a bad status line": Fault(Play([b"HTTP/9 what\r\n\r\n"], "close"), 502, "upstream_invalid_response"),
    "F29 a header too long": Fault(reply(WHOLE, x_long="x" * 20_000), 502, "upstream_invalid_response"),
    "F29 half a head": Fault(Play([b"HTTP/1.1 200 OK\r\ncontent-ty"], "close"), 502, "upstream_disconnected"),
    "F30 refuses before the body": Fault(
        error(413, "too_big")._replace(early=True, then="close"), 413, "too_big", "invalid_request", falls_back=False
    ),
}  # fmt: skip
OTHERS = {
    "F15 answer as text": reply(WHOLE, content_type="text/plain"),
    "F17 gzip nobody asked for": reply(gzip.compress(WHOLE), content_encoding="gzip"),
    "F31 100 first": Play([b"HTTP/1.1 100 Continue\r\n\r\n", *reply(WHOLE).pieces]),
    "F31 103 first": Play([b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", *reply(WHOLE).pieces]),
    "closed after the answer": Play([HEAD + b"connection: close\r\n\r\n" + WHOLE], "close"),
    "byte by byte": Play([bytes([byte]) for byte in reply(WHOLE).pieces[0]]),
}

both = pytest.mark.parametrize("body", [CHAT, STREAM], ids=["complete", "stream"])
rows = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


def healthy(body: dict[str, object]) -> Play:
    """B's answer."""
    return stream(*events("from B")) if body is STREAM else completion("from B")


def check_fault(got: Got, fault: Fault) -> None:
    """The client is told what the row says, and not what the upstream's page said."""
    check_error(got, fault.status, fault.code)
    assert got.headers.get("retry-after") == fault.retry_after
    assert got.headers.get("x-should-retry") == (None if fault.retry_after else "false")
    assert b"CANARY" not in got.body


@rows
@both
async def test_alone(sidecar: StartSidecar, upstream: StartUpstream, fault: Fault, body: dict[str, object]) -> None:
    """Without a fallback the client gets the fault as an OpenAI error. Only a 500 is worth asking again."""
    faulty = await upstream(fault.play)
    running = await sidecar(faulty)

    got = await running.post(body)

    check_fault(got, fault)
    assert got.headers["x-sidecar-attempts"] == str(fault.times)
    assert got.headers["x-sidecar-upstream"] == "p0/m"
    assert [line["kind"] for line in running.log("attempt_failed")] == [fault.kind] * fault.times
    assert len(faulty.requests) == fault.times


@rows
@both
async def test_with_a_fallback(
    sidecar: StartSidecar, upstream: StartUpstream, fault: Fault, body: dict[str, object]
) -> None:
    """With one, a transient fault is never seen; a permanent one is, and the fallback is not asked."""
    faulty, other = await upstream(fault.play), await upstream(healthy(body))

    got = await (await sidecar(faulty, other)).post(body)

    assert len(other.requests) == fault.falls_back, (got.status, got.body)
    if fault.falls_back:
        assert (got.status, got.text, got.headers["x-sidecar-attempts"]) == (200, "from B", "2")
        assert got.headers["x-sidecar-upstream"] == "p1/m"
    else:
        check_fault(got, fault)


@rows
async def test_what_counts_against_the_upstream(sidecar: StartSidecar, upstream: StartUpstream, fault: Fault) -> None:
    """Faults of the upstream count; what the client or the configuration did wrong does not. A refused key rests."""
    running = await sidecar(await upstream(fault.play))

    await running.post()

    state = (await running.get("/status")).json["upstreams"]["p0/m"]
    counts = fault.kind not in ("auth", "context_length", "invalid_request", "not_found")
    assert state["errors"] == counts * fault.times
    assert (state["in_flight"], state["resting_s"] > 0) == (
        0,
        fault.kind in ("rate_limit", "quota", "auth") or bool(fault.retry_after) or fault.code in TRIP_CODES,
    )


@pytest.mark.parametrize("play", OTHERS.values(), ids=OTHERS)
@both
async def test_odd_but_good_answers_are_used(
    sidecar: StartSidecar, upstream: StartUpstream, play: Play, body: dict[str, object]
) -> None:
    """What can be read is an answer; a whole one to a stream request is re-framed as the events that were asked for."""
    got = await (await sidecar(await upstream(play))).post(body)

    assert (got.status, got.text, got.headers["x-sidecar-attempts"]) == (200, "from A", "1")
    assert got.headers["content-type"].startswith("text/event-stream" if body is STREAM else "application/json")


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
async def test_events_under_another_name_are_events(sidecar: StartSidecar, upstream: StartUpstream, kind: str) -> None:
    """Some servers call their events JSON; they are passed on as they come."""
    faulty = await upstream(stream(*events("from", " A"), content_type=kind))
    got = await (await sidecar(faulty)).post(STREAM)
    assert (got.status, got.text, got.events[-1]) == (200, "from A", b"[DONE]")


async def test_an_answer_that_is_no_stream(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """F15: what cannot be re-framed as the stream that was asked for is a fault like any other."""
    odd = reply(b'{"choices": [{"index": 0}]}')
    alone, other = (
        await sidecar(await upstream(odd)),
        await sidecar(await upstream(odd), await upstream(healthy(STREAM))),
    )
    check_error(await alone.post(STREAM), 502, "upstream_invalid_response")
    assert (await other.post(STREAM)).text == "from B"


@both
async def test_nobody_listens(sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, object]) -> None:
    """F1: an upstream that cannot be reached is 502, or the next one's answer."""
    async with FakeUpstream() as gone:
        url = gone.url
    alone, other = await sidecar(url), await sidecar(url, await upstream(healthy(body)))

    check_error(await alone.post(body), 502, "upstream_unreachable")

    got = await other.post(body)
    assert (got.text, got.headers["x-sidecar-attempts"]) == ("from B", "2")


@both
@pytest.mark.parametrize("pieces", [[], [b"HTTP/1.1 200 OK\r\n"], [HEAD + b"\r\n"]], ids=["nothing", "half", "head"])
async def test_silence(
    sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, object], pieces: list[bytes]
) -> None:
    """F3: silence before the first content ends at the timer, as 504 or as the next one's answer."""
    policy = 'strategy = "cheapest"\ntimeouts = { first_event = 0.2, total = 0.4 }\n'
    hangs = await upstream(Play(pieces, "hang"))
    other = await sidecar(hangs, await upstream(healthy(body)), policy=policy + "fallback = { attempts = 2 }\n")
    alone = await sidecar(hangs, policy=policy)
    silent_body = body is CHAT and len(pieces) == 1 and pieces[0].endswith(b"\r\n\r\n")

    got = await alone.post(body)
    assert (got.status, got.error["code"]) == (504, "deadline_exceeded" if silent_body else "upstream_timeout")

    if not silent_body:
        got = await other.post(body)
        assert (got.text, got.headers["x-sidecar-attempts"]) == ("from B", "2")
    await hangs.idle.wait()


@both
async def test_all_fail(sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, object]) -> None:
    """F35: the client gets the last fault, with a list of all of them, and is told not to try again."""
    running = await sidecar(await upstream(error(429)), await upstream(error(500)), await upstream(Play([], "close")))

    got = await running.post(body)

    check_error(got, 502, "upstream_disconnected")
    assert [(one["upstream"], one["kind"], one["code"]) for one in got.error["metadata"]["attempts"]] == [
        ("p0/m", "rate_limit", "rate_limit_exceeded"),
        ("p1/m", "unavailable", "server_error"),
        ("p2/m", "unavailable", "upstream_disconnected"),
    ]
    assert (got.headers["x-should-retry"], got.headers["x-sidecar-attempts"]) == ("false", "3")


BILLED = {
    "closes at once": Play([], "close"),
    "resets at once": Play([], "reset"),
    "half an answer": Play([HEAD + LONG + WHOLE[:-9]], "close"),
    "half a stream's head": Play([HEAD + b"transfer-encoding: chunked\r\n\r\n"], "close"),
    "nonsense": reply(b'{"choices": [}'),
    "silence": Play([], "hang"),
}


@pytest.mark.parametrize("play", BILLED.values(), ids=BILLED)
@both
async def test_what_may_be_on_the_bill_is_marked(
    sidecar: StartSidecar, upstream: StartUpstream, play: Play, body: dict[str, object]
) -> None:
    """The request went out and nobody said what became of it: the log and the client learn that it may have cost."""
    policy = 'strategy = "cheapest"\ntimeouts = { first_event = 0.2 }\n'
    alone = await sidecar(await upstream(play), policy=policy)
    other = await sidecar(await upstream(play), await upstream(healthy(body)), policy=policy)

    got = await alone.post(body)

    assert [one["possibly_billed"] for one in got.error["metadata"]["attempts"]] == [True]
    assert (await other.post(body)).text == "from B"
    assert [line["possibly_billed"] for one in (alone, other) for line in one.log("attempt_failed")] == [True, True]


@pytest.mark.parametrize("play", [error(500), error(429), error(401), error(400), error(503)])
async def test_what_the_provider_refused_is_not_on_the_bill(
    sidecar: StartSidecar, upstream: StartUpstream, play: Play
) -> None:
    """An error in the provider's own words was not charged for; nor was a request that never left."""
    running = await sidecar(await upstream(play), NOWHERE)
    await running.post()
    await running.post({**CHAT, "model": "p1/m"})
    lines = running.log("attempt_failed")
    assert lines
    assert not any("possibly_billed" in line for line in lines)


@both
async def test_everybody_rests(sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, object]) -> None:
    """F36: when all have failed too often nobody is asked: 503 at once, with the time of the next try."""
    asked = await upstream(error(529))
    running = await sidecar(asked)
    for _ in range(5):
        await running.post(body)

    got = await running.post(body)

    check_error(got, 503, "no_provider_available")
    assert 1 <= int(got.headers["retry-after"]) <= 2
    assert (len(asked.requests), got.headers["x-sidecar-attempts"]) == (5, "0")
