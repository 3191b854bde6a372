"""One table from what providers say to what is done about it."""

from random import Random
from typing import Any

import msgspec
import pytest

from proxy import errors
from proxy.classify import BY_CODE, BY_STATUS, BY_TYPE, classify, fault_of, read_fault, retry_after_s, status_in
from proxy.errors import UpstreamError


def judged(status: int, body: Any, **headers: str) -> UpstreamError:
    """The error for an answer; `body` is JSON to be, or bytes as they are."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return classify(status, {name.replace("_", "-"): text for name, text in headers.items()}, read_fault(raw))


def said(**fields: Any) -> dict[str, Any]:
    return {"error": {"message": "no", **fields}}


@pytest.mark.parametrize("code", BY_CODE)
def test_code_decides_first(code: str) -> None:
    """A code outweighs type and status: a 429 without credit is no rate limit."""
    assert type(judged(429, said(code=code, type="overloaded_error"))) is BY_CODE[code]


@pytest.mark.parametrize("kind", BY_TYPE)
def test_type_decides_second(kind: str) -> None:
    """Without a known code the type counts, whatever the status."""
    assert type(judged(400, said(code="?", type=kind))) is BY_TYPE[kind]


@pytest.mark.parametrize("status", BY_STATUS)
def test_status_decides_last(status: int) -> None:
    """Without known words there is still the status."""
    assert type(judged(status, said())) is BY_STATUS[status]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, said(code="insufficient_quota"), "quota"),
        (429, said(type="insufficient_quota", code="project_spend_limit_exceeded"), "quota"),
        (
            429,
            {"type": "error", "error": {"type": "x", "details": {"error_code": "enforced_spend_limit_reached"}}},
            "quota",
        ),
        (429, [said(details=[{"violations": [{"quotaId": "RequestsPerDayPerModel"}]}])], "quota"),
        (400, said(message="Your credit balance is too low to access the API"), "quota"),
        (402, said(), "quota"),
        (429, said(details=[{"retryDelay": "14s"}, 3]), "rate_limit"),
        (400, said(details=[{"reason": "API_KEY_INVALID"}]), "auth"),
        (403, said(metadata={"reasons": ["violence"]}), "content_filter"),
        (403, said(metadata={"provider_name": "x"}), "auth"),
        (400, said(message="Incorrect API key provided"), "auth"),
        (400, said(message="prompt is too long: 9 tokens > 8 maximum"), "context_length"),
        (400, said(message="This model's maximum context length is 8 tokens."), "context_length"),
        (400, said(message="prompt too long; exceeded max context length"), "context_length"),
        (400, said(message="The input token count (9) exceeds the maximum"), "context_length"),
        (413, said(message="Input is too long"), "context_length"),
        (400, said(type="too_many_prompt_tokens"), "context_length"),
        (500, said(message="prompt is too long"), "unavailable"),
        (500, said(type="authentication_error"), "unavailable"),
        (418, said(), "invalid_request"),
        (301, said(), "unavailable"),
        (400, said(code="tool_use_failed"), "unavailable"),
    ],
)
def test_status_alone_would_misjudge(status: int, body: Any, kind: str) -> None:
    """The cases that a table of statuses gets wrong."""
    assert judged(status, body).kind == kind


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"message":"x"}', "x"),
        (b'{"error":"x"}', "x"),
        (b'{"code":"c","error":"x"}', "x"),
        (b'[{"error":{"message":"x"}}]', "x"),
        (b'{"detail":"x"}', "x"),
        (b'{"detail":[{"msg":"x"}]}', '[{"msg":"x"}]'),
        (b'{"error":{"error":"x"}}', "x"),
        (b'"x"', "x"),
        (b" plain x \n", "plain x"),
        (b"", "the upstream answered with status 418"),
        (b"{}", "the upstream answered with status 418"),
        (b"\xff", "\ufffd"),
        (b"[" * 5000, None),
    ],
)
def test_every_shape_becomes_openais(body: bytes, message: str | None) -> None:
    """Wrapped, bare, a list, text or nothing: the client gets a message and all four keys."""
    told = msgspec.json.decode(judged(418, body).body())["error"]

    assert set(told) == {"message", "type", "param", "code"}
    assert message is None or told["message"] == message


@pytest.mark.parametrize("status", [400, 422, 403])
def test_a_providers_words_are_bounded(status: int) -> None:
    """Type, code and param, like the message: no provider writes a megabyte, or a key, into an answer of ours."""
    key = "sk-CANARY0123456789"
    error = judged(status, said(type=f"{key} " + "t" * 10**6, code=f"{key} " + "c" * 10**6, param=key + "p" * 10**6))
    assert len(error.body()) < 1500
    assert b"CANARY" not in error.body()


def test_a_long_code_is_not_taken_for_a_short_one() -> None:
    """What is cut off counts when the class is looked up."""
    assert judged(400, said(code="context_length_exceeded" + " " * 500)).kind == "invalid_request"


def test_invalid_request_keeps_the_providers_words() -> None:
    """Status, type, code and param are passed on: the client's own code may look at them."""
    error = judged(422, said(type="odd_error", code=7, param="top_p"))
    bare = judged(400, said(code=True, param=["x"]))

    assert (error.status, error.type, error.code, error.param) == (422, "odd_error", "7", "top_p")
    assert (bare.status, bare.type, bare.code, bare.param) == (400, "invalid_request_error", None, None)


def test_content_filter_keeps_its_code() -> None:
    """The provider's name for it is passed on."""
    assert judged(400, said(code="content_policy_violation")).code == "content_policy_violation"


def test_refused_key_is_not_the_clients_fault() -> None:
    """A 401 of the upstream would make the client doubt its own key, so it is told as 502, without the key."""
    error = judged(401, said(message="wrong key sk-abcdefghijkl", code="invalid_api_key"))

    assert (error.status, error.code) == (502, "upstream_auth_failed")
    assert "sk-" not in error.message
    assert "401" in error.message


@pytest.mark.parametrize(("status", "told"), [(500, 500), (502, 502), (507, 502), (424, 502), (204, 502)])
def test_server_faults_are_told_as_gateway_faults(status: int, told: int) -> None:
    """500 stays; everything else that broke behind us is a bad gateway."""
    error = judged(status, said())

    assert (error.status, error.code) == (told, "server_error")


@pytest.mark.parametrize("status", [200, 400, 403, 404, 500, 502])
def test_web_pages_are_not_passed_on(status: int) -> None:
    """HTML is some middlebox speaking: not the provider's word, and nothing a client could read."""
    error = judged(status, b"\n<html>Bad Gateway</html>")

    assert (error.kind, error.status, error.code) == ("unavailable", 502, "upstream_invalid_response")
    assert "<" not in error.message


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "auth"), (429, "rate_limit"), (503, "overloaded"), (529, "overloaded")]
)
def test_some_statuses_mean_the_same_on_a_web_page(status: int, kind: str) -> None:
    """A page that says 429 is still a rate limit, but its text is not quoted."""
    error = judged(status, b"<html>slow down</html>", retry_after="3")

    assert error.kind == kind
    assert "<" not in error.message


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry-after": f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": f"Mon, 01 Jan 2027 00:00:00 +{'9' * 20}", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 9026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "1" * 300}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], wait_s: float | None) -> None:
    """Milliseconds before seconds before a date, which is compared with the answer's own; garbage is nothing."""
    assert retry_after_s(headers) == wait_s


@pytest.mark.parametrize(
    ("status", "type", "everywhere"),
    [(401, "", True), (401, "authentication_error", True), (403, "", False), (400, "permission_error", False)],
)
def test_a_refusal_is_of_the_key_or_of_one_model(status: int, type: str, everywhere: bool) -> None:
    """401 says that the key is wrong; 403 that it may not do this."""
    found = judged(status, said(type=type))
    assert isinstance(found, errors.AuthError)
    assert found.everywhere == everywhere


def test_whatever_stands_in_retry_after_is_a_wait_or_nothing() -> None:
    """A header of a provider's cannot make us fail: dates and numbers with bytes changed, 20 000 of them."""
    random = Random(1)
    words = ["Wed, 21 Oct 2026 07:28:30 GMT", "Wed, 21 Oct 2026 07:28:30 +0000", "120", "1.5e3", "-1", "nan"]
    for _ in range(20_000):
        text = list(random.choice(words))
        for _ in range(random.randrange(4)):
            text[random.randrange(len(text))] = random.choice("0123456789+-:eE, \x00GJ") * random.choice((1, 1, 30))
        wait_s = retry_after_s({"retry-after": "".join(text), "date": words[0]})
        assert wait_s is None or 0 < wait_s < float("inf")


@pytest.mark.parametrize("status", [404, 429, 500, 503, 504])
def test_the_wait_is_kept(status: int) -> None:
    """What the provider asks for is what the breaker and the client are told."""
    assert judged(status, said(), retry_after="9").retry_after_s == 9


@pytest.mark.parametrize(("delay", "wait_s"), [("14s", 14), ("0.5s", 0.5), ("soon", None)])
def test_google_says_the_wait_in_the_body(delay: str, wait_s: float | None) -> None:
    """`RetryInfo.retryDelay` stands in for the header Google does not send."""
    assert judged(429, said(details=[{"retryDelay": delay}])).retry_after_s == wait_s


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 429}, 429),
        ({"code": "503"}, 503),
        ({"code": "x", "status": 402}, 402),
        ({"code": 200}, 502),
        ({"code": "²"}, 502),
        ({"code": "9" * 5000}, 502),
        ({"code": "0429"}, 502),
        ("x", 502),
    ],
)
def test_status_inside_a_200(error: object, status: int) -> None:
    """An error in a 200 body may name the status it should have had; else it is a bad gateway."""
    assert status_in(error) == status


def test_a_fault_needs_no_object() -> None:
    """Numbers and empty lists are said as they are."""
    assert fault_of(7).message == "7"
    assert fault_of([]).message == "[]"
    assert isinstance(classify(400, {}, fault_of([])), errors.InvalidRequestError)
