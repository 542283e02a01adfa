"""The queue of a pool over several workers: the tickets of this one, and the line in which all of them stand.

Order, time-outs and the rate at which the queue drains are those of WaitQueue, for the whole: what it remembers for
them stands in the books and is read and written inside the guard. A ticket is known to other workers by a number only.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from lbproxy.domain.fairness import FairRules
from lbproxy.domain.lease import Lessor
from lbproxy.domain.queue import Ticket, WaitQueue, sort
from lbproxy.domain.shared.books import SharedBooks
from lbproxy.domain.shared.line import UNSORTED
from lbproxy.domain.shared.plan import ABOVE_SINCE, IS_NEWEST_FIRST, LEFT_AT, N_DRAINED, RATE, RATE_FROM
from lbproxy.domain.shared.turns import mark_of

_NS: Final = 1_000_000_000
_NEVER_NS: Final = (1 << 62) - 1
_COMPACT_FROM: Final = 64


def ns(time_s: float) -> int:
    """A monotonic time in nanoseconds; what has no end ends in 146 years."""
    return int(time_s * 1e9) if time_s < 4e9 else _NEVER_NS


class SharedQueue(WaitQueue):
    """See the module. lessor: the pool, which hears of slots that a client left behind."""

    __slots__ = ("_by_time", "_number", "_numbers", "_places", "_shared", "lessor")

    def __init__(
        self,
        books: SharedBooks,
        size: int = 1024,
        timeout_s: float = 10.0,
        order: str = "adaptive",
        rules: FairRules | None = None,
    ) -> None:
        super().__init__(size, timeout_s, order)
        self.rules = rules
        books.line.turns.weights = rules.weights if rules is not None else ()
        self.books = books
        self._shared = books
        self._number = 0
        self._places: dict[int, tuple[Ticket, int]] = {}  # by the number of a ticket that waits: it, and its place
        self._numbers: dict[Ticket, int] = {}
        self._by_time: list[tuple[float, int]] = []
        self.lessor: Lessor | None = None

    # --- coming and going --------------------------------------------------------------------------------------------

    def push(self, ticket: Ticket, now: float) -> bool:
        """See WaitQueue; the size holds for all workers together."""
        books = self._shared
        if self.rules is not None:
            sort(ticket, self.rules)
        books.enter(now)
        try:
            books.look()
            if books.n_waiting >= self.size and not self._makes_room(ticket):
                return False
            if not books.n_waiting:
                books.set_word(RATE_FROM, ns(now))
                books.set_word(N_DRAINED, 0)
            expires_at = min(ticket.enqueued_at + self.timeout_s, ticket.deadline_at)
            number = self._number + 1
            rank, key = self._sorted_by(ticket)
            place = books.line.join(books.worker, number, ns(ticket.enqueued_at), ns(expires_at), rank, key)
            if not place:
                return False
            self._number = number
            books.count_waiting()
            ticket.is_waiting = True
            ticket.expires_at = expires_at
            self._places[number] = ticket, place
            self._numbers[ticket] = number
            heappush(self._by_time, (expires_at, number))
            return True
        finally:
            books.leave()

    def _sorted_by(self, ticket: Ticket) -> tuple[int, int]:
        return (ticket.rank, mark_of(ticket.share)) if self.rules is not None else (UNSORTED, 0)

    def _makes_room(self, ticket: Ticket) -> bool:
        books, line = self._shared, self._shared.line
        if self.rules is None or books.n_waiting > self.size or not self.size:
            return False
        crowded = line.turns.who_makes_room(*self._sorted_by(ticket))
        if not crowded:
            return False
        if line.worker(crowded) == books.worker:
            self.crowded_out.append(self.take(crowded))
            return True
        if not line.has_free_place:  # which the other one's place is only when its worker has seen it
            return False
        books.ring(line.worker(crowded))
        line.crowd_out(crowded)
        books.count_waiting()
        return True

    def _has_more_than(self, rank: int, share: bytes) -> bool:
        books = self._shared
        books.enter(books.now)
        try:
            return books.line.turns.who_makes_room(rank, mark_of(share)) != 0
        finally:
            books.leave()

    def find_crowded_out(self) -> None:
        """Tickets of this worker that lost their place to those of others; inside the guard."""
        books = self._shared
        while number := books.line.next_crowded_out(books.worker):
            if number in self._places:  # else its client has left
                self.crowded_out.append(self.taken(number))

    def _sort_anew(self, rules: FairRules | None) -> None:
        books = self._shared
        self.rules = rules
        books.line.turns.weights = rules.weights if rules is not None else ()
        books.enter(books.now)
        try:
            for number, (ticket, place) in self._places.items():
                if rules is not None:
                    sort(ticket, rules)
                if self._is_in_line(place, number):
                    books.line.sort(place, *self._sorted_by(ticket))
        finally:
            books.leave()

    def _is_in_line(self, place: int, number: int) -> bool:
        """Does this ticket of this worker wait still: was it not granted a slot, and did nobody take its place?"""
        line = self._shared.line
        return line.is_of(place, self._shared.worker, number) and not line.is_crowded_out(place)

    def remove(self, ticket: Ticket, now: float | None = None) -> None:
        """The client left; if its turn had come and it did not know yet, the next one gets the slot."""
        if not ticket.is_waiting:
            super().remove(ticket, now)
            return
        books = self._shared
        number = self._numbers[ticket]
        place = self._places[number][1]
        books.enter(now if now is not None else books.now)
        try:
            is_granted = not books.line.is_of(place, books.worker, number)
            if self._is_in_line(place, number):  # else nobody is found for its row, or for its place
                books.line.leave(place)
            self._forget(ticket, number)
            books.count_waiting()
            if now is not None:
                self.note_left(now)
        finally:
            books.leave()
        if is_granted and self.lessor is not None:
            self.lessor.hand_over(now if now is not None else books.now)

    def _forget(self, ticket: Ticket, number: int) -> None:
        ticket.is_waiting = False
        del self._places[number]
        del self._numbers[ticket]
        if len(self._by_time) > 2 * len(self._places) + _COMPACT_FROM:
            self._by_time = [item for item in self._by_time if item[1] in self._places]
            heapify(self._by_time)

    def client_left(self, now: float) -> None:
        """See WaitQueue."""
        self._shared.enter(now)
        self.note_left(now)
        self._shared.leave()

    def note_left(self, now: float) -> None:
        """`client_left`, inside the guard."""
        self.read()
        self._left_at = now
        self._look(now)
        self.write()

    def expire(self, now: float) -> list[Ticket]:
        """Tickets of this worker that are late, in the order of their time; they are out of the line. One that has been
        granted a slot in time is not late."""
        late: list[Ticket] = []
        heap = self._by_time
        if not heap or heap[0][0] > now:
            return late
        books = self._shared
        books.enter(now)
        try:
            while heap and (heap[0][0] <= now or heap[0][1] not in self._places):
                number = heappop(heap)[1]
                if number in self._places:
                    ticket, place = self._places[number]
                    if self._is_in_line(place, number):
                        books.line.leave(place)
                        self._forget(ticket, number)
                        late.append(ticket)
            books.count_waiting()
            if late:
                self.note_left(now)
        finally:
            books.leave()
        return late

    # --- turns: inside the guard -------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Notice whether a standing queue persists: now and then, whatever happens."""
        self._look(now)

    def turn(self, now: float) -> int:
        """The place whose turn it is by the order of the queue, 0 if there is none. Where there are no turns by class
        and key, tickets of this worker go before others' of about the same age."""
        self._look(now)
        line = self._shared.line
        if self.rules is not None:
            place = line.turns.next(ns(now), is_newest_first=self.is_newest_first)
            if place:
                return place
        return line.turn(ns(now), self._shared.worker, is_newest_first=self.is_newest_first)

    def urgent_turn(self, now: float, longest_s: float, needed_s: float) -> int:
        """The place that can't wait for a slot of a sound server: see `WaitQueue.pop_urgent`; 0 if there is none."""
        return self._shared.line.urgent(ns(now), ns(longest_s), ns(needed_s))

    def take(self, place: int) -> Ticket:
        """The ticket of this worker at the place, which it leaves."""
        books = self._shared
        number = books.line.ticket(place)
        books.line.leave(place)
        books.count_waiting()
        return self.taken(number)

    def serve(self, place: int) -> Ticket:
        """`take`, since its turn has come."""
        self._shared.line.turns.serve(place)
        return self.take(place)

    def taken(self, number: int) -> Ticket:
        """A ticket of this worker that waits no more, by its number. Raises KeyError if its client has left."""
        ticket = self._places[number][0]
        self._forget(ticket, number)
        return ticket

    def has(self, number: int) -> bool:
        """Does this ticket wait still, as far as this worker knows?"""
        return number in self._places

    def put_back(self, number: int) -> None:
        """It was granted a slot that can't be had: it waits on, before all that came after it."""
        books = self._shared
        ticket = self._places[number][0]
        rank, key = self._sorted_by(ticket)
        place = books.line.rejoin(books.worker, number, ns(ticket.enqueued_at), ns(ticket.expires_at), rank, key)
        if not place:  # others have come meanwhile, and there is no room for more
            self.crowded_out.append(self.taken(number))
            return
        self._places[number] = ticket, place
        heappush(self._by_time, (ticket.expires_at, number))
        books.count_waiting()

    def served(self, now: float) -> None:
        """A place was left for a slot."""
        self._count_drained(now)
        self._look(now)

    def _look(self, now: float) -> None:
        if not self._is_adaptive:
            return
        oldest_ns = self._shared.line.oldest_ns()
        self._note_wait(oldest_ns / _NS if oldest_ns >= 0 else inf, now)

    def oldest_wait_s(self, now: float) -> float:
        """How long the oldest ticket of any worker has waited, 0 if there is none. For looking only: not exact."""
        oldest_ns = self._shared.line.oldest_ns()
        return max(0.0, now - oldest_ns / _NS) if oldest_ns >= 0 else 0.0

    # --- for people --------------------------------------------------------------------------------------------------

    def _counts(self) -> list[int]:
        turns = self._shared.line.turns
        return [turns.n_of(rank) for rank in range(len(turns.weights))]

    def _n_keys(self) -> int:
        return self._shared.line.turns.n_keys

    # --- what is remembered of the whole -----------------------------------------------------------------------------

    def read(self) -> None:
        """Take over what the workers know of order and rate."""
        books = self._shared
        left_ns, above_ns, rate = books.word(LEFT_AT), books.word(ABOVE_SINCE), books.word(RATE)
        self._left_at = left_ns / _NS if left_ns else -inf
        self._above_since = above_ns / _NS if above_ns else None
        self.is_newest_first = books.word(IS_NEWEST_FIRST) != 0
        self._n_drained = books.word(N_DRAINED)
        self._rate_from = books.word(RATE_FROM) / _NS
        self._rate = (rate - 1) / 1e6 if rate else None

    def write(self) -> None:
        """Let the others know."""
        books = self._shared
        books.set_word(LEFT_AT, ns(self._left_at) if self._left_at > -inf else 0)
        books.set_word(ABOVE_SINCE, ns(self._above_since) if self._above_since is not None else 0)
        books.set_word(IS_NEWEST_FIRST, int(self.is_newest_first))
        books.set_word(N_DRAINED, self._n_drained)
        books.set_word(RATE_FROM, ns(self._rate_from))
        books.set_word(RATE, int(self._rate * 1e6) + 1 if self._rate is not None else 0)
