"""Counters of all workers: what each of them has counted, and what those had that are gone.

A worker counts in rows of its own (telemetry/slots.py), which takes half the time of shared cells, and publishes them
now and then, so a worker that is killed takes what it counted since along: a sweep's worth. Each cell has one writer.
What is read never goes down: a dead worker's column is added to that of the gone before a successor publishes, and
whoever reads meanwhile reads again.

Behind the counters of a column stand its gauges, what is now: those of a dead worker are nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

SEQUENCE_CELLS: Final = 1  # odd while somebody folds
_LOOKS: Final = 10
Block = memoryview | list[int]


class Folding(Exception):
    """Somebody adds up what a dead worker counted, and is held up: look again later."""


def columns_end(first: int, n_columns: int, n_cells: int, n_gauges: int = 0) -> int:
    """The first cell behind such columns."""
    return first + SEQUENCE_CELLS + (n_columns + 1) * (n_cells + n_gauges)


class Columns:
    """first: the first cell; n_cells, n_gauges: in each column; n_columns: of those who count; there is one more, for
    the gone. Gauges are numbered from n_cells on."""

    __slots__ = ("_cells", "_first", "_n_cells", "_n_columns", "_sequence", "_width")

    def __init__(self, cells: Block, first: int, n_columns: int, n_cells: int, n_gauges: int = 0) -> None:
        self._cells = cells
        self._sequence = first
        self._first = first + SEQUENCE_CELLS
        self._n_cells = n_cells
        self._n_columns = n_columns
        self._width = n_cells + n_gauges

    def publish(self, column: int, at: int, row: Sequence[int]) -> None:
        """Let others see what this worker has counted. at: the place of the row in the column."""
        start = self._first + column * self._width + at
        self._cells[start : start + len(row)] = array("q", row)

    def total(self, at: int, width: int) -> list[int]:
        """What all counted in the cells of a row. Raises Folding."""
        cells = self._cells
        for _ in range(_LOOKS):
            before = cells[self._sequence]
            if before % 2 == 0:
                found = [sum(values) for values in zip(*self._rows(at, width, self._n_columns + 1), strict=True)]
                if cells[self._sequence] == before:
                    return found
        raise Folding

    @property
    def is_folding(self) -> bool:
        """Would `total` raise, most likely?"""
        return self._cells[self._sequence] % 2 != 0

    def each(self, at: int, width: int) -> list[Sequence[int]]:
        """The cells of a row as each of those who live has them."""
        return self._rows(at, width, self._n_columns)

    def _rows(self, at: int, width: int, n_columns: int) -> list[Sequence[int]]:
        starts = range(self._first + at, self._first + at + n_columns * self._width, self._width)
        return [self._cells[start : start + width] for start in starts]

    def fold(self, column: int) -> None:
        """A worker is dead: what it had counted is that of the gone."""
        cells, n_cells = self._cells, self._n_cells
        start, gone = self._first + column * self._width, self._first + self._n_columns * self._width
        sums = [a + b for a, b in zip(cells[start : start + n_cells], cells[gone : gone + n_cells], strict=True)]
        cells[self._sequence] += 1
        cells[gone : gone + n_cells] = array("q", sums)
        cells[start : start + self._width] = array("q", bytes(8 * self._width))
        cells[self._sequence] += 1

    def clear(self, at: int, width: int) -> None:
        """What was counted here is another thing's from now on; nobody may count there meanwhile."""
        for column in range(self._n_columns + 1):
            start = self._first + column * self._width + at
            self._cells[start : start + width] = array("q", bytes(8 * width))
