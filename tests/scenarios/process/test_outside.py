"""A real daemon and who stands around it: a service manager, opened sockets, a pid file; through an upgrade."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lbproxy.process import activation
from tests.scenarios.process.test_reload import get
from tests.support.client import Client
from tests.support.daemon import LbProxy, Settings
from tests.support.origin import Origin
from tests.support.upgrades import MAIN, READY_S, Chain, wait_ended
from tests.support.waiting import wait_until

CONFIG: dict[str, Any] = {
    "listeners": [{"name": "in", "bind": "127.0.0.1:0", "routes": [{"respond": {"status": 200}}]}],
    "pools": {"p": {"servers": ["127.0.0.1:1"], "health_check": "off"}},
}


HANGING_STRATEGY = """
import pathlib, time

HERE = pathlib.Path(__file__).parent


class Hangs:
    def __init__(self, options, rng):
        pass

    def rebuild(self, servers):
        pass

    def pick(self, eligible, ctx, now):
        while (HERE / "hang").exists():
            (HERE / "hangs").touch()
            time.sleep(0.01)
        return eligible[0]
"""


class Manager:
    """Listens as a service manager does, at an abstract name."""

    def __init__(self, name: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + name)
        self.env = {"NOTIFY_SOCKET": "@" + name, "WATCHDOG_USEC": "100000"}
        self.n_fed = 0
        self._heard: queue.Queue[dict[str, str]] = queue.Queue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while data := self.sock.recv(4096):
            told = dict(line.split("=", 1) for line in data.decode().splitlines())
            if "WATCHDOG" in told:
                self.n_fed += 1
            else:
                self._heard.put(told)

    def is_silent(self, seconds: float) -> bool:
        """Does nobody feed the watchdog for so long?"""
        before = self.n_fed
        time.sleep(seconds)
        return self.n_fed == before

    def hear(self) -> dict[str, str]:
        """The next message that is not about the watchdog."""
        return self._heard.get(timeout=READY_S)

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.sock.close()


def test_a_service_manager_and_a_pid_file_follow_an_upgrade(tmp_path: Path) -> None:
    pid_file = tmp_path / "lb.pid"
    lb = Chain(CONFIG, tmp_path / "lb", "--pid-file", str(pid_file))
    lb.is_executed = True
    with Manager(f"lbproxy-{os.getpid()}") as manager:
        try:
            lb.start(manager.env)
            assert manager.hear() == {"READY": "1", "STATUS": "serving"}
            assert pid_file.read_text() == f"{lb.pid}\n"
            environ = Path(f"/proc/{lb.pid}/environ").read_bytes()
            assert b"NOTIFY_SOCKET" in environ, "what the kernel shows is that of the start"
            lb.signal(signal.SIGHUP)
            told = manager.hear()
            assert told["RELOADING"] == "1" and int(told["MONOTONIC_USEC"]) > 0
            assert manager.hear() == {"READY": "1", "STATUS": "serving"}
            with lb.holding("serving") as new:
                assert manager.hear() == {"READY": "1", "STATUS": "serving", "MAINPID": str(new)}
                assert pid_file.read_text() == f"{new}\n"
                os.kill(new, signal.SIGKILL)
                assert manager.hear() == {"MAINPID": str(lb.pid)}
                assert pid_file.read_text() == f"{lb.pid}\n"
            wait_until(lambda: manager.n_fed > 2, "the watchdog to be fed")
            lb.upgrade()
            assert manager.hear()["MAINPID"] == str(lb.current)
            wait_ended(lb.pid)
            assert pid_file.read_text() == f"{lb.current}\n"
            os.kill(lb.current, signal.SIGTERM)
            assert manager.hear()["STOPPING"] == "1"
            wait_ended(lb.current)
            assert not pid_file.exists()
        finally:
            lb.kill()


class Activated(LbProxy):
    """Started with sockets that are open already, as a service manager does it."""

    def __init__(self, config: Settings, directory: Path, *sockets: socket.socket) -> None:
        super().__init__(config, directory)
        self.sockets = sockets

    def _program(self) -> list[str]:
        fds = [sock.fileno() for sock in self.sockets]
        return [
            sys.executable,
            "-P",
            "-c",
            "import os\n"
            f"for number, fd in enumerate({[fd + 100 for fd in fds]}): os.dup2(fd, number + 3)\n"
            f"os.environ.update(LISTEN_FDS='{len(fds)}', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='a')\n" + MAIN,
        ]

    def _started(self, env: Any) -> Any:
        for sock in self.sockets:
            os.dup2(sock.fileno(), sock.fileno() + 100)
        with self.stderr_path.open("wb") as stderr:
            return subprocess.Popen(
                [*self._program(), "--config", str(self.config_path)],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[sock.fileno() + 100 for sock in self.sockets],
            )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_is_told_with_the_time_at_which_it_began(tmp_path: Path, workers: int) -> None:
    """As systemd.service(5) wants it of Type=notify-reload: not before the signal was sent, and READY after it."""
    with (
        Manager(f"lbproxy-reload-{os.getpid()}-{workers}") as manager,
        LbProxy({**CONFIG, "workers": workers}, tmp_path) as lb,
    ):
        lb.stop()
        lb.start(manager.env)
        assert manager.hear()["READY"] == "1"
        for text in (lb.config_path.read_text(), "listeners: ["):  # a file with a mistake is the end of it, too
            lb.config_path.write_text(text)
            sent_usec = time.monotonic_ns() // 1000
            lb.signal(signal.SIGHUP)
            told = manager.hear()
            assert told["RELOADING"] == "1"
            assert sent_usec <= int(told["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            assert manager.hear()["READY"] == "1"


def test_a_loop_that_hangs_feeds_no_watchdog(tmp_path: Path) -> None:
    """A strategy that never comes back. What systemd does then (SIGABRT, another start) is its own."""
    directory = tmp_path / "lb"
    directory.mkdir()
    (directory / "hangs.py").write_text(HANGING_STRATEGY)
    with Origin() as origin, Origin() as other, Manager(f"lbproxy-hangs-{os.getpid()}") as manager:
        config = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {
                "p": {
                    "servers": [origin.address, other.address],
                    "health_check": "off",
                    "strategy": {"python": "hangs.py:Hangs"},
                }
            },
        }
        lb = LbProxy(config, directory)
        try:
            lb.start(manager.env)
            wait_until(lambda: manager.n_fed > 2, "the watchdog to be fed")
            (directory / "hang").touch()
            with Client(lb.port("in")) as client:
                client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                wait_until((directory / "hangs").exists, "the strategy to hang")
                wait_until(lambda: manager.is_silent(1.0), "the watchdog to be fed no more")
                assert manager.is_silent(1.0)
                fed = manager.n_fed
                (directory / "hang").unlink()
                assert client.response().status == 200
            wait_until(lambda: manager.n_fed > fed + 2, "the watchdog to be fed again")
            lb.stop()
        finally:
            lb.kill()


@pytest.mark.parametrize("workers", [1, 2])
def test_opened_sockets_are_taken_by_their_address(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "in.sock"
    with (
        socket.create_server(("127.0.0.1", 0)) as web,
        socket.create_server(("127.0.0.1", 0)) as admin,
        socket.create_server(("127.0.0.1", 0)) as nobodys,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(str(path))
        unix.listen()
        ports = [sock.getsockname()[1] for sock in (web, admin, nobodys)]
        listener = {**CONFIG["listeners"][0], "bind": [f"127.0.0.1:{ports[0]}", f"unix:{path}"]}
        settings = {**CONFIG, "workers": workers, "listeners": [listener], "admin": {"bind": f"127.0.0.1:{ports[1]}"}}
        with Activated(settings, tmp_path / "lb", admin, unix, nobodys, web) as lb:
            web.close()
            admin.close()
            assert get(ports[0])[0] == 200
            assert f"has opened 127.0.0.1:{ports[2]}, which no listener binds" in lb.stderr
            wait_until(lambda: lb.status()["state"] == "running", "the admin address to answer")
        assert path.exists(), "whoever made it removes it"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))  # and waits there for the lbproxy that is started next


def test_what_is_no_listening_socket_is_refused() -> None:
    with socket.socket() as sock, pytest.raises(ValueError, match="no listening stream socket"):
        activation.opened([sock.fileno()])
    with pytest.raises(ValueError, match="is no socket"):
        activation.opened([987])


def test_a_pid_file_that_can_t_be_written_ends_the_start(tmp_path: Path) -> None:
    lb = Chain(CONFIG, tmp_path, "--pid-file", str(tmp_path / "missing" / "lb.pid"))
    with pytest.raises(AssertionError, match="the daemon ended with status 1"):
        lb.start()
    assert "cannot start: the pid file can't be written: No such file or directory" in lb.stderr
