"""docs/adding-a-provider.md does what it says: its package is written out, held to the kit, and served."""

import re
from pathlib import Path

import msgspec
import pytest

from proxy import errors
from proxy.__main__ import main
from proxy.adapter import Target, load
from proxy.conform.checks import stand_in
from tests.conftest import StartSidecar, StartUpstream
from tests.fake_upstream import reply, stream

from .__main__ import main as kit

PAGE = (Path(__file__).parents[2] / "docs" / "adding-a-provider.md").read_text()
SAY = "acme_say.say"
# A file's name stands in the last line before its block.
FILE = re.compile(
    r"`(acme_say/say\.py|recordings/\w+\.json)`[^`]*?(?:`[^`]*`[^`]*?)?:\n\n```\w+\n(.*?)^```", re.M | re.S
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the page's reader has written everything."""
    files = FILE.findall(PAGE)
    assert [name for name, _ in files] == [
        "acme_say/say.py",
        "recordings/words.json",
        "recordings/calls.json",
        "recordings/busy.json",
    ]
    for name, text in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "acme_say" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_language_is_short(package: Path) -> None:
    """A third party adds a language in an afternoon."""
    assert len((package / "acme_say" / "say.py").read_text().splitlines()) < 150


def test_the_kit_says_what_the_page_says(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All holds, from an installed sidecar and from a checkout."""
    (told,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S)
    assert main(["conform", SAY, "--recordings", str(package / "recordings")]) == 0
    assert capsys.readouterr().out == told
    assert kit(["--adapter", SAY, "--recordings", str(package / "recordings")]) == 0
    assert capsys.readouterr().out == told


@pytest.mark.usefixtures("package")
def test_it_refuses_what_it_cannot_carry() -> None:
    """A picture is not sent, so that the next upstream can be asked."""
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}]
    with pytest.raises(errors.InvalidRequestError) as refused:
        load(SAY).render(stand_in(stream=False, messages=picture), Target("small"))
    assert refused.value.unsent


async def test_it_serves(package: Path, sidecar: StartSidecar, upstream: StartUpstream) -> None:
    """Named in a catalog row, it answers complete and streamed requests, and asks for neither OpenAI's path nor key."""
    words = msgspec.json.decode((package / "recordings" / "words.json").read_bytes())["response"]["body"]
    calls = msgspec.json.decode((package / "recordings" / "calls.json").read_bytes())["response"]["body"]
    say = await upstream(reply(words.encode()), stream(*(piece.encode() for piece in calls)))
    running = await sidecar(say, provider={"adapter": SAY, "api_key": "env:SAY_KEY"}, environ={"SAY_KEY": "secret"})

    assert (await running.post()).text == "Good day"
    messages = [{"role": "user", "content": "Hi"}]
    assert (await running.post({"model": "test", "stream": True, "messages": messages})).text == "I look."

    assert [request.path for request in say.requests] == ["/v1/say", "/v1/say"]
    assert say.requests[0].headers["say-key"] == "secret"
