"""How many clients each worker may have, so that all together never have more than they may.

A worker holds places, some of which nobody sits on yet: it takes several at once, and fewer the fewer there are left,
so that most clients come and go without the lock. One that has none left for somebody who waits says so; whoever has
some to spare gives them up then, and so nobody waits while there is a free place anywhere.

The kernel spreads connections by their addresses, so of few connections one worker may have many more than the others.
A worker that has clearly more than its share hands a new one to the worker with the fewest, and a place with it.

Each worker has five cells:

    HELD    places, those in use among them; changed by the worker under the lock
    USED    clients; written by the worker
    SHORT   1 while somebody waits there and no place is to be had; written by the worker
    ASKED   how many of its idle clients it should send away for others; taken to 0 by it
    COMING  places that are on their way to it with a connection; changed under the lock, and not cleared when it dies,
            as the connection waits for its successor
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lbproxy.compiling import i64
from lbproxy.domain.shared.cells import Cells, Guard

PLACE_CELLS: Final = 5
"""Of each worker."""
MOST_AT_ONCE: Final = 64
_HELD: Final = 0
_USED: Final = 1
_SHORT: Final = 2
_ASKED: Final = 3
_COMING: Final = 4
UNEVEN_PERCENT: Final = 125  # of the mean: who would have more hands over


class Places:
    """See the module. cells: PLACE_CELLS for each worker, from `first` on. worker: 0 and up. ring: wakes a worker.

    Whoever dies at them leaves them whole: each change is one cell.
    """

    __slots__ = ("_cells", "_first", "_guard", "_next", "_own", "_ring", "n_workers", "worker")

    def __init__(
        self, cells: Cells, first: int, n_workers: int, worker: int, guard: Guard, ring: Callable[[int], None]
    ) -> None:
        self._cells = cells
        self._first: i64 = first
        self._own: i64 = first + worker * PLACE_CELLS
        self._guard = guard
        self._ring = ring
        self._next = worker  # who was asked last
        self.n_workers = n_workers
        self.worker = worker

    # --- of this worker ---------------------------------------------------------------------------------------------

    def take(self, whole: int, most: int, *, is_waited_for: bool) -> int:
        """Get places, as many as is good for all; 0 if none is left.

        whole: of all workers together. most: that this one can use. is_waited_for: there is somebody for the first; the
        others hear of it if there is none.
        """
        cells, own, first = self._cells, self._own, self._first
        self._guard.enter()
        try:
            held: i64 = 0
            used: i64 = 0
            for at in range(first, first + self.n_workers * PLACE_CELLS, PLACE_CELLS):
                held += cells[at + _HELD] + cells[at + _COMING]
                used += cells[at + _USED]
            free = whole - int(held)
            got = min(most, free, max(1, min(MOST_AT_ONCE, free // (2 * self.n_workers))))
            if got > 0:
                cells[own + _HELD] = cells[own + _HELD] + got
                cells[own + _SHORT] = 0
                return int(got)
        finally:
            self._guard.leave()
        if is_waited_for and (used < whole or not cells[own + _SHORT]):
            cells[own + _SHORT] = 1
            for worker in self._others():
                self._ring(worker)
        return 0

    def give(self, count: int) -> None:
        """Places that this worker does not use are anybody's. count: 1 and up."""
        cells, own = self._cells, self._own
        self._guard.enter()
        try:
            cells[own + _HELD] = cells[own + _HELD] - count
        finally:
            self._guard.leave()
        for worker in self._others():
            if cells[self._of(worker) + _SHORT]:
                self._ring(worker)

    @property
    def is_short(self) -> bool:
        """Does somebody wait here?"""
        return self._cells[self._own + _SHORT] != 0

    def content(self) -> None:
        """Whoever waits here can come in."""
        self._cells[self._own + _SHORT] = 0

    def use(self, count: int) -> None:
        """So many clients are here."""
        self._cells[self._own + _USED] = count

    def asked(self) -> int:
        """How many idle clients should make way for somebody at another worker; each is told of once."""
        cells, at = self._cells, self._own + _ASKED
        if not cells[at]:
            return 0
        self._guard.enter()
        try:
            found = cells[at]
            cells[at] = 0
        finally:
            self._guard.leave()
        return found

    # --- of all -----------------------------------------------------------------------------------------------------

    @property
    def is_wanted(self) -> bool:
        """Does somebody wait at another worker, which has no place?"""
        cells = self._cells
        at: i64 = self._first + _SHORT
        end: i64 = at + self.n_workers * PLACE_CELLS
        while at < end:
            if cells[at] and at != self._own + _SHORT:
                return True
            at += PLACE_CELLS
        return False

    @property
    def n_held(self) -> int:
        """By all, and by those that are on their way."""
        cells, starts = self._cells, [self._of(worker) for worker in range(self.n_workers)]
        return sum([cells[at + _HELD] + cells[at + _COMING] for at in starts])

    @property
    def n_used(self) -> int:
        """Clients of all."""
        return sum([self._cells[self._of(worker) + _USED] for worker in range(self.n_workers)])

    def ask_another(self) -> None:
        """Nobody here can make way: have another worker look, each in its turn."""
        cells = self._cells
        others = [worker for worker in self._others() if cells[self._of(worker) + _USED]]
        if not others:
            return
        self._next = min(others, key=lambda worker: (worker <= self._next, worker))
        at = self._of(self._next) + _ASKED
        self._guard.enter()
        try:
            cells[at] = min(cells[at] + 1, MOST_AT_ONCE)
        finally:
            self._guard.leave()
        self._ring(self._next)

    # --- handing over -----------------------------------------------------------------------------------------------

    def lightest(self) -> int:
        """Which worker should have the next connection instead of this one; -1: none."""
        cells = self._cells
        own: i64 = cells[self._own + _USED]
        if own < 2:
            return -1
        least: i64 = own
        total: i64 = 0
        found: i64 = -1
        for number in range(self.n_workers):
            used: i64 = cells[self._first + number * PLACE_CELLS + _USED]
            total += used
            if used < least:
                least = used
                found = number
        if own - least < 2 or (own + 1) * self.n_workers * 100 <= (total + 1) * UNEVEN_PERCENT:
            return -1
        return int(found)

    def send(self, worker: int, count: int) -> None:
        """A place goes to another worker with a connection (count: 1), or comes back (-1)."""
        cells, at = self._cells, self._of(worker) + _COMING
        self._guard.enter()
        try:
            cells[self._own + _HELD] = cells[self._own + _HELD] - count
            cells[at] = max(0, cells[at] + count)
        finally:
            self._guard.leave()

    def receive(self) -> None:
        """One has come."""
        cells, at = self._cells, self._own + _COMING
        self._guard.enter()
        try:
            cells[self._own + _HELD] = cells[self._own + _HELD] + 1
            cells[at] = max(0, cells[at] - 1)
        finally:
            self._guard.leave()

    @property
    def n_coming(self) -> int:
        return self._cells[self._own + _COMING]

    def forget_coming(self, count: int) -> None:
        """So many do not come: who sent them died before it did."""
        cells, at = self._cells, self._own + _COMING
        self._guard.enter()
        try:
            cells[at] = max(0, cells[at] - count)
        finally:
            self._guard.leave()

    def _of(self, worker: int) -> int:
        return int(self._first) + worker * PLACE_CELLS

    def _others(self) -> list[int]:
        return [worker for worker in range(self.n_workers) if worker != self.worker]


def clear_places(cells: Cells, first: int, worker: int, guard: Guard) -> None:
    """The worker is dead: what it held is anybody's."""
    guard.enter()
    try:
        for cell in (_HELD, _USED, _SHORT, _ASKED):
            cells[first + worker * PLACE_CELLS + cell] = 0
    finally:
        guard.leave()
