"""Upgrades while everything is in flight: requests, new connections, streams, an upload, WebSockets, TCP connections.

LBPROXY_UPGRADES=10 in the environment makes as many as `make soak` does, with 500 requests a second, 50 WebSockets, 50
TCP connections and 10 streams.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.certificates import Authority, TlsClient
from tests.support.client import Client
from tests.support.crew import members_of
from tests.support.in_flight import PIECE, open_tunnels, streams
from tests.support.open_loop import Servers
from tests.support.origin import Origin
from tests.support.ports import consecutive_ports
from tests.support.upgrades import READY_S, Chain, wait_ended
from tests.support.waiting import wait_until

UPGRADES = int(os.environ.get("LBPROXY_UPGRADES", "2"))
IS_FULL = UPGRADES >= 10
RATE = 500 if IS_FULL else 100
N_TUNNELS, N_STREAMS = (50, 10) if IS_FULL else (3, 2)
ECHO_S = 0.5 if IS_FULL else 0.02  # between two pieces of a tunnel
REQUEST = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"


class Traffic:
    """Requests on kept connections, and on one each; connections that end after an answer said so are made anew."""

    def __init__(self) -> None:
        self.failed: list[object] = []
        self.counts: dict[str, int] = {}
        self._is_over = threading.Event()
        self._threads: list[threading.Thread] = []

    def kept(self, connect: Any) -> None:
        while not self._is_over.is_set():
            with connect() as client:
                while not self._is_over.is_set():
                    answer = client.ask(REQUEST)
                    assert answer.status == 200, answer
                    self._count("kept")
                    if not answer.is_kept_alive:
                        break

    def once(self, connect: Any, preface: bytes = b"") -> None:
        while not self._is_over.is_set():
            with connect() as client:
                answer = client.ask(preface + REQUEST)
                assert answer.status == 200, answer
                self._count("once")
            time.sleep(0.005)

    def echoed(self, client: Client) -> None:
        while not self._is_over.is_set():
            client.send(PIECE)
            assert client.take(len(PIECE)) == PIECE
            self._count("echoed")
            time.sleep(ECHO_S)

    def uploaded(self, client: Client) -> None:
        while not self._is_over.is_set():
            assert client.send(b"5\r\n%b\r\n" % PIECE)
            self._count("uploaded")
            time.sleep(0.05)

    def _count(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def start(self, work: Any, *arguments: Any) -> None:
        def run() -> None:
            try:
                work(*arguments)
            except Exception as error:
                self.failed.append((work.__name__, arguments, repr(error)))

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)


@pytest.fixture
def origins() -> Iterator[tuple[Origin, Origin]]:
    with Origin() as short, Origin() as long:
        yield short, long


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_in_flight_is_hurt_and_nobody_is_refused(
    origins: tuple[Origin, Origin], tmp_path: Path, workers: int
) -> None:
    check_upgrades(origins, tmp_path, [workers] * (UPGRADES + 1))


def check_upgrades(origins: tuple[Origin, Origin], tmp_path: Path, workers: Sequence[int]) -> None:
    """Upgrades under load. workers: how many the first lbproxy has, and each that takes over."""
    with Servers(1, 0.0) as servers:
        _check_upgrades(origins, servers, tmp_path, workers)


def _check_upgrades(origins: tuple[Origin, Origin], servers: Servers, tmp_path: Path, workers: Sequence[int]) -> None:
    short, long = origins
    authority = Authority(tmp_path / "ca")
    files = authority.issue("site", "localhost")
    first = consecutive_ports(2)
    unix = str(tmp_path / "in.sock")
    config: dict[str, Any] = {
        "workers": workers[0],
        "trusted_proxies": ["127.0.0.1"],
        "listeners": [
            {"name": "in", "bind": "127.0.0.1:0", "pool": "p"},
            {"name": "range", "bind": [f"127.0.0.1:{first}", f"127.0.0.1:{first + 1}", f"unix:{unix}"], "pool": "p"},
            {"name": "tls", "bind": "127.0.0.1:0", "pool": "p", "tls": files.tls},
            {"name": "proxied", "bind": "127.0.0.1:0", "pool": "p", "proxy_protocol": "accept"},
            {"name": "long", "bind": "127.0.0.1:0", "pool": "long", "upgrade": ["websocket"]},
            {"name": "tcp", "bind": "127.0.0.1:0", "pool": "tcp", "mode": "tcp"},
            {"name": "fast", "bind": "127.0.0.1:0", "pool": "fast"},
        ],
        "pools": {
            "p": {"servers": [short.address], "health_check": {"interval": "100ms"}},
            "long": {"servers": [long.address], "health_check": "off", "keep_alive": "off"},
            "tcp": {"servers": [long.address], "health_check": "off"},
            "fast": {"servers": servers.addresses, "health_check": "off"},
        },
    }
    is_over = threading.Event()
    with Chain(config, tmp_path / "lb") as lb, contextlib.ExitStack() as stack:
        stack.callback(is_over.set)
        context = authority.trusting()
        tunnels = open_tunnels(lb, long, stack, N_TUNNELS)
        long.script(*[streams(lambda: not is_over.is_set())] * N_STREAMS)
        readers = [stack.enter_context(Client(lb.port("long"), timeout_s=READY_S)) for _ in range(N_STREAMS)]
        for client in readers:
            client.send(b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n")
            client.wait_for(PIECE)
        upload = stack.enter_context(Client(lb.port("long"), timeout_s=READY_S))
        upload.send(b"POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        traffic = Traffic()
        stack.callback(traffic.stop)
        for client in tunnels:
            traffic.start(traffic.echoed, client)
        traffic.start(traffic.uploaded, upload)
        for _ in range(2):
            traffic.start(traffic.kept, lambda: Client(lb.port("in")))
        traffic.start(traffic.kept, lambda: Client(unix))
        traffic.start(traffic.kept, lambda: TlsClient(lb.port("tls"), context))
        traffic.start(traffic.once, lambda: Client(first))
        traffic.start(traffic.once, lambda: Client(first + 1))
        traffic.start(traffic.once, lambda: TlsClient(lb.port("tls"), context))
        traffic.start(traffic.once, lambda: Client(lb.port("proxied")), b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n")
        load = stack.enter_context(servers.load(lb.port("fast"), RATE))
        written = yaml.safe_load(lb.config_path.read_text())
        for number, n_workers in enumerate(workers[1:], 1):
            before = dict(traffic.counts)
            lb.config_path.write_text(yaml.safe_dump({**written, "workers": n_workers}))
            lb.upgrade()
            assert len(members_of(lb.current)) == (n_workers + 1 if n_workers > 1 else 0)
            for kind, more in (("kept", 20), ("once", 5), ("echoed", 20), ("uploaded", 5)):
                while traffic.counts.get(kind, 0) < before.get(kind, 0) + more and not traffic.failed:
                    time.sleep(0.01)
            assert traffic.failed == []
            assert (load.report.refused, load.report.broken) == (0, [])
            assert lb.metric("upgrades_total", result="success") == number
        traffic.stop()
        assert traffic.failed == []
        is_over.set()
        for client in readers:
            body = client.response().body
            pieces, _, count = body.rpartition(PIECE)
            assert (len(pieces) + len(PIECE)) // len(PIECE) == int(count)
        load.is_asking = False
        wait_until(lambda: load.report.is_over, "every request to have its end")
        report = load.report
        assert report.statuses == {200: report.sent} and not report.refused and not report.broken, report
        print(f"{len(workers) - 1} upgrades; {report.sent} requests and {traffic.counts}")
        upload.send(b"0\r\n\r\n")
        assert upload.response().status == 200
        for client in tunnels:
            client.close()
        for pid in (lb.pid, *lb.pids[:-1]):
            wait_ended(pid)
        assert lb.exit_code == 0
        assert "were cut" not in lb.stderr
        alone = workers[:-1].count(1)
        assert lb.stderr.count("lbproxy: stopped; nothing was cut") == alone
        assert lb.stderr.count("[supervisor] stopped; nothing was cut") == len(workers) - 1 - alone
