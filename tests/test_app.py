"""One running sidecar as a whole: what it says at its start, where it listens, and how it leaves."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from proxy.app import App, Options, StartError, raise_file_limit
from proxy.config import PolicyError
from tests.conftest import CHAT, STREAM, Sidecar, StartSidecar, StartUpstream, catalog, check_error, request, until
from tests.fake_upstream import DONE, Play, completion, events, stream

Start = Callable[..., Coroutine[Any, Any, App]]
SAID = events("one", "two")


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start an app with just these options and variables; nothing of this machine's environment."""
    running: list[App] = []

    async def app(environ: dict[str, str] | None = None, **options: Any) -> App:
        one = App(Options(port=0, drain_timeout_s=1.0, **options), environ or {}, lambda lines: None)
        await one.start()
        running.append(one)
        return one

    yield app
    for one in running:
        await one.stop()


async def get(url: str, **headers: str) -> tuple[int, Any]:
    """The status of a GET on a connection of its own, and what the JSON or text says."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        body = await response.read()
    return response.status, msgspec.json.decode(body) if response.content_type == "application/json" else body.decode()


async def test_the_start_up_lines_say_what_runs(start: Start) -> None:
    """A person learns the address, who is on by which variable, who is off and why, the policies, and what to try."""
    app = await start({"OPENAI_API_KEY": "sk-CANARY"})

    listens, on, off, policies, attempt = app.lines()

    assert listens == f"llm-sidecar listens on {app.address} (OpenAI base URL: {app.address}/v1)"
    assert on == "providers on:  openai (OPENAI_API_KEY)"
    assert off.startswith("providers off: anthropic (set ANTHROPIC_API_KEY), copilot (set COPILOT_API_KEY or run ")
    assert off.endswith(" more (llm-sidecar providers)")
    assert policies == "policies:      balanced, chains, cheapest, fastest, quality (shipped)"
    assert attempt.startswith(f"try: curl {app.address}/v1/chat/completions ")
    assert '"model":"balanced"' in attempt
    assert "CANARY" not in "".join(app.lines())


@pytest.mark.parametrize(
    ("files", "model"), [([], "p0/m"), (["cheap"], "cheap"), (None, "?")], ids=["no policy", "one", "no model"]
)
async def test_the_line_to_try_names_what_exists(
    start: Start, tmp_path: Path, files: list[str] | None, model: str
) -> None:
    """The command to paste asks for a policy, else for a model, and with keys of our own it sends one."""
    provider = '[[provider]]\nname = "p0"\nbase_url = "http://127.0.0.1:9/v1"'
    (tmp_path / "catalog.toml").write_text(provider if files is None else catalog())
    for name in files or ():
        (tmp_path / f"{name}.toml").write_text('strategy = "cheapest"')

    lines = (await start({"SIDECAR_API_KEYS": "a, b"}, policies=tmp_path)).lines()

    assert f'"model":"{model}"' in lines[-1]
    assert '-H "authorization: Bearer ${SIDECAR_API_KEYS%%,*}"' in lines[-1]
    assert lines[3] == f"policies:      {', '.join(files or ()) or 'none'} ({tmp_path})"


async def test_without_any_key_the_demo_answers(start: Start) -> None:
    """With no provider on, the built-in ones run, answer under well-known names, and the lines say so."""
    app = await start()

    async with aiohttp.ClientSession() as session:
        url, names = f"{app.address}/v1/chat/completions", ("demo", "gpt-4o-mini", "made-up")
        answers = [await session.post(url, json={**CHAT, "model": name}) for name in names]
        text = (await answers[1].json())["choices"][0]["message"]["content"]

    assert ([answer.status for answer in answers], text) == ([200, 200, 404], "Hello")
    assert app.lines()[1] == "providers on:  thrifty (no key needed), swift (no key needed), sage (no key needed)"
    assert "no provider key was found or --demo was given: built-in demo providers answer" in app.lines()[4]


async def test_own_policies_get_no_demo_unless_asked(start: Start, tmp_path: Path) -> None:
    """A directory of one's own is the whole truth, keys or not; `demo` adds the built-in providers to it."""
    row = catalog(api_key="env:NO_SUCH_KEY")
    (tmp_path / "catalog.toml").write_text(row)
    (tmp_path / "demo.toml").write_text('description = "mine"')

    plain, asked = await start(policies=tmp_path), await start(policies=tmp_path, demo=True)

    assert plain.lines()[1:3] == ["providers on:  none", "providers off: p0 (set NO_SUCH_KEY)"]
    assert len(asked.gateway.generation.config.providers) == len(asked.demo) + 1 > 1
    assert asked.gateway.generation.config.policies["demo"].description == "mine"


@pytest.mark.parametrize(
    "options",
    [{"host": "0.0.0.0"}, {"host": ""}, {"admin": ("::", 0)}],  # noqa: S104
    ids=["all", "empty", "admin"],
)
async def test_the_outside_needs_keys(start: Start, options: dict[str, Any]) -> None:
    """Whoever can be reached from elsewhere asks for keys, on every listener, or does not start."""
    with pytest.raises(StartError, match="is no loopback address: set SIDECAR_API_KEYS to the keys clients send"):
        await start({"SIDECAR_API_KEYS": " , "}, **options)


async def test_the_outside_with_keys(start: Start) -> None:
    """With keys any address will do, any Host is served, each key is good; there is no admin surface by default."""
    app = await start({"SIDECAR_API_KEYS": "one, two"}, host="0.0.0.0")  # noqa: S104
    url = app.address.replace("0.0.0.0", "127.0.0.1")  # noqa: S104

    async def code(path: str, key: str) -> int:
        return (await get(url + path, host="example.com", authorization=f"Bearer {key}"))[0]

    assert [await code("/v1/models", key) for key in ("one", "two", "three")] == [200, 200, 401]
    assert [await code(path, "one") for path in ("/metrics", "/status")] == [404, 404]


async def test_an_address_of_ipv6_stands_in_brackets(start: Start) -> None:
    """The address can be pasted as it is, whatever its family."""
    app = await start(host="::1", admin=("::1", 0))

    assert app.address.startswith("http://[::1]:")
    assert await get(f"{app.address}/livez") == (200, {"status": "ok"})
    assert (await get(f"{app.admin_address}/status"))[0] == 200


@pytest.mark.parametrize("busy", ["port", "admin"])
async def test_a_port_in_use_is_one_sentence(start: Start, busy: str) -> None:
    """A start that fails says which address and why, and leaves nothing behind, demo providers included."""
    port = int((await start()).address.rpartition(":")[2])
    given = {"port": port} if busy == "port" else {"port": 0, "admin": ("127.0.0.1", port)}
    app = App(Options(**given), {}, lambda lines: None)

    with pytest.raises(StartError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: the port is in use$"):
        await app.start()

    assert app.demo
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(f"{app.demo[0].base_url}/models")


async def test_an_address_that_is_not_ours(start: Start) -> None:
    """Any other reason not to listen is told in the system's words."""
    with pytest.raises(StartError, match=r"^cannot listen on 203\.0\.113\.1:0: .*(bind|assign)"):
        await start({"SIDECAR_API_KEYS": "key"}, host="203.0.113.1")


async def test_broken_files_do_not_start(start: Start, tmp_path: Path) -> None:
    """At the start there is no last good state: broken files are an error."""
    (tmp_path / "bad.toml").write_text("strategy = 5")
    with pytest.raises(PolicyError, match=r"bad\.toml: strategy"):
        await start(policies=tmp_path)
    with pytest.raises(PolicyError, match="No such file or directory"):
        await start(policies=tmp_path / "nowhere")


async def test_an_admin_listener_of_its_own(start: Start) -> None:
    """With one, metrics and status are there and only there; the chat doors are not."""
    app = await start(admin=("127.0.0.1", 0))

    for path in ("/metrics", "/status"):
        assert (await get(app.address + path))[0] == 404
        assert (await get(app.admin_address + path))[0] == 200
    assert (await get(f"{app.admin_address}/v1/models"))[0] == 404
    assert (await get(f"{app.admin_address}/readyz"))[0] == 200


async def test_stop_lets_a_stream_finish(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """What is under way when the sidecar is told to stop ends as it would have, and stop() waits for it."""
    asked = await upstream(stream(*SAID))
    running = await sidecar(asked)
    asked.go_on.clear()
    client = asyncio.create_task(running.post(STREAM))
    await asked.arrived.wait()

    stopping = asyncio.create_task(running.app.stop())
    await until(lambda: not running.app.sidecar.ready)
    asked.go_on.set()
    got = await client
    await stopping

    assert (got.text, got.events[-1] + b"\n\n") == ("onetwo", DONE.removeprefix(b"data: "))
    assert running.log("request")[0]["status"] == 200


async def ends(running: Sidecar, timeout_s: float, **options: float) -> None:
    """Stop `running` with this patience."""
    running.app.options = msgspec.structs.replace(running.app.options, drain_timeout_s=timeout_s, **options)
    async with asyncio.timeout(5):
        await running.app.stop()


async def test_past_the_timeout_a_stream_ends_with_an_error(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A stream that does not end in time gets an error event and no clean end; the upstream is left."""
    asked = await upstream(stream(*SAID[:2], then="hang", end=False))
    running = await sidecar(asked)
    client = asyncio.create_task(running.post(STREAM))
    await asked.arrived.wait()
    await until(lambda: running.app.gateway.status()["upstreams"]["p0/m"]["in_flight"] == 1)  # type: ignore[index]

    await ends(running, 0.2)
    got = await client

    assert msgspec.json.decode(got.events[-1])["error"]["code"] == "shutting_down"
    assert (got.status, DONE.strip() in got.body) == (200, False)
    assert running.log("request")[0]["error"] == "shutting_down"
    await asyncio.wait_for(asked.idle.wait(), 1)


async def test_past_the_timeout_a_request_gets_a_503(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Nothing was sent yet: the client gets a plain error, and the upstream is not blamed."""
    asked = await upstream(Play([], "hang"))
    running = await sidecar(asked)
    client = asyncio.create_task(running.post())
    await asked.arrived.wait()

    await ends(running, 0.0)

    check_error(await client, 503, "shutting_down")
    assert running.log("attempt_failed") == []


async def test_readyz_says_no_while_draining(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """For the time of the drain delay it still listens and answers, but tells balancers to go elsewhere."""
    running = await sidecar(await upstream())
    assert (await running.get("/readyz")).status == 200

    stopping = asyncio.create_task(ends(running, 0.0, drain_delay_s=0.3))
    await until(lambda: not running.app.sidecar.ready)

    check_error(await running.get("/readyz"), 503, "shutting_down")
    assert (await running.get("/livez")).status == 200
    assert (await running.post()).text == "Hello"
    await stopping


async def test_while_draining_nobody_gets_in_and_answers_are_the_last(
    sidecar: StartSidecar, upstream: StartUpstream
) -> None:
    """New connections are refused, idle ones are closed, and those that wait for an answer go after it."""
    asked = await upstream(Play([b"", *completion().pieces]))
    running = await sidecar(asked)
    asked.go_on.clear()
    async with running.connect() as idle, running.connect() as busy:
        await idle.ask(request())
        answer = asyncio.create_task(busy.ask(request(msgspec.json.encode(CHAT))))
        await asked.arrived.wait()
        stopping = asyncio.create_task(running.app.stop())
        assert await idle.closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", int(running.app.address.rpartition(":")[2]))
        asked.go_on.set()
        assert (await answer).headers["connection"] == "close"
        assert await busy.closed()
        await stopping


async def test_stop_may_be_said_twice(start: Start) -> None:
    """A second stop finds nothing left to do."""
    app = await start()
    await app.stop()
    await app.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await get(f"{app.address}/livez")


def test_as_many_open_files_as_the_system_allows() -> None:
    """Two per stream are needed; the soft limit goes up to the hard one, and there is nothing to do at the top."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))
        for _ in range(2):
            raise_file_limit()
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def knock(running: Sidecar, data: bytes) -> socket.socket:
    """Connect and send without giving the sidecar a turn: the kernel says yes, and keeps what is sent."""
    client = socket.create_connection(("127.0.0.1", int(running.app.address.rpartition(":")[2])))
    client.sendall(data)
    client.setblocking(False)
    return client


async def said_to(client: socket.socket) -> bytes:
    """All that `client` gets until the connection closes."""
    reader, writer = await asyncio.open_connection(sock=client)
    async with asyncio.timeout(5):
        said = await reader.read()
    writer.close()
    return said


@pytest.mark.parametrize("count", [1, 200])
async def test_who_came_in_time_is_served(sidecar: StartSidecar, upstream: StartUpstream, count: int) -> None:
    """Whoever the kernel has connected gets an answer, however many they are, even if nobody had seen them yet."""
    running = await sidecar(await upstream())
    clients = [knock(running, request(msgspec.json.encode(CHAT))) for _ in range(count)]

    stopping = asyncio.create_task(ends(running, 5.0))
    answers = [await said_to(client) for client in clients]
    await stopping

    assert [answer.split(b" ")[1] for answer in answers] == [b"200"] * count


async def test_who_comes_and_says_nothing_holds_nothing_up(sidecar: StartSidecar) -> None:
    """A connection without a request is waited for a moment, not for its ten seconds."""
    running = await sidecar()
    client = knock(running, b"GET /livez")
    began = asyncio.get_running_loop().time()

    await ends(running, 25.0)

    assert await said_to(client) == b""
    assert asyncio.get_running_loop().time() - began < 5


async def test_during_the_drain_delay_all_are_served_and_every_answer_is_the_last(
    sidecar: StartSidecar, upstream: StartUpstream
) -> None:
    """Known connections and new ones, until the listener closes; and then the sidecar is gone at once."""
    running = await sidecar(await upstream())
    body = request(msgspec.json.encode(CHAT))
    statuses: list[tuple[int, str | None]] = []

    async def ask_on() -> None:
        with suppress(ConnectionRefusedError):
            while True:
                got = await running.raw(body)
                statuses.append((got.status, got.headers.get("connection")))

    async with running.connect() as kept:
        assert "connection" not in (await kept.ask(body)).headers
        stopping = asyncio.create_task(ends(running, 5.0, drain_delay_s=0.3))
        await until(lambda: not running.app.sidecar.ready)
        asking = [asyncio.create_task(ask_on()) for _ in range(8)]
        assert (await kept.ask(body)).headers["connection"] == "close"
        assert await kept.closed()
        await asyncio.gather(*asking)
        await stopping

    assert len(statuses) > 20
    assert set(statuses) == {(200, "close")}


@pytest.mark.parametrize("known", [False, True], ids=["long way", "short lane"])
async def test_past_the_timeout_half_a_body_gets_a_503(
    sidecar: StartSidecar, upstream: StartUpstream, known: bool
) -> None:
    """Who is still sending when the time is over is told why nobody listens any more."""
    running = await sidecar(await upstream())
    body = request(msgspec.json.encode(CHAT))
    if known:
        assert (await running.raw(body)).status == 200
    async with running.connect() as slow:
        slow.writer.write(body[:-1])
        await until(lambda: len(running.app.sidecar.in_flight) == 1)
        stopping = asyncio.create_task(ends(running, 0.0))
        check_error(await slow.ask(b""), 503, "shutting_down")
        assert await slow.closed()
        await stopping


async def test_many_streams_at_the_end(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """L9: each open stream gets its error event, none a clean end, and the upstreams are let go of."""
    asked = await upstream(stream(*SAID[:2], then="hang", end=False))
    running = await sidecar(asked)
    clients = [asyncio.create_task(running.post(STREAM)) for _ in range(60)]
    await until(lambda: len(asked.requests) == 60)

    await ends(running, 0.2)

    for got in await asyncio.gather(*clients):
        assert got.status == 200
        assert msgspec.json.decode(got.events[-1])["error"]["code"] == "shutting_down"
    await asyncio.wait_for(asked.idle.wait(), 1)
