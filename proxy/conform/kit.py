"""A run of the kit: every exchange of a folder, every promise of the contract, and what came of each, in words.

An adapter is watched while it works: whoever opens files or sockets does I/O, which adapters do not.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from proxy import errors
from proxy.adapter import Adapter, Target, load
from proxy.conform import plain, recordings
from proxy.conform.cases import Case, case_of, unusable
from proxy.conform.checks import MODEL, Mismatch, checks_of, strict, tried
from proxy.conform.contract import CONTRACT
from proxy.conform.features import table
from proxy.conform.sdk import Unreadable
from proxy.conform.stress import stresses_of

_IO: Final = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "urllib.", "http.", "open")
# What Python itself opens to import a module.
_CODE: Final = (".py", ".pyc", ".so", ".pth")


class Finding(NamedTuple):
    """What does not hold, of which exchange; `where` is empty for the contract."""

    where: str
    check: str
    text: str


class Report(NamedTuple):
    """What came of a run. `unused` is why by name of the exchange, `lenient` those whose recorder has changed them."""

    cases: list[Case]
    promises: int
    findings: list[Finding]
    unused: dict[str, str]
    lenient: list[str]


class Watch:
    """Counts I/O while it is on; an audit hook of Python's, which stays for as long as the process does."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Note `event` if it is I/O."""
        if self.on and event.startswith(_IO) and not (event == "open" and str(args[0]).endswith(_CODE)):
            self.seen.append(f"{event} {args[:2]!r}")


def watch() -> Watch:
    """Return a watch that is wound up."""
    found = Watch()
    sys.addaudithook(found)
    return found


def finding(watched: Watch, where: str, check: Callable[..., None], *args: Any) -> Finding | None:
    """Return what a check finds, None when all holds."""
    watched.seen.clear()
    watched.on = True
    try:
        tried(check.__name__, "no such exception", lambda: check(*args))
        text = ""
    except Mismatch as error:
        text = str(error)
    except Unreadable as error:
        text = f"expected what a client can read, came {error}"
    except errors.UpstreamError as error:
        text = f"expected an answer, came {error.kind}: {error.message}"
    finally:
        watched.on = False
    if watched.seen:
        text = f"expected no I/O, came {watched.seen[0]}"
    return Finding(where, check.__name__, text) if text else None


def found_cases(adapter: str, root: Path) -> tuple[list[Case], dict[str, str]]:
    """Return the exchanges of a folder, and why others of it are not used. Raises plain.UnreadableError.

    Of a corpus, only what is for the adapter, or, for a third party's, everything of the API that its index names so.
    """
    if not root.is_dir():
        raise plain.UnreadableError(f"{root}: no such directory")
    if not (root / "index.json").exists():
        return plain.cases(root, adapter), {}
    entries = recordings.entries(root)
    own = "." in adapter
    near = {entry.provider for entry in entries if entry.adapter == adapter}
    wanted = [one for one in entries if own or one.adapter == adapter or (not one.adapter and one.provider in near)]
    reasons = {entry.file: None if own else unusable(entry) for entry in wanted}
    used = [case_of(entry, adapter if own else None) for entry in wanted if reasons[entry.file] is None]
    return used, {file: why for file, why in reasons.items() if why is not None}


def run(name: str, root: Path | None = None, quirks: Iterable[str] = (), *, stress: bool = True) -> Report:
    """Return what holds of the adapter `name`. Raises LookupError without it, plain.UnreadableError for recordings."""
    adapter, watched = load(name), watch()
    cases, unused = found_cases(name, root) if root is not None else ([], {})
    promised = [(check, Target(MODEL, quirks=frozenset(quirks))) for check in CONTRACT]
    found = [finding(watched, "", check, adapter, target) for check, target in promised]
    lenient = []
    for case in cases:
        found += checked(watched, adapter, case, stress=stress)
        if case.outcome == "answer" and not any(one and one.where == case.file for one in found):
            lenient += [] if strict(adapter, case) else [case.file]
    return Report(cases, len(promised), [one for one in found if one is not None], unused, lenient)


def checked(watched: Watch, adapter: Adapter, case: Case, *, stress: bool) -> list[Finding | None]:
    """Return what does not hold of an exchange. One that is not understood is not told otherwise, too."""
    found = [finding(watched, case.file, check, adapter, case) for check in checks_of(case)]
    if stress and not any(found):
        found += [finding(watched, case.file, check, adapter, case) for check in stresses_of(case)]
    return found


def words(name: str, report: Report) -> str:
    """Return a report as text."""
    bad = {one.where for one in report.findings}
    kept = sum(1 for one in report.findings if not one.where)
    text = f"{name}: {report.promises - kept} of {report.promises} promises of the contract hold"
    failed = sum(case.file in bad for case in report.cases)
    text += f", {len(report.cases) - failed} of {len(report.cases)} recordings\n"
    if report.cases:
        text += "\n" + table((case.provider, case, case.file not in bad) for case in report.cases)
    for why, count in sorted(Counter(report.unused.values()).items()):
        text += f"\nnot used: {count} x {why}"
    text += "".join(f"\nedited by its recorder, held to its meaning only: {file}" for file in report.lenient)
    for one in report.findings:
        text += f"\nFAILED {one.where or 'contract'}: {one.check}: {one.text}"
    return text.rstrip("\n") + "\n"
