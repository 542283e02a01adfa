"""What a pool lets its strategy choose from: slower servers last, and whoever only answers errors not at all."""

from __future__ import annotations

import random

import pytest

from lbproxy.address import Address
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import ERRORS_IN_A_ROW, PENALTY_S, Server
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext

CTX = PickContext("192.0.2.1")


def make_pool(n: int, max_inflight: int = 0, strategy: str = "least_connections") -> Pool:
    servers = [Server(chr(97 + i), Address("10.0.0.1", 5001 + i), max_inflight=max_inflight) for i in range(n)]
    rng = random.Random(1)
    return Pool(
        "p", servers, create(strategy, {}, rng), create("random", {}, rng), breaker=BreakerPolicy(), max_ejected=0.5
    )


def take(pool: Pool, now: float = 0.0, tried: tuple[Server, ...] = ()) -> Lease:
    lease = pool.acquire(CTX, tried, now)
    assert isinstance(lease, Lease)
    return lease


def with_slow_server(strategy: str = "least_connections") -> tuple[Pool, Server]:
    """Two servers with two slots; the first is slower."""
    pool = make_pool(2, max_inflight=2, strategy=strategy)
    for server, time_s in zip(pool.servers, (0.4, 0.1), strict=True):
        for _ in range(50):
            server.note_served(time_s)
    pool.sweep(1.0)
    return pool, pool.servers[0]


# --- slower servers ---------------------------------------------------------------------------------------------------


def test_free_slots_of_a_slower_server_are_used_last_but_they_are_used() -> None:
    pool, _ = with_slow_server()
    assert [take(pool, 1.0).server.name for _ in range(4)] == ["b", "b", "a", "a"]


def test_a_retry_goes_to_the_slower_server_rather_than_to_the_one_that_failed() -> None:
    pool, slow = with_slow_server()
    assert take(pool, 1.0, tried=(pool.servers[1],)).server is slow


def test_a_slower_server_is_usable_for_everybody_who_looks() -> None:
    pool, slow = with_slow_server()
    assert slow in pool.eligible()


@pytest.mark.parametrize("strategy", ["round_robin", "ip_hash", "random"])
def test_strategies_that_do_not_go_by_load_get_everybody(strategy: str) -> None:
    pool, slow = with_slow_server(strategy)
    seen = set()
    for number in range(40):
        lease = pool.acquire(PickContext(f"192.0.2.{number}", key=f"192.0.2.{number}".encode()), (), 1.0)
        assert isinstance(lease, Lease)
        seen.add(lease.server)
        lease.release(Outcome.NEUTRAL, 1.0)
    assert slow in seen


# --- answers 5xx that are not the breaker's business ------------------------------------------------------------------


def answer(pool: Pool, server: Server, outcome: Outcome, now: float) -> None:
    Lease(pool, server, now).release(outcome, now)


def test_a_server_that_answers_nothing_but_errors_is_penalised_as_if_it_failed() -> None:
    pool = make_pool(2)
    a, b = pool.servers
    for _ in range(ERRORS_IN_A_ROW - 1):
        answer(pool, a, Outcome.ERROR, 0.0)
    assert a.penalty_s(0.0) == 0.0
    answer(pool, a, Outcome.ERROR, 0.0)
    assert a.penalty_s(0.0) == PENALTY_S
    assert {take(pool, 0.1).server for _ in range(10)} == {b}


def test_an_error_now_and_then_is_the_requests_fault() -> None:
    pool = make_pool(1)
    (server,) = pool.servers
    for _ in range(20):
        answer(pool, server, Outcome.ERROR, 0.0)
        answer(pool, server, Outcome.ERROR, 0.0)
        answer(pool, server, Outcome.SUCCESS, 0.0)
    assert server.penalty_s(0.0) == 0.0


def test_errors_never_eject_and_end_a_probe_well() -> None:
    """The breaker has statuses of its own; a server that answers 500 to a probe does answer."""
    pool = make_pool(2)
    a, _ = pool.servers
    for _ in range(100):
        answer(pool, a, Outcome.ERROR, 0.0)
    assert a.shown == "up"
    for _ in range(5):
        answer(pool, a, Outcome.FAILURE, 0.0)
    assert a.shown == "ejected"
    pool.sweep(11.0)
    lease = take(pool, 11.0)
    assert lease.server is a
    lease.release(Outcome.ERROR, 11.0)
    assert a.shown == "up"


def test_an_error_is_no_measure_of_speed() -> None:
    pool = make_pool(2, max_inflight=1)
    answer(pool, pool.servers[0], Outcome.ERROR, 0.001)
    assert pool.servers[0].take_served() == (0, 0.0, 0.0)
    assert pool.servers[0].latency(0.001) == 0.0


def test_the_life_of_a_connection_is_no_measure_of_speed() -> None:
    pool = make_pool(1, max_inflight=1)
    lease = take(pool)
    lease.release(Outcome.SUCCESS, 600.0, is_timed=False)
    assert pool.servers[0].take_served() == (0, 0.0, 0.0)
