"""Who waits beside a free slot of a server that has just failed, and for how long."""

from __future__ import annotations

import random
from math import inf

import pytest

from lbproxy.address import Address
from lbproxy.domain.holding import FREE_SLOT, HELD_SLOT, NO_SLOT, slot_among
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.server import ERRORS_IN_A_ROW, Server
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext
from tests.support.tickets import CallingTicket

CTX = PickContext("192.0.2.1")


class Bench:
    """Two servers with one slot: `bad` has just failed and is free, `good` is at work."""

    def __init__(self, strategy: str = "least_connections", queue: WaitQueue | None = None) -> None:
        self.bad, self.good = (
            Server(name, Address("10.0.0.1", port), max_inflight=1) for name, port in (("bad", 1), ("good", 2))
        )
        rng = random.Random(1)
        self.queue = queue if queue is not None else WaitQueue()
        self.pool = Pool(
            "p", [self.bad, self.good], create(strategy, {}, rng), create("random", {}, rng), queue=self.queue
        )
        self.work = Lease(self.pool, self.good, 0.0)
        for _ in range(ERRORS_IN_A_ROW):
            Lease(self.pool, self.bad, 0.0).release(Outcome.FAILURE, 0.0)
        self.granted: list[tuple[str, float]] = []
        self.leases: list[Lease] = []
        self.refused: list[str] = []

    def _granted(self, lease: Lease, now: float) -> None:
        self.granted.append((lease.server.name, now))
        self.leases.append(lease)

    def ask(self, now: float, deadline_at: float = inf, tried: tuple[Server, ...] = ()) -> str:
        """The server that a request gets at once, or "" if it waits."""
        lease = self.pool.acquire(CTX, tried, now, deadline_at)
        if isinstance(lease, Lease):
            return lease.server.name
        assert lease is Refusal.FULL
        ticket = CallingTicket(
            CTX,
            self._granted,
            self.refused.append,
            enqueued_at=now,
            deadline_at=deadline_at,
            tried=tried,
        )
        assert self.pool.enqueue(ticket, now)
        return ""


@pytest.mark.parametrize("strategy", ["least_connections", "power_of_two", "peak_ewma"])
def test_a_slot_of_a_server_that_failed_is_not_free_while_others_are_merely_full(strategy: str) -> None:
    bench = Bench(strategy)
    assert bench.ask(0.1) == ""
    bench.pool.sweep(0.2)
    bench.pool.hand_over(0.3)
    assert bench.granted == []
    bench.work.release(Outcome.SUCCESS, 0.4)
    assert bench.granted == [("good", 0.4)]


@pytest.mark.parametrize("strategy", ["round_robin", "ip_hash", "random"])
def test_strategies_that_do_not_go_by_load_use_every_slot(strategy: str) -> None:
    assert Bench(strategy).ask(0.1) == "bad"


def test_the_wait_ends_with_the_penalty() -> None:
    bench = Bench()
    assert bench.ask(0.1) == ""
    bench.pool.sweep(4.9)
    assert bench.granted == []
    bench.pool.sweep(5.01)
    assert bench.granted == [("bad", 5.01)]


def test_a_long_penalty_is_not_waited_for_to_its_end() -> None:
    """Retry-After: 60, and the others stay full: half of the queue's time-out, at most 5 s."""
    for timeout_s, waited_s in ((10.0, 5.0), (2.0, 1.0), (60.0, 5.0)):
        bench = Bench(queue=WaitQueue(timeout_s=timeout_s))
        Lease(bench.pool, bench.bad, 0.1).release(Outcome.PUSH_BACK, 0.1, penalty_s=60.0)
        assert bench.ask(1.0) == ""
        bench.pool.sweep(1.0 + waited_s - 0.01)
        assert bench.granted == []
        bench.pool.sweep(1.0 + waited_s)
        assert bench.granted == [("bad", 1.0 + waited_s)]


def test_nobody_waits_who_has_no_time() -> None:
    bench = Bench()
    bench.bad.service_p95_s = 0.5
    assert bench.ask(0.1, deadline_at=0.8) == "bad"


def test_a_deadline_that_comes_near_ends_the_wait() -> None:
    bench = Bench()
    bench.good.service_p95_s = 0.5
    assert not bench.pool.is_hopeless(2.0, 0.1)
    assert bench.ask(0.1, deadline_at=2.0) == ""
    assert bench.ask(0.2) == ""
    bench.pool.sweep(1.2)
    assert bench.granted == []
    bench.pool.sweep(1.3)
    assert bench.granted == [("bad", 1.3)], "what slow answers take and a sweep are left"


def test_a_full_queue_is_no_reason_to_refuse_beside_a_slot() -> None:
    bench = Bench(queue=WaitQueue(size=1))
    assert [bench.ask(0.1), bench.ask(0.1)] == ["", "bad"]
    assert Bench(queue=WaitQueue(size=0)).ask(0.1) == "bad"


def test_a_queue_longer_than_the_hold_takes_what_there_is() -> None:
    """Forty wait and two are served a second: the turn of the last would come after 20 s."""
    bench = Bench(queue=WaitQueue(timeout_s=1000.0))
    Lease(bench.pool, bench.bad, 0.0).release(Outcome.PUSH_BACK, 0.0, penalty_s=60.0)
    for _ in range(40):
        assert bench.ask(0.0) == ""
    for half in range(1, 7):
        now = half / 2
        bench.work.release(Outcome.SUCCESS, now)  # which gives the slot to the next
        bench.work = bench.leases[-1] if bench.granted[-1][0] == "good" else bench.leases[-2]
    names = [name for name, _ in bench.granted]
    assert names.count("good") >= 5 and names.count("bad") == 1, "its one slot"


def test_where_everybody_has_failed_slots_are_slots() -> None:
    bench = Bench()
    bench.work.release(Outcome.PUSH_BACK, 0.1, penalty_s=5.0)
    assert {bench.ask(0.2), bench.ask(0.2)} == {"bad", "good"}


def test_the_only_server_is_used_whatever_it_did() -> None:
    server = Server("a", Address("10.0.0.1", 1), max_inflight=1)
    rng = random.Random(1)
    pool = Pool("p", [server], create("least_connections", {}, rng), create("random", {}, rng), queue=WaitQueue())
    for number in range(20):
        lease = pool.acquire(CTX, (), number / 10)
        assert isinstance(lease, Lease)
        lease.release(Outcome.FAILURE, number / 10)


def test_a_retry_does_not_wait_for_the_server_that_failed_it() -> None:
    """Only the one that has failed this request is sound; the other has a slot and a penalty."""
    bench = Bench()
    bench.good.penalise(5.0, 0.0)
    assert bench.ask(0.1, tried=(bench.good,)) == "bad"


def test_one_failure_among_good_answers_takes_no_slot_away() -> None:
    bench = Bench()
    Lease(bench.pool, bench.bad, 0.0).release(Outcome.SUCCESS, 0.0)
    Lease(bench.pool, bench.bad, 0.0).release(Outcome.FAILURE, 0.0)
    assert bench.bad.penalty_s(0.1) > 0
    assert bench.ask(0.1) == "bad"


def test_a_retry_waits_rather_than_meet_the_same_server_again() -> None:
    bench = Bench()
    Lease(bench.pool, bench.bad, 0.0).release(Outcome.SUCCESS, 0.0)
    Lease(bench.pool, bench.bad, 0.0).release(Outcome.ERROR, 0.0, penalty_s=5.0)
    assert bench.ask(0.1, tried=(bench.bad,)) == ""
    bench.work.release(Outcome.SUCCESS, 0.2)
    assert bench.granted == [("good", 0.2)]


def test_the_kinds_of_slots() -> None:
    bench = Bench()
    servers = bench.pool.servers
    assert slot_among(servers, 0.1) == HELD_SLOT
    assert slot_among(servers, 6.0) == FREE_SLOT
    assert slot_among([bench.bad], 0.1) == FREE_SLOT, "there is nobody else"
    assert slot_among([bench.good], 0.1) == NO_SLOT
    assert slot_among([], 0.1) == NO_SLOT
