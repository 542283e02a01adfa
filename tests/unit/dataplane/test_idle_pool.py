"""Idle connections: the youngest first, none that is dead, none beyond the limit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lbproxy.dataplane.idle_pool import IdlePool
from lbproxy.dataplane.runtime import ServerRuntime
from lbproxy.dataplane.upstream import UpstreamConnection
from lbproxy.domain.idle_timeout import IdleTimeout
from lbproxy.domain.reuse import FIRST_TRIAL_S, TRIAL_S, ReuseLimit
from lbproxy.telemetry.slots import SERVER, Slots

STALE = SERVER.column("stale_connections_total")


class Connection:
    """What the pool knows of a connection."""

    def __init__(self, expires_at: float = 100.0, *, is_readable: bool = False) -> None:
        self.expires_at = expires_at
        self.idle_since = self.created_at = 0.0
        self.n_requests = 1
        self.is_readable = is_readable
        self.is_closed = False
        self.polls = 0

    def poll(self, timeout: int) -> list[tuple[int, int]]:
        assert timeout == 0
        self.polls += 1
        return [(3, 1)] if self.is_readable else []

    def close_idle(self) -> None:
        self.is_closed = True


def pool_of(*connections: Connection, limit: int = 10) -> tuple[IdlePool, Any]:
    closings: list[float] = []
    lifted: list[bool] = []
    runtime = SimpleNamespace(
        row=Slots().allocate(SERVER),
        server=SimpleNamespace(idle_timeout=IdleTimeout(), reuse=ReuseLimit()),
        closings=closings,
        closed_by_server=lambda age_s, answers, opened_at, now: closings.append(age_s),
        limit_lifted=lambda: lifted.append(True),
        lifted=lifted,
    )
    pool = IdlePool(cast(ServerRuntime, runtime))
    for connection in connections:
        pool.put(cast(UpstreamConnection, connection), limit)
    return pool, runtime


def taken(pool: IdlePool, now: float = 0.0) -> Connection | None:
    return cast(Connection | None, pool.take(now))


def test_last_in_first_out() -> None:
    first, second = Connection(), Connection()
    pool, _ = pool_of(first, second)
    assert [taken(pool), taken(pool), taken(pool)] == [second, first, None]
    assert first.polls == second.polls == 1


def test_a_readable_connection_is_dead_and_counted() -> None:
    good, dead = Connection(), Connection(is_readable=True)
    pool, runtime = pool_of(good, dead)
    assert taken(pool) is good
    assert dead.is_closed and runtime.row[STALE] == 1 and len(pool) == 0


def test_an_expired_connection_is_closed_and_not_called_stale() -> None:
    pool, runtime = pool_of(Connection(10.0), Connection(5.0))
    expired = cast(Any, pool).connections[-1]
    assert pool.take(5.0) is not None
    assert expired.is_closed and runtime.row[STALE] == 0


def test_surplus_is_closed_at_once() -> None:
    first, second = Connection(), Connection()
    pool, _ = pool_of(first, second, limit=1)
    assert len(pool) == 1 and second.is_closed and not first.is_closed
    none = Connection()
    pool.put(cast(UpstreamConnection, none), 0)
    assert none.is_closed


def test_one_that_its_server_closed_is_forgotten() -> None:
    first, second = Connection(), Connection()
    pool, _ = pool_of(first, second)
    assert pool.discard(cast(UpstreamConnection, first))
    assert not pool.discard(cast(UpstreamConnection, first))
    assert taken(pool) is second and not first.is_closed


def test_the_sweep_closes_what_has_expired() -> None:
    old, young = Connection(10.0), Connection(20.0)
    pool, _ = pool_of(old, young)
    pool.sweep(9.9)
    assert len(pool) == 2
    pool.sweep(10.0)
    assert old.is_closed and not young.is_closed and len(pool) == 1


def test_a_descriptor_is_given_back_from_the_oldest() -> None:
    old, young = Connection(), Connection()
    pool, _ = pool_of(old, young)
    assert pool.close_oldest() and old.is_closed and not young.is_closed
    assert pool.close_oldest() and not pool.close_oldest()


def test_closing_all() -> None:
    connections = [Connection() for _ in range(3)]
    pool, _ = pool_of(*connections)
    pool.close_all()
    assert len(pool) == 0 and all(connection.is_closed for connection in connections)


def test_the_age_of_a_dead_connection_is_told() -> None:
    dead = Connection(is_readable=True)
    pool, runtime = pool_of(dead)
    dead.idle_since = 3.0
    assert taken(pool, 5.5) is None
    assert runtime.closings == [2.5]


def test_connections_are_retired_sooner_once_more_is_known() -> None:
    old, new = Connection(), Connection()
    new.idle_since = 1.0
    pool, _ = pool_of(old, new)
    pool.retire_after(2.0)
    assert (old.expires_at, new.expires_at) == (2.0, 3.0)
    pool.retire_after(50.0)
    assert (old.expires_at, new.expires_at) == (2.0, 3.0)


def test_the_sweep_tells_how_long_the_oldest_has_been_open() -> None:
    old, new = Connection(), Connection()
    new.idle_since = 8.0
    pool, runtime = pool_of(old, new)
    pool.sweep(10.0)
    learned = runtime.server.idle_timeout
    assert not learned.closed_by_server(2.0, 11.0) and not learned.closed_by_server(2.0, 12.0)
    assert learned.learned_s == 0.0


# --- a server that answers only so many requests on one connection ---------------------------------------------------


def on_trial(now: float = 20.0) -> tuple[IdlePool, Any, Connection]:
    """A server that answers once on each connection, and one connection whose end is waited for."""
    pool, runtime = pool_of()
    for number in range(2):
        runtime.server.reuse.explains(1, 0.0, float(number), number + 0.5)
    assert runtime.server.reuse.limit == 1
    connection = Connection()
    connection.idle_since = now
    pool.put_used_up(cast(UpstreamConnection, connection), now)
    return pool, runtime, connection


def test_used_up_connections_are_closed_but_for_one_now_and_then() -> None:
    pool, _, early = on_trial(1.0 + FIRST_TRIAL_S / 2)
    assert early.is_closed and len(pool) == 0
    pool, _, watched = on_trial()
    another = Connection()
    pool.put_used_up(cast(UpstreamConnection, another), 20.0)
    assert not watched.is_closed and another.is_closed and len(pool) == 1


def test_one_on_trial_gets_no_request() -> None:
    pool, _, watched = on_trial()
    assert taken(pool, 20.1) is None
    assert not watched.is_closed and watched.polls == 0


@pytest.mark.parametrize("is_fin", [True, False])
def test_a_server_that_ends_the_one_on_trial_is_as_it_was(is_fin: bool) -> None:
    pool, runtime, watched = on_trial()
    pool.ended(cast(UpstreamConnection, watched), 20.01, is_fin=is_fin)
    assert len(pool) == 0 and runtime.server.reuse.limit == 1 and not runtime.closings
    assert not runtime.server.reuse.is_trial_due(20.01)


def test_a_server_that_leaves_it_open_answers_more() -> None:
    pool, runtime, watched = on_trial()
    pool.sweep(20.0 + TRIAL_S - 0.01)
    assert not runtime.lifted and not watched.is_closed
    pool.sweep(20.0 + TRIAL_S)
    assert runtime.lifted and watched.is_closed and len(pool) == 0


@pytest.mark.parametrize("how", ["close_all", "close_oldest", "discard"])
def test_one_on_trial_holds_nothing_up(how: str) -> None:
    pool, _, watched = on_trial()
    if how == "discard":
        assert pool.discard(cast(UpstreamConnection, watched))
    else:
        getattr(pool, how)()
        assert watched.is_closed
    assert len(pool) == 0


def test_what_is_learned_holds_for_those_that_are_idle() -> None:
    fresh, used = Connection(), Connection()
    used.n_requests = 3
    pool, _ = pool_of(fresh, used)
    pool.close_used_up(3)
    assert used.is_closed and not fresh.is_closed and len(pool) == 1


def test_the_sweep_tells_how_many_answers_were_seen() -> None:
    busy = Connection()
    busy.n_requests = 9
    pool, runtime = pool_of(busy, Connection())
    pool.sweep(10.0)
    assert not runtime.server.reuse.explains(8, 0.2, 10.0, 11.0)


def test_only_a_fin_teaches_an_idle_time_out() -> None:
    for is_fin in (True, False):
        idle = Connection()
        pool, runtime = pool_of(idle)
        pool.ended(cast(UpstreamConnection, idle), 5.0, is_fin=is_fin)
        assert len(pool) == 0 and runtime.closings == ([5.0] if is_fin else [])
