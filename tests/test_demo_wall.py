"""The fault wall, read byte by byte: each fault does in each language on the wire what its name says."""

import asyncio
import gzip
import json
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from proxy import demo_faults
from proxy.__main__ import main
from proxy.commands.faults import welcome
from proxy.demo import DemoProvider, Profile
from proxy.demo_wall import Wall
from tests.conftest import until
from tests.served import send, told

# The path for a complete answer, and for a stream.
PATHS = {
    "openai": ("/v1/chat/completions",) * 2,
    "anthropic": ("/v1/messages",) * 2,
    "gemini": ("/v1beta/models/{}:generateContent", "/v1beta/models/{}:streamGenerateContent?alt=sse"),
    "bedrock": ("/model/{}/converse", "/model/{}/converse-stream"),
    "cohere": ("/v2/chat",) * 2,
    "ollama": ("/api/chat",) * 2,
    "responses": ("/v1/responses",) * 2,
}
KEY = "the-key-of-a-test"
# What is not 200, and what does not leave its connection open.
STATUS = {
    **{name: refusal.status for name, refusal in demo_faults.REFUSALS.items()},
    **{"redirect": 307, "html": 502, "html-403": 403, "continue": 100, "early-hints": 103},
}
SILENT = {"hang", "close", "reset", "half-head", "dribble", "bad-status"}
CLOSED = {"close", "reset", "half-head", "bad-status", "cut-after-finish", "cut-after-3", "cut-at-3"}
CLOSED |= {"truncated", "truncated-chunked", "truncated-close"}
BIG = {"huge", "big-event"}
NAMES = [name.replace("<n>", "3") for name in demo_faults.names()]


class Heard(NamedTuple):
    """What came, and whether the connection was closed behind it."""

    data: bytes
    closed: bool

    @property
    def body(self) -> bytes:
        """What stands behind the last head."""
        return self.data.rpartition(b"\r\n\r\n")[2]


@pytest.fixture
async def wall() -> AsyncIterator[Wall]:
    """A wall, and nothing left of it."""
    wall = Wall()
    await wall.start()
    yield wall
    await wall.stop()
    await until(lambda: wall.open == 0)


@asynccontextmanager
async def connected(wall: Wall | DemoProvider) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of our own."""
    port = int(wall.base_url.split(":")[2].removesuffix("/v1"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def question(name: str, language: str = "openai", *, stream: bool = False, text: str = "one two") -> bytes:
    """A request for a fault."""
    fields: dict[str, object] = {"messages": [{"role": "user", "content": text}]}
    if language == "gemini":
        fields = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    elif language == "bedrock":
        fields = {"messages": [{"role": "user", "content": [{"text": text}]}]}
    elif language == "responses":
        fields = {"model": f"fault/{name}", "stream": stream, "input": text}
    else:
        fields = {"model": f"fault/{name}", "stream": stream, **fields}
    body = json.dumps(fields).encode()
    path = PATHS[language][stream].format(f"fault%2F{name}")
    who = f"x-goog-api-key: {KEY}" if language == "gemini" else f"authorization: Bearer {KEY}"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{who}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def listen(reader: asyncio.StreamReader, seconds: float = 0.3) -> Heard:
    """Read to the end, or for so long, or a megabyte, whatever comes first."""
    data = b""
    try:
        async with asyncio.timeout(seconds):
            while len(data) < 1 << 20:
                piece = await reader.read(1 << 16)
                if not piece:
                    return Heard(data, closed=True)
                data += piece
    except TimeoutError:
        pass
    except ConnectionResetError:
        return Heard(data, closed=True)
    return Heard(data, closed=False)


async def hear(wall: Wall | DemoProvider, data: bytes, seconds: float = 0.3) -> Heard:
    """Ask on a connection of its own."""
    async with connected(wall) as (reader, writer):
        writer.write(data)
        return await listen(reader, seconds)


@pytest.mark.parametrize("stream", [False, True], ids=["complete", "stream"])
@pytest.mark.parametrize("language", PATHS)
async def test_every_fault(wall: Wall, language: str, stream: bool) -> None:
    """Status line and end of the connection are the fault's own; a client that leaves ends whatever has no end."""

    async def check(name: str) -> None:
        heard = await hear(wall, question(name, language, stream=stream), 1)
        if name not in SILENT:
            status = 500 if name.startswith("error-a") and not stream else STATUS.get(name, 200)
            assert heard.data.startswith(f"HTTP/1.1 {status} ".encode()), name
        cut_whole = not stream and name in ("end-after-3", "end-at-3")
        assert heard.closed == (name in CLOSED or cut_whole), name

    await asyncio.gather(*map(check, set(NAMES) - BIG - set(demo_faults.EARLY)))
    await asyncio.wait_for(wall.idle.wait(), 2)


@pytest.mark.parametrize("language", PATHS)
async def test_words_and_events_are_counted(wall: Wall, language: str) -> None:
    """`-after-<n>` counts words, `-at-<n>` events of the wire."""
    after = await hear(wall, question("cut-after-3", language, stream=True, text="o o o o o"))
    at = await hear(wall, question("cut-at-3", language, stream=True, text="o o o o o"))

    assert len(re.findall(rb'"(?:content|text|delta)":" ?o"', after.data)) == 3
    assert len(chunks(at)) == 3


def chunks(heard: Heard) -> list[bytes]:
    """The chunks of a body that was cut behind one."""
    rest, found = heard.data.partition(b"\r\n\r\n")[2], []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        found.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return found


@pytest.mark.parametrize("name", ["401", "429", "error-200", "html", "malformed", "bad-status", "huge-header"])
@pytest.mark.parametrize("language", PATHS)
async def test_an_error_quotes_the_key(wall: Wall, name: str, language: str) -> None:
    """So that whoever passes on what a provider says shows it."""
    assert KEY.encode() in (await hear(wall, question(name, language))).data


@pytest.mark.parametrize("name", ["garbage-after-3", "error-after-3"])
@pytest.mark.parametrize("language", PATHS)
async def test_a_broken_event_quotes_the_key(wall: Wall, name: str, language: str) -> None:
    """In a stream, too."""
    assert KEY.encode() in (await hear(wall, question(name, language, stream=True))).data


# What an answer has, and has not when it is played without.
MARKS = {
    "gemini": {"empty": b"one", "no-finish": b"finishReason", "no-usage": b"usageMetadata"},
    "bedrock": {"empty": b"one", "no-finish": b"end_turn", "no-usage": b"inputTokens"},
    "cohere": {"empty": b"one", "no-finish": b"COMPLETE", "no-usage": b"billed_units"},
    "ollama": {"empty": b"two", "no-finish": b"done_reason", "no-usage": b"eval_count"},
    "responses": {"empty": b"two", "no-finish": b'"completed"', "no-usage": b"input_tokens"},
}


@pytest.mark.parametrize("stream", [False, True], ids=["complete", "stream"])
@pytest.mark.parametrize(("language", "name"), [(language, name) for language in MARKS for name in MARKS[language]])
async def test_what_an_answer_leaves_out(wall: Wall, language: str, name: str, stream: bool) -> None:
    """A shape is the answer without what its name says, in the words of the language."""
    whole, shaped = [await hear(wall, question(one, language, stream=stream)) for one in ("slow-1", name)]
    assert [MARKS[language][name] in heard.data for heard in (whole, shaped)] == [True, False]


async def test_a_kept_connection_is_reset(wall: Wall) -> None:
    """`reset-on-reuse` answers the first request on a connection."""
    async with connected(wall) as (reader, writer):
        writer.write(question("reset-on-reuse"))
        assert (await listen(reader)).data.startswith(b"HTTP/1.1 200")
        writer.write(question("reset-on-reuse"))
        assert await listen(reader) == Heard(b"", closed=True)


async def test_bytes_that_nobody_asked_for(wall: Wall) -> None:
    """`stray` sends an answer and, a moment later, another one."""
    assert (await hear(wall, question("stray"))).data.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("name", demo_faults.EARLY)
async def test_an_answer_before_the_body_was_read(wall: Wall, name: str) -> None:
    """An early answer needs the model's name and nothing behind it."""
    whole = question(name, text="x" * 100_000)
    heard = await hear(wall, whole[:8000], 2)
    assert heard.data.startswith(f"HTTP/1.1 {name[:3]} ".encode())
    assert heard.closed


async def test_gzip_is_whole(wall: Wall) -> None:
    """`gzip` is the answer itself, compressed."""
    body = (await hear(wall, question("gzip"))).data.partition(b"\r\n\r\n")[2]
    assert json.loads(gzip.decompress(body))["choices"][0]["message"]["content"] == "one two"


async def test_what_is_huge_is_sent_as_it_is_read(wall: Wall) -> None:
    """100 MB come for who reads them, and stop for who leaves."""
    for stream in (False, True):
        assert len((await hear(wall, question("huge", stream=stream))).data) >= 1 << 20
    assert len((await hear(wall, question("big-event", stream=True))).data) >= 1 << 20
    await asyncio.wait_for(wall.idle.wait(), 2)


async def test_a_tls_handshake_fails(wall: Wall) -> None:
    """Who speaks TLS is told in TLS that it will not be."""
    assert await hear(wall, b"\x16\x03\x01\x00\x05hello") == Heard(b"\x15\x03\x03\x00\x02\x02\x28", closed=True)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (question("nonsense"), 400),
        (question("nonsense-3"), 400),
        (question("429").replace(b"/v1/chat", b"/v1/chit"), 404),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{]", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n[]", 400),
        (b"POST /v1/messages HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}", 400),
        (b"POST /v2/chat HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}", 400),
        (b'POST /models/x:generateContent HTTP/1.1\r\ncontent-length: 15\r\n\r\n{"contents":[]}', 400),
        (question("nonsense", "bedrock"), 400),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", 404),
        (b"POST /v1/messages HTTP/1.1\r\ncontent-length: many\r\n\r\n", 400),
    ],
)
async def test_a_wrong_request_is_refused(wall: Wall, data: bytes, status: int) -> None:
    """What names no fault, or is no request, gets an error that lists what there is."""
    heard = await hear(wall, data)
    assert heard.data.startswith(f"HTTP/1.1 {status} ".encode())
    assert b'"message"' in heard.body


async def test_it_says_what_was_asked() -> None:
    """A line for each request, so that attempts can be counted."""
    lines: list[str] = []
    wall = Wall(note=lines.append)
    await wall.start()
    await hear(wall, question("429", "anthropic"))
    await hear(wall, question("close", stream=True))
    await hear(wall, question("nonsense"))
    await wall.stop()
    await wall.stop()
    assert lines[:2] == ["/v1/messages complete fault/429", "/v1/chat/completions stream fault/close"]
    assert lines[2].startswith("refused: no fault is called 'nonsense'; there are 400, ")


async def test_stop_cuts_what_is_in_flight(wall: Wall) -> None:
    """A client that waits is not waited for."""
    async with connected(wall) as (reader, writer):
        writer.write(question("hang"))
        await until(lambda: wall.requests == 1)
        await wall.stop()
        assert (await listen(reader)).closed
    assert wall.open == 0


@pytest.mark.parametrize("stream", [False, True], ids=["complete", "stream"])
async def test_the_demo_plays_the_same(wall: Wall, stream: bool) -> None:
    """A demo provider and the wall have one player: the same bytes, but for ids, times and the key."""
    provider = DemoProvider(Profile("wall"))
    await provider.start()

    async def check(name: str) -> None:
        data = question(name, stream=stream).replace(f"Bearer {KEY}".encode(), b"")
        one, other = [await hear(who, data, 1) for who in (wall, provider)]
        assert (one.closed, bool(one.data)) == (other.closed, bool(other.data)), name
        some = 20 if name in ("drip-3", "dribble") else 400
        one_data, other_data = plain(one.data)[:some], plain(other.data)[:some]
        assert one_data.startswith(other_data) or other_data.startswith(one_data), name

    try:
        await asyncio.gather(*map(check, set(NAMES) - BIG))
    finally:
        await provider.stop()


def plain(data: bytes) -> bytes:
    """The beginning of an answer without what differs from one to the next; of a compressed one, its head."""
    head, gap, body = data.partition(b"\r\n\r\n")
    whole = head if b"gzip" in head else head + gap + body[: len(body) // 3]
    return re.sub(rb"wall-\d+|\"created\":\d+|content-length: \d+|[\da-f]+\r\n", b"", whole)


# ---- the verb ---------------------------------------------------------------------------------------------------


def test_the_verb_lists_all_faults(capsys: pytest.CaptureFixture[str]) -> None:
    """Each fault has a line that says what it does."""
    assert main(["faults", "--list"]) == 0
    lines = [line.split(None, 1) for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _text in lines] == demo_faults.names()


def test_the_verb_plays_until_told_to_stop(capfd: pytest.CaptureFixture[str]) -> None:
    """It says where it is and how to try it, and ends with 0."""
    assert told(["faults", "--port", "0"], signal.SIGTERM, lambda: send(signal.SIGTERM)) == 0
    said = capfd.readouterr().err
    url = said.split()[4].removesuffix(":")
    assert said.splitlines() == welcome(url)


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    """Misuse, with one line that says why."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["faults", "--port", str(port)]) == 2
    assert capsys.readouterr().err.startswith(f"llm-sidecar: cannot listen on 127.0.0.1:{port}: ")
