"""GitHub Copilot's streams, completed."""

from .openai_words import COPILOT, DONE, USAGE, chunks, end, event, fault, parser, told, usages


def test_copilots_chunks_are_completed() -> None:
    """Its empty first chunk goes, object, time and index come, reasoning gets its usual name."""
    stream = parser(*COPILOT)
    events = [
        {"choices": [], "created": 0, "id": "", "prompt_filter_results": []},
        {"id": "x", "choices": [{"delta": {"content": None, "reasoning_text": "hm"}}]},
        {"id": "x", "created": 7, "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]},
    ]

    first, last = chunks(told(stream, *map(event, events)))

    assert (first["object"], first["created"], first["choices"][0]["index"]) == ("chat.completion.chunk", 1000, 0)
    assert first["choices"][0]["delta"] == {"content": None, "reasoning_content": "hm"}
    assert last["created"] == 7


def test_copilots_usage_and_garbage_are_treated_like_others() -> None:
    """Filling in changes neither what is held back nor what is a fault."""
    stream = parser(*COPILOT, usage=True)

    out = told(stream, end(usage=USAGE) + DONE)

    assert usages(out) == [(True, None), (False, USAGE)]
    assert fault(parser(*COPILOT), event(b"nonsense")).code == "upstream_invalid_event"


def test_a_whole_native_answer_is_no_chunk() -> None:
    """An answer in Anthropic's shape inside a stream would look finished and empty; it is a cut stream."""
    native = {"content": [{"type": "text", "text": "a"}], "stop_reason": "end_turn"}

    assert fault(parser(*COPILOT), event(native)).code == "upstream_truncated"
