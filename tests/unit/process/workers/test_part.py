"""Workers and a controller on one config, all in this process: what one does the others see."""

from __future__ import annotations

import asyncio
import random

import pytest

from lbproxy import errors
from lbproxy.address import Address
from lbproxy.config.loader import load_text
from lbproxy.config.problems import Unusable
from lbproxy.control.metrics import Exposition, Registry
from lbproxy.dataplane.net.poller import Poller
from lbproxy.dataplane.net.turn_end import Writer
from lbproxy.dataplane.runtime import Connections
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.pool import Pool
from lbproxy.domain.reuse import NO_LIMIT
from lbproxy.domain.server import Server
from lbproxy.domain.shared.plan import OWNER
from lbproxy.domain.states import Health
from lbproxy.domain.strategies.base import PickContext
from lbproxy.process.wiring import Wiring
from lbproxy.process.workers.news import DialFailed, Learned
from lbproxy.process.workers.part import INHERITED_S, Part
from lbproxy.process.workers.share import SPARE_POOLS, SPARE_SPLITS, Share
from lbproxy.telemetry.slots import LISTENER, POOL, PROCESS, ROUTE, SERVER, TRAFFIC, Slots
from tests.support.tickets import CallingTicket

CTX = PickContext("192.0.2.1")
POOLS = "{p: {servers: ['127.0.0.1:1', '127.0.0.1:2']}}"
ONE = "{p: {servers: ['127.0.0.1:1'], max_inflight: 1}}"
REQUESTS = TRAFFIC.column("requests_total", "GET", "2xx")


def text_of(pools: str, more: str = "") -> str:
    return f"listeners: [{{name: in, bind: '127.0.0.1:5000', pool: p}}{more}]\npools: {pools}\n"


class Keeping(Connections):
    """So many connections to a server carry nothing."""

    def __init__(self, count: int) -> None:
        self.count = count

    def n_idle(self) -> int:
        return self.count


class Leaving(Writer):
    """Says when it was written."""

    def __init__(self, heard: list[str]) -> None:
        self._heard = heard

    def flush(self) -> None:
        self._heard.append("what it sends")


class Process:
    """One of them."""

    def __init__(self, site: Site, number: int) -> None:
        self.part = Part(site.share, number, lambda: site.now)
        self.registry = Registry("test")
        self.row = Slots().allocate(PROCESS)
        self.registry.add(PROCESS, (), self.row)
        self.said: list[object] = []
        self.part.send = self.said.append
        self.wiring = Wiring(
            site.config,
            Slots(),
            self.registry,
            rng=random.Random(1),
            dial_failed=self.part.dial_failed,
            strategy_failed=lambda pool, error: None,
            base_dir=".",
            part=self.part,
        )
        self.wiring.build_pools()
        for listener in site.config.listeners:
            self.wiring.build_listener(listener)
        self.registry.pools = {name: runtime.pool for name, runtime in self.wiring.pools.items()}
        self._site = site

    @property
    def pool(self) -> Pool:
        return self.wiring.pools["p"].pool

    def sweep(self) -> None:
        self.wiring.sweep(self._site.now)
        self.part.sweep(self._site.now)

    def lease(self) -> Lease:
        found = self.pool.acquire(CTX, (), self._site.now)
        assert isinstance(found, Lease)
        return found

    def traffic(self, pool: str = "p") -> int:
        """Answers, as /metrics shows them."""
        return self.registry.cells(TRAFFIC, ("in", pool), REQUESTS, REQUESTS + 1)[0]

    def answered(self, number: int, pool: str = "p") -> None:
        row = self.registry.row(TRAFFIC, ("in", pool))
        assert row is not None
        row[REQUESTS] += number


def answer(process: Process) -> None:
    """A worker that has been rung does what there is to do."""

    async def listen() -> None:
        poller = Poller(asyncio.get_running_loop(), lambda what, error: None)
        is_done = asyncio.Event()
        process.part.rung = is_done.set
        process.part.watch_bell(poller)
        async with asyncio.timeout(10):
            await is_done.wait()
        process.part.forget_bell(poller)
        poller.close()

    asyncio.run(listen())


class Site:
    """now: of the clock of all."""

    def __init__(self, pools: str = POOLS, text: str = "") -> None:
        self.now = 1.0
        self.config = load_text(text or text_of(pools), "test.yaml", {}).config
        self.share = Share(self.config, 2)
        self.workers = [Process(self, number) for number in range(2)]
        self.controller = Process(self, 2)

    def replace(self, number: int) -> Process:
        self.share.bury(number, lambda worker: None)
        self.workers[number] = Process(self, number)
        return self.workers[number]

    def reload(self, pools: str, text: str = "") -> None:
        config = load_text(text or text_of(pools), "test.yaml", {}).config
        for process in (self.controller, *self.workers):
            process.wiring.adopt(process.wiring.draft(config), self.now)
        self.config = config

    def sweep(self, seconds: float = 0.2) -> None:
        self.now += seconds
        for process in (*self.workers, self.controller):
            process.sweep()


def test_all_have_the_servers_of_the_config() -> None:
    site = Site()
    for process in (*site.workers, site.controller):
        assert [server.name for server in process.pool.servers] == ["127.0.0.1:1", "127.0.0.1:2"]
        assert [item.server for item in process.wiring.pools["p"].servers.values()] == process.pool.servers


def test_what_workers_have_in_flight_is_what_the_controller_shows() -> None:
    site = Site()
    leases = [process.lease() for process in site.workers * 2]
    site.sweep()
    assert [server.inflight for server in site.controller.pool.servers] == [2, 2]
    for lease in leases:
        lease.release(Outcome.SUCCESS, site.now)
    site.sweep()
    assert [(server.inflight, server.requests) for server in site.controller.pool.servers] == [(0, 2), (0, 2)]


def test_each_worker_knows_the_shortest_service_time_that_any_has_seen() -> None:
    site = Site()
    first, second = site.workers
    server = first.pool.servers[0]
    server.observe_service(0.5)
    site.sweep(1.0)
    assert [item.fastest_s for item in second.pool.servers] == [0.5, 0.0]
    second.pool.servers[0].observe_service(0.2)
    site.sweep(1.0)
    site.sweep(1.0)
    assert [process.pool.servers[0].fastest_s for process in site.workers] == [0.2, 0.2]
    successor = site.replace(0)
    assert successor.pool.servers[0].fastest_s == 0.0
    site.sweep(1.0)
    assert successor.pool.servers[0].fastest_s == 0.2


def test_counters_of_all_are_added_up_and_never_go_down() -> None:
    site = Site()
    first, second = site.workers
    first.answered(3)
    second.answered(4)
    site.sweep()
    assert site.controller.traffic() == 7
    first.answered(1)  # what it did not come to say
    successor = site.replace(0)
    site.controller.part.count()
    assert site.controller.traffic() == 7
    successor.answered(2)
    site.sweep()
    assert site.controller.traffic() == 9


def test_what_a_controller_counted_outlives_it() -> None:
    site = Site()
    site.controller.row[0] += 5
    site.controller.part.count()
    site.share.bury_controller()
    again = Process(site, 2)
    again.row[0] += 1
    again.part.count()
    assert again.registry.cells(PROCESS, (), 0, 1) == [6]


def test_counts_of_a_server_outlive_its_seat_where_it_comes_back() -> None:
    site = Site()
    column = SERVER.column("server_requests_total", "2xx")
    runtime = site.workers[0].wiring.pools["p"]
    runtime.servers[runtime.pool.servers[0]].row[column] += 3
    wiring = site.controller.wiring
    server = wiring.pools["p"].pool.servers[0]
    wiring.add(wiring.pools["p"].pool, Server("127.0.0.1:1", Address("127.0.0.2", 1)))
    wiring.remove(wiring.pools["p"].pool, server)
    for _ in range(3):
        site.sweep()
    assert [item.key for item in site.workers[1].pool.servers] == ["127.0.0.1:2", "127.0.0.2:1"]
    assert site.controller.registry.cells(SERVER, ("p", "127.0.0.1:1"), column, column + 1) == [3]
    site.sweep()
    assert site.controller.registry.cells(SERVER, ("p", "127.0.0.1:1"), column, column + 1) == [3]


def test_a_server_joins_and_leaves_and_its_seat_is_empty_for_the_next() -> None:
    site = Site()
    controller = site.controller.wiring
    pool = controller.pools["p"].pool
    for number in range(200):  # more than there are seats
        server = Server(f"s{number}", Address("127.0.0.3", number + 1))
        controller.add(pool, server)
        for process in site.workers:
            process.pool.sweep(site.now)
            assert process.pool.servers[-1].name == f"s{number}"
        held = site.workers[0].pool.acquire_at(site.workers[0].pool.servers[-1], site.now)
        assert held is not None
        controller.remove(pool, server)
        site.sweep()
        assert [item.name for item in site.workers[1].pool.servers] == ["127.0.0.1:1", "127.0.0.1:2"]
        held.release(Outcome.SUCCESS, site.now)
        site.sweep()
        site.sweep()
    assert all(len(process.wiring.pools["p"].servers) == 2 for process in (*site.workers, site.controller))


def test_a_refused_dial_is_told_and_what_comes_of_it_is_known_to_all() -> None:
    site = Site()
    first, second = site.workers
    runtime = first.wiring.pools["p"]
    runtime.dial_failed(runtime.pool.servers[0], errors.CONNECT_REFUSED)
    runtime.dial_failed(runtime.pool.servers[1], errors.CONNECT_TIMEOUT)
    assert first.said == [DialFailed("p", "127.0.0.1:1", True), DialFailed("p", "127.0.0.1:2", False)]
    assert first.lease().server.name == "127.0.0.1:2"
    heard: list[str] = []

    class Ears:
        def server_refused(self, pool: Pool, server: Server) -> None:
            pool.server_refused(server, site.now)
            heard.append(f"refused {server.name}")

        def connect_failed(self, pool: Pool, server: Server) -> None:
            heard.append(f"failed {server.name}")

    for message in (*first.said, DialFailed("gone", "x", True), DialFailed("p", "gone", True), "another's"):
        site.controller.part.heard(message, Ears())
    assert heard == ["refused 127.0.0.1:1", "failed 127.0.0.1:2"]
    assert [second.lease().server.name for _ in range(2)] == ["127.0.0.1:2"] * 2
    site.controller.pool.set_health(site.controller.pool.servers[0], Health.UP, "", "", site.now)
    assert second.lease().server.name == "127.0.0.1:1"


def test_what_one_worker_learns_of_a_server_is_known_to_all() -> None:
    site = Site()
    first, second = site.workers
    ears = site.controller.wiring  # not asked
    theirs = first.pool.servers[0]
    theirs.idle_timeout.learned_s, theirs.reuse.limit = 5.0, 8
    for _ in range(3):
        site.sweep()
    assert first.said == [Learned("p", "127.0.0.1:1", 5.0, 8)]
    site.controller.part.heard(first.said[0], ears)  # type: ignore[arg-type]
    for _ in range(3):
        site.sweep()
    item = second.wiring.pools["p"].servers[second.pool.servers[0]]
    assert (item.server.idle_timeout.learned_s, item.most_requests) == (5.0, 8)
    assert item.idle_timeout_s < 5.0
    theirs.reuse.lifted(site.now)
    site.sweep()
    assert first.said[1:] == [Learned("p", "127.0.0.1:1", 5.0, NO_LIMIT)]
    site.controller.part.heard(first.said[1], ears)  # type: ignore[arg-type]
    for _ in range(3):
        site.sweep()
    assert (item.most_requests, second.said, len(first.said)) == (NO_LIMIT, [], 2)


def test_gauges_of_all_are_added_up() -> None:
    site = Site()
    for number, process in enumerate(site.workers, 1):
        process.part.connections = lambda number=number: [(("in",), number)]  # type: ignore[misc]
        process.part.streams = lambda number=number: [(("in",), 10 * number)]  # type: ignore[misc]
        process.part.buffered = lambda number=number: 100 * number  # type: ignore[misc]
        runtime = process.wiring.pools["p"]
        runtime.servers[runtime.pool.servers[1]].n_connections = number
    site.sweep()
    text = Exposition(site.controller.registry).render().decode()
    assert 'lbproxy_client_connections{listener="in"} 3' in text
    assert 'lbproxy_h2_streams{listener="in"} 30' in text
    assert 'lbproxy_upstream_connections{pool="p",server="127.0.0.1:2",state="active"} 3' in text
    assert 'lbproxy_upstream_connections{pool="p",server="127.0.0.1:1",state="active"} 0' in text
    assert "lbproxy_buffered_bytes 300" in text
    site.share.bury(1, lambda worker: None)
    assert list(site.controller.part.client_connections()) == [(("in",), 1)]


def test_a_latency_is_that_of_the_last_answers_and_has_their_time() -> None:
    site = Site()
    for number, process in enumerate(site.workers, 1):
        process.wiring.pools["p"].pool.servers[0].observe_latency(0.25 * number, site.now)
    at = site.now
    for _ in range(100):
        site.sweep()
    [shown, other] = site.controller.wiring.pools["p"].pool.servers
    assert site.now > at
    assert shown.latency_s == pytest.approx(0.5)
    assert shown.latency_at == pytest.approx(at)
    assert other.latency_s == 0.0


def test_connections_that_carry_nothing_are_counted_whoever_keeps_them() -> None:
    """Those of HTTP/2 are with the endpoint, and not in the server's idle pool."""
    site = Site("{p: {servers: ['127.0.0.1:1'], protocol: h2}}")
    for number, process in enumerate(site.workers, 1):
        [item] = process.wiring.pools["p"].servers.values()
        item.n_connections = 3 + number
        item.endpoint = Keeping(number)
    site.sweep()
    text = Exposition(site.controller.registry).render().decode()
    assert 'lbproxy_upstream_connections{pool="p",server="127.0.0.1:1",state="idle"} 3' in text
    assert 'lbproxy_upstream_connections{pool="p",server="127.0.0.1:1",state="active"} 6' in text


def test_whoever_is_rung_looks() -> None:
    site = Site(ONE)
    heard: list[str] = []
    first, second = site.workers
    lease = first.lease()
    done = asyncio.Event()
    leaving = Leaving(heard)
    poller: Poller

    def granted(lease: Lease, now: float) -> None:
        heard.append("granted")
        asyncio.get_running_loop().call_soon(heard.append, "the loop goes on")
        poller.turn_end.add(leaving)
        done.set()

    ticket = CallingTicket(CTX, granted, heard.append, enqueued_at=site.now)
    assert second.pool.enqueue(ticket, site.now)

    async def ring() -> None:
        nonlocal poller
        poller = Poller(asyncio.get_running_loop(), lambda what, error: heard.append(f"{what}: {error}"))
        second.part.watch_bell(poller)
        lease.release(Outcome.SUCCESS, site.now)
        assert heard == []
        async with asyncio.timeout(10):
            await done.wait()
            for _ in range(10):
                await asyncio.sleep(0)
        second.part.forget_bell(poller)
        poller.close()

    asyncio.run(ring())
    assert heard == ["granted", "what it sends", "the loop goes on"]


def test_whoever_is_rung_leaves_pools_alone_in_which_there_is_nothing_to_do() -> None:
    site = Site("{p: {servers: ['127.0.0.1:1'], max_inflight: 1}, q: {servers: ['127.0.0.1:2'], max_inflight: 1}}")
    first, second = site.workers
    heard: list[str] = []
    ticket = CallingTicket(CTX, lambda lease, now: heard.append("granted"), heard.append, enqueued_at=site.now)
    lease = first.lease()
    assert second.pool.enqueue(ticket, site.now)
    lease.release(Outcome.SUCCESS, site.now)
    owners = [site.share.table.plans[site.share.room_names.find(name)].first + OWNER for name in "pq"]
    for owner in owners:
        site.share.cells[owner] = 0
    answer(second)
    assert heard == ["granted"]
    assert [site.share.cells[owner] for owner in owners] == [2, 0]


def test_a_pool_in_which_nobody_waits_hears_of_orders_when_it_is_rung() -> None:
    site = Site(ONE)
    pool = site.controller.pool
    pool.set_health(pool.servers[0], Health.DOWN, "checks", "it is silent", site.now)
    site.controller.sweep()
    answer(site.workers[1])
    assert [server.health for server in site.workers[1].pool.servers] == [Health.DOWN]


def test_each_ring_is_heard_although_nobody_reads_the_bell() -> None:
    site = Site(ONE)
    n_heard, defects = 0, list[str]()

    async def ring() -> None:
        nonlocal n_heard
        poller = Poller(asyncio.get_running_loop(), lambda what, error: defects.append(f"{what}: {error}"))
        part, is_heard = site.workers[1].part, asyncio.Event()
        part.rung = is_heard.set
        site.share.ring(1)  # before it listens
        part.watch_bell(poller)
        async with asyncio.timeout(10):
            for n_heard in range(1, 5):
                await is_heard.wait()
                is_heard.clear()
                if n_heard < 4:
                    site.share.ring(1)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not is_heard.is_set()
        part.forget_bell(poller)
        poller.close()

    asyncio.run(ring())
    assert (n_heard, defects) == (4, [])


def test_a_reload_brings_a_pool_and_takes_one() -> None:
    site = Site()
    site.reload("{p: {servers: ['127.0.0.1:1']}, q: {servers: ['name.example:1']}}")
    controller = site.controller.wiring
    server = Server("new", Address("127.0.0.1", 9))
    controller.add(controller.pools["q"].pool, server)
    site.sweep()
    runtime = site.workers[1].wiring.pools["q"]
    lease = runtime.pool.acquire(CTX, (), site.now)
    assert isinstance(lease, Lease)
    runtime.row[0] += 3
    site.sweep()
    assert site.controller.registry.cells(POOL, ("q",), 0, 1) == [3]
    lease.release(Outcome.SUCCESS, site.now)
    for number in range(3 * SPARE_POOLS):  # more than there are rooms
        site.reload(f"{{p: {{servers: ['127.0.0.1:1']}}, q{number}: {{servers: ['name.example:1']}}}}")
        assert site.workers[0].wiring.pools[f"q{number}"].row[0] == 0
        for _ in range(8):
            site.sweep(0.5)
            for process in (*site.workers, site.controller):
                for pool in process.wiring.idle_pools(site.now):
                    for member in list(pool.servers):
                        process.wiring.remove(pool, member)
                    process.wiring.drop_pool(pool)
        assert list(site.workers[0].wiring.pools) == ["p", f"q{number}"]
        assert site.controller.registry.cells(POOL, (f"q{number}",), 0, 1) == [0]


def test_what_a_reload_has_no_room_for_is_refused() -> None:
    site = Site()
    process = site.workers[0]

    def draft(pools: str) -> None:
        process.wiring.draft(load_text(text_of(pools), "test.yaml", {}).config)

    draft("{p: {servers: ['127.0.0.1:1'], queue: {size: 2048}}}")
    with pytest.raises(Unusable, match="2048 is the most until an upgrade"):
        draft("{p: {servers: ['127.0.0.1:1'], queue: {size: 2049}}}")
    names = ["p", *(f"q{number}" for number in range(SPARE_POOLS + 1))]
    with pytest.raises(Unusable, match="no room for one more pool; an upgrade"):
        draft("{" + ", ".join(f"{name}: {{servers: ['name.example:1']}}" for name in names) + "}")


def test_servers_that_only_the_controller_before_had_leave_after_a_while() -> None:
    site = Site()
    wiring = site.controller.wiring
    wiring.add(wiring.pools["p"].pool, Server("found", Address("127.0.0.9", 1)))
    site.share.bury_controller()
    site.controller = Process(site, 2)
    site.sweep()
    assert len(site.workers[0].pool.servers) == 3
    site.sweep(INHERITED_S)
    site.sweep()
    assert [server.name for server in site.workers[0].pool.servers] == ["127.0.0.1:1", "127.0.0.1:2"]


def test_every_row_has_a_place() -> None:
    site = Site()
    registry = site.workers[0].registry
    for number, (layout, labels) in enumerate(
        [(LISTENER, ("in",)), (TRAFFIC, ("in", "p")), (TRAFFIC, ("in", "")), (POOL, ("p",)), (PROCESS, ())], 1
    ):
        row = registry.row(layout, labels)
        assert row is not None
        row[:] = [number] * layout.width
    site.sweep()
    for number, (layout, labels) in enumerate(
        [(LISTENER, ("in",)), (TRAFFIC, ("in", "p")), (TRAFFIC, ("in", "")), (POOL, ("p",)), (PROCESS, ())], 1
    ):
        assert site.controller.registry.cells(layout, labels, 0, layout.width) == [number] * layout.width


def split_text(shares: str, *, before: str = "", name: str = "chat") -> str:
    pools = "{p: {servers: ['127.0.0.1:1']}, q: {servers: ['127.0.0.1:2']}}"
    routes = f"[{before}{{name: {name}, split: {shares}}}]"
    return f"listeners: [{{name: in, bind: '127.0.0.1:5000', routes: {routes}}}]\npools: {pools}\n"


def shares(process: Process) -> list[tuple[int, ...]]:
    return [place.split.shares() for place in process.wiring.splits]


def test_what_the_controller_says_of_a_split_all_workers_do() -> None:
    site = Site(text=split_text("{p: 95, q: 5}"))
    [place] = site.controller.wiring.splits
    place.split.set((1, 9))
    assert [shares(process) for process in site.workers] == [[(1, 9)]] * 2
    assert shares(site.replace(1)) == [(1, 9)], "whoever takes a dead worker's place, too"
    site.reload("", split_text("{p: 95, q: 5}", before="{match: {path: /x}, pool: p}, "))
    assert [shares(process) for process in (*site.workers, site.controller)] == [[(1, 9)]] * 3
    site.reload("", split_text("{p: 95, q: 5}", name="other"))
    assert [shares(process) for process in (*site.workers, site.controller)] == [[(95, 5)]] * 3
    site.reload("", split_text("{p: 95, q: 5}"))
    assert [shares(process) for process in (*site.workers, site.controller)] == [[(95, 5)]] * 3, "it was forgotten"


def test_splits_come_and_go_and_their_room_is_used_again() -> None:
    site = Site(text=split_text("{p: 95, q: 5}"))
    for number in range(SPARE_SPLITS + 8):
        site.reload("", split_text("{p: 1, q: 1}", name=f"x{number}"))
        assert shares(site.workers[0]) == [(1, 1)]
        next(iter(site.controller.wiring.splits)).split.set((0, 7))
        assert shares(site.workers[1]) == [(0, 7)]
    many = ", ".join(
        f"{{name: y{number}, match: {{path: /{number}}}, split: {{p: 1}}}}" for number in range(SPARE_SPLITS + 8)
    )
    text = split_text("{p: 1, q: 1}", before=f"{many}, ")
    with pytest.raises(Unusable, match="no room for one more split; an upgrade") as raised:
        site.workers[0].wiring.draft(load_text(text, "test.yaml", {}).config)
    assert raised.value.path[-1] == "split"


def test_counts_of_routes_with_names_are_added_up() -> None:
    site = Site(text=split_text("{p: 95, q: 5}"))
    column = ROUTE.column("route_requests_total", "2xx")
    for number, process in enumerate(site.workers, 1):
        row = process.registry.row(ROUTE, ("in", "chat"))
        assert row is not None
        row[column] += number
    site.sweep()
    assert site.controller.registry.cells(ROUTE, ("in", "chat"), column, column + 1) == [3]
    site.reload("", split_text("{p: 95, q: 5}", name="other"))
    assert list(site.controller.registry.labels(ROUTE)) == [("in", "other")]
