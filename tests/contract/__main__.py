"""The conformance kit from a checkout: `python -m tests.contract --adapter NAME [--recordings DIR] [--quirks NAMES]`.

The same as `llm-sidecar conform NAME ...`, which is there wherever the sidecar is installed.
"""

import argparse
import sys
from collections.abc import Sequence

from proxy.__main__ import main as sidecar


def main(argv: Sequence[str] | None = None) -> int:
    """Run the kit; returns its exit code."""
    parser = argparse.ArgumentParser("python -m tests.contract", description=__doc__)
    parser.add_argument("--adapter", required=True, help="a built-in wire language, or package.module")
    known, rest = parser.parse_known_args(argv)
    return sidecar(["conform", known.adapter, *rest])


if __name__ == "__main__":
    sys.exit(main())
