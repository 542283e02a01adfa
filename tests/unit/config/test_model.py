"""Defaults are the contract: the table below is typed from it, in the units that code sees."""

from __future__ import annotations

import ast
import ipaddress
from pathlib import Path

import pytest
from pydantic import ValidationError

import lbproxy.config.model
from lbproxy.address import Address
from lbproxy.config.loader import ConfigError, load_text
from lbproxy.config.model import Config, Listener, Pool, Route

SMALL = "listeners:\n  - bind: ':5000'\n    pool: p\npools:\n  p: {servers: ['127.0.0.1:5001']}\n"


def config(text: str = SMALL) -> Config:
    return load_text(text, "lb.yaml", {}).config


def pool(extra: str) -> Pool:
    text = f"listeners: [{{bind: ':1', pool: p}}]\npools:\n  p:\n    {extra}\n"
    if "servers:" not in extra:
        text += "    servers: ['a:2']\n"
    return config(text).pools["p"]


def listener(extra: str) -> Listener:
    return config(f"listeners:\n  - {extra}\npools: {{p: {{servers: ['a:2']}}}}\n").listeners[0]


def test_defaults_of_the_process() -> None:
    made = config()
    assert made.workers == 1
    assert made.admin.bind == Address("127.0.0.1", 8404)
    assert (made.admin.token, made.admin.ready) == (None, "any")
    assert made.access_log is not None
    assert (made.access_log.path, made.access_log.format) == ("stdout", "json")
    assert (made.log.level, made.log.format) == ("info", "text")
    assert (made.shutdown.delay, made.shutdown.grace) == (0.0, 25.0)
    assert (made.limits.connections, made.limits.buffered_bytes) == (None, 256 << 20)
    assert made.trusted_proxies == ()


def test_defaults_of_a_listener() -> None:
    made = config().listeners[0]
    assert (made.name, made.bind) == ("0.0.0.0:5000", (Address("0.0.0.0", 5000),))
    assert (made.mode, made.pool, made.routes) == ("http", "p", ())
    assert (made.half_close, made.underscore_headers, made.mode_bits) == ("abort", "drop", 0o660)
    times = made.timeouts
    assert (times.tls_handshake, times.request_head, times.request_body) == (5.0, 10.0, 30.0)
    assert (times.keep_alive, times.write) == (75.0, 30.0)
    limits = made.limits
    assert (limits.head_bytes, limits.headers, limits.trailer_bytes, limits.chunk_overhead) == (32768, 100, 8192, 16384)
    assert (limits.body_bytes, limits.connections_per_ip, limits.min_rate, limits.handshakes) == (
        None,
        None,
        None,
        1000,
    )


def test_defaults_of_a_pool() -> None:
    made = config().pools["p"]
    assert (made.strategy.name, made.strategy.python, dict(made.strategy.options)) == ("least_connections", None, {})
    (server,) = made.servers
    assert (server.address, server.name, server.weight) == (Address("127.0.0.1", 5001), "127.0.0.1:5001", 1)
    assert (server.max_inflight, server.backup, made.dns.interval) == (None, False, 5.0)
    times = made.timeouts
    assert (times.connect, times.tls_handshake, times.response_head, times.read) == (3.0, 3.0, 60.0, 60.0)
    assert (times.write, times.total, times.tunnel, times.half_closed) == (30.0, None, 600.0, 30.0)
    assert made.keep_alive is not None
    kept = made.keep_alive
    assert (kept.idle, kept.idle_timeout, kept.max_requests, kept.max_age) == (64, 60.0, None, None)
    assert (made.limits.head_bytes, made.limits.headers, made.limits.interim_responses) == (65536, 200, 16)
    assert (made.fail_open, made.slow_start, made.max_inflight, made.headers) == (0.0, 0.0, None, None)


def test_defaults_of_checks_and_retries() -> None:
    made = config().pools["p"]
    check = made.health_check
    assert check is not None
    assert (check.type, check.method, check.path, check.port) == ("tcp", "GET", "/", None)
    assert (check.interval, check.timeout, check.rise, check.fall) == (2.0, 2.0, 2, 3)
    assert check.expect.status == ((200, 399),)
    retry = made.retry
    assert (retry.attempts, retry.on, retry.status, retry.idempotent) == (2, ("connect", "reset"), (), False)
    assert (retry.body_bytes, retry.unacked, retry.idempotency_key) == (1 << 20, "auto", False)
    assert (retry.budget.ratio, retry.budget.min, retry.backoff.base, retry.backoff.max) == (0.2, 3, 0.025, 0.25)


def test_off() -> None:
    made = config("admin: {bind: off, token: off}\naccess_log: off\n" + SMALL)
    assert (made.admin.bind, made.admin.token, made.access_log) == (None, None, None)
    made_pool = pool("{health_check: off, keep_alive: off, fail_open: off, retry: off, servers: ['a:1']}")
    assert (made_pool.health_check, made_pool.keep_alive, made_pool.fail_open) == (None, None, None)
    assert made_pool.retry.attempts == 0


def test_forms_of_a_health_check() -> None:
    path = pool("health_check: /health?full=1").health_check
    assert path is not None
    assert (path.type, path.path) == ("http", "/health?full=1")
    tcp = pool('health_check: {send: "PING\\n", expect: PONG}').health_check
    assert tcp is not None
    assert (tcp.type, tcp.send, tcp.expect.text) == ("tcp", "PING\n", "PONG")
    assert pool("health_check: tcp").health_check == pool("fail_open: 0").health_check
    http = pool("health_check: {type: http, expect: {status: [200, 300-304], body: ok}}").health_check
    assert http is not None
    assert (http.expect.status, http.expect.body) == (((200, 200), (300, 304)), "ok")


def test_forms_of_a_listener() -> None:
    made = listener("{bind: [':1', 'unix:@x', '[::]:0'], pool: p, name: web, mode_bits: '0600'}")
    assert made.bind == (Address("0.0.0.0", 1), Address("", 0, "@x"), Address("::", 0))
    assert (made.name, made.mode_bits) == ("web", 0o600)
    assert made.effective_routes() == (Route(pool="p"),)


def test_routes() -> None:
    made = listener(
        "{bind: ':1', routes: [{match: {host: '*.X.org', methods: GET, headers: {X-N: 010}}, pool: p, retry: off}, "
        "{pool: p}]}"
    )
    first, last = made.effective_routes()
    assert first.match is not None
    assert (first.match.host, first.match.methods, dict(first.match.headers)) == ("*.x.org", ("GET",), {"X-N": "010"})
    assert first.retry is not None
    assert (first.retry.attempts, first.retry.on, first.retry.idempotent) == (0, None, None)
    assert (last.match, last.pool, last.timeouts) == (None, "p", None)


def test_networks() -> None:
    made = config("trusted_proxies: [10.0.0.0/8, '::1']\n" + SMALL)
    assert made.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))
    assert config("trusted_proxies: [unix, 10.0.0.0/8]\n" + SMALL).trusted_proxies[0] == "unix"


def test_models_are_frozen() -> None:
    made = config()
    with pytest.raises(ValidationError, match="frozen"):
        made.workers = 2
    with pytest.raises(ValidationError, match="frozen"):
        made.pools["p"].timeouts.read = 1.0


def test_models_import_neither_yaml_nor_io() -> None:
    forbidden = {"yaml", "asyncio", "socket", "ssl", "time", "random", "aiohttp", "prometheus_client"}
    pending, seen = ["lbproxy.config.model"], set[str]()
    root = Path(lbproxy.config.model.__file__).parents[2]
    while pending:
        name = pending.pop()
        seen.add(name)
        tree = ast.parse(root.joinpath(*name.split(".")).with_suffix(".py").read_text())
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not forbidden & {imported.split(".")[0] for imported in names}, name
            pending += [n for n in names if n.startswith("lbproxy.") and n not in seen and n != "lbproxy.config"]
    assert "lbproxy.config.notation" in seen


@pytest.mark.parametrize("text", ["off", "false", "{bind: off}"])
def test_the_admin_address_can_be_off_as_a_whole(text: str) -> None:
    assert load_text(f"admin: {text}\n{SMALL}", "lb.yaml", {}).config.admin.bind is None


def test_a_secret_is_kept_as_it_was_written() -> None:
    found = load_text(f"admin: {{token: '${{T}}'}}\n{SMALL}", "lb.yaml", {"T": "aB3/+=~x"}).config
    assert found.admin.token == "aB3/+=~x"


def test_named_tokens() -> None:
    text = "admin: {tokens: {ci: s3cret, reader: {token: other, scope: read}, nobody: off}, hosts: LB.example}\n"
    found = load_text(text.replace("hosts: LB.example", "hosts: [LB.example]") + SMALL, "lb.yaml", {}).config.admin
    assert {name: (item.token, item.scope) for name, item in found.tokens.items()} == {
        "ci": ("s3cret", "write"),
        "reader": ("other", "read"),
        "nobody": (None, "write"),
    }
    assert found.hosts == ("lb.example",)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ("{a: x, b: x}", "admin.tokens.b: is the same as admin.tokens.a; give each its own"),
        ("{a: ''}", "the secret is empty"),
        ("{a: {token: x, scope: all}}", "admin.tokens.a.scope"),
        ("{a: {scope: read}}", "admin.tokens.a.token"),
        ("{'a b': x}", "expected a name of 1 to 128 printable characters without spaces"),
    ],
)
def test_tokens_that_are_refused(tokens: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_text(f"admin: {{tokens: {tokens}}}\n{SMALL}", "lb.yaml", {})
    assert said in str(refused.value)
