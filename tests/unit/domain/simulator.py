"""A pool under an open-loop load in virtual time: servers with slots, clients with patience, no clock and no sleep."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf, log
from typing import Final

from lbproxy.address import Address
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import Ticket, WaitQueue
from lbproxy.domain.server import Server
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext
from tests.support.tickets import CallingTicket

SWEEP_S: Final = 0.25
MEAN_S: Final = 0.1
CTX = PickContext("192.0.2.1")


@dataclass(slots=True)
class Request:
    arrived_at: float
    work_s: float
    is_over: bool = False
    ticket: Ticket | None = None
    lease: Lease | None = None


@dataclass(slots=True)
class Report:
    """What came of it. latencies: of good answers, in seconds, in order of arrival."""

    answered: list[tuple[float, float]] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    refused: int = 0
    gave_up: int = 0
    most_at_once: int = 0

    def latencies(self, since: float) -> list[float]:
        return sorted(latency for at, latency in self.answered if at >= since)

    def p99(self, since: float) -> float:
        latencies = self.latencies(since)
        return latencies[int(0.99 * len(latencies))]


class Simulation:
    """One run. slots: real workers of each server; speeds: how fast each works; failing: those that fail after 1 ms.

    failure: how they fail. bad_share: of the answers of all others that fail too, after their work.
    """

    def __init__(
        self,
        *,
        n: int,
        slots: int,
        seed: int = 1,
        strategy: str = "least_connections",
        max_inflight: int = 0,
        queue: WaitQueue | None = None,
        breaker: BreakerPolicy | None = None,
        speeds: Sequence[float] = (),
        failing: Sequence[int] = (),
        failure: Outcome = Outcome.FAILURE,
        patience_s: float = inf,
        sigma: float = 1.0,
        bad_share: float = 0.0,
    ) -> None:
        self.bad_share = bad_share
        self._luck = random.Random(seed + 2)
        self.rng = random.Random(seed)
        self.servers = [Server(f"s{i}", Address("10.0.0.1", 5001 + i), max_inflight=max_inflight) for i in range(n)]
        chance = random.Random(seed + 1)
        self.pool = Pool(
            "p", self.servers, create(strategy, {}, chance), create("random", {}, chance), queue=queue, breaker=breaker
        )
        self.slots = slots
        self.speed = dict(zip(self.servers, speeds or [1.0] * n, strict=True))
        self.failure = failure
        self.failing = {self.servers[i] for i in failing}
        self.patience_s = patience_s
        self.sigma = sigma
        self.backlog: dict[Server, list[Request]] = {server: [] for server in self.servers}
        self.working: dict[Server, int] = dict.fromkeys(self.servers, 0)
        self.report = Report()
        self.capacity = sum(self.speed[s] for s in self.servers if s not in self.failing) * slots / MEAN_S
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._serial = 0

    def run(self, load: float, seconds: float) -> Report:
        """Poisson arrivals at `load` x capacity, log-normal work with mean 100 ms."""
        self._at(self._gap(load), lambda now: self._arrive(now, load, seconds))
        self._at(SWEEP_S, lambda now: self._sweep(now, seconds))
        while self._events:
            now, _, event = heappop(self._events)
            event(now)
        return self.report

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        self._serial += 1
        heappush(self._events, (when, self._serial, event))

    def _gap(self, load: float) -> float:
        return -log(1.0 - self.rng.random()) / (load * self.capacity)

    def _sweep(self, now: float, seconds: float) -> None:
        self.pool.sweep(now)
        if now < seconds + 30.0:
            self._at(now + SWEEP_S, lambda at: self._sweep(at, seconds))

    # --- a client ---------------------------------------------------------------------------------------------------

    def _arrive(self, now: float, load: float, seconds: float) -> None:
        request = Request(now, self.rng.lognormvariate(log(MEAN_S) - self.sigma**2 / 2, self.sigma))
        following = now + self._gap(load)
        if following < seconds:
            self._at(following, lambda at: self._arrive(at, load, seconds))
        lease = self.pool.acquire(CTX, (), now)
        if isinstance(lease, Lease):
            self._start(request, lease, now)
        elif lease is Refusal.FULL:
            self._wait(request, now)
        else:
            self._refuse(request)
        if not request.is_over and self.patience_s < inf:
            self._at(now + self.patience_s, lambda at: self._give_up(request, at))

    def _wait(self, request: Request, now: float) -> None:
        request.ticket = CallingTicket(
            CTX,
            lambda lease, at: self._start(request, lease, at),
            lambda reason: self._refuse(request),
            enqueued_at=now,
        )
        if not self.pool.enqueue(request.ticket, now):
            self._refuse(request)

    def _refuse(self, request: Request) -> None:
        request.is_over = True
        self.report.refused += 1

    def _give_up(self, request: Request, now: float) -> None:
        if request.is_over:
            return
        request.is_over = True
        self.report.gave_up += 1
        if request.lease is not None:
            request.lease.release(Outcome.ABORTED, now, quarantine_s=60.0)
        elif request.ticket is not None and self.pool.queue is not None:
            self.pool.queue.remove(request.ticket, now)

    # --- a server: it does not notice that a client left -----------------------------------------------------------

    def _start(self, request: Request, lease: Lease, now: float) -> None:
        request.lease = lease
        server = lease.server
        self.report.most_at_once = max(self.report.most_at_once, server.inflight)
        if server in self.failing:
            self._at(now + 0.001, lambda at: self._fail(request, at))
            return
        self.backlog[server].append(request)
        self._work(server, now)

    def _fail(self, request: Request, now: float) -> None:
        request.is_over = True
        self.report.errors.append(request.arrived_at)
        if request.lease is not None:
            request.lease.release(self.failure, now)

    def _work(self, server: Server, now: float) -> None:
        while self.working[server] < self.slots and self.backlog[server]:
            request = self.backlog[server].pop(0)
            self.working[server] += 1
            self._at(now + request.work_s / self.speed[server], lambda at, r=request: self._done(server, r, at))  # type: ignore[misc]

    def _done(self, server: Server, request: Request, now: float) -> None:
        self.working[server] -= 1
        self._work(server, now)
        if request.is_over or request.lease is None:
            return
        request.is_over = True
        if self.bad_share and self._luck.random() < self.bad_share:
            self.report.errors.append(request.arrived_at)
            request.lease.release(self.failure, now)
            return
        self.report.answered.append((request.arrived_at, now - request.arrived_at))
        request.lease.release(Outcome.SUCCESS, now)
