import random
from collections.abc import Callable

import pytest

from lbproxy.address import parse_address
from lbproxy.control.changes import Changes
from lbproxy.control.status import Json, ListenerStatus, QueueStatus, StatusSource
from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Health
from lbproxy.domain.strategies.least_connections import LeastConnections


class Bench:
    """A pool `p` of two servers, whose status is taken when somebody says so."""

    def __init__(self) -> None:
        strategy = LeastConnections({}, random.Random(1))
        servers = [Server(name, parse_address(f"127.0.0.1:500{number}")) for number, name in enumerate("ab")]
        self.pool = Pool("p", servers, strategy, strategy)
        self.a, self.b = servers
        self.pools = {"p": self.pool}
        self.listeners = [ListenerStatus("in", "http", ("127.0.0.1:5000",), 0)]
        self.queue = QueueStatus()
        self.origin: Json = {"sources": {"weight": {"source": "file", "by": None, "since": 1.0, "given": None}}}
        self.discovery: list[Json] = []
        self.limits: list[Json] = []
        self.now = 100.0
        self.state, self.not_ready = "running", "a reason"
        self.source = StatusSource(
            "1",
            0.0,
            self.pools,
            {},
            listeners=lambda: self.listeners,
            queue=lambda name: self.queue,
            origin=lambda server, now: self.origin,
            discovery=lambda name: self.discovery,
            rate_limits=lambda: self.limits,
        )
        self.changes = Changes()
        self.take()

    def take(self, after_s: float = 1.0) -> None:
        self.now += after_s
        self.changes.take(self.source.build(self.state, self.not_ready or None, self.now))

    def told(self, number: int) -> dict[str, list[str]]:
        """Names of the servers that changed after this number, by pool."""
        pools = self.changes.since(number)["pools"]
        assert isinstance(pools, list)
        return {pool["name"]: [server["name"] for server in pool["servers"]] for pool in pools}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_newcomer_is_told_everything(bench: Bench) -> None:
    assert bench.told(0) == {"p": ["a", "b"]}


def test_nothing_is_told_when_only_time_has_passed(bench: Bench) -> None:
    bench.pool.set_health(bench.a, Health.UP, "", "answered", bench.now)
    bench.a.observe_latency(0.24, bench.now)
    bench.take()
    number = bench.changes.number
    bench.origin = {"sources": {"weight": {"source": "file", "by": None, "since": 2.0, "given": None}}}
    bench.take()
    assert bench.changes.number == number
    assert bench.told(number) == {}


def change_limit(bench: Bench) -> None:
    bench.a.max_inflight = 7


def change_count(bench: Bench) -> None:
    bench.a.inflight = 1


def change_admin(bench: Bench) -> None:
    bench.pool.set_admin(bench.a, Admin.DRAIN, "drained", bench.now)


def change_latency(bench: Bench) -> None:
    bench.a.observe_latency(1.0, bench.now)


@pytest.mark.parametrize("change", [change_limit, change_count, change_admin, change_latency])
def test_only_the_server_that_changed_is_told(bench: Bench, change: Callable[[Bench], None]) -> None:
    number = bench.changes.number
    change(bench)
    bench.take()
    assert bench.told(number) == {"p": ["a"]}
    assert bench.told(bench.changes.number) == {}


def test_who_set_a_value_is_a_change(bench: Bench) -> None:
    number = bench.changes.number
    bench.origin = {"sources": {"weight": {"source": "live", "by": "ci", "since": 0.1, "given": 1}}}
    bench.take()
    assert bench.told(number) == {"p": ["a", "b"]}


def test_readers_who_are_not_equally_far_are_told_what_each_has_missed(bench: Bench) -> None:
    first = bench.changes.number
    bench.a.inflight = 1
    bench.take()
    second = bench.changes.number
    bench.b.inflight = 1
    bench.take()
    assert bench.told(first) == {"p": ["a", "b"]}
    assert bench.told(second) == {"p": ["b"]}


def test_a_pool_whose_own_values_change_is_told_without_its_servers(bench: Bench) -> None:
    number = bench.changes.number
    bench.queue = QueueStatus(3, 10)
    bench.take()
    pools = bench.changes.since(number)["pools"]
    assert isinstance(pools, list)
    [pool] = pools
    assert pool == {
        "name": "p",
        "leaving": False,
        "usable": 2,
        "standby": 0,
        "ready": False,
        "reason": "waits for a server to pass its first check",
        "failing_open": False,
        "inflight": 0,
        "queue": {"depth": 3, "size": 10, "oldest": None, "timeout": None, "newest_first": False}
        | {"classes": {}, "keys": None},
        "servers": [],
    }


def join(bench: Bench) -> None:
    bench.pool.add(Server("c", parse_address("127.0.0.1:5009")), bench.now)


def leave(bench: Bench) -> None:
    bench.pool.remove(bench.b, bench.now)


def add_pool(bench: Bench) -> None:
    strategy = LeastConnections({}, random.Random(1))
    bench.pools["q"] = Pool("q", [], strategy, strategy)


def add_listener(bench: Bench) -> None:
    bench.listeners.append(ListenerStatus("two", "http", ("127.0.0.1:5008",), 0))


def stop(bench: Bench) -> None:
    bench.state = "draining"


def become_ready(bench: Bench) -> None:
    bench.not_ready = ""


@pytest.mark.parametrize("change", [join, leave, add_pool, add_listener, stop, become_ready])
def test_what_there_is_has_another_shape(bench: Bench, change: Callable[[Bench], None]) -> None:
    shape = bench.changes.shape
    bench.take()
    assert bench.changes.shape == shape
    change(bench)
    bench.take()
    assert bench.changes.shape == shape + 1


def test_more_clients_of_a_listener_are_no_other_shape(bench: Bench) -> None:
    shape = bench.changes.shape
    bench.listeners = [ListenerStatus("in", "http", ("127.0.0.1:5000",), 9)]
    bench.take()
    assert bench.changes.shape == shape


def test_what_is_gone_is_forgotten(bench: Bench) -> None:
    bench.pool.remove(bench.b, bench.now)
    bench.take()
    bench.pool.add(bench.b, bench.now)
    number = bench.changes.number
    bench.take()
    assert bench.told(number)["p"] == ["b"]


def test_what_is_wrong_with_a_source_makes_everything_new_and_its_age_does_not(bench: Bench) -> None:
    told: Json = {"source": "aws:asg:predict", "servers": 2, "age": 1.0, "error": None, "says": {}}
    bench.discovery = [told]
    bench.take()
    shape = bench.changes.shape
    bench.discovery = [{**told, "age": 2.0}]
    bench.take()
    assert bench.changes.shape == shape
    bench.discovery = [{**told, "error": "throttled"}]
    bench.take()
    assert bench.changes.shape == shape + 1


def test_rate_limits_are_told_when_one_has_counted(bench: Bench) -> None:
    bench.limits = [{"name": "l", "limited": 0}]
    bench.take()
    number, shape = bench.changes.number, bench.changes.shape
    bench.take()
    assert bench.changes.number == number and "rate_limits" not in bench.changes.since(number)
    bench.limits = [{"name": "l", "limited": 1}]
    bench.take()
    assert bench.changes.since(number) == {"pools": [], "rate_limits": bench.limits}
    assert bench.changes.shape == shape
