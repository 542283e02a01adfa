"""Which header introduces which client. That it is sent first is shown by the scenarios."""

from __future__ import annotations

from typing import Any, cast

import pytest

from lbproxy.dataplane.server.introduction import introduction
from lbproxy.protocol.proxy_protocol import OWN_ADDRESSES, Endpoint, ProxyHeader, build
from tests.support.fake_transport import FakeLb

CONFIG = """
listeners: [{bind: "127.0.0.1:5000", mode: tcp, pool: app}]
pools: {app: {servers: ["127.0.0.1:9001"], proxy_protocol: "VERSION"}}
"""
PEER, LOCAL = ("192.0.2.7", 40000), ("198.51.100.1", 443)
OUTER = ProxyHeader(("203.0.113.9", 1234), ("203.0.113.1", 80))


class Client:
    """The ends of a connection; both are what a transport says."""

    def __init__(self, peer: object = PEER, local: object = LOCAL, proxied: ProxyHeader | None = None) -> None:
        self.transport = cast(Any, self)
        self.proxied = proxied
        self._names = {"peername": peer, "sockname": local}

    def get_extra_info(self, name: str) -> object:
        return self._names[name]


def introduced(client: Client, version: str = "v1") -> bytes:
    with FakeLb(CONFIG.replace("VERSION", version)) as lb:
        return introduction(lb.wiring.pools["app"], client.transport, client.proxied)


def test_no_header_without_the_option() -> None:
    assert introduced(Client(), "off") == b""


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("client", "source", "destination"),
    [
        (Client(), PEER, LOCAL),
        (Client(("2001:db8::7", 1, 0, 0), ("2001:db8::1", 2, 0, 0)), ("2001:db8::7", 1), ("2001:db8::1", 2)),
        (Client("", "/run/front.sock"), None, None),
        (Client(None, LOCAL), None, LOCAL),
        (Client(proxied=OUTER), OUTER.source, OUTER.destination),
        (Client(proxied=OWN_ADDRESSES), PEER, LOCAL),
        (Client(proxied=ProxyHeader(is_unix=True)), None, None),
        (Client("", "/run/front.sock", proxied=OUTER), OUTER.source, OUTER.destination),
    ],
    ids=["v4", "v6", "unix", "gone", "behind a proxy", "the proxy itself", "unix behind a proxy", "proxy on unix"],
)
def test_the_client_s_real_ends_are_named(
    client: Client, source: Endpoint | None, destination: Endpoint | None, version: str
) -> None:
    assert introduced(client, version) == build(version, source, destination)
