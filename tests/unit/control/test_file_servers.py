"""What becomes of a pool's members when the file names others."""

from __future__ import annotations

import random

from lbproxy.config.model import Pool as PoolConfig
from lbproxy.control.caller import Caller
from lbproxy.control.discovery.source import Source
from lbproxy.control.event_log import EventLog
from lbproxy.control.file_servers import WAIT_S, FileServers
from lbproxy.control.live import LiveControl
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Health
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.strategies.least_connections import LeastConnections

ME = Caller("ci", "192.0.2.1")


def config(*servers: object, **more: object) -> PoolConfig:
    return PoolConfig.model_validate({"servers": list(servers), **more})


class Bench:
    """A pool whose file is `config`; the clock is moved by hand."""

    def __init__(self, *servers: object, is_checked: bool = True) -> None:
        self.now = 100.0
        strategy = LeastConnections({}, random.Random(1))
        self.pool = Pool("p", (), strategy, strategy, passive_retry_s=None if is_checked else 10.0, queue=WaitQueue())
        self.named: dict[Server, Source] = {}
        events = EventLog(lambda: self.now)
        self.live = LiveControl({"p": self.pool}, self, self, lambda pool, server: None, lambda: self.now, events)
        self.file = FileServers(self.live, self, self, lambda: self.now)
        self.config = config(*servers)
        self.file.enter(self.pool, self.config)

    def add(self, pool: Pool, server: Server) -> None:
        self.live.joined(server)
        pool.add(server, self.now)

    def remove(self, pool: Pool, server: Server) -> None:
        pool.remove(server, self.now)
        self.live.left(server)

    def source_of(self, server: Server) -> Source | None:
        return self.named.get(server)

    keeper_of = source_of

    def is_leaving(self, server: Server) -> bool:
        return False

    def reload(self, *servers: object, **more: object) -> None:
        before, self.config = self.config, config(*servers, **more)
        self.file.change(self.pool, before, self.config)

    def server(self, name: str) -> Server:
        return next(server for server in self.pool.servers if server.name == name)

    @property
    def names(self) -> list[str]:
        return [server.name for server in self.pool.servers]

    def passes(self, name: str) -> None:
        self.pool.set_health(self.server(name), Health.UP, "", "", self.now)
        self.file.settle()


A, B, C = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"


def test_servers_of_a_new_pool_take_traffic_at_once() -> None:
    bench = Bench(A, {"address": B, "weight": 3, "max_inflight": 2})
    assert [(s.name, s.weight, s.max_inflight, s.is_usable) for s in bench.pool.servers] == [
        (A, 1, 0, True),
        (B, 3, 2, True),
    ]


def test_a_newcomer_waits_for_its_first_check_and_who_stays_is_the_same_object() -> None:
    bench = Bench(A)
    first = bench.server(A)
    bench.reload(A, B)
    assert bench.server(A) is first and not bench.server(B).is_usable
    bench.passes(B)
    assert bench.server(B).is_usable


def test_without_checks_a_newcomer_takes_traffic() -> None:
    bench = Bench(A, is_checked=False)
    bench.reload(A, B)
    assert bench.server(B).is_usable


def test_who_is_gone_drains_and_leaves_with_its_last_request() -> None:
    bench = Bench(A, B)
    lease = bench.pool.acquire_at(bench.server(A), bench.now)
    assert isinstance(lease, Lease)
    bench.reload(B)
    assert bench.server(A).admin is Admin.DRAIN
    lease.release(Outcome.SUCCESS, bench.now)
    bench.live.remove_drained()
    assert bench.names == [B]


def test_where_all_are_replaced_the_old_ones_wait_for_a_newcomer_to_pass() -> None:
    bench = Bench(A)
    bench.reload(B, C)
    assert bench.server(A).is_usable and set(bench.names) == {A, B, C}
    bench.passes(C)
    assert set(bench.names) == {B, C}


def test_newcomers_that_fail_are_not_waited_for() -> None:
    bench = Bench(A)
    bench.reload(B)
    bench.pool.set_health(bench.server(B), Health.DOWN, "status", "answered 500", bench.now)
    bench.file.settle()
    assert bench.names == [B]


def test_the_wait_has_an_end() -> None:
    bench = Bench(A)
    bench.reload(B)
    bench.now += WAIT_S - 0.1
    bench.file.settle()
    assert A in bench.names
    bench.now += 0.2
    bench.file.settle()
    assert bench.names == [B]


def test_who_was_about_to_go_and_is_named_again_stays() -> None:
    bench = Bench(A)
    bench.reload(B)
    bench.reload(A, B)
    bench.passes(B)
    assert set(bench.names) == {A, B} and bench.server(A).is_usable


def test_who_drains_and_is_named_again_takes_traffic() -> None:
    bench = Bench(A, B)
    lease = bench.pool.acquire_at(bench.server(A), bench.now)
    assert lease is not None
    bench.reload(B)
    bench.reload(A, B)
    assert bench.server(A).admin is Admin.READY and bench.server(A).inflight == 1


def test_another_address_is_another_server() -> None:
    bench = Bench({"name": "one", "address": A}, B)
    old = bench.server("one")
    bench.reload({"name": "one", "address": C}, B)
    assert old not in bench.pool.servers
    assert str(bench.server("one").address) == C


def test_values_follow_the_file_and_live_ones_stand_until_it_says_something_else() -> None:
    bench = Bench({"address": A, "weight": 2})
    bench.live.change(bench.pool, bench.server(A), {"weight": 9, "max_inflight": 4}, ME)
    bench.reload({"address": A, "weight": 2, "backup": True})
    assert (bench.server(A).weight, bench.server(A).max_inflight, bench.server(A).backup) == (9, 4, True)
    bench.reload({"address": A, "weight": 3})
    assert (bench.server(A).weight, bench.server(A).max_inflight, bench.server(A).backup) == (3, 4, False)
    bench.reload({"address": A, "weight": 3}, max_inflight=7)
    assert bench.server(A).max_inflight == 7, "the pool's limit is the file's value for a server without its own"
    sources = bench.live.told(bench.server(A), bench.now)["sources"]
    assert isinstance(sources, dict) and {source["source"] for source in sources.values()} == {"file"}


def test_a_drained_server_stays_drained() -> None:
    bench = Bench(A, B)
    bench.live.change(bench.pool, bench.server(A), {"admin": "drain"}, ME)
    bench.reload({"address": A, "weight": 2}, B)
    assert bench.server(A).admin is Admin.DRAIN


def test_what_was_added_by_command_stays_until_the_file_takes_it_over() -> None:
    bench = Bench(A)
    bench.live.add(bench.pool, {"address": B, "weight": 5}, ME)
    bench.passes(B)
    bench.reload({"address": A, "weight": 2})
    assert set(bench.names) == {A, B}
    bench.reload(A, B)
    assert bench.server(B).weight == 1 and bench.live.told(bench.server(B), bench.now)["source"] == "file"
    bench.reload(A)
    assert bench.names == [A]


def test_what_was_removed_by_command_stays_away_until_the_file_says_something_new() -> None:
    bench = Bench(A, B)
    bench.live.remove(bench.pool, bench.server(B), ME)
    bench.reload(A, B, slow_start="1s")
    assert bench.names == [A]
    bench.reload(A)
    bench.reload(A, B)
    assert bench.names == [A, B]


def test_servers_behind_names_keep_to_what_the_file_says_of_the_name() -> None:
    bench = Bench(A, {"address": "model.test:80", "weight": 2})
    found = Server("model.test:80/10.0.0.9", bench.server(A).address, weight=2, host="model.test")
    bench.add(bench.pool, found)
    bench.named[found] = Source("dns:model.test", "DNS (model.test)")
    bench.reload(A, {"address": "model.test:80", "weight": 6}, max_inflight=3)
    assert (found.weight, found.max_inflight) == (6, 3)
    bench.reload(A)
    assert found in bench.pool.servers, "discovery lets it go, not the list of addresses"


def test_a_pool_that_was_about_to_go_has_what_the_file_names_now() -> None:
    bench = Bench(A, B)
    bench.file.change(bench.pool, None, config(B, C))
    bench.passes(C)
    assert set(bench.names) == {B, C}


def test_a_request_finds_a_server_at_each_moment() -> None:
    bench = Bench(A)
    for _ in range(3):
        for names in ([B], [C], [A, B], [A]):
            bench.reload(*names)
            assert isinstance(bench.pool.acquire(PickContext("192.0.2.9"), (), bench.now), Lease)
            for name in names:
                bench.passes(name)
            assert isinstance(bench.pool.acquire(PickContext("192.0.2.9"), (), bench.now), Lease)
