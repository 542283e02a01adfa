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

from lbproxy.domain.books import Books
from lbproxy.domain.server import Server
from lbproxy.domain.shared.cells import Cells, Guard
from lbproxy.domain.shared.line import Line
from lbproxy.domain.shared.plan import GRANTED, HELD, N_WAITING, OWNER, SERVER_WORDS, TOTAL, Plan, server_of
from lbproxy.domain.shared.repair import repair
from lbproxy.domain.shared.rows import Rows


class SharedBooks(Books):
    """What one worker knows and does of them.

    worker: its number, 0 and up. seats: which servers they are about, by number. wake(worker): called outside the guard
    when that one has something to look after (SharedPool.collect); it may be this worker itself. is_limited: do these
    servers have limits, and so a guard?
    """

    __slots__ = (
        "_bells",
        "_cells",
        "_depth",
        "_guard",
        "_held",
        "_plan",
        "_seats",
        "_servers",
        "_wake",
        "is_limited",
        "line",
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
        self._cells = cells
        self._plan = plan
        self._guard = guard
        self._wake = wake
        self._seats = dict(seats)
        self._servers = [(server, plan.server(number)) for server, number in self._seats.items()]
        self._held: dict[Server, list[int]] = {server: [] for server in self._seats}
        self._bells: list[int] = []
        self._depth = 0
        self.is_limited = is_limited
        self.worker = worker
        self.line = Line(cells, plan)
        self.rows = Rows(cells, plan)
        self.now = 0.0

    @property
    def seats(self) -> Mapping[Server, int]:
        """The servers that these books are about, and their numbers."""
        return self._seats

    def move(self, cells: Cells, plan: Plan, guard: Guard) -> None:
        """The books stand elsewhere now: what was in them has been carried there."""
        self._cells, self._plan, self._guard = cells, plan, guard
        self._servers = [(server, plan.server(number)) for server, number in self._seats.items()]
        self.line = Line(cells, plan)
        self.rows = Rows(cells, plan)

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

    def look(self) -> None:
        """Take over what the books say."""
        cells = self._cells
        if self.is_limited:
            for server, at in self._servers:
                server.inflight = cells[at + TOTAL]
        else:
            n_workers = self._plan.n_workers
            for server, at in self._servers:
                total = 0
                for worker in range(n_workers):
                    total += cells[at + SERVER_WORDS + worker]
                server.inflight = total
        self.count_waiting()

    # --- requests in flight ------------------------------------------------------------------------------------------

    def began(self, server: Server) -> None:
        """See Books; after a `look`, and inside the guard if there are limits."""
        cells = self._cells
        at = self._plan.server(self._seats[server])
        if self.is_limited:
            row = self.rows.take(HELD, self.worker, self._seats[server], 0, int(self.now * 1e9))
            if row:
                self._held[server].append(row)
            else:  # a server without a limit among such with one may have more than there are rows
                cells[at + SERVER_WORDS + self.worker] += 1
            server.inflight += 1  # the pool has looked, in this section
            cells[at + TOTAL] = server.inflight
        else:
            cells[at + SERVER_WORDS + self.worker] += 1
            server.inflight += 1

    def ended(self, server: Server) -> None:
        """See Books. Its own section: the hand-over that may follow is another, and nobody overtakes in between."""
        cells = self._cells
        at = self._plan.server(self._seats[server])
        if self.is_limited:
            self.enter(self.now)
            held = self._held[server]
            if held:
                self.rows.free(held.pop())  # which of its own is all the same
            else:
                cells[at + SERVER_WORDS + self.worker] -= 1
            server.inflight = cells[at + TOTAL] - 1
            cells[at + TOTAL] = server.inflight
            self.leave()
        else:
            cells[at + SERVER_WORDS + self.worker] -= 1
            server.inflight -= 1
        self.count_waiting()
        server.requests += 1

    # --- slots for tickets of other workers --------------------------------------------------------------------------

    def grant(self, server: Server, place: int) -> bool:
        """Give the ticket at this place a slot of the server, and let its worker know. False: there is no row."""
        line, cells = self.line, self._cells
        worker, number = line.worker(place), self._seats[server]
        row = self.rows.take(GRANTED, worker, number, line.ticket(place), int(self.now * 1e9))
        if not row:
            return False
        line.leave(place)
        self.rows.post(worker, row)
        at = self._plan.server(number) + TOTAL
        server.inflight = cells[at] + 1
        cells[at] = server.inflight
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
        at = self._plan.server(number) + TOTAL
        self._cells[at] -= 1
        for server, seat in self._seats.items():
            if seat == number:
                server.inflight = self._cells[at]
        return ticket

    # --- the line ----------------------------------------------------------------------------------------------------

    def count_waiting(self) -> None:
        """Take over how many wait."""
        self.n_waiting = self._cells[self._plan.first + N_WAITING]

    def server_word(self, server: Server, name: int) -> int:
        """A word of a server."""
        return self._cells[self._plan.server(self._seats[server]) + name]

    def set_server_word(self, server: Server, name: int, value: int) -> None:
        self._cells[self._plan.server(self._seats[server]) + name] = value

    def permits(self, server: Server) -> list[int]:
        """How many probes each worker has at a server."""
        at = self._plan.permits(self._seats[server])
        return [self._cells[at + worker] for worker in range(self._plan.n_workers)]

    def set_permits(self, server: Server, permits: list[int]) -> None:
        at = self._plan.permits(self._seats[server])
        for worker, number in enumerate(permits):
            self._cells[at + worker] = number

    def word(self, name: int) -> int:
        """A word of the header."""
        return self._cells[self._plan.first + name]

    def set_word(self, name: int, value: int) -> None:
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
