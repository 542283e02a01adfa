"""What people are told of a request's key and its cookie: the same as what happens."""

from __future__ import annotations

import random
from typing import Any

import pytest

from lbproxy.cli.explain_page import page
from lbproxy.control.explaining import Asked, Moment, explain
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin
from tests.support.listeners import wiring_of

NOW = 1000.0
WALL = 1_700_000_000.0
CONFIG = """
listeners: [{bind: ":1", pool: p}]
pools:
  p:
    servers: ["127.0.0.1:5001-5004"]
    health_check: off
    max_inflight: 4
    strategy: {name: consistent_hash, key: "KEY"}
    sticky: {cookie: lb, secret: 0123456789abcdef, wait: WAIT}
"""


class Site:
    def __init__(self, key: str = "json:/model", wait: str = "0s") -> None:
        wiring, self.listeners = wiring_of(CONFIG.replace("KEY", key).replace("WAIT", wait))
        self.runtime = wiring.pools["p"]
        self.pool = self.runtime.pool

    def told(self, cookie: str = "", **asked: Any) -> dict[str, Any]:
        headers = (("Cookie", f"lb={cookie}"),) if cookie else ()
        moment = Moment(NOW, random.Random(1), wall=WALL)
        return explain(self.listeners[0], Asked(method="POST", headers=headers, **asked), moment)

    def server(self, name: str) -> Server:
        return next(server for server in self.pool.servers if server.name == name)

    def cookie(self, server: Server) -> str:
        assert self.runtime.sticky is not None
        line = self.runtime.sticky.line(server, WALL, is_secure=False).decode()
        return line.partition("lb=")[2].partition(";")[0]


def test_whose_the_key_is() -> None:
    site = Site()
    told = site.told(body='{"model": "llama"}')
    hashed = told["pick"]["hash"]
    assert (hashed["key"], hashed["value"], hashed["why"]) == ("json:/model", "llama", "")
    assert hashed["owner"] == told["pick"]["server"]
    assert f"key json:/model is 'llama', of {hashed['owner']}" in page(told)


def test_why_it_is_not_there() -> None:
    site = Site()
    owner = site.server(site.told(body='{"model": "llama"}')["pick"]["server"])
    for act, why in (
        (lambda: setattr(owner, "inflight", 3), "has 3 in flight, more than 1.25 times its share (bounded_load)"),
        (lambda: setattr(owner, "inflight", 4), "is full (4 of 4 in flight)"),
        (lambda: site.pool.set_admin(owner, Admin.MAINT, "", NOW), "takes no requests (maint)"),
    ):
        act()
        told = site.told(body='{"model": "llama"}')
        hashed = told["pick"]["hash"]
        assert hashed["owner"] == owner.name != told["pick"]["server"]
        assert hashed["why"] == f"{owner.name} {why}: it goes to the next in the order of its key"
        assert hashed["why"] in page(told)


def test_who_stands_aside() -> None:
    site = Site()
    owner = site.server(site.told(body='{"model": "llama"}')["pick"]["server"])
    site.pool.set_far(owner, True, NOW)
    told = site.told(body='{"model": "llama"}')
    assert told["pick"]["server"] not in (owner.name, None)
    why = f"{owner.name} stands in another zone: it goes to the next in the order of its key"
    assert told["pick"]["hash"]["why"] == why
    site.pool.set_far(owner, False, NOW)
    site.pool.set_backup(owner, True, NOW)
    told = site.told(body='{"model": "llama"}')
    assert told["pick"]["server"] not in (owner.name, None)
    assert told["pick"]["hash"]["why"] == f"{owner.name} is a backup: it goes to the next in the order of its key"


def test_without_a_key() -> None:
    told = Site().told(body="no JSON")
    assert told["pick"]["hash"]["why"] == "the request has no json:/model: it goes by least connections"
    assert "key json:/model: the request has no json:/model" in page(told)
    assert told["pick"]["server"]


def test_a_client_is_a_key_too() -> None:
    told = Site("client_ip").told(peer="192.0.2.9")
    assert told["pick"]["hash"]["value"] == "192.0.2.9"
    assert told["pick"]["hash"]["owner"] == told["pick"]["server"]


@pytest.mark.parametrize("wait", ["0s", "2s"])
def test_where_the_cookie_leads(wait: str) -> None:
    site = Site(wait=wait)
    hashed = site.server(site.told(body='{"model": "a"}')["pick"]["server"])
    own = next(server for server in site.pool.servers if server is not hashed)
    cookie = site.cookie(own)

    def told() -> dict[str, Any]:
        return site.told(cookie, body='{"model": "a"}')

    assert told()["pick"]["server"] == own.name
    assert told()["pick"]["sticky"] == {"cookie": "lb", "server": own.name, "why": "its cookie names this server"}
    assert "cookie lb: its cookie names this server" in page(told())
    own.inflight = 4
    waits = "it waits for 2 s at most, and then " if wait == "2s" else "it "
    assert told()["pick"]["sticky"]["why"] == (
        f"{own.name} is full: {waits}goes elsewhere this once, and keeps its cookie"
    )
    assert told()["pick"]["server"] == hashed.name
    own.inflight = 0
    site.pool.set_admin(own, Admin.DRAIN, "", NOW, keep_sticky=True)
    assert told()["pick"]["server"] == own.name
    site.pool.set_admin(own, Admin.DRAIN, "", NOW)
    assert (
        told()["pick"]["sticky"]["why"]
        == f"{own.name} takes no requests (drain): it goes elsewhere, with another cookie"
    )
    assert told()["pick"]["server"] == hashed.name


def test_no_good_cookie() -> None:
    told = Site().told("forged")
    assert told["pick"]["sticky"] == {
        "cookie": "lb",
        "server": None,
        "why": "no cookie that is good: the answer brings one",
    }
