"""AWS Signature Version 4 for one POST without a query. No clock: the time is an argument.

Signed are the host, the time, a session's token and the body: what decides who asks whom for what. The path is encoded
once more than it is sent, as all services but S3 want it.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import re
from datetime import UTC, datetime
from hashlib import sha256
from hmac import digest
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_REGION: Final = re.compile(r"(?:^|\.)bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")
# An address that names no region, a gateway of one's own, gets the one that AWS itself falls back to.
_ANY_REGION: Final = "us-east-1"
_PORTS: Final = {"https": 443, "http": 80}


class Credentials(NamedTuple):
    """An access key with its secret; `session` is the token of temporary ones, "" for others."""

    access: str
    secret: str
    session: str = ""


def credentials_in(key: str | None) -> Credentials | None:
    """Return the credentials in "ACCESS:SECRET" or "ACCESS:SECRET:SESSION"; None for an API key, which has no colon."""
    if key is None or ":" not in key:
        return None
    return Credentials(*key.split(":", 2))


def region_of(url: str) -> str:
    """Return the region that the host of `url` names."""
    found = _REGION.search(urlsplit(url).hostname or "")
    return found.group(1) if found is not None else _ANY_REGION


def signed(url: str, body: bytes, who: Credentials, now: float, *, region: str, service: str) -> dict[str, str]:
    """Return the headers that sign a POST of `body` to `url`. `now` is Unix seconds."""
    parts = urlsplit(url)
    time = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    host = parts.hostname or ""
    if parts.port is not None and parts.port != _PORTS.get(parts.scheme):
        host = f"{host}:{parts.port}"
    headers = {"host": host, "x-amz-date": time}
    if who.session:
        headers["x-amz-security-token"] = who.session
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    path = quote(parts.path or "/", safe="/-_.~")
    asked = f"POST\n{path}\n\n{lines}\n{names}\n{sha256(body).hexdigest()}"
    scope = f"{time[:8]}/{region}/{service}/aws4_request"
    text = f"{_ALGORITHM}\n{time}\n{scope}\n{sha256(asked.encode()).hexdigest()}"
    key = b"AWS4" + who.secret.encode()
    for word in (*scope.split("/"), text):
        key = digest(key, word.encode(), "sha256")
    del headers["host"]
    proof = f"{_ALGORITHM} Credential={who.access}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    return {**headers, "Authorization": proof}
