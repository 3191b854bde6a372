"""What a catalog and a policy file may say: the schema, as types. The files are data: no code, no templates.

`catalog.toml` holds facts (providers, models), every other `<name>.toml` is a policy: a virtual model called `<name>`.
`proxy.config` reads them. docs/policies.md is checked against these types.
"""

from typing import Annotated, Final, Literal, get_args

import msgspec

from proxy.errors import Kind

Strategy = Literal["cheapest", "fastest", "quality", "balanced"]
STRATEGIES: Final[tuple[str, ...]] = get_args(Strategy)
Unsupported = Literal["drop", "reject", "forward"]
# What a request may need and a model may offer: `proxy.wire` reads needs from requests.
FEATURES: Final = ("tools", "vision", "json_schema", "json_object", "audio", "files", "reasoning")
# Any number that somebody may mean; TOML also knows `inf`, which would break every proportion.
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10**12)]
Score = Annotated[float, msgspec.Meta(ge=0, le=10)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a file; an unknown key is a mistake, not an extension."""


class Limits(_Row, frozen=True):
    """What a provider allows us, over all its models. None: no limit."""

    rpm: Count | None = None
    tpm: Count | None = None
    concurrency: Count | None = None


class Tier(_Row, frozen=True, omit_defaults=True):
    """What all tokens of a request cost once its input is `above` so many tokens. None: as below it."""

    above: Count
    input: NotNegative | None = None
    output: NotNegative | None = None
    cached_input: NotNegative | None = None
    cache_write: NotNegative | None = None
    cache_write_1h: NotNegative | None = None


class Price(_Row, frozen=True, omit_defaults=True):
    """USD per million tokens; `request` and `search` are USD each. None: like what the tokens are part of.

    `cached_input`, `cache_write` and `audio_input` are parts of the input, `cache_write_1h` of `cache_write`,
    `cached_audio` of `cached_input`, `reasoning`, `audio_output` and `image_output` of the output. `search` is for a
    web search that the provider ran. The last of the `tiers` that a request's input exceeds holds.
    """

    input: NotNegative
    output: NotNegative
    cached_input: NotNegative | None = None
    cache_write: NotNegative | None = None
    cache_write_1h: NotNegative | None = None
    reasoning: NotNegative | None = None
    audio_input: NotNegative | None = None
    audio_output: NotNegative | None = None
    cached_audio: NotNegative | None = None
    image_output: NotNegative | None = None
    request: NotNegative = 0.0
    search: NotNegative = 0.0
    tiers: list[Tier] = []


class Latency(_Row, frozen=True):
    """A prior for the time to an answer, in ms, until it is measured."""

    p50_ms: Positive
    p99_ms: Positive | None = None


class Cache(_Row, frozen=True):
    """How a provider keeps prompts: seconds since they were last used, and the shortest that it keeps."""

    ttl_s: Positive = 300
    min_tokens: Count = 1024


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
    cache: Cache = Cache()


class ModelRow(_Row, frozen=True):
    """`[[model]]`: an upstream, one model at one provider, called "provider/id". None: unknown.

    `adapter` is the wire language of this model, None where it is its provider's; `unsupported` are names of request
    parameters that the model refuses or misreads.
    """

    provider: Text
    id: Text
    adapter: Text | None = None
    quality: Score | None = None
    price: Price | None = None
    latency: Latency | None = None
    context: Count | None = None
    max_output: Count | None = None
    features: list[str] | None = None
    unsupported: list[Text] = []

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
    """What a candidate must have to be asked at all. `price`: a known one."""

    min_quality: Score | None = None
    min_success_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    price: bool = False


class Fallback(_Row, frozen=True):
    """When to try the next upstream, how often, and in which order. `rate_limit` includes `quota`.

    `budget` is the share of requests that may be asked more than once, on top of ten a second; `hedge` the share that
    may be asked of two upstreams at once when the first is late.
    `retry_ambiguous` says whether an attempt that may be on the bill, sent but without an answer, may be followed by
    another. `resume` ("continue" in the file) lets a plain text stream that broke off go on at the next upstream.
    """

    on: list[Kind] = msgspec.field(default_factory=lambda: ["rate_limit", "timeout", "unavailable", "overloaded"])
    attempts: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    budget: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.2
    hedge: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    chain: dict[str, list[str]] = {}
    retry_ambiguous: bool = True
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


class When(_Row, frozen=True):
    """`[[when]]`: requests for which all of this holds have other candidates, or are of another class, or both.

    `tokens_above` and `tokens_below` are of the estimated input, `needs` all needed, `header` names and values of
    request headers, `routed` what the policy's `router` calls the request. None, and no candidates: the policy's own.
    """

    tokens_above: Count | None = None
    tokens_below: Count | None = None
    needs: list[str] = []
    header: dict[str, str] = {}
    routed: Text | None = None
    candidates: list[Text] = []
    task: Text | None = msgspec.field(default=None, name="class")


class Given(_Row, frozen=True):
    """The state of one upstream in a `[[test]]`. `warm` is how many tokens of the prompt its cache holds."""

    error: Kind | None = None
    down: bool = False
    p50_ms: Positive | None = None
    success_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    warm: Count | None = None


class Asked(_Row, frozen=True):
    """The request of a `[[test]]`. `tokens` is its input as estimated, `max_tokens` 0 when it sets no limit."""

    stream: bool = False
    needs: list[str] = []
    tokens: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    max_tokens: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    header: dict[str, str] = {}
    routed: str = ""
    strategy: Strategy | None = None


class Expect(_Row, frozen=True):
    """What a `[[test]]` expects, where a list of who is asked would say too much. All that is given must hold."""

    first: Text | None = None
    asked: list[str] = []
    never: list[Text] = msgspec.field(default_factory=list, name="not")
    usd_below: Positive | None = None
    when: Annotated[int, msgspec.Meta(ge=0)] | None = None
    task: Text | None = msgspec.field(default=None, name="class")


class PolicyTest(_Row, frozen=True):
    """`[[test]]`: with this state and request, these upstreams are asked, in this order, or what else is expected.

    `budget` "spent": the policy's budget for attempts after a request's first is used up.
    """

    name: Text
    expect: list[str] | Expect
    given: dict[str, Given] = {}
    request: Asked = Asked()
    budget: Literal["full", "spent"] = "full"


class Policy(_Row, frozen=True):
    """A policy file. No `candidates`: every upstream. `unsupported_parameters` is what becomes of those.

    `task` ("class" in the file) is of the scores by which quality is judged, `router` a module that names a request's
    class.

    `explore` is the share of requests that may be sent to somebody to see whether it has become quicker.
    """

    description: str = ""
    strategy: Strategy = "balanced"
    weights: Weights = Weights()
    candidates: list[Text] = msgspec.field(default_factory=lambda: ["*"])
    answers: list[Text] = []
    task: str = msgspec.field(default="", name="class")
    router: Text | None = None
    when: list[When] = []
    require: Require = Require()
    explore: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
    unsupported_parameters: Unsupported = "drop"
    fallback: Fallback = Fallback()
    timeouts: Timeouts = Timeouts()
    test: list[PolicyTest] = []
