"""What is said of each server is so: by example, and against who gets a request."""

from __future__ import annotations

import random

from lbproxy.address import Address
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.server import Server
from lbproxy.domain.standing import standings
from lbproxy.domain.states import REFUSED, Admin, Health
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext


def pool_of(*servers: Server, strategy: str = "least_connections", slow_start_s: float = 0.0) -> Pool:
    pool = Pool(
        "p",
        servers,
        create(strategy, {}, random.Random(1)),
        create("least_connections", {}, random.Random(1)),
        queue=WaitQueue(8),
        breaker=BreakerPolicy(failures=2, open_s=10.0),
        slow_start_s=slow_start_s,
    )
    for server in servers:
        pool.set_health(server, Health.UP, "", "", 1.0)
    return pool


def server(name: str, **options: int) -> Server:
    return Server(name, Address("10.0.0.1", ord(name)), **options)  # type: ignore[arg-type]


def told(pool: Pool, now: float = 10.0) -> dict[str, tuple[str, str]]:
    """By server: does it take a request, and why."""
    return {
        one.name: ("last" if stands.is_last else "yes" if stands.may_take else "no", stands.why)
        for one, stands in standings(pool, now)
    }


def test_what_the_operator_wants() -> None:
    a, b, c, d = (server(name) for name in "abcd")
    pool = pool_of(a, b, c, d)
    pool.set_admin(a, Admin.DRAIN, "drained by ci", 4.0)
    pool.set_admin(b, Admin.MAINT, "", 4.0)
    pool.set_weight(c, 0, 4.0)
    assert told(pool) == {
        "a": ("no", "drained by ci since 6 s"),
        "b": ("no", "in maintenance since 6 s"),
        "c": ("no", "its weight is 0: no new requests"),
        "d": ("yes", ""),
    }


def test_a_server_that_leaves() -> None:
    a, b = server("a"), server("b")
    pool = pool_of(a, b)
    pool.set_admin(a, Admin.DRAIN, "is being removed by ci", 4.0)
    assert told(pool)["a"] == ("no", "drained since 6 s: is being removed by ci")


def test_what_was_observed() -> None:
    a, b, c = (server(name) for name in "abc")
    pool = pool_of(a, b, c)
    pool.set_health(a, Health.DOWN, REFUSED, "connection refused", 7.0)
    pool.set_health(b, Health.BUSY, "", "no answer within 2 s", 7.0)
    assert told(pool) == {
        "a": ("no", "down since 3 s: connection refused"),
        "b": ("yes", "busy: no answer within 2 s"),
        "c": ("yes", ""),
    }


def test_limits_and_slots_that_were_given_up() -> None:
    a, b = server("a", max_inflight=1), server("b", max_inflight=2)
    pool = pool_of(a, b)
    leases = [pool.acquire(PickContext("x"), (), 5.0) for _ in range(3)]
    assert told(pool)["a"] == ("no", "full: 1 of 1 in flight")
    assert told(pool)["b"] == ("no", "full: 2 of 2 in flight")
    [of_a, *of_b] = sorted((x for x in leases if isinstance(x, Lease)), key=lambda lease: lease.server.name)
    of_a.release(Outcome.ABORTED, 9.0, quarantine_s=5.0)
    assert told(pool)["a"] == (
        "last",
        "used last: its free slots are quarantined (1), as their requests were given up",
    )
    of_b[0].release(Outcome.SUCCESS, 9.0)
    assert told(pool)["b"] == ("yes", "")


def test_failures_ejections_and_probes() -> None:
    a, b, c = (server(name) for name in "abc")
    pool = pool_of(a, b, c)
    for now in (9.0, 9.1):
        lease = pool.acquire_at(a, now)
        assert lease is not None
        lease.release(Outcome.FAILURE, now)
        if now == 9.0:
            assert told(pool, 9.0)["a"] == ("yes", "counts as loaded for 5.0 s, as it failed lately")
    assert told(pool)["a"] == ("no", "ejected 1 s ago: 2 consecutive failures, next probe in 9 s")
    pool.sweep(20.0)
    assert told(pool, 20.0)["a"] == ("yes", "probing 0 s ago: 2 consecutive failures, the next request is a probe")
    pool.acquire(PickContext("x"), (), 20.0)
    assert told(pool, 20.0)["a"] == ("no", "probing 0 s ago: 2 consecutive failures, a probe is out")


def test_a_server_that_does_nothing_but_fail_is_used_last() -> None:
    a, b = server("a"), server("b")
    pool = pool_of(a, b)
    a.errors_in_a_row = 3
    a.penalise(4.0, 8.0)
    assert told(pool)["a"] == ("last", "used last for 2.0 s, as it failed lately")
    blind = pool_of(server("c"), strategy="round_robin")
    blind.servers[0].penalise(4.0, 8.0)
    assert told(blind)["c"] == ("yes", "")  # this strategy does not look at it


def test_backups_and_fail_open() -> None:
    a, b = server("a"), server("b", backup=True)
    pool = pool_of(a, b)
    assert told(pool)["b"] == ("no", "a backup, and others are usable")
    pool.set_health(a, Health.DOWN, "checks", "answered 500", 5.0)
    assert told(pool)["b"] == ("yes", "a backup, and no other is usable")
    pool.set_health(b, Health.DOWN, REFUSED, "connection refused", 5.0)
    assert told(pool)["a"] == ("yes", "its checks fail (answered 500), but the pool fails open")
    assert told(pool)["b"] == ("no", "down since 5 s: connection refused")


def test_slow_start_and_slowness() -> None:
    a, b, c = server("a", max_inflight=10), server("b"), server("c")
    pool = pool_of(a, b, c, slow_start_s=10.0)
    pool.set_health(a, Health.DOWN, "checks", "", 2.0)
    pool.set_health(a, Health.UP, "", "", 8.0)
    assert told(pool)["a"] == ("yes", "slow start: 10% of its share")
    assert pool.acquire_at(a, 9.0) is not None
    assert told(pool)["a"] == ("no", "full: 1 of 1 in flight; slow start lets it have 1 of 10")
    assert pool.picker._speeds is not None
    pool.picker._speeds.slower = frozenset({b})
    assert told(pool)["b"] == ("last", "used last, as it is slower than the others")


def test_servers_of_another_zone() -> None:
    a, b = server("a"), server("b")
    pool = pool_of(a, b)
    pool.set_far(b, True, 2.0)
    assert told(pool)["b"] == ("no", "in another zone, and enough of this one are usable and have room")
    pool.set_health(a, Health.DOWN, REFUSED, "", 2.0)
    assert told(pool)["b"] == ("yes", "in another zone, and too few of this one are usable")


def test_servers_of_another_zone_while_this_one_is_full() -> None:
    a, b = server("a", max_inflight=1), server("b", max_inflight=1)
    pool = pool_of(a, b)
    pool.set_far(b, True, 2.0)
    assert isinstance(pool.acquire(PickContext("192.0.2.1"), (), 2.0), Lease)
    assert told(pool) == {
        "a": ("no", "full: 1 of 1 in flight"),
        "b": ("yes", "in another zone, and those of this one are full"),
    }


def test_a_backup_is_not_probed_while_others_are_usable() -> None:
    a, b, c = server("a"), server("b", backup=True), server("c")
    pool = pool_of(a, b, c)
    for _ in range(2):
        lease = pool.acquire_at(b, 9.0) or Lease(pool, b, 9.0)
        lease.release(Outcome.FAILURE, 9.0)
    pool.sweep(25.0)
    verdict, why = told(pool, 25.0)["b"]
    assert verdict == "no"
    assert why.endswith("the next request is a probe; not now")
