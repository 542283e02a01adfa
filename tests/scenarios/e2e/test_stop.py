"""SIGTERM while predictions run: what is in flight finishes, what takes too long is cut, nobody is left hanging."""

from __future__ import annotations

import errno
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.client import Client
from tests.support.e2e_app import EXECUTED
from tests.support.rig import get
from tests.support.servers import Daemon, Gunicorn, Load, gunicorns, session
from tests.support.waiting import wait_until

CLIENTS = 12


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gunicorn]]:
    folder = tmp_path_factory.mktemp("stop")
    with gunicorns(folder, 2, **{EXECUTED: str(folder / "executed")}) as started:
        yield started


def daemon(servers: list[Gunicorn], folder: Path, *, grace: str = "10s", delay: str = "0s") -> Daemon:
    pool = {"servers": [server.address for server in servers], "health_check": "/health"}
    return Daemon(
        {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": pool},
            "shutdown": {"grace": grace, "delay": delay},
        },
        folder,
    ).start()


class Slow:
    """One POST that takes so many seconds at the server."""

    def __init__(self, lb: Daemon, seconds: float) -> None:
        self.status = 0
        self.error = ""
        self._url = f"http://127.0.0.1:{lb.port('in')}/work"
        self._task = {"id": f"slow-{seconds}", "seconds": seconds}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        wait_until(lambda: lb.metric("server_inflight") == 1, "the slow request to be at a server")

    def _run(self) -> None:
        with session() as client:
            try:
                self.status = client.post(self._url, json=self._task, timeout=30).status_code
            except requests.RequestException as error:
                self.error = repr(error)

    def join(self) -> None:
        self._thread.join()


def ended(lb: Daemon, within_s: float) -> int:
    """The exit status."""
    assert lb.process is not None
    return lb.process.wait(within_s)


@pytest.mark.parametrize("delay", ["0s", "500ms"])
def test_requests_in_flight_finish(servers: list[Gunicorn], tmp_path: Path, delay: str) -> None:
    lb = daemon(servers, tmp_path, delay=delay)
    try:
        with Load(lb.port("in"), CLIENTS, (0.05, 0.2, 0.4)) as load:
            load.wait_for(30)
            load.stop_on_close = True
            lb.signal(signal.SIGTERM)
            wait_until(lambda: len(load.has_left) == CLIENTS, "every client to be told Connection: close")
        assert ended(lb, 5.0) == 0, lb.stderr
        assert [(one.status, one.error) for one in load.failed] == []
        assert not lb.error_lines(), lb.stderr
        assert "nothing was cut" in lb.stderr
        assert len(lb.access_log()) == len(load.outcomes)
    finally:
        lb.kill()


def test_ready_says_draining_and_new_clients_are_refused(servers: list[Gunicorn], tmp_path: Path) -> None:
    lb = daemon(servers, tmp_path)
    try:
        assert lb.admin_get("/readyz")[0] == 200
        slow = Slow(lb, 1.5)
        lb.signal(signal.SIGTERM)
        wait_until(lambda: lb.admin_get("/readyz")[0] == 503, "/readyz to be 503")
        assert b"draining" in lb.admin_get("/readyz")[1]
        assert lb.admin_get("/healthz")[0] == 200
        wait_until(lambda: refuses(lb.port("in")), "the listener to be closed")
        assert lb.is_running
        slow.join()
        assert (slow.status, slow.error) == (200, "")
        assert ended(lb, 5.0) == 0
    finally:
        lb.kill()


def refuses(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_new_clients_are_served_during_the_delay(servers: list[Gunicorn], tmp_path: Path) -> None:
    lb = daemon(servers, tmp_path, delay="800ms")
    try:
        lb.signal(signal.SIGTERM)
        wait_until(lambda: lb.admin_get("/readyz")[0] == 503, "/readyz to be 503")
        with Client(lb.port("in")) as client:
            assert client.ask(get("/while-others-are-told")).status == 200
        assert ended(lb, 5.0) == 0
    finally:
        lb.kill()


def test_idle_connections_do_not_hold_it_up(servers: list[Gunicorn], tmp_path: Path) -> None:
    lb = daemon(servers, tmp_path, grace="20s")
    try:
        with Client(lb.port("in")) as used, Client(lb.port("in")) as silent:
            assert used.ask(get("/")).status == 200
            lb.signal(signal.SIGTERM)
            assert ended(lb, 4.0) == 0
            assert (used.wait_end(), silent.wait_end()) == ("fin", "fin")
    finally:
        lb.kill()


def test_a_request_longer_than_grace_is_cut(servers: list[Gunicorn], tmp_path: Path) -> None:
    lb = daemon(servers, tmp_path, grace="1s")
    try:
        slow = Slow(lb, 4.0)
        started = time.monotonic()
        lb.signal(signal.SIGTERM)
        assert ended(lb, 3.5) == 1, lb.stderr
        assert 0.9 < time.monotonic() - started < 3.5  # the request takes 4 s
        slow.join()
        assert slow.status == 503 or (slow.status == 0 and slow.error), (slow.status, slow.error)
        assert "1 requests or connections were cut" in lb.stderr
        assert [entry["status"] for entry in lb.access_log()] == [503]
    finally:
        lb.kill()


def test_a_body_that_is_cut_at_grace_shows(servers: list[Gunicorn], tmp_path: Path) -> None:
    """The client must not take half a download for a whole one: its connection is reset."""
    lb = daemon(servers, tmp_path, grace="1s")
    try:
        with Client(lb.port("in"), receive_buffer=8192) as client:
            client.send(get("/download/1000"))
            client.wait_for(b"\r\n\r\n")
            lb.signal(signal.SIGTERM)
            assert ended(lb, 3.5) == 1, lb.stderr
            client.read_to_end()
            assert client.end == "rst"
            assert len(client.stream.record) < 1000 * 65536
    finally:
        lb.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(servers: list[Gunicorn], tmp_path: Path, number: signal.Signals) -> None:
    lb = daemon(servers, tmp_path)
    try:
        slow = Slow(lb, 3.0)
        lb.signal(signal.SIGTERM)
        wait_until(lambda: lb.admin_get("/readyz")[0] == 503, "/readyz to be 503")
        started = time.monotonic()
        lb.signal(number)
        assert ended(lb, 2.0) == 1, lb.stderr
        assert time.monotonic() - started < 2.0  # the request in flight takes 3 s
        slow.join()
        assert slow.status != 200
        assert f"{number.name} again: stopping at once" in lb.stderr
    finally:
        lb.kill()
