"""From the config to the data plane: every setting arrives where it is read, and rows follow the membership."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lbproxy import errors
from lbproxy.address import parse_address
from lbproxy.config.loader import load_text
from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable
from lbproxy.control.file_watch import signature
from lbproxy.control.metrics import Registry
from lbproxy.dataplane.runtime import KeepAliveSettings, ListenerRuntime
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.server import Server
from lbproxy.domain.states import REFUSED, Health
from lbproxy.domain.strategies.base import PickContext
from lbproxy.errors import Fault
from lbproxy.process.settings import PASSIVE_RETRY_S, pool_timeouts
from lbproxy.process.wiring import Wiring
from lbproxy.telemetry.slots import LISTENER, POOL, SERVER, TRAFFIC, Slots
from tests.support.certificates import Authority
from tests.support.listeners import wiring_of

CONFIG = """
trusted_proxies: [10.0.0.0/8]
listeners:
- name: web
  bind: "127.0.0.1:5000"
  half_close: answer
  underscore_headers: reject
  timeouts: {request_head: 1s, request_body: 2s, keep_alive: 3s, write: 4s}
  limits: {head_bytes: 2KiB, headers: 20, body_bytes: 3KiB, connections_per_ip: 5,
           trailer_bytes: 1KiB, chunk_overhead: 2KiB}
  routes:
  - match: {path_prefix: /a}
    pool: app
    timeouts: {read: 9s}
    retry: {attempts: 5, idempotent: true}
    rewrite: {strip_prefix: /a, path_prefix: /b}
    headers: {request: {set: {X-One: route}, remove: [X-Two]}, response: {add: {X-Three: "3"}}}
  - {match: {path: /gone}, redirect: {status: 308, location: /x}}
  - {respond: {status: 503, body: closed, headers: {A: b}}}
- {name: raw, bind: "127.0.0.1:5001", mode: tcp, pool: other}
pools:
  app:
    servers: [{address: "127.0.0.1:1", name: one, weight: 3}, "unix:/run/two", "name.example:80"]
    strategy: round_robin
    health_check: off
    fail_open: off
    timeouts: {connect: 1s, response_head: 2s, read: 3s, write: 4s, tunnel: 5s, half_closed: 6s}
    retry: {attempts: 1, on: [connect], body_bytes: 7KiB, unacked: off}
    keep_alive: {idle: 2, idle_timeout: 3s, max_requests: 4, max_age: 5s}
    limits: {head_bytes: 1KiB, headers: 10, interim_responses: 2}
    headers: {request: {set: {X-One: pool, X-Four: "4"}}}
  other: {servers: ["127.0.0.1:2"], keep_alive: off, health_check: {interval: 3s, timeout: 1s}}
"""


class Built:
    """A wiring and what it told."""

    def __init__(self, text: str = CONFIG, seed: int = 1) -> None:
        self.config: Config = load_text(text, "test.yaml", {}).config
        self.slots, self.registry = Slots(), Registry("test")
        self.dial_faults: list[tuple[str, str, Fault]] = []
        self.failures: list[tuple[str, Exception]] = []
        self.wiring = Wiring(
            self.config,
            self.slots,
            self.registry,
            rng=random.Random(seed),
            dial_failed=lambda pool, server, fault: self.dial_faults.append((pool.name, server.name, fault)),
            strategy_failed=lambda pool, error: self.failures.append((pool, error)),
            base_dir=".",
        )
        self.pools = self.wiring.build_pools()

    def listener(self, index: int = 0) -> ListenerRuntime:
        return self.wiring.build_listener(self.config.listeners[index])


def test_a_pool_has_its_settings() -> None:
    built = Built()
    app = built.pools["app"]
    assert app.keep_alive == KeepAliveSettings(2, 3.0, 4, 5.0, ping_s=30.0)
    assert (app.head_bytes, app.max_fields, app.max_interim) == (1024, 10, 2)
    timeouts = pool_timeouts(built.config.pools["app"])
    assert (timeouts.connect, timeouts.response_head, timeouts.read) == (1.0, 2.0, 3.0)
    assert (timeouts.write, timeouts.tunnel, timeouts.half_closed) == (4.0, 5.0, 6.0)
    assert app.pool.members.fail_open is None and app.pool.members.passive_retry_s == PASSIVE_RETRY_S
    other = built.pools["other"]
    assert other.keep_alive is None and other.pool.members.passive_retry_s is None
    assert app.retry_after_s == PASSIVE_RETRY_S and other.retry_after_s == 4


def test_servers_with_an_address_are_there_and_names_wait_for_discovery() -> None:
    built = Built()
    servers = built.pools["app"].pool.servers
    assert [(server.name, server.weight, server.key) for server in servers] == [
        ("one", 3, "127.0.0.1:1"),
        ("unix:/run/two", 1, "unix:/run/two"),
    ]
    assert all(runtime.is_direct for runtime in built.pools["app"].servers.values())


def test_a_listener_has_its_settings() -> None:
    built = Built()
    web = built.listener()
    assert (web.name, web.mode, web.head_bytes, web.max_fields, web.body_bytes) == ("web", "http", 2048, 20, 3072)
    assert (web.trailer_bytes, web.chunk_overhead, web.connections_per_ip) == (1024, 2048, 5)
    assert (web.underscores, web.answers_half_closed, web.has_default_only) == ("reject", True, False)
    timeouts = web.timeouts
    assert (timeouts.request_head, timeouts.request_body, timeouts.keep_alive, timeouts.write) == (1, 2, 3, 4)
    assert web.is_trusted("10.1.2.3") and web.is_trusted("::ffff:10.1.2.3") and not web.is_trusted("11.0.0.1")
    assert built.listener(1).mode == "tcp" and built.listener(1).has_default_only


def test_a_route_s_settings_stand_over_its_pool_s() -> None:
    built = Built()
    route = built.listener().routes[0]
    assert route.pool is built.pools["app"]
    assert route.timeouts is not None and (route.timeouts.read, route.timeouts.write) == (9.0, 4.0)
    retry = route.retry
    assert (retry.attempts, retry.idempotent, retry.on_connect, retry.on_reset) == (5, True, True, False)
    assert (retry.body_bytes, retry.unacked, retry.on_timeout) == (7168, "off", False)
    assert (route.strip_prefix, route.path_prefix) == ("/a", "/b")
    assert route.request_edits.apply([(b"x-one", b"0"), (b"X-Two", b"0"), (b"Y", b"0")]) == [
        (b"Y", b"0"),
        (b"X-Four", b"4"),
        (b"X-One", b"route"),
    ]
    assert route.skip == {b"x-one", b"x-two", b"x-four"}
    assert route.response_edits.add == ((b"X-Three", b"3"),) and route.edits_responses


def test_routes_without_a_pool() -> None:
    _, gone, closed = Built().listener().routes
    assert gone.redirect == (308, b"/x") and gone.pool is None
    assert closed.respond == (503, ((b"A", b"b"),), b"closed")


def test_off_is_no_limit() -> None:
    built = Built("""
listeners: [{bind: "127.0.0.1:1", pool: p, limits: {body_bytes: off}}]
pools: {p: {servers: ["127.0.0.1:2"], keep_alive: {max_age: off}}}
""")
    web = built.listener()
    assert web.body_bytes == web.connections_per_ip == float("inf")
    keep_alive = built.pools["p"].keep_alive
    assert keep_alive is not None and keep_alive.max_age_s == keep_alive.max_requests == float("inf")
    assert not keep_alive.is_limited


def test_rows_follow_the_membership() -> None:
    built = Built()
    app = built.pools["app"]
    server = Server("three", parse_address("10.9.9.9:80"))
    built.wiring.add(app.pool, server)
    assert built.registry.row(SERVER, ("app", "three")) is app.servers[server].row
    lease = app.pool.acquire(PickContext(""), tuple(app.pool.servers[:2]), 0.0)
    assert isinstance(lease, Lease) and lease.server is server
    built.wiring.remove(app.pool, server)
    assert server not in app.pool.servers
    built.wiring.sweep(1.0)
    assert server in app.servers  # its last request is still there
    lease.release(Outcome.SUCCESS, 2.0)
    built.wiring.sweep(2.0)
    assert server not in app.servers
    assert built.registry.row(SERVER, ("app", "three")) is None


def test_a_server_that_leaves_and_comes_back_starts_anew() -> None:
    built = Built()
    app = built.pools["app"]
    for _ in range(3):
        server = Server("three", parse_address("10.9.9.9:80"))
        built.wiring.add(app.pool, server)
        assert not any(app.servers[server].row)
        app.servers[server].row[0] += 1
        built.wiring.remove(app.pool, server)
        built.wiring.sweep(1.0)
    assert len(app.servers) == len(app.pool.servers) == 2


def test_a_server_may_come_back_before_its_last_request_is_done() -> None:
    built = Built()
    app = built.pools["app"]
    old, new = (Server("three", parse_address("10.9.9.9:80")) for _ in range(2))
    built.wiring.add(app.pool, old)
    lease = app.pool.acquire(PickContext(""), tuple(app.pool.servers[:2]), 0.0)
    assert isinstance(lease, Lease) and lease.server is old
    built.wiring.remove(app.pool, old)
    built.wiring.add(app.pool, new)
    lease.release(Outcome.SUCCESS, 1.0)
    built.wiring.sweep(1.0)
    assert old not in app.servers
    assert built.registry.row(SERVER, ("app", "three")) is app.servers[new].row


def test_all_rows_are_registered() -> None:
    built = Built()
    web = built.listener()
    assert built.registry.row(POOL, ("app",)) is built.pools["app"].row
    assert built.registry.row(LISTENER, ("web",)) is web.row
    assert built.registry.row(TRAFFIC, ("web", "app")) is web.routes[0].traffic
    assert web.routes[1].traffic is web.routes[2].traffic is web.no_route.traffic


def test_connections_are_shown_by_state() -> None:
    built = Built()
    runtime = next(iter(built.pools["app"].servers.values()))
    runtime.n_connections = 3
    assert (("app", "one", "active"), 3) in list(built.wiring.upstream_connections())
    assert (("app", "one", "idle"), 0) in list(built.wiring.upstream_connections())


def test_a_failed_dial_is_told_with_its_pool() -> None:
    built = Built()
    app = built.pools["app"]
    app.dial_failed(app.pool.servers[0], errors.CONNECT_REFUSED)
    assert built.dial_faults == [("app", "one", errors.CONNECT_REFUSED)]


def test_a_sweep_gives_refused_servers_another_chance() -> None:
    built = Built()
    app = built.pools["app"].pool
    app.server_refused(app.servers[0], 100.0)
    assert app.servers[0].down_reason == REFUSED
    built.wiring.sweep(100.0 + PASSIVE_RETRY_S)
    assert app.servers[0].health is Health.UNKNOWN


def test_a_strategy_that_cannot_be_made_names_its_pool() -> None:
    with pytest.raises(Unusable, match="no_such_module") as caught:
        Built("""
listeners: [{bind: "127.0.0.1:1", pool: p}]
pools: {p: {servers: ["127.0.0.1:2"], strategy: {python: "no_such_module:Pick"}}}
""")
    assert caught.value.path == ("pools", "p", "strategy", "python")


# --- TLS ------------------------------------------------------------------------------------------------------------

TLS_CONFIG = """
listeners:
- {name: web, bind: ":1", pool: app, tls: {cert: web.pem, key: web.key, client_ca: ca.pem, client_verify: optional},
   timeouts: {tls_handshake: 2s}, limits: {handshakes: 7}}
- {name: raw, bind: ":2", pool: raw, mode: tcp, tls: {certs: [{cert: web.pem, key: web.key}], min_version: 1.3}}
- {name: plain, bind: ":3", pool: plain}
- {name: own, bind: ":4", pool: own}
pools:
  app: {servers: ["a:1"], tls: {ca: ca.pem}, timeouts: {connect: 2s, tls_handshake: 3s}}
  raw: {servers: ["a:1"], tls: {verify: false}, health_check: {tls: off}}
  plain: {servers: ["a:1"]}
  own: {servers: ["a:1"], health_check: {tls: {ca: ca.pem, server_name: x.org}}}
"""


@pytest.fixture
def tls_directory(tmp_path: Path) -> Path:
    Authority(tmp_path).issue("web", "web.org")
    return tmp_path


def wired(directory: Path) -> tuple[Wiring, list[ListenerRuntime]]:
    return wiring_of(TLS_CONFIG, str(directory))


def test_tls_of_listeners(tls_directory: Path) -> None:
    wiring, (web, raw, plain, _) = wired(tls_directory)
    assert web.tls is not None
    assert raw.tls is not None
    assert plain.tls is None
    assert (web.tls.turns.limit, web.tls.timeout_s, web.tls.files.client_verify) == (7, 2.0, "optional")
    assert web.tls.files.paths == tuple(str(tls_directory / name) for name in ("web.pem", "web.key", "ca.pem"))
    # What is inside a TCP connection is not known, so nothing is promised.
    assert (web.tls.files.alpn, raw.tls.files.alpn, raw.tls.files.min_version) == (("h2", "http/1.1"), (), "1.3")
    assert [labels for labels, _ in wiring.certificate_expiries()] == [
        ("web", str(tls_directory / "web.pem")),
        ("raw", str(tls_directory / "web.pem")),
    ]


def test_tls_of_pools_and_their_checks(tls_directory: Path) -> None:
    wiring, _ = wired(tls_directory)
    app, raw, plain, own = (wiring.pools[name] for name in ("app", "raw", "plain", "own"))
    assert app.tls is not None
    assert wiring.check_tls["app"] is app.tls
    assert raw.tls is not None
    assert "raw" not in wiring.check_tls
    assert (plain.tls, own.tls) == (None, None)
    assert wiring.check_tls["own"].files.server_name == "x.org"


def test_the_time_for_a_dial_is_that_of_both_its_parts() -> None:
    pools = load_text(TLS_CONFIG, "lb.yaml", {}).config.pools
    timeouts, plain = pool_timeouts(pools["app"]), pool_timeouts(pools["plain"])
    assert (timeouts.connect, timeouts.tls_handshake, timeouts.dial) == (2.0, 3.0, 5.0)
    assert plain.dial == plain.connect


def test_every_file_is_watched(tls_directory: Path) -> None:
    wiring, _ = wired(tls_directory)
    assert [item.name for item in wiring.watched] == [
        "pool app: tls",
        "pool own: health_check.tls",
        "listener web",
        "listener raw",
    ]
    assert [item.seen for item in wiring.watched] == [signature(item.paths) for item in wiring.watched]


@pytest.mark.parametrize(
    ("file", "path"), [("web.key", ("listeners", 0, "tls", "key")), ("ca.pem", ("pools", "app", "tls", "ca"))]
)
def test_a_file_that_went_after_the_config_was_checked(
    tls_directory: Path, file: str, path: tuple[str | int, ...]
) -> None:
    (tls_directory / file).unlink()
    with pytest.raises(Unusable, match="there is no file") as caught:
        wired(tls_directory)
    assert caught.value.path == path
