"""Live control of a running daemon, under traffic: what the API changes, and what it does not let anybody change."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.daemon import Entry, LbProxy
from tests.support.origin import Origin, Peer
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.wire import Request

JSON = {"Content-Type": "application/json"}
CHECK = {"path": "/health", "interval": "100ms"}


def config(*servers: object, admin: Mapping[str, object] | None = None, **pool: object) -> dict[str, object]:
    return {
        "admin": {"bind": "127.0.0.1:0", **(admin or {})},
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "predict"}],
        "pools": {"predict": {"servers": list(servers), "strategy": "round_robin", "health_check": "off", **pool}},
    }


def call(
    lb: LbProxy, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Entry]:
    """One call of the API. body: bytes go out as they are, anything else as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection("127.0.0.1", lb.port("admin"), timeout=PATIENCE_S)
    try:
        connection.request(method, path, body=data, headers={**(JSON if data is not None else {}), **(headers or {})})
        answer = connection.getresponse()
        told = json.loads(answer.read() or b"{}")
        return answer.status, told
    finally:
        connection.close()


def path_of(server: str, pool: str = "predict") -> str:
    return f"/api/v1/pools/{pool}/servers/{quote(server, safe='')}"


def servers(lb: LbProxy) -> dict[str, Entry]:
    pools = lb.status()["pools"]
    assert isinstance(pools, list)
    return {server["name"]: server for server in pools[0]["servers"]}


def ask(lb: LbProxy, target: str = "/") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", lb.port("in"), timeout=PATIENCE_S)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


class Traffic:
    """Threads that ask all the time, each on a kept connection; every request has a target of its own."""

    def __init__(self, lb: LbProxy, n_clients: int = 4) -> None:
        self._port = lb.port("in")
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(n_clients)]
        self.began: dict[str, float] = {}
        self.wrong: list[str] = []

    @contextmanager
    def running(self) -> Iterator[Traffic]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _run(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        count = 0
        while not self._stop.is_set():
            count += 1
            target = f"/{number}/{count}"
            self.began[target] = time.monotonic()
            try:
                connection.request("POST", target, b"x")
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or target.encode() not in body:
                    self.wrong.append(f"{target}: {answer.status} {body!r}")
            except OSError as error:
                self.wrong.append(f"{target}: {error!r}")
                connection.close()
        connection.close()

    def at(self, origin: Origin, since: float) -> list[str]:
        """What the server got of the requests that were sent later than this."""
        return [request.target for request in list(origin.requests) if self.began.get(request.target, 0.0) > since]

    def wait(self, origin: Origin, count: int) -> None:
        """Let it have so many more requests."""
        since = time.monotonic()
        wait_until(lambda: len(self.at(origin, since)) >= count, f"{count} requests at {origin.address}")


def test_a_drain_under_load_loses_nothing_and_holds_at_once(tmp_path: Path) -> None:
    with (
        Origin() as a,
        Origin() as b,
        LbProxy(config(a.address, b.address), tmp_path / "lb") as lb,
        Traffic(lb).running() as traffic,
    ):
        for admin in ("drain", "maint"):
            traffic.wait(a, 20)
            status, told = call(lb, "PATCH", path_of(a.address), {"admin": admin})
            answered_at = time.monotonic()
            assert (status, told["changed"]) == (200, {"admin": {"old": "ready", "new": admin}})
            traffic.wait(b, 50)
            assert traffic.at(a, answered_at) == []
            assert call(lb, "PATCH", path_of(a.address), {"admin": "ready"})[0] == 200
            traffic.wait(a, 20)
        status, told = call(lb, "DELETE", path_of(a.address))
        answered_at = time.monotonic()
        assert status in (200, 202)
        traffic.wait(b, 50)
        assert traffic.at(a, answered_at) == []
        wait_until(lambda: list(servers(lb)) == [b.address], "it to go, with its last request")
        assert call(lb, "POST", "/api/v1/pools/predict/servers", {"address": a.address})[0] == 201
        traffic.wait(a, 20)
    assert traffic.wrong == [] and a.violations == b.violations == []
    assert lb.stderr.count(", by 127.0.0.1") == 6


def test_maintenance_stops_the_checks(tmp_path: Path) -> None:
    def checks(origin: Origin) -> int:
        return sum(request.target == "/health" for request in list(origin.requests))

    def wait_checked(origin: Origin, more: int) -> None:
        before = checks(origin)
        wait_until(lambda: checks(origin) >= before + more, "checks")

    with Origin() as a, Origin() as b, LbProxy(config(a.address, b.address, health_check=CHECK), tmp_path / "lb") as lb:
        wait_checked(a, 2)
        assert call(lb, "PATCH", path_of(a.address), {"admin": "drain"})[0] == 200
        wait_checked(a, 3)
        assert call(lb, "PATCH", path_of(a.address), {"admin": "maint"})[0] == 200
        wait_checked(b, 2)
        wait_until(lambda: a.open_connections == 0, "the check that was on its way to end")
        before = checks(a)
        wait_checked(b, 8)
        assert checks(a) == before and servers(lb)[a.address]["state"] == "maint"
        assert call(lb, "PATCH", path_of(a.address), {"admin": "ready"})[0] == 200
        wait_checked(a, 3)


def test_a_higher_limit_wakes_who_waits(tmp_path: Path) -> None:
    release = threading.Event()

    def holds(peer: Peer) -> None:
        request = peer.read_request()
        peer.wait(release)
        peer.send(peer.origin.answer(request))

    with Origin(default=holds) as a, LbProxy(config({"address": a.address, "max_inflight": 1}), tmp_path / "lb") as lb:
        statuses: list[int] = []
        threads = [threading.Thread(target=lambda: statuses.append(ask(lb))) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            lb.wait_metric("queue_depth", 3)
            status, told = call(lb, "PATCH", path_of(a.address), {"max_inflight": 3})
            assert (status, told["changed"]) == (200, {"max_inflight": {"old": 1, "new": 3}})
            wait_until(lambda: len(a.requests) == 3, "three requests at the server")
            assert lb.metric("queue_depth") == 1 and statuses == []
            assert call(lb, "PATCH", path_of(a.address), {"max_inflight": "off"})[0] == 200
            wait_until(lambda: len(a.requests) == 4, "the last one")
        finally:
            release.set()
            for thread in threads:
                thread.join()
        assert statuses == [200] * 4


def test_ready_wakes_who_waits(tmp_path: Path) -> None:
    release = threading.Event()

    def holds(peer: Peer) -> None:
        request = peer.read_request()
        peer.wait(release)
        peer.send(peer.origin.answer(request))

    with (
        Origin(default=holds) as a,
        Origin() as b,
        LbProxy(config(a.address, b.address, max_inflight=1), tmp_path / "lb") as lb,
    ):
        assert call(lb, "PATCH", path_of(b.address), {"admin": "drain"})[0] == 200
        statuses: list[int] = []
        threads = [threading.Thread(target=lambda: statuses.append(ask(lb))) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            lb.wait_metric("queue_depth", 1)
            assert call(lb, "PATCH", path_of(b.address), {"admin": "ready"})[0] == 200
            wait_until(lambda: statuses == [200], "the one that waited")
        finally:
            release.set()
            for thread in threads:
                thread.join()


def test_an_added_server_serves_after_its_first_check(tmp_path: Path) -> None:
    is_well = threading.Event()

    def answer(request: Request) -> bytes:
        if request.target == "/health" and not is_well.is_set():
            return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    with (
        Origin() as a,
        Origin(path=str(tmp_path / "b.sock"), answer=answer) as b,
        LbProxy(config(a.address, health_check=CHECK), tmp_path / "lb") as lb,
    ):
        path = "/api/v1/pools/predict/servers"
        status, told = call(lb, "POST", path, {"address": b.address, "max_inflight": 5, "weight": 2})
        added = told["servers"]
        assert status == 201 and isinstance(added, list)
        assert (added[0]["name"], added[0]["state"], added[0]["source"]) == (b.address, "down", "live")
        wait_until(lambda: len(b.requests) >= 3, "three checks")
        assert [ask(lb) for _ in range(6)] == [200] * 6
        assert {request.target for request in b.requests} == {"/health"}
        is_well.set()
        wait_until(lambda: servers(lb)[b.address]["state"] == "up", "its first pass")
        assert [ask(lb) for _ in range(6)] == [200] * 6
        assert "/" in {request.target for request in b.requests}
        assert call(lb, "POST", path, {"address": b.address})[0] == 409
        assert lb.metric("server_weight", server=b.address) == 2


def test_a_removed_server_finishes_what_it_has(tmp_path: Path) -> None:
    release = threading.Event()

    def holds(peer: Peer) -> None:
        request = peer.read_request()
        peer.wait(release)
        peer.send(peer.origin.answer(request))

    with Origin() as a, Origin(default=holds) as b, LbProxy(config(b.address), tmp_path / "lb") as lb:
        statuses: list[int] = []
        thread = threading.Thread(target=lambda: statuses.append(ask(lb)))
        thread.start()
        try:
            wait_until(lambda: len(b.requests) == 1, "a request at the server")
            assert call(lb, "POST", "/api/v1/pools/predict/servers", {"address": a.address})[0] == 201
            status, told = call(lb, "DELETE", path_of(b.address))
            assert (status, told["removed"]) == (202, False)
            assert [ask(lb) for _ in range(4)] == [200] * 4 and len(b.requests) == 1
            assert servers(lb)[b.address]["leaving"] is True
        finally:
            release.set()
            thread.join()
        assert statuses == [200]
        wait_until(lambda: list(servers(lb)) == [a.address], "it to be gone")
        wait_until(lambda: f'server="{b.address}"' not in lb.exposition(), "its counters to be gone")
        assert call(lb, "DELETE", path_of(b.address))[0] == 404


def test_names_with_slashes_colons_and_paths(tmp_path: Path) -> None:
    path = str(tmp_path / "a b%2F.sock")
    with Origin(path=path) as a, Origin() as b, Origin() as c:
        named = {"address": c.address, "name": "zone/a:1?x=%41&#é"}
        with LbProxy(config(a.address, f"localhost:{b.port}", named), tmp_path / "lb") as lb:
            wait_until(lambda: len(servers(lb)) == 3, "the name to be resolved")
            names = list(servers(lb))
            assert f"localhost:{b.port}/127.0.0.1" in names
            for name in names:
                status, told = call(lb, "PATCH", path_of(name), {"weight": 3})
                assert status == 200, (name, told)
                assert servers(lb)[name]["weight"] == 3
            status, told = call(lb, "GET", f"/api/v1/pools/predict/servers/localhost:{b.port}/127.0.0.1")
            assert status == 200 and isinstance(told["server"], dict)
            assert told["server"]["source"] == "dns"
            assert call(lb, "DELETE", path_of(f"localhost:{b.port}/127.0.0.1"))[0] == 409


def test_what_is_not_there_brings_what_may_be_meant(tmp_path: Path) -> None:
    with Origin() as a, LbProxy(config(a.address), tmp_path / "lb") as lb:
        status, told = call(lb, "PATCH", path_of(a.address, "predcit"), {"weight": 2})
        assert (status, told["detail"]) == (404, "there is no pool predcit; did you mean predict?")
        status, told = call(lb, "PATCH", path_of("127.0.0.1:1"), {"weight": 2})
        assert status == 404 and a.address in str(told["detail"])


BIG = json.dumps({"weight": 5, "pad": "x" * 70_000}).encode()
READ, WRITE, CI = ({"Authorization": f"Bearer {secret}"} for secret in ("reads", "s3cret", "writes"))
TOKENS = {"token": "s3cret", "tokens": {"monitoring": {"token": "reads", "scope": "read"}, "ci": "writes"}}
WRONG: list[tuple[str, str, object, Mapping[str, str], int]] = [
    ("PATCH", "{}", {"weight": 5}, {}, 401),
    ("PATCH", "{}", {"weight": 5}, {"Authorization": "Bearer wrong"}, 401),
    ("PATCH", "{}", {"weight": 5}, {"Authorization": "Basic s3cret"}, 401),
    ("PATCH", "{}", {"weight": 5}, READ, 403),
    ("DELETE", "{}", None, READ, 403),
    ("DELETE", "{}", None, {}, 401),
    ("POST", "", {"address": "127.0.0.1:9"}, {}, 401),
    ("PATCH", "{}", {"weight": 5, "admin": "off"}, WRITE, 422),
    ("PATCH", "{}", {"admin": "drain", "wieght": 5}, WRITE, 422),
    ("PATCH", "{}", {"admin": "drain", "max_inflight": -1}, WRITE, 422),
    ("PATCH", "{}", {}, WRITE, 422),
    ("PATCH", "{}", None, WRITE, 422),
    ("PATCH", "{}", ["drain"], WRITE, 422),
    ("PATCH", "{}", b'{"weight": 5, "weight": 6}', WRITE, 422),
    ("PATCH", "{}", b'{"weight": 5', WRITE, 400),
    ("PATCH", "{}", b"\xff\xfe", WRITE, 400),
    ("PATCH", "{}", b"[" * 60_000, WRITE, 400),
    ("PATCH", "{}", BIG, WRITE, 413),
    ("PATCH", "{}", b'{"weight": 5}', {**WRITE, "Content-Type": "text/plain"}, 415),
    ("PUT", "{}", {"weight": 5}, WRITE, 405),
    ("POST", "{}", {"weight": 5}, WRITE, 405),
    ("PATCH", "", {"weight": 5}, WRITE, 405),
    ("DELETE", "", None, WRITE, 405),
    ("DELETE", "{}", {"force": True}, WRITE, 422),
    ("PATCH", "../../predict/servers/x{}", {"weight": 5}, WRITE, 404),
    ("DELETE", "..%2f{}", None, WRITE, 404),
    ("POST", "", {"address": "127.0.0.1:9", "weight": "x"}, WRITE, 422),
    ("POST", "", {"address": "app.example:80"}, WRITE, 422),
    ("POST", "", b'"127.0.0.1:9"', WRITE, 422),
]


def test_nothing_is_changed_without_the_right_or_with_mistakes(tmp_path: Path) -> None:
    def told(lb: LbProxy) -> list[object]:
        return [
            (name, server["admin"], server["weight"], server["max_inflight"], server["leaving"])
            for name, server in servers(lb).items()
        ]

    with Origin() as a, LbProxy(config(a.address, admin=TOKENS), tmp_path / "lb") as lb:
        before = told(lb)
        for method, rest, body, headers, expected in WRONG:
            place = f"/{rest.format(quote(a.address, safe=''))}" if rest else ""
            path = f"/api/v1/pools/predict/servers{place}"
            status, answer = call(lb, method, path, body, headers)
            assert (status, answer["status"]) == (expected, expected), (method, path, body, answer)
            assert told(lb) == before, (method, path, body)
        assert ", by " not in lb.stderr
        status, _ = call(lb, "PATCH", path_of(a.address), {"weight": 5}, WRITE)
        assert status == 200 and told(lb) != before
        lb.wait_logged(f"pool predict: server {a.address}: weight: 1 -> 5, by admin.token from 127.0.0.1")
        assert call(lb, "GET", path_of(a.address), headers=READ)[0] == 200
        assert call(lb, "PATCH", path_of(a.address), {"weight": 6}, CI)[0] == 200
        lb.wait_logged(f"pool predict: server {a.address}: weight: 5 -> 6, by ci from 127.0.0.1")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 200),
    ],
)
def test_pages_of_strangers_change_nothing(tmp_path: Path, headers: Mapping[str, str], expected: int) -> None:
    with Origin() as a, LbProxy(config(a.address), tmp_path / "lb") as lb:
        assert call(lb, "PATCH", path_of(a.address), {"admin": "drain"}, headers)[0] == expected
        assert servers(lb)[a.address]["admin"] == ("drain" if expected == 200 else "ready")


def test_a_body_that_comes_slowly_changes_nothing_until_it_is_whole(tmp_path: Path) -> None:
    with Origin() as a, LbProxy(config(a.address), tmp_path / "lb") as lb:
        head = f"PATCH {path_of(a.address)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", lb.port("admin")), 20) as slow:
            slow.sendall(f'{head}Content-Length: 20\r\n\r\n{{"weight": 5'.encode())
            assert ask(lb) == 200 and servers(lb)[a.address]["weight"] == 1
    assert ", by " not in lb.stderr
