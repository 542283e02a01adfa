"""A pool whose servers several workers use, as one of them has it.

It decides as any pool does, by the counts of all workers, and does so inside the guard of the books. What it says to
tickets it says outside, so that nobody waits for what a request does with its slot.

    a slot is free, the head is a ticket of this worker    it is served at once
    ... of another worker                                  a slot is granted to it, and its worker is woken
    a worker finds such a grant (`collect`)                it gives the slot back and places the ticket by its own
                                                           strategy, in one section
    ... but the client left, or it would come too late     the next in the line gets it

Between two sections others may act. A slot that is free while somebody waits is the head's, so whoever arrives then
waits too; and since it may have become free after the pool said FULL, whoever joins the line looks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from lbproxy.domain.holding import FREE_SLOT, NO_SLOT, longest_hold_s, needed_s
from lbproxy.domain.lease import Lease, Refusal
from lbproxy.domain.pool import Pool, grant, refuse
from lbproxy.domain.queue import Ticket
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks
from lbproxy.domain.shared.cells import Cells, Guard
from lbproxy.domain.shared.orders import follow
from lbproxy.domain.shared.plan import CHANGED, Plan
from lbproxy.domain.shared.waiting import SharedQueue
from lbproxy.domain.strategies.base import PickContext


class SharedPool(Pool):
    """See the module, and Pool. `share` must be called once, before the first request."""

    __slots__ = ("_has_missed", "_is_noticing", "_line", "_noticed", "_shared")

    _shared: SharedBooks
    _line: SharedQueue | None

    def share(self, books: SharedBooks, queue: SharedQueue | None) -> None:
        """Use these books from now on, and this queue; None: who finds no slot is refused."""
        self.books = self._shared = books
        self.queue = self._line = queue
        self._has_missed = False
        self._is_noticing = False
        self._noticed = 0
        if queue is not None:
            queue.lessor = self

    def move(self, cells: Cells, plan: Plan, guard: Guard) -> None:
        """The books were carried to other memory (domain/shared/plan.py); this worker reads them there from now on."""
        self._shared.move(cells, plan, guard)

    # --- a slot for a request ----------------------------------------------------------------------------------------

    def acquire(
        self, ctx: PickContext, tried: Sequence[Server], now: float, deadline_at: float = inf
    ) -> Lease | Refusal:
        """See Pool."""
        books = self._shared
        if books.word(CHANGED) != self._noticed:
            self.notice(now)
        if not books.is_limited:
            books.look()
            return super().acquire(ctx, tried, now, deadline_at)
        books.enter(now)
        try:
            books.look()
            if books.n_waiting and self._slot(now) == FREE_SLOT:
                return Refusal.FULL  # it is for the head of the line, and whoever freed it is about to say so
            return super().acquire(ctx, tried, now, deadline_at)
        finally:
            books.leave()

    def acquire_at(self, server: Server, now: float) -> Lease | None:
        """See Pool."""
        books = self._shared
        if not books.is_limited:
            books.look()
            return super().acquire_at(server, now)
        books.enter(now)
        try:
            books.look()
            return None if books.n_waiting else super().acquire_at(server, now)
        finally:
            books.leave()

    def enqueue(self, ticket: Ticket, now: float) -> bool:
        """See Pool. The ticket hears nothing before this has returned."""
        if self._line is None or ticket.deadline_at <= now or not self._line.push(ticket, now):
            return False
        self._give_turns(now, is_quiet=True)
        return True

    def notice(self, now: float) -> None:
        """Do what the controller said meanwhile: it is seen at the next request, or sooner by who is woken."""
        books = self._shared
        generation = books.word(CHANGED)
        if generation == self._noticed:
            return
        self._noticed = generation
        self._is_noticing = True
        try:
            for server in books.seats:
                follow(self, server, books, now)
        finally:
            self._is_noticing = False
        self.hand_over(now)

    # --- turns -------------------------------------------------------------------------------------------------------

    def hand_over(self, now: float) -> None:
        """See Pool; and whoever waits with other workers gets what is free, too."""
        if self._line is None or self._is_noticing:
            return
        if self._is_handing_over:
            self._has_missed = True
            return
        self._is_handing_over = True
        try:
            self._has_missed = True
            while self._has_missed:
                self._has_missed = False
                self._tell(self._give_turns(now, is_quiet=False), now)
        finally:
            self._is_handing_over = False
        self._refuse_late(now)

    def collect(self, now: float) -> None:
        """Look after what others left for this one: to be called when it was woken."""
        self.notice(now)
        self.hand_over(now)

    def sweep(self, now: float) -> None:
        """See Pool. Finds what a worker that died did not come to say."""
        self.notice(now)
        self.members.sweep(now)
        self._judge.sweep(now)
        self.hand_over(now)

    def _tell(self, turns: list[tuple[Ticket, Lease | None]], now: float) -> None:
        for ticket, lease in turns:
            if lease is not None:
                grant(ticket, lease, now)
            else:
                refuse(ticket, "hopeless")

    def _give_turns(self, now: float, *, is_quiet: bool) -> list[tuple[Ticket, Lease | None]]:
        """Give what is free to the head of the line, as often as there is both. Returns the tickets of this worker
        whose turn has come, with None if it can't be answered in time. is_quiet: those are told later, as others'."""
        books, queue = self._shared, self._line
        turns: list[tuple[Ticket, Lease | None]] = []
        if queue is None:
            return turns
        books.enter(now)
        try:
            books.look()
            queue.read()
            if not is_quiet:
                queue.look(now)
                self._take_up(queue, turns, now)
            while books.n_waiting and (slot := self._slot(now)) != NO_SLOT:
                if slot == FREE_SLOT:
                    place = queue.turn(now)
                else:
                    place = queue.urgent_turn(now, longest_hold_s(queue, now), needed_s(self.eligible()))
                if not place:
                    break
                if books.line.worker(place) == books.worker and not is_quiet:
                    turns.append(self._placed(queue.take(place), now))
                elif not self._grant_other(place, now):
                    break
                queue.served(now)
            queue.write()
        finally:
            books.leave()
        return turns

    def _take_up(self, queue: SharedQueue, turns: list[tuple[Ticket, Lease | None]], now: float) -> None:
        """Place the tickets of this worker that were granted a slot."""
        books = self._shared
        while number := books.take_up():
            if not queue.has(number):
                continue  # its client left: the slot is the next one's
            if self._slot(now) == NO_SLOT:
                queue.put_back(number)  # the server may not be used any more, as this worker knows already
                continue
            turns.append(self._placed(queue.taken(number), now))

    def _placed(self, ticket: Ticket, now: float) -> tuple[Ticket, Lease | None]:
        """A slot for a ticket of this worker; None if it can't be answered in time. There must be one."""
        if ticket.deadline_at < inf and self._ends_late(ticket.deadline_at, now, 0):
            return ticket, None
        lease = self._place(ticket.ctx, ticket.tried, now, ticket.deadline_at, may_wait=False)
        if isinstance(lease, Refusal):
            raise AssertionError(f"a slot of pool {self.name} vanished between two statements")
        return ticket, lease

    def _grant_other(self, place: int, now: float) -> bool:
        """False: its worker must do it by itself, and is woken."""
        books = self._shared
        found = self._choice((), now, inf, may_wait=False)
        if isinstance(found, tuple) and books.grant(found[0], place):
            return True
        books.ring(books.line.worker(place))
        return False
