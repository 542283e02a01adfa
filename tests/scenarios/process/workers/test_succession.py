"""What a new lbproxy of two workers knows from the one before, and whom both tell of it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.scenarios.process.test_outside import Manager
from tests.scenarios.process.upgrade.test_handing import patch
from tests.scenarios.process.workers.test_heir import serves
from tests.support.client import Client
from tests.support.crew import crew_config, members_of
from tests.support.daemon import STOP_S
from tests.support.origin import Origin
from tests.support.upgrades import Chain, is_alive, wait_ended
from tests.support.waiting import wait_until


def test_live_values_the_state_file_the_pid_file_and_the_service_manager(tmp_path: Path) -> None:
    state, pid_file = tmp_path / "lb" / "state.json", tmp_path / "lb.pid"
    with Origin() as origin, Manager(f"lbproxy-crew-upgrade-{os.getpid()}") as manager:
        config = {**crew_config(origin), "state_file": "state.json"}
        lb = Chain(config, tmp_path / "lb", "--pid-file", str(pid_file))

        def is_kept(weight: int) -> bool:
            return state.exists() and f'"value": {weight}' in state.read_text()

        try:
            lb.start(manager.env)
            assert manager.hear() == {"READY": "1", "STATUS": "serving"}
            patch(lb, origin.address, b'{"weight": 7}')
            wait_until(lambda: is_kept(7), "the old one to write")
            with lb.holding("serving") as new:
                os.kill(new, signal.SIGKILL)
                lb.wait_logged("no upgrade, this process goes on: ")
            assert manager.hear()["MAINPID"] == str(new)
            assert manager.hear() == {"MAINPID": str(lb.pid)}
            assert pid_file.read_text() == f"{lb.pid}\n"
            patch(lb, origin.address, b'{"weight": 8}')
            wait_until(lambda: is_kept(8), "the old one to go on with it")
            lb.upgrade()
            assert manager.hear() == {"READY": "1", "STATUS": "serving", "MAINPID": str(lb.current)}
            assert pid_file.read_text() == f"{lb.current}\n"
            [server] = lb.server_status()
            assert server["weight"] == 8
            wait_ended(lb.pid)
            patch(lb, origin.address, b'{"weight": 9}')
            wait_until(lambda: is_kept(9), "the new one to write")
            os.kill(lb.current, signal.SIGTERM)
            assert manager.hear()["STOPPING"] == "1"
            wait_ended(lb.current)
            assert not pid_file.exists()
        finally:
            lb.kill()


def test_a_controller_that_dies_meanwhile_ends_the_upgrade(tmp_path: Path) -> None:
    with Origin() as origin, Chain(crew_config(origin), tmp_path) as lb:
        lb.may_complain = True
        with lb.holding("ready") as new:
            os.kill(members_of(lb.pid)["c"], signal.SIGKILL)
            lb.wait_logged("no upgrade, this process goes on: the controller of the old process is gone")
        wait_ended(new)
        lb.pids.pop()
        wait_until(lambda: "the controller" in lb.stderr and "serves" in lb.stderr, "its successor to serve")
        assert serves(lb.port("in"))
        lb.upgrade()
        assert serves(lb.port("in"))


@pytest.mark.parametrize("workers", [2, 1])
def test_the_first_process_stays_passes_signals_on_and_ends_with_the_last(tmp_path: Path, workers: int) -> None:
    with Origin() as origin, Chain(crew_config(origin), tmp_path, "--keep-pid") as lb:
        text = lb.config_path.read_text()
        lb.config_path.write_text(text.replace("workers: 2", f"workers: {workers}"))
        lb.upgrade()
        lb.signal(signal.SIGHUP)
        lb.wait_logged("nothing differs")
        lb.signal(signal.SIGTERM)
        assert lb.process is not None and lb.process.wait(STOP_S) == 0
        assert not is_alive(lb.current)


def test_another_number_of_workers_waits_for_the_upgrade(tmp_path: Path) -> None:
    with Origin() as origin, Chain(crew_config(origin), tmp_path) as lb:
        lb.config_path.write_text(lb.config_path.read_text().replace("workers: 2", "workers: 3"))
        with Client(lb.port("admin")) as admin:
            admin.send(b"POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = admin.response()
        assert answer.status == 200
        [step] = json.loads(answer.body)["steps"]
        assert step["text"].startswith("after an upgrade: workers: 2 -> 3")
        assert len(members_of(lb.pid)) == 3
        lb.upgrade()
        wait_until(lambda: lb.metric("worker_up") == 3, "the third worker to serve")
