"""What a catalog and a policy file may say: the schema, as types. The files are data: no code, no templates.

`catalog.toml` holds facts (providers, models), every other `<name>.toml` is a policy: a virtual model called `<name>`.
`proxy.config` reads them. docs/policies.md is checked against these types.
"""

from typing import Annotated, Final, Literal, get_args

import msgspec

from proxy.errors import Kind

Strategy = Literal["cheapest", "fastest", "quality", "balanced"]
STRATEGIES: Final[tuple[str, ...]] = get_args(Strategy)
# What a request may need and a model may offer: `proxy.wire` reads needs from requests.
FEATURES: Final = ("tools", "vision", "json_schema", "json_object", "audio", "files", "reasoning")
# Any number that somebody may mean; TOML also knows `inf`, which would break every proportion.
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10**12)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a file; an unknown key is a mistake, not an extension."""


class Limits(_Row, frozen=True):
    """What a provider allows us, over all its models. None: no limit."""

    rpm: Count | None = None
    tpm: Count | None = None
    concurrency: Count | None = None


class Price(_Row, frozen=True):
    """USD per million tokens. `cached_input` None: cached tokens cost what others do."""

    input: NotNegative
    output: NotNegative
    cached_input: NotNegative | None = None
    cache_write: NotNegative | None = None


class Latency(_Row, frozen=True):
    """A prior for the time to an answer, in ms, until it is measured."""

    p50_ms: Positive
    p99_ms: Positive | None = None


class Login(_Row, frozen=True):
    """How `llm-sidecar login` gets a key: OAuth's device login (RFC 8628).

    `client_id` is public; "env:VARIABLE" reads it from there.
    """

    client_id: Text
    device_url: Text
    token_url: Text
    scope: str = ""


class ProviderRow(_Row, frozen=True):
    """`[[provider]]`: where one account at one provider is. `api_key` says where the key is, never what it is.

    With `login` a person can log in; that serves where no `api_key` is found.

    `on_disconnect` says what becomes of an answer whose client has left: it is broken off, or read to its end.
    """

    name: Text
    base_url: Text
    adapter: Text = "openai"
    api_key: str | list[str] | None = None
    login: Login | None = None
    limits: Limits = Limits()
    headers: dict[str, str] = {}
    quirks: list[str] = []
    on_disconnect: Literal["close", "drain"] = "close"


class ModelRow(_Row, frozen=True):
    """`[[model]]`: an upstream, one model at one provider, called "provider/id". None: unknown."""

    provider: Text
    id: Text
    quality: Annotated[float, msgspec.Meta(ge=0, le=10)] | None = None
    price: Price | None = None
    latency: Latency | None = None
    context: Count | None = None
    max_output: Count | None = None
    features: list[str] | None = None

    @property
    def name(self) -> str:
        """Return "provider/id"."""
        return f"{self.provider}/{self.id}"


class Weights(_Row, frozen=True):
    """What `balanced` weighs; only the proportions matter."""

    cost: NotNegative = 0.5
    latency: NotNegative = 0.3
    quality: NotNegative = 0.2


class Require(_Row, frozen=True):
    """What a candidate must have to be asked at all."""

    min_quality: Annotated[float, msgspec.Meta(ge=0, le=10)] | None = None
    min_success_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


class Fallback(_Row, frozen=True):
    """When to try the next upstream, how often, and in which order. `rate_limit` includes `quota`.

    `budget` is the share of requests that may be asked more than once, on top of ten a second; `hedge` the share that
    may be asked of two upstreams at once when the first is late.
    `resume` ("continue" in the file) lets a plain text stream that broke off go on at the next upstream.
    """

    on: list[Kind] = msgspec.field(default_factory=lambda: ["rate_limit", "timeout", "unavailable", "overloaded"])
    attempts: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    budget: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.2
    hedge: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    chain: dict[str, list[str]] = {}
    resume: bool = msgspec.field(default=False, name="continue")


class Timeouts(_Row, frozen=True):
    """Seconds. `first_event` left out: 60. `answer` left out: `first_event` where the file sets it, else 300."""

    connect: Positive = 5
    first_event: Positive | None = None
    answer: Positive | None = None
    idle: Positive = 120
    total: Positive = 600

    @property
    def first_event_s(self) -> float:
        """Return how long a stream's first event may take."""
        return 60.0 if self.first_event is None else self.first_event

    @property
    def answer_s(self) -> float:
        """Return how long the head of a complete answer may take."""
        if self.answer is not None:
            return self.answer
        return 300.0 if self.first_event is None else self.first_event


class Given(_Row, frozen=True):
    """The state of one upstream in a `[[test]]`."""

    error: Kind | None = None
    down: bool = False
    p50_ms: Positive | None = None
    success_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


class Asked(_Row, frozen=True):
    """The request of a `[[test]]`."""

    stream: bool = False
    needs: list[str] = []
    strategy: Strategy | None = None


class PolicyTest(_Row, frozen=True):
    """`[[test]]`: with this state and request, these upstreams are asked, in this order."""

    name: Text
    expect: list[str]
    given: dict[str, Given] = {}
    request: Asked = Asked()


class Policy(_Row, frozen=True):
    """A policy file. No `candidates`: every upstream."""

    description: str = ""
    strategy: Strategy = "balanced"
    weights: Weights = Weights()
    candidates: list[Text] = msgspec.field(default_factory=lambda: ["*"])
    answers: list[Text] = []
    require: Require = Require()
    fallback: Fallback = Fallback()
    timeouts: Timeouts = Timeouts()
    test: list[PolicyTest] = []
