"""TCP mode: bytes, ends and resets go through unchanged, in both directions, and nothing is left behind."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer, refusing_port
from tests.support.servers import in_threads
from tests.support.waiting import wait_until

TUNNEL_S = 1.5
HALF_CLOSED_S = 0.5


def answers_lines(c: Peer) -> None:
    """As a Redis server does it: PING is PONG, ECHO x is x, everything else is an error; until the client's end."""
    while True:
        while b"\r\n" not in c.stream.buffer:
            if not c.stream.fill():
                return
        line = c.stream.line()
        if line == b"PING":
            c.send(b"+PONG\r\n")
        elif line.startswith(b"ECHO "):
            c.send(b"$%d\r\n%s\r\n" % (len(line) - 5, line[5:]))
        else:
            c.send(b"-ERR unknown command\r\n")


def echoes(c: Peer) -> None:
    """Every byte back, then FIN after the client's FIN."""
    while data := c.sock.recv(65536):
        c.sock.sendall(data)


def reads_to_the_end(c: Peer) -> None:
    """Say hello, read until the client's end, say how much there was."""
    c.send(b"hello\n")
    c.read_to_end()
    c.send(b"read %d\n" % len(c.received))


def fin_first(c: Peer) -> None:
    """Send all there is to say and FIN; go on reading."""
    c.send(b"that is all\n")
    c.fin()
    c.read_to_end()


def resets_after_a_line(c: Peer) -> None:
    c.stream.line()
    c.reset()


def silent(c: Peer) -> None:
    """Never send anything, whatever comes."""
    c.read_to_end()
    while not c.is_abandoned:
        time.sleep(0.01)


class Setting:
    """One daemon with a server of its own."""

    def __init__(self, origin: Origin, lb: LbProxy) -> None:
        self.origin = origin
        self.lb = lb
        self._before = lb.metric("client_connections_total")

    def client(self, listener: str = "plain") -> Client:
        return Client(self.lb.port(listener))

    def peer(self) -> Peer:
        """The server's side of the only connection."""
        wait_until(lambda: self.origin.peers, "the server to accept")
        (peer,) = self.origin.peers
        return peer

    def last_end(self) -> object:
        self.wait_logged()
        return self.lb.access_log()[-1]["end"]

    def wait_logged(self) -> None:
        """Wait for a line of every connection, so that none of them appears in the next test."""
        count = self.lb.metric("client_connections_total") - self._before
        wait_until(lambda: len(self.lb.access_log()) == count, f"{count} lines in the access log")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Origin, LbProxy]]:
    with Origin() as origin:
        pool = {"servers": [origin.address], "health_check": "off"}
        limits = {"tunnel": f"{TUNNEL_S}s", "half_closed": f"{HALF_CLOSED_S}s"}
        settings: dict[str, object] = {
            "listeners": [
                {"name": "plain", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "plain"},
                {"name": "short", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "short"},
            ],
            "pools": {"plain": pool, "short": {**pool, "timeouts": limits}},
        }
        with LbProxy(settings, tmp_path_factory.mktemp("tcp")) as lb:
            yield origin, lb


@pytest.fixture
def tcp(daemon: tuple[Origin, LbProxy]) -> Iterator[Setting]:
    """Afterwards the daemon holds no connection and no descriptor more than before."""
    origin, lb = daemon
    origin.reset()
    lb.access_log_path.write_bytes(b"")  # opened for appending: the daemon goes on at the new end
    setting = Setting(origin, lb)
    yield setting
    origin.reset()
    lb.check_idle()
    setting.wait_logged()
    assert lb.metric("internal_errors_total") == 0


def test_commands_and_answers_go_through(tcp: Setting) -> None:
    tcp.origin.default = answers_lines
    with tcp.client() as client:
        client.send(b"PING\r\n")
        assert client.take(7) == b"+PONG\r\n"
        client.send(b"ECHO hel", b"lo\r\n")
        assert client.take(11) == b"$5\r\nhello\r\n"
        client.send(b"PING\r\nGET / HTTP/1.1\r\n")
        assert client.take(29) == b"+PONG\r\n-ERR unknown command\r\n"
        client.finish_writing()
        assert client.wait_end() == "fin"
    assert tcp.last_end() == "ok"
    entry = tcp.lb.access_log()[-1]
    assert (entry["bytes_in"], entry["bytes_out"]) == (40, 47)
    assert (entry["method"], entry["target"], entry["status"]) == (None, None, None)


def test_the_server_speaks_first(tcp: Setting) -> None:
    tcp.origin.default = reads_to_the_end
    with tcp.client() as client:
        assert client.take(6) == b"hello\n"


def test_the_client_s_end_is_passed_on_and_the_answer_still_comes(tcp: Setting) -> None:
    tcp.origin.default = reads_to_the_end
    with tcp.client() as client:
        client.send(b"x" * 100_000)
        client.finish_writing()
        assert client.read_to_end() == b"hello\nread 100000\n"
        assert client.end == "fin"
    assert tcp.peer().end == "fin"
    assert tcp.last_end() == "ok"


def test_the_server_s_end_is_passed_on_and_the_client_may_still_send(tcp: Setting) -> None:
    tcp.origin.default = fin_first
    with tcp.client() as client:
        assert client.read_to_end() == b"that is all\n"
        assert client.end == "fin"
        for number in range(5):
            client.send(b"more %d\n" % number)
            wait_until(lambda: b"more %d\n" % number in tcp.peer().received, "the server to get it")  # noqa: B023
        client.finish_writing()
        tcp.peer().closed.wait(60)
    assert tcp.peer().received == b"".join(b"more %d\n" % number for number in range(5))
    assert tcp.peer().end == "fin"
    assert tcp.last_end() == "ok"


def test_an_end_with_the_first_bytes(tcp: Setting) -> None:
    """The FIN is there before the connection to the server is."""
    tcp.origin.default = echoes
    with tcp.client() as client:
        client.send(b"quick")
        client.finish_writing()
        assert client.read_to_end() == b"quick"


def test_a_reset_of_the_server_resets_the_client(tcp: Setting) -> None:
    tcp.origin.default = resets_after_a_line
    with tcp.client() as client:
        client.send(b"now\r\n")
        assert client.wait_end() == "rst"
    assert tcp.last_end() == "reset"


def test_a_reset_of_the_client_resets_the_server(tcp: Setting) -> None:
    tcp.origin.default = reads_to_the_end
    client = tcp.client()
    assert client.take(6) == b"hello\n"
    client.reset()
    wait_until(lambda: tcp.peer().end, "the server's connection to end")
    assert tcp.peer().end == "rst"
    assert tcp.last_end() == "client_abort"


def test_a_reset_after_the_client_s_end_resets_the_client(tcp: Setting) -> None:
    """A half-closed connection is not over: the client still waits for data."""
    fin_seen = threading.Event()

    def resets_after_fin(c: Peer) -> None:
        c.read_to_end()
        fin_seen.set()
        c.reset()

    tcp.origin.default = resets_after_fin
    with tcp.client() as client:
        client.send(b"last words")
        client.finish_writing()
        assert fin_seen.wait(60)
        assert client.wait_end() == "rst"


@pytest.mark.parametrize("chatty", [False, True])
def test_silence_in_both_directions_ends_it(tcp: Setting, chatty: bool) -> None:
    """A byte in one direction starts the time again."""
    tcp.origin.default = silent
    with tcp.client("short") as client:
        for _ in range(6 if chatty else 1):
            last = time.monotonic()
            client.send(b".")
            time.sleep(TUNNEL_S / 4 if chatty else 0)
        assert client.wait_end() == "rst"
        assert time.monotonic() - last >= TUNNEL_S
        if chatty:
            assert len(tcp.peer().received) == 6
    wait_until(lambda: tcp.peer().end == "rst", "the server to be reset")
    assert tcp.last_end() == "tunnel_timeout"


def test_silence_after_one_end_ends_it_sooner(tcp: Setting) -> None:
    tcp.origin.default = silent
    with tcp.client("short") as client:
        client.send(b"the end")
        started = time.monotonic()
        client.finish_writing()
        assert client.wait_end() == "rst"
        assert time.monotonic() - started >= HALF_CLOSED_S
    assert tcp.last_end() == "tunnel_timeout"


def test_silence_after_the_server_s_end_ends_it_too(tcp: Setting) -> None:
    """half_closed bounds how long the client may say nothing when the server has said all."""
    tcp.origin.default = fin_first
    started = time.monotonic()
    with tcp.client("short") as client:
        assert client.read_to_end() == b"that is all\n"
        wait_until(lambda: tcp.peer().end, "the server's connection to end")
        assert tcp.peer().end == "rst"
        assert time.monotonic() - started >= HALF_CLOSED_S
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(1000):
                client.sock.sendall(b"too late")
                time.sleep(0.05)
    assert tcp.last_end() == "tunnel_timeout"


def test_the_half_closed_limit_is_not_the_tunnel_limit(tcp: Setting) -> None:
    """An open connection may be silent for longer than `half_closed`."""
    tcp.origin.default = echoes
    with tcp.client() as client:
        client.send(b"1")
        assert client.take(1) == b"1"
        assert client.is_silent(HALF_CLOSED_S + TUNNEL_S + 0.5)
        client.send(b"2")
        assert client.take(1) == b"2"


# --- other daemons ---


def settings(*servers: str, **pool: object) -> dict[str, object]:
    members = {"servers": list(servers), "health_check": "off", **pool}
    return {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "p"}],
        "pools": {"p": members},
    }


def test_a_refused_connection_goes_to_the_next_server(tmp_path: Path) -> None:
    with refusing_port() as dead, Origin(default=echoes) as origin:
        config = settings(f"127.0.0.1:{dead}", origin.address, strategy="round_robin")
        with LbProxy(config, tmp_path) as lb:
            for number in range(6):
                with Client(lb.port("in")) as client:
                    client.send(b"%d" % number)
                    assert client.take(1) == b"%d" % number
                    client.finish_writing()
                    assert client.wait_end() == "fin"
            assert len(origin.peers) == 6
            assert lb.metric("retries_total", outcome="success") >= 1
            assert lb.metric("upstream_connects_total", result="refused") >= 1


def test_no_server_left_resets_the_client(tmp_path: Path) -> None:
    with refusing_port() as dead, LbProxy(settings(f"127.0.0.1:{dead}"), tmp_path) as lb:
        for _ in range(3):
            with socket.socket() as sock, pytest.raises(ConnectionResetError):
                sock.settimeout(60)
                sock.connect(("127.0.0.1", lb.port("in")))
                sock.recv(1)
        wait_until(lambda: len(lb.access_log()) == 3, "three lines")
        assert {entry["end"] for entry in lb.access_log()} <= {"connect_refused", "no_server"}


@pytest.mark.slow
def test_100_random_transfers_at_once_are_exact(tmp_path: Path) -> None:
    """Random sizes and pieces both ways; some end with FIN, some with RST; then not one descriptor is left."""
    with Origin(default=echoes) as a, Origin(default=echoes) as b:
        with LbProxy(settings(a.address, b.address), tmp_path) as lb:
            complete: list[int] = []

            def transfer(number: int) -> None:
                if echoed(lb.port("in"), number):
                    complete.append(number)

            in_threads(100, transfer)
            assert len(complete) == 90
            lb.check_idle()
            assert lb.fd_count() <= lb.baseline_fds
            assert lb.metric("upstream_connections") == 0
            wait_until(lambda: len(lb.access_log()) == 100, "100 lines")
            ends = [entry["end"] for entry in lb.access_log()]
            assert (ends.count("ok"), ends.count("client_abort")) == (90, 10)
        # Every connection was spread: neither server got all.
        assert min(len(a.peers), len(b.peers)) > 10


def echoed(port: int, number: int) -> bool:
    """Send random pieces and read their echo; every tenth client gives up with RST in the middle."""
    rng = random.Random(number)
    data = rng.randbytes(rng.randrange(1, 1_500_000))
    is_abortive = number % 10 == 0
    with contextlib.closing(Client(port, timeout_s=60)) as client:

        def send() -> None:
            at = 0
            while at < len(data) // (2 if is_abortive else 1):
                size = rng.choice((1, 100, 1460, 65536, 300_000))
                client.sock.sendall(data[at : at + size])
                at += size
            if not is_abortive:
                client.sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        if is_abortive:
            received = client.take(len(data) // 4 + 1) if len(data) > 8 else b""
            sender.join()
            client.reset()
            assert data.startswith(received)
            return False
        received = client.read_to_end()
        sender.join()
        assert received == data, f"{len(received)} of {len(data)} bytes came back as they were sent"
        return client.end == "fin"
