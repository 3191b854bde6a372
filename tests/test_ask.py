"""What is known of a prompt: hashes of its blocks, that say what it begins with and nothing else."""

import pytest

from proxy.ask import BLOCK_BYTES, MAX_BLOCKS, Ask, prefix


def chat(*texts: str, tools: str = "", model: str = "m") -> bytes:
    """A chat body as OpenAI's SDK orders it."""
    messages = ",".join(f'{{"role":"user","content":"{text}"}}' for text in texts)
    called = f',"tools":[{tools}]' if tools else ""
    return f'{{"messages":[{messages}],"model":"{model}"{called}}}'.encode()


def shared(one: bytes, other: bytes, *, tools: bool = False) -> int:
    """How many hashes two prompts have in common, from their beginnings on."""
    pairs = zip(prefix(one, tools=tools), prefix(other, tools=tools), strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)) // BLOCK_BYTES)


LONG = "x" * (3 * BLOCK_BYTES)


def test_a_conversation_that_goes_on_shares_all_whole_blocks() -> None:
    """The next turn repeats what was said; only the end of the last block differs."""
    assert shared(chat(LONG), chat(LONG, "and then?" * 500)) == 3


def test_one_letter_changes_every_hash_from_there_on() -> None:
    """A hash is over all blocks so far: equal blocks behind a difference are not equal."""
    changed = LONG[:BLOCK_BYTES] + "y" + LONG[BLOCK_BYTES + 1 :]

    assert shared(chat(LONG), chat(changed)) == 1
    assert shared(chat("y" + LONG[1:]), chat(LONG)) == 0


def test_a_short_prompt_has_no_block() -> None:
    """What is no whole block is in nobody's cache."""
    assert prefix(chat("Hello"), tools=False) == ()


@pytest.mark.parametrize("first", [True, False], ids=["before the messages", "behind them"])
def test_tools_come_first_wherever_they_stand(first: bool) -> None:
    """As providers read them: other tools are another prompt, another model is not."""
    tools, others = ('{"a":"' + "t" * BLOCK_BYTES + '"}', '{"a":"' + "u" * BLOCK_BYTES + '"}')

    def body(called: str, model: str = "m") -> bytes:
        if first:
            return f'{{"model":"{model}","tools":[{called}],'.encode() + chat(LONG)[1:]
        return chat(LONG, tools=called, model=model)

    assert shared(body(tools), body(tools, model="n"), tools=True) >= 4
    assert shared(body(tools), body(others), tools=True) == 0


def test_a_huge_prompt_has_so_many_hashes_and_no_more() -> None:
    """What a request may cost is bounded."""
    huge = "x" * (MAX_BLOCKS + 9) * BLOCK_BYTES
    assert len(prefix(chat(huge), tools=False)) == MAX_BLOCKS
    assert len(prefix(chat(huge, tools='{"a":"' + LONG + '"}'), tools=True)) == MAX_BLOCKS


def test_a_key_that_is_spelled_with_escapes_costs_no_more_than_a_discount() -> None:
    """Nobody finds it; the whole body is taken for the prompt."""
    body = chat(LONG).replace(b"messages", b"mess\\u0061ges")

    assert shared(body, body) == 3
    assert prefix(body, tools=True) == prefix(body, tools=False)


def test_what_a_request_takes_for_certain() -> None:
    """Text has twelve bytes a token at most; the size of a picture says nothing."""
    assert Ask(0, tokens=3000, max_tokens=50).least == 1050
    seen = Ask(0, tokens=3000, max_tokens=50, needs=frozenset({"vision"}))
    assert (seen.least, seen.media) == (50, True)
