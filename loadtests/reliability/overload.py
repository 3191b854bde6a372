"""L11: three times as many requests as may be in flight. Some are served as ever, the rest is refused at once."""

from contextlib import redirect_stderr
from io import StringIO
from typing import Final

import uvloop

from loadtests.reliability.bed import MODEL, Bed, bed
from loadtests.reliability.client import Client, Outcome, at_rate
from loadtests.reliability.figure import Line, Settings, at_most, exactly, skipped, told
from loadtests.reliability.judge import Kind, judge, tally
from loadtests.reliability.script import Script
from loadtests.report import percentile
from proxy.__main__ import parser

_OPTION: Final = "--max-in-flight"
_CAP: Final = 40
_ANSWER_S: Final = 0.2
_OVER: Final = 3
_REFUSED_MS: Final = 20
_SLOWER: Final = 2.0


def overload(settings: Settings) -> list[Line]:
    """L11: a cap of 40, answers of 0.2 s, 600 requests a second."""
    if not _known():
        return [skipped(f"serve has no {_OPTION}")]
    cap = settings.count(_CAP, 10)
    able = cap / _ANSWER_S
    with bed(_OPTION, str(cap)) as it:
        calm = uvloop.run(_load(it, able / 2, settings.time(5, 2)))
        storm = uvloop.run(_load(it, _OVER * able, settings.time(10, 2)))
        most, rss = it.upstream.journal()["most_open"], it.sidecar.usage().peak_mb
    return [*_lines(calm, storm), at_most("in flight at the upstream", cap, most), told("RSS", f"{rss:.0f} MiB")]


def _lines(calm: list[Outcome], storm: list[Outcome]) -> list[Line]:
    judged = [(judge(one), one) for one in storm]
    served = [one.total_s for found, one in judged if found.kind is Kind.RIGHT]
    refused = [one for found, one in judged if found.kind is Kind.REFUSED]
    proper = [one for one in refused if one.status == 503 and one.headers.get("retry-after", "").isdigit()]
    alone, crowded = percentile([one.total_s for one in calm], 0.99), percentile(served, 0.99)
    return [
        exactly("unloaded: answers that are right", len(calm), tally(calm).kinds[Kind.RIGHT]),
        exactly("right or refused", len(storm), len(served) + len(refused)),
        Line("refused, of all", "> 0.5", f"{len(refused) / len(storm):.3f}", len(refused) > len(storm) / 2),
        exactly("refused with 503 and Retry-After", len(refused), len(proper)),
        at_most(
            "refusal, p99", _REFUSED_MS, round(1000 * percentile([one.total_s for one in refused], 0.99), 1), " ms"
        ),
        at_most("answer, p99, of the unloaded p99", _SLOWER, round(crowded / alone, 3)),
        told("answers", tally(storm)),
    ]


def _known() -> bool:
    try:
        with redirect_stderr(StringIO()):
            parser().parse_args(["serve", _OPTION, "1"])
    except SystemExit:
        return False
    return True


async def _load(it: Bed, rate: float, seconds: float) -> list[Outcome]:
    client = Client(it.port, MODEL)
    outcomes = await at_rate(client, rate, seconds, lambda _: Script.new(stream=False, wait=_ANSWER_S))
    client.close()
    return outcomes
