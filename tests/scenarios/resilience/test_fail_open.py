"""When checks call everybody down: who is believed, who is used all the same, and what becomes of those who wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer, Script, silent
from tests.support.rig import get
from tests.support.site import Crowd, Pool, Server, Site
from tests.support.waiting import wait_until

CHECK = {"type": "http", "path": "/health", "interval": "100ms", "timeout": "60s", "rise": 1, "fall": 1}
PLAN: dict[str, dict[str, object]] = {
    "by-default": {"health_check": CHECK},
    "off": {"health_check": CHECK, "fail_open": "off"},
    "half": {"n": 4, "health_check": CHECK, "fail_open": 0.5},
    "refusing": {"health_check": CHECK},
    "waiting": {"n": 1, "health_check": CHECK, "fail_open": "off", "max_inflight": 1, "queue": {"timeout": "300s"}},
}


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory, n_workers: int) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("fail-open"), PLAN, workers=n_workers) as site:
        yield site


def sick(is_sick: threading.Event) -> Script:
    """A server that answers requests well, and its check with 500 while the event is set."""

    def script(c: Peer) -> None:
        while True:
            request = c.read_request()
            if request.target == "/health":
                c.send(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % (500 if is_sick.is_set() else 200))
            else:
                c.origin.attend(c)  # type: ignore[attr-defined]
                c.send(c.origin.answer(request))

    return script


def make_sick(pool: Pool, *numbers: int) -> threading.Event:
    is_sick = threading.Event()
    is_sick.set()
    well = threading.Event()
    for number in range(len(pool.servers)):
        wait_until(lambda: pool.member(number)["health"] == "up", "a first check to pass")  # noqa: B023
    for number, server in enumerate(pool.servers):
        server.default = sick(is_sick if number in numbers else well)
    for number in numbers:
        pool.wait_state(number, "down")
    for number in set(range(len(pool.servers))) - set(numbers):
        pool.wait_state(number, "up")
    return is_sick


def statuses(pool: Pool, count: int) -> list[int]:
    return [pool.ask(get(f"/{pool.name}-{number}")).status for number in range(count)]


def served(pool: Pool) -> list[int]:
    """Requests that each server got, checks aside."""
    return [sum(target != "/health" for target in server.targets) for server in pool.servers]


def test_when_checks_fail_everywhere_they_are_not_believed(site: Site) -> None:
    pool = site.pool("by-default")
    is_sick = make_sick(pool, 0, 1)
    assert statuses(pool, 10) == [200] * 10 and served(pool) == [5, 5]
    assert pool.status()["failing_open"] is True
    assert pool.metric("fail_open_total") == 10
    is_sick.clear()
    pool.wait_state(0, "up")
    assert pool.status()["failing_open"] is False
    assert statuses(pool, 4) == [200] * 4
    assert pool.metric("fail_open_total") == 10


def test_switched_off_nobody_is_asked(site: Site) -> None:
    pool = site.pool("off")
    make_sick(pool, 0, 1)
    answer = pool.ask(get("/off"))
    assert answer.status == 503 and int(answer.get("retry-after") or 0) >= 1
    assert served(pool) == [0, 0] and pool.status()["failing_open"] is False
    assert "answered 500 to GET /health" in str(pool.member(0)["why"])


def test_a_share_is_the_limit_at_which_checks_are_no_longer_believed(site: Site) -> None:
    pool = site.pool("half")
    is_sick = make_sick(pool, 0)
    assert statuses(pool, 6) == [200] * 6 and served(pool) == [0, 2, 2, 2], "one of four is believed"
    is_sick.clear()
    pool.wait_state(0, "up")
    make_sick(pool, 0, 1)
    before = served(pool)
    assert statuses(pool, 8) == [200] * 8
    assert [now - then for now, then in zip(served(pool), before, strict=True)] == [2, 2, 2, 2], "two of four are not"


def test_who_refuses_connections_is_believed_always(site: Site) -> None:
    pool = site.pool("refusing")
    make_sick(pool, 1)
    pool.servers[0].close()
    wait_until(lambda: "refused" in str(pool.member(0)["why"]), "the closed port to be noticed")
    wait_until(lambda: pool.status()["failing_open"], "it to fail open")
    connects = pool.metric("upstream_connects_total", server=pool.servers[0].address)
    assert statuses(pool, 10) == [200] * 10 and served(pool) == [0, 10]
    assert pool.metric("upstream_connects_total", server=pool.servers[0].address) == connects


def test_who_waits_is_served_when_the_last_server_comes_back(site: Site) -> None:
    """Newcomers are told at once that there is nobody; who has a place keeps it while its time lasts."""
    pool = site.pool("waiting")
    (server,) = pool.servers
    is_sick = threading.Event()
    server.default = sick(is_sick)
    pool.wait_state(0, "up")
    server.gate.clear()
    with Crowd(4) as crowd:
        answers = []
        for number in range(3):
            answers.append(crowd.start(partial(pool.ask, get(f"/waiting-{number}"))))
            wait_until(
                lambda: pool.metric("queue_depth") + pool.metric("server_inflight") == number + 1,  # noqa: B023
                "the request to be in",
            )
        is_sick.set()
        pool.wait_state(0, "down")
        assert pool.ask(get("/newcomer")).status == 503
        assert pool.metric("queue_depth") == 2
        server.gate.set()
        assert answers[0].result().status == 200
        assert pool.metric("queue_depth") == 2, "a server that is down gets nobody"
        is_sick.clear()
        assert [answer.result().status for answer in answers] == [200] * 3
    assert pool.metric("queue_depth") == 0


def test_why_says_what_happened(tmp_path: Path) -> None:
    pools: dict[str, dict[str, object]] = {
        "p": {"n": 3, "circuit_breaker": {"failures": 2, "open": "300s"}, "retry": {"attempts": 0}}
    }
    with Site(tmp_path, pools) as site:
        pool = site.pool("p")
        pool.servers[1].answer = lambda request: b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"
        pool.servers[2].close()
        statuses(pool, 9)
        whys = [str(pool.member(number)["why"]) for number in range(3)]
        assert whys[0] == ""
        assert whys[1].startswith("ejected ") and "2 consecutive answers 503, next probe in " in whys[1]
        assert whys[2] == "connection refused under traffic"
        site.check()


def readiness(lb: LbProxy) -> tuple[int, str]:
    status, body = lb.admin_get("/readyz")
    return status, body.decode()


def test_servers_that_load_their_models_are_not_announced(tmp_path: Path) -> None:
    """A rollout waits for /readyz: it must not become 200 because nobody is well, nor before anybody was asked."""
    with Site(tmp_path, {"p": {"health_check": CHECK}}, admin={"bind": "127.0.0.1:0"}) as site:
        pool = site.pool("p")
        for server in pool.servers:
            server.close()
        wait_until(lambda: "down" in readiness(pool.lb)[1], "the closed ports to be noticed")
        assert readiness(pool.lb)[0] == 503
    loading = threading.Event()
    loading.set()
    servers = [Server() for _ in range(2)]
    for server in servers:
        server.default = sick(loading)
    config: dict[str, object] = {
        "admin": {"bind": "127.0.0.1:0"},
        "listeners": [{"name": "p", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": [server.address for server in servers], "health_check": CHECK}},
    }
    try:
        with LbProxy(config, tmp_path / "loading") as lb:
            wait_until(lambda: "answered 500 to GET /health" in readiness(lb)[1], "the checks to fail")
            for _ in range(5):
                assert readiness(lb)[0] == 503
            with Client(lb.port("p")) as client:
                assert client.ask(get("/x")).status == 503, "who never was well gets no requests"
            wait_until(lambda: "is down, was never up: answered 500 to GET /health" in lb.stderr, "the log to say it")
            loading.clear()
            wait_until(lambda: readiness(lb) == (200, "ready\n"), "a server to pass")
            loading.set()
            wait_until(lambda: lb.status()["pools"][0]["failing_open"], "it to fail open")  # type: ignore[index]
            assert readiness(lb) == (200, "ready\n"), "those that were up are used all the same"
    finally:
        for server in servers:
            server.close()


def test_nobody_is_announced_before_the_first_check(tmp_path: Path) -> None:
    """A server that accepts and stays silent: no check has passed or failed for as long as its time-out."""
    with Origin(default=silent) as origin:
        config: dict[str, object] = {
            "admin": {"bind": "127.0.0.1:0"},
            "listeners": [{"name": "p", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {
                "p": {"servers": [origin.address], "health_check": {"type": "http", "path": "/", "timeout": "60s"}}
            },
        }
        with LbProxy(config, tmp_path) as lb:
            why = f"pool p waits for a server to pass its first check: {origin.address} up (not checked yet)"
            assert readiness(lb) == (503, f"not ready: {why}\n")
