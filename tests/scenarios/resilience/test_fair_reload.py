"""Turns come, and go, while requests wait: nobody loses its place in the queue, in one process and in two workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.scenarios.process.test_reload import Reloads
from tests.support.arrivals import Arrivals
from tests.support.client import Client
from tests.support.crew import CrewProxy
from tests.support.daemon import LbProxy
from tests.support.rig import get
from tests.support.site import Crowd, Server
from tests.support.waiting import wait_until


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(params=[1, 2], ids=["1", "2"])
def reloads(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Iterator[Reloads]:
    config: dict[str, object] = {
        "workers": request.param,
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {
            "p": {
                "servers": [server.address],
                "health_check": "off",
                "max_inflight": 1,
                "queue": {"timeout": "300s", "order": "fifo"},
            }
        },
    }
    with (LbProxy if request.param == 1 else CrewProxy)(config, tmp_path / "lb") as lb:
        yield Reloads(lb)


def ask(port: int, request: bytes) -> int:
    with Client(port) as client:
        return client.ask(request).status


class Waiting:
    """Requests that come one after the other, of which the first is at work."""

    def __init__(self, reloads: Reloads, crowd: Crowd, name: str) -> None:
        self._lb = reloads.lb
        self._crowd = crowd
        self._name = name
        self._answers: list[object] = []
        self.arrivals = Arrivals()

    def come(self, *tenants: str) -> None:
        for tenant in tenants:
            number = len(self._answers)
            target, sent_at = f"/{self._name}-{tenant}-{number}", time.monotonic()
            request = get(target, f"X-Tenant: {tenant}")
            self._answers.append(self._crowd.start(partial(ask, self._lb.port("in"), request)))
            self._wait_for(number)
            self.arrivals.came(target, sent_at, time.monotonic())

    def _wait_for(self, number: int) -> None:
        metric = "queue_depth" if number else "server_inflight"
        wait_until(lambda: self._lb.metric(metric, pool="p") == max(1, number), f"request {number} to be there")


def test_who_waits_gets_turns_and_loses_them_again(reloads: Reloads, server: Server) -> None:
    lb = reloads.lb
    with Crowd() as crowd:
        server.gate.clear()
        waiting = Waiting(reloads, crowd, "first")
        waiting.come("big", "big", "big", "big", "small")
        reloads.pool["queue"]["fair_by"] = "header:X-Tenant"
        reloads.reload()
        wait_until(lambda: lb.metric("queue_keys", pool="p") == 2, "all who wait to have turns")
        waiting.come("small")
        server.gate.set()
        wait_until(lambda: len(server.targets) == 6, "all to be served")
        wait_until(lambda: lb.metric("server_inflight", pool="p") == 0, "all to be answered")
        # Two workers sort who waits with them one after the other, so either key may begin.
        assert server.targets[0] == "/first-big-0" and server.targets[-1] == "/first-big-3"
        assert [target for target in server.targets if "big" in target] == [f"/first-big-{n}" for n in range(4)]
        assert [target for target in server.targets if "small" in target] == ["/first-small-4", "/first-small-5"]

        server.gate.clear()
        waiting = Waiting(reloads, crowd, "then")
        waiting.come("big", "big", "big", "small")
        del reloads.pool["queue"]["fair_by"]
        reloads.reload()
        assert "lbproxy_queue_keys{" not in lb.exposition()
        server.gate.set()
        wait_until(lambda: len(server.targets) == 10, "all to be served")
        assert server.targets[6] == "/then-big-0"
        waiting.arrivals.check(server.targets[6:])
