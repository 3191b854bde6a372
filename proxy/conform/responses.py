"""What recorded answers of OpenAI's Responses API mean, for a corpus whose `golden.json` says nothing of them.

It knows nothing of the adapter: of a stream it reads the last event, which has the whole response once more (where that
has no items, the events that finished them), while the adapter puts an answer together from its pieces.
"""

from typing import Any, Final

import msgspec

API: Final = "openai_responses"
# Statuses of responses that are no answer yet, or never will be one.
_ENDED: Final = ("completed", "incomplete", "failed")
_TEXT: Final = "response.output_text."


def unusable(body: str) -> str | None:
    """Return why an answer says nothing of the API, None when it does."""
    events = _events(body)
    if events and not any(event.get("type") in ("response.created", "error") for event in events):
        return "events of another shape than the API's, made up by the recorder"
    texts = {_part(event): event.get("text") for event in events if event.get("type") == _TEXT + "done"}
    told = dict.fromkeys(texts, "")
    for event in events:
        if event.get("type") == _TEXT + "delta" and _part(event) in told:
            told[_part(event)] += str(event.get("delta"))
    if any(text and text != texts[place] for place, text in told.items()):
        return "edited by hand: its pieces are not those of its whole"
    return None


def _part(event: dict[str, Any]) -> tuple[Any, Any]:
    return event.get("output_index"), event.get("content_index")


def _events(body: str) -> list[dict[str, Any]]:
    lines = [line[5:].strip() for line in body.split("\n") if line.startswith("data:")]
    return [msgspec.json.decode(line) for line in lines if line.startswith("{")]


def digest(body: str, status: int) -> dict[str, Any]:
    """Return what an answer means, in the shape of an entry of `golden.json`. Raises ValueError when nobody can say."""
    try:
        return _digest([], {}, error=_message(body)) if status >= 400 else _whole(body)
    except (LookupError, TypeError, AttributeError, msgspec.MsgspecError) as error:
        raise ValueError(f"no response: {error!r}") from error


def _whole(body: str) -> dict[str, Any]:
    if body.lstrip().startswith("{"):
        response = msgspec.json.decode(body)
        return _digest(response["output"], response)
    events = _events(body)
    whole: dict[str, Any] = next((event["response"] for event in events[::-1] if event.get("response")), {})
    done = [event["item"] for event in events if event.get("type") == "response.output_item.done"]
    return _digest(whole.get("output") or done, whole)


def _message(body: str) -> str:
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body.strip()
    error = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or ""
    return error if isinstance(error, str) else msgspec.json.encode(error).decode()


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
    status = response.get("status")
    return {
        "text": "".join(part.get("text") or part.get("refusal") or "" for part in parts),
        "reasoning": "\n\n".join(thoughts),
        "tool_calls": calls,
        "finish": status if status in _ENDED else None,
        "openai_finish": _finish(response, called=bool(calls)),
        "usage": _usage(response.get("usage") or {}),
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


def _usage(counts: dict[str, Any]) -> dict[str, Any]:
    """Return the counts flattened; none where one is below zero, which recordings have."""
    found = dict(_flat(counts))
    return {} if any(isinstance(count, int) and count < 0 for count in found.values()) else found


def _flat(counts: dict[str, Any], at: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in counts.items():
        found += _flat(value, f"{at}{name}.") if isinstance(value, dict) else [(at + name, value)]
    return found
