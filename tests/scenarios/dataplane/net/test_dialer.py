"""Dials without a socket object; those to a dead port of this machine for which the kernel chooses just that port as
our end, as happens; the last octets of a connection."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket

import pytest

from lbproxy import compiling
from lbproxy.address import Address
from lbproxy.dataplane.net.dialer import Dialer, target_of
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


DIALS = 60_000  # to an even port among those that the kernel chooses from: one in some 10,000 meets itself


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_is_dialled(host: str) -> None:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        family, target, name = target_of(Address(host, listening.getsockname()[1]))
        assert target == listening.getsockname()
        found = compiling.dial_now(family, name)
        assert found > 0 and found & 1, "on loopback it stands at once"
        with socket.socket(family, socket.SOCK_STREAM, 0, found >> 1) as dialled:
            assert not os.get_blocking(dialled.fileno()) and not os.get_inheritable(dialled.fileno())
            assert dialled.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            taken, peer = listening.accept()
            assert peer == dialled.getsockname()
            taken.close()
        for wrong in (b"", name[:-1], name + b"\0"):
            assert compiling.dial_now(family, wrong) == -errno.EINVAL
    before = len(os.listdir("/proc/self/fd"))
    assert compiling.dial_now(family, name) == -errno.ECONNREFUSED
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_dial_that_takes_its_time_can_be_given_up() -> None:
    """Nobody of the name is there: what stands for it is a queue that is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        address = Address("127.0.0.1", listening.getsockname()[1])
        poller = Poller(asyncio.get_running_loop(), crashed)
        dialer = Dialer(asyncio.get_running_loop(), poller)
        openings = [dialer.begin(address) for _ in range(4)]
        (waiting, *_) = [opening for opening in openings if not opening.is_open]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await waiting.connect(asyncio.Protocol, b"")
        taken, _ = listening.accept()
        taken.close()
        for opening in openings:
            opening.close()
        poller.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_no_dial_to_a_dead_port_stands(host: str) -> None:
    with open("/proc/sys/net/ipv4/ip_local_port_range") as ports:
        first, last = map(int, ports.read().split())
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as holder:
        for port in range((first + last) // 4 * 2, last, 2):
            try:
                holder.bind((host, port))
            except OSError:
                continue
            break
    family, _, name = target_of(Address(host, port))
    for _ in range(DIALS):
        found = compiling.dial_now(family, name)
        if found != -errno.ECONNREFUSED:
            assert found > 0 and found & 1
            with socket.socket(family, socket.SOCK_STREAM, 0, found >> 1) as dialled:
                assert dialled.getsockname() != dialled.getpeername(), "it took itself for a server"


def test_the_last_octets_and_the_end_are_one() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
    ):
        taken, _ = listening.accept()
        with taken:
            assert compiling.write_last(taken.fileno(), b"answer") == 6
            assert not select.select([client], [], [], 0.0)[0], "it was not kept for the end"
            assert compiling.shut_now(taken.fileno()) == 0
            assert client.recv(100) == b"answer" and client.recv(100) == b""
            client.close()
            with pytest.raises(OSError, match="Broken pipe"):
                for _ in range(100):
                    compiling.write_last(taken.fileno(), b"more" * 1000)
