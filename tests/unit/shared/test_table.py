"""No two things stand in one cell, and each is found by its name."""

from __future__ import annotations

from lbproxy.domain.shared.cells import Guard
from lbproxy.shared.columns import columns_end
from lbproxy.shared.mutex import MUTEX_CELLS
from lbproxy.shared.table import (
    ENTRY_CELLS,
    HEADER_CELLS,
    LISTENER_GAUGES,
    PROCESS_GAUGES,
    SEAT_WIDTH,
    SERVER_GAUGES,
    Directory,
    PoolRoom,
    Table,
)
from lbproxy.telemetry.slots import LISTENER, POOL, PROCESS, TRAFFIC

ROOMS = [PoolRoom(2, 4, 8), PoolRoom(1, 0, 0)]


def test_no_two_things_stand_in_one_cell() -> None:
    table = Table(ROOMS, n_workers=3, n_listeners=2, n_traffic=4)
    taken = [range(HEADER_CELLS), range(table.directory_lock, table.directory_lock + MUTEX_CELLS)]
    for first, number in ((table.listener_entries, 2), (table.traffic_entries, 4), (table.room_entries, 2)):
        taken += [range(first, first + number * ENTRY_CELLS)]
    for lock, plan in zip(table.locks, table.plans, strict=True):
        taken += [range(lock, lock + MUTEX_CELLS), range(plan.first, plan.end)]
    assert [cell for part in taken for cell in part] == list(range(table.columns))
    assert table.end == columns_end(table.columns, 4, table.n_counters, table.n_gauges)


def test_no_two_rows_stand_in_one_cell_of_a_column() -> None:
    table = Table(ROOMS, n_workers=3, n_listeners=2, n_traffic=4)
    taken = [range(PROCESS.width)]
    taken += [range(at, at + LISTENER.width) for at in map(table.of_listener, range(2))]
    taken += [range(at, at + TRAFFIC.width) for at in map(table.of_traffic, range(4))]
    for room, plan in enumerate(table.plans):
        first = table.pool_counters[room]
        taken += [range(first, first + POOL.width)]
        taken += [range(at, at + SEAT_WIDTH) for at in (table.of_seat(room, seat) for seat in range(plan.n_servers))]
    taken += [range(table.process_gauges, table.process_gauges + PROCESS_GAUGES)]
    taken += [range(at, at + LISTENER_GAUGES) for at in map(table.listener_gauges, range(2))]
    for room, plan in enumerate(table.plans):
        gauges = (table.server_gauges(room, seat) for seat in range(plan.n_servers))
        taken += [range(at, at + SERVER_GAUGES) for at in gauges]
    assert [cell for part in taken for cell in part] == list(range(table.n_counters + table.n_gauges))


def test_an_entry_is_found_by_its_name_in_every_process() -> None:
    cells = [0] * (1 + 2 * ENTRY_CELLS)
    one, other = (Directory(cells, 1, 2, Guard()) for _ in range(2))
    assert (one.find("in", "p"), other.find("inp"), one.find("inp"), other.find("in", "p")) == (0, 1, 1, 0)
    assert one.find("more") == -1
    other.forget(0)
    assert one.find("more", is_free=lambda number: False) == -1
    assert (one.find("more"), one.find("in", "p")) == (0, -1)
    assert cells[0] == 0
