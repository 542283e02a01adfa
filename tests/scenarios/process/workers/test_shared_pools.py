"""Two workers on the same servers: limits, turns, verdicts and orders are those of one, and so are the counts."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.support.arrivals import Arrivals
from tests.support.client import Client
from tests.support.crew import CrewProxy
from tests.support.origin import close_unanswered
from tests.support.rig import get
from tests.support.site import Crowd, Pool, Server
from tests.support.waiting import wait_until

POOLS: dict[str, dict[str, object]] = {
    "one": {"max_inflight": 1},
    "turns": {"max_inflight": 1},
    "free": {},
    "ejects": {"circuit_breaker": {"failures": 3, "open": "60s"}, "retry": {"attempts": 0}},
    "joins": {},
    "late": {"max_inflight": 1},
}
N_SERVERS = {"free": 2, "ejects": 2}


class Workers(CrewProxy):
    """servers: of each pool."""

    servers: dict[str, list[Server]]

    @property
    def lb(self) -> Workers:
        """As a Site has one."""
        return self

    def pool(self, name: str) -> Pool:
        return Pool(self, name, self.servers[name])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    servers = {name: [Server() for _ in range(N_SERVERS.get(name, 1))] for name in POOLS}
    lb = Workers(
        {
            "workers": 2,
            "trusted_proxies": ["127.0.0.0/8"],
            "listeners": [{"name": name, "bind": "127.0.0.1:0", "pool": name} for name in POOLS],
            "pools": {
                name: {
                    "servers": [server.address for server in servers[name]],
                    "strategy": "round_robin",
                    "health_check": "off",
                    **settings,
                }
                for name, settings in POOLS.items()
            },
        },
        tmp_path_factory.mktemp("lb"),
    )
    lb.servers = servers
    try:
        yield lb.start()
        lb.stop(allow_errors=True)
    finally:
        lb.kill()
        for server in [server for of_pool in servers.values() for server in of_pool]:
            server.close()


def at_both(lb: Workers, stack: contextlib.ExitStack, name: str, number: int = 16) -> list[Client]:
    """So many connections that both workers have some."""
    return [stack.enter_context(Client(lb.port(name))) for _ in range(number)]


def test_a_server_never_has_more_than_its_limit(lb: Workers) -> None:
    (server,) = lb.servers["one"]
    server.service_s = 0.002
    pool = lb.pool("one")

    def ask(worker: int) -> list[int]:
        with pool.client() as client:
            return [client.ask(get(f"/one-{worker}-{number}")).status for number in range(15)]

    with Crowd(16) as crowd:
        answers = [crowd.start(partial(ask, worker)) for worker in range(16)]
        assert {status for answer in answers for status in answer.result()} == {200}
    assert (server.most_at_work, len(server.requests)) == (1, 240)
    assert lb.metric("requests_total", pool="one", code="2xx") == 240
    assert pool.metric("server_requests_total", code="2xx") == 240
    assert pool.metric("request_duration_seconds_count") == 240
    assert (pool.metric("server_inflight"), pool.metric("queue_depth")) == (0, 0)
    assert pool.member(0)["requests"] == 240


def test_first_come_first_served_whoever_has_them(lb: Workers) -> None:
    (server,) = lb.servers["turns"]
    pool = lb.pool("turns")
    server.gate.clear()
    with contextlib.ExitStack() as stack:
        clients = at_both(lb, stack, "turns", 12)
        arrivals = Arrivals()
        for number, client in enumerate(clients):
            sent_at = time.monotonic()
            client.send(get(f"/turn-{number}"))
            if number == 0:
                wait_until(lambda: server.at_work == 1, "the first to be at work")
            else:
                pool.wait_queued(number)
            arrivals.came(f"/turn-{number}", sent_at, time.monotonic())
        assert pool.metric("pool_saturation_ratio") == 12
        server.gate.set()
        assert [client.response().status for client in clients] == [200] * 12
    arrivals.check(server.targets)
    assert server.targets[0] == "/turn-0"
    assert server.most_at_work == 1


def test_a_drain_holds_in_all_workers_from_its_answer_on(lb: Workers) -> None:
    first, second = lb.servers["free"]
    path = f"/api/v1/pools/free/servers/{first.address}"
    with contextlib.ExitStack() as stack:
        clients = at_both(lb, stack, "free")
        for admin, share in (("drain", 0), ("ready", 1)):
            status, _ = lb.ask_admin("PATCH", path, json.dumps({"admin": admin}).encode())
            assert status == 200
            before = len(first.requests)
            for _ in range(4):
                assert {client.ask(get("/free")).status for client in clients} == {200}
            assert (len(first.requests) > before) == bool(share)
    assert second.requests


def test_who_is_ejected_in_one_worker_is_out_in_all(lb: Workers) -> None:
    bad, _ = lb.servers["ejects"]
    bad.default = close_unanswered
    pool = lb.pool("ejects")
    with contextlib.ExitStack() as stack:
        clients = at_both(lb, stack, "ejects")
        while pool.member(0)["state"] != "ejected":
            assert clients[0].ask(get("/find-out")).status in (200, 502)
        n_bad = len(bad.requests)
        assert n_bad == 3
        assert {client.ask(get("/others")).status for client in clients} == {200}
        assert len(bad.requests) == n_bad
    assert pool.metric("server_ejections_total") == 1
    assert "3 consecutive" in str(pool.member(0)["why"])


def test_a_server_that_joins_is_used_by_all_and_one_that_leaves_by_none(lb: Workers) -> None:
    (first,) = lb.servers["joins"]
    with Server() as late, contextlib.ExitStack() as stack:
        clients = at_both(lb, stack, "joins")
        body = json.dumps({"address": late.address, "name": "late"}).encode()
        assert lb.ask_admin("POST", "/api/v1/pools/joins/servers", body)[0] in (200, 201)
        for client in clients:  # round robin: one of two is the new one
            assert {client.ask(get("/new")).status for _ in range(2)} == {200}
        assert len(late.requests) >= len(clients) / 2
        assert len(late.requests) + len(first.requests) == 2 * len(clients)
        assert lb.ask_admin("DELETE", "/api/v1/pools/joins/servers/late")[0] in (200, 202)
        wait_until(lambda: len(lb.server_status("joins")) == 1, "the server to be gone")
        n_late = len(late.requests)
        for client in clients:
            assert client.ask(get("/gone")).status == 200
        assert len(late.requests) == n_late


def test_no_counter_goes_down_and_no_slot_is_lost_when_workers_are_killed(lb: Workers) -> None:
    (server,) = lb.servers["one"]
    server.service_s = 0.002
    pool, is_over, wrong = lb.pool("one"), threading.Event(), list[str]()
    before = lb.metric("requests_total", pool="one", code="2xx")

    def load() -> int:
        n_answered = 0
        while not is_over.is_set():
            with contextlib.suppress(OSError, Exception), pool.client() as client:
                for _ in range(5):
                    n_answered += client.ask(get("/load")).status == 200
        return n_answered

    def watch() -> None:
        last = before
        while not is_over.is_set():
            now = lb.metric("requests_total", pool="one", code="2xx")
            if now < last:
                wrong.append(f"{last} became {now}")
            last = now

    with Crowd() as crowd:
        answers = [crowd.start(load) for _ in range(6)]
        watching = crowd.start(watch)
        for name in ("1", "2"):
            lb.wait_metric("requests_total", before + 20, pool="one", code="2xx")
            lb.wait_replaced(name, lb.kill_member(name))
        is_over.set()
        watching.result()
        n_answered = sum(answer.result() for answer in answers)
    assert wrong == []
    assert n_answered >= 20
    wait_until(lambda: (pool.metric("server_inflight"), pool.metric("queue_depth")) == (0, 0), "nothing to be left")
    assert pool.ask(get("/after")).status == 200
    # What a worker was killed at, its server may still be working at.
    assert server.most_at_work <= 3


def test_a_deadline_that_cannot_be_met_is_known_to_all_by_what_one_has_seen(lb: Workers) -> None:
    """One request takes 0.8 s, in one worker; within a second each of them refuses at once who has 0.3 s."""
    pool = lb.pool("late")
    server = pool.servers[0]
    server.service_s = 0.8
    assert pool.ask(get("/known")).status == 200
    server.gate.clear()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(pool.client())
        first.send(get("/first"))
        pool.wait_inflight(1)

        def all_know() -> bool:
            with contextlib.ExitStack() as asking:
                clients = at_both(lb, asking, "late")
                answers = [client.ask(get("/late", "X-Request-Timeout: 300ms")) for client in clients]
            assert {answer.status for answer in answers} <= {503, 504}
            return all(b"deadline_unreachable" in answer.body for answer in answers)

        wait_until(all_know, "both workers to know how long it takes")
        server.gate.set()
        assert first.response().status == 200
    assert "/late" not in server.targets
