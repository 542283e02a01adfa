import random

from lbproxy.address import Address, parse_address
from lbproxy.control.status import (
    SHOWN_POOLS,
    ListenerStatus,
    QueueStatus,
    StatusSource,
    not_ready_reason,
    server_status,
)
from lbproxy.domain.breaker import BreakerPolicy
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.names import Name
from lbproxy.domain.pool import Pool
from lbproxy.domain.queue import WaitQueue
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Health
from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.strategies.least_connections import LeastConnections
from tests.support.tickets import CallingTicket


def make_pool(name: str, *ports: int, has_passed: bool = False, is_checked: bool = True) -> Pool:
    servers = [Server(f"127.0.0.1:{port}", parse_address(f"127.0.0.1:{port}")) for port in ports]
    strategy = LeastConnections({}, random.Random(1))
    pool = Pool(name, servers, strategy, strategy, passive_retry_s=None if is_checked else 10.0)
    for server in servers if has_passed else ():
        pool.set_health(server, Health.UP, "", "accepts connections", 0.5)
    return pool


def refuse(pool: Pool) -> None:
    for server in pool.servers:
        pool.server_refused(server, 1.0)


def test_a_latency_stays_what_it_was_and_says_how_old_it_is() -> None:
    pool = make_pool("predict", 5001)
    server = pool.servers[0]
    shown = server_status(pool, server, 90.0, frozenset())
    assert (shown["latency"], shown["latency_age"]) == (0.0, None)
    server.observe_latency(0.25, 100.0)
    shown = server_status(pool, server, 400.0, frozenset())
    assert (shown["latency"], shown["latency_age"]) == (0.25, 300.0)


def test_a_server_says_what_it_does_and_why() -> None:
    pool = make_pool("predict", 5001)
    server = pool.servers[0]
    server.inflight, server.requests, server.errors = 2, 10, 1
    server.observe_latency(0.25, 100.0)
    server.idle_timeout.closed_by_server(2.0, 50.0)
    server.idle_timeout.closed_by_server(2.1, 60.0)
    pool.set_health(server, Health.DOWN, "status", "answered 500 to GET /health, expected 200-399", 99.0)
    assert server_status(pool, server, 100.0, frozenset(pool.eligible())) == {
        "name": "127.0.0.1:5001",
        "address": "127.0.0.1:5001",
        "admin": "ready",
        "health": "down",
        "state": "down",
        "why": "answered 500 to GET /health, expected 200-399",
        "since": 1.0,
        "weight": 1,
        "inflight": 2,
        "max_inflight": None,
        "requests": 10,
        "errors": 1,
        "latency": 0.25,
        "latency_age": 0.0,
        "used": False,
        "was_up": False,
        "backup": False,
        "zone": None,
        "far": False,
        "breaker": "closed",
        "keep_sticky": False,
        "cut_in": None,
        "penalty": None,
        "quarantined": 0,
        "slower": False,
        "ramp": None,
        "idle_timeout": {"announced": None, "learned": 2.0},
        "requests_per_connection": None,
    }


def test_what_is_learned_of_connections_is_shown_and_nought_is_not_nothing() -> None:
    pool = make_pool("predict", 5001)
    server = pool.servers[0]
    server.idle_timeout.announced_s = 0.0
    for number in range(2):
        server.reuse.explains(1, 0.0, float(number), number + 0.5)
    status = server_status(pool, server, 100.0, frozenset(pool.eligible()))
    assert status["idle_timeout"] == {"announced": 0.0, "learned": None}
    assert status["requests_per_connection"] == 1


def test_an_ejected_server_says_when_it_is_tried_again() -> None:
    servers = [Server(f"s{port}", parse_address(f"127.0.0.1:{port}"), max_inflight=4) for port in (5001, 5002)]
    strategy = LeastConnections({}, random.Random(1))
    pool = Pool("predict", servers, strategy, strategy, breaker=BreakerPolicy(failures=2, open_s=10.0))
    pool.set_health(servers[0], Health.UP, "", "accepts connections", 90.0)
    for _ in range(2):
        Lease(pool, servers[0], 99.0).release(Outcome.FAILURE, 100.0, what="resets")
    status = server_status(pool, servers[0], 103.0, frozenset(pool.eligible()))
    assert (status["state"], status["health"], status["max_inflight"]) == ("ejected", "up", 4)
    assert status["why"] == "ejected 3 s ago: 2 consecutive resets, next probe in 7 s"
    pool.sweep(110.0)
    assert server_status(pool, servers[0], 112.0, frozenset(pool.eligible()))["why"] == (
        "probing 2 s ago: 2 consecutive resets, the next request is a probe"
    )
    assert server_status(pool, servers[1], 112.0, frozenset(pool.eligible()))["why"] == "not checked yet"


def test_the_whole_status() -> None:
    pool = make_pool("predict", 5001, 5002)
    pool.set_admin(pool.servers[0], Admin.DRAIN, "by the operator", 5.0)
    source = StatusSource(
        "1.2.3",
        10.0,
        {"predict": pool},
        {"predict": "least_connections"},
        listeners=lambda: [ListenerStatus("front", "http", ("0.0.0.0:5000",), 7)],
        queue=lambda name: QueueStatus(3, 1024, 0.25, 10.0, True, (("high", 1), ("low", 2)), 2),
        kind=lambda name: ("uvicorn", {"keep_alive.idle_timeout": "4s"}),
        discovery=lambda name: [{"source": "dns:x", "servers": 1, "age": 2.0, "error": None}],
        state_file=lambda: {"path": "/state", "age": None, "error": None},
        workers=lambda: [{"worker": 1, "state": "serving"}],
        splits=lambda: [{"listener": "front", "route": 0}],
    )
    status = source.build("running", None, 40.5)
    pools = status.pop("pools")
    assert status == {
        "version": "1.2.3",
        "uptime": 30.5,
        "state": "running",
        "ready": True,
        "reason": None,
        "state_file": {"path": "/state", "age": None, "error": None},
        "workers": [{"worker": 1, "state": "serving"}],
        "splits": [{"listener": "front", "route": 0}],
        "listeners": [{"name": "front", "mode": "http", "bind": ["0.0.0.0:5000"], "connections": 7}],
        "rate_limits": [],
    }
    assert isinstance(pools, list)
    assert [server["state"] for server in pools[0].pop("servers")] == ["drain", "up"]
    assert pools == [
        {
            "name": "predict",
            "kind": "uvicorn",
            "kind_settings": {"keep_alive.idle_timeout": "4s"},
            "strategy": "least_connections",
            "protocol": "h1",
            "sticky": None,
            "usable": 1,
            "standby": 0,
            "leaving": False,
            "ready": False,
            "reason": "waits for a server to pass its first check",
            "failing_open": False,
            "ejected": 0,
            "max_ejected": 1,
            "inflight": 0,
            "queue": {"depth": 3, "size": 1024, "oldest": 0.25, "timeout": 10.0, "newest_first": True}
            | {"classes": {"high": 1, "low": 2}, "keys": 2},
            "names": [],
            "discovery": [{"source": "dns:x", "servers": 1, "age": 2.0, "error": None}],
        }
    ]


def test_connections_that_requests_share_are_counted() -> None:
    pools = {"calls": make_pool("calls", 5001, 5002), "pages": make_pool("pages", 5003)}
    source = StatusSource(
        "1",
        0.0,
        pools,
        {},
        protocol=lambda name: "h2" if name == "calls" else "h1",
        sticky=lambda name: "lb" if name == "calls" else None,
        connections=lambda: [(("calls", pools["calls"].servers[0].name, "active"), 2.0), (("pages", "x", "idle"), 9.0)],
    )
    found = source.build("running", None, 1.0)["pools"]
    assert isinstance(found, list)
    assert [pool["sticky"] for pool in found] == [None if pool["protocol"] == "h1" else "lb" for pool in found]
    assert [(pool["protocol"], [server["connections"] for server in pool["servers"]]) for pool in found] == [
        ("h2", [{"active": 2, "idle": 0}, {"active": 0, "idle": 0}]),
        ("h1", [None]),
    ]


def test_ready_while_any_pool_is_usable() -> None:
    good, bad = make_pool("good", 5001, has_passed=True), make_pool("bad", 5002, has_passed=True)
    assert not_ready_reason([good, bad], "any") is None
    refuse(bad)
    assert not_ready_reason([good, bad], "any") is None
    refuse(good)
    reason = not_ready_reason([good, bad], "any")
    assert reason is not None
    assert "pool good has no usable server" in reason and "pool bad has no usable server" in reason


def test_ready_only_while_all_pools_are_usable() -> None:
    good, bad = make_pool("good", 5001, has_passed=True), make_pool("bad", 5002, has_passed=True)
    assert not_ready_reason([good, bad], "all") is None
    refuse(bad)
    assert not_ready_reason([good, bad], "all") == (
        "pool bad has no usable server: 127.0.0.1:5002 down (connection refused under traffic)"
    )


def test_a_pool_that_goes_says_nothing_about_readiness() -> None:
    good, bad = make_pool("good", 1, has_passed=True), make_pool("bad", 2, has_passed=True)
    refuse(bad)
    good.is_leaving = True
    reason = not_ready_reason([good, bad], "any")
    assert reason is not None and "bad" in reason and "good" not in reason
    good.is_leaving, bad.is_leaving = False, True
    assert not_ready_reason([good, bad], "all") is None


def test_a_pool_is_not_ready_before_a_check_has_passed() -> None:
    pool = make_pool("p", 5001, 5002)
    assert pool.eligible(), "requests are taken all the same"
    assert not_ready_reason([pool], "any") == (
        "pool p waits for a server to pass its first check: 127.0.0.1:5001 up (not checked yet), "
        "127.0.0.1:5002 up (not checked yet)"
    )
    pool.set_health(pool.servers[0], Health.DOWN, "status", "answered 503 to GET /health", 1.0)
    assert not_ready_reason([pool], "any") is not None
    pool.set_health(pool.servers[1], Health.UP, "", "", 1.0)
    assert not_ready_reason([pool], "any") is None


def test_servers_that_never_were_up_make_no_pool_ready() -> None:
    pool = make_pool("p", 5001)
    pool.members.fail_open = 0.0
    pool.set_health(pool.servers[0], Health.DOWN, "status", "answered 503 to GET /health", 1.0)
    assert not_ready_reason([pool], "any") == (
        "pool p has no usable server: 127.0.0.1:5001 down (answered 503 to GET /health)"
    )
    pool.set_health(pool.servers[0], Health.UP, "", "", 2.0)
    pool.set_health(pool.servers[0], Health.DOWN, "status", "answered 503 to GET /health", 3.0)
    assert not_ready_reason([pool], "any") is None, "it fails open"


def test_a_pool_without_checks_is_ready_at_once() -> None:
    pool = make_pool("p", 5001, is_checked=False)
    assert not_ready_reason([pool], "all") is None
    refuse(pool)
    assert not_ready_reason([pool], "any") is not None


def test_any_and_all_count_pools_whose_first_check_has_not_passed() -> None:
    good, new = make_pool("good", 5001, has_passed=True), make_pool("new", 5002)
    assert not_ready_reason([good, new], "any") is None
    assert (not_ready_reason([good, new], "all") or "").startswith("pool new waits for a server to pass")


def test_a_name_without_an_address_is_a_row_with_the_reason() -> None:
    pool = make_pool("p", 5001, has_passed=True)
    name = Name("gone.example", 90.0)
    name.servers = ("gone.example:80",)
    name.failed("Name or service not known", 95.0)
    pool.names.append(name)
    source = StatusSource("1.2.3", 10.0, {"p": pool}, {"p": "least_connections"})
    pools = source.build("running", None, 100.0)["pools"]
    assert isinstance(pools, list)
    known, row = pools[0]["servers"]
    assert (known["state"], pools[0]["usable"]) == ("up", 1)
    assert set(row) == set(known)
    assert {key: row[key] for key in ("name", "state", "health", "why", "since")} == {
        "name": "gone.example:80",
        "state": "unresolved",
        "health": "unknown",
        "why": "gone.example: Name or service not known",
        "since": 5.0,
    }
    pool.server_refused(pool.servers[0], 100.0)
    assert "gone.example:80 unresolved (gone.example: Name or service not known)" in (
        not_ready_reason([pool], "any") or ""
    )


def test_a_pool_without_addresses_is_not_ready() -> None:
    assert not_ready_reason([make_pool("dns")], "any") == "pool dns has no usable server: no address is known"


def test_the_reason_stays_short() -> None:
    pool = make_pool("big", *range(5001, 5101))
    refuse(pool)
    reason = not_ready_reason([pool], "any")
    assert reason is not None
    assert reason.endswith("and 95 more")


def test_a_process_without_pools_is_ready() -> None:
    assert not_ready_reason([], "all") is None


def test_everything_that_decides_is_in_the_status() -> None:
    servers = [Server(f"s{port}", parse_address(f"127.0.0.1:{port}"), max_inflight=4) for port in (5001, 5002, 5003)]
    strategy = LeastConnections({}, random.Random(1))
    queue = WaitQueue(100, 7.0)
    pool = Pool("p", servers, strategy, strategy, queue=queue, slow_start_s=60.0, fail_open=0.5)
    for server in servers:
        pool.set_health(server, Health.UP, "", "", 10.0)
    Lease(pool, servers[0], 99.0).release(Outcome.PUSH_BACK, 99.0, penalty_s=30.0)
    Lease(pool, servers[0], 99.0).release(Outcome.ABORTED, 99.0, quarantine_s=60.0)
    pool.server_refused(servers[1], 20.0)
    pool.set_health(servers[1], Health.UP, "", "", 85.0)
    pool.sweep(100.0)
    first, second, _ = (server_status(pool, server, 100.0, frozenset(pool.eligible())) for server in servers)
    assert (first["penalty"], first["quarantined"], first["used"], first["was_up"]) == (29.0, 1, True, True)
    assert (first["ramp"], second["ramp"]) == (None, 0.25)
    for server in servers[1:]:
        pool.set_health(server, Health.DOWN, "status", "answered 500", 100.0)
    assert pool.eligible()
    assert server_status(pool, servers[1], 100.0, frozenset(pool.eligible()))["used"] is True, "the pool fails open"
    pool.enqueue(
        CallingTicket(PickContext("192.0.2.1"), lambda lease, now: None, lambda reason: None, enqueued_at=99.5), 99.5
    )
    assert QueueStatus.of(queue, 100.0) == QueueStatus(1, 100, 0.5, 7.0)
    assert QueueStatus.of(None, 100.0) == QueueStatus()


def test_a_pool_without_servers_says_what_its_sources_lack() -> None:
    pool = make_pool("dns")
    assert not_ready_reason([pool], "any", lambda name: [f"SRV of {name}: no such name"]) == (
        "pool dns has no usable server: SRV of dns: no such name"
    )


def test_where_no_pool_is_ready_some_are_told_and_the_rest_is_counted() -> None:
    pools = []
    for number in range(SHOWN_POOLS + 20):
        strategy = LeastConnections({}, random.Random(1))
        server = Server("s", Address("127.0.0.1", 1))
        server.admin = Admin.MAINT
        pools.append(Pool(f"p{number}", [server], strategy, strategy))
    reason = not_ready_reason(pools, "all") or ""
    assert reason.count("pool p") == SHOWN_POOLS
    assert reason.endswith("; and 20 more pools")


def test_a_pool_that_the_file_no_longer_names_is_marked() -> None:
    strategy = LeastConnections({}, random.Random(1))
    pool = Pool("old", [], strategy, strategy)
    source = StatusSource("1", 0.0, {"old": pool}, {})
    pools = source.build("running", None, 1.0)["pools"]
    assert isinstance(pools, list) and pools[0]["leaving"] is False
    pool.is_leaving = True
    pools = source.build("running", None, 1.0)["pools"]
    assert isinstance(pools, list) and pools[0]["leaving"] is True


def test_who_stands_by_is_told_apart_from_who_is_usable() -> None:
    """Of five servers one is a backup, one of another zone, one of another zone and down, and two are at work."""
    pool = make_pool("p", 5001, 5002, 5003, 5004, 5005)
    pool.set_backup(pool.servers[0], True, 1.0)
    for server in pool.servers[1:3]:
        pool.set_far(server, True, 1.0)
    pool.set_health(pool.servers[2], Health.DOWN, "", "", 1.0)
    pools = StatusSource("1", 0.0, {"p": pool}, {}).build("running", None, 2.0)["pools"]
    assert isinstance(pools, list)
    assert [(told["usable"], told["standby"]) for told in pools] == [(2, 2)]
