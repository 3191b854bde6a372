"""What some tests need beyond Python: other virtual environments, Node, a model. `make test` installs it all."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VENVS = ROOT / ".venvs"


def need(path: Path, what: str) -> None:
    """Skip the test unless `path` exists. With SIDECAR_NO_SKIP set, as in CI, where nothing may be missing, fail it."""
    if not path.exists():
        reason = f"{what} is not installed; `make test` installs it where it can"
        if os.environ.get("SIDECAR_NO_SKIP"):
            pytest.fail(reason)
        pytest.skip(reason)
