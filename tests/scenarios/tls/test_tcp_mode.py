"""TLS in TCP mode, on either side and on both: bytes exact, ends and resets as they are without it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.certificates import Authority, CertFiles, TlsClient, server_wrap
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer, Script
from tests.support.servers import in_threads
from tests.support.waiting import wait_until

MIB = 1 << 20
SIDES = ("to-plain", "to-tls", "from-plain")


@dataclass
class Stage:
    lb: LbProxy
    plain: Origin
    secure: Origin
    authority: Authority
    client: CertFiles

    def origin(self, listener: str) -> Origin:
        return self.plain if listener == "to-plain" else self.secure

    def open(self, listener: str) -> Client:
        port = self.lb.port(listener)
        return Client(port) if listener == "from-plain" else TlsClient(port, self.authority.trusting())

    def script(self, listener: str, *scripts: Script) -> None:
        self.origin(listener).script(*scripts)


@pytest.fixture(scope="module")
def stage(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    files = authority.issue("tcp", "localhost", "127.0.0.1")
    client = authority.issue("tcp-client", "client.example", common_name="tcp client")
    tls = files.tls
    verifying = {**tls, "client_ca": authority.ca, "client_verify": "required"}
    listeners: list[dict[str, object]] = [
        {"name": "to-plain", "pool": "plain", "tls": tls},
        {"name": "to-tls", "pool": "secure", "tls": tls},
        {"name": "from-plain", "pool": "secure"},
        {"name": "mutual", "pool": "plain", "tls": verifying},
    ]
    off: dict[str, object] = {"health_check": "off", "circuit_breaker": "off"}
    with Origin(default=echoes) as plain, Origin(default=echoes, wrap=server_wrap(files)) as secure:
        settings: dict[str, object] = {
            "listeners": [{"bind": "127.0.0.1:0", "mode": "tcp", **item} for item in listeners],
            "pools": {
                "plain": {"servers": [plain.address], **off},
                "secure": {"servers": [secure.address], "tls": {"ca": authority.ca}, **off},
            },
        }
        with LbProxy(settings, tmp_path_factory.mktemp("tcp")) as lb:
            yield Stage(lb, plain, secure, authority, client)


def end_writing(sock: socket.socket) -> None:
    """close_notify where there is TLS, and FIN."""
    if isinstance(sock, ssl.SSLSocket):
        timeout = sock.gettimeout()
        sock.settimeout(0.0)
        try:
            sock.unwrap()
        except ssl.SSLWantReadError:
            pass  # it is sent; the peer's has not come
        except OSError:
            return  # the peer has ended already
        sock.settimeout(timeout)
    socket.socket.shutdown(sock, socket.SHUT_WR)


def echoes(c: Peer) -> None:
    """Every byte back, and the end after the client's end."""
    while data := c.sock.recv(65536):
        c.sock.sendall(data)
    end_writing(c.sock)


def both_ways(sock: socket.socket, data: bytes) -> bytes:
    """Send all and receive as much, at once. In one thread: Python's TLS sockets are not made for two."""
    sock.setblocking(False)
    received = bytearray()
    sent = 0
    while len(received) < len(data):
        has_moved = False
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            part = sock.recv(65536)
            assert part, f"the end after {len(received)} bytes"
            received += part
            has_moved = True
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if sent < len(data):
                sent += sock.send(data[sent : sent + 65536])
                has_moved = True
        if not has_moved:
            ready = select.select([sock], [sock] if sent < len(data) else [], [], 60)
            assert any(ready), f"stuck after {sent} bytes sent and {len(received)} received"
    return bytes(received)


@pytest.mark.parametrize("listener", SIDES)
def test_megabytes_both_ways_at_once(stage: Stage, listener: str) -> None:
    data = os.urandom(12 * MIB + 321)
    with stage.open(listener) as client:
        received = both_ways(client.sock, data)
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("listener", SIDES)
def test_the_server_ends_first(stage: Stage, listener: str) -> None:
    data = os.urandom(5 * MIB)

    def says_all(c: Peer) -> None:
        c.stream.take(5)
        c.sock.sendall(data)
        end_writing(c.sock)
        c.read_to_end()

    stage.script(listener, says_all)
    with stage.open(listener) as client:
        client.send(b"begin")
        received = client.read_to_end()
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
        assert client.end == "fin"  # with close_notify where there is TLS


@pytest.mark.parametrize("listener", SIDES)
def test_the_client_ends_first_and_is_still_answered(stage: Stage, listener: str) -> None:
    """close_notify ends one direction (RFC 8446 section 6.1), as FIN does."""
    data = os.urandom(2 * MIB)
    seen: list[bytes] = []

    def reads_all(c: Peer) -> None:
        seen.append(c.stream.read_to_end())
        if not isinstance(c.sock, ssl.SSLSocket):  # Python's own socket can't write after it has read the end
            c.send(b"got it all")
        end_writing(c.sock)

    stage.script(listener, reads_all)
    with stage.open(listener) as client:
        client.send(data)
        end_writing(client.sock)
        wait_until(lambda: seen, "the server to see the end")
        assert hashlib.sha256(seen[0]).digest() == hashlib.sha256(data).digest()
        wait_until(lambda: not stage.lb.metric("server_inflight"), "the connection to be over")


@pytest.mark.parametrize("listener", SIDES)
def test_a_reset_of_the_server_is_a_reset_to_the_client(stage: Stage, listener: str) -> None:
    def resets(c: Peer) -> None:
        c.stream.take(2)
        c.reset()

    stage.script(listener, resets)
    with stage.open(listener) as client:
        client.send(b"hi")
        client.read_to_end()
        assert client.end in ("rst", "cut")


@pytest.mark.parametrize("listener", SIDES)
def test_a_reset_of_the_client_ends_the_server_s_connection(stage: Stage, listener: str) -> None:
    ends: list[str] = []

    def waits(c: Peer) -> None:
        c.stream.take(2)
        try:
            ends.append(c.read_to_end())
        except ssl.SSLError:
            ends.append("cut")

    stage.script(listener, waits)
    with stage.open(listener) as client:
        client.send(b"hi")
        peers = stage.origin(listener).peers
        wait_until(lambda: any(p.received == b"hi" and not p.closed.is_set() for p in peers), "the bytes to arrive")
        client.reset()
        wait_until(lambda: ends, "the server's connection to end")
        assert ends[0] in ("rst", "cut")


@pytest.mark.parametrize("listener", SIDES)
def test_a_slow_reader_gets_everything(stage: Stage, listener: str) -> None:
    """Back-pressure: what does not fit waits at the server, and nothing is lost when the reader goes on."""
    data = os.urandom(16 * MIB)

    def floods(c: Peer) -> None:
        c.stream.take(1)
        c.sock.sendall(data)
        end_writing(c.sock)
        c.read_to_end()

    stage.script(listener, floods)
    with stage.open(listener) as client:
        client.send(b"x")
        first = client.take(1000)
        before = stage.lb.rss_bytes()
        assert client.is_silent(0.0) is False
        wait_until(lambda: stage.lb.metric("server_inflight") == 1, "the connection")
        received = first + client.read_to_end()
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
        assert stage.lb.rss_bytes() - before < 8 * MIB


def test_the_subject_is_logged(stage: Stage) -> None:
    with TlsClient(stage.lb.port("mutual"), stage.authority.trusting(stage.client)) as client:
        client.send(b"hello")
        assert client.take(5) == b"hello"
        end_writing(client.sock)

    def found() -> list[object]:
        return [entry["client_cert"] for entry in stage.lb.access_log() if entry["listener"] == "mutual"]

    (subject,) = wait_until(found, "a log line")
    assert str(subject).startswith("CN=tcp client,")


def test_many_at_once(stage: Stage) -> None:
    def one(number: int) -> None:
        listener = SIDES[number % len(SIDES)]
        data = os.urandom(100_000 + 7 * number)
        with stage.open(listener) as client:
            assert both_ways(client.sock, data) == data

    in_threads(18, one)


def test_no_protocol_is_promised_for_what_is_inside(stage: Stage) -> None:
    context = stage.authority.trusting()
    context.set_alpn_protocols(["http/1.1", "postgresql"])
    with TlsClient(stage.lb.port("to-plain"), context) as client:
        assert client.tls.selected_alpn_protocol() is None
