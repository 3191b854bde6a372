"""The small doors: models, liveness, and the admin surface (metrics, explain). Nothing here calls an upstream."""

import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

import msgspec
import orjson
from aiohttp import web

from proxy.admission import Admission
from proxy.client import send
from proxy.errors import ClientError
from proxy.gateway import Gateway, Overrides
from proxy.ledger import tag
from proxy.room import Room
from proxy.wire import decode_chat

# method -> what answers it
Doors = dict[str, Callable[[web.BaseRequest, str], Coroutine[Any, Any, web.StreamResponse]]]
# How often an SDK has sent this request before, if at all.
_RETRY: Final = re.compile(r"0*[1-9][0-9]{0,8}")
_TEXT: Final = "content-type: text/plain; version=0.0.4; charset=utf-8\r\n"


def raw_path(http: web.BaseRequest) -> str:
    """Return the path exactly as it was sent, without the query: no decoding, no dot segments, no normalising."""
    return http._message.path.partition("?")[0]


def send_json(http: web.BaseRequest, request_id: str, value: object) -> web.StreamResponse:
    """Answer with `value` as JSON."""
    return send(http, 200, f"x-request-id: {request_id}\r\n", orjson.dumps(msgspec.to_builtins(value)))


def overrides(http: web.BaseRequest, wanted: Iterable[str]) -> Overrides:
    """Return what the client says in headers, those that are `wanted` among them. Raises ClientError for a word that
    means nothing.
    """
    headers = http.headers
    return Overrides(
        headers.get("x-sidecar-policy"),
        headers.get("x-sidecar-strategy"),
        _word(headers, "x-sidecar-fallback", "on", "off") == "on",
        _patience(headers),
        _word(headers, "x-sidecar-class", "interactive", "batch") == "batch",
        _RETRY.fullmatch(headers.get("x-stainless-retry-count", "")) is not None,
        {name: headers[name] for name in wanted if name in headers},
        _word(headers, "x-sidecar-explain", "off", "on") == "on",
        tag(headers.get("x-sidecar-tag")),
    )


def _word(headers: Mapping[str, str], name: str, usual: str, other: str) -> str:
    """Return which of the two words a header says; `usual` when it is not there."""
    word = headers.get(name, usual).strip().lower()
    if word not in (usual, other):
        raise ClientError(f"{name}: {word[:40]!r} is not {usual} or {other}", param=name, code="invalid_value")
    return word


def _patience(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds the client will wait: the SDKs say so in a header. None when it did not say."""
    try:
        seconds = float(headers.get("x-stainless-read-timeout", ""))
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None


class Desk:
    """Answers about the sidecar itself."""

    def __init__(self, gateway: Gateway, admission: Admission, room: Room) -> None:
        self._gateway = gateway
        self._admission = admission
        self._room = room
        self._started = int(gateway.tools.wall())

    def models(self) -> dict[str, Doors]:
        """Return the doors to the list of models."""
        listed: Doors = {"GET": self._models}
        return {"/v1/models": listed, "/models": listed}

    def admin(self) -> dict[str, Doors]:
        """Return the doors of the admin surface."""
        return {"/metrics": {"GET": self._metrics}, "/explain": {"POST": self._explain}}

    def most(self) -> int:
        """Return how many requests may be under way in all workers."""
        return self._room.most * self._gateway.peers.workers

    async def _models(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        routes = self._gateway.generation.routes
        data = [self._model_object(name) for name in routes.names()]
        return send_json(http, request_id, {"object": "list", "data": data})

    async def model(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        name = unquote(raw_path(http).partition("/models/")[2])
        if self._gateway.generation.routes.resolve(name) is None:
            raise ClientError(
                f"the model {name[:200]!r} does not exist", status=404, param="model", code="model_not_found"
            )
        return send_json(http, request_id, self._model_object(name))

    def _model_object(self, name: str) -> dict[str, object]:
        upstream = self._gateway.generation.routes.registry.get(name)
        owner = upstream.provider.name if upstream is not None else "llm-sidecar"
        return {"id": name, "object": "model", "created": self._started, "owned_by": owner}

    async def livez(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        return send_json(http, request_id, {"status": "ok"})

    async def _explain(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        said = overrides(http, self._gateway.generation.routes.headers)
        with self._room.entered(batch=said.batch):
            request = decode_chat(await self._admission.read(http), 0)
        return send_json(http, request_id, self._gateway.explain(request, said))

    async def _metrics(self, http: web.BaseRequest, request_id: str) -> web.StreamResponse:
        now = self._gateway.tools.clock()
        upstreams = self._gateway.generation.routes.registry.list()
        resting = [({"upstream": one.label}, float(one.rest(now) is not None)) for one in upstreams]
        totals = self._gateway.totals()
        flying = [({"upstream": one.label}, float(totals.flying[one.label])) for one in upstreams]
        text = totals.metrics.text(
            {
                "sidecar_upstream_resting": ("1 while an upstream is not asked.", resting),
                "sidecar_upstream_in_flight": ("Attempts under way.", flying),
                "sidecar_in_flight": ("Client requests under way.", [({}, float(totals.visits))]),
                "sidecar_max_in_flight": ("As many as may be.", [({}, float(self.most()))]),
                "sidecar_generation": ("Policy generation.", [({}, float(self._gateway.generation.number))]),
            }
        )
        return send(http, 200, f"{_TEXT}x-request-id: {request_id}\r\n", text.encode())
