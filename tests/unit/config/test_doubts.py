"""What is not warned of. What is stands in warned.txt."""

from __future__ import annotations

import pytest

from lbproxy.config.loader import load_text

BASE = "listeners: [{bind: ':1', pool: p}]\npools: {p: {servers: ['10.0.0.1:80']%s}}\n%s"


def warnings(pool: str = "", top: str = "") -> list[str]:
    return [problem.path for problem in load_text(BASE % (pool, top), "f", {}).warnings]


@pytest.mark.parametrize(
    "admin",
    [
        "{bind: 127.0.0.1:8404}",
        "{bind: '[::1]:8404'}",
        "{bind: unix:/run/a}",
        "off",
        "{bind: ':8404', token: s3cret}",
        "{bind: ':8404', token: off}",
        "{bind: 'localhost:8404'}",
    ],
)
def test_admin_addresses_that_are_closed_or_meant(admin: str) -> None:
    assert warnings(top=f"admin: {admin}") == []


@pytest.mark.parametrize("admin", [":8404", "0.0.0.0:8404", "192.0.2.1:8404", "'[::]:8404'", "{bind: ':8404'}"])
def test_admin_addresses_that_are_open(admin: str) -> None:
    assert len(warnings(top=f"admin: {admin}")) == 1


@pytest.mark.parametrize(
    "pool",
    [
        ", timeouts: {tunnel: 24h, response_head: 1h, half_closed: 2h}",
        ", keep_alive: {max_age: 24h, idle_timeout: 2h}",
        ", health_check: {interval: 100ms, timeout: 50ms}",
        ", circuit_breaker: {max_open: 2h}",
    ],
)
def test_what_may_be_long_or_short(pool: str) -> None:
    assert warnings(pool) == []
