"""The guard of a worker that has its books to itself lets everybody in; cells are the same, near or far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import pytest

from lbproxy.compiling import address_of
from lbproxy.domain.shared.cells import Cells, Guard, NearCells, near
from lbproxy.shared.segment import Segment

LEAST, MOST = -(1 << 63), (1 << 63) - 1


class Told:
    """Cells that say what is done with them."""

    def __init__(self, n_cells: int) -> None:
        self.cells = [0] * n_cells
        self.said: list[object] = []

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[int]: ...
    def __getitem__(self, at: int | slice) -> int | Sequence[int]:
        self.said.append(at)
        return self.cells[at]

    def __setitem__(self, at: int, value: int) -> None:
        self.said.append((at, value))
        self.cells[at] = value


def test_nobody_is_kept_out() -> None:
    guard = Guard()
    assert not guard.enter() and not guard.enter()
    guard.leave()


@pytest.mark.parametrize("kind", ["memory", "numbers"])
def test_what_is_written_near_is_read_from_afar_and_the_other_way_round(kind: str) -> None:
    cells: Cells = Segment(8).cells if kind == "memory" else [0] * 8
    here, there = near(cells), near(cells)
    for at, value in enumerate((0, 1, -1, LEAST, MOST, LEAST + 1, MOST - 1, 1 << 32)):
        here[at] = value
        assert (cells[at], there[at]) == (value, value)
        cells[at] = 7
        assert here[at] == 7


def test_only_the_cell_that_is_meant_is_written() -> None:
    cells = Segment(5).cells
    near(cells)[2] = -1
    assert list(cells) == [0, 0, -1, 0, 0]


@pytest.mark.parametrize("kind", ["memory", "numbers"])
def test_several_are_added_up(kind: str) -> None:
    cells: Cells = Segment(6).cells if kind == "memory" else [0] * 6
    here = near(cells)
    for at in range(6):
        here[at] = 10**at
    assert [here.total(at, n) for at, n in ((0, 6), (1, 3), (5, 1), (6, 0), (2, 0))] == [111111, 1110, 100000, 0, 0]


@pytest.mark.parametrize("at", [-1, 4, 1 << 40])
def test_memory_that_is_another_s_is_left_alone(at: int) -> None:
    here = near(Segment(4).cells)
    with pytest.raises(IndexError):
        here[at]
    with pytest.raises(IndexError):
        here[at] = 1
    with pytest.raises(IndexError):
        here.total(at, 2)
    with pytest.raises(IndexError):
        here.total(3, 2)


def test_each_access_is_one_of_cells_that_are_no_memory() -> None:
    told = Told(4)
    here = near(told)
    here[1] = 5
    assert (here[1], here.total(0, 3)) == (5, 5)
    assert told.said == [(1, 5), 1, slice(0, 3)]


def test_who_is_near_stays_so() -> None:
    here = near(Segment(2).cells)
    assert near(here) is here
    assert isinstance(here, NearCells)


def test_memory_stays_while_somebody_is_near() -> None:
    here = near(memoryview(bytearray(8 * 1000)).cast("q"))
    kept = [near(memoryview(bytearray(8 * 1000)).cast("q")) for _ in range(20)]
    for number, other in enumerate(kept):
        other[999] = number
    here[999] = -5
    assert [other[999] for other in kept] == list(range(20)) and here[999] == -5


@pytest.mark.parametrize("cells", [[0, 0], memoryview(bytearray(16)), memoryview(b"").cast("q")])
def test_an_address_is_of_cells_of_64_bits_only(cells: object) -> None:
    assert address_of(cells) == (0, 0, None)
