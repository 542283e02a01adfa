import asyncio
import random
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from lbproxy.address import Address, parse_address
from lbproxy.config.model import HealthCheck
from lbproxy.control.checker import Checker
from lbproxy.control.probe import ProbeSpec, Result, Verdict
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Health
from lbproxy.domain.strategies.least_connections import LeastConnections
from lbproxy.tasks import Tasks
from lbproxy.telemetry.slots import SERVER, Slots

PASS = Result(Verdict.PASS, why="answered 200 to GET /")
FAIL = Result(Verdict.FAIL, "status", "answered 500 to GET /, expected 200-399")
REFUSED = Result(Verdict.REFUSED, "refused", "connection refused")
TIMEOUT = Result(Verdict.TIMEOUT, "timeout", "no answer within 2 s")
NONE = Result(Verdict.NONE, "local_resource", "the check could not be made: Too many open files")


class Bench:
    """A pool under observation with a clock that stands still and a probe that answers when told."""

    def __init__(self, n_servers: int = 2) -> None:
        strategy = LeastConnections({}, random.Random(1))
        addresses = [parse_address(f"127.0.0.1:{5001 + number}") for number in range(n_servers)]
        self.now = 100.0
        self.pool = Pool("predict", [Server(str(item), item) for item in addresses], strategy, strategy)
        self.tasks = Tasks(self.crashes)
        self.row = Slots().allocate(SERVER)
        self.started: list[str] = []
        self.answers: asyncio.Queue[Result] = asyncio.Queue()
        self.checker = Checker(
            self.tasks, lambda: self.now, random.Random(1), lambda pool, server: self.row, self.probe
        )

    def crashes(self, error: BaseException) -> None:
        raise AssertionError(error)

    async def probe(self, spec: ProbeSpec, address: Address) -> Result:
        self.started.append(str(address))
        return await self.answers.get()

    def watch(self, check: HealthCheck | None = None) -> Server:
        """From now on; unless the check is the test's own, none comes by itself."""
        wanted = check or HealthCheck(interval=1000.0)
        self.checker.add_pool(self.pool, wanted, ProbeSpec.from_config(wanted))
        if check is None:
            for watch in self.checker._watches.values():
                watch.due_at = self.now + 1000.0
        return self.pool.servers[0]

    def take(self, result: Result, took_s: float = 0.1) -> None:
        """A result for the first server."""
        watch = self.checker._watches["predict", self.pool.servers[0].key]
        self.checker.take(watch, result, self.now, self.now + took_s)

    def counted(self, word: str) -> int:
        return self.row[SERVER.column("health_checks_total", word)]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.tasks.cancel_all()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_first_failure_takes_an_unknown_server_out(bench: Bench) -> None:
    server = bench.watch()
    assert server.is_usable
    bench.take(FAIL)
    assert (server.health, server.down_reason, server.why) == (Health.DOWN, "status", FAIL.why)
    assert bench.counted("fail") == 1


async def test_rise_and_fall(bench: Bench) -> None:
    server = bench.watch()
    seen = []
    for result in (PASS, FAIL, FAIL, PASS, FAIL, FAIL, FAIL, PASS, FAIL, PASS, PASS):
        bench.take(result)
        seen.append(server.health.value)
    assert seen == ["up", "up", "up", "up", "up", "up", "down", "down", "down", "down", "up"]


async def test_flapping_each_check_never_flips_a_server(bench: Bench) -> None:
    server = bench.watch()
    bench.take(PASS)
    flips: list[str] = []
    bench.pool.on_flip(lambda server, old, new: flips.append(new))
    for number in range(100):
        bench.take(FAIL if number % 2 else PASS)
    assert (server.health, flips) == (Health.UP, [])


async def test_a_refused_check_takes_a_server_out_at_once(bench: Bench) -> None:
    server = bench.watch()
    bench.take(PASS)
    bench.take(REFUSED)
    assert (server.health, server.down_reason) == (Health.DOWN, "refused")


async def test_one_pass_is_enough_when_nobody_else_is_usable(bench: Bench) -> None:
    server = bench.watch()
    bench.pool.server_refused(bench.pool.servers[1], bench.now)
    bench.take(REFUSED)
    bench.take(PASS)
    assert server.health is Health.UP


async def test_a_time_out_with_progress_is_busy(bench: Bench) -> None:
    server = bench.watch()
    for _ in range(5):
        server.progress_at = bench.now - 5
        bench.take(TIMEOUT)
    assert (server.health, server.is_usable) == (Health.BUSY, True)
    assert (bench.counted("busy"), bench.counted("fail")) == (5, 0)


async def test_a_time_out_without_progress_is_a_failure(bench: Bench) -> None:
    server = bench.watch()
    bench.take(PASS)
    server.progress_at = bench.now - 11
    for _ in range(3):
        bench.take(TIMEOUT)
    assert (server.health, server.down_reason) == (Health.DOWN, "timeout")


@pytest.mark.parametrize(("result", "took_s"), [(NONE, 0.1), (TIMEOUT, 5.0), (FAIL, 3.5)])
async def test_our_own_trouble_is_not_held_against_the_server(bench: Bench, result: Result, took_s: float) -> None:
    server = bench.watch()
    bench.take(result, took_s)
    assert server.health is Health.UNKNOWN
    assert (bench.counted("discarded"), bench.counted("fail")) == (1, 0)


async def test_a_late_pass_is_still_a_pass(bench: Bench) -> None:
    server = bench.watch()
    bench.take(PASS, 60.0)
    assert server.health is Health.UP


async def test_a_server_that_stays_down_says_the_newest_reason(bench: Bench) -> None:
    server = bench.watch()
    bench.take(FAIL)
    bench.take(TIMEOUT)
    assert server.why == TIMEOUT.why


@pytest.mark.parametrize(
    ("n_servers", "interval", "within_s"), [(3, 10.0, 0.015), (100, 10.0, 0.5), (400, 10.0, 0.5), (100, 0.1, 0.1)]
)
async def test_first_checks_come_soon_and_not_all_at_once(n_servers: int, interval: float, within_s: float) -> None:
    bench = Bench(n_servers)
    bench.watch(HealthCheck(interval=interval))
    due = sorted(watch.due_at - bench.now for watch in bench.checker._watches.values())
    assert due[0] >= 0 and due[-1] <= within_s
    assert max(late - early for early, late in pairwise(due)) < within_s * 0.9
    await bench.tasks.cancel_all()


async def test_never_more_than_one_check_of_a_server_in_flight(bench: Bench) -> None:
    server = bench.watch()
    await settle()
    assert bench.started == []
    for _ in range(5):
        bench.checker.kick(bench.pool, server)
        bench.now += 1
        await settle()
    assert bench.started == [server.key]


async def test_a_kick_during_a_check_brings_another_one(bench: Bench) -> None:
    server = bench.watch()
    await settle()
    bench.checker.kick(bench.pool, server)
    await settle()
    bench.now += 1
    bench.checker.kick(bench.pool, server)
    bench.answers.put_nowait(PASS)
    await settle()
    assert bench.started == [server.key, server.key]


async def test_kicks_do_not_bring_more_than_four_checks_a_second(bench: Bench) -> None:
    server = bench.watch()
    watch = bench.checker._watches["predict", server.key]
    watch.checked_at = bench.now
    bench.checker.kick(bench.pool, server)
    assert watch.due_at == bench.now + 0.25


async def test_a_server_refused_under_traffic_is_checked_soon(bench: Bench) -> None:
    server = bench.watch()
    bench.pool.server_refused(server, bench.now)
    bench.checker.refused(bench.pool, server)
    due_in = bench.checker._watches["predict", server.key].due_at - bench.now
    assert 0.2 < due_in < 0.3


async def test_a_server_in_maintenance_is_not_checked(bench: Bench) -> None:
    server = bench.watch()
    bench.pool.set_admin(server, Admin.MAINT, "", bench.now)
    bench.now += 5000
    bench.checker.kick(bench.pool, server)
    await settle()
    assert server.key not in bench.started
    bench.take(FAIL)
    assert server.health is Health.UNKNOWN


async def test_a_server_that_joined_is_checked_at_once_and_needs_one_pass(bench: Bench) -> None:
    bench.watch()
    joined = Server("127.0.0.1:6000", parse_address("127.0.0.1:6000"))
    joined.health, joined.down_reason = Health.DOWN, "joining"
    bench.pool.add(joined)
    bench.checker.add(bench.pool, joined)
    await settle()
    assert bench.started == ["127.0.0.1:6000"]
    bench.answers.put_nowait(PASS)
    await settle()
    assert joined.health is Health.UP


async def test_a_removed_server_is_no_longer_checked(bench: Bench) -> None:
    server = bench.watch()
    before = len(bench.tasks)
    bench.checker.remove(bench.pool, server)
    await settle()
    assert len(bench.tasks) == before - 1
    bench.checker.kick(bench.pool, server)
    await settle()
    assert bench.started == []


async def test_pools_without_checks_have_none(bench: Bench) -> None:
    bench.checker.add(bench.pool, bench.pool.servers[0])
    assert len(bench.tasks) == 0


async def test_a_cancellation_that_comes_with_a_kick_is_not_lost() -> None:
    """However many turns of the loop lie between the two; a task that lost it would hold up the stop for ever."""
    for n_turns in range(6):
        bench = Bench(1)
        server = bench.watch()
        (watch,) = bench.checker._watches.values()
        await settle()
        bench.checker.kick(bench.pool, server)
        for _ in range(n_turns):
            await asyncio.sleep(0)
        assert watch.task is not None
        watch.task.cancel()
        await asyncio.wait([watch.task], timeout=0.05)
        assert watch.task.cancelled(), f"{n_turns} turns after the kick"
