"""Where everything stands in the memory that workers share: one table, made from the config before they fork.

    asked        how often the controller has asked for counts
    directory    its lock; then for each thing that has counters and for each room whose it is (`Directory`)
    rooms        for each: a lock, then the books of the pool that has it (domain/shared/plan.py)
    splits       of each an entry, and then the shares of each (domain/splitting.py)
    columns      one for each worker, one for the controller, and one for those that are gone (shared/columns.py):
                 counters of the process, of listeners, of traffic, of limits, of rooms and their seats; then gauges

There are more rooms, seats and entries than the config needs, so that pools, servers and listeners can join. What finds
no room is refused, and an upgrade or a restart makes more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lbproxy.domain.shared.cells import Cells, Guard
from lbproxy.domain.shared.plan import Plan
from lbproxy.domain.splitting import MOST_POOLS
from lbproxy.shared.columns import columns_end
from lbproxy.shared.mutex import MUTEX_CELLS
from lbproxy.telemetry.slots import LIMIT, LISTENER, POOL, PROCESS, ROUTE, SERVER, TRAFFIC

ASKED: Final = 0
HEADER_CELLS: Final = 8
ENTRY_CELLS: Final = 2

# Beside the counters of a server: requests that ended there, and errors (domain/server.py).
N_FACTS: Final = 2
# Gauges of the process: bytes in memory; which question was answered last, and 1. Of a listener: connections, and
# requests on those of HTTP/2. Of a server: connections in use and idle; latency (ns), the last progress (monotonic, ns)
# and the shortest service time of late (ns), as one worker saw them; and the moment of its latency (monotonic, ns).
PROCESS_GAUGES: Final = 2
LISTENER_GAUGES: Final = 2
SERVER_GAUGES: Final = 6
SEAT_WIDTH: Final = SERVER.width + N_FACTS


@dataclass(frozen=True, slots=True)
class PoolRoom:
    """How much there may be of a pool: servers, requests at servers with a limit, tickets that wait."""

    n_servers: int
    n_slots: int
    n_waiting: int


class Table:
    """plans: of each room; locks: the first cell of the lock of each. columns, n_counters, n_gauges: see Columns.
    end: how many cells there are.

    n_workers: without the controller. n_listeners, n_traffic, n_routes (with names), n_limits: how many things of these
    kinds may have counters. n_splits: how many splits there may be.
    """

    __slots__ = (
        "columns",
        "directory_lock",
        "end",
        "limit_entries",
        "listener_entries",
        "locks",
        "n_counters",
        "n_gauges",
        "n_limits",
        "n_listeners",
        "n_routes",
        "n_splits",
        "n_traffic",
        "n_workers",
        "plans",
        "pool_counters",
        "room_entries",
        "route_entries",
        "seat_gauges",
        "split_entries",
        "splits",
        "traffic_entries",
    )

    def __init__(
        self,
        rooms: Sequence[PoolRoom],
        n_workers: int,
        n_listeners: int,
        n_traffic: int,
        n_routes: int = 0,
        n_splits: int = 0,
        n_limits: int = 0,
    ) -> None:
        self.n_workers = n_workers
        self.n_limits = n_limits
        self.n_listeners = n_listeners
        self.n_traffic = n_traffic
        self.n_routes = n_routes
        self.n_splits = n_splits
        self.directory_lock = HEADER_CELLS
        self.listener_entries = self.directory_lock + MUTEX_CELLS
        self.traffic_entries = self.listener_entries + n_listeners * ENTRY_CELLS
        self.limit_entries = self.traffic_entries + n_traffic * ENTRY_CELLS
        self.room_entries = self.limit_entries + n_limits * ENTRY_CELLS
        self.route_entries = self.room_entries + len(rooms) * ENTRY_CELLS
        self.split_entries = self.route_entries + n_routes * ENTRY_CELLS
        self.splits = self.split_entries + n_splits * ENTRY_CELLS
        at = self.splits + n_splits * MOST_POOLS
        self.plans: list[Plan] = []
        self.locks: list[int] = []
        self.pool_counters: list[int] = []
        self.seat_gauges: list[int] = []
        counters = PROCESS.width + n_listeners * LISTENER.width + n_traffic * TRAFFIC.width
        counters += n_routes * ROUTE.width + n_limits * LIMIT.width
        for room in rooms:
            self.locks.append(at)
            plan = Plan(
                at + MUTEX_CELLS,
                n_workers=n_workers,
                n_servers=room.n_servers,
                n_rows=room.n_slots,
                n_places=room.n_waiting,
            )
            self.plans.append(plan)
            self.pool_counters.append(counters)
            counters += POOL.width + room.n_servers * SEAT_WIDTH
            at = plan.end
        gauges = counters + PROCESS_GAUGES + n_listeners * LISTENER_GAUGES
        for room in rooms:
            self.seat_gauges.append(gauges)
            gauges += room.n_servers * SERVER_GAUGES
        self.columns = at
        self.n_counters = counters
        self.n_gauges = gauges - counters
        self.end = columns_end(at, n_workers + 1, self.n_counters, self.n_gauges)

    # --- where a row stands in a column ------------------------------------------------------------------------------

    def of_listener(self, entry: int) -> int:
        return PROCESS.width + entry * LISTENER.width

    def of_traffic(self, entry: int) -> int:
        return PROCESS.width + self.n_listeners * LISTENER.width + entry * TRAFFIC.width

    def of_route(self, entry: int) -> int:
        return self.of_traffic(self.n_traffic) + entry * ROUTE.width

    def of_limit(self, entry: int) -> int:
        return self.of_route(self.n_routes) + entry * LIMIT.width

    def split(self, entry: int) -> int:
        """The first of the cells of a split."""
        return self.splits + entry * MOST_POOLS

    def of_seat(self, room: int, seat: int) -> int:
        return self.pool_counters[room] + POOL.width + seat * SEAT_WIDTH

    @property
    def process_gauges(self) -> int:
        return self.n_counters

    def listener_gauges(self, entry: int) -> int:
        return self.n_counters + PROCESS_GAUGES + entry * LISTENER_GAUGES

    def server_gauges(self, room: int, seat: int) -> int:
        return self.seat_gauges[room] + seat * SERVER_GAUGES


class Directory:
    """Which entry is whose, found by what they are called. first: the first cell; n_entries: how many there are.

    Names are not kept, but 128 bits that no two of them have in common.
    """

    __slots__ = ("_cells", "_first", "_guard", "_n_entries")

    def __init__(self, cells: Cells, first: int, n_entries: int, guard: Guard) -> None:
        self._cells = cells
        self._first = first
        self._n_entries = n_entries
        self._guard = guard

    def find(
        self,
        *name: str,
        is_free: Callable[[int], bool] = lambda number: True,
    ) -> int:
        """The entry of that name, which is its own from now on; -1 if all are taken.

        is_free: may another have it?
        """
        mark = _mark(name)
        cells, free = self._cells, -1
        self._guard.enter()
        try:
            for number in range(self._n_entries):
                at = self._first + number * ENTRY_CELLS
                found = cells[at], cells[at + 1]
                if found == mark:
                    return number
                if free < 0 and found == (0, 0) and is_free(number):
                    free = number
            if free >= 0:
                at = self._first + free * ENTRY_CELLS
                cells[at], cells[at + 1] = mark
            return free
        finally:
            self._guard.leave()

    def forget(self, number: int) -> None:
        """Nobody has this entry any more."""
        at = self._first + number * ENTRY_CELLS
        self._guard.enter()
        self._cells[at] = self._cells[at + 1] = 0
        self._guard.leave()


def _mark(name: Sequence[str]) -> tuple[int, int]:
    digest = hashlib.blake2b("\0".join(name).encode("utf-8", "surrogateescape"), digest_size=16).digest()
    halves = int.from_bytes(digest[:8], "little", signed=True), int.from_bytes(digest[8:], "little", signed=True)
    return halves[0] | 1, halves[1]
