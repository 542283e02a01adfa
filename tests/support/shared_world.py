"""Workers that share the books of one pool, and an observer who knows what they may do.

What the observer holds against them (`Wrong`): a server with more requests than its limit; somebody who waits beside a
free slot when nobody has anything left to do; a turn that was another's; a request that got two slots, or none though
it waited; books that are not whole when somebody leaves them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from lbproxy.address import Address
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks, bury
from lbproxy.domain.shared.cells import Guard
from lbproxy.domain.shared.plan import (
    FIRST,
    GRANTED,
    LAST,
    MAIL_WORDS,
    N_WAITING,
    PLACE_BEFORE,
    PLACE_NEXT,
    PLACE_TICKET,
    ROW_NEXT,
    ROW_TICKET,
    Plan,
    server_of,
    state_of,
    worker_of,
)
from lbproxy.domain.shared.pool import SharedPool
from lbproxy.domain.shared.waiting import SharedQueue
from lbproxy.domain.strategies import create
from lbproxy.domain.strategies.base import PickContext
from tests.support.interleaving import Actor, Area, Lock, NoLock, Schedule
from tests.support.tickets import CallingTicket

CTX: Final = PickContext("192.0.2.1")
Step = tuple[str, int]
"""("ask", n): request n arrives. ("stick", n): so does one whose client sticks to the first server. ("end", n): it is
answered, if it has a slot; in the end all are. ("leave", n): its client leaves, if it waits. ("sweep", n): time
passes."""


class Wrong(AssertionError):
    """What must not be."""


@dataclass(frozen=True)
class Case:
    """scripts: what comes to each worker. dies: (worker, step) of one that is killed."""

    scripts: Sequence[Sequence[Step]]
    n_servers: int = 1
    limit: int = 1
    queue_size: int = 8
    order: str = "fifo"
    dies: tuple[int, int] = (0, 0)
    has_lock: bool = True
    is_fine: bool = False


@dataclass
class Worker:
    """One of them, with what only it knows."""

    number: int
    pool: SharedPool
    queue: SharedQueue
    bell: bool = False
    is_at_end: bool = False
    leases: dict[int, Lease] = field(default_factory=dict)
    tickets: dict[int, CallingTicket] = field(default_factory=dict)


class World:
    """One run of a case. n_served: requests that had a slot."""

    def __init__(self, case: Case, choices: Sequence[int] = ()) -> None:
        self.case = case
        self.schedule = Schedule(choices, is_fine=case.is_fine)
        self.plan = self._plan()
        self.area = Area(self.schedule, self.plan.end + 1)
        self.n_served = 0
        self._line: list[tuple[int, int]] = []
        self._n_rows = 0
        self._gone: set[tuple[int, int]] = set()
        self._at_once: Counter[str] = Counter()  # by the name of the server
        self.guard: Guard = NoLock(self.schedule)
        if case.has_lock:
            self.guard = lock = Lock(self.schedule)
            lock.left = self._books_were_left
        self.workers = [self._worker(number) for number in range(len(case.scripts))]
        for worker in self.workers:
            dies_at = case.dies[1] if case.dies[0] == worker.number else 0
            self.schedule.actors.append(Actor(f"w{worker.number}", self._life(worker), dies_at))
        self.schedule.died = self._died

    def _plan(self) -> Plan:
        case = self.case
        n_rows = case.n_servers * case.limit
        return Plan(3, n_workers=len(case.scripts), n_servers=case.n_servers, n_rows=n_rows, n_places=case.queue_size)

    def run(self) -> Schedule:
        self.schedule.run()
        self._check_the_end()
        return self.schedule

    # --- a worker ----------------------------------------------------------------------------------------------------

    def _worker(self, number: int) -> Worker:
        case = self.case
        servers = [Server(f"s{i}", Address("10.0.0.1", i + 1), max_inflight=case.limit) for i in range(case.n_servers)]
        seats = {server: seat for seat, server in enumerate(servers)}
        books = SharedBooks(self.area, self.plan, number, seats, self.guard, self._wake)
        queue = SharedQueue(books, case.queue_size, 1e6, case.order)
        rng = random.Random(1)
        strategies = create("least_connections", {}, rng), create("random", {}, rng)
        pool = SharedPool("p", servers, *strategies)
        pool.share(books, queue)
        return Worker(number, pool, queue)

    def _wake(self, number: int) -> None:
        if self.schedule.step():
            self.workers[number].bell = True

    def _life(self, worker: Worker) -> Callable[[], None]:
        def life() -> None:
            for what, request in self.case.scripts[worker.number]:
                self._answer_bell(worker)
                self._tidy(worker)
                self._do(worker, what, request)
            worker.is_at_end = True
            while worker.tickets or worker.leases:
                # What is granted by one end is ended in the next round.
                for request in list(worker.leases):
                    self._end(worker, request)
                if worker.tickets and not worker.leases:
                    self.schedule.wait(lambda: worker.bell)
                self._answer_bell(worker)
            self._retire(worker)

        return life

    def _tidy(self, worker: Worker) -> None:
        """Between two things that it does."""

    def _retire(self, worker: Worker) -> None:
        """It has done all."""

    def _answer_bell(self, worker: Worker) -> None:
        if worker.bell:
            worker.bell = False
            worker.pool.collect(self.schedule.now)

    def _do(self, worker: Worker, what: str, request: int) -> None:
        now = self.schedule.now
        if what == "ask":
            self._ask(worker, request, now)
        elif what == "stick":
            found = worker.pool.acquire_kept(worker.pool.servers[0], now)
            if isinstance(found, Lease):
                self._got(worker, request, found)
            else:
                self._ask(worker, request, now)
        elif what == "end" and request in worker.leases:
            self._end(worker, request)
        elif what == "leave" and request in worker.tickets:
            self._gone.add((worker.number, worker.queue._numbers[worker.tickets[request]]))
            worker.queue.remove(worker.tickets.pop(request), now)
        elif what == "sweep":
            worker.pool.sweep(now)

    def _ask(self, worker: Worker, request: int, now: float) -> None:
        found = worker.pool.acquire(CTX, (), now)
        if isinstance(found, Lease):
            self._got(worker, request, found)
        elif found is Refusal.FULL:
            ticket = CallingTicket(
                CTX, lambda lease, at: self._got(worker, request, lease), self._refused, enqueued_at=now
            )
            worker.tickets[request] = ticket
            if not worker.pool.enqueue(ticket, now):
                del worker.tickets[request]  # the line is full
        else:
            raise Wrong(f"request {request} got {found}")

    def _got(self, worker: Worker, request: int, lease: Lease) -> None:
        worker.tickets.pop(request, None)
        if request in worker.leases:
            raise Wrong(f"request {request} got two slots")
        worker.leases[request] = lease
        name = lease.server.name
        self._at_once[name] += 1
        self.n_served += 1
        if self._at_once[name] > self.case.limit:
            raise Wrong(f"server {name} has {self._at_once[name]} requests at once")

    def _refused(self, why: str) -> None:
        raise Wrong(f"refused: {why}")

    def _end(self, worker: Worker, request: int) -> None:
        lease = worker.leases.pop(request)
        self._at_once[lease.server.name] -= 1
        lease.release(Outcome.SUCCESS, self.schedule.now)

    # --- death -------------------------------------------------------------------------------------------------------

    def _died(self, actor: Actor) -> None:
        """The kernel has let go of its locks; of its sockets only when it can be reaped."""
        if actor.name[0] != "w":
            return
        worker = self.workers[int(actor.name[1:])]
        self.schedule.actors.append(Actor("supervisor", lambda: self._bury(worker)))

    def _bury(self, worker: Worker) -> None:
        for lease in worker.leases.values():
            self._at_once[lease.server.name] -= 1
        worker.leases.clear()
        worker.tickets.clear()
        self._gone.update((worker.number, ticket) for number, ticket in self._line if number == worker.number)
        bury(self.area, self.plan, self.guard, worker.number)
        for other in self.workers:
            other.bell = True

    # --- the observer ------------------------------------------------------------------------------------------------

    def _books_were_left(self) -> None:
        """Somebody did what must be done in one; others see the books now."""
        audit(self.area.cells, self.plan)
        line = places(self.area.cells, self.plan)
        words = {row: self.area.cells[self.plan.row(row)] for row in range(1, self.plan.n_rows + 1)}
        granted = [
            (worker_of(word), self.area.cells[self.plan.row(row) + ROW_TICKET])
            for row, word in words.items()
            if state_of(word) == GRANTED
        ]
        # Whoever is about to leave, or dead, may be granted a slot before anybody notices.
        served = [
            ticket for ticket in self._line if ticket not in line and (ticket not in self._gone or ticket in granted)
        ]
        stayed = [ticket for ticket in self._line if ticket in line]
        dead = {int(actor.name[1:]) for actor in self.schedule.actors if actor.is_dead and actor.name[0] == "w"}
        for ticket in served:
            older = [other for other in stayed if self._line.index(other) < self._line.index(ticket)]
            if older and ticket[0] not in dead and self.case.order == "fifo":
                raise Wrong(f"the turn of {older} was given to {ticket}")
        n_rows = sum(word != 0 for word in words.values())
        if stayed and n_rows - self._n_rows > len(served):
            raise Wrong(f"somebody got a slot who came after {stayed}")
        self._line, self._n_rows = line, n_rows

    def _check_the_end(self) -> None:
        cells = self.area.cells
        audit(cells, self.plan)
        living = {int(actor.name[1:]) for actor in self.schedule.actors if actor.name[0] == "w" and not actor.is_dead}
        left = [worker for worker in self.workers if worker.number in living and (worker.tickets or worker.leases)]
        if left:
            raise Wrong(f"workers {[worker.number for worker in left]} wait for ever: {left[0].tickets}")
        if any(cells[self.plan.count(seat)] for seat in range(self.plan.n_servers)):
            raise Wrong("a slot was left behind")
        if places(cells, self.plan):
            raise Wrong("a place was left behind")


def places(cells: Sequence[int], plan: Plan) -> list[tuple[int, int]]:
    """(worker, ticket) of all that wait, in order."""
    found = []
    place = cells[plan.first + FIRST]
    while place:
        at = plan.place(place)
        found.append((cells[at] - 1, cells[at + PLACE_TICKET]))
        place = cells[at + PLACE_NEXT]
        if len(found) > plan.n_places:
            raise Wrong("the line is a circle")
    return found


def audit(cells: Sequence[int], plan: Plan) -> None:
    """Everything that follows from rows and places is what follows from them."""
    rows = {row: cells[plan.row(row)] for row in range(1, plan.n_rows + 1) if cells[plan.row(row)]}
    for number in range(plan.n_servers):
        counted = sum(server_of(word) == number for word in rows.values())
        if cells[plan.count(number)] != counted:
            raise Wrong(f"server {number} has {counted} rows, and the books say {cells[plan.count(number)]}")
    waiting = [place for place in range(1, plan.n_places + 1) if cells[plan.place(place)]]
    line = places(cells, plan)
    if len(line) != len(waiting) or cells[plan.first + N_WAITING] != len(waiting):
        raise Wrong(f"{len(waiting)} wait, {len(line)} are in the line, {cells[plan.first + N_WAITING]} are counted")
    backwards: list[tuple[int, int]] = []
    place = cells[plan.first + LAST]
    while place and len(backwards) <= len(line):
        backwards.append((cells[plan.place(place)] - 1, cells[plan.place(place) + PLACE_TICKET]))
        place = cells[plan.place(place) + PLACE_BEFORE]
    if backwards != line[::-1]:
        raise Wrong(f"the line is {line} forwards and {backwards} backwards")
    posted: list[int] = []
    for worker in range(plan.n_workers):
        row = cells[plan.mail + MAIL_WORDS * worker]
        while row and len(posted) <= plan.n_rows:
            if worker_of(cells[plan.row(row)]) != worker:
                raise Wrong(f"row {row} is in the mail of {worker}")
            posted.append(row)
            row = cells[plan.row(row) + ROW_NEXT]
    granted = [row for row, word in rows.items() if state_of(word) == GRANTED]
    if sorted(posted) != sorted(granted):
        raise Wrong(f"rows {granted} are granted, {posted} are in the mail")
    owners = [(worker_of(rows[row]), cells[plan.row(row) + ROW_TICKET]) for row in granted]
    if len(set(owners)) != len(owners) or set(owners) & set(line):
        raise Wrong(f"granted twice, or granted and waiting: {owners}, {line}")
