"""A pool as the controller has it: it gives no slots, and says who the members are and what is wanted of them.

Whatever changes here of a server is written down for the workers at once, and they are woken. What they know of servers
(ejections, penalties, requests in flight, who waits) is looked at with each sweep, and whenever somebody asks.
"""

from __future__ import annotations

from typing import Final

from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks
from lbproxy.domain.shared.cells import Cells
from lbproxy.domain.shared.orders import dress, write_orders
from lbproxy.domain.shared.plan import CHANGED, Plan
from lbproxy.domain.shared.pool import Seating, SharedPool
from lbproxy.domain.shared.seats import card_of
from lbproxy.domain.shared.waiting import SharedQueue
from lbproxy.domain.states import Admin, Health

SETTLE_S: Final = 0.25
"""So long a worker may be between reading what the controller wants and counting the request that it places by that."""


class OverseenPool(SharedPool):
    """See the module, and Pool. Its books are those of CONTROLLER."""

    __slots__ = ("_dirty", "_inherited")

    def share(self, books: SharedBooks, queue: SharedQueue | None, seating: Seating | None = None) -> None:
        """See SharedPool."""
        self._dirty: set[Server] = set()
        self._inherited: dict[str, tuple[Server, int]] = {}
        super().share(books, queue, seating)

    # --- members -----------------------------------------------------------------------------------------------------

    def inherit(self) -> None:
        """Somebody has given seats before: whoever joins with such an address and name has it, and is as he was."""
        books = self._shared
        books.enter(books.now)
        try:
            found, _ = books.find_seats()
        finally:
            books.leave()
        self._inherited = {server.key: (server, seat) for server, seat in found}

    def drop_inherited(self, now: float) -> None:
        """Those whom nobody has named meanwhile leave."""
        inherited, self._inherited = self._inherited, {}
        for server, seat in inherited.values():
            self._shared.sat_down(server, seat)
            self._shared.now = now
            self._shared.take_seat(server)
        if inherited:
            self._ring()

    def add(self, server: Server, now: float | None = None) -> None:
        """See Pool; workers have it from now on. One for which there is no seat is in maintenance, and says why."""
        books = self._shared
        card = card_of(server)
        books.now = now if now is not None else books.now
        known = self._inherited.pop(server.key, None)
        if known is not None and card_of(known[0]) == card:
            books.sat_down(server, known[1])
            dress(server, books)
        else:
            if known is not None:
                books.sat_down(*known)
                books.take_seat(known[0])
            if not books.give_seat(server, card, self._first_orders):
                server.admin = Admin.MAINT
                server.why = f"there is no room for more than {books.n_seats} servers until an upgrade or a restart"
        super().add(server, now)
        self._dirty.add(server)
        self.hand_over(books.now)
        self._ring()

    def has_seat(self, server: Server) -> bool:
        """Do workers know it?"""
        return server in self._shared.seats

    def _first_orders(self, cells: Cells, plan: Plan, server: Server, seat: int) -> bool:
        self._seating.prepare(self, seat)
        return write_orders(cells, plan, server, seat)

    def remove(self, server: Server, now: float | None = None) -> None:
        """See Pool; workers give it nothing from their next look on."""
        if now is not None:
            self._shared.now = now
        if self.has_seat(server):
            self._shared.take_seat(server)
        self._dirty.discard(server)
        super().remove(server, now)
        self._ring()

    # --- orders ------------------------------------------------------------------------------------------------------

    def set_health(self, server: Server, health: Health, reason: str, why: str, now: float) -> bool:
        """See Pool."""
        self._dirty.add(server)
        return super().set_health(server, health, reason, why, now)

    def set_admin(self, server: Server, admin: Admin, why: str, now: float, *, keep_sticky: bool = False) -> bool:
        """See Pool."""
        self._dirty.add(server)
        return super().set_admin(server, admin, why, now, keep_sticky=keep_sticky)

    def set_weight(self, server: Server, weight: int, now: float) -> None:
        """See Pool."""
        self._dirty.add(server)
        super().set_weight(server, weight, now)

    def set_max_inflight(self, server: Server, max_inflight: int, now: float) -> None:
        """See Pool."""
        self._dirty.add(server)
        super().set_max_inflight(server, max_inflight, now)

    def set_backup(self, server: Server, backup: bool, now: float) -> None:
        """See Pool."""
        self._dirty.add(server)
        super().set_backup(server, backup, now)

    def set_far(self, server: Server, far: bool, now: float) -> None:
        """See Pool."""
        self._dirty.add(server)
        super().set_far(server, far, now)

    def hand_over(self, now: float) -> None:
        """Workers hear of what has changed; they give their free slots away themselves."""
        dirty, self._dirty = self._dirty, set()
        if self._write(dirty):
            self._ring()

    def _write(self, servers: set[Server]) -> bool:
        books = self._shared
        is_news = False
        for server in servers:
            if server in books.seats:
                is_news = books.give_orders(server, write_orders) or is_news
        if is_news:
            books.set_word(CHANGED, books.word(CHANGED) + 1)
        return is_news

    def _ring(self) -> None:
        books = self._shared
        for worker in range(books.n_workers):
            books.ring_now(worker)

    def see(self, now: float) -> None:
        """Know what workers know now."""
        books = self._shared
        books.enter(now)
        try:
            self._verdicts.read(now)
            books.look()
        finally:
            books.leave()
        if self._line is not None:
            self._line.read()

    def is_drained(self, server: Server, now: float) -> bool:
        """See Pool. As workers have it now: what was looked at with the last sweep is of no use, since what is removed
        too early may be terminated under its requests. A worker that is about to give it one has not read the order
        yet, so that must be some time ago."""
        if now - server.changed_at < SETTLE_S:
            return False
        self.see(now)
        return server.inflight == 0

    # --- time --------------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """See Pool; and what is known of a server without a call is written down."""
        books = self._shared
        books.enter(now)
        try:
            self._verdicts.read(now)
            self.members.sweep(now)
            self._judge.sweep(now)
            self._verdicts.publish()
            books.look()
        finally:
            books.leave()
        if self._line is not None:
            self._line.read()
        self._dirty.update(books.seats)
        self.hand_over(now)
