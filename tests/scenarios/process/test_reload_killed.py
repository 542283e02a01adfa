"""A reload writes nothing: whenever lbproxy is killed during one, the next start finds what a first start finds."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.process.test_reload import Reloads, get
from tests.support.client import Client
from tests.support.crew import members_of
from tests.support.daemon import LbProxy
from tests.support.killing import ALONE, CONTROLLER, SUPERVISOR, WORKER, arm, text
from tests.support.origin import Origin
from tests.support.ports import consecutive_ports
from tests.support.upgrades import Chain, is_alive
from tests.support.waiting import wait_until
from tests.support.wire import Ended

LATEST_S = 0.02  # such a small reload is over by then
TRIES = 24  # at two workers: that all of them come to one happens once in ten million times
LOGS = ("access.log", "stderr.log")
STOPPED_AT = (WORKER[0], "after lbproxy.process.applying:Applying.prepare", WORKER[-1])  # each takes five seconds


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


class Victim(Chain):
    """A daemon whose processes die at a step, if `arm` says so."""

    def __init__(self, workers: int, origin: Origin, directory: Path) -> None:
        config: dict[str, Any] = {
            "workers": workers,
            "listeners": [{"name": "in", "bind": f"127.0.0.1:{consecutive_ports(1)}", "pool": "p"}],
            "pools": {"p": {"servers": [origin.address], "health_check": {"interval": "100ms"}}},
        }
        self.file = directory / "dies"
        super().__init__(config, directory, text=text(self.file))
        self.may_complain = True
        self._number = 0

    def next_file(self, reloads: Reloads) -> str:
        """The file asks for something of each kind now; what answers are to say from then on."""
        self._number += 1
        number = str(self._number)
        reloads.pool["headers"] = {"response": {"set": {"x-number": number}}}
        unix = f"unix:{self.directory}/{number}.sock"
        reloads.config["listeners"][1:] = [{"name": "unix", "bind": unix, "pool": "p"}]
        reloads.config["access_log"]["path"] = str(self.directory / f"access-{number}.log")
        reloads.config["admin"]["hosts"] = [f"host-{number}.example"]
        reloads.write()
        return number

    def seen(self) -> set[str | None]:
        """What answers say: of all workers, since the kernel spreads connections over them."""
        found = set()
        for _ in range(TRIES):
            with Client(self.port("in")) as client:
                answer = client.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                assert answer.status == 200, answer
                found.add(answer.get("x-number"))
        return found

    def agree(self) -> bool:
        """Do all workers serve, and the same?"""
        try:
            return self.metric("worker_up") == 2 and len(self.seen()) == 1
        except (OSError, Ended):
            return False


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_each_step_it_starts_as_for_the_first_time(tmp_path: Path, workers: int) -> None:
    """One process, or the supervisor of several."""
    with Origin() as origin:
        lb = Victim(workers, origin, tmp_path / "lb")
        try:
            reloads = Reloads(lb.start())
            for step in ALONE if workers == 1 else SUPERVISOR:
                number = lb.next_file(reloads)
                before = lb.config_path.read_bytes()
                members = list(members_of(lb.pid).values())
                arm(lb.file, step)
                lb.signal(signal.SIGHUP)
                wait_until(lambda: lb.exit_code is not None, f"its death {step}")
                wait_until(lambda members=members: not any(map(is_alive, members)), "the others to end")  # type: ignore[misc]
                assert lb.config_path.read_bytes() == before
                lb.start()
                assert lb.seen() == {number}, step
                with Client(f"{lb.directory}/{number}.sock") as client:
                    assert client.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
        finally:
            lb.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "steps", "signal_number"),
    [
        ("c", CONTROLLER, signal.SIGKILL),
        ("1", WORKER, signal.SIGKILL),
        ("1", STOPPED_AT, signal.SIGSTOP),
    ],
    ids=["the controller", "a worker", "a worker that hangs"],
)
def test_one_of_several_is_killed_at_each_step_and_all_agree_in_the_end(
    tmp_path: Path, who: str, steps: tuple[str, ...], signal_number: signal.Signals
) -> None:
    """On the old file or on the new one; and the next reload is as any other. Who hangs is killed after five seconds,
    and whoever has asked for the reload hears how it went."""
    with Origin() as origin, contextlib.ExitStack() as stack:
        lb = Victim(2, origin, tmp_path / "lb")
        stack.enter_context(lb)
        reloads = Reloads(lb)
        reloads.reload()
        for step in steps:
            known = lb.seen()
            number = lb.next_file(reloads)
            pid = members_of(lb.pid)[who]
            arm(lb.file, step, who, number=signal_number)
            n_told = lb.stderr.count("by SIGHUP")
            lb.signal(signal.SIGHUP)
            wait_until(lambda pid=pid: not is_alive(pid), f"the death of {who} {step}")  # type: ignore[misc]
            wait_until(lb.agree, f"all to agree after a death {step}")
            assert lb.seen() <= {*known, number}, step
            if who != "c":
                wait_until(lambda n_told=n_told: lb.stderr.count("by SIGHUP") == n_told + 1, "its end to be told")  # type: ignore[misc]
                assert "in force stays" not in lb.stderr, "the others, and the successor, can do it"
                assert lb.seen() == {number}, step
            status, told = reloads.ask()
            assert status == 200, (step, told, lb.stderr[-3000:])
            wait_until(lambda number=number: lb.seen() == {number}, f"the new file in force, after a death {step}")  # type: ignore[misc]
            with Client(f"{lb.directory}/{number}.sock") as client:
                assert client.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
            assert lb.is_running
