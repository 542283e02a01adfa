"""Workers that share the books of one pool, and an observer who knows what they may do.

What the observer holds against them (`Wrong`): a server with more requests than its limit; somebody who waits beside a
free slot when nobody has anything left to do; a turn that was another's; a request that got two slots, or none though
it waited; books that are not whole when somebody leaves them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from lbproxy.address import Address
from lbproxy.domain.fairness import FairRules
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.queue import Ticket
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks, bury
from lbproxy.domain.shared.cells import Guard
from lbproxy.domain.shared.line import NEAR_NS
from lbproxy.domain.shared.plan import (
    CLASS_FIRST,
    CLASS_LAST,
    CLASS_LONG,
    CLASS_N,
    CROWDED,
    FIRST,
    FLOW_BEFORE,
    FLOW_CHAIN,
    FLOW_KEY,
    FLOW_N,
    FLOW_NEXT,
    FLOW_OLDEST,
    FLOW_RANK,
    GRANTED,
    LAST,
    MAIL_WORDS,
    MOST_CLASSES,
    N_KEYS,
    N_WAITING,
    PLACE_ARRIVED,
    PLACE_BEFORE,
    PLACE_EXPIRES,
    PLACE_FLOW,
    PLACE_KEY,
    PLACE_NEWER,
    PLACE_NEXT,
    PLACE_RANK,
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
from lbproxy.request_key import read_key
from tests.support.interleaving import Actor, Area, Lock, NoLock, Schedule
from tests.support.tickets import CallingTicket

CTX: Final = PickContext("192.0.2.1")
Step = tuple[str, int]
"""("ask", n): request n arrives. ("stick", n): so does one whose client sticks to the first server. ("end", n): it is
answered, if it has a slot; in the end all are. ("leave", n): its client leaves, if it waits. ("sweep", n): time
passes. Requests are of key n % n_keys and of class n % n_classes."""


class Wrong(AssertionError):
    """What must not be."""


@dataclass(frozen=True)
class Case:
    """scripts: what comes to each worker. dies: (worker, step) of one that is killed. spare_places: beyond the queue's
    size, for tickets that make room for others until their worker has seen it."""

    scripts: Sequence[Sequence[Step]]
    n_servers: int = 1
    limit: int = 1
    queue_size: int = 8
    order: str = "fifo"
    dies: tuple[int, int] = (0, 0)
    has_lock: bool = True
    is_fine: bool = False
    n_keys: int = 0
    n_classes: int = 1
    spare_places: int = 2

    @property
    def rules(self) -> FairRules | None:
        """Requests have turns by key and class, as their numbers say, where there are keys."""
        if not self.n_keys:
            return None
        classes = [f"c{rank}" for rank in range(self.n_classes)] if self.n_classes > 1 else []
        return FairRules(read_key("client_ip"), "c", classes, is_anybody=True)

    def ctx(self, request: int) -> PickContext:
        """Whose request this is."""
        if not self.n_keys:
            return CTX
        return PickContext(f"192.0.2.{request % self.n_keys}", Asked({"c": f"c{request % self.n_classes}"}))


@dataclass(frozen=True)
class Asked:
    """A request's head, of which its headers matter."""

    headers: Mapping[str, str]
    method: str = "GET"
    path: str = "/"
    host: str = "h"
    query: str = ""


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
    numbers: dict[Ticket, int] = field(default_factory=dict)


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
        self._keys: dict[tuple[int, int], tuple[int, int]] = {}
        self._arrived: dict[tuple[int, int], int] = {}
        self._passed: dict[tuple[int, int], Counter[tuple[int, int]]] = {}
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
        n_places = case.queue_size + case.spare_places
        return Plan(3, n_workers=len(case.scripts), n_servers=case.n_servers, n_rows=n_rows, n_places=n_places)

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
        queue = SharedQueue(books, case.queue_size, 1e6, case.order, case.rules)
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
        ctx = self.case.ctx(request)
        found = worker.pool.acquire(ctx, (), now)
        if isinstance(found, Lease):
            self._got(worker, request, found)
        elif found is Refusal.FULL:
            ticket = CallingTicket(
                ctx,
                lambda lease, at: self._got(worker, request, lease),
                lambda why: self._refused(worker, request, why),
                enqueued_at=now,
            )
            worker.tickets[request] = ticket
            if worker.pool.enqueue(ticket, now):
                worker.numbers[ticket] = worker.queue._numbers.get(ticket, 0)
            else:
                del worker.tickets[request]  # the line is full
            worker.pool.tell_crowded_out()
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

    def _refused(self, worker: Worker, request: int, why: str) -> None:
        if why != "crowded" or request not in worker.tickets or self.case.rules is None:
            raise Wrong(f"refused: {why}")
        del worker.tickets[request]

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
        self._gone |= self._crowded_out()
        # Whoever is about to leave, or dead, may be granted a slot before anybody notices.
        served = [
            ticket for ticket in self._line if ticket not in line and (ticket not in self._gone or ticket in granted)
        ]
        stayed = [ticket for ticket in self._line if ticket in line]
        dead = {int(actor.name[1:]) for actor in self.schedule.actors if actor.is_dead and actor.name[0] == "w"}
        self._look_at_turns(served, line, is_calm=not dead and len(served) < 2)
        for ticket in served:
            older = [other for other in stayed if self._line.index(other) < self._line.index(ticket)]
            older = [other for other in older if self._keys.get(other) == self._keys.get(ticket)]
            older = [other for other in older if not self._may_overtake(ticket, other)]
            if older and ticket[0] not in dead and self.case.order == "fifo":
                raise Wrong(f"the turn of {older} was given to {ticket}")
        n_rows = sum(word != 0 for word in words.values())
        if stayed and n_rows - self._n_rows > len(served):
            raise Wrong(f"somebody got a slot who came after {stayed}")
        self._line, self._n_rows = line, n_rows

    def _may_overtake(self, ticket: tuple[int, int], older: tuple[int, int]) -> bool:
        """One of another worker that came hardly before it."""
        is_near = self._arrived[ticket] - self._arrived[older] < NEAR_NS
        return ticket[0] != older[0] and is_near and self.case.rules is None

    def _crowded_out(self) -> set[tuple[int, int]]:
        """Those whose place was given to others."""
        cells, plan = self.area.cells, self.plan
        found = {
            (worker.number, worker.numbers.get(ticket, 0))
            for worker in self.workers
            for ticket in worker.queue.crowded_out
        }
        for place in range(1, plan.n_places + 1):
            at = plan.place(place)
            if cells[at] and not cells[at + PLACE_EXPIRES]:
                found.add((cells[at] - 1, cells[at + PLACE_TICKET]))
        return found

    def _look_at_turns(self, served: list[tuple[int, int]], line: list[tuple[int, int]], *, is_calm: bool) -> None:
        """No key has two turns while another of its class waits. After a death it may have one more."""
        cells, plan = self.area.cells, self.plan
        for place in range(1, plan.n_places + 1):
            at = plan.place(place)
            if cells[at]:
                ticket = cells[at] - 1, cells[at + PLACE_TICKET]
                self._keys[ticket] = cells[at + PLACE_RANK], cells[at + PLACE_KEY]
                self._arrived[ticket] = cells[at + PLACE_ARRIVED]
        waiting = {self._keys[ticket] for ticket in line}
        for ticket in served:
            self._passed.pop(self._keys[ticket], None)
        self._passed = {key: passed for key, passed in self._passed.items() if key in waiting and is_calm}
        for key in waiting:
            passed = self._passed.setdefault(key, Counter())
            passed.update(self._keys[ticket] for ticket in served)
            if self.case.rules is not None and any(n > 1 for other, n in passed.items() if other[0] == key[0]):
                raise Wrong(f"key {key} waits while others have two turns: {passed}")

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
    audit_turns(cells, plan)
    taken = [place for place in range(1, plan.n_places + 1) if cells[plan.place(place)]]
    waiting = [place for place in taken if cells[plan.place(place) + PLACE_EXPIRES]]
    crowded: list[int] = []
    for worker in range(plan.n_workers):
        place = cells[plan.worker(worker) + CROWDED]
        while place and len(crowded) <= plan.n_places:
            if cells[plan.place(place)] != worker + 1:
                raise Wrong(f"place {place} was not worker {worker}'s")
            crowded.append(place)
            place = cells[plan.place(place) + PLACE_NEXT]
    if sorted(crowded) != sorted(set(taken) - set(waiting)):
        raise Wrong(f"places {crowded} are said to be given to others, and {set(taken) - set(waiting)} are")
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


def audit_turns(cells: Sequence[int], plan: Plan) -> None:
    """Each place that has turns is in the flow of its key, each flow in the ring of its class and in a bucket."""
    by_flow: dict[int, set[int]] = {}
    for place in range(1, plan.n_places + 1):
        at = plan.place(place)
        if cells[at] and cells[at + PLACE_FLOW]:
            by_flow.setdefault(cells[at + PLACE_FLOW], set()).add(place)
            its = plan.flow(cells[at + PLACE_FLOW])
            if (cells[its + FLOW_RANK] + 1, cells[its + FLOW_KEY]) != (cells[at + PLACE_RANK], cells[at + PLACE_KEY]):
                raise Wrong(f"place {place} is in the flow of another key")
    for flow, its_places in by_flow.items():
        found: list[int] = []
        place = cells[plan.flow(flow) + FLOW_OLDEST]
        while place and len(found) <= plan.n_places:
            found.append(place)
            place = cells[plan.place(place) + PLACE_NEWER]
        if set(found) != its_places or len(found) != cells[plan.flow(flow) + FLOW_N]:
            raise Wrong(f"flow {flow} has places {its_places}, and says {found}")
        other = cells[plan.bucket(cells[plan.flow(flow) + FLOW_KEY])]
        while other and other != flow:
            other = cells[plan.flow(other) + FLOW_CHAIN]
        if not other:
            raise Wrong(f"flow {flow} is in no bucket")
    in_rings = []
    for rank in range(MOST_CLASSES):
        at = plan.class_at(rank)
        ring: list[int] = []
        before, flow = 0, cells[at + CLASS_FIRST]
        while flow and len(ring) <= plan.n_places:
            if cells[plan.flow(flow) + FLOW_BEFORE] != before or cells[plan.flow(flow) + FLOW_RANK] != rank:
                raise Wrong(f"the ring of class {rank} is broken at flow {flow}")
            ring.append(flow)
            before, flow = flow, cells[plan.flow(flow) + FLOW_NEXT]
        n_places = sum(len(by_flow.get(flow, ())) for flow in ring)
        if cells[at + CLASS_LAST] != before or cells[at + CLASS_N] != n_places:
            raise Wrong(f"class {rank} has {n_places} places in {ring}, and says {cells[at + CLASS_N]}")
        if bool(ring) != bool(cells[at + CLASS_LONG]) or (ring and cells[at + CLASS_LONG] not in ring):
            raise Wrong(f"of class {rank} flow {cells[at + CLASS_LONG]} is long, and it has {ring}")
        in_rings += ring
    keys = {cells[plan.flow(flow) + FLOW_KEY] for flow in by_flow}
    if sorted(in_rings) != sorted(by_flow) or cells[plan.first + N_KEYS] != len(keys):
        raise Wrong(f"flows {in_rings} have turns, and {sorted(by_flow)} wait")
