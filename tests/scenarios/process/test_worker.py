"""The life of the process: start, signals, stop, and the exit status of each."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import build
from tests.support.client import Client
from tests.support.daemon import STOP_S, LbProxy, Settings
from tests.support.hooked import HookedDaemon
from tests.support.origin import Origin, Peer, silent
from tests.support.ports import consecutive_ports
from tests.support.rig import get
from tests.support.waiting import wait_until

Start = Callable[[Settings], LbProxy]


@pytest.fixture
def origin() -> Iterator[Origin]:
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts daemons that end with the test."""
    started: list[LbProxy] = []

    def start(settings: Settings) -> LbProxy:
        lb = LbProxy(settings, tmp_path / f"daemon{len(started)}")
        started.append(lb)
        return lb.start()

    yield start
    for lb in started:
        if lb.is_running:
            lb.kill()


def config(origin: Origin, grace: str = "60s", **more: object) -> Settings:
    return {
        "listeners": [{"name": "web", "bind": f"127.0.0.1:{consecutive_ports(1)}", "pool": "app"}],
        "pools": {"app": {"servers": [origin.address], "health_check": "off"}},
        "shutdown": {"grace": grace},
        **more,
    }


def ended(lb: LbProxy) -> int:
    assert lb.process is not None
    return lb.process.wait(STOP_S)


def test_an_idle_process_stops_at_once_with_status_0(origin: Origin, start: Start) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        lb = start(config(origin))
        lb.signal(number)
        assert ended(lb) == 0
        assert f"{number.name}: stopping" in lb.stderr and "nothing was cut" in lb.stderr


def test_a_request_in_flight_is_finished(origin: Origin, start: Start) -> None:
    is_told = threading.Event()

    def slow(peer: Peer) -> None:
        request = peer.read_request()
        peer.wait(is_told)
        peer.send(peer.origin.answer(request))
        peer.read_to_end()

    origin.script(slow)
    lb = start(config(origin))
    with Client(lb.port("web")) as client:
        client.send(get("/slow"))
        wait_until(lambda: lb.metric("server_inflight") == 1, "the request to be at the server")
        lb.signal(signal.SIGTERM)
        lb.wait_logged("SIGTERM: stopping")
        is_told.set()
        answer = client.response()
        assert answer.status == 200 and not answer.is_kept_alive
    assert ended(lb) == 0
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", lb.port("web")), 1.0)


@pytest.mark.parametrize("signals", [1, 2])
def test_what_is_left_after_grace_is_cut_and_the_status_is_1(origin: Origin, start: Start, signals: int) -> None:
    """A second signal does not wait for grace."""
    origin.script(silent)
    lb = start(config(origin, grace="1s" if signals == 1 else "1h"))
    with Client(lb.port("web")) as client:
        client.send(get("/never"))
        wait_until(lambda: lb.metric("server_inflight") == 1, "the request to be at the server")
        lb.signal(signal.SIGTERM)
        lb.wait_logged("SIGTERM: stopping")  # two that wait to be delivered are one
        if signals == 2:
            lb.signal(signal.SIGTERM)
        assert client.response().status == 503
    assert ended(lb) == 1
    assert "1 requests or connections were cut" in lb.stderr


def test_usr1_opens_the_access_log_again(origin: Origin, tmp_path: Path) -> None:
    with LbProxy(config(origin), tmp_path) as lb, Client(lb.port("web")) as client:
        client.send(get("/before"))
        client.response()
        lb.entry("/before")
        moved = lb.access_log_path.with_suffix(".1")
        lb.access_log_path.rename(moved)
        lb.signal(signal.SIGUSR1)
        wait_until(lb.access_log_path.exists, "the new log file")
        client.send(get("/after"))
        client.response()
        lb.entry("/after")
        assert "/before" in moved.read_text() and "/after" not in moved.read_text()


@pytest.mark.parametrize("what", ["listener", "admin", "access_log"])
def test_what_cannot_be_opened_ends_the_start_with_one_sentence(origin: Origin, tmp_path: Path, what: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = config(origin)
        if what == "listener":
            settings = {**settings, "listeners": [{"name": "web", "bind": address, "pool": "app"}]}
        elif what == "admin":
            settings = {**settings, "admin": {"bind": address}}
        else:
            settings = {**settings, "access_log": {"path": str(tmp_path / "missing" / "log")}}
        lb = LbProxy(settings, tmp_path)
        with pytest.raises(AssertionError, match="the daemon ended with status 1"):
            lb.start()
    assert "Traceback" not in lb.stderr
    assert lb.stderr.count("cannot start: ") == 1
    name = {"listener": f"cannot listen on {address}", "admin": "admin.bind", "access_log": "access_log"}[what]
    assert name in lb.stderr


def test_the_log_says_that_it_is_interpreted_exactly_if_it_is(tmp_path: Path) -> None:
    settings = {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": ["127.0.0.1:1"]}},
    }
    package = build.installed()
    is_compiled = package is not None and bool(list(package.glob("dataplane/*.so")))
    with LbProxy(settings, tmp_path / "installed") as lb:
        assert ("interpreted: " in lb.stderr) is not is_compiled
    with HookedDaemon(settings, tmp_path / "sources") as hooked:
        assert "interpreted: " in hooked.stderr
