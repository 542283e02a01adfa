"""A real daemon that follows a service of an API server, which restarts, forgets, refuses and goes away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.kubernetes_api import KubernetesApi
from tests.support.kubernetes_objects import Json, endpoint, endpoint_slice
from tests.support.origin import Origin, Peer
from tests.support.rig import get
from tests.support.waiting import wait_until

SOURCE = "kubernetes:predict"
CHECK = {"interval": "100ms", "rise": 1}


class Pod:
    """A server with an address of its own, and a slice of its own, since only slices have ports."""

    def __init__(self, number: int, default: Callable[[Peer], None] | None = None) -> None:
        self.name = f"predict-{number}"
        self.host = f"127.0.0.{number}"
        self.origin = Origin(host=self.host, default=default)

    @property
    def server(self) -> str:
        return f"{self.name}/{self.host}"

    def slice(self, *, terminating: bool = False, zone: str = "eu-1a", for_zones: Sequence[str] = ()) -> Json:
        ports = [{"name": "http", "port": self.origin.port, "protocol": "TCP"}]
        made = endpoint(self.host, pod=self.name, terminating=terminating, zone=zone, for_zones=for_zones)
        return endpoint_slice(f"slice-{self.name}", made, ports=ports)


class Stage:
    def __init__(self, folder: Path, api: KubernetesApi, pods: list[Pod], more: Mapping[str, object]) -> None:
        self.api = api
        self.pods = pods
        platform = {"service": "predict", "port": "http", "kubeconfig": api.kubeconfig(), **more}
        self.lb = LbProxy(
            {
                "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
                "pools": {"p": {"discovery": {"kubernetes": platform}, "health_check": CHECK}},
            },
            folder / "lb",
        )

    def states(self) -> dict[str, object]:
        return {str(server["name"]): server["state"] for server in self.lb.server_status()}

    def wait_servers(self, *pods: Pod) -> None:
        wanted = {pod.server: "up" for pod in pods}
        wait_until(lambda: self.states() == wanted, f"the servers to be {list(wanted)}")

    def wait_state(self, pod: Pod, *states: str | None) -> None:
        """None: it is no server."""
        wait_until(lambda: self.states().get(pod.server) in states, f"{pod.name} to be {states}")

    def source(self) -> dict[str, object]:
        discovery = self.lb.pool_status()["discovery"]
        assert isinstance(discovery, list)
        (source,) = discovery
        return dict(source)

    def wait_error(self, error: str) -> None:
        wait_until(lambda: error in str(self.source()["error"]), f"the status to say {error!r}")

    def wait_well(self) -> None:
        wait_until(lambda: self.source()["error"] is None, "the status to say that all is well")

    def ask(self) -> int:
        with Client(self.lb.port("in")) as client:
            return client.ask(get("/x")).status


@contextmanager
def running(
    folder: Path, *numbers: int, interval: str = "1h", environ: Mapping[str, str] | None = None, **more: object
) -> Iterator[Stage]:
    """Pods with these numbers, of which the service has the first two. more: keys of the source."""
    pods = [Pod(number) for number in numbers]
    with KubernetesApi(folder) as api:
        api.put(*(pod.slice() for pod in pods[:2]))
        try:
            api.nodes["node-1"] = "eu-1a"
            stage = Stage(folder, api, pods, {"interval": interval, **more})
            stage.lb.start(environ)
            try:
                stage.wait_servers(*pods[:2])
                yield stage
                for pod in pods:
                    pod.origin.reset()
            except BaseException:
                stage.lb.kill()
                raise
            stage.lb.stop()
        finally:
            for pod in pods:
                pod.origin.close()


class Traffic:
    """Clients that ask all the time. answered: how often they got 200; failed: what else they got."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._stop = threading.Event()
        self.answered = 0
        self.failed: list[object] = []

    def __enter__(self) -> Traffic:
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.failed, self.failed[:5]

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            try:
                status = self._stage.ask()
            except Exception as error:  # shown at the end
                self.failed.append(error)
                return
            if status == 200:
                self.answered += 1
            else:
                self.failed.append(status)

    def wait_more(self, count: int = 10) -> None:
        goal = self.answered + count
        wait_until(lambda: self.answered >= goal or self.failed, f"{count} more answers")


def test_a_rolling_update_loses_nothing_and_sends_nothing_to_who_terminates(tmp_path: Path) -> None:
    with running(tmp_path, 21, 22, 23, 24) as stage, Traffic(stage) as traffic:
        for old, new in zip(stage.pods[:2], stage.pods[2:], strict=True):
            stage.api.put(new.slice())
            stage.wait_state(new, "up")
            stage.api.put(old.slice(terminating=True))
            stage.wait_state(old, None)
            n_requests = len(old.origin.requests)
            traffic.wait_more()
            assert len(old.origin.requests) == n_requests > 0, "a request after the end was announced"
            old.origin.close()
            stage.api.delete(f"slice-{old.name}")
        stage.wait_servers(*stage.pods[2:])
        traffic.wait_more()
        source = stage.source()
        assert (source["source"], source["servers"], source["error"]) == (SOURCE, 2, None)
        assert stage.lb.metric("discovery_errors_total", pool="p", source=SOURCE) == 0
        assert stage.lb.metric("discovery_last_success_timestamp_seconds", pool="p", source=SOURCE) > 1e9


def test_who_terminates_finishes_what_it_has(tmp_path: Path) -> None:
    with running(tmp_path, 25, 26) as stage:
        old, other = stage.pods
        go_on = threading.Event()

        def slow(c: Peer) -> None:
            request = c.read_request()
            c.wait(go_on)
            c.send(c.origin.answer(request))
            c.serve()

        old.origin.default = slow
        old.origin.reset()  # kept connections are not slow
        statuses: list[int] = []
        clients = [threading.Thread(target=lambda: statuses.append(stage.ask())) for _ in range(2)]
        for client in clients:
            client.start()
        wait_until(lambda: any(peer.requests for peer in old.origin.peers), "a request to be with the old pod")
        stage.api.put(old.slice(terminating=True))
        stage.wait_state(old, "drain")
        stage.api.delete(f"slice-{old.name}")
        assert [stage.ask() for _ in range(3)] == [200] * 3
        go_on.set()
        for client in clients:
            client.join()
        assert statuses == [200, 200]
        stage.wait_servers(other)


def test_a_watch_that_is_cut_goes_on_and_one_that_is_too_late_begins_anew(tmp_path: Path) -> None:
    with running(tmp_path, 27, 28, 29) as stage, Traffic(stage) as traffic:
        *both, other = stage.pods
        n_lists = stage.api.count("list")
        stage.api.cut()
        stage.api.put(other.slice())
        stage.wait_servers(*both, other)
        assert stage.api.count("list") == n_lists, "nothing was asked for again"
        for times, how in enumerate(("event", "status"), 1):
            stage.api.gone_in = how
            stage.api.delete(f"slice-{other.name}")
            stage.wait_servers(*both)
            stage.api.put(other.slice())
            stage.api.compact()
            stage.api.cut()
            wait_until(lambda times=times: stage.api.count("410") == times, "a version to be gone")  # type: ignore[misc]
            stage.wait_servers(*both, other)
        assert stage.lb.metric("discovery_errors_total", pool="p", source=SOURCE) == 0
        traffic.wait_more()


def test_neither_an_old_token_nor_an_api_server_that_is_down_takes_anything_away(tmp_path: Path) -> None:
    with running(tmp_path, 31, 32, 33, interval="1s") as stage, Traffic(stage) as traffic:
        *both, other = stage.pods
        stage.api.tokens = {"a-new-token"}
        stage.wait_error("the API server said 401: the credentials are not valid, or no longer")
        stage.api.put(other.slice())
        stage.api.write_token("a-new-token")
        stage.wait_servers(*both, other)
        stage.wait_well()
        stage.lb.wait_logged("Kubernetes (predict) is followed again, with 3 servers")
        stage.api.stop()
        stage.wait_error(f"cannot reach https://127.0.0.1:{stage.api.port}: ")
        stage.lb.wait_logged("the last good answer stays in use", 2)
        assert stage.lb.metric("discovery_errors_total", pool="p", source=SOURCE) >= 2
        traffic.wait_more()
        stage.api.delete(f"slice-{other.name}")
        stage.api.start()
        stage.wait_servers(*both)
        stage.wait_well()
        assert "a-new-token" not in stage.lb.stderr


def test_requests_stay_in_the_zone_and_hints_say_who_belongs_to_it(tmp_path: Path) -> None:
    with running(tmp_path, 34, 35, prefer_zone=True, environ={"NODE_NAME": "node-1"}) as stage:
        near, far = stage.pods
        stage.lb.wait_logged("endpoints of the zone eu-1a come first")
        assert stage.api.count("node") == 1

        def used() -> set[object]:
            return {server["name"] for server in stage.lb.server_status() if server["used"]}

        def wait_used(*pods: Pod) -> None:
            wait_until(lambda: used() == {pod.server for pod in pods}, f"{[pod.name for pod in pods]} to be used")
            before = {pod.name: len(pod.origin.requests) for pod in stage.pods}
            assert [stage.ask() for _ in range(6)] == [200] * 6
            asked = {pod.name for pod in stage.pods if len(pod.origin.requests) > before[pod.name]}
            assert asked == {pod.name for pod in pods}

        wait_used(near, far)
        stage.api.put(far.slice(zone="eu-1b"))
        wait_used(near)
        stage.api.put(near.slice(for_zones=["eu-1b"]), far.slice(zone="eu-1b", for_zones=["eu-1a"]))
        wait_used(far)
        stage.api.put(near.slice(for_zones=["eu-1b"]), far.slice(zone="eu-1b", for_zones=["eu-1b"]))
        wait_used(near)
        stage.api.put(near.slice(zone="eu-1b"))
        wait_used(near, far)
