"""The first lines of the log tell what runs."""

from __future__ import annotations

import logging

import pytest

from lbproxy.config.loader import load_text
from lbproxy.config.model import Config
from lbproxy.process.first_words import ReadinessLog, first_lines

CONFIG = """
listeners: [{bind: ":1", routes: [{pool: a}, {pool: b, match: {path: /x}}, {pool: c, match: {path: /y}}]}]
pools:
  a: {servers: ["127.0.0.1:5001-5002", {address: "unix:/run/a", name: local}], health_check: /h}
  b: {servers: ["h:1-20"], health_check: off, strategy: random}
  c: {servers: ["h:1"], health_check: {type: http, method: HEAD}}
"""


def config() -> Config:
    return load_text(CONFIG, "lb.yaml", {}).config


def test_the_first_lines() -> None:
    first, a, b, c = first_lines(config(), "/etc/lb.yaml", "9.8", 7)
    assert first == "lbproxy 9.8 starts, pid 7, config: /etc/lb.yaml"
    servers = "127.0.0.1:5001, 127.0.0.1:5002, local (unix:/run/a)"
    assert a == f"pool a: checked by GET /h, least_connections, servers {servers}"
    assert b.startswith("pool b: no health checks, random, servers h:1, h:2, ") and b.endswith("h:12 and 8 more")
    assert c == "pool c: checked by HEAD /, least_connections, servers h:1"


def test_sources_of_servers_are_told() -> None:
    pools = """
  a: {servers_file: s.yaml}
  b: {servers: ["h:1"], servers_file: s.yaml, dns: {srv: _p._tcp.x}, health_check: off}
  c: {discovery: {aws: {ecs: {service: s}}}}
  d: {discovery: {kubernetes: {service: predict}}}
"""
    routes = "[{pool: a}, {pool: b, match: {path: /x}}, {pool: c, match: {path: /y}}, {pool: d, match: {path: /z}}]"
    text = f"listeners: [{{bind: ':1', routes: {routes}}}]\npools:{pools}"
    _, a, b, c, d = first_lines(load_text(text, "lb.yaml", {}).config, "", "9.8", 7)
    assert a.endswith("servers those of s.yaml")
    assert b.endswith("servers h:1, those of s.yaml, those of SRV _p._tcp.x")
    assert c.endswith("servers those that AWS has")
    assert d.endswith("servers those of the Kubernetes service predict")


@pytest.mark.parametrize(("path", "said"), [("", "options of the command line"), ("-", "standard input")])
def test_where_the_config_comes_from(path: str, said: str) -> None:
    assert next(first_lines(config(), path, "1", 1)).endswith(f"config: {said}")


def test_readiness_is_told_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    told = ReadinessLog(logging.getLogger("lbproxy"), 100.0)
    for reason, now in [("no server", 101.0), ("no server", 102.0), (None, 103.5), (None, 104.0), ("gone", 105.0)]:
        told.observe(reason, now)
    told.observe(None, 106.0)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "not ready yet: no server"),
        ("INFO", "ready, 3.5 s after the start"),
        ("WARNING", "not ready: gone"),
        ("INFO", "ready again"),
    ]
