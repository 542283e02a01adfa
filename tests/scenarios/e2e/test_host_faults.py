"""The machine misbehaves: logs that cannot be written, no descriptors, ports in use."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from lbproxy.telemetry.accesslog import FIELD_LIMIT
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.port_famine import in_namespace, namespace_refusal
from tests.support.rig import get
from tests.support.servers import Gunicorn, in_threads, needed, run_refused
from tests.support.waiting import wait_until
from tests.support.wire import Stream, read_response

RESPOND: dict[str, object] = {
    "listeners": [{"name": "in", "bind": "127.0.0.1:0", "routes": [{"respond": {"body": "hello"}}]}],
    "pools": {},
}


def pooled(server: Gunicorn, **more: object) -> dict[str, object]:
    return {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p", "timeouts": {"request_head": "300s"}}],
        "pools": {"p": {"servers": [server.address], "health_check": {"interval": "300ms", "timeout": "5s"}}},
        **more,
    }


def ask_many(lb: LbProxy, count: int, target: str = "/") -> None:
    with Client(lb.port("in")) as client:
        for _ in range(count):
            assert client.ask(get(target)).status == 200


# --- logs ---


def test_sigusr1_opens_the_access_log_again(tmp_path: Path) -> None:
    with LbProxy(RESPOND, tmp_path / "lb") as lb:
        old = lb.access_log_path.with_suffix(".1")
        is_over = threading.Event()
        asked = [0]

        def client() -> None:
            while not is_over.is_set():
                ask_many(lb, 10)
                asked[0] += 10

        thread = threading.Thread(target=client)
        thread.start()
        wait_until(lambda: len(lb.access_log()) > 50, "lines in the file")
        lb.access_log_path.rename(old)
        lb.signal(signal.SIGUSR1)
        wait_until(lambda: len(lb.access_log()) > 50, "lines in the new file")
        lb.access_log_path.unlink()
        lb.signal(signal.SIGUSR1)
        wait_until(lambda: len(lb.access_log()) > 50, "lines after the file was deleted")
        is_over.set()
        thread.join()
        assert lb.metric("requests_total", code="2xx") == asked[0]
        assert lb.metric("log_dropped_total") == 0
        assert old.read_bytes().endswith(b"\n")


def test_no_line_is_lost_by_a_rotation(tmp_path: Path) -> None:
    with LbProxy(RESPOND, tmp_path / "lb") as lb:
        old = lb.access_log_path.with_suffix(".1")
        ask_many(lb, 300)
        lb.access_log_path.rename(old)
        lb.signal(signal.SIGUSR1)
        ask_many(lb, 300)
        lines = wait_until(
            lambda: lb.access_log_path.exists() and old.read_bytes().count(b"\n") + len(lb.access_log()) == 600,
            "600 lines in both files",
        )
        assert lines


def wrk(port: int, seconds: int = 1) -> int:
    """Requests that wrk got answered, each of which makes a long line; it must see no error."""
    command = [needed("wrk"), "-t1", "-c8", f"-d{seconds}s", f"http://127.0.0.1:{port}/?{'x' * FIELD_LIMIT}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "Socket errors" not in done.stdout and "Non-2xx" not in done.stdout, done.stdout
    return next(int(line.split()[0]) for line in done.stdout.splitlines() if "requests in" in line)


def test_stdout_that_nobody_reads(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    settings = {**RESPOND, "access_log": {"path": "stdout"}}
    with LbProxy(settings, tmp_path / "lb", stdout=writer) as lb:
        os.close(writer)
        n_answered = 0
        # 64 KiB fit the pipe and 16 MiB the queue behind it.
        while not lb.metric("log_dropped_total"):
            n_answered += wrk(lb.port("in"))
            assert n_answered < 1_000_000
        blocked = lb.metric("log_dropped_total")
        os.close(reader)
        n_answered += wrk(lb.port("in"))
        assert lb.metric("log_dropped_total") > blocked
        assert lb.metric("requests_total", code="2xx") >= n_answered
        assert lb.rss_bytes() < 150 * 1024 * 1024


def test_stdout_whose_reader_left(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    settings = {**RESPOND, "access_log": {"path": "stdout"}}
    with LbProxy(settings, tmp_path / "lb", stdout=writer) as lb:
        os.close(writer)
        ask_many(lb, 10)
        assert len(os.read(reader, 65536).splitlines()) > 0
        os.close(reader)
        ask_many(lb, 500)
        lb.wait_metric("log_dropped_total", 400)
        ask_many(lb, 100)


def test_a_full_disk(tmp_path: Path) -> None:
    settings = {**RESPOND, "access_log": {"path": "/dev/full"}}
    with LbProxy(settings, tmp_path / "lb") as lb:
        ask_many(lb, 300)
        lb.wait_metric("log_dropped_total", 300)
        ask_many(lb, 10)


# --- fewer descriptors than clients ---


def test_no_client_is_lost_below_64_descriptors(echo_server: Gunicorn, tmp_path: Path) -> None:
    answers: list[object] = []
    with LbProxy(pooled(echo_server), tmp_path / "lb", nofile=64) as lb, ExitStack() as stack:
        # More than may be served at once, and none of them idle: the gate is shut.
        holders = [stack.enter_context(Client(lb.port("in"))) for _ in range(15)]
        for holder in holders:
            holder.send(b"GET /half HTTP/1.1\r\n")
        wait_until(lambda: lb.metric("client_connections") >= 10, "the limit to be reached")

        def client(number: int) -> None:
            try:
                with socket.create_connection(("127.0.0.1", lb.port("in")), timeout=60.0) as sock:
                    sock.sendall(get(f"/row-83-{number}", "Connection: close"))
                    answers.append(read_response(Stream(sock)).status)
            except OSError as error:
                answers.append(error)

        waiting = threading.Thread(target=in_threads, args=(200, client))
        waiting.start()
        used = lb.cpu_s()
        time.sleep(3.0)
        assert lb.cpu_s() - used < 0.05 * 3.0, "it is busy while it waits"  # health checks are all that it does
        assert lb.metric("client_connections") < len(holders)
        assert lb.fd_count() < 64
        assert not answers
        for holder in holders:
            holder.close()
        waiting.join()
        assert Counter(map(repr, answers)) == {"200": 200}
        assert lb.metric("server_up") == 1
        assert lb.metric("internal_errors_total") == 0


# --- no descriptor, or no local port, for the server's connection ---


def test_no_descriptor_for_a_server_connection(echo_server: Gunicorn, tmp_path: Path) -> None:
    with LbProxy(pooled(echo_server), tmp_path / "lb") as lb, ExitStack() as stack:
        clients = [stack.enter_context(Client(lb.port("in"))) for _ in range(5)]
        lb.wait_metric("client_connections", 5)
        lb.wait_metric("health_checks_total", 1, result="pass")
        _, hard = resource.prlimit(lb.pid, resource.RLIMIT_NOFILE)
        try:
            resource.prlimit(lb.pid, resource.RLIMIT_NOFILE, (lowest_free(lb.pid), hard))
            for client in clients:
                answer = client.ask(get("/row-84"))
                assert answer.status == 503
                assert int(answer.get("retry-after") or 0) >= 1
                assert "local_resource" in (answer.get("proxy-status") or "")
            time.sleep(1.0)  # several checks, which cannot be made either
        finally:
            resource.prlimit(lb.pid, resource.RLIMIT_NOFILE, (hard, hard))

        def is_discarded() -> bool:
            """A machine that is so busy that no check was due in that second gets another one."""
            if lb.metric("health_checks_total", result="discarded") >= 1:
                return True
            resource.prlimit(lb.pid, resource.RLIMIT_NOFILE, (lowest_free(lb.pid), hard))
            time.sleep(1.0)
            resource.prlimit(lb.pid, resource.RLIMIT_NOFILE, (hard, hard))
            return False

        wait_until(is_discarded, "a check that could not be made")
        assert lb.metric("server_up") == 1
        assert lb.metric("server_transitions_total", to="down") == 0
        assert lb.metric("upstream_errors_total", reason="local_resource") == 5
        for client in clients:
            assert client.ask(get("/row-84")).status == 200


def test_no_local_port_for_a_server_connection(tmp_path: Path) -> None:
    """EADDRNOTAVAIL from the kernel itself: the daemon runs in a network namespace with a few ports."""
    if refusal := namespace_refusal():
        pytest.skip(
            f"this machine gives no network namespace ({refusal}); "
            "tests/unit/dataplane/exchange/test_exchange.py pretends"
        )
    done = in_namespace(tmp_path, timeout_s=50.0)
    assert done.returncode == 0, done.stdout + done.stderr


def lowest_free(pid: int) -> int:
    """A limit on descriptors at which no further one can be opened: the lowest number that is free.

    A check may hold it at any one moment, hence several looks.
    """

    def look() -> int:
        taken = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        time.sleep(0.01)
        return next(number for number in range(len(taken) + 1) if number not in taken)

    return min(look() for _ in range(20))


# --- it cannot start ---


def assert_one_clear_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert all(part in errors[0] for part in parts), errors[0]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield int(sock.getsockname()[1])


def write(folder: Path, **settings: object) -> Path:
    path = folder / "lb.yaml"
    complete = {"admin": {"bind": "127.0.0.1:0"}, "access_log": "off", **RESPOND, **settings}
    path.write_text(yaml.safe_dump(complete))
    return path


def test_a_port_in_use(tmp_path: Path, taken: int) -> None:
    listeners = [{"bind": f"127.0.0.1:{taken}", "routes": [{"respond": {}}]}]
    assert_one_clear_line(run_refused(write(tmp_path, listeners=listeners)), f"127.0.0.1:{taken}", "in use")


def test_the_admin_port_in_use(tmp_path: Path, taken: int) -> None:
    done = run_refused(write(tmp_path, admin={"bind": f"127.0.0.1:{taken}"}))
    assert_one_clear_line(done, f"127.0.0.1:{taken}", "in use", "admin.bind")


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    listeners = [{"bind": "192.0.2.1:0", "routes": [{"respond": {}}]}]
    assert_one_clear_line(run_refused(write(tmp_path, listeners=listeners)), "192.0.2.1", "does not have that address")


def test_an_access_log_that_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "access.log"
    done = run_refused(write(tmp_path, access_log={"path": str(path)}))
    assert_one_clear_line(done, str(path), "No such file or directory")


def test_a_unix_socket_where_a_file_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    listeners = [{"bind": f"unix:{path}", "routes": [{"respond": {}}]}]
    assert_one_clear_line(run_refused(write(tmp_path, listeners=listeners)), str(path))
    assert path.read_text() == "precious"
