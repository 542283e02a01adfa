"""The admin address under attack while traffic flows: nothing is changed, nothing grows, and requests are not hurt.

Peace and war alternate in many short rounds; the load goes on over all of them. The attack is in a process of its own,
which gives way to all others (nice 19). What it takes of this machine all the same is measured, too, and is no work of
lbproxy: so the same war is waged on another lbproxy, which carries nothing, and the two wars are compared.

LBPROXY_ATTACK_S in the environment says how long war is; `make soak` makes it a minute, with 1,000 slow readers of
events, and holds the latency of requests against that in a war elsewhere. Otherwise only what does not depend on the
machine is asserted.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.admin_attack import REFUSED, TOKENS, UNFINISHED, answer, leaks, status
from tests.support.client import Client
from tests.support.crew import members_of
from tests.support.daemon import LbProxy
from tests.support.open_loop import Servers
from tests.support.origin import Origin
from tests.support.peace_and_war import Phases, interval, ratio
from tests.support.rig import get
from tests.support.waiting import wait_until

ATTACK_S = float(os.environ.get("LBPROXY_ATTACK_S", "1"))
IS_FULL = ATTACK_S >= 30
RATE = 500 if IS_FULL else 100
N_READERS = 1000 if IS_FULL else 100
PACE_S = 0.2 if IS_FULL else 0.0  # between two calls of an attacker
PHASE_S = 2.0 if IS_FULL else 0.5
ROUNDS = round(ATTACK_S / PHASE_S)
RATIO = 1.1
ADMIN_CONNECTIONS = 64 + 16
GROWTH_BYTES = 48 << 20  # 80 connections with what they may hold each, and what the interpreter keeps of a busy time
READ = {"Authorization": "Bearer reads"}


def config(address: str, workers: int = 1) -> dict[str, object]:
    return {
        "workers": workers,
        "admin": {"bind": "127.0.0.1:0", **TOKENS},
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": [{"name": "one", "address": address}]}},
    }


class War:
    """The attack, which is over for as long as nobody says `war`."""

    def __init__(self, lb: LbProxy, n_readers: int, pace_s: float) -> None:
        command = [sys.executable, "-m", "tests.support.admin_attack", str(lb.port("admin")), str(n_readers)]
        self._process = subprocess.Popen(
            [*command, str(pace_s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.say("peace")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def say(self, word: str) -> None:
        assert self._process.stdin is not None
        print(word, file=self._process.stdin, flush=True)
        assert self._line() == f"{word}\n"

    def so_far(self) -> dict[str, Any]:
        """What came of it, while it goes on."""
        assert self._process.stdin is not None
        print("so far", file=self._process.stdin, flush=True)
        found: dict[str, Any] = json.loads(self._line())
        return found

    def end(self) -> dict[str, Any]:
        """What came of it."""
        self.say("end")
        found: dict[str, Any] = json.loads(self._line())
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()


def what_may_not_change(lb: LbProxy) -> object:
    code, body = lb.admin_get("/api/v1/pools/p/servers/one", READ)
    assert code == 200
    kept = ("admin", "weight", "max_inflight", "leaving")
    return {key: re.findall(rf'"{key}": ?("[^"]*"|[\w.]+)'.encode(), body) for key in kept}


@pytest.mark.slow
def test_requests_are_not_hurt_and_nothing_changes_nor_grows(tmp_path: Path) -> None:
    with (
        Servers(1, 0.0) as servers,
        LbProxy(config(servers.addresses[0]), tmp_path / "lb") as lb,
        LbProxy(config(servers.addresses[0]), tmp_path / "other") as other,
    ):
        os.setpriority(os.PRIO_PROCESS, other.pid, 19)
        before, rss = what_may_not_change(lb), lb.rss_bytes()
        war, war_elsewhere = War(lb, N_READERS, PACE_S), War(other, N_READERS, PACE_S)
        most_fds = most_rss = 0

        def pass_time(seconds: float) -> None:
            nonlocal most_fds, most_rss
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                most_fds, most_rss = max(most_fds, lb.fd_count()), max(most_rss, lb.rss_bytes())
                time.sleep(0.25)

        def wage(against: War, name: str) -> None:
            against.say("war")
            with phases.noted(name):
                pass_time(PHASE_S)
            against.say("peace")
            time.sleep(PHASE_S / 10)  # what is closed is noticed

        with (
            contextlib.closing(war),
            contextlib.closing(war_elsewhere),
            servers.load(lb.port("in"), RATE) as load,
        ):
            phases = Phases(load)
            time.sleep(PHASE_S / 5)  # connections are made
            for number in range(ROUNDS):
                phases.rounds.append({})
                with phases.noted("before"):
                    pass_time(PHASE_S / 2)
                for against, name in [(war_elsewhere, "elsewhere"), (war, "war")][:: 1 if number % 2 else -1]:
                    wage(against, name)
                with phases.noted("after"):
                    pass_time(PHASE_S / 2)
            came = war.end()
        report = load.report
        assert report.statuses == {200: report.sent} and not report.broken and not report.refused, report
        assert came["leaks"] == 0 and came["readers"] > 0, came
        assert {int(code) // 100 for code in came["statuses"]} <= {0, 4}, came
        for_requests = 2 * report.connections  # a busy machine needs more
        assert most_fds - lb.baseline_fds <= ADMIN_CONNECTIONS + for_requests + 16
        assert most_rss - rss <= GROWTH_BYTES
        wait_until(lambda: what_may_not_change(lb) == before, "the admin address to answer as before")
        assert lb.metric("config_reloads_total") == 0
        assert ", by " not in lb.stderr
        hurt = phases.pairs(("elsewhere",), ("war",))
        if hurt:
            low, high = interval(hurt, random.Random(1))
            print(f"p99 in war is {ratio(hurt):.2f} times that in a war elsewhere, {low:.2f} to {high:.2f}")
            print("\n".join([*phases.told(), str(came)]))
        print(f"most descriptors {most_fds}, memory {rss >> 10} KiB, at most {most_rss >> 10}")
        if IS_FULL:
            assert len(hurt) >= ROUNDS * 9 // 10, "too few rounds in which requests were answered"
            assert low <= RATIO, "it is above that, whatever chance may have done"
            if high > RATIO:
                pytest.skip(f"{low:.2f} to {high:.2f}: the machine is too busy to say whether it is above {RATIO}")


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    """One worker: the admin address is in the process that serves. Two: it is in the controller."""
    workers = int(request.param)
    with Origin() as origin, LbProxy(config(origin.address, workers), tmp_path_factory.mktemp("lb")) as lb:
        assert ("c" in members_of(lb.pid)) == (workers > 1)
        yield lb


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_tells_and_changes_nothing(attacked: LbProxy, case: str) -> None:
    expected, data = REFUSED[case]
    before, said = what_may_not_change(attacked), len(attacked.stderr)
    told = answer(attacked.port("admin"), data)
    assert status(told) == expected, told
    assert not leaks(told), told
    assert what_may_not_change(attacked) == before
    new = attacked.stderr[said:]
    assert ", by " not in new and "Traceback" not in new, new
    assert attacked.metric("config_reloads_total") == 0


@pytest.mark.parametrize("case", UNFINISHED)
def test_what_never_ends_changes_nothing(attacked: LbProxy, case: str) -> None:
    """That each is cut after a time is in test_admin.py and test_admin_strain.py."""
    before = what_may_not_change(attacked)
    with socket.create_connection(("127.0.0.1", attacked.port("admin"))) as sock:
        sock.sendall(UNFINISHED[case])
        assert what_may_not_change(attacked) == before
    assert what_may_not_change(attacked) == before
    assert attacked.metric("config_reloads_total") == 0


def test_readers_that_take_nothing_leave_room_for_others(attacked: LbProxy) -> None:
    with contextlib.closing(War(attacked, 1000, 0.0)) as war, Client(attacked.port("in")) as client:
        war.say("war")
        for number in range(20):
            assert client.ask(get(f"/{number}")).status == 200
            time.sleep(0.05)
        wait_until(lambda: war.so_far()["readers"], "readers to be let in")
        came = war.end()
        assert came["leaks"] == 0, came
    wait_until(lambda: attacked.admin_get("/healthz")[0] == 200, "the admin address to answer as before")
