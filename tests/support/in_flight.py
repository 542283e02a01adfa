"""What is in flight while something else happens: tunnels that echo, answers that go on. Scripts of an Origin."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer
from tests.support.waiting import wait_until

PIECE = b"piece"
ESTABLISHED = "01"


def echoes(c: Peer) -> None:
    """A TCP connection that gives back what it gets."""
    while True:
        c.send(c.stream.take(len(PIECE)))


def upgrades(c: Peer) -> None:
    c.read_head()
    c.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    echoes(c)


def streams(go_on: Callable[[], bool]) -> Callable[[Peer], None]:
    """An answer without a known length, piece by piece until it is to end, and then whole."""

    def script(c: Peer) -> None:
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        count = 0
        while go_on():
            c.send(b"5\r\npiece\r\n")
            count += 1
            time.sleep(0.01)
        text = b"%d" % count
        c.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text))

    return script


def open_tunnels(lb: LbProxy, origin: Origin, stack: contextlib.ExitStack, count: int) -> list[Client]:
    """So many TCP connections (listener `tcp`) and WebSockets (listener `long`), each an echo."""
    origin.script(*[echoes] * count)
    tunnels = [stack.enter_context(Client(lb.port("tcp"))) for _ in range(count)]
    for client in tunnels:
        client.send(PIECE)
        assert client.take(len(PIECE)) == PIECE
    origin.script(*[upgrades] * count)
    for _ in range(count):
        client = stack.enter_context(Client(lb.port("long")))
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        client.wait_for(b"\r\n\r\n")
        assert b" 101 " in client.take(client.stream.record.index(b"\r\n\r\n") + 4)
        tunnels.append(client)
    return tunnels


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that were sent and are still on this side; 0 of a socket that is closed."""
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0


def kernel_queues() -> dict[tuple[str, str], tuple[int, int]]:
    """For each TCP connection over IPv4, (own end, other end) as /proc has them: bytes to send, and bytes to read."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues = line.split()[:5]
        if state == ESTABLISHED:
            to_send, _, to_read = queues.partition(":")
            found[local, remote] = int(to_send, 16), int(to_read, 16)
    return found


def unread(sock: socket.socket) -> int:
    """Bytes that were sent on this socket and that the process at the other end, on this machine, has not read.

    The kernel takes up to tcp_rmem of them (32 MiB on some machines) into the other end's buffer, read or not; so that
    nothing is left on this side says little.
    """
    try:
        here, there = _as_in_proc(sock.getsockname()), _as_in_proc(sock.getpeername())
    except OSError:
        return 0
    queues = kernel_queues()
    return queues.get((here, there), (0, 0))[0] + queues.get((there, here), (0, 0))[1]


def _as_in_proc(address: tuple[str, int]) -> str:
    host, port = address
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"


def wait_stuck(lb: LbProxy, sock: socket.socket, unless: Callable[[], bool] = lambda: False) -> None:
    """Wait until nothing more is taken of what is sent on this socket, although lbproxy's loop has come round."""

    def is_stuck() -> bool:
        if unless():
            return True
        left = unread(sock)
        for _ in range(3):
            lb.admin_get("/healthz")
            if not left or unread(sock) != left:
                return False
        return True

    wait_until(is_stuck, "lbproxy to take no more")
