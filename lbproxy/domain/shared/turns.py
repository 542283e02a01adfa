"""Whose turn it is among all who wait, over all workers: domain/turns.py, in shared memory.

Each place of the line that was sorted says its class and what stands for its key. All the rest follows from that: flows
(the places of one key, in order of arrival), the ring of each class, buckets in which the flow of a key is found. So
whoever dies here loses the order of the rings, which is at most one turn too many for some keys.

Nothing changes when somebody looks whose turn it is, apart from who is late; only who is served pays. So two workers
that look one after the other find the same one.

One thing is less exact than in one process: who has most when the queue is full. It is the longest of the flow that was
seen to be long, and of the next few in the ring; it always has more than who comes.

Workers may have other rules for a moment when a config changes: places that are not sorted have their turns when no
other has. To be called inside the pool's guard only.
"""

from __future__ import annotations

from typing import Final

from lbproxy.domain.shared.cells import Cells, near
from lbproxy.domain.shared.plan import (
    CLASS_CREDIT,
    CLASS_FIRST,
    CLASS_LAST,
    CLASS_LONG,
    CLASS_N,
    FLOW_BEFORE,
    FLOW_CHAIN,
    FLOW_KEY,
    FLOW_N,
    FLOW_NEWEST,
    FLOW_NEXT,
    FLOW_OLDEST,
    FLOW_RANK,
    FREE_FLOW,
    MOST_CLASSES,
    N_FLOWS_USED,
    N_KEYS,
    PLACE_ARRIVED,
    PLACE_EXPIRES,
    PLACE_FLOW,
    PLACE_KEY,
    PLACE_NEWER,
    PLACE_OLDER,
    PLACE_RANK,
    PLACE_SERIAL,
    Plan,
)

_LOOK_AT: Final = 32  # flows, to find a long one
_KEY_BITS: Final = (1 << 62) - 1


def mark_of(share: bytes) -> int:
    """What stands for a key in a cell. Python's hashes have a secret, which processes that were forked share, so nobody
    can make up keys that are looked for in one bucket."""
    return hash(share) & _KEY_BITS


class SharedTurns:
    """See the module. weights: of the classes, as this worker knows them."""

    __slots__ = ("_cells", "_plan", "weights")

    def __init__(self, cells: Cells, plan: Plan) -> None:
        self._cells = near(cells)
        self._plan = plan
        self.weights: tuple[int, ...] = ()

    def weight(self, rank: int) -> int:
        """Turns of a class."""
        return self.weights[rank] if rank < len(self.weights) else 1

    def n_of(self, rank: int) -> int:
        """How many places of a class are sorted."""
        return self._cells[self._plan.class_at(rank) + CLASS_N]

    @property
    def n_keys(self) -> int:
        """How many keys wait, each once, in however many classes."""
        return self._cells[self._plan.first + N_KEYS]

    # --- coming and going --------------------------------------------------------------------------------------------

    def add(self, place: int, *, is_back: bool = False) -> None:
        """A place whose rank and key are written has turns from now on. is_back: it had one, and comes first."""
        cells, plan = self._cells, self._plan
        at = plan.place(place)
        rank, key = cells[at + PLACE_RANK] - 1, cells[at + PLACE_KEY]
        flow = self._find(rank, key) or self._new_flow(rank, key)
        if not flow:
            return  # there are as many as places, so this cannot be; it is served when no other is
        its = plan.flow(flow)
        newer, older = 0, cells[its + FLOW_NEWEST]
        while older and self._is_before(place, older):
            newer, older = older, cells[plan.place(older) + PLACE_OLDER]
        if is_back:
            self._unlink(flow)
            self._link(flow, rank, is_first=True)
        cells[at + PLACE_FLOW] = flow
        cells[at + PLACE_OLDER] = older
        cells[at + PLACE_NEWER] = newer
        cells[plan.place(older) + PLACE_NEWER if older else its + FLOW_OLDEST] = place
        cells[plan.place(newer) + PLACE_OLDER if newer else its + FLOW_NEWEST] = place
        cells[its + FLOW_N] += 1
        of_class = plan.class_at(rank)
        cells[of_class + CLASS_N] += 1
        long = cells[of_class + CLASS_LONG]
        if not long or cells[its + FLOW_N] >= cells[plan.flow(long) + FLOW_N]:
            cells[of_class + CLASS_LONG] = flow

    def drop(self, place: int) -> None:
        """It has no turns any more. Nothing happens if it has none."""
        cells, plan = self._cells, self._plan
        at = plan.place(place)
        flow = cells[at + PLACE_FLOW]
        if not flow:
            return
        cells[at + PLACE_FLOW] = 0
        its = plan.flow(flow)
        older, newer = cells[at + PLACE_OLDER], cells[at + PLACE_NEWER]
        cells[plan.place(older) + PLACE_NEWER if older else its + FLOW_OLDEST] = newer
        cells[plan.place(newer) + PLACE_OLDER if newer else its + FLOW_NEWEST] = older
        of_class = plan.class_at(cells[its + FLOW_RANK])
        cells[its + FLOW_N] -= 1
        cells[of_class + CLASS_N] -= 1
        if not cells[its + FLOW_N]:
            self._end_flow(flow, of_class)
        if not cells[of_class + CLASS_N]:
            cells[of_class + CLASS_CREDIT] = 0

    def _is_before(self, place: int, other: int) -> bool:
        cells, at, its = self._cells, self._plan.place(place), self._plan.place(other)
        serial, its_serial = cells[at + PLACE_SERIAL], cells[its + PLACE_SERIAL]
        return serial < its_serial or (serial == its_serial and cells[at + PLACE_ARRIVED] < cells[its + PLACE_ARRIVED])

    def _find(self, rank: int, key: int) -> int:
        cells, plan = self._cells, self._plan
        flow = cells[plan.bucket(key)]
        while flow:
            its = plan.flow(flow)
            if cells[its + FLOW_KEY] == key and cells[its + FLOW_RANK] == rank:
                return flow
            flow = cells[its + FLOW_CHAIN]
        return 0

    def _waits(self, key: int) -> bool:
        """Does this key wait in any class?"""
        cells, plan = self._cells, self._plan
        flow = cells[plan.bucket(key)]
        while flow:
            its = plan.flow(flow)
            if cells[its + FLOW_KEY] == key:
                return True
            flow = cells[its + FLOW_CHAIN]
        return False

    def _new_flow(self, rank: int, key: int) -> int:
        cells, plan = self._cells, self._plan
        first = plan.first
        flow = cells[first + FREE_FLOW]
        if flow:
            cells[first + FREE_FLOW] = cells[plan.flow(flow) + FLOW_NEXT]
        else:
            flow = cells[first + N_FLOWS_USED] + 1
            if flow > plan.n_places:
                return 0
            cells[first + N_FLOWS_USED] = flow
        its, bucket = plan.flow(flow), plan.bucket(key)
        cells[first + N_KEYS] += 0 if self._waits(key) else 1
        cells[its + FLOW_KEY] = key
        cells[its + FLOW_RANK] = rank
        cells[its + FLOW_N] = cells[its + FLOW_OLDEST] = cells[its + FLOW_NEWEST] = 0
        cells[its + FLOW_CHAIN] = cells[bucket]
        cells[bucket] = flow
        self._link(flow, rank, is_first=False)
        return flow

    def _end_flow(self, flow: int, of_class: int) -> None:
        cells, plan = self._cells, self._plan
        its = plan.flow(flow)
        self._unlink(flow)
        if cells[of_class + CLASS_LONG] == flow:
            cells[of_class + CLASS_LONG] = cells[of_class + CLASS_FIRST]
        at = plan.bucket(cells[its + FLOW_KEY])
        while cells[at] != flow:
            at = plan.flow(cells[at]) + FLOW_CHAIN
        cells[at] = cells[its + FLOW_CHAIN]
        cells[its + FLOW_NEXT] = cells[plan.first + FREE_FLOW]
        cells[plan.first + FREE_FLOW] = flow
        cells[plan.first + N_KEYS] -= 0 if self._waits(cells[its + FLOW_KEY]) else 1

    def _link(self, flow: int, rank: int, *, is_first: bool) -> None:
        cells, plan = self._cells, self._plan
        its, of_class = plan.flow(flow), plan.class_at(rank)
        before = 0 if is_first else cells[of_class + CLASS_LAST]
        following = cells[of_class + CLASS_FIRST] if is_first else 0
        cells[its + FLOW_BEFORE] = before
        cells[its + FLOW_NEXT] = following
        cells[plan.flow(before) + FLOW_NEXT if before else of_class + CLASS_FIRST] = flow
        cells[plan.flow(following) + FLOW_BEFORE if following else of_class + CLASS_LAST] = flow

    def _unlink(self, flow: int) -> None:
        cells, plan = self._cells, self._plan
        its = plan.flow(flow)
        of_class = plan.class_at(cells[its + FLOW_RANK])
        before, following = cells[its + FLOW_BEFORE], cells[its + FLOW_NEXT]
        cells[plan.flow(before) + FLOW_NEXT if before else of_class + CLASS_FIRST] = following
        cells[plan.flow(following) + FLOW_BEFORE if following else of_class + CLASS_LAST] = before

    # --- whose turn it is --------------------------------------------------------------------------------------------

    def next(self, now_ns: int, *, is_newest_first: bool) -> int:
        """The place whose turn it is, 0 if no sorted one is in time. Those that are late have no turns any more."""
        cells, plan = self._cells, self._plan
        while (rank := self._next_class()) >= 0:
            its = plan.flow(cells[plan.class_at(rank) + CLASS_FIRST])
            place = cells[its + (FLOW_NEWEST if is_newest_first else FLOW_OLDEST)]
            if cells[plan.place(place) + PLACE_EXPIRES] > now_ns:
                return place
            self.drop(place)
        return 0

    def _next_class(self) -> int:
        cells, plan = self._cells, self._plan
        found, most = -1, 0
        for rank in range(MOST_CLASSES):
            at = plan.class_at(rank)
            if cells[at + CLASS_N]:
                credit = cells[at + CLASS_CREDIT] + self.weight(rank)
                if found < 0 or credit > most:
                    found, most = rank, credit
        return found

    def serve(self, place: int) -> None:
        """It is served: its class pays, and its key goes to the end of the ring. Before it is dropped."""
        cells, plan = self._cells, self._plan
        flow = cells[plan.place(place) + PLACE_FLOW]
        if not flow:
            return
        served = cells[plan.flow(flow) + FLOW_RANK]
        total = 0
        for rank in range(MOST_CLASSES):
            at = plan.class_at(rank)
            if cells[at + CLASS_N]:
                cells[at + CLASS_CREDIT] += self.weight(rank)
                total += self.weight(rank)
        at = plan.class_at(served)
        cells[at + CLASS_CREDIT] = cells[at + CLASS_CREDIT] - total if total > self.weight(served) else 0
        self._unlink(flow)
        self._link(flow, served, is_first=False)

    def who_makes_room(self, rank: int, key: int) -> int:
        """The place of who should go so that somebody of this class and key gets in, 0 if none should."""
        cells, plan = self._cells, self._plan
        worst, n_worst = rank, self.n_of(rank) + 1
        for other in range(MOST_CLASSES):
            if self.n_of(other) * self.weight(worst) > n_worst * self.weight(other):
                worst, n_worst = other, self.n_of(other)
        of_class = plan.class_at(worst)
        longest = cells[of_class + CLASS_LONG]
        if not longest:
            return 0
        flow = cells[of_class + CLASS_FIRST]
        for _ in range(_LOOK_AT):
            if not flow:
                break
            if cells[plan.flow(flow) + FLOW_N] > cells[plan.flow(longest) + FLOW_N]:
                longest = flow
            flow = cells[plan.flow(flow) + FLOW_NEXT]
        cells[of_class + CLASS_LONG] = longest
        if worst == rank:
            own = self._find(rank, key)
            if cells[plan.flow(longest) + FLOW_N] <= (cells[plan.flow(own) + FLOW_N] if own else 0) + 1:
                return 0
        return cells[plan.flow(longest) + FLOW_NEWEST]

    # --- after a death -----------------------------------------------------------------------------------------------

    def forget_all(self) -> None:
        """Nobody has turns; whoever waits is to be added anew, in order of arrival."""
        cells, plan = self._cells, self._plan
        if not cells[plan.first + N_FLOWS_USED]:
            return
        for rank in range(MOST_CLASSES):
            at = plan.class_at(rank)
            for word in (CLASS_N, CLASS_CREDIT, CLASS_FIRST, CLASS_LAST, CLASS_LONG):
                cells[at + word] = 0
        for at in range(plan.buckets, plan.buckets + plan.n_places):
            cells[at] = 0
        cells[plan.first + N_KEYS] = 0
        cells[plan.first + FREE_FLOW] = 0
        cells[plan.first + N_FLOWS_USED] = 0
