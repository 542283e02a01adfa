"""Rolling updates of ten pods under load, and an API server that forgets, refuses and goes away: no request fails.

LBPROXY_FLEET_S=60 in the environment is what `make soak` does: ten updates, 300 requests a second, and an API server
that is away for so long.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import LbProxy
from tests.support.farm import Farm
from tests.support.kubernetes_api import KubernetesApi
from tests.support.kubernetes_objects import endpoint, endpoint_slice
from tests.support.waiting import wait_until

FULL_S = float(os.environ.get("LBPROXY_FLEET_S", "0"))
RATE = 300.0 if FULL_S else 40.0
N_UPDATES = 10 if FULL_S else 1
N_PODS = 10
SOURCE = "kubernetes:predict"
HEARD_S = 10.0  # until an event is acted upon, on a machine where everybody waits for a core


class Stage:
    """Ten pods, which are numbered on and on, and an lbproxy that follows their service. late_s: how long after the
    word that a pod terminates its last request came, at worst."""

    def __init__(self, folder: Path, stack: ExitStack, workers: int) -> None:
        self.api = stack.enter_context(KubernetesApi(folder))
        self.farm = stack.enter_context(Farm())
        self.ports: dict[int, int] = {}
        self.pods: list[int] = []
        self.gone: dict[int, int] = {}  # how many requests each had had by then
        self.late_s = 0.0
        for _ in range(N_PODS):
            self.join()
        platform = {"service": "predict", "port": "http", "kubeconfig": self.api.kubeconfig(), "interval": "2s"}
        self.lb = LbProxy(
            {
                "workers": workers,
                "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
                "pools": {
                    "p": {
                        "discovery": {"kubernetes": platform},
                        "health_check": {"interval": "200ms", "rise": 1, "timeout": "20s"},
                    }
                },
            },
            folder / "lb",
        )

    @staticmethod
    def host(pod: int) -> str:
        return f"127.0.2.{pod % 250 + 1}"

    def _name(self, pod: int) -> str:
        return f"predict-{pod}/{self.host(pod)}"

    def join(self) -> None:
        """A pod more, which is ready."""
        pod = len(self.ports)
        self.ports[pod] = self.farm.open(self.host(pod))
        self._say(pod)
        self.pods.append(pod)

    def _say(self, pod: int, *, terminating: bool = False) -> None:
        ports = [{"name": "http", "port": self.ports[pod], "protocol": "TCP"}]
        made = endpoint(self.host(pod), pod=f"predict-{pod}", terminating=terminating)
        self.api.put(endpoint_slice(f"slice-{pod}", made, ports=ports))

    def leave(self) -> None:
        """The oldest pod terminates, finishes what it has, and is gone."""
        pod = self.pods.pop(0)
        host, name = self.host(pod), f"slice-{pod}"
        self.api.told_at.pop(name, None)
        self._say(pod, terminating=True)
        told_at = wait_until(lambda: self.api.told_at.get(name, 0.0), "lbproxy to be told")
        wait_until(lambda: self._name(pod) not in self.names(), f"pod {pod} to be no server any more")
        self.late_s = max([self.late_s, *(at - told_at for at in self.farm.arrivals[host][-1:])])
        self.gone[pod] = len(self.farm.arrivals[host])
        self.farm.close(host)
        assert host not in self.farm.cut, self.farm.told(host)
        self.api.delete(name)

    def names(self) -> set[str]:
        return {str(server["name"]) for server in self.lb.server_status()}

    def wait_members(self) -> None:
        wanted = {self._name(pod) for pod in self.pods}
        wait_until(
            lambda: {str(server["name"]) for server in self.lb.server_status() if server["used"]} == wanted,
            f"the pods {self.pods} to be used",
        )

    def error(self) -> str:
        sources = self.lb.pool_status()["discovery"]
        assert isinstance(sources, list)
        return str(sources[0]["error"] or "")


@contextmanager
def running(folder: Path, workers: int) -> Iterator[Stage]:
    with ExitStack() as stack:
        stage = Stage(folder, stack, workers)
        stage.lb.start()
        try:
            stage.wait_members()
            with stage.farm.load(stage.lb.port("in"), RATE):
                yield stage
        except BaseException:
            stage.lb.kill()
            raise
        assert stage.farm.cut == []
        stage.lb.stop()


@pytest.mark.slow
@pytest.mark.timeout(0 if FULL_S else 180)
@pytest.mark.parametrize("workers", [1, 2])
def test_rolling_updates_lose_nothing(tmp_path: Path, workers: int) -> None:
    with running(tmp_path, workers) as stage:
        for _ in range(N_UPDATES * N_PODS):
            stage.join()
            stage.leave()
        stage.wait_members()
        assert stage.late_s < HEARD_S
        print(f"the last request came {stage.late_s * 1000:.0f} ms after the word at worst")
        assert {pod: len(stage.farm.arrivals[stage.host(pod)]) for pod in stage.gone} == stage.gone
        assert stage.lb.metric("discovery_errors_total", pool="p", source=SOURCE) == 0


@pytest.mark.slow
@pytest.mark.timeout(0 if FULL_S else 180)
@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_lost_while_the_api_server_is_in_trouble(tmp_path: Path, workers: int) -> None:
    with running(tmp_path, workers) as stage:
        api = stage.api
        api.cut()
        for times, how in enumerate(("event", "status"), 1):
            api.gone_in = how
            stage.join()
            api.compact()
            api.cut()
            wait_until(lambda: api.count("410") >= times, "a version to be gone")  # noqa: B023
            stage.wait_members()
            stage.leave()  # a watch says so: the next 410 is not the second in a row
            stage.wait_members()
        assert stage.lb.metric("discovery_errors_total", pool="p", source=SOURCE) == 0
        api.tokens = {"another"}
        api.write_token("another")
        stage.join()
        stage.leave()
        stage.wait_members()
        began = time.monotonic()
        api.stop()
        wait_until(lambda: "cannot reach" in stage.error(), "the status to say that nobody is there")
        time.sleep(max(0.0, FULL_S - (time.monotonic() - began)))
        stage.wait_members()
        api.start()
        stage.join()
        stage.wait_members()
        assert stage.error() == ""
