"""Other settings while connections are open: the next head sees them, and what was agreed with a peer ends with it."""

from __future__ import annotations

import re

import pytest

from lbproxy.config.loader import load_text
from tests.support.fake_transport import GET, FakeLb, Peer, ok

CONFIG = """
access_log: {path: /dev/null, format: json}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools: {app: {servers: ["127.0.0.1:9001"], health_check: off}}
"""


def renew(lb: FakeLb, text: str) -> None:
    """What a reload does, without its sockets."""
    now = lb.clock()
    draft = lb.wiring.draft(load_text(text, "test.yaml", {}).config)
    lb.wiring.adopt(draft, now)
    lb.listener.renew(draft.listeners["web"])


def statuses(client: Peer) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1.1 (\d+)", client.everything)]


REFUSES = CONFIG.replace("pool: app}", "routes: [{respond: {status: 418}}]}")


def test_the_next_head_sees_the_new_routes_also_one_that_was_remembered() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        server.send(ok())
        for _ in range(3):  # the head is remembered
            client.send(GET)
            server.send(ok())
        assert statuses(client) == [200] * 4
        renew(lb, REFUSES)
        client.send(GET)
        assert statuses(client) == [200] * 4 + [418]
        renew(lb, CONFIG)
        client.send(GET)
        server.send(ok())
        assert statuses(client)[-1] == 200


def test_a_head_in_pieces_is_read_by_what_holds_when_it_is_complete() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(GET[:20])
        renew(lb, REFUSES)
        client.send(GET[20:])
        assert statuses(client) == [418]


def test_a_request_in_flight_keeps_what_it_began_with() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        renew(lb, REFUSES.replace("format: json", "format: common").replace("web,", "web,"))
        server.send(ok())
        assert statuses(client) == [200]
        assert lb.log[-1]["status"] == 200, "its line is in the format in which it was begun"


def test_a_listener_that_goes_lets_its_clients_go() -> None:
    with FakeLb(CONFIG) as lb:
        idle, busy, late = lb.connect(), lb.connect(), lb.connect()
        server = lb.exchange(busy, GET)
        lb.listener.leave(lb.clock())
        server.send(ok())
        assert statuses(busy) == [200] and b"Connection: close" in busy.everything and busy.saw_fin
        late.send(GET)
        server.send(ok()) if not server.transport.is_lost else lb.accept().send(ok())
        assert statuses(late) == [200] and late.saw_fin, "a request that was on its way is served, and is the last"
        lb.advance(0.5)
        assert not lb.listener.sweep_leaving(lb.clock()) and not idle.saw_fin
        lb.advance(1.0)
        assert idle.saw_fin
        for client in (idle, busy, late):
            client.reset()
        assert lb.listener.sweep_leaving(lb.clock())


def test_an_answer_that_had_begun_is_followed_by_a_second_of_patience() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        lb.listener.leave(lb.clock())
        server.send(b"cd")
        assert statuses(client) == [200] and not client.saw_fin
        lb.listener.sweep_leaving(lb.clock())
        lb.advance(1.5)
        assert client.saw_fin


def test_connections_to_servers_end_where_they_began_otherwise() -> None:
    """With TLS or without, or with a PROXY header: an open connection can't be changed, so it is not used again."""
    with FakeLb(CONFIG) as lb:
        one, two = lb.connect(), lb.connect()
        first = lb.exchange(one, GET)
        second = lb.exchange(two, GET)
        first.send(ok())
        assert (lb.n_idle, lb.inflight) == (1, 1)
        renew(lb, CONFIG.replace("health_check: off", "health_check: off, tls: {verify: false}"))
        assert lb.n_idle == 0 and first.saw_fin, "idle when it changed"
        second.send(ok())
        assert lb.n_idle == 0 and second.saw_fin, "in use when it changed"


def test_idle_connections_are_closed_where_none_are_kept_any_more() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        server.send(ok())
        assert lb.n_idle == 1
        renew(lb, CONFIG.replace("health_check: off", "health_check: off, keep_alive: off"))
        assert lb.n_idle == 0 and server.saw_fin
        client.send(GET)
        fresh = lb.accept()
        assert b"Connection: close" in fresh.everything
        fresh.send(ok())


@pytest.mark.parametrize("more", [b"", b"TE: trailers\r\nConnection: TE\r\n"])
def test_a_connection_whose_server_was_told_to_close_is_not_kept_under_new_settings(more: bytes) -> None:
    off = CONFIG.replace("health_check: off", "health_check: off, keep_alive: off")
    with FakeLb(off) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET.replace(b"\r\n\r\n", b"\r\n" + more + b"\r\n"))
        renew(lb, CONFIG)
        server.send(ok())  # does not say that it closes, and does so a moment later
        assert lb.n_idle == 0 and server.saw_fin
        server = lb.exchange(client, GET)
        server.send(ok())
        assert lb.n_idle == 1


def test_idle_connections_keep_to_a_shorter_time() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        server.send(ok())
        renew(lb, CONFIG.replace("health_check: off", "health_check: off, keep_alive: {idle_timeout: 2s}"))
        lb.advance(1.0)
        assert lb.n_idle == 1
        lb.advance(1.5)
        assert lb.n_idle == 0 and server.saw_fin


def test_a_limit_by_address_that_comes_later_counts_who_is_here() -> None:
    with FakeLb(CONFIG) as lb:
        lb.connect()
        renew(lb, CONFIG.replace("pool: app}", "pool: app, limits: {connections_per_ip: 1}}"))
        refused = lb.connect()
        assert statuses(refused) == [429]
