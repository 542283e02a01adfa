"""What is made of a config before it is in use: seen by nobody, and the same object where nothing differs."""

from __future__ import annotations

import random
from pathlib import Path

from lbproxy.config.loader import load_text
from lbproxy.control.metrics import Registry
from lbproxy.process.building import Builder, Rows, TlsParts
from lbproxy.telemetry.slots import LISTENER, POOL, TRAFFIC, Slots
from tests.support.certificates import Authority

CONFIG = """
listeners: [{name: web, bind: "127.0.0.1:1", pool: app}]
pools: {app: {servers: ["127.0.0.1:9001"], circuit_breaker: {status: [418]}}}
"""
TLS = """
listeners: [{name: web, bind: "127.0.0.1:1", pool: app, tls: {cert: a.pem, key: a.key}}]
pools: {app: {servers: ["127.0.0.1:9001"], tls: {verify: false}}}
"""


def builder(text: str, registry: Registry, base_dir: str = ".", before: TlsParts | None = None) -> Builder:
    return Builder(
        load_text(text, "test.yaml", {}).config,
        Rows(Slots(), registry),
        rng=random.Random(1),
        dial_failed=lambda pool, server, fault: None,
        strategy_failed=lambda pool, error: None,
        base_dir=base_dir,
        before=before,
    )


def test_counters_are_shown_when_the_config_is_in_use() -> None:
    registry = Registry("test")
    made = builder(CONFIG, registry)
    pool = made.pool("app")
    runtime = made.listener(made.config.listeners[0], {"app": pool})
    assert registry.row(POOL, ("app",)) is None and registry.row(LISTENER, ("web",)) is None
    made.rows.show()
    assert registry.row(POOL, ("app",)) is pool.row and registry.row(LISTENER, ("web",)) is runtime.row
    assert registry.row(TRAFFIC, ("web", "app")) is runtime.routes[0].traffic
    again = builder(CONFIG, registry)
    assert again.listener(again.config.listeners[0], {"app": pool}).row is runtime.row, "and go on after a reload"


def test_a_route_goes_by_its_own_configs_failures_whatever_the_pool_has_now() -> None:
    registry = Registry("test")
    made = builder(CONFIG, registry)
    pool = made.pool("app")
    assert made.listener(made.config.listeners[0], {"app": pool}).routes[0].notable_from == 418
    other = builder(CONFIG.replace("418", "503"), registry)
    assert other.listener(other.config.listeners[0], {"app": pool}).routes[0].notable_from == 429


def test_tls_that_is_asked_for_in_the_same_words_is_the_same(tmp_path: Path) -> None:
    Authority(tmp_path).issue("a", "h.example")
    registry = Registry("test")
    first = builder(TLS, registry, str(tmp_path))
    pool = first.pool("app")
    one = first.listener(first.config.listeners[0], {"app": pool})
    same = builder(TLS.replace("{app: {", "{app: {timeouts: {read: 9s}, "), registry, str(tmp_path), first.tls)
    assert same.pool_settings("app").tls is pool.tls
    assert same.listener(same.config.listeners[0], {"app": pool}).tls is one.tls
    assert [item.name for item in same.tls.watched] == [item.name for item in first.tls.watched]
    other = builder(TLS.replace("a.key", "a.key, min_version: '1.3'"), registry, str(tmp_path), first.tls)
    assert other.pool_settings("app").tls is pool.tls
    assert other.listener(other.config.listeners[0], {"app": pool}).tls is not one.tls
