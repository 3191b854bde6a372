"""The contract of a wire language: requests become bytes, bytes become answers. No I/O, no clock, no provider state.

An adapter is a module in `adapters/` (or any importable "package.module") that ends with `ADAPTER: Final[Adapter]`.
A provider is a row in `catalog.toml` that names an adapter; `Target` is what the adapter gets to know of that row.
"""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Final, Protocol

import msgspec

from proxy.errors import InvalidRequestError, UnavailableError, UpstreamError
from proxy.sse import Decoder, Event
from proxy.wire import ChatRequest, Usage


class Target(msgspec.Struct, frozen=True):
    """Whom a request is rendered for. `max_output` is the model's own limit in tokens, None when unknown.

    `forward`: a parameter that would be left out is sent under its own name instead, where that can be done at all.
    """

    model: str
    quirks: frozenset[str] = frozenset()
    max_output: int | None = None
    provider: str = ""
    forward: bool = False

    @property
    def source(self) -> str:
        """What thinking is signed for: one model at one provider. To anybody else a signature is worthless or wrong."""
        return f"{self.provider}/{self.model}"


class Rendered(msgspec.Struct, frozen=True):
    """An upstream request: `path` is added to the provider's base URL; `dropped` are parameters left out.

    `json_lines` says that a streamed answer is JSON lines: its first byte does not make it a whole answer.
    """

    path: str
    body: bytes
    headers: Mapping[str, str]
    dropped: tuple[str, ...] = ()
    json_lines: bool = False


class Reply(msgspec.Struct, frozen=True):
    """A complete answer as the client gets it. `usage` is None when the upstream did not report any, `model` when it
    did not say which model it is.
    """

    body: bytes
    usage: Usage | None
    finish: str | None
    model: str | None = None


class StreamParser(Protocol):
    """Turns an upstream's stream into the client's, piece by piece; one object per attempt.

    `started` is False until the first event with content (text, tool call, reasoning, refusal, finish reason): nothing
    is sent to the client before. `finish` is the finish reason in OpenAI's words, `done` that the upstream has said it
    is through. `usage` is what was reported so far, `model` what the upstream calls the model by then, None if nothing.
    """

    started: bool
    finish: str | None
    done: bool
    usage: Usage | None
    model: str | None

    def feed(self, data: bytes) -> bytes:
        """Return the client's bytes for `data`, whole events only. Raises UpstreamError for an error in the stream;
        what `data` held before it is in the error's `before` (use `each`).
        """
        ...

    def close(self) -> bytes:
        """Return the client's last bytes, `[DONE]` included. Raises UnavailableError when the stream was cut short."""
        ...


class Adapter(Protocol):
    """One wire language."""

    @property
    def quirks(self) -> frozenset[str]:
        """Names of the deviations a provider row may switch on."""
        ...

    def auth(self, key: str | None) -> dict[str, str]:
        """Return the headers that carry `key`, and those every request needs."""
        ...

    def render(self, request: ChatRequest, target: Target) -> Rendered:
        """Return the upstream's request. Raises InvalidRequestError with `unsent` when the language cannot carry it."""
        ...

    def parse(self, body: bytes, request: ChatRequest, target: Target) -> Reply:
        """Return the client's answer for a 200 body. Raises UpstreamError for an error or nonsense in it."""
        ...

    def stream(self, request: ChatRequest, target: Target) -> StreamParser:
        """Return a parser for one streamed answer."""
        ...

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Return the error of a non-200 answer."""
        ...


class Signing(Protocol):
    """What an adapter may offer besides, when a key is no header but signs each request."""

    def sign(self, url: str, body: bytes, key: str | None, now: float) -> dict[str, str]:
        """Return the headers that sign a POST of `body` to `url`; none when `auth` has said it all for this `key`.

        `now` is Unix seconds. Header names that `render` or `auth` gave are replaced.
        """
        ...


Sign = Callable[[str, bytes, str | None, float], dict[str, str]]
PACKAGE: Final = "adapters"


def names() -> list[str]:
    """Return the wire languages that come with the sidecar."""
    package = import_module(PACKAGE)
    return sorted(module.name for module in iter_modules(package.__path__) if not module.name.startswith("_"))


def load(name: str) -> Adapter:
    """Return the adapter called `name`: a file in `adapters/`, or "package.module" from outside.

    Raises LookupError that lists what exists.
    """
    module_name = name if "." in name else f"{PACKAGE}.{name}"
    try:
        adapter: Adapter = import_module(module_name).ADAPTER
    except Exception as error:  # somebody else's module may raise anything, and a reload must survive it
        known = ", ".join(names())
        raise LookupError(f"no adapter {name!r} ({error}); built in: {known}") from error
    return adapter


def each(events: Iterable[Event], step: Callable[[Event], bytes]) -> bytes:
    """Return `step` of all events, joined. An error takes along, as `before`, what was whole before it."""
    done: list[bytes] = []
    try:
        done.extend(map(step, events))
    except UpstreamError as error:
        error.before = b"".join(done)
        raise
    return b"".join(done)


def not_sent(message: str, param: str | None = None) -> UpstreamError:
    """Return the error for a request that this wire language cannot carry at all."""
    from_us = InvalidRequestError(message, code="unsupported_parameter", param=param)
    from_us.unsent = True
    return from_us


def last_events(parser: StreamParser, decoder: Decoder, step: Callable[[Event], bytes]) -> bytes:
    """Return `step` of what the end of the bytes completes. Raises UpstreamError for a stream that was cut short:
    neither a finish reason nor the upstream's own goodbye was seen.
    """
    try:
        last = each(decoder.close(), step)
    except UpstreamError as error:
        if parser.finish is not None:
            return error.before  # all was said; half an event after it does not matter
        if error.code != "upstream_invalid_event":
            raise
        last = error.before  # half an event, which is no event yet
    else:
        if parser.finish is not None or parser.done:
            return last
    cut = UnavailableError("the upstream's stream was cut short", code="upstream_truncated")
    cut.before = last
    raise cut
