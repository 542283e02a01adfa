"""A transport of which there is only the descriptor of a connection, as the kernel accepts it."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from lbproxy.dataplane.net.poller import READABLE, WRITABLE
from lbproxy.dataplane.net.socket_transport import SocketTransport
from tests.unit.dataplane.net.test_socket_transport import FakePoller, Recorder


class Connected:
    """A connection of the kernel's: of lbproxy's end there is only the descriptor."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.peer = socket.create_connection(listening.getsockname())
            accepted, _ = listening.accept()
        self.peer.settimeout(5.0)
        accepted.setblocking(False)
        self.addresses = accepted.getpeername(), accepted.getsockname()
        self.fd = accepted.detach()
        self.poller = FakePoller()
        self.protocol = Recorder()
        self.transport = SocketTransport(self.poller, None, None, None, self.fd, int(socket.AF_INET))
        self.transport.start(self.protocol)

    @property
    def is_over(self) -> bool:
        """Has the connection been closed?"""
        later, self.poller.later = self.poller.later, []
        for pollable in later:
            pollable.batch_ended()
        try:
            os.fstat(self.fd)
        except OSError:
            return True
        return False


@pytest.fixture
def connected() -> Iterator[Connected]:
    made = Connected()
    yield made
    made.peer.close()
    made.transport.abort()
    assert made.is_over


def test_a_descriptor_is_read_written_and_closed(connected: Connected) -> None:
    connected.peer.send(b"in")
    connected.transport.ready(READABLE)
    connected.transport.write(b"out")
    connected.transport.write(bytearray(b"and"))
    connected.transport.writelines([b"more", memoryview(b"!")])
    assert connected.peer.recv(100) == b"outandmore!"
    assert connected.protocol.events == ["made", b"in"]
    connected.transport.close()
    assert connected.is_over and connected.peer.recv(1) == b""


def test_who_asks_gets_a_socket_of_the_same_descriptor(connected: Connected) -> None:
    sock = connected.transport.get_extra_info("socket")
    assert sock is connected.transport.get_extra_info("socket")
    assert (sock.fileno(), sock.family, sock.gettimeout()) == (connected.fd, socket.AF_INET, 0.0)
    found = connected.transport.get_extra_info("peername"), connected.transport.get_extra_info("sockname")
    assert found == connected.addresses
    connected.transport.close()
    assert connected.is_over and sock.fileno() == -1
    assert connected.poller.calls == ["drop shared"]


def test_a_fin_leaves_the_other_direction_open(connected: Connected) -> None:
    connected.transport.write(b"last")
    connected.transport.write_eof()
    assert connected.peer.recv(9) == b"last" and connected.peer.recv(9) == b""
    assert not connected.is_over
    connected.peer.send(b"on")
    connected.transport.ready(READABLE)
    assert connected.protocol.events[-1] == b"on"


@pytest.mark.parametrize("has_left", [False, True])
def test_a_fin_behind_which_nothing_can_come_is_the_end(connected: Connected, has_left: bool) -> None:
    if has_left:
        connected.peer.shutdown(socket.SHUT_WR)
        select.select([connected.fd], [], [], 5.0)
    connected.poller.turn_end.is_turning = True
    connected.transport.write(b"last")
    connected.transport.expect_nothing()
    connected.transport.write_eof()
    assert not connected.is_over and not connected.poller.later
    connected.poller.turns.end()
    assert connected.is_over
    assert connected.peer.recv(9) == b"last" and connected.peer.recv(9) == b""
    assert connected.protocol.events == ["made", ("lost", None)]


def test_what_came_all_the_same_makes_no_reset(connected: Connected) -> None:
    connected.peer.send(b"said all the same")
    select.select([connected.fd], [], [], 5.0)
    connected.transport.write(b"last")
    connected.transport.expect_nothing()
    connected.transport.write_eof()
    assert not connected.is_over and not connected.transport.is_closing()
    assert connected.peer.recv(9) == b"last" and connected.peer.recv(9) == b""
    connected.peer.close()
    connected.transport.ready(READABLE)
    assert connected.protocol.events == ["made", b"said all the same", "eof"]
    assert connected.is_over


def test_what_is_not_sent_yet_is_waited_for(connected: Connected) -> None:
    connected.transport.write(bytes(32 << 20))
    connected.transport.expect_nothing()
    connected.transport.write_eof()
    assert not connected.is_over and connected.poller.watched[connected.fd] & WRITABLE
    got = 0
    while connected.transport.get_write_buffer_size():
        got += len(connected.peer.recv(1 << 20))
        connected.transport.ready(WRITABLE)
    while piece := connected.peer.recv(1 << 20):
        got += len(piece)
    assert got == 32 << 20 and not connected.is_over
