"""Handshakes are bounded in time and number, and cost the other clients nothing."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, TlsClient
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.rig import get
from tests.support.site import Crowd
from tests.support.waiting import wait_until

STALLED = 100


@contextlib.contextmanager
def proxy(authority: Authority, directory: Path, mode: str = "http", **listener: object) -> Iterator[LbProxy]:
    files = authority.issue("bounds", "localhost")
    with Origin() as origin:
        settings: dict[str, object] = {
            "listeners": [
                {"name": "in", "bind": "127.0.0.1:0", "pool": "p", "mode": mode, "tls": files.tls, **listener}
            ],
            "pools": {"p": {"servers": [origin.address]}},
        }
        with LbProxy(settings, directory) as lb:
            yield lb


def hello(authority: Authority) -> bytes:
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        authority.trusting().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_a_hundred_clients_that_stall(authority: Authority, tmp_path: Path, mode: str) -> None:
    """Some say nothing, some half a hello, some all of it and then nothing. All are gone after the time-out."""
    said = hello(authority)
    with (
        proxy(authority, tmp_path, mode, timeouts={"tls_handshake": "3s"}) as lb,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(Client(lb.port("in"))) for _ in range(STALLED)]
        for number, client in enumerate(clients):
            client.send(said[: (0, len(said) // 2, len(said))[number % 3]])
        wait_until(lambda: lb.metric("client_connections_total") >= STALLED, "all to be counted")
        # Meanwhile others are served.
        with TlsClient(lb.port("in"), authority.trusting()) as client:
            assert client.ask(get("/served")).status == 200
        for client in clients:
            client.read_to_end()
            assert client.end is not None
        wait_until(lambda: not lb.metric("client_connections"), "all to be gone")
        assert lb.metric("tls_handshake_errors_total", reason="timeout") == STALLED
        assert lb.metric("internal_errors_total") == 0
        assert not lb.error_lines()


def test_the_number_of_handshakes_is_bounded(authority: Authority, tmp_path: Path) -> None:
    with (
        proxy(authority, tmp_path, limits={"handshakes": 3}, timeouts={"tls_handshake": "300s"}) as lb,
        contextlib.ExitStack() as stack,
    ):
        stalled = [stack.enter_context(Client(lb.port("in"))) for _ in range(3)]
        wait_until(lambda: lb.metric("client_connections") == 3, "all to be counted")
        with Crowd() as crowd:
            first = crowd.start(lambda: served(lb, authority))
            wait_until(lambda: lb.metric("client_connections") == 4, "another to wait for its turn")
            with Client(lb.port("in")) as leaving:
                wait_until(lambda: lb.metric("client_connections") == 5, "and one more")
                leaving.reset()
            wait_until(lambda: lb.metric("client_connections") == 4, "who leaves to be forgotten")
            assert not first.done() and lb.metric("tls_handshakes_total") == 0
            stalled[0].close()
            assert first.result() == 200
        assert lb.metric("tls_handshake_errors_total", reason="closed") == 2
        # Connections whose handshake is over do not count.
        for _ in range(5):
            client = stack.enter_context(TlsClient(lb.port("in"), authority.trusting()))
            assert client.ask(get("/served")).status == 200  # so lbproxy is through with its handshake
        assert lb.metric("tls_handshake_errors_total", reason="limit") == 0


def served(lb: LbProxy, authority: Authority) -> int:
    with TlsClient(lb.port("in"), authority.trusting(), timeout_s=60) as client:
        return client.ask(get("/served")).status


def test_who_waits_too_long_for_a_handshake(authority: Authority, tmp_path: Path) -> None:
    limits, timeouts = {"handshakes": 1}, {"tls_handshake": "2s"}
    with proxy(authority, tmp_path, limits=limits, timeouts=timeouts) as lb, Client(lb.port("in")) as stalled:
        wait_until(lambda: lb.metric("client_connections_total") == 1, "it to be counted")
        with Client(lb.port("in")) as late:
            assert late.wait_end() and stalled.wait_end()
        # Which of the two was seen late first decides whether the other had its turn after all.
        metrics = {reason: lb.metric("tls_handshake_errors_total", reason=reason) for reason in ("limit", "timeout")}
        assert sum(metrics.values()) == 2 and metrics["timeout"] >= 1
        assert served(lb, authority) == 200


@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_one_address_does_not_hold_all_handshakes(authority: Authority, tmp_path: Path, mode: str) -> None:
    """`connections_per_ip` counts before the handshake: who is over it gets an alert, and the others their turn."""
    limits = {"handshakes": 8, "connections_per_ip": 4}
    with (
        proxy(authority, tmp_path, mode, limits=limits, timeouts={"tls_handshake": "300s"}) as lb,
        contextlib.ExitStack() as stack,
    ):
        silent = [stack.enter_context(Client(lb.port("in"))) for _ in range(4)]
        wait_until(lambda: lb.metric("client_connections") == 4, "four to be counted")
        for _ in range(20):
            with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
                TlsClient(lb.port("in"), authority.trusting())
        assert lb.metric("rejected_total", reason="max_per_ip") == 20
        assert served_from("127.0.0.2", lb, authority) == 200
        silent[0].close()
        wait_until(lambda: lb.metric("client_connections") == 3, "one to be gone")
        assert served(lb, authority) == 200
        assert lb.metric("tls_handshake_errors_total", reason="limit") == 0


def test_behind_a_balancer_each_client_s_address_counts(authority: Authority, tmp_path: Path) -> None:
    """As soon as the PROXY header has said it, and before TLS."""
    files = authority.issue("proxied", "localhost")
    listener = {"name": "in", "bind": "127.0.0.1:0", "pool": "p", "tls": files.tls, "proxy_protocol": "accept"}
    with Origin() as origin, contextlib.ExitStack() as stack:
        settings: dict[str, object] = {
            "listeners": [{**listener, "limits": {"connections_per_ip": 1}}],
            "pools": {"p": {"servers": [origin.address]}},
            "trusted_proxies": ["127.0.0.1"],
        }
        lb = stack.enter_context(LbProxy(settings, tmp_path))

        def connect(header: str) -> ssl.SSLSocket:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", lb.port("in")), 60))
            sock.sendall(header.encode())
            return stack.enter_context(authority.trusting().wrap_socket(sock, server_hostname="localhost"))

        for last in (1, 2):  # two networks of IPv6, of which the first has many addresses
            connect(f"PROXY TCP6 2001:db8:0:{last}::1 2001:db8::9 1 443\r\n")
        for address in ("2001:db8:0:1::2", "2001:db8:0:1:ffff::"):
            with pytest.raises(ssl.SSLError, match=r"(?i)access.denied"):
                connect(f"PROXY TCP6 {address} 2001:db8::9 1 443\r\n")
        connect("PROXY TCP4 192.0.2.1 192.0.2.9 1 443\r\n").sendall(get("/served"))
        wait_until(lambda: origin.requests, "the request")
        assert lb.metric("rejected_total", reason="max_per_ip") == 2


def served_from(ip: str, lb: LbProxy, authority: Authority) -> int:
    with (
        socket.create_connection(("127.0.0.1", lb.port("in")), 60, (ip, 0)) as sock,
        authority.trusting().wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        tls.sendall(get("/other"))
        return int(tls.recv(64).split()[1])


def test_handshakes_count_as_connections(authority: Authority, tmp_path: Path) -> None:
    """`limits.connections` holds for clients that are not through their handshake yet."""
    files = authority.issue("gate", "localhost")
    with Origin() as origin:
        settings: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p", "tls": files.tls}],
            "pools": {"p": {"servers": [origin.address]}},
            "limits": {"connections": 4},
        }
        with LbProxy(settings, tmp_path) as lb, contextlib.ExitStack() as stack:
            stalled = [stack.enter_context(Client(lb.port("in"))) for _ in range(4)]
            wait_until(lambda: lb.metric("client_connections") == 4, "all to be counted")
            waiting = stack.enter_context(Client(lb.port("in")))
            assert lb.metric("client_connections") == 4  # it is in the kernel's queue
            stalled[0].close()
            wait_until(lambda: lb.metric("client_connections_total") == 5, "the next to be accepted")
            waiting.close()


def test_stopping_does_not_wait_for_stalled_handshakes(authority: Authority, tmp_path: Path) -> None:
    import signal

    with Origin() as origin:
        files = authority.issue("stop", "localhost")
        settings: dict[str, object] = {
            "listeners": [
                {
                    "name": "in",
                    "bind": "127.0.0.1:0",
                    "pool": "p",
                    "tls": files.tls,
                    "timeouts": {"tls_handshake": "300s"},
                }
            ],
            "pools": {"p": {"servers": [origin.address]}},
            "shutdown": {"grace": "1s"},
        }
        lb = LbProxy(settings, tmp_path).start()
        try:
            with Client(lb.port("in")), TlsClient(lb.port("in"), authority.trusting()) as client:
                assert client.ask(get("/x")).status == 200
                lb.signal(signal.SIGTERM)
                assert lb.process is not None
                assert lb.process.wait(60) == 0
        finally:
            lb.kill()
        assert not lb.error_lines()
