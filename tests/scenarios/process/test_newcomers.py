"""Who comes while listening sockets are about to close is not accepted and not reset: it waits, or goes elsewhere."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lbproxy.process.newcomers import held_off


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_nobody_comes_and_who_is_there_stays(family: int, host: str) -> None:
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.socket(family) as late,
        socket.create_connection(listener.getsockname()[:2]) as early,
    ):
        with held_off([listener.fileno()]):
            late.setblocking(False)
            with pytest.raises(BlockingIOError):  # on loopback a handshake is over within connect(2) if it is let in
                late.connect(listener.getsockname()[:2])
            accepted, _ = listener.accept()
            with accepted:
                early.sendall(b"before")
                assert accepted.recv(10) == b"before"
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
        with socket.create_connection(listener.getsockname()[:2]):
            pass  # who has the socket still, accepts again


def test_sockets_may_close_meanwhile_and_others_are_left_alone(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
        unix.bind(str(tmp_path / "a.sock"))
        unix.listen()
        address = tcp.getsockname()
        with held_off([unix.fileno(), tcp.fileno()]):
            tcp.close()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "a.sock"))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
    assert len(os.listdir("/proc/self/fd")) == before


def test_two_that_have_the_same_socket_may_hold_it_at_once() -> None:
    """As workers with a socket of the service manager's do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with held_off([listener.fileno()]), held_off([listener.fileno()]):
            pass
        with socket.create_connection(listener.getsockname()) as client:
            accepted, peer = listener.accept()
            with accepted:
                assert peer == client.getsockname(), "who comes afterwards is let in"
