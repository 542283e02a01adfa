"""Tickets of several workers in one line: whose turn, who is late, who is too many, and which order holds."""

from __future__ import annotations

import random
from math import inf

import pytest

from lbproxy.address import Address
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.fairness import FairRules
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.queue import INTERVAL_S, TARGET_S
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks
from lbproxy.domain.shared.cells import Guard
from lbproxy.domain.shared.plan import Plan
from lbproxy.domain.shared.pool import SharedPool
from lbproxy.domain.shared.waiting import SharedQueue, ns
from lbproxy.domain.states import Admin
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext
from lbproxy.request_key import read_key
from tests.support.tickets import CallingTicket

CTX = PickContext("192.0.2.1")


class Site:
    """Two workers, and one slot for each server, unless there is no limit.

    heard: what tickets were told, in order. woken: workers that have something to do.
    """

    def __init__(
        self,
        *,
        size: int = 8,
        timeout_s: float = 10.0,
        order: str = "fifo",
        n_servers: int = 1,
        breaker: BreakerPolicy | None = None,
        limit: int = 1,
    ) -> None:
        self.heard: list[str] = []
        self.woken: list[int] = []
        self.leases: dict[str, Lease] = {}
        self.plan = plan = Plan(0, n_workers=2, n_servers=n_servers, n_rows=n_servers, n_places=size)
        self.cells = cells = [0] * plan.end
        self.pools: list[SharedPool] = []
        self.queues: list[SharedQueue] = []
        for worker in range(2):
            servers = [Server(f"s{i}", Address("10.0.0.1", i + 1), max_inflight=limit) for i in range(n_servers)]
            seats = {server: seat for seat, server in enumerate(servers)}
            books = SharedBooks(cells, plan, worker, seats, Guard(), self.woken.append, is_limited=limit > 0)
            queue = SharedQueue(books, size, timeout_s, order)
            rng = random.Random(1)
            strategies = create("least_connections", {}, rng), create("random", {}, rng)
            pool = SharedPool("p", servers, *strategies, breaker=breaker, max_ejected=0.9)
            pool.share(books, queue)
            self.pools.append(pool)
            self.queues.append(queue)

    def ticket(self, name: str, at: float, deadline_at: float = inf) -> CallingTicket:
        def granted(lease: Lease, now: float) -> None:
            self.heard.append(name)
            self.leases[name] = lease

        return CallingTicket(
            CTX, granted, lambda why: self.heard.append(f"{name} {why}"), enqueued_at=at, deadline_at=deadline_at
        )

    def fill(self, worker: int = 0) -> Lease:
        lease = self.pools[worker].acquire(CTX, (), 0.0)
        assert isinstance(lease, Lease)
        assert self.pools[1 - worker].acquire(CTX, (), 0.0) is Refusal.FULL
        return lease

    def wait(self, worker: int, name: str, at: float, deadline_at: float = inf) -> CallingTicket:
        ticket = self.ticket(name, at, deadline_at=deadline_at)
        assert self.pools[worker].enqueue(ticket, at)
        return ticket

    def answer_bells(self, now: float) -> None:
        while self.woken:
            self.pools[self.woken.pop(0)].collect(now)


def test_turns_are_those_of_arrival_whoever_the_worker_is() -> None:
    site = Site()
    lease = site.fill()
    for number, worker in enumerate((1, 0, 1, 1, 0)):
        site.wait(worker, f"t{number}", 0.1 * number)
    for number in range(5):
        lease.release(Outcome.SUCCESS, 1.0 + number)
        site.answer_bells(1.0 + number)
        lease = site.leases[f"t{number}"]
    assert site.heard == [f"t{number}" for number in range(5)]


def test_the_size_holds_for_all() -> None:
    site = Site(size=2)
    site.fill()
    site.wait(0, "a", 0.1)
    site.wait(1, "b", 0.2)
    assert not site.pools[0].enqueue(site.ticket("c", 0.3), 0.3)
    assert [len(queue) for queue in site.queues] == [2, 2]


def test_who_is_late_is_told_by_its_worker_and_passed_over_by_others() -> None:
    site = Site(timeout_s=1.0)
    lease = site.fill()
    site.wait(1, "late", 0.0)
    site.wait(1, "in time", 0.5)
    lease.release(Outcome.SUCCESS, 1.2)
    site.answer_bells(1.2)
    assert sorted(site.heard) == ["in time", "late timeout"]
    assert site.queues[0].oldest_wait_s(1.3) == 0.0


def test_a_client_that_leaves_after_its_turn_came_passes_it_on() -> None:
    site = Site()
    lease = site.fill()
    first = site.wait(1, "first", 0.0)
    site.wait(0, "second", 0.1)
    lease.release(Outcome.SUCCESS, 1.0)
    assert (site.heard, site.woken) == ([], [1])  # granted, and its worker does not know yet
    site.queues[1].remove(first, 1.0)
    site.answer_bells(1.0)
    assert site.heard == ["second"]


def test_a_turn_that_comes_too_late_for_an_answer_is_passed_on() -> None:
    site = Site()
    lease = site.fill()
    for pool in site.pools:
        pool.servers[0].service_min_s = 2.0
    site.wait(1, "first", 0.0, deadline_at=2.5)
    site.wait(0, "second", 0.1)
    lease.release(Outcome.SUCCESS, 1.0)
    site.answer_bells(1.0)
    assert site.heard == ["first hopeless", "second"]


def test_a_granted_slot_that_can_t_be_had_is_waited_for_in_front_of_the_others() -> None:
    """Its worker knows already that the server is drained; the others hear of it a moment later."""
    site = Site()
    lease = site.fill()
    site.wait(1, "first", 0.0)
    site.wait(0, "second", 0.1)
    lease.release(Outcome.SUCCESS, 1.0)
    site.pools[1].set_admin(site.pools[1].servers[0], Admin.DRAIN, "", 1.0)
    site.answer_bells(1.0)
    assert site.heard == []
    assert site.queues[1].oldest_wait_s(1.0) == 1.0
    site.pools[1].set_admin(site.pools[1].servers[0], Admin.READY, "", 2.0)
    site.answer_bells(2.0)
    assert site.heard == ["first"]


def test_a_strategy_chooses_with_the_worker_that_holds_the_client() -> None:
    """It knows what the request tried, and the one that freed the slot does not."""
    site = Site(n_servers=2)
    leases = [site.pools[0].acquire(CTX, (), 0.0) for _ in range(2)]
    ticket = site.ticket("first", 0.0)
    ticket.tried = (site.pools[1].servers[0],)
    assert site.pools[1].enqueue(ticket, 0.0)
    for lease in leases:
        assert isinstance(lease, Lease)
        lease.release(Outcome.SUCCESS, 1.0)
    site.answer_bells(1.0)
    assert site.leases["first"].server is site.pools[1].servers[1]


def test_whoever_joins_a_line_beside_a_slot_that_was_freed_meanwhile_gets_it_a_moment_later() -> None:
    site = Site()
    site.fill(worker=0).release(Outcome.SUCCESS, 0.1)
    ticket = site.wait(1, "late comer", 0.1)  # its pool had said FULL
    assert (site.heard, ticket.is_waiting) == ([], True)
    site.answer_bells(0.1)
    assert site.heard == ["late comer"]


@pytest.mark.parametrize("worker", [0, 1])
def test_a_standing_queue_turns_for_all_when_somebody_left_anywhere(worker: int) -> None:
    site = Site(order="adaptive")
    lease = site.fill()
    for number in range(6):
        site.wait(number % 2, f"t{number}", 0.01 * number)
    now = TARGET_S + 0.1
    site.pools[0].sweep(now)
    now += INTERVAL_S + 0.01
    leaver = site.wait(worker, "leaves", now)
    site.queues[worker].remove(leaver, now)
    lease.release(Outcome.SUCCESS, now)
    site.answer_bells(now)
    assert site.heard == ["t5"]
    site.pools[1 - worker].sweep(now)
    assert site.queues[1 - worker].is_newest_first


def test_the_rate_is_that_of_all() -> None:
    site = Site(size=20)
    lease = site.fill()
    for number in range(12):
        site.wait(number % 2, f"t{number}", 0.02 * number)
    for number in range(10):
        now = 0.6 * (number + 1)
        lease.release(Outcome.SUCCESS, now)
        site.answer_bells(now)
        lease = site.leases[f"t{number}"]
    for pool, queue in zip(site.pools, site.queues, strict=True):
        pool.sweep(6.0)
        assert queue.drain_rate(6.0) == pytest.approx(1.66, abs=0.1)


def test_times_without_end_fit_into_a_cell() -> None:
    assert ns(1.5) == 1_500_000_000
    assert ns(float("inf")) < 1 << 63


# --- turns ----------------------------------------------------------------------------------------------------------

BY_CLIENT = FairRules(read_key("client_ip"))


class FairSite(Site):
    """The same, with turns by client, whose name is the first letter of the ticket's."""

    def __init__(self, size: int = 8, n_places: int = 0, rules: FairRules | None = BY_CLIENT) -> None:
        super().__init__(size=n_places or 2 * size)
        for pool in self.pools:
            assert pool.queue is not None
            pool.queue.reconfigure(size, 10.0, "fifo", rules)

    def ticket(self, name: str, at: float, deadline_at: float = inf) -> CallingTicket:
        made = super().ticket(name, at, deadline_at)
        made.ctx = PickContext(name[0])
        return made

    def served(self, lease: Lease, now: float, names: list[str]) -> None:
        """These are, one after the other."""
        for name in names:
            lease.release(Outcome.SUCCESS, now)
            self.answer_bells(now)
            assert self.heard[-1] == name
            lease = self.leases[name]


def test_keys_have_turns_whoever_the_worker_is() -> None:
    site = FairSite()
    lease = site.fill()
    for number, (worker, name) in enumerate([(0, "a1"), (1, "a2"), (0, "a3"), (1, "b1"), (0, "b2"), (1, "c1")]):
        site.wait(worker, name, 0.1 * number)
    assert [queue.n_keys() for queue in site.queues] == [3, 3]
    site.served(lease, 1.0, ["a1", "b1", "c1", "a2", "b2", "a3"])


@pytest.mark.parametrize("worker", [0, 1])
def test_a_flood_makes_room_for_who_comes_to_any_worker(worker: int) -> None:
    site = FairSite(size=3)
    lease = site.fill()
    for number in range(3):
        site.wait(0, f"a{number}", 0.1)
    site.wait(worker, "b", 0.2)
    assert len(site.queues[worker]) == 3
    site.pools[worker].tell_crowded_out()
    site.answer_bells(0.2)
    assert site.heard == ["a2 crowded"]
    assert not site.pools[worker].enqueue(site.ticket("a4", 0.3), 0.3)
    site.served(lease, 1.0, ["a0", "b", "a1"])


def test_who_leaves_before_its_worker_hears_that_it_was_pushed_out_hears_nothing() -> None:
    site = FairSite(size=2)
    lease = site.fill()
    site.wait(0, "a0", 0.1)
    last = site.wait(0, "a1", 0.1)
    site.wait(1, "b", 0.2)
    site.queues[0].remove(last, 0.3)
    site.answer_bells(0.4)
    assert site.heard == []
    site.served(lease, 1.0, ["a0", "b"])


def test_who_was_pushed_out_is_not_told_of_its_time_too() -> None:
    site = FairSite(size=2)
    site.fill()
    for name in ("a0", "a1"):
        site.wait(0, name, 0.1)
    site.wait(1, "b", 0.2)
    assert [ticket.ctx.client_ip for ticket in site.queues[0].expire(11.0)] == ["a"]
    site.answer_bells(11.0)
    assert site.heard == ["a1 crowded"]


def test_nobody_is_pushed_out_for_a_place_that_is_not_free_yet() -> None:
    site = FairSite(size=2, n_places=2)
    site.fill()
    for name in ("a0", "a1"):
        site.wait(0, name, 0.1)
    assert not site.pools[1].enqueue(site.ticket("b", 0.2), 0.2)
    assert len(site.queues[0]) == 2 and not site.woken


@pytest.mark.parametrize("before", [None, FairRules(None), BY_CLIENT])
def test_who_waits_stays_when_the_rules_change_with_one_worker_after_the_other(before: FairRules | None) -> None:
    site = FairSite(rules=before)
    lease = site.fill()
    for number, name in enumerate(["a1", "a2", "a3", "b1"]):
        site.wait(number % 2, name, 0.1 * number)
    site.queues[0].reconfigure(8, 10.0, "fifo", BY_CLIENT)
    site.wait(1, "c1", 0.6)
    site.queues[1].reconfigure(8, 10.0, "fifo", BY_CLIENT)
    assert site.queues[0].n_keys() == 3
    for _ in range(5):
        lease.release(Outcome.SUCCESS, 1.0)
        site.answer_bells(1.0)
        lease = site.leases[site.heard[-1]]
    assert sorted(site.heard[:3]) == ["a1", "b1", "c1"] and site.heard[3:] == ["a2", "a3"]
    for queue in site.queues:
        queue.reconfigure(8, 10.0, "fifo", None)
        assert (len(queue), queue.n_keys()) == (0, None)


def test_what_is_certainly_ahead_of_a_newcomer_is_one_of_each_key() -> None:
    site = FairSite()
    site.fill()
    for number, name in enumerate(["a1", "a2", "a3", "b1"]):
        site.wait(number % 2, name, 0.1)
    assert [queue.n_ahead for queue in site.queues] == [2, 2]
    assert all(queue.would_take(PickContext("c"), is_trusted=False) for queue in site.queues)


def test_whether_a_full_line_would_take_one_more() -> None:
    site = FairSite(size=3)
    site.fill()
    for name in ("a1", "a2", "b1"):
        site.wait(0, name, 0.1)
    queue = site.queues[0]
    assert [queue.would_take(PickContext(client), is_trusted=False) for client in "abc"] == [False, False, True]
    assert len(queue) == 3 and not queue.crowded_out


def test_classes_are_counted_for_all() -> None:
    site = FairSite(rules=FairRules(None, "x-p", ("high", "low")))
    site.fill()
    for worker in range(2):
        site.wait(worker, f"a{worker}", 0.1)
    assert [queue.by_class() for queue in site.queues] == [[("high", 0), ("low", 2)]] * 2
