"""The parts of the trace whose clients open a connection for each request, as `http_close` and `tcp_close` of
`benchmarks.load` have them.

These connections are the kernel's, since accepting, watching and ending them is what is looked at: a system call counts
as what this program does around it. Some come in each turn of the loop. What the clients do themselves is not counted.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.micro.hot_path import BODY, HEAD, build_runtimes, connect
from lbproxy.dataplane.listener import Listener
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.telemetry.log_writer import LogWriter

AT_ONCE: Final = 10
"""Connections in a turn; WARM and COUNTED are multiples of it."""
_CONFIG: Final = """
access_log: {path: /dev/null}
listeners: [{bind: "127.0.0.1:5000", pool: predict}]
pools:
  predict:
    servers: [127.0.0.1:1]
"""
_TCP_CONFIG: Final = """
access_log: {path: /dev/null}
listeners: [{bind: "127.0.0.1:5000", pool: predict, mode: tcp}]
pools:
  predict:
    servers: [127.0.0.1:%d]
"""
_REQUEST: Final = HEAD + b"Connection: close\r\n\r\n" + BODY
_ANSWER_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Door:
    """A listener on a port that the kernel chose, and kept connections to its server."""

    listener: Listener
    port: int
    servers: list[UpstreamConnection]
    writer: LogWriter

    def turn(self, answers: list[bytes], toggle: Callable[[], None]) -> None:
        """A connection for each of these answers, from its accept(2) to its end. toggle: counting, off and on again."""
        poller = self.listener.services.poller
        toggle()
        clients = _asking(self.port, len(answers))
        toggle()
        poller.turn()
        poller.turn()
        toggle()
        waiting = [server for server in self.servers if server.sink is not None]
        if len(waiting) != len(answers):
            raise SystemExit(f"close: {len(waiting)} requests of {len(answers)} came")
        poller.turn_end.is_turning = True  # in the loop they come in a turn, too
        toggle()
        for server, answer in zip(waiting, answers, strict=True):
            server.data_received(answer)
        poller.turn()
        toggle()
        _take_answers(clients)
        toggle()
        poller.turn()
        if self.listener.n_connections:
            raise SystemExit(f"close: {self.listener.n_connections} connections hang")

    @property
    def n_requests(self) -> int:
        return sum(server.n_requests for server in self.servers)

    def close(self) -> None:
        self.listener.close()
        self.writer.close(1.0)


def build(loop: asyncio.AbstractEventLoop) -> Door:
    listener, runtime, writer = build_runtimes(loop, _CONFIG)
    servers = []
    for _ in range(AT_ONCE):
        server = UpstreamConnection(listener.services, runtime)
        connect(listener.services, server)
        runtime.idle.put(server, AT_ONCE)
        servers.append(server)
    return Door(listener, _listen(listener), servers, writer)


@dataclass(frozen=True, slots=True)
class TcpDoor:
    """A listener in TCP mode on a port that the kernel chose, and its server."""

    listener: Listener
    port: int
    server: socket.socket
    writer: LogWriter

    def turn(self, answers: list[bytes], toggle: Callable[[], None]) -> None:
        """A connection for each of these answers, from its accept(2) to its end, which the server begins."""
        poller = self.listener.services.poller
        toggle()
        clients = _asking(self.port, len(answers))
        toggle()
        poller.turn()
        poller.turn()
        toggle()
        for answer in answers:
            taken, _ = self.server.accept()
            if taken.recv(_ANSWER_BYTES) != _REQUEST:
                raise SystemExit("tcp: a request did not come")
            taken.sendall(answer)
            taken.close()
        toggle()
        poller.turn()
        poller.turn()
        toggle()
        _take_answers(clients)
        toggle()
        poller.turn()
        if self.listener.n_connections:
            raise SystemExit(f"tcp: {self.listener.n_connections} connections hang")

    def close(self) -> None:
        self.listener.close()
        self.writer.close(1.0)
        self.server.close()


def build_tcp(loop: asyncio.AbstractEventLoop) -> TcpDoor:
    server = socket.create_server(("127.0.0.1", 0), backlog=AT_ONCE)
    listener, _, writer = build_runtimes(loop, _TCP_CONFIG % server.getsockname()[1])
    return TcpDoor(listener, _listen(listener), server, writer)


def _asking(port: int, count: int) -> list[socket.socket]:
    """So many clients that have sent their request."""
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    for client in clients:
        client.sendall(_REQUEST)
    return clients


def _take_answers(clients: list[socket.socket]) -> None:
    """All that comes, and then they close."""
    for client in clients:
        while client.recv(_ANSWER_BYTES):
            pass
        client.close()


def _listen(listener: Listener) -> int:
    sock = socket.create_server(("127.0.0.1", 0), backlog=AT_ONCE)
    sock.setblocking(False)
    listener.inherit([sock], None, None, is_ours=False)
    listener.start()
    return int(sock.getsockname()[1])
