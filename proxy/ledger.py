"""What every attempt came to, one JSON line each, safe from crashes. Never what was said, never a key."""

import msgspec


class Entry(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One attempt at one upstream; what is at its default is left out. Requests refused before any attempt have none.

    `ts` is Unix seconds when it began; `id` the request's, `attempt` counts its attempts from 1. `model` is as asked,
    shortened; `upstream` is "provider/id"; `answered` what the upstream calls itself, if otherwise. `tag` is the
    request's `x-sidecar-tag`. `outcome` is "ok", the kind of error, or "cancelled"; `final` that it is what the client
    got. `estimate` is the input in tokens as estimated from bytes. Tokens are counted as OpenAI does: `input` includes
    `cached`, `cache_write` and `audio`, `output` includes `reasoning` and `audio_output`; `cache_write_1h` is the part
    of `cache_write` that is kept for an hour. `usd` is None when the price, or the usage, is unknown. `first_ms` is the
    first content of a stream. `prefix` are salted hashes of the prompt's blocks, where cache affinity computed them.
    """

    v: int = 1
    ts: float = 0.0
    id: str = ""
    attempt: int = 1
    policy: str = ""
    model: str = ""
    upstream: str = ""
    answered: str | None = None
    tag: str | None = None
    stream: bool = False
    needs: list[str] = []
    outcome: str = ""
    code: str | None = None
    status: int | None = None
    final: bool = False
    estimate: int = 0
    max_tokens: int | None = None
    input: int = 0
    cached: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    audio: int = 0
    audio_output: int = 0
    usd: float | None = None
    possibly_billed: bool = False
    ms: float = 0.0
    first_ms: float | None = None
    prefix: list[int] = []
