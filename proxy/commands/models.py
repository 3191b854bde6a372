"""`llm-sidecar models`: what a client can ask for, with price, quality and whether it is on."""

import argparse
import os
import time

from proxy.config import Config, load_directory
from proxy.keys import access
from proxy.policy import ModelRow
from proxy.prices import Quote, Tariff
from proxy.registry import tariff


def run(args: argparse.Namespace) -> int:
    """Print policies, then models. Raises PolicyError."""
    config = load_directory(args.policies)
    width = max((len(name) for name in (*config.policies, *config.models)), default=0)
    tariffs = {name: _tariff(config, name) for name in config.providers}
    for name, policy in config.policies.items():
        print(f"{name:{width}}  policy  {policy.strategy:9} {policy.description}")
    for name, model in config.models.items():
        off = access(config.providers[model.provider], os.environ).off
        quote = tariffs[model.provider].quote(model.id)
        print(f"{name:{width}}  {'off   ' if off else 'on    '}  {_facts(model, quote)}")
    return 0


def _tariff(config: Config, name: str) -> Tariff:
    row = config.providers[name]
    found = tariff(config, row, access(row, os.environ).base_url)
    found.tick(time.time())
    return found


def _facts(model: ModelRow, quote: Quote) -> str:
    price = quote.price
    quality = "" if model.quality is None else f", quality {model.quality:g}"
    if price is None:
        return f"price unknown{quality}"
    tiers = "".join(f", more above {tier.above:,} tokens" for tier in price.tiers[:1])
    return f"${price.input:g} in, ${price.output:g} out per Mtok{tiers} ({quote.source}){quality}"
