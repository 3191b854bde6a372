"""`llm-sidecar models`: what a client can ask for, with price, quality and whether it is on."""

import argparse
import os

from proxy.config import load_directory
from proxy.keys import access
from proxy.policy import ModelRow


def run(args: argparse.Namespace) -> int:
    """Print policies, then models. Raises PolicyError."""
    config = load_directory(args.policies)
    width = max((len(name) for name in (*config.policies, *config.models)), default=0)
    for name, policy in config.policies.items():
        print(f"{name:{width}}  policy  {policy.strategy:9} {policy.description}")
    for name, model in config.models.items():
        off = access(config.providers[model.provider], os.environ).off
        print(f"{name:{width}}  {'off   ' if off else 'on    '}  {_facts(model)}")
    return 0


def _facts(model: ModelRow) -> str:
    price = (
        "price unknown" if model.price is None else f"${model.price.input:g} in, ${model.price.output:g} out per Mtok"
    )
    quality = "" if model.quality is None else f", quality {model.quality:g}"
    return price + quality
