"""Slots, queue, ejections, quarantine and slow start of a pool."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.holding import FREE_SLOT, HELD_SLOT, slot_among
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import Ticket, WaitQueue
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Breaker, Health
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.strategies.consistent import ConsistentHash
from tests.support.tickets import CallingTicket

CTX = PickContext("192.0.2.1")
SUCCESS, FAILURE, NEUTRAL = Outcome.SUCCESS, Outcome.FAILURE, Outcome.NEUTRAL
PUSH_BACK, ABORTED = Outcome.PUSH_BACK, Outcome.ABORTED


def make_pool(
    n: int = 2,
    *,
    max_inflight: int = 0,
    queue: WaitQueue | None = None,
    breaker: BreakerPolicy | None = None,
    max_ejected: float = 0.5,
    slow_start_s: float = 0.0,
    strategy: str = "least_connections",
    backups: int = 0,
) -> tuple[Pool, list[Server]]:
    servers = [
        Server(chr(97 + i), Address("10.0.0.1", 5001 + i), max_inflight=max_inflight, backup=i >= n - backups)
        for i in range(n)
    ]
    rng = random.Random(1)
    pool = Pool(
        "p",
        servers,
        create(strategy, {}, rng),
        create("random", {}, rng),
        queue=queue,
        breaker=breaker,
        max_ejected=max_ejected,
        slow_start_s=slow_start_s,
    )
    return pool, servers


def got(pool: Pool, now: float = 0.0, tried: tuple[Server, ...] = ()) -> Lease:
    lease = pool.acquire(CTX, tried, now)
    assert isinstance(lease, Lease)
    return lease


class Client:
    """A request in the queue, and what it was told."""

    def __init__(self, pool: Pool, now: float, deadline_at: float = float("inf")) -> None:
        self.lease: Lease | None = None
        self.reason = ""
        self.ticket = CallingTicket(CTX, self._granted, self._refused, enqueued_at=now, deadline_at=deadline_at)
        self.is_in = pool.enqueue(self.ticket, now)

    def _granted(self, lease: Lease, now: float) -> None:
        assert self.lease is None and not self.reason
        self.lease = lease

    def _refused(self, reason: str) -> None:
        assert self.lease is None and not self.reason
        self.reason = reason


# --- slots and queue -------------------------------------------------------------------------------------------------


def test_limits_fill_and_then_the_pool_is_full() -> None:
    pool, (a, b) = make_pool(max_inflight=2)
    for _ in range(4):
        got(pool)
    assert (a.inflight, b.inflight) == (2, 2)
    assert pool.acquire(CTX, (), 0.0) is Refusal.FULL


def test_nobody_usable_is_not_full() -> None:
    pool, (a, b) = make_pool(max_inflight=1)
    for server in (a, b):
        pool.server_refused(server, 0.0)
    assert pool.acquire(CTX, (), 0.0) is Refusal.NO_SERVER


def test_a_freed_slot_goes_to_the_head_of_the_queue_in_the_same_call() -> None:
    pool, (a,) = make_pool(1, max_inflight=1, queue=WaitQueue())
    lease = got(pool)
    first, second = Client(pool, 0.1), Client(pool, 0.2)
    lease.release(SUCCESS, 1.0)
    assert first.lease is not None and first.lease.server is a
    assert first.lease.started_at == 1.0
    assert second.lease is None
    assert pool.acquire(CTX, (), 1.0) is Refusal.FULL  # nobody overtakes


def raise_limit_and_sweep(pool: Pool, server: Server) -> None:
    """The limit changed behind the pool's back: the sweep notices."""
    server.max_inflight = 2
    pool.sweep(5.0)


FREEING: dict[str, Callable[[Pool, list[Server]], object]] = {
    "limit raised": lambda pool, servers: pool.set_max_inflight(servers[0], 2, 5.0),
    "server up": lambda pool, servers: pool.set_health(servers[1], Health.UP, "", "", 5.0),
    "drain ended": lambda pool, servers: pool.set_admin(servers[2], Admin.READY, "", 5.0),
    "server joined": lambda pool, servers: pool.add(Server("n", Address("10.0.0.1", 1), max_inflight=1), 5.0),
    "sweep": lambda pool, servers: raise_limit_and_sweep(pool, servers[0]),
}


@pytest.mark.parametrize("what", FREEING)
def test_everything_that_frees_a_slot_hands_it_over(what: str) -> None:
    pool, servers = make_pool(3, max_inflight=1, queue=WaitQueue())
    pool.server_refused(servers[1], 0.0)
    pool.set_admin(servers[2], Admin.DRAIN, "", 0.0)
    got(pool)
    client = Client(pool, 1.0)
    FREEING[what](pool, servers)
    assert client.lease is not None


def test_late_tickets_are_told_why() -> None:
    pool, _ = make_pool(1, max_inflight=1, queue=WaitQueue(timeout_s=10.0))
    got(pool)
    patient, hasty = Client(pool, 0.0), Client(pool, 0.0, deadline_at=2.0)
    pool.sweep(2.0)
    assert (patient.reason, hasty.reason) == ("", "deadline")
    pool.sweep(10.0)
    assert patient.reason == "timeout"


def test_a_late_ticket_gets_no_slot_even_before_the_sweep() -> None:
    pool, _ = make_pool(1, max_inflight=1, queue=WaitQueue(timeout_s=10.0))
    lease = got(pool)
    late = Client(pool, 0.0)
    in_time = Client(pool, 9.0)
    lease.release(SUCCESS, 11.0)
    assert in_time.lease is not None
    pool.sweep(11.0)
    assert late.reason == "timeout"


@pytest.mark.parametrize("queue", [None, WaitQueue(size=0)])
def test_no_room_to_wait(queue: WaitQueue | None) -> None:
    pool, _ = make_pool(1, max_inflight=1, queue=queue)
    got(pool)
    assert not Client(pool, 0.0).is_in


def test_a_deadline_in_the_past_is_refused_at_once() -> None:
    pool, _ = make_pool(1, max_inflight=1, queue=WaitQueue())
    got(pool)
    assert not Client(pool, 3.0, deadline_at=3.0).is_in


def test_grants_that_end_at_once_do_not_recurse() -> None:
    pool, (a,) = make_pool(1, max_inflight=1, queue=WaitQueue(size=5000))
    lease = got(pool)
    order: list[int] = []

    def grant(number: int) -> Callable[[Lease, float], None]:
        def granted(granted_lease: Lease, now: float) -> None:
            order.append(number)
            granted_lease.release(NEUTRAL, now)

        return granted

    for i in range(3000):
        assert pool.enqueue(CallingTicket(CTX, grant(i), lambda reason: None, enqueued_at=0.0), 0.0)
    lease.release(SUCCESS, 0.1)
    assert order == list(range(3000))
    assert a.inflight == 0


class Defective:
    """A ticket that raises whatever it is told, and keeps what it is given."""

    def __init__(self, pool: Pool, now: float, *, is_orderly: bool = False) -> None:
        self.lease: Lease | None = None
        self.errors: list[Exception] = []
        self.is_orderly = is_orderly
        ticket = CallingTicket(CTX, self._granted, self._refused, enqueued_at=now, failed=self._failed)
        assert pool.enqueue(ticket, now)

    def _granted(self, lease: Lease, now: float) -> None:
        self.lease = lease
        raise ZeroDivisionError("granted")

    def _refused(self, why: str) -> None:
        raise ZeroDivisionError(why)

    def _failed(self, error: Exception) -> None:
        self.errors.append(error)
        if self.is_orderly and self.lease is not None:
            self.lease.release(NEUTRAL, 1.0)


@pytest.mark.parametrize("is_orderly", [True, False])
def test_a_ticket_that_raises_loses_its_slot_and_nobody_else_s_turn(is_orderly: bool) -> None:
    """Nor does who released the slot hear of it: it is another request, which is at its end."""
    pool, (a,) = make_pool(1, max_inflight=1, queue=WaitQueue())
    lease = got(pool)
    defective = Defective(pool, 0.1, is_orderly=is_orderly)
    sound = Client(pool, 0.2)
    lease.release(SUCCESS, 1.0)
    assert [str(error) for error in defective.errors] == ["granted"]
    assert defective.lease is not None and not defective.lease.is_out
    assert sound.lease is not None and a.inflight == 1 and pool.queue is not None and not len(pool.queue)
    sound.lease.release(SUCCESS, 2.0)
    assert (a.inflight, a.requests, a.errors) == (0, 3, 0)


def test_a_ticket_that_raises_when_it_is_refused_hides_no_other() -> None:
    pool, (a,) = make_pool(1, max_inflight=1, queue=WaitQueue(timeout_s=1.0))
    lease = got(pool)
    defective = Defective(pool, 0.1)
    sound = Client(pool, 0.2)
    pool.sweep(5.0)
    assert [str(error) for error in defective.errors] == ["timeout"] and sound.reason == "timeout"
    lease.release(SUCCESS, 6.0)
    assert a.inflight == 0


def test_a_defect_in_a_defect_leaves_the_books_even() -> None:
    pool, (a,) = make_pool(1, max_inflight=1, queue=WaitQueue())
    lease = got(pool)

    def fail(*anything: object) -> None:
        raise ZeroDivisionError

    assert pool.enqueue(CallingTicket(CTX, fail, fail, enqueued_at=0.1), 0.1)
    sound = Client(pool, 0.2)
    with pytest.raises(ZeroDivisionError):
        lease.release(SUCCESS, 1.0)
    assert a.inflight == 0
    pool.sweep(1.2)
    assert sound.lease is not None, "the sweep serves who was left"


def test_a_tried_server_is_used_only_if_there_is_no_other_slot() -> None:
    pool, (a, b) = make_pool(max_inflight=1)
    assert got(pool, tried=(a,)).server is b
    assert got(pool, tried=(a,)).server is a


def test_backups_only_when_no_primary_is_usable() -> None:
    pool, (a, b) = make_pool(backups=1, max_inflight=1)
    assert got(pool).server is a
    assert pool.acquire(CTX, (), 0.0) is Refusal.FULL  # full is not down
    pool.server_refused(a, 0.0)
    assert got(pool).server is b


def test_weight_0_drains() -> None:
    pool, (a, b) = make_pool()
    pool.set_weight(a, 0, 0.0)
    assert [got(pool).server for _ in range(3)] == [b] * 3
    pool.set_weight(a, 1, 0.0)
    assert got(pool).server is a


def test_a_lease_is_released_once() -> None:
    pool, _ = make_pool()
    lease = got(pool)
    lease.release(SUCCESS, 1.0)
    with pytest.raises(RuntimeError, match="released twice"):
        lease.release(NEUTRAL, 1.0)


# --- quarantine ------------------------------------------------------------------------------------------------------


def test_a_quarantined_slot_is_used_last() -> None:
    pool, (a, b) = make_pool(max_inflight=1)
    first = got(pool)
    first.release(ABORTED, 1.0, quarantine_s=60.0)
    assert (first.server, first.server.inflight, first.server.n_quarantined) == (a, 0, 1)
    assert [got(pool, 1.0).server for _ in range(2)] == [b, a]
    assert pool.acquire(CTX, (), 1.0) is Refusal.FULL


def test_quarantine_ends_by_time() -> None:
    pool, (a, _) = make_pool(max_inflight=1)
    got(pool).release(ABORTED, 1.0, quarantine_s=60.0)
    pool.sweep(60.9)
    assert a.n_quarantined == 1
    pool.sweep(61.0)
    assert (a.n_quarantined, a.free_limit) == (0, 1)


def test_quarantine_is_not_longer_than_most_answers_take() -> None:
    pool, (a,) = make_pool(1, max_inflight=1)
    got(pool, 0.0).release(SUCCESS, 2.0)
    got(pool, 2.0).release(ABORTED, 3.0, quarantine_s=60.0)
    pool.sweep(4.9)
    assert a.n_quarantined == 1
    pool.sweep(5.0)
    assert a.n_quarantined == 0


@pytest.mark.parametrize("progress", ["answer", "byte"])
def test_quarantine_ends_when_the_server_shows_progress(progress: str) -> None:
    pool, (a,) = make_pool(1, max_inflight=1)
    got(pool).release(ABORTED, 1.0, quarantine_s=60.0)
    lease = got(pool, 2.0)
    if progress == "answer":
        lease.release(SUCCESS, 3.0)
    else:
        a.progress_at = 3.0
        pool.sweep(3.1)
    assert a.n_quarantined == 0


def test_an_answer_that_was_on_its_way_does_not_end_the_quarantine() -> None:
    pool, (a,) = make_pool(1, max_inflight=2)
    other = got(pool)
    got(pool).release(ABORTED, 1.0, quarantine_s=60.0)
    other.release(SUCCESS, 2.0)
    assert a.n_quarantined == 1


def test_running_p95() -> None:
    rng = random.Random(7)
    server = Server("a", Address("10.0.0.1", 1))
    times = [rng.lognormvariate(-2.3, 1.0) for _ in range(20_000)]
    for elapsed in times:
        server.observe_service(elapsed)
    assert server.service_p95_s == pytest.approx(sorted(times)[19_000], rel=0.35)


# --- failure penalty -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["least_connections", "power_of_two", "peak_ewma"])
def test_a_failed_answer_keeps_requests_away_and_fades(strategy: str) -> None:
    pool, (a, b) = make_pool(strategy=strategy)
    for _ in range(2):
        got(pool).release(SUCCESS, 0.1)
    failed = got(pool, 1.0)
    failed.release(FAILURE, 1.0)
    other = b if failed.server is a else a
    assert {got(pool, 1.1).server for _ in range(5)} == {other}
    assert failed.server.load(1.0) == 50.0
    assert failed.server.load(3.5) == 25.0
    assert failed.server.load(6.0) == 0.0
    assert got(pool, 6.1).server is failed.server


def test_retry_after_is_believed_up_to_a_minute_and_good_answers_do_not_shorten_it() -> None:
    pool, (a,) = make_pool(1)
    running = got(pool)
    got(pool).release(PUSH_BACK, 0.0, penalty_s=30.0)
    running.release(SUCCESS, 1.0)
    assert a.penalty_s(1.0) == 29.0
    got(pool).release(PUSH_BACK, 1.0, penalty_s=86400.0)
    assert a.penalty_s(1.0) == 60.0


def test_good_answers_halve_an_ordinary_penalty() -> None:
    pool, (a,) = make_pool(1)
    running = got(pool)
    got(pool).release(FAILURE, 0.0)
    running.release(SUCCESS, 1.0)
    assert a.penalty_s(1.0) == 2.0
    assert a.errors == 1


# --- ejections -------------------------------------------------------------------------------------------------------

QUICK = BreakerPolicy(failures=2, open_s=10.0)


def fail(pool: Pool, server: Server, now: float, times: int = 2, what: str = "connect failures") -> None:
    others = tuple(other for other in pool.servers if other is not server)
    for _ in range(times):
        lease = got(pool, now, tried=others)
        assert lease.server is server
        lease.release(FAILURE, now, what=what)


def test_the_life_of_an_ejection() -> None:
    pool, (a, b) = make_pool(breaker=QUICK)
    flips: list[str] = []
    pool.on_flip(lambda server, old, new: flips.append(f"{server.name} {old} {new}"))
    fail(pool, a, 0.0)
    assert pool.eligible() == (b,)
    assert pool.why(a, 8.0) == "ejected 8 s ago: 2 consecutive connect failures, next probe in 2 s"
    pool.sweep(10.0)
    assert pool.why(a, 11.0) == "probing 1 s ago: 2 consecutive connect failures, the next request is a probe"
    probe = got(pool, 11.0)
    assert probe.server is a  # before others
    assert got(pool, 11.0).server is b  # one at a time
    probe.release(SUCCESS, 11.1)
    assert flips == ["a up ejected", "a ejected probing", "a probing up"]
    assert set(pool.eligible()) == {a, b}
    assert pool.why(a, 12.0) == "a probe succeeded"


def test_a_failed_probe_doubles_the_time() -> None:
    pool, (a, _) = make_pool(breaker=QUICK)
    fail(pool, a, 0.0)
    pool.sweep(10.0)
    got(pool, 10.0).release(FAILURE, 10.0, what="time-outs")
    assert pool.why(a, 10.0) == "ejected 0 s ago: the probe met time-outs, next probe in 20 s"


@pytest.mark.parametrize("outcome", [NEUTRAL, ABORTED, PUSH_BACK])
def test_a_probe_without_verdict_is_repeated(outcome: Outcome) -> None:
    pool, (a, b) = make_pool(breaker=QUICK)
    fail(pool, a, 0.0)
    pool.sweep(10.0)
    got(pool, 10.0).release(outcome, 10.5)
    assert a.breaker is Breaker.PROBING
    if outcome is not NEUTRAL:
        assert got(pool, 10.6).server is b  # not at once
    assert got(pool, 16.0).server is a


def test_a_single_server_is_never_ejected() -> None:
    pool, (a,) = make_pool(1, breaker=QUICK, max_ejected=1.0)
    fail(pool, a, 0.0, times=10)
    assert a.breaker is Breaker.CLOSED


def test_the_last_usable_server_is_never_ejected() -> None:
    pool, (a, b) = make_pool(breaker=QUICK)
    pool.server_refused(b, 0.0)
    fail(pool, a, 0.0, times=10)
    assert a.breaker is Breaker.CLOSED


def test_at_most_the_configured_share_is_ejected() -> None:
    pool, servers = make_pool(5, breaker=QUICK, max_ejected=0.5)
    for server in servers:
        fail(pool, server, 0.0)
    assert [server.shown for server in servers] == ["ejected", "ejected", "up", "up", "up"]


def test_a_pool_that_shrinks_takes_the_ejected_back() -> None:
    pool, (a, b) = make_pool(breaker=QUICK)
    fail(pool, a, 0.0)
    pool.remove(b, 1.0)
    assert a.shown == "up"
    assert got(pool, 1.0).server is a


def test_push_back_and_aborts_never_eject() -> None:
    pool, (a, _) = make_pool(breaker=QUICK)
    for outcome in (PUSH_BACK, ABORTED, NEUTRAL):
        for _ in range(10):
            got(pool).release(outcome, 0.0)
    assert a.breaker is Breaker.CLOSED


def test_results_from_before_the_flip_do_not_count() -> None:
    pool, (a, b) = make_pool(breaker=QUICK)
    old = [got(pool, 0.0, tried=(b,)) for _ in range(5)]
    fail(pool, a, 0.0)
    pool.sweep(10.0)
    for lease in old[:3]:
        lease.release(SUCCESS, 10.0)
    assert a.breaker is Breaker.PROBING
    got(pool, 10.0).release(SUCCESS, 10.1)
    for lease in old[3:]:
        lease.release(FAILURE, 10.2)
    assert (a.breaker, a.inflight) == (Breaker.CLOSED, 0)


@pytest.mark.parametrize(("size", "expected"), [(0, Refusal.NO_SERVER), (1, Refusal.FULL)])
def test_nobody_waits_for_a_probe_in_a_queue_without_places(size: int, expected: Refusal) -> None:
    """`queue.size: 0` is no queue: the reason is that no server is usable, not that a queue is full."""
    pool, (a, b) = make_pool(breaker=QUICK, queue=WaitQueue(size))
    fail(pool, a, 0.0)
    pool.set_admin(b, Admin.DRAIN, "", 1.0)
    pool.sweep(10.0)
    assert got(pool, 10.0).server is a, "the only probe"
    assert pool.acquire(CTX, (), 10.0) is expected


def test_a_queue_is_served_by_a_probe() -> None:
    pool, (a, b) = make_pool(max_inflight=1, breaker=QUICK, queue=WaitQueue(timeout_s=60.0))
    fail(pool, a, 0.0)
    assert got(pool, 0.0).server is b
    first, second = Client(pool, 1.0), Client(pool, 1.0)
    pool.sweep(10.0)
    assert first.lease is not None and first.lease.server is a
    assert second.lease is None
    first.lease.release(SUCCESS, 10.5)
    assert second.lease is not None


# --- slow start ------------------------------------------------------------------------------------------------------


def test_ramp_of_weight_and_limit() -> None:
    pool, servers = make_pool(4, max_inflight=10, slow_start_s=10.0)
    a = servers[0]
    pool.server_refused(a, 0.0)
    pool.set_health(a, Health.UP, "", "", 20.0)
    seen = []
    for now in (20.0, 20.5, 23.0, 27.5, 30.0, 31.0):
        pool.sweep(now)
        seen.append((a.effective_weight, a.limit))
    assert seen == [(0.1, 1), (0.1, 1), (0.3, 3), (0.75, 8), (1.0, 10), (1.0, 10)]
    assert a.weight == 1 and a.max_inflight == 10


def test_least_connections_goes_by_the_ramped_weight() -> None:
    pool, servers = make_pool(2, slow_start_s=10.0)
    pool.server_refused(servers[0], 0.0)
    pool.set_health(servers[0], Health.UP, "", "", 20.0)
    pool.sweep(22.5)
    for _ in range(10):
        got(pool, 22.5)
    assert [server.inflight for server in servers] == [2, 8]


@pytest.mark.parametrize(("n", "ramps"), [(1, 0), (2, 1), (3, 1), (4, 2)])
def test_never_more_than_half_of_the_pool_ramps(n: int, ramps: int) -> None:
    pool, servers = make_pool(n, slow_start_s=10.0)
    for server in servers:
        pool.server_refused(server, 0.0)
    for server in servers:
        pool.set_health(server, Health.UP, "", "", 20.0)
    assert sum(server.effective_weight < 1 for server in servers) == ramps


def test_no_ramp_at_start_and_after_a_moment_away() -> None:
    pool, (a, _) = make_pool(slow_start_s=10.0)
    pool.set_health(a, Health.UP, "", "", 0.0)
    assert a.effective_weight == 1
    pool.server_refused(a, 5.0)
    pool.set_health(a, Health.UP, "", "", 5.9)
    assert a.effective_weight == 1


def test_a_server_that_joins_and_one_after_an_ejection_ramp() -> None:
    pool, (a, _) = make_pool(slow_start_s=10.0, breaker=QUICK)
    new = Server("n", Address("10.0.0.1", 9), weight=2)
    new.health = Health.DOWN
    pool.add(new, 1.0)
    pool.set_health(new, Health.UP, "", "", 2.0)
    assert new.effective_weight == 0.2
    pool.sweep(12.0)
    fail(pool, a, 12.0)
    pool.sweep(22.0)
    got(pool, 22.0).release(SUCCESS, 22.1)
    assert (new.effective_weight, a.effective_weight) == (2, 0.1)


# --- anything goes ---------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["acquire"] * 6
            + ["release"] * 6
            + ["time", "sweep", "health", "admin", "leave", "limit", "member", "weight"]
        ),
        st.integers(0, 1000),
    ),
    min_size=15,
    max_size=150,
)


class Machine:
    """A pool and its clients; every step checks the invariants."""

    def __init__(self, n: int, limit: int, probes: int) -> None:
        policy = BreakerPolicy(failures=2, open_s=2.0, probes=probes, min_requests=4)
        queue = WaitQueue(size=6, timeout_s=3.0)
        self.pool, servers = make_pool(
            n, max_inflight=limit, queue=queue, breaker=policy, slow_start_s=2.0, backups=1 if n > 3 else 0
        )
        self.known = list(servers)
        self.probes = probes
        self.now = 0.0
        self.leases: list[Lease] = []
        self.waiting: list[Ticket] = []

    def step(self, what: str, number: int) -> None:
        self.now += number % 7 / 20
        getattr(self, what)(number)
        self.check()

    def acquire(self, number: int) -> None:
        tried = (self.known[number % len(self.known)],) if number % 3 == 0 else ()
        lease = self.pool.acquire(CTX, tried, self.now)
        if isinstance(lease, Lease):
            self.granted(lease)
        elif lease is Refusal.FULL:
            ticket = CallingTicket(
                CTX, lambda lease, now: self.ended(ticket, lease), lambda reason: self.ended(ticket, None),
                enqueued_at=self.now, tried=tried,
            )  # fmt: skip
            if self.pool.enqueue(ticket, self.now):
                self.waiting.append(ticket)

    def ended(self, ticket: Ticket, lease: Lease | None) -> None:
        self.waiting.remove(ticket)
        if lease is not None:
            self.granted(lease)

    def granted(self, lease: Lease) -> None:
        server = lease.server
        assert lease.server in self.pool.servers
        assert server.admin is Admin.READY and server.weight > 0
        assert server.breaker is not Breaker.EJECTED
        assert server.inflight <= server.limit
        others = [other for other in self.pool.eligible() if other is not server]
        if server.max_inflight == 1 and server.n_quarantined and server.breaker is Breaker.CLOSED:
            assert [o for o in others if o.inflight < o.free_limit and not o.penalty_until] == []
        self.leases.append(lease)

    def release(self, number: int) -> None:
        if self.leases:
            lease = self.leases.pop(number % len(self.leases))
            outcome = list(Outcome)[number % len(Outcome)]
            lease.release(outcome, self.now, quarantine_s=1.0 if outcome is ABORTED else 0.0)

    def time(self, number: int) -> None:
        self.now += number / 200

    def sweep(self, number: int) -> None:
        self.pool.sweep(self.now)
        if self.waiting:
            assert slot_among(self.pool.eligible(), self.now) != FREE_SLOT
            if slot_among(self.pool.eligible(), self.now) == HELD_SLOT:
                assert min(ticket.enqueued_at for ticket in self.waiting) > self.now - 1.5, "half of the time-out"

    def health(self, number: int) -> None:
        server, health = self.known[number % len(self.known)], list(Health)[number % 4]
        if server in self.pool.servers:
            self.pool.set_health(server, health, "refused" if number % 2 else "status", "test", self.now)

    def admin(self, number: int) -> None:
        server = self.known[number % len(self.known)]
        if server in self.pool.servers:
            self.pool.set_admin(server, list(Admin)[number % 3], "test", self.now)

    def leave(self, number: int) -> None:
        if self.waiting and self.pool.queue is not None:
            self.pool.queue.remove(self.waiting.pop(number % len(self.waiting)), self.now)

    def limit(self, number: int) -> None:
        self.pool.set_max_inflight(self.known[number % len(self.known)], number % 4, self.now)

    def weight(self, number: int) -> None:
        self.pool.set_weight(self.known[number % len(self.known)], number % 3, self.now)

    def member(self, number: int) -> None:
        server = self.known[number % len(self.known)]
        if server not in self.pool.servers:
            self.pool.add(server, self.now)
        elif len(self.pool.servers) > 1:
            self.pool.remove(server, self.now)

    def check(self) -> None:
        pool, queue = self.pool, self.pool.queue
        assert queue is not None and len(queue) == len(self.waiting) <= queue.size
        for server in self.known:
            assert server.inflight == sum(lease.server is server for lease in self.leases)
        if self.waiting:
            # A slot beside somebody who waits is that of a server with a penalty.
            assert [s for s in pool.eligible() if s.inflight < s.limit and not s.penalty_until] == []
        out = [server for server in pool.servers if server.breaker is not Breaker.CLOSED]
        assert len(out) <= pool.most_ejected
        for server in self.known:
            circuit = server.circuit
            assert circuit is not None and circuit.state is server.breaker
            probing = [
                lease for lease in self.leases if lease.server is server and lease.generation == circuit.generation
            ]
            if circuit.state is Breaker.PROBING:
                assert circuit.has_probes_out == bool(probing)
                assert len(probing) <= self.probes

    def finish(self) -> None:
        while self.leases:
            self.release(0)
        self.now += 100.0
        self.pool.sweep(self.now)
        while self.leases:
            self.release(1)
        self.check()
        assert not self.waiting
        assert all(server.inflight == 0 and server.n_quarantined == 0 for server in self.pool.servers)
        assert all(server.circuit is not None and not server.circuit.has_probes_out for server in self.known)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(1, 5), st.integers(0, 2), st.integers(1, 2))
def test_invariants_after_any_history(steps: list[tuple[str, int]], n: int, limit: int, probes: int) -> None:
    machine = Machine(n, limit, probes)
    for what, number in steps:
        machine.step(what, number)
    machine.finish()


def test_a_try_is_one_pick_of_consistent_hash() -> None:
    pool, _ = make_pool(3, strategy="consistent_hash")
    strategy = pool.picker.strategy
    assert isinstance(strategy, ConsistentHash)
    first = got(pool)
    assert strategy.take_counts() == (1, 0, 0, 0)
    second = got(pool, tried=(first.server,))
    assert second.server is not first.server
    assert strategy.take_counts() == (0, 0, 1, 0), "its owner was not picked a second time"
    got(pool, tried=(first.server, second.server))
    assert strategy.take_counts() == (0, 0, 1, 0)
