"""The conformance kit finds what is wrong with an adapter: each way to be wrong once, by the check that says so."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.__main__ import main
from proxy.conform import kit, plain, recordings
from proxy.conform.cases import UNREADABLE, kind_of, unusable
from proxy.conform.checks import Mismatch, same, shown
from proxy.conform.features import shown_by
from proxy.conform.recordings import Entry
from proxy.conform.sdk import DONE, Unreadable, chunks, said_streamed
from proxy.conform.usage import normal_usage, told_usage
from tests.contract.corpus import FIXTURES

ROOT = Path(__file__).parent.parent
# An adapter that is right: Cohere's, as somebody from outside would wrap it. What follows makes it wrong.
MODULE = """
from adapters.cohere import ADAPTER as REAL
from proxy import errors, wire
from proxy.adapter import Rendered, Reply
from proxy.conform.sdk import DONE

class Parser:
    def __init__(self, request, target):
        self.real, self.seen = REAL.stream(request, target), b""
    started = property(lambda self: self.real.started)
    finish = property(lambda self: self.real.finish)
    done = property(lambda self: self.real.done)
    usage = property(lambda self: self.real.usage)
    def feed(self, data):
        return self.real.feed(data)
    def close(self):
        return self.real.close()

class Outside:
    quirks = frozenset()
    auth = lambda self, key: REAL.auth(key)
    render = lambda self, request, target: REAL.render(request, target)
    parse = lambda self, body, request, target: REAL.parse(body, request, target)
    stream = lambda self, request, target: Parser(request, target)
    parse_error = lambda self, status, headers, body: REAL.parse_error(status, headers, body)

count = iter(range(10**9))
{defect}
ADAPTER = Outside()
"""


def message(**fields: Any) -> str:
    body = {"id": "i", "finish_reason": "COMPLETE", "message": {"role": "assistant", **fields}}
    tokens = {
        "billed_units": {"input_tokens": 3, "output_tokens": 2},
        "tokens": {"input_tokens": 3, "output_tokens": 2},
    }
    return msgspec.json.encode({**body, "usage": tokens}).decode()


def events(*found: Any) -> str:
    return "".join(f"event: {one['type']}\ndata: {msgspec.json.encode(one).decode()}\n\n" for one in found)


def content(text: str) -> dict[str, Any]:
    return {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}}


def call(**fields: Any) -> dict[str, Any]:
    return {"index": 0, "delta": {"message": {"tool_calls": fields}}}


START = {"type": "message-start", "id": "i", "delta": {"message": {"role": "assistant", "content": []}}}
BEGUN = {"type": "tool-call-start", **call(id="t", type="function", function={"name": "look", "arguments": ""})}
GOES_ON = {"type": "tool-call-delta", **call(function={"arguments": '{"a":1}'})}
COUNTS = {"tokens": {"input_tokens": 3, "output_tokens": 2}}
END = {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL", "usage": COUNTS}}
FAILED = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "it failed"}}
CALLS = [{"name": "look", "arguments": {"a": 1}}]
EXCHANGES: dict[str, dict[str, Any]] = {
    "whole": {
        "request": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
        "sent": {
            "path": "/chat",
            "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
        },
        "response": {"body": message(content=[{"type": "text", "text": "Good day"}])},
        "expect": {"text": "Good day", "finish": "stop", "usage": [3, 2, 0]},
    },
    "stream": {
        "stream": True,
        "response": {"body": [events(START, content("Good ")), events(content("day"), BEGUN, GOES_ON, END)]},
        "expect": {"text": "Good day", "tool_calls": CALLS, "finish": "tool_calls", "usage": [3, 2, 0]},
    },
    "busy": {
        "response": {"status": 429, "body": '{"message":"too many"}'},
        "expect": {"kind": "rate_limit", "error": "too many"},
    },
    "broken": {
        "stream": True,
        "response": {"body": events(START, content("Good "), FAILED)},
        "expect": {"text": "Good ", "kind": "unavailable", "error": "it failed"},
    },
    "nothing": {"response": {"body": "<html>"}, "expect": {}},
    "cut": {"stream": True, "response": {"body": events(START, content("Good "))}, "expect": {}},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recordings of Cohere's, in a folder from which packages are imported, too."""
    (tmp_path / "kept").mkdir()
    for name, exchange in EXCHANGES.items():
        (tmp_path / "kept" / f"{name}.json").write_bytes(msgspec.json.encode(exchange))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def outside(folder: Path, defect: str = "") -> str:
    """Write an adapter; returns its name, another one each time."""
    package = folder / f"outside_{abs(hash(defect))}"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "it.py").write_text(MODULE.format(defect=defect))
    return f"{package.name}.it"


def test_all_holds_of_an_adapter_that_is_right(folder: Path) -> None:
    """No finding, and every exchange counts."""
    report = kit.run(outside(folder), folder / "kept")
    assert report.findings == []
    assert [case.file for case in report.cases] == sorted(f"{name}.json" for name in EXCHANGES)
    assert report.lenient == []


# How the adapter's answer is changed: the whole one, a stream's pieces, an error.
_ANSWER = """
def parse(self, body, request, target):
    found = REAL.parse(body, request, target)
    return Reply({}, found.usage, found.finish)
Outside.parse = parse
"""
_FEED = "Parser.feed = lambda self, data: {}"
_ERROR = """
def parse_error(self, status, headers, body):
    found = REAL.parse_error(status, headers, body)
    found.message = {}
    return found
Outside.parse_error = parse_error
"""
_SEEN = """
def feed(self, data):
    self.seen += data
    return self.real.feed(data)
Parser.feed = feed
"""
_RENDER = "Outside.render = lambda self, request, target: {}"
_ROLE = b'"role":"assistant",'
# By check, what it is there for.
DEFECTS: list[tuple[str, str]] = [
    ("has_all_members", "del Outside.parse_error"),
    ("has_all_members", "Outside.quirks = ['a']"),
    ("keys_are_headers", "Outside.auth = lambda self, key: {'x': 'a\\nb'}"),
    ("keys_are_headers", "Outside.auth = lambda self, key: {}"),
    ("keys_are_headers", "Outside.auth = lambda self, key: {'x': f'{key}{next(count)}'}"),
    ("keys_are_headers", "Outside.auth = lambda self, key: open('/dev/null').close() or REAL.auth(key)"),
    ("requests_render", _RENDER.format("1 / 0")),
    ("requests_render", _RENDER.format("Rendered('chat', b'the-model', {})")),
    ("requests_render", _RENDER.format("Rendered('/chat', 'the-model', {})")),
    ("requests_render", _RENDER.format("Rendered('/chat', b'', {})")),
    ("requests_render", _RENDER.format("Rendered('/the-model', b'%d' % next(count), {})")),
    ("requests_render", "def no(*_): raise errors.InvalidRequestError('no')\nOutside.render = no"),
    ("garbage_is_an_error", "Outside.parse = lambda self, body, request, target: 1 / 0"),
    ("garbage_is_an_error", "Outside.parse = lambda self, body, request, target: Reply(b'{}', None, None)"),
    ("garbage_never_ends_well", "Parser.close = lambda self: DONE"),
    ("garbage_never_ends_well", _FEED.format("data.decode('ascii').encode()")),
    ("errors_have_a_kind", "Outside.parse_error = lambda self, status, headers, body: 1 / 0"),
    ("errors_have_a_kind", "Outside.parse_error = lambda self, status, headers, body: errors.RateLimitError('no')"),
    ("keys_do_not_leak", _ERROR.format("body.decode(errors='replace')")),
    # what was recorded
    ("complete", _ANSWER.format("found.body.replace(b'Good', b'Bad')")),
    ("complete", _ANSWER.format("found.body").replace("found.usage", "None")),
    ("streamed", _FEED.format("self.real.feed(data).replace(b'Good', b'Bad')")),
    ("streamed", _FEED.format("self.real.feed(data).replace(b'look', b'see')")),
    ("streamed", _FEED.format("""self.real.feed(data).replace(b'"index":0,"id"', b'"index":1,"id"')""")),
    ("streamed", _FEED.format("""self.real.feed(data).replace(b'"tool_calls"}', b'"stop"}')""")),
    ("cut_anywhere", _FEED.format("self.real.feed(data) + (b': x\\n\\n' if len(data) == 1 else b'')")),
    ("cut_short", "Parser.close = lambda self: self.real.close() if self.finish or not self.started else DONE"),
    ("in_order", _FEED.format(f'self.real.feed(data).replace(b\'"content":"day"\', {_ROLE!r} + b\'"content":"day"\')')),
    ("sent_on", _RENDER.format("Rendered('/other', b'\"the-model m\"', {})")),
    ("error_answer", _ERROR.format("'no'")),
    ("error_inside", _FEED.format("""self.real.feed(data.replace(b'"ERROR"', b'"COMPLETE"'))""")),
    # what was recorded, told otherwise
    ("unknown_fields", _ANSWER.format("found.body.replace(b'Good', b'Bad' if b'x_unknown' in body else b'Good')")),
    ("comments", _FEED.format("self.real.feed(data.replace(b': keep-alive', b'data: 1'))")),
    ("line_ends", _FEED.format("self.real.feed(data.replace(b'\\r', b'!'))")),
    ("twice_the_same", _ANSWER.format("""found.body.replace(b'"i"', b'"i%d"' % next(count))""")),
    ("damage", _ERROR.format("{}[1] if b'-1' in body or b'1e999' in body else found.message")),
    ("any_split", _FEED.format("self.real.feed(data if not data.endswith(b'Good') else data[:-1])")),
    ("any_cut", _SEEN + "Parser.close = lambda self: self.real.close() if b'look' in self.seen else DONE"),
]


@pytest.mark.parametrize(("check", "defect"), DEFECTS, ids=[f"{n}-{check}" for n, (check, _) in enumerate(DEFECTS)])
def test_a_defect_is_found(folder: Path, check: str, defect: str) -> None:
    """By the check that is there for it, with what was expected and what came."""
    report = kit.run(outside(folder, defect), folder / "kept")
    found = {one.check: one.text for one in report.findings}
    assert check in found, found
    assert "expected " in found[check]
    assert ", came " in found[check]


def test_an_answer_told_for_nothing_is_found(folder: Path) -> None:
    """A 200 without an answer must not become one."""
    defect = (
        'Outside.parse = lambda self, body, request, target: REAL.parse(b\'{"finish_reason":"COMPLETE","message":'
        "{\"content\":[]}}' if body == b'<html>' else body, request, target)"
    )
    found = kit.run(outside(folder, defect), folder / "kept").findings
    assert ("nothing.json", "nothing") in [(one.where, one.check) for one in found]


def test_the_verb_says_what_holds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 when all does; 1 when something does not, with the exchange, the check, what was expected and what came."""
    assert main(["conform", outside(folder), "--recordings", str(folder / "kept")]) == 0
    assert "7 of 7 promises of the contract hold, 6 of 6 recordings" in capsys.readouterr().out
    defect = "Parser.feed = lambda self, data: self.real.feed(data).replace(b'Good', b'Bad')"
    assert main(["conform", outside(folder, defect), "--recordings", str(folder / "kept"), "--quirks", "a,b"]) == 1
    out = capsys.readouterr().out
    assert "FAILED stream.json: streamed: text: expected Good day, came Bad day\n" in out
    assert "| 0/1 |" in out
    assert main(["conform", "cohere"]) == 0
    assert capsys.readouterr().out == "cohere: 7 of 7 promises of the contract hold, 0 of 0 recordings\n"


BAD_FILES = {
    '{"expect":{}}': "`response`",
    '{"response":{},"expect":{"txt":"a"}}': "unknown field `txt`",
    '{"response":{"body_base64":"?"},"expect":{}}': "base64",
    '{"response":{"status":500},"expect":{}}': "expect.kind",
    "{": "truncated",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_file_that_is_no_exchange_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """2, and one line that says which file and what is wrong with it."""
    (tmp_path / "odd.json").write_text(text)
    assert main(["conform", "cohere", "--recordings", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "odd.json: " in told
    assert BAD_FILES[text] in told.replace("padding", "base64").replace("Only", "base64")


def test_what_cannot_be_tried_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No such adapter, no such folder, nothing in it: 2."""
    for argv, word in (
        (["nosuch.thing"], "no adapter 'nosuch.thing'"),
        (["cohere", "--recordings", str(tmp_path / "none")], "no such directory"),
        (["cohere", "--recordings", str(tmp_path)], "no recordings"),
    ):
        assert main(["conform", *argv]) == 2
        assert word in capsys.readouterr().err


def test_without_the_sdk_the_verb_says_what_to_install() -> None:
    """A sidecar that runs does not need it."""
    code = "import sys; sys.modules['openai'] = None; from proxy.__main__ import main; "
    code += "sys.exit(main(['conform', 'cohere']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'llm-sidecar[conform]'" in done.stderr


def test_a_corpus_is_read_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a folder with an index, what is for the adapter; what is not used is said with its reason."""
    assert main(["conform", "vertex", "--recordings", str(FIXTURES)]) == 0
    assert "3 of 3 recordings" in capsys.readouterr().out


def test_an_adapter_from_outside_reads_a_corpus(folder: Path) -> None:
    """All of it is its own: whoever brings recordings of one provider has sorted them."""
    entries = [entry for entry in recordings.entries(FIXTURES) if entry.adapter == "cohere"]
    index = [{**msgspec.structs.asdict(entry), "root": ""} for entry in entries]
    (folder / "corpus").mkdir()
    (folder / "corpus" / "index.json").write_bytes(msgspec.json.encode(index))
    (folder / "corpus" / "golden.json").write_bytes((FIXTURES / "golden.json").read_bytes())
    (folder / "corpus" / "cohere").symlink_to(FIXTURES / "cohere")
    report = kit.run(outside(folder), folder / "corpus", stress=False)
    assert (len(report.cases), report.findings, report.unused) == (len(entries), [], {})


# ---- what follows from the data of a recording ------------------------------------------------------------------


def written(folder: Path, body: str, *, api: str = "openai_chat", provider: str = "somebody", **fields: Any) -> Entry:
    """A corpus of one recording."""
    golden: dict[str, Any] = {
        "text": "",
        "reasoning": "",
        "tool_calls": [],
        "finish": None,
        "openai_finish": None,
        "usage": {},
    }
    (folder / "one.json").write_bytes(msgspec.json.encode({"request": {}, "response": {"status": 200, "body": body}}))
    (folder / "golden.json").write_bytes(msgspec.json.encode({"one.json": {**golden, "error": None}}))
    index = {"file": "one.json", "provider": provider, "api": api, "status": 200, "stream": False, **fields}
    (folder / "index.json").write_bytes(msgspec.json.encode([index]))
    return recordings.entries(folder)[0]


@pytest.mark.parametrize(
    ("body", "fields", "why"),
    [
        ("{}", {"api": "their_own"}, "no adapter speaks their_own"),
        ('{"pages":[]}', {}, "read from a document, not a chat completion"),
        ('{"embedding":{}}', {"api": "gemini"}, "an embedding, not a chat completion"),
        ('[{"candidates":[]}]', {"api": "gemini", "stream": True}, "a stream that is no SSE"),
        ('{"choices":[]}', {}, None),
        ("nonsense", {}, None),
        ("[]", {}, None),
    ],
)
def test_why_a_recording_is_not_used(tmp_path: Path, body: str, fields: dict[str, Any], why: str | None) -> None:
    """By its API and its bytes, never by its name."""
    found = unusable(written(tmp_path, body, **fields))
    assert found is None if why is None else str(found).startswith(why)


def test_a_recording_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Without its meaning, its file, or JSON in it: that is a fault of the folder, and the suite says so."""
    entry = written(tmp_path, "{}")
    (tmp_path / "one.json").write_text("{")
    assert str(unusable(entry)).startswith(UNREADABLE)
    (tmp_path / "one.json").unlink()
    assert str(unusable(entry)).startswith(UNREADABLE)
    other = tmp_path / "other"
    other.mkdir()
    entry = written(other, "{}")
    (other / "golden.json").write_text("{}")
    assert str(unusable(entry)).startswith(UNREADABLE)


def test_two_choices_in_a_stream_have_each_their_order(folder: Path) -> None:
    """A role first and a finish last, for each of them."""
    candidates = [{"content": {"parts": [{"text": text}]}, "index": number} for number, text in enumerate(("a", "b"))]
    ended = [{**one, "finishReason": "STOP"} for one in candidates]
    body = "".join(f"data: {msgspec.json.encode({'candidates': one}).decode()}\n\n" for one in (candidates, ended))
    exchange = {"stream": True, "response": {"body": body}, "expect": {"text": "aa", "finish": "stop"}}
    (folder / "two").mkdir()
    (folder / "two" / "two.json").write_bytes(msgspec.json.encode(exchange))
    assert kit.run("gemini", folder / "two").findings == []


def test_a_provider_without_a_row_gets_all_that_mends(tmp_path: Path) -> None:
    """Who is in the catalog gets what stands there; other languages have no quirks."""
    assert written(tmp_path, "{}").quirks == recordings.UNKNOWN
    assert written(tmp_path, "{}", provider="xai").quirks == frozenset()
    assert written(tmp_path, "{}", api="gemini").quirks == frozenset()
    assert written(tmp_path, "{}", provider="xai").known
    assert not written(tmp_path, "{}").known


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, '{"error":{"code":429}}', "rate_limit"),
        (200, "{}", "unavailable"),
        (418, "", "invalid_request"),
        (429, "prompt is too long", "rate_limit"),
        (400, "prompt is too long", "context_length"),
        (429, '{"quotaId":"PerDay"}', "quota"),
        (200, '{"type":"error","error":{"type":"overloaded_error"}}', "overloaded"),
        (500, '{"error":{"code":"model_not_found"}}', "unavailable"),
        (424, "{}", "unavailable"),
    ],
)
def test_an_error_s_kind_follows_from_its_words(status: int, body: str, kind: str) -> None:
    """Then from its status, which a 200 may name inside."""
    assert kind_of(status, body) == kind


def test_usage_is_put_into_openais_meaning() -> None:
    """Written down a second time, so that it can judge the adapters."""
    billed = {"billed_units.output_tokens": 2, "tokens.output_tokens": 3, "tokens.image_tokens": 4}
    assert normal_usage("cohere_chat_v2", billed) == (0, 2, 0)
    assert told_usage("cohere_chat_v2", billed) == (4, 3, 0)
    assert normal_usage("cohere_chat_v2", {"tokens.output_tokens": 3}) == (0, 3, 0)
    assert told_usage("cohere_chat_v2", {"billed_units.output_tokens": 2}) == (0, 2, 0)
    audio = {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "prompt_audio_seconds": 9,
        "prompt_tokens_details.audio_tokens": 5,
    }
    assert normal_usage("openai_chat", audio) == (6, 2, 0)


# ---- small parts ------------------------------------------------------------------------------------------------


def test_a_finding_is_short() -> None:
    """What came may be long."""
    assert len(shown("x" * 10_000)) < 700
    with pytest.raises(Mismatch, match=r"a: expected 1, came 2"):
        same("a", 1, 2)


@pytest.mark.parametrize("stream", [b"", b"data: [1]\n\n" + DONE, b"data: {}\n\n" + DONE, b"data: {\n\n" + DONE])
def test_what_no_client_reads(stream: bytes) -> None:
    """Without a goodbye, or what is no chunk."""
    with pytest.raises(Unreadable):
        chunks(stream)


def test_older_calls_are_read() -> None:
    """`function_call` in a stream."""
    text = (
        '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"finish_reason":null,'
    )
    text += '"delta":{"function_call":{"name":"f","arguments":"[1]"}}}]}'
    found = said_streamed(chunks(f"data: {text}\n\n".encode() + DONE))
    assert found.tool_calls == [("f", {"__unparsable__": "[1]"})]


def test_features_are_read_from_the_request_too(folder: Path) -> None:
    """What a recording of one's own shows needs no index."""
    picture = {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}}
    exchange = {**EXCHANGES["whole"], "request": {"model": "m", "messages": [{"role": "user", "content": [picture]}]}}
    del exchange["sent"]
    (folder / "kept" / "whole.json").write_bytes(msgspec.json.encode(exchange))
    found = {case.file: shown_by(case) for case in plain.cases(folder / "kept", "cohere")}
    assert found["whole.json"] == ["complete", "images, files", "usage"]
    assert found["stream.json"] == ["stream", "tool calls", "usage"]
    assert found["busy.json"] == ["errors"]
