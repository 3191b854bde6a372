"""Holds the conversations of `oauth` over the network, keeps what they gave in a private file, and keeps it fresh.

A login is refreshed by one process at a time, whoever sees first that it is time: all others find the new file.
"""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from proxy import __version__
from proxy.keys import logged_in, login_file
from proxy.oauth import Answer, Ask, Conversation, LoginError, Tell, Token, Wait, refresh
from proxy.policy import ProviderRow

# How long one question may take, and how long the answer may be.
_ANSWER_S: Final = 30.0
_MAX_ANSWER: Final = 1 << 16
# A refresh that failed is tried again after so long.
AGAIN_S: Final = 60.0
_HEADERS: Final = {"Accept": "application/json", "User-Agent": f"llm-sidecar/{__version__}"}
Sleep = Callable[[float], Awaitable[None]]


async def hold(talk: Conversation, tell: Callable[[Tell], None], sleep: Sleep = asyncio.sleep) -> Token:
    """Return what `talk` comes to. Raises LoginError."""
    timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=True, headers=_HEADERS) as session:
        answer: Answer | None = None
        lost: LoginError | None = None
        while True:
            try:
                step = talk.send(answer) if lost is None else talk.throw(lost)
            except StopIteration as ended:
                token: Token = ended.value
                return token
            answer = lost = None
            if isinstance(step, Ask):
                try:
                    answer = await _asked(session, step)
                except LoginError as error:
                    lost = error
            elif isinstance(step, Wait):
                await sleep(step.seconds)
            else:
                tell(step)


async def _asked(session: aiohttp.ClientSession, ask: Ask) -> Answer:
    try:
        async with session.post(ask.url, data=ask.form, allow_redirects=False) as response:
            body = await response.content.read(_MAX_ANSWER)
            status = response.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise LoginError(f"{ask.url} cannot be reached ({error or 'too late'})", final=False) from None
    try:
        # Errors come with 400 from some servers and with 200 from GitHub: what counts is the object.
        return msgspec.json.decode(body, type=Answer)
    except msgspec.DecodeError:
        text = f"{ask.url} answered with status {status} and no JSON object"
        raise LoginError(text, final=status < 500) from None


def keep(provider: str, token: Token, environ: Mapping[str, str]) -> Path:
    """Write `token` down for this user alone, whole or not at all. Returns where. Raises OSError, LookupError."""
    file = login_file(provider, environ)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as out:
        out.write(msgspec.json.encode(token))
        out.flush()
        os.fsync(descriptor)
    new.replace(file)
    return file


class Refresher:
    """Keeps the logins of one process's providers fresh. `log` is called with an event's name and its fields."""

    def __init__(self, environ: Mapping[str, str], wall: Callable[[], float], log: Callable[..., None]) -> None:
        self._environ = environ
        self._wall = wall
        self.log = log
        self._not_before: dict[str, tuple[float, str]] = {}

    async def look(self, rows: Iterable[ProviderRow]) -> None:
        """Refresh what is about to end. Whoever serves reads the new key with the next look at the files."""
        for row in rows:
            if row.login is None:
                continue
            token = logged_in(row.name, self._environ)
            if token is not None and token.stale(self._wall()) and self._due(row.name, token):
                await self._refresh(row, token)

    def _due(self, name: str, token: Token) -> bool:
        at, refused = self._not_before.get(name, (0.0, ""))
        return self._wall() >= at if refused in ("", token.access_token) else True

    async def _refresh(self, row: ProviderRow, token: Token) -> None:
        assert row.login is not None  # noqa: S101  # nosec B101  # `look` has seen it
        try:
            with _alone(login_file(row.name, self._environ)) as free:
                if not free or logged_in(row.name, self._environ) != token:
                    return  # somebody else is at it, or was
                fresh = await hold(refresh(row.login, token, self._wall()), lambda tell: None)
                keep(row.name, fresh, self._environ)
        except (LoginError, OSError) as error:
            final = isinstance(error, LoginError) and error.final
            self._not_before[row.name] = (float("inf") if final else self._wall() + AGAIN_S, token.access_token)
            advice = f"run `llm-sidecar login {row.name}`" if final else None
            self.log("login_not_refreshed", self._wall(), provider=row.name, error=str(error), advice=advice)
        else:
            self.log("login_refreshed", self._wall(), provider=row.name)


@contextmanager
def _alone(file: Path) -> Iterator[bool]:
    """Say whether nobody else, in any process, refreshes what is in `file` meanwhile."""
    descriptor = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
