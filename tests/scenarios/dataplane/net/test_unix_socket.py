"""Unix sockets on both sides: the listener's file and its permissions, abstract names, servers that come and go."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lbproxy.address import Address
from lbproxy.dataplane.net.unix_socket import bind_hint, bind_unix, connect_unix
from tests.support import build
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.rig import get
from tests.support.servers import run_refused
from tests.support.waiting import PATIENCE_S, wait_until


def address(path: object) -> Address:
    return Address("", 0, str(path))


# --- the file of a listener -------------------------------------------------------------------------------------------


def refusal(path: object) -> OSError:
    with pytest.raises(OSError) as raised:
        bind_unix(address(path), None, 1)
    return raised.value


def test_the_file_has_its_permissions_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    for bits, expected in ((None, 0o660), (0o600, 0o600), (0o666, 0o666)):
        sock, file = bind_unix(address(path), bits, 1)
        assert stat.S_IMODE(path.stat().st_mode) == expected
        sock.close()
        assert file is not None
        file.remove()
        assert not path.exists()
        file.remove()  # it is gone already


def test_a_file_that_somebody_else_has_put_there_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    sock, file = bind_unix(address(path), None, 1)
    path.unlink()
    successor, its_file = bind_unix(address(path), None, 1)
    assert file is not None and its_file is not None
    file.remove()
    assert path.exists()
    its_file.remove()
    assert not path.exists()
    sock.close()
    successor.close()


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    error = refusal(tmp_path / "none" / "a.sock")
    assert error.errno == errno.ENOENT and "the directory does not exist" in bind_hint(error)


def test_a_file_on_the_way_to_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = refusal(tmp_path / "file" / "a.sock")
    assert error.errno == errno.ENOTDIR and "not a directory" in bind_hint(error)


def test_a_busy_listener_is_not_taken_for_a_dead_one(tmp_path: Path) -> None:
    """Its accept queue is full, so that connecting to find out fails."""
    path = tmp_path / "a.sock"
    sock, _ = bind_unix(address(path), None, 0)
    with sock, socket.socket(socket.AF_UNIX) as filler:
        filler.connect(str(path))
        error = refusal(path)
        assert error.errno == errno.EADDRINUSE and "choose another path" in bind_hint(error)
        assert path.exists()


def test_a_socket_for_datagrams_is_somebody_s(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        assert refusal(path).errno == errno.EADDRINUSE


def test_an_abstract_name_has_no_file_and_only_one_owner(tmp_path: Path) -> None:
    name = f"@lbproxy-{os.getpid()}-{tmp_path.name}"
    sock, file = bind_unix(address(name), None, 1)
    assert file is None
    assert refusal(name).errno == errno.EADDRINUSE
    sock.close()
    sock, _ = bind_unix(address(name), None, 1)
    sock.close()


# --- connecting -------------------------------------------------------------------------------------------------------


async def test_a_full_accept_queue_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    sock, _ = bind_unix(address(path), None, 0)
    with sock:
        (await connect_unix(address(path))).close()
        waiting = asyncio.get_running_loop().create_task(connect_unix(address(path)))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        sock.accept()[0].close()
        async with asyncio.timeout(60):
            (await waiting).close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connect_unix(address(path))


async def test_nobody_there_is_known_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await connect_unix(address(tmp_path / "none.sock"))
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(ConnectionRefusedError):
        await connect_unix(address(path))


# --- the daemon: listeners --------------------------------------------------------------------------------------------


def listening(bind: object, origin: Origin, mode: str = "http", **more: object) -> dict[str, object]:
    return {
        "listeners": [{"name": "in", "bind": bind, "pool": "p", "mode": mode, **more}],
        "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
    }


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_clients_come_through_a_file_with_its_permissions(tmp_path: Path, origin: Origin, mode: str) -> None:
    path = tmp_path / "in.sock"
    with LbProxy(listening(f"unix:{path}", origin, mode, mode_bits="0600"), tmp_path) as lb:
        assert stat.S_ISSOCK(path.stat().st_mode) and stat.S_IMODE(path.stat().st_mode) == 0o600
        with Client(str(path)) as client:
            assert client.ask(get("/x")).status == 200
        wait_until(lambda: len(lb.access_log()) == 1, "its line")
        assert lb.access_log()[0]["client"] == "unix"
        if mode == "http":  # no address, and no word that looks like a name (RFC 7239 section 6.2)
            assert origin.requests[0].all("x-forwarded-for") == ["unknown"]
    assert not path.exists()


def test_clients_without_address_are_not_counted_by_address(tmp_path: Path, origin: Origin) -> None:
    path = tmp_path / "in.sock"
    with (
        LbProxy(listening(f"unix:{path}", origin, limits={"connections_per_ip": 1}), tmp_path) as lb,
        Client(str(path)) as first,
        Client(str(path)) as second,
    ):
        for client in (first, second):
            assert client.ask(get("/x")).status == 200
        assert lb.metric("rejected_total", reason="max_per_ip") == 0


@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_clients_come_by_an_abstract_name(tmp_path: Path, origin: Origin, mode: str) -> None:
    name = f"@lbproxy-in-{os.getpid()}-{mode}"
    with LbProxy(listening(f"unix:{name}", origin, mode), tmp_path) as lb:
        assert lb.addresses["in"] == f"unix:{name}"
        with Client("\0" + name[1:]) as client:
            assert client.ask(get("/x")).status == 200


def test_one_listener_on_a_port_and_a_file(tmp_path: Path, origin: Origin) -> None:
    path = tmp_path / "in.sock"
    with LbProxy(listening(["127.0.0.1:0", f"unix:{path}"], origin), tmp_path) as lb:
        ports = [line for line in lb.stderr.splitlines() if "name=in address=127.0.0.1:" in line]
        for target in (str(path), int(ports[0].rpartition(":")[2])):
            with Client(target) as client:
                assert client.ask(get("/x")).status == 200


def test_the_file_that_a_killed_daemon_left_is_no_obstacle(tmp_path: Path, origin: Origin) -> None:
    path = tmp_path / "in.sock"
    config = listening(f"unix:{path}", origin)
    first = LbProxy(config, tmp_path / "first").start()
    first.kill()
    assert path.exists()
    with LbProxy(config, tmp_path / "second"), Client(str(path)) as client:
        assert client.ask(get("/x")).status == 200


def test_a_second_daemon_is_refused_and_the_first_goes_on(tmp_path: Path, origin: Origin) -> None:
    path = tmp_path / "in.sock"
    config = listening(f"unix:{path}", origin)
    with LbProxy(config, tmp_path / "first") as first:
        ended = run_refused(first.config_path)
        assert ended.returncode == 1 and "Traceback" not in ended.stderr
        assert f"listener in: cannot listen on unix:{path}: Address already in use" in ended.stderr
        assert "stop it or choose another path" in ended.stderr
        with Client(str(path)) as client:
            assert client.ask(get("/x")).status == 200


def test_a_file_that_a_successor_bound_survives_the_end_of_the_first(tmp_path: Path, origin: Origin) -> None:
    path = tmp_path / "in.sock"
    config = listening(f"unix:{path}", origin)
    first = LbProxy(config, tmp_path / "first").start()
    path.unlink()  # somebody cleans up
    with LbProxy(config, tmp_path / "second"):
        first.stop()
        with Client(str(path)) as client:
            assert client.ask(get("/x")).status == 200
    assert not path.exists()


def said(config: dict[str, object], folder: Path, *prefix: str) -> str:
    """What a daemon that cannot start says; `prefix` is a command that starts it."""
    lb = LbProxy(config, folder)
    command = [*prefix, *build.COMMAND, "-c", str(lb.config_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode in (1, 2) and "Traceback" not in ended.stderr, ended.stderr
    return ended.stderr


def test_a_missing_directory_is_named(tmp_path: Path, origin: Origin) -> None:
    text = said(listening(f"unix:{tmp_path}/none/in.sock", origin), tmp_path)
    assert f"cannot listen on unix:{tmp_path}/none/in.sock: No such file or directory" in text
    assert "the directory does not exist; create it" in text


def test_a_path_that_is_too_long_is_a_problem_of_the_config(tmp_path: Path, origin: Origin) -> None:
    text = said(listening(f"unix:/tmp/{'x' * 110}", origin), tmp_path)
    assert "listeners[0].bind: a unix socket path has at most 107 bytes" in text
    longest = f"unix:{tmp_path}/"
    longest += "x" * (107 + 5 - len(longest))
    with LbProxy(listening(longest, origin), tmp_path) as lb:
        with Client(longest.removeprefix("unix:")) as client:
            assert client.ask(get("/x")).status == 200
        assert lb.addresses["in"] == longest


def test_without_permission_it_says_so(tmp_path: Path, origin: Origin) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    # For root a directory is read-only once it may not override permissions.
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    text = said(listening(f"unix:{closed}/in.sock", origin), tmp_path, *prefix)
    assert f"cannot listen on unix:{closed}/in.sock: Permission denied (no permission to make the socket's file" in text


# --- the daemon: servers ----------------------------------------------------------------------------------------------


def served(path: object, mode: str, **pool: object) -> dict[str, object]:
    return {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p", "mode": mode}],
        "pools": {"p": {"servers": [f"unix:{path}"], **pool}},
    }


@pytest.mark.parametrize("check", ["tcp", "/health"])
@pytest.mark.parametrize("mode", ["http", "tcp"])
@pytest.mark.parametrize("abstract", [False, True], ids=["file", "abstract"])
def test_a_server_that_goes_and_comes_back_at_the_same_path(
    tmp_path: Path, mode: str, check: str, abstract: bool
) -> None:
    name = f"@lbproxy-server-{os.getpid()}-{mode}-{len(check)}" if abstract else f"{tmp_path}/server.sock"
    kernel_name = "\0" + name[1:] if abstract else name
    health = {"interval": "250ms", "rise": 1}
    health |= {"type": "tcp"} if check == "tcp" else {"type": "http", "path": check}
    first = Origin(path=kernel_name)
    with LbProxy(served(name, mode, health_check=health), tmp_path) as lb:
        lb.wait_metric("health_checks_total", 1, result="pass")
        with Client(lb.port("in")) as client:
            assert client.ask(get("/first")).status == 200
        first.close()
        wait_until(lambda: lb.metric("server_up") == 0, "the server to be down")
        if not abstract:
            os.unlink(name)
        with Origin(path=kernel_name) as second:
            wait_until(lambda: lb.metric("server_up") == 1, "the server to be back")
            with Client(lb.port("in")) as client:
                assert client.ask(get("/second")).status == 200
            assert "/second" in [request.target for request in second.requests]


def test_a_server_that_replaced_the_file_gets_the_new_connections(tmp_path: Path) -> None:
    """As a deployment does it: bind the new one beside, rename it over the old one, end the old one."""
    path = f"{tmp_path}/server.sock"
    with (
        Origin(path=path) as old,
        Origin(path=f"{path}.new") as new,
        LbProxy(served(path, "http", health_check="off"), tmp_path) as lb,
        Client(lb.port("in")) as client,
    ):
        assert client.ask(get("/old")).status == 200
        os.rename(f"{path}.new", path)
        assert client.ask(get("/kept")).status == 200  # on the kept connection
        old.reset()
        wait_until(lambda: lb.metric("upstream_connections") == 0, "the kept connection to go")
        assert client.ask(get("/new")).status == 200
        assert [request.target for request in new.requests] == ["/new"]


@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_a_server_whose_accept_queue_is_full_is_busy_not_broken(tmp_path: Path, mode: str) -> None:
    """It is asked as soon as it accepts again, and neither the check nor the dial calls it dead."""
    path = f"{tmp_path}/server.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as filler:
        server.bind(path)
        server.listen(0)
        filler.connect(path)
        check = {"type": "tcp", "interval": "300s", "timeout": "300s", "fall": 1}
        patient = {"connect": "300s"}
        with LbProxy(served(path, mode, health_check=check, retry="off", timeouts=patient), tmp_path) as lb:
            with Client(lb.port("in")) as client:
                client.send(get("/patient"))
                assert client.is_silent(0.3)
                accepted = answers(server)
                assert client.response().status == 200
            assert lb.metric("server_up") == 1
            assert lb.metric("upstream_errors_total") == 0
            for sock in accepted:
                sock.close()
            server.close()


def answers(server: socket.socket) -> list[socket.socket]:
    """Accept until somebody asks something, and answer that."""
    accepted: list[socket.socket] = []
    while True:
        ready, _, _ = select.select([server, *accepted], [], [], PATIENCE_S)
        assert ready, "nobody asks"
        if server in ready:
            accepted.append(server.accept()[0])
        for sock in accepted:
            if sock in ready and sock.recv(1000):
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                return accepted


@pytest.mark.quiet  # it measures CPU
def test_five_hundred_who_wait_for_room_cost_nothing_and_are_served_in_order(tmp_path: Path) -> None:
    n, path = 500, f"{tmp_path}/server.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as filler, ExitStack() as stack:
        server.bind(path)
        server.listen(0)
        filler.connect(path)
        settings = {"timeouts": {"connect": "300s", "response_head": "300s"}, "retry": "off", "keep_alive": "off"}
        with LbProxy(served(path, "http", health_check="off", **settings), tmp_path) as lb:
            clients = [stack.enter_context(Client(lb.port("in"), timeout_s=60)) for _ in range(n)]
            for number, client in enumerate(clients):
                client.send(get(f"/{number}"))
            wait_until(lambda: lb.metric("server_inflight") == n, "all to wait")
            before, seconds = lb.cpu_s(), 3.0
            time.sleep(seconds)
            used = (lb.cpu_s() - before) / seconds
            assert used < 0.05, f"{used:.0%} of a processor"
            server.accept()[0].close()
            targets = []
            server.settimeout(60)
            for _ in range(n):
                sock, _ = server.accept()
                with sock:
                    targets.append(sock.recv(1000).split()[1].decode())
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            assert targets == [f"/{number}" for number in range(n)]
            assert [client.response().status for client in clients] == [200] * n
            stack.close()
