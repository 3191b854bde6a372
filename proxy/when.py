"""Which `[[when]]` of a policy a request fits, and the seam for a router that was learned elsewhere. Pure.

A learned router is any importable "package.module" with a function `classify(request: ChatRequest) -> str`: it names
the class of a request, by which the policy's `[[when]]` tables (`routed`) and scores go. It is asked for every request
of a policy that names it, in the event loop: it must answer in microseconds, and must not wait. What it raises counts
as no class. (Routers that were measured in public, RouteLLM's for one, embed the prompt first, which takes a model of
its own: such a one belongs behind a header, set by whoever has the time.)
"""

from collections.abc import Callable, Mapping
from importlib import import_module

from proxy.policy import When
from proxy.wire import ChatRequest

Router = Callable[[ChatRequest], str]


def load(name: str) -> Router:
    """Return the router called "package.module". Raises LookupError that says what is wrong with it."""
    try:
        router: Router = import_module(name).classify
    except Exception as error:  # somebody else's module may raise anything, and a reload must survive it
        raise LookupError(f"no router {name!r} ({error})") from error
    return router


def classify(router: Router, request: ChatRequest, fault: Callable[[Exception], None]) -> str:
    """Return what `router` calls `request`; "" when it fails, which `fault` is told."""
    try:
        return str(router(request))
    except Exception as error:  # as above, and a request that nobody classed can still be answered
        fault(error)
        return ""


def fits(when: When, tokens: int, needs: frozenset[str], headers: Mapping[str, str], routed: str) -> bool:
    """Say whether all that `when` names holds of a request."""
    return (
        (when.tokens_above is None or tokens > when.tokens_above)
        and (when.tokens_below is None or tokens < when.tokens_below)
        and needs.issuperset(when.needs)
        and (when.routed is None or when.routed == routed)
        and all(headers.get(name.lower()) == value for name, value in when.header.items())
    )


def words(when: When) -> str:
    """Return what `when` asks for, as its file says it."""
    said = [
        f"tokens_above = {when.tokens_above}" if when.tokens_above is not None else "",
        f"tokens_below = {when.tokens_below}" if when.tokens_below is not None else "",
        f"needs = [{', '.join(when.needs)}]" if when.needs else "",
        *(f"{name} = {value}" for name, value in when.header.items()),
        f"routed = {when.routed}" if when.routed is not None else "",
    ]
    return ", ".join(filter(None, said)) or "always"
