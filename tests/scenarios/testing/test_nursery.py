"""No daemon of a test outlives the tests, however these end (tests/support/nursery.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.build import ROOT
from tests.support.daemon import START_S
from tests.support.nursery import Nursery, can_start
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(not can_start({}), reason="NURSERY=no: there is none")

SERVE = ("run", "--to", "127.0.0.1:9", "--bind", "127.0.0.1:0", "--admin", "127.0.0.1:0")
TESTS = f"""
import sys, time
from pathlib import Path
from tests.support import nursery
log = open("log", "wb")
print(nursery.start({SERVE!r}, {{}}, stdout=log.fileno(), stderr=log.fileno()).pid, flush=True)
time.sleep(600)
"""


def has_ended(pid: int) -> bool:
    """Is it gone, or dead and nobody has asked for its status?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_daemons_end_with_a_nursery_that_is_killed(tmp_path: Path) -> None:
    with ExitStack() as stack, (tmp_path / "log").open("wb") as log:
        nursery = Nursery()
        stack.callback(nursery.kill)
        daemon = nursery.start(SERVE, {}, stdout=log.fileno(), stderr=log.fileno(), folder=tmp_path)
        wait_until(lambda: b"listening name=" in (tmp_path / "log").read_bytes(), "it to serve", START_S)
        nursery.kill()
        wait_until(lambda: has_ended(daemon.pid), "the daemon to end")
        assert daemon.wait(START_S) == -signal.SIGKILL


def test_daemons_end_with_tests_that_are_killed(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", TESTS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path, env=environ) as tests:
        try:
            assert tests.stdout is not None
            pid = int(tests.stdout.readline())
            wait_until(lambda: b"listening name=" in (tmp_path / "log").read_bytes(), "it to serve", START_S)
        finally:
            tests.send_signal(signal.SIGKILL)
    wait_until(lambda: has_ended(pid), "the daemon to end")
