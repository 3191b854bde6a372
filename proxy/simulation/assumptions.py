"""What a replay takes for granted, in words: printed under every figure, because none is worth more than these."""

from collections.abc import Iterable, Sequence

from proxy.ask import BLOCK_TOKENS
from proxy.policy import ModelRow
from proxy.policytest import offline
from proxy.simulation.choice import PRIMARY, ROUND_ROBIN, Choice
from proxy.simulation.replay import World
from proxy.simulation.world import PACE, Fit


def assumptions(world: World, choices: Sequence[Choice]) -> list[str]:
    """Return them, a sentence or two each."""
    trace, config = world.trace, world.config
    used, unpriced = list(config.models.values()), [one.name for one in offline(config) if one.usd_per_mtok is None]
    lines = [
        *trace.notes,
        "Requests come when they came, whatever becomes of others; clients neither retry nor leave.",
        "Every upstream of the catalog counts as on, whatever keys this machine has.",
        _prices(config.prices.name, unpriced),
        _latency(used, world.fits),
        _faults(world),
        _cache(world),
        _tokens(world.fits),
        "Each model answers with as many tokens as the trace has, and how good its answer is nobody knows: quality is "
        "the catalog's number, and holds a policy's floor only as far as that is right.",
    ]
    if trace.stream is None:
        lines.append(f"{trace.format} does not say how answers were sent: all are streamed.")
    if trace.needs is None:
        lines.append(f"{trace.format} does not say what requests need (tools, images): any model will do.")
    if any(when.header or when.routed for one in choices for when in one.policy.when):
        lines.append("A [[when]] that goes by a header or a router fits no request: neither is in a trace.")
    if any(one.policy.fallback.hedge for one in choices):
        lines.append("Hedges are not played: nobody is asked beside a late upstream.")
    return [*lines, *_baselines(choices)]


def _prices(book: str, unknown: list[str]) -> str:
    text = f"Prices are the catalog's, or else those of {book} at noon, all the time; failed attempts cost nothing."
    return text + (f" Unknown, and so in no sum: {_some(unknown)}." if unknown else "")


def _latency(models: Iterable[ModelRow], fits: dict[str, Fit]) -> str:
    fitted = [row.name for row in models if (fit := fits.get(row.name)) is not None and (fit.first or fit.whole)]
    text = (
        "Time to first content is log-normal with the catalog's p50_ms and p99_ms, whatever the prompt's length and "
        f"the load; then {PACE:g} tokens a second. A fault is told when an answer would have begun."
    )
    return text + (f" As the ledger had it instead, where it had enough: {_some(fitted)}." if fitted else "")


def _faults(world: World) -> str:
    assumed = world.assumed
    told = [f"{100 * share:g} % of the attempts at {name or 'all others'}" for name, share in assumed.faults.items()]
    told += [f"all at {one.upstream} from {one.begins:g} to {one.ends:g} s" for one in assumed.outages]
    learned = [f"{100 * sum(fit.faults.values()):.2g} % at {name}" for name, fit in world.fits.items() if fit.faults]
    text = f"Faults, by chance: {_some(told) if told else 'none, for nobody said how many'}"
    text += f"; as the ledger had them: {_some(learned)}" if learned else ""
    return text + ". Prompts over a model's context fail; what was under way when an outage begins does not."


def _cache(world: World) -> str:
    if world.trace.blocks is None:
        return f"{world.trace.format} does not say which prompts begin alike: no token is read from a provider's cache."
    kept = sorted({(row.cache.ttl_s, row.cache.min_tokens) for row in world.config.providers.values()})
    return (
        "Each upstream keeps the prompts that it was sent: "
        + " or ".join(f"{ttl_s:g} s after their last use, from {least} tokens on" for ttl_s, least in kept)
        + f", and finds them again in whole blocks of {BLOCK_TOKENS} tokens. Where keeping has a price (cache_write), "
        "prompts are marked to be kept."
    )


def _tokens(fits: dict[str, Fit]) -> str:
    if len(fits) == 1:
        return "All upstreams count a prompt's tokens alike; tokenisers differ by up to 30 %."
    known = [f"{fit.ratio:.2f} at {name or 'all others'}" for name, fit in fits.items()]
    return f"Tokens counted for one that was estimated, as in the ledger: {_some(known)}."


def _baselines(choices: Iterable[Choice]) -> Iterable[str]:
    kinds = {one.baseline for one in choices}
    if PRIMARY in kinds:
        yield (
            f"'{PRIMARY}' asks a policy's candidates in the order of its file, those with a price first, under the "
            "same requirements and fallbacks."
        )
    if ROUND_ROBIN in kinds:
        yield f"'{ROUND_ROBIN}' asks the same candidates in turn, under the same requirements and fallbacks."


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
