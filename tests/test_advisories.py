"""The gate that holds what is installed against the dated list of bad versions."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.needs import ROOT


def gate(directory: Path, pattern: str = "", instead: str = "") -> tuple[int, str]:
    """Exit code and words of the gate when the list has `instead` for the first match of `pattern`."""
    shutil.copy(ROOT / ".ci" / "check_advisories.py", directory)
    text = (ROOT / ".ci" / "advisories.toml").read_text()
    (directory / "advisories.toml").write_text(re.sub(pattern, instead, text, count=1) if pattern else text)
    command = [sys.executable, str(directory / "check_advisories.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_what_is_installed_is_not_known_to_be_bad(tmp_path: Path) -> None:
    """The list as it is finds nothing here, and says of which day it is."""
    code, said = gate(tmp_path)

    assert (code, re.findall(r"advisories of 20\d\d-\d\d-\d\d: .*, 0 problems", said)) == (0, [said.strip()])


def test_a_bad_version_is_refused(tmp_path: Path) -> None:
    """A version below the mended one fails, by package and number of the advisory."""
    code, said = gate(tmp_path, r'below = "[\d.]+"', 'below = "99.0"')

    assert code == 1
    assert re.search(r"^aiohttp [\d.]+: CVE-", said)


def test_an_old_list_is_refused(tmp_path: Path) -> None:
    """Half a year without a look is no pass."""
    code, said = gate(tmp_path, r"checked = \S+", "checked = 2025-01-01")

    assert code == 1
    assert "days old" in said
