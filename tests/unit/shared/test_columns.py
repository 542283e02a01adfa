"""Counters of all workers never go down, whoever dies."""

from __future__ import annotations

from typing import Any

from lbproxy.shared.columns import SEQUENCE_CELLS, Columns, Folding, columns_end


def make() -> tuple[Columns, list[int]]:
    cells = [0] * (2 + SEQUENCE_CELLS + 3 * 4)
    return Columns(cells, 2, 2, 4), cells


def test_what_all_have_counted() -> None:
    columns, _ = make()
    columns.publish(0, 0, [1, 2])
    columns.publish(1, 1, [10, 20, 30])
    assert columns.total(0, 4) == [1, 12, 20, 30]
    columns.publish(0, 0, [5, 2])
    assert columns.total(0, 2) == [5, 12]


def test_what_a_dead_worker_counted_stays_when_its_successor_begins_at_0() -> None:
    columns, _ = make()
    columns.publish(1, 0, [1, 2, 3, 4])
    for _ in range(2):  # somebody clears up twice
        columns.fold(1)
    assert columns.total(0, 4) == [1, 2, 3, 4]
    columns.publish(1, 0, [0, 0, 0, 1])
    assert columns.total(0, 4) == [1, 2, 3, 5]


def test_nobody_reads_what_is_half_folded() -> None:
    class Seen(list[int]):
        """Reads all at each step of who writes."""

        def __setitem__(self, at: Any, value: Any) -> None:
            super().__setitem__(at, value)
            try:
                assert columns.is_folding == (cells[0] == 1)
                totals.append(columns.total(0, 4))
            except Folding:
                n_folding.append(1)

    totals: list[list[int]] = []
    n_folding: list[int] = []
    cells = Seen([0] * (SEQUENCE_CELLS + 3 * 4))
    columns = Columns(cells, 0, 2, 4)
    columns.publish(0, 0, [1, 2, 3, 4])
    before = len(totals)
    columns.fold(0)
    assert totals[before:] == [[1, 2, 3, 4]]  # at its end
    assert len(n_folding) == 3


def test_gauges_are_those_of_the_living() -> None:
    cells = [0] * columns_end(1, n_columns=2, n_cells=3, n_gauges=2)
    columns = Columns(cells, 1, 2, 3, 2)
    for column in range(2):
        columns.publish(column, 0, [1, 1, 1])
        columns.publish(column, 3, [5, 6 + column])
    assert [list(each) for each in columns.each(3, 2)] == [[5, 6], [5, 7]]
    columns.fold(1)
    assert [list(each) for each in columns.each(3, 2)] == [[5, 6], [0, 0]]
    assert columns.total(0, 3) == [2, 2, 2]


def test_what_becomes_another_s_begins_at_0() -> None:
    columns, _ = make()
    for column in range(2):
        columns.publish(column, 0, [1, 2, 3, 4])
    columns.fold(1)
    columns.clear(1, 2)
    assert columns.total(0, 4) == [2, 0, 0, 8]
