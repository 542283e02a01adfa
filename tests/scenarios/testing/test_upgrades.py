"""The daemon of the tests of upgrades ends what is its own, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.upgrades import Chain

CONFIG = {
    "listeners": [{"name": "in", "bind": "127.0.0.1:0", "routes": [{"respond": {"status": 200}}]}],
    "pools": {"p": {"servers": ["127.0.0.1:1"], "health_check": "off"}},
}
SLEEPS = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_an_id_that_another_process_has_by_now_is_left_alone(tmp_path: Path) -> None:
    lb = Chain(CONFIG, tmp_path)
    with (tmp_path / "other.log").open("wb") as other, lb.stderr_path.open("wb") as own:
        strangers = subprocess.Popen(SLEEPS, stdin=subprocess.PIPE, stderr=other)
        ours = subprocess.Popen(SLEEPS, stdin=subprocess.PIPE, stderr=own)
        with strangers, ours:
            lb.pids += [strangers.pid, ours.pid]
            lb.kill()
            assert ours.wait(60) == -9
            assert strangers.poll() is None
            assert strangers.stdin is not None
            strangers.stdin.close()
            assert strangers.wait(60) == 0
