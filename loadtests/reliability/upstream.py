"""A provider on loopback that does what each request's script says, and keeps a journal: `python -m` this file.

It prints its port. `/NAME/v1/...` is the provider NAME; `/control/...` tells the journal, and turns a provider off.
Raw asyncio, so that it can do what no HTTP library would.
"""

import asyncio
import re
import time
from collections import Counter, defaultdict
from typing import Final, NamedTuple, cast

import msgspec
import uvloop

from loadtests.reliability.script import DONE, DamagedError, Script
from proxy.listener import Listener

_JSON: Final = "application/json"


class Journal:
    """What has happened since the start."""

    def __init__(self) -> None:
        self.open = 0
        self.most_open = 0
        self.attempts = Counter[str]()
        self.good = Counter[str]()
        self.played = Counter[str]()
        self.damaged = 0
        self.times: dict[str, list[float]] = defaultdict(list)
        self.dark: set[str] = set()
        self.sound: set[str] = set()

    def summary(self) -> bytes:
        """Return it as JSON, without the nonces."""
        return msgspec.json.encode(
            {
                "open": self.open,
                "most_open": self.most_open,
                "attempts": self.attempts.total(),
                "nonces": len(self.attempts),
                "most_attempts": max(self.attempts.values(), default=0),
                "answered_twice": sum(times > 1 for times in self.good.values()),
                "played": self.played,
                "damaged": self.damaged,
                "by_provider": {name: len(times) for name, times in self.times.items()},
            }
        )


def _answer(status: int, body: bytes, kind: str = _JSON) -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _error(status: int) -> bytes:
    error = {"message": f"a scripted {status}", "type": "server_error", "param": None, "code": None}
    return _answer(status, msgspec.json.encode({"error": error}))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_STREAM_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LAST: Final = b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    """One connection: requests in turn, each played by a task that ends with the connection."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._data = bytearray()
        self._head = 0
        self._need = 0
        self._playing: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is being played."""
        if self._playing is not None:
            self._playing.cancel()

    def data_received(self, data: bytes) -> None:
        """Collect a request and play its answer."""
        self._data += data
        if not self._need:
            self._head = self._data.find(b"\r\n\r\n")
            if self._head < 0:
                return
            length = self._data[: self._head].lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._need = self._head + 4 + int(length or 0)
        if len(self._data) >= self._need:
            path = self._data[: self._head].split(b" ", 2)[1].decode()
            body = bytes(memoryview(self._data)[self._head + 4 :])  # copied once: it may have a megabyte
            self._need, self._data = 0, bytearray()
            self._take(path, body)

    def _take(self, path: str, body: bytes) -> None:
        _, provider, *rest = path.split("/")
        if provider == "control":
            self._transport.write(_answer(200, self._control(*rest)))
            return
        journal = self._journal
        if rest[-2:] != ["chat", "completions"]:
            self._transport.write(_error(404))
            return
        journal.times[provider].append(time.monotonic())
        if provider in journal.dark:
            self._transport.abort()
            return
        try:
            script = Script.read(body)
            model = _asked(body)
        except (DamagedError, msgspec.MsgspecError, KeyError, ValueError):
            journal.damaged += 1
            self._transport.write(_error(400))
            return
        journal.attempts[script.nonce] += 1
        journal.open += 1
        journal.most_open = max(journal.most_open, journal.open)
        if provider in journal.sound:
            script = script._replace(fault="")
        play = Play(self._transport, journal, script, model)
        self._playing = asyncio.get_running_loop().create_task(play.run())

    def _control(self, verb: str, name: str = "") -> bytes:
        journal = self._journal
        if verb == "dark":
            journal.dark.add(name)
        if verb == "light":
            journal.dark.discard(name)
        if verb == "sound":
            journal.sound.add(name)
        if verb == "times":
            return msgspec.json.encode(journal.times[name])
        return journal.summary()


class _Asked(NamedTuple):
    model: str
    usage: bool


_MODEL: Final = re.compile(rb'"model":\s*"([^"]+)"')
_USAGE: Final = re.compile(rb'"include_usage":\s*true')


def _asked(body: bytes) -> _Asked:
    """Return what the script does not say. Searched, not decoded: of a megabyte that would cost more than all else."""
    found = _MODEL.search(body)
    if found is None:
        raise DamagedError("no model")
    return _Asked(found[1].decode(), _USAGE.search(body) is not None)


class Play:
    """One answer."""

    def __init__(self, transport: asyncio.Transport, journal: Journal, script: Script, asked: _Asked) -> None:
        self._to = transport
        self._journal = journal
        self._script = script
        self._model = asked.model
        self._usage = asked.usage

    async def run(self) -> None:
        """Play it to its end, or to the client's."""
        script, journal = self._script, self._journal
        faulty = bool(script.fault) and journal.attempts[script.nonce] <= script.faulty
        try:
            if script.wait:
                await asyncio.sleep(script.wait)
            if faulty:
                journal.played[script.fault] += 1
                await self._fail(*script.fault.partition("-")[::2])
            elif script.stream:
                await self._say(script.events)
                self._finish()
            else:
                self._to.write(_answer(200, script.complete(self._model)))
            journal.good[script.nonce] += not faulty
        finally:
            journal.open -= 1

    async def _say(self, events: int) -> None:
        self._to.write(_STREAM_HEAD + _chunk(self._script.opening(self._model)))
        for number in range(events):
            if self._script.gap:
                await asyncio.sleep(self._script.gap)
            self._to.write(_chunk(self._script.event(self._model, number)))

    def _finish(self) -> None:
        rest = [self._script.finish(self._model), *([self._script.usage(self._model)] if self._usage else []), DONE]
        self._to.write(b"".join(map(_chunk, rest)) + _LAST)

    async def _fail(self, kind: str, after: str) -> None:
        """Play a fault: a status, or a kind, or a kind and the number of content events before it."""
        if kind.isdigit():
            self._to.write(_error(int(kind)))
        elif after:
            await self._break(kind, int(after))
        elif kind == "html":
            self._to.write(_answer(502, b"<html><h1>Bad Gateway</h1></html>", "text/html"))
        elif kind == "malformed":
            self._to.write(_answer(200, b'{"id":"x","choices":[{'))
        elif kind == "half":
            self._to.write(b"HTTP/1.1 200 OK\r\ncontent-")
            self._to.close()
        elif kind == "hang":
            await asyncio.Event().wait()
        elif kind == "close":
            self._to.close()
        else:
            self._to.abort()

    async def _break(self, kind: str, after: int) -> None:
        """Break off a stream; a complete answer breaks in its middle, whatever `after` says."""
        if not self._script.stream:
            whole = _answer(200, self._script.complete(self._model))
            self._to.write(whole[:-40])
            self._to.close()
            return
        await self._say(after)
        if kind == "cut":
            self._to.close()
        elif kind == "end":
            self._to.write(_LAST)
        elif kind == "stall":
            await asyncio.Event().wait()
        elif kind == "garbage":
            self._to.write(_chunk(b'data: {"choices":[{\n\n') + _LAST)
        else:
            error = b'data: {"error":{"message":"scripted","type":"server_error","param":null,"code":null}}\n\n'
            self._to.write(_chunk(error) + _LAST)


async def _serve() -> None:
    journal = Journal()
    # The sidecar's listener: uvloop's would take one connection a turn, and time out what this measures.
    listener = Listener("127.0.0.1", 0, lambda: Connection(journal))
    print(listener.address.rpartition(":")[2], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
