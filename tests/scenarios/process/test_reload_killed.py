"""A reload writes nothing: whenever lbproxy is killed during one, the next start finds what a first start finds."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.process.test_reload import Reloads, get
from tests.support.daemon import LbProxy
from tests.support.origin import Origin

LATEST_S = 0.02  # such a small reload is over by then
LOGS = ("access.log", "stderr.log")


def files(directory: Path) -> dict[str, bytes | None]:
    """What there is besides the logs; None: no ordinary file."""
    found = (path for path in directory.rglob("*") if path.name not in LOGS)
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


@pytest.mark.parametrize("seed", range(3))
def test_a_start_after_a_kill_in_the_middle(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    directory = tmp_path / "lb"
    config: dict[str, Any] = {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": [], "health_check": {"interval": "100ms"}}},
    }
    with Origin() as origin:
        config["pools"]["p"]["servers"] = [origin.address]
        lb = LbProxy(config, directory)
        reloads = Reloads(lb.start())
        for number in range(2):
            reloads.pool["headers"] = {"response": {"set": {"x-number": str(number)}}}
            reloads.config["listeners"] = [
                {"name": "in", "bind": "127.0.0.1:0", "routes": [{"pool": "p"}]},
                {"name": f"unix-{number}", "bind": f"unix:{directory}/{number}.sock", "pool": "p"},
            ]
            reloads.write()
            before = files(directory)
            lb.signal(signal.SIGHUP)
            time.sleep(rng.uniform(0.0, LATEST_S))
            lb.kill()
            sockets = {f"{directory}/{name}.sock" for name in range(2)}
            after = files(directory)
            assert {path: text for path, text in after.items() if path not in sockets} == {
                path: text for path, text in before.items() if path not in sockets
            }
            lb.start()
            assert get(lb.port("in"))[0] == 200
            assert len(lb.addresses) == 3
            assert lb.warnings() == []
        lb.stop()
