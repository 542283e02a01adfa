"""What the shared books of a pool stand in, and who may be at them: numbers in memory that all workers see, and a lock.

Both are given by whoever makes the books (lbproxy/shared has the real ones), so that tests can stand between any two
accesses: let another worker run there, or let this one die.

A request makes some dozens of accesses. By way of objects of Python each would take a hundred instructions and more, so
who is on its path has `NearCells`, which takes a dozen.
"""

from __future__ import annotations

from typing import Any, Protocol

from lbproxy.compiling import address_of, i64, load_cell, mypyc_attr, store_cell


@mypyc_attr(native_class=False)
class Cells(Protocol):
    """Whole numbers of 64 bits, with sign. Each is read and written at once: nobody sees half of one, and one that was
    written stays when the writer dies. All are 0 at first.

    A slice is many of them, each as it was at some moment; mypyc has no overloads to say so."""

    def __getitem__(self, at: int, /) -> int: ...
    def __setitem__(self, at: int, value: int, /) -> None: ...


class NearCells:
    """The same cells, reached by their address where they are memory; else each access is one of `cells`.

    Raises IndexError.
    """

    __slots__ = ("_address", "_cells", "_kept", "_n_cells")

    def __init__(self, cells: Cells) -> None:
        self._cells: Any = cells
        address, n_cells, self._kept = address_of(cells)
        self._address: i64 = address
        self._n_cells: i64 = n_cells

    def __getitem__(self, at: i64, /) -> i64:
        if not self._address:
            found: int = self._cells[at]
            return found
        if at < 0 or at >= self._n_cells:
            raise IndexError("there is no such cell")
        return load_cell(self._address, at)

    def __setitem__(self, at: i64, value: i64, /) -> None:
        if not self._address:
            self._cells[at] = value
            return
        if at < 0 or at >= self._n_cells:
            raise IndexError("there is no such cell")
        store_cell(self._address, at, value)

    def total(self, at: i64, n_cells: i64) -> i64:
        """The sum of so many from `at` on, each as it was at some moment."""
        total: i64 = 0
        end: i64 = at + n_cells
        if not self._address:
            several: list[int] = list(self._cells[at:end])
            for found in several:
                total += found
            return total
        if at < 0 or end > self._n_cells:
            raise IndexError("there are no such cells")
        while at < end:
            total += load_cell(self._address, at)
            at += 1
        return total


def near(cells: Cells) -> NearCells:
    """These cells, for who often reads and writes them."""
    return cells if isinstance(cells, NearCells) else NearCells(cells)


@mypyc_attr(allow_interpreted_subclasses=True)
class Guard:
    """The lock of one pool's books; this one, for a worker that has them to itself, lets everybody in."""

    __slots__ = ()

    def enter(self) -> bool:
        """Wait until nobody else is inside. True: the last who was has died in there, so the books may be torn."""
        return False

    def leave(self) -> None:
        """Let the next one in."""
