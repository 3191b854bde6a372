"""The doors: what answers where, what every answer carries, and what is told about a request afterwards."""

import re

import msgspec
import pytest

from tests.conftest import CHAT, STREAM, StartSidecar, StartUpstream, check_error, request
from tests.fake_upstream import Play, completion, error, events, stream

TWO = {"two.toml": 'candidates = ["p1/m"]\nanswers = ["gpt-4o*"]\n'}


# ---- doors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/chat/completions?api-version=1"])
async def test_the_main_door(sidecar: StartSidecar, upstream: StartUpstream, path: str) -> None:
    """With and without /v1; a query does not matter."""
    assert (await (await sidecar(await upstream())).post(path=path)).text == "Hello"


PATHS = [
    "/", "/v1", "/v1/", "/v1/chat/completions/", "//v1/chat/completions", "/v1//chat/completions", "/V1/chat",
    "/v1/chat/%63ompletions", "/v1/./chat/completions", "/v1/x/../chat/completions", "/v1/%2e%2e/metrics",
    "/v1/chat/completions;x=1", "/v1/chat/completions%00", "/v1/chat%2fcompletions", "/favicon.ico",
    "http://127.0.0.1/v1/chat/completions", "http://evil.example/livez",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_only_exact_paths_are_doors(sidecar: StartSidecar, upstream: StartUpstream, path: str) -> None:
    """Whatever a path might be normalised to, as it stands it is nothing."""
    asked = await upstream()
    got = await (await sidecar(asked)).raw(request(msgspec.json.encode(CHAT), path=path))
    check_error(got, 404, "unknown_url")
    assert asked.requests == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"), ("HEAD", "/v1/chat/completions", "POST"), ("PUT", "/v1/models", "GET"),
        ("DELETE", "/v1/models/test", "GET"), ("POST", "/livez", "GET"), ("OPTIONS", "/metrics", "GET"),
        ("GET", "/explain", "POST"), ("PATCH", "/status", "GET"), ("GET", "/chat/completions", "POST"),
    ],
)  # fmt: skip
async def test_wrong_method(sidecar: StartSidecar, method: str, path: str, allowed: str) -> None:
    """A door says what it takes."""
    async with (await sidecar()).connect() as wire:
        got = await wire.ask(request(None, path=path, method=method), head=method == "HEAD")
    assert (got.status, got.headers["allow"]) == (405, allowed)
    assert method == "HEAD" or got.error["code"] == "method_not_allowed"


async def test_models_are_listed(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Policies first, then the upstreams that are on."""
    running = await sidecar(await upstream(), await upstream(), files=TWO)
    for path in ("/v1/models", "/models"):
        got = (await running.get(path)).json
        assert [one["id"] for one in got["data"]] == ["test", "two", "p0/m", "p1/m"]
    assert got["data"][2].items() >= {"object": "model", "owned_by": "p0"}.items()


@pytest.mark.parametrize("name", ["test", "p0/m", "p0%2Fm", "m", "p0/made-up", "gpt-4o-mini"])
async def test_one_model(sidecar: StartSidecar, upstream: StartUpstream, name: str) -> None:
    """Whatever can be asked for can be looked up; SDKs quote the slash."""
    got = await (await sidecar(await upstream(), await upstream(), files=TWO)).get(f"/v1/models/{name}")
    assert (got.status, got.json["id"]) == (200, name.replace("%2F", "/"))


async def test_no_such_model(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """What cannot be asked for is 404 here as well."""
    got = await (await sidecar(await upstream(), await upstream())).get("/models/nope")
    check_error(got, 404, "model_not_found")


async def test_probes(sidecar: StartSidecar) -> None:
    """/livez and /readyz tell of this process, never of providers."""
    running = await sidecar()
    assert [(await running.get(path)).status for path in ("/livez", "/readyz")] == [200, 200]
    running.app.sidecar.ready = False
    check_error(await running.get("/readyz"), 503, "shutting_down")
    assert (await running.get("/livez")).status == 200


async def test_explain(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The decision with its numbers and who was left out; nothing is called."""
    asked = await upstream()
    running = await sidecar(asked, await upstream(), files={"strict.toml": "require = { min_quality = 6 }\n"})

    got = (await running.post({**CHAT, "model": "strict"}, path="/explain", x_sidecar_strategy="quality")).json

    assert (got["model"], got["policy"], got["strategy"], got["chain"]) == ("strict", "strict", "quality", ["p1/m"])
    (best,) = got["order"]
    assert (best["upstream"], best["score"], best["parts"]) == ("p1/m", -6.0, {"quality": 6.0})
    assert (best["expected"]["latency_ms"], best["expected"]["quality"]) == (200, 6)
    assert got["excluded"] == [{"upstream": "p0/m", "reason": "quality 5 is below 6"}]
    assert asked.requests == []


async def test_status(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Live numbers of every upstream, spend, generation."""
    running = await sidecar(await upstream(), "http://127.0.0.1:9/v1", provider={"limits": {"concurrency": 3}})
    await running.post()

    got = (await running.get("/status")).json

    assert (got["generation"], got["ready"], got["in_flight"], got["policies"]) == (1, True, 0, ["test"])
    assert got["providers"]["p0"]["limits"]["concurrency"] == 3
    state = got["upstreams"]["p0/m"]
    assert (state["requests"], state["errors"], state["breaker"], state["tokens"]) == (1, 0, "standby", 15)
    assert got["spend_usd"] == pytest.approx(15e-6)


async def test_the_admin_surface_is_not_on_a_port_for_others(sidecar: StartSidecar) -> None:
    """Bound elsewhere, metrics, status and explain are off."""
    running = await sidecar(host="0.0.0.0", environ={"SIDECAR_API_KEYS": "k"})  # noqa: S104  # what is tested
    running.app.address = running.app.address.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    for path in ("/metrics", "/status", "/explain"):
        check_error(await running.get(path, authorization="Bearer k"), 404, "unknown_url")
    assert (await running.get("/livez", host="sidecar.example")).status == 200


# ---- what every answer carries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["complete", "stream"])
async def test_headers_of_an_answer(sidecar: StartSidecar, upstream: StartUpstream, body: dict[str, object]) -> None:
    """Who answered, by which policy, after how many attempts, and what the detour took."""
    good = stream(*events("Hi")) if body is STREAM else completion("Hi")
    got = await (await sidecar(await upstream(error(500)), await upstream(good))).post(body)

    assert got.headers["x-sidecar-upstream"] == "p1/m"
    assert got.headers["x-sidecar-policy"] == "test"
    assert got.headers["x-sidecar-attempts"] == "2"
    assert re.fullmatch(r"proxy;dur=\d+\.\d{3}, upstream;dur=\d+\.\d{3}", got.headers["server-timing"])
    assert got.headers["x-request-id"].startswith("req_")
    assert {"x-sidecar-dropped", "x-should-retry", "server"}.isdisjoint(got.headers)


async def test_dropped_parameters_are_named(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """What a language has no word for is left out, and said."""
    asked = await upstream()
    running = await sidecar(asked, provider={"adapter": "anthropic"})
    asked.plays = [anthropic()]

    got = await running.post({**CHAT, "seed": 1, "presence_penalty": 0.5, "a\r\nx-evil: 1": 2})

    assert got.text == "Hi"
    assert {"seed", "presence_penalty"} <= set(got.headers["x-sidecar-dropped"].split(", "))
    assert "x-evil" not in got.headers


def anthropic() -> Play:
    """An answer in Anthropic's words."""
    return completion(
        type="message", role="assistant", stop_reason="end_turn", content=[{"type": "text", "text": "Hi"}]
    )


async def test_request_ids_are_unique(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Every answer has an id of its own, refusals too, and the log knows it."""
    running = await sidecar(await upstream())
    answers = [await running.post(), await running.post(b"{"), await running.get("/x"), await running.get("/livez")]
    ids = [got.headers["x-request-id"] for got in answers]
    assert len(set(ids)) == 4
    assert [line["request_id"] for line in running.log("request") + running.log("refused")] == ids[:3]


# ---- overrides ---------------------------------------------------------------------------------------------------


async def test_policy_by_header(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The header beats the model's name, which then need not exist."""
    running = await sidecar(await upstream(), await upstream(), files=TWO)
    got = await running.post({**CHAT, "model": "whatever"}, x_sidecar_policy="two")
    assert (got.headers["x-sidecar-policy"], got.headers["x-sidecar-upstream"]) == ("two", "p1/m")


async def test_strategy_by_header(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """The strategy changes for one request."""
    running = await sidecar(await upstream(), await upstream())
    got = [await running.post(x_sidecar_strategy="quality"), await running.post()]
    assert [one.headers["x-sidecar-upstream"] for one in got] == ["p1/m", "p0/m"]


async def test_fallback_off_by_header(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Off means the first upstream's fault is the answer."""
    other = await upstream()
    running = await sidecar(await upstream(error(500)), other)

    check_error(await running.post(x_sidecar_fallback="off"), 500, "server_error")

    assert other.requests == []
    assert (await running.post(x_sidecar_fallback="ON")).status == 200


@pytest.mark.parametrize("name", ["x-sidecar-policy", "x-sidecar-strategy", "x-sidecar-fallback"])
async def test_an_override_that_means_nothing(sidecar: StartSidecar, upstream: StartUpstream, name: str) -> None:
    """400 that names the header and the value."""
    asked = await upstream()
    got = await (await sidecar(asked)).post(**{name: "tset\xe9"})
    check_error(got, 400, "invalid_value")
    assert (got.error["param"], "tset" in got.error["message"], asked.requests) == (name, True, [])


# ---- log and metrics ---------------------------------------------------------------------------------------------


async def test_one_log_line_per_request(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Who, how long, how much; a failed attempt has a line of its own."""
    running = await sidecar(await upstream(error(429)), await upstream(stream(*events("Hi"))))
    await running.post(STREAM)

    (line,), (failed,) = running.log("request"), running.log("attempt_failed")

    expected = {"policy": "test", "model": "test", "upstream": "p1/m", "mode": "stream", "status": 200, "attempts": 2}
    tokens = {"finish": "stop", "input_tokens": 10, "output_tokens": 2, "usd": pytest.approx(24e-6)}
    assert line.items() >= {**expected, **tokens}.items()
    assert line["ms"] >= line["upstream_ms"] > 0 < line["first_token_ms"]
    assert failed.items() >= {"upstream": "p0/m", "kind": "rate_limit", "status": 429, "next": "p1/m"}.items()
    assert failed["request_id"] == line["request_id"]


async def test_log_lines_cannot_be_forged(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A line break in a name stays inside its line, and a long name is cut."""
    running = await sidecar(await upstream())
    await running.post({**CHAT, "model": 'p0/a\n{"event":"request"}' + "x" * 5000})
    assert len(running.log("request")) == 1
    assert len(running.log("request")[0]["model"]) < 250


async def test_made_up_names_make_no_series(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Metric labels come from the configuration only."""
    running = await sidecar(await upstream(), await upstream(), files=TWO)

    async def series() -> set[str]:
        text = (await running.get("/metrics")).body.decode()
        return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}

    for name in ("nope", "p0/made-up"):
        await running.post({**CHAT, "model": name})
    before = await series()
    for number in range(50):
        await running.post({**CHAT, "model": f"nope{number}"})
        await running.post({**CHAT, "model": f"p0/made-up{number}"})

    assert await series() == before


async def test_metrics(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Requests, attempts, fallbacks, tokens and money are counted."""
    running = await sidecar(await upstream(error(429)), await upstream())
    await running.post()
    await running.post(b"{")

    got = await running.get("/metrics")

    assert got.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        'sidecar_requests_total{policy="test",mode="complete",status="200"} 1',
        'sidecar_requests_total{policy="none",mode="none",status="400"} 1',
        'sidecar_attempts_total{upstream="p0/m",outcome="rate_limit"} 1',
        'sidecar_attempts_total{upstream="p1/m",outcome="ok"} 1',
        'sidecar_fallbacks_total{upstream="p0/m",kind="rate_limit"} 1',
        'sidecar_tokens_total{upstream="p1/m",direction="input"} 10',
        'sidecar_cost_usd_total{upstream="p1/m"} 3e-05',
        'sidecar_upstream_resting{upstream="p0/m"} 1',
        'sidecar_upstream_in_flight{upstream="p1/m"} 0',
        "sidecar_overhead_seconds_count 1",
    ):
        assert line in got.body.decode().splitlines()


async def test_a_fault_of_our_own(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """500 without a word of what happened; the log names kind and place, and quotes nothing."""
    running = await sidecar(await upstream(), provider={"adapter": "tests.broken_adapter"})

    got = await running.post({**CHAT, "user": "CANARY"})

    check_error(got, 500, None)
    (line,) = running.log("fault")
    assert (line["error"], "broken_adapter.py:" in line["at"]) == ("ZeroDivisionError", True)
    assert b"CANARY" not in got.body + msgspec.json.encode(line)
    assert (await running.get("/status")).json["upstreams"]["p0/m"]["in_flight"] == 0
