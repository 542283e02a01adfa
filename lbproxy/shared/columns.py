"""Counters of all workers: what each of them has counted, and what those had that are gone.

A worker counts in rows of its own (telemetry/slots.py), which takes half the time of shared cells, and publishes them
now and then, so a worker that is killed takes what it counted since along: a sweep's worth. Each cell has one writer.
What is read never goes down: a dead worker's column is added to that of the gone before a successor publishes, and
whoever reads meanwhile reads again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lbproxy.domain.shared.cells import Cells

SEQUENCE_CELLS: Final = 1  # odd while somebody folds
_LOOKS: Final = 1000


class Columns:
    """first: the first cell; n_cells: in each column; n_workers: columns, and one for the gone."""

    __slots__ = ("_cells", "_first", "_n_cells", "_n_workers", "_sequence")

    def __init__(self, cells: Cells, first: int, n_cells: int, n_workers: int) -> None:
        self._cells = cells
        self._sequence = first
        self._first = first + SEQUENCE_CELLS
        self._n_cells = n_cells
        self._n_workers = n_workers

    def publish(self, worker: int, at: int, row: Sequence[int]) -> None:
        """Let others see what this worker has counted. at: the place of the row in the column."""
        cells, start = self._cells, self._first + worker * self._n_cells + at
        for number, value in enumerate(row, start):
            cells[number] = value

    def total(self, at: int, width: int) -> list[int]:
        """What all counted in the cells of a row. Raises RuntimeError if a fold does not end: who did it died."""
        cells = self._cells
        for _ in range(_LOOKS):
            before = cells[self._sequence]
            if before % 2 == 0:
                found = [
                    sum(cells[self._first + column * self._n_cells + number] for column in range(self._n_workers + 1))
                    for number in range(at, at + width)
                ]
                if cells[self._sequence] == before:
                    return found
        raise RuntimeError("the counters of a worker that is gone were not added up to the end")

    def fold(self, worker: int) -> None:
        """A worker is dead: what it had counted is that of the gone."""
        cells = self._cells
        start, gone = self._first + worker * self._n_cells, self._first + self._n_workers * self._n_cells
        cells[self._sequence] += 1
        for number in range(self._n_cells):
            cells[gone + number] += cells[start + number]
            cells[start + number] = 0
        cells[self._sequence] += 1
