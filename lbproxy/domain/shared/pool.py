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
from typing import Final

from lbproxy.compiling import mypyc_attr
from lbproxy.domain.holding import FREE_SLOT, NO_SLOT, longest_hold_s, needed_s
from lbproxy.domain.lease import Lease, Outcome, Refusal
from lbproxy.domain.pool import Pool, grant, refuse
from lbproxy.domain.queue import Ticket
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks
from lbproxy.domain.shared.orders import dress, follow
from lbproxy.domain.shared.plan import CHANGED
from lbproxy.domain.shared.verdicts import Verdicts
from lbproxy.domain.shared.waiting import SharedQueue
from lbproxy.domain.states import Breaker, Health
from lbproxy.domain.strategies.base import PickContext

UNCONFIRMED_S: Final = 2.0


@mypyc_attr(allow_interpreted_subclasses=True)
class Seating:
    """Who sees to it that servers join a pool and leave it; this one, for a pool alone."""

    def join(self, pool: SharedPool, server: Server, now: float | None) -> None:
        """now: see `Pool.add`."""
        pool.add(server, now)

    def leave(self, pool: SharedPool, server: Server, now: float) -> None:
        """`SharedPool.let_go` must follow, when nothing of it is in flight here and nothing will be said about it."""
        pool.remove(server, now)

    def prepare(self, pool: SharedPool, seat: int) -> None:
        """The seat is about to become another server's."""


class SharedPool(Pool):
    """See the module, and Pool. `share` must be called once, before the first request."""

    __slots__ = ("_has_missed", "_is_noticing", "_line", "_noticed", "_seating", "_shared", "_verdicts")

    _shared: SharedBooks
    _line: SharedQueue | None
    _verdicts: Verdicts
    _seating: Seating

    def share(self, books: SharedBooks, queue: SharedQueue | None, seating: Seating | None = None) -> None:
        """Use these books from now on, and this queue; None: who finds no slot is refused."""
        self.books = self._shared = books
        self.queue = self._line = queue
        self._has_missed = False
        self._is_noticing = False
        self._noticed = 0
        self._seating = seating if seating is not None else Seating()
        self._verdicts = Verdicts(books, self.members)
        if queue is not None:
            queue.lessor = self

    def begin(self) -> None:
        """Take up all that have a seat: nobody is ramped up."""
        self._noticed = self._shared.word(CHANGED)
        self._look_who_sits(None)

    # --- a slot for a request ----------------------------------------------------------------------------------------

    def acquire(
        self, ctx: PickContext, tried: Sequence[Server], now: float, deadline_at: float = inf
    ) -> Lease | Refusal:
        """See Pool."""
        books = self._shared
        if books.word(CHANGED) != self._noticed:
            self.notice(now)
        if self._verdicts.is_stale():
            books.enter(now)
            self._verdicts.read(now)
            books.leave()
        if not books.is_limited and not self.members.out:
            books.look()
            return super().acquire(ctx, tried, now, deadline_at)
        books.enter(now)
        try:
            self._look(now)
            if books.n_waiting and self._slot(now) == FREE_SLOT:
                return Refusal.FULL  # it is for the head of the line, and whoever freed it is about to say so
            found = super().acquire(ctx, tried, now, deadline_at)
            if isinstance(found, Lease):
                self._note_probe(found.server)
            return found
        finally:
            books.leave()

    def acquire_kept(self, server: Server, now: float) -> Lease | Refusal:
        """See Pool. A slot that is free while somebody waits is the head's here, too."""
        books = self._shared
        if books.word(CHANGED) != self._noticed:
            self.notice(now)
        if not books.is_limited and not self.members.out:
            books.look()
            return super().acquire_kept(server, now)
        books.enter(now)
        try:
            self._look(now)
            if books.n_waiting and self._slot(now) == FREE_SLOT:
                return Refusal.FULL
            found = super().acquire_kept(server, now)
            if isinstance(found, Lease):
                self._note_probe(server)
            return found
        finally:
            books.leave()

    def enqueue_kept(self, server: Server, ticket: Ticket) -> bool:
        """False: the line has those who wait for any server, and others can't see whom a ticket waits for."""
        return False

    def _look(self, now: float) -> None:
        """Take over what the books say; inside the guard. While servers are out their probes are counted."""
        self._shared.look()
        if self.members.out or self._verdicts.is_stale():
            self._verdicts.read(now)

    def _note_probe(self, server: Server) -> None:
        if server.breaker is Breaker.PROBING:
            self._verdicts.write(server, is_news=False)

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
            self._look_who_sits(now)
            for server in books.seats:
                follow(self, server, books, now)
            self._see_limits()
        finally:
            self._is_noticing = False
        self.hand_over(now)

    def _look_who_sits(self, now: float | None) -> None:
        books = self._shared
        books.enter(now if now is not None else books.now)
        try:
            new, gone = books.find_seats()
        finally:
            books.leave()
        for server in gone:
            self._seating.leave(self, server, now if now is not None else books.now)
        for server, seat in new:
            books.sat_down(server, seat)
            dress(server, books)
            self._see_limits()
            self._seating.join(self, server, now)
        self._see_limits()

    def _see_limits(self) -> None:
        self._shared.is_limited = any(server.max_inflight > 0 for server in self._shared.seats)

    def remove(self, server: Server, now: float | None = None) -> None:
        """See Pool."""
        books = self._shared
        if server in books.seats:
            books.got_up(server)
        super().remove(server, now)

    def let_go(self, server: Server, now: float) -> None:
        """See Seating."""
        self._shared.let_go(server, now)

    # --- ends of requests --------------------------------------------------------------------------------------------

    def judge(self, lease: Lease, ok: bool, now: float) -> None:
        """See Pool: by what all workers know."""
        books, server = self._shared, lease.server
        books.enter(now)
        try:
            self._verdicts.read(now)
            before = server.breaker
            super().judge(lease, ok, now)
            self._verdicts.write(server, is_news=server.breaker is not before)
        finally:
            books.leave()

    def settle(
        self,
        lease: Lease,
        outcome: Outcome,
        now: float,
        penalty_s: float,
        quarantine_s: float,
        what: str,
        request_key: int,
    ) -> None:
        """See Pool: by what all workers know. Slots that are used last for a while are this worker's alone."""
        books, server = self._shared, lease.server
        books.enter(now)
        try:
            self._verdicts.read(now)
            before, until = server.breaker, server.penalty_until
            super().settle(lease, outcome, now, penalty_s, quarantine_s, what, request_key)
            is_news = server.breaker is not before or server.penalty_until != until
            self._verdicts.write(server, is_news=is_news)
        finally:
            books.leave()

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
        self.tell_crowded_out()

    def collect(self, now: float) -> None:
        """Look after what others left for this one: to be called when it was woken."""
        self.notice(now)
        self.hand_over(now)

    def sweep(self, now: float) -> None:
        """See Pool. Finds what a worker that died did not come to say."""
        self.notice(now)
        self._believe(now)
        self._shared.enter(now)
        try:
            self._verdicts.read(now)
            self.members.sweep(now)
            self._judge.sweep(now)
            self._verdicts.publish()
        finally:
            self._shared.leave()
        self.hand_over(now)

    def _believe(self, now: float) -> None:
        """What this worker alone thinks of a server does not last: the controller has heard of it, or never will."""
        for server in self._shared.seats:
            if server.health is Health.DOWN and now - server.changed_at >= UNCONFIRMED_S:
                follow(self, server, self._shared, now)

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
            self._look(now)
            queue.read()
            if not is_quiet:
                queue.look(now)
                queue.find_crowded_out()
                self._take_up(queue, turns, now)
            while books.n_waiting and (slot := self._slot(now)) != NO_SLOT:
                if slot == FREE_SLOT:
                    place = queue.turn(now)
                else:
                    place = queue.urgent_turn(now, longest_hold_s(queue, now), needed_s(self.eligible()))
                if not place:
                    break
                if books.line.worker(place) == books.worker and not is_quiet:
                    turns.append(self._placed(queue.serve(place), now))
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
        self._note_probe(lease.server)
        return ticket, lease

    def _grant_other(self, place: int, now: float) -> bool:
        """False: its worker must do it by itself, and is woken."""
        books = self._shared
        found = self._choice((), now, inf, may_wait=False)
        if isinstance(found, tuple) and books.grant(found[0], place):
            return True
        books.ring(books.line.worker(place))
        return False
