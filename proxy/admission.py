"""Who may knock, and with what: Host, Origin, key, content type, size. Judged before a body is decoded.

A browser page must not reach a sidecar on localhost (DNS rebinding, cross-site requests), so Host and Origin are
checked although nobody but the app should ever connect.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Final

import msgspec
from aiohttp import web

from proxy.errors import ClientError
from proxy.lane import BODY_S, late_body

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
MAX_BODY: Final = 32 << 20
# Not less strict than the app that reads the same header: `127.0.0.1:80@evil.example` is at evil.example.
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/@?#\\\s]+)(?::[0-9]*)?")


class Admission(msgspec.Struct, frozen=True):
    """`hosts` None: any Host (the address is not loopback, and keys are asked for). `digests` empty: no key needed.

    `max_body` is in bytes; `body_s` is how long a whole body may take.
    """

    hosts: frozenset[str] | None
    digests: tuple[bytes, ...] = ()
    max_body: int = MAX_BODY
    body_s: float = BODY_S

    def check_caller(self, headers: Mapping[str, str]) -> None:
        """Raise ClientError 403 for a foreign Host or Origin."""
        if self.hosts is not None and _name(headers.get("Host", "")) not in self.hosts:
            raise ClientError("this Host is not served here", status=403, code="forbidden_host")
        origin = headers.get("Origin")
        if origin is not None and _name(origin.partition("://")[2]) not in LOOPBACK:
            raise ClientError("requests from other sites are refused", status=403, code="forbidden_origin")
        if headers.get("Sec-Fetch-Site") == "cross-site":
            raise ClientError("requests from other sites are refused", status=403, code="forbidden_origin")

    def check_key(self, headers: Mapping[str, str]) -> None:
        """Raise ClientError 401 unless one of the sidecar's own keys was sent. No key known: anybody may."""
        if not self.digests:
            return
        kind, _, key = headers.get("Authorization", "").partition(" ")
        given = sha256(key.strip().encode(errors="surrogateescape")).digest() if kind.lower() == "bearer" else b""
        # Every key is compared, each in constant time: how long it takes says nothing.
        if not sum(compare_digest(given, digest) for digest in self.digests):
            raise ClientError("the API key of the sidecar is missing or wrong", status=401, code="invalid_api_key")

    async def read(self, request: web.BaseRequest) -> bytes:
        """Return the body. Raises ClientError: 415 not JSON or compressed, 413 too long, 408 too slow."""
        headers = request.headers
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            text = f"content type {kind[:80]!r} is not application/json" if kind else "the content type is missing"
            raise ClientError(text, status=415, code="unsupported_media_type")
        if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise ClientError("compressed bodies are not accepted", status=415, code="unsupported_media_type")
        announced = request.content_length
        if announced is not None and announced > self.max_body:
            raise self._too_long()
        if headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.content.is_eof():
            return request.content.read_nowait()
        try:
            async with asyncio.timeout(self.body_s):
                return await self._read(request)
        except TimeoutError:
            raise late_body(self.body_s) from None
        except web.RequestPayloadError:
            raise ClientError("the body is not framed as HTTP says") from None

    async def _read(self, request: web.BaseRequest) -> bytes:
        parts, size = [], 0
        while part := await request.content.readany():
            parts.append(part)
            size += len(part)
            if size > self.max_body:
                raise self._too_long()
        return b"".join(parts)

    def _too_long(self) -> ClientError:
        text = f"the body is over the limit of {self.max_body} bytes"
        return ClientError(text, status=413, code="request_too_large")


def digests(keys: Iterable[str]) -> tuple[bytes, ...]:
    """Return what is kept of the sidecar's own keys."""
    return tuple(sha256(key.encode()).digest() for key in keys)


def is_loopback(host: str) -> bool:
    """Say whether an address to bind is reachable from this machine only."""
    return host in LOOPBACK or host.startswith("127.")


def _name(host: str) -> str:
    """Return `host` without its port; "" when it is more than a name and a port, which no browser sends."""
    found = _HOST.fullmatch(host)
    return found[1].lower() if found is not None else ""
