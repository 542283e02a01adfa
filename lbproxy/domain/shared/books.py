"""The books of a pool whose servers several workers use: one truth about slots and who waits.

    pools with limits     whoever gives a slot, takes one back or changes the line is inside the guard, and writes down
                          each lease under a limit as a row. So a limit holds for all workers together, and what a
                          worker had is known when it is dead.
    pools without         each worker counts in cells of its own, and reads the sum. No guard.

`server.inflight` and `n_waiting` are copies: right inside the guard, where the pool decides by them, and afterwards as
right as news of others can be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from lbproxy.compiling import i64
from lbproxy.domain.books import Books
from lbproxy.domain.reuse import NO_LIMIT
from lbproxy.domain.server import Server
from lbproxy.domain.shared.cells import Cells, Guard, near
from lbproxy.domain.shared.line import Line
from lbproxy.domain.shared.plan import (
    CHANGED,
    GRANTED,
    HELD,
    IDLE,
    N_WAITING,
    OWNER,
    REUSE,
    SEAT,
    Plan,
    server_of,
)
from lbproxy.domain.shared.repair import repair
from lbproxy.domain.shared.rows import Rows
from lbproxy.domain.shared.seats import (
    free_seat,
    get_up,
    prepare,
    read_card,
    read_text,
    server_of_card,
    sit_down,
    write_text,
)

CONTROLLER: Final = -1
WriteOrders = Callable[[Cells, Plan, Server, int], bool]


class Chair:
    """A seat as this worker has it. counts: the first of its cells that count. held: the rows of this worker, of which
    the first `inflight` are in use: a list that shrank would ask for memory anew at the next request."""

    __slots__ = ("counts", "held", "inflight", "seat", "server")

    def __init__(self, plan: Plan, server: Server, seat: int) -> None:
        self.server = server
        self.seat: i64 = seat
        self.counts: i64 = plan.count(seat)
        self.held: list[int] = []
        self.inflight: i64 = 0


class SharedBooks(Books):
    """What one worker knows and does of them.

    worker: its number, 0 and up; CONTROLLER: who only reads, seats servers and gives orders. seats: which servers they
    are about, by number, if it knows them already; else `find_seats` says. wake(worker): called outside the guard when
    that one has something to look after (SharedPool.collect); it may be this worker itself. is_limited: do these
    servers have limits, and so a guard?
    """

    __slots__ = (
        "_bells",
        "_cells",
        "_chairs",
        "_depth",
        "_guard",
        "_leaving",
        "_members",
        "_numbers",
        "_plan",
        "_seats",
        "_wake",
        "is_limited",
        "line",
        "n_ended",
        "now",
        "rows",
        "worker",
    )

    def __init__(
        self,
        cells: Cells,
        plan: Plan,
        worker: int,
        seats: Mapping[Server, int],
        guard: Guard,
        wake: Callable[[int], None],
        *,
        is_limited: bool = True,
    ) -> None:
        super().__init__()
        self._cells = near(cells)
        self._plan = plan
        self._guard = guard
        self._wake = wake
        self._seats = dict(seats)
        self._leaving: dict[Server, int] = {}  # no members any more, with something still in flight
        self._numbers: dict[int, int] = {}  # of who sits where, as this worker knows
        self._chairs = {server: Chair(plan, server, seat) for server, seat in self._seats.items()}
        self._members: list[Chair] = []  # of `_chairs`, without those of `_leaving`
        self._bells: list[int] = []
        self._depth = 0
        self.is_limited = is_limited
        self.worker = worker
        self.line = Line(cells, plan)
        self.rows = Rows(cells, plan)
        self.now = 0.0
        self.n_ended = 0
        self._note_seats()

    @property
    def seats(self) -> Mapping[Server, int]:
        """The members that these books are about, and their seats."""
        return self._seats

    @property
    def n_workers(self) -> int:
        return self._plan.n_workers

    @property
    def n_seats(self) -> int:
        """For members, and for those that left and have something in flight."""
        return self._plan.n_servers

    def _note_seats(self) -> None:
        self._members = [self._chairs[server] for server in self._seats]

    # --- seats -------------------------------------------------------------------------------------------------------

    def find_seats(self) -> tuple[list[tuple[Server, int]], list[Server]]:
        """Look who sits where; inside the guard. Returns who is new, with its seat, to be made known by `sat_down`, and
        who leaves. Who is new will not lose its seat before `let_go`."""
        cells, plan = self._cells, self._plan
        found: list[tuple[Server, int]] = []
        gone: list[Server] = []
        for server, seat in self._seats.items():
            if cells[plan.server(seat) + SEAT] != self._numbers.get(seat, 0):
                gone.append(server)
        for seat in range(plan.n_servers):
            number = cells[plan.server(seat) + SEAT]
            if number > 0 and number != self._numbers.get(seat, 0):
                self._numbers[seat] = number
                if self.worker >= 0:
                    cells[plan.uses(seat) + self.worker] = 1
                found.append((server_of_card(read_card(cells, plan, seat)), seat))
        return found, gone

    def sat_down(self, server: Server, seat: int) -> None:
        """This server is the one that has the seat."""
        self._seats[server] = seat
        self._chairs[server] = Chair(self._plan, server, seat)
        self._note_seats()

    def got_up(self, server: Server) -> None:
        """It is no member any more. What it has in flight goes on."""
        self._leaving[server] = self._seats.pop(server)
        self._note_seats()
        self._look_at_leaving(server)

    def learned(self, server: Server) -> tuple[float, int]:
        """What the controller knows of a member: after how many seconds it closes an idle connection, 0.0 if that is
        not known; how many answers it gives on one."""
        reuse = self.server_word(server, REUSE)
        return self.server_word(server, IDLE) / 1e9, reuse if reuse > 0 else NO_LIMIT

    def is_known_to_others(self, server: Server) -> bool:
        """Does a worker still have something to say about one that `got_up`?"""
        seat = self._leaving.get(server, -1)
        return seat >= 0 and any(self._cells[self._plan.uses(seat) + worker] for worker in range(self._plan.n_workers))

    def let_go(self, server: Server, now: float) -> None:
        """This worker has nothing more to say about one that `got_up`: its seat may become another's."""
        seat = self._leaving.pop(server)
        del self._chairs[server]
        self._numbers.pop(seat, None)
        if self.worker >= 0:
            self.enter(now)
            self._cells[self._plan.uses(seat) + self.worker] = 0
            self.leave()

    def give_seat(self, server: Server, card: bytes, orders: WriteOrders) -> bool:
        """The controller has a new member; orders writes what is known of it. False: there is no seat."""
        cells, plan = self._cells, self._plan
        self.enter(self.now)
        try:
            seat = free_seat(cells, plan)
            if seat < 0:
                return False
            prepare(cells, plan, seat, card)
            orders(cells, plan, server, seat)
            self._numbers[seat] = sit_down(cells, plan, seat)
            cells[plan.first + CHANGED] += 1
        finally:
            self.leave()
        for old, its in list(self._leaving.items()):
            if its == seat:  # it is drained, and this one was the last to know it
                del self._leaving[old]
        self.sat_down(server, seat)
        return True

    def take_seat(self, server: Server) -> None:
        """A member of the controller leaves. No worker gives it a request from its next look on."""
        seat = self._seats[server]
        self.enter(self.now)
        get_up(self._cells, self._plan, seat)
        self._cells[self._plan.first + CHANGED] += 1
        self.leave()
        self.got_up(server)

    def give_orders(self, server: Server, orders: WriteOrders) -> bool:
        """False: they are the same as before."""
        return orders(self._cells, self._plan, server, self._seats[server])

    def _look_at_leaving(self, server: Server) -> None:
        """A server that is no member shows what this worker has there; to the controller, what all have."""
        cells, plan, seat = self._cells, self._plan, self._leaving[server]
        if self.worker >= 0:
            server.inflight = self._chairs[server].inflight + cells[plan.loose(seat, self.worker)]
        else:
            server.inflight = sum(cells[plan.count(seat) + number] for number in range(plan.count_words))

    # --- the guard ---------------------------------------------------------------------------------------------------

    def enter(self, now: float) -> None:
        """Be alone with the books, which are whole then, until `leave`. now: of what is written meanwhile."""
        if self._depth == 0:
            self.now = now
            if self._guard.enter():
                # What the dead one had stays until it is buried: its sockets may be open still.
                repair(self._cells, self._plan)
            self._cells[self._plan.first + OWNER] = self.worker + 1
        self._depth += 1

    def leave(self) -> None:
        """Let others in. Wakes those for whom there is something."""
        self._depth -= 1
        if self._depth == 0:
            self._guard.leave()
            if self._bells:
                bells, self._bells = self._bells, []
                for worker in bells:
                    self._wake(worker)

    def ring(self, worker: int) -> None:
        """Wake it when this worker leaves."""
        if worker not in self._bells:
            self._bells.append(worker)

    def ring_now(self, worker: int) -> None:
        """Wake it; outside the guard."""
        self._wake(worker)

    def look(self) -> None:
        """Take over what the books say."""
        cells, n_words = self._cells, self._plan.count_words
        for chair in self._members:
            chair.server.inflight = cells.total(chair.counts, n_words)
        if self._leaving:
            for server in self._leaving:
                self._look_at_leaving(server)
        self.count_waiting()

    # --- requests in flight ------------------------------------------------------------------------------------------

    def seat_of(self, server: Server) -> int:
        """Of a member, or of one that has something in flight; -1 if it has none."""
        seat = self._seats.get(server)
        return self._leaving.get(server, -1) if seat is None else seat

    def began(self, server: Server) -> None:
        """See Books; after a `look`, and inside the guard if there are limits."""
        cells, chair = self._cells, self._chairs[server]
        server.inflight += 1
        if self.is_limited:
            row = self.rows.take(HELD, self.worker, chair.seat, 0, int(self.now * 1e9))
            if row:
                if chair.inflight < len(chair.held):
                    chair.held[chair.inflight] = row
                else:
                    chair.held.append(row)
                chair.inflight += 1
                cells[chair.counts] += 1
                return
        # Without limits; or a server without one among such with one, which may have more than there are rows.
        cells[self._plan.loose(chair.seat, self.worker)] += 1

    def ended(self, server: Server) -> None:
        """See Books. Its own section: the hand-over that may follow is another, and nobody overtakes in between."""
        cells, chair = self._cells, self._chairs[server]
        if chair.inflight:
            self.enter(self.now)
            chair.inflight -= 1
            self.rows.free(chair.held[chair.inflight])  # which of its own is all the same
            cells[chair.counts] -= 1
            self.leave()
        else:
            cells[self._plan.loose(chair.seat, self.worker)] -= 1
        server.inflight -= 1
        self.count_waiting()
        server.requests += 1
        self.n_ended += 1

    # --- slots for tickets of other workers --------------------------------------------------------------------------

    def grant(self, server: Server, place: int) -> bool:
        """Give the ticket at this place a slot of the server, and let its worker know. False: there is no row."""
        line, cells = self.line, self._cells
        worker, number = line.worker(place), self._seats[server]
        row = self.rows.take(GRANTED, worker, number, line.ticket(place), int(self.now * 1e9))
        if not row:
            return False
        line.serve(place)
        self.rows.post(worker, row)
        cells[self._plan.count(number)] += 1
        server.inflight += 1
        self.count_waiting()
        self.ring(worker)
        return True

    def take_up(self) -> int:
        """The number of the ticket of this worker that was granted a slot first; the slot is free again, inside this
        section. 0 if there is none."""
        row = self.rows.next_mail(self.worker)
        if not row:
            return 0
        ticket, number = self.rows.ticket(row), server_of(self.rows.word(row))
        self.rows.free(row)
        self._cells[self._plan.count(number)] -= 1
        for server, seat in self._seats.items():
            if seat == number:
                server.inflight -= 1
        return ticket

    # --- the line ----------------------------------------------------------------------------------------------------

    def count_waiting(self) -> None:
        """Take over how many wait."""
        self.n_waiting = self._cells[self._plan.first + N_WAITING]

    def server_word(self, server: Server, name: i64) -> int:
        """A word of a server."""
        return self._cells[self._plan.server(self._seats[server]) + name]

    def set_server_word(self, server: Server, name: i64, value: i64) -> None:
        self._cells[self._plan.server(self._seats[server]) + name] = value

    def server_text(self, server: Server, name: int, n_words: int) -> str:
        """A text of a server, in so many words."""
        at = self._plan.server(self._seats[server]) + name
        return read_text(self._cells, at, 8 * (n_words - 1)).decode("utf-8", "replace")

    def set_server_text(self, server: Server, name: int, n_words: int, text: str) -> None:
        """What does not fit is cut off."""
        at = self._plan.server(self._seats[server]) + name
        write_text(self._cells, at, text.encode("utf-8", "replace")[: 8 * (n_words - 1)])

    def permits(self, server: Server) -> list[int]:
        """How many probes each worker has at a server."""
        at = self._plan.permits(self._seats[server])
        return [self._cells[at + worker] for worker in range(self._plan.n_workers)]

    def set_permits(self, server: Server, permits: list[int]) -> None:
        at = self._plan.permits(self._seats[server])
        for worker, number in enumerate(permits):
            self._cells[at + worker] = number

    def worker_word(self, worker: int, name: int) -> int:
        """A word of a worker."""
        return self._cells[self._plan.worker(worker) + name]

    def set_worker_word(self, name: int, value: int) -> None:
        """Of this one."""
        self._cells[self._plan.worker(self.worker) + name] = value

    def word(self, name: i64) -> int:
        """A word of the header."""
        return self._cells[self._plan.first + name]

    def set_word(self, name: i64, value: i64) -> None:
        self._cells[self._plan.first + name] = value


def bury(cells: Cells, plan: Plan, guard: Guard, worker: int) -> None:
    """A worker is dead: what it had, granted or waiting, ends. After the kernel said that it is gone, and before a
    successor of this number begins.

    Whoever does this must wake the others then: slots may be free for who waits with them.
    """
    guard.enter()
    cells[plan.first + OWNER] = 0
    repair(cells, plan, worker)
    guard.leave()
