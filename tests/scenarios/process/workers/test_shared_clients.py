"""Two workers, and limits on clients: those of both count, wherever the kernel sends them, and whoever dies."""

from __future__ import annotations

import contextlib
import signal
import threading
from pathlib import Path

import pytest
import yaml

from tests.scenarios.process.workers.test_supervisor import connected, silent
from tests.support.client import Client
from tests.support.crew import GET, CrewProxy, crew_config, status_of
from tests.support.origin import Origin
from tests.support.waiting import wait_until

LIMIT = 20


def settled_connections(lb: CrewProxy) -> float:
    """As the workers say when they are asked."""
    return lb.metric("client_connections", listener="in")


def test_one_connection_too_many_waits_whichever_worker_it_meets(tmp_path: Path) -> None:
    release = threading.Event()
    with Origin(default=lambda peer: silent(release)) as origin, contextlib.ExitStack() as stack:
        lb = CrewProxy({**crew_config(origin), "limits": {"connections": LIMIT}}, tmp_path).start()
        try:
            clients = connected(lb.port("in"), LIMIT, stack)
            for client in clients:
                client.send(GET)
            wait_until(lambda: len(origin.peers) == LIMIT, "as many as may be to be at the server")
            late = stack.enter_context(Client(lb.port("in")))
            late.send(GET)
            for _ in range(3):
                assert settled_connections(lb) == LIMIT
            clients[0].close()
            wait_until(lambda: len(origin.peers) == LIMIT + 1, "the one that waited to have the place")
            assert settled_connections(lb) == LIMIT
            lb.wait_replaced("1", lb.kill_member("1"))
            n_left = int(settled_connections(lb))
            n_before = len(origin.peers)
            for client in connected(lb.port("in"), LIMIT - n_left, stack):
                client.send(GET)
            wait_until(lambda: len(origin.peers) == n_before + LIMIT - n_left, "all of the dead one's places to be had")
        finally:
            release.set()
            lb.kill()


def test_an_idle_client_of_another_worker_makes_way(origin: Origin, tmp_path: Path) -> None:
    lb = CrewProxy({**crew_config(origin), "limits": {"connections": 2}}, tmp_path).start()
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                assert stack.enter_context(Client(lb.port("in"))).ask(GET).status == 200
        lb.stop(allow_errors=True)
    finally:
        lb.kill()


def test_the_connections_of_an_address_are_counted_over_both(origin: Origin, tmp_path: Path) -> None:
    config = crew_config(origin)
    config["listeners"][0]["limits"] = {"connections_per_ip": 3}
    lb = CrewProxy(config, tmp_path).start()
    try:
        for victim in ("1", "2"):
            with contextlib.ExitStack() as stack:
                found = sorted(client.ask(GET).status for client in connected(lb.port("in"), 12, stack))
                assert found == [200] * 3 + [429] * 9
                lb.wait_replaced(victim, lb.kill_member(victim))
            wait_until(lambda: settled_connections(lb) == 0, "all to be gone")
        assert status_of(lb.port("in")) == 200
        lb.stop(allow_errors=True)
    finally:
        lb.kill()


def test_a_reload_changes_both_limits_for_all(origin: Origin, tmp_path: Path) -> None:
    config = crew_config(origin)
    lb = CrewProxy(config, tmp_path).start()
    try:
        with contextlib.ExitStack() as stack:
            for client in connected(lb.port("in"), 8, stack):
                assert client.ask(GET).status == 200
            config["listeners"][0]["limits"] = {"connections_per_ip": 10}
            lb.config_path.write_text(yaml.safe_dump({**yaml.safe_load(lb.config_path.read_text()), **config}))
            assert lb.ask_admin("POST", "/api/v1/reload")[0] == 200
            found = sorted(client.ask(GET).status for client in connected(lb.port("in"), 4, stack))
            assert found == [200, 200, 429, 429]
        lb.stop(allow_errors=True)
    finally:
        lb.kill()


@pytest.mark.parametrize(("n_workers", "count"), [(2, 16), (4, 16), (4, 64)])
def test_kept_connections_are_spread_evenly(n_workers: int, count: int, origin: Origin, tmp_path: Path) -> None:
    """The kernel gives one of four workers half of sixteen, now and then."""
    lb = CrewProxy({**crew_config(origin), "workers": n_workers}, tmp_path).start()
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                assert stack.enter_context(Client(lb.port("in"))).ask(GET).status == 200
            numbers = [row["connections"] for row in lb.worker_rows()]
            assert sum(numbers) == count
            assert max(numbers) <= 1.5 * count / n_workers
            assert lb.metric("client_connections_total", listener="in") == count
        wait_until(lambda: settled_connections(lb) == 0, "all to be gone")
        lb.stop(allow_errors=True)
    finally:
        lb.kill()


def test_whoever_is_handed_to_a_worker_that_is_stopped_is_served_by_its_successor(
    origin: Origin, tmp_path: Path
) -> None:
    """It has fewest, as it takes none."""
    lb = CrewProxy(crew_config(origin), tmp_path).start()
    try:
        with contextlib.ExitStack() as stack:
            pid = lb.kill_member("1", signal.SIGSTOP)
            clients = connected(lb.port("in"), 12, stack)
            for client in clients:
                client.send(GET)
            lb.wait_replaced("1", pid)
            assert [client.response().status for client in clients] == [200] * 12
        lb.stop(allow_errors=True)
    finally:
        lb.kill()
