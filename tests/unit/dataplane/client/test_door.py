"""A connection needs no listener to come through: anything that is a Door will do."""

from __future__ import annotations

from lbproxy.dataplane.client.door import Door
from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from tests.support.fake_transport import CLIENT, FakeLb, FakeTransport, Peer, ok, post


class Hole(Door):
    """Counts who leaves."""

    def __init__(self, lb: FakeLb) -> None:
        self.services = lb.services
        self.runtime = lb.listener.runtime
        self.memo, self.memo_trusted = lb.listener.memo, lb.listener.memo_trusted
        self.left: list[str] = []

    def connection_closed(self, ip: str) -> None:
        self.left.append(ip)


def test_a_request_through_something_else_than_a_listener() -> None:
    with FakeLb() as lb:
        hole = Hole(lb)
        protocol = Http1Connection(hole, ClientFacts(hole.runtime))
        client = Peer(lb.loop, FakeTransport(lb.loop, protocol, CLIENT, ("127.0.0.1", 5000)))
        protocol.connection_made(client.transport)
        lb.exchange(client, post()).send(ok(b"through"))
        assert client.got().endswith(b"through") and hole.left == []
        client.fin()
        lb.loop.run()
        assert hole.left == [CLIENT[0]]
