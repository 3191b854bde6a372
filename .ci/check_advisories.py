"""Fail when an installed dependency is a version that advisories.toml calls bad, or when that list has grown old."""

import sys
import tomllib
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MOST_DAYS = 180


def numbers(text: str) -> tuple[int, ...]:
    """Return the release numbers of a version, without what follows them."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in text.split("+")[0].split(".")[:3])


def main() -> int:
    """Print what was found; return 1 for a bad version or an old list."""
    listed = tomllib.loads((Path(__file__).parent / "advisories.toml").read_text())
    checked: date = listed["checked"]
    age = (datetime.now(UTC).date() - checked).days
    problems = [f"the list is {age} days old; look at the advisories again"] if age > MOST_DAYS else []
    for advisory in listed["advisory"]:
        try:
            installed = version(advisory["package"])
        except PackageNotFoundError:
            continue
        if numbers(installed) < numbers(advisory["below"]):
            problems.append(f"{advisory['package']} {installed}: {', '.join(advisory['ids'])}: {advisory['text']}")
    for problem in problems:
        print(problem)
    print(f"advisories of {checked}: {len(listed['advisory'])} looked at, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
