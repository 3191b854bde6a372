"""`llm-sidecar check`: validate a directory of policy files and run every `[[test]]`. No network, no keys."""

import argparse
import asyncio

from proxy.config import Config, PolicyError, load_directory, shipped
from proxy.log import tell
from proxy.policytest import bound, failures


def run(args: argparse.Namespace) -> int:
    """Print what is wrong, a line each; returns 1 when anything is, 2 when the directory cannot be read."""
    directory = args.directory or shipped()
    if not directory.is_dir():
        tell(f"llm-sidecar: {directory}: no such directory")
        return 2
    try:
        config = load_directory(directory)
        failed = asyncio.run(_run_tests(config))
    except PolicyError as error:
        print(error)
        return 1
    for line in failed:
        print(line)
    tests = sum(len(policy.test) for policy in config.policies.values())
    counts = f"{len(config.policies)} policies, {len(config.models)} models, {tests} tests"
    print(f"{directory}: {counts}, {len(failed)} failed" if failed else f"{directory}: {counts}, all good")
    return 1 if failed else 0


async def _run_tests(config: Config) -> list[str]:
    bound(config)  # what a directory without tests must survive, too
    return [
        f"{name}.toml: test {test.name!r}: {text}"
        for name, policy in config.policies.items()
        for test in policy.test
        if (text := failures(config, name, test)) is not None
    ]
