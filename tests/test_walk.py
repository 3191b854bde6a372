"""The drawing of the walk in the README is held to what one request really does."""

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tests.conftest import StartSidecar, StartUpstream
from tests.fake_upstream import completion

ROOT = Path(__file__).parent.parent
# A request may wander through this many of our files, and no more (style: a straight walk).
MOST_FILES = 29


def drawn() -> list[str]:
    """The modules in the README's drawing of the walk, in its order."""
    text = (ROOT / "README.md").read_text()
    drawing = text.partition("<!-- walk -->")[2].partition("<!-- /walk -->")[0]
    return re.findall(r"^(?:proxy/|adapters/)?(\w+)\.py ", drawing, re.MULTILINE)


async def entered(sidecar: StartSidecar, upstream: StartUpstream) -> list[str]:
    """The modules that one request enters, by first entry."""
    answering = await sidecar(await upstream(completion("Hi")))
    await answering.post()  # imports and connections are made
    seen: dict[str, None] = {}

    def note(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.parent.name in ("proxy", "adapters", "_anthropic"):
            seen[path.stem] = None

    sys.setprofile(note)
    try:
        got = await answering.post()
    finally:
        sys.setprofile(None)
    assert got.text == "Hi"
    return list(seen)


async def test_the_walk_is_as_drawn(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A request enters the files of the drawing in the drawing's order."""
    walked = await entered(sidecar, upstream)
    assert [name for name in walked if name in drawn()] == drawn()


async def test_the_walk_is_short(sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """A reader can follow one request through few files."""
    assert len(await entered(sidecar, upstream)) <= MOST_FILES
