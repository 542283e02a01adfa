"""The process that stays: as process 1 of a namespace, and with --keep-pid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lbproxy.process import keeper
from tests.scenarios.process.test_reload import get
from tests.support.daemon import STOP_S
from tests.support.ports import consecutive_ports
from tests.support.upgrades import READY_S, Chain, is_alive, prepared, wait_ended
from tests.support.waiting import wait_until

CONFIG: dict[str, Any] = {
    "listeners": [{"name": "in", "bind": "127.0.0.1:0", "routes": [{"respond": {"status": 200}}]}],
    "pools": {"p": {"servers": ["127.0.0.1:1"], "health_check": "off"}},
    "shutdown": {"grace": "5s"},
}


def test_the_first_process_stays_passes_signals_on_and_ends_with_the_last(tmp_path: Path) -> None:
    with Chain(CONFIG, tmp_path, "--keep-pid") as lb:
        lb.upgrade()
        lb.upgrade()
        wait_ended(lb.pids[0])
        assert lb.is_running
        lb.signal(signal.SIGHUP)
        lb.wait_logged("nothing differs")
        lb.signal(signal.SIGUSR2)
        wait_until(lambda: lb.stderr.count("has taken over from") == 3, "an upgrade by signal", READY_S)
        lb.pids.append(int(lb.stderr.split("upgrade: process ")[3].split()[0]))
        assert get(lb.port("in"))[0] == 200
        lb.signal(signal.SIGTERM)
        assert lb.process is not None and lb.process.wait(STOP_S) == 0
        assert not is_alive(lb.current)


def test_the_first_process_tells_that_the_last_one_crashed(tmp_path: Path) -> None:
    with Chain(CONFIG, tmp_path, "--keep-pid") as lb:
        lb.upgrade()
        lb.upgrade()
        os.kill(lb.current, signal.SIGKILL)
        assert lb.process is not None and lb.process.wait(STOP_S) == 128 + signal.SIGKILL


def test_process_1_of_a_container(tmp_path: Path) -> None:
    """It can't be replaced, so it stays; orphans are waited for all the time."""
    unshare = shutil.which("unshare")
    new_namespace = [unshare or "", "--fork", "--pid", "--mount-proc", "--kill-child"]
    if unshare is None or subprocess.run([*new_namespace, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no process namespace can be made here")
    settings = {**CONFIG, "admin": {"bind": f"127.0.0.1:{consecutive_ports(1)}"}}
    lb = Chain(settings, tmp_path)
    lb.is_executed = True
    lb._program = lambda: [*new_namespace, str(prepared(tmp_path))]  # type: ignore[method-assign]
    with lb:
        assert "starts, pid 1," in lb.stderr
        status, told = lb.ask()
        assert status == 200 and told["old"]["pid"] == 1, told
        status, again = lb.ask()
        assert status == 200 and again["old"]["pid"] == told["new"]["pid"]
        assert get(lb.port("in"))[0] == 200
        assert lb.is_running
        [first] = Path(f"/proc/{lb.pid}/task/{lb.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        assert lb.process is not None and lb.process.wait(STOP_S) == 0
        assert lb.stderr.count("stopped; nothing was cut") == 3


def test_orphans_are_waited_for_when_nobody_else_does() -> None:
    zombies, waited = {5, 6}, []

    def wait(pid: int) -> None:
        waited.append(pid)
        if pid == 6:
            raise ChildProcessError

    orphans = keeper.Orphans(lambda: set(zombies), wait)
    orphans.sweep(0.0)
    orphans.sweep(1.0)
    assert waited == []
    zombies.add(7)
    orphans.sweep(6.0)
    assert sorted(waited) == [5, 6], "7 may be somebody's"
    zombies -= {5, 6}
    orphans.sweep(12.0)
    assert sorted(waited) == [5, 6, 7]


def test_who_is_a_zombie(tmp_path: Path) -> None:
    for pid, text in (("5", "5 (a b) Z 1 5"), ("6", "6 (x) R) Z 1 6"), ("7", "7 (x) S 1 7"), ("8", "8 (x) Z 2 8")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").write_text(text)
    (tmp_path / "9").mkdir()
    (tmp_path / "self").mkdir()
    assert keeper.zombies_of(1, tmp_path) == {5, 6}
    assert keeper.zombies_of(2, tmp_path) == {8}


def test_a_variable_that_leads_nowhere_is_told() -> None:
    with pytest.raises(ValueError, match="unset it"):
        keeper.kept_of({keeper.FD: "987"})
    assert keeper.kept_of({}) is None
