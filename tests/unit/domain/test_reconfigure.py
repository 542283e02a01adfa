"""A pool under other rules: what is under way, and what is known of its servers, stays."""

from __future__ import annotations

import random

from lbproxy.address import parse_address
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.health import CheckResult, HealthMachine
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.retry import RetryBudget
from lbproxy.domain.server import Server
from lbproxy.domain.states import REFUSED, Breaker, Health
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext
from tests.support.tickets import CallingTicket

CTX = PickContext("192.0.2.1")


def pool_of(n_servers: int, strategy: str = "least_connections", breaker: BreakerPolicy | None = None) -> Pool:
    rng = random.Random(1)
    servers = [Server(f"s{number}", parse_address(f"10.0.0.{number}:80")) for number in range(1, n_servers + 1)]
    return Pool(
        "p",
        servers,
        create(strategy, {}, rng),
        create("least_connections", {}, rng),
        breaker=breaker,
        queue=WaitQueue(10, 5.0),
    )


def reconfigure(
    pool: Pool,
    *,
    breaker: BreakerPolicy | None = None,
    max_ejected: float = 0.5,
    fail_open: float | None = 0.0,
    passive_retry_s: float | None = None,
    slow_start_s: float = 0.0,
    queue_size: int = 10,
    queue_timeout_s: float = 5.0,
    queue_order: str = "adaptive",
    now: float = 1.0,
) -> None:
    pool.reconfigure(
        fail_open=fail_open,
        passive_retry_s=passive_retry_s,
        breaker=breaker,
        max_ejected=max_ejected,
        slow_start_s=slow_start_s,
        queue_size=queue_size,
        queue_timeout_s=queue_timeout_s,
        queue_order=queue_order,
        now=now,
    )


def taken(pool: Pool, now: float = 1.0) -> Lease:
    lease = pool.acquire(CTX, (), now)
    assert isinstance(lease, Lease)
    return lease


def ticket() -> CallingTicket:
    return CallingTicket(CTX, lambda lease, now: None, lambda why: None, enqueued_at=1.0)


def test_leases_and_counts_stay() -> None:
    pool = pool_of(2)
    lease = taken(pool)
    reconfigure(pool, breaker=BreakerPolicy(), slow_start_s=5.0)
    assert lease.server.inflight == 1
    lease.release(Outcome.SUCCESS, 2.0)
    assert lease.server.inflight == 0 and lease.server.requests == 1


def test_who_waits_keeps_its_place_and_its_time_and_newcomers_have_the_new_bounds() -> None:
    pool = pool_of(1)
    pool.set_max_inflight(pool.servers[0], 1, 0.0)
    lease = taken(pool)
    first = ticket()
    assert pool.enqueue(first, 1.0)
    reconfigure(pool, queue_size=1, queue_timeout_s=100.0, queue_order="fifo")
    assert first.expires_at == 6.0
    assert not pool.enqueue(ticket(), 1.0), "there is room for one"
    lease.release(Outcome.SUCCESS, 2.0)
    assert not first.is_waiting


def test_no_queue_order_is_left_over() -> None:
    queue = WaitQueue(10, 5.0)
    queue.is_newest_first = True
    queue.reconfigure(10, 5.0, "fifo")
    assert not queue.is_newest_first


def test_another_strategy_begins_with_the_loads_that_there_are() -> None:
    pool = pool_of(3, "round_robin")
    leases = [pool.acquire_at(pool.servers[0], 1.0), pool.acquire_at(pool.servers[1], 1.0)]
    assert all(leases)
    pool.use_strategy(create("least_connections", {}, random.Random(1)), 1.0)
    reconfigure(pool)
    assert taken(pool).server is pool.servers[2]
    assert pool.picker.heeds_penalties


def test_an_ejection_ends_where_there_are_no_breakers_any_more() -> None:
    pool = pool_of(2, breaker=BreakerPolicy(failures=1))
    flips: list[tuple[str, str]] = []
    pool.on_flip(lambda server, old, new: flips.append((old, new)))
    lease = taken(pool)
    lease.release(Outcome.FAILURE, 1.0)
    assert lease.server.shown == "ejected"
    reconfigure(pool)
    assert lease.server.shown == "up" and lease.server.circuit is None
    assert flips == [("up", "ejected"), ("ejected", "up")]
    assert len(pool.eligible()) == 2


def test_breakers_come_and_their_rules_change() -> None:
    pool = pool_of(2)
    reconfigure(pool, breaker=BreakerPolicy(failures=2))
    taken(pool).release(Outcome.FAILURE, 1.0)
    reconfigure(pool, breaker=BreakerPolicy(failures=3))
    server = next(server for server in pool.servers if server.errors)
    for _ in range(2):
        assert server.breaker is Breaker.CLOSED
        lease = pool.acquire_at(server, 1.0)
        assert lease is not None
        lease.release(Outcome.FAILURE, 1.0)
    assert server.breaker is Breaker.EJECTED


def test_fewer_may_be_out() -> None:
    pool = pool_of(4, breaker=BreakerPolicy(failures=1))
    for server in pool.servers[:2]:
        lease = pool.acquire_at(server, 1.0)
        assert lease is not None
        lease.release(Outcome.FAILURE, 1.0)
    assert len(pool.members.out) == 2
    reconfigure(pool, breaker=BreakerPolicy(failures=1), max_ejected=0.25)
    assert len(pool.members.out) == 1


def test_fail_open_holds_at_once() -> None:
    pool = pool_of(2)
    for server in pool.servers:
        pool.set_health(server, Health.UP, "", "", 1.0)
        pool.set_health(server, Health.DOWN, "status", "answered 500", 1.0)
    assert len(pool.eligible()) == 2
    reconfigure(pool, fail_open=None)
    assert pool.eligible() == ()


def test_without_checks_a_refused_server_is_tried_again() -> None:
    pool = pool_of(1)
    pool.set_health(pool.servers[0], Health.DOWN, REFUSED, "refused", 1.0)
    reconfigure(pool, passive_retry_s=10.0, now=2.0)
    pool.sweep(11.5)
    assert pool.servers[0].health is Health.UNKNOWN


def test_a_ramp_ends_with_slow_start() -> None:
    pool = pool_of(3)
    reconfigure(pool, slow_start_s=10.0)
    server = pool.servers[0]
    pool.set_health(server, Health.DOWN, "status", "", 1.0)
    pool.set_health(server, Health.UP, "", "", 5.0)
    assert server.effective_weight < 1.0
    reconfigure(pool, slow_start_s=0.0, now=6.0)
    assert server.effective_weight == 1.0
    pool.sweep(7.0)


def test_backup_changes_who_is_eligible() -> None:
    pool = pool_of(2)
    pool.set_backup(pool.servers[0], True, 1.0)
    assert pool.eligible() == (pool.servers[1],)
    pool.set_backup(pool.servers[0], False, 1.0)
    assert len(pool.eligible()) == 2


def test_checks_count_on_with_other_numbers() -> None:
    machine = HealthMachine(2, 3)
    machine.observe(CheckResult.PASS, "", 1.0)
    machine.observe(CheckResult.FAIL, "status", 2.0)
    machine.reconfigure(2, 2)
    assert machine.observe(CheckResult.FAIL, "status", 3.0) is Health.DOWN
    machine.reconfigure(3, 2)
    assert [machine.observe(CheckResult.PASS, "", float(at)) for at in (4, 5, 6)] == [None, None, Health.UP]


def test_a_retry_budget_goes_by_its_new_bounds() -> None:
    budget = RetryBudget(0.0, 1)
    assert budget.may_start(10) and not budget.may_start(10)
    budget.reconfigure(0.5, 1)
    assert budget.may_start(10)
