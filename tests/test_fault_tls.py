"""F25: certificates that must not be believed, each by a process that trusts the authority which signed them.

`fixtures/tls` holds the certificate of that authority, and three that it signed: for 127.0.0.1, for another name, and
for 127.0.0.1 but expired. A self-signed one is beside it.
"""

import json
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

from tests.conftest import CHAT, Got, StartSidecar, catalog, request
from tests.fake_upstream import FakeUpstream, completion
from tests.served import served

HERE = Path(__file__).parent / "fixtures"
CERTIFICATES = {
    "trusted": HERE / "tls" / "trusted.pem",
    "self-signed": HERE / "self_signed.pem",
    "another name": HERE / "tls" / "wrong_name.pem",
    "expired": HERE / "tls" / "expired.pem",
}


def speaks(certificate: Path) -> ssl.SSLContext:
    """A server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_only_a_good_certificate_is_believed(sidecar: StartSidecar, tmp_path: Path) -> None:
    """Without one nothing is sent: 502, or the fallback's answer; never a connection without TLS."""
    asks = await sidecar()
    async with AsyncExitStack() as stack:
        walls = [
            await stack.enter_async_context(FakeUpstream(completion(name), tls=speaks(file)))
            for name, file in CERTIFICATES.items()
        ]
        (tmp_path / "catalog.toml").write_text(catalog(*walls))
        (tmp_path / "falls.toml").write_text('candidates = ["p3/m", "p0/m"]\nstrategy = "quality"\n')
        trust = {"SSL_CERT_FILE": str(HERE / "tls" / "ca.pem")}
        with served("--policies", str(tmp_path), **trust) as process:

            async def ask(model: str) -> Got:
                async with asks.connect(process.address) as wire:
                    return await wire.ask(request(json.dumps({**CHAT, "model": model}).encode()))

            assert (await ask("p0/m")).text == "trusted"
            for number in (1, 2, 3):
                got = await ask(f"p{number}/other")
                assert (got.status, got.error["code"]) == (502, "upstream_tls_error"), number
            # The second time the one with the bad certificate rests.
            for attempts in ("2", "1"):
                got = await ask("falls")
                assert (got.text, got.headers["x-sidecar-attempts"]) == ("trusted", attempts)
        assert [len(wall.requests) for wall in walls] == [3, 0, 0, 0]
