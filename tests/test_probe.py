"""`llm-sidecar probe`: what a person learns of a provider by one tiny call."""

import asyncio
import json
from pathlib import Path

import pytest

from proxy.__main__ import main
from tests.conftest import StartUpstream, catalog
from tests.fake_upstream import FakeUpstream, Play, completion, error, events, reply, stream

Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider's key."""
    monkeypatch.setenv("P0_KEY", "sk-CANARY12345")


async def probed(directory: Path, server: FakeUpstream | str, *argv: str) -> int:
    """The exit code."""
    (directory / "catalog.toml").write_text(catalog(server, api_key="env:P0_KEY"))
    return await asyncio.to_thread(main, ["probe", "p0", "--policies", str(directory), *argv])


@pytest.mark.parametrize("streamed", [False, True], ids=["complete", "stream"])
async def test_a_provider_that_works(upstream: StartUpstream, tmp_path: Path, capsys: Out, streamed: bool) -> None:
    """Address, where the key was found, the model, how long it took, what it used and cost. One call."""
    server = await upstream(stream(*events("OK")) if streamed else completion("OK"))

    assert await probed(tmp_path, server, *["--stream"][: int(streamed)]) == 0

    out = capsys.readouterr().out.splitlines()
    assert out[:3] == [
        f"provider  p0: {server.url}, language openai",
        "key       P0_KEY",
        f"asking    p0/m, at most 16 tokens, {'streamed' if streamed else 'complete'}",
    ]
    assert out[3].startswith("answered  after ")
    tokens_out, usd = (2, "0.000012") if streamed else (5, "0.000015")
    assert out[3].endswith(f" ms: finish stop, 10 tokens in, {tokens_out} out, ${usd}")
    (asked,) = server.requests
    body = asked.json
    assert (body["model"], body["max_completion_tokens"], body["stream"]) == ("m", 16, streamed)
    assert "sk-CANARY" not in "".join(out)


async def test_another_model(upstream: StartUpstream, tmp_path: Path, capsys: Out) -> None:
    """Any name that the provider knows; the catalog need not."""
    server = await upstream(
        reply(json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}).encode())
    )

    assert await probed(tmp_path, server, "--model", "new/one") == 0

    assert server.requests[0].json["model"] == "new/one"
    assert capsys.readouterr().out.splitlines()[3].endswith("finish stop, no usage told, price unknown")


@pytest.mark.parametrize(
    ("play", "code", "advice"),
    [
        (
            error(401, message="bad key sk-CANARY12345"),
            "upstream_auth_failed",
            "refuses the key: is P0_KEY the right one",
        ),
        (error(404, "model_not_found"), "model_not_found", "address or model is wrong"),
        (error(429, "insufficient_quota"), "insufficient_quota", "has nothing left"),
        (error(429), "rate_limit_exceeded", "the key is good, but its limit is reached"),
        (error(503), "overloaded", "is overloaded"),
        (error(400, "bad"), "bad", "cannot take this call"),
        (reply(b"", 301, location="https://elsewhere"), "upstream_redirect", "base_url leads elsewhere"),
        (reply(b"<html>", 200), "upstream_invalid_response", "does not speak this language"),
        (error(500, message="boom"), "server_error", None),
    ],
    ids=["401", "404", "quota", "429", "503", "400", "301", "html", "500"],
)
async def test_a_provider_that_does_not(
    upstream: StartUpstream, tmp_path: Path, capsys: Out, play: Play, code: str, advice: str | None
) -> None:
    """What failed, in the provider's words, and what may be done; asked once, and no key shown."""
    server = await upstream(play)

    assert await probed(tmp_path, server) == 1

    out = capsys.readouterr().out.splitlines()
    assert f" ms: {code}: " in out[3]
    assert (advice or "") in " ".join(out[4:])
    assert (len(out) > 4) == bool(advice)
    assert len(server.requests) == 1
    assert "sk-CANARY" not in "".join(out)


async def test_a_stream_that_breaks_off(upstream: StartUpstream, tmp_path: Path, capsys: Out) -> None:
    """What began well may end badly."""
    server = await upstream(stream(*events("OK")[:2], then="close"))

    assert await probed(tmp_path, server, "--stream") == 1
    assert "upstream_interrupted: the upstream's stream was cut short" in capsys.readouterr().out


async def test_a_provider_that_cannot_be_reached(tmp_path: Path, capsys: Out) -> None:
    """The system's own words stand in brackets: a name that does not exist and a closed port are different faults."""
    assert await probed(tmp_path, "http://127.0.0.1:9/v1") == 1

    out = capsys.readouterr().out.splitlines()
    assert "upstream_unreachable" in out[3]
    assert out[4].strip() == "no connection: is base_url right, and must HTTPS_PROXY be set here?"
    assert "127.0.0.1:9" in out[5]


async def test_a_provider_that_is_off(tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked; it says which variable it wants."""
    monkeypatch.delenv("P0_KEY")
    assert await probed(tmp_path, "http://127.0.0.1:9/v1") == 1
    assert capsys.readouterr().out.splitlines()[1] == "key       set P0_KEY to use it"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["p9"], "provider 'p9' is not in the catalog; known: bare, p0"),
        (["bare"], "the catalog lists no model of bare; give one by --model ID"),
    ],
)
def test_misuse(tmp_path: Path, capsys: Out, argv: list[str], text: str) -> None:
    """A name that is not there, and a provider without any model."""
    rows = catalog("http://127.0.0.1:9/v1") + '[[provider]]\nname = "bare"\nbase_url = "http://127.0.0.1:9"\n'
    (tmp_path / "catalog.toml").write_text(rows)
    assert main(["probe", *argv, "--policies", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"llm-sidecar: {text}\n"
