"""The end of a process after an upgrade; ends by a signal alone are in test_worker.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.in_flight import PIECE, echoes
from tests.support.origin import Origin, silent
from tests.support.upgrades import Chain, is_alive, wait_ended
from tests.support.waiting import wait_until


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


def chain(origin: Origin, directory: Path, after_upgrade: str, grace: str = "1h") -> Chain:
    return Chain(
        {
            "listeners": [
                {"name": "tcp", "bind": "127.0.0.1:0", "pool": "p", "mode": "tcp"},
                {"name": "in", "bind": "127.0.0.1:0", "pool": "p"},
            ],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
            "shutdown": {"grace": grace, "after_upgrade": after_upgrade},
        },
        directory,
    )


def tunnel(lb: Chain, origin: Origin) -> Client:
    origin.script(echoes)
    client = Client(lb.port("tcp"))
    client.send(PIECE)
    assert client.take(len(PIECE)) == PIECE
    return client


def test_what_is_in_flight_after_an_upgrade_has_its_time_and_is_cut_then(origin: Origin, tmp_path: Path) -> None:
    with chain(origin, tmp_path, "1s") as lb, tunnel(lb, origin) as client:
        lb.upgrade()
        wait_ended(lb.pid)
        assert client.stream.fill() is False and client.stream.end == "rst"
        assert lb.exit_code == 1 and "1 requests or connections were cut" in lb.stderr


def test_a_stop_of_the_new_process_ends_those_before_it_too(origin: Origin, tmp_path: Path) -> None:
    """Whoever stops lbproxy knows of one process."""
    with chain(origin, tmp_path, "1h", grace="1s") as lb, tunnel(lb, origin), tunnel(lb, origin):
        lb.upgrade()
        with tunnel(lb, origin):
            lb.upgrade()
            assert is_alive(lb.pid) and is_alive(lb.pids[0])
            os.kill(lb.current, signal.SIGTERM)
            for pid in (lb.current, lb.pids[0], lb.pid):
                wait_ended(pid)
        assert lb.stderr.count("were cut") == 2


def test_a_signal_ends_the_old_process_alone(origin: Origin, tmp_path: Path) -> None:
    with chain(origin, tmp_path, "1h") as lb:
        origin.script(silent)
        with Client(lb.port("in")) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            wait_until(lambda: lb.metric("server_inflight") == 1, "the request to be at the server")
            lb.upgrade()
            lb.signal(signal.SIGTERM)
            lb.wait_logged("SIGTERM: stopping")  # two that wait to be delivered are one
            lb.signal(signal.SIGTERM)
            wait_ended(lb.pid)
        assert is_alive(lb.current)


@pytest.mark.slow
def test_an_idle_connection_is_kept_for_one_more_request(origin: Origin, tmp_path: Path) -> None:
    """It would be a request that failed, if the client sent it at the moment in which it is closed."""
    request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    with chain(origin, tmp_path, "1h") as lb, Client(lb.port("in")) as client:
        assert client.ask(request).is_kept_alive
        lb.upgrade()
        assert is_alive(lb.pid)
        answer = client.ask(request)
        assert answer.status == 200 and not answer.is_kept_alive
        wait_ended(lb.pid)
        assert lb.exit_code == 0
