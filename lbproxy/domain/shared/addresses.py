"""How many connections each client address has, over all workers.

What stands in the table for an address is, for each worker that has connections of it, an entry of two cells: a mark
that stands for listener and address, and the worker with its count. Entries stand in sets of 16. In a set that is full
a worker's count of one more address is not seen by the others: that address may then have as many connections at each
worker as it may have in all. Sets are chosen by hashes that have a secret, so nobody can fill one on purpose, and there
are several times as many entries as connections usually are.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import i64
from lbproxy.domain.shared.cells import Cells, Guard, near

N_SETS: Final = 1 << 12
SET: Final = 16
N_ADDRESS_CELLS: Final = N_SETS * SET * 2  # 1 MiB
_SET_CELLS: Final = SET * 2
_MASK: Final = N_SETS - 1
_WORKER: Final = 1 << 32
"""An entry's second cell is the worker's number, 1 and up, times this, and its count; 0: the entry is free."""


class Addresses:
    """See the module; as one worker has it. cells: N_ADDRESS_CELLS of them, from `first` on. worker: 0 and up.

    Whoever dies here leaves nothing torn: an entry counts from when its second cell is written.
    """

    __slots__ = ("_cells", "_counts", "_first", "_guard", "_worker")

    def __init__(self, cells: Cells, first: int, worker: int, guard: Guard) -> None:
        self._cells = near(cells)
        self._first: i64 = first
        self._worker: i64 = worker + 1
        self._guard = guard
        self._counts: dict[int, int] = {}

    def change(self, mark: int, by: int) -> int:
        """So many connections more here, or less; how many all workers have then. mark: not 0."""
        count = self._counts.get(mark, 0) + by
        if count:
            self._counts[mark] = count
        else:
            self._counts.pop(mark, None)
        self._guard.enter()
        try:
            return self._put(mark, count)
        finally:
            self._guard.leave()

    def _put(self, mark: i64, count: int) -> int:
        cells, worker = self._cells, self._worker
        first: i64 = self._first + (mark & _MASK) * _SET_CELLS
        total = count
        free: i64 = -1
        own: i64 = -1
        for at in range(first, first + _SET_CELLS, 2):
            entry: i64 = cells[at + 1]
            if not entry:
                if free < 0:
                    free = at
            elif cells[at] == mark:
                if entry // _WORKER == worker:
                    own = at
                else:
                    total += int(entry % _WORKER)
        if own < 0 and count:
            own = free
        if own >= 0:
            if count:
                cells[own] = mark
                cells[own + 1] = worker * _WORKER + count
            else:
                cells[own + 1] = 0
        return total


def clear_addresses(cells: Cells, first: int, worker: int, guard: Guard) -> None:
    """The worker is dead, and so are its connections."""
    guard.enter()
    try:
        for at in range(first + 1, first + N_ADDRESS_CELLS, 2):
            if cells[at] // _WORKER == worker + 1:
                cells[at] = 0
    finally:
        guard.leave()
