"""Locks and books that real processes share, some of which are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from lbproxy.shared.mutex import MUTEX_CELLS, Mutex
from lbproxy.shared.segment import Segment
from tests.architecture.rules import ROOT


def test_who_takes_the_lock_of_a_dead_process_is_told_once() -> None:
    cells = Segment(MUTEX_CELLS + 1).cells
    mutex = Mutex(cells, 0, lambda: None)
    mutex.create()
    pid = os.fork()
    if not pid:
        mutex.enter()
        cells[MUTEX_CELLS] = 1
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert cells[MUTEX_CELLS] == 1
    assert mutex.enter()
    mutex.leave()
    assert not mutex.enter()
    mutex.leave()


def test_workers_that_are_killed_at_random_leave_nothing_behind() -> None:
    """Most of them inside the lock."""
    command = [sys.executable, "-P", "-m", "benchmarks.simulation.stress", "--workers", "3", "--kills", "40"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert told["died_inside"] > 0
    assert sum(told["served"]) > 0
