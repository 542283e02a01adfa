"""A real daemon and a file that is edited, swapped, cut off and spoilt while it runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.scenarios.control.test_pools_api import call, path_of
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer
from tests.support.rig import get
from tests.support.waiting import PATIENCE_S, wait_until

LIST = "servers.yaml"


class Stage:
    """A pool that has a servers_file only, and three servers that may be listed there."""

    def __init__(self, directory: Path, *, path: str = LIST, **pool: object) -> None:
        self.origins = [Origin() for _ in range(3)]
        self.path = directory / path
        config = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {
                "p": {
                    "servers_file": path,
                    "health_check": {"interval": "100ms", "rise": 1},
                    "strategy": "round_robin",
                    **pool,
                }
            },
        }
        self.lb = LbProxy(config, directory)

    def write(self, *items: object) -> None:
        """By renaming, as editors do."""
        self.replace(yaml.safe_dump(list(items)))

    def replace(self, text: str) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(text)
        part.rename(self.path)

    @property
    def pool(self) -> dict[str, object]:
        return self.lb.pool_status()

    def servers(self) -> dict[str, dict[str, object]]:
        """By name."""
        return {str(server["name"]): server for server in self.lb.server_status()}

    def wait_servers(self, *names: str) -> None:
        def are_up() -> bool:
            servers = self.servers()
            return set(servers) == set(names) and all(server["state"] == "up" for server in servers.values())

        wait_until(are_up, f"the servers to be {names}")

    def source(self) -> dict[str, object]:
        discovery = self.pool["discovery"]
        assert isinstance(discovery, list)
        (source,) = discovery
        return dict(source)

    def wait_error(self, error: str) -> None:
        wait_until(lambda: error in str(self.source()["error"]), f"the status to say {error!r}")

    def call(self, method: str, server: str, body: object = None) -> tuple[int, str]:
        """Status and text of a call that changes a server."""
        status, told = call(self.lb, method, path_of(server, "p"), body)
        return status, str(told)

    def ask(self, target: str = "/x") -> int:
        with Client(self.lb.port("in")) as client:
            return client.ask(get(target)).status


@contextmanager
def staged(directory: Path, **pool: object) -> Iterator[Stage]:
    made = Stage(directory / "lb", **pool)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        for origin in made.origins:
            origin.close()


@contextmanager
def running(stage: Stage) -> Iterator[None]:
    with stage.lb:
        yield
        for origin in stage.origins:
            origin.reset()


def test_servers_come_and_go_by_rename(tmp_path: Path) -> None:
    with staged(tmp_path) as stage:
        a, b, c = (origin.address for origin in stage.origins)
        stage.write(a)
        with running(stage):
            stage.wait_servers(a)
            stage.write(a, {"address": b, "name": "second", "max_inflight": 4}, c)
            stage.wait_servers(a, "second", c)
            assert stage.servers()["second"]["source"] == "servers_file"
            assert stage.servers()["second"]["max_inflight"] == 4
            stage.write(c)
            stage.wait_servers(c)
            assert [stage.ask() for _ in range(4)] == [200] * 4
            assert stage.lb.metric("discovery_errors_total", pool="p", source=f"servers_file:{LIST}") == 0
            assert stage.lb.metric("server_up", pool="p", server=c) == 1
            source = stage.source()
            age = source.pop("age")
            assert source == {"source": f"servers_file:{LIST}", "servers": 1, "error": None, "says": {}}
            assert isinstance(age, float) and 0.0 <= age < PATIENCE_S


def test_a_file_that_is_rewritten_in_place(tmp_path: Path) -> None:
    with staged(tmp_path) as stage:
        a, b, _ = (origin.address for origin in stage.origins)
        stage.path.write_text(f"- {a}\n")
        with running(stage):
            stage.wait_servers(a)
            stage.path.write_text(f"- {a}\n- {b}\n")
            stage.wait_servers(a, b)


def test_a_symlink_that_is_swapped(tmp_path: Path) -> None:
    """As Kubernetes changes a ConfigMap: servers.yaml -> ..data/servers.yaml, ..data -> a new folder."""
    with staged(tmp_path, path=f"mounted/{LIST}") as stage:
        a, b, _ = (origin.address for origin in stage.origins)
        mount = stage.path.parent
        mount.mkdir()
        for version, address in (("..one", a), ("..two", b)):
            (mount / version).mkdir()
            (mount / version / LIST).write_text(f"- {address}\n")
        (mount / "..data").symlink_to("..one")
        stage.path.symlink_to(f"..data/{LIST}")
        with running(stage):
            stage.wait_servers(a)
            (mount / "..data_tmp").symlink_to("..two")
            (mount / "..data_tmp").rename(mount / "..data")
            stage.wait_servers(b)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda path: os.truncate(path, 0), f"{LIST}:1:1: is empty; write [] for a list of no servers"),
        (lambda path: path.write_text("\x00\x01 garbage"), f"{LIST}:1:1: the character U+0000 is not allowed in YAML"),
        (lambda path: path.write_text("- 127.0.0.1\n"), f"{LIST}:1:3: [0]: '127.0.0.1' has no port; write host:port"),
        (lambda path: path.unlink(), f"{LIST}: there is no such file"),
        (lambda path: path.unlink() or path.mkdir(), f"{LIST}: is a directory, not a file"),
    ],
    ids=["truncated", "garbage", "invalid", "removed", "directory"],
)
def test_the_last_good_list_stays(tmp_path: Path, spoil: Callable[[Path], object], error: str) -> None:
    with staged(tmp_path) as stage:
        a, b, _ = (origin.address for origin in stage.origins)
        stage.write(a)
        with running(stage):
            stage.wait_servers(a)
            spoil(stage.path)
            stage.wait_error(error)
            assert stage.ask() == 200
            stage.wait_servers(a)
            assert stage.lb.metric("discovery_errors_total", pool="p", source=f"servers_file:{LIST}") >= 1
            stage.lb.wait_logged(f"{error}; the last good answer stays in use")
            if stage.path.is_dir():
                stage.path.rmdir()
            stage.write(a, b)
            stage.wait_servers(a, b)
            stage.lb.wait_logged(f"servers_file {LIST} is good again, with 2 servers")
            assert stage.source()["error"] is None


def test_an_empty_list_empties_the_pool(tmp_path: Path) -> None:
    with staged(tmp_path) as stage:
        a = stage.origins[0].address
        stage.write(a)
        with running(stage):
            stage.wait_servers(a)
            stage.replace("[]\n")
            wait_until(lambda: not stage.servers(), "the pool to be empty")
            with Client(stage.lb.port("in")) as client:
                answer = client.ask(get("/x"))
            assert answer.status == 503 and answer.get("Retry-After")
            status, body = stage.lb.admin_get("/readyz")
            assert status == 503 and f"servers_file {LIST}: has no server" in body.decode()
            stage.write(a)
            stage.wait_servers(a)
            assert stage.ask() == 200


def test_a_pool_starts_empty_and_recovers(tmp_path: Path) -> None:
    with staged(tmp_path) as stage:
        a = stage.origins[0].address
        with running(stage):
            with Client(stage.lb.port("in")) as client:
                answer = client.ask(get("/x"))
            assert answer.status == 503 and answer.get("Retry-After")
            status, body = stage.lb.admin_get("/readyz")
            assert status == 503 and b"there is no such file" in body
            stage.replace("- [")
            stage.wait_error("is not closed")
            stage.write(a)
            stage.wait_servers(a)
            assert stage.ask() == 200
            wait_until(lambda: stage.lb.admin_get("/readyz")[0] == 200, "/readyz to answer 200")


def test_who_stays_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    """Counters, connections, and what an operator set; what the file changed is in force at once."""
    with staged(tmp_path, strategy="weighted_round_robin") as stage:
        a, b, _ = (origin.address for origin in stage.origins)
        stage.write(a, b)
        with running(stage):
            stage.wait_servers(a, b)
            assert [stage.ask() for _ in range(6)] == [200] * 6
            before = stage.servers()[a]["requests"]
            kept = [peer.number for peer in stage.origins[0].peers if not peer.closed.is_set() and peer.requests]
            assert stage.call("PATCH", b, {"weight": 7})[0] == 200
            stage.write({"address": a, "weight": 3, "max_inflight": 9}, {"address": b, "weight": 5})
            wait_until(lambda: stage.servers()[a]["weight"] == 3, "the weight of the file to count")
            told = stage.servers()
            assert (told[a]["requests"], told[a]["max_inflight"]) == (before, 9)
            assert told[b]["weight"] == 7
            sources = told[b]["sources"]
            assert isinstance(sources, dict) and sources["weight"]["given"] == 5
            assert kept and not any(peer.closed.is_set() for peer in stage.origins[0].peers if peer.number in kept)
            assert stage.call("PATCH", b, {"weight": "file"})[0] == 200
            assert stage.servers()[b]["weight"] == 5


def test_who_leaves_finishes_what_it_has(tmp_path: Path) -> None:
    go = threading.Event()
    with staged(tmp_path) as stage:
        a, b, _ = (origin.address for origin in stage.origins)
        stage.write(a)
        with running(stage), Client(stage.lb.port("in")) as client:
            stage.wait_servers(a)
            stage.origins[0].default = partial(hold, go=go)
            client.send(get("/held"))
            wait_until(lambda: any(r.target == "/held" for r in stage.origins[0].requests), "a request at the server")
            stage.write(b)
            wait_until(lambda: stage.servers().get(a, {}).get("state") == "drain", "the old server to drain")
            assert [stage.ask(f"/new-{number}") for number in range(5)] == [200] * 5
            assert stage.servers()[a]["leaving"] is True
            status, told = stage.call("PATCH", a, {"admin": "ready"})
            assert status == 409 and f"servers_file {LIST} no longer lists it" in told
            go.set()
            assert client.response().status == 200
            stage.wait_servers(b)
        assert not any(r.target.startswith("/new") for r in stage.origins[0].requests)


def hold(c: Peer, go: threading.Event) -> None:
    request = c.read_request()
    if request.target == "/held":
        c.wait(go)
    c.send(c.origin.answer(request))
    c.serve()


def test_an_operator_drains_what_the_file_would_bring_back(tmp_path: Path) -> None:
    with staged(tmp_path) as stage:
        a, b, _ = (origin.address for origin in stage.origins)
        stage.write(a, b)
        with running(stage):
            stage.wait_servers(a, b)
            status, told = stage.call("DELETE", a)
            assert status == 409 and f"comes from servers_file {LIST}, which would bring it back" in told


def test_no_request_is_lost_while_servers_come_and_go(tmp_path: Path) -> None:
    """All servers are replaced, again and again, under traffic."""
    with staged(tmp_path) as stage:
        addresses = [origin.address for origin in stage.origins]
        stage.write(addresses[0])
        statuses: list[int] = []
        is_over = threading.Event()

        def ask() -> None:
            with Client(stage.lb.port("in")) as client:
                while not is_over.is_set():
                    statuses.append(client.ask(get(f"/{len(statuses)}")).status)

        with running(stage):
            stage.wait_servers(addresses[0])
            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            try:
                for turn in range(1, 7):
                    stage.write(addresses[turn % 3])
                    stage.wait_servers(addresses[turn % 3])
                    wanted = len(statuses) + 20
                    wait_until(lambda wanted=wanted: len(statuses) >= wanted, "requests to go on")  # type: ignore[misc]
            finally:
                is_over.set()
                for thread in threads:
                    thread.join()
            assert set(statuses) == {200}
