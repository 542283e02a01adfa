"""Rate limits: a bucket of tokens for each key, which fills steadily; a request takes one.

What is kept of a bucket is one number, the moment at which it will be full again (GCRA, the generic cell rate
algorithm of ATM): it says how many tokens are in it at any other. A bucket that is full is the same as none.

The buckets of all limits stand in one table of fixed size, in sets of eight. Who needs a place in a set where all are
taken gets that of the fullest bucket, which loses the least: so memory is bounded whatever strangers send, and a key
that is being limited is the last that can be forgotten. Times are whole nanoseconds.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import i64
from lbproxy.domain.shared.cells import Cells, Guard, near

N_SETS: Final = 1 << 14
SET: Final = 8
N_BUCKETS: Final = N_SETS * SET  # 131,072
N_CELLS: Final = N_BUCKETS * 2  # 2 MiB
_SET_CELLS: Final = SET * 2
_MASK: Final = N_SETS - 1
_LATEST: Final = (1 << 63) - 1


class Buckets:
    """See the module. cells: N_CELLS of them from `first` on, 0 at first; a cell has a key's mark, the next one the
    time at which its bucket is full. guard: for where several processes have them, else None.

    Whoever dies inside leaves at most one bucket full.
    """

    __slots__ = ("_cells", "_first", "_guard", "n_forgotten")

    def __init__(self, cells: Cells, first: int = 0, guard: Guard | None = None) -> None:
        self._cells = near(cells)
        self._first: i64 = first
        self._guard = guard
        self.n_forgotten = 0
        """How many buckets were forgotten that were not full, by this process."""

    def take(self, mark: i64, interval: i64, depth: i64, now: i64) -> i64:
        """Take a token. 0: there was one; else after how many nanoseconds there is one.

        mark: stands for limit and key, any number but 0. interval: between two tokens. depth: so long an empty bucket
        takes to be full, at least `interval`. now: monotonic, more than 0.
        """
        guard = self._guard
        if guard is None:
            return self._take(mark, interval, depth, now)
        guard.enter()
        try:
            return self._take(mark, interval, depth, now)
        finally:
            guard.leave()

    def give_back(self, mark: i64, interval: i64) -> None:
        """A token that was taken was not used after all."""
        guard = self._guard
        if guard is not None:
            guard.enter()
        try:
            first: i64 = self._first + (mark & _MASK) * _SET_CELLS
            cells = self._cells
            for at in range(first, first + _SET_CELLS, 2):
                if cells[at] == mark:
                    cells[at + 1] = cells[at + 1] - interval
                    return
        finally:
            if guard is not None:
                guard.leave()

    def _take(self, mark: i64, interval: i64, depth: i64, now: i64) -> i64:
        cells = self._cells
        first: i64 = self._first + (mark & _MASK) * _SET_CELLS
        fullest: i64 = first
        earliest: i64 = _LATEST
        at: i64 = first
        end: i64 = first + _SET_CELLS
        full_at: i64 = 0
        while at < end:
            found: i64 = cells[at]
            full_at = cells[at + 1]
            if found == mark:
                if full_at < now:
                    full_at = now
                elif full_at > now + depth:  # the limit had another depth before
                    full_at = now + depth
                wait: i64 = full_at + interval - depth - now
                if wait > 0:
                    return wait
                cells[at + 1] = full_at + interval
                return 0
            if full_at < earliest:
                earliest = full_at
                fullest = at
            at += 2
        if earliest > now:
            self.n_forgotten += 1
        cells[fullest + 1] = 0  # first: nobody may inherit what another one has used up
        cells[fullest] = mark
        cells[fullest + 1] = now + interval
        return 0


def own_buckets() -> Buckets:
    """For a process that has them to itself. Memory that was never touched is none."""
    return Buckets(memoryview(bytearray(N_CELLS * 8)).cast("q"))
