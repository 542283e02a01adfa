"""What workers and their controller have in common, and what each of them has of it.

The supervisor makes a `Share` before it forks: memory, locks, a bell for each process, and a seat for each server of
the config. A process takes its `Part` (part.py): pools on the shared books, counters that others see, bells that are
answered.

Room: a pool has seats for twice as many servers as the config names and 64 more (320 where servers are discovered); its
queue may become twice as long; 8 pools may join, and twice as many listeners, routes, splits and rate limits as there
are. Each seat takes 1 KiB, and 0.5 KiB for each process; the buckets of rate limits take
2 MiB, client addresses 1 MiB.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import Final

from lbproxy.config.model import Config
from lbproxy.config.pool_model import Pool as PoolConfig
from lbproxy.control.discovery.discovery import Wanted
from lbproxy.control.file_servers import server_of
from lbproxy.domain.buckets import N_CELLS, Buckets
from lbproxy.domain.shared.addresses import N_ADDRESS_CELLS, Addresses, clear_addresses
from lbproxy.domain.shared.books import CONTROLLER, SharedBooks, bury
from lbproxy.domain.shared.cells import Guard
from lbproxy.domain.shared.orders import write_orders
from lbproxy.domain.shared.places import PLACE_CELLS, Places, clear_places
from lbproxy.domain.shared.plan import OWNER
from lbproxy.domain.shared.seats import card_of
from lbproxy.shared.columns import Columns
from lbproxy.shared.mutex import ALARM_S, MUTEX_CELLS, Mutex, MutexError
from lbproxy.shared.segment import Segment
from lbproxy.shared.table import Directory, PoolRoom, Table

log = logging.getLogger("lbproxy")

SPARE_SEATS: Final = 64
SPARE_SEATS_FOUND: Final = 320
SPARE_POOLS: Final = 8
SPARE_LISTENERS: Final = 16
SPARE_LIMITS: Final = 16
SPARE_ROUTES: Final = 64
SPARE_NAMED: Final = 64
SPARE_SPLITS: Final = 64
LEAST_PLACES: Final = 1024
MOST_ROWS: Final = 65_536  # beyond them a slot is a number only, which is as exact
SPARE_ROWS: Final = 1024
STUCK_ALARMS: Final = round(5.0 / ALARM_S)
# Of who may come in: two locks, the addresses that are here, places.
_PLACES_LOCK: Final = 0
_ADDRESSES_LOCK: Final = MUTEX_CELLS
_ADDRESSES: Final = 2 * MUTEX_CELLS
_PLACES: Final = _ADDRESSES + N_ADDRESS_CELLS


class ShareError(Exception):
    """Several workers can't be had; the text is for the user."""


def room_for(config: PoolConfig) -> PoolRoom:
    """What a pool gets, so that it can grow."""
    n_servers = len(config.servers)
    limits = [spec.max_inflight or config.max_inflight or 0 for spec in config.servers]
    spare = SPARE_SEATS_FOUND if Wanted.of(config).has_sources else SPARE_SEATS
    slots = 2 * (sum(limits) + spare * (config.max_inflight or 0)) + SPARE_ROWS
    return PoolRoom(2 * n_servers + spare, min(slots, MOST_ROWS), max(2 * config.queue.size, LEAST_PLACES))


class Share:
    """See the module. n_workers: 1 to 4095. bells: an eventfd for each worker, and one for the controller.

    Raises ShareError.
    """

    def __init__(self, config: Config, n_workers: int) -> None:
        self.n_workers = n_workers
        rooms = [room_for(pool) for pool in config.pools.values()]
        rooms += [PoolRoom(SPARE_SEATS, SPARE_ROWS, LEAST_PLACES)] * SPARE_POOLS
        n_listeners = 2 * len(config.listeners) + SPARE_LISTENERS
        n_routes = sum(len(route.pools) + 1 for item in config.listeners for route in item.effective_routes())
        n_routes += len(config.listeners)
        routes = [route for item in config.listeners for route in item.routes]
        self.table = table = Table(
            rooms,
            n_workers,
            n_listeners,
            2 * n_routes + SPARE_ROUTES,
            2 * sum(route.name is not None for route in routes) + SPARE_NAMED,
            2 * sum(route.split is not None for route in routes) + SPARE_SPLITS,
            2 * len(config.rate_limits) + SPARE_LIMITS,
        )
        try:
            self.cells = Segment(table.end).cells
            for first in (table.directory_lock, *table.locks):
                Mutex(self.cells, first, lambda: None).create()
            self._buckets = Segment(MUTEX_CELLS + N_CELLS).cells
            Mutex(self._buckets, 0, lambda: None).create()
            self._doors = Segment(_ADDRESSES + N_ADDRESS_CELLS + n_workers * PLACE_CELLS).cells
            for first in (_PLACES_LOCK, _ADDRESSES_LOCK):
                Mutex(self._doors, first, lambda: None).create()
            self.bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(n_workers + 1)]
        except OSError as error:  # SegmentError and MutexError are such
            hint = "" if not isinstance(error, MutexError) else "; `workers: 1` needs none"
            raise ShareError(f"workers: {error}{hint}") from error
        self.directory_guard = self.guard(table.directory_lock, "the names of what is counted")
        self.room_names = Directory(self.cells, table.room_entries, len(rooms), self.directory_guard)
        self.columns = Columns(self.cells, table.columns, n_workers + 1, table.n_counters, table.n_gauges)
        self._seat_all(config)

    def _seat_all(self, config: Config) -> None:
        """Workers that begin before the controller has said anything know the servers of the config."""
        for name, pool in config.pools.items():
            room = self.room_names.find(name)
            books = self.books(room, CONTROLLER)
            for spec in pool.servers:
                if not spec.address.is_literal:
                    continue
                server = server_of(spec, pool)
                books.give_seat(server, card_of(server), write_orders)

    def guard(self, first: int, what: str) -> Guard:
        """The lock whose first cell this is."""
        return self._guard_in(self.cells, first, what)

    @staticmethod
    def _guard_in(cells: memoryview, first: int, what: str) -> Guard:
        return Mutex(cells, first, lambda: log.warning("the lock of %s is held for long: is a worker stopped?", what))

    def _guard_of_room(self, room: int, stuck: Callable[[int], None]) -> Guard:
        """For who can't wait for somebody that was stopped while at the books: `stuck` hears who it is, 0 and up."""
        owner_at = self.table.plans[room].first + OWNER
        n_alarms = 0

        def held_long() -> None:
            nonlocal n_alarms
            n_alarms += 1
            owner = self.cells[owner_at] - 1
            if n_alarms % STUCK_ALARMS == 0 and owner >= 0:
                stuck(owner)

        return Mutex(self.cells, self.table.locks[room], held_long)

    def books(self, room: int, worker: int) -> SharedBooks:
        """The books in a room as this worker has them."""
        table = self.table
        guard = self.guard(table.locks[room], f"the books of pool {room + 1}")
        return SharedBooks(self.cells, table.plans[room], worker, {}, guard, self.ring, is_limited=False)

    def buckets(self) -> Buckets:
        """Those of rate limits, which all workers share."""
        return Buckets(self._buckets, MUTEX_CELLS, self._guard_in(self._buckets, 0, "rate limits"))

    def places(self, worker: int) -> Places:
        """Those of client connections, as this worker has them."""
        guard = self._guard_in(self._doors, _PLACES_LOCK, "limits.connections")
        return Places(self._doors, _PLACES, self.n_workers, worker, guard, self.ring)

    def addresses(self, worker: int) -> Addresses:
        """Those that have connections, as this worker has them."""
        guard = self._guard_in(self._doors, _ADDRESSES_LOCK, "limits.connections_per_ip")
        return Addresses(self._doors, _ADDRESSES, worker, guard)

    def ring(self, number: int) -> None:
        """Wake a worker, or the controller (`n_workers`)."""
        with contextlib.suppress(BlockingIOError):  # it was woken 2**64 - 2 times and will come
            os.eventfd_write(self.bells[number], 1)

    # --- for the supervisor -------------------------------------------------------------------------------------------

    def bury(self, worker: int, stuck: Callable[[int], None]) -> None:
        """Worker 0 and up is dead, and reaped: what it had ends, what it counted stays. Before its successor begins.

        stuck: called with another worker that has been at some books for long and so holds this up: it must die.
        """
        for room, plan in enumerate(self.table.plans):
            bury(self.cells, plan, self._guard_of_room(room, stuck), worker)
        self.columns.fold(worker)
        clear_places(self._doors, _PLACES, worker, self._guard_in(self._doors, _PLACES_LOCK, "limits.connections"))
        guard = self._guard_in(self._doors, _ADDRESSES_LOCK, "limits.connections_per_ip")
        clear_addresses(self._doors, _ADDRESSES, worker, guard)
        for number in range(self.n_workers + 1):
            self.ring(number)

    def bury_controller(self) -> None:
        """The controller is dead, and reaped. What it said holds."""
        self.columns.fold(self.n_workers)
