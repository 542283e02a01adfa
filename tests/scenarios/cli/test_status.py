"""`lbproxy status` as it is typed, about a pool in several states."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from functools import partial
from pathlib import Path

from tests.support import build, nursery
from tests.support.client import Client
from tests.support.hooked import HookedDaemon
from tests.support.origin import Origin
from tests.support.rig import get
from tests.support.site import Crowd, Server, status
from tests.support.waiting import wait_until


def ask(config: Path, *words: str, columns: int | None = None) -> str:
    """What the command prints: into a pipe, or on a terminal of that width."""
    words = ("status", "-c", str(config), *words)
    if columns is None:
        done = nursery.run(words, config.parent)
        assert done.returncode == 0, done.stderr
        return done.stdout
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns)}
    with open(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen([*build.COMMAND, *words], stdout=theirs, env=env)
        os.close(theirs)
        text = b""
        # What was written comes in pieces, when the kernel's worker has its turn: at the end of the program there may
        # be more to come. The end of a terminal is an error of its own.
        with contextlib.suppress(OSError):
            while data := terminal.read(65536):
                text += data
    assert process.wait(60) == 0
    return text.decode().replace("\r\n", "\n")


def test_what_explains_a_decision_is_on_the_page(tmp_path: Path) -> None:
    good, bad = Server(), Server()
    gone = Origin()
    gone.close()  # its port stays its own
    bad.answer = status(503)
    config: dict[str, object] = {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {
            "p": {
                "servers": [good.address, bad.address, gone.address, "gone.test:80"],
                "strategy": "round_robin",
                "max_inflight": 1,
                "queue": {"timeout": "300s"},
                "retry": {"attempts": 0},
                "circuit_breaker": {"failures": 2, "open": "300s"},
                "health_check": {"interval": "100ms"},
            }
        },
    }
    lb = HookedDaemon(config, tmp_path)
    lb.set_names(**{"other.test": "127.0.0.1"})
    try:
        with lb, Crowd(4) as crowd:
            admin = ("--admin", f"127.0.0.1:{lb.port('admin')}")
            wait_until(lambda: lb.metric("server_ejections_total") == 1 or not _ask(lb), "an ejection")
            good.gate.clear()
            held = [crowd.start(partial(_ask, lb)) for _ in range(3)]
            wait_until(lambda: lb.metric("queue_depth") == 2, "two requests to wait")
            wait_until(lambda: _why(lb, gone.address) == "connection refused", "a check to say so, after the traffic")
            wide = ask(lb.config_path, *admin)
            narrow = ask(lb.config_path, *admin, columns=80)
            full = ask(lb.config_path, *admin, "-v")
            good.gate.set()
            assert [answer.result() for answer in held] == [200] * 3
    finally:
        for server in (good, bad):
            server.close()
    lines = wide.splitlines()
    assert "pool p (round_robin): 1 of 4 usable" in lines
    assert any(line.startswith("  queue: 2 of 1024 waiting, the oldest for ") for line in lines)
    assert "  ejected: 1 of at most 1 servers" in lines
    rows = {line.split()[0]: line for line in lines if line.startswith(("127.", "gone"))}
    assert " up " in rows[good.address] and " 1/1 " in rows[good.address]
    assert "2 consecutive answers 503, next probe in " in rows[bad.address]
    assert "connection refused; it never was up" in rows[gone.address]
    assert "unresolved" in rows["gone.test:80"] and "gone.test: scripted failure" in rows["gone.test:80"]
    assert max(map(len, narrow.splitlines())) <= 80 < max(map(len, lines))
    assert "    connection refused; it never was up" in narrow.splitlines()
    assert "  name gone.test: no address; for " in full
    assert "    admin ready, health up, breaker ejected" in full


def _why(lb: HookedDaemon, server: str) -> str:
    pools = lb.status()["pools"]
    assert isinstance(pools, list)
    return str(next(item["why"] for item in pools[0]["servers"] if item["name"] == server))


def _ask(lb: HookedDaemon) -> int:
    with Client(lb.port("in")) as client:
        return client.ask(get("/x")).status
