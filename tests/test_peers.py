"""Several workers are one sidecar: limits hold and counters count over all of them."""

import sys
from typing import Any

import msgspec
import pytest

from proxy.app import App, Options
from proxy.board import Board
from proxy.errors import RateLimitError
from proxy.gate import Gate
from proxy.metrics import Metrics
from proxy.peers import Alone, Peers
from proxy.policy import ProviderRow
from tests.conftest import IN_ORDER, Sidecar, StartUpstream, catalog, until
from tests.fake_upstream import completion

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers need Linux")


def row(**limits: int) -> ProviderRow:
    """A provider with these limits."""
    return msgspec.convert({"name": "p", "base_url": "http://x", "limits": limits}, ProviderRow)


def gates(board: Board, **limits: int) -> list[Gate]:
    """The gate of one provider in each worker."""
    return [Peers(board, worker).gate(row(**limits)) for worker in range(board.workers)]


async def fill(*gates: Gate, tokens: int = 0) -> int:
    """Enter the gates in turn until all refuse; returns how many got in."""
    inside = 0
    for number in range(100):
        try:
            gates[number % len(gates)].enter(tokens)
        except RateLimitError:
            if inside < number:
                return inside
            continue
        inside += 1
    return inside


@pytest.mark.parametrize(("limits", "tokens", "room"), [({"rpm": 5}, 0, 5), ({"tpm": 100}, 30, 3)])
async def test_limits_per_minute_hold_over_all(limits: dict[str, int], tokens: int, room: int) -> None:
    """The minute's share is one for all workers, and a successor of a dead one gets no new one."""
    board = Board(3)
    assert await fill(*gates(board, **limits), tokens=tokens) == room

    board.bury(0)

    for gate in gates(board, **limits):
        assert "per minute" in (gate.refuses(30) or "")


async def test_limit_of_requests_at_once_holds_over_all() -> None:
    """A place that any worker gives back is free for any other."""
    one, other = gates(Board(2), concurrency=3)
    assert await fill(one, other) == 3
    assert (one.total(), other.total()) == (3, 3)
    assert other.refuses(0) == "limit of 3 requests at once"

    one.leave()

    assert (one.refuses(0), other.refuses(0), other.total()) == (None, None, 2)


async def test_a_dead_worker_holds_no_place() -> None:
    """What it had under way is over."""
    board = Board(2)
    one, other = gates(board, concurrency=1)
    one.enter(0)
    assert other.refuses(0) is not None

    board.bury(0)

    assert other.refuses(0) is None


async def test_new_limits_know_what_is_used_up() -> None:
    """A reload that changes a limit frees neither the places nor the minute's share."""
    board = Board(2)
    await fill(*gates(board, rpm=5, concurrency=9))

    (gate, _) = gates(board, rpm=6, concurrency=9)

    assert gate.total() == 5
    assert await fill(gate) == 1


async def test_beyond_the_table_limits_hold_per_worker() -> None:
    """A provider that finds no place is limited all the same."""
    one, other = gates(Board(2, places=0), rpm=2)

    assert (await fill(one), await fill(other)) == (2, 2)


async def test_without_limits_nothing_is_refused_and_all_is_counted() -> None:
    """A provider without limits shows what is under way, too."""
    one, other = gates(Board(2))
    assert await fill(one, other) == 100
    assert one.total() == 100


def test_alone_there_is_nothing_to_share() -> None:
    """A single process has plain gates, and its totals are its own numbers."""
    alone, metrics = Alone(), Metrics()
    alone.resume(metrics)
    alone.publish(metrics, {})

    assert type(alone.gate(row())) is Gate
    assert alone.totals(metrics, {"a/m": 1}) == (metrics, {"a/m": 1}, 0)


def test_totals_are_sums() -> None:
    """Counters, histograms and what is under way are added up; a reload that all have seen is one."""
    board = Board(3)
    for worker in range(3):
        peers, metrics = Peers(board, worker), Metrics()
        peers.visits = range(worker)
        metrics.usd.add(("a/m",), 0.5)
        metrics.overhead.add(0.002)
        metrics.reloads.add(("ok",))
        peers.publish(metrics, {"a/m": worker, f"b/{worker}": 1})

    totals = peers.totals(metrics, {"a/m": 2})

    assert totals.metrics.usd.values == {("a/m",): 1.5}
    assert (sum(totals.metrics.overhead.counts), totals.metrics.overhead.sum) == (3, 0.006)
    assert totals.metrics.reloads.values == {("ok",): 1}
    assert totals.flying == {"a/m": 3, "b/0": 1, "b/1": 1}
    assert totals.visits == 3


def test_counters_never_fall() -> None:
    """Neither from one worker's answer to the next one's, nor when a worker dies and another takes its place."""
    board = Board(2)
    one, other = Peers(board, 0), Peers(board, 1)
    mine, theirs = Metrics(), Metrics()
    one.publish(mine, {"a/m": 7})
    mine.usd.add(("a/m",), 2)
    assert one.totals(mine, {}).metrics.usd.total() == 2
    assert other.totals(theirs, {}).metrics.usd.total() == 2

    one.publish(mine, {"a/m": 7})
    board.bury(0)
    assert other.totals(theirs, {}).flying == {}
    assert other.totals(theirs, {}).metrics.usd.total() == 2
    successor = Metrics()
    one.resume(successor)
    one.publish(successor, {})
    assert other.totals(theirs, {}).metrics.usd.total() == 2


async def test_two_workers_are_one_sidecar(tmp_path: Any, upstream: StartUpstream) -> None:
    """They share a port, a limit and the numbers on the admin surface."""
    facts = catalog(await upstream(completion()), limits={"rpm": 6})
    (tmp_path / "catalog.toml").write_text(facts)
    (tmp_path / "test.toml").write_text(IN_ORDER)
    board, port, running = Board(2), 0, []
    for worker in range(2):
        app = App(Options(policies=tmp_path, port=port), {}, lambda lines: None, Peers(board, worker))
        await app.start()
        port = int(app.address.rpartition(":")[2])
        running.append(Sidecar(app, tmp_path, []))
    assert "workers:       2" in running[0].app.lines()

    statuses, answered = [], set()
    for _ in range(100):
        got = await running[0].post(connection="close")
        statuses.append(got.status)
        answered.add(got.headers["x-request-id"].rpartition("_")[0])
    assert (statuses.count(200), statuses.count(429), len(answered)) == (6, 94, 2)

    await until(lambda: all(board.page(worker)[0] for worker in range(2)))
    for one in running:
        one.app.peers.publish(one.app.metrics, one.app.gateway.flying())
    for one in running:
        status = one.app.gateway.status()
        assert (status["workers"], status["spend_usd"], status["in_flight"]) == (2, 90e-6, 0)
        assert 'attempts_total{upstream="p0/m",outcome="ok"} 6' in one.app.gateway.totals().metrics.text({})
        await one.session.close()
        await one.app.stop()
