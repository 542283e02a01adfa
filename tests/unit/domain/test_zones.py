"""Servers of one zone come first: with virtual traffic, and rule by rule. Who counts as usable: test_pool.py."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.server import ERRORS_IN_A_ROW, PENALTY_S, Server
from lbproxy.domain.shared.books import SharedBooks
from lbproxy.domain.shared.cells import Guard
from lbproxy.domain.shared.plan import Plan
from lbproxy.domain.shared.pool import SharedPool
from lbproxy.domain.shared.waiting import SharedQueue
from lbproxy.domain.states import REFUSED, Admin, Health
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext
from tests.support.tickets import CallingTicket

CTX = PickContext("192.0.2.1")
OWN = "a"
HOLDS_UP_TO = 64
STRATEGIES = ("least_connections", "round_robin", "power_of_two", "consistent_hash", "peak_ewma", "ip_hash", "first")


def servers_of(sizes: Sequence[int], limit: int = 0) -> list[Server]:
    """So many servers in each of the zones a, b, c ...; lbproxy stands in a."""
    made = []
    for number, size in enumerate(sizes):
        for each in range(size):
            server = Server(f"{chr(97 + number)}{each}", Address(f"10.0.{number}.1", 5000 + each), max_inflight=limit)
            server.zone = chr(97 + number)
            server.far = number > 0
            made.append(server)
    return made


def pool_of(servers: Sequence[Server], strategy: str = "least_connections", slow_start_s: float = 0.0) -> Pool:
    rng = random.Random(1)
    options = {"key": "path"} if strategy == "consistent_hash" else {}
    pool = Pool(
        "p",
        servers,
        create(strategy, options, rng),
        create("least_connections", {}, rng),
        queue=WaitQueue(HOLDS_UP_TO),
        breaker=BreakerPolicy(),
        slow_start_s=slow_start_s,
    )
    for server in servers:
        pool.set_health(server, Health.UP, "", "", 0.0)
    return pool


class Traffic:
    """Requests that come at random, 100 a second, and take 100 ms on average. taken: by zone, who got them."""

    def __init__(self, *pools: Pool) -> None:
        self._pools = pools
        self._rng = random.Random(7)
        self._ends: list[tuple[float, int, Lease]] = []
        self.now = 1.0
        self.taken: Counter[str] = Counter()
        self.most = 0
        self.n_waited = 0

    def run(self, count: int, each: Callable[[float], None] = lambda now: None) -> Counter[str]:
        """So many more requests; each: called before one with the time. Returns what they got."""
        before = self.taken.copy()
        for number in range(count):
            self.now += self._rng.expovariate(100.0)
            self._end_until(self.now)
            for pool in self._pools:
                pool.sweep(self.now)
            each(self.now)
            self._ask(self._pools[number % len(self._pools)])
        self._end_until(self.now + 1000.0)
        assert sum(len(pool.queue or ()) for pool in self._pools) == 0
        return self.taken - before

    def _end_until(self, until: float) -> None:
        while self._ends and self._ends[0][0] <= until:
            at, _, lease = heapq.heappop(self._ends)
            self.now = max(self.now, at)
            lease.release(Outcome.SUCCESS, self.now)

    def _ask(self, pool: Pool) -> None:
        ctx = PickContext(f"192.0.2.{self._rng.randrange(250)}", key=b"%d" % self._rng.randrange(1000))
        found = pool.acquire(ctx, (), self.now)
        if isinstance(found, Lease):
            self._got(found, self.now)
        else:
            assert found is Refusal.FULL
            self.n_waited += 1
            ticket = CallingTicket(ctx, self._got, lambda why: None, enqueued_at=self.now)
            assert pool.enqueue(ticket, self.now)

    def _got(self, lease: Lease, now: float) -> None:
        self.taken[lease.server.zone] += 1
        self.most = max(self.most, lease.server.inflight)
        heapq.heappush(self._ends, (now + self._rng.expovariate(10.0), self.taken.total(), lease))


def crossed(taken: Counter[str]) -> float:
    return 1.0 - taken[OWN] / taken.total()


# --- virtual traffic --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_crosses_while_nobody_is_full(strategy: str) -> None:
    assert crossed(Traffic(pool_of(servers_of([4, 4, 4], limit=100), strategy)).run(2000)) == 0.0


@pytest.mark.parametrize("strategy", ["least_connections", "round_robin", "power_of_two", "random"])
def test_where_the_own_zone_is_down_the_others_share_in_proportion(strategy: str) -> None:
    servers = servers_of([4, 6, 2])
    pool = pool_of(servers, strategy)
    for server in servers[:4]:
        pool.set_health(server, Health.DOWN, REFUSED, "", 1.0)
    taken = Traffic(pool).run(6000)
    assert taken[OWN] == 0
    assert taken["b"] / taken["c"] == pytest.approx(6 / 2, rel=0.1)


def test_where_another_zone_is_down_nothing_changes() -> None:
    servers = servers_of([4, 4, 4])
    pool = pool_of(servers)
    for server in servers[4:8]:
        pool.set_health(server, Health.DOWN, REFUSED, "", 1.0)
    assert crossed(Traffic(pool).run(2000)) == 0.0


@pytest.mark.parametrize(("n_down", "share"), [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1 / 9), (4, 0.0)])
def test_below_half_of_the_own_zone_each_zone_has_the_share_of_its_servers(n_down: int, share: float) -> None:
    servers = servers_of([4, 4, 4])
    pool = pool_of(servers)
    for server in servers[:n_down]:
        pool.set_health(server, Health.DOWN, REFUSED, "", 1.0)
    taken = Traffic(pool).run(4000)
    assert taken[OWN] / taken.total() == pytest.approx(share, abs=0.02)
    if n_down > 2:
        assert taken["b"] == pytest.approx(taken["c"], rel=0.15)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_too_much_for_the_own_zone_goes_to_others_and_waits_for_nobody(strategy: str) -> None:
    """10 requests are in flight on average: the own zone's 8 slots are full often, all 24 are not."""
    traffic = Traffic(pool_of(servers_of([4, 4, 4], limit=2), strategy))
    taken = traffic.run(4000)
    assert 0.2 < crossed(taken) < 0.6
    assert traffic.n_waited / 4000 < 0.01 and traffic.most == 2


def test_while_all_zones_are_full_requests_wait() -> None:
    traffic = Traffic(pool_of(servers_of([4, 4, 4], limit=1)))
    assert traffic.run(2000).total() == 2000
    assert traffic.n_waited > 200 and traffic.most == 1


def test_a_ramp_spills_no_more_than_its_slots_are_short() -> None:
    """Slow start with limits: 20 slots are enough for about 10 requests in flight. While the ramp has fewer, what is
    too much crosses."""
    servers = servers_of([4, 4], limit=5)
    pool = pool_of(servers, slow_start_s=10.0)
    traffic = Traffic(pool)
    assert crossed(traffic.run(500)) < 0.05
    for server in servers[:2]:
        pool.set_health(server, Health.DOWN, REFUSED, "", traffic.now - 2.0)
        pool.set_health(server, Health.UP, "", "", traffic.now)
    during = crossed(traffic.run(300))
    assert 0.0 < during < 0.5
    traffic.now += 20.0
    assert crossed(traffic.run(1000)) < 0.05


def test_a_ramp_without_limits_spills_nothing() -> None:
    servers = servers_of([4, 4])
    pool = pool_of(servers, slow_start_s=10.0)
    traffic = Traffic(pool)
    for server in servers[:2]:
        pool.set_health(server, Health.DOWN, REFUSED, "", traffic.now - 2.0)
        pool.set_health(server, Health.UP, "", "", traffic.now)
    assert servers[0].effective_weight < 0.2
    assert crossed(traffic.run(1000)) == 0.0


@pytest.mark.parametrize("what", ["drain", "backup"])
def test_who_is_taken_out_of_the_own_zone_leaves_its_requests_to_the_rest_of_it(what: str) -> None:
    servers = servers_of([4, 4])
    pool = pool_of(servers)
    for server in servers[:3]:
        if what == "drain":
            pool.set_admin(server, Admin.DRAIN, "", 1.0)
        else:
            pool.set_backup(server, True, 1.0)
    assert crossed(Traffic(pool).run(1000)) == 0.0


def test_backups_of_the_own_zone_are_not_used_while_others_have_room_elsewhere() -> None:
    servers = servers_of([2, 2], limit=12)
    pool = pool_of(servers)
    pool.set_backup(servers[1], True, 1.0)
    Traffic(pool).run(500)
    assert servers[1].requests == 0


@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.sampled_from(STRATEGIES),
    st.integers(0, 3),
    st.data(),
)
@settings(max_examples=60)
def test_no_request_waits_or_crosses_without_need(
    sizes: list[int], strategy: str, limit: int, data: st.DataObject
) -> None:
    """Whoever is down, drained or a backup: a request crosses only if no slot of the own zone was free, or too few
    were usable; and one waits only if none was free anywhere."""
    servers = servers_of(sizes, limit)
    pool = pool_of(servers, strategy)
    for server in servers:
        fate = data.draw(st.sampled_from(["", "", "", "down", "drain", "backup"]))
        if fate == "down":
            pool.set_health(server, Health.DOWN, REFUSED, "", 1.0)
        elif fate == "drain":
            pool.set_admin(server, Admin.DRAIN, "", 1.0)
        elif fate == "backup":
            pool.set_backup(server, True, 1.0)
    usable = [server for server in servers if server.is_usable]
    usable = [server for server in usable if not server.backup] or usable
    near = [server for server in usable if not server.far]
    is_preferred = bool(near) and not any(server.far for server in pool.eligible())
    for number in range(20):
        has_near = any(server.inflight < server.limit for server in near)
        has_any = any(server.inflight < server.limit for server in usable)
        found = pool.acquire(PickContext("192.0.2.1", key=b"%d" % number), (), 2.0)
        if not isinstance(found, Lease):
            assert found is (Refusal.FULL if usable else Refusal.NO_SERVER) and not has_any
            return
        assert found.server in usable
        if is_preferred and has_near:
            assert not found.server.far


# --- rule by rule -----------------------------------------------------------------------------------------------------


def taken(pool: Pool, *tried: Server, now: float = 1.0) -> Lease:
    found = pool.acquire(CTX, tried, now)
    assert isinstance(found, Lease)
    return found


def test_a_slot_that_gets_free_in_another_zone_is_given_to_who_waits() -> None:
    servers = servers_of([1, 1], limit=1)
    pool = pool_of(servers)
    near, far = taken(pool), taken(pool)
    assert [near.server.zone, far.server.zone] == ["a", "b"]
    assert pool.acquire(CTX, (), 1.0) is Refusal.FULL
    got: list[str] = []
    ticket = CallingTicket(CTX, lambda lease, now: got.append(lease.server.zone), lambda why: None, enqueued_at=1.0)
    assert pool.enqueue(ticket, 1.0)
    far.release(Outcome.SUCCESS, 2.0)
    assert got == ["b"]
    near.release(Outcome.SUCCESS, 3.0)
    assert taken(pool, now=3.0).server.zone == "a"


def test_a_retry_goes_to_another_zone_rather_than_to_the_server_that_failed() -> None:
    servers = servers_of([1, 1])
    pool = pool_of(servers)
    assert pool.has_other(servers[0], ())
    assert taken(pool, servers[0]).server is servers[1]
    assert taken(pool, *servers).server is servers[0]
    assert not pool.has_other(servers[0], servers)


def test_nobody_waits_beside_a_server_that_only_fails_while_another_zone_is_well() -> None:
    servers = servers_of([2, 1], limit=1)
    pool = pool_of(servers)
    failing = servers[0]
    failing.penalise(PENALTY_S, 1.0)
    failing.errors_in_a_row = ERRORS_IN_A_ROW
    assert [taken(pool).server for _ in range(2)] == [servers[1], servers[2]]
    assert pool.acquire(CTX, (), 1.0) is Refusal.FULL, "all that are well are merely full"


def test_a_quarantined_slot_of_the_own_zone_is_used_after_a_free_one_of_another() -> None:
    servers = servers_of([1, 1], limit=1)
    pool = pool_of(servers)
    servers[0].quarantine_slot(5.0, 1.0)
    assert [taken(pool).server for _ in range(2)] == [servers[1], servers[0]]


def test_who_sticks_to_a_server_of_another_zone_stays_there() -> None:
    servers = servers_of([1, 1])
    pool = pool_of(servers)
    found = pool.acquire_kept(servers[1], 1.0)
    assert isinstance(found, Lease) and found.server is servers[1]
    assert pool.acquire_at(servers[1], 1.0) is not None


def test_what_will_happen_is_known_while_the_own_zone_is_full() -> None:
    servers = servers_of([1, 1], limit=1)
    pool = pool_of(servers)
    taken(pool)
    assert pool.foresee(CTX, None, 1.0) == (servers[1],)
    assert taken(pool).server is servers[1]
    assert not pool.is_hopeless(inf, 1.0)


# --- several workers --------------------------------------------------------------------------------------------------


def shared_pools(sizes: Sequence[int], limit: int) -> list[SharedPool]:
    n_servers = sum(sizes)
    plan = Plan(0, n_workers=2, n_servers=n_servers, n_rows=512, n_places=HOLDS_UP_TO)
    cells = [0] * plan.end
    pools: list[SharedPool] = []
    for worker in range(2):
        servers = servers_of(sizes, limit)
        seats = {server: seat for seat, server in enumerate(servers)}
        books = SharedBooks(cells, plan, worker, seats, Guard(), lambda other: pools[other].collect(1.0))
        rng = random.Random(worker)
        strategies = create("least_connections", {}, rng), create("random", {}, rng)
        pool = SharedPool("p", servers, *strategies)
        pool.share(books, SharedQueue(books, HOLDS_UP_TO, 1e6, "fifo"))
        pools.append(pool)
    return pools


@pytest.mark.parametrize(("limit", "least", "most"), [(50, 0.0, 0.0), (2, 0.2, 0.6)])
def test_two_workers_fill_the_own_zone_together(limit: int, least: float, most: float) -> None:
    traffic = Traffic(*shared_pools([4, 4, 4], limit))
    assert least <= crossed(traffic.run(2000)) <= most
    assert traffic.most <= limit
