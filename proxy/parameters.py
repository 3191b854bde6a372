"""What becomes of a parameter that an upstream cannot take: it is left out, refused, or sent all the same.

The policy says which. What a model does not take is listed in its catalog row and cut out of the client's bytes, every
other byte as it was; what its language has no word for, the adapter knows.
"""

import msgspec

from proxy import splice
from proxy.adapter import Rendered, not_sent
from proxy.errors import UpstreamError
from proxy.policy import Unsupported
from proxy.upstream import Upstream
from proxy.wire import ChatRequest


def render(request: ChatRequest, upstream: Upstream, mode: Unsupported) -> Rendered:
    """Return the request for `upstream`. Raises InvalidRequestError with `unsent` when its language cannot carry it, or
    when `mode` is "reject" and a parameter would be left out.
    """
    adapter, target = upstream.provider.adapter, upstream.target
    if mode == "forward":
        return adapter.render(request, msgspec.structs.replace(target, forward=True))
    cut: tuple[str, ...] = ()
    if upstream.row.unsupported:
        request, cut = _without(request, upstream.row.unsupported)
    rendered = adapter.render(request, target)
    dropped = (*cut, *rendered.dropped)
    if dropped and mode == "reject":
        raise not_sent(f"{upstream.name} does not take {', '.join(map(repr, dropped))}", dropped[0])
    return msgspec.structs.replace(rendered, dropped=dropped) if cut else rendered


def refusal(request: ChatRequest, upstream: Upstream, mode: Unsupported) -> str | None:
    """Return why `upstream` cannot be sent `request` at all; None when it can."""
    try:
        render(request, upstream, mode)
    except UpstreamError as error:
        return error.message
    return None


def _without(request: ChatRequest, names: list[str]) -> tuple[ChatRequest, tuple[str, ...]]:
    """Return the request without these parameters, and which of them said anything."""
    body, cut = request.raw, []
    for name in names:
        member = splice.find(body, name.encode())
        if member is None:
            continue
        if body[member.value : member.end] != b"null":
            cut.append(name)
        body = splice.remove(body, name.encode())
    if body is request.raw:
        return request, ()
    return msgspec.structs.replace(request, raw=body, model_at=splice.only(body, b"model")), tuple(cut)
