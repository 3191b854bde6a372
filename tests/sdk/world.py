"""A sidecar with all that the clients in this folder ask for: the demo providers, and five that behave worse."""

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from proxy.app import App, Options
from proxy.demo import DemoProvider, Profile
from tests.fake_upstream import FakeUpstream, completion, error

KEY: Final = "the-sidecars-own-key"
# Each is a model of its own at the provider `flaky`: one that rests after its fault leaves the others alone.
_FAULTS: Final = (
    *("400", "400-context", "401", "404", "429", "429-quota", "500", "503", "html", "hang"),
    *("stall-after-3", "error-after-3", "cut-after-3", "garbage-after-3"),
)
_POLICIES: Final = {
    "doomed.toml": 'candidates = ["first/m", "second/m"]\n',
    "healing.toml": 'candidates = ["healing/m"]\n',
    "impatient.toml": 'candidates = ["silent/m"]\ntimeouts = { first_event = 0.2, answer = 0.2 }\n',
}


class World:
    """`base_url` is the sidecar's; `doomed` are the two providers of the policy of that name, which always fail."""

    def __init__(self, base_url: str, doomed: tuple[DemoProvider, DemoProvider]) -> None:
        self.base_url = base_url
        self.doomed = doomed


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Run it all."""
    async with AsyncExitStack() as stack:
        first, second = DemoProvider(Profile("first", fault="500")), DemoProvider(Profile("second", fault="500"))
        silent, flaky = DemoProvider(Profile("silent", fault="hang")), DemoProvider(Profile("flaky"))
        for provider in (first, second, silent, flaky):
            await provider.start()
            stack.push_async_callback(provider.stop)
        healing = await stack.enter_async_context(
            FakeUpstream(error(429, "rate_limit_exceeded", retry_after="1"), completion("healed"))
        )
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, text in _POLICIES.items():
            (directory / name).write_text(text)
        rows = [_provider(provider.profile.name, provider.base_url, "m") for provider in (first, second, silent)]
        rows.append(_provider("healing", healing.url, "m"))
        rows.append(_provider("flaky", flaky.base_url, *(f"fault/{fault}" for fault in _FAULTS)))
        (directory / "catalog.toml").write_text("\n".join(rows))
        options = Options(policies=directory, port=0, demo=True, drain_timeout_s=1.0)
        app = App(options, {"SIDECAR_API_KEYS": KEY}, sys.stdout.buffer.write)
        await app.start()
        stack.push_async_callback(app.stop)
        yield World(f"{app.address}/v1", (first, second))


def _provider(name: str, base_url: str, *models: str) -> str:
    """Return the rows of one provider in a catalog."""
    offers = "".join(f'[[model]]\nprovider = "{name}"\nid = "{model}"\n' for model in models)
    return f'[[provider]]\nname = "{name}"\nbase_url = "{base_url}"\n{offers}'
