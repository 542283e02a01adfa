"""A daemon with two workers: each of its processes dies, or hangs, and clients see as little of it as can be."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

import yaml

from tests.scenarios.process.test_outside import Manager
from tests.support.client import Client
from tests.support.crew import GET, CrewProxy, crew_config, is_alive, status_of
from tests.support.daemon import STOP_S
from tests.support.origin import Origin
from tests.support.servers import run_refused
from tests.support.upgrades import Chain
from tests.support.waiting import wait_until
from tests.support.wire import Ended


def silent(release: threading.Event) -> None:
    release.wait(STOP_S)


def is_answered(client: Client) -> bool:
    """Or is its connection gone?"""
    try:
        return client.ask(GET).status == 200
    except Ended:
        return False


def connected(port: int, count: int, stack: contextlib.ExitStack) -> list[Client]:
    return [stack.enter_context(Client(port)) for _ in range(count)]


def test_it_serves_and_the_controller_answers(lb: CrewProxy) -> None:
    assert {status_of(lb.port("in")) for _ in range(20)} == {200}
    assert sorted(lb.members()) == ["1", "2", "c"]
    assert lb.admin_get("/readyz")[0] == 200
    assert lb.status()["state"] == "running"


def test_status_has_a_row_for_each_worker(lb: CrewProxy) -> None:
    with contextlib.ExitStack() as stack:
        before = [row["connections"] for row in lb.worker_rows()]
        for client in connected(lb.port("in"), 20, stack):
            assert client.ask(GET).status == 200

        def more() -> bool:
            return bool(sum(row["connections"] for row in lb.worker_rows()) == sum(before) + 20)

        wait_until(more, "all connections to be counted")
        rows = lb.worker_rows()
        assert all(row["connections"] > number for row, number in zip(rows, before, strict=True)), "both got some"
    members = lb.members()
    assert [(row["worker"], row["pid"], row["state"]) for row in rows] == [
        (1, members["1"], "serving"),
        (2, members["2"], "serving"),
    ]

    def have_worked() -> bool:
        assert status_of(lb.port("in")) == 200
        return all(row["cpu_seconds"] > 0 for row in lb.worker_rows())

    wait_until(have_worked, "each to have used a hundredth of a second")
    for row in lb.worker_rows():
        assert 1 << 20 < row["memory_bytes"] < 1 << 30
        assert lb.metric("worker_cpu_seconds_total", worker=str(row["worker"])) >= row["cpu_seconds"]
        assert lb.metric("worker_resident_memory_bytes", worker=str(row["worker"])) > 1 << 20


def test_a_killed_worker_has_a_successor_and_the_others_go_on(lb: CrewProxy) -> None:
    before = lb.metric("worker_restarts_total", worker="1")
    with contextlib.ExitStack() as stack:
        clients = connected(lb.port("in"), 20, stack)
        for client in clients:
            assert client.ask(GET).status == 200
        pid = lb.kill_member("1")
        lb.wait_replaced("1", pid)
        n_answered = sum(map(is_answered, clients))
        assert 0 < n_answered < 20  # the kernel spreads twenty connections over both
        assert {status_of(lb.port("in")) for _ in range(20)} == {200}
    assert lb.metric("worker_restarts_total", worker="1") == before + 1
    assert lb.metric("worker_up") == 2


class Keeper(threading.Thread):
    """Asks on one connection, again and again, and on a new one when that is cut."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.is_over = False
        self.n_answered = 0
        self.n_cut = 0
        self.others: list[int] = []

    def run(self) -> None:
        while not self.is_over:
            with Client(self._port) as client:
                self._ask(client)

    def _ask(self, client: Client) -> None:
        try:
            while not self.is_over:
                status = client.ask(GET).status
                self.n_answered += 1
                if status != 200:
                    self.others.append(status)
                time.sleep(0.01)
        except (Ended, ConnectionError):
            self.n_cut += 1


def test_a_worker_killed_under_load_takes_only_what_it_had_in_its_hands(lb: CrewProxy) -> None:
    """Ten clients, a hundred requests a second each at most; each loses its connection once at most for each kill."""
    keepers = [Keeper(lb.port("in")) for _ in range(10)]
    try:
        for keeper in keepers:
            keeper.start()
        before = 0.0
        for name in ("1", "2", "1"):
            marks = [keeper.n_answered for keeper in keepers]
            wait_until(
                lambda marks=marks: all(k.n_answered > mark + 5 for k, mark in zip(keepers, marks, strict=True)),  # type: ignore[misc]
                "everybody to be served",
            )
            pid = lb.kill_member(name)
            lb.wait_replaced(name, pid)
            counted = lb.metric("requests_total", listener="in")
            assert counted >= before
            before = counted
        marks = [keeper.n_answered for keeper in keepers]
        wait_until(lambda: all(k.n_answered > m for k, m in zip(keepers, marks, strict=True)), "everybody to go on")
    finally:
        for keeper in keepers:
            keeper.is_over = True
        for keeper in keepers:
            keeper.join(STOP_S)
    assert [keeper.others for keeper in keepers] == [[]] * len(keepers)
    assert all(keeper.n_cut <= 3 for keeper in keepers)
    assert sum(keeper.n_cut for keeper in keepers) < 3 * len(keepers), "the others' connections went on"
    lb.check_idle()


def test_traffic_goes_on_while_the_controller_is_dead(lb: CrewProxy) -> None:
    pid = lb.kill_member("c", signal.SIGSTOP)
    assert {status_of(lb.port("in")) for _ in range(20)} == {200}
    os.kill(pid, signal.SIGKILL)
    assert {status_of(lb.port("in")) for _ in range(20)} == {200}
    lb.wait_replaced("c", pid)


def test_a_worker_that_hangs_is_replaced(lb: CrewProxy) -> None:
    pid = lb.kill_member("2", signal.SIGSTOP)
    lb.wait_replaced("2", pid)
    assert "the worker 2" in lb.stderr
    assert "its state is T" in lb.stderr
    assert {status_of(lb.port("in")) for _ in range(20)} == {200}


def test_all_die_with_the_supervisor(origin: Origin, tmp_path: Path) -> None:
    lb = CrewProxy(crew_config(origin), tmp_path).start()
    members = list(lb.members().values())
    os.kill(members[1], signal.SIGSTOP)
    lb.kill()
    wait_until(lambda: not any(map(is_alive, members)), "all processes to end")
    with socket.create_server(("127.0.0.1", lb.port("in"))), socket.create_server(("127.0.0.1", lb.port("admin"))):
        pass


def test_a_stop_under_load_loses_nothing(origin: Origin, tmp_path: Path) -> None:
    failures: list[str] = []
    served = [0] * 4

    def ask(number: int) -> None:
        while True:
            try:
                client = Client(lb.port("in"))
            except ConnectionRefusedError:
                return
            with client:
                try:
                    answer = client.ask(GET)
                except Ended as ended:
                    failures.append(str(ended))
                    return
                if answer.status != 200:
                    failures.append(f"{answer.status}")
                served[number] += 1

    lb = CrewProxy(crew_config(origin), tmp_path).start()
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(served))]
    try:
        for thread in threads:
            thread.start()
        wait_until(lambda: min(served) > 20, "everybody to be served")
    finally:
        code = lb.stopped_by(signal.SIGTERM)
        for thread in threads:
            thread.join(STOP_S)
    assert (code, failures, lb.error_lines()) == (0, [], [])
    assert "stopped; nothing was cut" in lb.stderr
    assert len(lb.access_log()) == sum(served)


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    release = threading.Event()
    with Origin(default=lambda peer: silent(release)) as origin:
        lb = CrewProxy(crew_config(origin), tmp_path).start()
        with Client(lb.port("in")) as client:
            client.send(GET)
            wait_until(lambda: origin.peers, "the request to be at the server")
            lb.signal(signal.SIGTERM)
            lb.wait_logged("stopping; in-flight requests")
            assert lb.stopped_by(signal.SIGINT) == 1
        assert "some requests or connections were cut" in lb.stderr
        release.set()


def test_another_one_at_the_same_address_does_not_share_it(lb: CrewProxy, origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    other = {**crew_config(origin), "listeners": [{"name": "in", "bind": f"127.0.0.1:{lb.port('in')}", "pool": "p"}]}
    path.write_text(yaml.safe_dump({**other, "admin": "off", "access_log": "off"}))
    refused = run_refused(path)
    assert refused.returncode == 1
    assert "something else listens there" in refused.stderr


def test_a_worker_that_cannot_start_ends_the_start_with_its_message(origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_text(
        yaml.safe_dump(
            {**crew_config(origin), "admin": "off", "access_log": {"path": str(tmp_path / "no" / "access.log")}}
        )
    )
    refused = run_refused(path)
    assert refused.returncode == 1
    assert "cannot start:" in refused.stderr
    assert "access.log" in refused.stderr


def test_a_service_manager_and_a_pid_file_hear_of_the_supervisor(origin: Origin, tmp_path: Path) -> None:
    pid_file = tmp_path / "lb.pid"
    lb = Chain(crew_config(origin), tmp_path / "lb", "--pid-file", str(pid_file))
    with Manager(f"lbproxy-workers-{os.getpid()}") as manager:
        try:
            lb.start(manager.env)
            assert manager.hear() == {"READY": "1", "STATUS": "serving"}
            assert pid_file.read_text() == f"{lb.pid}\n"
            n_fed = manager.n_fed
            wait_until(lambda: manager.n_fed > n_fed, "the watchdog to be fed")
            lb.signal(signal.SIGHUP)
            assert manager.hear()["RELOADING"] == "1"
            assert manager.hear() == {"READY": "1", "STATUS": "serving"}
            lb.signal(signal.SIGTERM)
            assert manager.hear()["STOPPING"] == "1"
            assert lb.process is not None
            assert lb.process.wait(STOP_S) == 0
            assert not pid_file.exists()
        finally:
            lb.kill()
