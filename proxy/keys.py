"""Where a provider's key comes from. The only place that reads a secret; nothing here ever prints one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from proxy.config import Problem
from proxy.policy import ProviderRow

_SCHEMES: Final = ("http://", "https://")
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
        if not base_url.startswith(_SCHEMES):
            return Access("", (), "", f"{row.base_url[4:]} does not start with http:// or https://")
    base_url = base_url.rstrip("/")
    if not row.api_key:
        return Access(base_url, (), "no key needed", None)
    wanted = [row.api_key] if isinstance(row.api_key, str) else row.api_key
    found, used = list[str](), list[str]()
    missing, unread = list[str](), list[str]()
    for place in wanted:
        name, key = place.partition(":")[2], _read(place, environ)
        if key:
            found.append(key)
            used.append(name)
        else:
            (unread if key is None else missing).append(name)
    if not found:
        why = [f"set {' or '.join(missing)} to use it"] if missing else []
        return Access(base_url, (), "", "; ".join([*why, *(f"{name} cannot be read" for name in unread)]))
    if not all(key.isascii() and key.isprintable() for key in found):
        return Access(base_url, (), "", f"the key in {' or '.join(used)} is not one line of plain text")
    return Access(base_url, tuple(found), ", ".join(used), None)


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
    for name, value in row.headers.items():
        if name.lower() in _SECRET_HEADERS:
            return Problem("catalog.toml", where, f"headers: a key must not stand in a file; say {name} by api_key")
        if not (name.isascii() and name.isprintable() and value.isascii() and value.isprintable()):
            return Problem("catalog.toml", where, f"headers: {name!r} is not one line of plain text")
    if not row.base_url.startswith((*_SCHEMES, "env:")) or row.base_url == "env:":
        return Problem("catalog.toml", where, f"base_url: {row.base_url!r} does not start with http:// or https://")
    return None
