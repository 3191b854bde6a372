"""Where a provider's key comes from. The only place that reads a secret; nothing here ever prints one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec
from yarl import URL

from proxy.config import Problem
from proxy.oauth import Token
from proxy.policy import ProviderRow

_SCHEMES: Final = ("http://", "https://")
_NO_ADDRESS: Final = "is no address of the form http://HOST or https://HOST"
# Headers that carry a key wherever they are used.
_SECRET_HEADERS: Final = frozenset({"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key"})


class Access(NamedTuple):
    """How to reach a provider. `off` says why it cannot be used, None when it can; `source` names where keys are."""

    base_url: str
    keys: tuple[str, ...]
    source: str
    off: str | None


def access(row: ProviderRow, environ: Mapping[str, str]) -> Access:
    """Return address and keys of `row`; a provider without its key or address is off, and says what it wants."""
    base_url = row.base_url
    if base_url.startswith("env:"):
        base_url = environ.get(base_url[4:], "").strip()
        if not base_url:
            return Access("", (), "", f"set {row.base_url[4:]} to use it")
        if not _address(base_url):
            return Access("", (), "", f"{row.base_url[4:]} {_NO_ADDRESS}")
    base_url = base_url.rstrip("/")
    if not row.api_key and row.login is None:
        return Access(base_url, (), "no key needed", None)
    found, missing, unread = _look(row, environ)
    if not found:
        why = [f"{' or '.join(missing)} to use it"] if missing else []
        return Access(base_url, (), "", "; ".join([*why, *(f"{name} cannot be read" for name in unread)]))
    source = ", ".join(found)
    if not all(key.isascii() and key.isprintable() for key in found.values()):
        return Access(base_url, (), "", f"the key in {source.replace(', ', ' or ')} is not one line of plain text")
    return Access(base_url, tuple(found.values()), source, None)


def _look(row: ProviderRow, environ: Mapping[str, str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Return the keys of `row` by where they are, what to do about those that are missing, and who cannot be read."""
    found, missing, unread = dict[str, str](), list[str](), list[str]()
    for place in [row.api_key] if isinstance(row.api_key, str) else row.api_key or []:
        name, key = place.partition(":")[2], _read(place, environ)
        if key:
            found[name] = key
        else:
            (unread if key is None else missing).append(name)
    wanted = [f"set {' or '.join(missing)}"] if missing else []
    if row.login is not None and not found:
        token = logged_in(row.name, environ)
        if token is not None:
            return {"llm-sidecar login": token.access_token}, [], []
        wanted.append(f"run `llm-sidecar login {row.name}`")
    return found, wanted, unread


def login_file(provider: str, environ: Mapping[str, str]) -> Path:
    """Return where the login at `provider` is kept. Raises LookupError without a home directory."""
    home = environ.get("XDG_CONFIG_HOME") or (environ["HOME"] + "/.config" if environ.get("HOME") else "")
    if not home:
        raise LookupError("set HOME or XDG_CONFIG_HOME: logins are kept there")
    return Path(home, "llm-sidecar", "logins", quote(provider, safe="") + ".json")


def logged_in(provider: str, environ: Mapping[str, str]) -> Token | None:
    """Return the token of the last login at `provider`; None when there is none that can be read."""
    try:
        return msgspec.json.decode(login_file(provider, environ).read_bytes(), type=Token)
    except (LookupError, OSError, msgspec.DecodeError):
        return None


def _read(place: str, environ: Mapping[str, str]) -> str | None:
    """Return the key at `place`: "" when nothing is there, None when what is there cannot be read."""
    kind, _, where = place.partition(":")
    if kind == "env":
        return _joined(where.split(":"), environ)
    try:
        # An editor or `echo` leaves a line end; it is not part of the key.
        return Path(where).read_text().rstrip("\r\n")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError):  # no right to it, a directory, not UTF-8, a path that no file can have
        return None


def _joined(names: list[str], environ: Mapping[str, str]) -> str:
    """Return the values of variables that make one key, joined by colons; "" unless all but those with "?" are set."""
    values = [environ.get(name.removesuffix("?"), "").strip() for name in names]
    if any(not value and not name.endswith("?") for name, value in zip(names, values, strict=True)):
        return ""
    while values and not values[-1]:
        values.pop()
    return ":".join(values)


def check(row: ProviderRow) -> Problem | None:
    """Return what is wrong with the `api_key` or `base_url` of `row`, never quoting a value that may be a secret."""
    where = f"provider {row.name!r}"
    if row.api_key == []:
        return Problem("catalog.toml", where, "api_key: the list is empty; a server without keys leaves it out")
    for place in [row.api_key] if isinstance(row.api_key, str) else row.api_key or []:
        kind, _, rest = place.partition(":")
        if kind not in ("env", "file") or not rest:
            text = 'api_key: a key must not stand in a file; write "env:VARIABLE" or "file:/path"'
            return Problem("catalog.toml", where, text)
    for url in (row.login.device_url, row.login.token_url) if row.login is not None else ():
        if not _address(url):
            return Problem("catalog.toml", where, f"login: {url!r} {_NO_ADDRESS}")
    if not (_address(row.base_url) or (row.base_url[4:] and row.base_url.startswith("env:"))):
        return Problem("catalog.toml", where, f"base_url: {row.base_url!r} {_NO_ADDRESS}")
    return _headers(row, where)


def _address(url: str) -> bool:
    """Say whether requests can be sent to `url`: what the transport makes of it, before anything depends on it."""
    try:
        address = URL(url, encoded=True)
        return url.startswith(_SCHEMES) and bool(address.host and address.port)
    except ValueError:
        return False


def _headers(row: ProviderRow, where: str) -> Problem | None:
    for name, value in row.headers.items():
        if name.lower() in _SECRET_HEADERS:
            return Problem("catalog.toml", where, f"headers: a key must not stand in a file; say {name} by api_key")
        if not (name.isascii() and name.isprintable() and value.isascii() and value.isprintable()):
            return Problem("catalog.toml", where, f"headers: {name!r} is not one line of plain text")
    return None
