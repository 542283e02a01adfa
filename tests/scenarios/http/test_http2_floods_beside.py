"""Requests of others while ten connections of HTTP/2 flood lbproxy, with one kind after the other.

What goes through of a flood goes to another server, since it is lbproxy that is asked about. What floods take of the
machine is not lbproxy's work, so the same floods are sent to another lbproxy as well, and both are compared.

LBPROXY_FLOOD_ROUNDS in the environment says how often; `make soak` makes it ten times, and holds the latency of
requests against that. Otherwise only what does not depend on the machine is asserted.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.daemon import LbProxy
from tests.support.h2_floods import ENDED, WAITING
from tests.support.nginx_server import nginx
from tests.support.open_loop import Servers
from tests.support.peace_and_war import Phases, interval, ratio

ROUNDS = int(os.environ.get("LBPROXY_FLOOD_ROUNDS", "1"))
IS_FULL = ROUNDS >= 10
KINDS = [kind.__name__ for kind in (*ENDED, *WAITING)] if IS_FULL else ["rapid_reset", "pings", "hpack_bomb"]
RATE = 500 if IS_FULL else 100
PEACE_S = 2.0 if IS_FULL else 0.2
PAUSE_S = 0.05  # between two floods: so there are about 20 a second
RATIO = 2.0
NGINX = "server { listen 127.0.0.1:PORT backlog=4096; location / { return 200 ok; } }"


class Flooders:
    """A process that floods, one kind at a time."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, "-m", "tests.support.h2_floods", str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def flood(self, kind: str) -> None:
        """Until ten connections of it are over."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(kind, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == f"{kind}\n"

    def close(self) -> None:
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        self._process.wait()


def config(servers: list[str], port: int) -> dict[str, object]:
    common = {"health_check": "off", "circuit_breaker": "off"}
    routes = [{"match": {"path_prefix": "/open-loop"}, "pool": "others"}, {"pool": "flooded"}]
    return {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "routes": routes}],
        "pools": {
            "others": {"servers": servers, **common},
            "flooded": {"servers": [f"127.0.0.1:{port}"], **common},
        },
    }


@pytest.mark.slow
def test_others_are_served_while_one_floods(tmp_path: Path) -> None:
    with Servers(1, 0.0) as servers, nginx(tmp_path, NGINX) as (_, port), contextlib.ExitStack() as stack:
        lb, other = (
            stack.enter_context(LbProxy(config(servers.addresses, port), tmp_path / name)) for name in ("lb", "other")
        )
        os.setpriority(os.PRIO_PROCESS, other.pid, 19)
        flooders, elsewhere = (stack.enter_context(contextlib.closing(Flooders(one.port("in")))) for one in (lb, other))
        took_s: dict[str, list[float]] = {kind: [] for kind in KINDS}

        def wage(against: Flooders, name: str) -> None:
            with phases.noted(name):
                for kind in KINDS:
                    began = time.monotonic()
                    against.flood(kind)
                    if against is flooders:
                        took_s[kind].append(time.monotonic() - began)
                    time.sleep(PAUSE_S)
            time.sleep(PEACE_S / 10)  # what is closed is noticed

        with servers.load(lb.port("in"), RATE) as load:
            for kind in KINDS:  # what is made once is made
                flooders.flood(kind)
                elsewhere.flood(kind)
            phases = Phases(load)
            for number in range(ROUNDS):
                phases.rounds.append({})
                with phases.noted("before"):
                    time.sleep(PEACE_S / 2)
                for against, name in [(elsewhere, "elsewhere"), (flooders, "war")][:: 1 if number % 2 else -1]:
                    wage(against, name)
                with phases.noted("after"):
                    time.sleep(PEACE_S / 2)
        report = load.report
        assert report.statuses == {200: report.sent} and not report.broken and not report.refused, report
        assert lb.metric("h2_goaways_total", reason="flood") + lb.metric("h2_goaways_total", reason="error") > 0
        hurt = phases.pairs(("elsewhere",), ("war",))
        if hurt:
            low, high = interval(hurt, random.Random(1))
            print(f"p99 is {ratio(hurt):.2f} times that while another lbproxy is flooded, {low:.2f} to {high:.2f}")
            print("\n".join(phases.told()))
            print(", ".join(f"{kind} {1e3 * statistics.median(took):.0f} ms" for kind, took in took_s.items()))
        if IS_FULL:
            assert len(hurt) >= ROUNDS * 9 // 10, "too few rounds in which requests were answered"
            assert low <= RATIO, "it is above that, whatever chance may have done"
