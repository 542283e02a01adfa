"""Connections that are accepted without a socket object, as compiled modules do it and as Python does."""

from __future__ import annotations

import os
import select
import socket

import pytest

from lbproxy import compiling
from lbproxy.dataplane.net.acceptor import Accepting, Acceptor


class Keeper(Accepting):
    def __init__(self) -> None:
        self.found: list[tuple[int, int, object, object]] = []

    @property
    def may_accept(self) -> bool:
        return True

    def accepted(self, fd: int, family: int, peer: object, local: object) -> None:
        self.found.append((fd, family, peer, local))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.200.30.4", "::1"])
def test_who_comes_is_accepted_with_its_address(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        listening.setblocking(False)
        keeper = Keeper()
        acceptor = Acceptor(keeper, listening)
        clients = [
            socket.create_connection(listening.getsockname()[:2], source_address=(source, 0))
            for source in ([host] if family == socket.AF_INET6 else [host, "127.0.0.1", "127.9.255.100", host])
        ]
        acceptor.ready(1)
        acceptor.ready(1)
        expected = [(family, client.getsockname(), client.getpeername()) for client in clients]
        assert [tuple(rest) for _, *rest in keeper.found] == expected
        for fd, *_ in keeper.found:
            assert not os.get_blocking(fd) and not os.get_inheritable(fd)
            os.close(fd)
        for client in clients:
            client.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_is_accepted_shut_and_closed(host: str) -> None:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setblocking(False)
        assert compiling.accept_now(listening, listening.fileno()) is None
        with socket.create_connection(listening.getsockname()[:2]) as client:
            found = compiling.accept_now(listening, listening.fileno())
            assert isinstance(found, tuple)
            fd, peer = found
            assert peer == client.getsockname()
            assert not os.get_blocking(fd) and not os.get_inheritable(fd)
            assert compiling.shut_now(fd) == 0 and client.recv(1) == b""
            assert not compiling.has_octets(fd)
            client.send(b"still open")
            select.select([fd], [], [], 5.0)
            assert compiling.has_octets(fd) and os.read(fd, 100) == b"still open"
            client.shutdown(socket.SHUT_WR)
            select.select([fd], [], [], 5.0)
            assert not compiling.has_octets(fd)
            assert compiling.close_now(fd) == 0
            assert compiling.close_now(fd) == compiling.shut_now(fd) == -1
    with socket.create_server(("127.0.0.1", 0)) as gone:
        number = gone.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        compiling.accept_now(gone, number)
