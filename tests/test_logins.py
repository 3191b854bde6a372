"""Logging in to a provider by OAuth's device login, and keeping the key fresh, against a real server on loopback."""

import asyncio
import json
import os
import signal
import stat
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pytest

from proxy.__main__ import main
from proxy.config import PolicyError
from proxy.keys import access, logged_in, login_file
from proxy.logins import AGAIN_S, Refresher, hold, keep
from proxy.oauth import EARLY_S, LoginError, Tell, Token, device_login
from proxy.policy import Login, ProviderRow
from tests.conftest import StartSidecar, StartUpstream, until
from tests.fake_upstream import FakeUpstream, Play, completion, reply

BEGUN: dict[str, Any] = {
    "device_code": "DEVICE", "user_code": "AB-12", "verification_uri": "https://x.test/device", "expires_in": 60,
    "interval": 5,
}  # fmt: skip
PENDING = {"error": "authorization_pending"}
NOW = 1_000_000.0


def said(value: Any, status: int = 200) -> Play:
    """A JSON answer."""
    return reply(json.dumps(value).encode(), status)


def login_at(server: FakeUpstream, scope: str = "read:user") -> Login:
    """How to log in at `server`."""
    return Login(client_id="APP", device_url=f"{server.url}/device", token_url=f"{server.url}/token", scope=scope)


def provider(server: FakeUpstream) -> ProviderRow:
    """A provider that has its login there."""
    return ProviderRow(name="p0", base_url="https://x.test/v1", login=login_at(server))


def form(server: FakeUpstream, number: int) -> dict[str, str]:
    """What the server was sent."""
    return dict(parse_qsl(server.requests[number].body.decode()))


class Said:
    """What a person saw, and how long the conversation waited."""

    def __init__(self) -> None:
        self.shown: list[Tell] = []
        self.waits: list[float] = []

    async def log_in(self, login: Login) -> Token:
        """Log in."""

        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        return await hold(device_login(login, "APP", NOW), self.shown.append, sleep)


async def test_a_person_logs_in(upstream: StartUpstream) -> None:
    """The code is shown once, the server is asked no faster than it wants, and the key comes with its end."""
    token = {"access_token": "KEY", "refresh_token": "AGAIN", "expires_in": 28_800, "token_type": "bearer"}
    server = await upstream(said(BEGUN), said(PENDING), said(token))
    heard = Said()

    got = await heard.log_in(login_at(server))

    assert heard.shown == [Tell("https://x.test/device", "AB-12", 60.0)]
    assert heard.waits == [6.0, 6.0]
    assert got == Token("KEY", "AGAIN", NOW + 12.0 + 28_800, "APP")
    assert [one.path for one in server.requests] == ["/v1/device", "/v1/token", "/v1/token"]
    assert form(server, 0) == {"client_id": "APP", "scope": "read:user"}
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    assert form(server, 2) == {"client_id": "APP", "device_code": "DEVICE", "grant_type": grant}
    assert server.requests[0].headers["accept"] == "application/json"


async def test_without_scope_and_interval(upstream: StartUpstream) -> None:
    """Both may be left out: five seconds then, as RFC 8628 says. A key without an end has none."""
    begun = {name: value for name, value in BEGUN.items() if name != "interval"}
    server = await upstream(said(begun), said({"access_token": "KEY", "refresh_token": 7}))
    heard = Said()

    assert await heard.log_in(login_at(server, "")) == Token("KEY", client_id="APP")
    assert (heard.waits, form(server, 0)) == ([6.0], {"client_id": "APP"})


@pytest.mark.parametrize(
    ("complaint", "waits"),
    [
        (said({"error": "slow_down"}), [6.0, 12.0]),
        (said({"error": "slow_down", "interval": 30}), [6.0, 36.0]),
        (reply(b"<html>", 502), [6.0, 12.0]),
        (Play((), then="reset"), [6.0, 12.0]),
    ],
    ids=["slow down", "slow down to 30 s", "502", "no answer"],
)
async def test_a_server_that_complains_is_asked_less_often(
    upstream: StartUpstream, complaint: Play, waits: list[float]
) -> None:
    """A lost answer is no reason to make a person begin anew."""
    server = await upstream(said(BEGUN), complaint, said({"access_token": "KEY"}))
    heard = Said()

    assert (await heard.log_in(login_at(server))).access_token == "KEY"
    assert heard.waits == waits


@pytest.mark.parametrize(
    ("plays", "text"),
    [
        ([said({"error": "unauthorized_client"}, 400)], "unauthorized_client"),
        ([said(BEGUN), said({"error": "access_denied", "error_description": "no"})], "access_denied: no"),
        ([said(BEGUN), *[said(PENDING)] * 20], "the code was not entered in time"),
        ([said({**BEGUN, "user_code": "A\u001b[2J"})], "the server's answer has no usable 'user_code'"),
        ([said({**BEGUN, "device_code": ""})], "the server's answer has no usable 'device_code'"),
        ([said(BEGUN), said({"access_token": "two\nlines"})], "the server's answer has no usable 'access_token'"),
        ([said([1])], "answered with status 200 and no JSON object"),
        ([said(BEGUN), reply(b"gone", 404)], "answered with status 404 and no JSON object"),
    ],
    ids=["app", "denied", "late", "escape", "no code", "bad key", "list", "404"],
)
async def test_no_login(upstream: StartUpstream, plays: list[Play], text: str) -> None:
    """The person is told why, in one line, and what a server says never reaches the terminal or a header unchecked."""
    server = await upstream(*plays)

    with pytest.raises(LoginError) as refused:
        await Said().log_in(login_at(server))

    assert str(refused.value).endswith(text)


# ---- the file ----------------------------------------------------------------------------------------------------


def test_a_login_is_private_and_serves_where_no_key_is_set(tmp_path: Path) -> None:
    """Nobody else can read it; a variable goes first; a broken file is none."""
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    row = ProviderRow(
        name="a b/c",
        base_url="https://x.test",
        api_key="env:KEY",
        login=Login(client_id="x", device_url="http://d", token_url="http://t"),
    )
    assert access(row, environ).off == "set KEY or run `llm-sidecar login a b/c` to use it"

    file = keep(row.name, Token("SECRET"), environ)

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [one.name for one in file.parent.iterdir()] == ["a%20b%2Fc.json"]
    found = access(row, environ)
    assert (found.keys, found.source, found.off) == (("SECRET",), "llm-sidecar login", None)
    assert access(row, {**environ, "KEY": "own"}).keys == ("own",)
    file.write_bytes(b"{")
    assert access(row, environ).keys == ()


@pytest.mark.parametrize(
    ("environ", "there"), [({"HOME": "/h"}, "/h/.config"), ({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x")]
)
def test_where_logins_are(environ: dict[str, str], there: str) -> None:
    """In the user's own configuration; without a home there is no login, which is said when one is to be kept."""
    assert str(login_file("p", environ)) == f"{there}/llm-sidecar/logins/p.json"
    assert logged_in("p", {}) is None
    with pytest.raises(LookupError, match="set HOME or XDG_CONFIG_HOME"):
        keep("p", Token("x"), {})


# ---- refresh -----------------------------------------------------------------------------------------------------

OLD = Token("OLD", "AGAIN", NOW + 1000.0, "APP")


class Kept:
    """One process's refresher, its clock and its log."""

    def __init__(self, home: Path, token: Token = OLD) -> None:
        self.environ = {"XDG_CONFIG_HOME": str(home)}
        self.now = NOW
        self.log: list[dict[str, Any]] = []
        keep("p0", token, self.environ)
        self.refresher = Refresher(self.environ, lambda: self.now, self._line)

    def _line(self, event: str, ts: float, **fields: Any) -> None:
        self.log.append({"event": event, **{name: value for name, value in fields.items() if value is not None}})

    @property
    def token(self) -> Token | None:
        """What is on disk."""
        return logged_in("p0", self.environ)


async def test_a_key_is_refreshed_before_its_end(upstream: StartUpstream, tmp_path: Path) -> None:
    """Five minutes before it, not earlier; a server that names no new refresh token lets the old one live."""
    server = await upstream(said({"access_token": "NEW", "expires_in": 3600}))
    kept, row = Kept(tmp_path), provider(server)
    kept.now = NOW + 1000.0 - EARLY_S
    await kept.refresher.look([row, ProviderRow(name="p1", base_url="https://x.test")])
    assert server.requests == []

    kept.now += 1.0
    await kept.refresher.look([row])

    assert kept.token == Token("NEW", "AGAIN", kept.now + 3600, "APP")
    assert form(server, 0) == {"client_id": "APP", "grant_type": "refresh_token", "refresh_token": "AGAIN"}
    assert kept.log == [{"event": "login_refreshed", "provider": "p0"}]


async def test_one_refresh_for_all_processes(upstream: StartUpstream, tmp_path: Path) -> None:
    """Ten that see the end at once: one asks, the others find the new key. A refresh token is good for one use."""
    server = await upstream(said({"access_token": "NEW", "expires_in": 3600}))
    many = [Kept(tmp_path) for _ in range(10)]
    for kept in many:
        kept.now = NOW + 999.0

    await asyncio.gather(*(kept.refresher.look([provider(server)]) for kept in many))

    assert len(server.requests) == 1
    assert [kept.token.access_token for kept in many if kept.token is not None] == ["NEW"] * 10


async def test_a_login_without_an_end_is_left_alone(upstream: StartUpstream, tmp_path: Path) -> None:
    """So are GitHub's OAuth apps' keys, and one that cannot be refreshed."""
    server = await upstream()
    for token in (Token("A"), Token("A", "B"), Token("A", None, 5.0)):
        await Kept(tmp_path, token).refresher.look([provider(server)])
    assert server.requests == []


async def test_a_refresh_that_fails_is_tried_again_in_a_minute(upstream: StartUpstream, tmp_path: Path) -> None:
    """The old key stays meanwhile, and the log says why."""
    server = await upstream(reply(b"", 503), said({"access_token": "NEW"}))
    kept, row = Kept(tmp_path), provider(server)
    kept.now = NOW + 999.0
    await kept.refresher.look([row])
    await kept.refresher.look([row])
    assert (len(server.requests), kept.token) == (1, OLD)
    assert kept.log[0]["error"].endswith("answered with status 503 and no JSON object")

    kept.now += AGAIN_S
    await kept.refresher.look([row])

    assert kept.token == Token("NEW", "AGAIN", None, "APP")


async def test_a_refused_refresh_asks_for_a_person(upstream: StartUpstream, tmp_path: Path) -> None:
    """It is not tried again with the same login, and is with a new one; no key is in the log."""
    server = await upstream(said({"error": "bad_refresh_token"}), said({"access_token": "NEW"}))
    kept, row = Kept(tmp_path), provider(server)
    kept.now = NOW + 999.0
    await kept.refresher.look([row])
    kept.now += 1e6
    await kept.refresher.look([row])
    assert len(server.requests) == 1
    advice = "run `llm-sidecar login p0`"
    assert kept.log == [
        {"event": "login_not_refreshed", "provider": "p0", "error": "bad_refresh_token", "advice": advice}
    ]

    keep("p0", Token("OTHER", "B", NOW, "APP"), kept.environ)
    await kept.refresher.look([row])
    assert len(server.requests) == 2


# ---- the verb, and a running sidecar -------------------------------------------------------------------------------


def directory_with(server: FakeUpstream, home: Path, client_id: str = "env:APP_ID") -> Path:
    """Policy files whose one provider has its login at `server`."""
    directory = home / "policies"
    directory.mkdir()
    (directory / "catalog.toml").write_text(
        f'[[provider]]\nname = "p0"\nbase_url = "{server.url}"\n[provider.login]\nclient_id = "{client_id}"\n'
        f'device_url = "{server.url}/device"\ntoken_url = "{server.url}/token"\n'
        '[[provider]]\nname = "p1"\nbase_url = "http://127.0.0.1:9"\n'
    )
    return directory


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of our own, without an app."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("APP_ID", raising=False)
    return tmp_path


Out = pytest.CaptureFixture[str]


async def test_the_verb_logs_in(upstream: StartUpstream, home: Path, capsys: Out) -> None:
    """The code, where to enter it, and where the key is; never the key."""
    server = await upstream(said({**BEGUN, "interval": 0.001}), said({"access_token": "CANARY"}))
    argv = ["login", "p0", "--client-id", "APP", "--policies", str(directory_with(server, home))]

    assert await asyncio.to_thread(main, argv) == 0

    out = capsys.readouterr().out.splitlines()
    assert out[0] == "open https://x.test/device and enter AB-12 (good for 1 minutes)"
    assert out[1].startswith(f"logged in at p0; the key is in {home}/llm-sidecar/logins/p0.json")
    assert "CANARY" not in "".join(out)
    assert logged_in("p0", os.environ) == Token("CANARY", client_id="APP")


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["p0"], 2, "give the client id of your OAuth app by --client-id or APP_ID"),
        (["p1"], 2, "provider 'p1' has no login; one can log in to: p0"),
        (["p2"], 2, "provider 'p2' is not in the catalog; known: p0, p1; one can log in to: p0"),
        (["p0", "--client-id", "APP"], 1, "no login at p0: access_denied"),
    ],
    ids=["no app", "no login", "no provider", "denied"],
)
async def test_the_verb_refuses(
    upstream: StartUpstream, home: Path, capsys: Out, argv: list[str], code: int, text: str
) -> None:
    """One line says what is missing or what the server said."""
    directory = directory_with(await upstream(said({"error": "access_denied"})), home)

    assert await asyncio.to_thread(main, ["login", *argv, "--policies", str(directory)]) == code
    assert capsys.readouterr().err == f"llm-sidecar: {text}\n"


async def test_a_person_gives_up(upstream: StartUpstream, home: Path) -> None:
    """Ctrl-C ends it in one line; nothing is kept."""
    directory = directory_with(await upstream(said(BEGUN)), home)
    argv = ["-m", "proxy", "login", "p0", "--client-id", "APP", "--policies", str(directory)]
    process = await asyncio.create_subprocess_exec(sys.executable, *argv, stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None
    assert (await process.stdout.readline()).startswith(b"open ")

    process.send_signal(signal.SIGINT)

    _, err = await process.communicate()
    assert (process.returncode, err) == (1, b"llm-sidecar: given up\n")
    assert logged_in("p0", os.environ) is None


async def test_a_client_id_may_stand_in_the_catalog(
    upstream: StartUpstream, home: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is public; or in the variable that the catalog names."""
    server = await upstream(said({"error": "no"}))
    directory = directory_with(server, home, "PUBLIC")
    assert await asyncio.to_thread(main, ["login", "p0", "--policies", str(directory)]) == 1
    file = directory / "catalog.toml"
    file.write_text(file.read_text().replace("PUBLIC", "env:APP_ID"))
    monkeypatch.setenv("APP_ID", " FROM ENV ")
    assert await asyncio.to_thread(main, ["login", "p0", "--policies", str(directory)]) == 1

    assert [form(server, number)["client_id"] for number in (0, 1)] == ["PUBLIC", "FROM ENV"]


async def test_a_login_reaches_a_running_sidecar(
    upstream: StartUpstream, sidecar: StartSidecar, tmp_path: Path
) -> None:
    """The provider is off before, on after, and has the new key when the login was refreshed."""
    server = await upstream(completion("hi"))
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "home")}
    login = msgspec.to_builtins(login_at(server))
    running = await sidecar(server, provider={"login": login}, environ=environ)
    assert (await running.post()).status == 503

    for key in ("ONE", "TWO"):
        keep("p0", Token(key), environ)
        running.app.check_files()
        assert (await running.post()).text == "hi"
        assert server.requests[-1].headers["authorization"] == f"Bearer {key}"

    assert running.log("keys_changed") == [{**one, "providers": ["p0"]} for one in running.log("keys_changed")]
    running.app.check_files()
    assert len(running.log("keys_changed")) == 2


async def test_a_running_sidecar_refreshes(upstream: StartUpstream, sidecar: StartSidecar, tmp_path: Path) -> None:
    """By itself, as it starts."""
    server = await upstream(said({"access_token": "NEW", "expires_in": 9000}))
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "home")}
    keep("p0", Token("OLD", "AGAIN", 5.0, "APP"), environ)

    running = await sidecar(server, provider={"login": msgspec.to_builtins(login_at(server))}, environ=environ)

    await until(lambda: bool(running.log("login_refreshed")))
    running.app.check_files()
    assert running.app.gateway.generation.routes.registry.providers["p0"].access.keys == ("NEW",)


async def test_a_login_by_no_address_is_refused(sidecar: StartSidecar) -> None:
    """With the row and the key that is wrong."""
    login = {"client_id": "x", "device_url": "ftp://x", "token_url": "https://x"}
    with pytest.raises(
        PolicyError, match=r"provider 'p0': login: 'ftp://x' is no address of the form http://HOST or https://HOST"
    ):
        await sidecar(provider={"login": login})
