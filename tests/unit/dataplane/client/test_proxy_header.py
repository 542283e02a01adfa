"""A socket whose PROXY header is awaited: what is taken from it, when it is given up, and that the books stay even."""

from __future__ import annotations

import errno
import itertools
import logging
import socket
from typing import Any, cast

import pytest

from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.client.proxy_header import DRAIN_S, HEADER_S
from lbproxy.dataplane.listener import Listener
from lbproxy.dataplane.net.poller import READABLE, Pollable, Poller
from lbproxy.dataplane.net.turn_end import TurnEnd
from lbproxy.dataplane.tcp.session import TcpClient
from lbproxy.protocol.proxy_protocol import ProxyHeader, build
from lbproxy.telemetry.slots import PROCESS
from tests.support.fake_transport import CLIENT, GET, FakeLb, FakeLoop, FakeTransport, Peer, ok

CONFIG = """
trusted_proxies: [192.0.2.0/24]
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app, proxy_protocol: accept, mode: MODE}]
pools: {app: {servers: ["127.0.0.1:9001"], health_check: off}}
"""
HTTP, TCP = CONFIG.replace("MODE", "http"), CONFIG.replace("MODE", "tcp")
SOURCE, DESTINATION = ("203.0.113.9", 1234), ("203.0.113.1", 443)
V1, V2 = (build(version, SOURCE, DESTINATION) for version in ("v1", "v2"))
HEADER = ProxyHeader(SOURCE, DESTINATION)


FIRST_NUMBER = 1_000_000
_numbers = itertools.count(FIRST_NUMBER)


class RawSocket:
    """An accepted socket with a kernel buffer that the test fills."""

    def __init__(self, family: int = socket.AF_INET) -> None:
        self.family = family
        self.arrived = b""
        self.has_ended = False
        self.error: Exception | None = None
        self.options: list[tuple[int, int, object]] = []
        self.is_closed = False
        self.n_reads = 0
        self.transport: FakeTransport | None = None  # once it was adopted
        self._fileno = next(_numbers)

    def fileno(self) -> int:
        return self._fileno

    def setblocking(self, flag: bool) -> None:
        assert flag is False

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.n_reads += 1
        if self.error is not None:
            raise self.error
        if not self.arrived and not self.has_ended:
            raise BlockingIOError
        data = self.arrived[:size]
        if not flags & socket.MSG_PEEK:
            self.arrived = self.arrived[len(data) :]
        return data

    def setsockopt(self, level: int, option: int, value: object) -> None:
        self.options.append((level, option, value))

    def close(self) -> None:
        self.is_closed = True

    @property
    def was_reset(self) -> bool:
        return self.is_closed and any(option == socket.SO_LINGER for _, option, _ in self.options)


class FakePoller(Poller):
    """Every turn of the loop says that each watched socket may be ready."""

    def __init__(self, loop: FakeLoop) -> None:
        self.turn_end = TurnEnd(cast(Any, loop), lambda where, error: None)
        self._fake_loop = loop

    def watch(self, fd: int, events: int, pollable: Pollable) -> None:
        assert events == READABLE
        self._fake_loop.add_reader(fd, pollable.ready, events)

    def forget(self, fd: int) -> None:
        assert self._fake_loop.remove_reader(fd)

    def close(self) -> None:
        pass


class Owner(Listener):
    """The listener, but for what it makes of a socket."""

    def __init__(self, lb: Setting) -> None:
        self._lb = lb
        self.services = lb.services
        self.runtime = lb.listener.runtime

    def connection_closed(self, client_ip: str) -> None:
        self._lb.listener.connection_closed(client_ip)

    def adopt(self, sock: Any, peer: object, local: object = None, proxied: ProxyHeader | None = None) -> None:
        assert peer in (CLIENT, "") and proxied is not None
        self._lb.adopt(sock, peer, proxied)


class Setting(FakeLb):
    """A listener with `proxy_protocol: accept`; `adopted` are the protocol objects that got a connection."""

    def __init__(self, config: str = HTTP) -> None:
        super().__init__(config)
        self.adopted: list[Http1Connection | TcpClient] = []
        self.services.poller.close()
        self.services.poller = FakePoller(self.loop)
        assert self.listener._proxy_headers is not None
        self.listener._proxy_headers.owner = Owner(self)

    def adopt(self, sock: RawSocket, peer: object, proxied: ProxyHeader) -> None:
        protocol = cast(Any, self.listener._protocol(proxied, None))
        transport = FakeTransport(self.loop, protocol, peer, ("127.0.0.1", 5000))
        self.clients.append(Peer(self.loop, transport))
        protocol.connection_made(transport)
        self.adopted.append(protocol)
        sock.transport = transport
        if sock.arrived:
            data, sock.arrived = sock.arrived, b""
            transport.receive(data)

    def arrive(self, sock: RawSocket | None = None, peer: object = CLIENT) -> RawSocket:
        """The listener accepts a socket."""
        sock = sock or RawSocket()
        self.listener._count()
        assert self.listener._proxy_headers is not None
        self.listener._proxy_headers.receive(cast(socket.socket, sock), peer)
        self.loop.run()
        return sock

    def feed(self, sock: RawSocket, *pieces: bytes) -> None:
        for piece in pieces:
            if sock.transport is not None:
                sock.transport.receive(piece)
            else:
                sock.arrived += piece
            self.loop.run()

    @property
    def n_rejected(self) -> int:
        return self.of_listener("rejected_total", "bad_proxy_header")

    @property
    def is_watching(self) -> bool:
        return any(number >= FIRST_NUMBER for number in self.loop._readers)  # smaller ones: the hang-up watch


def told_of(protocol: Http1Connection | TcpClient) -> ProxyHeader | None:
    return protocol.facts.proxied if isinstance(protocol, Http1Connection) else protocol.proxied


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("raw", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("size", [1, 7, 12, 16, 1000])
def test_a_header_in_any_pieces_names_the_client(raw: bytes, size: int) -> None:
    with Setting() as lb:
        sock = lb.arrive()
        lb.feed(sock, *pieces_of(raw, size))
        (protocol,) = lb.adopted
        assert told_of(protocol) == HEADER
        assert not lb.is_watching and not sock.is_closed and lb.n_rejected == 0
        assert lb.listener.n_connections == 1


@pytest.mark.parametrize("raw", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("size", [1, 40, 1000])
def test_what_follows_the_header_is_left_for_the_protocol(raw: bytes, size: int) -> None:
    with Setting() as lb:
        lb.feed(lb.arrive(), *pieces_of(raw + GET, size))
        forwarded = lb.accept().got()
        assert forwarded.startswith(b"GET /a HTTP/1.1\r\n")
        assert b"X-Forwarded-For: 203.0.113.9\r\n" in forwarded
        assert b"X-Forwarded-Port: 443\r\n" in forwarded
        lb.servers[0].send(ok())
        assert lb.log[-1]["client"] == "203.0.113.9"


def test_in_tcp_mode_too() -> None:
    with Setting(TCP) as lb:
        lb.feed(lb.arrive(), V2 + b"hello")
        assert lb.accept().got() == b"hello"
        lb.clients[0].reset()
        assert lb.log[-1]["client"] == "203.0.113.9"


@pytest.mark.parametrize(
    ("raw", "client"),
    [
        (b"PROXY UNKNOWN\r\n", "192.0.2.7"),
        (build("v2", None, None, is_check=True), "192.0.2.7"),
        (b"\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8" + bytes(216), "unix"),
    ],
    ids=["unknown", "local", "unix"],
)
@pytest.mark.parametrize("config", [HTTP, TCP], ids=["http", "tcp"])
def test_a_header_without_addresses(raw: bytes, client: str, config: str) -> None:
    with Setting(config) as lb:
        lb.feed(lb.arrive(), raw + GET)
        lb.accept()
        lb.clients[0].reset()
        assert lb.log[-1]["client"] == client


def test_whether_forwarding_fields_are_believed_is_decided_by_the_address_in_the_header() -> None:
    claim = GET[:-2] + b"X-Forwarded-For: 198.51.100.50\r\n\r\n"
    for source, expected in (
        ("203.0.113.9", b"X-Forwarded-For: 203.0.113.9\r\n"),
        ("192.0.2.99", b"X-Forwarded-For: 198.51.100.50, 192.0.2.99\r\n"),
    ):
        with Setting() as lb:
            lb.feed(lb.arrive(), build("v1", (source, 1), DESTINATION) + claim)
            assert expected in lb.accept().got()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (GET, "does not begin with a PROXY header"),
        (b"PROXY TCP4 1.2.3.4\r\n", "is not TCP4, TCP6 or UNKNOWN"),
        (V2[:13] + b"\x12" + V2[14:], "0x12"),
    ],
)
def test_what_is_no_header_is_reset_counted_and_said(raw: bytes, why: str, caplog: pytest.LogCaptureFixture) -> None:
    with Setting() as lb, caplog.at_level(logging.WARNING, "lbproxy"):
        sock = lb.arrive()
        lb.feed(sock, raw)
        assert sock.was_reset and not lb.adopted and not lb.is_watching
        assert lb.n_rejected == 1
        assert "listener web: a connection from 192.0.2.7 was reset: " in caplog.text and why in caplog.text


def test_a_peer_that_is_not_trusted_is_reset_before_it_says_anything(caplog: pytest.LogCaptureFixture) -> None:
    with Setting() as lb, caplog.at_level(logging.WARNING, "lbproxy"):
        sock = RawSocket()
        sock.arrived = V2 + GET
        lb.arrive(sock, ("198.51.100.7", 4000))
        assert sock.was_reset and sock.n_reads == 0 and not lb.is_watching
        assert lb.n_rejected == 1
        assert "198.51.100.7 was reset: it is not in trusted_proxies" in caplog.text


def test_the_log_says_it_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    with Setting() as lb, caplog.at_level(logging.WARNING, "lbproxy"):
        for number in range(50):
            lb.feed(lb.arrive(), b"GET /%d" % number)
            lb.arrive(peer=(f"198.51.100.{number}", 1))
        assert len(caplog.records) == 2
        lb.advance(1.1)
        lb.feed(lb.arrive(), b"GET /")
        assert "49 more like this" in caplog.text
        assert lb.n_rejected == 101


def test_a_peer_on_a_unix_socket_is_trusted() -> None:
    with Setting() as lb:
        sock = lb.arrive(RawSocket(socket.AF_UNIX), "")
        lb.feed(sock, V1)
        assert told_of(lb.adopted[0]) == HEADER
        bad = lb.arrive(RawSocket(socket.AF_UNIX), "")
        lb.feed(bad, GET)
        assert bad.is_closed and bad.options == [] and lb.n_rejected == 1


@pytest.mark.parametrize("part", [b"", V1[:20], V2[:20]], ids=["nothing", "v1", "v2"])
def test_a_header_has_five_seconds_however_it_trickles(part: bytes) -> None:
    assert HEADER_S == 5.0
    with Setting() as lb:
        sock = lb.arrive()
        lb.feed(sock, part[:10])
        lb.advance(HEADER_S - 0.5)
        lb.feed(sock, part[10:])
        assert not sock.is_closed
        lb.advance(0.8)
        assert sock.was_reset and lb.n_rejected == 1 and not lb.is_watching


def test_a_peer_that_leaves_without_a_byte_is_nobody_s_fault() -> None:
    """Balancers check their servers so."""
    with Setting() as lb:
        gone, reset = lb.arrive(), lb.arrive()
        gone.has_ended = True
        reset.error = ConnectionResetError(errno.ECONNRESET, "reset")
        lb.loop.run()
        assert gone.is_closed and reset.is_closed and lb.n_rejected == 0


def test_an_end_inside_the_header_is_a_bad_header() -> None:
    with Setting() as lb:
        sock = lb.arrive()
        lb.feed(sock, V2[:-1])
        sock.has_ended = True
        lb.loop.run()
        assert sock.was_reset and lb.n_rejected == 1


def test_a_waiting_socket_counts_as_a_connection() -> None:
    with Setting() as lb:
        sock = lb.arrive()
        assert (lb.listener.n_connections, lb.gate.n_connections) == (1, 1)
        lb.feed(sock, V1[:20])
        assert sum(item.buffered_bytes() for item in lb.services.swept) == 20
        lb.feed(sock, b"?" * 100)
        assert (lb.listener.n_connections, lb.gate.n_connections) == (0, 0)


def test_a_defect_is_confined_to_its_connection() -> None:
    with Setting() as lb:
        sock = lb.arrive()
        sock.error = ZeroDivisionError("on purpose")
        lb.feed(sock, V1)
        assert sock.was_reset
        defects = PROCESS.column("internal_errors_total")
        assert lb.services.row[defects] == 1
        lb.services.row[defects] = 0  # the end of the block finds every other one


def test_a_stop_gives_a_second_for_the_header() -> None:
    with Setting() as lb:
        late, never = lb.arrive(), RawSocket()
        lb.feed(late, V1[:10])
        lb.services.is_draining = True
        for item in list(lb.services.swept):
            item.begin_drain(lb.clock())
        lb.arrive(never)  # was in the kernel's queue
        lb.advance(DRAIN_S / 2)
        lb.feed(late, V1[10:] + GET)
        lb.accept().send(ok())
        assert b"Connection: close\r\n" in lb.clients[0].got()
        lb.advance(DRAIN_S)
        assert never.is_closed and lb.n_rejected == 0


def test_a_connection_that_is_adopted_during_a_stop_ends_soon_if_it_asks_nothing() -> None:
    with Setting() as lb:
        sock = lb.arrive()
        lb.services.is_draining = True
        for item in list(lb.services.swept):
            item.begin_drain(lb.clock())
        lb.feed(sock, V1)
        assert lb.clients[0].is_open
        lb.advance(DRAIN_S + 0.5)
        assert not lb.clients[0].is_open


def test_the_end_of_grace_closes_it_and_cuts_nothing() -> None:
    with Setting() as lb:
        sock = lb.arrive()
        for item in list(lb.services.swept):
            item.shut_down()
        assert sock.is_closed and lb.services.n_cut == 0
