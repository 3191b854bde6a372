"""`llm-sidecar models`: what a client can ask for, with price, quality and whether it is on."""

import argparse
import os

from proxy.config import PolicyError, load_directory
from proxy.keys import access
from proxy.log import tell
from proxy.policy import ModelRow


def run(args: argparse.Namespace) -> int:
    """Print policies, then models; returns 2 when the files cannot be used."""
    try:
        config = load_directory(args.policies)
    except PolicyError as error:
        tell(f"llm-sidecar: the policy files cannot be used:\n{error}")
        return 2
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
