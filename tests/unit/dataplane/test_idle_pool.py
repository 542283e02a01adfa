"""Idle connections: the youngest first, none that is dead, none beyond the limit."""

from __future__ import annotations

import functools
from typing import Any, cast

import pytest

from lbproxy.address import Address
from lbproxy.dataplane.idle_pool import IdlePool, Kept
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.domain.reuse import FIRST_TRIAL_S, TRIAL_S
from lbproxy.domain.server import Server
from lbproxy.telemetry.slots import SERVER, Slots
from tests.support.fake_transport import FakeLb, FakeTransport

STALE = SERVER.column("stale_connections_total")


@functools.cache
def a_daemon() -> FakeLb:
    """What connections belong to; nothing of it is tested here."""
    return FakeLb()


def connection(expires_at: float = 100.0, *, is_readable: bool = False) -> UpstreamConnection:
    """One that is idle."""
    lb = a_daemon()
    made = UpstreamConnection(lb.services, next(iter(lb.wiring.pools["app"].servers.values())))
    transport = FakeTransport(lb.loop, made, ("127.0.0.1", 9001), ("127.0.0.1", 50000))
    made.connection_made(transport)
    made.expires_at = expires_at
    made.idle_since = made.created_at = 0.0
    made.n_requests = 1
    if is_readable:
        transport.get_extra_info("socket").hang_up()
    return made


class Runtime(ServerRuntime):
    """Notes what it is told."""

    def __init__(self) -> None:
        server = Server("s", Address("127.0.0.1", 9001))
        super().__init__(server, a_daemon().wiring.pools["app"], Slots().allocate(SERVER), is_direct=True)
        self.closings: list[float] = []
        self.lifted: list[bool] = []

    def closed_by_server(self, age_s: float, answers: int, opened_at: float, now: float) -> None:
        self.closings.append(age_s)

    def limit_lifted(self) -> None:
        self.lifted.append(True)


def pool_of(*connections: UpstreamConnection, limit: int = 10) -> tuple[IdlePool, Runtime]:
    runtime = Runtime()
    pool = IdlePool(runtime)
    for item in connections:
        pool.put(item, limit)
    return pool, runtime


def taken(pool: IdlePool, now: float = 0.0) -> Kept | None:
    return pool.take(now)


def test_last_in_first_out() -> None:
    first, second = connection(), connection()
    pool, _ = pool_of(first, second)
    assert [taken(pool), taken(pool), taken(pool)] == [second, first, None]


def test_a_readable_connection_is_dead_and_counted() -> None:
    good, dead = connection(), connection(is_readable=True)
    pool, runtime = pool_of(good, dead)
    assert taken(pool) is good
    assert dead.has_ended and runtime.row[STALE] == 1 and len(pool) == 0


def test_an_expired_connection_is_closed_and_not_called_stale() -> None:
    pool, runtime = pool_of(connection(10.0), connection(5.0))
    expired = cast(Any, pool).connections[-1]
    assert pool.take(5.0) is not None
    assert expired.has_ended and runtime.row[STALE] == 0


def test_surplus_is_closed_at_once() -> None:
    first, second = connection(), connection()
    pool, _ = pool_of(first, second, limit=1)
    assert len(pool) == 1 and second.has_ended and not first.has_ended
    none = connection()
    pool.put(none, 0)
    assert none.has_ended


def test_one_that_its_server_closed_is_forgotten() -> None:
    first, second = connection(), connection()
    pool, _ = pool_of(first, second)
    assert pool.discard(first)
    assert not pool.discard(first)
    assert taken(pool) is second and not first.has_ended


def test_the_sweep_closes_what_has_expired() -> None:
    old, young = connection(10.0), connection(20.0)
    pool, _ = pool_of(old, young)
    pool.sweep(9.9)
    assert len(pool) == 2
    pool.sweep(10.0)
    assert old.has_ended and not young.has_ended and len(pool) == 1


def test_closing_all() -> None:
    connections = [connection() for _ in range(3)]
    pool, _ = pool_of(*connections)
    pool.close_all()
    assert len(pool) == 0 and all(connection.has_ended for connection in connections)


def test_the_age_of_a_dead_connection_is_told() -> None:
    dead = connection(is_readable=True)
    pool, runtime = pool_of(dead)
    dead.idle_since = 3.0
    assert taken(pool, 5.5) is None
    assert runtime.closings == [2.5]


def test_connections_are_retired_sooner_once_more_is_known() -> None:
    old, new = connection(), connection()
    new.idle_since = 1.0
    pool, _ = pool_of(old, new)
    pool.retire_after(2.0)
    assert (old.expires_at, new.expires_at) == (2.0, 3.0)
    pool.retire_after(50.0)
    assert (old.expires_at, new.expires_at) == (2.0, 3.0)


def test_the_sweep_tells_how_long_the_oldest_has_been_open() -> None:
    old, new = connection(), connection()
    new.idle_since = 8.0
    pool, runtime = pool_of(old, new)
    pool.sweep(10.0)
    learned = runtime.server.idle_timeout
    assert not learned.closed_by_server(2.0, 11.0) and not learned.closed_by_server(2.0, 12.0)
    assert learned.learned_s == 0.0


# --- a server that answers only so many requests on one connection ---------------------------------------------------


def on_trial(now: float = 20.0) -> tuple[IdlePool, Runtime, UpstreamConnection]:
    """A server that answers once on each connection, and one connection whose end is waited for."""
    pool, runtime = pool_of()
    for number in range(2):
        runtime.server.reuse.explains(1, 0.0, float(number), number + 0.5)
    assert runtime.server.reuse.limit == 1
    used_up = connection()
    used_up.idle_since = now
    pool.put_used_up(used_up, now)
    return pool, runtime, used_up


def test_used_up_connections_are_closed_but_for_one_now_and_then() -> None:
    pool, _, early = on_trial(1.0 + FIRST_TRIAL_S / 2)
    assert early.has_ended and len(pool) == 0
    pool, _, watched = on_trial()
    another = connection()
    pool.put_used_up(another, 20.0)
    assert not watched.has_ended and another.has_ended and len(pool) == 1


def test_one_on_trial_gets_no_request() -> None:
    pool, _, watched = on_trial()
    assert taken(pool, 20.1) is None
    assert not watched.has_ended and len(pool) == 1


@pytest.mark.parametrize("is_fin", [True, False])
def test_a_server_that_ends_the_one_on_trial_is_as_it_was(is_fin: bool) -> None:
    pool, runtime, watched = on_trial()
    pool.ended(watched, 20.01, is_fin=is_fin)
    assert len(pool) == 0 and runtime.server.reuse.limit == 1 and not runtime.closings
    assert not runtime.server.reuse.is_trial_due(20.01)


def test_a_server_that_leaves_it_open_answers_more() -> None:
    pool, runtime, watched = on_trial()
    pool.sweep(20.0 + TRIAL_S - 0.01)
    assert not runtime.lifted and not watched.has_ended
    pool.sweep(20.0 + TRIAL_S)
    assert runtime.lifted and watched.has_ended and len(pool) == 0


@pytest.mark.parametrize("how", ["close_all", "discard"])
def test_one_on_trial_holds_nothing_up(how: str) -> None:
    pool, _, watched = on_trial()
    if how == "discard":
        assert pool.discard(watched)
    else:
        getattr(pool, how)()
        assert watched.has_ended
    assert len(pool) == 0


def test_what_is_learned_holds_for_those_that_are_idle() -> None:
    fresh, used = connection(), connection()
    used.n_requests = 3
    pool, _ = pool_of(fresh, used)
    pool.close_used_up(3)
    assert used.has_ended and not fresh.has_ended and len(pool) == 1


def test_the_sweep_tells_how_many_answers_were_seen() -> None:
    busy = connection()
    busy.n_requests = 9
    pool, runtime = pool_of(busy, connection())
    pool.sweep(10.0)
    assert not runtime.server.reuse.explains(8, 0.2, 10.0, 11.0)


def test_only_a_fin_teaches_an_idle_time_out() -> None:
    for is_fin in (True, False):
        idle = connection()
        pool, runtime = pool_of(idle)
        pool.ended(idle, 5.0, is_fin=is_fin)
        assert len(pool) == 0 and runtime.closings == ([5.0] if is_fin else [])


def test_what_is_learned_while_one_is_taken_gives_no_connection_twice() -> None:
    """A dead one shows that the server closes after three requests: those that have had so many are closed, and the one
    that is taken is no longer there."""

    class Learning(Runtime):
        def closed_by_server(self, age_s: float, answers: int, opened_at: float, now: float) -> None:
            self.idle.close_used_up(3)

    runtime = Learning()
    used_up, good, dead = connection(), connection(), connection(is_readable=True)
    used_up.n_requests = 3
    for kept in (used_up, good, dead):
        runtime.idle.put(kept, 64)
    assert runtime.idle.take(1.0) is good
    assert runtime.idle.connections == [] and used_up.has_ended
    assert runtime.idle.take(1.0) is None
