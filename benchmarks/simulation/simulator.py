"""A pool under an open-loop load in virtual time: servers with slots, clients with patience, no clock and no sleep.

The load may come to several workers, each of which has the pool for itself and knows of the others by the shared books.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf, log
from typing import Final

from lbproxy.address import Address
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.fairness import FairRules
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import Ticket, WaitQueue
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks, bury
from lbproxy.domain.shared.cells import Guard
from lbproxy.domain.shared.orders import tell
from lbproxy.domain.shared.plan import Plan
from lbproxy.domain.shared.pool import SharedPool
from lbproxy.domain.shared.waiting import SharedQueue
from lbproxy.domain.states import Admin
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext, Strategy
from lbproxy.shared.columns import Columns, columns_end
from lbproxy.telemetry.slots import DURATION_BUCKETS, POOL, Slots, observe

SWEEP_S: Final = 0.25
MEAN_S: Final = 0.1
WAKE_S: Final = 0.0005  # from a worker that frees a slot to the one that has it for a ticket: the bound is 1 ms
CTX = PickContext("192.0.2.1")
DURATIONS: Final = POOL.offset["request_duration_seconds"]


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """The `queue` of a pool."""

    size: int = 1024
    timeout_s: float = 10.0
    order: str = "adaptive"
    rules: FairRules | None = None


class Waiting(Ticket):
    """A request's place in the queue."""

    __slots__ = ("_granted", "_refused")

    def __init__(
        self, ctx: PickContext, granted: Callable[[Lease, float], None], refused: Callable[[], None], now: float
    ) -> None:
        super().__init__(ctx, enqueued_at=now)
        self._granted = granted
        self._refused = refused

    def granted(self, lease: Lease, now: float) -> None:
        self._granted(lease, now)

    def refused(self, why: str) -> None:
        self._refused()

    def failed(self, error: Exception) -> None:
        raise error


@dataclass(slots=True)
class Request:
    """pool: that of the worker to which it came. ctx: whose it is."""

    pool: Pool
    ctx: PickContext
    arrived_at: float
    work_s: float
    is_over: bool = False
    ticket: Ticket | None = None
    lease: Lease | None = None


@dataclass(slots=True)
class Report:
    """What came of it. latencies: of good answers, in seconds, in order of arrival. by_client: the same, of each."""

    answered: list[tuple[float, float]] = field(default_factory=list)
    by_client: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    errors: list[float] = field(default_factory=list)
    refused: int = 0
    gave_up: int = 0
    killed: int = 0
    most_at_once: int = 0

    def latencies(self, since: float) -> list[float]:
        return sorted(latency for at, latency in self.answered if at >= since)

    def p99(self, since: float) -> float:
        latencies = self.latencies(since)
        return latencies[int(0.99 * len(latencies))]

    def p99_of(self, client: str, since: float) -> float:
        latencies = sorted(latency for at, latency in self.by_client[client] if at >= since)
        return latencies[int(0.99 * len(latencies))]


class Simulation:
    """One run. slots: real workers of each server; speeds: how fast each works; failing: those that fail after 1 ms.

    failure: how they fail. bad_share: of the answers of all others that fail too, after their work. workers: of
    lbproxy, which share their books; 0: one that has its own. A request comes to one of them by chance. clients: who
    asks, and how often in proportion; empty: one does.
    """

    def __init__(
        self,
        *,
        n: int,
        slots: int,
        seed: int = 1,
        strategy: str = "least_connections",
        max_inflight: int = 0,
        queue: QueueSpec | None = None,
        breaker: BreakerPolicy | None = None,
        speeds: Sequence[float] = (),
        failing: Sequence[int] = (),
        failure: Outcome = Outcome.FAILURE,
        patience_s: float = inf,
        sigma: float = 1.0,
        bad_share: float = 0.0,
        workers: int = 0,
        clients: Mapping[str, float] | None = None,
    ) -> None:
        self._clients = [PickContext(client) for client in clients or ()]
        self._loads = list(clients.values()) if clients else []
        self._visitors = random.Random(seed + 4)
        self.bad_share = bad_share
        self._luck = random.Random(seed + 2)
        self._door = random.Random(seed + 3)
        self.rng = random.Random(seed)
        self.slots = slots
        self.failure = failure
        self.failing = {f"s{i}" for i in failing}
        self.patience_s = patience_s
        self.sigma = sigma
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._serial = 0
        names = [f"s{i}" for i in range(n)]
        self.speed = dict(zip(names, speeds or [1.0] * n, strict=True))
        self.backlog: dict[str, list[Request]] = {name: [] for name in names}
        self.working = dict.fromkeys(names, 0)
        self.at_once = dict.fromkeys(names, 0)
        self.report = Report()
        self.capacity = sum(self.speed[name] for name in names if name not in self.failing) * slots / MEAN_S
        self.now = 0.0
        self._requests: list[Request] = []
        self._chance = random.Random(seed + 1)
        self._strategy = strategy
        self._breaker = breaker
        self._queue = queue
        self._max_inflight = max_inflight
        n_places = 2 * queue.size if queue is not None else 0
        n_workers = max(1, workers)
        self._plan = Plan(0, n_workers=n_workers, n_servers=n, n_rows=n * max_inflight, n_places=n_places)
        n_cells = columns_end(self._plan.end, n_workers, POOL.width)
        self._cells = [0] * n_cells
        self._columns = Columns(self._cells, self._plan.end, n_workers, POOL.width)
        self._guard = Guard()
        self._rows = [Slots().allocate(POOL) for _ in range(max(1, workers))]
        self.shared = [self._worker(number) for number in range(workers)]
        self.pools: list[Pool] = [*self.shared] if workers else [self._alone()]

    def _parts(self) -> tuple[list[Server], Strategy, Strategy]:
        servers = [
            Server(name, Address("10.0.0.1", 5001 + i), max_inflight=self._max_inflight)
            for i, name in enumerate(self.speed)
        ]
        return servers, create(self._strategy, {}, self._chance), create("random", {}, self._chance)

    def _alone(self) -> Pool:
        queue = self._queue
        waits = WaitQueue(queue.size, queue.timeout_s, queue.order, queue.rules) if queue is not None else None
        return Pool("p", *self._parts(), queue=waits, breaker=self._breaker)

    def _worker(self, number: int) -> SharedPool:
        pool = SharedPool("p", *self._parts(), breaker=self._breaker)
        seats = {server: seat for seat, server in enumerate(pool.servers)}
        books = SharedBooks(
            self._cells, self._plan, number, seats, self._guard, self._wake, is_limited=self._max_inflight > 0
        )
        queue = self._queue
        waits = SharedQueue(books, queue.size, queue.timeout_s, queue.order, queue.rules) if queue is not None else None
        pool.share(books, waits)
        return pool

    def kill(self, worker: int) -> None:
        """It dies, with all that it has in its hands; the supervisor clears up, and a successor begins."""
        dead = self.shared[worker]
        for request in self._requests:
            if request.pool is dead and not request.is_over:
                request.is_over = True
                self.report.killed += 1
                if request.lease is not None:
                    self.at_once[request.lease.server.name] -= 1
        bury(self._cells, self._plan, self._guard, worker)
        self._columns.fold(worker)
        self._rows[worker] = Slots().allocate(POOL)
        self.shared[worker] = self._worker(worker)
        self.pools = [*self.shared]
        for number in range(len(self.shared)):
            self._wake(number)

    def drain(self, seat: int, admin: Admin) -> None:
        """The controller says so; workers see it when they next pick."""
        server = Server(f"s{seat}", Address("10.0.0.1", 5001 + seat), max_inflight=self._max_inflight)
        server.admin = admin
        tell(self._cells, self._plan, server, seat)

    def counted(self) -> list[int]:
        """The counters of the pool, of all workers that there ever were."""
        columns = self._columns
        for worker, row in enumerate(self._rows):
            columns.publish(worker, 0, row)
        return columns.total(0, POOL.width)

    def is_everything_back(self) -> bool:
        """Is no slot taken any more, and does nobody wait?"""
        for pool in self.shared:
            pool.collect(self.now)
            if isinstance(pool.books, SharedBooks):
                pool.books.look()
        return (
            not any(self.at_once.values())
            and all(not server.inflight for pool in self.pools for server in pool.servers)
            and not any(pool.books.n_waiting for pool in self.pools)
        )

    def _wake(self, worker: int) -> None:
        self._at(self.now + WAKE_S, lambda at: self.shared[worker].collect(at))

    def run(
        self,
        load: float,
        seconds: float,
        kills: Sequence[tuple[float, int]] = (),
        orders: Sequence[tuple[float, int, Admin]] = (),
    ) -> Report:
        """Poisson arrivals at `load` x capacity, log-normal work with mean 100 ms.

        kills: when which worker dies. orders: when the controller wants what of which server.
        """
        for when, seat, admin in orders:
            self._at(when, lambda now, what=(seat, admin): self.drain(*what))  # type: ignore[misc]
        for when, worker in kills:
            self._at(when, lambda now, number=worker: self.kill(number))  # type: ignore[misc]
        self._at(self._gap(load), lambda now: self._arrive(now, load, seconds))
        self._at(SWEEP_S, lambda now: self._sweep(now, seconds))
        while self._events:
            self.now, _, event = heappop(self._events)
            event(self.now)
        return self.report

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        self._serial += 1
        heappush(self._events, (when, self._serial, event))

    def _gap(self, load: float) -> float:
        return -log(1.0 - self.rng.random()) / (load * self.capacity)

    def _sweep(self, now: float, seconds: float) -> None:
        columns = self._columns
        for worker, pool in enumerate(self.pools):
            pool.sweep(now)
            columns.publish(worker, 0, self._rows[worker])
        if now < seconds + 30.0:
            self._at(now + SWEEP_S, lambda at: self._sweep(at, seconds))

    # --- a client ---------------------------------------------------------------------------------------------------

    def _arrive(self, now: float, load: float, seconds: float) -> None:
        pool = self._door.choice(self.pools)
        ctx = self._visitors.choices(self._clients, self._loads)[0] if self._clients else CTX
        request = Request(pool, ctx, now, self.rng.lognormvariate(log(MEAN_S) - self.sigma**2 / 2, self.sigma))
        self._requests.append(request)
        following = now + self._gap(load)
        if following < seconds:
            self._at(following, lambda at: self._arrive(at, load, seconds))
        lease = pool.acquire(ctx, (), now)
        if isinstance(lease, Lease):
            self._start(request, lease, now)
        elif lease is Refusal.FULL:
            self._wait(request, now)
        else:
            self._refuse(request)
        if not request.is_over and self.patience_s < inf:
            self._at(now + self.patience_s, lambda at: self._give_up(request, at))

    def _wait(self, request: Request, now: float) -> None:
        request.ticket = Waiting(
            request.ctx, lambda lease, at: self._start(request, lease, at), lambda: self._refuse(request), now
        )
        if not request.pool.enqueue(request.ticket, now):
            self._refuse(request)
        request.pool.tell_crowded_out()

    def _refuse(self, request: Request) -> None:
        request.is_over = True
        self.report.refused += 1

    def _give_up(self, request: Request, now: float) -> None:
        if request.is_over:
            return
        request.is_over = True
        self.report.gave_up += 1
        if request.lease is not None:
            self._release(request.lease, Outcome.ABORTED, now, quarantine_s=60.0)
        elif request.ticket is not None and request.pool.queue is not None:
            request.pool.queue.remove(request.ticket, now)

    def _release(self, lease: Lease, outcome: Outcome, now: float, *, quarantine_s: float = 0.0) -> None:
        self.at_once[lease.server.name] -= 1
        lease.release(outcome, now, quarantine_s=quarantine_s)

    # --- a server: it does not notice that a client left -----------------------------------------------------------

    def _start(self, request: Request, lease: Lease, now: float) -> None:
        request.lease = lease
        server = lease.server.name
        self.at_once[server] += 1
        self.report.most_at_once = max(self.report.most_at_once, self.at_once[server])
        if server in self.failing:
            self._at(now + 0.001, lambda at: self._fail(request, at))
            return
        self.backlog[server].append(request)
        self._work(server, now)

    def _fail(self, request: Request, now: float) -> None:
        if request.is_over:
            return
        request.is_over = True
        self.report.errors.append(request.arrived_at)
        if request.lease is not None:
            self._release(request.lease, self.failure, now)

    def _work(self, server: str, now: float) -> None:
        while self.working[server] < self.slots and self.backlog[server]:
            request = self.backlog[server].pop(0)
            self.working[server] += 1
            self._at(now + request.work_s / self.speed[server], lambda at, r=request: self._done(server, r, at))  # type: ignore[misc]

    def _done(self, server: str, request: Request, now: float) -> None:
        self.working[server] -= 1
        self._work(server, now)
        if request.is_over or request.lease is None:
            return
        request.is_over = True
        if self.bad_share and self._luck.random() < self.bad_share:
            self.report.errors.append(request.arrived_at)
            self._release(request.lease, self.failure, now)
            return
        latency = request.arrived_at, now - request.arrived_at
        self.report.answered.append(latency)
        self.report.by_client.setdefault(request.ctx.client_ip, []).append(latency)
        observe(self._rows[self.pools.index(request.pool)], DURATIONS, DURATION_BUCKETS, now - request.arrived_at)
        self._release(request.lease, Outcome.SUCCESS, now)
