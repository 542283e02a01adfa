"""Handshakes are bounded in time and number, and cost the other clients nothing."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority, TlsClient
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.rig import get
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
        proxy(authority, tmp_path, mode, timeouts={"tls_handshake": "1500ms"}) as lb,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(Client(lb.port("in"))) for _ in range(STALLED)]
        for number, client in enumerate(clients):
            client.send(said[: (0, len(said) // 2, len(said))[number % 3]])
        wait_until(lambda: lb.metric("client_connections") == STALLED, "all to be counted")
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
        proxy(authority, tmp_path, limits={"handshakes": 3}, timeouts={"tls_handshake": "30s"}) as lb,
        contextlib.ExitStack() as stack,
    ):
        stalled = [stack.enter_context(Client(lb.port("in"))) for _ in range(3)]
        wait_until(lambda: lb.metric("client_connections") == 3, "all to be counted")
        with Client(lb.port("in")) as surplus:
            assert surplus.wait_end() == "rst"
        assert lb.metric("tls_handshake_errors_total", reason="limit") == 1
        stalled[0].close()
        wait_until(lambda: lb.metric("client_connections") == 2, "one to be gone")
        # Connections whose handshake is over do not count.
        for _ in range(5):
            client = stack.enter_context(TlsClient(lb.port("in"), authority.trusting()))
            assert client.ask(get("/served")).status == 200  # so lbproxy is through with its handshake
        assert lb.metric("tls_handshake_errors_total", reason="closed") == 1


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
                    "timeouts": {"tls_handshake": "60s"},
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
                assert lb.process.wait(10) == 0
        finally:
            lb.kill()
        assert not lb.error_lines()
