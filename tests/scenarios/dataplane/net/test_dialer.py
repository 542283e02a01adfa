"""A dial to a dead port of this machine for which the kernel chooses just that port as our end, as happens."""

from __future__ import annotations

import asyncio
import socket

from lbproxy.address import Address
from lbproxy.dataplane.net.dialer import Dialer
from lbproxy.dataplane.net.poller import Poller
from lbproxy.dataplane.net.socket_transport import plain_socket
from tests.support.ports import consecutive_ports


def crashed(where: str, error: BaseException) -> None:
    raise AssertionError(where) from error


async def test_a_dial_that_meets_itself_is_refused_and_leaves_the_port_to_the_server() -> None:
    port = consecutive_ports(1)
    made: list[socket.socket] = []

    def from_that_port(family: int, kind: int) -> socket.socket:
        sock = plain_socket(family, kind)
        sock.bind(("127.0.0.1", port))
        made.append(sock)
        return sock

    loop = asyncio.get_running_loop()
    poller = Poller(loop, crashed)
    try:
        opening = Dialer(loop, poller, from_that_port).begin(Address("127.0.0.1", port))
        try:
            async with asyncio.timeout(60.0):
                await opening.connect(asyncio.Protocol, b"")
        except ConnectionRefusedError:
            pass
        else:
            raise AssertionError("it took itself for a server")
    finally:
        poller.close()
    assert made, "it did not dial"
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))  # no SO_REUSEADDR: nothing of the dial is left
        server.listen()
