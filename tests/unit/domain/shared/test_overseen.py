"""What the controller says is what workers have: who is a member, and what is wanted of it."""

from __future__ import annotations

import random
from math import inf
from typing import TypeVar

from lbproxy.address import Address
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import CONTROLLER, SharedBooks
from lbproxy.domain.shared.cells import Guard
from lbproxy.domain.shared.overseen import SETTLE_S, OverseenPool
from lbproxy.domain.shared.plan import Plan
from lbproxy.domain.shared.pool import UNCONFIRMED_S, SharedPool
from lbproxy.domain.shared.waiting import SharedQueue
from lbproxy.domain.states import REFUSED, Admin, Breaker, Health
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext
from tests.support.tickets import CallingTicket

CTX = PickContext("192.0.2.1")
P = TypeVar("P", bound=SharedPool)
POLICY = BreakerPolicy(failures=2)


def server(number: int, limit: int = 0) -> Server:
    return Server(f"s{number}", Address("10.0.0.1", number + 1), max_inflight=limit)


class Site:
    """A controller, and workers that begin when they are asked for. woken: who was, in order."""

    def __init__(self, n_seats: int = 2) -> None:
        self.woken: list[int] = []
        self.plan = Plan(0, n_workers=2, n_servers=n_seats, n_rows=4, n_places=4)
        self.cells = [0] * self.plan.end
        self.controller = self.new_controller()

    def new_controller(self) -> OverseenPool:
        pool = self._pool(OverseenPool, CONTROLLER)
        pool.inherit()
        return pool

    def worker(self, number: int) -> SharedPool:
        pool = self._pool(SharedPool, number)
        pool.begin()
        return pool

    def _pool(self, kind: type[P], worker: int) -> P:
        books = SharedBooks(self.cells, self.plan, worker, {}, Guard(), self.woken.append, is_limited=False)
        rng = random.Random(1)
        strategies = create("least_connections", {}, rng), create("random", {}, rng)
        pool = kind("p", (), *strategies, breaker=POLICY, max_ejected=0.9)
        pool.share(books, SharedQueue(books, 4, 10.0, "fifo"))
        return pool


def lease_of(pool: SharedPool, now: float = 1.0) -> Lease:
    found = pool.acquire(CTX, (), now)
    assert isinstance(found, Lease)
    return found


def test_members_are_those_whom_the_controller_has_seated() -> None:
    site = Site()
    early = site.worker(0)
    assert early.acquire(CTX, (), 1.0) is Refusal.NO_SERVER
    member = server(0, limit=1)
    member.health, member.down_reason = Health.DOWN, "joining"
    site.controller.add(member, 1.0)
    assert site.woken == [0, 1]
    assert early.acquire(CTX, (), 1.0) is Refusal.NO_SERVER
    site.controller.set_health(member, Health.UP, "", "passed", 2.0)
    late = site.worker(1)
    lease = lease_of(early, 2.0)
    assert late.acquire(CTX, (), 2.0) is Refusal.FULL
    assert [(s.name, s.key, s.max_inflight, s.was_up) for s in late.servers] == [("s0", "10.0.0.1:1", 1, True)]
    site.controller.remove(member, 3.0)
    lease.release(Outcome.SUCCESS, 3.0)
    assert early.acquire(CTX, (), 3.0) is late.acquire(CTX, (), 3.0) is Refusal.NO_SERVER


def test_a_seat_is_another_s_when_all_have_let_it_go() -> None:
    site = Site(n_seats=1)
    worker = site.worker(0)
    first = server(0)
    site.controller.add(first, 1.0)
    lease = lease_of(worker)
    site.controller.remove(first, 1.0)
    worker.notice(1.0)
    for _ in range(2):
        late = server(1)
        site.controller.add(late, 2.0)
        assert (late.shown, site.controller.has_seat(late)) == ("maint", False)
        assert late.why == "there is no room for more than 1 servers until an upgrade or a restart"
        site.controller.remove(late, 2.0)
        if lease.is_out:
            lease.release(Outcome.SUCCESS, 2.0)
    worker.let_go(lease.server, 2.0)
    site.controller.add(server(1), 3.0)
    assert lease_of(worker, 3.0).server.name == "s1"
    site.controller.see(3.0)
    assert [item.inflight for item in site.controller.servers] == [1]


def test_whatever_is_set_is_what_workers_have() -> None:
    site = Site()
    one, other = server(0), server(1)
    for item in (one, other):
        site.controller.add(item, 1.0)
    worker = site.worker(0)
    theirs = worker.servers[0]
    controller = site.controller
    controller.set_admin(one, Admin.DRAIN, "by somebody", 2.0)
    controller.set_weight(one, 7, 2.0)
    controller.set_max_inflight(one, 3, 2.0)
    controller.set_backup(one, True, 2.0)
    controller.set_far(one, True, 2.0)
    one.cut_at, one.idle_timeout.learned_s, one.reuse.limit = 50.0, 4.5, 9
    controller.sweep(2.0)
    worker.collect(2.0)
    assert (theirs.admin, theirs.weight, theirs.max_inflight) == (Admin.DRAIN, 7, 3)
    assert (theirs.backup, theirs.far) == (True, True)
    late = site.worker(1).servers[0]
    assert (late.backup, late.far) == (True, True)
    controller.set_backup(one, False, 2.0)
    worker.collect(2.0)
    assert (theirs.backup, theirs.far) == (False, True)
    assert (theirs.cut_at, theirs.idle_timeout.learned_s, theirs.reuse.limit) == (50.0, 4.5, 9)
    one.cut_at = inf
    one.reuse.lifted(3.0)
    controller.sweep(3.0)
    controller.set_admin(one, Admin.READY, "", 3.0)
    worker.collect(3.0)
    assert (theirs.admin, theirs.cut_at) == (Admin.READY, inf)
    assert theirs.reuse.limit == one.reuse.limit


def test_nobody_is_woken_when_nothing_has_changed() -> None:
    site = Site()
    site.controller.add(server(0), 1.0)
    site.controller.sweep(1.0)
    site.woken.clear()
    for _ in range(3):
        site.controller.sweep(2.0)
        site.controller.set_health(site.controller.servers[0], Health.UNKNOWN, "", "", 2.0)
    assert site.woken == []


def test_a_higher_limit_serves_who_waits() -> None:
    site = Site()
    member = server(0, limit=1)
    site.controller.add(member, 1.0)
    worker, heard = site.worker(1), list[str]()
    lease_of(worker)
    ticket = CallingTicket(CTX, lambda lease, now: heard.append("granted"), heard.append, enqueued_at=1.0)
    assert worker.acquire(CTX, (), 1.0) is Refusal.FULL
    assert worker.enqueue(ticket, 1.0)
    site.controller.sweep(1.0)
    assert len(site.controller.queue or ()) == 1
    site.woken.clear()
    site.controller.set_max_inflight(member, 2, 1.0)
    assert site.woken == [0, 1]
    worker.collect(1.0)
    assert heard == ["granted"]


def test_the_controller_hears_of_ejections_and_lets_others_know_of_probes() -> None:
    site = Site()
    for number in range(2):
        site.controller.add(server(number), 1.0)
    flips: list[tuple[str, str, str]] = []
    site.controller.on_flip(lambda item, old, new: flips.append((item.name, old, new)))
    worker = site.worker(0)
    for _ in range(2):
        lease_at = worker.acquire_at(worker.servers[0], 2.0)
        assert lease_at is not None
        lease_at.release(Outcome.FAILURE, 2.0)
    site.controller.sweep(2.0)
    assert flips == [("s0", "up", "ejected")]
    site.controller.sweep(1000.0)
    assert flips[1:] == [("s0", "ejected", "probing")]
    lease_of(worker, 1000.0)
    assert worker.servers[0].breaker is Breaker.PROBING


def test_a_new_controller_has_servers_as_the_one_before_had_them() -> None:
    site = Site(n_seats=3)
    for number in range(3):
        site.controller.add(server(number), 1.0)
    site.controller.set_admin(site.controller.servers[0], Admin.DRAIN, "", 1.0)
    site.controller.set_health(site.controller.servers[1], Health.DOWN, REFUSED, "", 1.0)
    worker = site.worker(0)
    lease = lease_of(worker)
    site.controller = controller = site.new_controller()
    for number in range(2):
        controller.add(server(number))
    renamed = Server("other", Address("10.0.0.1", 3))
    controller.add(renamed, 2.0)
    assert not controller.has_seat(renamed)  # workers are not done with the one that has this address
    controller.remove(renamed, 2.0)
    assert [(s.name, s.admin, s.health) for s in controller.servers] == [
        ("s0", Admin.DRAIN, Health.UNKNOWN),
        ("s1", Admin.READY, Health.DOWN),
    ]
    assert controller.servers[1].down_reason == REFUSED
    lease.release(Outcome.SUCCESS, 2.0)
    worker.notice(2.0)
    assert [s.name for s in worker.servers] == ["s0", "s1"]


def test_whom_a_new_controller_does_not_name_leaves() -> None:
    site = Site()
    for number in range(2):
        site.controller.add(server(number), 1.0)
    worker = site.worker(0)
    controller = site.new_controller()
    controller.add(server(1))
    worker.notice(1.5)
    assert len(worker.servers) == 2
    controller.drop_inherited(2.0)
    worker.notice(2.0)
    assert [s.name for s in worker.servers] == ["s1"]
    controller.drop_inherited(3.0)


def test_what_a_worker_alone_thinks_does_not_last() -> None:
    """Its message to the controller may be lost."""
    site = Site()
    site.controller.add(server(0), 1.0)
    worker = site.worker(0)
    worker.server_refused(worker.servers[0], 2.0)
    worker.sweep(2.0 + UNCONFIRMED_S / 2)
    assert worker.acquire(CTX, (), 3.0) is Refusal.NO_SERVER
    worker.sweep(2.0 + UNCONFIRMED_S)
    assert lease_of(worker, 5.0).server.name == "s0"
    worker.server_refused(worker.servers[0], 6.0)
    site.controller.server_refused(site.controller.servers[0], 6.1)
    worker.sweep(6.0 + 2 * UNCONFIRMED_S)
    assert worker.acquire(CTX, (), 20.0) is Refusal.NO_SERVER


def test_who_is_drained_has_nothing_in_flight_at_any_worker() -> None:
    """What the controller looked at last is older than the drain, so it asks, and not at once."""
    site = Site()
    member = server(0)
    site.controller.add(member, 1.0)
    site.controller.set_health(member, Health.UP, "", "passed", 1.0)
    worker = site.worker(1)
    site.controller.sweep(1.5)
    lease = lease_of(worker, 2.0)
    site.controller.set_admin(member, Admin.DRAIN, "leaves", 2.0)
    assert member.inflight == 0, "as of the last look"
    assert not site.controller.is_drained(member, 2.0)
    assert not site.controller.is_drained(member, 2.0 + SETTLE_S) and member.inflight == 1
    lease.release(Outcome.SUCCESS, 3.0)
    assert site.controller.is_drained(member, 3.0)
    assert worker.acquire(CTX, (), 3.0) is Refusal.NO_SERVER


def test_a_request_that_a_worker_is_about_to_place_is_waited_for() -> None:
    site = Site()
    member = server(0)
    site.controller.add(member, 1.0)
    site.controller.set_health(member, Health.UP, "", "passed", 1.0)
    site.controller.set_admin(member, Admin.DRAIN, "leaves", 2.0)
    assert not site.controller.is_drained(member, 2.1)
    assert site.controller.is_drained(member, 2.0 + SETTLE_S)
