"""`llm-sidecar providers`: which are on, which are off, and what each wants."""

import argparse
import os

from proxy.config import load_directory
from proxy.keys import access


def run(args: argparse.Namespace) -> int:
    """Print one line per provider. Raises PolicyError."""
    config = load_directory(args.policies)
    width = max((len(name) for name in config.providers), default=0)
    for name, row in config.providers.items():
        found = access(row, os.environ)
        models = sum(model.provider == name for model in config.models.values())
        state = f"off  {found.off}" if found.off else f"on   {found.source}"
        print(f"{name:{width}}  {state}  ({models} models)")
    return 0
