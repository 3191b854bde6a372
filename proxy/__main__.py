"""The command line: `llm-sidecar VERB`, also `python -m proxy VERB`. Exit code 0 good, 1 found problems, 2 misuse.

A verb's module is imported only when it is called: `--help` and `check` need not wait for an HTTP stack.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from proxy import __version__
from proxy.config import PolicyError
from proxy.log import tell

# Where a ledger is unless said otherwise.
_LEDGER: Final = Path("ledger")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code. Raises SystemExit(2) for misuse, as argparse does."""
    args = parser().parse_args(argv)
    if args.verb == "version":
        print(f"llm-sidecar {__version__}")
        return 0
    verb = import_module(f"proxy.commands.{args.verb}")
    try:
        code: int = verb.run(args)
        sys.stdout.flush()
    except PolicyError as error:
        tell(error.complaint())
        return 2
    except BrokenPipeError:  # `| head` has read enough; without this Python complains once more at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    whole = argparse.ArgumentParser(
        prog="llm-sidecar",
        description="OpenAI's chat API on localhost, many providers behind it, chosen by policy files.",
    )
    whole.add_argument("--version", action="version", version=f"llm-sidecar {__version__}")
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")

    _serve(verbs.add_parser("serve", help="run the sidecar"))

    demo = verbs.add_parser("demo", help="see policies at work on built-in providers: no key, no network")
    demo.add_argument("--requests", type=int, default=300, help="how many requests to send (default 300)")

    faults = verbs.add_parser(
        "faults", help="run a provider that fails as you ask: try your app, or your sidecar, on it"
    )
    faults.add_argument("--port", type=_port, default=4140, help="port to bind, 0 for any free one (default 4140)")
    faults.add_argument("--list", action="store_true", help="only print what it can do")

    run = verbs.add_parser("run", help="run a command with a sidecar beside it, and print the bill")
    _policies(run)
    run.add_argument("--demo", action="store_true", help="add the built-in demo providers")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD ...", help="the command and its arguments")

    check = verbs.add_parser("check", help="validate policy files and run their tests; no network, no keys")
    check.add_argument("directory", nargs="?", type=Path, help="directory of policy files (default: the shipped ones)")

    explain = verbs.add_parser("explain", help="show how a request would be routed; nothing is called")
    _policies(explain)
    explain.add_argument("--model", help="the model to ask for")
    explain.add_argument("--request", type=Path, metavar="FILE", help="a request body as JSON")
    explain.add_argument("--strategy", help="as the header x-sidecar-strategy")

    _conform(verbs.add_parser("conform", help="hold an adapter to its contract and to recorded answers"))
    _catalog(verbs)
    _usage(verbs.add_parser("usage", help="tell what a ledger says was asked, and what it cost"))
    _simulate(verbs.add_parser("simulate", help="replay recorded traffic through policies: what they would have cost"))

    prices = verbs.add_parser("prices", help="tell which price book is used, or write a new one")
    _policies(prices)
    prices.add_argument(
        "--update", type=Path, metavar="DIR", help="write DIR/prices.json from the installed genai-prices"
    )
    verbs.add_parser("version", help="print the version")
    return whole


def _usage(usage: argparse.ArgumentParser) -> None:
    usage.add_argument(
        "ledger", nargs="?", type=Path, default=_LEDGER, help=f"a ledger's directory or file (./{_LEDGER})"
    )
    usage.add_argument(
        "--by", default="upstream", metavar="KEYS", help="any of day,policy,upstream,tag,model (upstream)"
    )
    usage.add_argument(
        "--since", metavar="TIME", help="from this day or time on, as 2026-11-25 or 2026-11-25T13:00 (UTC)"
    )
    usage.add_argument("--until", metavar="TIME", help="until the end of this day, or before this time")
    usage.add_argument(
        "--baseline", metavar="UPSTREAM", help="and what the same tokens would have cost at provider/model"
    )
    _policies(usage)
    form = usage.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument("--csv", action="store_true", help="as CSV")


def _catalog(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs that look at the catalog."""
    for verb, text in (("models", "list what can be asked for"), ("providers", "list providers: on or off, and why")):
        _policies(verbs.add_parser(verb, help=text))
    probe = verbs.add_parser("probe", help="make one tiny real call to a provider, and say what is wrong with it")
    _policies(probe)
    probe.add_argument("provider", metavar="PROVIDER", help="a provider of the catalog")
    probe.add_argument(
        "--model", metavar="ID", help="the provider's name of a model (default: its first in the catalog)"
    )
    probe.add_argument("--stream", action="store_true", help="ask for a stream")

    login = verbs.add_parser("login", help="log in to a provider that offers it, to get a key")
    _policies(login)
    login.add_argument("provider", metavar="PROVIDER", help="a provider with a [provider.login] in the catalog")
    login.add_argument("--client-id", metavar="ID", help="the client id of your OAuth app")


def _conform(conform: argparse.ArgumentParser) -> None:
    conform.add_argument("adapter", help="a built-in wire language, or package.module from outside")
    conform.add_argument("--recordings", type=Path, metavar="DIR", help="recorded exchanges: docs/adding-a-provider.md")
    conform.add_argument(
        "--quirks", type=lambda text: text.split(","), default=[], metavar="NAMES", help="quirks, by commas"
    )


def _serve(serve: argparse.ArgumentParser) -> None:
    _policies(serve)
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to bind (anything but loopback needs SIDECAR_API_KEYS)"
    )
    serve.add_argument("--port", type=_port, default=4141, help="port to bind, 0 for any free one (default 4141)")
    serve.add_argument(
        "--admin", type=_address, metavar="HOST:PORT", help="a listener of its own for /metrics and /status"
    )
    serve.add_argument("--demo", action="store_true", help="add the built-in demo providers")
    serve.add_argument("--workers", type=_workers, default=1, metavar="N", help="processes that share the port (1)")
    serve.add_argument(
        "--max-in-flight",
        type=_count,
        metavar="N",
        help="requests at once in a process (5000, or what open files allow)",
    )
    serve.add_argument(
        "--ledger",
        type=Path,
        nargs="?",
        const=_LEDGER,
        metavar="DIR",
        help=f"keep a record of every attempt in files there; without DIR in ./{_LEDGER} (default: none)",
    )
    serve.add_argument("--drain-delay", type=_seconds, default=0.0, metavar="S", help="after SIGTERM, listen S s more")
    serve.add_argument("--drain-timeout", type=_seconds, default=25.0, metavar="S", help="then give streams S s to end")


def _simulate(simulate: argparse.ArgumentParser) -> None:
    simulate.add_argument("trace", type=Path, metavar="TRACE", help="a ledger, or a trace of Azure's or Mooncake's")
    _policies(simulate)
    simulate.add_argument("--policy", action="append", default=[], metavar="NAME", help="play this policy (all)")
    simulate.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="NAME",
        help="compare with 'primary' (default), 'round-robin' or an upstream",
    )
    simulate.add_argument("--seed", type=int, default=1, metavar="N", help="chance; the same again gives the same (1)")
    simulate.add_argument("--limit", type=_count, metavar="N", help="only the first N requests")
    simulate.add_argument("--speed", type=_factor, default=1.0, metavar="X", help="X times as many requests a second")
    simulate.add_argument(
        "--failure-rate",
        action="append",
        default=[],
        metavar="[UPSTREAM=]SHARE",
        help="attempts that fail by chance, 0 to 1",
    )
    simulate.add_argument(
        "--outage",
        action="append",
        default=[],
        metavar="UPSTREAM@START+SECONDS",
        help="nobody answers there for so long",
    )
    simulate.add_argument("--jobs", type=_workers, metavar="N", help="runs at once, a process each (as many as pay)")
    simulate.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")
    simulate.add_argument("--json", action="store_true", help="print JSON")


def _policies(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--policies", type=Path, metavar="DIR", help="directory of policy files (default: the shipped ones)"
    )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 65_536:
        raise ValueError(text)
    return port


def _workers(text: str) -> int:
    workers = int(text)
    if not 1 <= workers <= 64:
        raise ValueError(text)
    return workers


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


def _factor(text: str) -> float:
    factor = float(text)
    if not 0 < factor <= 1e6:
        raise ValueError(text)
    return factor


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 86_400:
        raise ValueError(text)
    return seconds


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]") or "127.0.0.1", _port(port)


if __name__ == "__main__":
    sys.exit(main())
