"""Servers that get SIGKILL under load: who notices, who is asked meanwhile, and how they come back."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tests.support.client import Client
from tests.support.daemon import START_S, LbProxy
from tests.support.e2e_app import EXECUTED
from tests.support.rig import get
from tests.support.servers import Gunicorn, Load, gunicorns, in_threads, session
from tests.support.waiting import wait_until

CLIENTS = 16
SECONDS = (0.01, 0.03, 0.06)
CHECK_S = 0.5
CHECK_TIMEOUT_S = 5.0  # a server that is well passes its checks on a busy machine, too; one that is dead refuses them


class Cluster:
    """Three servers, a file with what they executed, and a daemon in front of them."""

    def __init__(self, servers: list[Gunicorn], executed: Path, folder: Path, *, idempotent: bool) -> None:
        self.servers = servers
        self.executed_path = executed
        executed.write_bytes(b"")
        pool = {
            "servers": [{"address": server.address, "name": f"s{n}"} for n, server in enumerate(servers)],
            "health_check": {
                "type": "http",
                "path": "/health",
                "interval": f"{CHECK_S}s",
                "timeout": f"{CHECK_TIMEOUT_S}s",
            },
            "retry": {"idempotent": idempotent},
        }
        self.lb = LbProxy(
            {"listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}], "pools": {"p": pool}}, folder
        )

    @property
    def port(self) -> int:
        return self.lb.port("in")

    def executed(self) -> Counter[str]:
        """How often each request was executed."""
        return Counter(line.split()[0] for line in self.executed_path.read_text().splitlines())

    def up(self) -> list[float]:
        return [self.lb.metric("server_up", server=f"s{n}") for n in range(len(self.servers))]

    def wait_up(self, *wanted: float) -> None:
        """An ejection ends by a request, not by a check: keep a load on where a server died under requests."""
        wait_until(lambda: self.up() == list(wanted), f"the servers to be {wanted}")

    def connects(self, server: str) -> float:
        """Connections that were tried for requests, whatever came of it."""
        return self.lb.metric("upstream_connects_total", server=server)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Gunicorn], Path]]:
    folder = tmp_path_factory.mktemp("mortal")
    executed = folder / "executed"
    with gunicorns(folder, 3, **{EXECUTED: str(executed)}) as started:
        yield started, executed


@pytest.fixture
def cluster(servers: tuple[list[Gunicorn], Path], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    for server in servers[0]:
        if not server.is_running:  # a test failed before it came back
            server.start()
            server.wait()
    made = Cluster(*servers, tmp_path / "lb", idempotent=request.param)
    with made.lb:
        made.wait_up(1, 1, 1)
        yield made


def kill_under_load(cluster: Cluster) -> tuple[Load, float, float]:
    """A load, in the middle of which the first server is killed; the kill began and was complete at these times."""
    with Load(cluster.port, CLIENTS, SECONDS) as load, Load(cluster.port, 8, is_get=True) as gets:
        load.wait_for(100)
        gets.wait_for(20)
        began = time.monotonic()
        cluster.servers[0].kill()
        over = time.monotonic()
        load.wait_for(100)
        wait_until(lambda: cluster.lb.server_status()[0]["health"] == "down", "checks to find out as well")
        before = cluster.connects("s0")
        load.wait_for(100)
        assert cluster.connects("s0") == before, "a request was sent to a server that refuses connections"
        assert cluster.up() == [0, 1, 1]
        gets.wait_for(20)
    assert [(one.status, one.error) for one in gets.lost] == [], "a GET failed, which may always be repeated"
    broken_off = [one for one in (*load.failed, *gets.failed) if one.status == 200]
    assert len(broken_off) <= CLIENTS, "each of that server's threads writes one answer"
    told = [entry for entry in cluster.lb.access_log() if entry["status"] == 200 and entry["end"] == "truncated_body"]
    assert [entry["server"] for entry in told] == ["s0"] * len(broken_off)
    return load, began, over


def come_back(cluster: Cluster) -> None:
    """Start the killed server again: it is used after `rise` passes."""
    passes = cluster.lb.metric("health_checks_total", server="s0", result="pass")
    before = cluster.lb.metric("server_requests_total", server="s0", code="2xx")
    with Load(cluster.port, 4, SECONDS) as load:
        cluster.servers[0].start()
        cluster.wait_up(1, 1, 1)
        assert cluster.lb.metric("health_checks_total", server="s0", result="pass") >= passes + 2
        # Its late failures may count against it for some seconds more.
        cluster.lb.wait_metric("server_requests_total", before + 20, server="s0", code="2xx")
    assert not load.failed


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [True], indirect=True)
def test_no_request_fails_where_requests_may_be_repeated(cluster: Cluster) -> None:
    load, _, _ = kill_under_load(cluster)
    assert [(one.status, one.error) for one in load.lost] == []
    assert set(cluster.executed()) == {outcome.id for outcome in load.outcomes}
    come_back(cluster)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [False], indirect=True)
def test_only_posts_in_flight_fail_and_none_is_executed_twice(cluster: Cluster) -> None:
    load, began, over = kill_under_load(cluster)
    assert len(load.failed) <= CLIENTS
    assert {one.status for one in load.lost} <= {502}
    late = [one for one in load.failed if not (one.started <= over and one.ended >= began)]
    assert not late, "failed, but was not in flight at the kill"
    executed = cluster.executed()
    assert [name for name, times in executed.items() if times > 1] == []
    assert {one.id for one in load.outcomes} - set(executed) <= {one.id for one in load.failed}
    by_lb = [entry for entry in cluster.lb.access_log() if entry["status"] == 502]
    assert len(by_lb) == len(load.lost)
    assert {entry["server"] for entry in by_lb} <= {"s0"}
    come_back(cluster)


class Spy(BaseHTTPRequestHandler):
    """Stands in for a dead server: fails every request and writes it down."""

    seen: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.command, self.path))
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the list says it all."""


@pytest.mark.parametrize("cluster", [True], indirect=True)
def test_a_server_that_is_down_gets_checks_only(cluster: Cluster) -> None:
    """Something else listens on the dead server's port and writes down who comes."""
    victim = cluster.servers[0]
    Spy.seen.clear()
    with Load(cluster.port, 4) as load:
        load.wait_for(20)
        victim.kill()
        cluster.wait_up(0, 1, 1)
        began = time.monotonic()
        with ThreadingHTTPServer(("127.0.0.1", victim.port), Spy) as spy:
            thread = threading.Thread(target=spy.serve_forever, args=(0.02,))
            thread.start()
            wait_until(lambda: len(Spy.seen) >= 3, "three checks")
            load.wait_for(100)
            spy.shutdown()
            thread.join()
        assert set(Spy.seen) == {("GET", "/health")}
        assert len(Spy.seen) < 5 + 2 * (time.monotonic() - began) / CHECK_S
        victim.start()
        cluster.wait_up(1, 1, 1)
    assert not load.lost


@pytest.mark.parametrize("cluster", [True], indirect=True)
def test_all_killed_is_503_at_once_and_heals_by_itself(cluster: Cluster) -> None:
    in_threads(3, lambda number: cluster.servers[number].kill())
    with session() as client:
        first = client.post(f"http://127.0.0.1:{cluster.port}/work", json={"id": "0"}, timeout=60)
        assert first.status_code in (502, 503), "the request that finds out may name what it met"
    cluster.wait_up(0, 0, 0)
    for number in range(20):
        with Client(cluster.port) as client:
            answer = client.ask(get(f"/dead-{number}"))
        logged = cluster.lb.entry(f"/dead-{number}")
        assert (logged["attempts"], logged["queue_ms"], logged["connect_ms"]) == (0, None, None), logged
        assert answer.status == 503
        assert answer.get("content-type") == "application/problem+json"
        assert int(answer.get("retry-after") or 0) >= 1
        assert "no_server" in (answer.get("proxy-status") or "")
    used = cluster.lb.cpu_s()
    time.sleep(2.0)
    assert cluster.lb.cpu_s() - used < 0.2, "it is busy although there is nothing to do"
    assert cluster.lb.admin_get("/readyz")[0] == 503
    for server in cluster.servers:
        server.start()
    # The only hope needs one pass; the others `rise`.
    wait_until(lambda: any(server._answers() for server in cluster.servers), "a server to answer", START_S)
    cluster.wait_up(1, 1, 1)
    assert cluster.lb.admin_get("/readyz")[0] == 200
    with Load(cluster.port, 4) as load:
        load.wait_for(50)
    assert not load.failed
