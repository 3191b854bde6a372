"""What must hold under load, outage, reload, kill and drain, with its pass figures.

    python -m loadtests.reliability                          all figures, about 12 minutes
    python -m loadtests.reliability L1 L5                    two of them
    python -m loadtests.reliability --scale 0.05             all, small: a quick look, not the figures
    python -m loadtests.reliability L3 --seconds 1800        a longer soak
    python -m loadtests.reliability L5 --litellm VENV        L5 through LiteLLM's proxy, too, from its environment

Linux, loopback, no key. Exit code 0: everything held; 1: something did not; 2: it cannot run here.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from loadtests.reliability.bounds import bounds
from loadtests.reliability.endings import drain, leave
from loadtests.reliability.faults import faults
from loadtests.reliability.figure import Figure, Line, Settings, exit_code, render
from loadtests.reliability.outage import dark
from loadtests.reliability.overload import overload
from loadtests.reliability.reloads import reloads
from loadtests.reliability.soak import files, soak
from loadtests.reliability.streams import five_thousand, large_bodies, thousand
from loadtests.reliability.workers import kill
from loadtests.report import machine

FIGURES: Final = (
    Figure("L1", "1000 streams of 40 events at once", thousand),
    Figure("L2", "5000 streams of 20 events", five_thousand),
    Figure("L3", "soak: streams, answers, faults, clients that leave", soak),
    Figure("L4", "files after a load", files),
    Figure("L5", "10 000 requests, a fifth meets a fault", faults),
    Figure("L6", "the first choice dark for a minute, then back", dark),
    Figure("L7", "one of two workers killed", kill),
    Figure("L8", "100 reloads of the policies in 30 s", reloads),
    Figure("L9", "SIGTERM under open streams", drain),
    Figure("L10", "500 clients leave at once", leave),
    Figure("L11", "three times what may be in flight", overload),
    Figure("L13", "L1 with requests of 1 MiB", large_bodies),
    Figure("bounds", "F1, F23 and F36: what a fault may take", bounds),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; returns the exit code."""
    args = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, too
    settings = Settings(args.scale, args.seconds, args.litellm)
    chosen = [figure for figure in FIGURES if not args.figures or figure.name in args.figures]
    print(f"{machine()}; scale {settings.scale:g}", flush=True)
    found: list[tuple[Figure, list[Line]]] = []
    try:
        for figure in chosen:
            print(f"{figure.name}: {figure.what}", file=sys.stderr, flush=True)
            found.append((figure, figure.run(settings)))
    except RuntimeError as error:
        print(f"cannot go on: {error}", file=sys.stderr)
        return 2
    finally:
        print(f"\n{render(found)}")
    return exit_code(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m loadtests.reliability", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", nargs="*", type=_name, metavar="L1", help="which (default: all)")
    parser.add_argument("--scale", type=_between(0.01, 1), default=1.0, metavar="X", help="0.01-1: times all counts")
    parser.add_argument("--seconds", type=_between(1, 7200), default=300.0, metavar="S", help="the soak's (300)")
    parser.add_argument("--litellm", type=Path, metavar="VENV", help="L5 through LiteLLM's proxy, too")
    return parser


def _name(text: str) -> str:
    names = [figure.name for figure in FIGURES]
    if text not in names:
        raise argparse.ArgumentTypeError(f"there is no {text!r}, but {', '.join(names)}")
    return text


def _between(least: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        if not least <= float(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least:g} and {most:g}")
        return float(text)

    return number


if __name__ == "__main__":
    sys.exit(main())
