"""`llm-sidecar providers`: which are on, which are off, and what each wants."""

import argparse
import os

from proxy.config import PolicyError, load_directory
from proxy.keys import access
from proxy.log import tell


def run(args: argparse.Namespace) -> int:
    """Print one line per provider; returns 2 when the files cannot be used."""
    try:
        config = load_directory(args.policies)
    except PolicyError as error:
        tell(f"llm-sidecar: the policy files cannot be used:\n{error}")
        return 2
    width = max((len(name) for name in config.providers), default=0)
    for name, row in config.providers.items():
        found = access(row, os.environ)
        models = sum(model.provider == name for model in config.models.values())
        state = f"off  {found.off}" if found.off else f"on   {found.source}"
        print(f"{name:{width}}  {state}  ({models} models)")
    return 0
