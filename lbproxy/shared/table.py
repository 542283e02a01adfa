"""Where everything stands in the memory that workers share: one table, made from the config.

    header       GENERATION: goes up with each table that follows another
    pools        for each, in order: its lock, then its books (domain/shared/plan.py)
    counters     a column for each worker, and one for those that are gone (shared/columns.py)

The supervisor makes it before it forks. When the config needs more room than there is, it makes another (`grown`) in
other memory and carries everything there while nobody is at the books.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lbproxy.domain.shared.cells import Cells
from lbproxy.domain.shared.plan import Plan, carry
from lbproxy.shared.columns import SEQUENCE_CELLS
from lbproxy.shared.mutex import MUTEX_CELLS

GENERATION: Final = 0
HEADER_CELLS: Final = 8


@dataclass(frozen=True, slots=True)
class PoolRoom:
    """How much there may be of a pool: servers, requests at servers with a limit, tickets that wait."""

    n_servers: int
    n_slots: int
    n_waiting: int


class Table:
    """plans, locks: of each pool, by name; a lock is the number of its first cell. counters: the first cell of them.
    n_counters: in each column. end: how many cells there are."""

    __slots__ = ("counters", "end", "locks", "n_counters", "n_workers", "plans")

    def __init__(self, rooms: Mapping[str, PoolRoom], n_workers: int, n_counters: int) -> None:
        self.n_workers = n_workers
        self.n_counters = n_counters
        self.plans: dict[str, Plan] = {}
        self.locks: dict[str, int] = {}
        at = HEADER_CELLS
        for name, room in rooms.items():
            self.locks[name] = at
            self.plans[name] = plan = Plan(
                at + MUTEX_CELLS,
                n_workers=n_workers,
                n_servers=room.n_servers,
                n_rows=room.n_slots,
                n_places=room.n_waiting,
            )
            at = plan.end
        self.counters = at
        self.end = at + SEQUENCE_CELLS + n_counters * (n_workers + 1)

    def grown(self, rooms: Mapping[str, PoolRoom], n_counters: int = 0) -> Table:
        """A table for these pools, in which those that stay have as much room as now at least. Pools that are not named
        are left out."""
        most = {
            name: PoolRoom(
                max(room.n_servers, old.n_servers), max(room.n_slots, old.n_rows), max(room.n_waiting, old.n_places)
            )
            if (old := self.plans.get(name)) is not None
            else room
            for name, room in rooms.items()
        }
        return Table(most, self.n_workers, max(n_counters, self.n_counters))

    def carry(self, old: Cells, new: Cells, table: Table) -> None:
        """Write everything but the locks, which are made anew, into memory that is laid out by a table that is `grown`.
        Nobody may be at the books or count meanwhile."""
        new[GENERATION] = old[GENERATION] + 1
        for name, plan in self.plans.items():
            if name in table.plans:
                carry(old, plan, new, table.plans[name])
        for column in range(self.n_workers + 1):
            here = table.counters + SEQUENCE_CELLS + column * table.n_counters
            there = self.counters + SEQUENCE_CELLS + column * self.n_counters
            for number in range(self.n_counters):
                new[here + number] = old[there + number]
