"""`llm-sidecar providers`: which are on, which are off, and what each wants."""

import argparse
import os
from urllib.parse import urlsplit

from proxy.config import Config, load_directory
from proxy.keys import Access, access
from proxy.policy import ProviderRow


def run(args: argparse.Namespace) -> int:
    """Print one line per provider. Raises PolicyError."""
    config = load_directory(args.policies)
    table = [_cells(config, row) for row in config.providers.values()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    return 0


def _cells(config: Config, row: ProviderRow) -> tuple[str, ...]:
    """Return name, state, language, number of models, host, and what the key is or where it is wanted."""
    found = access(row, os.environ)
    count = sum(model.provider == row.name for model in config.models.values())
    models = f"{count} model" if count == 1 else f"{count} models"
    host = urlsplit(found.base_url).netloc or row.base_url
    return row.name, "off" if found.off else "on", row.adapter, models, host, found.off or _told(found, row)


def _told(found: Access, row: ProviderRow) -> str:
    """Return where the keys are, how many, and what is allowed with them."""
    limits = row.limits
    allowed = ((limits.rpm, "rpm"), (limits.tpm, "tpm"), (limits.concurrency, "at once"))
    more = [f"{len(found.keys)} keys"] if len(found.keys) > 1 else []
    more += [f"{limit} {unit}" for limit, unit in allowed if limit is not None]
    return f"{found.source} ({', '.join(more)})" if more else found.source
