"""Where keys come from, and that they go nowhere else."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.keys import Access, access, check
from proxy.policy import ProviderRow


def row(**fields: Any) -> ProviderRow:
    return msgspec.convert({"name": "a", "base_url": "https://x.test/v1", **fields}, ProviderRow)


def told(**fields: Any) -> str:
    return str(check(row(**fields)) or "")


def test_key_from_the_environment() -> None:
    """`env:NAME` is the variable's content without blanks around it; the start-up line may name the variable."""
    found = access(row(api_key="env:KEY"), {"KEY": " secret\n"})

    assert found == Access("https://x.test/v1", ("secret",), "KEY", None)


@pytest.mark.parametrize("line_end", ["", "\n", "\r\n"])
def test_key_from_a_file_has_no_line_end(tmp_path: Path, line_end: str) -> None:
    """An editor or `echo` leaves one; it is not part of the key, and would split the header."""
    (tmp_path / "key").write_bytes(b"secret" + line_end.encode())

    assert access(row(api_key=f"file:{tmp_path}/key"), {}).keys == ("secret",)


def test_a_list_is_several_keys() -> None:
    """Those that are there are used, in order, and named; those that are not are passed over."""
    found = access(row(api_key=["env:ONE", "env:NONE", "env:TWO"]), {"ONE": "1", "TWO": "2"})

    assert (found.keys, found.source, found.off) == (("1", "2"), "ONE, TWO", None)


@pytest.mark.parametrize("environ", [{}, {"KEY": ""}, {"KEY": "  "}])
def test_without_its_key_a_provider_is_off(environ: dict[str, str]) -> None:
    """And says which variable or file it wants."""
    found = access(row(api_key=["env:KEY", "file:/nowhere/key"]), environ)

    assert found.keys == ()
    assert found.off == "set KEY or /nowhere/key to use it"


def test_a_server_without_keys_is_on() -> None:
    """Local servers need none."""
    assert access(row(), {}) == Access("https://x.test/v1", (), "no key needed", None)


@pytest.mark.parametrize("content", ["one\ntwo", "ключ", "a\x00b"])
def test_what_no_header_can_carry_is_no_key(content: str) -> None:
    """A file with two lines would otherwise fail every request; it is said at the start, without quoting it."""
    found = access(row(api_key="env:KEY"), {"KEY": content})

    assert found.off == "the key in KEY is not one line of plain text"
    assert found.keys == ()


@pytest.mark.parametrize("path", ["binary", "directory", "nul\x00"])
def test_a_key_file_that_cannot_be_read_says_so(tmp_path: Path, path: str) -> None:
    """Whoever mounted the file has set it already: the trouble is in the file, not in a name that is not set."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "directory").mkdir()

    found = access(row(api_key=f"file:{tmp_path}/{path}"), {})

    assert (found.keys, found.off) == ((), f"{tmp_path}/{path} cannot be read")


def test_missing_and_unreadable_keys_are_told_apart(tmp_path: Path) -> None:
    """What is to be set and what is to be mended; a path through a file counts as missing."""
    (tmp_path / "file").touch()
    places = ["env:KEY", f"file:{tmp_path}/file/key", f"file:{tmp_path}"]

    assert access(row(api_key=places), {}).off == f"set KEY or {tmp_path}/file/key to use it; {tmp_path} cannot be read"
    assert access(row(api_key=places), {"KEY": "1"}).off is None


@pytest.mark.parametrize(
    ("environ", "base_url", "off"),
    [
        ({"URL": "http://127.0.0.1:8000/v1/"}, "http://127.0.0.1:8000/v1", None),
        ({}, "", "set URL to use it"),
        ({"URL": "127.0.0.1:8000"}, "", "URL is no address of the form http://HOST or https://HOST"),
        ({"URL": "http://[bad/v1"}, "", "URL is no address of the form http://HOST or https://HOST"),
    ],
)
def test_address_from_the_environment(environ: dict[str, str], base_url: str, off: str | None) -> None:
    """A local server is on when its address is set; paths are added to it, so it ends without a slash."""
    found = access(row(base_url="env:URL"), environ)

    assert (found.base_url, found.off) == (base_url, off)


@pytest.mark.parametrize("key", ["sk-secret", "env:", "file:", "vault:secret", ["env:A", "sk-secret"]])
def test_a_literal_key_is_refused_without_quoting_it(key: Any) -> None:
    """A key in a file ends up in a repository; a message with it ends up in a log."""
    assert "a key must not stand in a file" in told(api_key=key)
    assert "secret" not in told(api_key=key)


def test_an_empty_list_of_keys_is_refused() -> None:
    """Somebody meant a key to be there."""
    assert (
        told(api_key=[])
        == "catalog.toml: provider 'a': api_key: the list is empty; a server without keys leaves it out"
    )


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "API-Key", "X-Goog-Api-Key", "proxy-authorization"])
def test_a_key_in_a_header_is_refused_without_quoting_it(name: str) -> None:
    """`headers` is no way around."""
    assert "a key must not stand in a file" in told(headers={name: "Bearer secret"})
    assert "secret" not in told(headers={name: "Bearer secret"})


@pytest.mark.parametrize("headers", [{"X-A": "b\r\nX-Forged: c"}, {"X\n": "b"}, {"X-A": "é"}])
def test_a_header_that_cannot_be_sent_is_refused(headers: dict[str, str]) -> None:
    """One line of plain text, name and value."""
    assert "is not one line of plain text" in told(headers=headers)


@pytest.mark.parametrize(
    "base_url", ["x.test/v1", "ftp://x.test", "/v1", "env:", "http://", "http://[bad/v1", "http://x:port/v1"]
)
def test_an_address_needs_scheme_and_host(base_url: str) -> None:
    """Said with file and entry, before the first request fails."""
    assert told(base_url=base_url) == (
        f"catalog.toml: provider 'a': base_url: {base_url!r} is no address of the form http://HOST or https://HOST"
    )


@pytest.mark.parametrize("fields", [{}, {"api_key": "env:A"}, {"api_key": ["file:/a"]}, {"headers": {"X-A": "b"}}])
def test_a_good_row_has_no_problem(fields: dict[str, Any]) -> None:
    """What is written as it should be passes."""
    assert told(**fields) == ""
