"""The gate that holds installed versions against the dated list of bad ones."""

import importlib.util
from datetime import date, timedelta
from typing import Any

from tests.needs import ROOT

KNOWN: dict[str, Any] = {
    "date": date(2026, 6, 1),
    "advisory": [{"package": "Some_Thing", "bad": ">=2,<2.4", "ids": ["CVE-1"], "why": "it leaks"}],
}


def check(*versions: str, days: int = 0) -> list[str]:
    """What the gate says when these versions of some-thing are there, `days` after the list was made."""
    spec = importlib.util.spec_from_file_location("check_advisories", ROOT / ".ci" / "check_advisories.py")
    assert spec is not None
    assert spec.loader is not None
    gate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gate)
    found = [*gate.floors({"project": {"dependencies": [f"some.thing>={version},<9" for version in versions]}})]
    return list(gate.problems(KNOWN, found, KNOWN["date"] + timedelta(days=days)))


def test_a_bad_version_is_named() -> None:
    """The line says which package, which version, from where and why; names are compared as pip compares them."""
    line = "some-thing 2.3 (allowed by pyproject.toml) is in the bad range <2.4,>=2: it leaks (CVE-1)"

    assert check("2.3") == [line]


def test_versions_outside_the_range_pass() -> None:
    """Before the fault was made, and after it was mended."""
    assert check("1.9", "2.4", "2.10") == []


def test_an_old_list_is_not_believed() -> None:
    """Half a year without a look is no pass."""
    assert check(days=180) == []
    assert check(days=181) == ["the list is 181 days old: read the advisories again and date it"]
