"""What one process has of what workers share: a worker, or the controller.

A worker's pools give slots by the shared books; those of the controller say who the members are (OverseenPool). Both
publish what they count, and the controller shows the sum of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from math import inf
from typing import Final, Protocol

from lbproxy.config.pool_model import Pool as PoolConfig
from lbproxy.config.problems import Unusable
from lbproxy.control.metrics import Reader, Registry
from lbproxy.dataplane.net.poller import EDGE, READABLE, Pollable, Poller
from lbproxy.dataplane.runtime import PoolRuntime, ServerRuntime
from lbproxy.domain.pool import Pool
from lbproxy.domain.retry import RetryBudget
from lbproxy.domain.reuse import NO_LIMIT
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import CONTROLLER, SharedBooks
from lbproxy.domain.shared.budget import SharedBudget
from lbproxy.domain.shared.cells import Cells
from lbproxy.domain.shared.overseen import OverseenPool
from lbproxy.domain.shared.plan import CROWDED, MAIL_WORDS, N_WAITING, USES_POOL
from lbproxy.domain.shared.pool import Seating, SharedPool
from lbproxy.domain.shared.waiting import SharedQueue
from lbproxy.domain.splitting import MOST_POOLS
from lbproxy.errors import CONNECT_REFUSED, Fault
from lbproxy.process.settings import fair_rules
from lbproxy.process.workers.news import DialFailed, Learned
from lbproxy.process.workers.share import Share
from lbproxy.process.workers.shares import part_of
from lbproxy.shared.columns import Folding
from lbproxy.shared.table import ASKED, N_FACTS, SEAT_WIDTH, SERVER_GAUGES, Directory
from lbproxy.telemetry.slots import LIMIT, LISTENER, POOL, PROCESS, ROUTE, SERVER, TRAFFIC, Layout, Row

INHERITED_S: Final = 10.0
"""So long a controller that begins may take to find the servers that the one before had found."""
LOOK_S: Final = 1.0
GROWN: Final = 1.05
"""A learned time grows by itself by less than this until it is told again."""

LISTEN_S: Final = 0.5
_FASTEST: Final = 4  # among the gauges of a server

Labels = tuple[str, ...]


class Ears(Protocol):
    """Who hears what the data plane saw of servers (process/controller.py)."""

    def server_refused(self, pool: Pool, server: Server) -> None: ...

    def connect_failed(self, pool: Pool, server: Server) -> None: ...


class Bell(Pollable):
    """A worker's, on the poller of its connections: what a grant sends leaves before the loop goes on. A bell that is
    watched for changes need not be read, since each ring is one."""

    def __init__(self, answer: Callable[[], None]) -> None:
        self._answer = answer

    def ready(self, events: int) -> None:
        """See Pollable."""
        self._answer()

    def crashed(self, error: Exception) -> None:
        """See Pollable. The next ring is answered all the same."""


class Part:
    """See the module. number: of a worker, 0 and up; as many as there are workers: the controller.

    send: tells the controller something (news.py). connections, streams: how many clients each listener has, and
    their requests of HTTP/2. buffered: bytes. rung: called when somebody has rung. clock: monotonic seconds.
    """

    def __init__(self, share: Share, number: int, clock: Callable[[], float]) -> None:
        self._share = share
        self._number = number
        self._clock = clock
        self.is_controller = number == share.n_workers
        self.send: Callable[[object], None] = lambda message: None
        self.connections: Callable[[], Iterable[tuple[Labels, float]]] = tuple
        self.streams: Callable[[], Iterable[tuple[Labels, float]]] = tuple
        self.buffered: Callable[[], int] = lambda: 0
        self._rooms: dict[str, int] = {}
        self._books: dict[str, SharedBooks] = {}
        self._pools: Mapping[str, PoolRuntime] = {}
        self._registry = Registry("")
        self._seating = Seating()
        table = share.table
        self._listeners = Directory(share.cells, table.listener_entries, table.n_listeners, share.directory_guard)
        self._traffic = Directory(share.cells, table.traffic_entries, table.n_traffic, share.directory_guard)
        self._routes = Directory(share.cells, table.route_entries, table.n_routes, share.directory_guard)
        self._splits = Directory(share.cells, table.split_entries, table.n_splits, share.directory_guard)
        self._split_entries: dict[Labels, int] = {}
        self._limits = Directory(share.cells, table.limit_entries, table.n_limits, share.directory_guard)
        self.buckets = share.buckets()
        self.places = None if self.is_controller else share.places(number)
        self.addresses = None if self.is_controller else share.addresses(number)
        self.rung: Callable[[], None] = lambda: None
        self._places: dict[tuple[Layout, Labels], int] = {}
        self._learned: dict[Server, tuple[float, int]] = {}  # as this worker has told it, or was told
        self._told = 0  # which question was answered last
        self._answered = asyncio.Event()
        self._inherited_until = inf
        self._listens_at = 0.0

    def wire(self, pools: Mapping[str, PoolRuntime], registry: Registry, seating: Seating) -> None:
        """pools: by name, those that there are at any time. registry: has the rows of this process."""
        self._pools = pools
        self._registry = registry
        self._seating = seating
        if self.is_controller:
            registry.look = self.count
            registry.processes = self._processes
            registry.readers |= self._readers()

    def share_of(self, whole: int) -> int:
        """What this process may have of a number that is divided; at least 1. The controller divides nothing."""
        return whole if self.is_controller else max(1, part_of(whole, self._number, self._share.n_workers))

    # --- pools --------------------------------------------------------------------------------------------------------

    def new_pool(self, make: Callable[[type[SharedPool]], SharedPool], name: str, config: PoolConfig) -> SharedPool:
        """A pool on the books of its name. make: with a class, it makes the pool without books. Raises Unusable."""
        share = self._share
        pool = make(OverseenPool if self.is_controller else SharedPool)
        room = share.room_names.find(name, is_free=self._is_room_free)
        if room < 0:
            raise Unusable(
                ("pools", name), "there is no room for one more pool; an upgrade (lbproxy upgrade) makes more"
            )
        self._rooms[name] = room
        self.check_room(name, config)
        books = self._books[name] = share.books(room, CONTROLLER if self.is_controller else self._number)
        if not self.is_controller:
            books.set_worker_word(USES_POOL, 1)
        queue = config.queue
        shared_queue = SharedQueue(books, queue.size, queue.timeout, queue.order, fair_rules(queue))
        pool.share(books, shared_queue, self._seating)
        return pool

    def _is_room_free(self, room: int) -> bool:
        plan, cells = self._share.table.plans[room], self._share.cells
        return not any(cells[plan.worker(worker) + USES_POOL] for worker in range(self._share.n_workers))

    def check_room(self, name: str, config: PoolConfig) -> None:
        """Raises Unusable if the pool wants more than there is."""
        most = self._share.table.plans[self._rooms[name]].n_places
        if config.queue.size > most:
            raise Unusable(
                ("pools", name, "queue", "size"),
                f"{most} is the most until an upgrade (lbproxy upgrade), which makes more room",
            )

    def budget(self, name: str, ratio: float, min_: int) -> RetryBudget:
        """Of retries, of all workers together."""
        return RetryBudget(ratio, min_) if self.is_controller else SharedBudget(self._books[name], ratio, min_)

    def begin(self, pool: SharedPool) -> None:
        """It is wired: a worker takes up who has a seat, a new controller finds out who had one."""
        if isinstance(pool, OverseenPool):
            pool.inherit()
            self._inherited_until = self._clock() + INHERITED_S
        else:
            pool.begin()

    def drop_pool(self, name: str) -> None:
        """It is no more, here."""
        room, books = self._rooms.pop(name), self._books.pop(name)
        if self.is_controller:
            self._share.columns.clear(self._share.table.pool_counters[room], POOL.width)
            self._share.room_names.forget(room)
        else:
            books.set_worker_word(USES_POOL, 0)

    def clear_seat(self, name: str, seat: int) -> None:
        """Another server is about to have it."""
        table, columns, room = self._share.table, self._share.columns, self._rooms[name]
        columns.clear(table.of_seat(room, seat), SEAT_WIDTH)
        columns.clear(table.server_gauges(room, seat), SERVER_GAUGES)

    def is_done_with(self, pool: str, server: Server) -> bool:
        """May one that left be forgotten, with nothing in flight here?"""
        if not self.is_controller:
            return True
        return not self._books[pool].is_known_to_others(server) and not self._share.columns.is_folding

    def let_go(self, runtime: PoolRuntime, server: Server, row: Row, now: float) -> None:
        """A server that left is forgotten. In the controller, its row has what all counted from now on."""
        books = self._books.get(runtime.name)
        if books is None:
            return
        seat = books.seat_of(server)
        self._learned.pop(server, None)
        if seat < 0:
            return
        place = self._share.table.of_seat(self._rooms[runtime.name], seat)
        if self.is_controller:
            self._publish_server(runtime, server, runtime.servers.get(server), row)
            with contextlib.suppress(Folding):  # its pool is no more, and so are its counts
                row[:] = self._share.columns.total(place, SERVER.width)
            self._share.columns.publish(self._number, place, [0] * SEAT_WIDTH)
        else:
            self._share.columns.publish(self._number, place, [*row, server.requests, server.errors])
        books.let_go(server, now)

    # --- splits -------------------------------------------------------------------------------------------------------

    def split_cells(self, name: Labels) -> tuple[Cells, int]:
        """The cells of the split of this name, and the first of them. Raises LookupError if there is no more room."""
        entry = self._splits.find(*name)
        if entry < 0:
            raise LookupError("there is no room for one more split; an upgrade (lbproxy upgrade) makes more")
        self._split_entries[name] = entry
        return self._share.cells, self._share.table.split(entry)

    def keep_splits(self, names: Set[Labels]) -> None:
        """There are no others any more; their room is free for those to come."""
        for name in [name for name in self._split_entries if name not in names]:
            entry = self._split_entries.pop(name)
            if self.is_controller:
                first = self._share.table.split(entry)
                for number in range(MOST_POOLS):
                    self._share.cells[first + number] = 0
                self._splits.forget(entry)

    # --- bells --------------------------------------------------------------------------------------------------------

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear in the controller when somebody rings."""
        loop.add_reader(self._share.bells[self._number], self._hear)

    def detach(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._share.bells[self._number])

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._share.bells[self._number])
        self._answered.set()

    def watch_bell(self, poller: Poller) -> None:
        """Come in a worker when somebody rings, or has rung before."""
        poller.watch(self._share.bells[self._number], READABLE | EDGE, Bell(self._answer))

    def forget_bell(self, poller: Poller) -> None:
        poller.forget(self._share.bells[self._number])

    def _answer(self) -> None:
        now = self._clock()
        for name, runtime in tuple(self._pools.items()):
            pool = runtime.pool
            if not isinstance(pool, SharedPool):
                continue
            if self._has_post(name):
                pool.collect(now)
            else:
                pool.notice(now)
        self.rung()
        asked = self._share.cells[ASKED]
        if asked != self._told:
            self._told = asked
            self._publish()
            self._share.ring(self._share.n_workers)

    def _has_post(self, name: str) -> bool:
        """Is there a grant for this worker in a pool, or a place that it lost, or does anybody wait? Looks from outside
        of the guard: whoever rings has written before."""
        cells, plan = self._share.cells, self._share.table.plans[self._rooms[name]]
        return (
            cells[plan.mail + MAIL_WORDS * self._number] != 0
            or cells[plan.first + N_WAITING] != 0
            or cells[plan.worker(self._number) + CROWDED] != 0
        )

    # --- what the controller must know --------------------------------------------------------------------------------

    def dial_failed(self, pool: Pool, server: Server, fault: Fault) -> None:
        """A worker could not connect to a server."""
        is_refused = fault is CONNECT_REFUSED
        if is_refused:
            pool.server_refused(server, self._clock())
        self.send(DialFailed(pool.name, server.name, is_refused))

    def heard(self, message: object, ears: Ears) -> None:
        """A worker has told something."""
        if not isinstance(message, DialFailed | Learned):
            return
        runtime = self._pools.get(message.pool)
        if runtime is None:
            return
        for server in runtime.pool.servers:
            if server.name != message.server:
                continue
            if isinstance(message, Learned):
                server.idle_timeout.told(message.idle_timeout_s)
                server.reuse.limit = message.most_requests
            elif message.is_refused:
                ears.server_refused(runtime.pool, server)
            else:
                ears.connect_failed(runtime.pool, server)

    def _tell_learned(self, runtime: PoolRuntime, server: Server, item: ServerRuntime, now: float) -> None:
        learned = server.idle_timeout.learned_s, server.reuse.limit
        if learned != self._learned.get(server, (0.0, NO_LIMIT)):
            self._learned[server] = learned
            told_s, told_limit = self._books[runtime.name].learned(server)
            is_close = told_s > 0.0 and told_s / GROWN <= learned[0] <= told_s * GROWN
            if learned[1] != told_limit or not (is_close or learned[0] == told_s):
                self.send(Learned(runtime.name, server.name, *learned))
        item.follow_learned(now)

    # --- a few times a second -----------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Let others see what this process counts; after `Wiring.sweep`."""
        if self.is_controller:
            if now >= self._inherited_until:
                self._inherited_until = inf
                for runtime in self._pools.values():
                    if isinstance(runtime.pool, OverseenPool):
                        runtime.pool.drop_inherited(now)
            self.count()
            return
        self._publish()
        for runtime in self._pools.values():
            for server, item in runtime.servers.items():
                if server in self._books[runtime.name].seats:
                    self._tell_learned(runtime, server, item, now)
        if now >= self._listens_at:
            self._listens_at = now + LISTEN_S
            self._hear_of_others()

    def _hear_of_others(self) -> None:
        """How fast servers are, as other workers saw it."""
        columns, table = self._share.columns, self._share.table
        for runtime in self._pools.values():
            room, books = self._rooms[runtime.name], self._books[runtime.name]
            for server in runtime.servers:
                seat = books.seat_of(server)
                if seat >= 0:
                    seen = columns.each(table.server_gauges(room, seat) + _FASTEST, 1)
                    others = [row[0] for number, row in enumerate(seen) if number != self._number and row[0]]
                    server.fastest_elsewhere_s = min(others, default=0) / 1e9

    def _publish(self) -> None:
        columns, table = self._share.columns, self._share.table
        for _, _, place, row in self._rows():
            columns.publish(self._number, place, row)
        asked = self._share.cells[ASKED]
        columns.publish(self._number, table.process_gauges, [self.buffered()])
        for offset, values in enumerate((self.connections(), self.streams())):
            for labels, number in values:
                entry = self._listeners.find(*labels)
                if entry >= 0:
                    columns.publish(self._number, table.listener_gauges(entry) + offset, [int(number)])
        for runtime in self._pools.values():
            for server, item in runtime.servers.items():
                self._publish_server(runtime, server, item, item.row)
        columns.publish(self._number, table.process_gauges + 1, [asked + 1])

    def _publish_server(self, runtime: PoolRuntime, server: Server, item: ServerRuntime | None, row: Row) -> None:
        columns, table = self._share.columns, self._share.table
        books, room = self._books[runtime.name], self._rooms[runtime.name]
        seat = books.seat_of(server)
        if seat < 0:
            return
        if self.is_controller:  # whose servers only show what others did
            columns.publish(self._number, table.of_seat(room, seat), row)
            return
        columns.publish(self._number, table.of_seat(room, seat), [*row, server.requests, server.errors])
        if item is not None:
            latency_ns, answered_ns = int(server.latency_s * 1e9), int(server.latency_at * 1e9)
            progress_ns = int(server.progress_at * 1e9) if server.progress_at > -inf else 0
            fastest_ns = int(server.service_min_s * 1e9)
            gauges = [item.n_active, item.n_idle, latency_ns, progress_ns, fastest_ns, answered_ns]
            columns.publish(self._number, table.server_gauges(room, seat), gauges)

    def _rows(self) -> Iterator[tuple[Layout, Labels, int, Row]]:
        """Those of this process that others can see, but for those of servers, and where they stand in a column."""
        for layout in (PROCESS, LISTENER, TRAFFIC, ROUTE, POOL, LIMIT):
            for labels in self._registry.labels(layout):
                place, row = self._place(layout, labels), self._registry.row(layout, labels)
                if place >= 0 and row is not None:
                    yield layout, labels, place, row

    def _place(self, layout: Layout, labels: Labels) -> int:
        """Where such a row stands in a column; -1 if there is no room for it."""
        known = self._places.get((layout, labels))
        if known is not None:
            return known
        table = self._share.table
        if layout is PROCESS:
            return 0
        if layout is POOL:
            room = self._rooms.get(labels[0], -1)
            return table.pool_counters[room] if room >= 0 else -1
        if layout is LISTENER:
            entry = self._listeners.find(*labels)
            place = table.of_listener(entry) if entry >= 0 else -1
        elif layout is ROUTE:
            entry = self._routes.find(*labels)
            place = table.of_route(entry) if entry >= 0 else -1
        elif layout is LIMIT:
            entry = self._limits.find(*labels)
            place = table.of_limit(entry) if entry >= 0 else -1
        else:
            entry = self._traffic.find(*labels)
            place = table.of_traffic(entry) if entry >= 0 else -1
        self._places[layout, labels] = place
        return place

    # --- sums ---------------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Until all workers have said what they counted up to now; not longer than LOOK_S, as one may be busy."""
        share = self._share
        share.cells[ASKED] += 1
        asked = share.cells[ASKED]
        for worker in range(share.n_workers):
            share.ring(worker)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                while not self._have_answered(asked):
                    self._answered.clear()
                    await self._answered.wait()
        self.count()

    def _have_answered(self, asked: int) -> bool:
        """Those that have begun."""
        told = self._share.columns.each(self._share.table.process_gauges + 1, 1)[: self._share.n_workers]
        return all(each[0] == 0 or each[0] > asked for each in told)

    def count(self) -> None:
        """The controller's registry and its servers show what all have counted, up to now; or what they had counted
        just before, while the supervisor adds up what a dead one had."""
        for runtime in self._pools.values():
            if isinstance(runtime.pool, OverseenPool):
                runtime.pool.see(self._clock())  # what it hears of is counted, too
        self._publish()
        with contextlib.suppress(Folding):
            self._count()

    def process_total(self) -> Row:
        """What all have counted in PROCESS, those that are gone included. Raises Folding."""
        return self._share.columns.total(0, PROCESS.width)

    def _count(self) -> None:
        columns, table, registry = self._share.columns, self._share.table, self._registry
        for layout, labels, place, own in self._rows():
            registry.count_elsewhere(layout, labels, _without(columns.total(place, layout.width), own))
        for runtime in self._pools.values():
            books, room = self._books[runtime.name], self._rooms[runtime.name]
            sums: dict[Labels, Row] = {}
            for server, item in runtime.servers.items():
                seat = books.seat_of(server)
                if seat < 0:
                    continue
                found = columns.total(table.of_seat(room, seat), SEAT_WIDTH)
                server.requests, server.errors = found[-N_FACTS], found[-1]
                rest, labels = _without(found[: SERVER.width], item.row), (runtime.name, server.name)
                sums[labels] = [a + b for a, b in zip(sums[labels], rest, strict=True)] if labels in sums else rest
                gauges = columns.each(table.server_gauges(room, seat), SERVER_GAUGES)
                server.take_latencies([(each[2] / 1e9, each[5] / 1e9) for each in gauges])
                if progress_ns := max(each[3] for each in gauges):
                    server.progress_at = max(server.progress_at, progress_ns / 1e9)
            for labels, row in sums.items():
                registry.count_elsewhere(SERVER, labels, row)

    def _readers(self) -> dict[str, Reader]:
        return {
            "client_connections": self.client_connections,
            "h2_streams": lambda: self._of_listeners(1),
            "upstream_connections": self._upstream_connections,
            "buffered_bytes": lambda: [((), self._gauge(self._share.table.process_gauges))],
            "queue_depth": lambda: [((name,), runtime.n_queued) for name, runtime in self._pools.items()],
        }

    def _processes(self) -> Iterator[tuple[str, Sequence[int]]]:
        """What each of those who live has counted in PROCESS, and its name."""
        *workers, controller = self._share.columns.each(0, PROCESS.width)
        for number, row in enumerate(workers, 1):
            yield str(number), row
        yield "controller", controller

    def _gauge(self, place: int) -> int:
        return sum(each[0] for each in self._share.columns.each(place, 1))

    def client_connections(self) -> Iterator[tuple[Labels, float]]:
        """Of each listener, with all workers."""
        return self._of_listeners(0)

    def connections_of(self, number: int) -> int:
        """Client connections of one worker, by its number among processes, 1 and up."""
        total = 0
        for labels in self._registry.labels(LISTENER):
            entry = self._listeners.find(*labels)
            if entry >= 0:
                total += self._share.columns.each(self._share.table.listener_gauges(entry), 1)[number - 1][0]
        return total

    def _of_listeners(self, offset: int) -> Iterator[tuple[Labels, float]]:
        for labels in self._registry.labels(LISTENER):
            entry = self._listeners.find(*labels)
            yield labels, self._gauge(self._share.table.listener_gauges(entry) + offset) if entry >= 0 else 0

    def _upstream_connections(self) -> Iterator[tuple[Labels, float]]:
        table = self._share.table
        for name, runtime in self._pools.items():
            for server in runtime.pool.servers:
                seat = self._books[name].seat_of(server)
                place = table.server_gauges(self._rooms[name], seat) if seat >= 0 else 0
                yield (name, server.name, "active"), self._gauge(place) if seat >= 0 else 0
                yield (name, server.name, "idle"), self._gauge(place + 1) if seat >= 0 else 0


def _without(total: list[int], own: Row) -> Row:
    return [a - b for a, b in zip(total, own, strict=True)]
