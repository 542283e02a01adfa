"""The process that hands over: what it gives, and that it goes on when the new one fails, however that does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scenarios.process.test_reload import get
from tests.support.client import Client
from tests.support.daemon import STOP_S
from tests.support.origin import Origin
from tests.support.ports import consecutive_ports
from tests.support.upgrades import MAIN, READY_S, Chain, is_alive, prepared, wait_ended
from tests.support.waiting import wait_until

_PIDFD_GETFD = 438  # <asm-generic/unistd.h>, pidfd_getfd(2)


@pytest.fixture
def origins() -> Iterator[list[Origin]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Origin()) for _ in range(3)]


def config(origins: list[Origin], **more: object) -> dict[str, Any]:
    servers = [origin.address for origin in origins]
    return {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": servers, "health_check": {"interval": "100s"}}},
        **more,
    }


def patch(lb: Chain, server: str, body: bytes, method: bytes = b"PATCH") -> None:
    with Client(lb.port("admin")) as admin:
        admin.send(
            b"%b /api/v1/pools/p/servers%b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (method, f"/{server}".encode() if server else b"", len(body), body)
        )
        assert admin.response().status in (200, 201)


def servers(lb: Chain) -> dict[str, dict[str, Any]]:
    pools: list[dict[str, Any]] = lb.status()["pools"]  # type: ignore[assignment]
    return {server["name"]: server for server in pools[0]["servers"]}


def test_what_is_known_of_servers_is_known_at_once_to_the_next_version(origins: list[Origin], tmp_path: Path) -> None:
    up, drained, removed = (origin.address for origin in origins)
    with Origin() as more, Chain(config(origins), tmp_path) as lb:
        wait_until(lambda: all(item["health"] == "up" for item in servers(lb).values()), "all to be checked")
        patch(lb, drained, b'{"admin": "drain", "weight": 7}')
        patch(lb, removed, b"", b"DELETE")
        patch(lb, "", b'{"address": "%b"}' % more.address.encode(), b"POST")
        wait_until(lambda: servers(lb)[more.address]["health"] == "up", "the one that was added to be checked")
        prepared(lb.directory, "import lbproxy\nlbproxy.__version__ = '99.1'")
        told = lb.upgrade()
        assert (told["old"]["pid"], told["new"]["version"]) == (lb.pid, "99.1")
        assert lb.status()["version"] == "99.1"
        found = servers(lb)
        assert {name: item["state"] for name, item in found.items()} == {up: "up", drained: "drain", more.address: "up"}
        assert found[drained]["weight"] == 7 and found[drained]["sources"]["weight"]["by"] == "127.0.0.1"
        assert found[more.address]["source"] == "live"
        assert get(lb.port("in"))[0] == 200
        wait_ended(lb.pid)
        assert lb.exit_code == 0


def test_the_state_file_is_written_by_the_process_that_serves(origins: list[Origin], tmp_path: Path) -> None:
    server, path = origins[0].address, tmp_path / "state.json"

    def is_kept(weight: int) -> bool:
        return path.exists() and f'"value": {weight}' in path.read_text()

    with Chain(config(origins, state_file="state.json"), tmp_path) as lb:
        patch(lb, server, b'{"weight": 7}')
        wait_until(lambda: is_kept(7), "the old process to write")
        with lb.holding("serving") as new:  # it was told to serve, and is killed before it does
            os.kill(new, signal.SIGKILL)
            lb.wait_logged("no upgrade, this process goes on: ")
        patch(lb, server, b'{"weight": 8}')
        wait_until(lambda: is_kept(8), "the old process to go on with it")
        lb.upgrade()
        assert "weight: 1 -> 8, by 127.0.0.1 before the upgrade" in lb.stderr
        wait_ended(lb.pid)
        patch(lb, server, b'{"weight": 9}')
        wait_until(lambda: is_kept(9), "the new process to write")


def test_sigusr2_and_a_unix_admin_address(origins: list[Origin], tmp_path: Path) -> None:
    """Files of unix sockets stay where they are, and go with the last process."""
    admin, bind = tmp_path / "admin.sock", tmp_path / "in.sock"
    settings = config(origins, admin={"bind": f"unix:{admin}"})
    settings["listeners"][0]["bind"] = ["127.0.0.1:0", f"unix:{bind}"]
    lb = Chain(settings, tmp_path / "lb")
    lb._admin_status = lambda path: 200  # type: ignore[method-assign]  # which asks by TCP
    with lb:
        inodes = admin.stat().st_ino, bind.stat().st_ino
        lb.signal(signal.SIGUSR2)
        lb.wait_logged("has taken over from")
        lb.pids.append(int(lb.stderr.split("upgrade: process ")[1].split()[0]))
        wait_ended(lb.pid)
        assert (admin.stat().st_ino, bind.stat().st_ino) == inodes
        with Client(str(bind)) as client:
            assert client.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
        with Client(str(admin)) as client:
            assert client.ask(b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
        os.kill(lb.current, signal.SIGTERM)
        wait_ended(lb.current)
        assert not admin.exists() and not bind.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_nobody_comes_to_an_abstract_socket_at_the_end_of_the_last_process(
    origins: list[Origin], tmp_path: Path, workers: int
) -> None:
    """Who came between its last accept and its close would be reset. Here the socket is kept open beyond that."""
    name = f"lbproxy-test-{os.getpid()}-{workers}"
    settings = config(origins, workers=workers)
    settings["listeners"][0]["bind"] = ["127.0.0.1:0", f"unix:@{name}"]
    with Chain(settings, tmp_path) as lb:
        lb.upgrade()
        wait_ended(lb.pid)
        with copy_of(lb.current, name), socket.socket(socket.AF_UNIX) as client:
            os.kill(lb.current, signal.SIGTERM)
            wait_ended(lb.current)
            with pytest.raises(ConnectionRefusedError):
                client.connect(f"\0{name}")


def copy_of(pid: int, name: str) -> socket.socket:
    """Of the listening socket with this abstract name in another process."""
    inodes = [line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(f"@{name}")]
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if entry.readlink().name in {f"socket:[{inode}]" for inode in inodes}:
                handle = os.pidfd_open(pid)
                try:
                    fd = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, handle, int(entry.name), 0)
                finally:
                    os.close(handle)
                if fd < 0:
                    pytest.skip(f"no descriptor of another process can be had: {os.strerror(ctypes.get_errno())}")
                return socket.socket(fileno=fd)
    raise AssertionError(f"no process {pid} listens at @{name}")


def test_a_new_process_that_fails_changes_nothing(origins: list[Origin], tmp_path: Path) -> None:
    unix = tmp_path / "in.sock"
    settings = config(origins)
    settings["listeners"].insert(0, {"name": "unix", "bind": f"unix:{unix}", "pool": "p"})
    with Chain(settings, tmp_path) as lb:
        lb.may_complain = True
        good = yaml.safe_load(lb.config_path.read_text())
        lb.config_path.write_text("listeners: []\n")
        assert "lb.yaml:1:12: listeners: needs at least one listener" in lb.fails()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            other = {"name": "more", "bind": f"127.0.0.1:{taken.getsockname()[1]}", "pool": "p"}
            assert "listener more: cannot listen on" in lb.fails_with(good, listeners=[*good["listeners"], other])
        pools = {"p": {"servers": [f"127.0.0.1:{consecutive_ports(1)}"]}}
        why = lb.fails_with(good, pools=pools)
        assert "the process before was ready, and this one is not: pool p has no usable server" in why
        lb.config_path.write_text(yaml.safe_dump(good))
        prepared(lb.directory, text="raise SystemExit(3)")
        assert "ended with status 3 before it was ready" in lb.fails()
        prepared(lb.directory, "import os\nos.kill(os.getpid(), 9)")
        assert "was killed by SIGKILL before it was ready" in lb.fails()
        (lb.directory / "lbproxy").unlink()
        assert "ended with status 2 before it was ready" in lb.fails()  # Python's word for a script that is not there
        assert lb.is_running and get(lb.port("in"))[0] == 200
        with Client(str(unix)) as client:
            assert client.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
        assert lb.metric("upgrades_total", result="failure") == 6
        assert lb.stderr.count("no upgrade, this process goes on: ") == 6
        prepared(lb.directory)
        lb.upgrade()
        assert lb.metric("upgrades_total", result="failure") == 6, "they are counted on"


@pytest.mark.parametrize("at", ["hello", "ready", "serving"])
def test_a_new_process_that_is_killed_at_any_point(origins: list[Origin], tmp_path: Path, at: str) -> None:
    with Chain(config(origins), tmp_path) as lb:
        with lb.holding(at) as new:
            os.kill(new, signal.SIGKILL)
            lb.wait_logged("no upgrade, this process goes on: the new process was killed by SIGKILL")
        for _ in range(5):
            assert get(lb.port("in"))[0] == 200
        lb.upgrade()
        assert get(lb.port("in"))[0] == 200


def test_one_at_a_time_and_none_while_lbproxy_stops(origins: list[Origin], tmp_path: Path) -> None:
    with Chain(config(origins), tmp_path) as lb, lb.holding("ready") as new:
        status, told = lb.ask()
        assert status == 409 and "an upgrade is under way, by 127.0.0.1" in told["problems"][0]
        assert lb.metric("upgrades_total", result="refused") == 1
        lb.signal(signal.SIGTERM)
        assert lb.process is not None and lb.process.wait(STOP_S) == 0
        assert "no upgrade, this process goes on: lbproxy was told to stop" in lb.stderr
        wait_ended(new)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("at", ["hello", "ready", "serving"])
def test_a_stop_waits_a_moment_for_a_new_process_that_hangs(
    origins: list[Origin], tmp_path: Path, at: str, workers: int
) -> None:
    """Whoever stops lbproxy has it killed soon after its grace. Where nobody stops it, it would wait for ten minutes
    here."""
    patient = (
        "from lbproxy.process.upgrade import handing, starting\n"
        "from lbproxy.process.workers import heir\n"
        "handing.END_S = 600.0\n"
        "handing.Patience = heir.Patience = lambda: starting.Patience(600.0, 600.0)\n"
    )
    settings = config(origins, workers=workers, shutdown={"grace": "2s"})
    with Chain(settings, tmp_path, text=patient + MAIN) as lb, lb.holding(at) as new:
        lb.may_complain = True  # those that the new supervisor has forked say that it is gone
        os.kill(new, signal.SIGSTOP)
        lb.signal(signal.SIGTERM)
        assert lb.process is not None and lb.process.wait(STOP_S) == 0
        wait_ended(new)
        assert "no upgrade, this process goes on: lbproxy was told to stop" in lb.stderr
        assert "nothing was cut" in lb.stderr


def test_a_process_that_hangs_is_given_up(origins: list[Origin], tmp_path: Path) -> None:
    """The time is 60 s; here the daemon is made to have less patience."""
    text = MAIN.replace(f"READY_S = {READY_S}", "READY_S = 2.0")
    assert text != MAIN
    with Chain(config(origins), tmp_path, text=text) as lb:
        prepared(lb.directory, text="import time\ntime.sleep(600)")
        assert "the new process was not ready within 2 s" in lb.fails()
        assert get(lb.port("in"))[0] == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_a_config_that_changes_meanwhile_is_read_by_who_serves_then(
    origins: list[Origin], tmp_path: Path, workers: int
) -> None:
    """The new process has read the file before that, or after; the signal goes to the one that its sender knows."""
    with Chain(config(origins, workers=workers), tmp_path) as lb:
        good = lb.config_path.read_text()
        with lb.holding("ready") as new:
            lb.config_path.write_text("listeners: []\n")
            lb.signal(signal.SIGHUP)
            os.kill(new, signal.SIGHUP)  # as `pkill -HUP` does; it does not serve yet, and may not reload
            lb.signal(signal.SIGUSR2)
            lb.wait_logged("upgrade by SIGUSR2 is refused: an upgrade is under way, by 127.0.0.1; wait for its end")
            assert "reload" not in lb.stderr
        lb.wait_logged(f"has taken over from {lb.pid}")
        lb.wait_logged(f"SIGHUP: passed on to the process {new}, which serves now")
        why = "reload by SIGHUP: the config file cannot be used, the one in force stays: "
        wait_until(lambda: why in lb.stderr, "the new one to read it")
        assert f"{lb.config_path}:1:12: listeners: needs at least one listener" in lb.stderr
        wait_ended(lb.pid)
        assert get(lb.port("in"))[0] == 200
        lb.config_path.write_text(good)
        os.kill(new, signal.SIGHUP)
        lb.wait_logged("reload: nothing differs")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_config_that_changes_meanwhile_is_read_by_the_old_process_if_the_new_one_fails(
    origins: list[Origin], tmp_path: Path, workers: int
) -> None:
    with Chain(config(origins, workers=workers), tmp_path) as lb:
        lb.may_complain = True  # those that the new supervisor has forked say that it is gone
        with lb.holding("serving") as new:
            lb.config_path.write_text("listeners: []\n")
            lb.signal(signal.SIGHUP)
            os.kill(new, signal.SIGKILL)
            lb.wait_logged("no upgrade, this process goes on: the new process was killed by SIGKILL")
            lb.wait_logged("reload by SIGHUP: the config file cannot be used, the one in force stays: ")
        assert f"{lb.config_path}:1:12: listeners: needs at least one listener" in lb.stderr
        assert get(lb.port("in"))[0] == 200


def test_a_config_from_standard_input_can_t_be_read_again(origins: list[Origin], tmp_path: Path) -> None:
    reading = "import sys\nsys.argv = ['lbproxy', '-c', '-']\nsys.stdin = open({!r})\n"
    lb = Chain(config(origins), tmp_path)
    prepared(tmp_path, reading.format(str(lb.config_path)))
    with lb:
        status, told = lb.ask()
        assert status == 409 and "standard input" in told["problems"][0]


def test_who_calls_needs_the_rights_of_a_reload(origins: list[Origin], tmp_path: Path) -> None:
    settings = config(origins, admin={"bind": "127.0.0.1:0", "tokens": {"ro": {"token": "secret", "scope": "read"}}})
    with Chain(settings, tmp_path) as lb:
        for header in (b"", b"Authorization: Bearer secret\r\n"):
            with Client(lb.port("admin")) as admin:
                admin.send(b"POST /api/v1/upgrade HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % header)
                assert admin.response().status == (403 if header else 401)
        assert lb.metric("upgrades_total") == 0


def test_a_listener_that_the_new_config_does_not_have_ends_as_after_a_reload(
    origins: list[Origin], tmp_path: Path
) -> None:
    settings = config(origins)
    settings["listeners"].append({"name": "gone", "bind": f"127.0.0.1:{consecutive_ports(1)}", "pool": "p"})
    with Chain(settings, tmp_path) as lb:
        written = yaml.safe_load(lb.config_path.read_text())
        with Client(lb.port("gone")) as kept:
            assert kept.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
            lb.config_path.write_text(yaml.safe_dump({**written, "listeners": written["listeners"][:1]}))
            lb.upgrade()
            assert kept.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
        with pytest.raises(ConnectionRefusedError):
            Client(lb.port("gone"))
        assert is_alive(lb.current)


def test_the_command_prints_what_happened(
    origins: list[Origin], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Chain(config(origins), tmp_path) as lb:
        ask = [sys.executable, "-P", "-m", "lbproxy", "upgrade", "--admin", f"127.0.0.1:{lb.port('admin')}"]
        prepared(lb.directory, text="raise SystemExit(3)")
        assert subprocess.run(ask, check=False).returncode == 1
        told = capfd.readouterr().err
        assert "ended with status 3" in told and "goes on as before" in told
        prepared(lb.directory)
        assert subprocess.run(ask, check=False).returncode == 0
        told = capfd.readouterr().out
        lb.pids.append(int(told.split()[1]))
        assert f"has taken over from {lb.pid}" in told
