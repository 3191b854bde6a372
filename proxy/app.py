"""One running sidecar: policy files, transport, gateway and listeners, put together, watched and taken down."""

import asyncio
import errno
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp.http_parser
import msgspec

from proxy import adapter, demo
from proxy.admission import LOOPBACK, Admission, digests, is_loopback
from proxy.attempt import Tools
from proxy.config import CATALOG, Config, PolicyError, digest, load, read_files, shipped, shipped_prices
from proxy.connection import Server
from proxy.gateway import Gateway
from proxy.keys import access
from proxy.ledger import Ledger
from proxy.listener import Listener
from proxy.log import Log
from proxy.logins import Refresher
from proxy.metrics import Metrics
from proxy.peers import Alone
from proxy.policy import Policy, ProviderRow
from proxy.room import Room, most_for
from proxy.server import Sidecar
from proxy.transport import Transport

# How often the policy files are looked at, seconds. Reading six small files costs 0.2 ms.
POLL_S: Final = 1.0
# Who has connected just before the listeners close has this long to ask for something.
COMING_S: Final = 0.5
# How old the numbers may be that one worker tells of another.
PUBLISH_S: Final = 1.0
# So many providers that are off are named at the start.
_LISTED: Final = 5
# In demo mode an unchanged app keeps its model name, whatever it is; made-up names still get their 404.
_DEMO_ANSWERS: Final = ["gpt-*", "o1*", "o3*", "o4*", "chatgpt-*", "claude-*", "gemini-*", "deepseek-*", "mistral-*"]


class Options(msgspec.Struct, frozen=True):
    """What `serve` was told. `policies` None: the shipped ones. `port` 0: any free one. Seconds for drain times.

    `max_in_flight` None: as many requests at once as `room.most_for` says. `ledger` None: none is kept.
    """

    policies: Path | None = None
    host: str = "127.0.0.1"
    port: int = 4141
    admin: tuple[str, int] | None = None
    demo: bool = False
    drain_delay_s: float = 0.0
    drain_timeout_s: float = 25.0
    max_in_flight: int | None = None
    ledger: Path | None = None


class StartError(Exception):
    """The sidecar cannot start; the text says why, for a person."""


class App:
    """Start it, run it, stop it."""

    def __init__(
        self,
        options: Options,
        environ: Mapping[str, str],
        write: Callable[[bytes], object],
        peers: Alone | None = None,
    ) -> None:
        self.options = options
        self.peers = peers or Alone()
        self.environ = environ
        self.address = ""
        self.admin_address = ""
        self.demo: list[demo.DemoProvider] = []
        self._write = write
        self._keys = [key for part in environ.get("SIDECAR_API_KEYS", "").split(",") if (key := part.strip())]
        self._listeners: list[tuple[Listener, Server]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._seen = ""
        self._refused = ""
        self._reload_now = asyncio.Event()

    async def start(self) -> None:
        """Listen. Raises StartError, PolicyError."""
        options = self.options
        for host in (options.host, *(options.admin or ())[:1]):
            if not is_loopback(host) and not self._keys:
                raise StartError(f"{host} is no loopback address: set SIDECAR_API_KEYS to the keys clients send")
        config = self._load(self._files())
        loop = asyncio.get_running_loop()
        self.log = Log(self._write, loop)
        self.metrics = Metrics()
        self.peers.resume(self.metrics)
        self.ledger = self._open_ledger()
        self.tools = Tools(Transport(), self.metrics, self.log, time.monotonic, time.time, ledger=self.ledger)
        self.gateway = Gateway(self.tools, adapter.load, lambda row: access(row, self.environ), peers=self.peers)
        try:
            if options.demo or (options.policies is None and not _anything_on(config, self.environ)):
                await self._start_demo()
            self.gateway.install(self._with_demo(config))
            admin = options.admin is None and is_loopback(options.host)
            room = Room(options.max_in_flight or most_for(_open_files()), self.metrics.shed)
            self.sidecar = Sidecar(self.gateway, self._admission(options.host), room, admin=admin)
            self.peers.visits = self.sidecar.in_flight
            server = Server(self.sidecar.handle, self.sidecar.note, lane=self.sidecar.lane())
            self.address = self._listen(server, options.host, options.port)
            if options.admin is not None:
                handle = self.sidecar.admin(self._admission(options.admin[0]))
                self.admin_address = self._listen(Server(handle, self.sidecar.note), *options.admin)
        except BaseException:
            await self._take_down()
            raise
        self._tasks += [asyncio.create_task(self._watch()), asyncio.create_task(self._refresh())]
        if self.peers.workers > 1:
            self._tasks.append(asyncio.create_task(self._publish()))
        if self.ledger is not None:
            self._tasks.append(asyncio.create_task(self.ledger.keep_synced()))

    def lines(self) -> list[str]:
        """Return the start-up lines for a person."""
        registry = self.gateway.generation.routes.registry
        on: list[str] = []
        off: list[str] = []
        for name, provider in registry.providers.items():
            why = provider.access.off
            (off if why else on).append(f"{name} ({(why or provider.access.source).removesuffix(' to use it')})")
        if len(off) > _LISTED + 1:
            off[_LISTED:] = [f"{len(off) - _LISTED} more (llm-sidecar providers)"]
        policies = list(self.gateway.generation.routes.policies)
        model = (
            "demo" if self.demo else policies[0] if policies else next(iter(registry)).name if len(registry) else "?"
        )
        lines = [
            f"llm-sidecar listens on {self.address} (OpenAI base URL: {self.address}/v1)",
            f"providers on:  {', '.join(on) or 'none'}",
            f"providers off: {', '.join(off) or 'none'}",
            f"policies:      {', '.join(policies) or 'none'} ({self.options.policies or 'shipped'})",
        ]
        if self.peers.workers > 1:
            lines.append(f"workers:       {self.peers.workers}")
        if self.demo:
            lines.append("no provider key was found or --demo was given: built-in demo providers answer, on loopback")
        if aiohttp.http_parser.HttpRequestParser is aiohttp.http_parser.HttpRequestParserPy:
            lines.append("warning: aiohttp runs without its C parser: slower, and less strict about bad requests")
        key = '-H "authorization: Bearer ${SIDECAR_API_KEYS%%,*}" ' if self._keys else ""
        lines.append(
            f"try: curl {self.address}/v1/chat/completions -H 'content-type: application/json' {key}"
            f"""-d '{{"model":"{model}","messages":[{{"role":"user","content":"Hello!"}}]}}'"""
        )
        return lines

    def reload(self) -> None:
        """Look at the policy files now, changed or not (SIGHUP)."""
        self._seen = self._refused = ""
        self._reload_now.set()

    async def stop(self) -> None:
        """Drain, then take everything down. Streams still open after the drain timeout end with an error event."""
        self.sidecar.ready = False
        for _, server in self._listeners:
            server.leaving = True  # clients connect anew, and to somebody else if they can
        await asyncio.sleep(self.options.drain_delay_s)
        for listener, server in self._listeners:
            listener.close()
            server.leave()
        await self._drain()
        self.sidecar.shutting_down = True
        answering = self.sidecar.room.tasks()
        await asyncio.sleep(0)  # only a task that has begun can say what it was
        for task in [*answering, *self._tasks]:
            task.cancel()
        if answering:
            await asyncio.wait(answering, timeout=1.0)
        await self._take_down()
        self.peers.publish(self.metrics, self.gateway.flying())

    async def _drain(self) -> None:
        """Wait for what is under way, and a moment for those that came just before the door was shut."""
        now = asyncio.get_running_loop().time
        ends = now() + self.options.drain_timeout_s
        asked = min(ends, now() + COMING_S)
        while now() < asked and self._somebody_comes():  # noqa: ASYNC110  # it has no event, and is nearly always over
            await asyncio.sleep(0.01)
        while self.sidecar.in_flight and now() < ends:
            await asyncio.wait(self.sidecar.room.tasks(), timeout=ends - now())

    def _somebody_comes(self) -> bool:
        return any(listener.connecting or server.expects() for listener, server in self._listeners)

    async def _take_down(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for listener, server in self._listeners:
            listener.close()
            await server.shutdown(timeout=1.0)
        for provider in self.demo:
            await provider.stop()
        await self.tools.transport.close()
        if self.ledger is not None:
            self.ledger.close()
        self.log.flush()

    def _open_ledger(self) -> Ledger | None:
        """Return the ledger, open. Raises StartError when it cannot be."""
        directory = self.options.ledger
        if directory is None:
            return None
        lost, log = self.metrics.ledger_lost.add, self.log
        ledger = Ledger(
            directory, lost, lambda why: log("ledger_failed", time.time(), error=why), worker=self.peers.worker
        )
        try:
            ledger.open(time.time())
        except OSError as error:
            raise StartError(f"cannot write the ledger in {directory}: {error.strerror}") from error
        return ledger

    def _listen(self, server: Server, host: str, port: int) -> str:
        try:
            listener = Listener(host, port, server, shared=self.peers.workers > 1)
        except OSError as error:
            raise cannot_listen(host, port, error) from error
        self._listeners.append((listener, server))
        return listener.address

    def _admission(self, host: str) -> Admission:
        return Admission(LOOPBACK | {host} if is_loopback(host) else None, digests(self._keys))

    async def _start_demo(self) -> None:
        for profile in demo.PROFILES:
            provider = demo.DemoProvider(profile)
            await provider.start()
            self.demo.append(provider)

    def _with_demo(self, config: Config) -> Config:
        """Return `config` with the demo providers, when they run, and a policy that answers well-known names."""
        providers, models, policies = dict(config.providers), dict(config.models), dict(config.policies)
        for running in self.demo:
            profile = running.profile
            providers[profile.name] = ProviderRow(name=profile.name, base_url=running.base_url)
            model = profile.row()
            models[model.name] = model
        if self.demo and "demo" not in policies:
            names = [f"{running.profile.name}/echo" for running in self.demo]
            policies["demo"] = Policy(description="The built-in providers", candidates=names, answers=_DEMO_ANSWERS)
        return msgspec.structs.replace(config, providers=providers, models=models, policies=policies)

    async def _watch(self) -> None:
        """Reload when the files' content changes. A broken directory changes nothing and is reported once."""
        while True:
            # Not wait_for: in Python 3.11 it swallows a cancellation that comes with what it waits for.
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._reload_now.wait()
            self._reload_now.clear()
            self.check_files()
            self.gateway.reprice()

    async def _publish(self) -> None:
        """Show the other workers what was counted."""
        while True:
            self.peers.publish(self.metrics, self.gateway.flying())
            await asyncio.sleep(PUBLISH_S)

    def check_files(self) -> None:
        """Reload if the policy files have changed since they were last looked at."""
        try:
            files = self._files()
            if digest(files) == self._seen:
                self._refused = ""  # the directory is there: should it go, that is news again
                self._check_keys()
                return
            changed = self.gateway.install(self._with_demo(self._load(files)))
            self.sidecar.forget()
        except PolicyError as error:
            self._refuse(error)
            return
        self._refused = ""
        self.metrics.reloads.add(("ok",))
        self.log("reloaded", time.time(), generation=self.gateway.generation.number, changes=changed)

    def _check_keys(self) -> None:
        """Take new keys when a key's file or a login has changed."""
        generation = self.gateway.generation
        providers = generation.routes.registry.providers.items()
        changed = [name for name, one in providers if access(one.row, self.environ) != one.access]
        if changed:
            self.gateway.install(generation.config)
            self.log("keys_changed", time.time(), providers=changed)

    async def _refresh(self) -> None:
        """Keep logins fresh."""
        refresher = Refresher(self.environ, time.time, self.log)
        while True:
            await refresher.look(self.gateway.generation.config.providers.values())
            await asyncio.sleep(POLL_S)

    def _files(self) -> dict[str, bytes]:
        return read_files(self.options.policies or shipped())

    def _load(self, files: dict[str, bytes]) -> Config:
        self._seen = digest(files)
        return load(files, (shipped() / CATALOG).read_bytes(), shipped_prices())

    def _refuse(self, error: PolicyError) -> None:
        """Keep what runs, and say why: once per reason, not every second that a directory is missing."""
        if str(error) != self._refused:
            self._refused = str(error)
            self.metrics.reloads.add(("invalid",))
            self.log("reload_refused", time.time(), problems=[str(problem) for problem in error.problems])


def cannot_listen(host: str, port: int, error: OSError) -> StartError:
    """Return what to say when an address cannot be had."""
    reason = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return StartError(f"cannot listen on {host}:{port}: {reason}")


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us: two per stream."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _open_files() -> int:
    """Return how many files this process may have open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _anything_on(config: Config, environ: Mapping[str, str]) -> bool:
    return any(access(row, environ).off is None for row in config.providers.values())
