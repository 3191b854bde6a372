"""`llm-sidecar login PROVIDER`: get a key by logging in, for providers that offer OAuth's device login."""

import argparse
import asyncio
import os
import time

from proxy.config import load_directory, nearest
from proxy.log import tell
from proxy.logins import hold, keep
from proxy.oauth import LoginError, Tell, device_login
from proxy.policy import Login, ProviderRow


def run(args: argparse.Namespace) -> int:
    """Log in and keep the key; returns 1 when that fails, 2 for bad arguments. Raises PolicyError."""
    providers = load_directory(args.policies).providers
    row = providers.get(args.provider)
    if row is None or row.login is None:
        able = [name for name, one in providers.items() if one.login is not None]
        what = "has no login" if row is not None else f"is not in the catalog{nearest(args.provider, providers)}"
        tell(f"llm-sidecar: provider {args.provider!r} {what}; one can log in to: {', '.join(able) or 'none'}")
        return 2
    client_id = args.client_id or _client_id(row.login)
    if not client_id:
        variable = row.login.client_id.removeprefix("env:")
        tell(f"llm-sidecar: give the client id of your OAuth app by --client-id or {variable}")
        return 2
    try:
        return asyncio.run(_login(row, row.login, client_id))
    except (LoginError, LookupError, OSError) as error:
        tell(f"llm-sidecar: no login at {row.name}: {error}")
    except KeyboardInterrupt:
        tell("llm-sidecar: given up")
    return 1


def _client_id(login: Login) -> str:
    kind, _, name = login.client_id.partition(":")
    return os.environ.get(name, "").strip() if kind == "env" else login.client_id


async def _login(row: ProviderRow, login: Login, client_id: str) -> int:
    token = await hold(device_login(login, client_id, time.time()), _show)
    file = keep(row.name, token, os.environ)
    print(f"logged in at {row.name}; the key is in {file}, and a running sidecar takes it within a second")
    return 0


def _show(told: Tell) -> None:
    print(f"open {told.address} and enter {told.code} (good for {told.seconds / 60:.0f} minutes)", flush=True)
