"""AWS credentials as a provider's key: Signature Version 4, against AWS's published case and what its SDK computes."""

from datetime import UTC, datetime
from typing import Any

import pytest

from adapters._bedrock.sigv4 import Credentials, credentials_in, region_of, signed
from adapters.bedrock import Bedrock
from proxy import keys
from proxy.policy import ProviderRow
from tests.conftest import CHAT, StartSidecar, StartUpstream
from tests.fake_upstream import error, reply

from .bedrock_words import answer, text

# The example credentials and the time of AWS's Signature Version 4 test suite.
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
WHO = Credentials("AKIDEXAMPLE", SECRET)
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
CONVERSE = (
    "https://bedrock-runtime.eu-central-1.amazonaws.com/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse"
)
BODY = b'{"messages":[{"role":"user","content":[{"text":"hi"}]}]}'
IN_ENV: Any = {
    "adapter": "bedrock",
    "api_key": "env:AWS_ACCESS_KEY_ID:AWS_SECRET_ACCESS_KEY:AWS_SESSION_TOKEN?",
}
ENV = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}


def test_the_published_vector() -> None:
    """The case "post-vanilla" of AWS's test suite."""
    found = signed("https://example.amazonaws.com/", b"", WHO, NOW, region="us-east-1", service="service")

    assert found == {
        "x-amz-date": "20150830T123600Z",
        "Authorization": (
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
            "SignedHeaders=host;x-amz-date, "
            "Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        ),
    }


@pytest.mark.parametrize(
    ("session", "names", "signature"),
    [
        ("", "host;x-amz-date", "6dee8b9c60fe1a07794204be8f5285824261befd109750003f2a8f4b1e8255ae"),
        (
            "TOKEN==",
            "host;x-amz-date;x-amz-security-token",
            "c6d56dc8e25f094305b9e1ecde8d17b7ad764842ddf04e588030020bc6904d07",
        ),
    ],
)
def test_a_converse_request_is_signed_as_botocore_does(session: str, names: str, signature: str) -> None:
    """The encoded model id is encoded once more, a session's token is signed and sent (botocore 1.44)."""
    key = f"AKIDEXAMPLE:{SECRET}:{session}" if session else f"AKIDEXAMPLE:{SECRET}"

    found = Bedrock().sign(CONVERSE, BODY, key, NOW)

    scope = "AKIDEXAMPLE/20150830/eu-central-1/bedrock/aws4_request"
    wanted = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}"
    assert found.pop("Authorization") == wanted
    assert found == {"x-amz-date": "20150830T123600Z"} | ({"x-amz-security-token": session} if session else {})


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://bedrock-runtime.us-east-1.amazonaws.com/model/x/converse", "us-east-1"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com/", "us-gov-west-1"),
        ("https://vpce-0a.bedrock-runtime.eu-west-1.vpce.amazonaws.com/", "eu-west-1"),
        ("http://127.0.0.1:9/v1", "us-east-1"),
    ],
)
def test_the_region_stands_in_the_address(url: str, region: str) -> None:
    """Public, FIPS and private addresses name it at the same place."""
    assert region_of(url) == region


def test_a_port_is_signed_unless_it_is_the_usual_one() -> None:
    """The signed host is the one that is sent."""
    plain = signed("http://a/", b"", WHO, NOW, region="r", service="s")

    assert signed("http://a:80/", b"", WHO, NOW, region="r", service="s") == plain
    assert signed("http://a:81/", b"", WHO, NOW, region="r", service="s") != plain


def test_credentials_and_api_keys_are_told_apart() -> None:
    """Only credentials have a colon; an API key is a header, credentials never are."""
    assert credentials_in("AKID:secret") == Credentials("AKID", "secret")
    assert credentials_in("AKID:secret:to:ken") == Credentials("AKID", "secret", "to:ken")
    assert credentials_in(None) is credentials_in("ABSKabc=") is None
    assert Bedrock().auth("AKID:secret") == {}
    assert Bedrock().sign(CONVERSE, BODY, "ABSKabc=", NOW) == {}


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        (ENV, (f"AKIDEXAMPLE:{SECRET}",)),
        ({**ENV, "AWS_SESSION_TOKEN": "t"}, (f"AKIDEXAMPLE:{SECRET}:t",)),
        ({"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE"}, ()),
        ({}, ()),
    ],
)
def test_a_key_of_several_variables(environ: dict[str, str], found: tuple[str, ...]) -> None:
    """All of them are needed, but for those with a question mark."""
    access = keys.access(ProviderRow("b", "http://x", api_key=IN_ENV["api_key"]), environ)

    assert access.keys == found
    assert (access.off is None) is bool(found)


async def test_each_request_is_signed(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """What Bedrock gets carries the signature of its own body, address and time, and no secret."""
    bedrock = await upstream(reply(answer(text("Hello"))))
    running = await sidecar(bedrock, provider=IN_ENV, environ={**ENV, "AWS_SESSION_TOKEN": "t"})

    assert (await running.post(CHAT)).text == "Hello"

    [request] = bedrock.requests
    when = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    url = f"http://{request.headers['host']}{request.path}"
    wanted = signed(url, request.body, WHO._replace(session="t"), when, region="us-east-1", service="bedrock")
    assert request.headers["authorization"] == wanted["Authorization"]
    assert request.headers["x-amz-security-token"] == "t"
    assert SECRET not in str(request.headers)


async def test_keys_of_both_kinds_take_turns(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Each request is signed with the key whose turn it is, or carries it."""
    bedrock = await upstream(reply(answer(text("Hello"))))
    both: Any = {"adapter": "bedrock", "api_key": ["env:ONE", "env:TWO"]}
    running = await sidecar(bedrock, provider=both, environ={"ONE": f"AKID:{SECRET}", "TWO": "ABSKabc="})

    for _ in range(4):
        await running.post(CHAT)

    words = [request.headers["authorization"].split()[0] for request in bedrock.requests]
    assert sorted(words[:2]) == ["AWS4-HMAC-SHA256", "Bearer"]
    assert words[2:] == words[:2]


async def test_a_refused_signature_quotes_no_token(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """AWS explains by quoting what was signed; the client hears the first line."""
    words = "The signature does not match.\n\nThe Canonical String should have been\n'x-amz-security-token:sesame'"
    refusing = reply(
        b'{"message":"%s"}' % words.replace("\n", "\\n").encode(), 403, x_amzn_errortype="InvalidSignatureException"
    )
    running = await sidecar(await upstream(refusing), provider=IN_ENV, environ={**ENV, "AWS_SESSION_TOKEN": "sesame"})

    got = await running.post(CHAT)

    assert (got.status, got.error["code"]) == (502, "upstream_auth_failed")
    assert "does not match" in got.error["message"]
    assert b"sesame" not in got.body


async def test_other_languages_sign_nothing(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A key with a colon is a key like any other there."""
    other = await upstream(error(500))
    running = await sidecar(other, provider={"api_key": "env:KEY"}, environ={"KEY": "a:b"})

    await running.post(CHAT)

    assert other.requests[0].headers["authorization"] == "Bearer a:b"
    assert "x-amz-date" not in other.requests[0].headers
