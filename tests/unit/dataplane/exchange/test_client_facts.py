"""What a connection says of its client, and what servers are told of that."""

from __future__ import annotations

from typing import Any

import pytest

from lbproxy.dataplane.exchange.client_facts import MOST_PEERS, ClientFacts
from lbproxy.dataplane.exchange.ports import Underway
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.protocol.message import Field
from lbproxy.protocol.proxy_protocol import ProxyHeader
from tests.support.fake_transport import FakeLb

CONFIG = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
trusted_proxies: [192.0.2.0/24]
pools: {app: {servers: ["127.0.0.1:9001"], health_check: off}}
"""
HEAD = b"GET /a HTTP/1.1\r\nHost: h\r\n%b\r\n"
LOCAL = ("198.51.100.1", 443)


def facts_of(lb: FakeLb, peer: object, local: object = LOCAL, **known: Any) -> ClientFacts:
    facts = ClientFacts(lb.listener.runtime, **known)
    assert facts.peer_ip == "", "nobody was counted by an address yet"
    facts.connected(peer, local)
    return facts


def told(lb: FakeLb, facts: ClientFacts, said: bytes = b"") -> bytes:
    prepared = prepare(
        lb.listener.runtime, HEAD % said, is_trusted=facts.is_trusted, log_format=None, local_host=facts.local_host
    )
    request = Underway(prepared, b"X-Request-ID: 1\r\n")
    return facts.forwarding_lines(request) + facts.own_lines(request)


@pytest.mark.parametrize(
    ("peer", "local", "proxied", "address", "peer_ip", "local_host"),
    [
        (("203.0.113.9", 1), LOCAL, None, "203.0.113.9", "203.0.113.9", "198.51.100.1:443"),
        (("::ffff:203.0.113.9", 1, 0, 0), ("::1", 80, 0, 0), None, "203.0.113.9", "203.0.113.9", "localhost"),
        ("", "/run/web.sock", None, "unix", "unknown", "localhost"),
        (None, LOCAL, None, "unix", "unknown", "198.51.100.1:443"),
        ("", "/run/web.sock", ProxyHeader(("203.0.113.9", 1), LOCAL), "203.0.113.9", "203.0.113.9", "localhost"),
        (("203.0.113.1", 1), LOCAL, ProxyHeader(is_unix=True), "unix", "unknown", "198.51.100.1:443"),
    ],
    ids=["v4", "v4 as v6", "unix", "gone", "proxied on unix", "unix behind a proxy"],
)
def test_who_it_is(
    peer: object, local: object, proxied: ProxyHeader | None, address: str, peer_ip: str, local_host: str
) -> None:
    with FakeLb(CONFIG) as lb:
        facts = facts_of(lb, peer, local, proxied=proxied)
        assert (facts.address, facts.peer_ip, facts.local_host) == (address, peer_ip, local_host)
        assert not facts.is_trusted


@pytest.mark.parametrize(
    ("known", "lines"),
    [
        ({}, b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: 80\r\n"),
        (
            {"scheme": b"https", "cert_fields": [(b"X-Client-Cert-Verify", b"NONE")]},
            b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Client-Cert-Verify: NONE\r\n"
            b"X-Forwarded-Port: 443\r\n",
        ),
        (
            {"proxied": ProxyHeader(("203.0.113.9", 1), ("198.51.100.1", 8443))},
            b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: 8443\r\n",
        ),
    ],
    ids=["plain", "TLS", "PROXY header"],
)
def test_what_servers_are_told(known: dict[str, bytes | list[Field] | ProxyHeader], lines: bytes) -> None:
    with FakeLb(CONFIG) as lb:
        facts = facts_of(lb, ("203.0.113.9", 1), **known)
        assert told(lb, facts) == lines + b"X-Forwarded-Host: h\r\nX-Request-ID: 1\r\n"
        assert told(lb, facts, b"X-Forwarded-For: 198.51.100.9\r\n") == told(lb, facts), "a stranger is not believed"


def test_a_trusted_peer_speaks_for_others() -> None:
    with FakeLb(CONFIG) as lb:
        facts = facts_of(lb, ("192.0.2.7", 1))
        assert facts.is_trusted and facts.address == "192.0.2.7"
        said = b"X-Forwarded-For: 198.51.100.9, 203.0.113.5\r\n"
        assert told(lb, facts, said).startswith(b"X-Forwarded-Host: h\r\n")
        assert b"X-Forwarded-For: 198.51.100.9, 203.0.113.5, 192.0.2.7\r\n" in told(lb, facts, said)
        assert facts.address_behind({b"x-forwarded-for": [b"198.51.100.9, 203.0.113.5"]}) == "203.0.113.5"
        assert facts.address_behind({}) == "192.0.2.7"


@pytest.mark.parametrize(
    ("peer", "proxied", "is_trusted"),
    [
        ("", None, True),
        ("/run/nginx.sock", None, True),
        ("", ProxyHeader(), True),  # it says nothing of another client
        ("", ProxyHeader(is_unix=True), False),  # whoever is on a socket of the balancer's
        ("", ProxyHeader(("203.0.113.9", 1), LOCAL), False),
        ("", ProxyHeader(("192.0.2.9", 1), LOCAL), True),
        (None, None, False),  # a TCP peer that has gone already
        (("203.0.113.9", 1), None, False),
        (("203.0.113.9", 1), ProxyHeader(is_unix=True), False),
    ],
)
def test_unix_trusts_peers_on_unix_sockets(peer: object, proxied: ProxyHeader | None, is_trusted: bool) -> None:
    with FakeLb(CONFIG.replace("[192.0.2.0/24]", "[192.0.2.0/24, unix]")) as lb:
        assert facts_of(lb, peer, proxied=proxied).is_trusted is is_trusted


def test_a_trusted_peer_on_a_unix_socket_speaks_for_others_or_for_nobody() -> None:
    with FakeLb(CONFIG.replace("[192.0.2.0/24]", "[unix]")) as lb:
        facts = facts_of(lb, "")
        assert b"X-Forwarded-For: 203.0.113.5, unknown\r\n" in told(lb, facts, b"X-Forwarded-For: 203.0.113.5\r\n")
        assert facts.address_behind({b"x-forwarded-for": [b"198.51.100.9, 203.0.113.5"]}) == "203.0.113.5"
        assert facts.address_behind({}) == "unix"


def test_what_an_address_comes_to_is_kept_for_its_next_connections() -> None:
    with FakeLb(CONFIG) as lb:
        known = lb.listener.runtime.peers
        first = facts_of(lb, ("192.0.2.7", 1))
        again = facts_of(lb, ("192.0.2.7", 2))
        assert first.is_trusted and again.is_trusted and list(known) == ["192.0.2.7"]
        secure = facts_of(lb, ("192.0.2.7", 3), scheme=b"https")
        assert b"X-Forwarded-Proto: https\r\n" in told(lb, secure, b"") and len(known) == 1
        assert b"X-Forwarded-Proto: http\r\n" in told(lb, facts_of(lb, ("192.0.2.7", 4)))


def test_of_strangers_so_many_are_kept_and_no_more() -> None:
    with FakeLb(CONFIG) as lb:
        for number in range(2 * MOST_PEERS):
            facts = facts_of(lb, (f"198.51.{number >> 8}.{number & 255}", 1))
            assert not facts.is_trusted and facts.peer_ip == f"198.51.{number >> 8}.{number & 255}"
        assert len(lb.listener.runtime.peers) <= MOST_PEERS
