"""`llm-sidecar conform`: hold an adapter to its contract and to recorded answers. Needs the extra `conform`."""

import argparse

from proxy.log import tell

try:
    from proxy.conform import kit, plain
except ModuleNotFoundError as error:  # the SDK is no dependency of a sidecar that runs
    MISSING: str | None = error.name
else:
    MISSING = None


def run(args: argparse.Namespace) -> int:
    """Print what holds and what does not; returns 1 when anything does not, 2 when it cannot be tried."""
    if MISSING is not None:
        tell(f"llm-sidecar: conform needs {MISSING}: pip install 'llm-sidecar[conform]'")
        return 2
    try:
        report = kit.run(args.adapter, args.recordings, args.quirks)
    except (LookupError, plain.UnreadableError) as error:
        tell(f"llm-sidecar: {error}")
        return 2
    print(kit.words(args.adapter, report), end="")
    return 1 if report.findings else 0
