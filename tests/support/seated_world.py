"""Workers as in shared_world.py, and a controller that lets servers join and leave meanwhile, in every order.

What the observer holds against them besides: a request at a server whose seat is another's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lbproxy.address import Address
from lbproxy.domain.lease import Lease
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import CONTROLLER, SharedBooks
from lbproxy.domain.shared.overseen import OverseenPool
from lbproxy.domain.shared.plan import Plan
from lbproxy.domain.shared.pool import Seating, SharedPool
from lbproxy.domain.shared.seats import card_of, free_seat, read_card
from lbproxy.domain.shared.waiting import SharedQueue
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import Strategy
from tests.support.interleaving import Actor
from tests.support.shared_world import Case, Worker, World, Wrong

Move = tuple[str, int]
"""("join", n): server n joins, as soon as there is a seat. ("go", n): it leaves."""


@dataclass(frozen=True)
class SeatedCase(Case):
    """n_servers: seats. first: how many servers there are at the beginning. controller_dies: at this step; 0: never."""

    first: int = 1
    moves: Sequence[Move] = ()
    controller_dies: int = 0


class Tidy(Seating):
    """Knows who left."""

    def __init__(self) -> None:
        self.left: list[Server] = []

    def leave(self, pool: SharedPool, server: Server, now: float) -> None:
        super().leave(pool, server, now)
        self.left.append(server)


@dataclass
class Controller:
    """members: by number."""

    pool: OverseenPool
    books: SharedBooks
    members: dict[int, Server] = field(default_factory=dict)


def strategies() -> tuple[Strategy, Strategy]:
    rng = random.Random(1)
    return create("least_connections", {}, rng), create("random", {}, rng)


class SeatedWorld(World):
    """One run of a case."""

    def __init__(self, case: SeatedCase, choices: Sequence[int] = ()) -> None:
        self._seated = case
        self._tidies: list[Tidy] = []
        self._controller: Controller | None = None
        super().__init__(case, choices)
        for worker in self.workers:
            worker.pool.begin()
        life = self._moves(self.controller)
        self.schedule.actors.append(Actor("controller", life, case.controller_dies))

    def _plan(self) -> Plan:
        case = self.case
        return Plan(3, n_workers=len(case.scripts), n_servers=case.n_servers, n_rows=2, n_places=case.queue_size)

    @property
    def controller(self) -> Controller:
        """Made before the workers, as somebody must be there when they begin."""
        if self._controller is None:
            pool = OverseenPool("p", (), *strategies())
            books = SharedBooks(self.area, self.plan, CONTROLLER, {}, self.guard, self._wake, is_limited=False)
            pool.share(books, SharedQueue(books, self.case.queue_size, 1e6, self.case.order))
            pool.inherit()
            self._controller = Controller(pool, books)
            for number in range(self._seated.first):
                self._join(self._controller, number)
        return self._controller

    def _join(self, controller: Controller, number: int) -> None:
        server = Server(f"s{number}", Address("10.0.0.1", number + 1), max_inflight=self.case.limit)
        controller.members[number] = server
        controller.pool.add(server, self.schedule.now)

    def _moves(self, controller: Controller) -> Callable[[], None]:
        def life() -> None:
            for what, number in self._seated.moves:
                if what == "join":
                    self.schedule.wait(lambda: free_seat(self.area.cells, self.plan) >= 0)
                    self._join(controller, number)
                else:
                    controller.pool.remove(controller.members.pop(number), self.schedule.now)

        return life

    # --- a worker ----------------------------------------------------------------------------------------------------

    def _worker(self, number: int) -> Worker:
        case = self.case
        self._wake_controller_first()
        books = SharedBooks(self.area, self.plan, number, {}, self.guard, self._wake, is_limited=False)
        queue = SharedQueue(books, case.queue_size, 1e6, case.order)
        pool, tidy = SharedPool("p", (), *strategies()), Tidy()
        pool.share(books, queue, tidy)
        self._tidies.append(tidy)
        return Worker(number, pool, queue)

    def _wake_controller_first(self) -> None:
        self.workers = getattr(self, "workers", [])
        assert self.controller is not None

    def _wake(self, number: int) -> None:
        if number < len(self.workers):
            super()._wake(number)

    def _got(self, worker: Worker, request: int, lease: Lease) -> None:
        super()._got(worker, request, lease)
        self._check_seat(worker, lease.server)

    def _end(self, worker: Worker, request: int) -> None:
        self._check_seat(worker, worker.leases[request].server)
        super()._end(worker, request)

    def _check_seat(self, worker: Worker, server: Server) -> None:
        books = worker.pool.books
        assert isinstance(books, SharedBooks)
        if read_card(self.area.cells, self.plan, books.seat_of(server)) != card_of(server):
            raise Wrong(f"a request is at {server.name}, whose seat is another's")

    def _tidy(self, worker: Worker) -> None:
        tidy = self._tidies[worker.number]
        for server in list(tidy.left):
            if not server.inflight:
                tidy.left.remove(server)
                worker.pool.let_go(server, self.schedule.now)

    def _retire(self, worker: Worker) -> None:
        """Nobody waits for a seat for ever."""
        worker.pool.sweep(self.schedule.now)
        self._tidy(worker)
        while not self._is_settled():
            self.schedule.wait(lambda: worker.bell or self._is_settled())
            self._answer_bell(worker)
            self._tidy(worker)

    def _is_settled(self) -> bool:
        return all(actor.is_over for actor in self.schedule.actors if actor.name == "controller")
