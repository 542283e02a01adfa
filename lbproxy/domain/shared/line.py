"""Who waits for a slot of one pool, over all workers, in the order of arrival. The tickets are with their workers.

A list in places that stay where they are: a client that leaves from the middle costs as much as one that is served, and
nothing is ever moved, so that nobody can die while at it. To be called inside the pool's guard only.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import i64
from lbproxy.domain.shared.cells import Cells, near
from lbproxy.domain.shared.plan import (
    CROWDED,
    FIRST,
    FREE_PLACE,
    LAST,
    N_PLACES_USED,
    N_WAITING,
    PLACE_ARRIVED,
    PLACE_BEFORE,
    PLACE_EXPIRES,
    PLACE_FLOW,
    PLACE_KEY,
    PLACE_NEXT,
    PLACE_RANK,
    PLACE_SERIAL,
    PLACE_TICKET,
    SERIAL,
    Plan,
)
from lbproxy.domain.shared.turns import SharedTurns

UNSORTED: Final = -1
NEAR_NS: Final = 10_000_000
"""10 ms: so much later than the one whose turn it is may a ticket have come that has it in its place."""
_LOOK_AT: Final = 32  # places, as a thousand may have come at once, and all others wait meanwhile


class Line:
    """See the module. Times are monotonic nanoseconds. turns: of those that were sorted by class and key."""

    __slots__ = ("_cells", "_plan", "turns")

    def __init__(self, cells: Cells, plan: Plan) -> None:
        self._cells = near(cells)
        self._plan = plan
        self.turns = SharedTurns(cells, plan)

    # --- who waits ---------------------------------------------------------------------------------------------------

    def join(
        self, worker: i64, ticket: i64, arrived_ns: i64, expires_ns: i64, rank: i64 = UNSORTED, key: i64 = 0
    ) -> i64:
        """The number of the last place, which is theirs; 0 if all are taken. rank, key: by which it has turns."""
        place = self._enter(worker, ticket, arrived_ns, expires_ns, rank, key, self._cells[self._plan.first + LAST])
        if place and rank != UNSORTED:
            self.turns.add(place)
        return place

    def rejoin(
        self, worker: i64, ticket: i64, arrived_ns: i64, expires_ns: i64, rank: i64 = UNSORTED, key: i64 = 0
    ) -> i64:
        """The number of a place before all that arrived later, and whose turn is the next; 0 if all are taken."""
        cells, plan = self._cells, self._plan
        before, following = 0, cells[plan.first + FIRST]
        while following and cells[plan.place(following) + PLACE_ARRIVED] <= arrived_ns:
            before, following = following, cells[plan.place(following) + PLACE_NEXT]
        place = self._enter(worker, ticket, arrived_ns, expires_ns, rank, key, before)
        if place and rank != UNSORTED:
            self.turns.add(place, is_back=True)
        return place

    def sort(self, place: i64, rank: i64, key: i64) -> None:
        """From now on it has turns by these. rank UNSORTED: it has none."""
        at = self._plan.place(place)
        self.turns.drop(place)
        self._cells[at + PLACE_RANK] = rank + 1
        self._cells[at + PLACE_KEY] = key
        if rank != UNSORTED:
            self.turns.add(place)

    def _enter(
        self, worker: i64, ticket: i64, arrived_ns: i64, expires_ns: i64, rank: i64, key: i64, before: i64
    ) -> i64:
        cells, plan = self._cells, self._plan
        first = plan.first
        place = cells[first + FREE_PLACE]
        if place:
            at = plan.place(place)
            cells[first + FREE_PLACE] = cells[at + PLACE_NEXT]
        else:
            place = cells[first + N_PLACES_USED] + 1
            if place > plan.n_places:
                return 0
            cells[first + N_PLACES_USED] = place
            at = plan.place(place)
        next_of_before = plan.place(before) + PLACE_NEXT if before else first + FIRST
        following = cells[next_of_before]
        if following:  # it came before that one, which its time says
            serial = cells[plan.place(following) + PLACE_SERIAL]
        else:
            serial = cells[first + SERIAL] + 1
            cells[first + SERIAL] = serial
        cells[at + PLACE_TICKET] = ticket
        cells[at + PLACE_ARRIVED] = arrived_ns
        cells[at + PLACE_EXPIRES] = max(1, expires_ns)
        cells[at + PLACE_RANK] = rank + 1
        cells[at + PLACE_KEY] = key
        cells[at + PLACE_FLOW] = 0
        cells[at + PLACE_SERIAL] = serial
        cells[at + PLACE_BEFORE] = before
        cells[at + PLACE_NEXT] = following
        cells[at] = worker + 1
        cells[next_of_before] = place
        cells[plan.place(following) + PLACE_BEFORE if following else first + LAST] = place
        cells[first + N_WAITING] += 1
        return place

    def leave(self, place: i64) -> None:
        """Whoever has this place waits no more."""
        cells, first = self._cells, self._plan.first
        at = self._plan.place(place)
        cells[at] = 0
        self._unlink(place)
        cells[at + PLACE_NEXT] = cells[first + FREE_PLACE]
        cells[first + FREE_PLACE] = place

    def serve(self, place: i64) -> None:
        """It leaves because its turn has come."""
        self.turns.serve(place)
        self.leave(place)

    def _unlink(self, place: i64) -> None:
        cells, plan = self._cells, self._plan
        first, at = plan.first, plan.place(place)
        if cells[at + PLACE_FLOW]:
            self.turns.drop(place)
        before, following = cells[at + PLACE_BEFORE], cells[at + PLACE_NEXT]
        cells[plan.place(before) + PLACE_NEXT if before else first + FIRST] = following
        cells[plan.place(following) + PLACE_BEFORE if following else first + LAST] = before
        cells[first + N_WAITING] -= 1

    # --- who lost its place to others --------------------------------------------------------------------------------

    def crowd_out(self, place: i64) -> None:
        """It does not wait any more, which its worker has to find out: nobody has the place until then."""
        cells, plan = self._cells, self._plan
        at = plan.place(place)
        cells[at + PLACE_EXPIRES] = 0
        self._unlink(place)
        its_first = plan.worker(cells[at] - 1) + CROWDED
        cells[at + PLACE_NEXT] = cells[its_first]
        cells[its_first] = place

    @property
    def has_free_place(self) -> bool:
        """Could somebody join?"""
        cells, first = self._cells, self._plan.first
        return cells[first + FREE_PLACE] != 0 or cells[first + N_PLACES_USED] < self._plan.n_places

    def is_crowded_out(self, place: i64) -> bool:
        """Is it one of those?"""
        return self._cells[self._plan.place(place) + PLACE_EXPIRES] == 0

    def next_crowded_out(self, worker: i64) -> i64:
        """The number of a ticket of this worker that lost its place, which is free now; 0 if there is none."""
        cells, plan = self._cells, self._plan
        its_first = plan.worker(worker) + CROWDED
        place = cells[its_first]
        if not place:
            return 0
        at = plan.place(place)
        cells[its_first] = cells[at + PLACE_NEXT]
        ticket = cells[at + PLACE_TICKET]
        cells[at] = 0
        cells[at + PLACE_NEXT] = cells[plan.first + FREE_PLACE]
        cells[plan.first + FREE_PLACE] = place
        return ticket

    # --- of a place --------------------------------------------------------------------------------------------------

    def worker(self, place: i64) -> i64:
        """Whose it is."""
        return self._cells[self._plan.place(place)] - 1

    def ticket(self, place: i64) -> i64:
        """The number by which its worker knows the ticket."""
        return self._cells[self._plan.place(place) + PLACE_TICKET]

    def is_of(self, place: i64, worker: i64, ticket: i64) -> bool:
        """Does this ticket wait at this place still?"""
        at = self._plan.place(place)
        return self._cells[at] == worker + 1 and self._cells[at + PLACE_TICKET] == ticket

    # --- whose turn it is --------------------------------------------------------------------------------------------

    def oldest_ns(self) -> int:
        """When the first in the line arrived; -1 if nobody waits."""
        place = self._cells[self._plan.first + FIRST]
        return self._cells[self._plan.place(place) + PLACE_ARRIVED] if place else -1

    def turn(self, now_ns: i64, worker: i64, *, is_newest_first: bool) -> i64:
        """The place whose turn it is, 0 if there is none. Who is late is passed over: its worker tells it.

        worker: who has the slot to give. Its own go before others' that arrived less than NEAR_NS before them, since a
        slot that goes to another worker lies idle until that has woken up. So nobody is overtaken by who came later
        than that, and the tickets of one worker never overtake one another. -1: nobody in particular has it."""
        cells, plan = self._cells, self._plan
        place = cells[plan.first + (LAST if is_newest_first else FIRST)]
        step = PLACE_BEFORE if is_newest_first else PLACE_NEXT
        while place and cells[plan.place(place) + PLACE_EXPIRES] <= now_ns:
            place = cells[plan.place(place) + step]
        if not place or worker < 0:
            return place
        arrived_ns = cells[plan.place(place) + PLACE_ARRIVED]
        near, n_left = place, _LOOK_AT
        while near and n_left and -NEAR_NS < cells[plan.place(near) + PLACE_ARRIVED] - arrived_ns < NEAR_NS:
            at = plan.place(near)
            if cells[at] == worker + 1 and cells[at + PLACE_EXPIRES] > now_ns:
                return near
            near = cells[at + step]
            n_left -= 1
        return place

    def urgent(self, now_ns: i64, longest_ns: i64, needed_ns: i64) -> i64:
        """The first place if it has been there for `longest_ns`, or else the one that has the least time, if that is
        `needed_ns` or less; 0 if nobody is in such a hurry, or who is is late already. Looks at everybody."""
        cells, plan = self._cells, self._plan
        place = cells[plan.first + FIRST]
        if place and now_ns - cells[plan.place(place) + PLACE_ARRIVED] >= longest_ns:
            return place if cells[plan.place(place) + PLACE_EXPIRES] > now_ns else 0
        soonest, found = now_ns + needed_ns + 1, 0
        while place:
            expires = cells[plan.place(place) + PLACE_EXPIRES]
            if expires < soonest:
                soonest, found = expires, place
            place = cells[plan.place(place) + PLACE_NEXT]
        return found if soonest > now_ns else 0
