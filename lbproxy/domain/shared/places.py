"""How many clients each worker may have, so that all together never have more than they may.

A worker holds places, some of which nobody sits on yet: it takes several at once, and fewer the fewer there are left,
so that most clients come and go without the lock. One that has none left for somebody who waits says so; whoever has
some to spare gives them up then, and so nobody waits while there is a free place anywhere.

Each worker has four cells:

    HELD    places, those in use among them; changed by the worker under the lock
    USED    clients; written by the worker
    SHORT   1 while somebody waits there and no place is to be had; written by the worker
    ASKED   how many of its idle clients it should send away for others; taken to 0 by it
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lbproxy.compiling import i64
from lbproxy.domain.shared.cells import Cells, Guard

PLACE_CELLS: Final = 4
"""Of each worker."""
MOST_AT_ONCE: Final = 64
_HELD: Final = 0
_USED: Final = 1
_SHORT: Final = 2
_ASKED: Final = 3


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
                held += cells[at + _HELD]
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
        """By all."""
        return sum([self._cells[self._of(worker) + _HELD] for worker in range(self.n_workers)])

    @property
    def n_used(self) -> int:
        """Clients of all."""
        return sum([self._cells[self._of(worker) + _USED] for worker in range(self.n_workers)])

    def used_by(self, worker: int) -> int:
        """Clients of one of them, 0 and up."""
        return self._cells[self._of(worker) + _USED]

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

    def _of(self, worker: int) -> int:
        return int(self._first) + worker * PLACE_CELLS

    def _others(self) -> list[int]:
        return [worker for worker in range(self.n_workers) if worker != self.worker]


def clear_places(cells: Cells, first: int, worker: int, guard: Guard) -> None:
    """The worker is dead: what it held is anybody's."""
    guard.enter()
    try:
        for at in range(first + worker * PLACE_CELLS, first + (worker + 1) * PLACE_CELLS):
            cells[at] = 0
    finally:
        guard.leave()
