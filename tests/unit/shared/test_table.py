"""No two things stand in one cell, and all that must be found again is, when there is more room."""

from __future__ import annotations

from lbproxy.domain.shared.line import Line
from lbproxy.shared.columns import SEQUENCE_CELLS, Columns
from lbproxy.shared.mutex import MUTEX_CELLS
from lbproxy.shared.table import GENERATION, HEADER_CELLS, PoolRoom, Table
from tests.support.shared_world import places

ROOMS = {"a": PoolRoom(2, 4, 8), "b": PoolRoom(1, 0, 0)}


def columns(cells: list[int], table: Table) -> Columns:
    return Columns(cells, table.counters, table.n_counters, table.n_workers)


def test_no_two_things_stand_in_one_cell() -> None:
    table = Table(ROOMS, n_workers=3, n_counters=5)
    taken = [range(HEADER_CELLS)]
    for name in ROOMS:
        taken += [range(table.locks[name], table.locks[name] + MUTEX_CELLS)]
        taken += [range(table.plans[name].first, table.plans[name].end)]
    taken += [range(table.counters, table.counters + SEQUENCE_CELLS + 4 * 5)]
    assert [cell for part in taken for cell in part] == list(range(table.end))
    assert GENERATION < HEADER_CELLS


def test_a_table_grows_and_never_shrinks_what_stays() -> None:
    table = Table(ROOMS, n_workers=3, n_counters=5)
    grown = table.grown({"c": PoolRoom(1, 1, 1), "a": PoolRoom(1, 9, 2)}, n_counters=2)
    plan = grown.plans["a"]
    assert (plan.n_servers, plan.n_rows, plan.n_places) == (2, 9, 8)
    assert (list(grown.plans), grown.n_counters, grown.n_workers) == (["c", "a"], 5, 3)


def test_what_stands_in_it_is_carried_and_locks_are_not() -> None:
    table = Table(ROOMS, n_workers=2, n_counters=3)
    old = list(range(1000, 1000 + table.locks["a"])) + [0] * (table.end - table.locks["a"])
    old[table.locks["a"]] = 77
    Line(old, table.plans["a"]).join(1, 5, 0, 100)
    columns(old, table).publish(1, 1, [4, 6])
    columns(old, table).fold(0)
    grown = table.grown({"b": ROOMS["b"], "a": PoolRoom(3, 5, 9), "c": PoolRoom(1, 1, 1)}, n_counters=8)
    new = [0] * grown.end
    table.carry(old, new, grown)
    assert new[GENERATION] == old[GENERATION] + 1
    assert places(new, grown.plans["a"]) == [(1, 5)]
    assert columns(new, grown).total(0, 8) == [0, 4, 6, 0, 0, 0, 0, 0]
    assert not any(new[grown.locks["a"] : grown.locks["a"] + MUTEX_CELLS])
