"""Workers judge servers by what all of them saw."""

from __future__ import annotations

import pytest

from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.server import PENALTY_S, Server
from lbproxy.domain.shared.books import bury
from lbproxy.domain.shared.cells import Guard
from lbproxy.domain.states import Admin, Breaker
from tests.unit.domain.shared.test_waiting import CTX, Site

POLICY = BreakerPolicy(failures=4, min_requests=20, open_s=10.0)
both = pytest.mark.parametrize("limit", [0, 1])


def make(limit: int = 0) -> Site:
    return Site(n_servers=2, breaker=POLICY, limit=limit)


def end_at(site: Site, worker: int, seat: int, outcome: Outcome, now: float) -> None:
    """A request of the worker at a server, which it got by asking for that one."""
    pool = site.pools[worker]
    lease = pool.acquire_at(pool.servers[seat], now)
    assert lease is not None
    lease.release(outcome, now)


def eject(site: Site, now: float) -> None:
    for number in range(POLICY.failures):
        end_at(site, number % 2, 0, Outcome.FAILURE, now)


def states(site: Site) -> list[Breaker]:
    """Of the first server, as each worker has it when it has next picked."""
    return [pool.servers[0].breaker for pool in site.pools]


def pick(site: Site, worker: int, now: float) -> Lease:
    lease = site.pools[worker].acquire(CTX, (), now)
    assert isinstance(lease, Lease)
    return lease


@both
def test_failures_in_a_row_are_those_of_all(limit: int) -> None:
    site = make(limit)
    eject(site, 1.0)
    assert states(site) == [Breaker.CLOSED, Breaker.EJECTED]  # the first does not know yet
    lease = pick(site, 0, 1.0)
    assert states(site) == [Breaker.EJECTED, Breaker.EJECTED]
    assert lease.server is site.pools[0].servers[1]
    assert "4 consecutive failures" in site.pools[0].why(site.pools[0].servers[0], 1.0)


def test_a_good_answer_ends_a_row_wherever_it_came_and_is_known_with_the_next_sweep() -> None:
    site = make()
    for _ in range(POLICY.failures - 1):
        end_at(site, 0, 0, Outcome.FAILURE, 1.0)
    end_at(site, 1, 0, Outcome.SUCCESS, 1.0)
    site.pools[1].sweep(1.2)
    end_at(site, 0, 0, Outcome.FAILURE, 1.3)
    assert states(site)[0] is Breaker.CLOSED
    assert site.pools[0].servers[0].errors_in_a_row == 1


def test_the_share_of_failures_is_that_of_all() -> None:
    site = make()
    for number in range(9):
        for worker in range(2):
            end_at(site, worker, 0, Outcome.FAILURE if number % 2 else Outcome.SUCCESS, 1.0)
            for pool in site.pools:
                pool.sweep(1.0)
    assert states(site) == [Breaker.CLOSED] * 2
    for worker in (0, 1, 0):
        end_at(site, worker, 0, Outcome.FAILURE, 1.0)
    assert Breaker.EJECTED in states(site)  # 11 of 21: one worker alone would not have the 20 that it takes


@both
def test_one_probe_for_all(limit: int) -> None:
    site = make(limit)
    eject(site, 1.0)
    site.pools[0].sweep(12.0)
    probe = pick(site, 1, 12.0)  # it sees what the other's sweep brought
    assert probe.server is site.pools[1].servers[0]
    assert pick(site, 0, 12.0).server is site.pools[0].servers[1]
    probe.release(Outcome.SUCCESS, 13.0)
    pick_again = site.pools[0].acquire(CTX, (), 13.0)
    assert isinstance(pick_again, Lease) and pick_again.server is site.pools[0].servers[0]
    assert states(site) == [Breaker.CLOSED] * 2


@both
def test_a_probe_of_a_dead_worker_is_another_s(limit: int) -> None:
    site = make(limit)
    eject(site, 1.0)
    site.pools[0].sweep(12.0)
    assert pick(site, 1, 12.0).server is site.pools[1].servers[0]
    bury(site.cells, site.plan, Guard(), 1)
    assert pick(site, 0, 12.0).server is site.pools[0].servers[0]


def test_a_probe_that_fails_ejects_for_all_and_for_longer() -> None:
    site = make()
    eject(site, 1.0)
    site.pools[0].sweep(12.0)
    pick(site, 1, 12.0).release(Outcome.FAILURE, 12.0)
    pick(site, 0, 12.0)
    assert states(site) == [Breaker.EJECTED] * 2
    for worker in range(2):
        circuit = site.pools[worker].servers[0].circuit
        assert circuit is not None and circuit.open_until == pytest.approx(32.0)


@both
def test_a_penalty_holds_for_all_from_the_next_request_on(limit: int) -> None:
    site = make(limit)
    end_at(site, 0, 0, Outcome.FAILURE, 1.0)
    for _ in range(3):
        lease = pick(site, 1, 1.0)
        assert lease.server is site.pools[1].servers[1]
        lease.release(Outcome.SUCCESS, 1.0)
    assert site.pools[1].servers[0].penalty_s(1.0) == pytest.approx(PENALTY_S)


def test_a_good_answer_shortens_it_for_all() -> None:
    site = make()
    end_at(site, 0, 0, Outcome.FAILURE, 1.0)
    pick(site, 1, 1.0)
    end_at(site, 1, 0, Outcome.SUCCESS, 1.0)
    site.pools[1].sweep(1.0)
    site.pools[0].sweep(1.0)
    assert site.pools[0].servers[0].penalty_s(1.0) == pytest.approx(PENALTY_S / 2)


def test_a_worker_that_saw_nothing_of_an_ejection_sees_the_probing() -> None:
    site = make()
    for _ in range(POLICY.failures):
        end_at(site, 0, 0, Outcome.FAILURE, 1.0)
    site.pools[0].sweep(12.0)
    assert pick(site, 1, 12.0).server is site.pools[1].servers[0]
    assert states(site) == [Breaker.PROBING] * 2


def test_who_waits_for_the_verdict_on_the_last_server_hears_it_wherever_it_is() -> None:
    site = Site(n_servers=2, breaker=POLICY)
    eject(site, 1.0)
    for pool in site.pools:
        pool.set_admin(pool.servers[1], Admin.DRAIN, "", 2.0)
    site.pools[0].sweep(12.0)
    probe = pick(site, 0, 12.0)
    assert site.pools[1].acquire(CTX, (), 12.0) is Refusal.FULL
    site.wait(1, "waits", 12.0)
    probe.release(Outcome.SUCCESS, 13.0)
    site.answer_bells(13.0)
    assert site.heard == ["waits"]


def test_a_server_that_left_is_judged_without_harm() -> None:
    site = make()
    lease = pick(site, 0, 1.0)
    server: Server = lease.server
    site.pools[0].remove(server, 1.0)
    lease.release(Outcome.FAILURE, 1.0)
    assert server.errors == 1


def test_what_a_breaker_has_seen_is_told_to_all_and_cut_off_where_it_is_long() -> None:
    site = Site(n_servers=2, limit=0, breaker=BreakerPolicy(failures=1))
    for number, what in enumerate(["answers 500\u00e9", "\u20ac" * 100]):
        lease = site.pools[0].acquire_at(site.pools[0].servers[number], 1.0)
        assert lease is not None
        lease.release(Outcome.FAILURE, 1.0, what=what)
        site.pools[1].sweep(1.0)
        seen = site.pools[1].servers[number].circuit
        own = site.pools[0].servers[number].circuit
        if seen is not None and own is not None and own.what:
            assert own.what.startswith(seen.what.rstrip("\ufffd"))
            assert len(seen.what) >= min(len(own.what), 30)
