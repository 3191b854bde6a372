"""The table of fuzz targets. Each takes any bytes and raises only when a promise is broken."""

from collections.abc import Callable, Iterable
from functools import cache, partial
from random import Random
from typing import Final, NamedTuple

from proxy.adapter import load
from proxy.conform import recordings
from tests.contract.corpus import FIXTURES

from . import answers, asked, corpus, files, listener, streams
from .mutate import mutate


class Target(NamedTuple):
    """`check` takes an input and says whether it was let through. `brief` is how many changed inputs CI tries, in about
    a second; `more` reads inputs to begin with that are kept elsewhere.
    """

    check: Callable[[bytes], bool]
    brief: int
    more: Callable[[], Iterable[bytes]] = tuple


def _recorded(adapter: str, *, stream: bool, ok: bool = True) -> Callable[[], Iterable[bytes]]:
    """Return what reads the repository's recorded answers for an adapter."""

    def read() -> Iterable[bytes]:
        for entry in recordings.entries(FIXTURES):
            if (entry.adapter, entry.stream, entry.status < 400) == (adapter, stream, ok):
                yield recordings.read(entry).body

    return read


def _translators() -> Iterable[tuple[str, Target]]:
    """Return the targets of every adapter that translates, whichever there are; one that inherits its language is
    fuzzed as its parent.
    """
    for name in asked.TRANSLATORS:
        if type(load(name)).__base__ is not object:
            continue
        yield f"{name}_stream", Target(partial(streams.translated, name), 300, _recorded(name, stream=True))
        yield f"{name}_answer", Target(partial(answers.translated, name), 4000, _recorded(name, stream=False))


TARGETS: Final[dict[str, Target]] = {
    "request": Target(asked.request, 8000),
    "rendered": Target(asked.rendered, 6000),
    "spliced": Target(asked.spliced, 5000),
    "named": Target(asked.named, 3000),
    "events": Target(streams.events, 4000),
    "long_events": Target(streams.long_events, 12),
    "openai_stream": Target(streams.openai_stream, 600, _recorded("openai", stream=True)),
    "openai_answer": Target(answers.openai_answer, 8000, _recorded("openai", stream=False)),
    "fault": Target(answers.fault, 1200, _recorded("openai", stream=False, ok=False)),
    "waiting": Target(answers.waiting, 10000),
    "directory": Target(files.directory, 500, files.shipped_files),
    "client_bytes": Target(listener.client_bytes, 300, listener.seeds),
    **dict(_translators()),
    "bedrock_events": Target(
        streams.bedrock_events, 300, lambda: streams.bedrock_seeds(_recorded("bedrock", stream=True)())
    ),
}


@cache
def seeds(name: str) -> tuple[bytes, ...]:
    """Return the inputs to begin with: those that are kept, then what the target itself knows."""
    return (*corpus.read(name), *TARGETS[name].more())


def mutated(name: str, random: Random) -> bytes:
    """Return a new input: a seed, changed."""
    begin = seeds(name)
    return mutate(random.choice(begin), begin, random)
