"""What recorded answers of the Responses API mean. `golden.json` has none of them, so this reads them anew.

It knows nothing of the adapter: of a stream it reads the last event, which has the whole response once more (where that
has no items, the events that finished them), while the adapter puts an answer together from its pieces.
"""

import re
from typing import Any, Final

import msgspec

from proxy import errors

# Recordings that are not used, and why.
UNUSABLE: Final = {
    "openai/lingua--multimodalrequest-responses-followup-response-streaming--f3fd58b1.json": (
        "events of another shape than the API's, made up by the recorder"
    ),
    "openai/ai--openai-shell-container-1--90fff829.json": "edited by hand: its pieces are not those of its whole",
}
# Recordings whose usage nobody can be told, and why.
NOT_COUNTED: Final = {
    "openai/req-llm-old--openai-o4-mini-deep-research-usage--1e8bb4a7.json": "output_tokens is -9",
}
# Answers with status 200 that are none, with the code of the error that they are.
NO_ANSWER: Final = {
    "openai/pydantic-ai--test-background-mode-streaming-without-starting-after-vcr--b93730ed.json": (
        "upstream_invalid_response"  # a response that was only put into a queue
    ),
}
# Answers with status 200 that end in an error.
BROKEN: Final[dict[str, type[errors.UpstreamError]]] = {
    "openai/ai--openai-error-1--405a9c16.json": errors.QuotaError,
}
# Error answers of another class than that of their status.
ERRORS: Final[dict[str, type[errors.UpstreamError]]] = {
    "openai/ai--openai-error-1--d206f472.json": errors.QuotaError,
    "openai/dd-trace-py--response-create-error--a19d8908.json": errors.NotFoundError,
    "openai/mirascope--openai-gpt-4o-responses--b9539eed.json": errors.NotFoundError,
    "openai/ruby-llm--chat-real-error-scenarios-openai-gpt-5-nano-handles-context-length-exc--bb5fc894.json": (
        errors.ContextLengthError
    ),
    "xai/ruby-llm--chat-error-handling-with-xai-grok-4-1-fast-non-reasoning-raises-approp--e4858c7a.json": (
        errors.AuthError
    ),
}


def digest(file: str, body: str, status: int) -> dict[str, Any]:
    """Return what the answer in a recording means, in the shape of an entry of `golden.json`."""
    found = _read(body, status)
    return {**found, "usage": {}} if file in NOT_COUNTED else found


def _read(body: str, status: int) -> dict[str, Any]:
    if status >= 400:
        return _digest([], {}, error=_message(msgspec.json.decode(body)))
    if body.lstrip().startswith("{"):
        response = msgspec.json.decode(body)
        return _digest(response["output"], response)
    events = [msgspec.json.decode(line[5:]) for line in body.splitlines() if line.startswith("data: {")]
    whole: dict[str, Any] = next(event["response"] for event in events[::-1] if "response" in event)
    done = [event["item"] for event in events if event.get("type") == "response.output_item.done"]
    return _digest(whole["output"] or done, whole)


def _message(body: Any) -> str:
    error = body.get("error", body)
    message = str(error["message"] if isinstance(error, dict) else error)
    return re.sub(r"sk-[\w.]+", "[redacted]", message)  # nobody is told a key


def _digest(items: list[Any], response: dict[str, Any], error: str | None = None) -> dict[str, Any]:
    parts = [part for item in items if item["type"] == "message" for part in item["content"]]
    thoughts = [
        part["text"]
        for item in items
        if item["type"] == "reasoning"
        for part in item.get("content") or item["summary"]
        if part["text"]
    ]
    calls = [(item["name"], _arguments(item["arguments"])) for item in items if item["type"] == "function_call"]
    failed: dict[str, Any] = response.get("error") or {}
    return {
        "text": "".join(part.get("text") or part.get("refusal") or "" for part in parts),
        "reasoning": "\n\n".join(thoughts),
        "tool_calls": calls,
        "finish": response.get("status"),
        "openai_finish": _finish(response, called=bool(calls)),
        "usage": dict(_flat(response.get("usage") or {})),
        "error": error or failed.get("message"),
    }


def _finish(response: dict[str, Any], *, called: bool) -> str | None:
    match response.get("status"):
        case "completed":
            return "tool_calls" if called else "stop"
        case "incomplete":
            return "length" if response["incomplete_details"]["reason"] == "max_output_tokens" else "content_filter"
    return None


def _arguments(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {"__unparsable__": text}


def _flat(counts: dict[str, Any], at: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in counts.items():
        found += _flat(value, f"{at}{name}.") if isinstance(value, dict) else [(at + name, value)]
    return found
